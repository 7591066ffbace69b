//! linear: y = x·Wᵀ + b, optionally through SiLU. x [N, 1, 1, I], W [O, I], y [N, 1, 1, O].
//!
//! With SiLU a second output keeps the pre-activation for the backward.

use super::sums::{sum_images, sum_rows};
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

/// Images per product that sums over them: the unit in which such sums are rounded.
const ROWS: usize = 8;
/// Images and output features per job.
const JOB: usize = 16;
const BLOCK: usize = 64;

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
            Direction::Bwd if self.silu => ins[0][0] * self.out_features,
            _ => 0,
        }
    }

    fn flop(&self, ins: &[Shape]) -> u64 {
        2 * (ins[0][0] * ins[0][3] * self.out_features) as u64
    }

    fn fwd(&self, io: &Io) -> Launch {
        let (op, io) = (*self, io.clone());
        let [n, _, _, i] = io.shapes[0];
        let o = self.out_features;
        Launch::new("linear_fwd", 0, move |b| {
            let blocks = o.div_ceil(BLOCK);
            b.each(n.div_ceil(JOB) * blocks, n * i * o, |job| {
                let (n0, o0) = (job / blocks * JOB, job % blocks * BLOCK);
                let (rows, cols) = (JOB.min(n - n0), BLOCK.min(o - o0));
                let x = Mat::rows(b.get(io.ins[0].part(n0 * i, rows * i)), i);
                let w = Mat::cols(b.get(io.params[0].part(o0 * i, cols * i)), i);
                // Other jobs own other columns of these rows.
                let part = |s: Slot| b.get_mut(s.part(n0 * o + o0, (rows - 1) * o + cols));
                let y = part(io.outs[0]);
                gemm([rows, cols, i], y, o, Acc::Set, 1.0, x, w);
                let bias = b.get(io.params[1].part(o0, cols));
                for (r, row) in y.chunks_mut(o).enumerate() {
                    let row = &mut row[..cols];
                    math::add(row, bias);
                    if op.silu {
                        part(io.outs[1])[r * o..][..cols].copy_from_slice(row);
                        math::silu(row);
                    }
                }
            });
        })
    }

    fn bwd(&self, io: &Io, grads: &Grads) -> Launch {
        let (op, io, grads) = (*self, io.clone(), grads.clone());
        let [n, _, _, i] = io.shapes[0];
        let o = self.out_features;
        let dy = grads.outs[0].expect("linear's output has a gradient");
        Launch::new("linear_bwd", 0, move |b| {
            let mut dz = b.get(dy);
            if op.silu {
                let to = b.get_mut(io.temp.part(0, n * o));
                math::silu_bwd(to, b.get(io.outs[1]), dz);
                dz = to;
            }
            let x = b.get(io.ins[0]);
            let db = grads.params[1];
            sum_images(b.get_mut(db.slot), db.acc, dz);
            let (dw, blocks) = (grads.params[0], o.div_ceil(BLOCK));
            b.each(blocks, n * i * o, |job| {
                let o0 = job * BLOCK;
                let m = BLOCK.min(o - o0);
                let out = b.get_mut(dw.slot.part(o0 * i, m * i));
                let mut acc = dw.acc;
                for n0 in (0..n).step_by(ROWS) {
                    let rows = ROWS.min(n - n0);
                    let a = Mat::cols(&dz[n0 * o + o0..], o);
                    gemm([m, i, rows], out, i, acc, 1.0, a, Mat::rows(&x[n0 * i..], i));
                    acc = Acc::Add;
                }
            });
            if let Some(dx) = grads.ins[0] {
                let w = b.get(io.params[0]);
                b.each(n.div_ceil(JOB), n * i * o, |job| {
                    let n0 = job * JOB;
                    let rows = JOB.min(n - n0);
                    let a = Mat::rows(&dz[n0 * o..], o);
                    let out = b.get_mut(dx.slot.part(n0 * i, rows * i));
                    gemm([rows, i, o], out, i, dx.acc, 1.0, a, Mat::rows(w, i));
                });
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
