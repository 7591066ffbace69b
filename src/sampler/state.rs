//! What a sampler does to images on any device.

use super::denoise::Images;
use crate::rng::{Stream, fill_normals, tag};
use anyhow::Result;
use std::ops::Range;

/// What images begin as.
#[derive(Debug, Clone, Copy)]
pub enum Start<'a> {
    /// A seed per image: its latents, and all noise added to it, depend on nothing else.
    Seeds(&'a [u64]),
    /// Unit-variance latents [S, H, W, C]; noise added to image k has seed k.
    Latents(&'a [f32]),
}

impl Start<'_> {
    pub(super) fn len(&self, image_len: usize) -> usize {
        match self {
            Start::Seeds(s) => s.len(),
            Start::Latents(l) => l.len() / image_len,
        }
    }

    pub(super) fn seed(&self, k: usize) -> u64 {
        match self {
            Start::Seeds(s) => s[k],
            Start::Latents(_) => k as u64,
        }
    }

    pub(super) fn latent(&self, k: usize, out: &mut [f32]) {
        match self {
            Start::Seeds(s) => fill_normals(out, 0, 0, tag(Stream::Latent, 0), s[k]),
            Start::Latents(l) => out.copy_from_slice(&l[k * out.len()..][..out.len()]),
        }
    }
}

/// Images on their way from noise, on a device: the state x in float64, a denoiser, and what a step does to x.
pub(super) trait State {
    /// x = t · the latents of some of `start`'s images.
    fn begin(&mut self, start: Start, images: Range<usize>, labels: &[u32], t: f64) -> Result<()>;
    /// x += scale · normals of each image's seed and the step.
    fn add_noise(&mut self, scale: f64, step: u32) -> Result<()>;
    /// Euler's step from x at noise level t; slope and beginning are kept.
    fn euler(&mut self, t: f64, t_next: f64) -> Result<()>;
    /// The same step again, with the mean of the slopes at its ends.
    fn correct(&mut self, t: f64, t_next: f64) -> Result<()>;
    /// Rounds x to float32; returns the first image that is not finite.
    fn finish(&mut self) -> Result<Option<usize>>;
    /// What [`State::finish`] made.
    fn images(&self) -> Images<'_>;
}
