//! Where the arithmetic happens: a device, the memory a plan runs in, and the launches it is made of.

mod arg;
pub mod cpu;
pub mod cuda;
mod entry;
mod kernel;
mod launch;
mod limits;
mod map;
mod memory;
pub mod params;
mod ptr;
mod slot;

pub use arg::{Arg, Fields, Int};
pub use cpu::{Bound, Cpu, CpuLaunch, StepArgs};
pub(crate) use entry::typed;
pub use entry::{Entry, Unit};
pub(crate) use kernel::params;
pub use kernel::{Cost, Grid, Kernel, bytes_of};
pub use launch::Launch;
pub use limits::{Family, GpuLimits};
pub use map::{Map, Swizzle};
pub use memory::{Buffer, Pixels};
pub use ptr::Ptr;
pub use slot::{Acc, Dtype, Precision, Sink, Slot, Space};

/// A device that ops lower themselves to.
#[derive(Clone)]
pub enum Device {
    Cpu(Cpu),
    /// A GPU, and the host's threads for what has no kernel.
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

    /// The CUDA device, if it is one.
    pub fn cuda(&self) -> Option<&cuda::Cuda> {
        match self {
            Device::Cpu(_) => None,
            Device::Cuda { cuda, .. } => Some(cuda),
        }
    }

    /// The host's threads.
    pub fn host(&self) -> &Cpu {
        match self {
            Device::Cpu(cpu) => cpu,
            Device::Cuda { host, .. } => host,
        }
    }

    /// `cpu`, or the GPU: `cuda:0, NVIDIA H100`.
    pub fn name(&self) -> &str {
        match self {
            Device::Cpu(_) => "cpu",
            Device::Cuda { cuda, .. } => cuda.name(),
        }
    }
}

/// What a plan is made for. Planning needs no GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    Cpu,
    Cuda(GpuLimits),
}

impl Target {
    /// All zero on the CPU.
    pub fn limits(self) -> GpuLimits {
        match self {
            Target::Cpu => GpuLimits::default(),
            Target::Cuda(limits) => limits,
        }
    }
}

impl From<&Device> for Target {
    fn from(device: &Device) -> Self {
        match device {
            Device::Cpu(_) => Target::Cpu,
            Device::Cuda { cuda, .. } => Target::Cuda(cuda.limits()),
        }
    }
}
