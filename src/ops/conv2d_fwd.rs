//! The convolution's forward: tiles of patches, of pixels or of Winograd's squares times weights that each thread lays
//! out for itself, and what is added to them.

use super::conv2d::{Conv2d, Input};
use super::{Io, Shape, words};
use crate::device::cpu::gemm::{Mat, gemm, transpose};
use crate::device::cpu::math;
use crate::device::cpu::patches::{Tile, Tiles, patches};
use crate::device::cpu::winograd::{Finish, PANEL};
use crate::device::{Acc, Bound, Launch, Precision, Sink};

impl Conv2d {
    /// The forward launch.
    pub(super) fn forward(&self, io: &Io) -> Launch {
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
                let (row, first) = (io.shapes[e][3], self.emb_columns().start);
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
