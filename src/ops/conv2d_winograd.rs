//! The 3×3 convolution, its input and its weight gradient by Winograd's F(4×4, 3×3): transforms and 36 products.

use super::Shape;
use super::conv2d::tile_part;
use super::conv2d_bwd::{WAVE, sum_groups};
use crate::device::cpu::gemm::{Mat, gemm};
use crate::device::cpu::patches::{Tile, Tiles};
use crate::device::cpu::winograd::{self, PANEL, PLANES, Place, Planes, Product, Square, TILE};
use crate::device::cpu::winograd::{plane_stride, suits};
use crate::device::{Acc, Bound, Sink, Slot};
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
    pub(super) fn new(x: Shape, o: usize) -> Option<Self> {
        let [n, h, w, c] = x;
        suits(c, o).then(|| Winograd { h, w, c, o, tiles: Tiles::of_squares([n, h, w]) })
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

    pub(super) fn scratch_words(&self) -> usize {
        let rows = self.tiles.squares();
        PLANES * (plane_stride(rows, self.c) + plane_stride(rows, PANEL))
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

    /// A tile of dst (=|+=) factor · conv(src).
    ///
    /// - `u`: prepared weights. `work`: [`Winograd::scratch_words`].
    pub(super) fn run_tile(
        &self,
        b: &Bound,
        work: &mut [f32],
        src: Slot,
        u: &[f32],
        dst: Sink,
        factor: f32,
        tile: Tile,
    ) {
        let (h, w, c, o) = (self.h, self.w, self.c, self.o);
        let (down, across) = (tile.rows.div_ceil(TILE), w.div_ceil(TILE));
        let squares = tile.present * down * across;
        let (vs, ms) = (plane_stride(squares, c), plane_stride(squares, PANEL));
        let (v, m) = work.split_at_mut(PLANES * vs);
        let image = |i: usize| b.get(src.part((tile.image + i) * h * w * c, h * w * c));
        let place = |square: usize| {
            let (i, at) = (square / (down * across), square % (down * across));
            (i, at / across, at % across)
        };
        let mut planes = Planes { words: v, stride: vs, place: Place::Rows { columns: c } };
        for at in 0..squares {
            let (i, row, column) = place(at);
            let square = Square { h, w, channels: c, row: tile.row / TILE + row, column };
            winograd::input(&mut planes, at, image(i), square);
        }
        let out = b.get_mut(tile_part(dst.slot, tile, [h, w, o]));
        let words = tile.rows * w * o;
        for first in (0..o).step_by(PANEL) {
            let block = PANEL.min(o - first);
            for p in 0..PLANES {
                let a = Mat::rows(&v[p * vs..][..squares * c], c);
                let u = &u[p * self.weight_stride() + first * c..][..c * block];
                let product = &mut m[p * ms..][..squares * block];
                let u = Mat::rows(u, block);
                gemm([squares, block, c], product, block, Acc::Set, 1.0, a, u);
            }
            let product = Product { words: m, stride: ms, block };
            for at in 0..squares {
                let (i, row, column) = place(at);
                let square = Square { h: tile.rows, w, channels: o, row, column };
                let image = &mut out[i * words..][..words];
                winograd::output(image, dst.acc == Acc::Add, factor, product, at, square, first);
            }
        }
    }
}

/// The weight gradient. Sums over images are rounded in groups of 8; a group's sum is transformed back to the nine
/// taps. Small groups are one job each; of large ones, first the transforms are spread over the threads, then the
/// products.
#[derive(Debug, Clone, Copy)]
pub(super) struct WinogradWgrad {
    n: usize,
    h: usize,
    w: usize,
    c: usize,
    o: usize,
}

impl WinogradWgrad {
    /// The unit in which sums over images are rounded.
    const IMAGES: usize = 8;
    /// Squares that one product of a large group sums over.
    const SQUARES: usize = 128;
    /// Output channels per product.
    const BLOCK: usize = 64;
    /// Words of a small group's job: what the second-level cache holds.
    const SMALL: usize = 224 * 1024;

    /// `None` where the shape does not suit it.
    pub(super) fn new(x: Shape, o: usize) -> Option<Self> {
        let [n, h, w, c] = x;
        suits(c, o).then_some(WinogradWgrad { n, h, w, c, o })
    }

    fn per_image(&self) -> usize {
        self.h.div_ceil(TILE) * self.w.div_ceil(TILE)
    }

    fn groups(&self) -> usize {
        self.n.div_ceil(Self::IMAGES)
    }

    /// Images of a chunk of a large group.
    fn images(&self) -> usize {
        (Self::SQUARES / self.per_image()).clamp(1, Self::IMAGES)
    }

    /// Words between planes of V, Z and dU: of a small group's job, which takes a panel of output channels at a
    /// time, or of a large group's chunk.
    fn strides(&self, small: bool) -> [usize; 3] {
        let images = if small { Self::IMAGES } else { self.images() };
        let o = if small { PANEL.min(self.o) } else { self.o };
        let squares = images * self.per_image();
        [plane_stride(squares, self.c), plane_stride(squares, o), plane_stride(o, self.c)]
    }

    fn planes_words(&self, small: bool) -> usize {
        PLANES * self.strides(small).iter().sum::<usize>()
    }

    fn is_small(&self) -> bool {
        self.planes_words(true) <= Self::SMALL
    }

    pub(super) fn temp_words(&self) -> usize {
        match self.is_small() {
            true => WAVE.min(self.groups()) * 9 * self.c * self.o,
            false => self.planes_words(false),
        }
    }

    pub(super) fn scratch_words(&self) -> usize {
        if self.is_small() { self.planes_words(true) } else { 0 }
    }

    /// dw [o, 3, 3, c] (=|+=) factor · Σ over images and pixels.
    pub(super) fn run(&self, b: &Bound, factor: f32, dw: Sink, dy: Slot, x: Slot, temp: Slot) {
        if !self.is_small() {
            return self.run_large(b, factor, dw, dy, x, temp);
        }
        let work = PLANES * Self::IMAGES * self.per_image() * self.c * self.o;
        let (groups, words) = (self.groups(), 9 * self.c * self.o);
        sum_groups(b, groups, work, dw, temp, words, |to, group| {
            self.run_group(b, factor, to, dy, x, group);
        });
    }

    /// A small group's sum [o, 3, 3, c], of images in the cache.
    fn run_group(&self, b: &Bound, factor: f32, to: &mut [f32], dy: Slot, x: Slot, group: usize) {
        let (c, o, per_image) = (self.c, self.o, self.per_image());
        let [vs, zs, us] = self.strides(true);
        let first = group * Self::IMAGES;
        let squares = Self::IMAGES.min(self.n - first) * per_image;
        let (v, rest) = b.scratch().split_at_mut(PLANES * vs);
        let (z, u) = rest.split_at_mut(PLANES * zs);
        let place = Place::Panels { rows: squares, columns: c };
        let mut planes = Planes { words: v, stride: vs, place };
        for at in 0..squares {
            let (image, square) = self.square(b, x, c, first, at);
            winograd::input(&mut planes, at, image, square);
        }
        for (o0, to) in (0..o).step_by(PANEL).zip(to.chunks_mut(PANEL * 9 * c)) {
            let block = PANEL.min(o - o0);
            let place = Place::Rows { columns: block };
            let mut planes = Planes { words: z, stride: zs, place };
            for at in 0..squares {
                let (image, square) = self.square(b, dy, o, first, at);
                winograd::gradient(&mut planes, at, image, square, [o0, o0 + block]);
            }
            for p in 0..PLANES {
                let z = Mat::cols(&z[p * zs..][..squares * block], block);
                let (v, u) = (&v[p * vs..][..squares * c], &mut u[p * us..][..block * c]);
                self.product(u, Acc::Set, z, block, v, squares);
            }
            let product = Product { words: u, stride: us, block: c };
            for (k, to) in to.chunks_exact_mut(9 * c).enumerate() {
                winograd::weight_gradient(to, false, factor, product, k);
            }
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
    ) -> (&'a [f32], Square) {
        let (h, w, across) = (self.h, self.w, self.w.div_ceil(TILE));
        let (i, at) = (at / self.per_image(), at % self.per_image());
        let words = h * w * channels;
        let image = b.get(s.part((first + i) * words, words));
        (image, Square { h, w, channels, row: at / across, column: at % across })
    }

    /// u [m, c] (=|+=) z · v: z [m, squares], v panels of [squares, c].
    fn product(&self, u: &mut [f32], acc: Acc, z: Mat, m: usize, v: &[f32], squares: usize) {
        let c = self.c;
        for c0 in (0..c).step_by(PANEL) {
            let width = PANEL.min(c - c0);
            let v = Mat::rows(&v[c0 * squares..][..squares * width], width);
            gemm([m, width, squares], &mut u[c0..], c, acc, 1.0, z, v);
        }
    }

    fn run_large(&self, b: &Bound, factor: f32, dw: Sink, dy: Slot, x: Slot, temp: Slot) {
        let (c, o, per_image) = (self.c, self.o, self.per_image());
        let strides @ [vs, zs, us] = self.strides(false);
        let v = temp.part(0, PLANES * vs);
        let z = temp.part(PLANES * vs, PLANES * zs);
        let u = temp.part(PLANES * (vs + zs), PLANES * us);
        let mut sink = dw;
        for group in (0..self.n).step_by(Self::IMAGES) {
            let end = (group + Self::IMAGES).min(self.n);
            for first in (group..end).step_by(self.images()) {
                let images = self.images().min(end - first);
                let squares = images * per_image;
                self.transform(b, [v, z], strides, [x, dy], first, squares);
                let acc = if first == group { Acc::Set } else { Acc::Add };
                let blocks = o.div_ceil(Self::BLOCK);
                b.each(PLANES * blocks, PLANES * squares * c * o, |job| {
                    let (p, o0) = (job / blocks, job % blocks * Self::BLOCK);
                    let m = Self::BLOCK.min(o - o0);
                    let z = b.get(z.part(p * zs + o0, (squares - 1) * o + m));
                    let v = b.get(v.part(p * vs, squares * c));
                    let to = b.get_mut(u.part(p * us + o0 * c, m * c));
                    self.product(to, acc, Mat::cols(z, o), m, v, squares);
                });
            }
            b.each(o, PLANES * o * c, |k| {
                let to = b.get_mut(sink.slot.part(k * 9 * c, 9 * c));
                let product = Product { words: b.get(u), stride: us, block: c };
                winograd::weight_gradient(to, sink.acc == Acc::Add, factor, product, k);
            });
            sink.acc = Acc::Add;
        }
    }

    /// Both transforms of `squares` squares of the images from `first` on.
    fn transform(
        &self,
        b: &Bound,
        [v, z]: [Slot; 2],
        [vs, zs, _]: [usize; 3],
        [x, dy]: [Slot; 2],
        first: usize,
        squares: usize,
    ) {
        const JOB: usize = 8;
        let (c, o) = (self.c, self.o);
        b.each(squares.div_ceil(JOB), 64 * squares * (c + o), |job| {
            let (rows, columns) = (squares, c);
            let place = Place::Panels { rows, columns };
            let mut v = Planes { words: b.get_mut(v), stride: vs, place };
            let place = Place::Rows { columns: o };
            let mut z = Planes { words: b.get_mut(z), stride: zs, place };
            for at in job * JOB..squares.min((job + 1) * JOB) {
                let (image, square) = self.square(b, x, c, first, at);
                winograd::input(&mut v, at, image, square);
                let (image, square) = self.square(b, dy, o, first, at);
                winograd::gradient(&mut z, at, image, square, [0, o]);
            }
        });
    }
}
