//! Where the arithmetic happens: a device, the memory a plan runs in, and the launches it is made of.

pub mod cpu;
pub mod cuda;
mod memory;

pub use cpu::{Bound, Cpu};
pub use memory::Buffer;

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

/// A tensor's place: `len` 32-bit words from word `offset` of a buffer. A float64 takes two words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    pub space: Space,
    pub offset: usize,
    pub len: usize,
}

impl Slot {
    /// Words `start..start + len` of this slot.
    pub fn part(self, start: usize, len: usize) -> Slot {
        debug_assert!(start + len <= self.len, "part {start}+{len} of a slot of {}", self.len);
        Slot { space: self.space, offset: self.offset + start, len }
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
}

impl Kernel {
    /// Blocks of 256 threads without dynamic shared memory, as most kernels take.
    pub fn new(name: &'static str, grid: impl Into<Grid>, args: Vec<Arg>) -> Self {
        Kernel { name, grid: grid.into().0, threads: 256, shared_bytes: 0, args }
    }

    /// With blocks of so many threads.
    pub fn threads(self, threads: u32) -> Self {
        Kernel { threads, ..self }
    }

    /// With so many bytes of dynamic shared memory a block.
    pub fn shared(self, shared_bytes: u32) -> Self {
        Kernel { shared_bytes, ..self }
    }
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

/// An argument of a kernel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Arg {
    /// The address of a slot.
    Slot(Slot),
    /// An address on the card.
    Address(u64),
    /// The address of the words that vary from step to step (`Step` in `kernels/prelude/types.cuh`).
    Step,
    /// Index in the whole batch of the recording's first image.
    FirstImage,
    Null,
    I32(i32),
    I64(i64),
    F32(f32),
    F64(f64),
}

impl From<Slot> for Arg {
    fn from(s: Slot) -> Self {
        Arg::Slot(s)
    }
}

impl From<&Buffer> for Arg {
    fn from(b: &Buffer) -> Self {
        Arg::Address(b.address())
    }
}

impl From<Option<Slot>> for Arg {
    fn from(s: Option<Slot>) -> Self {
        s.map_or(Arg::Null, Arg::Slot)
    }
}

impl From<usize> for Arg {
    fn from(n: usize) -> Self {
        Arg::I32(i32::try_from(n).unwrap_or_else(|_| panic!("{n} as a kernel's argument")))
    }
}

impl From<f32> for Arg {
    fn from(v: f32) -> Self {
        Arg::F32(v)
    }
}

impl From<bool> for Arg {
    fn from(v: bool) -> Self {
        Arg::I32(v as i32)
    }
}

impl From<Acc> for Arg {
    fn from(acc: Acc) -> Self {
        (acc == Acc::Add).into()
    }
}

/// Arguments of a kernel, each converted.
macro_rules! args {
    ($($arg:expr),* $(,)?) => { vec![$($crate::device::Arg::from($arg)),*] };
}
pub(crate) use args;
