//! What is launched on GPUs that give a block more or less shared memory, and that it computes the same.

use super::{cuda, run_cases};
use crate::emulator::{for_each_schedule, in_check_build, is_check_build, on_each_gpu};
use emm::check::cases::{Case, Operand};
use emm::check::golden::rel_err;
use emm::device::cuda::Cuda;
use emm::device::{Acc, Cpu, Device, GpuLimits, Precision, StepArgs, Target};
use emm::model::Recording;
use emm::model::{Arch, ModelConfig};
use emm::ops::norm::Norm;
use emm::rng::fill_normals;
use emm::tape::Mode;
use std::collections::BTreeSet;

/// Static shared memory of a kernel, by the kept table.
fn static_bytes(kernel: &str) -> usize {
    let table = include_str!("../../bench/kernel-resources.csv");
    let cells = table.lines().map(|line| line.split(',').collect::<Vec<_>>());
    let of_kernel = cells.filter(|cells| cells[1] == kernel);
    let shared_bytes = of_kernel.map(|cells| cells[4].parse::<usize>().unwrap());
    shared_bytes.max().unwrap_or_else(|| panic!("no {kernel}"))
}

/// The norms of a training step that do not go in one pass: whether backward, channels, the image's side. All that is
/// launched fits the GPU.
fn in_several_passes(
    config: &ModelConfig,
    precision: Precision,
    shared_bytes: usize,
) -> BTreeSet<(bool, usize, usize)> {
    let target = Target::Cuda(GpuLimits { shared_bytes, ..GpuLimits::LEAST });
    let r = Recording::new(target, config, precision, 16, 512, Mode::Training).unwrap();
    for kernel in r.plan.kernels() {
        let bytes = kernel.shared_bytes as usize + static_bytes(kernel.name);
        assert!(bytes <= shared_bytes, "{}: {bytes} of {shared_bytes}", kernel.name);
    }
    let names: Vec<&str> = r.plan.launches().iter().map(|l| l.name()).collect();
    let norms = r.plan.parts().iter().filter(|p| p.op == "norm");
    norms
        .filter(|p| !names[p.launches.clone()].iter().any(|name| name.starts_with("norm_slab_")))
        .map(|p| (p.backward, p.ins.iter().map(|x| x[3]).sum(), p.ins[0][1]))
        .collect()
}

/// A slab is whole groups of whole 16-byte pieces, which of 576 or 960 channels in 32 groups are too many for any GPU.
#[test]
fn norms_of_the_paper_go_in_one_pass_where_a_gpu_has_the_room() {
    use Arch::{DdpmPP, NcsnPP};
    use Precision::{Bf16, Tf32};
    let bwd = |c: usize| (true, c, 32);
    for (arch, channels, precision, kilobytes, want) in [
        (DdpmPP, 128, Bf16, 99, vec![bwd(384)]),
        (DdpmPP, 128, Bf16, 163, vec![]),
        (DdpmPP, 128, Bf16, 227, vec![]),
        (NcsnPP, 128, Bf16, 99, vec![bwd(384)]),
        (NcsnPP, 128, Bf16, 163, vec![]),
        (NcsnPP, 128, Bf16, 227, vec![]),
        (DdpmPP, 128, Tf32, 99, vec![bwd(384), bwd(512)]),
        (DdpmPP, 128, Tf32, 163, vec![]),
        (DdpmPP, 128, Tf32, 227, vec![]),
        (
            DdpmPP,
            192,
            Bf16,
            99,
            [192, 384, 576, 768].map(bwd).into_iter().chain([(false, 576, 32)]).collect(),
        ),
        (DdpmPP, 192, Bf16, 163, vec![bwd(576)]),
        (DdpmPP, 192, Bf16, 227, vec![bwd(576)]),
        (DdpmPP, 256, Bf16, 99, vec![bwd(768), bwd(1024)]),
        (DdpmPP, 256, Bf16, 163, vec![]),
        (DdpmPP, 256, Bf16, 227, vec![]),
        (DdpmPP, 320, Bf16, 227, vec![(false, 960, 32), bwd(960)]),
    ] {
        for blocks in [2, 4] {
            let basic = ModelConfig::basic(arch, 32, 3);
            let config = ModelConfig { model_channels: channels, num_blocks: blocks, ..basic };
            let skips = vec![1; config.num_skips()];
            let config = ModelConfig { skip_connections: skips, ..config };
            let found = in_several_passes(&config, precision, kilobytes << 10);
            let want = want.iter().copied().collect();
            assert_eq!(found, want, "{arch:?} {channels} {precision:?}, {kilobytes} KB");
        }
    }
    for resolution in [8, 16] {
        let config = ModelConfig::basic(DdpmPP, resolution, 3);
        let found = in_several_passes(&config, Bf16, 99 << 10);
        assert!(found.is_empty(), "{resolution}: {found:?}");
    }
}

/// The norm of two inputs joined, in two groups, of images 32×32.
fn joined_norm(channels: [usize; 2]) -> Case {
    let operand = |shape: [usize; 4], tag: u32, activation: bool| {
        let mut words = vec![0.0; shape.iter().product()];
        fill_normals(&mut words, 0, 0, tag, 7);
        // What bf16 holds exactly.
        words.iter_mut().for_each(|v| *v = half::bf16::from_f32(*v).to_f32());
        Operand { shape, words, grad: Some(String::new()), activation }
    };
    let c = channels[0] + channels[1];
    let image = |c| [2, 32, 32, c];
    let norm = Norm { groups: 2, silu: true, dropout: Some((0.13, 3)), resample: None, off: 0 };
    Case {
        op: Box::new(norm),
        ins: vec![operand(image(channels[0]), 1, true), operand(image(channels[1]), 2, true)],
        params: vec![operand([1, 1, 1, c], 3, false), operand([1, 1, 1, c], 4, false)],
        outs: vec![None, None],
        d_outs: vec![Some(operand(image(c), 5, true).words), None],
        args: StepArgs { seed: 9, step: 4, first_image: 3 },
        float32_only: false,
    }
}

/// Both directions on the GPU against the CPU's in float32.
fn check_joined_norms(cuda: &Cuda, what: &str) {
    let (cpu, bytes) = (Cpu::new(2).unwrap(), cuda.limits().shared_bytes);
    // Backward a slab of 24 channels takes 105 KB in bf16 (of 12, in float32 the same), of 40 (20) 170 KB.
    for (channels, slab_bytes) in [([16, 8], 105 << 10), ([24, 16], 170 << 10)] {
        let case = joined_norm(channels);
        let want = case.run(&cpu, Precision::Fp32, Acc::Set, 0.0).unwrap();
        for (precision, name, bar) in [
            (Precision::Fp32, "norm_slab_bwd", 1e-5),
            (Precision::Bf16, "norm_slab_bwd_silu_drop_bf16", 5e-3),
        ] {
            let device = Device::Cuda { cuda: cuda.clone(), host: cpu.clone() };
            let launched = case.time(&device, precision, 1).unwrap();
            let in_one_pass = launched.iter().any(|timed| timed.name == name);
            assert_eq!(in_one_pass, slab_bytes <= bytes, "{channels:?} {precision:?}, {bytes} B");
            let got = case.run_kernels(cuda, precision, Acc::Set, 0.0).unwrap();
            let tensors = |ran: &emm::check::cases::Ran| {
                let d_ins = ran.d_ins.iter().flatten();
                [&ran.outs[0]].into_iter().chain(d_ins).chain(&ran.d_params).cloned().collect()
            };
            let (got, want): (Vec<Vec<f32>>, Vec<Vec<f32>>) = (tensors(&got), tensors(&want));
            for (i, (got, want)) in got.iter().zip(&want).enumerate() {
                let err = rel_err(got, want).unwrap();
                let what = format!("{channels:?} {precision:?} tensor {i}, {bytes} B, {what}");
                assert!(err < bar, "{what}: off by {err:.1e}");
            }
        }
    }
}

#[test]
fn every_choice_of_a_gpu_computes_the_same() {
    let name = "kernels::limits::every_choice_of_a_gpu_computes_the_same";
    on_each_gpu(name, || {
        let cuda = cuda();
        if !is_check_build() {
            for_each_schedule(|schedule| {
                let what = format!("{schedule:?}");
                check_joined_norms(&cuda, &what);
                run_cases(&cuda, &what, |name| name.starts_with("conv2d"));
            });
        }
        in_check_build(name, || {
            check_joined_norms(&cuda, "checked");
            run_cases(&cuda, "checked", |name| name.starts_with("conv2d"));
        });
    });
}
