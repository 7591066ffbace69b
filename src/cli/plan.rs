//! `emm plan`: what a training would cost; writes nothing.

use super::numbers::amount;
use super::train_flags::{ImageFlags, TrainFlags};
use super::{Common, say};
use crate::device::{Cost, Device, Precision};
use crate::error::{Exit, exit_code, usage};
use crate::model::Params;
use crate::model::flops::flops;
use crate::model::trainer::Recording;
use crate::run::bench;
use crate::run::card::{CARDS, Card, Prediction, Share};
use crate::run::kernel_times;
use crate::run::memory::micro_batch;
use crate::run::progress::{IMAGE_COST, duration};
use crate::tape::Mode;
use anyhow::Result;
use serde::Serialize;
use serde_json::json;
use std::collections::BTreeMap;

/// Show what a training would cost: parameters, FLOP, memory, steps, hours; writes nothing
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  emm plan --size 5k --channels 64 --epochs 2k --rate 30
  emm plan --device h100 --precision bf16
  emm plan --device a100 --launches --json

--device h100 or a100 needs no card: the step's kernels are added up, each at the FLOP/s or bytes/s that such a card
reaches at most. That is a floor, not a measurement: no kernel is faster, most are slower.")]
pub struct Args {
    #[command(flatten)]
    images: ImageFlags,
    /// Training images per second, in place of a short measurement on this machine
    #[arg(long, value_name = "IMG/S", value_parser = amount)]
    rate: Option<f64>,
    /// Also list each layer's launches in a micro-batch: geometry, FLOP, bytes, and the floor on a planned card
    #[arg(long)]
    launches: bool,
    #[command(flatten)]
    flags: TrainFlags,
}

/// Where the training would run.
enum Where {
    Here(Device),
    Planned(&'static Card),
}

/// What `--device` names: a card that is planned for, or a device that is here.
fn place(common: &Common) -> Result<Where> {
    if let Some(card) = Card::named(&common.device) {
        return Ok(Where::Planned(card));
    }
    common.device().map(Where::Here).map_err(|e| match exit_code(&e) == Exit::Usage as i32 {
        true => usage(format!("{e:#}; a plan also takes {}", CARDS.map(|c| c.name).join(", "))),
        false => e,
    })
}

pub fn run(args: Args, common: &Common) -> Result<()> {
    let place = place(common)?;
    let mut flags = args.flags;
    let asked = asked_precision(&flags.precision).filter(|_| matches!(place, Where::Planned(_)));
    if asked.is_some() {
        // What this machine's device refuses, a planned card may have.
        flags.precision = "auto".into();
    }
    let mut config = flags.resolve_images(common, &args.images)?;
    config.train.precision = asked.unwrap_or(config.train.precision);
    let t = &config.train;
    let parameters = Params::new(&config.model);
    let cost = flops(&config.model);
    if args.rate == Some(0.0) {
        return Err(usage("--rate: 0 images per second never end"));
    }
    let (micro_batch, recording, prediction) = match &place {
        Where::Here(device) => {
            let n = micro_batch(device, &config)?;
            let mode = Mode::Training;
            (n, Recording::new(device, &config.model, t.precision, n, t.batch, mode)?, None)
        }
        Where::Planned(card) => {
            let asked = Some(t.micro_batch).filter(|&n| n > 0);
            let p = Prediction::new(card, &config.model, t.precision, t.batch, asked)?;
            let step_s = p.step_s();
            (p.micro_batch, p.recording, Some((step_s, p.shares)))
        }
    };
    let arena_bytes = match &place {
        Where::Here(device) => 4 * recording.plan.memory_words(device),
        Where::Planned(_) => recording.plan.arena_bytes(),
    };
    // Weights, gradient, two moments and EMA.
    let parameter_bytes = 5 * 4 * parameters.flat_len;
    let images_seen = config.steps() * t.batch as u64;
    let generated = config.look_steps().len() as u64 * t.score_images as u64
        + if t.looks > 0 { t.rescore_images as u64 } else { 0 };
    let rate = match (args.rate, &prediction, &place) {
        (Some(rate), ..) => rate,
        (None, Some((step_s, _)), _) => t.batch as f64 / step_s,
        (None, None, Where::Here(device)) => {
            let images = micro_batch.min(8);
            images as f64 / bench::step_s(device, &config, images, 1)?
        }
        (None, None, Where::Planned(_)) => unreachable!("a planned card has a prediction"),
    };
    let train_s = images_seen as f64 / rate;
    let score_s = generated as f64 * IMAGE_COST / rate;
    let layers = if args.launches { layers(&recording, &parameters, &place) } else { vec![] };
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
        if let Some((step_s, shares)) = &prediction {
            object["device"] = json!(common.device);
            object["step_s"] = json!(step_s);
            object["kernels"] = json!(shares);
        }
        if args.launches {
            let mut counts = BTreeMap::<&str, usize>::new();
            recording.plan.launch_names().for_each(|n| *counts.entry(n).or_default() += 1);
            object["launches"] = json!(counts);
            object["layers"] = json!(layers);
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
    let whose = match (&args.rate, &prediction) {
        (Some(_), _) => "given".into(),
        (None, Some(_)) => format!("a floor: {}'s ceilings, no card has run it", common.device),
        (None, None) => "measured here".into(),
    };
    say!("rate             {rate:.1} training img/s ({whose})");
    say!("training time    {}", duration(train_s));
    say!("scoring time     {}", duration(score_s));
    if let Some((step_s, shares)) = &prediction {
        print_shares(*step_s, shares);
    }
    if args.launches {
        print_layers(&layers);
    }
    Ok(())
}

/// The precision that the flag names, if it names one.
fn asked_precision(flag: &str) -> Option<Precision> {
    match flag {
        "bf16" => Some(Precision::Bf16),
        "tf32" => Some(Precision::Tf32),
        "fp32" => Some(Precision::Fp32),
        _ => None,
    }
}

/// A layer's forward or backward.
#[derive(Serialize)]
struct Layer {
    layer: String,
    op: &'static str,
    backward: bool,
    shapes: String,
    launches: Vec<LaunchLine>,
}

#[derive(Serialize)]
struct LaunchLine {
    name: &'static str,
    /// Blocks, threads and dynamic shared bytes of a block; not on the CPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    geometry: Option<([u32; 3], u32, u32)>,
    flop: u64,
    bytes: u64,
    /// On a planned card.
    #[serde(skip_serializing_if = "Option::is_none")]
    floor_s: Option<f64>,
}

fn layers(recording: &Recording, parameters: &Params, place: &Where) -> Vec<Layer> {
    let plan = &recording.plan;
    let names: Vec<&'static str> = plan.launch_names().collect();
    let line = |i: usize, of_part: Cost| {
        let kernel = plan.kernels().get(i);
        let cost = kernel.map_or(of_part, |k| k.cost());
        LaunchLine {
            name: names[i],
            geometry: kernel.map(|k| (k.grid, k.threads, k.shared_bytes)),
            flop: cost.flop,
            bytes: cost.bytes,
            floor_s: match place {
                Where::Here(_) => None,
                Where::Planned(card) => Some(card.floor_s(names[i], cost)),
            },
        }
    };
    (plan.parts().iter())
        .map(|part| Layer {
            layer: kernel_times::layer(part, parameters),
            op: part.op,
            backward: part.backward,
            shapes: kernel_times::shapes(part),
            launches: part.launches.clone().map(|i| line(i, part.cost)).collect(),
        })
        .collect()
}

fn print_layers(layers: &[Layer]) {
    for layer in layers {
        let direction = if layer.backward { "backward" } else { "forward" };
        say!("\n{} {} {direction}  {}", layer.layer, layer.op, layer.shapes);
        for l in &layer.launches {
            let geometry = l.geometry.map_or(String::new(), |([x, y, z], threads, shared)| {
                let shared = if shared > 0 { format!(", {shared} B shared") } else { "".into() };
                format!("  {x}×{y}×{z} blocks of {threads}{shared}")
            });
            let floor = l.floor_s.map_or(String::new(), |s| format!("  {:.1} µs", s * 1e6));
            let (gflop, mb) = (l.flop as f64 / 1e9, l.bytes as f64 / 1e6);
            say!("  {:<24}{gflop:>10.3} GFLOP{mb:>10.3} MB{floor}{geometry}", l.name);
        }
    }
}

/// Kernels that take less of a step than this are added up in one line.
const NOT_WORTH_A_LINE: f64 = 0.01;

fn print_shares(step_s: f64, shares: &[Share]) {
    say!("step             {:.2} ms at least, of which", step_s * 1e3);
    let (large, small): (Vec<_>, Vec<_>) =
        shares.iter().partition(|s| s.floor_s >= NOT_WORTH_A_LINE * step_s);
    let line = |name: &str, launches: usize, seconds: f64, bound: &str| {
        let share = 100.0 * seconds / step_s;
        say!("  {name:<22}{launches:>6} launches{:>10.3} ms {share:>5.1}%  {bound}", seconds * 1e3);
    };
    for s in &large {
        line(s.name, s.launches, s.floor_s, &format!("held back by {}", s.bound));
    }
    let (launches, seconds) =
        small.iter().fold((0, 0.0), |(n, t), s| (n + s.launches, t + s.floor_s));
    if launches > 0 {
        line("the rest", launches, seconds, "");
    }
}
