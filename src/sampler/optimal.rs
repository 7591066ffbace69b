//! The theoretical optimum (Gu et al. 2023, Eq. 2): what a network that fits its training images perfectly computes.

use super::Denoise;
use crate::data::Dataset;
use crate::device::Device;
use crate::error::usage;
use crate::simd::vectorized;
use anyhow::Result;
use rayon::prelude::*;
use std::ops::Range;

/// Weights below e^−40 of the largest don't show in float32, whatever their number.
const NEGLIGIBLE: f64 = 40.0;
/// Queries that share one pass over the reference images.
const TILE: usize = 8;
/// Pixels of an image that are worked on at a time.
const CHUNK: usize = 512;
const BATCH: usize = 256;

/// D*(x; σ) = Σ softmax_n(−‖x − y_n‖² / 2σ²) y_n over the training images y_n in [−1, 1]; with labels, over
/// those of the label's class. Agrees with float64 to float32's last bits at every noise level.
pub struct Optimal {
    device: Device,
    /// [N, H, W, C], sorted by class where there are labels.
    pixels: Vec<u8>,
    image_len: usize,
    /// Images of each class; empty without labels.
    classes: Vec<Range<usize>>,
    /// ‖y_n‖².
    squared_norms: Vec<f64>,
}

impl Optimal {
    /// `data` holds at least one image.
    pub fn new(data: &Dataset, device: &Device) -> Self {
        let mut order: Vec<usize> = (0..data.len()).collect();
        let mut classes = Vec::new();
        if let Some(labels) = &data.labels {
            order.sort_by_key(|&i| labels[i]);
            for class in 0..data.label_dim() as u32 {
                let start = order.partition_point(|&i| labels[i] < class);
                classes.push(start..order.partition_point(|&i| labels[i] <= class));
            }
        }
        let pixels: Vec<u8> = order.iter().flat_map(|&i| data.image(i)).copied().collect();
        let squared_norms = pixels
            .chunks_exact(data.image_len())
            .map(|image| {
                // (u/127.5 − 1)² = (2u − 255)² / 255², summed exactly.
                let sum: u64 =
                    image.iter().map(|&u| (2 * u as i64 - 255).unsigned_abs().pow(2)).sum();
                sum as f64 / (255.0 * 255.0)
            })
            .collect();
        let image_len = data.image_len();
        Optimal { device: device.clone(), pixels, image_len, classes, squared_norms }
    }

    fn class(&self, label: u32) -> Result<Range<usize>> {
        match self.classes.get(label as usize) {
            Some(range) if !range.is_empty() => Ok(range.clone()),
            _ => Err(usage(format!("label {label}: the data set has no image of this class"))),
        }
    }

    /// D* of up to TILE queries over the same images.
    fn denoise_tile(&self, images: Range<usize>, queries: &mut [Query]) {
        let pixels = &self.pixels[images.start * self.image_len..images.end * self.image_len];
        let x: Vec<Vec<f64>> =
            queries.iter().map(|q| q.x.iter().map(|&v| v as f64).collect()).collect();
        let mut weights = vec![vec![0.0; images.len()]; queries.len()];
        add_dot_products(&x, pixels, self.image_len, &mut weights);
        let mut totals = Vec::with_capacity(queries.len());
        for (w, q) in weights.iter_mut().zip(queries.iter()) {
            for (w, norm) in w.iter_mut().zip(&self.squared_norms[images.clone()]) {
                // ‖x‖² − ‖x − y‖² with x·y = x·u / 127.5 − Σx; what all images share drops out.
                *w = (*w * (2.0 / 127.5) - norm) / (2.0 * q.sigma * q.sigma);
            }
            totals.push(exponentiate(w));
        }
        let mut sums = vec![vec![0.0; self.image_len]; queries.len()];
        add_weighted(&weights, pixels, self.image_len, &mut sums);
        for ((q, sum), total) in queries.iter_mut().zip(sums).zip(totals) {
            for (out, sum) in q.out.iter_mut().zip(sum) {
                *out = (sum / total / 127.5 - 1.0) as f32;
            }
        }
    }
}

/// Exponents to weights relative to the largest; returns their sum. Negligible ones become exactly 0.
fn exponentiate(exponents: &mut [f64]) -> f64 {
    let highest = exponents.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut total = 0.0;
    for e in exponents {
        *e = if *e >= highest - NEGLIGIBLE { (*e - highest).exp() } else { 0.0 };
        total += *e;
    }
    total
}

/// One image to denoise.
struct Query<'a> {
    x: &'a [f32],
    sigma: f64,
    label: Option<u32>,
    out: &'a mut [f32],
}

impl Denoise for Optimal {
    fn image_len(&self) -> usize {
        self.image_len
    }

    fn max_batch(&self) -> usize {
        BATCH
    }

    fn sigma_range(&self) -> (f64, f64) {
        (0.0, f64::INFINITY)
    }

    fn denoise(&mut self, x: &[f32], sigma: &[f64], labels: &[u32], out: &mut [f32]) -> Result<()> {
        let len = self.image_len;
        let mut queries: Vec<Query> = x
            .chunks_exact(len)
            .zip(sigma)
            .zip(out.chunks_exact_mut(len))
            .enumerate()
            .map(|(i, ((x, &sigma), out))| Query { x, sigma, label: labels.get(i).copied(), out })
            .collect();
        queries.sort_by_key(|q| q.label);
        let mut tiles = Vec::new();
        for group in queries.chunk_by_mut(|a, b| a.label == b.label) {
            let images = match group[0].label {
                None => 0..self.squared_norms.len(),
                Some(label) => self.class(label)?,
            };
            tiles.extend(group.chunks_mut(TILE).map(|tile| (images.clone(), tile)));
        }
        let cpu = self.device.host();
        let this = &*self;
        cpu.run(|| {
            tiles.into_par_iter().for_each(|(images, tile)| this.denoise_tile(images, tile));
        });
        Ok(())
    }
}

// Both passes widen a chunk of an image once for all queries, and keep the queries' chunks in the first-level cache.
// In float64: at σ = 0.002 an exponent magnifies a distance's error 125,000 times.
vectorized! {
    /// dots[query][image] += x·u.
    fn add_dot_products(x: &[Vec<f64>], pixels: &[u8], image_len: usize, dots: &mut [Vec<f64>]) {
        let mut wide = [0.0; CHUNK];
        for start in (0..image_len).step_by(CHUNK) {
            let end = (start + CHUNK).min(image_len);
            let wide = &mut wide[..end - start];
            for (n, image) in pixels.chunks_exact(image_len).enumerate() {
                widen(&image[start..end], wide);
                for (dots, x) in dots.iter_mut().zip(x) {
                    dots[n] += dot(&x[start..end], wide);
                }
            }
        }
    }

    /// sums[query][pixel] += w·u over the images of a weight above 0.
    fn add_weighted(weights: &[Vec<f64>], pixels: &[u8], image_len: usize, sums: &mut [Vec<f64>]) {
        let mut wide = [0.0; CHUNK];
        for start in (0..image_len).step_by(CHUNK) {
            let end = (start + CHUNK).min(image_len);
            let wide = &mut wide[..end - start];
            for (n, image) in pixels.chunks_exact(image_len).enumerate() {
                if weights.iter().all(|w| w[n] == 0.0) {
                    continue;
                }
                widen(&image[start..end], wide);
                for (sums, w) in sums.iter_mut().zip(weights) {
                    let w = w[n];
                    if w != 0.0 {
                        for (s, &u) in sums[start..end].iter_mut().zip(&*wide) {
                            *s = w.mul_add(u, *s);
                        }
                    }
                }
            }
        }
    }
}

#[inline(always)]
fn widen(pixels: &[u8], wide: &mut [f64]) {
    for (w, &u) in wide.iter_mut().zip(pixels) {
        *w = u as f64;
    }
}

#[inline(always)]
fn dot(x: &[f64], y: &[f64]) -> f64 {
    const LANES: usize = 32;
    let mut sums = [0.0f64; LANES];
    let (xs, ys) = (x.chunks_exact(LANES), y.chunks_exact(LANES));
    let mut sum = 0.0;
    for (x, y) in xs.remainder().iter().zip(ys.remainder()) {
        sum += x * y;
    }
    for (x, y) in xs.zip(ys) {
        for l in 0..LANES {
            sums[l] = x[l].mul_add(y[l], sums[l]);
        }
    }
    for s in sums {
        sum += s;
    }
    sum
}
