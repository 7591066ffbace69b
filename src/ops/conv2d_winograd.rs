//! The 3×3 convolution, its input and its weight gradient by Winograd's F(4×4, 3×3): transforms and 36 products.

use super::Shape;
use super::conv2d::tile_part;
use crate::device::cpu::gemm::{Mat, gemm};
use crate::device::cpu::patches::{Tile, Tiles};
use crate::device::cpu::winograd::{self, LANES, PLANES, TILE, plane_stride, suits};
use crate::device::{Acc, Bound, Sink, Slot};

/// Output channels per product.
const BLOCK: usize = 64;

/// The convolution [N, H, W, c] → [N, H, W, o], stride 1, padding 1.
#[derive(Debug, Clone, Copy)]
pub(super) struct Winograd {
    n: usize,
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
        suits([h, w], c, o).then(|| Winograd { n, h, w, c, o, tiles: Tiles::of_squares([n, h, w]) })
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

    fn squares(&self, tile: Tile) -> usize {
        tile.images * tile.rows / TILE * (self.w / TILE)
    }

    pub(super) fn scratch_words(&self) -> usize {
        let rows = self.tiles.pixels() / (TILE * TILE);
        PLANES * (plane_stride(rows, self.c) + plane_stride(rows, self.o.min(BLOCK)))
    }

    /// Transforms weights [o, 3, 3, c].
    pub(super) fn prepare(&self, b: &Bound, to: Slot, weight: Slot) {
        let w = b.get(weight);
        b.each(self.o / LANES, w.len() * 4, |job| {
            let sizes = [self.o, self.c];
            winograd::weights(b.get_mut(to), self.weight_stride(), w, job * LANES, sizes);
        });
    }

    /// Transforms weights [c, 3, 3, o] of the convolution that this is the input's gradient of.
    pub(super) fn prepare_flipped(&self, b: &Bound, to: Slot, weight: Slot) {
        let w = b.get(weight);
        b.each(self.c, w.len() * 4, |k| {
            winograd::flipped_weights(b.get_mut(to), self.weight_stride(), w, k, self.o);
        });
    }

    /// dst (=|+=) factor · conv(src), then `finish` for each tile.
    pub(super) fn run(
        &self,
        b: &Bound,
        src: Slot,
        weights: Slot,
        dst: Sink,
        factor: f32,
        finish: impl Fn(Tile) + Send + Sync,
    ) {
        let work = self.n * self.h * self.w * self.c * self.o;
        b.each(self.tiles.count(), work, |t| {
            let tile = self.tiles.get(t);
            self.run_tile(b, src, b.get(weights), dst, factor, tile);
            finish(tile);
        });
    }

    fn run_tile(&self, b: &Bound, src: Slot, u: &[f32], dst: Sink, factor: f32, tile: Tile) {
        let (c, o, squares) = (self.c, self.o, self.squares(tile));
        let (vs, ms) = (plane_stride(squares, c), plane_stride(squares, o.min(BLOCK)));
        let (v, m) = b.scratch().split_at_mut(PLANES * vs);
        let (down, across) = (tile.rows / TILE, self.w / TILE);
        let per_image = down * across;
        let words = self.h * self.w * c;
        for i in 0..tile.present {
            let image = b.get(src.part((tile.image + i) * words, words));
            for square in 0..per_image {
                let at = [tile.row / TILE + square / across, square % across];
                let row = i * per_image + square;
                winograd::input(v, vs, row, image, [self.h, self.w, c], at);
            }
        }
        for plane in v.chunks_exact_mut(vs).take(PLANES) {
            plane[tile.present * per_image * c..squares * c].fill(0.0);
        }
        let out = b.get_mut(tile_part(dst.slot, tile, [self.h, self.w, o]));
        let size = [tile.rows, self.w, o];
        let words = tile.rows * self.w * o;
        for first in (0..o).step_by(BLOCK) {
            let block = BLOCK.min(o - first);
            for p in 0..PLANES {
                let a = Mat::rows(&v[p * vs..][..squares * c], c);
                let u = &u[p * self.weight_stride() + first..][..(c - 1) * o + block];
                let product = &mut m[p * ms..][..squares * block];
                gemm([squares, block, c], product, block, Acc::Set, 1.0, a, Mat::rows(u, o));
            }
            for (i, image) in out.chunks_exact_mut(words).enumerate() {
                for square in 0..per_image {
                    let at = [square / across, square % across];
                    let (row, adds) = (i * per_image + square, dst.acc == Acc::Add);
                    winograd::output(image, adds, factor, m, ms, row, block, first, size, at);
                }
            }
        }
    }
}

/// The weight gradient: per chunk of images both transforms, then a product per plane and block of output
/// channels; after each [`WinogradWgrad::IMAGES`] images the sum goes back to the nine taps.
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
    /// Squares that one product sums over.
    const SQUARES: usize = 128;

    /// `None` where the shape does not suit it.
    pub(super) fn new(x: Shape, o: usize) -> Option<Self> {
        let [n, h, w, c] = x;
        suits([h, w], c, o).then_some(WinogradWgrad { n, h, w, c, o })
    }

    fn per_image(&self) -> usize {
        self.h * self.w / (TILE * TILE)
    }

    fn images(&self) -> usize {
        (Self::SQUARES / self.per_image()).clamp(1, Self::IMAGES)
    }

    fn strides(&self) -> [usize; 3] {
        let squares = self.images() * self.per_image();
        [plane_stride(squares, self.c), plane_stride(squares, self.o), plane_stride(self.o, self.c)]
    }

    pub(super) fn temp_words(&self) -> usize {
        PLANES * self.strides().iter().sum::<usize>()
    }

    /// dw [o, 3, 3, c] (=|+=) factor · Σ over images and pixels.
    pub(super) fn run(&self, b: &Bound, factor: f32, dw: Sink, dy: Slot, x: Slot, temp: Slot) {
        let (c, o, per_image) = (self.c, self.o, self.per_image());
        let strides @ [vs, zs, us] = self.strides();
        let v = temp.part(0, PLANES * vs);
        let z = temp.part(PLANES * vs, PLANES * zs);
        let u = temp.part(PLANES * (vs + zs), PLANES * us);
        let mut sink = dw;
        for group in (0..self.n).step_by(Self::IMAGES) {
            let end = (group + Self::IMAGES).min(self.n);
            for first in (group..end).step_by(self.images()) {
                let images = self.images().min(end - first);
                self.transform(b, [v, z], strides, [x, dy], first, images);
                let squares = images * per_image;
                let acc = if first == group { Acc::Set } else { Acc::Add };
                let blocks = o.div_ceil(BLOCK);
                b.each(PLANES * blocks, PLANES * squares * c * o, |job| {
                    let (p, o0) = (job / blocks, job % blocks * BLOCK);
                    let m = BLOCK.min(o - o0);
                    let z = b.get(z.part(p * zs + o0, (squares - 1) * o + m));
                    let v = b.get(v.part(p * vs, squares * c));
                    let to = b.get_mut(u.part(p * us + o0 * c, m * c));
                    gemm([m, c, squares], to, c, acc, 1.0, Mat::cols(z, o), Mat::rows(v, c));
                });
            }
            b.each(o, PLANES * o * c, |k| {
                let to = b.get_mut(sink.slot.part(k * 9 * c, 9 * c));
                winograd::weight_gradient(to, sink.acc == Acc::Add, factor, b.get(u), us, k);
            });
            sink.acc = Acc::Add;
        }
    }

    /// Both transforms of `images` images from `first` on.
    fn transform(
        &self,
        b: &Bound,
        [v, z]: [Slot; 2],
        [vs, zs, _]: [usize; 3],
        [x, dy]: [Slot; 2],
        first: usize,
        images: usize,
    ) {
        let (down, across) = (self.h / TILE, self.w / TILE);
        let pixels = self.h * self.w;
        b.each(images * down, 4 * images * pixels * (self.c + self.o), |job| {
            let (i, row) = (job / down, job % down);
            let image = |s: Slot, ch: usize| b.get(s.part((first + i) * pixels * ch, pixels * ch));
            for column in 0..across {
                let (at, square) = ((i * down + row) * across + column, [row, column]);
                let (size_x, size_y) = ([self.h, self.w, self.c], [self.h, self.w, self.o]);
                winograd::input(b.get_mut(v), vs, at, image(x, self.c), size_x, square);
                winograd::gradient(b.get_mut(z), zs, at, image(dy, self.o), size_y, square);
            }
        });
    }
}
