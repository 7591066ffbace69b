//! What runs cost, before they are run: floating-point operations over a machine's rate.

use crate::device::Device;
use crate::model::flops::flops;
use crate::model::trainer::TrainerOptions;
use crate::model::{ModelConfig, Params};
use crate::run::train::micro_batch;
use crate::run::{RunConfig, RunDir, bench};
use anyhow::Result;
use serde_json::Value;
use std::path::Path;

/// Evaluations of the network for one generated image: 18 steps of Heun's method.
const EVALUATIONS: f64 = 35.0;

/// A machine that nothing has been measured on.
pub struct Card {
    pub name: &'static str,
    /// FLOP per second, as [`flops`] counts them.
    pub flop_per_s: f64,
}

/// FLOP that the paper's basic model costs per training image.
const BASIC_FLOP: f64 = 76.24e9;

/// One card each. The rates are what this project's kernels are to reach at the paper's basic model in bf16 with
/// mma.sync, not what any has been seen to do: [`CARDS_BASIS`] is said wherever they are used.
pub const CARDS: [Card; 2] = [
    Card { name: "H100", flop_per_s: 4000.0 * BASIC_FLOP },
    Card { name: "A100", flop_per_s: 2500.0 * BASIC_FLOP },
];

pub const CARDS_BASIS: &str = "H100 and A100: assumed 4,000 and 2,500 img/s of the paper's basic model, goals that no card has confirmed";

/// FLOP of a whole run: training and looks.
pub fn flop_of(config: &RunConfig) -> f64 {
    let t = &config.train;
    let cost = flops(&config.model);
    let looks = config.look_steps().len();
    let generated = looks * t.score_images + if looks > 0 { t.rescore_images } else { 0 };
    let trained = config.steps() as f64 * t.batch as f64;
    trained * cost.train as f64 + generated as f64 * EVALUATIONS * cost.forward as f64
}

/// How fast this machine is at networks like those of a sweep.
pub struct Rates {
    /// (network, FLOP per second): seen in `stats.jsonl` of runs, or measured.
    known: Vec<(ModelConfig, f64)>,
    /// How they are known, for people.
    pub basis: &'static str,
}

impl Rates {
    /// From the statistics of the runs in `runs` that train one of the networks of `configs`; if there are none, from
    /// a few training steps of the smallest of these networks on `device`, seconds at most, and of those that take
    /// a moment.
    ///
    /// # Errors
    /// Device (exit 4): no memory for a step.
    pub fn here(device: &Device, runs: &Path, configs: &[&RunConfig]) -> Result<Rates> {
        let mut networks: Vec<&RunConfig> = Vec::new();
        for config in configs {
            if !networks.iter().any(|known| known.model == config.model) {
                networks.push(config);
            }
        }
        let known = from_stats(runs, &networks);
        if !known.is_empty() {
            return Ok(Rates { known, basis: "as earlier runs here went" });
        }
        networks.sort_by_key(|c| flops(&c.model).train);
        let mut known = Vec::new();
        for (i, config) in networks.iter().enumerate() {
            let batch = micro_batch(config).min(8);
            let flop = (flops(&config.model).train * batch as u64) as f64;
            if i == 0 || flop < MOMENT_FLOP {
                known.push((config.model.clone(), flop / measure(device, config, batch)?));
            }
        }
        Ok(Rates { known, basis: "as a few training steps now went" })
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
}

/// A step of so many operations is measured even if another network's rate is known.
const MOMENT_FLOP: f64 = 5e10;

/// Seconds of a training step of `batch` images.
fn measure(device: &Device, config: &RunConfig, batch: usize) -> Result<f64> {
    let options = TrainerOptions {
        seed: config.train.seed,
        batch,
        micro_batch: batch,
        shuffle: true,
        scrub_gradients: false,
        precision: config.train.precision,
    };
    let repeats = if Params::new(&config.model).count() < 1_000_000 { 5 } else { 1 };
    Ok(bench::median(&bench::step(device, &config.model, options, repeats)?.step_s))
}

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
    let text = std::fs::read_to_string(stats).unwrap_or_default();
    let rate = |line: &str| {
        let line: Value = serde_json::from_str(line).ok()?;
        line["Timing/sec_per_kimg"]["mean"].as_f64().map(|s| s / 1e3).filter(|&s| s > 0.0)
    };
    text.lines().filter_map(rate).collect()
}
