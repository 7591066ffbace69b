//! The U-Net recorded on a tape: one function for training and inference, both architectures, any mask.

use super::config::{Arch, Embedding, ModelConfig};
use super::layout::{Kind, Layout, Part, Resample};
use super::params::Params;
use crate::device::cpu::resample::Resampling;
use crate::ops::attention::Attention;
use crate::ops::conv2d::{Conv2d, Shortcut};
use crate::ops::fir::Fir;
use crate::ops::label_embed::LabelEmbed;
use crate::ops::linear::Linear;
use crate::ops::noise_embed::NoiseEmbed;
use crate::ops::norm::Norm;
use crate::tape::{Param, Tape, Value};
use anyhow::Result;

const SQRT_HALF: f32 = std::f32::consts::FRAC_1_SQRT_2;

/// Inputs of the network on the tape.
#[derive(Debug, Clone, Copy)]
pub struct Inputs {
    /// c_in·x [N, H, W, C].
    pub x: Value,
    /// Noise levels, float64 [N, 1, 1, 2].
    pub sigma: Value,
    /// Integers [N, 1, 1, 1], where the network has labels.
    pub labels: Option<Value>,
    /// Frequencies [1, 1, 1, half], where the embedding is Fourier.
    pub freqs: Option<Value>,
}

/// Records F(c_in·x; c_noise) [N, H, W, C]. `dropout` is false in inference.
///
/// # Errors
/// Shape errors name the op; a valid configuration has none.
pub fn record(
    tape: &mut Tape,
    config: &ModelConfig,
    params: &Params,
    inputs: Inputs,
    dropout: bool,
) -> Result<Value> {
    let layout = Layout::new(config);
    let mut net =
        Recorder { tape, config, params, emb: inputs.x, columns: 0, dropout, dropped_layers: 0 };
    net.emb = net.embedding(inputs, &layout)?;
    let mut x = inputs.x;
    let mut aux = inputs.x;
    let mut skips: Vec<Option<Value>> = vec![None; config.num_skips()];
    for part in &layout.enc {
        x = match part.kind {
            Kind::Conv => {
                let weights = net.pair(&part.name);
                net.tape.push1(Conv2d::same(3, part.cout), &[x], &weights)?
            }
            Kind::Block => net.block(part, x, None)?,
            Kind::AuxResidual => {
                aux = net.aux_residual(part, x, aux)?;
                aux
            }
        };
        if let Some(skip) = part.skip {
            skips[skip.index] = skip.on.then_some(x);
        }
    }
    for part in &layout.dec {
        let skip = part.joined().and_then(|s| skips[s.index]);
        x = net.block(part, x, skip)?;
    }
    let c = layout.out_channels;
    let act = net.norm(&layout.aux_norm, &[x], c, Act { silu: true, ..Act::default() })?[0];
    let weights = net.pair(&layout.aux_conv);
    let last = Conv2d { float32: true, ..Conv2d::same(3, config.image_channels) };
    net.tape.push1(last, &[act], &weights)
}

/// What a norm does beside normalising.
#[derive(Default)]
struct Act {
    silu: bool,
    dropout: bool,
    resample: Option<Resampling>,
    off: usize,
}

struct Recorder<'a> {
    tape: &'a mut Tape,
    config: &'a ModelConfig,
    params: &'a Params,
    /// affine(e) of all blocks, side by side: what each adds to its channels.
    emb: Value,
    /// Columns of it that the blocks recorded so far have taken.
    columns: usize,
    dropout: bool,
    dropped_layers: u32,
}

impl Recorder<'_> {
    fn param(&self, name: &str) -> Param {
        let spec = self.params.get(&format!("model.{name}"));
        let spec = spec.unwrap_or_else(|| panic!("the layout names a parameter {name}"));
        Param { offset: spec.offset, len: spec.len }
    }

    fn pair(&self, module: &str) -> [Param; 2] {
        [self.param(&format!("{module}.weight")), self.param(&format!("{module}.bias"))]
    }

    fn embedding(&mut self, inputs: Inputs, layout: &Layout) -> Result<Value> {
        let channels = self.config.noise_channels();
        let fourier = self.config.embedding == Embedding::Fourier;
        let embed = NoiseEmbed { precond: self.config.precond, channels, fourier };
        let mut ins = vec![inputs.sigma];
        ins.extend(inputs.freqs);
        let mut e = self.tape.push1(embed, &ins, &[])?;
        if let Some(labels) = inputs.labels {
            let embed = LabelEmbed { label_dim: self.config.label_dim };
            e = self.tape.push1(embed, &[e, labels], &self.pair("map_label"))?;
        }
        for layer in ["map_layer0", "map_layer1"] {
            let linear = Linear::new(4 * self.config.model_channels, true);
            e = self.tape.push1(linear, &[e], &self.pair(layer))?;
        }
        let blocks = layout.parts().filter(|p| p.kind == Kind::Block);
        let affine = Linear { out_features: blocks.map(|p| p.cout).collect(), silu: false };
        self.tape.push1(affine, &[e], &self.params.affine)
    }

    fn norm(&mut self, name: &str, ins: &[Value], channels: usize, act: Act) -> Result<Vec<Value>> {
        let dropout = (act.dropout && self.config.dropout > 0.0).then(|| {
            self.dropped_layers += 1;
            (self.config.dropout, self.dropped_layers - 1)
        });
        let norm = Norm {
            groups: (channels / 4).min(32),
            silu: act.silu,
            dropout: dropout.filter(|_| self.dropout),
            resample: act.resample,
            off: act.off,
        };
        self.tape.push(norm, ins, &self.pair(name))
    }

    /// y = (conv1(dropout(silu(norm1(conv0(silu(norm0([x, skip]))) + affine(e))))) + shortcut)·√½, then attention.
    fn block(&mut self, part: &Part, x: Value, skip: Option<Value>) -> Result<Value> {
        let at = |module: &str| format!("{}.{module}", part.name);
        let ins: Vec<Value> = std::iter::once(x).chain(skip).collect();
        let off = part.joined().filter(|s| !s.on).map_or(0, |s| s.channels);
        let resample = part.resample.map(|r| match (r, self.config.arch) {
            (Resample::Down, Arch::DdpmPP) => Resampling::Down,
            (Resample::Up, Arch::DdpmPP) => Resampling::Up,
            (Resample::Down, Arch::NcsnPP) => Resampling::FirDown,
            (Resample::Up, Arch::NcsnPP) => Resampling::FirUp,
        });
        let act = Act { silu: true, dropout: false, resample, off };
        let norm0 = self.norm(&at("norm0"), &ins, part.cin, act)?;
        let conv0 = Conv2d { emb: Some(self.columns), ..Conv2d::same(3, part.cout) };
        self.columns += part.cout;
        let h = self.tape.push1(conv0, &[norm0[0], self.emb], &self.pair(&at("conv0")))?;
        let act = Act { silu: true, dropout: true, ..Act::default() };
        let h = self.norm(&at("norm1"), &[h], part.cout, act)?[0];
        let mut conv1 = Conv2d { scale: SQRT_HALF, ..Conv2d::same(3, part.cout) };
        let mut operands = vec![h];
        let mut weights = self.pair(&at("conv1")).to_vec();
        if part.has_skip_conv() {
            conv1.shortcut = Some(Shortcut { two: skip.is_some(), off });
            // Resampled first where the block resamples.
            operands.extend(if resample.is_some() { vec![norm0[2]] } else { ins });
            weights.extend(self.pair(&at("skip")));
        } else {
            conv1.residual = true;
            operands.push(x);
        }
        let y = self.tape.push1(conv1, &operands, &weights)?;
        if part.attention { self.attention(part, y) } else { Ok(y) }
    }

    /// (proj(attention(qkv(norm2(y)))) + y)·√½.
    fn attention(&mut self, part: &Part, y: Value) -> Result<Value> {
        let at = |module: &str| format!("{}.{module}", part.name);
        let h = self.norm(&at("norm2"), &[y], part.cout, Act::default())?[0];
        let qkv = Conv2d::same(1, 3 * part.cout);
        let qkv = self.tape.push1(qkv, &[h], &self.pair(&at("qkv")))?;
        let h = self.tape.push(Attention, &[qkv], &[])?[0];
        let proj = Conv2d { residual: true, scale: SQRT_HALF, ..Conv2d::same(1, part.cout) };
        self.tape.push1(proj, &[h, y], &self.pair(&at("proj")))
    }

    /// (x + conv(aux))·√½ at half the resolution: the filter first, at every position, then a stride-2
    /// convolution, which is four times cheaper than the other order and equal.
    fn aux_residual(&mut self, part: &Part, x: Value, aux: Value) -> Result<Value> {
        let filtered = self.tape.push1(Fir, &[aux], &[])?;
        let conv = Conv2d {
            stride: 2,
            pad: 0,
            residual: true,
            scale: SQRT_HALF,
            ..Conv2d::same(3, part.cout)
        };
        self.tape.push1(conv, &[filtered, x], &self.pair(&part.name))
    }
}
