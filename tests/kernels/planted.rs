//! Bugs planted into the product's kernels: each must turn a test red that is green without it.

use super::{cuda, run_cases};
use crate::emulator::{for_each_schedule, passes_patched, passes_with_header};

const CONVOLUTIONS: &str = "kernels::planted::convolutions_on_tensor_cores";
const NORMS: &str = "kernels::planted::norms_in_one_pass";

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
            "= for += of a gradient",
            CONVOLUTIONS,
            "kernels/conv2d_bwd.cu",
            "float sum = add ? *to : 0.0f;",
            "float sum = 0.0f;",
        ),
        (
            "a dropped barrier",
            NORMS,
            "kernels/norm_slab.cu",
            "    __syncthreads();\n    for (int i = threadIdx.x; i < 4 * cb; i += 256) {",
            "    for (int i = threadIdx.x; i < 4 * cb; i += 256) {",
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

#[test]
fn bugs_in_the_kernels_are_seen() {
    for (test, file, find, replace) in [
        // Stages reused while others still multiply from them.
        (
            "search::nearest_on_a_card_equals_brute_force_in_every_schedule",
            "nearest_mma.cu",
            "        __syncthreads();  // the next references go into the same stages\n",
            "",
        ),
        // One image beyond the class.
        (
            "search::the_optimum_on_a_card_matches_float64_in_every_schedule",
            "optimal.cu",
            "n < ranges[2 * query + 1]",
            "n <= ranges[2 * query + 1]",
        ),
        // The first slope twice.
        (
            "search::sampling_on_a_card_gives_the_cpus_bits_in_every_schedule",
            "heun.cu",
            "__dmul_rn(0.5, next)",
            "__dmul_rn(0.5, slope[i])",
        ),
        // Every step is the interval's first.
        (
            "interval::a_stop_ends_an_interval_between_steps",
            "adam_ema.cu",
            "*cursor = at + 1;",
            "*cursor = at;",
        ),
        // Only the last micro-batch's loss.
        (
            "interval::a_replayed_step_equals_one_launched_singly",
            "loss.cu",
            "double sum = *total;",
            "double sum = 0.0;",
        ),
    ] {
        let passes =
            passes_patched(&format!("kernels::{test}"), &format!("kernels/{file}"), find, replace);
        assert!(!passes, "{file} passes with {replace:?} for {find:?}");
    }
}
