//! Training steps on the CPU, one after another.

use super::recording::Recording;
use super::training::{Stepper, Steps, Training};
use crate::data::Dataset;
use crate::device::{Buffer, Device, StepArgs};
use crate::error::{Exit, exit_code, fail};
use crate::ops::adam_ema::{self, Rates};
use crate::ops::prepare_batch::{self, Batch, Position, Source};
use crate::tape::Value;
use anyhow::Result;
use std::time::Instant;

pub(super) struct CpuStepper;

impl Stepper for CpuStepper {
    fn steps(
        &mut self,
        training: &mut Training,
        rates: &[Rates],
        stop: &dyn Fn() -> bool,
    ) -> Result<Steps> {
        let mut steps = Steps { done: 0, loss: 0.0, diverged: None };
        for &s in rates {
            match step(training, s, stop) {
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

    fn longest_interval(&self) -> usize {
        1
    }

    fn profile(&mut self, t: &mut Training, repeats: usize) -> Result<Vec<Vec<f64>>> {
        let plan = &t.recordings[0].plan;
        let mut times = vec![Vec::new(); plan.launches().len()];
        let Some(memory) = &mut t.memory else { return Ok(times) };
        for _ in 0..repeats {
            let (device, grads) = (&t.device, Some(&mut t.grads));
            let args = StepArgs::default();
            plan.run_each(device, memory, &t.weights, grads, args, |i, launch, b| {
                let start = Instant::now();
                (launch.run)(b);
                times[i].push(start.elapsed().as_secs_f64());
            });
        }
        Ok(times)
    }

    /// The arena, so that an evaluation can use the memory.
    fn rest(&mut self, training: &mut Training) {
        training.memory = None;
    }
}

/// One step; its loss, or `None` if it was stopped. Diverged errors are those of [`super::Trainer::step`].
fn step(t: &mut Training, s: Rates, stop: &dyn Fn() -> bool) -> Result<Option<f64>> {
    let scrub = t.options.scrub_gradients;
    let Some(loss) = gradient(t, s.step, stop)? else { return Ok(None) };
    let diverged = |what: &str| {
        let message =
            format!("step {}: the {what} is not finite; kept the state before it", s.step);
        fail(Exit::Diverged, message)
    };
    if !scrub && !loss.is_finite() {
        return Err(diverged(&format!("loss ({loss})")));
    }
    let (cpu, grads) = (t.device.host(), t.grads.cpu());
    if !scrub && !adam_ema::all_finite(cpu, grads) {
        return Err(diverged("gradient"));
    }
    let (w, m, v) = (t.weights.cpu_mut(), t.adam_m.cpu_mut(), t.adam_v.cpu_mut());
    adam_ema::adam_ema(cpu, &s.words(t.options.seed, scrub), w, grads, m, v, t.ema.cpu_mut());
    Ok(Some(loss))
}

/// Gradients of step `step` into the flat gradient; returns the loss, `None` if stopped.
fn gradient(t: &mut Training, step: u64, stop: &dyn Fn() -> bool) -> Result<Option<f64>> {
    let (o, precond) = (&t.options, t.config.precond);
    let memory = match &mut t.memory {
        Some(memory) => memory,
        none => none.insert(Buffer::new(&t.device, t.memory_words)?),
    };
    let mut loss = 0.0;
    for &(first_image, index) in &t.schedule {
        if stop() {
            return Ok(None);
        }
        let r = &t.recordings[index];
        let (seed, batch, shuffle) = (o.seed, o.batch, o.shuffle);
        let at = Position { seed, step, batch, first_image, shuffle };
        prepare(&t.device, precond, r, memory, t.data, at);
        r.set_freqs(memory, &t.freqs)?;
        let args = StepArgs { seed, step: step as u32, first_image: first_image as u32 };
        let (device, grads) = (&t.device, Some(&mut t.grads));
        r.plan.run(device, memory, &t.weights, grads, None, args)?;
        // One image after another, so that micro-batches round as the whole batch does.
        loss = r.losses(memory)?.iter().fold(loss, |sum, l| sum + l);
    }
    Ok(Some(loss / t.options.batch as f64))
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
