//! attention: one head over the pixels of an image, y = softmax(q·k/√C)·v.
//!
//! qkv [N, H, W, 3C] with channels [q | k | v]; y [N, H, W, C]; the weights [N, 1, T, T], T = H·W, are kept for
//! the backward. FLOP: two products forward, four backward.

mod gpu;

use gpu::sizes;

use super::golden::{Described, GoldenCase, GoldenIn, GoldenOut};
use super::scratch::Layout;
use super::{Direction, Grads, Io, Op, Reads, Shape};
use crate::device::cpu::gemm::{Mat, gemm};
use crate::device::cpu::math::{exp, vectorized};
use crate::device::{Acc, Dtype, Kernel, Launch, Precision, Sink, Target};
use anyhow::{Result, ensure};

#[derive(Debug, Clone, Copy)]
pub struct Attention;

impl Attention {
    /// The op of a golden's case.
    pub fn golden(_: &Described) -> GoldenCase {
        let outs = [GoldenOut::Differentiated("y"), GoldenOut::Kept];
        GoldenCase::new(Attention, &[GoldenIn::Activation("qkv")], &[], &outs)
    }
}

impl Op for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn outputs(&self, ins: &[Shape]) -> Result<Vec<Shape>> {
        ensure!(
            ins.len() == 1 && ins[0][3].is_multiple_of(3),
            "attention: one input [N, H, W, 3C] wanted, {ins:?} given"
        );
        let (n, t, c) = sizes(ins);
        Ok(vec![[n, ins[0][1], ins[0][2], c], [n, 1, t, t]])
    }

    fn dtypes(&self, precision: Precision, outs: usize) -> Vec<Dtype> {
        vec![precision.storage(); outs]
    }

    fn reads(&self, _ins: &[Shape]) -> Reads {
        Reads { ins: vec![0], outs: vec![1] }
    }

    fn flop(&self, ins: &[Shape]) -> u64 {
        let (n, t, c) = sizes(ins);
        4 * (n * t * t * c) as u64
    }

    fn fwd(&self, io: &Io) -> Launch {
        let io = io.clone();
        let (n, t, c) = sizes(&io.shapes);
        let wide = [io.ins[0].wide(3 * t * c), io.outs[1].wide(t * t), io.outs[0].wide(t * c)];
        let scratch = Layout(wide);
        Launch::new("attention_fwd", scratch.words(), move |b| {
            b.each(n, 4 * n * t * t * c, |i| {
                let ([work_qkv, work_w, work_y], _) = scratch.cut(b.scratch());
                let qkv = b.read(io.ins[0], i * t * 3 * c, t * 3 * c, work_qkv);
                let (k, v) = (Mat::cols(&qkv[c..], 3 * c), Mat::rows(&qkv[2 * c..], 3 * c));
                b.write(Sink::set(io.outs[1]), i * t * t, t * t, work_w, |w| {
                    let scale = 1.0 / (c as f32).sqrt();
                    gemm([t, t, c], w, t, Acc::Set, scale, Mat::rows(qkv, 3 * c), k);
                    w.chunks_exact_mut(t).for_each(softmax);
                });
                // As they are stored: the backward reads those.
                let w = b.read(io.outs[1], i * t * t, t * t, work_w);
                b.write(Sink::set(io.outs[0]), i * t * c, t * c, work_y, |y| {
                    gemm([t, c, t], y, c, Acc::Set, 1.0, Mat::rows(w, t), v);
                });
            });
        })
    }

    fn bwd(&self, io: &Io, grads: &Grads) -> Launch {
        let (io, grads) = (io.clone(), grads.clone());
        let (n, t, c) = sizes(&io.shapes);
        let dy = grads.outs[0].expect("attention's output has a gradient");
        let [of_qkv, of_w, of_y] = [3 * t * c, t * t, t * c].map(|len| dy.wide(len));
        let scratch = Layout([t * t, of_qkv, of_w, of_y, of_qkv]);
        Launch::new("attention_bwd", scratch.words(), move |b| {
            let Some(sink @ Sink { acc, .. }) = grads.ins[0] else { return };
            b.each(n, 8 * n * t * t * c, |i| {
                let part = 3 * t * c;
                let ([ds, work_qkv, work_w, work_dy, work], _) = scratch.cut(b.scratch());
                let qkv = b.read(io.ins[0], i * part, part, work_qkv);
                let w = b.read(io.outs[1], i * t * t, t * t, work_w);
                let dy = b.read(dy, i * t * c, t * c, work_dy);
                let rows = |data| Mat::rows(data, 3 * c);
                let scale = 1.0 / (c as f32).sqrt();
                let v = Mat::cols(&qkv[2 * c..], 3 * c);
                gemm([t, t, c], ds, t, Acc::Set, 1.0, Mat::rows(dy, c), v);
                for (ds, w) in ds.chunks_exact_mut(t).zip(w.chunks_exact(t)) {
                    softmax_bwd(ds, w);
                }
                b.write(sink, i * part, part, work, |dqkv| {
                    let sizes = [t, c, t];
                    let dv = &mut dqkv[2 * c..];
                    gemm(sizes, dv, 3 * c, acc, 1.0, Mat::cols(w, t), Mat::rows(dy, c));
                    gemm(sizes, dqkv, 3 * c, acc, scale, Mat::rows(ds, t), rows(&qkv[c..]));
                    let dk = &mut dqkv[c..];
                    gemm(sizes, dk, 3 * c, acc, scale, Mat::cols(ds, t), rows(qkv));
                });
            });
        })
    }

    fn words_beside(
        &self,
        target: Target,
        ins: &[Shape],
        precision: Precision,
        direction: Direction,
    ) -> usize {
        match target {
            Target::Cpu => 0,
            Target::Cuda(limits) => gpu::temp_words(sizes(ins), precision, direction, limits),
        }
    }

    fn kernels(&self, io: &Io, grads: Option<&Grads>) -> Vec<Kernel> {
        match grads {
            None => gpu::forward(io),
            Some(grads) => gpu::backward(io, grads),
        }
    }
}

vectorized! {
    fn exp_sum(row: &mut [f32], max: f32) -> f32 {
        // Sixteen running sums, so that the order is fixed whatever the vector width.
        let mut sums = [0.0_f32; 16];
        for chunk in row.chunks_mut(16) {
            for (v, s) in chunk.iter_mut().zip(&mut sums) {
                *v = exp(*v - max);
                *s += *v;
            }
        }
        sums.iter().sum()
    }

    fn softmax_bwd(ds: &mut [f32], w: &[f32]) {
        let mut sums = [0.0_f32; 16];
        for (d, w) in ds.chunks(16).zip(w.chunks(16)) {
            for ((&d, &w), s) in d.iter().zip(w).zip(&mut sums) {
                *s = d.mul_add(w, *s);
            }
        }
        let dot: f32 = sums.iter().sum();
        for (d, &w) in ds.iter_mut().zip(w) {
            *d = (*d - dot) * w;
        }
    }
}

fn softmax(row: &mut [f32]) {
    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum = exp_sum(row, max);
    let inverse = 1.0 / sum;
    row.iter_mut().for_each(|v| *v *= inverse);
}
