//! What a sampler does to images on any device.

use super::Images;
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
