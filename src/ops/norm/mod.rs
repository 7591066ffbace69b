//! norm: GroupNorm of one or two inputs (channels concatenated), then SiLU, dropout and resampling as asked, in
//! one pass over each image. Resample also gives the resampled input, which up and down blocks need.
//!
//! - x1 [N, H, W, C1], x2 [N, H, W, C2]; `off` further channels are zeros of a switched-off skip: they enter
//!   the statistics and leave as f(β), but are neither stored nor differentiated.
//! - gamma, beta [C1 + C2 + off]; y [N, H', W', C]; statistics [N, 1, 1, 2·groups] (mean, 1/deviation).

mod cpu;
mod gpu;
mod shape;

pub use shape::Norm;

use super::golden::{Described, GoldenCase, GoldenIn, GoldenOut};
use super::later::{LaterSums, LaterWords};
use super::{Direction, Grads, Io, Op, Reads, Shape};
use crate::device::cpu::resample::Resampling;
use crate::device::{Dtype, GpuLimits, Kernel, Launch, Precision, StepArgs};
use anyhow::{Result, ensure};

impl Norm {
    /// The op of a golden's case.
    pub fn golden(case: &Described) -> GoldenCase {
        let p = case.attributes["p"].as_f64().unwrap_or(0.0);
        let resample = match case.attributes["resample"].as_str() {
            Some("down") => Some(Resampling::Down),
            Some("up") => Some(Resampling::Up),
            Some("fir_down") => Some(Resampling::FirDown),
            Some("fir_up") => Some(Resampling::FirUp),
            _ => None,
        };
        let op = Norm {
            groups: case.size("groups"),
            silu: case.flag("silu"),
            dropout: (p > 0.0).then_some((p, case.number("layer") as u32)),
            resample,
            off: case.size("off"),
        };
        let ins = [GoldenIn::Activation("x1"), GoldenIn::Activation("x2")];
        let outs =
            [GoldenOut::Differentiated("y"), GoldenOut::Kept, GoldenOut::Differentiated("xr")];
        let (ins, outs) =
            (&ins[..1 + case.has("x2") as usize], &outs[..2 + resample.is_some() as usize]);
        let args = StepArgs {
            seed: case.number("seed"),
            step: case.number("step") as u32,
            first_image: case.number("first_image") as u32,
        };
        GoldenCase { args, ..GoldenCase::new(op, ins, &["gamma", "beta"], outs) }
    }
}

impl Op for Norm {
    fn name(&self) -> &'static str {
        "norm"
    }

    fn outputs(&self, ins: &[Shape]) -> Result<Vec<Shape>> {
        ensure!((1..=2).contains(&ins.len()), "norm: one or two inputs wanted, {ins:?} given");
        ensure!(ins.iter().all(|s| s[..3] == ins[0][..3]), "norm: inputs {ins:?} differ in size");
        let (c, [n, h, w, _]) = (self.channels(ins), ins[0]);
        ensure!(
            self.groups > 0 && c.is_multiple_of(self.groups),
            "norm: {} groups do not divide {c} channels of {ins:?}",
            self.groups
        );
        ensure!(
            self.resample.is_none() || (ins.len() == 1 && self.off == 0),
            "norm: resampling takes one input, {ins:?} given"
        );
        if let Some(Resampling::Down | Resampling::FirDown) = self.resample {
            ensure!(h % 2 == 0 && w % 2 == 0, "norm: {ins:?} cannot be halved");
        }
        let [ho, wo] = self.out_size(ins[0]);
        let mut outs = vec![[n, ho, wo, c], [n, 1, 1, 2 * self.groups]];
        if self.resample.is_some() {
            outs.push([n, ho, wo, c]);
        }
        Ok(outs)
    }

    fn dtypes(&self, precision: Precision, outs: usize) -> Vec<Dtype> {
        let mut dtypes = vec![precision.storage(); outs];
        // Statistics.
        dtypes[1] = Dtype::F32;
        dtypes
    }

    fn param_lens(&self, ins: &[Shape]) -> Vec<usize> {
        vec![self.channels(ins); 2]
    }

    fn reads(&self, ins: &[Shape]) -> Reads {
        Reads { ins: (0..ins.len()).collect(), outs: vec![1] }
    }

    fn temp_words(&self, ins: &[Shape], direction: Direction) -> usize {
        match direction {
            Direction::Fwd => 0,
            Direction::Bwd => self.image_sums(ins).words(),
        }
    }

    fn fwd(&self, io: &Io) -> Launch {
        cpu::forward(*self, io)
    }

    fn bwd(&self, io: &Io, grads: &Grads) -> Launch {
        cpu::backward(*self, io, grads)
    }

    fn kernel_temp_words(
        &self,
        ins: &[Shape],
        _precision: Precision,
        direction: Direction,
    ) -> usize {
        gpu::temp_words(self, ins, direction)
    }

    fn later_words(
        &self,
        ins: &[Shape],
        _precision: Precision,
        _limits: GpuLimits,
        _batch: usize,
    ) -> LaterWords {
        LaterWords { rows: self.image_sums(ins).words(), chains: 0 }
    }

    fn sums(&self, io: &Io, grads: &Grads) -> LaterSums {
        gpu::sums(self, io, grads)
    }

    fn gives_sums(&self, ins: &[Shape], precision: Precision, limits: GpuLimits) -> bool {
        gpu::gives_sums(self, ins, precision.storage(), limits)
    }

    fn takes_residual(&self, ins: &[Shape], precision: Precision, limits: GpuLimits) -> bool {
        let plain = self.dropout.is_none() && self.resample.is_none();
        plain && self.gives_sums(ins, precision, limits)
    }

    fn kernels(&self, io: &Io, grads: Option<&Grads>) -> Vec<Kernel> {
        match grads {
            None => gpu::forward(self, io),
            Some(grads) => gpu::backward(self, io, grads),
        }
    }
}
