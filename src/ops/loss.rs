//! loss: per image Σ over pixels of weight·(D(y + σ·noise; σ) − y)² with D = c_skip·x + c_out·F, and its gradient
//! with respect to F for the mean over the whole batch.
//!
//! Inputs F, y, noise `[N, H, W, C]`, sigma float64 `[N]`; output float64 `[N]`. Source: Karras et al. 2022, Eq. 2.

use super::golden::{Described, GoldenCase, GoldenIn, GoldenOut};
use super::precondition::{Precond, image};
use super::sums::image_grid;
use super::{Grads, Io, Op, Reads, Shape, image_words};
use crate::device::cpu::math::vectorized;
use crate::device::{Acc, Kernel, Launch, params};
use anyhow::{Result, ensure};

#[derive(Debug, Clone, Copy)]
pub struct Loss {
    pub precond: Precond,
    /// Images in the whole batch, which the mean is over.
    pub batch: usize,
}

impl Loss {
    /// The op of a golden's case.
    pub fn golden(case: &Described) -> GoldenCase {
        let op = Loss { precond: Precond::golden(case), batch: case.size("batch") };
        let ins = [
            GoldenIn::Float32("f"),
            GoldenIn::Float32("y"),
            GoldenIn::Float32("noise"),
            GoldenIn::Sigma,
        ];
        GoldenCase::new(op, &ins, &[], &[GoldenOut::Alone("loss")])
    }
}

impl Op for Loss {
    fn name(&self) -> &'static str {
        "loss"
    }

    fn outputs(&self, ins: &[Shape]) -> Result<Vec<Shape>> {
        ensure!(
            ins.len() == 4 && ins[1] == ins[0] && ins[2] == ins[0] && ins[3][3] == 2,
            "loss: F, y, noise alike and sigma [N, 1, 1, 2] wanted, {ins:?} given"
        );
        Ok(vec![[ins[0][0], 1, 1, 2]])
    }

    fn reads(&self, _ins: &[Shape]) -> Reads {
        Reads { ins: vec![0, 1, 2, 3], outs: vec![] }
    }

    fn fwd(&self, io: &Io) -> Launch {
        let (precond, io) = (self.precond, io.clone());
        Launch::new("loss_fwd", 0, move |b| {
            let words = image_words(io.shapes[0]);
            for (n, &sigma) in b.get_f64(io.ins[3]).iter().enumerate() {
                let [f, y, noise] = [0, 1, 2].map(|i| image(b, io.ins[i], n, words));
                let (k, c) = factors(precond, sigma);
                let sum = squared_error(f, y, noise, k, c);
                b.get_f64_mut(io.outs[0])[n] = precond.weight(sigma) * sum;
            }
        })
    }

    fn bwd(&self, io: &Io, grads: &Grads) -> Launch {
        let (op, io, grads) = (*self, io.clone(), grads.clone());
        Launch::new("loss_bwd", 0, move |b| {
            let Some(df) = grads.ins[0] else { return };
            let words = image_words(io.shapes[0]);
            for (n, &sigma) in b.get_f64(io.ins[3]).iter().enumerate() {
                let [f, y, noise] = [0, 1, 2].map(|i| image(b, io.ins[i], n, words));
                let (k, c) = factors(op.precond, sigma);
                let slope = 2.0 * op.precond.weight(sigma) * c[1] / op.batch as f64;
                let to = b.get_mut(df.slot.part(n * words, words));
                if df.acc == Acc::Set {
                    to.fill(0.0);
                }
                error_gradient(to, f, y, noise, k, c, slope);
            }
        })
    }

    fn kernels(&self, io: &Io, grads: Option<&Grads>) -> Vec<Kernel> {
        let (shape, precond) = (io.shapes[0], self.precond.number());
        let (n, words) = (shape[0], image_words(shape));
        let [f, y, noise, sigma] = [0, 1, 2, 3].map(|i| io.ins[i]);
        let Some(grads) = grads else {
            let loss = io.outs[0];
            let arguments = params!(LossFwd { loss, f, y, noise, sigma, words, precond });
            return vec![Kernel::new(params::LOSS_FWD, n, arguments)];
        };
        let Some(df) = grads.ins[0] else { return vec![] };
        let (batch, add) = (self.batch, df.acc);
        let arguments = params!(LossBwd { df, f, y, noise, sigma, words, precond, batch, add });
        vec![Kernel::new(params::LOSS_BWD, image_grid(shape), arguments)]
    }
}

/// D − y = k·y + `c[0]`·noise + `c[1]`·F.
fn factors(precond: Precond, sigma: f64) -> (f64, [f64; 2]) {
    let c = precond.coefficients(sigma);
    (c.skip - 1.0, [c.skip * sigma, c.out])
}

vectorized! {
    fn squared_error(f: &[f32], y: &[f32], noise: &[f32], k: f64, c: [f64; 2]) -> f64 {
        // Eight running sums, so that the order is fixed whatever the vector width.
        let mut sums = [0.0_f64; 8];
        for ((f, y), e) in f.chunks(8).zip(y.chunks(8)).zip(noise.chunks(8)) {
            for (((s, &f), &y), &e) in sums.iter_mut().zip(f).zip(y).zip(e) {
                let d = k.mul_add(y as f64, c[0].mul_add(e as f64, c[1] * f as f64));
                *s = d.mul_add(d, *s);
            }
        }
        sums.iter().sum()
    }

    /// df += slope·(D − y).
    fn error_gradient(df: &mut [f32], f: &[f32], y: &[f32], noise: &[f32], k: f64, c: [f64; 2], slope: f64) {
        for (((df, &f), &y), &e) in df.iter_mut().zip(f).zip(y).zip(noise) {
            let d = k.mul_add(y as f64, c[0].mul_add(e as f64, c[1] * f as f64));
            *df += (slope * d) as f32;
        }
    }
}
