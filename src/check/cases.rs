//! Every op's cases: the golden files name them, this page says how a file's tensors become an op's operands, and what
//! a run of them must give.

use super::Off;
use super::golden::{Golden, rel_err};
use crate::device::{Acc, Dtype, Precision, StepArgs};
use crate::ops::attention::Attention;
use crate::ops::conv2d::Conv2d;
use crate::ops::fir::Fir;
use crate::ops::golden::{Described, GoldenCase, GoldenIn, GoldenOut};
use crate::ops::label_embed::LabelEmbed;
use crate::ops::linear::Linear;
use crate::ops::loss::Loss;
use crate::ops::noise_embed::NoiseEmbed;
use crate::ops::norm::Norm;
use crate::ops::precondition::{Denoised, Noisy};
use crate::ops::{Op, Shape};
use anyhow::Result;
use serde_json::Value;

macro_rules! goldens {
    ($($name:literal: $op:ident),* $(,)?) => {
        /// The golden files of all ops, embedded: a machine that runs the checks may hold nothing but the binary.
        pub const GOLDENS: [(&str, &[u8]); [$($name),*].len()] = [
            $(($name, include_bytes!(concat!("../../tests/goldens/ops/", $name, ".safetensors")))),*
        ];

        fn described(op: &str, case: &Described) -> GoldenCase {
            match op {
                $($name => $op::golden(case),)*
                _ => panic!("no op of that name: {op}"),
            }
        }
    };
}

goldens! {
    "attention": Attention,
    "conv2d": Conv2d,
    "denoise": Denoised,
    "fir_pad": Fir,
    "label_embed": LabelEmbed,
    "linear": Linear,
    "loss": Loss,
    "noise_embed": NoiseEmbed,
    "norm": Norm,
    "precondition": Noisy,
}

/// The bar of everything computed and stored in float32.
const EXACT: f64 = 1e-5;

/// An operand: its words, its shape on the tape, and the golden name of its gradient.
#[derive(Debug, Clone)]
pub struct Operand {
    pub shape: Shape,
    pub words: Vec<f32>,
    /// Golden name of its gradient, where it has one.
    pub grad: Option<String>,
    /// Whether it and its gradient are stored as the precision stores activations, else in float32.
    pub activation: bool,
}

impl Operand {
    pub(super) fn dtype(&self, precision: Precision) -> Dtype {
        if self.activation { precision.storage() } else { Dtype::F32 }
    }
}

/// One op with operands.
pub struct Case {
    pub op: Box<dyn Op>,
    pub ins: Vec<Operand>,
    pub params: Vec<Operand>,
    /// Golden names of the outputs that are compared.
    pub outs: Vec<Option<String>>,
    /// Gradients of the outputs.
    pub d_outs: Vec<Option<Vec<f32>>>,
    pub args: StepArgs,
    /// Stored in bf16 its inputs lose what matters; a twin with rounded inputs stands in.
    pub float32_only: bool,
}

/// What a run of a case gave: words of outputs, and of gradients of inputs and parameters.
pub struct Ran {
    pub outs: Vec<Vec<f32>>,
    pub d_ins: Vec<Option<Vec<f32>>>,
    pub d_params: Vec<Vec<f32>>,
}

impl Case {
    /// Case `name` of the golden file of op `op`.
    pub fn from_golden(op: &str, g: &Golden, name: &str, a: &Value) -> Case {
        let full = |t: &str| format!("{name}/{t}");
        let shape = |t: &str| g.shape(&full(t)).map(<[usize]>::to_vec);
        let case = described(op, &Described { attributes: a, shape: &shape });
        let operand = |t: &str, activation: bool| {
            let (shape, words) = g.f32(&full(t));
            let shape = match *shape {
                [n, h, w, c] => [n, h, w, c],
                [n, c] => [n, 1, 1, c],
                _ => [1, 1, 1, words.len()],
            };
            let grad = Some(full(&format!("d{t}"))).filter(|d| g.has(d));
            Operand { shape, words, grad, activation }
        };
        let given = |images: usize, words: Vec<f32>| {
            let shape = [images, 1, 1, words.len() / images];
            Operand { shape, words, grad: None, activation: false }
        };
        let input = |input: &GoldenIn| match *input {
            GoldenIn::Activation(t) => operand(t, true),
            GoldenIn::Float32(t) => operand(t, false),
            GoldenIn::Sigma => {
                let (shape, values) = g.f64(&full("sigma"));
                given(shape[0], bytemuck::cast_slice(&values).to_vec())
            }
            GoldenIn::Int32(t) => {
                let (shape, values) = g.i32(&full(t));
                given(shape[0], bytemuck::cast_slice(&values).to_vec())
            }
        };
        let d_out = |out: &GoldenOut| match out {
            GoldenOut::Differentiated(t) => Some(g.f32(&full(&format!("d{t}"))).1),
            GoldenOut::Alone(_) | GoldenOut::Kept => None,
        };
        let out = |out: &GoldenOut| match out {
            GoldenOut::Differentiated(t) | GoldenOut::Alone(t) => Some(full(t)),
            GoldenOut::Kept => None,
        };
        Case {
            ins: case.ins.iter().map(input).collect(),
            params: case.params.iter().map(|t| operand(t, false)).collect(),
            outs: case.outs.iter().map(out).collect(),
            d_outs: case.outs.iter().map(d_out).collect(),
            op: case.op,
            args: case.args,
            float32_only: a["float32_only"].as_bool().unwrap_or(false),
        }
    }

    /// Whether the case has gradients.
    pub fn has_backward(&self) -> bool {
        self.ins.iter().chain(&self.params).any(|o| o.grad.is_some())
    }

    /// Whether the case says something at this precision that it does not say in float32.
    pub fn applies(&self, precision: Precision) -> bool {
        match precision {
            Precision::Fp32 => true,
            Precision::Tf32 => self.bar(precision) > EXACT,
            Precision::Bf16 => self.bar(precision) > EXACT && !self.float32_only,
        }
    }

    /// What the relative error must stay below: 1e-5, but 2e-3 where products are rounded to tf32 (a rounding is 2^-12
    /// at most) and 2e-2 where tensors are stored in bf16 (2^-9), which leaves room for a few roundings each.
    pub fn bar(&self, precision: Precision) -> f64 {
        let stored = self.op.dtypes(Precision::Bf16, self.outs.len()).contains(&Dtype::Bf16);
        match precision {
            Precision::Bf16 if stored || self.ins.iter().any(|o| o.activation) => 2e-2,
            Precision::Tf32 if self.op.name() == "conv2d" => 2e-3,
            _ => EXACT,
        }
    }

    /// Largest relative error of outputs and gradients against the golden, gradients both set and added.
    ///
    /// `run`: one of [`Case::run`] and [`Case::run_kernels`] on a device, at `precision`.
    ///
    /// # Errors
    /// If anything is not finite, or of another length; names the tensor.
    pub fn error(
        &self,
        g: &Golden,
        precision: Precision,
        run: impl Fn(&Case, Acc, f32) -> Result<Ran>,
    ) -> Result<Off> {
        const START: f32 = 0.5;
        let mut worst = Off::default();
        for acc in [Acc::Set, Acc::Add] {
            let ran = run(self, acc, START)?;
            let mut compare = |name: &str, got: &[f32], started: f32| -> Result<()> {
                let tensor = name.rsplit('/').next().unwrap_or(name);
                let err = if tensor == "loss" {
                    rel_err(bytemuck::cast_slice::<f32, f64>(got), &g.f64(name).1)
                } else {
                    let want: Vec<f32> = g.f32(name).1.iter().map(|v| v + started).collect();
                    rel_err(got, &want)
                };
                worst.take(err.map_err(|e| e.context(tensor.to_string()))?, tensor);
                Ok(())
            };
            for (name, got) in self.outs.iter().zip(&ran.outs) {
                if let Some(name) = name {
                    compare(name, got, 0.0)?;
                }
            }
            // A gradient that was added to is compared alone, but where the sum was rounded to bf16: as that sum.
            let d_ins = self.ins.iter().zip(ran.d_ins.iter().map(Option::as_ref));
            let d_params = self.params.iter().zip(ran.d_params.iter().map(Some));
            for (o, got) in d_ins.chain(d_params) {
                let (Some(name), Some(got)) = (&o.grad, got) else { continue };
                match acc {
                    Acc::Set => compare(name, got, 0.0)?,
                    Acc::Add if o.dtype(precision) == Dtype::Bf16 => compare(name, got, START)?,
                    Acc::Add => {
                        compare(name, &got.iter().map(|v| v - START).collect::<Vec<_>>(), 0.0)?
                    }
                }
            }
        }
        Ok(worst)
    }
}
