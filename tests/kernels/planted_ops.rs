//! Bugs planted into the product's kernels: each must turn a test red that is green without it.

use super::{cuda, run_cases};
use crate::emulator::{for_each_schedule, passes_patched, passes_with_header};

const CONVOLUTIONS: &str = "kernels::planted_ops::convolutions_on_tensor_cores";
const NORMS: &str = "kernels::planted_ops::norms_in_one_pass";

/// The cases of an op that the fast kernels take, in every schedule.
fn fast_cases(prefix: &str) {
    let cuda = cuda();
    let mut runs = 0;
    for_each_schedule(|schedule| {
        runs += run_cases(&cuda, &format!("{schedule:?}"), |name| name.starts_with(prefix));
    });
    assert!(runs > 0, "no case is called {prefix}");
}

#[test]
fn convolutions_on_tensor_cores() {
    fast_cases("conv2d even");
}

#[test]
fn norms_in_one_pass() {
    fast_cases("norm even");
}

#[test]
fn planted_bugs_turn_the_kernels_tests_red() {
    // Red for the bug, not for how it was built.
    let same = "float v = acc[i / 2][j / 2][2 * (i % 2) + j % 2];";
    assert!(passes_patched(CONVOLUTIONS, "kernels/conv2d_mma.cu", same, same));
    for (what, name, file, find, replace) in [
        (
            "a wrong tap sign",
            CONVOLUTIONS,
            "kernels/conv2d_mma.cu",
            "now.stride - now.pad + tap_row",
            "now.stride + now.pad - tap_row",
        ),
        (
            "a halo off by one",
            CONVOLUTIONS,
            "kernels/conv2d_mma.cu",
            "c >= 0 && c < now.w;",
            "c >= 0 && c <= now.w;",
        ),
        (
            "the rows of the embedding taken for those of one block",
            CONVOLUTIONS,
            "kernels/conv2d_mma.cu",
            "* p.emb_row : nullptr",
            "* p.o : nullptr",
        ),
        (
            "= for += of a gradient",
            CONVOLUTIONS,
            "kernels/conv2d_bwd.cu",
            "float sum = p.add ? *to : 0.0f;",
            "float sum = 0.0f;",
        ),
        (
            "a dropped barrier",
            NORMS,
            "kernels/norm_slab.cu",
            "    __syncthreads();\n    for (int i = threadIdx.x; i < 4 * cb; i += BLOCK_THREADS) {",
            "    for (int i = threadIdx.x; i < 4 * cb; i += BLOCK_THREADS) {",
        ),
    ] {
        assert!(!passes_patched(name, file, find, replace), "{what} goes unseen");
    }
    let (header, unit) = ("kernels/prelude/mma_tile.cuh", "kernels/conv2d_mma.cu");
    let waits = "        __syncthreads();  // everyone's pieces have landed, and everyone has read the stage that is \
                 refilled now\n";
    assert!(
        !passes_with_header(CONVOLUTIONS, unit, header, waits, ""),
        "a stage reused too early goes unseen"
    );
}
