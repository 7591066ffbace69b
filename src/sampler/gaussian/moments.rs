//! Mean and covariance of images, summed in integers.

use crate::simd::vectorized;
use rayon::prelude::*;

/// Values of each row that are multiplied at a time.
const BLOCK: usize = 1024;
/// Rows that meet all others while these stay in the cache.
const ROWS: usize = 16;
/// Half of what separates black from white, in grey levels.
const HALF: f64 = 127.5;

/// What brings images into the space of the matrix that [`Moments::of`] gives beside it.
pub struct Moments {
    /// Mean image, in [−1, 1].
    mean: Vec<f64>,
    /// The images [N, H, W, C], where the matrix is their Gram matrix; else none.
    images: Option<Vec<u8>>,
}

impl Moments {
    /// Of at least one image, and their covariance matrix over N images or, where these are fewer than pixels, their Gram
    /// matrix over N: symmetric, row by row, in units where pixels are in [−1, 1].
    pub fn of(pixels: &[u8], image_len: usize) -> (Self, Vec<f64>) {
        let images = pixels.len() / image_len;
        let mut sums = vec![0u64; image_len];
        for image in pixels.chunks_exact(image_len) {
            sums.iter_mut().zip(image).for_each(|(sum, &u)| *sum += u as u64);
        }
        let n = images as f64;
        let mean = sums.iter().map(|&s| s as f64 / n / HALF - 1.0).collect();
        let scale = 1.0 / (n * HALF * HALF);
        if image_len <= images {
            let mut matrix = products(image_len, images, |p, i| pixels[i * image_len + p]);
            matrix.par_chunks_exact_mut(image_len).zip(&sums).for_each(|(row, &a)| {
                for (c, &b) in row.iter_mut().zip(&sums) {
                    *c = (*c - a as f64 * b as f64 / n) * scale;
                }
            });
            return (Moments { mean, images: None }, matrix);
        }
        let mut matrix = products(images, image_len, |i, p| pixels[i * image_len + p]);
        let of_rows: Vec<f64> =
            matrix.chunks_exact(images).map(|row| row.iter().sum::<f64>() / n).collect();
        let of_all = of_rows.iter().sum::<f64>() / n;
        matrix.par_chunks_exact_mut(images).zip(&of_rows).for_each(|(row, &a)| {
            for (g, &b) in row.iter_mut().zip(&of_rows) {
                *g = (*g - a - b + of_all) * scale;
            }
        });
        (Moments { mean, images: Some(pixels.to_vec()) }, matrix)
    }

    /// Values of an image.
    pub fn image_len(&self) -> usize {
        self.mean.len()
    }

    /// Whether the matrix is a Gram matrix.
    pub fn is_gram(&self) -> bool {
        self.images.is_some()
    }

    /// ‖y − μ‖², and y − μ, or Aᵀ(y − μ) where the Gram matrix is AᵀA.
    pub fn centred(&self, image: &[u8]) -> (f64, Vec<f64>) {
        let centred = |image: &[u8]| -> Vec<f64> {
            image.iter().zip(&self.mean).map(|(&u, m)| u as f64 / HALF - 1.0 - m).collect()
        };
        let y = centred(image);
        let squared = y.iter().map(|v| v * v).sum();
        let Some(images) = &self.images else { return (squared, y) };
        let scale = ((images.len() / y.len()) as f64).sqrt().recip();
        let product = |other: &[u8]| -> f64 {
            centred(other).iter().zip(&y).map(|(a, b)| a * b).sum::<f64>() * scale
        };
        (squared, images.chunks_exact(y.len()).map(product).collect())
    }
}

/// All products of two of `rows` rows of `len` bytes, exactly: symmetric, [rows, rows].
fn products(rows: usize, len: usize, value: impl Fn(usize, usize) -> u8 + Sync) -> Vec<f64> {
    let mut sums = vec![0.0; rows * rows];
    for first in (0..len).step_by(BLOCK) {
        let count = BLOCK.min(len - first);
        let mut block = vec![0i16; rows * count];
        block.par_chunks_exact_mut(count).enumerate().for_each(|(r, row)| {
            row.iter_mut().enumerate().for_each(|(k, v)| *v = value(r, first + k) as i16);
        });
        let row = |r: usize| &block[r * count..][..count];
        sums.par_chunks_mut(ROWS * rows).enumerate().for_each(|(tile, sums)| {
            let here = tile * ROWS..(tile * ROWS + ROWS).min(rows);
            for other in 0..here.end {
                for (sums, r) in sums.chunks_exact_mut(rows).zip(here.clone()) {
                    sums[other] += dot(row(r), row(other)) as f64;
                }
            }
        });
    }
    // Above the tiles' diagonal nothing was multiplied.
    for r in 0..rows {
        for other in r / ROWS * ROWS + ROWS..rows {
            sums[r * rows + other] = sums[other * rows + r];
        }
    }
    sums
}

vectorized! {
    /// Of bytes in 16 bits, as many as [`BLOCK`].
    fn dot(a: &[i16], b: &[i16]) -> i32 {
        let mut sum = 0i32;
        for (&a, &b) in a.iter().zip(b) {
            sum += a as i32 * b as i32;
        }
        sum
    }
}
