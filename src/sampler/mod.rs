//! From noise to images: EDM's Heun sampler over any denoiser, and the closed-form optimal denoiser.

pub mod heun;
pub mod optimal;

pub use heun::{HeunOptions, Start, noise_levels, quantise, sample, sample_each};
pub use optimal::Optimal;

use anyhow::Result;

/// Anything that estimates the clean image: a trained network or the theoretical optimum.
pub trait Denoise {
    /// Values of one image, H·W·C.
    fn image_len(&self) -> usize;
    /// The most images one call takes.
    fn max_batch(&self) -> usize;
    /// Noise levels it accepts: [lowest, highest].
    fn sigma_range(&self) -> (f64, f64);
    /// D(x; sigma): x [B, H, W, C] f32 in units where pixels are in [−1, 1]; sigma [B]; labels [B] or empty.
    /// Writes [B, H, W, C] to `out`.
    fn denoise(&mut self, x: &[f32], sigma: &[f64], labels: &[u32], out: &mut [f32]) -> Result<()>;
}
