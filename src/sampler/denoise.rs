//! What a sampler asks of a denoiser, and the images that it gives.

use crate::device::cuda::{self, Cuda};
use crate::device::{Pixels, Ptr};
use anyhow::Result;
use std::borrow::Cow;

/// Anything that estimates the clean image: a trained network or the theoretical optimum.
pub trait Denoise {
    /// Values of one image, H·W·C.
    fn image_len(&self) -> usize;
    /// The most images one call takes.
    fn max_batch(&self) -> usize;
    /// Noise levels it accepts: [lowest, highest].
    fn sigma_range(&self) -> (f64, f64);
    /// D(x; sigma): x `[B, H, W, C]` f32 in units where pixels are in `[−1, 1]`; sigma `[B]`; labels `[B]` or empty.
    /// Writes [B, H, W, C] to `out`.
    fn denoise(&mut self, x: &[f32], sigma: &[f64], labels: &[u32], out: &mut [f32]) -> Result<()>;
    /// The same on the GPU that it computes on, if it does.
    fn on_gpu(&mut self) -> Option<&mut dyn OnGpu> {
        None
    }
}

/// A denoiser that is a mean of training images by their weights: the theoretical optimum.
pub trait Posterior: Denoise {
    /// [`Denoise::denoise`], and the entropy of each image's weights in nats, `[B]`: e to its power is how many training
    /// images the mean effectively is of. NaN where x is not finite.
    fn denoise_weighed(
        &mut self,
        x: &[f32],
        sigma: &[f64],
        labels: &[u32],
        out: &mut [f32],
        entropies: &mut [f64],
    ) -> Result<()>;
}

/// A denoiser whose operands stay on a GPU from evaluation to evaluation.
pub trait OnGpu {
    fn cuda(&self) -> &Cuda;
    /// Takes the labels, or none, of the `images` images that the next evaluations are of; returns the places of
    /// their operands.
    fn begin(&mut self, images: usize, labels: &[u32]) -> Result<Operands>;
    /// Queues an evaluation of what lies there.
    fn evaluate(&mut self) -> Result<()>;
}

/// Addresses of x `[B, H, W, C]` f32, sigma `[B]` f64 and D(x; sigma) `[B, H, W, C]` f32.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Operands {
    pub x: Ptr,
    pub sigma: Ptr,
    pub out: Ptr,
}

/// A batch of finished images [B, H, W, C], where they were computed.
pub enum Images<'a> {
    Host(&'a [f32]),
    /// As float32 and as bytes; `len` values of both.
    Gpu {
        values: &'a cuda::Buffer,
        pixels: &'a cuda::Buffer,
        len: usize,
    },
}

impl Images<'_> {
    /// In units where pixels are in [−1, 1], before quantisation.
    ///
    /// # Errors
    /// Device (exit 4): what the driver says.
    pub fn values(&self) -> Result<Cow<'_, [f32]>> {
        Ok(match *self {
            Images::Host(values) => Cow::Borrowed(values),
            Images::Gpu { values, len, .. } => Cow::Owned(values.read(0, len)?),
        })
    }

    /// As bytes.
    pub fn pixels(&self) -> Pixels<'_> {
        match *self {
            Images::Host(values) => {
                Pixels::Host(Cow::Owned(values.iter().map(|&v| quantise(v)).collect()))
            }
            Images::Gpu { pixels, len, .. } => Pixels::Gpu { buffer: pixels, len },
        }
    }
}

/// A value in units where pixels are in [−1, 1] as a pixel: floor(clip(127.5 x + 128, 0, 255)), exactly.
#[inline]
pub fn quantise(x: f32) -> u8 {
    // Exact in float64; the cast truncates and saturates.
    (127.5 * x as f64 + 128.0) as u8
}
