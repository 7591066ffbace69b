//! The theoretical optimum (Gu et al. 2023, Eq. 2): what a network that fits its training images perfectly computes.
//!
//! Distances come from products of bytes with fixed-point numbers, exact but for the numbers' own precision. At low
//! noise seven bits tell which few images have weights that show, and float64 is spent on these; at high noise all
//! count, and both passes over them (dot products, weighted sums) are such products with 31 bits. Which way an image
//! goes depends on nothing but itself.

mod dense;
mod few;
mod fixed;

use super::denoise::{Denoise, Posterior};
use crate::data::Dataset;
use crate::device::Device;
use crate::device::cpu::dots::Isa;
use crate::error::usage;
use crate::simd::vectorized;
use anyhow::Result;
use rayon::prelude::*;
use std::ops::Range;

/// Weights that don't show in float32: all of them together are below this share of the largest.
const NEGLIGIBLE: f64 = 1e-9;
const BATCH: usize = 256;
/// Weights held at a time: 32 MiB, however many images there are.
const WEIGHTS: usize = 4 << 20;

/// Images of each class; none without labels.
pub(super) struct Classes(Vec<Range<usize>>);

impl Classes {
    /// # Errors
    /// Usage, if no image has the label.
    pub fn of(&self, label: u32) -> Result<Range<usize>> {
        match self.0.get(label as usize) {
            Some(range) if !range.is_empty() => Ok(range.clone()),
            _ => Err(usage(format!("label {label}: the data set has no image of this class"))),
        }
    }
}

/// A set's images, [N, H, W, C], sorted by class where there are labels.
pub(super) struct ByClass {
    pub pixels: Vec<u8>,
    pub classes: Classes,
}

impl ByClass {
    pub fn of(data: &Dataset) -> Self {
        let mut order: Vec<usize> = (0..data.len()).collect();
        let mut classes = Vec::new();
        if let Some(labels) = &data.labels {
            order.sort_by_key(|&i| labels[i]);
            for class in 0..data.label_dim() as u32 {
                let start = order.partition_point(|&i| labels[i] < class);
                classes.push(start..order.partition_point(|&i| labels[i] <= class));
            }
        }
        let pixels = order.iter().flat_map(|&i| data.image(i)).copied().collect();
        ByClass { pixels, classes: Classes(classes) }
    }
}

/// D*(x; σ) = Σ softmax_n(−‖x − y_n‖² / 2σ²) y_n over the training images y_n in [−1, 1]; with labels, over
/// those of the label's class. Agrees with float64 to float32's last bits at every noise level.
pub struct Optimal {
    device: Device,
    isa: Isa,
    /// [N, H, W, C], sorted by class where there are labels.
    pixels: Vec<u8>,
    image_len: usize,
    classes: Classes,
    /// ‖y_n‖².
    squared_norms: Vec<f64>,
    /// Mean squared distance of two images.
    spread: f64,
}

impl Optimal {
    /// `data` holds at least one image.
    pub fn new(data: &Dataset, device: &Device) -> Self {
        Optimal::with(data, device, Isa::best())
    }

    /// With these instructions: results are the same.
    pub fn with(data: &Dataset, device: &Device, isa: Isa) -> Self {
        let ByClass { pixels, classes } = ByClass::of(data);
        let image_len = data.image_len();
        let norm = |image: &[u8]| {
            // (u/127.5 − 1)² = (2u − 255)² / 255², summed exactly.
            let sum: u64 = image.iter().map(|&u| (2 * u as i64 - 255).unsigned_abs().pow(2)).sum();
            sum as f64 / (255.0 * 255.0)
        };
        let squared_norms: Vec<f64> =
            device.host().run(|| pixels.par_chunks_exact(image_len).map(norm).collect());
        let spread = spread(&pixels, &squared_norms);
        let device = device.clone();
        Optimal { device, isa, pixels, image_len, classes, squared_norms, spread }
    }

    fn image(&self, n: usize) -> &[u8] {
        &self.pixels[n * self.image_len..][..self.image_len]
    }

    /// D* of queries over the same images.
    fn denoise_group(&self, images: Range<usize>, queries: &mut [Query]) {
        for q in queries.iter_mut().filter(|q| q.x.iter().any(|v| !v.is_finite())) {
            q.out.fill(f32::NAN);
            *q.entropy = f64::NAN;
        }
        let finite = queries.iter_mut().filter(|q| q.x.iter().all(|v| v.is_finite()));
        let mut finite: Vec<&mut Query> = finite.collect();
        for queries in finite.chunks_mut((WEIGHTS / images.len()).clamp(1, BATCH)) {
            let low = |q: &&mut &mut Query| {
                2.0 * negligible(images.len()) * q.sigma * q.sigma < 0.5 * self.spread
            };
            let (low, mut high): (Vec<_>, Vec<_>) = queries.iter_mut().partition(low);
            high.extend(self.denoise_few(images.clone(), low));
            self.denoise_dense(images.clone(), &mut high);
        }
    }

    /// D* of a query by float64, over `images` in ascending order, all others being negligible.
    fn denoise_exactly(&self, images: &[u32], query: &mut Query) {
        let x: Vec<f64> = query.x.iter().map(|&v| v as f64).collect();
        let exponent = |&n: &u32| {
            // ‖x‖² − ‖x − y‖² with x·y = x·u / 127.5 − Σx; what all images share drops out.
            let dot = dot_pixels(&x, self.image(n as usize));
            self.exponent(dot, n as usize, query.sigma)
        };
        let mut weights: Vec<f64> = images.iter().map(exponent).collect();
        let total = exponentiate(&mut weights, negligible(images.len()));
        *query.entropy = entropy(total, weights.iter().map(|&w| (w, w.ln())));
        let mut sums = vec![0.0; self.image_len];
        for (&n, &w) in images.iter().zip(&weights).filter(|(_, w)| **w != 0.0) {
            add_weighted(w, self.image(n as usize), &mut sums);
        }
        for (out, sum) in query.out.iter_mut().zip(sums) {
            *out = (sum / total / 127.5 - 1.0) as f32;
        }
    }

    /// −‖x − y_n‖² / 2σ² up to what all images share, from x·u_n.
    fn exponent(&self, dot: f64, n: usize, sigma: f64) -> f64 {
        (dot * (2.0 / 127.5) - self.squared_norms[n]) / (2.0 * sigma * sigma)
    }
}

/// The mean squared distance of two images in [−1, 1]: twice their variance.
fn spread(pixels: &[u8], squared_norms: &[f64]) -> f64 {
    let images = squared_norms.len() as f64;
    let image_len = pixels.len() / squared_norms.len();
    let mut sums = vec![0u64; image_len];
    for image in pixels.chunks_exact(image_len) {
        sums.iter_mut().zip(image).for_each(|(sum, &u)| *sum += u as u64);
    }
    let of_mean: f64 = sums.iter().map(|&s| (s as f64 / images / 127.5 - 1.0).powi(2)).sum();
    2.0 * (squared_norms.iter().sum::<f64>() / images - of_mean)
}

/// How far below the largest exponent weights don't show, among so many images.
fn negligible(images: usize) -> f64 {
    (images as f64 / NEGLIGIBLE).ln()
}

/// Exponents to weights relative to the largest; returns their sum. Those `negligible` below become exactly 0.
fn exponentiate(exponents: &mut [f64], negligible: f64) -> f64 {
    let highest = exponents.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut total = 0.0;
    for e in exponents {
        *e = if *e >= highest - negligible { (*e - highest).exp() } else { 0.0 };
        total += *e;
    }
    total
}

/// The entropy in nats of weights that add up to `total`, by each weight and its logarithm.
pub(super) fn entropy(total: f64, weights: impl Iterator<Item = (f64, f64)>) -> f64 {
    let sum: f64 = weights.filter(|(w, _)| *w != 0.0).map(|(w, ln)| w * ln).sum();
    total.ln() - sum / total
}

/// One image to denoise.
struct Query<'a> {
    x: &'a [f32],
    sigma: f64,
    label: Option<u32>,
    out: &'a mut [f32],
    /// Of the weights, in nats.
    entropy: &'a mut f64,
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
        self.denoise_weighed(x, sigma, labels, out, &mut vec![0.0; sigma.len()])
    }
}

impl Posterior for Optimal {
    fn denoise_weighed(
        &mut self,
        x: &[f32],
        sigma: &[f64],
        labels: &[u32],
        out: &mut [f32],
        entropies: &mut [f64],
    ) -> Result<()> {
        let len = self.image_len;
        let mut queries: Vec<Query> = x
            .chunks_exact(len)
            .zip(sigma)
            .zip(out.chunks_exact_mut(len))
            .zip(entropies)
            .enumerate()
            .map(|(i, (((x, &sigma), out), entropy))| {
                let label = labels.get(i).copied();
                Query { x, sigma, label, out, entropy }
            })
            .collect();
        queries.sort_by_key(|q| q.label);
        let this = &*self;
        this.device.host().run(|| {
            for group in queries.chunk_by_mut(|a, b| a.label == b.label) {
                let images = match group[0].label {
                    None => 0..this.squared_norms.len(),
                    Some(label) => this.classes.of(label)?,
                };
                this.denoise_group(images, group);
            }
            Ok(())
        })
    }
}

// In float64: at σ = 0.002 an exponent magnifies a distance's error 125,000 times.
vectorized! {
    /// x·u.
    fn dot_pixels(x: &[f64], pixels: &[u8]) -> f64 {
        const LANES: usize = 32;
        let mut sums = [0.0f64; LANES];
        let (xs, us) = (x.chunks_exact(LANES), pixels.chunks_exact(LANES));
        let mut sum = 0.0;
        for (x, &u) in xs.remainder().iter().zip(us.remainder()) {
            sum += x * u as f64;
        }
        for (x, u) in xs.zip(us) {
            for l in 0..LANES {
                sums[l] = x[l].mul_add(u[l] as f64, sums[l]);
            }
        }
        for s in sums {
            sum += s;
        }
        sum
    }

    /// sums += w·u.
    fn add_weighted(w: f64, pixels: &[u8], sums: &mut [f64]) {
        for (s, &u) in sums.iter_mut().zip(pixels) {
            *s = w.mul_add(u as f64, *s);
        }
    }
}
