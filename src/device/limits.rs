//! What GPUs differ in, as far as plans heed it.

use super::params;

/// What of a GPU decides which kernels a plan has, and how they are launched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GpuLimits {
    /// Shared memory that a block may ask for: 99 KB at least, 163 KB on an A100, 227 KB on an H100.
    pub shared_bytes: usize,
    pub multiprocessors: usize,
    /// A GPU of capability 9.0 with kernels built for sm_90a: tensor copies and products of warpgroups.
    pub hopper: bool,
}

impl GpuLimits {
    /// The least of GPUs that the kernels run on.
    pub const LEAST: GpuLimits =
        GpuLimits { shared_bytes: params::LEAST_SHARED_BYTES, multiprocessors: 1, hopper: false };
}
