//! The search, the optimum and the sampler on a GPU: fresh inputs of ragged sizes, in every schedule.

use super::{cuda, gpu_device};
use crate::emulator::{for_each_schedule, in_check_build};
use crate::ops::fresh_seed;
use emm::check::golden::rel_err;
use emm::check::sampling::{Scaled, SetSizes, heun, optimum, set_of, small};
use emm::check::searching::{SearchSizes, nearest};
use emm::device::{Cpu, Device};
use emm::memorization::Search;
use emm::sampler::{GpuOptimal, HeunOptions, Optimal, Start, sample, sample_each};

fn cpu() -> Device {
    Device::Cpu(Cpu::new(2).unwrap())
}

fn check_search(seed: u64, len: usize, references: usize, queries: usize) {
    let off = nearest(&gpu_device(), SearchSizes::all(len, references, queries), seed).unwrap();
    let what = format!("seed {seed}: {references} of {len} bytes, {queries} queries");
    assert!(off.by == 0.0, "{what}: {} {}", off.by, off.at);
}

#[test]
fn nearest_on_a_gpu_equals_brute_force_in_every_schedule() {
    let seed = fresh_seed();
    for_each_schedule(|_| {
        // Tensor cores take images of whole 16 bytes.
        for (len, references, queries) in
            [(16, 300, 130), (192, 129, 3), (48, 2, 1), (17, 70, 65), (3, 200, 2), (144, 5, 129)]
        {
            check_search(seed, len, references, queries);
        }
    });
    // More queries than a batch; images beyond the tensor cores' sums and beyond 32 bits.
    for (len, references, queries) in [(16, 40, 2100), (32_784, 3, 2), (66_000, 3, 2)] {
        check_search(seed, len, references, queries);
    }
}

fn check_optimum(seed: u64) {
    for [images, side, channels, queries] in [[37, 4, 3, 5], [70, 8, 1, 34], [4, 2, 1, 1]] {
        for labels in [false, true] {
            let sizes = SetSizes { images, side, channels, queries, labels };
            let off = optimum(&gpu_device(), sizes, seed).unwrap();
            assert!(off.by < 1e-6, "seed {seed}: {sizes:?}: {} off by {:.1e}", off.at, off.by);
        }
    }
}

#[test]
fn the_optimum_on_a_gpu_matches_float64_in_every_schedule() {
    let seed = fresh_seed();
    for_each_schedule(|_| check_optimum(seed));
}

fn check_sampler(seed: u64) {
    for (what, sampling) in small() {
        let off = heun(&gpu_device(), &sampling, seed).unwrap();
        assert!(off.by == 0.0, "seed {seed}: {what}: {} {}", off.by, off.at);
    }
}

#[test]
fn sampling_on_a_gpu_gives_the_cpus_bits_in_every_schedule() {
    let seed = fresh_seed();
    for_each_schedule(|_| check_sampler(seed));
}

#[test]
fn an_image_that_is_not_finite_is_named_on_a_gpu() {
    let mut denoiser = Scaled::new(f32::INFINITY, 2, 12, &gpu_device()).unwrap();
    let start = Start::Seeds(&[5, 6, 7]);
    let options = HeunOptions::default();
    let e = sample(&mut denoiser, start, &[], &options, &mut |_, _| true).unwrap_err();
    assert_eq!(emm::error::exit_code(&e), 5);
    assert!(e.to_string().contains("the image of seed 5 is not finite"), "{e}");
}

#[test]
fn samples_of_the_optimum_on_a_gpu_are_the_cpus_and_all_copies() {
    let sizes = SetSizes { images: 20, side: 4, channels: 3, queries: 0, labels: false };
    let set = set_of(fresh_seed(), sizes);
    let (options, seeds) = (HeunOptions::default(), [3, 4, 5]);
    let mut cpu_images = Vec::new();
    let mut on_cpu = Optimal::new(&set, &cpu());
    sample_each(&mut on_cpu, Start::Seeds(&seeds), &[], &options, &mut |_, images| {
        cpu_images.extend_from_slice(&images.values()?);
        Ok(true)
    })
    .unwrap();
    let mut search = Search::new(&gpu_device(), &set.pixels, set.image_len()).unwrap();
    let mut on_gpu = GpuOptimal::new(&set, &cuda()).unwrap();
    sample_each(&mut on_gpu, Start::Seeds(&seeds), &[], &options, &mut |_, images| {
        let err = rel_err(&images.values()?, &cpu_images).unwrap();
        assert!(err < 1e-6, "off by {err:.1e}");
        // Searched where they are.
        let found = search.nearest(&images.pixels())?;
        assert!(found.iter().all(|n| n.squared[0] == 0 && n.squared[1] > 0), "{found:?}");
        Ok(true)
    })
    .unwrap();
}

#[test]
fn the_checker_has_nothing_to_say_of_search_and_sampler() {
    in_check_build("kernels::search::the_checker_has_nothing_to_say_of_search_and_sampler", || {
        let seed = fresh_seed();
        for (len, references, queries) in [(16, 300, 130), (17, 70, 65)] {
            check_search(seed, len, references, queries);
        }
        check_optimum(seed);
        check_sampler(seed);
    });
}
