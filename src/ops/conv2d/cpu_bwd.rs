//! The convolution's backward on the CPU: gradients of all that it takes but of the weights (`cpu_wgrad`).

use super::cpu_fwd::{rounded, rounded_words};
use super::cpu_wgrad::Wgrad;
use super::shape::{Conv2d, Input, Pairs};
use super::winograd::{Winograd, WinogradWgrad};
use crate::device::cpu::gemm::{Mat, gemm};
use crate::device::cpu::math;
use crate::device::cpu::patches::{Tiles, Window, dilate, patches};
use crate::device::cpu::winograd::Finish;
use crate::device::{Acc, Bound, Launch, Sink, Slot};
use crate::ops::scratch::{Layout, Prepared};
use crate::ops::sums::{store, sum_images};
use crate::ops::{Grads, Io, Shape, words};

/// What the backward needs for itself: sums per image and channel, and one weight's gradients that are kept apart.
pub(super) fn temps(op: &Conv2d, ins: &[Shape]) -> Layout<2> {
    let y = op.out_shape(ins[0]);
    let winograd = WinogradWgrad::new(op, ins[0]).map(|w| w.temp_words());
    let main = winograd.unwrap_or_else(|| Wgrad::new(op, ins[0]).temp_words());
    let sides = op.sides().map(|i| Wgrad::point(op, ins[i]).temp_words());
    Layout([y[0] * y[3], sides.fold(main, usize::max)])
}

/// The backward launch.
pub(super) fn backward(op: Conv2d, io: &Io, grads: &Grads) -> Launch {
    let dy = grads.outs[0].expect("conv2d has one output");
    let (x, y) = (io.shapes[0], op.out_shape(io.shapes[0]));
    let back = Backward { op, io: io.clone(), grads: grads.clone(), dy, x, y };
    let [sums, temp] = temps(&op, &io.shapes).slots(io.temp);
    Launch::new("conv2d_bwd", back.scratch_words(), move |b| {
        back.sums(b, sums);
        back.input(b);
        let (dw, of) = (back.grads.params[0], [dy, back.io.ins[0]]);
        match WinogradWgrad::new(&op, x) {
            Some(winograd) => winograd.run(b, op.scale, dw, of, temp),
            None => Wgrad::new(&op, x).run(b, dw, of, temp),
        }
        back.shortcut(b, temp);
    })
}

/// A backward with what follows from its shapes.
struct Backward {
    op: Conv2d,
    io: Io,
    grads: Grads,
    dy: Slot,
    x: Shape,
    y: Shape,
}

/// How the gradient of x is computed.
enum Dgrad {
    Winograd(Winograd),
    /// A product of the pixels as they lie.
    Point,
    Pairs(Pairs),
    /// A stride-1 convolution of dy (spread out, if the stride is 2) with the flipped weight.
    General,
}

impl Backward {
    /// Pixels of a 1×1 convolution's job.
    const PIXELS: usize = 256;

    fn sink(&self, which: Input) -> Option<Sink> {
        self.grads.ins[self.op.input(which)?]
    }

    fn scratch_words(&self) -> usize {
        let (op, rounded) = (&self.op, rounded_words(&self.io));
        let of_x = self.grads.ins[0].map(|dx| match self.dgrad() {
            Dgrad::Winograd(winograd) => self.winograd_scratch(winograd, dx).words(rounded),
            Dgrad::Point => self.point_scratch(self.x, dx).words(0),
            Dgrad::Pairs(_) => self.pairs_scratch(dx).words(0),
            Dgrad::General => self.general_scratch(dx).words(rounded),
        });
        let of_w = match WinogradWgrad::new(op, self.x) {
            Some(winograd) => winograd.scratch().words(),
            None => Wgrad::new(op, self.x).scratch([self.dy, self.io.ins[0]]).words(),
        };
        let of_sides = op.sides().map(|i| {
            let (shape, sink) = (self.io.shapes[i], self.grads.ins[i]);
            let weight = Wgrad::point(op, shape).scratch([self.dy, self.io.ins[i]]).words();
            weight.max(sink.map_or(0, |dx| self.point_scratch(shape, dx).words(0)))
        });
        of_sides.chain(of_x).chain([of_w, self.sums_scratch().words()]).max().unwrap_or(0)
    }

    fn sums_scratch(&self) -> Layout<2> {
        let wide = self.dy.wide(words(self.y) / self.y[0]);
        Layout([wide, if self.op.residual { wide } else { 0 }])
    }

    /// Gradients of both biases and of emb: sums over pixels per image, then over images in order. And the
    /// residual's gradient, while dy is at hand.
    fn sums(&self, b: &Bound, sums: Slot) {
        let (op, y, scratch) = (&self.op, self.y, self.sums_scratch());
        let (o, per) = (y[3], y[1] * y[2] * y[3]);
        let residual = self.sink(Input::Residual);
        b.each(y[0], words(y), |n| {
            let ([work, work_residual], _) = scratch.cut(b.scratch());
            let (sum, dy) = (b.get_mut(sums.part(n * o, o)), b.read(self.dy, n * per, per, work));
            math::sum_rows(sum, dy);
            sum.iter_mut().for_each(|s| *s *= op.scale);
            if let Some(sink) = residual {
                b.write(sink, n * per, per, work_residual, |to| match sink.acc {
                    Acc::Set => math::scaled(to, op.scale, dy),
                    Acc::Add => math::add_scaled(to, op.scale, dy),
                });
            }
        });
        let sums = b.get(sums);
        if let Some(demb) = self.sink(Input::Emb) {
            let (row, first) = (demb.slot.len / y[0], op.emb_columns().start);
            for (n, sums) in sums.chunks_exact(o).enumerate() {
                store(b.get_mut(demb.slot.part(n * row + first, o)), demb.acc, sums);
            }
        }
        for param in [1, 3].into_iter().take(1 + op.shortcut.is_some() as usize) {
            let sink = self.grads.params[param];
            sum_images(b.get_mut(sink.slot), sink.acc, sums);
        }
    }

    fn shortcut(&self, b: &Bound, temp: Slot) {
        let (op, io) = (&self.op, &self.io);
        let Some(shortcut) = op.shortcut else { return };
        let (total, dsw) = (op.shortcut_channels(&io.shapes), self.grads.params[2]);
        let mut first = 0;
        for i in op.sides() {
            let shape = io.shapes[i];
            let wgrad = Wgrad::point(op, shape).columns(first, total);
            wgrad.run(b, dsw, [self.dy, io.ins[i]], temp);
            if let Some(ds) = self.grads.ins[i] {
                self.point(b, ds, shape, 2, first);
            }
            first += shape[3];
        }
        if shortcut.off > 0 && dsw.acc == Acc::Set {
            for row in b.get_mut(dsw.slot).chunks_exact_mut(total) {
                row[first..].fill(0.0);
            }
        }
    }

    fn dgrad(&self) -> Dgrad {
        let winograd = Winograd::new(&self.op, self.x).map(|w| Dgrad::Winograd(w.reversed()));
        let point = || self.op.is_point().then_some(Dgrad::Point);
        let pairs = || self.op.pairs(self.x).map(Dgrad::Pairs);
        winograd.or_else(point).or_else(pairs).unwrap_or(Dgrad::General)
    }

    /// The gradient of x, where it is wanted.
    fn input(&self, b: &Bound) {
        let Some(dx) = self.grads.ins[0] else { return };
        match self.dgrad() {
            Dgrad::Winograd(winograd) => self.winograd(b, winograd, dx),
            Dgrad::Point => self.point(b, dx, self.x, 0, 0),
            Dgrad::Pairs(pairs) => self.pairs(b, pairs, dx),
            Dgrad::General => self.general(b, dx),
        }
    }

    /// The transformed weight; a tile's dx and its planes.
    fn winograd_scratch(&self, winograd: Winograd, dx: Sink) -> Prepared<1, 2> {
        let wide = dx.slot.wide(winograd.tiles.pixels() * self.x[3]);
        Prepared {
            ready: Layout([winograd.weight_words()]),
            job: Layout([wide, winograd.planes().words()]),
        }
    }

    fn winograd(&self, b: &Bound, winograd: Winograd, dx: Sink) {
        let (x, scratch) = (self.x, self.winograd_scratch(winograd, dx));
        let prepare = || {
            let ([flipped], rest) = scratch.ready.cut(b.scratch());
            winograd.prepare_flipped(flipped, rounded(b, &self.io, 0, rest));
        };
        b.each_prepared(winograd.tiles.count(), words(x) * self.op.depth(x), prepare, |t| {
            let ([w], [wide, work]) = scratch.cut(b.scratch());
            let tile = winograd.tiles.get(t);
            let (at, len) = tile.span([x[1], x[2], x[3]]);
            b.write(dx, at, len, wide, |to| {
                let (add, factor) = (dx.acc == Acc::Add, self.op.scale);
                let finish = Finish { add, factor, bias: None, residual: None };
                winograd.run_tile(b, work, self.dy, w, tile, to, finish);
            });
        });
    }

    /// Channels of the flipped weight's rows, and the tiles that they give.
    fn tiles(&self) -> (usize, Tiles) {
        let (x, depth) = (self.x, self.op.kernel * self.op.kernel * self.y[3]);
        (depth, Tiles::new([x[0], x[1], x[2]], depth))
    }

    /// dy's size with zeros between its pixels.
    fn spread(&self) -> [usize; 2] {
        [1, 2].map(|i| (self.y[i] - 1) * self.op.stride + 1)
    }

    /// The flipped weight; a tile's patches, dy spread out, dy's image and a tile's dx.
    fn general_scratch(&self, dx: Sink) -> Prepared<1, 4> {
        let ((depth, tiles), [sh, sw], [_, h, w, o]) = (self.tiles(), self.spread(), self.y);
        let (pixels, c) = (tiles.pixels(), self.x[3]);
        let wide = [self.dy.wide(h * w * o), dx.slot.wide(pixels * c)];
        let job = Layout([pixels * depth, sh * sw * o, wide[0], wide[1]]);
        Prepared { ready: Layout([depth * c]), job }
    }

    fn general(&self, b: &Bound, dx: Sink) {
        let (x, y, k, scratch) = (self.x, self.y, self.op.kernel, self.general_scratch(dx));
        let (c, o, taps, (depth, tiles)) = (x[3], y[3], k * k, self.tiles());
        let prepare = || {
            // Row (tap, o) is the weight of the opposite tap: contiguous in the input channel already.
            let ([flipped], rest) = scratch.ready.cut(b.scratch());
            let w = rounded(b, &self.io, 0, rest);
            for (row, to) in flipped.chunks_exact_mut(c).enumerate() {
                let (tap, j) = (row / o, row % o);
                to.copy_from_slice(&w[(j * taps + taps - 1 - tap) * c..][..c]);
            }
        };
        let [sh, sw] = self.spread();
        let win = Window { kernel: k, stride: 1, pad: (k - 1) as isize - self.op.pad as isize };
        let image_words = y[1] * y[2] * o;
        b.each_prepared(tiles.count(), words(x) * depth, prepare, |t| {
            let tile = tiles.get(t);
            let (at, len) = tile.span([x[1], x[2], c]);
            let pixels = len / c;
            let ([flipped], [cols, spread, wide, wide_dx]) = scratch.cut(b.scratch());
            let cols = &mut cols[..pixels * depth];
            let per = cols.len() / tile.present;
            for (i, cols) in cols.chunks_exact_mut(per).enumerate() {
                let mut src = b.read(self.dy, (tile.image + i) * image_words, image_words, wide);
                if self.op.stride > 1 {
                    dilate(spread, src, [y[1], y[2], o], self.op.stride);
                    src = spread;
                }
                patches(cols, src, [sh, sw, o], win, (tile.row, tile.rows), x[2]);
            }
            let (a, w) = (Mat::rows(cols, depth), Mat::rows(flipped, c));
            b.write(dx, at, len, wide_dx, |to| {
                gemm([pixels, c, depth], to, c, dx.acc, self.op.scale, a, w);
            });
        });
    }

    /// Parameter `i` as products take it: itself, or what [`rounded`] left in `ready`.
    fn weight<'a>(&self, b: &'a Bound, i: usize, ready: &'a [f32]) -> &'a [f32] {
        if ready.is_empty() { b.get(self.io.params[i]) } else { &ready[..self.io.params[i].len] }
    }

    /// The rounded weight; dy and dx of a tile.
    fn pairs_scratch(&self, dx: Sink) -> Prepared<1, 2> {
        let pixels = self.tiles().1.pixels();
        Prepared {
            ready: Layout([rounded_words(&self.io)]),
            job: Layout([self.dy.wide(pixels * self.y[3]), dx.slot.wide(pixels * self.x[3])]),
        }
    }

    fn pairs(&self, b: &Bound, pairs: Pairs, dx: Sink) {
        let (x, tiles, scratch) = (self.x, self.tiles().1, self.pairs_scratch(dx));
        let (c, o, n) = (x[3], self.y[3], pairs.pixels());
        let prepare = || _ = rounded(b, &self.io, 0, scratch.cut(b.scratch()).0[0]);
        b.each_prepared(tiles.count(), n * words(x) * o, prepare, |t| {
            let tile = tiles.get(t);
            let ([w], [wide, wide_dx]) = scratch.cut(b.scratch());
            let w = self.weight(b, 0, w);
            let ((at, len), (at_dy, len_dy)) =
                (tile.span([x[1], x[2], c]), tile.span([x[1], x[2], o]));
            let src = b.read(self.dy, at_dy, len_dy, wide);
            b.write(dx, at, len, wide_dx, |to| {
                for (q, p) in pairs.all() {
                    let acc = if p == 0 { dx.acc } else { Acc::Add };
                    let w = Mat::rows(&w[pairs.tap(p, q) * c..], 9 * c);
                    let a = Mat::rows(&src[p * o..], n * o);
                    gemm([tile.present, c, o], &mut to[q * c..], n * c, acc, self.op.scale, a, w);
                }
            });
        });
    }

    /// Pixels of a 1×1 convolution's job: whole images of a shape, or a part of one.
    fn job([n, h, w, _]: Shape) -> usize {
        match h * w {
            pixels if pixels > Self::PIXELS => Self::PIXELS,
            pixels => (Self::PIXELS / pixels).min(n.div_ceil(4)) * pixels,
        }
    }

    /// The rounded weight; dy and dx of a job.
    fn point_scratch(&self, shape: Shape, dx: Sink) -> Prepared<1, 2> {
        let pixels = Self::job(shape);
        Prepared {
            ready: Layout([rounded_words(&self.io)]),
            job: Layout([self.dy.wide(pixels * self.y[3]), dx.slot.wide(pixels * shape[3])]),
        }
    }

    /// The gradient of an input of a 1×1 convolution: dx (=|+=) scale · dy · w, w being columns from `first` on of
    /// parameter `i`.
    fn point(&self, b: &Bound, dx: Sink, shape: Shape, i: usize, first: usize) {
        let (c, o, pixels) = (shape[3], self.y[3], words(shape) / shape[3]);
        let (per, scratch) = (Self::job(shape), self.point_scratch(shape, dx));
        let total = self.io.params[i].len / o;
        let prepare = || _ = rounded(b, &self.io, i, scratch.cut(b.scratch()).0[0]);
        b.each_prepared(pixels.div_ceil(per), pixels * c * o, prepare, |job| {
            let (at, m) = (job * per, per.min(pixels - job * per));
            let ([w], [wide, wide_dx]) = scratch.cut(b.scratch());
            let w = Mat::rows(&self.weight(b, i, w)[first..], total);
            let dy = Mat::rows(b.read(self.dy, at * o, m * o, wide), o);
            b.write(dx, at * c, m * c, wide_dx, |to| {
                gemm([m, c, o], to, c, dx.acc, self.op.scale, dy, w);
            });
        });
    }
}
