//! Low noise: the images whose weights show, found by their sketches.

use super::{NEGLIGIBLE, Optimal, Query, dot_pixels};
use crate::device::cpu::dots::{COLUMNS, Form, ROWS, Word, first_bits, scan};
use crate::device::cpu::sketch::{Panels, Sketcher};
use rayon::prelude::*;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Left to the pass over all images: queries with more than this share of them near, and so many more.
const FEW: (usize, usize) = (8, 64);
/// Squared pixel units of one squared unit of [−1, 1].
const PIXELS: f64 = 127.5 * 127.5;

/// Queries of low noise and their sketches.
struct Sketched<'s> {
    panels: &'s Panels,
    /// [tile][word].
    rows: Vec<Word>,
    squared: Vec<i32>,
}

impl Optimal {
    /// D* of queries over few images each; returns those that have too many.
    pub(super) fn denoise_near<'q, 'x>(
        &self,
        images: Range<usize>,
        mut queries: Vec<&'q mut Query<'x>>,
    ) -> Vec<&'q mut Query<'x>> {
        let Some((sketcher, panels)) = self.sketches.as_ref().filter(|_| !queries.is_empty())
        else {
            return queries;
        };
        let draw = |q: &&mut Query| sketcher.draw(q.x.iter().map(|&v| 127.5 * (v as f64 + 1.0)));
        let (rows, squared) = Sketcher::rows(&queries.par_iter().map(draw).collect::<Vec<_>>());
        let sketched = Sketched { panels, rows, squared };
        let nearest = sketched.nearest(self, images.clone());
        let limit = |(q, &n): (&&mut Query, &usize)| {
            let x: Vec<f64> = q.x.iter().map(|&v| v as f64).collect();
            let dot = dot_pixels(&x, self.image(n)) / 127.5 - x.iter().sum::<f64>();
            let squared = x.iter().map(|v| v * v).sum::<f64>() - 2.0 * dot + self.squared_norms[n];
            // Every image as near as one of a weight that shows; the factor covers rounding.
            let shown = squared.max(0.0) * (1.0 + 1e-9) + 2.0 * NEGLIGIBLE * q.sigma * q.sigma;
            sketcher.reach(PIXELS * shown).floor() as i64 + 1
        };
        let limits: Vec<i64> = queries.par_iter().zip(&nearest).map(limit).collect();
        let most = images.len() / FEW.0 + FEW.1;
        let lists = sketched.within(self, images, &limits, most);
        let done: Vec<bool> = queries
            .par_iter_mut()
            .zip(&lists)
            .map(|(q, near)| {
                if near.len() <= most {
                    self.denoise_exactly(near, q);
                }
                near.len() <= most
            })
            .collect();
        let mut done = done.into_iter();
        queries.retain(|_| done.next() == Some(false));
        queries
    }
}

impl Sketched<'_> {
    /// The image of the nearest sketch for each query; of several the first.
    fn nearest(&self, optimal: &Optimal, images: Range<usize>) -> Vec<usize> {
        let least: Vec<AtomicU64> = self.squared.iter().map(|_| AtomicU64::new(u64::MAX)).collect();
        let limits = |q: usize| (least[q].load(Ordering::Relaxed) >> 32) as i64;
        self.scan(optimal, images, &limits, &|q, image, squared| {
            least[q].fetch_min((squared as u64) << 32 | image as u64, Ordering::Relaxed);
        });
        least.into_iter().map(|l| l.into_inner() as u32 as usize).collect()
    }

    /// The images whose squared sketch distances are within each query's limit, in order; of too many, more than
    /// `most`.
    fn within(
        &self,
        optimal: &Optimal,
        images: Range<usize>,
        limits: &[i64],
        most: usize,
    ) -> Vec<Vec<u32>> {
        let lists: Vec<Mutex<Vec<u32>>> = limits.iter().map(|_| Mutex::default()).collect();
        self.scan(optimal, images, &|q| limits[q], &|q, image, _| {
            let mut list = lists[q].lock().unwrap_or_else(|e| e.into_inner());
            if list.len() <= most {
                list.push(image as u32);
            }
        });
        let sorted = |list: Mutex<Vec<u32>>| {
            let mut list = list.into_inner().unwrap_or_else(|e| e.into_inner());
            list.sort_unstable();
            list
        };
        lists.into_iter().map(sorted).collect()
    }

    /// Calls `hit(query, image, squared)` for each pair of sketches whose squared distance is at most the query's
    /// limit.
    fn scan(
        &self,
        optimal: &Optimal,
        images: Range<usize>,
        limits: &(dyn Fn(usize) -> i64 + Sync),
        hit: &(dyn Fn(usize, usize, i64) + Sync),
    ) {
        let limits = |t: usize| -> Word {
            std::array::from_fn(|r| match self.squared.get(t * ROWS + r) {
                Some(&s) => {
                    (limits(t * ROWS + r) - s as i64).clamp(i32::MIN as i64, i32::MAX as i64) as i32
                }
                None => i32::MIN,
            })
        };
        let panels = images.start / COLUMNS..images.end.div_ceil(COLUMNS);
        panels.into_par_iter().for_each(|p| {
            let first = p * COLUMNS;
            let valid =
                first_bits(images.end - first) & !first_bits(images.start.saturating_sub(first));
            let panel = self.panels.get(p);
            scan(optimal.isa, Form::Pairs, panel, valid, &self.rows, &limits, |q, c, key| {
                hit(q, first + c, key as i64 + self.squared[q] as i64)
            });
        });
    }
}
