//! What a run takes of the device's memory, and whether there is as much.

use super::RunConfig;
use crate::device::{Device, Precision};
use crate::error::{Exit, fail};
use crate::memorization::Search;
use crate::memory::{Size, available};
use crate::model::{Denoiser, ModelConfig, Params, Trainer};
use crate::sampler::GPU_BYTES;
use anyhow::Result;

/// Refuses to train a network, in micro-batches of so many images of a batch, that the device's free memory cannot hold,
/// before the system ends the process for it.
///
/// # Errors
/// Device (exit 4) with the bytes wanted and free.
pub fn check(
    device: &Device,
    config: &ModelConfig,
    precision: Precision,
    images: [usize; 2],
) -> Result<()> {
    let free = free(device)?;
    refuse_over(free, spare(device) + of_training(device, config, precision, images, free)?)
}

/// As [`check`], with all that a run reserves at its start: on a GPU the set, the search, and what evaluations need.
///
/// # Errors
/// As [`check`].
pub fn check_run(device: &Device, config: &RunConfig, micro_batch: usize) -> Result<()> {
    let [wanted, free] = wanted_and_free(device, config, micro_batch)?;
    refuse_over(free, wanted)
}

/// The bytes that [`check_run`] compares: what a run wants at least, and what is free.
///
/// # Errors
/// Device (exit 4): what the driver says.
pub fn wanted_and_free(
    device: &Device,
    config: &RunConfig,
    micro_batch: usize,
) -> Result<[usize; 2]> {
    let free = free(device)?;
    Ok([spare(device) + of_run(device, config, micro_batch, free)?, free])
}

/// Images computed at a time: as configured, or where that is 0 (auto) on the CPU a few rounding
/// units, which keep every core busy, and on a GPU the most that its free memory holds with all else.
///
/// # Errors
/// Device (exit 4): what the driver says.
pub fn micro_batch(device: &Device, config: &RunConfig) -> Result<usize> {
    let (t, unit) = (&config.train, config.model.images_per_gpu_sum());
    match device {
        Device::Cuda { .. } if t.micro_batch > 0 => {
            refuse_uncounted(&config.model, t.micro_batch.next_multiple_of(unit).min(t.batch))
        }
        _ if t.micro_batch > 0 => Ok(t.micro_batch),
        Device::Cpu(_) => Ok(t.batch.min(32)),
        Device::Cuda { .. } => {
            let usable = (USABLE * free(device)? as f64) as usize;
            let mut images = most_at_once(&config.model, t.batch)?;
            while images > unit && of_run(device, config, images, usable)? > usable {
                images = images.div_ceil(2).next_multiple_of(unit);
            }
            Ok(images)
        }
    }
}

/// The first guess of `auto` on a GPU: the whole batch, if its kernels can count that far.
///
/// # Errors
/// Device (exit 4): a network so large that they cannot count a few images.
pub fn most_at_once(config: &ModelConfig, batch: usize) -> Result<usize> {
    let most = config.most_images_on_gpu();
    let unit = config.images_per_gpu_sum();
    let images = if batch <= most { batch } else { most - most % unit };
    refuse_uncounted(config, images.max(unit.min(batch)))
}

/// `images`, if a GPU's kernels can count them.
///
/// # Errors
/// Device (exit 4).
pub fn refuse_uncounted(config: &ModelConfig, images: usize) -> Result<usize> {
    let most = config.most_images_on_gpu();
    match images <= most {
        true => Ok(images),
        false => Err(fail(
            Exit::Device,
            format!(
                "--device: {images} images at a time, a GPU's kernels count at most {most} of this network's; \
                 smaller --micro-batch, --channels or --resolution need less"
            ),
        )),
    }
}

/// How many runs like the largest of `configs` a GPU's free memory holds side by side, each with its whole batch at once;
/// 0 if not even one.
///
/// # Errors
/// Device (exit 4): what the driver says; a batch that kernels cannot count.
pub fn side_by_side(device: &Device, configs: &[&RunConfig]) -> Result<usize> {
    let usable = (USABLE * free(device)? as f64) as usize;
    // A network is planned once: with the largest set, and the most images an evaluation, of all that train it.
    let mut kinds: Vec<RunConfig> = Vec::new();
    for config in configs {
        let same = |k: &RunConfig| {
            let of = |c: &RunConfig| (c.train.batch, c.train.precision, c.train.micro_batch);
            k.model == config.model && of(k) == of(config)
        };
        let Some(known) = kinds.iter().position(same) else {
            kinds.push((*config).clone());
            continue;
        };
        let (k, t) = (&mut kinds[known], &config.train);
        k.data.images = k.data.images.max(config.data.images);
        k.train.looks = k.train.looks.max(t.looks);
        k.train.score_images = k.train.score_images.max(t.score_images);
        k.train.rescore_images = k.train.rescore_images.max(t.rescore_images);
    }
    let mut largest = 1;
    for config in &kinds {
        let micro_batch = match config.train.micro_batch {
            0 => most_at_once(&config.model, config.train.batch)?,
            _ => micro_batch(device, config)?,
        };
        largest = largest.max(of_run(device, config, micro_batch, usable)?);
    }
    Ok(usable / largest)
}

/// What lists, plans and images in passing take beside it: a run that has begun should not end for them. They lie in the
/// host's memory.
fn spare(device: &Device) -> usize {
    match device {
        Device::Cpu(_) => 16 << 20,
        Device::Cuda { .. } => 0,
    }
}

/// Share of a GPU's free memory that `auto` takes: the driver and others need some too.
const USABLE: f64 = 0.9;

/// Bytes that could be had now.
fn free(device: &Device) -> Result<usize> {
    match device {
        Device::Cpu(_) => Ok(available().unwrap_or(usize::MAX)),
        Device::Cuda { cuda, .. } => cuda.free_bytes(),
    }
}

fn refuse_over(free: usize, wanted: usize) -> Result<()> {
    match wanted <= free {
        true => Ok(()),
        false => Err(fail(
            Exit::Device,
            format!(
                "--device: training needs {} of memory, {} are free; smaller --channels or --micro-batch need less",
                Size(wanted as u64),
                Size(free as u64)
            ),
        )),
    }
}

/// Bytes of parameters and arena; a network whose parameters alone exceed `most` is not planned.
fn of_training(
    device: &Device,
    config: &ModelConfig,
    precision: Precision,
    images: [usize; 2],
    most: usize,
) -> Result<usize> {
    // Weights, gradient, two moments and EMA.
    let buffers = 5 * 4 * Params::new(config).flat_len;
    match buffers <= most {
        true => Ok(buffers + Trainer::plan_bytes(device, config, precision, images)?),
        false => Ok(buffers),
    }
}

/// Bytes of a whole run: the CPU gives its training arena back for evaluations, a GPU keeps both.
fn of_run(device: &Device, config: &RunConfig, micro_batch: usize, most: usize) -> Result<usize> {
    let (model, precision) = (&config.model, config.train.precision);
    let of_batch = [micro_batch, config.train.batch];
    let training = of_training(device, model, precision, of_batch, most)?;
    if device.cuda().is_none() || training > most {
        return Ok(training);
    }
    let images = config.data.images;
    let set = images * (model.image_len() + 4);
    let evaluations = match evaluation_batch(device, config, micro_batch) {
        None => 0,
        Some(batch) => {
            Search::gpu_bytes(images, model.image_len())
                + Denoiser::plan_bytes(device, model, precision, batch)?
                + GPU_BYTES * batch * model.image_len()
        }
    };
    Ok(training + set + evaluations)
}

/// Images generated at a time for evaluations, if there are any.
pub fn evaluation_batch(device: &Device, config: &RunConfig, micro_batch: usize) -> Option<usize> {
    let most = config.train.score_images.max(config.train.rescore_images);
    let at_once = match device {
        Device::Cpu(_) => EVALUATION_BATCH,
        Device::Cuda { .. } => micro_batch.max(EVALUATION_BATCH),
    };
    (config.train.looks > 0).then(|| at_once.min(most))
}

/// Images generated at a time: enough to keep every core busy, few enough for the CPU's caches. A GPU takes as many as a
/// micro-batch, if that is more.
pub const EVALUATION_BATCH: usize = 32;
