//! The theoretical optimum (Gu et al. 2023, Eq. 2): what a network that fits its training images perfectly computes.

use super::Denoise;
use crate::data::Dataset;
use crate::device::Device;
use crate::error::usage;
use anyhow::Result;
use rayon::prelude::*;
use std::ops::Range;

/// Weights below e^−40 of the largest don't show in float32, whatever their number.
const NEGLIGIBLE: f64 = 40.0;
/// Queries that share one pass over the reference images.
const TILE: usize = 4;
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

    fn image(&self, n: usize) -> &[u8] {
        &self.pixels[n * self.image_len..][..self.image_len]
    }

    fn class(&self, label: u32) -> Result<Range<usize>> {
        match self.classes.get(label as usize) {
            Some(range) if !range.is_empty() => Ok(range.clone()),
            _ => Err(usage(format!("label {label}: the data set has no image of this class"))),
        }
    }

    /// D* of up to TILE queries over the same images.
    fn denoise_tile(&self, images: Range<usize>, queries: &mut [Query]) {
        // A ragged tile repeats its first query; the copies' results are dropped.
        let wide = |x: &[f32]| x.iter().map(|&v| v as f64).collect::<Vec<f64>>();
        let x: [Vec<f64>; TILE] =
            std::array::from_fn(|i| wide(queries.get(i).unwrap_or(&queries[0]).x));
        let mut exponents = vec![vec![0.0; images.len()]; queries.len()];
        for (i, n) in images.clone().enumerate() {
            let dots = dot_products(&x, self.image(n));
            for ((e, q), dot) in exponents.iter_mut().zip(queries.iter()).zip(dots) {
                // ‖x‖² − ‖x − y‖² with x·y = x·u / 127.5 − Σx; what all images share drops out.
                e[i] = (dot * (2.0 / 127.5) - self.squared_norms[n]) / (2.0 * q.sigma * q.sigma);
            }
        }
        for (e, q) in exponents.iter().zip(queries) {
            let highest = e.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let mut sum = vec![0.0; self.image_len];
            let mut total = 0.0;
            for (n, e) in images.clone().zip(e).filter(|(_, e)| **e >= highest - NEGLIGIBLE) {
                let weight = (e - highest).exp();
                total += weight;
                add_weighted(&mut sum, self.image(n), weight);
            }
            for (out, sum) in q.out.iter_mut().zip(sum) {
                *out = (sum / total / 127.5 - 1.0) as f32;
            }
        }
    }
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
        let Device::Cpu(cpu) = &self.device;
        let this = &*self;
        cpu.run(|| {
            tiles.into_par_iter().for_each(|(images, tile)| this.denoise_tile(images, tile));
        });
        Ok(())
    }
}

/// x·u for TILE queries, in float64: at σ = 0.002 an exponent magnifies a distance's error 125,000 times.
fn dot_products(x: &[Vec<f64>; TILE], u: &[u8]) -> [f64; TILE] {
    const LANES: usize = 16;
    pulp::Arch::new().dispatch(
        #[inline(always)]
        || {
            let mut acc = [[0.0f64; LANES]; TILE];
            let whole = u.len() / LANES * LANES;
            for at in (0..whole).step_by(LANES) {
                let y: [f64; LANES] = std::array::from_fn(|l| u[at..][l] as f64);
                for (acc, x) in acc.iter_mut().zip(x) {
                    let x = &x[at..at + LANES];
                    for l in 0..LANES {
                        acc[l] = x[l].mul_add(y[l], acc[l]);
                    }
                }
            }
            std::array::from_fn(|q| {
                let rest = x[q][whole..].iter().zip(&u[whole..]);
                acc[q].iter().sum::<f64>() + rest.map(|(x, &u)| x * u as f64).sum::<f64>()
            })
        },
    )
}

/// sum += w·u in float64.
fn add_weighted(sum: &mut [f64], u: &[u8], w: f64) {
    pulp::Arch::new().dispatch(
        #[inline(always)]
        || {
            for (s, &u) in sum.iter_mut().zip(u) {
                *s = w.mul_add(u as f64, *s);
            }
        },
    )
}
