//! Which kernels the products of the networks go by, and the tensor cores' on shapes that cross their tiles.

use super::cuda;
use crate::emulator::on_each_gpu;
use crate::ops::{fresh_seed, plain_conv, plain_input_gradient, plain_weight_gradient};
use emm::check::cases::{Case, Operand};
use emm::check::golden::rel_err;
use emm::device::cuda::Cuda;
use emm::device::params::MMA_WIDE_SHARED_BYTES;
use emm::device::{Acc, Cpu, Device, GpuLimits, Precision, StepArgs, Target};
use emm::model::Recording;
use emm::model::{Arch, ModelConfig};
use emm::ops::conv2d::Conv2d;
use emm::rng::fill_normals;
use emm::tape::Mode;
use std::collections::BTreeSet;

/// Kernels of each part of a recorded network: (op, whether backward, inputs' shapes, names).
fn parts(config: &ModelConfig, precision: Precision) -> Vec<(&'static str, bool, String)> {
    let target = Target::Cuda(GpuLimits::LEAST);
    let r = Recording::new(target, config, precision, 16, 512, Mode::Training).unwrap();
    let names: Vec<&str> = r.plan.launches().iter().map(|l| l.name()).collect();
    let part = |p: &emm::tape::Part| (p.op, p.backward, names[p.launches.clone()].join(" "));
    r.plan.parts().iter().map(part).collect()
}

#[test]
fn convolutions_of_the_paper_go_by_tensor_cores() {
    let general = ["conv2d_fwd", "conv2d_dgrad", "conv2d_wgrad"];
    for (arch, channels, resolution, blocks) in [
        (Arch::DdpmPP, 128, 32, 2),
        (Arch::DdpmPP, 192, 32, 2),
        (Arch::DdpmPP, 256, 32, 2),
        (Arch::DdpmPP, 320, 32, 2),
        (Arch::DdpmPP, 128, 32, 4),
        (Arch::DdpmPP, 128, 16, 2),
        (Arch::DdpmPP, 128, 8, 2),
        (Arch::NcsnPP, 128, 32, 2),
    ] {
        let basic = ModelConfig::basic(arch, resolution, 3);
        let config = ModelConfig { model_channels: channels, num_blocks: blocks, ..basic };
        let skips = vec![1; config.num_skips()];
        let config = ModelConfig { skip_connections: skips, ..config };
        for precision in [Precision::Bf16, Precision::Tf32] {
            let mut strided = 0;
            for (op, backward, names) in parts(&config, precision) {
                if op != "conv2d" {
                    continue;
                }
                let of_general = |n: &&str| general.iter().any(|g| n.starts_with(g));
                let slow: Vec<&str> = names.split(' ').filter(of_general).collect();
                // The gradient of a stride-2 convolution's input, one for each level of NCSN++ but two: the first has
                // the image as its input.
                let must = backward && slow.len() == 1 && slow[0].starts_with("conv2d_dgrad");
                strided += must as usize;
                assert!(slow.is_empty() || must, "{arch:?} {channels} {precision:?}: {names}");
            }
            let want = if arch == Arch::NcsnPP { 1 } else { 0 };
            assert_eq!(strided, want, "{arch:?} {channels} at {resolution}, {precision:?}");
        }
        let attention = parts(&config, Precision::Bf16).into_iter().filter(|p| p.0 == "attention");
        // Four pixels, at the lowest level of 8 × 8 images, are no whole piece.
        let attention: Vec<_> = attention.filter(|_| resolution > 8).collect();
        assert!(resolution == 8 || !attention.is_empty(), "{arch:?} at {resolution}");
        for (_, backward, names) in attention {
            let on_chip = if backward {
                "attention_mma_bwd_queries attention_mma_bwd_keys"
            } else {
                "attention_mma_fwd"
            };
            assert_eq!(names, on_chip);
        }
    }
}

#[test]
fn tensor_cores_are_right_across_tile_borders() {
    // More than 128 pixels, channels and outputs; ragged batches; the network's ends.
    let shapes =
        [([3, 8, 8, 136], 24), ([9, 4, 4, 24], 136), ([2, 16, 16, 3], 16), ([2, 12, 12, 16], 3)];
    check_convolutions(&cuda(), &[Precision::Tf32, Precision::Bf16], &shapes);
}

/// Enough blocks for every multiprocessor, of more than 128 outputs or channels: 1,024 pixels in rows of 32,
/// images in rows that are no power of two, and several images a tile.
#[test]
fn the_fastest_tiles_of_each_gpu_are_right() {
    on_each_gpu("kernels::ways::the_fastest_tiles_of_each_gpu_are_right", || {
        let cuda = cuda();
        let shapes = [
            ([1, 32, 32, 8], 136),
            ([1, 32, 32, 8], 256),
            ([9, 11, 11, 200], 8),
            ([5, 8, 8, 72], 72),
            ([17, 4, 4, 16], 16),
            ([1, 80, 8, 64], 64),
        ];
        let names = check_convolutions(&cuda, &[Precision::Bf16], &shapes);
        let fast = |name: &String| name.contains("_wide_") || name.contains("_wgmma");
        let fast: BTreeSet<_> = names.into_iter().filter(fast).collect();
        let limits = cuda.limits();
        let want: &[&str] = match limits.shared_bytes < MMA_WIDE_SHARED_BYTES {
            _ if limits.hopper => {
                &["conv2d_wgmma_128", "conv2d_wgmma_192", "conv2d_wgmma_256", "wgrad_wgmma"]
            }
            true => &[],
            false => &["conv2d_mma_wide_bf16", "wgrad_mma_wide_bf16"],
        };
        assert_eq!(fast, want.iter().map(|name| name.to_string()).collect());
    });
}

/// 3×3 convolutions of x of a shape to so many outputs and their gradients, against float64; the kernels that ran.
fn check_convolutions(
    cuda: &Cuda,
    precisions: &[Precision],
    shapes: &[([usize; 4], usize)],
) -> BTreeSet<String> {
    let seed = fresh_seed();
    let device = Device::Cuda { cuda: cuda.clone(), host: Cpu::new(1).unwrap() };
    let mut names = BTreeSet::new();
    for &(shape, o) in shapes {
        let normal = |len: usize, tag: u32| {
            let mut v = vec![0.0; len];
            fill_normals(&mut v, 0, 0, tag, seed);
            v
        };
        let operand = |shape: [usize; 4], tag, activation| Operand {
            shape,
            words: normal(shape.iter().product(), tag),
            grad: Some(String::new()),
            activation,
        };
        let c = shape[3];
        let x = operand(shape, 1, true);
        let (w, b) = (operand([1, 1, 1, o * 9 * c], 2, false), operand([1, 1, 1, o], 3, false));
        let y = plain_conv(&x.words, &w.words, &b.words, shape, o);
        let dy = normal(y.len(), 4);
        let dx = plain_input_gradient(&dy, &w.words, shape, o);
        let dw = plain_weight_gradient(&x.words, &dy, shape, o);
        let case = Case {
            op: Box::new(Conv2d { float32: o < 8, ..Conv2d::same(3, o) }),
            ins: vec![x],
            params: vec![w, b],
            outs: vec![None],
            d_outs: vec![Some(dy)],
            args: StepArgs::default(),
            float32_only: false,
        };
        for &precision in precisions {
            let ran = case.run_kernels(cuda, precision, Acc::Set, 0.0).unwrap();
            names.extend(
                case.time(&device, precision, 1).unwrap().into_iter().map(|t| t.name.to_string()),
            );
            let d_x = ran.d_ins[0].as_ref().unwrap();
            for (what, got, want) in
                [("y", &ran.outs[0], &y), ("dx", d_x, &dx), ("dw", &ran.d_params[0], &dw)]
            {
                let got: Vec<f64> = got.iter().map(|&v| v as f64).collect();
                let err = rel_err(&got, want).unwrap();
                assert!(err < case.bar(precision), "{shape:?} {precision:?} {what}: {err:.1e}");
                // Rounding must show, or a float32 kernel ran.
                assert!(err > 1e-5, "{shape:?} {precision:?} {what}: {err:.1e}");
            }
        }
    }
    names
}

/// A GPU's arithmetic makes the NaN 0x7fffffff, which no rounding may turn into a number.
#[test]
fn tensor_cores_pass_on_a_gpus_nan() {
    let cuda = cuda();
    let words = |shape: [usize; 4]| vec![1.0; shape.iter().product()];
    let operand = |shape, activation| Operand {
        shape,
        words: words(shape),
        grad: Some(String::new()),
        activation,
    };
    let (shape, o) = ([1, 8, 8, 8], 8);
    let mut x = operand(shape, true);
    let mut dy = words([1, 8, 8, o]);
    x.words[0] = f32::from_bits(0x7fff_ffff);
    dy[0] = f32::from_bits(0x7fff_ffff);
    let case = Case {
        op: Box::new(Conv2d::same(3, o)),
        ins: vec![x],
        params: vec![operand([1, 1, 1, o * 9 * 8], false), operand([1, 1, 1, o], false)],
        outs: vec![None],
        d_outs: vec![Some(dy)],
        args: StepArgs::default(),
        float32_only: false,
    };
    for precision in [Precision::Tf32, Precision::Bf16] {
        let ran = case.run_kernels(&cuda, precision, Acc::Set, 0.0).unwrap();
        let d_x = ran.d_ins[0].as_ref().unwrap();
        for (what, got) in [("y", &ran.outs[0]), ("dx", d_x), ("dw", &ran.d_params[0])] {
            assert!(got[0].is_nan(), "{precision:?}: {what} is {}", got[0]);
        }
    }
}
