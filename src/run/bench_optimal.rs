//! Timing of the sampler over the closed-form optimum.

use crate::data::Dataset;
use crate::device::{Device, Pixels};
use crate::memorization::{Nearest, Search, Threshold};
use crate::sampler::{HeunOptions, Start, optimum, quantise, sample};
use anyhow::Result;
use std::time::Instant;

/// Times of repeated samplings, and what was sampled.
#[derive(Debug, Clone, PartialEq)]
pub struct OptimalTimes {
    /// Seconds of preparing the training images.
    pub prepare_s: f64,
    /// Seconds of each sampling of all images, training images already prepared.
    pub sample_s: Vec<f64>,
    /// The nearest training image of each sample.
    pub nearest: Vec<u32>,
    /// Samples that copy a training image.
    pub memorized: u64,
}

/// Times `repeats` samplings of one image from each latent of `start`, after one that warms up. `data` holds at
/// least two images.
///
/// # Errors
/// Those of the sampler; device (exit 4): a GPU out of memory.
pub fn optimal(
    device: &Device,
    data: &Dataset,
    start: Start,
    options: &HeunOptions,
    repeats: usize,
) -> Result<OptimalTimes> {
    let clock = Instant::now();
    let mut optimal = optimum(data, device)?;
    let prepare_s = clock.elapsed().as_secs_f64();
    let (mut sample_s, mut images) = (Vec::new(), Vec::new());
    for repeat in 0..=repeats {
        let clock = Instant::now();
        images = sample(&mut *optimal, start, &[], options, &mut |_, _| true)?.unwrap_or_default();
        if repeat > 0 {
            sample_s.push(clock.elapsed().as_secs_f64());
        }
    }
    let pixels: Vec<u8> = images.into_iter().map(quantise).collect();
    let mut search = Search::new(device, &data.pixels, data.image_len())?;
    let found = search.nearest(&Pixels::Host(pixels.into()))?;
    let copied = |n: &&Nearest| Threshold::default().memorized(n);
    let memorized = found.iter().filter(copied).count() as u64;
    let nearest = found.iter().map(|n| n.index[0]).collect();
    Ok(OptimalTimes { prepare_s, sample_s, nearest, memorized })
}
