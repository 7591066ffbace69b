//! The convolution's forward on the CPU: tiles of patches, of pixels or of Winograd's squares times weights that each
//! thread lays out for itself, and what is added to them.

use super::shape::{Conv2d, Input};
use super::winograd::Winograd;
use crate::device::cpu::gemm::{Mat, gemm, transpose};
use crate::device::cpu::math;
use crate::device::cpu::patches::{Tile, Tiles, patches};
use crate::device::cpu::winograd::{Finish, PANEL};
use crate::device::{Acc, Bound, Launch, Precision, Sink};
use crate::ops::scratch::{Layout, Prepared};
use crate::ops::{Io, Shape, words};

/// The forward launch.
pub(super) fn forward(op: Conv2d, io: &Io) -> Launch {
    let f = Forward::new(op, io.clone());
    let scratch = f.scratch.words(rounded_words(io));
    let work = words(f.y) * op.depth(f.x);
    Launch::new("conv2d_fwd", scratch, move |b| {
        b.each_prepared(f.tiles.count(), work, || f.prepare(b), |t| f.run(b, f.tiles.get(t)));
    })
}

/// A forward with all that follows from its shapes.
struct Forward {
    op: Conv2d,
    io: Io,
    x: Shape,
    y: Shape,
    winograd: Option<Winograd>,
    tiles: Tiles,
    /// Channels of the shortcut's weight.
    side: usize,
    /// Each thread's own copies of the weights as products take them, of x and of the shortcut. Where they are not float32
    /// a tile's output and an operand, one at a time; its biases; its patches or planes.
    scratch: Prepared<2, 4>,
}

impl Forward {
    fn new(op: Conv2d, io: Io) -> Self {
        let (x, y) = (io.shapes[0], op.out_shape(io.shapes[0]));
        let (o, depth, side) = (y[3], op.depth(x), op.shortcut_channels(&io.shapes));
        let winograd = Winograd::new(&op, x);
        let tiles = winograd.map_or(Tiles::new([y[0], y[1], y[2]], depth), |w| w.tiles);
        let pixels = tiles.pixels();
        let weight = winograd.map_or(o * depth, |w| w.weight_words());
        // Of x, unless Winograd reads it as it is stored: an image, or a tile's pixels.
        let whole = if winograd.is_some() { 0 } else { pixels.max(x[1] * x[2]) * x[3] };
        let beside = io.ins[1..].iter().zip(&io.shapes[1..]);
        let beside = beside.map(|(s, shape)| s.wide(pixels * shape[3]));
        let wide = beside.fold(io.ins[0].wide(whole), usize::max);
        let product = winograd.map_or(pixels * depth, |w| w.planes().words());
        let job = Layout([io.outs[0].wide(pixels * o), wide, tiles.images() * o, product]);
        let scratch = Prepared { ready: Layout([weight, side * o]), job };
        Forward { op, io, x, y, winograd, tiles, side, scratch }
    }

    fn prepare(&self, b: &Bound) {
        let ([w, sw], rest) = self.scratch.ready.cut(b.scratch());
        let weight = rounded(b, &self.io, 0, rest);
        match self.winograd {
            Some(winograd) => winograd.prepare(w, weight),
            None => transpose_weight(w, weight, self.y[3], self.op.depth(self.x)),
        }
        if self.side > 0 {
            transpose_weight(sw, rounded(b, &self.io, 2, rest), self.y[3], self.side);
        }
    }

    fn run(&self, b: &Bound, tile: Tile) {
        let (io, y, factor) = (&self.io, self.y, self.op.scale);
        let ([w, sw], [out, wide, bias, work]) = self.scratch.cut(b.scratch());
        let bias = &mut bias[..tile.present * y[3]];
        self.biases(b, tile, bias);
        let (at, len) = tile.span([y[1], y[2], y[3]]);
        b.write(Sink::set(io.outs[0]), at, len, out, |out| {
            // The shortcut is scaled before what is added to it.
            let acc = self.shortcut(b, wide, sw, out, tile);
            if self.winograd.is_none() {
                self.product(b, [wide, work], w, out, acc, tile);
            }
            let residual = self.op.input(Input::Residual);
            let residual = residual.map(|i| b.read(io.ins[i], at, len, wide));
            if let Some(winograd) = self.winograd {
                let (add, bias) = (acc == Acc::Add, Some(&*bias));
                let finish = Finish { add, factor, bias, residual };
                return winograd.run_tile(b, work, io.ins[0], w, tile, out, finish);
            }
            let per = out.len() / tile.present;
            for (i, rows) in out.chunks_exact_mut(per).enumerate() {
                let residual = residual.map(|r| &r[i * per..][..per]);
                finish(rows, &bias[i * y[3]..][..y[3]], residual, factor);
            }
        });
    }

    /// `out` (=|+=) the tile's patches times the weight's panels `w`.
    ///
    /// - `wide`, `cols`: for what is read, and for its patches.
    fn product(
        &self,
        b: &Bound,
        [wide, cols]: [&mut [f32]; 2],
        w: &[f32],
        out: &mut [f32],
        acc: Acc,
        tile: Tile,
    ) {
        let (op, x, [_, _, width, o]) = (&self.op, self.x, self.y);
        let (c, depth, image) = (x[3], op.depth(x), [x[1], x[2], x[3]]);
        let (pixels, (at, len)) = (out.len() / o, tile.span(image));
        if let Some(pairs) = op.pairs(x) {
            let (n, src) = (pairs.pixels(), b.read(self.io.ins[0], at, len, wide));
            for (p, q) in pairs.all() {
                let acc = if q > 0 { Acc::Add } else { acc };
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
        let a = if op.is_point() {
            b.read(self.io.ins[0], at, len, wide)
        } else {
            let (cols, image_words) = (&mut cols[..pixels * depth], words(x) / x[0]);
            let per = cols.len() / tile.present;
            for (i, cols) in cols.chunks_exact_mut(per).enumerate() {
                let at = (tile.image + i) * image_words;
                let src = b.read(self.io.ins[0], at, image_words, wide);
                patches(cols, src, image, op.window(), (tile.row, tile.rows), width);
            }
            cols
        };
        for o0 in (0..o).step_by(PANEL) {
            let width = PANEL.min(o - o0);
            let w = Mat::rows(&w[o0 * depth..][..width * depth], width);
            gemm([pixels, width, depth], &mut out[o0..], o, acc, 1.0, Mat::rows(a, depth), w);
        }
    }

    /// Sets `out` to the shortcut with its weight's panels `sw`, times the scale if what is added will be scaled; returns
    /// what to do with more: to set it where there is no shortcut.
    fn shortcut(
        &self,
        b: &Bound,
        wide: &mut [f32],
        sw: &[f32],
        out: &mut [f32],
        tile: Tile,
    ) -> Acc {
        let ([_, h, w, o], side, io) = (self.y, self.side, &self.io);
        let pixels = out.len() / o;
        let scale = if self.winograd.is_some() { self.op.scale } else { 1.0 };
        let (mut first, mut acc) = (0, Acc::Set);
        for i in self.op.sides() {
            let c = io.shapes[i][3];
            let (at, len) = tile.span([h, w, c]);
            let a = Mat::rows(b.read(io.ins[i], at, len, wide), c);
            for o0 in (0..o).step_by(PANEL) {
                let width = PANEL.min(o - o0);
                let w = Mat::rows(&sw[o0 * side + first * width..][..c * width], width);
                gemm([pixels, width, c], &mut out[o0..], o, acc, scale, a, w);
            }
            first += c;
            acc = Acc::Add;
        }
        acc
    }

    /// bias [present, o] of a tile's images: bias + shortcut's bias + emb.
    fn biases(&self, b: &Bound, tile: Tile, bias: &mut [f32]) {
        let (op, io, o) = (&self.op, &self.io, self.y[3]);
        for (i, bias) in bias.chunks_exact_mut(o).enumerate() {
            bias.copy_from_slice(b.get(io.params[1]));
            if op.shortcut.is_some() {
                math::add(bias, b.get(io.params[3]));
            }
            if let Some(e) = op.input(Input::Emb) {
                let (row, first) = (io.shapes[e][3], op.emb_columns().start);
                math::add(bias, b.get(io.ins[e].part((tile.image + i) * row + first, o)));
            }
        }
    }
}

/// to ← from [o, k] as panels of [k, o]: what products read as vectors of output channels.
fn transpose_weight(to: &mut [f32], from: &[f32], o: usize, k: usize) {
    for o0 in (0..o).step_by(PANEL) {
        let width = PANEL.min(o - o0);
        transpose(&mut to[o0 * k..][..width * k], &from[o0 * k..][..width * k], width, k);
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
