//! fir: NCSN++'s `[1,3,3,1]` filter at every position of the zero-extended image, `[N, H, W, C]` → `[N, H+1, W+1, C]`.

use super::golden::{Described, GoldenCase, GoldenIn, GoldenOut};
use super::scratch::Layout;
use super::{Grads, Io, Op, Reads, Shape, image_words, words};
use crate::device::cpu::resample::{Resampler, Resampling};
use crate::device::params::BLOCK_THREADS;
use crate::device::{Acc, Dtype, Kernel, Launch, Precision, Sink, params, typed};
use anyhow::{Result, ensure};

#[derive(Debug, Clone, Copy)]
pub struct Fir;

fn out_shape(x: Shape) -> Shape {
    [x[0], Resampling::FirPad.out_len(x[1]), Resampling::FirPad.out_len(x[2]), x[3]]
}

impl Fir {
    /// The op of a golden's case.
    pub fn golden(_: &Described) -> GoldenCase {
        GoldenCase::new(Fir, &[GoldenIn::Activation("x")], &[], &[GoldenOut::Differentiated("g")])
    }
}

impl Op for Fir {
    fn name(&self) -> &'static str {
        "fir"
    }

    fn outputs(&self, ins: &[Shape]) -> Result<Vec<Shape>> {
        ensure!(ins.len() == 1, "fir: one input wanted, {ins:?} given");
        Ok(vec![out_shape(ins[0])])
    }

    fn dtypes(&self, precision: Precision, outs: usize) -> Vec<Dtype> {
        vec![precision.storage(); outs]
    }

    fn reads(&self, _ins: &[Shape]) -> Reads {
        Reads::default()
    }

    fn fwd(&self, io: &Io) -> Launch {
        let (io, x) = (io.clone(), io.shapes[0]);
        let filter = Resampler::new(Resampling::FirPad, [x[1], x[2]]);
        let (xw, yw) = (image_words(x), image_words(out_shape(x)));
        let scratch = Layout([io.ins[0].wide(xw), io.outs[0].wide(yw)]);
        Launch::new("fir_fwd", scratch.words(), move |b| {
            b.each(x[0], 16 * words(x), |n| {
                let ([work, work_y], _) = scratch.cut(b.scratch());
                let x_n = b.read(io.ins[0], n * xw, xw, work);
                b.write(Sink::set(io.outs[0]), n * yw, yw, work_y, |y| {
                    filter.apply(y, Acc::Set, x_n, x[3]);
                });
            });
        })
    }

    fn bwd(&self, io: &Io, grads: &Grads) -> Launch {
        let (grads, x) = (grads.clone(), io.shapes[0]);
        let filter = Resampler::transposed(Resampling::FirPad, [x[1], x[2]]);
        let (xw, yw) = (image_words(x), image_words(out_shape(x)));
        let dy = grads.outs[0].expect("fir's output has a gradient");
        let scratch = Layout([dy.wide(yw), dy.wide(xw)]);
        Launch::new("fir_bwd", scratch.words(), move |b| {
            let Some(dx) = grads.ins[0] else { return };
            b.each(x[0], 16 * words(x), |n| {
                let ([work, work_x], _) = scratch.cut(b.scratch());
                let dy_n = b.read(dy, n * yw, yw, work);
                b.write(dx, n * xw, xw, work_x, |to| {
                    filter.apply(to, dx.acc, dy_n, x[3]);
                });
            });
        })
    }

    fn kernels(&self, io: &Io, grads: Option<&Grads>) -> Vec<Kernel> {
        let x = io.shapes[0];
        let [n, h, w, c] = x;
        let dtype = io.ins[0].dtype;
        let Some(grads) = grads else {
            let grid = words(out_shape(x)).div_ceil(BLOCK_THREADS);
            let arguments = params!(FirFwd { y: io.outs[0], x: io.ins[0], n, h, w, c });
            let kernel = typed([params::FIR_FWD, params::FIR_FWD_BF16], dtype);
            return vec![Kernel::new(kernel, grid, arguments)];
        };
        let Some(dx) = grads.ins[0] else { return vec![] };
        let arguments = params!(FirBwd { dx, dy: grads.outs[0], n, h, w, c, add: dx.acc });
        let kernel = typed([params::FIR_BWD, params::FIR_BWD_BF16], dtype);
        vec![Kernel::new(kernel, words(x).div_ceil(BLOCK_THREADS), arguments)]
    }
}
