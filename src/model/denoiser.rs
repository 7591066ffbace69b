//! Inference: D(x; sigma) for a batch of images.

use super::{ModelConfig, Precond};
use crate::device::Device;
use anyhow::Result;

/// A network ready to denoise. Weights are a flat buffer in master order; each image's result depends on
/// that image alone, whatever the batch.
pub struct Denoiser {}

impl Denoiser {
    /// Records and plans the network for batches of `batch` images.
    ///
    /// - `weights`: flat, master order, `Params::new(config).flat_len` values.
    /// - `freqs`: Fourier frequencies (empty for a positional embedding).
    ///
    /// # Errors
    /// Device errors: out of memory names bytes asked and free.
    pub fn new(
        _device: &Device,
        _config: &ModelConfig,
        _weights: Vec<f32>,
        _freqs: Vec<f32>,
        _batch: usize,
    ) -> Result<Self> {
        todo!()
    }

    pub fn config(&self) -> &ModelConfig {
        todo!()
    }

    /// The largest number of images one call takes.
    pub fn batch(&self) -> usize {
        todo!()
    }

    /// Exchanges the weights (same network), e.g. for a later EMA.
    pub fn set_weights(&mut self, _weights: &[f32]) {
        todo!()
    }

    /// D(x; sigma) of up to `batch` images.
    ///
    /// - `x`: [B, H, W, C] f32. `sigma`: [B]. `labels`: [B], empty for an unconditional network.
    /// - Returns [B, H, W, C], borrowed until the next call.
    pub fn denoise(&mut self, _x: &[f32], _sigma: &[f64], _labels: &[u32]) -> Result<&[f32]> {
        todo!()
    }

    /// Bytes reserved for activations.
    pub fn arena_bytes(&self) -> usize {
        todo!()
    }
}

/// The noise levels a network of this preconditioning accepts: [lowest, highest].
pub fn sigma_range(_precond: Precond) -> (f64, f64) {
    todo!()
}
