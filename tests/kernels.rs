//! The CUDA kernels, run on the CPU by the emulator through cudarc: every op's cases against float64.

use crate::emulator::{gpu, in_check_build, for_each_schedule, launches};
use crate::ops::all_cases;
use emm::check::cases::Case;
use emm::device::cuda::Cuda;

fn cuda() -> Cuda {
    // Loads the emulator as this process's driver; it ignores the image.
    gpu();
    Cuda::open(0, &[b"emulator"]).unwrap()
}

/// Runs all cases and returns how many.
fn run_all(cuda: &Cuda, what: &str) -> usize {
    let cases = all_cases();
    for (name, golden, case) in &cases {
        let run = |case: &Case, acc, start| case.run_kernels(cuda, acc, start);
        let err = case.error(golden, run).unwrap_or_else(|e| panic!("{name} {what}: {e:#}"));
        // The bar of the CPU's ops.
        assert!(err < 1e-5, "{name} {what}: off by {err:.1e}");
    }
    cases.len()
}

#[test]
fn every_case_matches_float64_in_every_schedule() {
    let (cuda, before) = (cuda(), launches());
    let mut runs = 0;
    for_each_schedule(|schedule| runs += run_all(&cuda, &format!("{schedule:?}")));
    println!("{runs} (case, schedule) pairs, {} launches", launches() - before);
}

#[test]
fn the_checker_has_nothing_to_say_of_the_kernels() {
    in_check_build("kernels::the_checker_has_nothing_to_say_of_the_kernels", || {
        let runs = run_all(&cuda(), "checked");
        println!("{runs} cases in the check build");
    });
}
