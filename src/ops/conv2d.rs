//! conv2d: y = (conv(x) + bias + emb + residual + shortcut) · scale, all in one pass over y.
//!
//! - x `[N, H, W, C]`; weight `[O, k, k, C]`, bias `[O]`; y `[N, Ho, Wo, O]`.
//! - emb [N, 1, 1, E]: one value per image and channel in O of its columns, the others being other convolutions'.
//!   residual [N, Ho, Wo, O].
//! - shortcut: a 1×1 convolution of [s1, s2] (channels concatenated, never copied) with weight [O, C1 + C2 + off]
//!   and bias `[O]`; `off` channels are those of a skip that is switched off: zeros, neither read nor stored.

use super::conv2d_bwd::{Dgrad, PointDgrad, Wgrad};
use super::conv2d_fwd::{rounded, rounded_words};
use super::conv2d_kernels;
use super::conv2d_mma::Ways;
use super::conv2d_winograd::{Winograd, WinogradWgrad};
use super::pack::Pack;
use super::sums::{store, sum_images};
use super::{Direction, Grads, Io, Op, Reads, Shape, words};
use crate::device::cpu::math;
use crate::device::cpu::patches::Window;
use crate::device::cpu::winograd::Finish;
use crate::device::{Acc, Bound, Dtype, Kernel, Launch, Precision, Sink, Slot};
use anyhow::{Result, ensure};
use std::ops::Range;

#[derive(Debug, Clone, Copy)]
pub struct Shortcut {
    /// Whether there is a second input.
    pub two: bool,
    /// Channels of the weight that meet a switched-off skip.
    pub off: usize,
}

#[derive(Debug, Clone, Copy)]
pub struct Conv2d {
    /// 1 or 3.
    pub kernel: usize,
    pub stride: usize,
    pub pad: usize,
    pub out_channels: usize,
    pub scale: f32,
    /// The first of the columns of emb that are this convolution's.
    pub emb: Option<usize>,
    pub residual: bool,
    pub shortcut: Option<Shortcut>,
    /// y is float32 at every precision: the network's last.
    pub float32: bool,
}

impl Conv2d {
    /// k×k, stride 1, same size.
    pub fn same(kernel: usize, out_channels: usize) -> Self {
        Conv2d {
            kernel,
            stride: 1,
            pad: kernel / 2,
            out_channels,
            scale: 1.0,
            emb: None,
            residual: false,
            shortcut: None,
            float32: false,
        }
    }

    pub(super) fn input(&self, which: Input) -> Option<usize> {
        let emb = 1;
        let residual = emb + self.emb.is_some() as usize;
        let s1 = residual + self.residual as usize;
        match which {
            Input::Emb => self.emb.map(|_| emb),
            Input::Residual => self.residual.then_some(residual),
            Input::S1 => self.shortcut.map(|_| s1),
            Input::S2 => self.shortcut.filter(|s| s.two).map(|_| s1 + 1),
        }
    }

    fn num_inputs(&self) -> usize {
        let shortcut = self.shortcut.map_or(0, |s| 1 + s.two as usize);
        1 + self.emb.is_some() as usize + self.residual as usize + shortcut
    }

    /// The columns of emb that are this convolution's.
    pub(super) fn emb_columns(&self) -> Range<usize> {
        let first = self.emb.unwrap_or(0);
        first..first + self.out_channels
    }

    pub(super) fn out_shape(&self, x: Shape) -> Shape {
        let out = |size: usize| (size + 2 * self.pad - self.kernel) / self.stride + 1;
        [x[0], out(x[1]), out(x[2]), self.out_channels]
    }

    /// Channels that the shortcut's weight takes, off ones included.
    pub(super) fn shortcut_channels(&self, ins: &[Shape]) -> usize {
        let channels = |which| self.input(which).map_or(0, |i| ins[i][3]);
        self.shortcut.map_or(0, |s| channels(Input::S1) + channels(Input::S2) + s.off)
    }

    pub(super) fn depth(&self, x: Shape) -> usize {
        self.kernel * self.kernel * x[3]
    }

    pub(super) fn window(&self) -> Window {
        Window { kernel: self.kernel, stride: self.stride, pad: self.pad as isize }
    }
}

/// The pixels of an image of at most 2×2, in pairs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pairs {
    h: usize,
    w: usize,
}

impl Pairs {
    pub(super) fn pixels(self) -> usize {
        self.h * self.w
    }

    /// The tap through which output pixel `p` sees input pixel `q`.
    pub(super) fn tap(self, p: usize, q: usize) -> usize {
        let [y, x] = [q / self.w + 1 - p / self.w, q % self.w + 1 - p % self.w];
        3 * y + x
    }

    /// All (output pixel, input pixel).
    pub(super) fn all(self) -> impl Iterator<Item = (usize, usize)> {
        let n = self.pixels();
        (0..n * n).map(move |i| (i / n, i % n))
    }
}

#[derive(Clone, Copy)]
pub(super) enum Input {
    Emb,
    Residual,
    S1,
    S2,
}

impl Op for Conv2d {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn outputs(&self, ins: &[Shape]) -> Result<Vec<Shape>> {
        ensure!(
            ins.len() == self.num_inputs(),
            "conv2d: {} inputs wanted, {} given",
            self.num_inputs(),
            ins.len()
        );
        let x = ins[0];
        ensure!(
            [x[1], x[2]].iter().all(|s| s + 2 * self.pad >= self.kernel
                && (s + 2 * self.pad - self.kernel).is_multiple_of(self.stride)),
            "conv2d: a {k}×{k} window of stride {s} does not fit {x:?}",
            k = self.kernel,
            s = self.stride
        );
        let y = self.out_shape(x);
        if let Some(i) = self.input(Input::Emb) {
            let columns = self.emb_columns();
            ensure!(
                ins[i][..3] == [y[0], 1, 1] && columns.end <= ins[i][3],
                "conv2d: emb {:?} with columns {columns:?} for output {y:?}",
                ins[i]
            );
        }
        if let Some(i) = self.input(Input::Residual) {
            ensure!(ins[i] == y, "conv2d: residual {:?} for output {y:?}", ins[i]);
        }
        for i in [Input::S1, Input::S2].into_iter().filter_map(|s| self.input(s)) {
            ensure!(ins[i][..3] == y[..3], "conv2d: shortcut {:?} for output {y:?}", ins[i]);
        }
        Ok(vec![y])
    }

    fn columns(&self, ins: &[Shape], i: usize) -> Range<usize> {
        if self.input(Input::Emb) == Some(i) { self.emb_columns() } else { 0..ins[i][3] }
    }

    fn dtypes(&self, precision: Precision, _outs: usize) -> Vec<Dtype> {
        vec![if self.float32 { Dtype::F32 } else { precision.storage() }]
    }

    fn param_lens(&self, ins: &[Shape]) -> Vec<usize> {
        let o = self.out_channels;
        let mut lens = vec![o * self.depth(ins[0]), o];
        if self.shortcut.is_some() {
            lens.extend([o * self.shortcut_channels(ins), o]);
        }
        lens
    }

    fn reads(&self, _ins: &[Shape]) -> Reads {
        let shortcut = [Input::S1, Input::S2].into_iter().filter_map(|s| self.input(s));
        Reads { ins: std::iter::once(0).chain(shortcut).collect(), outs: vec![] }
    }

    fn temp_words(&self, ins: &[Shape], direction: Direction) -> usize {
        match direction {
            Direction::Fwd => 0,
            Direction::Bwd => {
                let (x, y) = (ins[0], self.out_shape(ins[0]));
                let winograd = self.winograd_wgrad(x).map(|w| w.temp_words());
                let wgrad = winograd.unwrap_or_else(|| Wgrad::new(self, x, y).temp_words());
                let shortcut = [Input::S1, Input::S2].into_iter().filter_map(|s| self.input(s));
                let side = shortcut.map(|i| Wgrad::point(ins[i], y).temp_words());
                y[0] * y[3] + side.fold(wgrad, usize::max)
            }
        }
    }

    fn flop(&self, ins: &[Shape]) -> u64 {
        let y = self.out_shape(ins[0]);
        let shortcut = self.shortcut_channels(ins) - self.shortcut.map_or(0, |s| s.off);
        2 * words(y) as u64 * (self.depth(ins[0]) + shortcut) as u64
    }

    fn fwd(&self, io: &Io) -> Launch {
        self.forward(io)
    }

    fn bwd(&self, io: &Io, grads: &Grads) -> Launch {
        let (op, io, grads) = (*self, io.clone(), grads.clone());
        let (x, y) = (io.shapes[0], self.out_shape(io.shapes[0]));
        let dy = grads.outs[0].expect("conv2d has one output");
        let (dgrad, wgrad) = (Dgrad::new(&op, x, y), Wgrad::new(&op, x, y));
        let (reversed, winograd) = (self.winograd(x).map(|w| w.reversed()), self.winograd_wgrad(x));
        let flipped = reversed.map_or(0, |w| w.weight_words());
        let wide_dx = reversed.map_or(0, |w| io.ins[0].wide(w.tiles.pixels() * x[3]));
        let sides = [Input::S1, Input::S2].into_iter().filter_map(|s| op.input(s));
        let scratch = sides.chain([0]).flat_map(|i| {
            let (shape, slot) = (io.shapes[i], io.ins[i]);
            let point = (i > 0).then(|| Wgrad::point(shape, y).scratch_words(dy, slot));
            [point.unwrap_or(0), PointDgrad::new(shape, y[3]).scratch_words(dy, slot)]
        });
        let scratch = (scratch.chain([
            2 * dy.wide(words(y) / y[0]),
            dgrad.scratch_words(dy, io.ins[0]),
            wgrad.scratch_words(dy, io.ins[0]),
            winograd.map_or(0, |w| w.scratch_words()),
            reversed.map_or(0, |w| flipped + wide_dx + w.scratch_words()),
            flipped,
        ]))
        .max()
        .unwrap_or(0);
        // The rounded weight beside either.
        let scratch = scratch + rounded_words(&io);
        let sums = io.temp.part(0, y[0] * y[3]);
        let temp = io.temp.part(sums.len, io.temp.len - sums.len);
        Launch::new("conv2d_bwd", scratch, move |b| {
            op.bwd_sums(b, &grads, dy, y, sums);
            match (grads.ins[0], reversed) {
                (Some(dx), Some(winograd)) => {
                    let prepare = || {
                        let (flipped, rest) = b.scratch().split_at_mut(flipped);
                        winograd.prepare_flipped(flipped, rounded(b, &io, 0, rest));
                    };
                    let work = words(x) * op.depth(x);
                    b.each_prepared(winograd.tiles.count(), work, prepare, |t| {
                        let (w, rest) = b.scratch().split_at_mut(flipped);
                        let (wide, work) = rest.split_at_mut(wide_dx);
                        let tile = winograd.tiles.get(t);
                        let (at, len) = tile.span([x[1], x[2], x[3]]);
                        b.write(dx, at, len, wide, |to| {
                            let (add, factor) = (dx.acc == Acc::Add, op.scale);
                            let finish = Finish { add, factor, bias: None, residual: None };
                            winograd.run_tile(b, work, dy, w, tile, to, finish);
                        });
                    });
                }
                (Some(dx), None) if op.is_point() => {
                    PointDgrad::new(x, y[3]).run(b, &io, dx, dy, 0, 0, op.scale);
                }
                (Some(dx), None) if op.pairs(x).is_some() => dgrad.run_pairs(b, &op, &io, dx, dy),
                (Some(dx), None) => dgrad.run(b, &op, &io, dx, dy),
                (None, _) => {}
            }
            let dw = grads.params[0];
            match winograd {
                Some(winograd) => winograd.run(b, op.scale, dw, dy, io.ins[0], temp),
                None => wgrad.run(b, op.scale, dw, dy, io.ins[0], temp),
            }
            op.bwd_shortcut(b, &io, &grads, dy, y, temp);
        })
    }

    fn kernel_temp_words(
        &self,
        ins: &[Shape],
        precision: Precision,
        direction: Direction,
    ) -> usize {
        conv2d_kernels::temp_words(self, ins, precision, direction)
    }

    fn packs(&self, ins: &[Shape], precision: Precision, training: bool) -> Vec<Pack> {
        Ways::new(self, precision).packs(ins, training)
    }

    fn kernels(&self, io: &Io, grads: Option<&Grads>) -> Vec<Kernel> {
        match grads {
            None => conv2d_kernels::forward(self, io),
            Some(grads) => conv2d_kernels::backward(self, io, grads),
        }
    }
}

impl Conv2d {
    fn is_plain(&self) -> bool {
        (self.kernel, self.stride, self.pad) == (3, 1, 1)
    }

    /// 1×1: a product of the pixels as they lie.
    pub(super) fn is_point(&self) -> bool {
        (self.kernel, self.stride, self.pad) == (1, 1, 0)
    }

    /// 3×3 of images so small that every pixel sees every other: a product for each pair of them.
    pub(super) fn pairs(&self, x: Shape) -> Option<Pairs> {
        (self.is_plain() && x[1] <= 2 && x[2] <= 2).then_some(Pairs { h: x[1], w: x[2] })
    }

    /// The fast way of the forward and of the input's gradient, where the shape suits it.
    pub(super) fn winograd(&self, x: Shape) -> Option<Winograd> {
        let suits = self.is_plain() && self.pairs(x).is_none();
        Winograd::new(x, self.out_channels).filter(|_| suits)
    }

    fn winograd_wgrad(&self, x: Shape) -> Option<WinogradWgrad> {
        let suits = self.is_plain() && self.pairs(x).is_none();
        WinogradWgrad::new(x, self.out_channels).filter(|_| suits)
    }
}

fn sink_of(op: &Conv2d, grads: &Grads, which: Input) -> Option<Sink> {
    grads.ins[op.input(which)?]
}

impl Conv2d {
    /// Gradients of both biases and of emb: sums over pixels per image, then over images in order. And the
    /// residual's gradient, while dy is at hand.
    fn bwd_sums(&self, b: &Bound, grads: &Grads, dy: Slot, y: Shape, sums: Slot) {
        let (o, per) = (y[3], y[1] * y[2] * y[3]);
        let residual = sink_of(self, grads, Input::Residual);
        b.each(y[0], words(y), |n| {
            let (work, work_residual) = b.scratch().split_at_mut(dy.wide(per));
            let (sum, dy) = (b.get_mut(sums.part(n * o, o)), b.read(dy, n * per, per, work));
            math::sum_rows(sum, dy);
            sum.iter_mut().for_each(|s| *s *= self.scale);
            if let Some(sink) = residual {
                b.write(sink, n * per, per, work_residual, |to| match sink.acc {
                    Acc::Set => math::scaled(to, self.scale, dy),
                    Acc::Add => math::add_scaled(to, self.scale, dy),
                });
            }
        });
        let sums = b.get(sums);
        if let Some(demb) = sink_of(self, grads, Input::Emb) {
            let (row, first) = (demb.slot.len / y[0], self.emb_columns().start);
            for (n, sums) in sums.chunks_exact(o).enumerate() {
                store(b.get_mut(demb.slot.part(n * row + first, o)), demb.acc, sums);
            }
        }
        for param in [1, 3].into_iter().take(1 + self.shortcut.is_some() as usize) {
            let sink = grads.params[param];
            sum_images(b.get_mut(sink.slot), sink.acc, sums);
        }
    }

    fn bwd_shortcut(&self, b: &Bound, io: &Io, grads: &Grads, dy: Slot, y: Shape, temp: Slot) {
        let Some(shortcut) = self.shortcut else { return };
        let total = self.shortcut_channels(&io.shapes);
        let mut first = 0;
        for i in [Input::S1, Input::S2].into_iter().filter_map(|s| self.input(s)) {
            let s = io.shapes[i];
            let wgrad = Wgrad::point(s, y).columns(first, total);
            wgrad.run(b, self.scale, grads.params[2], dy, io.ins[i], temp);
            if let Some(ds) = grads.ins[i] {
                PointDgrad::new(s, y[3]).run(b, io, ds, dy, 2, first, self.scale);
            }
            first += s[3];
        }
        if shortcut.off > 0 && grads.params[2].acc == Acc::Set {
            for row in b.get_mut(grads.params[2].slot).chunks_exact_mut(total) {
                row[first..].fill(0.0);
            }
        }
    }
}
