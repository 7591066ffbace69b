//! attention: one head over the pixels of an image, y = softmax(q·k/√C)·v.
//!
//! qkv [N, H, W, 3C] with channels [q | k | v]; y [N, H, W, C]; the weights [N, 1, T, T], T = H·W, are kept for
//! the backward. FLOP: two products forward, four backward.

use super::{Direction, Grads, Io, Op, Reads, Shape};
use crate::device::cpu::gemm::{Mat, gemm};
use crate::device::cpu::math::{exp, vectorized};
use crate::device::{Acc, Arg, Dtype, Kernel, Launch, Precision, Sink, Slot, args};
use anyhow::{Result, ensure};

#[derive(Debug, Clone, Copy)]
pub struct Attention;

/// A matrix per image: slot, words from row to row, words from image to image.
type View = (Slot, usize, usize);

fn sizes(ins: &[Shape]) -> (usize, usize, usize) {
    (ins[0][0], ins[0][1] * ins[0][2], ins[0][3] / 3)
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
        Launch::new("attention_fwd", 0, move |b| {
            b.each(n, 4 * n * t * t * c, |i| {
                let qkv = b.get(io.ins[0].part(i * t * 3 * c, t * 3 * c));
                let (k, v) = (Mat::cols(&qkv[c..], 3 * c), Mat::rows(&qkv[2 * c..], 3 * c));
                let w = b.get_mut(io.outs[1].part(i * t * t, t * t));
                let scale = 1.0 / (c as f32).sqrt();
                gemm([t, t, c], w, t, Acc::Set, scale, Mat::rows(qkv, 3 * c), k);
                w.chunks_exact_mut(t).for_each(softmax);
                let y = b.get_mut(io.outs[0].part(i * t * c, t * c));
                gemm([t, c, t], y, c, Acc::Set, 1.0, Mat::rows(w, t), v);
            });
        })
    }

    fn bwd(&self, io: &Io, grads: &Grads) -> Launch {
        let (io, grads) = (io.clone(), grads.clone());
        let (n, t, c) = sizes(&io.shapes);
        let dy = grads.outs[0].expect("attention's output has a gradient");
        Launch::new("attention_bwd", t * t, move |b| {
            let Some(dqkv) = grads.ins[0] else { return };
            b.each(n, 8 * n * t * t * c, |i| {
                let part = 3 * t * c;
                let qkv = b.get(io.ins[0].part(i * part, part));
                let dqkv_part = b.get_mut(dqkv.slot.part(i * part, part));
                let w = b.get(io.outs[1].part(i * t * t, t * t));
                let dy = b.get(dy.part(i * t * c, t * c));
                let rows = |data| Mat::rows(data, 3 * c);
                let (acc, scale) = (dqkv.acc, 1.0 / (c as f32).sqrt());
                let ds = &mut b.scratch()[..t * t];
                gemm(
                    [t, t, c],
                    ds,
                    t,
                    Acc::Set,
                    1.0,
                    Mat::rows(dy, c),
                    Mat::cols(&qkv[2 * c..], 3 * c),
                );
                for (ds, w) in ds.chunks_exact_mut(t).zip(w.chunks_exact(t)) {
                    softmax_bwd(ds, w);
                }
                let dv = &mut dqkv_part[2 * c..];
                gemm([t, c, t], dv, 3 * c, acc, 1.0, Mat::cols(w, t), Mat::rows(dy, c));
                gemm([t, c, t], dqkv_part, 3 * c, acc, scale, Mat::rows(ds, t), rows(&qkv[c..]));
                let dk = &mut dqkv_part[c..];
                gemm([t, c, t], dk, 3 * c, acc, scale, Mat::cols(ds, t), rows(qkv));
            });
        })
    }

    fn kernel_temp_words(&self, ins: &[Shape], direction: Direction) -> usize {
        let (n, t, _) = sizes(ins);
        match direction {
            Direction::Fwd => 0,
            Direction::Bwd => n * t * t,
        }
    }

    fn kernels(&self, io: &Io, grads: Option<&Grads>) -> Vec<Kernel> {
        let (n, t, c) = sizes(&io.shapes);
        let (qkv, w) = (io.ins[0], io.outs[1]);
        let column = |s: Slot, which: usize| s.part(which * c, s.len - which * c);
        let scale = 1.0 / (c as f32).sqrt();
        // (slot, words from row to row, from matrix to matrix)
        let wide = |s: Slot, which: usize| (column(s, which), 3 * c, 3 * t * c);
        let narrow = |s: Slot| (s, c, t * c);
        let square = |s: Slot| (s, t, t * t);
        let product =
            |name, to: View, a: View, b: View, cols: usize, k: usize, alpha: f32, acc: Acc| {
                let batch = |v: View| Arg::I64(v.2 as i64);
                let whole = 4 * n * (t * cols + t * k + k * cols);
                let again = if acc == Acc::Add { 4 * n * t * cols } else { 0 };
                let arguments = args![
                    to.0,
                    a.0,
                    b.0,
                    t,
                    cols,
                    k,
                    a.1,
                    b.1,
                    to.1,
                    batch(a),
                    batch(b),
                    batch(to),
                    alpha,
                    acc,
                ];
                Kernel::new(name, [t.div_ceil(64), cols.div_ceil(64), n], arguments)
                    .flop(2 * n * t * cols * k)
                    // Of the views' slots every third channel is touched.
                    .moves(whole + again)
            };
        let rows = (n * t).div_ceil(8);
        let Some(grads) = grads else {
            let (q, k, v) = (wide(qkv, 0), wide(qkv, 1), wide(qkv, 2));
            return vec![
                product("matmul_nt", square(w), q, k, t, c, scale, Acc::Set),
                Kernel::new("softmax_fwd", rows, args![w, n * t, t]),
                product("matmul_nn", narrow(io.outs[0]), square(w), v, c, t, 1.0, Acc::Set),
            ];
        };
        let dy = grads.outs[0].expect("attention's output has a gradient");
        let Some(Sink { slot, acc }) = grads.ins[0] else { return vec![] };
        let (ds, dy) = (io.temp.part(0, n * t * t), narrow(dy));
        let (q, k, v) = (wide(qkv, 0), wide(qkv, 1), wide(qkv, 2));
        vec![
            product("matmul_nt", square(ds), dy, v, t, c, 1.0, Acc::Set),
            Kernel::new("softmax_bwd", rows, args![ds, w, n * t, t]),
            product("matmul_tn", wide(slot, 2), square(w), dy, c, t, 1.0, acc),
            product("matmul_nn", wide(slot, 0), square(ds), k, c, t, scale, acc),
            product("matmul_tn", wide(slot, 1), square(ds), q, c, t, scale, acc),
        ]
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
