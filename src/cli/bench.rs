//! `emm bench`: how fast this machine runs the parts.

use super::numbers::count;
use super::train_flags::{ImageFlags, TrainFlags};
use super::{Common, bench_nearest, bench_optimal, say};
use crate::error::usage;
use crate::model::Params;
use crate::model::flops::flops;
use crate::model::trainer::TrainerOptions;
use crate::run::bench::{median, step};
use crate::run::train::micro_batch;
use anyhow::Result;
use serde_json::json;

/// Time the parts of a training on this machine
#[derive(clap::Subcommand, Debug)]
pub enum Command {
    Step(Box<Step>),
    Nearest(bench_nearest::Args),
    Optimal(bench_optimal::Args),
}

/// Time training steps: batch preparation, forward, backward, Adam and EMA
#[derive(clap::Args, Debug)]
#[command(after_help = "Example:\n  emm bench step --resolution 8 --channels 32 --batch 32")]
pub struct Step {
    #[command(flatten)]
    images: ImageFlags,
    /// Steps timed, after two that warm up
    #[arg(long, value_name = "N", value_parser = count, default_value = "10")]
    repeats: usize,
    /// Also print where the time goes, op by op
    #[arg(long)]
    profile: bool,
    #[command(flatten)]
    flags: TrainFlags,
}

pub fn run(command: Command, common: &Common) -> Result<()> {
    match command {
        Command::Step(a) => run_step(*a, common),
        Command::Nearest(a) => bench_nearest::run(a, common),
        Command::Optimal(a) => bench_optimal::run(a, common),
    }
}

fn run_step(a: Step, common: &Common) -> Result<()> {
    if a.repeats == 0 {
        return Err(usage("--repeats: 0, at least 1 is needed"));
    }
    let device = common.device()?;
    let run = a.flags.resolve_images(common, &a.images)?;
    let options = TrainerOptions {
        seed: common.seed,
        batch: run.train.batch,
        micro_batch: micro_batch(&run),
        shuffle: true,
        scrub_gradients: false,
        precision: run.train.precision,
    };
    let (config, batch) = (run.model, run.train.batch as f64);
    let times = step(&device, &config, options, a.repeats, a.profile)?;
    let s = median(&times.step_s);
    let (min, max) = times.step_s.iter().fold((f64::MAX, 0.0), |(l, h), &t| (t.min(l), t.max(h)));
    let flop = flops(&config).train as f64 * batch;
    if common.json {
        say!(
            "{}",
            json!({
                "images_per_s": batch / s,
                "flop_per_s": flop / s,
                "step_s": {"min": min, "median": s, "max": max},
                "arena_bytes": times.arena_bytes,
                "device": "cpu",
            })
        );
        return Ok(());
    }
    say!(
        "{:.2} img/s, {:.1} GFLOP/s; step {:.2} ms ({:.2}..{:.2}); arena {:.1} MB; {} parameters",
        batch / s,
        flop / s / 1e9,
        s * 1e3,
        min * 1e3,
        max * 1e3,
        times.arena_bytes as f64 / 1e6,
        Params::new(&config).count()
    );
    let mut total: Vec<(&str, f64, usize)> = Vec::new();
    for (name, t) in &times.launches {
        match total.iter_mut().find(|(n, ..)| n == name) {
            Some((_, sum, count)) => (*sum, *count) = (*sum + median(t), *count + 1),
            None => total.push((name, median(t), 1)),
        }
    }
    total.sort_by(|a, b| b.1.total_cmp(&a.1));
    for (name, sum, count) in total {
        say!("{name:20} {count:4} launches {:9.3} ms", sum * 1e3);
    }
    Ok(())
}
