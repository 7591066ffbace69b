//! Training: one optimizer step at a time over images resident on the device.

use super::ModelConfig;
use crate::data::Dataset;
use crate::device::Device;
use anyhow::Result;

/// What varies from step to step, computed in float64 by the caller's schedules.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepScalars {
    /// Index of the step, from 0: position in every random stream and in Adam's bias correction (step + 1).
    pub step: u64,
    pub lr: f64,
    /// EMA ← beta·EMA + (1 − beta)·w.
    pub ema_beta: f64,
    pub weight_decay: f64,
}

/// What fixes a trainer beside the network.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainerOptions {
    pub seed: u64,
    /// Images per optimizer step.
    pub batch: usize,
    /// Images per recording; the last recording of a step may be smaller.
    pub micro_batch: usize,
    /// A new shuffle each epoch, or epoch 0's for ever.
    pub shuffle: bool,
    /// Replace NaN by 0 and ±inf by ±1e5 in gradients instead of stopping (the reference's habit).
    pub scrub_gradients: bool,
}

/// A network in training: weights, Adam's moments, EMA, plans, and the images.
pub struct Trainer {
    /// Live weights, master order.
    pub weights: Vec<f32>,
    pub adam_m: Vec<f32>,
    pub adam_v: Vec<f32>,
    pub ema: Vec<f32>,
    pub freqs: Vec<f32>,
}

impl Trainer {
    /// Starts from the initial weights of `options.seed` (EMA = weights, moments 0).
    ///
    /// # Errors
    /// Device errors: out of memory names bytes asked and free.
    pub fn new(
        _device: &Device,
        _config: &ModelConfig,
        _options: TrainerOptions,
        _data: &Dataset,
    ) -> Result<Self> {
        todo!()
    }

    /// One optimizer step. Returns the loss (mean over the batch, summed over pixels), or `None` when
    /// `stop()` answered true between micro-batches: then nothing has changed.
    ///
    /// # Errors
    /// A diverged error (exit 5) that names the step, if the loss or a gradient is not finite; the state is
    /// then that of the step before.
    pub fn step(&mut self, _s: StepScalars, _stop: &dyn Fn() -> bool) -> Result<Option<f64>> {
        todo!()
    }

    pub fn config(&self) -> &ModelConfig {
        todo!()
    }

    /// Bytes reserved for activations, gradients of activations and scratch.
    pub fn arena_bytes(&self) -> usize {
        todo!()
    }
}
