//! Some values of a tensor, and what definitions are written with.

use super::super::Off;
use super::super::cases::{Case, Operand, Ran};
use super::super::golden::rel_err;
use crate::rng::philox;
use anyhow::Result;
use rayon::prelude::*;

/// Which tensor of a run: an output, or the gradient of an input or of a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of {
    Out(usize),
    In(usize),
    Param(usize),
}

/// Some values of a tensor.
pub struct Sample {
    pub of: Of,
    pub at: Vec<usize>,
    pub want: Vec<f64>,
}

impl Sample {
    /// `value` of each place.
    pub fn new(of: Of, at: Vec<usize>, value: impl Fn(usize) -> f64 + Sync) -> Self {
        let want = at.par_iter().map(|&i| value(i)).collect();
        Sample { of, at, want }
    }

    /// How far a run is from it.
    ///
    /// # Errors
    /// If a value is not finite.
    pub fn error(&self, case: &Case, ran: &Ran) -> Result<f64> {
        let tensor = self.of.tensor(ran).unwrap_or(&[]);
        let got: Vec<f64> = match self.of.is_float64(case) {
            true => {
                let all: Vec<f64> = bytemuck::pod_collect_to_vec(tensor);
                self.at.iter().map(|&i| all[i]).collect()
            }
            false => self.at.iter().map(|&i| tensor[i] as f64).collect(),
        };
        rel_err(&got, &self.want)
    }
}

impl Of {
    pub fn tensor(self, ran: &Ran) -> Option<&[f32]> {
        match self {
            Of::Out(i) => Some(&ran.outs[i]),
            Of::In(i) => ran.d_ins[i].as_deref(),
            Of::Param(i) => Some(&ran.d_params[i]),
        }
    }

    /// As the case calls it; `None` for what is not compared.
    pub fn name(self, case: &Case) -> Option<&str> {
        match self {
            Of::Out(i) => case.outs[i].as_deref(),
            Of::In(i) => case.ins[i].grad.as_deref(),
            Of::Param(i) => case.params[i].grad.as_deref(),
        }
    }

    fn is_float64(self, case: &Case) -> bool {
        self.name(case) == Some("loss")
    }

    /// All that a case compares.
    pub fn all(case: &Case) -> Vec<Of> {
        let outs = (0..case.outs.len()).map(Of::Out);
        let ins = (0..case.ins.len()).map(Of::In);
        let all = outs.chain(ins).chain((0..case.params.len()).map(Of::Param));
        all.filter(|of| of.name(case).is_some()).collect()
    }

    /// Relative error of a whole tensor against another run's, named in `off`.
    ///
    /// # Errors
    /// If a value is not finite.
    pub fn beside(self, case: &Case, got: &Ran, want: &Ran, off: &mut Off) -> Result<()> {
        let Some(name) = self.name(case) else { return Ok(()) };
        let (got, want) = (self.tensor(got).unwrap_or(&[]), self.tensor(want).unwrap_or(&[]));
        let by = match self.is_float64(case) {
            true => {
                let float64 = bytemuck::pod_collect_to_vec::<f32, f64>;
                rel_err(&float64(got), &float64(want))
            }
            false => rel_err(got, want),
        };
        off.take(by.map_err(|e| e.context(name.to_string()))?, &format!("{name} beside fp32's"));
        Ok(())
    }
}

/// The first and the last of n and some between, in order.
pub fn some(count: usize, n: usize) -> Vec<usize> {
    let between = (0..count).map(|i| philox([i as u32, n as u32, 0, 0], 13)[0] as usize % n);
    let mut all: Vec<usize> = between.chain([0, n - 1]).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// All values of some rows.
pub fn in_rows(rows: &[usize], len: usize) -> Vec<usize> {
    rows.iter().flat_map(|row| row * len..(row + 1) * len).collect()
}

pub fn d_out(case: &Case, i: usize) -> &[f32] {
    case.d_outs[i].as_deref().expect("a gradient of this output")
}

pub fn sigmas(operand: &Operand) -> Vec<f64> {
    bytemuck::pod_collect_to_vec(&operand.words)
}

pub fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

pub fn silu(x: f64) -> f64 {
    x * sigmoid(x)
}

/// d silu(x) / dx.
pub fn silu_slope(x: f64) -> f64 {
    let s = sigmoid(x);
    s * (1.0 + x * (1.0 - s))
}
