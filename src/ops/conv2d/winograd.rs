//! The 3×3 convolution, its input and its weight gradient by Winograd's F(4×4, 3×3): transforms and 36 products.

use super::shape::Conv2d;
use crate::device::cpu::gemm::{Mat, gemm};
use crate::device::cpu::patches::{Tile, Tiles};
use crate::device::cpu::winograd::plane_stride;
use crate::device::cpu::winograd::{
    self, Finish, PANEL, PLANES, Planes, Square, TILE, TilePixels, TilePlace, TileProduct,
};
use crate::device::params::ROUNDED_IMAGES;
use crate::device::{Acc, Bound, Dtype, Sink, Slot};
use crate::ops::Shape;
use crate::ops::scratch::Layout;
use crate::ops::sums::Groups;
use crate::simd::LANES;

/// The convolution [N, H, W, c] → [N, H, W, o], stride 1, padding 1.
#[derive(Debug, Clone, Copy)]
pub(super) struct Winograd {
    h: usize,
    w: usize,
    c: usize,
    o: usize,
    pub(super) tiles: Tiles,
}

impl Winograd {
    /// `None` where the shape does not suit it.
    pub(super) fn new(op: &Conv2d, x: Shape) -> Option<Self> {
        let ([n, h, w, c], o) = (x, op.out_channels);
        let tiles = Tiles::of_squares([n, h, w]);
        op.suits_winograd(x).then_some(Winograd { h, w, c, o, tiles })
    }

    /// The same from o to c channels: the gradient of the input.
    pub(super) fn reversed(self) -> Self {
        Winograd { c: self.o, o: self.c, ..self }
    }

    fn weight_stride(&self) -> usize {
        plane_stride(self.c, self.o)
    }

    /// Words of the transformed weights.
    pub(super) fn weight_words(&self) -> usize {
        PLANES * self.weight_stride()
    }

    /// A tile's planes of the input and of the product.
    pub(super) fn planes(&self) -> Layout<2> {
        Layout([self.c, self.o].map(|c| PLANES * plane_stride(self.tiles.squares(), c)))
    }

    /// Transforms weights [o, 3, 3, c].
    pub(super) fn prepare(&self, to: &mut [f32], w: &[f32]) {
        for o0 in (0..self.o).step_by(LANES) {
            winograd::weights(to, self.weight_stride(), w, o0, [self.o, self.c]);
        }
    }

    /// Transforms weights [c, 3, 3, o] of the convolution that this is the input's gradient of.
    pub(super) fn prepare_flipped(&self, to: &mut [f32], w: &[f32]) {
        for k in 0..self.c {
            winograd::flipped_weights(to, self.weight_stride(), w, k, [self.c, self.o]);
        }
    }

    /// The convolution's values v of a tile's pixels: `to` (=|+=) factor · (v + bias + residual).
    ///
    /// - `u`: prepared weights. `work`: for [`Winograd::planes`]. `bias`: of each of the tile's images.
    pub(super) fn run_tile(
        &self,
        b: &Bound,
        work: &mut [f32],
        src: Slot,
        u: &[f32],
        tile: Tile,
        to: &mut [f32],
        finish: Finish,
    ) {
        let (h, w, c, o) = (self.h, self.w, self.c, self.o);
        let (down, across) = (tile.rows.div_ceil(TILE), w.div_ceil(TILE));
        let squares = tile.present * down * across;
        let (vs, ms) = (plane_stride(squares, c), plane_stride(squares, o));
        let ([v, m], _) = self.planes().cut(work);
        let image = |i: usize| pixels(b, src, (tile.image + i) * h * w * c, h * w * c);
        let place = |square: usize| {
            let (i, at) = (square / (down * across), square % (down * across));
            (i, at / across, at % across)
        };
        let mut planes = Planes { words: v, stride: vs, place: TilePlace::Rows { columns: c } };
        for at in 0..squares {
            let (i, row, column) = place(at);
            let square = Square { h, w, channels: c, row: tile.row / TILE + row, column };
            winograd::input(&mut planes, at, image(i), square, [0, c]);
        }
        let words = tile.rows * w * o;
        for p in 0..PLANES {
            let a = Mat::rows(&v[p * vs..][..squares * c], c);
            for first in (0..o).step_by(PANEL) {
                let block = PANEL.min(o - first);
                let u = &u[p * self.weight_stride() + first * c..][..c * block];
                let (product, u) = (&mut m[p * ms + first..], Mat::rows(u, block));
                gemm([squares, block, c], product, o, Acc::Set, 1.0, a, u);
            }
        }
        let product = TileProduct { words: m, stride: ms, block: o };
        for at in 0..squares {
            let (i, row, column) = place(at);
            let square = Square { h: tile.rows, w, channels: o, row, column };
            let finish = Finish {
                bias: finish.bias.map(|b| &b[i * o..][..o]),
                residual: finish.residual.map(|r| &r[i * words..][..words]),
                ..finish
            };
            winograd::output(&mut to[i * words..][..words], product, at, square, finish);
        }
    }
}

/// Elements `at..at + len` of a slot, as they are stored.
fn pixels(b: &Bound, s: Slot, at: usize, len: usize) -> TilePixels<'_> {
    match s.dtype {
        Dtype::F32 => TilePixels::Words(b.get(s.part(at, len))),
        Dtype::Bf16 => TilePixels::Halves(b.get_half(s, at, len)),
    }
}

/// The weight gradient. Sums over images are rounded in groups of 8; a job is a block of input and of output channels
/// of one group, and transforms both for itself: that costs less than handing them from thread to thread.
#[derive(Debug, Clone, Copy)]
pub(super) struct WinogradWgrad {
    n: usize,
    h: usize,
    w: usize,
    c: usize,
    o: usize,
}

impl WinogradWgrad {
    /// Squares that one product sums over. Measured, as the next two.
    const SQUARES: usize = 64;
    /// Input channels of a job.
    const C_BLOCK: usize = 64;
    /// Its output channels.
    const O_BLOCK: usize = 128;

    /// `None` where the shape does not suit it.
    pub(super) fn new(op: &Conv2d, x: Shape) -> Option<Self> {
        let ([n, h, w, c], o) = (x, op.out_channels);
        op.suits_winograd(x).then_some(WinogradWgrad { n, h, w, c, o })
    }

    fn per_image(&self) -> usize {
        self.h.div_ceil(TILE) * self.w.div_ceil(TILE)
    }

    fn groups(&self) -> Groups {
        Groups { count: self.n.div_ceil(ROUNDED_IMAGES), words: 9 * self.c * self.o }
    }

    /// Squares of a chunk of a group.
    fn squares(&self) -> usize {
        Self::SQUARES.min(ROUNDED_IMAGES * self.per_image())
    }

    /// Words between planes of a chunk's V, of a panel of its Z, and of the group's dU.
    fn strides(&self) -> [usize; 3] {
        let (squares, c, o) =
            (self.squares(), Self::C_BLOCK.min(self.c), Self::O_BLOCK.min(self.o));
        [plane_stride(squares, c), plane_stride(squares, PANEL.min(o)), plane_stride(o, c)]
    }

    pub(super) fn temp_words(&self) -> usize {
        self.groups().temp_words()
    }

    pub(super) fn scratch(&self) -> Layout<3> {
        Layout(self.strides().map(|stride| PLANES * stride))
    }

    /// dw [o, 3, 3, c] (=|+=) factor · Σ over images and pixels; `of`: dy and x.
    pub(super) fn run(&self, b: &Bound, factor: f32, dw: Sink, of: [Slot; 2], temp: Slot) {
        let blocks = [self.c.div_ceil(Self::C_BLOCK), self.o.div_ceil(Self::O_BLOCK)];
        let work = PLANES * ROUNDED_IMAGES * self.per_image() * self.c * self.o;
        self.groups().sum(b, blocks[0] * blocks[1], work, dw, temp, |to, group, job| {
            let [c0, o0] = [job % blocks[0] * Self::C_BLOCK, job / blocks[0] * Self::O_BLOCK];
            self.sum_block(b, factor, to, of, group, [c0, o0]);
        });
    }

    /// One group's sum of the blocks of channels that begin at `c0` and `o0`.
    fn sum_block(
        &self,
        b: &Bound,
        factor: f32,
        to: Sink,
        [dy, x]: [Slot; 2],
        group: usize,
        [c0, o0]: [usize; 2],
    ) {
        let (c, o) = (Self::C_BLOCK.min(self.c - c0), Self::O_BLOCK.min(self.o - o0));
        let [vs, zs, us] = self.strides();
        let first = group * ROUNDED_IMAGES;
        let all = ROUNDED_IMAGES.min(self.n - first) * self.per_image();
        let ([v, z, u], _) = self.scratch().cut(b.scratch());
        for start in (0..all).step_by(self.squares()) {
            let squares = self.squares().min(all - start);
            let place = TilePlace::Panels { rows: squares, columns: c };
            let mut planes = Planes { words: v, stride: vs, place };
            for at in 0..squares {
                let (image, square) = self.square(b, x, self.c, first, start + at);
                winograd::input(&mut planes, at, image, square, [c0, c0 + c]);
            }
            for p0 in (0..o).step_by(PANEL) {
                let width = PANEL.min(o - p0);
                let place = TilePlace::Rows { columns: width };
                let mut planes = Planes { words: z, stride: zs, place };
                let channels = [o0 + p0, o0 + p0 + width];
                for at in 0..squares {
                    let (image, square) = self.square(b, dy, self.o, first, start + at);
                    winograd::gradient(&mut planes, at, image, square, channels);
                }
                let acc = if start == 0 { Acc::Set } else { Acc::Add };
                for p in 0..PLANES {
                    let z = Mat::cols(&z[p * zs..][..squares * width], width);
                    let (v, u) = (&v[p * vs..][..squares * c], &mut u[p * us + p0 * c..]);
                    for q0 in (0..c).step_by(PANEL) {
                        let columns = PANEL.min(c - q0);
                        let v = Mat::rows(&v[q0 * squares..][..squares * columns], columns);
                        gemm([width, columns, squares], &mut u[q0..], c, acc, 1.0, z, v);
                    }
                }
            }
        }
        let product = TileProduct { words: u, stride: us, block: c };
        for k in 0..o {
            let row = to.slot.part((o0 + k) * 9 * self.c + c0, 8 * self.c + c);
            let (row, adds) = (b.get_mut(row), to.acc == Acc::Add);
            winograd::weight_gradient(row, self.c, adds, factor, product, k);
        }
    }

    /// Square `at` of the images from `first` on, of `channels`.
    fn square<'a>(
        &self,
        b: &'a Bound,
        s: Slot,
        channels: usize,
        first: usize,
        at: usize,
    ) -> (TilePixels<'a>, Square) {
        let (h, w, across) = (self.h, self.w, self.w.div_ceil(TILE));
        let (i, at) = (at / self.per_image(), at % self.per_image());
        let words = h * w * channels;
        let image = pixels(b, s, (first + i) * words, words);
        (image, Square { h, w, channels, row: at / across, column: at % across })
    }
}
