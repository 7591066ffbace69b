//! How far a network is from the theoretical optimum, noise level by noise level.
//!
//! A denoiser's loss is the optimum's plus its weighted squared distance to the optimum (Gu et al. 2023,
//! Eq. 16-21): λ E‖D − y‖² = λ E‖D* − y‖² + λ E‖D − D*‖², since D* is the mean of y given x.

use crate::data::Dataset;
use crate::rng::{Stream, fill_normals, philox, tag};
use crate::sampler::Denoise;
use anyhow::Result;

/// Means over the draws at one noise level, sums over an image's pixels, times the loss's weight.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Level {
    pub sigma: f64,
    /// λ(σ), the loss's weight.
    pub weight: f64,
    /// λ E‖D − D*‖²: what training could still gain.
    pub gap: f64,
    /// λ E‖D* − y‖²: the least loss there is.
    pub optimum: f64,
    /// λ E‖D − y‖²: the denoiser's loss, about the sum of the two.
    pub loss: f64,
}

/// Compares `denoiser` with the `optimum` of `data` at the noise levels `sigmas`, `draws` ≥ 1 images with noise
/// at each.
///
/// `data` has labels exactly if both denoisers take them. `weight` is the loss's λ(σ). The draws depend on
/// `seed` and their index alone. `progress` is told how many draws are done and of how many.
pub fn gap(
    denoiser: &mut dyn Denoise,
    optimum: &mut dyn Denoise,
    data: &Dataset,
    weight: &dyn Fn(f64) -> f64,
    sigmas: &[f64],
    draws: usize,
    seed: u64,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Vec<Level>> {
    let len = data.image_len();
    let batch = denoiser.max_batch().min(optimum.max_batch()).min(draws);
    let (mut ours, mut best) = (Vec::new(), Vec::new());
    let mut levels = Vec::new();
    for (step, &sigma) in sigmas.iter().enumerate() {
        let (mut to_best, mut best_to_y, mut ours_to_y) = (0.0, 0.0, 0.0);
        for first in (0..draws).step_by(batch) {
            let count = batch.min(draws - first);
            let image = |draw: usize| {
                let word =
                    philox([0, draw as u32, step as u32, tag(Stream::Diagnostic, 0)], seed)[0];
                ((word as u64 * data.len() as u64) >> 32) as usize
            };
            let drawn = (first..first + count).map(|draw| (image(draw), draw as u32));
            let Noisy { y, x, labels } = Noisy::of(data, drawn, step, sigma, seed);
            ours.resize(count * len, 0.0);
            best.resize(count * len, 0.0);
            let levels = vec![sigma; count];
            denoiser.denoise(&x, &levels, &labels, &mut ours)?;
            optimum.denoise(&x, &levels, &labels, &mut best)?;
            progress(step * draws + first + count, sigmas.len() * draws);
            for ((&a, &b), &y) in ours.iter().zip(&best).zip(&y) {
                let (a, b) = (a as f64, b as f64);
                to_best += (a - b) * (a - b);
                best_to_y += (b - y) * (b - y);
                ours_to_y += (a - y) * (a - y);
            }
        }
        let weight = weight(sigma);
        let mean = |sum: f64| weight * sum / draws as f64;
        levels.push(Level {
            sigma,
            weight,
            gap: mean(to_best),
            optimum: mean(best_to_y),
            loss: mean(ours_to_y),
        });
    }
    Ok(levels)
}

/// Images with noise, one after the other.
pub(super) struct Noisy {
    /// [B, H, W, C] without noise, in [−1, 1].
    pub y: Vec<f64>,
    /// [B, H, W, C]: y and sigma times its noise.
    pub x: Vec<f32>,
    /// One an image, or none of a set without labels.
    pub labels: Vec<u32>,
}

impl Noisy {
    /// Of each draw an image of `data`, and the number that its noise depends on, with `seed` and the noise level's index
    /// `step`.
    pub fn of(
        data: &Dataset,
        draws: impl Iterator<Item = (usize, u32)>,
        step: usize,
        sigma: f64,
        seed: u64,
    ) -> Self {
        let (mut y, mut x, mut labels) = (Vec::new(), Vec::new(), Vec::new());
        let mut noise = vec![0.0; data.image_len()];
        for (image, draw) in draws {
            labels.extend(data.labels.as_ref().map(|l| l[image]));
            fill_normals(&mut noise, draw, step as u32, tag(Stream::Diagnostic, 1), seed);
            for (&u, &z) in data.image(image).iter().zip(&noise) {
                let clean = u as f64 / 127.5 - 1.0;
                y.push(clean);
                x.push((clean + sigma * z as f64) as f32);
            }
        }
        Noisy { y, x, labels }
    }
}
