//! CUDA: the only place that names cudarc. This build holds no kernels yet, so all it does is look.

mod engine;
pub mod probe;

pub use engine::{Addresses, Buffer, Cuda, StepWords};
pub use probe::{Card, Driver, Trouble, probe};

/// Cards that kernels are built in for, as compute capabilities; empty in a build without kernels.
pub const KERNELS_FOR: &[(u32, u32)] = &[];
