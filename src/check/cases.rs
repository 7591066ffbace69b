//! Every op's cases: the golden files name them, this page says how a file's tensors become an op's operands, and what
//! a run of them must give.

use super::Off;
use super::golden::{Golden, rel_err};
use crate::device::cpu::resample::Resampling;
use crate::device::{Acc, Dtype, Precision, StepArgs};
use crate::ops::attention::Attention;
use crate::ops::conv2d::{Conv2d, Shortcut};
use crate::ops::fir::Fir;
use crate::ops::label_embed::LabelEmbed;
use crate::ops::linear::Linear;
use crate::ops::loss::Loss;
use crate::ops::noise_embed::NoiseEmbed;
use crate::ops::norm::Norm;
use crate::ops::precondition::{Denoised, Noisy, Precond};
use crate::ops::{Op, Shape};
use anyhow::Result;
use serde_json::Value;

/// The golden files of all ops, embedded: a machine that runs the checks may hold nothing but the binary.
pub const GOLDENS: [(&str, &[u8]); 10] = [
    ("attention", include_bytes!("../../tests/goldens/ops/attention.safetensors")),
    ("conv2d", include_bytes!("../../tests/goldens/ops/conv2d.safetensors")),
    ("denoise", include_bytes!("../../tests/goldens/ops/denoise.safetensors")),
    ("fir_pad", include_bytes!("../../tests/goldens/ops/fir_pad.safetensors")),
    ("label_embed", include_bytes!("../../tests/goldens/ops/label_embed.safetensors")),
    ("linear", include_bytes!("../../tests/goldens/ops/linear.safetensors")),
    ("loss", include_bytes!("../../tests/goldens/ops/loss.safetensors")),
    ("noise_embed", include_bytes!("../../tests/goldens/ops/noise_embed.safetensors")),
    ("norm", include_bytes!("../../tests/goldens/ops/norm.safetensors")),
    ("precondition", include_bytes!("../../tests/goldens/ops/precondition.safetensors")),
];

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

fn precond(a: &Value) -> Precond {
    serde_json::from_value(a["precond"].clone()).expect("a preconditioning")
}

impl Case {
    /// Case `name` of the golden file of op `op`.
    pub fn from_golden(op: &str, g: &Golden, name: &str, a: &Value) -> Case {
        let number = |key: &str| a[key].as_u64().unwrap_or(0);
        let size = |key: &str| number(key) as usize;
        let flag = |key: &str| a[key].as_bool().unwrap_or(false);
        let full = |t: &str| format!("{name}/{t}");
        let has = |t: &str| g.has(&full(t));
        let shape_of = |t: &str| g.f32(&full(t)).0.to_vec();
        let tensor = |t: &str, grad: &str| {
            let (shape, words) = g.f32(&full(t));
            let shape = match *shape {
                [n, h, w, c] => [n, h, w, c],
                [n, c] => [n, 1, 1, c],
                _ => [1, 1, 1, words.len()],
            };
            Operand { shape, words, grad: has(grad).then(|| full(grad)), activation: false }
        };
        let activation = |t: &str, grad: &str| Operand { activation: true, ..tensor(t, grad) };
        let sigma = || {
            let (shape, values) = g.f64(&full("sigma"));
            let shape = [shape[0], 1, 1, 2];
            Operand {
                shape,
                words: bytemuck::cast_slice(&values).to_vec(),
                grad: None,
                activation: false,
            }
        };
        let mut args = StepArgs::default();
        let mut outs = vec![Some(full("y"))];
        let mut d_out_names = vec![Some("dy")];
        let (op, ins, params): (Box<dyn Op>, Vec<Operand>, Vec<Operand>) = match op {
            "attention" => {
                outs.push(None);
                d_out_names.push(None);
                (Box::new(Attention), vec![activation("qkv", "dqkv")], vec![])
            }
            "conv2d" => {
                let shortcut = has("s1").then(|| Shortcut { two: has("s2"), off: size("off") });
                let conv = Conv2d {
                    kernel: size("kernel"),
                    stride: size("stride"),
                    pad: size("pad"),
                    out_channels: shape_of("w")[0],
                    scale: a["scale"].as_f64().unwrap_or(1.0) as f32,
                    emb: has("emb").then(|| size("emb_first")),
                    residual: has("residual"),
                    shortcut,
                    float32: flag("last"),
                };
                let ins = ["x", "emb", "residual", "s1", "s2"].into_iter().filter(|t| has(t));
                let params = ["w", "b", "sw", "sb"].into_iter().filter(|t| has(t));
                let with_grad = |t: &str| {
                    let activation = ["x", "residual", "s1", "s2"].contains(&t);
                    Operand { activation, ..tensor(t, &format!("d{t}")) }
                };
                (Box::new(conv), ins.map(with_grad).collect(), params.map(with_grad).collect())
            }
            "denoise" => {
                outs = vec![Some(full("d"))];
                d_out_names = vec![None];
                let ins = vec![tensor("x", ""), tensor("f", ""), sigma()];
                (Box::new(Denoised(precond(a))), ins, vec![])
            }
            "fir_pad" => {
                outs = vec![Some(full("g"))];
                d_out_names = vec![Some("dg")];
                (Box::new(Fir), vec![activation("x", "dx")], vec![])
            }
            "label_embed" => {
                let (shape, labels) = g.i32(&full("labels"));
                let labels = Operand {
                    shape: [shape[0], 1, 1, 1],
                    words: bytemuck::cast_slice(&labels).to_vec(),
                    grad: None,
                    activation: false,
                };
                // The master layout [label, channel] is the golden's.
                let params = vec![tensor("table", "dtable"), tensor("b", "db")];
                let op = LabelEmbed { label_dim: size("label_dim") };
                (Box::new(op), vec![tensor("e", "de"), labels], params)
            }
            "linear" => {
                let widths = a["widths"].as_array().expect("widths of the linears");
                let widths = widths.iter().map(|w| w.as_u64().expect("a width") as usize);
                let op = Linear { out_features: widths.collect(), silu: flag("silu") };
                if op.silu {
                    outs.push(None);
                    d_out_names.push(None);
                }
                let params = vec![tensor("w", "dw"), tensor("b", "db")];
                (Box::new(op), vec![tensor("x", "dx")], params)
            }
            "loss" => {
                outs = vec![Some(full("loss"))];
                d_out_names = vec![None];
                let op = Loss { precond: precond(a), batch: size("batch") };
                let ins = vec![tensor("f", "df"), tensor("y", ""), tensor("noise", ""), sigma()];
                (Box::new(op), ins, vec![])
            }
            "noise_embed" => {
                d_out_names = vec![None];
                let fourier = a["kind"] == "fourier";
                let op = NoiseEmbed { precond: precond(a), channels: size("channels"), fourier };
                let mut ins = vec![sigma()];
                if fourier {
                    ins.push(tensor("freqs", ""));
                }
                (Box::new(op), ins, vec![])
            }
            "norm" => {
                let p = a["p"].as_f64().unwrap_or(0.0);
                args = StepArgs {
                    seed: number("seed"),
                    step: number("step") as u32,
                    first_image: number("first_image") as u32,
                };
                let resample = match a["resample"].as_str() {
                    Some("down") => Some(Resampling::Down),
                    Some("up") => Some(Resampling::Up),
                    Some("fir_down") => Some(Resampling::FirDown),
                    Some("fir_up") => Some(Resampling::FirUp),
                    _ => None,
                };
                outs.push(None);
                d_out_names.push(None);
                if resample.is_some() {
                    outs.push(Some(full("xr")));
                    d_out_names.push(Some("dxr"));
                }
                let op = Norm {
                    groups: size("groups"),
                    silu: flag("silu"),
                    dropout: (p > 0.0).then_some((p, number("layer") as u32)),
                    resample,
                    off: size("off"),
                };
                let ins = ["x1", "x2"].into_iter().filter(|t| has(t));
                let params = vec![tensor("gamma", "dgamma"), tensor("beta", "dbeta")];
                (Box::new(op), ins.map(|t| activation(t, &format!("d{t}"))).collect(), params)
            }
            "precondition" => {
                outs = vec![Some(full("xin"))];
                d_out_names = vec![None];
                let ins = vec![tensor("y", ""), tensor("noise", ""), sigma()];
                (Box::new(Noisy(precond(a))), ins, vec![])
            }
            _ => panic!("no op of that name: {op}"),
        };
        let d_outs = d_out_names.iter().map(|n| n.map(|n| g.f32(&full(n)).1)).collect();
        Case { op, ins, params, outs, d_outs, args, float32_only: flag("float32_only") }
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
