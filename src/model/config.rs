//! What determines a network: the content of the `emm.model` key of a model file.

use crate::data::dataset::MAX_CLASSES;
use crate::device::params::ROUNDED_IMAGES;
use crate::error::usage;
use crate::numbers::count;
use crate::ops::conv2d::chain_unit;
pub use crate::ops::precondition::Precond;
use crate::settings::{Choice, Resolutions, auto_or_name, settings};
use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::str::FromStr as _;

/// Pixels along a side that a network takes at most.
const MAX_RESOLUTION: usize = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
#[value(rename_all = "lower")]
pub enum Arch {
    DdpmPP,
    NcsnPP,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
#[value(rename_all = "lower")]
pub enum Embedding {
    Positional,
    Fourier,
}

settings! {
    /// A network, whole: equal configurations have equal parameters.
    ModelConfig, ModelSettings, first [
        arch precond resolution image_channels label_dim model_channels channel_mult num_blocks attn_resolutions embedding
        skip_connections dropout
    ];

    arch: Arch = Arch::DdpmPP => arch: Arch, "Network family", [value_enum];
    precond: Precond = Precond::Vp => precond: Precond,
        "Preconditioning, noise levels and loss weight [default: vp for ddpmpp, ve for ncsnpp]", [value_enum];
    /// Pixels along a side: a power of two, at least 2^(levels − 1).
    resolution: usize = 0;
    /// 1 or 3.
    image_channels: usize = 0;
    /// Number of classes; 0 for an unconditional network.
    label_dim: usize = 0;
    model_channels: usize = 128 => channels: usize, "Width of the network",
        [alias = "num-channels", value_name = "C", value_parser = count], within 4.0..=4096.0, scaled Channels;
    channel_mult: Vec<usize> = vec![2, 2, 2] => mult: Vec<usize>, "Width of each level over --channels, finest first",
        [value_name = "M,M,...", value_delimiter = ','];
    num_blocks: usize = 2 => blocks: usize, "Residual blocks per level; the decoder has one more",
        [alias = "num-blocks", value_name = "N", value_parser = count], within 1.0..=1024.0;
    attn_resolutions: Vec<usize> = vec![] => attn: Choice<Resolutions>,
        "Resolutions with attention: auto is half the images' resolution [default: auto]",
        [alias = "attn-resolutions", value_name = "auto|none|R,R,...", value_parser = Choice::<Resolutions>::from_str];
    embedding: Embedding = Embedding::Positional => embedding: Choice<Embedding>,
        "Noise embedding: auto is positional for ddpmpp, fourier for ncsnpp [default: auto]",
        [value_name = "auto|positional|fourier", value_parser = auto_or_name::<Embedding>], flag "embed";
    skip_connections: Vec<u8> = vec![] => skips: Vec<u8>,
        "One 0 or 1 per skip connection in encoder order, blocks + 1 per level [default: all 1]",
        [alias = "skip-connections", value_name = "1,0,...", value_delimiter = ','];
    dropout: f64 = 0.13 => dropout: f64, "Dropout probability", [value_name = "P"], within 0.0..1.0;
}

impl ModelConfig {
    /// The paper's basic model for images of `resolution` × `resolution` × `image_channels`.
    pub fn basic(arch: Arch, resolution: usize, image_channels: usize) -> Self {
        let fourier = arch == Arch::NcsnPP;
        ModelConfig {
            arch,
            precond: if fourier { Precond::Ve } else { Precond::Vp },
            resolution,
            image_channels,
            attn_resolutions: vec![resolution / 2],
            embedding: if fourier { Embedding::Fourier } else { Embedding::Positional },
            skip_connections: vec![1; 9],
            ..ModelConfig::default()
        }
    }

    pub fn levels(&self) -> usize {
        self.channel_mult.len()
    }

    /// Number of skips: (num_blocks + 1) per level.
    pub fn num_skips(&self) -> usize {
        self.levels() * (self.num_blocks + 1)
    }

    /// Pixels times channels of one image.
    pub fn image_len(&self) -> usize {
        self.resolution * self.resolution * self.image_channels
    }

    /// Channels of the noise embedding.
    pub fn noise_channels(&self) -> usize {
        self.model_channels * if self.arch == Arch::NcsnPP { 2 } else { 1 }
    }

    /// Whether the sizes are those of a network at all, before anything is counted with them.
    ///
    /// # Errors
    /// Usage errors that begin with the flag at fault.
    pub fn check_sizes(&self) -> Result<()> {
        let r = self.resolution;
        let levels = self.levels();
        if !(1..=16).contains(&levels) || self.channel_mult.iter().any(|m| !(1..=64).contains(m)) {
            return Err(usage(format!(
                "--mult: {:?}, expected 1 to 16 factors of 1 to 64, one per level",
                self.channel_mult
            )));
        }
        if !r.is_power_of_two() || !(1 << (levels - 1)..=MAX_RESOLUTION).contains(&r) {
            return Err(usage(format!(
                "--resolution: {r} pixels along the images' sides, expected a power of two from {} (for \
                 {levels} levels) to {MAX_RESOLUTION}; `emm data subset --resolution` resamples a set",
                1 << (levels - 1)
            )));
        }
        if ![1, 3].contains(&self.image_channels) {
            return Err(usage(format!("--image-channels: {} must be 1 or 3", self.image_channels)));
        }
        self.check_bounds()?;
        if self.label_dim > MAX_CLASSES as usize {
            let n = self.label_dim;
            return Err(usage(format!("--label-dim: {n} classes, at most {MAX_CLASSES}")));
        }
        Ok(())
    }

    /// Images that a GPU can compute at once: its kernels count a tensor's elements in 31 bits. At least as large as
    /// any tensor are a concatenation of two levels' channels, padded patches of 3×3 pixels, and attention's weights.
    pub fn most_images_on_gpu(&self) -> usize {
        let widest = 2 * self.model_channels * self.channel_mult.iter().max().unwrap_or(&1);
        let patch = (9 * self.image_channels).next_multiple_of(8);
        let pixels = self.resolution * self.resolution * widest.max(patch);
        let weights = self.attn_resolutions.iter().map(|a| a.pow(4)).max().unwrap_or(0);
        i32::MAX as usize / pixels.max(weights).max(1)
    }

    /// Images that sums over images are cut at on a GPU: micro-batches of whole such give the same bits.
    pub fn images_per_gpu_sum(&self) -> usize {
        let pixels = (0..self.levels()).map(|level| (self.resolution >> level).pow(2));
        pixels.map(chain_unit).fold(ROUNDED_IMAGES, usize::max)
    }
}
