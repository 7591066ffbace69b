//! What a network in training is made of, on any device.

use super::ModelConfig;
use super::recording::Recording;
use crate::data::Dataset;
use crate::device::{Buffer, Device, Precision};
use crate::ops::adam_ema::Rates;
use anyhow::Result;

/// What fixes a trainer beside the network.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainerOptions {
    pub seed: u64,
    /// Images per optimizer step.
    pub batch: usize,
    /// Images per recording; the last recording of a step may be smaller. Sums over images are rounded in
    /// chunks of 8, so micro-batches of a multiple of 8 give the whole batch's bits.
    pub micro_batch: usize,
    /// A new shuffle each epoch, or epoch 0's for ever.
    pub shuffle: bool,
    /// Replace NaN by 0 and ±inf by ±1e5 in gradients instead of stopping (the reference's habit).
    pub scrub_gradients: bool,
    pub precision: Precision,
}

/// Weights, Adam's moments, EMA, plans, and the images.
pub struct Training<'d> {
    /// Live weights, master order.
    pub weights: Buffer,
    pub adam_m: Buffer,
    pub adam_v: Buffer,
    pub ema: Buffer,
    pub freqs: Vec<f32>,
    pub(super) device: Device,
    pub(super) config: ModelConfig,
    pub(super) options: TrainerOptions,
    pub(super) data: &'d Dataset,
    pub(super) grads: Buffer,
    /// Reserved from the start; given back only while the trainer rests.
    pub(super) memory: Option<Buffer>,
    pub(super) memory_words: usize,
    /// Values of weights, gradient, moments and EMA each.
    pub(super) flat_len: usize,
    /// (first image, recording) in the order of the batch.
    pub(super) schedule: Vec<(usize, usize)>,
    pub(super) recordings: Vec<Recording>,
}

/// How some steps went.
#[derive(Debug)]
pub struct Steps {
    /// Steps done: all that were asked for, unless stopped or diverged.
    pub done: usize,
    /// Mean over them of the loss: a mean over the batch, summed over pixels. NaN if there are none.
    pub loss: f64,
    /// Why the next one was not done: a diverged error (exit 5) that names the step.
    pub diverged: Option<anyhow::Error>,
}

/// Takes steps of a [`Training`] on one kind of device.
pub(super) trait Stepper {
    /// As [`super::Trainer::steps`].
    fn steps(
        &mut self,
        training: &mut Training,
        rates: &[Rates],
        stop: &dyn Fn() -> bool,
    ) -> Result<Steps>;

    /// The most steps that one call of [`Stepper::steps`] takes.
    fn longest_interval(&self) -> usize;

    /// Seconds of each launch of the first recording, `repeats` times over, after a step.
    fn profile(&mut self, training: &mut Training, repeats: usize) -> Result<Vec<Vec<f64>>>;

    /// Forgets what it has recorded of earlier steps.
    fn forget(&mut self) {}

    /// Gives back the memory that it can do without until the next step.
    fn rest(&mut self, _training: &mut Training) {}
}
