//! Timing of training steps, sampling and the nearest-neighbour search.

pub use super::kernel_times::median;
use super::kernel_times::{self, Row};
use super::score::labels_of;
use super::{Network, RunConfig, memory};
use crate::data::Dataset;
use crate::device::Device;
use crate::memory::no_threads;
use crate::model::TrainerOptions;
use crate::model::params::fourier_freqs;
use crate::model::{ModelConfig, Params, Rates, SavedModel, Steps, Trainer};
use crate::rng::philox;
use crate::sampler::{HeunOptions, Start, sample_each};
use crate::signal::stop_asked;
use anyhow::Result;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{Builder, ScopedJoinHandle};
use std::time::Instant;

/// Times of repeated training steps.
#[derive(Debug)]
pub struct StepTimes {
    /// Seconds of each step: batch preparation, forward, backward, Adam and EMA. In order, warm-up left out.
    pub step_s: Vec<f64>,
    /// Losses of the first ten steps from the seed's initial weights, or of all if there are fewer; NaN where a step
    /// diverged. Functions of settings and seed, so devices and precisions can be told by them.
    pub losses: Vec<f64>,
    /// Why the first step that diverged did (exit 5); it left the weights as they were.
    pub diverged: Option<anyhow::Error>,
    pub arena_bytes: usize,
}

/// Steps whose losses are kept.
const LOSSES: usize = 10;

/// A set of random pixels for a network; batches larger than the set repeat its images, as in training.
fn pixels(config: &ModelConfig) -> Dataset {
    let images = 256;
    let word = |i: usize| philox([i as u32, 0, 0, 0], 0)[0];
    Dataset {
        resolution: config.resolution,
        channels: config.image_channels,
        pixels: (0..images * config.image_len()).map(|i| word(i) as u8).collect(),
        labels: (config.label_dim > 0)
            .then(|| (0..images).map(|i| word(i) % config.label_dim as u32).collect()),
        names: Vec::new(),
    }
}

/// Times `repeats` training steps after two that warm up. One that diverges is timed all the same.
///
/// # Errors
/// Device (exit 4) if the free memory cannot hold the network.
pub fn step(
    device: &Device,
    config: &ModelConfig,
    options: TrainerOptions,
    repeats: usize,
) -> Result<StepTimes> {
    let data = pixels(config);
    let mut trainer = trainer(device, config, options, &data)?;
    let (mut step_s, mut losses, mut diverged) = (Vec::new(), Vec::new(), None);
    for step in 0..repeats as u64 + 2 {
        device.wait()?;
        let start = Instant::now();
        let done = trainer.steps(&[rates(step)], &|| false)?;
        device.wait()?;
        if step >= 2 {
            step_s.push(start.elapsed().as_secs_f64());
        }
        if losses.len() < LOSSES {
            losses.push(if done.diverged.is_none() { done.loss } else { f64::NAN });
        }
        diverged = diverged.or(done.diverged);
    }
    Ok(StepTimes { step_s, losses, diverged, arena_bytes: trainer.arena_bytes() })
}

/// Times of training steps of a run's network on so many images, for about `seconds` once the first are over, but at
/// least three. `at` is told the share that is done.
///
/// # Errors
/// As [`step`]; diverged (exit 5).
pub fn steps_for(
    device: &Device,
    run: &RunConfig,
    images: usize,
    seconds: f64,
    at: &mut dyn FnMut(f64),
) -> Result<Vec<f64>> {
    let options =
        TrainerOptions { batch: images, micro_batch: images, ..run.train.trainer_options() };
    let data = pixels(&run.model);
    let mut trainer = trainer(device, &run.model, options, &data)?;
    let mut step_s = Vec::new();
    let mut one = |step: u64| -> Result<f64> {
        device.wait()?;
        let start = Instant::now();
        if let Some(why) = trainer.steps(&[rates(step)], &|| false)?.diverged {
            return Err(why);
        }
        device.wait()?;
        Ok(start.elapsed().as_secs_f64())
    };
    at(0.0);
    let mut warm = one(0)?;
    if warm < seconds {
        warm = one(1)?;
    }
    let (begun, long) = (Instant::now(), seconds.max(LEAST_STEPS as f64 * warm));
    while step_s.len() < LEAST_STEPS || begun.elapsed().as_secs_f64() < seconds {
        at(begun.elapsed().as_secs_f64() / long);
        step_s.push(one(2 + step_s.len() as u64)?);
    }
    Ok(step_s)
}

const LEAST_STEPS: usize = 3;

/// Images per second of a run's network, each of `devices` taking `steps` steps on `images` images at the same time as the
/// others, after [`WARMING`] that warm up.
///
/// # Errors
/// As [`steps_for`]; device (exit 4): no thread for one.
pub fn at_once(devices: &[Device], run: &RunConfig, images: usize, steps: usize) -> Result<f64> {
    let options =
        TrainerOptions { batch: images, micro_batch: images, ..run.train.trainer_options() };
    let data = pixels(&run.model);
    let missing = AtomicUsize::new(devices.len());
    let arrive = || missing.fetch_sub(1, Ordering::SeqCst);
    let one = |device: &Device| -> Result<[Instant; 2]> {
        let warm = || -> Result<Trainer> {
            let mut trainer = trainer(device, &run.model, options.clone(), &data)?;
            (0..WARMING as u64)
                .try_for_each(|step| diverged(trainer.steps(&[rates(step)], &stop_asked)?))?;
            Ok(trainer)
        };
        let warmed = warm();
        // Whoever failed comes, too: nobody waits for ever.
        arrive();
        while missing.load(Ordering::SeqCst) > 0 {
            std::thread::yield_now();
        }
        let (mut trainer, begun) = (warmed?, Instant::now());
        let all: Vec<Rates> = (0..steps).map(|step| rates((WARMING + step) as u64)).collect();
        for some in all.chunks(trainer.longest_interval()) {
            diverged(trainer.steps(some, &stop_asked)?)?;
        }
        let ended = Instant::now();
        // What its memory was is free once its stream has come that far.
        drop(trainer);
        device.wait()?;
        Ok([begun, ended])
    };
    let times: Vec<Result<[Instant; 2]>> = std::thread::scope(|scope| {
        let (one, arrive) = (&one, &arrive);
        let start = |device| {
            let thread = Builder::new().spawn_scoped(scope, move || one(device));
            thread.map_err(|e| {
                arrive();
                no_threads(1, &e)
            })
        };
        let threads: Vec<_> = devices.iter().map(start).collect();
        let join =
            |t: Result<ScopedJoinHandle<'_, _>>| t?.join().unwrap_or_else(|e| resume_unwind(e));
        threads.into_iter().map(join).collect()
    });
    let times = times.into_iter().collect::<Result<Vec<_>>>()?;
    let begun = times.iter().map(|t| t[0]).min().expect("at least one device");
    let ended = times.iter().map(|t| t[1]).max().expect("at least one device");
    let seconds = (ended - begun).as_secs_f64().max(1e-9);
    Ok((devices.len() * steps * images) as f64 / seconds)
}

/// Steps before those that [`at_once`] times: launch by launch, recorded, replayed.
pub const WARMING: usize = 3;

fn diverged(steps: Steps) -> Result<()> {
    steps.diverged.map_or(Ok(()), Err)
}

fn rates(step: u64) -> Rates {
    Rates::new(step, 1e-4, 0.999)
}

/// A trainer of a network that fits into the device's memory.
fn trainer<'d>(
    device: &Device,
    config: &ModelConfig,
    options: TrainerOptions,
    data: &'d Dataset,
) -> Result<Trainer<'d>> {
    let images = [options.micro_batch, options.batch];
    memory::check(device, config, options.precision, images)?;
    Trainer::new(device, config, options, data)
}

/// Times each launch of the first micro-batch's forward and backward, `repeats` times over, after a step.
///
/// # Errors
/// As [`step`].
pub fn launches(
    device: &Device,
    config: &ModelConfig,
    options: TrainerOptions,
    repeats: usize,
) -> Result<Vec<Row>> {
    let data = pixels(config);
    let mut trainer = trainer(device, config, options, &data)?;
    trainer.step(rates(0), &|| false)?;
    let seconds = trainer.profile(repeats)?;
    Ok(kernel_times::of_plan(trainer.plan(), &Params::new(config), &seconds))
}

/// Seconds of each of `repeats` times that `images` images are sampled, after a batch that warms up. The network is
/// as training begins; its images cost what a trained one's do.
///
/// `batch`: images computed at a time.
///
/// # Errors
/// Usage and device errors of the sampler and the network.
pub fn sample(
    device: &Device,
    config: &ModelConfig,
    seed: u64,
    images: usize,
    batch: usize,
    heun: &HeunOptions,
    repeats: usize,
) -> Result<Vec<f64>> {
    let weights = Params::new(config).init(seed);
    let freqs = fourier_freqs(config, seed);
    let model = SavedModel { config: config.clone(), precision: None, weights, freqs, run: None };
    let mut network = Network::new(device, model, batch, &|| false)?;
    let mut run = |images: usize| {
        let seeds: Vec<u64> = (0..images as u64).collect();
        let labels = labels_of(&seeds, config.label_dim);
        let start = Instant::now();
        sample_each(&mut network, Start::Seeds(&seeds), &labels, heun, &mut |_, images| {
            std::hint::black_box(images);
            Ok(true)
        })?;
        device.wait()?;
        Ok::<f64, anyhow::Error>(start.elapsed().as_secs_f64())
    };
    run(batch.min(images))?;
    (0..repeats).map(|_| run(images)).collect()
}
