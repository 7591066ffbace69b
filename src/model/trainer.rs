//! Training: one optimizer step at a time over images resident on the device.

use super::params::fourier_freqs;
use super::trainer_card::{Card, LONGEST_INTERVAL};
use super::unet::{self, Inputs};
use super::{ModelConfig, Params};
use crate::data::Dataset;
use crate::device::cuda::{Addresses, Clock};
use crate::device::{Buffer, Device, Precision, StepArgs, Target};
use crate::error::{Exit, exit_code, fail};
use crate::ops::adam_ema::{self, Rates};
use crate::ops::loss::Loss;
use crate::ops::precondition::Noisy;
use crate::ops::prepare_batch::{self, Batch, Position, Source};
use crate::tape::{Mode, Plan, Tape, Value};
use anyhow::Result;
use std::time::Instant;

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

/// Forward and backward of so many images, planned.
pub struct Recording {
    pub plan: Plan,
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
        let mut tape = Tape::new();
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
        let plan = Plan::new(&tape, target, precision, mode, &[loss]);
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
    memory_words: usize,
    /// Values of weights, gradient, moments and EMA each.
    pub(super) flat_len: usize,
    /// (first image, recording) in the order of the batch.
    pub(super) schedule: Vec<(usize, usize)>,
    pub(super) recordings: Vec<Recording>,
    /// What stays on a card beside these.
    card: Option<Card>,
}

/// How a batch is cut into micro-batches.
struct Cut {
    /// (images, mode) of each distinct recording.
    recordings: Vec<(usize, Mode)>,
    /// (first image, recording) in the order of the batch.
    schedule: Vec<(usize, usize)>,
}

impl Cut {
    fn new(batch: usize, micro_batch: usize) -> Self {
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
        Ok(Trainer {
            adam_m: zeros()?,
            adam_v: zeros()?,
            ema: Buffer::of(device, &weights)?,
            // Zeros: what pads tensors to cache lines is never written, but looked at and updated.
            grads: zeros()?,
            card: match device {
                Device::Cpu(_) => None,
                Device::Cuda { cuda, .. } => {
                    Some(Card::new(device, cuda, data, options.batch, freqs.len())?)
                }
            },
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
        })
    }

    /// Bytes of arena and scratch that training `config` in micro-batches of `micro_batch` reserves on
    /// `device`; nothing is reserved.
    pub fn plan_bytes(
        device: &Device,
        config: &ModelConfig,
        precision: Precision,
        micro_batch: usize,
    ) -> Result<usize> {
        let n = micro_batch;
        let recording = Recording::new(device, config, precision, n, n, Mode::Training)?;
        Ok(recording.plan.memory_words(device) * 4)
    }

    /// Takes steps, in order, until one diverges or `stop` answers true. The CPU asks it between micro-batches, and
    /// throws the unfinished step away; a card asks it between steps, as far ahead as they are queued.
    ///
    /// At most [`Trainer::longest_interval`] steps.
    ///
    /// # Errors
    /// Device (exit 4): what the driver says. Divergence is none: the steps before it are done.
    pub fn steps(&mut self, rates: &[Rates], stop: &dyn Fn() -> bool) -> Result<Steps> {
        if let Some(mut card) = self.card.take() {
            let steps = card.steps(self, rates, stop);
            self.card = Some(card);
            return steps;
        }
        let mut steps = Steps { done: 0, loss: 0.0, diverged: None };
        for &s in rates {
            match self.step_on_cpu(s, stop) {
                Ok(Some(loss)) => {
                    steps.done += 1;
                    steps.loss += loss;
                }
                Ok(None) => break,
                Err(e) if exit_code(&e) == Exit::Diverged as i32 => {
                    steps.diverged = Some(e);
                    break;
                }
                Err(e) => return Err(e),
            }
        }
        steps.loss /= steps.done as f64;
        Ok(steps)
    }

    /// Launches every kernel of the next step singly, where a card would replay the graph of an earlier one.
    pub fn forget_graph(&mut self) {
        if let Some(card) = &mut self.card {
            card.forget_graph();
        }
    }

    /// The most steps that one call of [`Trainer::steps`] takes without the host hearing of them.
    pub fn longest_interval(&self) -> usize {
        if self.card.is_some() { LONGEST_INTERVAL } else { 1 }
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

    fn step_on_cpu(&mut self, s: Rates, stop: &dyn Fn() -> bool) -> Result<Option<f64>> {
        let scrub = self.options.scrub_gradients;
        let Some(loss) = self.gradient(s.step, stop)? else { return Ok(None) };
        let diverged = |what: &str| {
            let message =
                format!("step {}: the {what} is not finite; kept the state before it", s.step);
            fail(Exit::Diverged, message)
        };
        if !scrub && !loss.is_finite() {
            return Err(diverged(&format!("loss ({loss})")));
        }
        let (cpu, grads) = (self.device.host(), self.grads.cpu());
        if !scrub && !adam_ema::all_finite(cpu, grads) {
            return Err(diverged("gradient"));
        }
        let (w, m, v) = (self.weights.cpu_mut(), self.adam_m.cpu_mut(), self.adam_v.cpu_mut());
        adam_ema::adam_ema(
            cpu,
            &s.words(self.options.seed, scrub),
            w,
            grads,
            m,
            v,
            self.ema.cpu_mut(),
        );
        Ok(Some(loss))
    }

    /// Gradients of step `step` into the flat gradient; returns the loss, `None` if stopped.
    fn gradient(&mut self, step: u64, stop: &dyn Fn() -> bool) -> Result<Option<f64>> {
        let (o, precond) = (&self.options, self.config.precond);
        let memory = match &mut self.memory {
            Some(memory) => memory,
            none => none.insert(Buffer::new(&self.device, self.memory_words)?),
        };
        let mut loss = 0.0;
        for &(first_image, index) in &self.schedule {
            if stop() {
                return Ok(None);
            }
            let r = &self.recordings[index];
            let (seed, batch, shuffle) = (o.seed, o.batch, o.shuffle);
            let at = Position { seed, step, batch, first_image, shuffle };
            prepare(&self.device, precond, r, memory, self.data, at);
            r.set_freqs(memory, &self.freqs)?;
            let args = StepArgs { seed, step: step as u32, first_image: first_image as u32 };
            let (device, grads) = (&self.device, Some(&mut self.grads));
            r.plan.run(device, memory, &self.weights, grads, None, args)?;
            // One image after another, so that micro-batches round as the whole batch does.
            loss = r.losses(memory)?.iter().fold(loss, |sum, l| sum + l);
        }
        Ok(Some(loss / self.options.batch as f64))
    }

    /// Forward and backward of a step's first micro-batch.
    pub fn plan(&self) -> &Plan {
        &self.recordings[0].plan
    }

    /// Seconds of each launch of [`Trainer::plan`], `repeats` times over, after a step; on a card each finds nothing
    /// in the second-level cache.
    ///
    /// # Errors
    /// Device (exit 4): what the driver says.
    pub fn profile(&mut self, repeats: usize) -> Result<Vec<Vec<f64>>> {
        let plan = &self.recordings[0].plan;
        let mut times = vec![Vec::new(); plan.launch_names().count()];
        let Some(memory) = &mut self.memory else { return Ok(times) };
        if let (Device::Cuda { cuda, .. }, Some(card)) = (&self.device, &self.card) {
            let [memory, weights, grads] =
                [&*memory, &self.weights, &self.grads].map(Buffer::address);
            let addresses = Addresses::new([memory, weights, grads, card.step_address()], 0);
            let mut clock = Clock::new(cuda)?;
            for _ in 0..repeats {
                for (kernel, times) in plan.kernels().iter().zip(&mut times) {
                    times.push(clock.cold(kernel, &addresses)?);
                }
            }
            return Ok(times);
        }
        for _ in 0..repeats {
            let (device, grads) = (&self.device, Some(&mut self.grads));
            let args = StepArgs::default();
            plan.run_each(device, memory, &self.weights, grads, args, |i, launch, b| {
                let start = Instant::now();
                (launch.run)(b);
                times[i].push(start.elapsed().as_secs_f64());
            });
        }
        Ok(times)
    }

    /// Gives the CPU's arena back until the next step, so that a look can use the memory. A card's stays.
    pub fn rest(&mut self) {
        if let Device::Cpu(_) = self.device {
            self.memory = None;
        }
    }

    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Values of weights, moments and EMA each.
    pub fn flat_len(&self) -> usize {
        self.flat_len
    }

    /// Bytes reserved for activations, gradients of activations and scratch.
    pub fn arena_bytes(&self) -> usize {
        self.memory_words * 4
    }
}

/// Fills a recording's batch on the CPU.
fn prepare(
    device: &Device,
    precond: super::Precond,
    r: &Recording,
    memory: &mut Buffer,
    data: &Dataset,
    at: Position,
) {
    let slot = |v: Value| r.plan.slot(v);
    let labels = data.labels.as_deref().unwrap_or(&[]);
    let source = Source { pixels: &data.pixels, image_len: data.image_len(), labels };
    let labels = r.labels.map_or(slot(r.sigma).part(0, 0), slot);
    let places = [slot(r.y), slot(r.noise), slot(r.sigma), labels];
    let ranges = places.map(|s| s.offset..s.offset + s.len);
    let disjoint = memory.cpu_mut().get_disjoint_mut(ranges);
    let [y, noise, sigma, labels] = disjoint.expect("a plan's inputs are disjoint");
    let (sigma, labels) = (bytemuck::cast_slice_mut(sigma), bytemuck::cast_slice_mut(labels));
    let batch = Batch { y, noise, sigma, labels };
    prepare_batch::prepare_batch(device.host(), precond, source, at, batch);
}
