//! `emm plan`: what a training would cost; writes nothing.

use super::numbers::amount;
use super::train_flags::{ImageFlags, TrainFlags};
use super::{Common, say};
use crate::device::Device;
use crate::error::usage;
use crate::model::Params;
use crate::model::flops::flops;
use crate::model::trainer::{Recording, TrainerOptions};
use crate::run::progress::{IMAGE_COST, duration};
use crate::run::train::micro_batch;
use crate::run::{RunConfig, bench};
use crate::tape::Mode;
use anyhow::Result;
use serde_json::json;
use std::collections::BTreeMap;

/// Show what a training would cost: parameters, FLOP, memory, steps, hours; writes nothing
#[derive(clap::Args, Debug)]
#[command(after_help = "Example:\n  \
    emm plan --size 5k --channels 64 --epochs 2k --rate 30")]
pub struct Args {
    #[command(flatten)]
    images: ImageFlags,
    /// Training images per second, in place of a short measurement on this machine
    #[arg(long, value_name = "IMG/S", value_parser = amount)]
    rate: Option<f64>,
    /// Also list the launches of a micro-batch by op, forward and backward
    #[arg(long)]
    launches: bool,
    #[command(flatten)]
    flags: TrainFlags,
}

pub fn run(args: Args, common: &Common) -> Result<()> {
    let device = common.device()?;
    let config = args.flags.resolve_images(common, &args.images)?;
    let t = &config.train;
    let micro_batch = micro_batch(&config);
    let parameters = Params::new(&config.model);
    let cost = flops(&config.model);
    let recording =
        Recording::new(&device, &config.model, t.precision, micro_batch, t.batch, Mode::Training)?;
    let arena_bytes = 4 * recording.plan.memory_words(&device);
    let mut launches = BTreeMap::<&str, usize>::new();
    for name in recording.plan.launch_names().filter(|_| args.launches) {
        *launches.entry(name).or_default() += 1;
    }
    // Weights, gradient, two moments and EMA.
    let parameter_bytes = 5 * 4 * parameters.flat_len;
    let images_seen = config.steps() * t.batch as u64;
    let generated = config.look_steps().len() as u64 * t.score_images as u64
        + if t.looks > 0 { t.rescore_images as u64 } else { 0 };
    let rate = match args.rate {
        Some(0.0) => return Err(usage("--rate: 0 images per second never end")),
        Some(rate) => rate,
        None => measure(&device, &config, micro_batch)?,
    };
    let train_s = images_seen as f64 / rate;
    let score_s = generated as f64 * IMAGE_COST / rate;
    if common.json {
        let mut object = json!({
            "parameters": parameters.count(),
            "forward_flop_per_image": cost.forward,
            "train_flop_per_image": cost.train,
            "arena_bytes": arena_bytes,
            "parameter_bytes": parameter_bytes,
            "micro_batch": micro_batch,
            "steps": config.steps(),
            "images": config.data.images,
            "epochs": t.epochs,
            "images_seen": images_seen,
            "images_generated": generated,
            "images_per_s": rate,
            "train_hours": train_s / 3600.0,
            "score_hours": score_s / 3600.0,
        });
        if args.launches {
            object["launches"] = json!(launches);
        }
        say!("{object}");
        return Ok(());
    }
    let gib = |bytes: usize| bytes as f64 / (1u64 << 30) as f64;
    say!("parameters       {}", parameters.count());
    say!("forward          {:.2} GFLOP per image", cost.forward as f64 / 1e9);
    say!("training         {:.2} GFLOP per image", cost.train as f64 / 1e9);
    say!("arena            {:.3} GiB for micro-batches of {micro_batch}", gib(arena_bytes));
    say!("parameter memory {:.3} GiB: weights, gradient, two moments, EMA", gib(parameter_bytes));
    say!("set              {} images", config.data.images);
    say!("steps            {} of {} images, {} epochs", config.steps(), t.batch, t.epochs);
    say!("generated        {generated} images for scoring, 35 evaluations each");
    let whose = if args.rate.is_some() { "given" } else { "measured here" };
    say!("rate             {rate:.1} training img/s ({whose})");
    say!("training time    {}", duration(train_s));
    say!("scoring time     {}", duration(score_s));
    for (name, count) in launches {
        say!("{name:16} {count} launches a micro-batch");
    }
    Ok(())
}

/// Training images per second of a few small steps on this machine.
fn measure(device: &Device, config: &RunConfig, micro_batch: usize) -> Result<f64> {
    let batch = micro_batch.min(8);
    let seed = config.train.seed;
    let options = TrainerOptions {
        seed,
        batch,
        micro_batch: batch,
        shuffle: true,
        scrub_gradients: false,
        precision: config.train.precision,
    };
    let times = bench::step(device, &config.model, options, 1)?;
    Ok(batch as f64 / bench::median(&times.step_s))
}
