//! Preconditioning (Karras et al. 2022, Table 1): D = c_skip·x + c_out·F(c_in·x; c_noise), and the two ops at
//! the network's ends. Coefficients are computed in float64 per image and rounded once.

use super::golden::{Described, GoldenCase, GoldenIn, GoldenOut};
use super::sums::image_grid;
use super::{Grads, Io, Op, Reads, Shape, image_words};
use crate::device::cpu::math::vectorized;
use crate::device::{Bound, Dtype, Kernel, Launch, Precision, Sink, Slot, params, typed};
use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
#[value(rename_all = "lower")]
pub enum Precond {
    Vp,
    Ve,
    Edm,
}

/// VP's schedule: sigma(t)² = exp(½·19.9·t² + 0.1·t) − 1.
const BETA_D: f64 = 19.9;
const BETA_MIN: f64 = 0.1;
const EPS_T: f64 = 1e-5;
/// EDM's standard deviation of the data.
const SIGMA_DATA: f64 = 0.5;

/// The four coefficients of one noise level.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Coefficients {
    pub skip: f64,
    pub out: f64,
    pub input: f64,
    pub noise: f64,
}

fn vp_sigma(t: f64) -> f64 {
    (0.5 * BETA_D * t * t + BETA_MIN * t).exp_m1().sqrt()
}

impl Precond {
    /// That of a golden's case.
    pub(super) fn golden(case: &Described) -> Self {
        let named = case.attributes["precond"].clone();
        serde_json::from_value(named).expect("a preconditioning")
    }

    /// Its number in `kernels/prelude/precond.cuh`.
    pub fn number(self) -> usize {
        self as usize
    }

    pub fn coefficients(self, sigma: f64) -> Coefficients {
        let s2 = sigma * sigma;
        match self {
            Precond::Vp => {
                // t of ½·d·t² + m·t = ln(1 + σ²), written without the difference of near-equal roots.
                let log = s2.ln_1p();
                let root = (BETA_MIN * BETA_MIN + 2.0 * BETA_D * log).sqrt();
                let t = 2.0 * log / (root + BETA_MIN);
                Coefficients {
                    skip: 1.0,
                    out: -sigma,
                    input: 1.0 / (s2 + 1.0).sqrt(),
                    noise: 999.0 * t,
                }
            }
            Precond::Ve => {
                Coefficients { skip: 1.0, out: sigma, input: 1.0, noise: (0.5 * sigma).ln() }
            }
            Precond::Edm => {
                let total = s2 + SIGMA_DATA * SIGMA_DATA;
                Coefficients {
                    skip: SIGMA_DATA * SIGMA_DATA / total,
                    out: sigma * SIGMA_DATA / total.sqrt(),
                    input: 1.0 / total.sqrt(),
                    noise: sigma.ln() / 4.0,
                }
            }
        }
    }

    /// The loss's weight of a noise level.
    pub fn weight(self, sigma: f64) -> f64 {
        let s2 = sigma * sigma;
        match self {
            Precond::Vp | Precond::Ve => 1.0 / s2,
            Precond::Edm => (s2 + SIGMA_DATA * SIGMA_DATA) / (s2 * SIGMA_DATA * SIGMA_DATA),
        }
    }

    /// A training noise level from a uniform number in (0, 1) (VP, VE) or a standard normal (EDM).
    pub fn training_sigma(self, uniform: f64, normal: f64) -> f64 {
        match self {
            Precond::Vp => vp_sigma(1.0 + uniform * (EPS_T - 1.0)),
            Precond::Ve => 0.02 * 5000_f64.powf(uniform),
            Precond::Edm => (1.2 * normal - 1.2).exp(),
        }
    }

    /// The noise levels the network accepts: (lowest, highest).
    pub fn sigma_range(self) -> (f64, f64) {
        match self {
            Precond::Vp => (vp_sigma(EPS_T), vp_sigma(1.0)),
            Precond::Ve => (0.02, 100.0),
            Precond::Edm => (0.0, f64::INFINITY),
        }
    }
}

/// One image of `s` as [words of an image].
pub(super) fn image(b: &Bound, s: Slot, n: usize, words: usize) -> &[f32] {
    b.get(s.part(n * words, words))
}

fn check(name: &str, ins: &[Shape], images: usize) -> Result<()> {
    let last = ins.len().saturating_sub(1);
    ensure!(
        ins.len() == images + 1
            && ins[..images].iter().all(|s| *s == ins[0])
            && ins[last] == [ins[0][0], 1, 1, 2],
        "{name}: {images} image tensors alike and sigma [N, 1, 1, 2] wanted, {ins:?} given"
    );
    Ok(())
}

/// Of each image a·u + b·v, where u and v are the inputs `operands` and [a, b] a function of its noise level,
/// the last input; computed in float64 and rounded once.
fn per_image(
    name: &'static str,
    io: &Io,
    operands: [usize; 2],
    factors: impl Fn(f64) -> [f64; 2] + Send + Sync + 'static,
) -> Launch {
    let (io, words) = (io.clone(), image_words(io.shapes[0]));
    Launch::new(name, io.outs[0].wide(words), move |b| {
        let sigmas = io.ins[io.ins.len() - 1];
        for (n, &sigma) in b.get_f64(sigmas).iter().enumerate() {
            let [u, v] = operands.map(|i| image(b, io.ins[i], n, words));
            let [a, c] = factors(sigma).map(|f| f as f32);
            b.write(Sink::set(io.outs[0]), n * words, words, b.scratch(), |to| {
                scaled_sum(to, a, u, c, v);
            });
        }
    })
}

/// noisy: (x, c_in·x) of x = y + sigma·noise. Inputs y, noise `[N, H, W, C]`, sigma float64 `[N]`.
#[derive(Debug, Clone, Copy)]
pub struct Noisy(pub Precond);

impl Noisy {
    /// The op of a golden's case.
    pub fn golden(case: &Described) -> GoldenCase {
        let ins = [GoldenIn::Float32("y"), GoldenIn::Float32("noise"), GoldenIn::Sigma];
        GoldenCase::new(Noisy(Precond::golden(case)), &ins, &[], &[GoldenOut::Alone("xin")])
    }
}

impl Op for Noisy {
    fn name(&self) -> &'static str {
        "noisy"
    }

    fn outputs(&self, ins: &[Shape]) -> Result<Vec<Shape>> {
        check(self.name(), ins, 2)?;
        Ok(vec![ins[0]])
    }

    fn dtypes(&self, precision: Precision, outs: usize) -> Vec<Dtype> {
        vec![precision.storage(); outs]
    }

    fn reads(&self, _ins: &[Shape]) -> Reads {
        Reads::default()
    }

    fn fwd(&self, io: &Io) -> Launch {
        let precond = self.0;
        per_image("noisy_fwd", io, [0, 1], move |sigma| {
            let c_in = precond.coefficients(sigma).input;
            [c_in, c_in * sigma]
        })
    }

    fn bwd(&self, _io: &Io, _grads: &Grads) -> Launch {
        Launch::new("noisy_bwd", 0, |_| ())
    }

    fn kernels(&self, io: &Io, grads: Option<&Grads>) -> Vec<Kernel> {
        // What begins the network passes no gradient on.
        if grads.is_some() {
            return vec![];
        }
        let [y, noise, sigma] = [0, 1, 2].map(|i| io.ins[i]);
        let (out, words, precond) = (io.outs[0], image_words(io.shapes[0]), self.0.number());
        let kernel = typed([params::NOISY, params::NOISY_BF16], out.dtype);
        let arguments = params!(Noisy { out, y, noise, sigma, words, precond });
        vec![Kernel::new(kernel, image_grid(io.shapes[0]), arguments)]
    }
}

/// scale_input: c_in·x. Inputs x `[N, H, W, C]`, sigma float64 `[N]`.
#[derive(Debug, Clone, Copy)]
pub struct ScaleInput(pub Precond);

impl Op for ScaleInput {
    fn name(&self) -> &'static str {
        "scale_input"
    }

    fn outputs(&self, ins: &[Shape]) -> Result<Vec<Shape>> {
        check(self.name(), ins, 1)?;
        Ok(vec![ins[0]])
    }

    fn dtypes(&self, precision: Precision, outs: usize) -> Vec<Dtype> {
        vec![precision.storage(); outs]
    }

    fn reads(&self, _ins: &[Shape]) -> Reads {
        Reads::default()
    }

    fn fwd(&self, io: &Io) -> Launch {
        let precond = self.0;
        per_image("scale_input_fwd", io, [0, 0], move |sigma| {
            [precond.coefficients(sigma).input, 0.0]
        })
    }

    fn bwd(&self, _io: &Io, _grads: &Grads) -> Launch {
        Launch::new("scale_input_bwd", 0, |_| ())
    }

    fn kernels(&self, io: &Io, grads: Option<&Grads>) -> Vec<Kernel> {
        if grads.is_some() {
            return vec![];
        }
        let [x, sigma] = [0, 1].map(|i| io.ins[i]);
        let (out, words, precond) = (io.outs[0], image_words(io.shapes[0]), self.0.number());
        let kernel = typed([params::SCALE_INPUT, params::SCALE_INPUT_BF16], out.dtype);
        let arguments = params!(ScaleInput { out, x, sigma, words, precond });
        vec![Kernel::new(kernel, image_grid(io.shapes[0]), arguments)]
    }
}

/// denoised: D = c_skip·x + c_out·F. Inputs x, F `[N, H, W, C]`, sigma float64 `[N]`.
#[derive(Debug, Clone, Copy)]
pub struct Denoised(pub Precond);

impl Denoised {
    /// The op of a golden's case.
    pub fn golden(case: &Described) -> GoldenCase {
        let ins = [GoldenIn::Float32("x"), GoldenIn::Float32("f"), GoldenIn::Sigma];
        GoldenCase::new(Denoised(Precond::golden(case)), &ins, &[], &[GoldenOut::Alone("d")])
    }
}

impl Op for Denoised {
    fn name(&self) -> &'static str {
        "denoised"
    }

    fn outputs(&self, ins: &[Shape]) -> Result<Vec<Shape>> {
        check(self.name(), ins, 2)?;
        Ok(vec![ins[0]])
    }

    fn reads(&self, _ins: &[Shape]) -> Reads {
        Reads::default()
    }

    fn fwd(&self, io: &Io) -> Launch {
        let precond = self.0;
        per_image("denoised_fwd", io, [0, 1], move |sigma| {
            let c = precond.coefficients(sigma);
            [c.skip, c.out]
        })
    }

    fn bwd(&self, _io: &Io, _grads: &Grads) -> Launch {
        unreachable!("denoised ends inference plans; training ends in loss")
    }

    fn kernels(&self, io: &Io, grads: Option<&Grads>) -> Vec<Kernel> {
        if grads.is_some() {
            return vec![];
        }
        let [x, f, sigma] = [0, 1, 2].map(|i| io.ins[i]);
        let (out, words, precond) = (io.outs[0], image_words(io.shapes[0]), self.0.number());
        let arguments = params!(Denoised { out, x, f, sigma, words, precond });
        vec![Kernel::new(params::DENOISED, image_grid(io.shapes[0]), arguments)]
    }
}

vectorized! {
    /// out = a·x + b·y.
    fn scaled_sum(out: &mut [f32], a: f32, x: &[f32], b: f32, y: &[f32]) {
        for ((o, &x), &y) in out.iter_mut().zip(x).zip(y) {
            *o = a.mul_add(x, b * y);
        }
    }
}
