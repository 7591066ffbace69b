//! What held-out images say of a network: whether it denoises images that it was not trained on as well as those that it
//! was, beside the theoretical optimum, which only knows the training images, and the Gaussian, which knows none; and whether
//! the loss tells who was in the training set.

use crate::data::Dataset;
use crate::device::Device;
use crate::memorization::membership::{Inference, mean_ranks};
use crate::rng::permute;
use crate::sampler::{Denoise, Gaussian, Posterior, gaussian::Centred, noisy::Noisy};
use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

/// Below so many images that the optimum's mean is effectively of, it has chosen one.
pub const COLLAPSED: f64 = 2.0;
/// The epoch of the permutation that images are taken by: none of a training's.
const CHOICE: u64 = u64::MAX;

/// How many draws there are.
#[derive(Debug, Clone, Copy)]
pub struct HeldOptions {
    /// The most images of each set.
    pub images: usize,
    /// Noisy versions of each at each level; a product with `images` below 2³².
    pub noises: usize,
    pub seed: u64,
}

/// Losses of one set's images at one noise level, as [`super::gap::Level`] counts them.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Losses {
    /// λ E‖D − y‖², the network's.
    pub loss: f64,
    /// λ E‖D* − y‖², of the optimum of the training images.
    pub optimum_loss: f64,
    /// λ E‖D_G − y‖², of the [`Gaussian`] of the training images, in expectation over noise.
    pub gaussian_loss: f64,
    /// λ E‖D − D*‖².
    pub gap: f64,
    /// How many training images D* is effectively a mean of: e to the entropy of their weights, mean over draws.
    pub effective_images: f64,
}

/// All that was measured at one noise level.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeldLevel {
    pub sigma: f64,
    /// λ(σ), the loss's weight.
    pub weight: f64,
    pub train: Losses,
    pub holdout: Losses,
    /// By the network's loss of each image, mean over its noise.
    pub membership: Inference,
}

/// The level that tells members best, as found on one half of the images and measured on the other.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Best {
    pub sigma: f64,
    /// Training and held-out images that it was chosen on: every second one.
    pub chosen_on: [usize; 2],
    /// And those that `membership` is of: the others.
    pub images: [usize; 2],
    pub membership: Inference,
}

/// What [`held`] found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Held {
    /// Training and held-out images that were drawn.
    pub images: [usize; 2],
    /// Noisy versions of each at each level.
    pub noises: usize,
    /// Of high noise to low.
    pub levels: Vec<HeldLevel>,
    /// By the mean over all levels of an image's rank by its loss.
    pub all_levels: Inference,
    /// None of fewer than two images of a set.
    pub best_level: Option<Best>,
    /// Where the optimum at noisy training images has chosen one: the highest σ, interpolated between levels in ln σ and ln of
    /// the effective images, below which these are fewer than [`COLLAPSED`] at all levels. None where they are not at the
    /// lowest level, or are at the highest.
    pub collapse_sigma: Option<f64>,
}

/// One set and what is drawn of it.
struct Drawn<'a> {
    set: &'a Dataset,
    images: Vec<usize>,
    centred: Vec<Centred>,
}

/// Measures at the noise levels `sigmas`, from high to low, on images of the training set and of `holdout`, which has the
/// same shape and shares none. Images are taken at random; image i of both sets has the same noise.
///
/// Both sets have labels exactly if the denoisers take them. `weight` is the loss's λ(σ). `progress` is told how many draws are done and of how many.
///
/// # Errors
/// A loss that is not finite.
pub fn held(
    denoiser: &mut dyn Denoise,
    optimum: &mut dyn Posterior,
    gaussian: &Gaussian,
    [train, holdout]: [&Dataset; 2],
    device: &Device,
    weight: &dyn Fn(f64) -> f64,
    sigmas: &[f64],
    options: HeldOptions,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Held> {
    let drawn = [train, holdout].map(|set| {
        let n = set.len() as u64;
        let at = |i: u64| permute(i, n, options.seed, CHOICE) as usize;
        let images: Vec<usize> = (0..n.min(options.images as u64)).map(at).collect();
        let pixels: Vec<u8> = images.iter().flat_map(|&i| set.image(i)).copied().collect();
        Drawn { set, images, centred: gaussian.centred(&pixels, device) }
    });
    let images = drawn.each_ref().map(|d| d.images.len());
    let all = sigmas.len() * images.iter().sum::<usize>() * options.noises;
    let (mut levels, mut scores, mut done) = (Vec::new(), Vec::new(), 0);
    for (step, &sigma) in sigmas.iter().enumerate() {
        let mut sides = Vec::new();
        for drawn in &drawn {
            let mut more = |draws: usize| {
                done += draws;
                progress(done, all);
            };
            let (losses, each) =
                losses(denoiser, optimum, gaussian, drawn, (step, sigma), options, &mut more)?;
            let weight = weight(sigma);
            sides.push((losses.times(weight), each));
        }
        let [(train, members), (holdout, others)] = [sides.remove(0), sides.remove(0)];
        let Some(membership) = Inference::of(&members, &others) else {
            bail!("a loss at noise level {sigma:.4} is not finite");
        };
        levels.push(HeldLevel { sigma, weight: weight(sigma), train, holdout, membership });
        scores.push([members, others]);
    }
    let [members, others] = mean_ranks(scores.iter().map(|s| s.each_ref().map(Vec::as_slice)));
    let Some(all_levels) = Inference::of(&members, &others) else {
        bail!("no image or no noise level to measure");
    };
    Ok(Held {
        images,
        noises: options.noises,
        all_levels,
        best_level: best_level(&levels, &scores),
        collapse_sigma: collapse(&levels),
        levels,
    })
}

/// The means of one set at one level, not weighted, and each image's own loss.
fn losses(
    denoiser: &mut dyn Denoise,
    optimum: &mut dyn Posterior,
    gaussian: &Gaussian,
    drawn: &Drawn,
    (step, sigma): (usize, f64),
    options: HeldOptions,
    more: &mut dyn FnMut(usize),
) -> Result<(Losses, Vec<f64>)> {
    let (len, noises) = (drawn.set.image_len(), options.noises);
    let draws = drawn.images.len() * noises;
    let batch = denoiser.max_batch().min(optimum.max_batch()).min(draws);
    let (mut sums, mut each) = (Losses::default(), vec![0.0; drawn.images.len()]);
    for first in (0..draws).step_by(batch) {
        let count = batch.min(draws - first);
        let numbers = (first..first + count).map(|d| (drawn.images[d / noises], d as u32));
        let Noisy { y, x, labels } = Noisy::of(drawn.set, numbers, step, sigma, options.seed);
        let (mut ours, mut best) = (vec![0.0; count * len], vec![0.0; count * len]);
        let (levels, mut entropies) = (vec![sigma; count], vec![0.0; count]);
        denoiser.denoise(&x, &levels, &labels, &mut ours)?;
        optimum.denoise_weighed(&x, &levels, &labels, &mut best, &mut entropies)?;
        let rows = y.chunks_exact(len).zip(ours.chunks_exact(len)).zip(best.chunks_exact(len));
        for (d, ((y, ours), best)) in (first..).zip(rows) {
            let between = |a: &mut dyn Iterator<Item = (f64, f64)>| -> f64 {
                a.map(|(a, b)| (a - b) * (a - b)).sum()
            };
            let wide = |v: &[f32]| v.iter().map(|&v| v as f64).collect::<Vec<_>>();
            let (ours, best) = (wide(ours), wide(best));
            let clean = || y.iter().copied();
            let loss = between(&mut ours.iter().copied().zip(clean()));
            each[d / noises] += loss / noises as f64;
            sums.loss += loss;
            sums.optimum_loss += between(&mut best.iter().copied().zip(clean()));
            sums.gap += between(&mut ours.iter().copied().zip(best.iter().copied()));
            sums.effective_images += entropies[d - first].exp();
        }
        more(count);
    }
    let images = drawn.images.len() as f64;
    let of_gaussian: f64 = drawn.centred.iter().map(|y| gaussian.expected_loss(y, sigma)).sum();
    let mean = |sum: f64| sum / draws as f64;
    let losses = Losses {
        loss: mean(sums.loss),
        optimum_loss: mean(sums.optimum_loss),
        gaussian_loss: of_gaussian / images,
        gap: mean(sums.gap),
        effective_images: mean(sums.effective_images),
    };
    Ok((losses, each))
}

impl Losses {
    fn times(self, weight: f64) -> Self {
        Losses {
            loss: weight * self.loss,
            optimum_loss: weight * self.optimum_loss,
            gaussian_loss: weight * self.gaussian_loss,
            gap: weight * self.gap,
            effective_images: self.effective_images,
        }
    }
}

/// The level with the largest area on every second image of both sets, and what it is on the others.
fn best_level(levels: &[HeldLevel], scores: &[[Vec<f64>; 2]]) -> Option<Best> {
    let half = |scores: &[Vec<f64>; 2], first: usize| {
        scores.each_ref().map(|s| s.iter().copied().skip(first).step_by(2).collect::<Vec<f64>>())
    };
    let measure = |i: usize, first: usize| {
        let [members, others] = half(&scores[i], first);
        Inference::of(&members, &others)
    };
    let areas = (0..levels.len()).map(|i| Some((measure(i, 0)?.auc, i)));
    let areas: Option<Vec<(f64, usize)>> = areas.collect();
    let (_, i) = areas?.into_iter().reduce(|a, b| if b.0 > a.0 { b } else { a })?;
    Some(Best {
        sigma: levels[i].sigma,
        chosen_on: half(&scores[i], 0).map(|s| s.len()),
        images: half(&scores[i], 1).map(|s| s.len()),
        membership: measure(i, 1)?,
    })
}

/// See [`Held::collapse_sigma`]; `levels` from high noise to low.
fn collapse(levels: &[HeldLevel]) -> Option<f64> {
    let above = levels.iter().rposition(|l| l.train.effective_images >= COLLAPSED)?;
    let [high, low] = [levels.get(above)?, levels.get(above + 1)?];
    let ln = |l: &HeldLevel| [l.sigma.ln(), l.train.effective_images.ln()];
    let ([s1, n1], [s0, n0]) = (ln(high), ln(low));
    let share = (COLLAPSED.ln() - n0) / (n1 - n0);
    Some((s0 + share * (s1 - s0)).exp())
}

/// [`Held`] with what it is of, as `gap.json` holds it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HeldReport {
    /// The training set and the held-out images, by the names of their files.
    pub data: String,
    pub holdout: String,
    /// Held-out images that are in the training set, pixel by pixel, and were left out.
    pub holdout_in_train: usize,
    /// Whether the network was trained on another set than `data`; none where its file does not say.
    pub foreign_data: Option<bool>,
    #[serde(flatten)]
    pub held: Held,
}
