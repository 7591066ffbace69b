//! `emm plan`: what a training would cost; writes nothing.

use super::rate_flags::RateFlags;
use super::train_flags::{ImageFlags, TrainFlags};
use super::{Common, say};
use crate::device::{Cost, Device, Kernel, Precision};
use crate::error::{Exit, exit_code, usage};
use crate::memory::Size;
use crate::model::Params;
use crate::model::Recording;
use crate::model::flops::flops;
use crate::run::gpu::{GPUS, Gpu, Prediction, Share};
use crate::run::kernel_times;
use crate::run::memory::{micro_batch, wanted_and_free};
use crate::run::progress::{IMAGE_COST, describe_epochs, duration};
use crate::run::rate::{self, Asked, Rate};
use crate::run::{RunConfig, scoring};
use crate::tape::Mode;
use anyhow::Result;
use clap::ValueEnum as _;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Show what a training would cost: parameters, FLOP, memory, steps, hours; writes nothing
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  emm plan --size 5k --channels 64 --epochs 2k --rate 30
  emm plan --device h100 --precision bf16
  emm plan --device a100 --launches --json

--device h100 or a100 needs no GPU: the step's kernels, as its shared memory lets them be chosen, are added up, each at
the FLOP/s or bytes/s that such a GPU reaches at most. That is a floor, not a measurement: no kernel is faster, most are slower.")]
pub struct Args {
    #[command(flatten)]
    images: ImageFlags,
    #[command(flatten)]
    rate: RateFlags,
    /// Also list each layer's launches in a micro-batch: geometry, FLOP, bytes, and the floor on a planned GPU
    #[arg(long)]
    launches: bool,
    #[command(flatten)]
    flags: TrainFlags,
}

/// Where the training would run.
enum Where {
    Here(Device),
    Planned(&'static Gpu),
}

/// What `--device` names: a GPU that is planned for, or a device that is here.
fn place(common: &Common) -> Result<Where> {
    if let Some(gpu) = Gpu::named(&common.device) {
        return Ok(Where::Planned(gpu));
    }
    common.device().map(Where::Here).map_err(|e| match exit_code(&e) == Exit::Usage as i32 {
        true => usage(format!("{e:#}; a plan also takes {}", GPUS.map(|c| c.name).join(", "))),
        false => e,
    })
}

/// Prints what a training would cost: parameters, FLOP, bytes, time.
///
/// # Errors
/// Usage: flags, or settings that do not fit the images or the device.
pub fn run(args: Args, common: &Common) -> Result<()> {
    let place = place(common)?;
    let mut flags = args.flags;
    let asked = Precision::from_str(&flags.precision, false).ok();
    let asked = asked.filter(|_| matches!(place, Where::Planned(_)));
    if asked.is_some() {
        // What this machine's device refuses, a planned GPU may have.
        flags.precision = "auto".into();
    }
    let mut config = flags.resolve_images(common, &args.images)?;
    config.train.precision = asked.unwrap_or(config.train.precision);
    let plan = RunCost::of(&place, config, args.rate, common)?;
    let layers = if args.launches { plan.layers(&place) } else { vec![] };
    if common.json {
        let mut object = plan.json();
        if args.launches {
            let mut counts = BTreeMap::<&str, usize>::new();
            let launches = layers.iter().flat_map(|layer| &layer.launches);
            launches.for_each(|l| *counts.entry(l.name).or_default() += 1);
            object["launches"] = json!(counts);
            object["layers"] = json!(layers);
        }
        say!("{object}");
        return Ok(());
    }
    plan.print();
    print_layers(&layers);
    Ok(())
}

/// Bytes of a parameter: weights, gradient, two moments and EMA.
const PARAMETER_BYTES: usize = 5 * 4;

/// What a training would take.
struct RunCost {
    config: RunConfig,
    parameters: Params,
    micro_batch: usize,
    recording: Recording,
    arena_bytes: usize,
    /// Bytes that the run wants and that are free; a planned GPU refuses what does not fit.
    memory: Option<[usize; 2]>,
    /// Training images per second and how that is known; `None` if it is not.
    rate: Option<(f64, String)>,
    /// Where it was measured.
    measured: Option<Rate>,
    /// On a planned GPU: its name, a step's seconds, and which kernels take them.
    prediction: Option<(&'static str, f64, Vec<Share>)>,
}

impl RunCost {
    fn of(place: &Where, config: RunConfig, rate: RateFlags, common: &Common) -> Result<RunCost> {
        let t = &config.train;
        let parameters = Params::new(&config.model);
        let given = rate.rate.map(|rate| (rate, "given".to_string()));
        match place {
            Where::Here(device) => {
                let n = micro_batch(device, &config)?;
                let mode = Mode::Training;
                let recording =
                    Recording::new(device, &config.model, t.precision, n, t.batch, mode)?;
                let arena_bytes = 4 * recording.plan.memory_words(device);
                let mut memory = wanted_and_free(device, &config, n)?;
                // Where the parameters alone are too many, no more is counted there.
                memory[0] = memory[0].max(arena_bytes + PARAMETER_BYTES * parameters.flat_len);
                let mut asked = rate.asked(common);
                asked.measure &= memory[0] <= memory[1];
                let measured = match given {
                    Some(_) => None,
                    None => measured(device, &config, asked)?,
                };
                let known = measured.as_ref().map(|r| (r.images_per_s, r.said()));
                Ok(RunCost {
                    parameters,
                    micro_batch: n,
                    arena_bytes,
                    memory: Some(memory),
                    recording,
                    rate: given.or(known),
                    measured,
                    prediction: None,
                    config,
                })
            }
            Where::Planned(gpu) => {
                let asked = Some(t.micro_batch).filter(|&n| n > 0);
                let p = Prediction::new(gpu, &config.model, t.precision, t.batch, asked)?;
                let step_s = p.step_s();
                let floor = || {
                    let floor = format!("a floor: {}'s ceilings, no GPU has run it", gpu.name);
                    (t.batch as f64 / step_s, floor)
                };
                Ok(RunCost {
                    parameters,
                    micro_batch: p.micro_batch,
                    arena_bytes: p.recording.plan.arena_bytes(),
                    memory: None,
                    recording: p.recording,
                    rate: Some(given.unwrap_or_else(floor)),
                    measured: None,
                    prediction: Some((gpu.name, step_s, p.shares)),
                    config,
                })
            }
        }
    }

    fn images_seen(&self) -> u64 {
        self.config.steps() * self.config.train.batch as u64
    }

    fn parameter_bytes(&self) -> usize {
        PARAMETER_BYTES * self.parameters.flat_len
    }

    /// Seconds of training and of scoring, where the rate is known.
    fn seconds(&self) -> Option<[f64; 2]> {
        let (rate, _) = self.rate.as_ref()?;
        let generated = self.config.generated() as f64 * IMAGE_COST;
        Some([self.images_seen() as f64, generated].map(|images| images / rate))
    }

    fn json(&self) -> Value {
        let (config, cost) = (&self.config, flops(&self.config.model));
        let t = &config.train;
        let hours = self.seconds().map(|s| s.map(|s| s / 3600.0));
        let mut object = json!({
            "parameters": self.parameters.count(),
            "forward_flop_per_image": cost.forward,
            "train_flop_per_image": cost.train,
            "arena_bytes": self.arena_bytes,
            "parameter_bytes": self.parameter_bytes(),
            "micro_batch": self.micro_batch,
            "steps": config.steps(),
            "images": config.data.images,
            "epochs": t.epochs,
            "images_seen": self.images_seen(),
            "looks": config.evaluation_steps().len(),
            "score_images": t.score_images,
            "rescore_images": t.rescore_images,
            "images_generated": config.generated(),
            "scoring_share": scoring::share(config),
            "images_per_s": self.rate.as_ref().map(|r| r.0),
            "rate_basis": self.rate.as_ref().map(|r| &r.1),
            "measured_at_s": self.measured.as_ref().map(|r| r.measured_at_s),
            "train_hours": hours.map(|h| h[0]),
            "score_hours": hours.map(|h| h[1]),
        });
        if let Some((device, step_s, shares)) = &self.prediction {
            object["device"] = json!(device);
            object["step_s"] = json!(step_s);
            object["kernels"] = json!(shares);
        }
        if let Some([wanted, free]) = self.memory {
            let fits = wanted <= free;
            object["memory"] = json!({"wanted_bytes": wanted, "free_bytes": free, "fits": fits});
        }
        object
    }

    fn print(&self) {
        let (config, cost) = (&self.config, flops(&self.config.model));
        let (t, n) = (&config.train, self.micro_batch);
        let size = |bytes: usize| Size(bytes as u64);
        let gflop = |flop: u64| flop as f64 / 1e9;
        say!("parameters       {}", self.parameters.count());
        say!("forward          {:.2} GFLOP per image", gflop(cost.forward));
        say!("training         {:.2} GFLOP per image", gflop(cost.train));
        say!("arena            {} for micro-batches of {n}", size(self.arena_bytes));
        let parameters = size(self.parameter_bytes());
        say!("parameter memory {parameters}: weights, gradient, two moments, EMA");
        if let Some([wanted, free]) = self.memory {
            let verdict =
                if wanted <= free { "fits" } else { "does not fit: `emm train` would refuse it" };
            say!("memory           {} needed, {} free; {verdict}", size(wanted), size(free));
        }
        say!("set              {} images", config.data.images);
        say!(
            "steps            {} of {} images, {} epochs",
            config.steps(),
            t.batch,
            describe_epochs(t.epochs)
        );
        self.print_scoring();
        match &self.rate {
            Some((rate, whose)) => say!("rate             {rate:.1} training img/s ({whose})"),
            None => say!("rate             not measured (--rate says one)"),
        }
        if let Some(seconds) = self.seconds() {
            let [training, scoring] = seconds.map(duration);
            say!("training time    {training}");
            say!("scoring time     {scoring}");
        }
        if let Some((_, step_s, shares)) = &self.prediction {
            print_shares(*step_s, shares);
        }
    }

    fn print_scoring(&self) {
        let (config, t) = (&self.config, &self.config.train);
        let evaluations = config.evaluation_steps().len();
        if evaluations == 0 {
            return say!("scoring          none (--evaluations 0)");
        }
        let each = match (evaluations, t.growing_looks) {
            (1, _) => format!("1 evaluation at {} images", t.score_images),
            (_, false) => format!("{evaluations} evaluations at {} images", t.score_images),
            (_, true) => {
                let first = config.images_at(0, evaluations);
                format!("{evaluations} evaluations at {first} to {} images", t.score_images)
            }
        };
        let again = match t.rescore_images {
            0 => String::new(),
            n => format!(", the best again at {n}"),
        };
        let share = scoring::share(config);
        say!("scoring          {each}{again}: {:.0}% of the run's FLOP", 100.0 * share);
        if share > scoring::SHARE {
            say!(
                "                 more than a quarter; --evaluations, --score-images and --rescore-images set it"
            );
        }
    }

    fn layers(&self, place: &Where) -> Vec<Layer> {
        layers(&self.recording, &self.parameters, place)
    }
}

/// How fast this network trains on `device`: as measured before, or now; `None` if it was not and is not to be.
fn measured(device: &Device, config: &RunConfig, asked: Asked) -> Result<Option<Rate>> {
    let kept = rate::kept(device, config.train.precision);
    match kept.into_iter().find(|r| *r.model() == config.model) {
        Some(rate) => Ok(Some(rate)),
        None if asked.measure => {
            rate::measure(device, config, rate::MEASURED_S, asked.quiet).map(Some)
        }
        None => Ok(None),
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
    /// On a planned GPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    floor_s: Option<f64>,
}

fn layers(recording: &Recording, parameters: &Params, place: &Where) -> Vec<Layer> {
    let plan = &recording.plan;
    let line = |name, kernel: Option<&Kernel>, of_part: Cost| {
        let cost = kernel.map_or(of_part, |k| k.cost());
        LaunchLine {
            name,
            geometry: kernel.map(|k| (k.grid, k.threads, k.shared_bytes)),
            flop: cost.flop,
            bytes: cost.bytes,
            floor_s: match place {
                Where::Here(_) => None,
                Where::Planned(gpu) => Some(gpu.floor_s(cost)),
            },
        }
    };
    let of_launch = |i: usize, of_part: Cost| {
        let launch = &plan.launches()[i];
        line(launch.name(), launch.kernel(), of_part)
    };
    let of_weights = |op, backward, kernels: &[Kernel]| {
        let launches = kernels.iter().map(|k| line(k.name, Some(k), Cost::default())).collect();
        Layer { layer: "weights".into(), op, backward, shapes: String::new(), launches }
    };
    let packs = of_weights("pack", false, plan.packs());
    let ends = of_weights("sums", true, plan.ends());
    let parts = plan.parts().iter().map(|part| Layer {
        layer: kernel_times::layer(part, parameters),
        op: part.op,
        backward: part.backward,
        shapes: kernel_times::shapes(part),
        launches: part.launches.clone().map(|i| of_launch(i, part.cost)).collect(),
    });
    let all = std::iter::once(packs).chain(parts).chain([ends]);
    all.filter(|layer| !layer.launches.is_empty()).collect()
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
