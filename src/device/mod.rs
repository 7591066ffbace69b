//! Where the arithmetic happens: a device, the memory a plan runs in, and the launches it is made of.

mod arg;
pub mod cpu;
pub mod cuda;
mod kernel;
mod memory;
pub mod params;

pub use arg::{Arg, Fields, Int, Ptr};
pub use cpu::{Bound, Cpu};
pub use kernel::{Cost, Entry, Grid, Kernel, Unit, bytes_of};
pub(crate) use kernel::{params, typed};
pub use memory::{Buffer, Pixels};

use serde::{Deserialize, Serialize};

/// A device that ops lower themselves to.
#[derive(Clone)]
pub enum Device {
    Cpu(Cpu),
    /// A card, and the host's threads for what has no kernel.
    Cuda {
        cuda: cuda::Cuda,
        host: Cpu,
    },
}

impl Device {
    /// Waits for everything queued.
    ///
    /// # Errors
    /// Device (exit 4): what went wrong in a kernel since the last wait.
    pub fn wait(&self) -> anyhow::Result<()> {
        match self {
            Device::Cpu(_) => Ok(()),
            Device::Cuda { cuda, .. } => cuda.wait(),
        }
    }

    /// What it computes in unless told otherwise.
    pub fn precision(&self) -> Precision {
        match self {
            Device::Cpu(_) => Precision::Fp32,
            Device::Cuda { .. } => Precision::Bf16,
        }
    }

    /// All that it computes in.
    pub fn precisions(&self) -> &'static [Precision] {
        match self {
            Device::Cpu(_) => &[Precision::Fp32, Precision::Bf16],
            Device::Cuda { .. } => &[Precision::Fp32, Precision::Tf32, Precision::Bf16],
        }
    }

    /// The host's threads.
    pub fn host(&self) -> &Cpu {
        match self {
            Device::Cpu(cpu) => cpu,
            Device::Cuda { host, .. } => host,
        }
    }

    /// `cpu`, or the card: `cuda:0, NVIDIA H100`.
    pub fn name(&self) -> &str {
        match self {
            Device::Cpu(_) => "cpu",
            Device::Cuda { cuda, .. } => cuda.name(),
        }
    }
}

/// What a plan is made for. Planning needs no card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    Cpu,
    /// A card, and the shared memory that a block may ask for: 99 KB at least, 163 KB on an A100, 227 KB on an H100.
    Cuda {
        shared_bytes: usize,
    },
}

impl Target {
    /// Shared memory that a block may ask for; none on the CPU.
    pub fn shared_bytes(self) -> usize {
        match self {
            Target::Cpu => 0,
            Target::Cuda { shared_bytes } => shared_bytes,
        }
    }
}

impl From<&Device> for Target {
    fn from(device: &Device) -> Self {
        match device {
            Device::Cpu(_) => Target::Cpu,
            Device::Cuda { cuda, .. } => Target::Cuda { shared_bytes: cuda.shared_bytes() },
        }
    }
}

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

/// What varies from run to run of one plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StepArgs {
    /// Key of the random numbers.
    pub seed: u64,
    pub step: u32,
    /// Index in the whole batch of the recording's first image.
    pub first_image: u32,
}

/// One entry of a plan: a function of the CPU device with its slots and scalars resolved.
pub struct Launch {
    /// Op and direction, for profiles: `conv2d_fwd`.
    pub name: &'static str,
    /// Private words each thread needs while it runs.
    pub scratch_words: usize,
    pub run: Box<dyn Fn(&Bound) + Send + Sync>,
}

impl Launch {
    pub fn new(
        name: &'static str,
        scratch_words: usize,
        run: impl Fn(&Bound) + Send + Sync + 'static,
    ) -> Self {
        Launch { name, scratch_words, run: Box::new(run) }
    }
}
