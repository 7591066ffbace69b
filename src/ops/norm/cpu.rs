//! The norm on the CPU: one pass over each image.

use super::shape::{Norm, keep_threshold};
use crate::device::cpu::math::{self, sigmoid, vectorized};
use crate::device::cpu::resample::Resampler;
use crate::device::{Acc, Bound, Dtype, Launch, Sink, StepArgs};
use crate::ops::scratch::Layout;
use crate::ops::sums::sum_images;
use crate::ops::{Grads, Io};
use crate::rng::{Stream, philox, tag};

const EPS: f32 = 1e-6;

/// The forward launch: y = f(x), the statistics, and what is resampled.
pub(super) fn forward(op: Norm, io: &Io) -> Launch {
    let io = io.clone();
    let x = io.shapes[0];
    let (c, hw) = (op.channels(&io.shapes), x[1] * x[2]);
    let [ho, wo] = op.out_size(x);
    let resampler = op.resample.map(|r| Resampler::new(r, [x[1], x[2]]));
    let wide = io.outs[0].wide(ho * wo * c);
    let scratch = Layout([hw * c, hw * c, c, c, c, c, wide]);
    Launch::new("norm_fwd", scratch.words(), move |b| {
        b.each(x[0], 8 * x[0] * hw * c, |n| {
            let ([joined, act, scale, shift, mean, sum, work], _) = scratch.cut(b.scratch());
            let image = join(b, &io, n, joined, c);
            let g = op.groups;
            let stats = b.get_mut(io.outs[1].part(n * 2 * g, 2 * g));
            statistics(stats, image, c, sum, mean);
            let (gamma, beta) = (b.get(io.params[0]), b.get(io.params[1]));
            coefficients(scale, shift, stats, gamma, beta);
            let activate = |to: &mut [f32]| {
                affine(to, image, scale, shift, op.silu);
                if let Some((p, layer)) = op.dropout {
                    dropout(to, p, layer, n, b.args);
                }
            };
            let (at, len) = (n * ho * wo * c, ho * wo * c);
            let (y, xr) = (Sink::set(io.outs[0]), io.outs.get(2).map(|&s| Sink::set(s)));
            match &resampler {
                None => b.write(y, at, len, work, activate),
                Some(r) => {
                    activate(act);
                    b.write(y, at, len, work, |y| r.apply(y, Acc::Set, act, c));
                    let xr = xr.expect("resampling has a third output");
                    b.write(xr, at, len, work, |xr| r.apply(xr, Acc::Set, image, c));
                }
            }
        });
    })
}

/// Gradients of the inputs, gamma and beta; sums over images in order.
pub(super) fn backward(op: Norm, io: &Io, grads: &Grads) -> Launch {
    let (io, grads) = (io.clone(), grads.clone());
    let x = io.shapes[0];
    let (c, hw) = (op.channels(&io.shapes), x[1] * x[2]);
    let [ho, wo] = op.out_size(x);
    let back = op.resample.map(|r| Resampler::transposed(r, [x[1], x[2]]));
    let dy = grads.outs[0].expect("norm's output has a gradient");
    let wide = dy.wide(c * hw.max(ho * wo));
    let scratch = Layout([hw * c, hw * c, c, c, c, wide, dy.wide(hw * c)]);
    let sums = op.image_sums(&io.shapes).slots(io.temp);
    Launch::new("norm_bwd", scratch.words(), move |b| {
        b.each(x[0], 12 * x[0] * hw * c, |n| {
            let ([joined, g, p, q, r, work, work_dx], _) = scratch.cut(b.scratch());
            let image = join(b, &io, n, joined, c);
            let stats = b.get(io.outs[1].part(n * 2 * op.groups, 2 * op.groups));
            let (gamma, beta) = (b.get(io.params[0]), b.get(io.params[1]));
            let dy_n = b.read(dy, n * ho * wo * c, ho * wo * c, work);
            match &back {
                Some(back) => back.apply(g, Acc::Set, dy_n, c),
                None => g.copy_from_slice(dy_n),
            }
            if let Some((p, layer)) = op.dropout {
                dropout(g, p, layer, n, b.args);
            }
            coefficients(p, q, stats, gamma, beta);
            let [dgamma, dbeta] = sums.map(|s| b.get_mut(s.part(n * c, c)));
            through_silu(g, image, p, q, op.silu);
            channel_sums(dgamma, dbeta, g, image);
            input_coefficients(p, q, r, dgamma, dbeta, stats, gamma, hw);
            input_gradient(g, image, p, q, r);
            let dxr = grads.outs.get(2).copied().flatten();
            if let (Some(back), Some(dxr)) = (&back, dxr) {
                let dxr = b.read(dxr, n * ho * wo * c, ho * wo * c, work);
                back.apply(g, Acc::Add, dxr, c);
            }
            scatter(b, &io, &grads, n, g, c, work_dx);
        });
        for (sink, sums) in grads.params.iter().zip(sums) {
            sum_images(b.get_mut(sink.slot), sink.acc, b.get(sums));
        }
    })
}

/// Image `n` of the concatenation: in place for a single float32 input, else copied to `joined`.
fn join<'a>(b: &'a Bound, io: &Io, n: usize, joined: &'a mut [f32], c: usize) -> &'a [f32] {
    let hw = io.shapes[0][1] * io.shapes[0][2];
    if io.shapes.len() == 1 && io.shapes[0][3] == c {
        return b.read(io.ins[0], n * hw * c, hw * c, joined);
    }
    let mut first = 0;
    for (i, shape) in io.shapes.iter().enumerate() {
        let own = shape[3];
        let to = joined.chunks_exact_mut(c).map(|pixel| &mut pixel[first..first + own]);
        let (slot, at, len) = (io.ins[i], n * hw * own, hw * own);
        match slot.dtype {
            Dtype::F32 => to
                .zip(b.get(slot.part(at, len)).chunks_exact(own))
                .for_each(|(to, from)| to.copy_from_slice(from)),
            Dtype::Bf16 => to
                .zip(b.get_half(slot, at, len).chunks_exact(own))
                .for_each(|(to, from)| math::widen(to, from)),
        }
        first += own;
    }
    if first < c {
        joined.chunks_exact_mut(c).for_each(|pixel| pixel[first..].fill(0.0));
    }
    joined
}

/// Hands the gradient of the concatenation back to its inputs.
fn scatter(b: &Bound, io: &Io, grads: &Grads, n: usize, g: &[f32], c: usize, work: &mut [f32]) {
    let mut first = 0;
    for (shape, sink) in io.shapes.iter().zip(&grads.ins) {
        let (own, words) = (shape[3], shape[1] * shape[2] * shape[3]);
        if let &Some(sink) = sink {
            b.write(sink, n * words, words, work, |to| {
                for (to, from) in to.chunks_exact_mut(own).zip(g.chunks_exact(c)) {
                    let from = &from[first..first + own];
                    match sink.acc {
                        Acc::Set => to.copy_from_slice(from),
                        Acc::Add => to.iter_mut().zip(from).for_each(|(t, f)| *t += f),
                    }
                }
            });
        }
        first += own;
    }
}

/// (mean, 1/√(variance + eps)) per group; two passes, so that no digits cancel.
fn statistics(stats: &mut [f32], x: &[f32], c: usize, sum: &mut [f32], mean: &mut [f32]) {
    let groups = stats.len() / 2;
    let per = c / groups;
    let count = (x.len() / groups) as f32;
    math::sum_rows(sum, x);
    for g in 0..groups {
        let m = sum[g * per..][..per].iter().sum::<f32>() / count;
        stats[2 * g] = m;
        mean[g * per..][..per].fill(m);
    }
    squares(sum, x, mean);
    for g in 0..groups {
        let variance = sum[g * per..][..per].iter().sum::<f32>() / count;
        stats[2 * g + 1] = 1.0 / (variance + EPS).sqrt();
    }
}

/// y = scale·x + shift per channel, from the statistics.
fn coefficients(scale: &mut [f32], shift: &mut [f32], stats: &[f32], gamma: &[f32], beta: &[f32]) {
    let per = gamma.len() / (stats.len() / 2);
    for ch in 0..gamma.len() {
        let (mean, rstd) = (stats[ch / per * 2], stats[ch / per * 2 + 1]);
        scale[ch] = rstd * gamma[ch];
        shift[ch] = beta[ch] - mean * scale[ch];
    }
}

/// dx = p·g + q·x + r per channel. On entry dgamma holds Σ g·x, on return Σ g·x̂.
fn input_coefficients(
    p: &mut [f32],
    q: &mut [f32],
    r: &mut [f32],
    dgamma: &mut [f32],
    dbeta: &[f32],
    stats: &[f32],
    gamma: &[f32],
    hw: usize,
) {
    let per = gamma.len() / (stats.len() / 2);
    for g in 0..stats.len() / 2 {
        let (mean, rstd) = (stats[2 * g], stats[2 * g + 1]);
        let (mut s1, mut s2) = (0.0, 0.0);
        for ch in g * per..(g + 1) * per {
            dgamma[ch] = rstd * (dgamma[ch] - mean * dbeta[ch]);
            s1 += gamma[ch] * dbeta[ch];
            s2 += gamma[ch] * dgamma[ch];
        }
        let inverse = rstd / (hw * per) as f32;
        for ch in g * per..(g + 1) * per {
            p[ch] = rstd * gamma[ch];
            q[ch] = -inverse * rstd * s2;
            r[ch] = inverse * (mean * rstd * s2 - s1);
        }
    }
}

vectorized! {
    /// `sum[c]` = Σ (x − `mean[c]`)².
    fn squares(sum: &mut [f32], x: &[f32], mean: &[f32]) {
        sum.fill(0.0);
        for row in x.chunks_exact(sum.len()) {
            for ((s, &v), &m) in sum.iter_mut().zip(row).zip(mean) {
                *s = (v - m).mul_add(v - m, *s);
            }
        }
    }

    fn affine(y: &mut [f32], x: &[f32], scale: &[f32], shift: &[f32], silu: bool) {
        let c = scale.len();
        for (y, x) in y.chunks_exact_mut(c).zip(x.chunks_exact(c)) {
            if silu {
                for (((y, &x), &a), &b) in y.iter_mut().zip(x).zip(scale).zip(shift) {
                    let u = a.mul_add(x, b);
                    *y = u * sigmoid(u);
                }
            } else {
                for (((y, &x), &a), &b) in y.iter_mut().zip(x).zip(scale).zip(shift) {
                    *y = a.mul_add(x, b);
                }
            }
        }
    }

    /// g ← g · silu'(scale·x + shift).
    fn through_silu(g: &mut [f32], x: &[f32], scale: &[f32], shift: &[f32], silu: bool) {
        if !silu {
            return;
        }
        let c = scale.len();
        for (g, x) in g.chunks_exact_mut(c).zip(x.chunks_exact(c)) {
            for (((g, &x), &a), &b) in g.iter_mut().zip(x).zip(scale).zip(shift) {
                let u = a.mul_add(x, b);
                let s = sigmoid(u);
                *g *= s * u.mul_add(1.0 - s, 1.0);
            }
        }
    }

    /// gx = Σ g·x and gs = Σ g over pixels.
    fn channel_sums(gx: &mut [f32], gs: &mut [f32], g: &[f32], x: &[f32]) {
        gx.fill(0.0);
        gs.fill(0.0);
        let c = gx.len();
        for (g, x) in g.chunks_exact(c).zip(x.chunks_exact(c)) {
            for (((gx, gs), &g), &x) in gx.iter_mut().zip(gs.iter_mut()).zip(g).zip(x) {
                *gx = g.mul_add(x, *gx);
                *gs += g;
            }
        }
    }

    /// g ← p·g + q·x + r.
    fn input_gradient(g: &mut [f32], x: &[f32], p: &[f32], q: &[f32], r: &[f32]) {
        let c = p.len();
        for (g, x) in g.chunks_exact_mut(c).zip(x.chunks_exact(c)) {
            for ((((g, &x), &p), &q), &r) in g.iter_mut().zip(x).zip(p).zip(q).zip(r) {
                *g = p.mul_add(*g, q.mul_add(x, r));
            }
        }
    }

    /// Multiplies 16 blocks of 8 elements by their dropout factors: 0, or 65536 / threshold.
    fn drop_blocks(y: &mut [f32], first_block: u32, counter: [u32; 3], seed: u64, threshold: u32) {
        let factor = 65536.0 / threshold as f32;
        for (y, i) in y.chunks_mut(128).zip(0..) {
            let mut words = [[0_u32; 4]; 16];
            for (w, lane) in words.iter_mut().zip(0..) {
                let block = first_block + 16 * i + lane;
                *w = philox([block, counter[0], counter[1], counter[2]], seed);
            }
            let mut factors = [0.0_f32; 128];
            for (f, w) in factors.chunks_exact_mut(8).zip(&words) {
                for (j, f) in f.iter_mut().enumerate() {
                    let half = w[j / 2] >> (16 * (j % 2)) & 0xffff;
                    *f = if half < threshold { factor } else { 0.0 };
                }
            }
            for (y, f) in y.iter_mut().zip(&factors) {
                *y *= f;
            }
        }
    }
}

/// y ← y · mask of image `n` of the recording.
fn dropout(y: &mut [f32], p: f64, layer: u32, n: usize, args: StepArgs) {
    let threshold = keep_threshold(p);
    let counter = [args.first_image + n as u32, args.step, tag(Stream::Dropout, layer)];
    drop_blocks(y, 0, counter, args.seed, threshold);
}
