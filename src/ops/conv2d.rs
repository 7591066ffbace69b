//! conv2d: y = (conv(x) + bias + emb + residual + shortcut) · scale, all in one pass over y.
//!
//! - x [N, H, W, C]; weight [O, k, k, C], bias [O]; y [N, Ho, Wo, O].
//! - emb [N, 1, 1, O]: one value per image and channel. residual [N, Ho, Wo, O].
//! - shortcut: a 1×1 convolution of [s1, s2] (channels concatenated, never copied) with weight [O, C1 + C2 + off]
//!   and bias [O]; `off` channels are those of a skip that is switched off: zeros, neither read nor stored.

use super::conv2d_bwd::{Dgrad, PointDgrad, Wgrad};
use super::conv2d_kernels;
use super::conv2d_winograd::{Winograd, WinogradWgrad};
use super::sums::{store, sum_images};
use super::{Direction, Grads, Io, Op, Reads, Shape, words};
use crate::device::cpu::gemm::{Mat, gemm, transpose};
use crate::device::cpu::math;
use crate::device::cpu::patches::{Tile, Tiles, Window, patches};
use crate::device::cpu::winograd::{Finish, PANEL};
use crate::device::{Acc, Bound, Dtype, Kernel, Launch, Precision, Sink, Slot};
use anyhow::{Result, ensure};

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
    pub emb: bool,
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
            emb: false,
            residual: false,
            shortcut: None,
            float32: false,
        }
    }

    pub(super) fn input(&self, which: Input) -> Option<usize> {
        let emb = 1;
        let residual = emb + self.emb as usize;
        let s1 = residual + self.residual as usize;
        match which {
            Input::Emb => self.emb.then_some(emb),
            Input::Residual => self.residual.then_some(residual),
            Input::S1 => self.shortcut.map(|_| s1),
            Input::S2 => self.shortcut.filter(|s| s.two).map(|_| s1 + 1),
        }
    }

    fn num_inputs(&self) -> usize {
        let shortcut = self.shortcut.map_or(0, |s| 1 + s.two as usize);
        1 + self.emb as usize + self.residual as usize + shortcut
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
            ensure!(ins[i] == [y[0], 1, 1, y[3]], "conv2d: emb {:?} for output {y:?}", ins[i]);
        }
        if let Some(i) = self.input(Input::Residual) {
            ensure!(ins[i] == y, "conv2d: residual {:?} for output {y:?}", ins[i]);
        }
        for i in [Input::S1, Input::S2].into_iter().filter_map(|s| self.input(s)) {
            ensure!(ins[i][..3] == y[..3], "conv2d: shortcut {:?} for output {y:?}", ins[i]);
        }
        Ok(vec![y])
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
        let (op, io) = (*self, io.clone());
        let (x, y) = (io.shapes[0], self.out_shape(io.shapes[0]));
        let (o, depth, side) = (y[3], self.depth(x), op.shortcut_channels(&io.shapes));
        let winograd = self.winograd(x);
        let tiles = winograd.map_or(Tiles::new([y[0], y[1], y[2]], depth), |w| w.tiles);
        let w_words = winograd.map_or(o * depth, |w| w.weight_words());
        let ready = w_words + side * o;
        let wide_out = io.outs[0].wide(tiles.pixels() * o);
        // Of an operand beside x, one at a time, or of x itself before.
        let beside = io.ins[1..].iter().zip(&io.shapes[1..]);
        let wide = beside.map(|(s, shape)| s.wide(tiles.pixels() * shape[3]));
        let whole = if winograd.is_some() { 0 } else { tiles.pixels().max(x[1] * x[2]) * x[3] };
        let wide = wide.fold(io.ins[0].wide(whole), usize::max);
        let product = winograd.map_or(tiles.pixels() * depth, |w| w.scratch_words());
        let work = (product + tiles.images() * o).max(rounded_words(&io));
        Launch::new("conv2d_fwd", ready + wide_out + wide + work, move |b| {
            // Each thread's own copy of the weights as products take them.
            let prepare = || {
                let (ready, rest) = b.scratch().split_at_mut(ready);
                let (w, sw) = ready.split_at_mut(w_words);
                let weight = rounded(b, &io, 0, rest);
                match winograd {
                    Some(winograd) => winograd.prepare(w, weight),
                    None => transpose_weight(w, weight, o, depth),
                }
                if side > 0 {
                    transpose_weight(sw, rounded(b, &io, 2, rest), o, side);
                }
            };
            b.each_prepared(tiles.count(), words(y) * depth, prepare, |t| {
                let (ready, rest) = b.scratch().split_at_mut(ready);
                let (out, rest) = rest.split_at_mut(wide_out);
                let (wide, work) = rest.split_at_mut(wide);
                let ((w, sw), tile) = (ready.split_at(w_words), tiles.get(t));
                let (at, len) = tile.span([y[1], y[2], o]);
                b.write(Sink::set(io.outs[0]), at, len, out, |out| {
                    let (bias, work) = work.split_at_mut(tile.present * o);
                    op.biases(b, &io, tile, bias);
                    // The shortcut is scaled before what is added to it.
                    let add = op.shortcut_tile(b, wide, &io, sw, out, tile, y);
                    if winograd.is_none() {
                        op.direct_tile(b, work, wide, &io, w, out, add, tile, x, y);
                    }
                    let residual =
                        op.input(Input::Residual).map(|i| b.read(io.ins[i], at, len, wide));
                    match winograd {
                        Some(winograd) => {
                            let (factor, bias) = (op.scale, Some(&*bias));
                            let finish = Finish { add, factor, bias, residual };
                            winograd.run_tile(b, work, io.ins[0], w, tile, out, finish);
                        }
                        None => {
                            let per = out.len() / tile.present;
                            for (i, rows) in out.chunks_exact_mut(per).enumerate() {
                                let residual = residual.map(|r| &r[i * per..][..per]);
                                finish(rows, &bias[i * o..][..o], residual, op.scale);
                            }
                        }
                    }
                });
            });
        })
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
        _precision: Precision,
        direction: Direction,
    ) -> usize {
        match direction {
            Direction::Fwd => 0,
            Direction::Bwd => conv2d_kernels::temp_words(self, ins),
        }
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
    fn winograd(&self, x: Shape) -> Option<Winograd> {
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

/// to ← from [o, k] as panels of [k, o]: what products read as vectors of output channels.
fn transpose_weight(to: &mut [f32], from: &[f32], o: usize, k: usize) {
    for o0 in (0..o).step_by(PANEL) {
        let width = PANEL.min(o - o0);
        transpose(&mut to[o0 * k..][..width * k], &from[o0 * k..][..width * k], width, k);
    }
}

/// y [m, o] (=|+=) a [m, k] · panels of [k, o].
fn panels_product(y: &mut [f32], acc: Acc, a: Mat, panels: &[f32], [m, o, k]: [usize; 3]) {
    for o0 in (0..o).step_by(PANEL) {
        let width = PANEL.min(o - o0);
        let w = Mat::rows(&panels[o0 * k..][..width * k], width);
        gemm([m, width, k], &mut y[o0..], o, acc, 1.0, a, w);
    }
}

/// Words of working memory that [`rounded`] takes.
pub(super) fn rounded_words(io: &Io) -> usize {
    match io.precision {
        Precision::Bf16 => io.params.iter().map(|p| p.len).max().unwrap_or(0),
        Precision::Fp32 | Precision::Tf32 => 0,
    }
}

/// Parameter `i` as products take it: rounded, in the first of `work`, where activations are bf16.
pub(super) fn rounded<'a>(b: &'a Bound, io: &Io, i: usize, work: &'a mut [f32]) -> &'a [f32] {
    let w = b.get(io.params[i]);
    if io.precision != Precision::Bf16 {
        return w;
    }
    math::round_to_half(&mut work[..w.len()], w);
    &work[..w.len()]
}

impl Conv2d {
    /// `out` (=|+=) the tile's patches times the weight's panels `w`.
    fn direct_tile(
        &self,
        b: &Bound,
        work: &mut [f32],
        wide: &mut [f32],
        io: &Io,
        w: &[f32],
        out: &mut [f32],
        add: bool,
        tile: Tile,
        x: Shape,
        y: Shape,
    ) {
        let (o, c, depth, image) = (y[3], x[3], self.depth(x), [x[1], x[2], x[3]]);
        let pixels = out.len() / o;
        if let Some(pairs) = self.pairs(x) {
            let (at, len) = tile.span(image);
            let (n, src) = (pairs.pixels(), b.read(io.ins[0], at, len, wide));
            for (p, q) in pairs.all() {
                let acc = if add || q > 0 { Acc::Add } else { Acc::Set };
                let a = Mat::rows(&src[q * c..], n * c);
                for o0 in (0..o).step_by(PANEL) {
                    let width = PANEL.min(o - o0);
                    let w = &w[o0 * depth + pairs.tap(p, q) * c * width..][..c * width];
                    let (to, w) = (&mut out[p * o + o0..], Mat::rows(w, width));
                    gemm([tile.present, width, c], to, n * o, acc, 1.0, a, w);
                }
            }
            return;
        }
        let a = if self.is_point() {
            let (at, len) = tile.span(image);
            b.read(io.ins[0], at, len, wide)
        } else {
            let (cols, image_words) = (&mut work[..pixels * depth], words(x) / x[0]);
            let per = cols.len() / tile.present;
            for (i, cols) in cols.chunks_exact_mut(per).enumerate() {
                let src = b.read(io.ins[0], (tile.image + i) * image_words, image_words, wide);
                patches(cols, src, image, self.window(), (tile.row, tile.rows), y[2]);
            }
            cols
        };
        let acc = if add { Acc::Add } else { Acc::Set };
        panels_product(out, acc, Mat::rows(a, depth), w, [pixels, o, depth]);
    }

    /// Sets `out` to the shortcut with its weight's panels `sw`, times the scale if what is added will be scaled; false
    /// where there is none.
    fn shortcut_tile(
        &self,
        b: &Bound,
        wide: &mut [f32],
        io: &Io,
        sw: &[f32],
        out: &mut [f32],
        tile: Tile,
        y: Shape,
    ) -> bool {
        let (o, side) = (y[3], self.shortcut_channels(&io.shapes));
        let pixels = out.len() / o;
        let scale = if self.winograd(io.shapes[0]).is_some() { self.scale } else { 1.0 };
        let mut first = 0;
        for i in [Input::S1, Input::S2].into_iter().filter_map(|s| self.input(s)) {
            let c = io.shapes[i][3];
            let (at, len) = tile.span([y[1], y[2], c]);
            let a = Mat::rows(b.read(io.ins[i], at, len, wide), c);
            let acc = if first == 0 { Acc::Set } else { Acc::Add };
            for o0 in (0..o).step_by(PANEL) {
                let width = PANEL.min(o - o0);
                let w = Mat::rows(&sw[o0 * side + first * width..][..c * width], width);
                gemm([pixels, width, c], &mut out[o0..], o, acc, scale, a, w);
            }
            first += c;
        }
        first > 0
    }

    /// bias [present, o] of a tile's images: bias + shortcut's bias + emb.
    fn biases(&self, b: &Bound, io: &Io, tile: Tile, bias: &mut [f32]) {
        let o = self.out_channels;
        for (i, bias) in bias.chunks_exact_mut(o).enumerate() {
            bias.copy_from_slice(b.get(io.params[1]));
            if self.shortcut.is_some() {
                math::add(bias, b.get(io.params[3]));
            }
            if let Some(e) = self.input(Input::Emb) {
                math::add(bias, b.get(io.ins[e].part((tile.image + i) * o, o)));
            }
        }
    }

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
            store(b.get_mut(demb.slot), demb.acc, sums);
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

math::vectorized! {
    /// y ← (y + bias + residual) · scale.
    fn finish(rows: &mut [f32], bias: &[f32], residual: Option<&[f32]>, scale: f32) {
        let o = bias.len();
        match residual {
            None => {
                for row in rows.chunks_exact_mut(o) {
                    for (y, &b) in row.iter_mut().zip(bias) {
                        *y = (*y + b) * scale;
                    }
                }
            }
            Some(residual) => {
                for (row, res) in rows.chunks_exact_mut(o).zip(residual.chunks_exact(o)) {
                    for ((y, &b), &r) in row.iter_mut().zip(bias).zip(res) {
                        *y = (*y + b + r) * scale;
                    }
                }
            }
        }
    }
}
