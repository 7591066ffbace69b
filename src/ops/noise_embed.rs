//! noise_embed: sines and cosines of the noise label, [N, 1, 1, channels]; angles in float64, rounded once.
//!
//! Positional: [sin(c·f), cos(c·f)], f_i = (1/10000)^(i/(half − 1)). Fourier: [sin(2πcf), cos(2πcf)] with given
//! frequencies. Input sigma float64 `[N]`; Fourier takes the frequencies as a second input `[1, 1, 1, half]`.

use super::golden::{Described, GoldenCase, GoldenIn, GoldenOut};
use super::precondition::Precond;
use super::{Grads, Io, Op, Reads, Shape};
use crate::device::params::BLOCK_THREADS;
use crate::device::{Kernel, Launch, params};
use anyhow::{Result, ensure};
use std::f64::consts::TAU;

#[derive(Debug, Clone, Copy)]
pub struct NoiseEmbed {
    pub precond: Precond,
    pub channels: usize,
    pub fourier: bool,
}

impl NoiseEmbed {
    /// The op of a golden's case.
    pub fn golden(case: &Described) -> GoldenCase {
        let (precond, channels) = (Precond::golden(case), case.size("channels"));
        let fourier = case.attributes["kind"] == "fourier";
        let ins = [GoldenIn::Sigma, GoldenIn::Float32("freqs")];
        let op = NoiseEmbed { precond, channels, fourier };
        GoldenCase::new(op, &ins[..1 + fourier as usize], &[], &[GoldenOut::Alone("y")])
    }
}

impl Op for NoiseEmbed {
    fn name(&self) -> &'static str {
        "noise_embed"
    }

    fn outputs(&self, ins: &[Shape]) -> Result<Vec<Shape>> {
        let half = self.channels / 2;
        ensure!(
            ins.len() == 1 + self.fourier as usize
                && ins[0][1..] == [1, 1, 2]
                && (!self.fourier || ins[1] == [1, 1, 1, half]),
            "noise_embed: sigma [N, 1, 1, 2] and, for Fourier, {half} frequencies wanted, {ins:?} given"
        );
        Ok(vec![[ins[0][0], 1, 1, self.channels]])
    }

    fn reads(&self, _ins: &[Shape]) -> Reads {
        Reads::default()
    }

    fn fwd(&self, io: &Io) -> Launch {
        let (op, io) = (*self, io.clone());
        let half = self.channels / 2;
        let positional: Vec<f64> =
            (0..half).map(|i| 1e-4_f64.powf(i as f64 / (half.max(2) - 1) as f64)).collect();
        Launch::new("noise_embed_fwd", 0, move |b| {
            for (n, &sigma) in b.get_f64(io.ins[0]).iter().enumerate() {
                let c_noise = op.precond.coefficients(sigma).noise;
                let out = b.get_mut(io.outs[0].part(n * op.channels, op.channels));
                for i in 0..half {
                    let angle = if op.fourier {
                        TAU * b.get(io.ins[1])[i] as f64 * c_noise
                    } else {
                        positional[i] * c_noise
                    };
                    (out[i], out[half + i]) = (angle.sin() as f32, angle.cos() as f32);
                }
            }
        })
    }

    fn bwd(&self, _io: &Io, _grads: &Grads) -> Launch {
        Launch::new("noise_embed_bwd", 0, |_| ())
    }

    fn kernels(&self, io: &Io, grads: Option<&Grads>) -> Vec<Kernel> {
        if grads.is_some() {
            return vec![];
        }
        let (n, half) = (io.shapes[0][0], self.channels / 2);
        let arguments = params!(NoiseEmbed {
            e: io.outs[0],
            sigma: io.ins[0],
            freqs: io.ins.get(1).copied(),
            n,
            channels: self.channels,
            precond: self.precond.number(),
        });
        vec![Kernel::new(params::NOISE_EMBED, (n * half).div_ceil(BLOCK_THREADS), arguments)]
    }
}
