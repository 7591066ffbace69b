//! conv2d: y = (conv(x) + bias + emb + residual + shortcut) · scale, all in one pass over y.
//!
//! - x [N, H, W, C]; weight [O, k, k, C], bias [O]; y [N, Ho, Wo, O].
//! - emb [N, 1, 1, O]: one value per image and channel. residual [N, Ho, Wo, O].
//! - shortcut: a 1×1 convolution of [s1, s2] (channels concatenated, never copied) with weight [O, C1 + C2 + off]
//!   and bias [O]; `off` channels are those of a skip that is switched off: zeros, neither read nor stored.

use super::conv2d_bwd::{Dgrad, Wgrad};
use super::conv2d_kernels;
use super::conv2d_mma::Ways;
use super::conv2d_winograd::{Winograd, WinogradWgrad};
use super::pack::Pack;
use super::sums::{store, sum_images};
use super::{Direction, Grads, Io, Op, Reads, Shape, words};
use crate::device::cpu::gemm::{Mat, gemm};
use crate::device::cpu::math;
use crate::device::cpu::patches::{Tile, Tiles, Window, patches};
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

    fn window(&self) -> Window {
        Window { kernel: self.kernel, stride: self.stride, pad: self.pad as isize }
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
        let o = self.out_channels;
        match direction {
            Direction::Fwd => self.weight_words(ins[0]) + o * self.shortcut_channels(ins),
            Direction::Bwd => {
                let wgrad = self.winograd_wgrad(ins[0]).map_or(0, |w| w.temp_words());
                self.flipped_words(ins[0]) + wgrad + ins[0][0] * o
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
        let (w, winograd) = (io.temp.part(0, self.weight_words(x)), self.winograd(x));
        let sw = io.temp.part(w.len, side * o);
        let tiles = Tiles::new([y[0], y[1], y[2]], depth);
        let pixels = winograd.map_or(tiles.pixels(), |w| w.tiles.pixels());
        let product = winograd.map_or(pixels * (depth + o), |w| w.scratch_words());
        let scratch = product.max(pixels * (side + o) + o);
        Launch::new("conv2d_fwd", scratch, move |b| {
            if side > 0 {
                transpose_weight(b, sw, io.params[2], o, side);
            }
            if let Some(winograd) = winograd {
                winograd.prepare(b, w, io.params[0]);
                let to = Sink { slot: io.outs[0], acc: Acc::Set };
                let finish = |tile| op.finish_tile(b, &io, sw, tile, y);
                return winograd.run(b, io.ins[0], w, to, 1.0, finish);
            }
            transpose_weight(b, w, io.params[0], o, depth);
            b.each(tiles.count(), words(y) * depth, |t| {
                op.direct_tile(b, &io, w, tiles.get(t), x, y);
                op.finish_tile(b, &io, sw, tiles.get(t), y);
            });
        })
    }

    fn bwd(&self, io: &Io, grads: &Grads) -> Launch {
        let (op, io, grads) = (*self, io.clone(), grads.clone());
        let (x, y) = (io.shapes[0], self.out_shape(io.shapes[0]));
        let dy = grads.outs[0].expect("conv2d has one output");
        let (dgrad, wgrad) = (Dgrad::new(&op, x, y), Wgrad::new([y[0], y[1], y[2]], x[3], y[3]));
        let (reversed, winograd) = (self.winograd(x).map(|w| w.reversed()), self.winograd_wgrad(x));
        let side = |which| {
            let c = op.input(which).map_or(0, |i| io.shapes[i][3]);
            Tiles::new([y[0], y[1], y[2]], y[3].max(c)).pixels() * (y[3] + c)
        };
        let scratch = (dgrad.scratch_words())
            .max(wgrad.scratch_words())
            .max(reversed.map_or(0, |w| w.scratch_words()))
            .max(side(Input::S1))
            .max(side(Input::S2));
        let flipped = io.temp.part(0, self.flipped_words(x));
        let planes = io.temp.part(flipped.len, winograd.map_or(0, |w| w.temp_words()));
        let sums = io.temp.part(flipped.len + planes.len, y[0] * y[3]);
        Launch::new("conv2d_bwd", scratch, move |b| {
            op.bwd_bias(b, &grads, dy, y, sums);
            if let Some(sink) = sink_of(&op, &grads, Input::Residual) {
                pass(b, sink, dy, op.scale);
            }
            match (grads.ins[0], reversed) {
                (Some(dx), Some(winograd)) => {
                    winograd.prepare_flipped(b, flipped, io.params[0]);
                    winograd.run(b, dy, flipped, dx, op.scale, |_| ());
                }
                (Some(dx), None) => dgrad.run(b, &op, dx, dy, io.params[0], flipped),
                (None, _) => {}
            }
            let dw = grads.params[0];
            match winograd {
                Some(winograd) => winograd.run(b, op.scale, dw, dy, io.ins[0], planes),
                None => {
                    wgrad.run(b, op.scale, dw, dy, io.ins[0], x, op.window(), op.depth(x));
                }
            }
            op.bwd_shortcut(b, &io, &grads, dy, y, &wgrad);
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

    /// The fast way of the forward and of the input's gradient, where the shape suits it.
    fn winograd(&self, x: Shape) -> Option<Winograd> {
        Winograd::new(x, self.out_channels).filter(|_| self.is_plain())
    }

    fn winograd_wgrad(&self, x: Shape) -> Option<WinogradWgrad> {
        WinogradWgrad::new(x, self.out_channels).filter(|_| self.is_plain())
    }

    /// Words of the weights as the forward reads them.
    fn weight_words(&self, x: Shape) -> usize {
        let direct = self.out_channels * self.depth(x);
        self.winograd(x).map_or(direct, |w| w.weight_words())
    }

    /// Words of the weights as the input's gradient reads them.
    fn flipped_words(&self, x: Shape) -> usize {
        let direct = (self.out_channels * self.depth(x)).next_multiple_of(16);
        self.winograd(x).map_or(direct, |w| w.reversed().weight_words())
    }
}

fn sink_of(op: &Conv2d, grads: &Grads, which: Input) -> Option<Sink> {
    grads.ins[op.input(which)?]
}

/// to [k, o] ← from [o, k]: rows that a product reads as contiguous vectors of output channels.
fn transpose_weight(b: &Bound, to: Slot, from: Slot, o: usize, k: usize) {
    const STRIP: usize = 64;
    let src = b.get(from);
    b.each(k.div_ceil(STRIP), o * k, |job| {
        let k0 = job * STRIP;
        let cols = STRIP.min(k - k0);
        let dst = b.get_mut(to.part(k0 * o, cols * o));
        for o0 in (0..o).step_by(16) {
            for c in 0..cols {
                for r in o0..(o0 + 16).min(o) {
                    dst[c * o + r] = src[r * k + k0 + c];
                }
            }
        }
    });
}

/// dst (=|+=) scale · src.
fn pass(b: &Bound, dst: Sink, src: Slot, scale: f32) {
    const CHUNK: usize = 16 * 1024;
    b.each(src.len.div_ceil(CHUNK), src.len, |i| {
        let len = CHUNK.min(src.len - i * CHUNK);
        let (d, s) = (b.get_mut(dst.slot.part(i * CHUNK, len)), b.get(src.part(i * CHUNK, len)));
        match dst.acc {
            Acc::Set => math::scaled(d, scale, s),
            Acc::Add => math::add_scaled(d, scale, s),
        }
    });
}

/// Pixels `tile` covers of a tensor with `channels` and `h`×`w` pixels an image.
pub(super) fn tile_part(s: Slot, tile: Tile, [h, w, c]: [usize; 3]) -> Slot {
    let rows = if tile.images > 1 { tile.present * h } else { tile.rows };
    s.part(((tile.image * h + tile.row) * w) * c, rows * w * c)
}

/// The tile's rows of a same-size tensor as a matrix of `pixels` rows: in place if the tile is full, else a
/// zero-padded copy in `pad`.
fn tile_rows<'a>(part: &'a [f32], pad: &'a mut [f32], words: usize) -> &'a [f32] {
    if part.len() == words {
        return part;
    }
    pad[..part.len()].copy_from_slice(part);
    pad[part.len()..words].fill(0.0);
    &pad[..words]
}

/// Runs `product` on the tile's piece of `out` [pixels, c]; a tile with absent images goes through `pad`.
pub(super) fn tile_product(
    out: &mut [f32],
    pad: &mut [f32],
    words: usize,
    product: impl Fn(&mut [f32]),
) {
    if out.len() == words {
        return product(out);
    }
    pad[..out.len()].copy_from_slice(out);
    pad[out.len()..words].fill(0.0);
    product(&mut pad[..words]);
    out.copy_from_slice(&pad[..out.len()]);
}

impl Conv2d {
    /// The tile's patches times the transposed weight `w`.
    fn direct_tile(&self, b: &Bound, io: &Io, w: Slot, tile: Tile, x: Shape, y: Shape) {
        let (o, depth, image) = (y[3], self.depth(x), [x[1], x[2], x[3]]);
        let pixels = tile.images * tile.rows * y[2];
        let (cols, pad) = b.scratch().split_at_mut(pixels * depth);
        let per = pixels / tile.images * depth;
        if self.kernel == 1 && self.stride == 1 {
            let part = b.get(tile_part(io.ins[0], tile, image));
            cols[..part.len()].copy_from_slice(part);
        } else {
            let image_words = words(x) / x[0];
            for i in 0..tile.present {
                let src = b.get(io.ins[0].part((tile.image + i) * image_words, image_words));
                let rows = (tile.row, tile.rows);
                patches(&mut cols[i * per..][..per], src, image, self.window(), rows, y[2]);
            }
        }
        cols[tile.present * per..].fill(0.0);
        let out = b.get_mut(tile_part(io.outs[0], tile, [y[1], y[2], o]));
        let (a, m) = (Mat::rows(cols, depth), Mat::rows(b.get(w), o));
        // Set before it is read: only copied where the tile is not full.
        out.fill(0.0);
        tile_product(out, pad, pixels * o, |c| gemm([pixels, o, depth], c, o, Acc::Set, 1.0, a, m));
    }

    /// What is added to the convolution: the shortcut with its transposed weight `sw`, then the epilogue.
    fn finish_tile(&self, b: &Bound, io: &Io, sw: Slot, tile: Tile, y: Shape) {
        let o = y[3];
        let pixels = tile.images * tile.rows * y[2];
        let out = b.get_mut(tile_part(io.outs[0], tile, [y[1], y[2], o]));
        let mut first = 0;
        for i in [Input::S1, Input::S2].into_iter().filter_map(|s| self.input(s)) {
            let c = io.shapes[i][3];
            let (side_pad, pad) = b.scratch().split_at_mut(pixels * c);
            let part = b.get(tile_part(io.ins[i], tile, [y[1], y[2], c]));
            let a = Mat::rows(tile_rows(part, side_pad, pixels * c), c);
            let m = Mat::rows(b.get(sw.part(first * o, c * o)), o);
            tile_product(out, pad, pixels * o, |y| gemm([pixels, o, c], y, o, Acc::Add, 1.0, a, m));
            first += c;
        }
        self.epilogue(b, io, tile, y, out);
    }

    /// out ← (out + bias + shortcut bias + emb + residual) · scale.
    fn epilogue(&self, b: &Bound, io: &Io, tile: Tile, y: Shape, out: &mut [f32]) {
        let o = y[3];
        let per = out.len() / tile.present;
        let side_bias = self.shortcut.map(|_| b.get(io.params[3]));
        let residual =
            self.input(Input::Residual).map(|i| b.get(tile_part(io.ins[i], tile, [y[1], y[2], o])));
        let bias = &mut b.scratch()[..o];
        for (i, rows) in out.chunks_exact_mut(per).enumerate() {
            bias.copy_from_slice(b.get(io.params[1]));
            if let Some(side) = side_bias {
                math::add(bias, side);
            }
            if let Some(e) = self.input(Input::Emb) {
                math::add(bias, b.get(io.ins[e].part((tile.image + i) * o, o)));
            }
            match residual {
                Some(r) => finish_residual(rows, bias, &r[i * per..][..per], self.scale),
                None => finish(rows, bias, self.scale),
            }
        }
    }

    /// Gradients of both biases and of emb: sums over pixels per image, then over images in order.
    fn bwd_bias(&self, b: &Bound, grads: &Grads, dy: Slot, y: Shape, sums: Slot) {
        let (o, per) = (y[3], y[1] * y[2] * y[3]);
        b.each(y[0], words(y), |n| {
            let sum = b.get_mut(sums.part(n * o, o));
            math::sum_rows(sum, b.get(dy.part(n * per, per)));
            sum.iter_mut().for_each(|s| *s *= self.scale);
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

    fn bwd_shortcut(&self, b: &Bound, io: &Io, grads: &Grads, dy: Slot, y: Shape, wgrad: &Wgrad) {
        let Some(shortcut) = self.shortcut else { return };
        let (o, total) = (y[3], self.shortcut_channels(&io.shapes));
        let point = Window { kernel: 1, stride: 1, pad: 0 };
        let mut first = 0;
        for i in [Input::S1, Input::S2].into_iter().filter_map(|s| self.input(s)) {
            let s = io.shapes[i];
            let c = s[3];
            let dw = Sink { slot: grads.params[2].slot, ..grads.params[2] };
            let wgrad = wgrad.columns(first, c);
            wgrad.run(b, self.scale, dw, dy, io.ins[i], s, point, total);
            if let Some(ds) = grads.ins[i] {
                let tiles = Tiles::new([y[0], y[1], y[2]], o.max(c));
                b.each(tiles.count(), words(y) * c, |t| {
                    let tile = tiles.get(t);
                    let pixels = tile.images * tile.rows * y[2];
                    let (a_pad, c_pad) = b.scratch().split_at_mut(pixels * o);
                    let a =
                        tile_rows(b.get(tile_part(dy, tile, [y[1], y[2], o])), a_pad, pixels * o);
                    let w = Mat::rows(&b.get(io.params[2])[first..], total);
                    let out = b.get_mut(tile_part(ds.slot, tile, [y[1], y[2], c]));
                    if ds.acc == Acc::Set {
                        out.fill(0.0);
                    }
                    tile_product(out, c_pad, pixels * c, |d| {
                        gemm([pixels, c, o], d, c, ds.acc, self.scale, Mat::rows(a, o), w)
                    });
                });
            }
            first += c;
        }
        if shortcut.off > 0 && grads.params[2].acc == Acc::Set {
            for row in b.get_mut(grads.params[2].slot).chunks_exact_mut(total) {
                row[first..].fill(0.0);
            }
        }
    }
}

math::vectorized! {
    fn finish(rows: &mut [f32], bias: &[f32], scale: f32) {
        for row in rows.chunks_exact_mut(bias.len()) {
            for (y, &b) in row.iter_mut().zip(bias) {
                *y = (*y + b) * scale;
            }
        }
    }

    fn finish_residual(rows: &mut [f32], bias: &[f32], residual: &[f32], scale: f32) {
        let o = bias.len();
        for (row, res) in rows.chunks_exact_mut(o).zip(residual.chunks_exact(o)) {
            for ((y, &b), &r) in row.iter_mut().zip(bias).zip(res) {
                *y = (*y + b + r) * scale;
            }
        }
    }
}
