//! The convolution's weight gradient on the CPU, by products of patches or pixels.

use super::shape::{Conv2d, Pairs};
use crate::device::cpu::gemm::{Mat, gemm};
use crate::device::cpu::patches::{Window, patches};
use crate::device::params::ROUNDED_IMAGES;
use crate::device::{Acc, Bound, Sink, Slot};
use crate::ops::scratch::Layout;
use crate::ops::sums::{Groups, store};
use crate::ops::{Shape, words};

/// The gradient of a weight: a product over the pixels of each group of images, then the groups' sums in order.
#[derive(Clone, Copy)]
pub(super) struct Wgrad {
    x: Shape,
    y: Shape,
    pairs: Option<Pairs>,
    window: Window,
    scale: f32,
    /// Where a row of the result lies in a row of dw, and that row's length.
    first_column: usize,
    row_words: usize,
}

impl Wgrad {
    /// Words of patches at a time.
    const PATCHES: usize = 64 * 1024;
    /// Pixels of a 1×1 convolution's product at a time: as many as [`gemm`] sums before it rounds.
    const PIXELS: usize = 256;

    pub(super) fn new(op: &Conv2d, x: Shape) -> Self {
        let (y, window, pairs) = (op.out_shape(x), op.window(), op.pairs(x));
        Wgrad { x, y, pairs, window, scale: op.scale, first_column: 0, row_words: op.depth(x) }
    }

    /// Of a 1×1 convolution of as many outputs and the same scale.
    pub(super) fn point(op: &Conv2d, x: Shape) -> Self {
        let y = [x[0], x[1], x[2], op.out_channels];
        let window = Window { kernel: 1, stride: 1, pad: 0 };
        Wgrad { x, y, pairs: None, window, scale: op.scale, first_column: 0, row_words: x[3] }
    }

    /// The same for the columns of one input of a shortcut.
    pub(super) fn columns(self, first_column: usize, row_words: usize) -> Self {
        Wgrad { first_column, row_words, ..self }
    }

    fn depth(&self) -> usize {
        self.window.kernel * self.window.kernel * self.x[3]
    }

    fn groups(&self) -> Groups {
        Groups { count: self.y[0].div_ceil(ROUNDED_IMAGES), words: self.y[3] * self.depth() }
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

    /// Words of the groups' sums, which are kept apart here even where there is one at a time.
    pub(super) fn temp_words(&self) -> usize {
        self.groups().wave() * self.groups().words
    }

    /// Patches, and the pixels of x and of dy that a product takes.
    pub(super) fn scratch(&self, [dy, x]: [Slot; 2]) -> Layout<3> {
        let ([_, h, w, o], [_, xh, xw, c]) = (self.y, self.x);
        let (patches, of_x, of_dy) = match self.pairs {
            _ if self.is_point() => (0, Self::PIXELS, Self::PIXELS),
            Some(_) => (0, ROUNDED_IMAGES * xh * xw, ROUNDED_IMAGES * h * w),
            None => (self.rows() * w * self.depth(), xh * xw, self.rows() * w),
        };
        Layout([patches, x.wide(of_x * c), dy.wide(of_dy * o)])
    }

    /// dw (=|+=) scale · Σ over images and pixels; `of`: dy and x.
    pub(super) fn run(&self, b: &Bound, dw: Sink, of: [Slot; 2], temp: Slot) {
        let ([n, _, _, o], depth, groups) = (self.y, self.depth(), self.groups());
        let (blocks, sum) = (o.div_ceil(self.block()), groups.words);
        let mut acc = dw.acc;
        for first in (0..groups.count).step_by(groups.wave()) {
            let wave = groups.wave().min(groups.count - first);
            let work = wave * ROUNDED_IMAGES * words(self.y) / n * depth;
            b.each(wave * blocks, work, |job| {
                let (i, o0) = (job / blocks, job % blocks * self.block());
                let m = self.block().min(o - o0);
                let to = b.get_mut(temp.part(i * sum + o0 * depth, m * depth));
                self.sum_group(b, to, of, first + i, [o0, m]);
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
        to: &mut [f32],
        [dy, x]: [Slot; 2],
        group: usize,
        [o0, m]: [usize; 2],
    ) {
        let ([n, h, w, o], depth) = (self.y, self.depth());
        let first = group * ROUNDED_IMAGES;
        let images = ROUNDED_IMAGES.min(n - first);
        let product =
            |acc: Acc, to: &mut [f32], pixel: usize, pixels: usize, a: &[f32], work: &mut [f32]| {
                let dy = b.read(dy, pixel * o, pixels * o, work);
                let (dy, a) = (Mat::cols(&dy[o0..], o), Mat::rows(a, depth));
                gemm([m, depth, pixels], to, depth, acc, self.scale, dy, a);
            };
        let ([cols, wide, work], _) = self.scratch([dy, x]).cut(b.scratch());
        let mut acc = Acc::Set;
        if self.is_point() {
            let end = (first + images) * h * w;
            for pixel in (first * h * w..end).step_by(Self::PIXELS) {
                let pixels = Self::PIXELS.min(end - pixel);
                let a = b.read(x, pixel * depth, pixels * depth, wide);
                product(acc, to, pixel, pixels, a, work);
                acc = Acc::Add;
            }
            return;
        }
        if let Some(pairs) = self.pairs {
            let (n, c) = (h * w, self.x[3]);
            let x = b.read(x, first * n * c, images * n * c, wide);
            let dy = b.read(dy, first * n * o, images * n * o, work);
            to.fill(0.0);
            for (p, q) in pairs.all() {
                let dy = Mat::cols(&dy[p * o + o0..], n * o);
                let x = Mat::rows(&x[q * c..], n * c);
                let to = &mut to[pairs.tap(p, q) * c..];
                gemm([m, c, images], to, depth, Acc::Add, self.scale, dy, x);
            }
            return;
        }
        let image = [self.x[1], self.x[2], self.x[3]];
        let image_words = image.iter().product::<usize>();
        for i in first..first + images {
            for row in (0..h).step_by(self.rows()) {
                let rows = self.rows().min(h - row);
                let cols = &mut cols[..rows * w * depth];
                let src = b.read(x, i * image_words, image_words, wide);
                patches(cols, src, image, self.window, (row, rows), w);
                product(acc, to, (i * h + row) * w, rows * w, cols, work);
                acc = Acc::Add;
            }
        }
    }
}
