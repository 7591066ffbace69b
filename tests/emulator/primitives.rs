//! Tensor-core products, ldmatrix, collectives and barriers against plain loops, under every schedule.

use super::{config, for_each_schedule, gpu};
use cudarc::driver::PushKernelArg;
use half::bf16;

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

#[test]
fn mma_bf16_and_ldmatrix_multiply() {
    let gpu = gpu();
    let (a, b) = (numbers(32 * 16, 1), numbers(16 * 24, 2));
    let want: Vec<f32> = product(&a, &b, 32, 24, 16).iter().map(|&x| x as f32).collect();
    let bits =
        |x: &[i32]| x.iter().map(|&v| bf16::from_f32(v as f32).to_bits()).collect::<Vec<u16>>();
    let left = gpu.stream.clone_htod(&bits(&a)).unwrap();
    for (name, right) in
        [("emu_mma_bf16", bits(&transposed(&b, 16, 24))), ("emu_mma_bf16_trans", bits(&b))]
    {
        let right = gpu.stream.clone_htod(&right).unwrap();
        for_each_schedule(|schedule| {
            let mut d = gpu.stream.alloc_zeros::<f32>(32 * 24).unwrap();
            // SAFETY: the arguments are the kernel's.
            unsafe {
                gpu.stream
                    .launch_builder(&gpu.kernel(name))
                    .arg(&mut d)
                    .arg(&left)
                    .arg(&right)
                    .launch(config(1, (32, 1)))
            }
            .unwrap();
            assert_eq!(gpu.stream.clone_dtoh(&d).unwrap(), want, "{name} {schedule:?}");
        });
    }
}

#[test]
fn mma_tf32_multiplies_and_drops_the_low_bits() {
    let gpu = gpu();
    let (a, b) = (numbers(16 * 8, 3), numbers(8 * 8, 4));
    let want: Vec<f32> = product(&a, &b, 16, 8, 8).iter().map(|&x| x as f32).collect();
    // Thirteen low bits that a tf32 has no room for.
    let bits = |x: &[i32]| x.iter().map(|&v| (v as f32).to_bits() | 0x1fff).collect::<Vec<u32>>();
    let left = gpu.stream.clone_htod(&bits(&a)).unwrap();
    let right = gpu.stream.clone_htod(&bits(&b)).unwrap();
    let mut d = gpu.stream.alloc_zeros::<f32>(16 * 8).unwrap();
    // SAFETY: the arguments are the kernel's.
    unsafe {
        gpu.stream
            .launch_builder(&gpu.kernel("emu_mma_tf32"))
            .arg(&mut d)
            .arg(&left)
            .arg(&right)
            .launch(config(1, (32, 1)))
    }
    .unwrap();
    assert_eq!(gpu.stream.clone_dtoh(&d).unwrap(), want);
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
        let left = gpu.stream.clone_htod(&words(&a)).unwrap();
        let right = gpu.stream.clone_htod(&words(&columns)).unwrap();
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
        assert_eq!(gpu.stream.clone_dtoh(&d).unwrap(), want, "signed {signed}");
    }
}

#[test]
fn collectives_give_each_lane_what_cuda_says() {
    let gpu = gpu();
    let square = |lane: i32| lane * lane;
    let want: Vec<i32> = (0..12)
        .flat_map(|row| {
            (0..32).map(move |lane: i32| match row {
                0 => square(5),
                1 => square(lane ^ 3),
                2 => square(if lane < 4 { lane } else { lane - 4 }),
                3 => square(if lane > 27 { lane } else { lane + 4 }),
                4 => square(if lane % 8 > 5 { lane } else { lane + 2 }),
                5 => square(lane / 8 * 8 + 1),
                6 => (0..32).filter(|&l| square(l) & 4 != 0).fold(0, |m, l| m | 1 << l),
                7 => (0..32).map(square).sum(),
                8 => 11,
                9 => 0,
                10 if lane < 16 => square(lane ^ 1) * 10,
                10 => square(lane ^ 2) * 100,
                _ if lane < 16 => 2,
                _ => 1,
            })
        })
        .collect();
    for_each_schedule(|schedule| {
        let mut out = gpu.stream.alloc_zeros::<i32>(12 * 32).unwrap();
        // SAFETY: the arguments are the kernel's.
        unsafe {
            gpu.stream
                .launch_builder(&gpu.kernel("emu_collectives"))
                .arg(&mut out)
                .launch(config(1, (32, 1)))
        }
        .unwrap();
        assert_eq!(gpu.stream.clone_dtoh(&out).unwrap(), want, "{schedule:?}");
    });
}

#[test]
fn the_barrier_counts_only_threads_that_have_not_returned() {
    let gpu = gpu();
    for_each_schedule(|schedule| {
        for n in [1i32, 31, 40, 64] {
            let mut out = gpu.stream.alloc_zeros::<i32>(65).unwrap();
            // SAFETY: the arguments are the kernel's.
            unsafe {
                gpu.stream
                    .launch_builder(&gpu.kernel("emu_early_exit"))
                    .arg(&mut out)
                    .arg(&n)
                    .launch(config(1, (64, 1)))
            }
            .unwrap();
            let got = gpu.stream.clone_dtoh(&out).unwrap();
            let want: Vec<i32> = (0..n).rev().chain([n / 2]).collect();
            assert_eq!(got[..=n as usize], want, "{n} threads, {schedule:?}");
        }
    });
}
