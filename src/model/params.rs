//! The list of parameters: one entry per tensor, in EDM's module order, and where each lies in the flat buffers.

use super::config::ModelConfig;
use anyhow::Result;

/// How a tensor lies in the master buffer, next to its PyTorch shape in files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// The same in both: vectors and linear weights [out, in].
    Plain,
    /// File [out, in, k, k], master [out, k, k, in].
    Conv,
    /// File [3·C, C, 1, 1] with row c·3 + {q,k,v}, master rows [q | k | v].
    Qkv,
    /// Vector [3·C] of the qkv bias, permuted alike.
    QkvBias,
    /// File [channel, label], master [label, channel].
    LabelTable,
}

/// Distribution of the initial values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    Zeros,
    Ones,
    /// U(−a, a), a = scale · √(6 / (fan_in + fan_out)).
    Xavier {
        fan_in: usize,
        fan_out: usize,
        scale: f64,
    },
}

#[derive(Debug, Clone, PartialEq)]
pub struct ParamSpec {
    /// EDM's module path with the leading `model.`.
    pub name: String,
    /// PyTorch shape, as in files.
    pub shape: Vec<usize>,
    pub layout: Layout,
    pub init: Init,
    /// First element in the flat buffers (in f32; a multiple of 16, that is 64 bytes).
    pub offset: usize,
    pub len: usize,
}

/// All parameters of a network and the length of a flat buffer that holds them.
#[derive(Debug, Clone, PartialEq)]
pub struct Params {
    pub specs: Vec<ParamSpec>,
    /// Length of w, gradient, m, v, EMA in f32, padding included (padding stays 0).
    pub flat_len: usize,
}

impl Params {
    /// The parameters of `config`, which must be valid.
    pub fn new(_config: &ModelConfig) -> Self {
        todo!()
    }

    /// Number of trainable values, padding not counted.
    pub fn count(&self) -> usize {
        self.specs.iter().map(|s| s.len).sum()
    }

    /// Initial values for `seed` in master order.
    pub fn init(&self, _seed: u64) -> Vec<f32> {
        todo!()
    }

    /// One tensor in PyTorch order, out of a flat buffer in master order.
    pub fn to_torch(&self, _spec: &ParamSpec, _flat: &[f32]) -> Vec<f32> {
        todo!()
    }

    /// Puts one tensor given in PyTorch order into a flat buffer.
    pub fn from_torch(&self, _spec: &ParamSpec, _values: &[f32], _flat: &mut [f32]) {
        todo!()
    }
}

/// Fourier frequencies f_i ~ 16·N(0,1) of `model.map_noise.freqs`, a buffer drawn from the seed (rounded to f32).
pub fn fourier_freqs(_config: &ModelConfig, _seed: u64) -> Vec<f32> {
    todo!()
}

/// min(32, C/4) must divide C at every norm.
pub fn check_norms(_config: &ModelConfig) -> Result<()> {
    todo!()
}
