//! Images of a set with noise, to see what a denoiser makes of them: draws that depend on a seed, a level and their index alone.

use crate::data::Dataset;
use crate::rng::{Stream, fill_normals, philox, tag};
use std::ops::Range;

/// Draws at one noise level, `[B, H, W, C]` in units where pixels are in `[−1, 1]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Noisy {
    /// Which image of the set each is of.
    pub images: Vec<usize>,
    pub clean: Vec<f64>,
    /// x = y + σn.
    pub noisy: Vec<f32>,
    /// One a draw, none where the set has none.
    pub labels: Vec<u32>,
}

impl Noisy {
    /// The draws of these indices at noise level number `level`, which is `sigma`: of images drawn with replacement.
    pub fn of(data: &Dataset, draws: Range<usize>, level: usize, sigma: f64, seed: u64) -> Noisy {
        let image = |draw: usize| {
            let counter = [0, draw as u32, level as u32, tag(Stream::Diagnostic, 0)];
            let word = philox(counter, seed)[0];
            ((word as u64 * data.len() as u64) >> 32) as usize
        };
        let images: Vec<usize> = draws.clone().map(image).collect();
        let len = data.image_len();
        let (mut clean, mut noisy) = (Vec::new(), Vec::new());
        let mut noise = vec![0.0; len];
        for (&image, draw) in images.iter().zip(draws) {
            fill_normals(&mut noise, draw as u32, level as u32, tag(Stream::Diagnostic, 1), seed);
            for (&u, &n) in data.image(image).iter().zip(&noise) {
                let y = u as f64 / 127.5 - 1.0;
                clean.push(y);
                noisy.push((y + sigma * n as f64) as f32);
            }
        }
        let labels = data.labels.as_ref();
        let labels = labels.map_or(Vec::new(), |l| images.iter().map(|&i| l[i]).collect());
        Noisy { images, clean, noisy, labels }
    }
}
