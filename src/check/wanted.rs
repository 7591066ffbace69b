//! What is to be checked, and at which sizes.

use super::CaseSize;
use crate::device::Precision;
use crate::model::{Arch, ModelConfig, Params};
use crate::rng::fill_normals;
use rayon::prelude::*;
use std::str::FromStr;

/// What of all that there is to check.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// One of [`OPS`](super::OPS), or all.
    pub op: Option<&'static str>,
    pub precisions: Vec<Precision>,
    pub sizes: Vec<CaseSize>,
    /// Whether the device is a GPU: then also what the CPU is the reference of.
    pub on_gpu: bool,
    /// Whether it runs kernels written with Hopper's own instructions.
    pub hopper: bool,
    /// The sizes of [`CaseSize::Real`].
    pub network: NetworkSize,
}

impl Wanted {
    pub fn precision(&self, precision: Precision) -> bool {
        self.precisions.contains(&precision)
    }

    pub fn size(&self, size: CaseSize) -> bool {
        self.sizes.contains(&size)
    }
}

/// What the sizes are those of: the paper's basic network at a batch, with these channels, of images of this side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NetworkSize {
    pub images: usize,
    pub channels: usize,
    pub side: usize,
}

impl Default for NetworkSize {
    fn default() -> Self {
        NetworkSize { images: 64, channels: 128, side: 32 }
    }
}

impl FromStr for NetworkSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers: Option<Vec<usize>> = text.split(',').map(|n| n.trim().parse().ok()).collect();
        let network = match numbers.as_deref() {
            Some(&[images, channels, side]) => NetworkSize { images, channels, side },
            _ => return Err("three numbers wanted: IMAGES,CHANNELS,SIDE".into()),
        };
        let NetworkSize { images, channels, side } = network;
        if !(1..=512).contains(&images) {
            return Err(format!("{images} images, 1 to 512 wanted"));
        }
        if channels % 8 != 0 || !(8..=512).contains(&channels) {
            return Err(format!("{channels} channels, a multiple of 8 from 8 to 512 wanted"));
        }
        if !side.is_power_of_two() || !(8..=64).contains(&side) {
            return Err(format!("a side of {side} pixels, a power of two from 8 to 64 wanted"));
        }
        Ok(network)
    }
}

impl NetworkSize {
    pub fn config(&self) -> ModelConfig {
        ModelConfig {
            model_channels: self.channels,
            ..ModelConfig::basic(Arch::DdpmPP, self.side, 3)
        }
    }

    /// Values of its flat buffers.
    pub fn parameters(&self) -> usize {
        Params::new(&self.config()).flat_len
    }
}

/// Standard normals times a deviation, the same for the same `which`.
pub fn random(len: usize, which: u32, deviation: f32) -> Vec<f32> {
    const CHUNK: usize = 1 << 16;
    let mut values = vec![0.0; len];
    values.par_chunks_mut(CHUNK).enumerate().for_each(|(i, chunk)| {
        fill_normals(chunk, i as u32, 0, which, 8);
        chunk.iter_mut().for_each(|v| *v *= deviation);
    });
    values
}
