//! Evaluations: images drawn from the EMA, and how many of them copy a training image.

use super::{Evaluation, RunConfig};
use crate::data::Dataset;
use crate::device::cuda::Cuda;
use crate::device::{Device, Pixels, Ptr};
use crate::error::{Exit, fail};
use crate::files::{Checksum, read_text, write_bytes};
use crate::memorization::{Nearest, Neighbour, Score, Search, Threshold, wilson};
use crate::model::{Denoiser, SavedModel};
use crate::report::Compared;
use crate::rng::uniform_label;
use crate::sampler::{Denoise, HeunOptions, OnGpu, Operands, Start, sample_each};
use anyhow::Result;
use std::path::Path;

/// First seed of the fresh images that score the best evaluation again.
pub const RESCORE_SEED: u64 = 1 << 32;

/// A network as the sampler calls it; it stops between evaluations when `stop` says so.
pub struct Network<'a> {
    denoiser: Denoiser,
    stop: &'a dyn Fn() -> bool,
}

impl<'a> Network<'a> {
    /// `batch`: the most images of one evaluation.
    pub fn new(
        device: &Device,
        model: SavedModel,
        batch: usize,
        stop: &'a dyn Fn() -> bool,
    ) -> Result<Self> {
        let precision = model.precision_on(device);
        let SavedModel { config, weights, freqs, .. } = model;
        let denoiser = Denoiser::new(device, &config, precision, weights, freqs, batch)?;
        Ok(Network { denoiser, stop })
    }

    /// Takes the weights of another snapshot of the same network.
    ///
    /// # Errors
    /// Device (exit 4): what the driver says.
    pub fn load(&mut self, model: &SavedModel) -> Result<()> {
        self.denoiser.set_weights(&model.weights, &model.freqs)
    }

    fn check_stop(&self) -> Result<()> {
        match (self.stop)() {
            true => Err(fail(Exit::Suspended, "stopped by a signal")),
            false => Ok(()),
        }
    }
}

impl Denoise for Network<'_> {
    fn image_len(&self) -> usize {
        self.denoiser.config().image_len()
    }

    fn max_batch(&self) -> usize {
        self.denoiser.batch()
    }

    fn sigma_range(&self) -> (f64, f64) {
        self.denoiser.config().precond.sigma_range()
    }

    fn denoise(&mut self, x: &[f32], sigma: &[f64], labels: &[u32], out: &mut [f32]) -> Result<()> {
        self.check_stop()?;
        out.copy_from_slice(&self.denoiser.denoise(x, sigma, labels)?);
        Ok(())
    }

    fn on_gpu(&mut self) -> Option<&mut dyn OnGpu> {
        match self.denoiser.cuda() {
            Some(_) => Some(self),
            None => None,
        }
    }
}

impl OnGpu for Network<'_> {
    fn cuda(&self) -> &Cuda {
        self.denoiser.cuda().expect("only a network on a GPU is asked")
    }

    fn begin(&mut self, images: usize, labels: &[u32]) -> Result<Operands> {
        let [x, sigma, out] = self.denoiser.operands(images, labels)?.map(Ptr::Address);
        Ok(Operands { x, sigma, out })
    }

    fn evaluate(&mut self) -> Result<()> {
        self.check_stop()?;
        self.denoiser.run()
    }
}

/// A uniform label for each generated image, by its seed; none for an unconditional network.
pub fn labels_of(seeds: &[u64], label_dim: usize) -> Vec<u32> {
    match label_dim {
        0 => Vec::new(),
        _ => seeds.iter().map(|&s| uniform_label(s, label_dim as u32)).collect(),
    }
}

/// Generates images with seeds `first_seed + found.len() ..` until `images` are found, each with its two
/// nearest training images. `found` holds those of an earlier, interrupted call.
///
/// `after_batch(found, samples)` is called after each batch, whose images `samples` are the last of those found.
///
/// # Errors
/// Suspended (exit 75) when the network was told to stop; those of the sampler and of `after_batch`.
pub fn generate_and_search(
    network: &mut Network,
    search: &mut Search,
    first_seed: u64,
    images: usize,
    found: &mut Vec<Nearest>,
    after_batch: &mut dyn FnMut(&[Nearest], &Pixels) -> Result<()>,
) -> Result<()> {
    let seeds: Vec<u64> = (found.len()..images).map(|k| first_seed + k as u64).collect();
    let labels = labels_of(&seeds, network.denoiser.config().label_dim);
    let options = HeunOptions::default();
    sample_each(network, Start::Seeds(&seeds), &labels, &options, &mut |_, batch| {
        let pixels = batch.pixels();
        found.extend(search.nearest(&pixels)?);
        after_batch(found, &pixels)?;
        Ok(true)
    })?;
    Ok(())
}

/// The row of `scores.csv` for what was found after `step` steps; and, where `repeats` of the training images repeat an
/// earlier one and not all are equal, the row with identical ones counted once.
pub fn evaluation_of(
    config: &RunConfig,
    step: u64,
    found: &[Nearest],
    repeats: usize,
) -> (Evaluation, Option<Evaluation>) {
    let (len, references) = (config.model.image_len(), config.data.images);
    let s = Score::of(found, Threshold::default(), len, references, repeats);
    let row = |memorized: u64| {
        let [low, high] = wilson(memorized, s.images);
        Evaluation {
            step,
            epoch: config.epoch(step),
            images: s.images,
            memorized,
            ratio: memorized as f64 / s.images as f64,
            low,
            high,
            mean_d1: s.mean_d1,
        }
    };
    (row(s.memorized), s.memorized_distinct.filter(|_| repeats > 0).map(row))
}

/// Samples [S, H, W, C] beside the two training images that each is nearest to, as many as both lists have.
pub fn compared<'a>(
    samples: &'a [u8],
    training: &'a Dataset,
    found: &'a [Nearest],
    threshold: Threshold,
) -> Vec<Compared<'a>> {
    let compared = |(sample, n): (&'a [u8], &'a Nearest)| Compared {
        sample,
        neighbours: n.index.map(|i| training.image(i as usize)).to_vec(),
        distance_ratio: (n.squared[0] as f64 / n.squared[1] as f64).sqrt(),
        memorized: threshold.memorized(n),
    };
    samples.chunks_exact(training.image_len()).zip(found).map(compared).collect()
}

/// What of an evaluation is done, for the next start.
pub fn save_partial(
    path: &Path,
    config: &RunConfig,
    step: u64,
    first_seed: u64,
    found: &[Nearest],
) -> Result<()> {
    let row = |n: &Nearest| {
        let ([a, b], [c, d]) = (n.index.map(u64::from), n.squared);
        let distinct = n.distinct.unwrap_or(Neighbour::NONE);
        [a, b, c, d, distinct.index as u64, distinct.squared]
    };
    let rows: Vec<[u64; 6]> = found.iter().map(row).collect();
    let text = serde_json::to_string(&(config.id(), step, first_seed, rows))?;
    let sum = Checksum::of(text.as_bytes());
    write_bytes(path, true, format!("{text}\n{sum}\n"))
}

/// What an earlier start did of the evaluation at `step`; nothing if there is no such file, or it is damaged or of another run
/// or evaluation: then the evaluation begins anew and gives the same.
pub fn load_partial(
    path: &Path,
    config: &RunConfig,
    step: u64,
    first_seed: u64,
    images: usize,
) -> Vec<Nearest> {
    let text = read_text(path).ok().flatten().unwrap_or_default();
    let (text, sum) = text.split_once('\n').unwrap_or_default();
    if sum.trim_end() != Checksum::of(text.as_bytes()) {
        return Vec::new();
    }
    let nearest = |&[a, b, c, d, index, squared]: &[u64; 6]| {
        let distinct = Some(Neighbour { squared, index: index as u32 });
        let distinct = distinct.filter(|n| *n != Neighbour::NONE);
        Nearest { index: [a as u32, b as u32], squared: [c, d], distinct }
    };
    match serde_json::from_str::<(String, u64, u64, Vec<[u64; 6]>)>(text) {
        Ok((id, s, f, rows)) if id == config.id() && (s, f) == (step, first_seed) => {
            rows.iter().take(images).map(nearest).collect()
        }
        _ => Vec::new(),
    }
}
