//! High noise: every image counts. Both passes are exact products of pixels with fixed-point numbers.

use super::{NEGLIGIBLE, Optimal, Query};
use crate::device::cpu::dots::{
    COLUMNS, Lanes, ROWS, Word, add_fixed_dots, pack_across, pack_columns, pack_digits,
};
use bytemuck::Zeroable as _;
use rayon::prelude::*;
use std::ops::Range;

/// The largest fixed-point number.
const ONE: f64 = (1 << 30) as f64;
/// Share of its weights that a query may lose because they lie below half a unit of fixed point.
const LEFT_OUT: f64 = 3e-8;
/// Fixed-point vectors of a tile, at most.
const NUMBERS: usize = 4;

impl Optimal {
    /// D* of queries over all of `images`.
    pub(super) fn denoise_dense(&self, images: Range<usize>, queries: &mut [&mut Query]) {
        let exponents = self.exponents(images.clone(), queries);
        let count = queries.len();
        let mut weights = vec![0; count * images.len()];
        let totals: Vec<i64> = (weights.par_chunks_exact_mut(images.len()))
            .zip(queries.par_iter_mut())
            .enumerate()
            .map(|(q, (weights, query))| {
                let of_query = exponents.iter().skip(q).step_by(count).flatten();
                self.fixed_weights(of_query, images.start, query, weights)
            })
            .collect();
        drop(exponents);
        let pixels = &self.pixels[images.start * self.image_len..images.end * self.image_len];
        let sums = self.weighted_sums(pixels, &weights, count);
        queries.par_iter_mut().zip(totals).enumerate().for_each(|(q, (query, total))| {
            if total > 0 {
                let sums = sums.iter().skip(q).step_by(count).flatten();
                for (out, &sum) in query.out.iter_mut().zip(sums) {
                    *out = (sum as f64 / total as f64 / 127.5 - 1.0) as f32;
                }
            }
        });
    }

    /// Exponents of the weights, [panel of images][query][image of the panel].
    fn exponents(&self, images: Range<usize>, queries: &[&mut Query]) -> Vec<[f64; COLUMNS]> {
        let (form, len) = (self.isa.bytes(), self.image_len);
        let (words, numbers) = (len.div_ceil(form.values()), form.numbers());
        let mut rows = vec![[0; ROWS]; words * queries.len().div_ceil(numbers)];
        let mut units = vec![0.0; queries.len()];
        (rows.par_chunks_mut(words))
            .zip(units.par_chunks_mut(numbers))
            .zip(queries.par_chunks(numbers))
            .for_each(|((tile, units), queries)| {
                let fixed: Vec<Vec<i32>> =
                    queries.iter().zip(units).map(|(q, unit)| to_fixed(q.x, unit)).collect();
                pack_digits(form, fixed.iter().map(|v| &v[..]), tile);
            });
        let pixels = &self.pixels[images.start * len..images.end * len];
        let panels = images.len().div_ceil(COLUMNS);
        let mut exponents = vec![[f64::NEG_INFINITY; COLUMNS]; panels * queries.len()];
        (exponents.par_chunks_mut(queries.len()))
            .zip(pixels.par_chunks(COLUMNS * len))
            .enumerate()
            .for_each_init(
                || vec![Lanes::zeroed(); words],
                |panel, (p, (exponents, pixels))| {
                    pack_columns(form, pixels, len, 0, panel);
                    let first = images.start + p * COLUMNS;
                    let tiles = rows.chunks_exact(words).zip(exponents.chunks_mut(numbers));
                    for (t, (rows, exponents)) in tiles.enumerate() {
                        let mut dots = [[0; COLUMNS]; NUMBERS];
                        add_fixed_dots(self.isa, form, rows, panel, &mut dots[..numbers]);
                        for (i, (exponents, dots)) in exponents.iter_mut().zip(&dots).enumerate() {
                            let q = t * numbers + i;
                            let (unit, sigma) = (units[q], queries[q].sigma);
                            for c in 0..pixels.len() / len {
                                let dot = dots[c] as f64 * unit;
                                exponents[c] = self.exponent(dot, first + c, sigma);
                            }
                        }
                    }
                },
            );
        exponents
    }

    /// A query's weights relative to the largest in fixed point; returns their sum.
    ///
    /// If too much is lost so, the query is denoised exactly instead and has no weights: the sum is 0.
    fn fixed_weights<'e>(
        &self,
        exponents: impl Iterator<Item = &'e f64> + Clone,
        first: usize,
        query: &mut Query,
        weights: &mut [i32],
    ) -> i64 {
        let highest = exponents.clone().copied().fold(f64::NEG_INFINITY, f64::max);
        let (mut total, mut lost) = (0, 0.0);
        for (weight, &e) in weights.iter_mut().zip(exponents.clone()) {
            if e >= highest - NEGLIGIBLE {
                let w = (e - highest).exp();
                *weight = (w * ONE).round() as i32;
                total += *weight as i64;
                lost += if *weight == 0 { w } else { 0.0 };
            }
        }
        if lost * ONE <= LEFT_OUT * total as f64 {
            return total;
        }
        weights.fill(0);
        let shown = exponents.zip(first as u32..).filter(|(e, _)| **e >= highest - NEGLIGIBLE);
        self.denoise_exactly(&shown.map(|(_, n)| n).collect::<Vec<_>>(), query);
        0
    }

    /// Σ weight·u of each pixel, exactly: [panel of pixels][query][pixel of the panel]. `weights`: [query][image].
    fn weighted_sums(&self, pixels: &[u8], weights: &[i32], queries: usize) -> Vec<[i64; COLUMNS]> {
        let (form, len) = (self.isa.bytes(), self.image_len);
        let (images, numbers) = (pixels.len() / len, form.numbers());
        let words = images.div_ceil(form.values());
        let mut rows: Vec<Word> = vec![[0; ROWS]; words * queries.div_ceil(numbers)];
        rows.par_chunks_mut(words)
            .zip(weights.par_chunks(numbers * images))
            .for_each(|(tile, weights)| pack_digits(form, weights.chunks_exact(images), tile));
        // So many images at a time that a panel of their pixels stays in the cache.
        let stretch = form.max_digit_words();
        let mut sums = vec![[0; COLUMNS]; len.div_ceil(COLUMNS) * queries];
        sums.par_chunks_mut(queries).enumerate().for_each_init(
            || vec![Lanes::zeroed(); words.min(stretch)],
            |panel, (p, sums)| {
                for start in (0..words).step_by(stretch) {
                    let panel = &mut panel[..stretch.min(words - start)];
                    let images = &pixels[start * form.values() * len..];
                    pack_across(form, images, len, p * COLUMNS, panel);
                    let tiles = rows.chunks_exact(words).zip(sums.chunks_mut(numbers));
                    for (rows, sums) in tiles {
                        let rows = &rows[start..][..panel.len()];
                        add_fixed_dots(self.isa, form, rows, panel, sums);
                    }
                }
            },
        );
        sums
    }
}

/// `x` in units of `unit`, which is chosen so that the largest is ±2³⁰.
fn to_fixed(x: &[f32], unit: &mut f64) -> Vec<i32> {
    let largest = x.iter().fold(0.0f32, |a, v| a.max(v.abs())) as f64;
    *unit = if largest > 0.0 { largest / ONE } else { 1.0 };
    x.iter().map(|&v| (v as f64 / *unit).round() as i32).collect()
}
