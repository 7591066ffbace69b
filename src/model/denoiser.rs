//! Inference: D(x; sigma) for a batch of images.

use super::unet::{self, Inputs};
use super::{ModelConfig, Params};
use crate::device::{Device, Slot, StepArgs};
use crate::error::usage;
use crate::ops::precondition::{Denoised, ScaleInput};
use crate::tape::{Memory, Mode, Plan, Tape};
use anyhow::{Result, ensure};

/// A network ready to denoise. Weights are a flat buffer in master order; each image's result depends on
/// that image alone, whatever the batch.
pub struct Denoiser {
    device: Device,
    config: ModelConfig,
    weights: Vec<f32>,
    batch: usize,
    plan: Plan,
    memory: Memory,
    x: Slot,
    sigma: Slot,
    labels: Option<Slot>,
    out: Slot,
}

impl Denoiser {
    /// Records and plans the network for batches of `batch` images.
    ///
    /// - `weights`: flat, master order, `Params::new(config).flat_len` values.
    /// - `freqs`: Fourier frequencies (empty for a positional embedding).
    ///
    /// # Errors
    /// Device errors: out of memory names bytes asked and free.
    pub fn new(
        device: &Device,
        config: &ModelConfig,
        weights: Vec<f32>,
        freqs: Vec<f32>,
        batch: usize,
    ) -> Result<Self> {
        let params = Params::new(config);
        ensure!(weights.len() == params.flat_len, "{} weights given", weights.len());
        let mut tape = Tape::new();
        let image = [batch, config.resolution, config.resolution, config.image_channels];
        let x = tape.input(image);
        let sigma = tape.input([batch, 1, 1, 2]);
        let labels = (config.label_dim > 0).then(|| tape.input([batch, 1, 1, 1]));
        let freq_value = (!freqs.is_empty()).then(|| tape.input([1, 1, 1, freqs.len()]));
        let scaled = tape.push1(ScaleInput(config.precond), &[x, sigma], &[])?;
        let inputs = Inputs { x: scaled, sigma, labels, freqs: freq_value };
        let f = unet::record(&mut tape, config, &params, inputs, false)?;
        let out = tape.push1(Denoised(config.precond), &[x, f, sigma], &[])?;
        let plan = Plan::new(&tape, Mode::Inference, &[out]);
        let mut memory = Memory::new(plan.memory_words(device))?;
        if let Some(v) = freq_value {
            memory.get_mut(plan.slot(v)).copy_from_slice(&freqs);
        }
        Ok(Denoiser {
            device: device.clone(),
            config: config.clone(),
            weights,
            batch,
            x: plan.slot(x),
            sigma: plan.slot(sigma),
            labels: labels.map(|v| plan.slot(v)),
            out: plan.slot(out),
            plan,
            memory,
        })
    }

    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The largest number of images one call takes.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// D(x; sigma) of up to `batch` images.
    ///
    /// - `x`: [B, H, W, C] f32. `sigma`: [B]. `labels`: [B], empty for an unconditional network.
    /// - Returns [B, H, W, C], borrowed until the next call.
    ///
    /// # Errors
    /// Usage errors for labels that are missing, superfluous or not below label_dim.
    pub fn denoise(&mut self, x: &[f32], sigma: &[f64], labels: &[u32]) -> Result<&[f32]> {
        let (len, b) = (self.config.image_len(), sigma.len());
        ensure!(
            b > 0 && b <= self.batch && x.len() == b * len,
            "{b} noise levels and {} values for images of {len}",
            x.len()
        );
        self.check_labels(labels, b)?;
        self.memory.get_mut(self.x)[..x.len()].copy_from_slice(x);
        self.memory.get_mut(self.x)[x.len()..].fill(0.0);
        let levels: &mut [f64] = bytemuck::cast_slice_mut(self.memory.get_mut(self.sigma));
        levels[..b].copy_from_slice(sigma);
        levels[b..].fill(1.0);
        if let Some(slot) = self.labels {
            let to: &mut [u32] = bytemuck::cast_slice_mut(self.memory.get_mut(slot));
            to[..b].copy_from_slice(labels);
            to[b..].fill(0);
        }
        let args = StepArgs::default();
        self.plan.run(&self.device, &mut self.memory, &self.weights, &mut [], args);
        Ok(&self.memory.get(self.out)[..b * len])
    }

    fn check_labels(&self, labels: &[u32], batch: usize) -> Result<()> {
        let dim = self.config.label_dim;
        let want = if dim > 0 { batch } else { 0 };
        if labels.len() != want {
            return Err(usage(format!(
                "--labels: {} given for {batch} images, the network (label_dim {dim}) takes {want}",
                labels.len()
            )));
        }
        match labels.iter().find(|&&l| l as usize >= dim) {
            Some(l) => {
                Err(usage(format!("--labels: {l} is not below the network's label_dim {dim}")))
            }
            None => Ok(()),
        }
    }

    /// Bytes reserved for activations and scratch.
    pub fn arena_bytes(&self) -> usize {
        self.memory.bytes()
    }
}
