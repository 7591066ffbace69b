//! Where the arithmetic happens: a device, the memory a plan runs in, and the launches it is made of.

pub mod cpu;
pub mod cuda;

pub use cpu::{Bound, Cpu};

/// A device that ops lower themselves to.
#[derive(Clone)]
pub enum Device {
    Cpu(Cpu),
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
