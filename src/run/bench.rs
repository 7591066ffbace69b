//! Timing of one training step: whole, and op by op.

use super::memory;
use crate::data::Dataset;
use crate::device::Device;
use crate::memorization::References;
use crate::model::trainer::TrainerOptions;
use crate::model::{ModelConfig, StepScalars, Trainer};
use crate::rng::philox;
use anyhow::Result;
use std::time::Instant;

/// Times of repeated training steps.
#[derive(Debug, Clone, PartialEq)]
pub struct StepTimes {
    /// Seconds of each step: batch preparation, forward, backward, Adam and EMA. In order, warm-up left out.
    pub step_s: Vec<f64>,
    pub arena_bytes: usize,
    /// Per launch of a plan, in order: name, and seconds of each step; empty unless asked.
    pub launches: Vec<(&'static str, Vec<f64>)>,
}

/// Median of some times.
pub fn median(times: &[f64]) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (low, high) = ((sorted.len() - 1) / 2, sorted.len() / 2);
    (sorted[low] + sorted[high]) / 2.0
}

/// A set of random pixels for a network; batches larger than the set repeat its images, as in training.
fn pixels(config: &ModelConfig) -> Dataset {
    let images = 256;
    let word = |i: usize| philox([i as u32, 0, 0, 0], 0)[0];
    Dataset {
        resolution: config.resolution,
        channels: config.image_channels,
        pixels: (0..images * config.image_len()).map(|i| word(i) as u8).collect(),
        labels: (config.label_dim > 0)
            .then(|| (0..images).map(|i| word(i) % config.label_dim as u32).collect()),
    }
}

/// Times `repeats` training steps after two that warm up.
///
/// # Errors
/// Device (exit 4) if the free memory cannot hold the network.
pub fn step(
    device: &Device,
    config: &ModelConfig,
    options: TrainerOptions,
    repeats: usize,
    profile: bool,
) -> Result<StepTimes> {
    memory::check(device, config, options.precision, options.micro_batch)?;
    let data = pixels(config);
    let mut trainer = Trainer::new(device, config, options, &data)?;
    let scalars = |step| StepScalars { step, lr: 1e-4, ema_beta: 0.999, weight_decay: 0.0 };
    let mut step_s = Vec::new();
    for step in 0..repeats as u64 + 2 {
        let start = Instant::now();
        trainer.step(scalars(step), &|| false)?;
        if step >= 2 {
            step_s.push(start.elapsed().as_secs_f64());
        }
    }
    let launches = if profile { trainer.profile(repeats) } else { vec![] };
    Ok(StepTimes { step_s, arena_bytes: trainer.arena_bytes(), launches })
}

/// Times of repeated searches.
#[derive(Debug, Clone, PartialEq)]
pub struct NearestTimes {
    /// Seconds of preparing the references.
    pub prepare_s: f64,
    /// Seconds of each search of all queries, references already prepared.
    pub search_s: Vec<f64>,
}

/// Times `repeats` searches of the two nearest of `references` random images of `pixels` bytes, after one that
/// warms up.
pub fn nearest(
    device: &Device,
    seed: u64,
    queries: usize,
    references: usize,
    pixels: usize,
    repeats: usize,
) -> NearestTimes {
    let bytes = |images: usize, which: u32| -> Vec<u8> {
        let words = (images * pixels).div_ceil(16) as u32;
        let bytes = (0..words).flat_map(|i| philox([i, which, 0, 0], seed));
        bytes.flat_map(u32::to_le_bytes).take(images * pixels).collect()
    };
    let (queries, all) = (bytes(queries, 0), bytes(references, 1));
    let start = Instant::now();
    let references = References::new(&all, pixels);
    let prepare_s = start.elapsed().as_secs_f64();
    drop(all);
    let mut search_s = Vec::new();
    for repeat in 0..=repeats {
        let start = Instant::now();
        std::hint::black_box(references.nearest(&queries, device));
        if repeat > 0 {
            search_s.push(start.elapsed().as_secs_f64());
        }
    }
    NearestTimes { prepare_s, search_s }
}
