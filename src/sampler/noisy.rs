//! Images of a set with noise, to see what a denoiser makes of them: draws that depend on a seed, a noise level and their index
//! alone.

use crate::data::Dataset;
use crate::rng::{Stream, fill_normals, philox, tag};
use std::ops::Range;

/// Images with noise, one after the other.
pub struct Noisy {
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

/// Draws with these numbers at noise level `step`, each of an image of `data` drawn with replacement.
pub fn drawn(
    data: &Dataset,
    draws: Range<usize>,
    step: usize,
    seed: u64,
) -> impl Iterator<Item = (usize, u32)> {
    draws.map(move |draw| {
        let word = philox([0, draw as u32, step as u32, tag(Stream::Diagnostic, 0)], seed)[0];
        (((word as u64 * data.len() as u64) >> 32) as usize, draw as u32)
    })
}
