//! Where the arithmetic happens: a device, the memory a plan runs in, and the launches it is made of.

mod arg;
pub mod cpu;
pub mod cuda;
mod memory;

pub use arg::Arg;
pub use cpu::{Bound, Cpu};
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

/// Shared memory that a block may ask for on every card that the kernels run on (those of sm_86, sm_89 and sm_120 have
/// no more).
pub const LEAST_SHARED_BYTES: usize = 99 << 10;

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

/// What a launch costs at least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize)]
pub struct Cost {
    /// 2 × multiply-adds of matrix work, as the direct algorithm needs them.
    pub flop: u64,
    /// Bytes to and from memory: all that it reads and writes once, a gradient that is added to twice.
    pub bytes: u64,
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

/// One kernel of the CUDA device with its geometry, slots and scalars resolved.
#[derive(Debug, Clone, PartialEq)]
pub struct Kernel {
    pub name: &'static str,
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub threads: u32,
    /// Dynamic shared memory of a block.
    pub shared_bytes: u32,
    pub args: Vec<Arg>,
    flop: u64,
    /// Where the arguments do not tell them.
    bytes: Option<u64>,
}

/// Dynamic shared memory of the tensor-core kernels: a ring of three stages, on every card. A longer one would hide
/// nothing more: to multiply the two stages ahead takes 1.6 µs at an A100's most (4.2 MFLOP in bf16, half in tf32), and
/// memory answers within one.
pub(crate) const MMA_SHARED_BYTES: u32 = 96 << 10;
const _: () = assert!(MMA_SHARED_BYTES as usize <= LEAST_SHARED_BYTES);

impl Kernel {
    /// Blocks of 256 threads without dynamic shared memory, as most kernels take.
    pub fn new(name: &'static str, grid: impl Into<Grid>, args: Vec<Arg>) -> Self {
        Kernel {
            name,
            grid: grid.into().0,
            threads: 256,
            shared_bytes: 0,
            args,
            flop: 0,
            bytes: None,
        }
    }

    /// With blocks of so many threads.
    pub fn threads(self, threads: u32) -> Self {
        Kernel { threads, ..self }
    }

    /// With so many bytes of dynamic shared memory a block.
    pub fn shared(self, shared_bytes: u32) -> Self {
        Kernel { shared_bytes, ..self }
    }

    /// With so much matrix work.
    pub fn flop(self, flop: usize) -> Self {
        Kernel { flop: flop as u64, ..self }
    }

    /// With so much traffic: for kernels that are given addresses, or slots of which they touch a part.
    pub fn moves(self, bytes: usize) -> Self {
        Kernel { bytes: Some(bytes as u64), ..self }
    }

    /// Of the whole grid.
    pub fn cost(&self) -> Cost {
        let slots = || self.args.iter().filter_map(Arg::slot);
        let added: usize = (self.args.iter())
            .filter_map(|arg| match arg {
                Arg::Sink(Sink { slot, acc: Acc::Add }) => Some(slot.bytes()),
                _ => None,
            })
            .sum();
        let bytes = self.bytes.unwrap_or_else(|| (bytes_of(slots()) + added) as u64);
        Cost { flop: self.flop, bytes }
    }
}

/// Bytes of the union of some slots.
pub fn bytes_of(slots: impl Iterator<Item = Slot>) -> usize {
    let mut slots: Vec<Slot> = slots.collect();
    slots.sort_by_key(|s| (s.space as u8, s.offset));
    let mut sum = 0;
    let mut last: Option<Slot> = None;
    for s in slots {
        let end = s.offset + s.words();
        let covered = last.filter(|l| l.space == s.space).map_or(0, |l| l.offset + l.words());
        if end > covered {
            sum += end - s.offset.max(covered);
            last = Some(s);
        }
    }
    4 * sum
}

/// Blocks along one, two or three axes.
pub struct Grid([u32; 3]);

fn blocks(n: usize) -> u32 {
    u32::try_from(n).unwrap_or_else(|_| panic!("a grid of {n} blocks")).max(1)
}

impl From<usize> for Grid {
    fn from(x: usize) -> Self {
        Grid([blocks(x), 1, 1])
    }
}

impl From<[usize; 2]> for Grid {
    fn from([x, y]: [usize; 2]) -> Self {
        Grid([blocks(x), blocks(y), 1])
    }
}

impl From<[usize; 3]> for Grid {
    fn from(n: [usize; 3]) -> Self {
        Grid(n.map(blocks))
    }
}

/// The kernel of that name for elements stored so.
macro_rules! typed {
    ($name:literal, $dtype:expr) => {
        match $dtype {
            $crate::device::Dtype::F32 => $name,
            $crate::device::Dtype::Bf16 => concat!($name, "_bf16"),
        }
    };
}
pub(crate) use typed;

/// Arguments of a kernel, each converted.
macro_rules! args {
    ($($arg:expr),* $(,)?) => { vec![$($crate::device::Arg::from($arg)),*] };
}
pub(crate) use args;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traffic_counts_each_word_once_and_an_added_gradient_twice() {
        let slot = |space, offset, len| Slot { space, offset, len, dtype: Dtype::F32 };
        let (whole, part) = (slot(Space::Arena, 32, 64), slot(Space::Arena, 48, 16));
        let beyond = slot(Space::Arena, 80, 32);
        assert_eq!(bytes_of([part, whole, part].into_iter()), 4 * 64);
        assert_eq!(bytes_of([beyond, whole].into_iter()), 4 * 80);
        assert_eq!(bytes_of([whole, slot(Space::Grads, 32, 64)].into_iter()), 4 * 128);
        let kernel = |acc| {
            let sink = Sink { slot: slot(Space::Grads, 0, 10), acc };
            Kernel::new("k", 1, args![sink, whole, whole, acc]).flop(9)
        };
        assert_eq!(kernel(Acc::Set).cost(), Cost { flop: 9, bytes: 4 * (10 + 64) });
        assert_eq!(kernel(Acc::Add).cost().bytes, 4 * (20 + 64));
        assert_eq!(kernel(Acc::Add).moves(7).cost().bytes, 7);
    }
}
