//! Training: one optimizer step at a time over images resident on the device.

use super::params::fourier_freqs;
use super::unet::{self, Inputs};
use super::{ModelConfig, Params};
use crate::data::Dataset;
use crate::device::cpu::{self, Buffer};
use crate::device::{Device, StepArgs};
use crate::error::{Exit, fail};
use crate::ops::adam_ema::{self, Update};
use crate::ops::loss::Loss;
use crate::ops::precondition::Noisy;
use crate::ops::prepare_batch::{Batch, Position, Source, prepare_batch};
use crate::tape::{Memory, Mode, Plan, Tape, Value};
use anyhow::Result;
use std::time::Instant;

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
    /// Images per recording; the last recording of a step may be smaller. Sums over images are rounded in
    /// chunks of 8, so micro-batches of a multiple of 8 give the whole batch's bits.
    pub micro_batch: usize,
    /// A new shuffle each epoch, or epoch 0's for ever.
    pub shuffle: bool,
    /// Replace NaN by 0 and ±inf by ±1e5 in gradients instead of stopping (the reference's habit).
    pub scrub_gradients: bool,
}

/// Forward and backward of so many images, planned.
pub struct Recording {
    pub plan: Plan,
    pub images: usize,
    pub y: Value,
    pub noise: Value,
    pub sigma: Value,
    pub labels: Option<Value>,
    freqs: Option<Value>,
    loss: Value,
}

impl Recording {
    /// Records the loss of `images` images, a part of a batch of `batch`; `mode` says whether parameter
    /// gradients are set or added.
    pub fn new(config: &ModelConfig, images: usize, batch: usize, mode: Mode) -> Result<Self> {
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
        let plan = Plan::new(&tape, mode, &[loss]);
        Ok(Recording { plan, images, y, noise, sigma, labels, freqs, loss })
    }

    /// Frequencies of a Fourier embedding; once, before the first run in `memory`.
    pub fn set_freqs(&self, memory: &mut Memory, freqs: &[f32]) {
        if let Some(v) = self.freqs {
            memory.get_mut(self.plan.slot(v)).copy_from_slice(freqs);
        }
    }

    /// The images' losses, in order, after a run in `memory`.
    pub fn losses<'m>(&self, memory: &'m Memory) -> &'m [f64] {
        bytemuck::cast_slice(memory.get(self.plan.slot(self.loss)))
    }
}

/// A network in training: weights, Adam's moments, EMA, plans, and the images.
pub struct Trainer<'d> {
    /// Live weights, master order.
    pub weights: Vec<f32>,
    pub adam_m: Vec<f32>,
    pub adam_v: Vec<f32>,
    pub ema: Vec<f32>,
    pub freqs: Vec<f32>,
    device: Device,
    config: ModelConfig,
    options: TrainerOptions,
    data: &'d Dataset,
    grads: Buffer,
    /// Reserved from the start; given back only while the trainer rests.
    memory: Option<Memory>,
    memory_words: usize,
    /// (first image, recording) in the order of the batch.
    schedule: Vec<(usize, usize)>,
    recordings: Vec<Recording>,
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
            .map(|(images, mode)| Recording::new(config, images, options.batch, mode))
            .collect::<Result<Vec<_>>>()?;
        let words = recordings.iter().map(|r| r.plan.memory_words(device)).max().unwrap_or(0);
        let weights = params.init(options.seed);
        Ok(Trainer {
            adam_m: vec![0.0; weights.len()],
            adam_v: vec![0.0; weights.len()],
            ema: weights.clone(),
            weights,
            freqs: fourier_freqs(config, options.seed),
            device: device.clone(),
            config: config.clone(),
            options,
            data,
            grads: cpu::buffer(params.flat_len)?,
            memory: Some(Memory::new(words)?),
            memory_words: words,
            schedule: cut.schedule,
            recordings,
        })
    }

    /// Bytes of arena and scratch that training `config` in micro-batches of `micro_batch` reserves on
    /// `device`; nothing is reserved.
    pub fn plan_bytes(device: &Device, config: &ModelConfig, micro_batch: usize) -> Result<usize> {
        let recording = Recording::new(config, micro_batch, micro_batch, Mode::Training)?;
        Ok(recording.plan.memory_words(device) * 4)
    }

    /// One optimizer step. Returns the loss (mean over the batch, summed over pixels), or `None` when
    /// `stop()` answered true between micro-batches: then nothing has changed.
    ///
    /// # Errors
    /// A diverged error (exit 5) that names the step, if the loss or a gradient is not finite; the state is
    /// then that of the step before.
    pub fn step(&mut self, s: StepScalars, stop: &dyn Fn() -> bool) -> Result<Option<f64>> {
        let Some(loss) = self.gradient(s.step, stop)? else { return Ok(None) };
        let Device::Cpu(cpu) = &self.device;
        let grads = self.grads.as_slice();
        let diverged = |what: &str| {
            fail(
                Exit::Diverged,
                format!("step {}: the {what} is not finite; kept the state before it", s.step),
            )
        };
        if !self.options.scrub_gradients {
            if !loss.is_finite() {
                return Err(diverged(&format!("loss ({loss})")));
            }
            if !adam_ema::all_finite(cpu, grads) {
                return Err(diverged("gradient"));
            }
        }
        let update = Update {
            lr: s.lr,
            weight_decay: s.weight_decay,
            ema_beta: s.ema_beta,
            count: s.step + 1,
            scrub: self.options.scrub_gradients,
        };
        let grads = &grads[..self.weights.len()];
        let (w, m, v) = (&mut self.weights, &mut self.adam_m, &mut self.adam_v);
        adam_ema::adam_ema(cpu, update, w, grads, m, v, &mut self.ema);
        Ok(Some(loss))
    }

    /// Gradients of step `step` into the flat gradient; returns the loss, `None` if stopped.
    ///
    /// # Errors
    /// Out of memory (exit 4), after a rest.
    pub fn gradient(&mut self, step: u64, stop: &dyn Fn() -> bool) -> Result<Option<f64>> {
        let Device::Cpu(cpu) = &self.device;
        let (o, precond) = (&self.options, self.config.precond);
        let memory = match &mut self.memory {
            Some(memory) => memory,
            none => none.insert(Memory::new(self.memory_words)?),
        };
        let mut loss = 0.0;
        for &(first_image, index) in &self.schedule {
            if stop() {
                return Ok(None);
            }
            let r = &self.recordings[index];
            let at =
                Position { seed: o.seed, step, batch: o.batch, first_image, shuffle: o.shuffle };
            let labels = self.data.labels.as_deref().unwrap_or(&[]);
            let source =
                Source { pixels: &self.data.pixels, image_len: self.data.image_len(), labels };
            let slot = |v: Value| r.plan.slot(v);
            let labels = r.labels.map_or(slot(r.sigma).part(0, 0), slot);
            let places = [slot(r.y), slot(r.noise), slot(r.sigma), labels];
            let [y, noise, sigma, labels] = memory.get_disjoint_mut(places);
            let batch = Batch {
                y,
                noise,
                sigma: bytemuck::cast_slice_mut(sigma),
                labels: bytemuck::cast_slice_mut(labels),
            };
            prepare_batch(cpu, precond, source, at, batch);
            r.set_freqs(memory, &self.freqs);
            let args =
                StepArgs { seed: o.seed, step: step as u32, first_image: first_image as u32 };
            r.plan.run(&self.device, memory, &self.weights, self.grads.as_mut_slice(), args);
            // One image after another, so that micro-batches round as the whole batch does.
            loss = r.losses(memory).iter().fold(loss, |sum, l| sum + l);
        }
        Ok(Some(loss / self.options.batch as f64))
    }

    /// Seconds of each launch of the first recording, `repeats` times over.
    pub fn profile(&mut self, repeats: usize) -> Vec<(&'static str, Vec<f64>)> {
        let mut times: Vec<(&'static str, Vec<f64>)> = Vec::new();
        let plan = &self.recordings[0].plan;
        let Some(memory) = &mut self.memory else { return times };
        for _ in 0..repeats {
            let (device, grads) = (&self.device, self.grads.as_mut_slice());
            let args = StepArgs::default();
            plan.run_each(device, memory, &self.weights, grads, args, |i, launch, b| {
                let start = Instant::now();
                (launch.run)(b);
                if i == times.len() {
                    times.push((launch.name, Vec::new()));
                }
                times[i].1.push(start.elapsed().as_secs_f64());
            });
        }
        times
    }

    /// Gives the arena back until the next step, so that a look can use the memory.
    pub fn rest(&mut self) {
        self.memory = None;
    }

    /// The flat gradient of the last step, master order.
    pub fn gradients(&self) -> &[f32] {
        &self.grads.as_slice()[..self.weights.len()]
    }

    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Bytes reserved for activations, gradients of activations and scratch.
    pub fn arena_bytes(&self) -> usize {
        self.memory_words * 4
    }
}
