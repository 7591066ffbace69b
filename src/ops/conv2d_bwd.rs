//! The convolution's gradients of x and of the weight; everything else of its backward is in `conv2d`.

use super::conv2d::{Conv2d, Pairs};
use super::conv2d_fwd::{rounded, rounded_words};
use super::sums::store;
use super::{Io, Shape, words};
use crate::device::cpu::gemm::{Mat, gemm};
use crate::device::cpu::patches::{Tiles, Window, dilate, patches};
use crate::device::params::ROUNDED_IMAGES;
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

    /// Words of the flipped weight, which each thread makes for itself.
    fn flipped_words(&self) -> usize {
        self.kernel * self.kernel * self.x[3] * self.y[3]
    }

    pub(super) fn scratch_words(&self, dy: Slot, x: Slot) -> usize {
        let depth = self.kernel * self.kernel * self.y[3];
        let spread = self.spread[0] * self.spread[1] * self.y[3];
        let wide =
            dy.wide(self.y[1] * self.y[2] * self.y[3]) + x.wide(self.tiles.pixels() * self.x[3]);
        self.flipped_words() + self.tiles.pixels() * depth + spread + wide
    }

    pub(super) fn run(&self, b: &Bound, op: &Conv2d, io: &Io, dx: Sink, dy: Slot) {
        let (x, y, k) = (self.x, self.y, self.kernel);
        let (c, o, taps) = (x[3], y[3], k * k);
        let depth = taps * o;
        let prepare = || {
            // Row (tap, o) is the weight of the opposite tap: contiguous in the input channel already.
            let (flipped, work) = b.scratch().split_at_mut(depth * c);
            let w = rounded(b, io, 0, work);
            for (row, to) in flipped.chunks_exact_mut(c).enumerate() {
                let (tap, j) = (row / o, row % o);
                to.copy_from_slice(&w[(j * taps + taps - 1 - tap) * c..][..c]);
            }
        };
        let [sh, sw] = self.spread;
        let win = Window { kernel: k, stride: 1, pad: (k - 1) as isize - op.pad as isize };
        let image_words = y[1] * y[2] * o;
        b.each_prepared(self.tiles.count(), words(x) * depth, prepare, |t| {
            let tile = self.tiles.get(t);
            let (at, len) = tile.span([x[1], x[2], c]);
            let pixels = len / c;
            let (flipped, rest) = b.scratch().split_at_mut(depth * c);
            let (cols, rest) = rest.split_at_mut(pixels * depth);
            let (spread, rest) = rest.split_at_mut(sh * sw * o);
            let (wide, wide_dx) = rest.split_at_mut(dy.wide(image_words));
            let per = cols.len() / tile.present;
            for (i, cols) in cols.chunks_exact_mut(per).enumerate() {
                let mut src = b.read(dy, (tile.image + i) * image_words, image_words, wide);
                if op.stride > 1 {
                    dilate(spread, src, [y[1], y[2], o], op.stride);
                    src = spread;
                }
                patches(cols, src, [sh, sw, o], win, (tile.row, tile.rows), x[2]);
            }
            let (a, w) = (Mat::rows(cols, depth), Mat::rows(flipped, c));
            b.write(dx, at, len, wide_dx, |to| {
                gemm([pixels, c, depth], to, c, dx.acc, op.scale, a, w);
            });
        });
    }
}

impl Dgrad {
    /// As [`Dgrad::run`] for images of at most 2×2.
    pub(super) fn run_pairs(&self, b: &Bound, op: &Conv2d, io: &Io, dx: Sink, dy: Slot) {
        let (x, Some(pairs)) = (self.x, op.pairs(self.x)) else { return };
        let (c, o, n, ready) = (x[3], self.y[3], pairs.pixels(), rounded_words(io));
        let prepare = || _ = rounded(b, io, 0, &mut b.scratch()[..ready]);
        b.each_prepared(self.tiles.count(), n * words(x) * o, prepare, |t| {
            let tile = self.tiles.get(t);
            let (w, work) = b.scratch().split_at_mut(ready);
            let w = if ready > 0 { &w[..io.params[0].len] } else { b.get(io.params[0]) };
            let ((at, len), (at_dy, len_dy)) =
                (tile.span([x[1], x[2], c]), tile.span([x[1], x[2], o]));
            let (wide, wide_dx) = work.split_at_mut(dy.wide(len_dy));
            let src = b.read(dy, at_dy, len_dy, wide);
            b.write(dx, at, len, wide_dx, |to| {
                for (q, p) in pairs.all() {
                    let acc = if p == 0 { dx.acc } else { Acc::Add };
                    let w = Mat::rows(&w[pairs.tap(p, q) * c..], 9 * c);
                    let a = Mat::rows(&src[p * o..], n * o);
                    gemm([tile.present, c, o], &mut to[q * c..], n * c, acc, op.scale, a, w);
                }
            });
        });
    }
}

/// The gradient of x of a 1×1 convolution: a product of the pixels as they lie.
pub(super) struct PointDgrad {
    n: usize,
    pixels: usize,
    c: usize,
    o: usize,
}

impl PointDgrad {
    /// Pixels of a job.
    const PIXELS: usize = 256;

    pub(super) fn new(x: Shape, o: usize) -> Self {
        PointDgrad { n: x[0], pixels: x[1] * x[2], c: x[3], o }
    }

    /// Pixels of a job: whole images, or a part of one.
    fn job(&self) -> usize {
        match self.pixels {
            pixels if pixels > Self::PIXELS => Self::PIXELS,
            pixels => (Self::PIXELS / pixels).min(self.n.div_ceil(4)) * pixels,
        }
    }

    pub(super) fn scratch_words(&self, dy: Slot, dx: Slot) -> usize {
        dy.wide(self.job() * self.o) + dx.wide(self.job() * self.c)
    }

    /// dx (=|+=) scale · dy · w, w being columns from `first` on of parameter `i`.
    pub(super) fn run(
        &self,
        b: &Bound,
        io: &Io,
        dx: Sink,
        dy: Slot,
        i: usize,
        first: usize,
        scale: f32,
    ) {
        let (c, o, all) = (self.c, self.o, self.n * self.pixels);
        let (total, ready) = (io.params[i].len / o, rounded_words(io));
        let prepare = || _ = rounded(b, io, i, &mut b.scratch()[..ready]);
        b.each_prepared(all.div_ceil(self.job()), all * c * o, prepare, |job| {
            let at = job * self.job();
            let m = self.job().min(all - at);
            let (w, work) = b.scratch().split_at_mut(ready);
            let w = if ready > 0 { &w[..io.params[i].len] } else { b.get(io.params[i]) };
            let (wide, wide_dx) = work.split_at_mut(dy.wide(m * o));
            let dy = Mat::rows(b.read(dy, at * o, m * o, wide), o);
            b.write(dx, at * c, m * c, wide_dx, |to| {
                gemm([m, c, o], to, c, dx.acc, scale, dy, Mat::rows(&w[first..], total));
            });
        });
    }
}

/// Sums over groups of images that are kept apart and added in order.
#[derive(Debug, Clone, Copy)]
pub(super) struct Groups {
    pub count: usize,
    /// Words of a group's sum.
    pub words: usize,
}

impl Groups {
    /// Sums kept at a time; where it is one, none is kept apart.
    fn wave(&self) -> usize {
        const WORDS: usize = 1024 * 1024;
        (WORDS / self.words).clamp(1, 16).min(self.count)
    }

    pub(super) fn temp_words(&self) -> usize {
        if self.wave() == 1 { 0 } else { self.wave() * self.words }
    }

    /// dst (=|+=) the groups' sums, in order: `sum(to, group, job)` writes or adds what one of a group's jobs is for.
    ///
    /// - `work`: of a group.
    pub(super) fn sum(
        &self,
        b: &Bound,
        jobs: usize,
        work: usize,
        dst: Sink,
        temp: Slot,
        sum: impl Fn(Sink, usize, usize) + Sync,
    ) {
        const CHUNK: usize = 4096;
        let mut acc = dst.acc;
        for first in (0..self.count).step_by(self.wave()) {
            let wave = self.wave().min(self.count - first);
            b.each(wave * jobs, wave * work, |i| {
                let (group, job) = (i / jobs, i % jobs);
                let to = match self.wave() {
                    1 => Sink { slot: dst.slot, acc },
                    _ => Sink { slot: temp.part(group * self.words, self.words), acc: Acc::Set },
                };
                sum(to, first + group, job);
            });
            if self.wave() > 1 {
                b.each(self.words.div_ceil(CHUNK), wave * self.words, |job| {
                    let at = job * CHUNK;
                    let len = CHUNK.min(self.words - at);
                    let to = b.get_mut(dst.slot.part(at, len));
                    for i in 0..wave {
                        let acc = if i == 0 { acc } else { Acc::Add };
                        store(to, acc, b.get(temp.part(i * self.words + at, len)));
                    }
                });
            }
            acc = Acc::Add;
        }
    }
}

/// The gradient of a weight: a product over the pixels of each group of images, then the groups' sums in order.
#[derive(Clone, Copy)]
pub(super) struct Wgrad {
    x: Shape,
    y: Shape,
    pairs: Option<Pairs>,
    window: Window,
    /// Where a row of the result lies in a row of dw, and that row's length.
    first_column: usize,
    row_words: usize,
}

impl Wgrad {
    /// Words of patches at a time.
    const PATCHES: usize = 64 * 1024;

    pub(super) fn new(op: &Conv2d, x: Shape, y: Shape) -> Self {
        let (window, pairs) = (op.window(), op.pairs(x));
        Wgrad { x, y, pairs, window, first_column: 0, row_words: op.depth(x) }
    }

    /// Of a 1×1 convolution.
    pub(super) fn point(x: Shape, y: Shape) -> Self {
        let window = Window { kernel: 1, stride: 1, pad: 0 };
        Wgrad { x, y, pairs: None, window, first_column: 0, row_words: x[3] }
    }

    /// The same for the columns of one input of a shortcut.
    pub(super) fn columns(self, first_column: usize, row_words: usize) -> Self {
        Wgrad { first_column, row_words, ..self }
    }

    fn depth(&self) -> usize {
        self.window.kernel * self.window.kernel * self.x[3]
    }

    fn groups(&self) -> usize {
        self.y[0].div_ceil(ROUNDED_IMAGES)
    }

    /// Groups whose sums are kept at a time.
    fn wave(&self) -> usize {
        const WORDS: usize = 1024 * 1024;
        (WORDS / (self.y[3] * self.depth())).clamp(1, 16).min(self.groups())
    }

    /// Rows of an image whose patches are made at a time.
    fn rows(&self) -> usize {
        (Self::PATCHES / (self.y[2] * self.depth())).clamp(1, self.y[1])
    }

    /// Output channels per job: many, so that x is read seldom, but so few that there are two jobs.
    fn block(&self) -> usize {
        if self.y[3] > 64 { 64 } else { 32 }
    }

    fn is_point(&self) -> bool {
        (self.window.kernel, self.window.stride, self.window.pad) == (1, 1, 0)
    }

    pub(super) fn temp_words(&self) -> usize {
        self.wave() * self.y[3] * self.depth()
    }

    /// Pixels of a 1×1 convolution's product at a time: as many as [`gemm`] sums before it rounds.
    const PIXELS: usize = 256;

    pub(super) fn scratch_words(&self, dy: Slot, x: Slot) -> usize {
        let pixels = if self.is_point() { Self::PIXELS } else { self.rows() * self.y[2] };
        let patches = if self.is_point() { 0 } else { pixels * self.depth() };
        let taken = match (self.is_point(), self.pairs) {
            (true, _) => pixels * self.depth(),
            (_, Some(_)) => ROUNDED_IMAGES * words(self.x) / self.x[0],
            _ => words(self.x) / self.x[0],
        };
        let pixels =
            if self.pairs.is_some() { ROUNDED_IMAGES * self.y[1] * self.y[2] } else { pixels };
        patches + dy.wide(pixels * self.y[3]) + x.wide(taken)
    }

    /// dw (=|+=) scale · Σ over images and pixels.
    pub(super) fn run(&self, b: &Bound, scale: f32, dw: Sink, dy: Slot, x: Slot, temp: Slot) {
        let ([n, _, _, o], depth) = (self.y, self.depth());
        let blocks = o.div_ceil(self.block());
        let sum = o * depth;
        let mut acc = dw.acc;
        for first in (0..self.groups()).step_by(self.wave()) {
            let wave = self.wave().min(self.groups() - first);
            let work = wave * ROUNDED_IMAGES * words(self.y) / n * depth;
            b.each(wave * blocks, work, |job| {
                let (i, o0) = (job / blocks, job % blocks * self.block());
                let m = self.block().min(o - o0);
                let to = b.get_mut(temp.part(i * sum + o0 * depth, m * depth));
                self.sum_group(b, scale, to, [dy, x], first + i, [o0, m]);
            });
            b.each(o, wave * sum, |k| {
                let at = k * self.row_words + self.first_column;
                let to = b.get_mut(dw.slot.part(at, depth));
                for i in 0..wave {
                    let acc = if i == 0 { acc } else { Acc::Add };
                    store(to, acc, b.get(temp.part(i * sum + k * depth, depth)));
                }
            });
            acc = Acc::Add;
        }
    }

    /// Rows o0..o0+m of one group's sum.
    fn sum_group(
        &self,
        b: &Bound,
        scale: f32,
        to: &mut [f32],
        [dy, x]: [Slot; 2],
        group: usize,
        [o0, m]: [usize; 2],
    ) {
        let ([n, h, w, o], depth) = (self.y, self.depth());
        let first = group * ROUNDED_IMAGES;
        let images = ROUNDED_IMAGES.min(n - first);
        let product = |acc: Acc, to: &mut [f32], pixel: usize, pixels: usize, a: &[f32], work| {
            let dy = b.read(dy, pixel * o, pixels * o, work);
            let (dy, a) = (Mat::cols(&dy[o0..], o), Mat::rows(a, depth));
            gemm([m, depth, pixels], to, depth, acc, scale, dy, a);
        };
        let mut acc = Acc::Set;
        if self.is_point() {
            let end = (first + images) * h * w;
            for pixel in (first * h * w..end).step_by(Self::PIXELS) {
                let pixels = Self::PIXELS.min(end - pixel);
                let (wide, work) = b.scratch().split_at_mut(x.wide(pixels * depth));
                let a = b.read(x, pixel * depth, pixels * depth, wide);
                product(acc, to, pixel, pixels, a, work);
                acc = Acc::Add;
            }
            return;
        }
        if let Some(pairs) = self.pairs {
            let (n, c) = (h * w, self.x[3]);
            let (wide, work) = b.scratch().split_at_mut(x.wide(images * n * c));
            let x = b.read(x, first * n * c, images * n * c, wide);
            let dy = b.read(dy, first * n * o, images * n * o, work);
            to.fill(0.0);
            for (p, q) in pairs.all() {
                let dy = Mat::cols(&dy[p * o + o0..], n * o);
                let x = Mat::rows(&x[q * c..], n * c);
                let to = &mut to[pairs.tap(p, q) * c..];
                gemm([m, c, images], to, depth, Acc::Add, scale, dy, x);
            }
            return;
        }
        let image = [self.x[1], self.x[2], self.x[3]];
        let image_words = image.iter().product::<usize>();
        for i in first..first + images {
            for row in (0..h).step_by(self.rows()) {
                let rows = self.rows().min(h - row);
                let (cols, rest) = b.scratch().split_at_mut(rows * w * depth);
                let (wide, work) = rest.split_at_mut(x.wide(image_words));
                let src = b.read(x, i * image_words, image_words, wide);
                patches(cols, src, image, self.window, (row, rows), w);
                product(acc, to, (i * h + row) * w, rows * w, cols, work);
                acc = Acc::Add;
            }
        }
    }
}
