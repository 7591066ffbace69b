//! linear: y = x·Wᵀ + b, optionally through SiLU. x [N, 1, 1, I], W [O, I], y [N, 1, 1, O].
//!
//! With SiLU a second output keeps the pre-activation for the backward.

use super::sums::{store, sum_images, sum_rows};
use super::{Direction, Grads, Io, Op, Reads, Shape};
use crate::device::cpu::gemm::{Mat, gemm};
use crate::device::cpu::math;
use crate::device::{Acc, Arg, Kernel, Launch, Precision, Sink, Slot, args};
use anyhow::{Result, ensure};

#[derive(Debug, Clone, Copy)]
pub struct Linear {
    pub out_features: usize,
    pub silu: bool,
}

/// Images per product: fixed, so that an image's bits don't depend on the batch.
const ROWS: usize = 8;
/// Output features per job.
const BLOCK: usize = 128;

impl Op for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn outputs(&self, ins: &[Shape]) -> Result<Vec<Shape>> {
        ensure!(
            ins.len() == 1 && ins[0][1..3] == [1, 1],
            "linear: one input [N, 1, 1, I] wanted, {ins:?} given"
        );
        let y = [ins[0][0], 1, 1, self.out_features];
        Ok(if self.silu { vec![y, y] } else { vec![y] })
    }

    fn param_lens(&self, ins: &[Shape]) -> Vec<usize> {
        vec![self.out_features * ins[0][3], self.out_features]
    }

    fn reads(&self, _ins: &[Shape]) -> Reads {
        Reads { ins: vec![0], outs: if self.silu { vec![1] } else { vec![] } }
    }

    fn temp_words(&self, ins: &[Shape], direction: Direction) -> usize {
        match direction {
            Direction::Fwd => 0,
            // dz and x, padded to whole tiles of rows.
            Direction::Bwd => {
                ins[0][0].next_multiple_of(ROWS) * (self.out_features + 2 * ins[0][3])
            }
        }
    }

    fn flop(&self, ins: &[Shape]) -> u64 {
        2 * (ins[0][0] * ins[0][3] * self.out_features) as u64
    }

    fn fwd(&self, io: &Io) -> Launch {
        let (op, io) = (*self, io.clone());
        let [n, _, _, i] = io.shapes[0];
        let o = self.out_features;
        Launch::new("linear_fwd", ROWS * (i + BLOCK), move |b| {
            let blocks = o.div_ceil(BLOCK);
            b.each(n.div_ceil(ROWS) * blocks, n * i * o, |job| {
                let (n0, o0) = (job / blocks * ROWS, job % blocks * BLOCK);
                let (rows, cols) = (ROWS.min(n - n0), BLOCK.min(o - o0));
                let (x, y) = b.scratch().split_at_mut(ROWS * i);
                x[..rows * i].copy_from_slice(b.get(io.ins[0].part(n0 * i, rows * i)));
                x[rows * i..].fill(0.0);
                let w = Mat::cols(b.get(io.params[0].part(o0 * i, cols * i)), i);
                gemm([ROWS, cols, i], y, cols, Acc::Set, 1.0, Mat::rows(x, i), w);
                let bias = b.get(io.params[1].part(o0, cols));
                for (r, row) in y.chunks_exact_mut(cols).take(rows).enumerate() {
                    math::add(row, bias);
                    let at = (n0 + r) * o + o0;
                    if op.silu {
                        b.get_mut(io.outs[1].part(at, cols)).copy_from_slice(row);
                        math::silu(row);
                    }
                    b.get_mut(io.outs[0].part(at, cols)).copy_from_slice(row);
                }
            });
        })
    }

    fn bwd(&self, io: &Io, grads: &Grads) -> Launch {
        let (op, io, grads) = (*self, io.clone(), grads.clone());
        let [n, _, _, i] = io.shapes[0];
        let o = self.out_features;
        let padded = n.next_multiple_of(ROWS);
        let dy = grads.outs[0].expect("linear's output has a gradient");
        Launch::new("linear_bwd", 0, move |b| {
            let dz_slot = io.temp.part(0, padded * o);
            let x_slot = io.temp.part(padded * o, padded * i);
            let dx_slot = io.temp.part(padded * (o + i), padded * i);
            let (dz, x) = (b.get_mut(dz_slot), b.get_mut(x_slot));
            if op.silu {
                math::silu_bwd(&mut dz[..n * o], b.get(io.outs[1]), b.get(dy));
            } else {
                dz[..n * o].copy_from_slice(b.get(dy));
            }
            dz[n * o..].fill(0.0);
            x[..n * i].copy_from_slice(b.get(io.ins[0]));
            x[n * i..].fill(0.0);
            let (dz, x) = (b.get(dz_slot), b.get(x_slot));
            let db = grads.params[1];
            sum_images(b.get_mut(db.slot), db.acc, &dz[..n * o]);
            let (dw, blocks) = (grads.params[0], o.div_ceil(BLOCK));
            b.each(blocks, n * i * o, |job| {
                let o0 = job * BLOCK;
                let m = BLOCK.min(o - o0);
                let out = b.get_mut(dw.slot.part(o0 * i, m * i));
                let mut acc = dw.acc;
                for n0 in (0..padded).step_by(ROWS) {
                    let a = Mat::cols(&dz[n0 * o + o0..][..(ROWS - 1) * o + m], o);
                    let x = Mat::rows(&x[n0 * i..][..ROWS * i], i);
                    gemm([m, i, ROWS], out, i, acc, 1.0, a, x);
                    acc = Acc::Add;
                }
            });
            if let Some(dx) = grads.ins[0] {
                let w = b.get(io.params[0]);
                b.each(padded / ROWS, n * i * o, |job| {
                    let a = Mat::rows(&dz[job * ROWS * o..][..ROWS * o], o);
                    let out = b.get_mut(dx_slot.part(job * ROWS * i, ROWS * i));
                    gemm([ROWS, i, o], out, i, Acc::Set, 1.0, a, Mat::rows(w, i));
                });
                store(b.get_mut(dx.slot), dx.acc, &b.get(dx_slot)[..n * i]);
            }
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
            Direction::Bwd => {
                let [n, _, _, i] = ins[0];
                (n * self.out_features).next_multiple_of(16)
                    + n.div_ceil(ROWS) * self.out_features * i
            }
        }
    }

    fn kernels(&self, io: &Io, grads: Option<&Grads>) -> Vec<Kernel> {
        let ([n, _, _, i], o) = (io.shapes[0], self.out_features);
        let tiles = |a: usize, b: usize| [a.div_ceil(64), b.div_ceil(64), 1];
        let Some(grads) = grads else {
            let z = io.outs.get(1).copied();
            let arguments = args![io.outs[0], z, io.ins[0], io.params[0], io.params[1], n, o, i];
            return vec![Kernel::new("linear_fwd", tiles(n, o), arguments).flop(2 * n * o * i)];
        };
        let dy = grads.outs[0].expect("linear's output has a gradient");
        let mut list = Vec::new();
        let dz = if self.silu {
            let dz = io.temp.part(0, n * o);
            let count = Arg::I64((n * o) as i64);
            let arguments = args![dz, dy, io.outs[1], count];
            list.push(Kernel::new("linear_bwd_silu", (n * o).div_ceil(256), arguments));
            dz
        } else {
            dy
        };
        // A partial product per ROWS images, added in order: micro-batches round as the whole batch does.
        let at = (n * o).next_multiple_of(16);
        let partials = io.temp.part(at, io.temp.len - at);
        let product = |name, to: Sink, a: Slot, b: Slot, [m, cols, k]: [usize; 3], lda, batch| {
            let [batch_a, batch_b, batch_c] = [k * o, k * i, o * i].map(|n| Arg::I64(n as i64));
            let arguments = args![
                to, a, b, m, cols, k, lda, cols, cols, batch_a, batch_b, batch_c, 1.0f32, to.acc,
            ];
            let grid = [m.div_ceil(64), cols.div_ceil(64), batch];
            Kernel::new(name, grid, arguments).flop(2 * m * cols * k * batch)
        };
        let (full, rest) = (n / ROWS, n % ROWS);
        for (first, images, batch) in [(0, ROWS, full), (full * ROWS, rest, 1)] {
            if images > 0 && batch > 0 {
                let (a, x) = (
                    dz.part(first * o, (n - first) * o),
                    io.ins[0].part(first * i, (n - first) * i),
                );
                let slot = partials.part(first / ROWS * o * i, batch * o * i);
                let to = Sink { slot, acc: Acc::Set };
                list.push(product("matmul_tn", to, a, x, [o, i, images], o, batch));
            }
        }
        let dw = grads.params[0];
        let reduce = args![dw, partials, o, i, i, i, 0usize, n.div_ceil(ROWS), 1.0f32, dw.acc];
        list.push(Kernel::new("wgrad_reduce", (o * i).div_ceil(256), reduce));
        list.push(sum_rows(grads.params[1], dz, n, o));
        if let Some(dx) = grads.ins[0] {
            let sizes = [n, i, o];
            list.push(product("matmul_nn", dx, dz, io.params[0], sizes, o, 1));
        }
        list
    }
}
