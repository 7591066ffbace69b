//! The walk through a U-Net: its parts in order, each with its channels, and which skip feeds which.
//!
//! Written from Song et al. 2021 (arXiv:2011.13456) as configured by EDM (Karras et al. 2022); parts carry
//! EDM's module names. Parameters, FLOP counts and the recorded network all read this one list.

use super::config::{Arch, ModelConfig};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resample {
    /// To half the resolution.
    Down,
    /// To twice the resolution.
    Up,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The first 3×3 convolution, from the image.
    Conv,
    /// A residual block; in the decoder one with a `skip` is fed [x, skip].
    Block,
    /// NCSN++'s branch of the downsampled image: x = aux = (x + down(conv3×3(aux)))·√½.
    AuxResidual,
}

/// On which side of the network a part stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Encoder,
    Decoder,
}

/// One of the encoder's outputs, as the decoder meets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Skip {
    /// Place in `skip_connections`: encoder order.
    pub index: usize,
    pub channels: usize,
    /// An off skip is zeros of the same channels; nothing is stored for it.
    pub on: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// EDM's module path without the leading `model.`, e.g. `enc.32x32_block0`.
    pub name: String,
    pub side: Side,
    pub kind: Kind,
    /// Channels of the input, those of a joined skip included.
    pub cin: usize,
    pub cout: usize,
    /// Pixels along a side of the output.
    pub resolution: usize,
    pub resample: Option<Resample>,
    pub attention: bool,
    /// Encoder: the skip that this part writes (an aux residual updates the one stored before it).
    /// Decoder: the skip that joins its input.
    pub skip: Option<Skip>,
}

impl Part {
    /// The skip that joins the input: a decoder's.
    pub fn joined(&self) -> Option<Skip> {
        self.skip.filter(|_| self.side == Side::Decoder)
    }

    /// Channels of x at the input, without a joined skip.
    pub fn x_channels(&self) -> usize {
        self.cin - self.joined().map_or(0, |s| s.channels)
    }

    /// Channels that the shortcut's convolution sees: not those of an off skip, which are zeros.
    pub fn shortcut_channels(&self) -> usize {
        if self.joined().is_some_and(|s| !s.on) { self.x_channels() } else { self.cin }
    }

    /// Whether the block's shortcut is a 1×1 convolution instead of the identity.
    pub fn has_skip_conv(&self) -> bool {
        self.kind == Kind::Block && (self.resample.is_some() || self.cin != self.cout)
    }
}

/// A network as a list of parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    pub enc: Vec<Part>,
    pub dec: Vec<Part>,
    /// Module path of the last norm; the last convolution has `aux_conv` in its place.
    pub aux_norm: String,
    pub aux_conv: String,
    /// Channels that enter `aux_norm`.
    pub out_channels: usize,
}

impl Layout {
    pub fn new(config: &ModelConfig) -> Self {
        let (enc, mut skips) = encoder(config);
        let dec = decoder(config, &mut skips);
        let r = config.resolution;
        Layout {
            out_channels: dec.last().map_or(0, |part| part.cout),
            enc,
            dec,
            aux_norm: format!("dec.{r}x{r}_aux_norm"),
            aux_conv: format!("dec.{r}x{r}_aux_conv"),
        }
    }

    /// All parts, encoder first.
    pub fn parts(&self) -> impl Iterator<Item = &Part> {
        self.enc.iter().chain(&self.dec)
    }
}

/// The encoder's parts, and the skips that they write, in order.
fn encoder(config: &ModelConfig) -> (Vec<Part>, Vec<Skip>) {
    let (mut enc, mut skips): (Vec<Part>, Vec<Skip>) = (Vec::new(), Vec::new());
    let width = config.model_channels;
    let attends = |r: usize| config.attn_resolutions.contains(&r);
    let mut aux = config.image_channels;
    let mut c = config.image_channels;
    for (level, mult) in config.channel_mult.iter().enumerate() {
        let r = config.resolution >> level;
        let mut add = |label: String, kind, cin, cout, resample, attention| {
            if kind != Kind::AuxResidual {
                let index = skips.len();
                let on = config.skip_connections[index] == 1;
                skips.push(Skip { index, channels: cout, on });
            }
            enc.push(Part {
                name: format!("enc.{r}x{r}_{label}"),
                side: Side::Encoder,
                kind,
                cin,
                cout,
                resolution: r,
                resample,
                attention,
                skip: skips.last().copied(),
            });
        };
        if level == 0 {
            add("conv".into(), Kind::Conv, c, width, None, false);
            c = width;
        } else {
            add("down".into(), Kind::Block, c, c, Some(Resample::Down), false);
            if config.arch == Arch::NcsnPP {
                let down = Some(Resample::Down);
                add("aux_residual".into(), Kind::AuxResidual, aux, c, down, false);
                aux = c;
            }
        }
        for b in 0..config.num_blocks {
            add(format!("block{b}"), Kind::Block, c, width * mult, None, attends(r));
            c = width * mult;
        }
    }
    (enc, skips)
}

/// The decoder's parts, which take the skips from the last to the first.
fn decoder(config: &ModelConfig, skips: &mut Vec<Skip>) -> Vec<Part> {
    let mut dec = Vec::new();
    let width = config.model_channels;
    let attends = |r: usize| config.attn_resolutions.contains(&r);
    let mut c = skips.last().map_or(0, |skip| skip.channels);
    for (level, mult) in config.channel_mult.iter().enumerate().rev() {
        let r = config.resolution >> level;
        let mut add = |label: String, cin, cout, resample, attention, skip| {
            dec.push(Part {
                name: format!("dec.{r}x{r}_{label}"),
                side: Side::Decoder,
                kind: Kind::Block,
                cin,
                cout,
                resolution: r,
                resample,
                attention,
                skip,
            });
        };
        if level + 1 == config.levels() {
            add("in0".into(), c, c, None, true, None);
            add("in1".into(), c, c, None, false, None);
        } else {
            add("up".into(), c, c, Some(Resample::Up), false, None);
        }
        for b in 0..=config.num_blocks {
            let skip = skips.pop().expect("one skip per joining block");
            let attention = b == config.num_blocks && attends(r);
            add(format!("block{b}"), c + skip.channels, width * mult, None, attention, Some(skip));
            c = width * mult;
        }
    }
    dec
}
