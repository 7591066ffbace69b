//! What runs cost, before they are run: here by floating-point operations over a measured rate, on GPUs that are not
//! here by the least that their kernels can take.

use crate::device::{Device, Precision};
use crate::error::{Exit, exit_code};
use crate::model::ModelConfig;
use crate::model::flops::flops;
use crate::run::gpu::Prediction;
pub use crate::run::gpu::{GPUS, Gpu};
use crate::run::progress::IMAGE_COST;
use crate::run::rate::{self, Asked, Rate};
use crate::run::stats::lines;
use crate::run::{RunConfig, RunDir, bench, scoring};
use anyhow::Result;
use serde_json::Value;
use std::cell::RefCell;
use std::path::Path;

pub const GPUS_BASIS: &str = "h100, a100: the least that such a GPU can take, kernel by kernel in bf16 (`emm plan \
                               --device h100`); no GPU has confirmed it";

/// FLOP of a whole run: training and evaluations.
pub fn flop_of(config: &RunConfig) -> f64 {
    scoring::flop(config).iter().sum()
}

/// Images that a run trains on, and that its evaluations generate.
fn images_of(config: &RunConfig) -> [f64; 2] {
    [config.steps() as f64 * config.train.batch as f64, config.generated() as f64]
}

/// Seconds of a training image on a GPU, at least; `None` if the GPU cannot hold the network.
fn image_s(gpu: &Gpu, config: &RunConfig) -> Option<f64> {
    let batch = config.train.batch;
    let step = Prediction::new(gpu, &config.model, Precision::Bf16, batch, None).ok()?;
    Some(step.step_s() / batch as f64)
}

/// Seconds of a whole run on a GPU, at least; `None` if the GPU cannot hold the network.
pub fn gpu_s(gpu: &Gpu, config: &RunConfig) -> Option<f64> {
    let [trained, generated] = images_of(config);
    Some((trained + generated * IMAGE_COST) * image_s(gpu, config)?)
}

/// How fast this machine is at networks like those of a sweep.
pub struct MachineRates {
    /// (network, FLOP per second): seen in `stats.jsonl` of runs, or measured.
    known: Vec<(ModelConfig, f64)>,
    /// How they are known, for people.
    pub basis: String,
    on_gpus: RefCell<Vec<OnGpus>>,
}

/// What a training image takes on the GPUs.
struct OnGpus {
    model: ModelConfig,
    batch: usize,
    /// Seconds on each of [`GPUS`].
    image_s: [Option<f64>; 2],
}

impl MachineRates {
    /// Of a machine that is not here: only what GPUs take is known.
    pub fn elsewhere() -> MachineRates {
        let basis = "not known of a machine that is not here".into();
        MachineRates { known: Vec::new(), basis, on_gpus: RefCell::default() }
    }

    /// As the user says of the first of `configs`; else from the statistics of the runs in `runs` that train one of their
    /// networks; if there are none, from what was measured before on `device`. Where `asked` says so, the smallest of
    /// the networks is measured, and those whose steps take a moment.
    ///
    /// # Errors
    /// Diverged (exit 5): a measured step.
    pub fn here(
        device: &Device,
        runs: &Path,
        configs: &[&RunConfig],
        asked: Asked,
    ) -> Result<MachineRates> {
        let on_gpus = RefCell::default();
        if let (Some(rate), Some(first)) = (asked.given, configs.first()) {
            let known = vec![(first.model.clone(), rate * flops(&first.model).train as f64)];
            let basis = "by --rate, that of the first run's network".into();
            return Ok(MachineRates { known, basis, on_gpus });
        }
        let mut networks: Vec<&RunConfig> = Vec::new();
        for config in configs {
            if !networks.iter().any(|known| known.model == config.model) {
                networks.push(config);
            }
        }
        let known = from_stats(runs, &networks);
        if !known.is_empty() {
            return Ok(MachineRates { known, basis: "as earlier runs here went".into(), on_gpus });
        }
        networks.sort_by_key(|c| flops(&c.model).train);
        let mut rates = match networks.first() {
            Some(config) => rate::kept(device, config.train.precision),
            None => Vec::new(),
        };
        let why = match asked.measure {
            true => measure_missing(device, &networks, &mut rates, asked.quiet)?,
            false => String::new(),
        };
        // Those of these networks, if there are any, else of such that are not much larger or smaller.
        let of_these = |r: &Rate| networks.iter().any(|n| n.model == *r.model());
        let near = |r: &Rate| {
            let size = |model: &ModelConfig| flops(model).train as f64;
            networks.iter().any(|n| (size(&n.model) / size(r.model())).ln().abs() < NEAR.ln())
        };
        match rates.iter().any(of_these) {
            true => rates.retain(of_these),
            false => rates.retain(near),
        }
        let basis = match rates.as_slice() {
            [] if asked.measure => format!("not to be measured: {why}"),
            [] => "not measured yet, which `emm sweep plan` does".into(),
            [rate] => rate.said(),
            [rate, ..] => rate.describe(rates.len()),
        };
        // Measured alone; who shares a GPU is slower.
        let speed = device.cuda().map_or(1.0, |cuda| cuda.speed());
        let flop_per_s = |r: &Rate| flops(r.model()).train as f64 * r.images_per_s * speed;
        let known = rates.iter().map(|r| (r.model().clone(), flop_per_s(r))).collect();
        Ok(MachineRates { known, basis, on_gpus })
    }

    /// Seconds that a run takes here on one device.
    pub fn seconds(&self, config: &RunConfig) -> Option<f64> {
        let size = |model: &ModelConfig| (flops(model).train as f64).ln();
        let far = |model: &ModelConfig| match *model == config.model {
            true => -1.0,
            false => (size(model) - size(&config.model)).abs(),
        };
        let nearest = self.known.iter().min_by(|a, b| far(&a.0).total_cmp(&far(&b.0)))?;
        Some(flop_of(config) / nearest.1)
    }

    /// [`gpu_s`] of a run on each of [`GPUS`].
    pub fn gpu_seconds(&self, config: &RunConfig) -> [Option<f64>; 2] {
        let mut known = self.on_gpus.borrow_mut();
        let (model, batch) = (&config.model, config.train.batch);
        let image_s = match known.iter().find(|k| k.model == *model && k.batch == batch) {
            Some(known) => known.image_s,
            None => {
                let image_s = [0, 1].map(|k| image_s(&GPUS[k], config));
                known.push(OnGpus { model: model.clone(), batch, image_s });
                image_s
            }
        };
        let [trained, generated] = images_of(config);
        image_s.map(|s| Some((trained + generated * IMAGE_COST) * s?))
    }
}

/// Measures the first of `networks`, the smallest, and those whose steps take a moment, as far as `rates` lacks them;
/// why it could not, if it could not.
///
/// # Errors
/// Diverged (exit 5): a step.
fn measure_missing(
    device: &Device,
    networks: &[&RunConfig],
    rates: &mut Vec<Rate>,
    quiet: bool,
) -> Result<String> {
    let moment =
        |c: &RunConfig| (flops(&c.model).train * c.train.batch.min(8) as u64) as f64 <= MOMENT_FLOP;
    let wanted: Vec<_> = (networks.iter().enumerate())
        .filter(|(i, c)| *i == 0 || moment(c))
        .filter(|(_, c)| !rates.iter().any(|r| *r.model() == c.model))
        .collect();
    let seconds = rate::MEASURED_S / (wanted.len() as f64).sqrt();
    let mut why = String::new();
    for (_, config) in wanted {
        match rate::measure(device, config, seconds, quiet) {
            Ok(rate) => rates.insert(0, rate),
            // What cannot be trained here can be planned here all the same.
            Err(e) if exit_code(&e) == Exit::Device as i32 => why = format!("{e:#}"),
            Err(e) => return Err(e),
        }
    }
    Ok(why)
}

/// Networks whose FLOP differ by a smaller factor are taken to reach about the same FLOP per second.
const NEAR: f64 = 4.0;

/// A step of so many operations is measured even if another network's rate is known.
const MOMENT_FLOP: f64 = 5e10;

/// Rates of these networks that runs have written down.
fn from_stats(runs: &Path, networks: &[&RunConfig]) -> Vec<(ModelConfig, f64)> {
    let mut known: Vec<(ModelConfig, Vec<f64>)> = Vec::new();
    for entry in std::fs::read_dir(runs).into_iter().flatten().flatten() {
        let dir = RunDir::new(&entry.path());
        // What cannot be read is no statistics; who needs the run will say what is wrong with it.
        let Ok(Some(config)) = dir.stored_config() else { continue };
        if !networks.iter().any(|n| n.model == config.model) {
            continue;
        }
        let flop = flops(&config.model).train as f64;
        let rates = seconds_per_image(&dir.stats_path()).into_iter().map(|s| flop / s);
        match known.iter_mut().find(|(model, _)| *model == config.model) {
            Some((_, all)) => all.extend(rates),
            None => known.push((config.model, rates.collect())),
        }
    }
    known.retain(|(_, rates)| !rates.is_empty());
    known.into_iter().map(|(model, rates)| (model, bench::median(&rates))).collect()
}

fn seconds_per_image(stats: &Path) -> Vec<f64> {
    let rate = |line: &Value| {
        line["Timing/sec_per_kimg"]["mean"].as_f64().map(|s| s / 1e3).filter(|&s| s > 0.0)
    };
    lines(stats).unwrap_or_default().iter().filter_map(rate).collect()
}
