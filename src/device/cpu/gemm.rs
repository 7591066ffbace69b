//! Matrix products on one thread. Every element of c is a chain of fused multiply-adds in the order of k, cut
//! every `DEPTH` steps: its bits depend on its row of a and column of b alone, not on the product's size, the
//! place in it, or the instruction set.

// Loops over registers are plain: closures would be compiled without the features of the function around them.
#![allow(clippy::needless_range_loop)]

use super::super::slot::Acc;
use crate::simd::{self, LANES, lanes};
use std::mem::MaybeUninit;

/// Steps of k between roundings into c.
const DEPTH: usize = 256;
/// Rows and columns of c that one kernel call keeps in registers.
const ROWS: usize = 8;
const COLUMNS: usize = 2 * LANES;
/// From so many rows on a panel of b is copied together before it is used.
const WORTH_PACKING: usize = 32;

/// A matrix in a slice: element (i, j) at `i·row + j·col`.
#[derive(Clone, Copy)]
pub struct Mat<'a> {
    pub data: &'a [f32],
    pub row: usize,
    pub col: usize,
}

impl<'a> Mat<'a> {
    /// Row-major with rows `stride` apart.
    pub fn rows(data: &'a [f32], stride: usize) -> Self {
        Mat { data, row: stride, col: 1 }
    }

    /// The transpose of a row-major matrix with rows `stride` apart.
    pub fn cols(data: &'a [f32], stride: usize) -> Self {
        Mat { data, row: 1, col: stride }
    }

    fn reach(&self, m: usize, n: usize) -> usize {
        (m - 1) * self.row + (n - 1) * self.col + 1
    }
}

/// c = alpha·a·b or c += alpha·a·b: a [m, k], b [k, n], c [m, n] row-major with rows `c_stride` apart.
pub fn gemm(
    [m, n, k]: [usize; 3],
    c: &mut [f32],
    c_stride: usize,
    acc: Acc,
    alpha: f32,
    a: Mat,
    b: Mat,
) {
    assert!(m > 0 && n > 0 && k > 0, "gemm of {m}×{n}×{k}");
    assert!(a.reach(m, k) <= a.data.len() && b.reach(k, n) <= b.data.len());
    assert!(n <= c_stride && (m - 1) * c_stride + n <= c.len());
    let mut panel = [MaybeUninit::<f32>::uninit(); DEPTH * COLUMNS];
    for k0 in (0..k).step_by(DEPTH) {
        let depth = DEPTH.min(k - k0);
        let add = acc == Acc::Add || k0 > 0;
        for n0 in (0..n).step_by(COLUMNS) {
            let columns = COLUMNS.min(n - n0);
            let mut from = (b.data[k0 * b.row + n0 * b.col..].as_ptr(), b.row);
            if b.col != 1 || (m >= WORTH_PACKING && b.row > COLUMNS) {
                from = (pack(&mut panel, b, [k0, n0], [depth, columns]), columns);
            }
            for m0 in (0..m).step_by(ROWS) {
                let rows = ROWS.min(m - m0);
                let a_at = a.data[m0 * a.row + k0 * a.col..].as_ptr();
                let to = c[m0 * c_stride + n0..].as_mut_ptr();
                let tile = Tile {
                    depth,
                    columns,
                    a: a_at,
                    a_row: a.row,
                    a_col: a.col,
                    b: from.0,
                    b_row: from.1,
                    c: to,
                    c_row: c_stride,
                    add,
                    alpha,
                };
                // SAFETY: every element addressed lies in its slice by the checks above, or in `panel`, whose
                // first depth·columns words are written; c is exclusive.
                unsafe { tile.run(rows) };
            }
        }
    }
}

/// Rows k0.. and columns n0.. of b, one row after another.
fn pack(
    panel: &mut [MaybeUninit<f32>],
    b: Mat,
    [k0, n0]: [usize; 2],
    [depth, columns]: [usize; 2],
) -> *const f32 {
    let from = &b.data[k0 * b.row + n0 * b.col..];
    assert!(b.reach(depth, columns) <= from.len() && depth * columns <= panel.len());
    let (to, from): (*mut f32, _) = (panel.as_mut_ptr().cast(), from.as_ptr());
    // SAFETY: both ends lie in their slices by the check above.
    unsafe {
        if b.col == 1 && columns == COLUMNS {
            copy_rows(to, from, b.row, depth);
        } else if b.row == 1 {
            transpose_rows(to, from, b.col, columns, depth);
        } else {
            for kk in 0..depth {
                for j in 0..columns {
                    to.add(kk * columns + j).write(*from.add(kk * b.row + j * b.col));
                }
            }
        }
    }
    to
}

/// to [k, n] ← from [n, k].
pub fn transpose(to: &mut [f32], from: &[f32], n: usize, k: usize) {
    assert!(to.len() == n * k && from.len() == n * k);
    // SAFETY: both are as long as the check above says.
    unsafe { transpose_rows(to.as_mut_ptr(), from.as_ptr(), k, n, k) }
}

/// Up to [`ROWS`]×[`COLUMNS`] elements of c.
#[derive(Clone, Copy)]
struct Tile {
    depth: usize,
    columns: usize,
    a: *const f32,
    a_row: usize,
    a_col: usize,
    b: *const f32,
    b_row: usize,
    c: *mut f32,
    c_row: usize,
    add: bool,
    alpha: f32,
}

impl Tile {
    /// # Safety
    /// The strides lead to memory of the matrices; c is exclusive.
    unsafe fn run(&self, rows: usize) {
        if simd::level() == 4 {
            // SAFETY: the caller's promise.
            return unsafe { self.rows(rows) };
        }
        // Half of the registers, each half as wide: a quarter of the tile at a time.
        for first in (0..self.columns).step_by(LANES) {
            for row in (0..rows).step_by(ROWS / 2) {
                let part = Tile {
                    columns: LANES.min(self.columns - first),
                    a: self.a.wrapping_add(row * self.a_row),
                    b: self.b.wrapping_add(first),
                    c: self.c.wrapping_add(row * self.c_row + first),
                    ..*self
                };
                // SAFETY: the caller's promise; parts of c.
                unsafe { part.rows((ROWS / 2).min(rows - row)) };
            }
        }
    }

    unsafe fn rows(&self, rows: usize) {
        // SAFETY: the caller's promise.
        unsafe {
            match rows {
                1 => self.wide::<1>(),
                2 => self.wide::<2>(),
                3 => self.wide::<3>(),
                4 => self.wide::<4>(),
                5 => self.wide::<5>(),
                6 => self.wide::<6>(),
                7 => self.wide::<7>(),
                _ => self.wide::<ROWS>(),
            }
        }
    }

    unsafe fn wide<const M: usize>(&self) {
        // SAFETY: the caller's promise.
        unsafe {
            match self.columns {
                COLUMNS => tile::<M, 2, 0>(self),
                LANES => tile::<M, 1, 0>(self),
                17.. => tile::<M, 2, 1>(self),
                _ => tile::<M, 1, 1>(self),
            }
        }
    }
}

lanes! {
    /// to [k, n] ← from [n, k], whose rows are `stride` apart.
    unsafe fn transpose_rows<V>(to: *mut f32, from: *const f32, stride: usize, n: usize, k: usize) {
        for i0 in (0..n).step_by(LANES) {
            for j0 in (0..k).step_by(LANES) {
                // SAFETY: rows and columns lie in the matrices, the caller's promise.
                unsafe {
                    let (rows, columns) = (LANES.min(n - i0), LANES.min(k - j0));
                    let (from, to) = (from.add(i0 * stride + j0), to.add(j0 * n + i0));
                    let mut block = [V::splat(0.0); LANES];
                    if (rows, columns) == (LANES, LANES) {
                        for i in 0..LANES {
                            block[i] = V::load(from.add(i * stride));
                        }
                        V::transpose(&mut block);
                        for j in 0..LANES {
                            block[j].store(to.add(j * n));
                        }
                    } else {
                        for i in 0..rows {
                            block[i] = V::load_first(from.add(i * stride), columns);
                        }
                        V::transpose(&mut block);
                        for j in 0..columns {
                            block[j].store_first(to.add(j * n), rows);
                        }
                    }
                }
            }
        }
    }

    /// `depth` rows of [`COLUMNS`] words, `stride` apart, one after another.
    unsafe fn copy_rows<V>(to: *mut f32, from: *const f32, stride: usize, depth: usize) {
        for k in 0..depth {
            for j in 0..COLUMNS / LANES {
                // SAFETY: the caller's promise.
                unsafe {
                    V::load(from.add(k * stride + j * LANES)).store(to.add(k * COLUMNS + j * LANES));
                }
            }
        }
    }

    /// c (=|+=) alpha·a·b of M rows and N vectors; if `PART` is 1, the last vector has fewer columns than lanes.
    unsafe fn tile<V, const M: usize, const N: usize, const PART: usize>(t: &Tile) {
        let last = t.columns - (N - 1) * LANES;
        // SAFETY: rows, columns and depth lie in the matrices, the caller's promise.
        unsafe {
            let mut sums = [[V::splat(0.0); N]; M];
            let (mut a, mut b) = (t.a, t.b);
            for _ in 0..t.depth {
                let mut row = [V::splat(0.0); N];
                for j in 0..N {
                    row[j] = match PART == 1 && j == N - 1 {
                        true => V::load_first(b.add(j * LANES), last),
                        false => V::load(b.add(j * LANES)),
                    };
                }
                for i in 0..M {
                    let v = V::splat(*a.add(i * t.a_row));
                    for j in 0..N {
                        sums[i][j] = v.mul_add(row[j], sums[i][j]);
                    }
                }
                a = a.wrapping_add(t.a_col);
                b = b.wrapping_add(t.b_row);
            }
            let alpha = V::splat(t.alpha);
            for i in 0..M {
                for j in 0..N {
                    let to = t.c.add(i * t.c_row + j * LANES);
                    let part = PART == 1 && j == N - 1;
                    let v = match (t.add, part) {
                        (true, true) => alpha.mul_add(sums[i][j], V::load_first(to, last)),
                        (true, false) => alpha.mul_add(sums[i][j], V::load(to)),
                        (false, _) => alpha.mul(sums[i][j]),
                    };
                    match part {
                        true => v.store_first(to, last),
                        false => v.store(to),
                    }
                }
            }
        }
    }
}
