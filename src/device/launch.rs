//! One entry of a plan, on whichever device.

use super::cpu::{Bound, CpuLaunch};
use super::kernel::Kernel;

/// What an op lowers itself to: its slots and scalars are resolved, for the device that it was asked for.
pub enum Launch {
    Cpu(CpuLaunch),
    Gpu(Kernel),
}

impl Launch {
    /// A function of the CPU device. `name`: op and direction; `scratch_words`: private words of each thread.
    pub fn new(
        name: &'static str,
        scratch_words: usize,
        run: impl Fn(&Bound) + Send + Sync + 'static,
    ) -> Self {
        Launch::Cpu(CpuLaunch { name, scratch_words, run: Box::new(run) })
    }

    /// Op and direction, or the kernel's name.
    pub fn name(&self) -> &'static str {
        match self {
            Launch::Cpu(function) => function.name,
            Launch::Gpu(kernel) => kernel.name,
        }
    }

    /// If it is one of the CPU device.
    pub fn function(&self) -> Option<&CpuLaunch> {
        match self {
            Launch::Cpu(function) => Some(function),
            Launch::Gpu(_) => None,
        }
    }

    /// If it is one of the CUDA device.
    pub fn kernel(&self) -> Option<&Kernel> {
        match self {
            Launch::Cpu(_) => None,
            Launch::Gpu(kernel) => Some(kernel),
        }
    }
}
