//! CUDA: the only place that names cudarc.

mod clock;
mod engine;
mod graph;
mod map;
pub mod probe;

pub use clock::Clock;
pub use engine::{Addresses, Buffer, Cuda};
pub use graph::Repeated;
pub use probe::{Driver, Gpu, Trouble, probe};

mod built {
    include!(concat!(env!("OUT_DIR"), "/kernels.rs"));
}

/// The kernels, for [`Cuda::open`]: one fatbin a file of `kernels/`; empty in a build without nvcc.
pub const IMAGES: &[&[u8]] = built::IMAGES;

/// What [`IMAGES`] are for, as nvcc names it: `sm_80` is machine code, `compute_80` is PTX, `emulator` a build that
/// runs its kernels on the CPU.
pub const KERNELS_FOR: &[&str] = built::KERNELS_FOR;

/// Why this build holds no kernels, and how to get them; empty where it holds some.
pub const LACKING: &str = built::LACKING;

/// Whether this build holds code that has Hopper's own instructions.
fn holds_hopper() -> bool {
    KERNELS_FOR.iter().any(|arch| ["sm_90a", "compute_90a", "emulator"].contains(arch))
}

/// Whether this build's kernels run on GPUs of a compute capability.
pub fn runs_on(capability: (u32, u32)) -> bool {
    KERNELS_FOR.iter().any(|arch| serves(arch, capability))
}

/// Machine code runs on its own generation from its own minor version on, `a` and `f` only where named exactly; PTX is
/// compiled by the driver for whatever is newer.
fn serves(arch: &str, capability: (u32, u32)) -> bool {
    let Some((kind, number)) = arch.split_once('_') else { return arch == "emulator" };
    let digits = number.trim_end_matches(['a', 'f']);
    let Ok(n) = digits.parse::<u32>() else { return false };
    let built = (n / 10, n % 10);
    match kind {
        _ if digits != number => built == capability,
        "sm" => built.0 == capability.0 && built.1 <= capability.1,
        "compute" => built <= capability,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_serve_the_gpus_they_are_for() {
        for (arch, yes, no) in [
            ("sm_80", &[(8, 0), (8, 6), (8, 9)][..], &[(7, 5), (9, 0), (10, 0)][..]),
            ("sm_89", &[(8, 9)], &[(8, 0), (8, 6), (9, 0)]),
            ("sm_90a", &[(9, 0)], &[(8, 9), (9, 1), (10, 0)]),
            ("sm_120", &[(12, 0), (12, 1)], &[(10, 0), (9, 0)]),
            ("compute_80", &[(8, 0), (8, 9), (9, 0), (12, 0)], &[(7, 5)]),
            ("compute_90a", &[(9, 0)], &[(8, 0), (10, 0)]),
        ] {
            assert!(yes.iter().all(|&c| serves(arch, c)), "{arch}");
            assert!(!no.iter().any(|&c| serves(arch, c)), "{arch}");
        }
        assert_eq!(IMAGES.is_empty(), KERNELS_FOR.is_empty());
        assert_eq!(LACKING.is_empty(), !KERNELS_FOR.is_empty(), "{LACKING}");
        assert!(!runs_on((3, 5)) || KERNELS_FOR == ["emulator"]);
    }
}
