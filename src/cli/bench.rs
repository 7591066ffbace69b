//! `emm bench`: how fast this machine runs the parts.

use super::{Common, say};
use crate::error::usage;
use crate::model::trainer::TrainerOptions;
use crate::model::{Arch, ModelConfig, Params, Precond};
use crate::run::bench::{median, step};
use anyhow::Result;
use serde_json::json;

#[derive(clap::Subcommand, Debug)]
pub enum Command {
    Step(Step),
}

/// Time training steps: batch preparation, forward, backward, Adam and EMA
#[derive(clap::Args, Debug)]
#[command(after_help = "Example:\n  emm bench step --resolution 8 --channels 32 --batch 32")]
pub struct Step {
    #[arg(long, value_enum, default_value = "ddpmpp")]
    arch: Arch,
    #[arg(long, value_enum)]
    precond: Option<Precond>,
    #[arg(long, default_value_t = 128)]
    channels: usize,
    #[arg(long, value_delimiter = ',', default_value = "2,2,2")]
    mult: Vec<usize>,
    #[arg(long, default_value_t = 2)]
    blocks: usize,
    #[arg(long, default_value_t = 32)]
    resolution: usize,
    #[arg(long, default_value_t = 3)]
    image_channels: usize,
    #[arg(long, default_value_t = 0.13)]
    dropout: f64,
    #[arg(long, default_value_t = 8)]
    batch: usize,
    #[arg(long)]
    micro_batch: Option<usize>,
    /// Steps timed
    #[arg(long, default_value_t = 10)]
    repeats: usize,
    /// Also print where the time goes, op by op
    #[arg(long)]
    profile: bool,
}

pub fn run(command: Command, common: &Common) -> Result<()> {
    let Command::Step(a) = command;
    if a.repeats == 0 || a.batch == 0 {
        return Err(usage("--repeats, --batch: at least 1 is needed"));
    }
    let device = common.device()?;
    let basic = ModelConfig::basic(a.arch, a.resolution, a.image_channels);
    let config = ModelConfig {
        precond: a.precond.unwrap_or(basic.precond),
        model_channels: a.channels,
        skip_connections: vec![1; a.mult.len() * (a.blocks + 1)],
        channel_mult: a.mult,
        num_blocks: a.blocks,
        dropout: a.dropout,
        ..basic
    };
    config.check()?;
    let options = TrainerOptions {
        seed: common.seed,
        batch: a.batch,
        micro_batch: a.micro_batch.unwrap_or(a.batch).clamp(1, a.batch),
        shuffle: true,
        scrub_gradients: false,
    };
    let times = step(&device, &config, options, a.repeats, a.profile)?;
    let s = median(&times.step_s);
    let (min, max) = times.step_s.iter().fold((f64::MAX, 0.0), |(l, h), &t| (t.min(l), t.max(h)));
    let flop = crate::model::flops::flops(&config).train as f64 * a.batch as f64;
    if common.json {
        say!(
            "{}",
            json!({
                "images_per_s": a.batch as f64 / s,
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
        a.batch as f64 / s,
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
