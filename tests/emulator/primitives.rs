//! What kernels are written with, under every schedule, and products of bytes with a sign.

use super::{config, for_each_schedule, gpu, in_check_build, on_hopper};
use crate::kernels::gpu_device;
use cudarc::driver::PushKernelArg;
use emm::check::NetworkSize;
use emm::check::primitives::left_out;
use emm::check::{CaseSize, Wanted, list};
use emm::device::Precision;

/// Small whole numbers that look random, so that every product and sum is exact.
fn numbers(n: usize, salt: usize) -> Vec<i32> {
    (0..n).map(|i| ((i * 7919 + salt * 104_729) % 1009 % 17) as i32 - 8).collect()
}

/// c[m][n] = Σ_k a[m][k] b[k][n]
fn product(a: &[i32], b: &[i32], m: usize, n: usize, k: usize) -> Vec<i32> {
    let at = |i: usize, j: usize| (0..k).map(|x| a[i * k + x] * b[x * n + j]).sum();
    (0..m * n).map(|i| at(i / n, i % n)).collect()
}

fn transposed(b: &[i32], rows: usize, columns: usize) -> Vec<i32> {
    (0..rows * columns).map(|i| b[i % rows * columns + i / rows]).collect()
}

/// Runs all primitives of the GPU under every schedule, and returns how many they are.
fn run_primitives() -> usize {
    let gpu = gpu_device();
    let wanted = Wanted {
        op: Some("primitives"),
        precisions: vec![Precision::Fp32],
        sizes: vec![CaseSize::Golden],
        on_gpu: true,
        hopper: gpu.cuda().unwrap().limits().hopper,
        network: NetworkSize::default(),
    };
    let checks = list(&wanted).unwrap();
    assert_eq!(left_out(&wanted).is_empty(), wanted.hopper);
    for_each_schedule(|schedule| {
        for check in &checks {
            let off = (check.run)(&gpu).unwrap_or_else(|e| panic!("{}: {e:#}", check.case));
            assert!(off.by <= check.bar, "{} {schedule:?}: {}, {}", check.case, off.at, off.by);
        }
    });
    checks.len()
}

#[test]
fn every_primitive_gives_what_a_gpu_must() {
    let ran = run_primitives();
    assert!(ran > 15, "{ran} primitives");
}

#[test]
fn hoppers_primitives_give_what_a_gpu_must() {
    on_hopper("emulator::primitives::hoppers_primitives_give_what_a_gpu_must", || {
        let ran = run_primitives();
        assert!(ran > 40, "{ran} primitives");
    });
}

#[test]
fn the_checker_has_nothing_to_say_of_hoppers_primitives() {
    let name = "emulator::primitives::the_checker_has_nothing_to_say_of_hoppers_primitives";
    on_hopper(name, || in_check_build(name, || assert!(run_primitives() > 40)));
}

#[test]
fn mma_of_bytes_multiplies_with_and_without_sign() {
    let gpu = gpu();
    for signed in [0i32, 1] {
        let bytes = |n, salt| numbers(n, salt).iter().map(|&x| (x * 15) as u8).collect::<Vec<u8>>();
        let value = |x: &[u8]| -> Vec<i32> {
            x.iter().map(|&v| if signed != 0 { v as i8 as i32 } else { v as i32 }).collect()
        };
        let (a, columns) = (bytes(16 * 32, 5), bytes(8 * 32, 6));
        let want = product(&value(&a), &transposed(&value(&columns), 8, 32), 16, 8, 32);
        let words = |x: &[u8]| -> Vec<u32> {
            x.chunks_exact(4).map(|w| u32::from_le_bytes(w.try_into().unwrap())).collect()
        };
        let left = gpu.upload(&words(&a)).unwrap();
        let right = gpu.upload(&words(&columns)).unwrap();
        let mut d = gpu.stream.alloc_zeros::<i32>(16 * 8).unwrap();
        // SAFETY: the arguments are the kernel's.
        unsafe {
            gpu.stream
                .launch_builder(&gpu.kernel("emu_mma_bytes"))
                .arg(&mut d)
                .arg(&left)
                .arg(&right)
                .arg(&signed)
                .launch(config(1, (32, 1)))
        }
        .unwrap();
        assert_eq!(gpu.read(&d).unwrap(), want, "signed {signed}");
    }
}
