//! Exponents of all images at once, from products of bytes with fixed-point numbers.

use super::{Optimal, Query};
use crate::device::cpu::dots::{
    COLUMNS, DotLanes, ROWS, add_fixed_dots, pack_columns, pack_digits,
};
use bytemuck::Zeroable as _;
use rayon::prelude::*;
use std::ops::Range;

/// How numbers are written: the largest of a vector as `one`, in so many digits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fixed {
    pub one: i32,
    pub digits: usize,
}

impl Fixed {
    /// Seven bits and a sign.
    pub const COARSE: Fixed = Fixed { one: 127, digits: 1 };

    /// Vectors whose digits fill a tile's rows.
    pub fn vectors(self) -> usize {
        ROWS / self.digits
    }
}

/// What [`Optimal::exponents`] found.
pub(super) struct Exponents {
    /// `[panel of images][query][image of the panel]`; −∞ where there is no image.
    values: Vec<[f64; COLUMNS]>,
    /// ‖x − x̂‖² of each query's x̂ in fixed point.
    pub squared_errors: Vec<f64>,
}

impl Exponents {
    /// Those of one query, in the order of the images.
    pub fn of(&self, query: usize) -> impl Iterator<Item = f64> + Clone {
        self.values.iter().skip(query).step_by(self.squared_errors.len()).flatten().copied()
    }
}

impl Optimal {
    /// −‖x̂ − y_n‖² / 2σ², up to what all images share, of queries and all of `images`.
    pub(super) fn exponents(
        &self,
        images: Range<usize>,
        queries: &[&mut &mut Query],
        fixed: Fixed,
    ) -> Exponents {
        let (form, len) = (self.isa.bytes(), self.image_len);
        let (words, vectors) = (len.div_ceil(form.values()), fixed.vectors());
        let mut rows = vec![[0; ROWS]; words * queries.len().div_ceil(vectors)];
        let mut written = vec![(0.0, 0.0); queries.len()];
        (rows.par_chunks_mut(words))
            .zip(written.par_chunks_mut(vectors))
            .zip(queries.par_chunks(vectors))
            .for_each(|((tile, written), queries)| {
                let write = |(q, written): (&&mut &mut Query, &mut (f64, f64))| {
                    let (x, unit, squared_error) = write(q.x, fixed.one);
                    *written = (unit, squared_error);
                    x
                };
                let x: Vec<Vec<i32>> = queries.iter().zip(written).map(write).collect();
                pack_digits(form, fixed.digits, x.iter().map(|x| &x[..]), tile);
            });
        let pixels = &self.pixels[images.start * len..images.end * len];
        let panels = images.len().div_ceil(COLUMNS);
        let mut values = vec![[f64::NEG_INFINITY; COLUMNS]; panels * queries.len()];
        (values.par_chunks_mut(queries.len()))
            .zip(pixels.par_chunks(COLUMNS * len))
            .enumerate()
            .for_each_init(
                || vec![DotLanes::zeroed(); words],
                |panel, (p, (values, pixels))| {
                    pack_columns(form, pixels, len, 0, panel);
                    let first = images.start + p * COLUMNS;
                    let tiles = rows.chunks_exact(words).zip(values.chunks_mut(vectors));
                    for (t, (rows, values)) in tiles.enumerate() {
                        let mut dots = [[0; COLUMNS]; ROWS];
                        add_fixed_dots(self.isa, form, fixed.digits, rows, panel, &mut dots);
                        for (i, (values, dots)) in values.iter_mut().zip(&dots).enumerate() {
                            let q = t * vectors + i;
                            let (unit, sigma) = (written[q].0, queries[q].sigma);
                            let columns = values.iter_mut().zip(dots).take(pixels.len() / len);
                            for (c, (value, &dot)) in columns.enumerate() {
                                *value = self.exponent(dot as f64 * unit, first + c, sigma);
                            }
                        }
                    }
                },
            );
        Exponents { values, squared_errors: written.into_iter().map(|w| w.1).collect() }
    }
}

/// `x` in units so that its largest is ±`one`; the unit and ‖x − x̂‖².
fn write(x: &[f32], one: i32) -> (Vec<i32>, f64, f64) {
    let largest = x.iter().fold(0.0f32, |a, v| a.max(v.abs())) as f64;
    let unit = if largest > 0.0 { largest / one as f64 } else { 1.0 };
    let fixed: Vec<i32> = x.iter().map(|&v| (v as f64 / unit).round() as i32).collect();
    let error = |(&x, &f): (&f32, &i32)| (x as f64 - f as f64 * unit).powi(2);
    let squared_error = x.iter().zip(&fixed).map(error).sum();
    (fixed, unit, squared_error)
}
