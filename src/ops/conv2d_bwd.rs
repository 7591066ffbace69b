//! The convolution's gradients of x and of the weight; everything else of its backward is in `conv2d`.

use super::conv2d::{Conv2d, tile_part, tile_product};
use super::{Shape, words};
use crate::device::cpu::gemm::{Mat, gemm};
use crate::device::cpu::patches::{Tiles, Window, dilate, patches, tap};
use crate::device::{Acc, Bound, Sink, Slot};

/// The gradient of x: a stride-1 convolution of dy (spread out, if the stride is 2) with the flipped weight.
pub(super) struct Dgrad {
    x: Shape,
    y: Shape,
    /// dy's size with zeros between its pixels.
    spread: [usize; 2],
    pub(super) tiles: Tiles,
    kernel: usize,
}

impl Dgrad {
    pub(super) fn new(op: &Conv2d, x: Shape, y: Shape) -> Self {
        let spread = [1, 2].map(|i| (y[i] - 1) * op.stride + 1);
        let depth = op.kernel * op.kernel * y[3];
        Dgrad { x, y, spread, tiles: Tiles::new([x[0], x[1], x[2]], depth), kernel: op.kernel }
    }

    pub(super) fn scratch_words(&self) -> usize {
        let depth = self.kernel * self.kernel * self.y[3];
        let spread = self.spread[0] * self.spread[1] * self.y[3];
        self.tiles.pixels() * (depth + self.x[3]) + spread
    }

    pub(super) fn run(
        &self,
        b: &Bound,
        op: &Conv2d,
        dx: Sink,
        dy: Slot,
        weight: Slot,
        flipped: Slot,
    ) {
        let (x, y, k) = (self.x, self.y, self.kernel);
        let (c, o, taps) = (x[3], y[3], k * k);
        let depth = taps * o;
        let w = b.get(weight);
        let rows = if k == 1 { w } else { b.get(flipped) };
        if k > 1 {
            // Row (tap, o) is the weight of the opposite tap: contiguous in the input channel already.
            b.each(taps, depth * c, |tap| {
                for (j, row) in
                    b.get_mut(flipped.part(tap * o * c, o * c)).chunks_exact_mut(c).enumerate()
                {
                    row.copy_from_slice(&w[(j * taps + taps - 1 - tap) * c..][..c]);
                }
            });
        }
        let [sh, sw] = self.spread;
        let win = Window { kernel: k, stride: 1, pad: (k - 1) as isize - op.pad as isize };
        let image_words = y[1] * y[2] * o;
        b.each(self.tiles.count(), words(x) * depth, |t| {
            let tile = self.tiles.get(t);
            let pixels = tile.images * tile.rows * x[2];
            let (cols, rest) = b.scratch().split_at_mut(pixels * depth);
            let (pad, spread) = rest.split_at_mut(pixels * c);
            let per = pixels / tile.images * depth;
            for i in 0..tile.present {
                let mut src = b.get(dy.part((tile.image + i) * image_words, image_words));
                if op.stride > 1 {
                    dilate(spread, src, [y[1], y[2], o], op.stride);
                    src = &spread[..sh * sw * o];
                }
                let part = &mut cols[i * per..][..per];
                patches(part, src, [sh, sw, o], win, (tile.row, tile.rows), x[2]);
            }
            cols[tile.present * per..].fill(0.0);
            let out = b.get_mut(tile_part(dx.slot, tile, [x[1], x[2], c]));
            if dx.acc == Acc::Set {
                out.fill(0.0);
            }
            let (a, w) = (Mat::rows(cols, depth), Mat::rows(rows, c));
            tile_product(out, pad, pixels * c, |d| {
                gemm([pixels, c, depth], d, c, dx.acc, op.scale, a, w)
            });
        });
    }
}

/// The gradient of a weight: per tap and block of output channels, a product over pixels, a fixed number of
/// them at a time, in order.
#[derive(Clone, Copy)]
pub(super) struct Wgrad {
    n: usize,
    h: usize,
    w: usize,
    channels: usize,
    out_channels: usize,
    /// Column of the weight's rows that this input's first tap begins at.
    first_column: usize,
}

impl Wgrad {
    /// Pixels that one product sums over.
    const PIXELS: usize = 512;
    /// Output channels per job.
    const BLOCK: usize = 64;
    /// Images per product at most: the unit in which sums over images are rounded.
    const IMAGES: usize = 8;

    pub(super) fn new([n, h, w]: [usize; 3], channels: usize, out_channels: usize) -> Self {
        Wgrad { n, h, w, channels, out_channels, first_column: 0 }
    }

    fn images(&self) -> usize {
        (Self::PIXELS / (self.h * self.w)).clamp(1, Self::IMAGES)
    }

    fn rows(&self) -> usize {
        (Self::PIXELS / self.w).clamp(1, self.h)
    }

    /// Narrow inputs take all taps in one product.
    fn all_taps(&self) -> bool {
        self.channels < 16
    }

    /// The same sums for the columns of one input of a shortcut.
    pub(super) fn columns(self, first_column: usize, channels: usize) -> Self {
        Wgrad { first_column, channels, ..self }
    }

    pub(super) fn scratch_words(&self) -> usize {
        let taps = if self.all_taps() { 9 } else { 1 };
        self.images() * self.rows() * self.w * self.channels * taps
    }

    /// `row_words`: length of a row of dw, all taps and channels.
    pub(super) fn run(
        &self,
        b: &Bound,
        scale: f32,
        dw: Sink,
        dy: Slot,
        x: Slot,
        x_shape: Shape,
        win: Window,
        row_words: usize,
    ) {
        let (c, o) = (self.channels, self.out_channels);
        let image = [x_shape[1], x_shape[2], x_shape[3]];
        let (x_words, y_words) = (image.iter().product::<usize>(), self.h * self.w * o);
        let taps = win.kernel * win.kernel;
        let (tap_jobs, columns) = if self.all_taps() { (1, taps * c) } else { (taps, c) };
        let blocks = o.div_ceil(Self::BLOCK);
        let rows_per = self.rows();
        b.each(tap_jobs * blocks, self.n * y_words * columns, |job| {
            let (t, o0) = (job / blocks, job % blocks * Self::BLOCK);
            let m = Self::BLOCK.min(o - o0);
            let first = self.first_column + t * c;
            // Rows o0.. of dw; other jobs own other columns of these rows.
            let out = dw.slot.part(o0 * row_words + first, (m - 1) * row_words + columns);
            let mut acc = dw.acc;
            for n0 in (0..self.n).step_by(self.images()) {
                let images = self.images().min(self.n - n0);
                for row in (0..self.h).step_by(rows_per) {
                    let rows = (row, rows_per.min(self.h - row));
                    let per = rows.1 * self.w;
                    let cols = &mut b.scratch()[..images * per * columns];
                    for (i, part) in cols.chunks_exact_mut(per * columns).enumerate() {
                        let src = b.get(x.part((n0 + i) * x_words, x_words));
                        if self.all_taps() {
                            patches(part, src, image, win, rows, self.w);
                        } else {
                            let at = (t / win.kernel, t % win.kernel);
                            tap(part, src, image, win, at, rows, self.w);
                        }
                    }
                    let k = images * per;
                    let from = (n0 * self.h + row) * self.w * o + o0;
                    let dy = b.get(dy.part(from, (k - 1) * o + m));
                    let (a, x) = (Mat::cols(dy, o), Mat::rows(cols, columns));
                    gemm([m, columns, k], b.get_mut(out), row_words, acc, scale, a, x);
                    acc = Acc::Add;
                }
            }
        });
    }
}
