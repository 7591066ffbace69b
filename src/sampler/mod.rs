//! From noise to images: EDM's Heun sampler over any denoiser, and the closed-form optimal denoiser.

mod denoise;
pub mod gaussian;
pub mod heun;
mod heun_cpu;
mod heun_gpu;
pub mod noisy;
pub mod optimal;
mod optimal_gpu;
mod state;

pub use denoise::{Denoise, Images, OnGpu, Operands, Posterior, quantise};
pub use gaussian::Gaussian;
pub use heun::{HeunOptions, Start, noise_levels, sample, sample_each};
pub use heun_gpu::GPU_BYTES;
pub use optimal::Optimal;
pub use optimal_gpu::GpuOptimal;

use crate::data::Dataset;
use crate::device::Device;
use anyhow::Result;

/// The theoretical optimum of a set of at least one image, on a device.
///
/// # Errors
/// Device (exit 4): a GPU out of memory.
pub fn optimum(data: &Dataset, device: &Device) -> Result<Box<dyn Posterior>> {
    Ok(match device {
        Device::Cpu(_) => Box::new(Optimal::new(data, device)),
        Device::Cuda { cuda, .. } => Box::new(GpuOptimal::new(data, cuda)?),
    })
}
