//! High noise: every image counts.

use super::fixed::Fixed;
use super::{Optimal, Query, add_weighted, entropy, negligible};
use crate::device::cpu::dots::{
    COLUMNS, DotLanes, ROWS, Word, add_fixed_dots, pack_across, pack_digits,
};
use bytemuck::Zeroable as _;
use rayon::prelude::*;
use std::ops::Range;

/// The largest fixed-point number.
const ONE: i32 = 1 << 30;
/// Share of its weights that a query may lose because they lie below half a unit of fixed point.
const LOST: f64 = 1e-8;
/// Where more would be lost, weights above this times the largest are kept apart in float64, and the rest is in
/// units as much smaller.
const HEAVY: f64 = 1.0 / 1024.0;

/// A query's weights, relative to the largest: some in fixed point, some not.
#[derive(Default)]
struct Weights {
    /// What 1 is in fixed point.
    one: f64,
    /// Images and weights that are 0 in fixed point.
    heavy: Vec<(usize, f64)>,
    /// Σ of all; 0 if the query is denoised already.
    total: f64,
}

impl Optimal {
    /// D* of queries over all of `images`.
    pub(super) fn denoise_dense(&self, images: Range<usize>, queries: &mut [&mut &mut Query]) {
        if queries.is_empty() {
            return;
        }
        let fine = Fixed { one: ONE, digits: self.isa.bytes().digits() };
        let exponents = self.exponents(images.clone(), queries, fine);
        let count = queries.len();
        let mut fixed = vec![0; count * images.len()];
        let weights: Vec<Weights> = (fixed.par_chunks_exact_mut(images.len()))
            .zip(queries.par_iter_mut())
            .enumerate()
            .map(|(q, (fixed, query))| self.weigh(exponents.of(q), images.start, query, fixed))
            .collect();
        drop(exponents);
        let pixels = &self.pixels[images.start * self.image_len..images.end * self.image_len];
        let sums = self.weighted_sums(pixels, &fixed, count, fine.digits);
        queries.par_iter_mut().zip(weights).enumerate().for_each(|(q, (query, weights))| {
            if weights.total == 0.0 {
                return;
            }
            let of_query = sums.iter().skip(q).step_by(count).flatten().take(self.image_len);
            let mut sums: Vec<f64> = of_query.map(|&s| s as f64 / weights.one).collect();
            for (n, w) in weights.heavy {
                add_weighted(w, self.image(n), &mut sums);
            }
            for (out, sum) in query.out.iter_mut().zip(sums) {
                *out = (sum / weights.total / 127.5 - 1.0) as f32;
            }
        });
    }

    /// Writes a query's weights in fixed point, or denoises it exactly if these lose too much.
    fn weigh(
        &self,
        exponents: impl Iterator<Item = f64> + Clone,
        first: usize,
        query: &mut Query,
        fixed: &mut [i32],
    ) -> Weights {
        let highest = exponents.clone().fold(f64::NEG_INFINITY, f64::max);
        let least = highest - negligible(fixed.len());
        for heavy in [1.0, HEAVY] {
            let mut weights = Weights { one: ONE as f64 / heavy, ..Weights::default() };
            let mut lost = 0.0;
            for (n, (fixed, e)) in fixed.iter_mut().zip(exponents.clone()).enumerate() {
                *fixed = 0;
                if e < least {
                    continue;
                }
                let w = (e - highest).exp();
                weights.total += w;
                if w <= heavy {
                    *fixed = (w * weights.one).round() as i32;
                    lost += if *fixed == 0 { w } else { 0.0 };
                } else {
                    weights.heavy.push((first + n, w));
                }
            }
            if lost <= LOST * weights.total {
                let shown = exponents.filter(|e| *e >= least).map(|e| e - highest);
                *query.entropy = entropy(weights.total, shown.map(|e| (e.exp(), e)));
                return weights;
            }
        }
        fixed.fill(0);
        let shown = exponents.zip(first as u32..).filter(|(e, _)| *e >= least);
        self.denoise_exactly(&shown.map(|(_, n)| n).collect::<Vec<_>>(), query);
        Weights::default()
    }

    /// Σ weight·u of each pixel, exactly: `[panel of pixels][query][pixel of the panel]`. `weights`: `[query][image]`.
    fn weighted_sums(
        &self,
        pixels: &[u8],
        weights: &[i32],
        queries: usize,
        digits: usize,
    ) -> Vec<[i64; COLUMNS]> {
        let (form, len) = (self.isa.bytes(), self.image_len);
        let (images, vectors) = (pixels.len() / len, ROWS / digits);
        let words = images.div_ceil(form.values());
        let mut rows: Vec<Word> = vec![[0; ROWS]; words * queries.div_ceil(vectors)];
        rows.par_chunks_mut(words).zip(weights.par_chunks(vectors * images)).for_each(
            |(tile, weights)| pack_digits(form, digits, weights.chunks_exact(images), tile),
        );
        // So many images at a time that a panel of their pixels stays in the cache.
        let stretch = form.max_digit_words();
        let mut sums = vec![[0; COLUMNS]; len.div_ceil(COLUMNS) * queries];
        sums.par_chunks_mut(queries).enumerate().for_each_init(
            || vec![DotLanes::zeroed(); words.min(stretch)],
            |panel, (p, sums)| {
                for start in (0..words).step_by(stretch) {
                    let panel = &mut panel[..stretch.min(words - start)];
                    let images = &pixels[start * form.values() * len..];
                    pack_across(form, images, len, p * COLUMNS, panel);
                    let tiles = rows.chunks_exact(words).zip(sums.chunks_mut(vectors));
                    for (rows, sums) in tiles {
                        let rows = &rows[start..][..panel.len()];
                        add_fixed_dots(self.isa, form, digits, rows, panel, sums);
                    }
                }
            },
        );
        sums
    }
}
