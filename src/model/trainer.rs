//! Training: one optimizer step at a time over images resident on the device.

use super::params::fourier_freqs;
use super::recording::{Cut, Recording};
use super::step_cpu::CpuStepper;
use super::step_gpu::GpuStepper;
use super::training::{Stepper, Steps, TrainerOptions, Training};
use super::{ModelConfig, Params};
use crate::data::Dataset;
use crate::device::{Buffer, Device, Precision};
use crate::ops::adam_ema::Rates;
use crate::tape::{MemoryPlan, Mode};
use anyhow::Result;

/// A network in training: weights, Adam's moments, EMA, plans, and the images.
///
/// ```
/// use emm::data::Dataset;
/// use emm::device::{Cpu, Device, Precision};
/// use emm::model::{Arch, ModelConfig, Rates, Trainer, TrainerOptions};
///
/// # fn main() -> anyhow::Result<()> {
/// let digits = Dataset::digits();
/// let config = ModelConfig { model_channels: 16, ..ModelConfig::basic(Arch::DdpmPP, 8, 1) };
/// let options = TrainerOptions {
///     seed: 1024,
///     batch: 8,
///     micro_batch: 8,
///     shuffle: true,
///     scrub_gradients: false,
///     precision: Precision::Fp32,
/// };
/// let device = Device::Cpu(Cpu::new(1)?);
/// let mut trainer = Trainer::new(&device, &config, options, &digits)?;
/// let never = || false;
/// let loss = trainer.step(Rates::new(0, 2e-4, 0.999), &never)?.expect("nothing stops it");
/// assert!(loss.is_finite());
/// # Ok(())
/// # }
/// ```
pub struct Trainer<'d> {
    pub training: Training<'d>,
    stepper: Box<dyn Stepper>,
}

impl<'d> Trainer<'d> {
    /// Starts from the initial weights of `options.seed` (EMA = weights, moments 0).
    ///
    /// # Errors
    /// Device errors: out of memory names bytes asked and free.
    pub fn new(
        device: &Device,
        config: &ModelConfig,
        options: TrainerOptions,
        data: &'d Dataset,
    ) -> Result<Self> {
        let params = Params::new(config);
        let cut = Cut::new(options.batch, options.micro_batch);
        let recordings = (cut.recordings.into_iter())
            .map(|(images, mode)| {
                Recording::new(device, config, options.precision, images, options.batch, mode)
            })
            .collect::<Result<Vec<_>>>()?;
        let words = recordings.iter().map(|r| r.plan.memory_words(device)).max().unwrap_or(0);
        let weights = params.init(options.seed);
        let freqs = fourier_freqs(config, options.seed);
        let zeros = || Buffer::of(device, &vec![0.0; weights.len()]);
        let stepper: Box<dyn Stepper> = match device {
            Device::Cpu(_) => Box::new(CpuStepper),
            Device::Cuda { cuda, .. } => {
                Box::new(GpuStepper::new(device, cuda, data, options.batch, freqs.len())?)
            }
        };
        let training = Training {
            adam_m: zeros()?,
            adam_v: zeros()?,
            ema: Buffer::of(device, &weights)?,
            // Zeros: what pads tensors to cache lines is never written, but looked at and updated.
            grads: zeros()?,
            weights: Buffer::of(device, &weights)?,
            freqs,
            device: device.clone(),
            config: config.clone(),
            options,
            data,
            memory: Some(Buffer::new(device, words)?),
            memory_words: words,
            flat_len: params.flat_len,
            schedule: cut.schedule,
            recordings,
        };
        Ok(Trainer { training, stepper })
    }

    /// Bytes of arena and scratch that training `config` in micro-batches of so many images of a batch reserves
    /// on `device`; nothing is reserved.
    pub fn plan_bytes(
        device: &Device,
        config: &ModelConfig,
        precision: Precision,
        [micro_batch, batch]: [usize; 2],
    ) -> Result<usize> {
        let mode = Mode::Training;
        let recording = Recording::new(device, config, precision, micro_batch, batch, mode)?;
        Ok(recording.plan.memory_words(device) * 4)
    }

    /// Takes steps, in order, until one diverges or `stop` answers true. The CPU asks it between micro-batches, and
    /// throws the unfinished step away; a GPU asks it between steps, as far ahead as they are queued.
    ///
    /// At most [`Trainer::longest_interval`] steps.
    ///
    /// # Errors
    /// Device (exit 4): what the driver says. Divergence is none: the steps before it are done.
    pub fn steps(&mut self, rates: &[Rates], stop: &dyn Fn() -> bool) -> Result<Steps> {
        self.stepper.steps(&mut self.training, rates, stop)
    }

    /// Launches every kernel of the next step singly, where a GPU would replay the graph of an earlier one.
    pub fn forget_graph(&mut self) {
        self.stepper.forget();
    }

    /// The most steps that one call of [`Trainer::steps`] takes without the host hearing of them.
    pub fn longest_interval(&self) -> usize {
        self.stepper.longest_interval()
    }

    /// One step. Returns the loss (mean over the batch, summed over pixels), or `None` when `stop()` answered true:
    /// then nothing has changed.
    ///
    /// # Errors
    /// A diverged error (exit 5) that names the step, if the loss or a gradient is not finite; the state is
    /// then that of the step before.
    pub fn step(&mut self, s: Rates, stop: &dyn Fn() -> bool) -> Result<Option<f64>> {
        let steps = self.steps(&[s], stop)?;
        match steps.diverged {
            Some(e) => Err(e),
            None => Ok((steps.done == 1).then_some(steps.loss)),
        }
    }

    /// Forward and backward of a step's first micro-batch.
    pub fn plan(&self) -> &MemoryPlan {
        &self.training.recordings[0].plan
    }

    /// Seconds of each launch of [`Trainer::plan`], `repeats` times over, after a step; on a GPU each finds nothing
    /// in the second-level cache.
    ///
    /// # Errors
    /// Device (exit 4): what the driver says.
    pub fn profile(&mut self, repeats: usize) -> Result<Vec<Vec<f64>>> {
        self.stepper.profile(&mut self.training, repeats)
    }

    /// Gives the CPU's arena back until the next step, so that an evaluation can use the memory. A GPU's stays.
    pub fn rest(&mut self) {
        self.stepper.rest(&mut self.training);
    }

    pub fn config(&self) -> &ModelConfig {
        &self.training.config
    }

    /// Values of weights, moments and EMA each.
    pub fn flat_len(&self) -> usize {
        self.training.flat_len
    }

    /// Bytes reserved for activations, gradients of activations and scratch.
    pub fn arena_bytes(&self) -> usize {
        self.training.memory_words * 4
    }
}
