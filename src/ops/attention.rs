//! attention: one head over the pixels of an image, y = softmax(q·k/√C)·v.
//!
//! qkv [N, H, W, 3C] with channels [q | k | v]; y [N, H, W, C]; the weights [N, 1, T, T], T = H·W, are kept for
//! the backward. FLOP: two products forward, four backward.

use super::golden::{Described, GoldenCase, GoldenIn, GoldenOut};
use super::scratch::Layout;
use super::{Direction, Grads, Io, Op, Reads, Shape};
use crate::device::cpu::gemm::{Mat, gemm};
use crate::device::cpu::math::{exp, vectorized};
use crate::device::params::{BLOCK_WARPS, MMA_SHARED_BYTES, MMA_TILE, TILE};
use crate::device::{Acc, Dtype, Entry, Kernel, Launch, Precision, Ptr, Sink, Slot, params};
use anyhow::{Result, ensure};

#[derive(Debug, Clone, Copy)]
pub struct Attention;

/// A matrix per image: its address, elements from row to row and from image to image.
type View = (Ptr, usize, usize);

fn sizes(ins: &[Shape]) -> (usize, usize, usize) {
    (ins[0][0], ins[0][1] * ins[0][2], ins[0][3] / 3)
}

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

    fn kernel_temp_words(
        &self,
        ins: &[Shape],
        precision: Precision,
        direction: Direction,
    ) -> usize {
        let (n, t, _) = sizes(ins);
        let (float32, stored) = (n * t * t, precision.storage().words(n * t * t));
        match (precision.storage(), direction) {
            // The weights themselves hold the scores.
            (Dtype::F32, Direction::Fwd) => 0,
            (Dtype::F32, Direction::Bwd) | (Dtype::Bf16, Direction::Fwd) => float32,
            (Dtype::Bf16, Direction::Bwd) => float32.next_multiple_of(16) + stored,
        }
    }

    fn kernels(&self, io: &Io, grads: Option<&Grads>) -> Vec<Kernel> {
        let (n, t, c) = sizes(&io.shapes);
        let (qkv, w) = (io.ins[0], io.outs[1]);
        let products = Products::new(w.dtype, n, t, c);
        let scale = 1.0 / (c as f32).sqrt();
        let wide = |s: Slot, which: usize| (Ptr::Element(s, which * c), 3 * c, 3 * t * c);
        let narrow = |s: Slot| (Ptr::Slot(s), c, t * c);
        let square = |s: Slot| (Ptr::Slot(s), t, t * t);
        let (q, k, v) = (wide(qkv, 0), wide(qkv, 1), wide(qkv, 2));
        let (rows, blocks) = (n * t, (n * t).div_ceil(BLOCK_WARPS));
        let Some(grads) = grads else {
            let (scores, softmax) = match w.dtype {
                Dtype::F32 => {
                    let arguments = params!(SoftmaxFwd { w, rows, t });
                    (w, Kernel::new(params::SOFTMAX_FWD, blocks, arguments))
                }
                Dtype::Bf16 => {
                    let scores = io.temp.part(0, n * t * t);
                    let arguments = params!(SoftmaxFwdBf16 { w, scores, rows, t });
                    (scores, Kernel::new(params::SOFTMAX_FWD_BF16, blocks, arguments))
                }
            };
            return vec![
                products.kernel(Form::Nt, square(scores), q, k, scale, Acc::Set),
                softmax,
                products.kernel(Form::Nn, narrow(io.outs[0]), square(w), v, 1.0, Acc::Set),
            ];
        };
        let dy = narrow(grads.outs[0].expect("attention's output has a gradient"));
        let Some(Sink { slot, acc }) = grads.ins[0] else { return vec![] };
        let ds32 = io.temp.part(0, n * t * t);
        let (ds, softmax) = match w.dtype {
            Dtype::F32 => {
                let arguments = params!(SoftmaxBwd { ds: ds32, w, rows, t });
                (ds32, Kernel::new(params::SOFTMAX_BWD, blocks, arguments))
            }
            Dtype::Bf16 => {
                let ds = io.temp.stored((n * t * t).next_multiple_of(16), n * t * t, w.dtype);
                let arguments = params!(SoftmaxBwdBf16 { ds16: ds, ds: ds32, w, rows, t });
                (ds, Kernel::new(params::SOFTMAX_BWD_BF16, blocks, arguments))
            }
        };
        vec![
            products.kernel(Form::Nt, square(ds32), dy, v, 1.0, Acc::Set),
            softmax,
            products.kernel(Form::Tn, wide(slot, 2), square(w), dy, 1.0, acc),
            products.kernel(Form::Nn, wide(slot, 0), square(ds), k, scale, acc),
            products.kernel(Form::Tn, wide(slot, 1), square(ds), q, scale, acc),
        ]
    }
}

/// Which of `kernels/matmul.cu`'s products: the first writes [t, t] over c, the others [t, c] over t.
enum Form {
    Nt,
    Nn,
    Tn,
}

/// The batched products of one size, by the fastest kernels that take it.
struct Products {
    /// Of [`Form`]'s three.
    kernels: [Entry<params::Matmul>; 3],
    mma: bool,
    n: usize,
    t: usize,
    c: usize,
}

impl Products {
    fn new(dtype: Dtype, n: usize, t: usize, c: usize) -> Self {
        let mma = dtype == Dtype::Bf16 && t.is_multiple_of(8) && c.is_multiple_of(8);
        use params::*;
        let kernels = match (mma, dtype) {
            (true, _) => [MATMUL_MMA_NT, MATMUL_MMA_NN, MATMUL_MMA_TN],
            (_, Dtype::Bf16) => [MATMUL_NT_BF16, MATMUL_NN_BF16, MATMUL_TN_BF16],
            (_, Dtype::F32) => [MATMUL_NT, MATMUL_NN, MATMUL_TN],
        };
        Products { kernels, mma, n, t, c }
    }

    fn kernel(&self, form: Form, to: View, a: View, b: View, alpha: f32, acc: Acc) -> Kernel {
        let (t, c) = (self.t, self.c);
        let (cols, depth) = if let Form::Nt = form { (t, c) } else { (c, t) };
        let arguments = params!(Matmul {
            c: to.0,
            a: a.0,
            b: b.0,
            batch_a: a.2,
            batch_b: b.2,
            batch_c: to.2,
            m: t,
            n: cols,
            k: depth,
            lda: a.1,
            ldb: b.1,
            ldc: to.1,
            alpha,
            add: acc,
        });
        let tile = if self.mma { MMA_TILE } else { TILE };
        let grid = [t.div_ceil(tile), cols.div_ceil(tile), self.n];
        let shared = if self.mma { MMA_SHARED_BYTES } else { 0 };
        // Of qkv a product touches every third channel.
        let bytes = |v: View, words: usize| v.0.slot().map_or(0, |s| s.dtype.bytes(self.n * words));
        let written = bytes(to, t * cols) * if acc == Acc::Add { 2 } else { 1 };
        Kernel::new(self.kernels[form as usize], grid, arguments)
            .shared(shared)
            .flop(2 * self.n * t * cols * depth)
            .moves(written + bytes(a, t * depth) + bytes(b, depth * cols))
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
