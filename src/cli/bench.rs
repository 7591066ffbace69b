//! `emm bench`: how fast this machine runs the parts.

use super::common::check_least;
use super::train_flags::{ImageFlags, TrainFlags};
use super::{Common, bench_nearest, bench_optimal, say, say_json};
use crate::device::Device;
use crate::memory::Size;
use crate::model::TrainerOptions;
use crate::model::flops::flops;
use crate::model::{ModelConfig, Params};
use crate::numbers::count;
use crate::run::bench::{launches, median, sample, step};
use crate::run::ceilings::Ceilings;
use crate::run::kernel_times::{self, Row};
use crate::run::memory::micro_batch;
use crate::sampler::HeunOptions;
use anyhow::Result;
use serde_json::json;

/// Time the parts of a training on this machine: launches, steps, sampling, nearest neighbours
#[derive(clap::Subcommand, Debug)]
pub enum Command {
    Kernels(Box<Kernels>),
    Step(Box<Step>),
    Sample(Box<SampleBench>),
    Nearest(bench_nearest::Args),
    Optimal(bench_optimal::Args),
}

/// Time training steps: batch preparation, forward, backward, Adam and EMA
#[derive(clap::Args, Debug)]
#[command(after_help = "Example:
  emm bench step --resolution 8 --channels 32 --batch 32

With --json also the losses of its first ten steps: the same seed and settings give the same on every device, to the
rounding of the precision. A step whose loss is not finite ends the command with exit code 5, after all are timed.")]
pub struct Step {
    #[command(flatten)]
    images: ImageFlags,
    /// Steps timed, after two that warm up
    #[arg(long, value_name = "N", value_parser = count, default_value = "10")]
    repeats: usize,
    #[command(flatten)]
    flags: TrainFlags,
}

/// Time the sampling of images by EDM's Heun sampler, of a network as training begins
#[derive(clap::Args, Debug)]
#[command(after_help = "Example:\n  emm bench sample --resolution 8 --channels 32 --samples 1000")]
pub struct SampleBench {
    #[command(flatten)]
    images: ImageFlags,
    /// Images sampled
    #[arg(long, value_name = "N", value_parser = count, default_value = "64")]
    samples: usize,
    /// Of them computed at a time
    #[arg(long, value_name = "IMAGES", value_parser = count, default_value = "64")]
    at_a_time: usize,
    /// Times all of them are sampled, after a batch that warms up
    #[arg(long, value_name = "N", value_parser = count, default_value = "5")]
    repeats: usize,
    #[command(flatten)]
    heun: HeunOptions,
    #[command(flatten)]
    flags: TrainFlags,
}

/// Time each launch of a training step's first micro-batch, and of the ops' cases, against what this machine can do
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  emm bench kernels --batch 8 --json
  emm bench kernels --device cuda --precision tf32

Launches are those of --precision: auto, as in training, is bf16 on a GPU and fp32 on the CPU. The ceilings are measured
first: fp32 products, a copy of memory, on a GPU also its tensor cores in bf16, tf32 and u8; a launch is held to those of
the arithmetic it does. Its share of them counts the direct algorithm's FLOP and each operand's bytes once; an algorithm
of fewer operations may pass 100%.
On a GPU the second-level cache is flushed before each launch.")]
pub struct Kernels {
    #[command(flatten)]
    images: ImageFlags,
    /// Times each launch is timed
    #[arg(long, value_name = "N", value_parser = count, default_value = "10")]
    repeats: usize,
    #[command(flatten)]
    flags: TrainFlags,
}

/// Prints how long a part takes, and at what rate it works.
///
/// # Errors
/// Usage: flags. Device: none, or out of memory.
pub fn run(command: Command, common: &Common) -> Result<()> {
    match command {
        Command::Kernels(a) => run_kernels(*a, common),
        Command::Step(a) => run_step(*a, common),
        Command::Sample(a) => run_sample(*a, common),
        Command::Nearest(a) => bench_nearest::run(a, common),
        Command::Optimal(a) => bench_optimal::run(a, common),
    }
}

fn run_step(a: Step, common: &Common) -> Result<()> {
    check_least(&[("--repeats", a.repeats, 1)])?;
    let device = common.device()?;
    let (config, options) = network(&a.flags, &a.images, common, &device)?;
    let (batch, precision) = (options.batch, options.precision);
    let times = step(&device, &config, options, a.repeats)?;
    let s = median(&times.step_s);
    let images_per_s = batch as f64 / s;
    let flop = flops(&config).train as f64 * batch as f64;
    if common.json {
        say_json!({
            "images_per_s": images_per_s,
            "flop_per_s": flop / s,
            "step_s": spread(&times.step_s),
            "losses": times.losses,
            "precision": precision,
            "batch": batch,
            "arena_bytes": times.arena_bytes,
            "device": device.name(),
        });
        return times.diverged.map_or(Ok(()), Err);
    }
    let [min, max] = ends(&times.step_s);
    say!(
        "{:.2} img/s, {:.1} GFLOP/s; step {:.2} ms ({:.2}..{:.2}); arena {}; {} parameters",
        images_per_s,
        flop / s / 1e9,
        s * 1e3,
        min * 1e3,
        max * 1e3,
        Size(times.arena_bytes as u64),
        Params::new(&config).count()
    );
    times.diverged.map_or(Ok(()), Err)
}

fn run_sample(a: SampleBench, common: &Common) -> Result<()> {
    let (repeats, samples) = (("--repeats", a.repeats, 1), ("--samples", a.samples, 1));
    check_least(&[repeats, samples, ("--at-a-time", a.at_a_time, 1)])?;
    let device = common.device()?;
    a.heun.check()?;
    let (heun, (config, _)) = (&a.heun, network(&a.flags, &a.images, common, &device)?);
    let batch = a.at_a_time.min(a.samples);
    let seed = common.seed;
    let times = sample(&device, &config, seed, a.samples, batch, heun, a.repeats)?;
    let s = median(&times);
    if common.json {
        say_json!({
            "images_per_s": a.samples as f64 / s,
            "sample_s": spread(&times),
            "images": a.samples,
            "batch": batch,
            "steps": heun.steps,
            "device": device.name(),
        });
        return Ok(());
    }
    let [min, max] = ends(&times);
    say!(
        "{:.2} img/s; {} images by {} steps in {s:.3} s ({min:.3}..{max:.3}), {batch} at a time",
        a.samples as f64 / s,
        a.samples,
        heun.steps
    );
    Ok(())
}

fn run_kernels(a: Kernels, common: &Common) -> Result<()> {
    check_least(&[("--repeats", a.repeats, 1)])?;
    let device = common.device()?;
    let (config, options) = network(&a.flags, &a.images, common, &device)?;
    let (images, precision) = (options.micro_batch, options.precision);
    let ceilings = Ceilings::measure(&device)?;
    let layers = launches(&device, &config, options, a.repeats)?;
    let cases = kernel_times::of_cases(&device, precision, a.repeats)?;
    if common.json {
        let object = |row: &Row| {
            json!({
                "name": row.name,
                "of": row.of,
                "shapes": row.shapes,
                "count": row.count,
                "median_s": row.median_s,
                "flop": row.cost.flop,
                "bytes": row.cost.bytes,
                "flop_per_s": row.cost.flop as f64 / row.median_s,
                "bytes_per_s": row.cost.bytes as f64 / row.median_s,
                "of_ceiling": ceilings.floor_s(row.cost) / row.median_s,
            })
        };
        let all = |rows: &[Row]| rows.iter().map(object).collect::<Vec<_>>();
        say_json!({
            "device": device.name(),
            "precision": precision,
            "ceilings": ceilings,
            "images": images,
            "layers": all(&layers),
            "cases": all(&cases),
        });
        return Ok(());
    }
    say!("device {}, {}", device.name(), precision.name());
    let tensor = ceilings.tensor.map_or(String::new(), |t| {
        let [bf16, tf32, u8] =
            [t.bf16_flop_per_s, t.tf32_flop_per_s, t.u8_op_per_s].map(|rate| rate / 1e12);
        let wgmma = t.wgmma_bf16_flop_per_s.map_or(String::new(), |rate| {
            format!(", {:.1} bf16 TFLOP/s by warpgroup", rate / 1e12)
        });
        format!(", tensor cores {bf16:.1} bf16, {tf32:.1} tf32 TFLOP/s, {u8:.1} u8 TOP/s{wgmma}")
    });
    say!(
        "ceilings measured here: {:.1} GFLOP/s fp32, {:.1} GB/s copied{tensor}",
        ceilings.fp32_flop_per_s / 1e9,
        ceilings.copy_bytes_per_s / 1e9
    );
    say!("\nlaunches of a micro-batch of {images} images, forward and backward");
    print_rows(&layers, &ceilings);
    say!("\ncases of the ops");
    print_rows(&cases, &ceilings);
    Ok(())
}

/// A line a launch; `ceiling` is the share of what the machine can do, by arithmetic or memory, whichever binds. The
/// direct algorithm's FLOP are counted, so a faster algorithm may pass 100%.
fn print_rows(rows: &[Row], ceilings: &Ceilings) {
    say!(
        "{:<22}{:>6}{:>12}{:>10}{:>9}{:>9}  {:<28}shapes",
        "launch",
        "count",
        "ms each",
        "GFLOP/s",
        "GB/s",
        "ceiling",
        "of"
    );
    for row in rows {
        let rate = |units: u64| units as f64 / row.median_s / 1e9;
        say!(
            "{:<22}{:>6}{:>12.4}{:>10.1}{:>9.1}{:>8.1}%  {:<28}{}",
            row.name,
            row.count,
            row.median_s * 1e3,
            rate(row.cost.flop),
            rate(row.cost.bytes),
            100.0 * ceilings.floor_s(row.cost) / row.median_s,
            row.of,
            row.shapes
        );
    }
    let total: f64 = rows.iter().map(|r| r.count as f64 * r.median_s).sum();
    say!("all together {:.3} ms", total * 1e3);
}

/// The network that the flags describe, and how a step of it is trained.
fn network(
    flags: &TrainFlags,
    images: &ImageFlags,
    common: &Common,
    device: &Device,
) -> Result<(ModelConfig, TrainerOptions)> {
    let run = flags.resolve_images(common, images)?;
    let micro_batch = micro_batch(device, &run)?;
    let options = TrainerOptions {
        micro_batch,
        shuffle: true,
        scrub_gradients: false,
        ..run.train.trainer_options()
    };
    Ok((run.model, options))
}

fn ends(times: &[f64]) -> [f64; 2] {
    [times.iter().copied().fold(f64::MAX, f64::min), times.iter().copied().fold(0.0, f64::max)]
}

fn spread(times: &[f64]) -> serde_json::Value {
    let [min, max] = ends(times);
    json!({"min": min, "median": median(times), "max": max})
}
