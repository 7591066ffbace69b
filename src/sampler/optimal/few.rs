//! Low noise: the weights of few images show.

use super::fixed::Fixed;
use super::{Optimal, Query, negligible};
use rayon::prelude::*;
use std::ops::Range;

/// Left to the pass in full precision: queries with more than one of so many images near.
const SHARE: usize = 32;

impl Optimal {
    /// D* of queries that have few images near; returns those that have too many.
    pub(super) fn denoise_few<'a, 'q, 'x>(
        &self,
        images: Range<usize>,
        mut queries: Vec<&'a mut &'q mut Query<'x>>,
    ) -> Vec<&'a mut &'q mut Query<'x>> {
        if queries.is_empty() {
            return queries;
        }
        let coarse = self.exponents(images.clone(), &queries, Fixed::COARSE);
        let norms = &self.squared_norms[images.clone()];
        let done: Vec<bool> = queries
            .par_iter_mut()
            .enumerate()
            .map(|(i, query)| {
                // x·y is off by (x − x̂)·y, at most ‖x − x̂‖‖y‖, and by what all images share.
                let off = coarse.squared_errors[i].sqrt() / (query.sigma * query.sigma);
                let bounds = coarse.of(i).zip(norms).map(|(e, norm)| (e, off * norm.sqrt()));
                let surely = bounds.clone().fold(f64::NEG_INFINITY, |a, (e, off)| a.max(e - off));
                // The factor covers float64's rounding.
                let least = surely - negligible(images.len()) - 1e-9 * surely.abs();
                let shown = |&((e, off), _): &((f64, f64), u32)| e + off >= least;
                let shown = bounds.zip(images.start as u32..).filter(shown);
                let near: Vec<u32> = shown.map(|(_, n)| n).collect();
                let few = near.len() <= 2 + images.len() / SHARE;
                if few {
                    self.denoise_exactly(&near, query);
                }
                few
            })
            .collect();
        let mut done = done.into_iter();
        queries.retain(|_| done.next() == Some(false));
        queries
    }
}
