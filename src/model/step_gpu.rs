//! Training steps on a GPU: each is one graph, and the host hears of an interval of them once.

use super::recording::Recording;
use super::training::{Stepper, Steps, Training};
use crate::data::Dataset;
use crate::device::cuda::{self, Addresses, Clock, Cuda, Repeated};
use crate::device::params::{BLOCK_ELEMENTS, GOOD, Step, WARP_THREADS};
use crate::device::{Buffer, Device, Kernel, Ptr, StepArgs, params};
use crate::error::{Exit, fail};
use crate::ops::adam_ema::{self, Rates};
use crate::ops::prepare_batch::{self, OnGpu, Position};
use crate::tape::Value;
use anyhow::Result;

/// Steps of an interval, at most.
const LONGEST_INTERVAL: usize = 256;

/// What a GPU holds beside parameters and arena, and the graph of a step.
pub(super) struct GpuStepper {
    on: Resident,
    step: Repeated,
}

struct Resident {
    cuda: Cuda,
    /// The set.
    pixels: Buffer,
    labels: Option<Buffer>,
    freqs: Option<cuda::Buffer>,
    /// The images of a micro-batch, by index in the set.
    index: Buffer,
    /// What the step under way reads, a [`Step`].
    step: Buffer,
    /// An [`Interval`], and the words of its steps.
    interval: cuda::Buffer,
}

/// What goes up and comes back once per interval.
#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Interval {
    /// Sum of the losses of all images so far.
    loss: f64,
    /// Steps begun.
    cursor: u32,
    /// The first step whose loss or gradient was not finite; nothing is updated from it on.
    bad_step: u32,
}

const INTERVAL_WORDS: usize = size_of::<Interval>() / 4;

impl GpuStepper {
    /// `freqs`: how many frequencies the embedding has.
    pub fn new(
        device: &Device,
        cuda: &Cuda,
        data: &Dataset,
        batch: usize,
        freqs: usize,
    ) -> Result<Self> {
        let labels = data.labels.as_ref().map(|l| Buffer::of(device, bytemuck::cast_slice(l)));
        let table = LONGEST_INTERVAL * Step::WORDS;
        let on = Resident {
            cuda: cuda.clone(),
            pixels: Buffer::Cuda(cuda.buffer_of(&data.pixels)?),
            labels: labels.transpose()?,
            freqs: if freqs > 0 { Some(cuda.buffer(freqs)?) } else { None },
            index: Buffer::new(device, batch)?,
            step: Buffer::new(device, Step::WORDS)?,
            interval: cuda.buffer(INTERVAL_WORDS + table)?,
        };
        Ok(GpuStepper { on, step: Repeated::default() })
    }
}

impl Stepper for GpuStepper {
    fn steps(
        &mut self,
        training: &mut Training,
        rates: &[Rates],
        stop: &dyn Fn() -> bool,
    ) -> Result<Steps> {
        let GpuStepper { on, step } = self;
        on.begin(training, rates)?;
        for _ in rates {
            if stop() {
                break;
            }
            step.run(&on.cuda.clone(), || on.queue(training))?;
        }
        on.end(training, rates)
    }

    fn longest_interval(&self) -> usize {
        LONGEST_INTERVAL
    }

    /// Each launch finds nothing in the second-level cache.
    fn profile(&mut self, t: &mut Training, repeats: usize) -> Result<Vec<Vec<f64>>> {
        let plan = &t.recordings[0].plan;
        let mut times = vec![Vec::new(); plan.launches().len()];
        let Some(memory) = &t.memory else { return Ok(times) };
        let [memory, weights, grads] = [memory, &t.weights, &t.grads].map(Buffer::address);
        let addresses = Addresses::new([memory, weights, grads, self.on.step.address()], 0);
        let mut clock = Clock::new(&self.on.cuda)?;
        for _ in 0..repeats {
            for (kernel, times) in plan.kernels().zip(&mut times) {
                times.push(clock.cold(kernel, &addresses)?);
            }
        }
        Ok(times)
    }

    fn forget(&mut self) {
        self.step = Repeated::default();
    }
}

impl Resident {
    /// Sends an interval's words.
    fn begin(&mut self, t: &Training, rates: &[Rates]) -> Result<()> {
        assert!(rates.len() <= LONGEST_INTERVAL, "an interval of {} steps", rates.len());
        let start = Interval { loss: 0.0, cursor: 0, bad_step: GOOD };
        let mut words: Vec<f32> = bytemuck::pod_collect_to_vec(&[start]);
        for s in rates {
            words.extend(s.words(t.options.seed, t.options.scrub_gradients).words());
        }
        self.interval.write(0, &words)?;
        match &mut self.freqs {
            Some(freqs) => freqs.write(0, &t.freqs),
            None => Ok(()),
        }
    }

    /// Reads how an interval went.
    fn end(&self, t: &Training, rates: &[Rates]) -> Result<Steps> {
        let words = self.interval.read(0, INTERVAL_WORDS)?;
        let end: Interval = bytemuck::pod_read_unaligned(bytemuck::cast_slice(&words));
        let bad = rates.iter().position(|s| s.step as u32 == end.bad_step);
        let bad = bad.filter(|_| end.bad_step != GOOD);
        let done = bad.unwrap_or(end.cursor as usize);
        let diverged = bad.map(|i| {
            let step = rates[i].step;
            let what = "the loss or its gradient is not finite; kept the state before it";
            fail(Exit::Diverged, format!("step {step}: {what}"))
        });
        let loss = end.loss / (done * t.options.batch) as f64;
        Ok(Steps { done, loss, diverged })
    }

    /// Byte `at` of the interval's words.
    fn interval_at(&self, at: usize) -> Ptr {
        Ptr::Address(self.interval.address() + at as u64)
    }

    /// Queues one step: its words, its micro-batches, its update.
    fn queue(&self, t: &mut Training) -> Result<()> {
        let (loss, cursor, bad_step, table) = (
            self.interval_at(std::mem::offset_of!(Interval, loss)),
            self.interval_at(std::mem::offset_of!(Interval, cursor)),
            self.interval_at(std::mem::offset_of!(Interval, bad_step)),
            self.interval_at(size_of::<Interval>()),
        );
        self.cuda.run(&[adam_ema::next_step(&self.step, table, cursor)])?;
        let memory = t.memory.as_mut().expect("a GPU's memory stays");
        t.recordings[0].plan.pack(&t.device, memory, &t.weights)?;
        for &(first_image, index) in &t.schedule {
            let r = &t.recordings[index];
            let at = Position {
                seed: t.options.seed,
                step: 0, // the step's words say
                batch: t.options.batch,
                first_image,
                shuffle: t.options.shuffle,
            };
            let batch = self.batch(r, t.data);
            let mut prepare = prepare_batch::kernels(t.config.precond, batch, at, r.images);
            prepare.extend(self.freqs(r));
            let addresses = [memory.address(), 0, 0, self.step.address()];
            let addresses = Addresses::new(addresses, first_image as u32);
            self.cuda.launch(&prepare, &addresses)?;
            let args = StepArgs { first_image: first_image as u32, ..StepArgs::default() };
            let (grads, step) = (Some(&mut t.grads), Some(&self.step));
            r.plan.run(&t.device, memory, &t.weights, grads, step, args)?;
            let sum = params!(LossSum { total: loss, loss: r.plan.slot(r.loss), n: r.images });
            let sum = Kernel::new(params::LOSS_SUM, 1, sum).threads(WARP_THREADS);
            self.cuda.launch(&[sum], &addresses)?;
        }
        t.recordings[0].plan.end_batch(&t.device, memory, &mut t.grads)?;
        let buffers = [&t.weights, &t.grads, &t.adam_m, &t.adam_v, &t.ema];
        let check = (!t.options.scrub_gradients).then_some(loss);
        let update = adam_ema::kernels(buffers, t.flat_len, bad_step, check);
        self.cuda.launch(&update, &Addresses::new([0, 0, 0, self.step.address()], 0))
    }

    /// Where a recording's batch comes from and goes.
    fn batch(&self, r: &Recording, data: &Dataset) -> OnGpu<'_> {
        let slot = |v: Value| r.plan.slot(v);
        OnGpu {
            y: slot(r.y),
            noise: slot(r.noise),
            sigma: slot(r.sigma),
            labels: r.labels.map(slot),
            pixels: &self.pixels,
            set_labels: self.labels.as_ref(),
            index: &self.index,
            images: data.len(),
            image_len: data.image_len(),
        }
    }

    /// Copies the embedding's frequencies into a recording's place; recordings share one arena.
    fn freqs(&self, r: &Recording) -> Option<Kernel> {
        let (freqs, to) = (self.freqs.as_ref()?, r.plan.slot(r.freqs?));
        let (n, scale, add) = (to.len, 1.0_f32, false);
        let copy = params!(ScaledAdd { dst: to, src: freqs, n, scale, add });
        Some(Kernel::new(params::SCALED_ADD, n.div_ceil(BLOCK_ELEMENTS), copy))
    }
}
