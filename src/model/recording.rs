//! A step's work, planned: forward and backward of each micro-batch.

use super::unet::{self, Inputs};
use super::{ModelConfig, Params};
use crate::device::{Buffer, Precision, Target};
use crate::ops::loss::Loss;
use crate::ops::precondition::Noisy;
use crate::tape::{MemoryPlan, Mode, Tape, Value};
use anyhow::Result;

/// Forward and backward of so many images, planned.
pub struct Recording {
    pub plan: MemoryPlan,
    pub images: usize,
    pub y: Value,
    pub noise: Value,
    pub sigma: Value,
    pub labels: Option<Value>,
    pub(super) freqs: Option<Value>,
    pub(super) loss: Value,
}

impl Recording {
    /// Records the loss of `images` images, a part of a batch of `batch`; `mode` says whether parameter
    /// gradients are set or added.
    pub fn new(
        target: impl Into<Target>,
        config: &ModelConfig,
        precision: Precision,
        images: usize,
        batch: usize,
        mode: Mode,
    ) -> Result<Self> {
        let mut tape = Tape::of_batch(batch);
        let shape = [images, config.resolution, config.resolution, config.image_channels];
        let (y, noise) = (tape.input(shape), tape.input(shape));
        let sigma = tape.input([images, 1, 1, 2]);
        let labels = (config.label_dim > 0).then(|| tape.input([images, 1, 1, 1]));
        let half = config.noise_channels() / 2;
        let fourier = config.embedding == super::Embedding::Fourier;
        let freqs = fourier.then(|| tape.input([1, 1, 1, half]));
        let x = tape.push1(Noisy(config.precond), &[y, noise, sigma], &[])?;
        let inputs = Inputs { x, sigma, labels, freqs };
        let f = unet::record(&mut tape, config, &Params::new(config), inputs, true)?;
        let loss = Loss { precond: config.precond, batch };
        let loss = tape.push1(loss, &[f, y, noise, sigma], &[])?;
        let plan = MemoryPlan::new(&tape, target, precision, mode, &[loss]);
        Ok(Recording { plan, images, y, noise, sigma, labels, freqs, loss })
    }

    /// Frequencies of a Fourier embedding, before a run in `memory`.
    pub fn set_freqs(&self, memory: &mut Buffer, freqs: &[f32]) -> Result<()> {
        match self.freqs {
            Some(v) => memory.put(self.plan.slot(v), freqs),
            None => Ok(()),
        }
    }

    /// The images' losses, in order, after a run in `memory`.
    pub fn losses(&self, memory: &Buffer) -> Result<Vec<f64>> {
        Ok(bytemuck::pod_collect_to_vec(&memory.get(self.plan.slot(self.loss))?))
    }
}

/// How a batch is cut into micro-batches.
pub(super) struct Cut {
    /// (images, mode) of each distinct recording.
    pub recordings: Vec<(usize, Mode)>,
    /// (first image, recording) in the order of the batch.
    pub schedule: Vec<(usize, usize)>,
}

impl Cut {
    pub fn new(batch: usize, micro_batch: usize) -> Self {
        let mut cut = Cut { recordings: Vec::new(), schedule: Vec::new() };
        for first in (0..batch).step_by(micro_batch) {
            let mode = if first == 0 { Mode::Training } else { Mode::Accumulating };
            let kind = (micro_batch.min(batch - first), mode);
            let known = cut.recordings.iter().position(|k| *k == kind);
            let index = known.unwrap_or(cut.recordings.len());
            if known.is_none() {
                cut.recordings.push(kind);
            }
            cut.schedule.push((first, index));
        }
        cut
    }
}
