//! linear: y = x·Wᵀ + b, optionally through SiLU. x [N, 1, 1, I], W [O, I], y [N, 1, 1, O].
//!
//! - Several linears of one x are one op: the rows of W and b are those of the first, then the second's; so are the
//!   columns of y. Results are the bits of each alone, whose gradients of x are added from the last to the first, as a
//!   tape adds them.
//! - With SiLU a second output keeps the pre-activation for the backward.

use super::golden::{Described, GoldenCase, GoldenIn, GoldenOut};
use super::later::{ChainSum, RowSum, chain_kernels, row_kernels};
use super::sums::sum_images;
use super::{Direction, Grads, Io, Op, Reads, Shape};
use crate::device::cpu::gemm::{Mat, gemm};
use crate::device::cpu::math;
use crate::device::params::{BLOCK_THREADS, ROUNDED_IMAGES, TILE};
use crate::device::{Acc, Kernel, Launch, Precision, Ptr, Sink, Slot, params};
use anyhow::{Result, ensure};

#[derive(Debug, Clone)]
pub struct Linear {
    /// Of each of the linears.
    pub out_features: Vec<usize>,
    pub silu: bool,
}

impl Linear {
    /// A single one.
    pub fn new(out_features: usize, silu: bool) -> Self {
        Linear { out_features: vec![out_features], silu }
    }

    /// Columns of y.
    fn columns(&self) -> usize {
        self.out_features.iter().sum()
    }
}

/// Images and output features per job.
const JOB: usize = 16;
const BLOCK: usize = 64;

impl Linear {
    /// The op of a golden's case.
    pub fn golden(case: &Described) -> GoldenCase {
        let widths = case.attributes["widths"].as_array().expect("widths of the linears");
        let widths = widths.iter().map(|w| w.as_u64().expect("a width") as usize);
        let op = Linear { out_features: widths.collect(), silu: case.flag("silu") };
        let outs = [GoldenOut::Differentiated("y"), GoldenOut::Kept];
        let outs = &outs[..1 + op.silu as usize];
        GoldenCase::new(op, &[GoldenIn::Float32("x")], &["w", "b"], outs)
    }
}

impl Op for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn outputs(&self, ins: &[Shape]) -> Result<Vec<Shape>> {
        ensure!(
            ins.len() == 1 && ins[0][1..3] == [1, 1],
            "linear: one input [N, 1, 1, I] wanted, {ins:?} given"
        );
        let y = [ins[0][0], 1, 1, self.columns()];
        Ok(if self.silu { vec![y, y] } else { vec![y] })
    }

    fn param_lens(&self, ins: &[Shape]) -> Vec<usize> {
        vec![self.columns() * ins[0][3], self.columns()]
    }

    fn reads(&self, _ins: &[Shape]) -> Reads {
        Reads { ins: vec![0], outs: if self.silu { vec![1] } else { vec![] } }
    }

    fn temp_words(&self, ins: &[Shape], direction: Direction) -> usize {
        match direction {
            Direction::Bwd if self.silu => ins[0][0] * self.columns(),
            _ => 0,
        }
    }

    fn flop(&self, ins: &[Shape]) -> u64 {
        2 * (ins[0][0] * ins[0][3] * self.columns()) as u64
    }

    fn fwd(&self, io: &Io) -> Launch {
        let (silu, io) = (self.silu, io.clone());
        let [n, _, _, i] = io.shapes[0];
        let o = self.columns();
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
                    if silu {
                        part(io.outs[1])[r * o..][..cols].copy_from_slice(row);
                        math::silu(row);
                    }
                }
            });
        })
    }

    fn bwd(&self, io: &Io, grads: &Grads) -> Launch {
        let (op, io, grads) = (self.clone(), io.clone(), grads.clone());
        let [n, _, _, i] = io.shapes[0];
        let o = self.columns();
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
                for n0 in (0..n).step_by(ROUNDED_IMAGES) {
                    let rows = ROUNDED_IMAGES.min(n - n0);
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
                    let out = b.get_mut(dx.slot.part(n0 * i, rows * i));
                    let (mut acc, mut end) = (dx.acc, o);
                    for &width in op.out_features.iter().rev() {
                        let first = end - width;
                        let (a, w) = (&dz[n0 * o + first..], &w[first * i..]);
                        gemm([rows, i, width], out, i, acc, 1.0, Mat::rows(a, o), Mat::rows(w, i));
                        (acc, end) = (Acc::Add, first);
                    }
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
        let [n, _, _, i] = ins[0];
        match direction {
            Direction::Fwd => 0,
            Direction::Bwd => self.dz_words(n) + self.partials() * n * i,
        }
    }

    fn kernels(&self, io: &Io, grads: Option<&Grads>) -> Vec<Kernel> {
        let ([n, _, _, i], o) = (io.shapes[0], self.columns());
        let tiles = |a: usize, b: usize| [a.div_ceil(TILE), b.div_ceil(TILE)];
        let Some(grads) = grads else {
            let arguments = params!(LinearFwd {
                y: io.outs[0],
                z: io.outs.get(1).copied(),
                x: io.ins[0],
                w: io.params[0],
                b: io.params[1],
                n,
                o,
                i,
            });
            let kernel = Kernel::new(params::LINEAR_FWD, tiles(n, o), arguments);
            return vec![kernel.flop(2 * n * o * i)];
        };
        let dy = grads.outs[0].expect("linear's output has a gradient");
        let mut list = Vec::new();
        let dz = if self.silu {
            let (dz, count) = (io.temp.part(0, n * o), n * o);
            let arguments = params!(LinearBwdSilu { dz, dy, z: io.outs[1], count });
            list.push(Kernel::new(
                params::LINEAR_BWD_SILU,
                count.div_ceil(BLOCK_THREADS),
                arguments,
            ));
            dz
        } else {
            dy
        };
        let [dw, db] = [grads.params[0], grads.params[1]];
        let of_weight = params!(LinearWgrad { dw, dz, x: io.ins[0], n, o, i, add: dw.acc });
        list.push(Kernel::new(params::LINEAR_WGRAD, tiles(o, i), of_weight).flop(2 * n * o * i));
        list.extend(row_kernels(&[RowSum {
            dst: db,
            src: dz,
            src_row: o,
            rows: n,
            columns: o,
            scale: 1.0,
        }]));
        if let Some(dx) = grads.ins[0] {
            let partials = io.temp.part(self.dz_words(n), self.partials() * n * i);
            list.extend(self.input_gradient(dx, dz, io.params[0], partials, [n, i]));
        }
        list
    }
}

impl Linear {
    /// Words of the backward's dz, whole lines.
    fn dz_words(&self, n: usize) -> usize {
        if self.silu { (n * self.columns()).next_multiple_of(16) } else { 0 }
    }

    /// Gradients of x that are kept apart before they are added.
    fn partials(&self) -> usize {
        if self.out_features.len() > 1 { self.out_features.len() } else { 0 }
    }

    /// The gradient of x [n, i]: of one linear at once, else a product a linear and then their sum.
    fn input_gradient(
        &self,
        dx: Sink,
        dz: Slot,
        w: Slot,
        partials: Slot,
        [n, i]: [usize; 2],
    ) -> Vec<Kernel> {
        let (o, count) = (self.columns(), self.out_features.len());
        // `batch` linears of a width from column `first` on.
        let products = |to: Ptr, acc: Acc, first: usize, width: usize, batch: usize| {
            let arguments = params!(Matmul {
                c: to,
                a: Ptr::Element(dz, first),
                b: Ptr::Element(w, first * i),
                batch_a: width,
                batch_b: width * i,
                batch_c: -((n * i) as i64),
                m: n,
                n: i,
                k: width,
                lda: o,
                ldb: i,
                ldc: i,
                alpha: 1.0_f32,
                add: acc,
            });
            let written = n * i * if acc == Acc::Add { 2 } else { 1 };
            Kernel::new(params::MATMUL_NN, [n.div_ceil(TILE), i.div_ceil(TILE), batch], arguments)
                .flop(2 * n * i * width * batch)
                .moves(4 * batch * (n * width + width * i + written))
        };
        if count == 1 {
            return vec![products(dx.into(), dx.acc, 0, o, 1)];
        }
        let (mut list, mut first, mut done) = (Vec::new(), 0, 0);
        for alike in self.out_features.chunk_by(|a, b| a == b) {
            // The last linear's is the first to be added.
            let to = Ptr::Element(partials, (count - 1 - done) * n * i);
            list.push(products(to, Acc::Set, first, alike[0], alike.len()));
            first += alike[0] * alike.len();
            done += alike.len();
        }
        list.extend(chain_kernels(&[ChainSum::alike(dx, partials, [n, i, count], 1.0)]));
        list
    }
}
