//! Bugs put into the kernels of search, sampler and interval: each turns a test red.

use crate::emulator::passes_patched;

#[test]
fn bugs_in_the_kernels_are_seen() {
    for (test, file, find, replace) in [
        // Stages reused while others still multiply from them.
        (
            "search::nearest_on_a_gpu_equals_brute_force_in_every_schedule",
            "nearest_mma.cu",
            "        __syncthreads();  // the next references go into the same stages\n",
            "",
        ),
        // One image beyond the class.
        (
            "search::the_optimum_on_a_gpu_matches_float64_in_every_schedule",
            "optimal.cu",
            "n < p.ranges[2 * query + 1]",
            "n <= p.ranges[2 * query + 1]",
        ),
        // The first slope twice.
        (
            "search::sampling_on_a_gpu_gives_the_cpus_bits_in_every_schedule",
            "heun.cu",
            "__dmul_rn(0.5, next)",
            "__dmul_rn(0.5, p.slope[i])",
        ),
        // Every step is the interval's first.
        (
            "interval::a_stop_ends_an_interval_between_steps",
            "adam_ema.cu",
            "*p.cursor = at + 1;",
            "*p.cursor = at;",
        ),
        // Only the last micro-batch's loss.
        (
            "interval::a_replayed_step_equals_one_launched_singly",
            "loss.cu",
            "double sum = *p.total;",
            "double sum = 0.0;",
        ),
    ] {
        let passes =
            passes_patched(&format!("kernels::{test}"), &format!("kernels/{file}"), find, replace);
        assert!(!passes, "{file} passes with {replace:?} for {find:?}");
    }
}
