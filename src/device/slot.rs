//! A tensor's place in memory, how it is stored there, and whether a gradient is written or added.

use serde::{Deserialize, Serialize};

/// Which buffer a slot lies in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Space {
    /// Activations, their gradients, inputs and temporaries of one plan.
    Arena,
    /// Flat parameters in master order.
    Weights,
    /// Flat gradient, in the same order.
    Grads,
}

/// What a plan computes in. Parameters, their gradients, embeddings, statistics and the loss are float32 in each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
#[value(rename_all = "lower")]
pub enum Precision {
    /// Activations stored in bfloat16, products of bfloat16, sums in float32.
    Bf16,
    /// All float32, but the factors of convolutions' products rounded to tf32 (11 bits).
    Tf32,
    Fp32,
}

impl Precision {
    /// As `--precision` takes it.
    pub fn name(self) -> &'static str {
        match self {
            Precision::Bf16 => "bf16",
            Precision::Tf32 => "tf32",
            Precision::Fp32 => "fp32",
        }
    }

    /// How activations are stored.
    pub fn storage(self) -> Dtype {
        match self {
            Precision::Bf16 => Dtype::Bf16,
            Precision::Tf32 | Precision::Fp32 => Dtype::F32,
        }
    }
}

/// How a tensor's elements are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dtype {
    /// One word an element; integers and float64 (two) are counted as such words too.
    F32,
    /// Two elements a word.
    Bf16,
}

impl Dtype {
    /// Bytes of `len` elements.
    pub fn bytes(self, len: usize) -> usize {
        match self {
            Dtype::F32 => 4 * len,
            Dtype::Bf16 => 2 * len,
        }
    }

    /// 32-bit words of `len` elements.
    pub fn words(self, len: usize) -> usize {
        self.bytes(len).div_ceil(4)
    }
}

/// A tensor's place: `len` elements from 32-bit word `offset` of a buffer. A float64 counts as two elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    pub space: Space,
    pub offset: usize,
    pub len: usize,
    pub dtype: Dtype,
}

impl Slot {
    /// Elements `start..start + len` of this slot. A part of a bf16 slot begins at a whole word.
    pub fn part(self, start: usize, len: usize) -> Slot {
        debug_assert!(start + len <= self.len, "part {start}+{len} of a slot of {}", self.len);
        debug_assert!(
            self.dtype == Dtype::F32 || start.is_multiple_of(2),
            "half a word of {self:?}"
        );
        Slot { offset: self.offset + self.dtype.words(start), len, ..self }
    }

    /// `len` elements of `dtype` from word `start` of this float32 slot on.
    pub fn stored(self, start: usize, len: usize, dtype: Dtype) -> Slot {
        Slot { len, dtype, ..self.part(start, dtype.words(len)) }
    }

    /// 32-bit words that it covers.
    pub fn words(self) -> usize {
        self.dtype.words(self.len)
    }

    pub fn bytes(self) -> usize {
        4 * self.words()
    }

    /// Words of working memory that `len` of its elements take as float32, where they are not.
    pub fn wide(self, len: usize) -> usize {
        if self.dtype == Dtype::F32 { 0 } else { len }
    }
}

/// Whether a gradient is written or added. The tape decides it, never an op.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acc {
    Set,
    Add,
}

/// Where a gradient goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sink {
    pub slot: Slot,
    pub acc: Acc,
}

impl Sink {
    /// A place that is written, not added to.
    pub fn set(slot: Slot) -> Self {
        Sink { slot, acc: Acc::Set }
    }
}
