//! Attention in bf16 on shapes that cross blocks' tiles, with its scores on chip and through memory, against float64.

use super::cuda;
use crate::emulator::{for_each_schedule, in_check_build, on_each_gpu};
use crate::ops::fresh_seed;
use emm::check::cases::{Case, Operand};
use emm::check::golden::rel_err;
use emm::device::cuda::Cuda;
use emm::device::{Acc, Precision, StepArgs};
use emm::ops::attention::Attention;
use emm::rng::fill_normals;

/// y = softmax(q kᵀ / √c) v of one image, and dqkv.
fn plain(qkv: &[f32], dy: &[f32], t: usize, c: usize) -> [Vec<f64>; 2] {
    let qkv =
        |part: usize, pixel: usize, channel: usize| qkv[(3 * pixel + part) * c + channel] as f64;
    let (mut y, mut dqkv) = (vec![0.0; t * c], vec![0.0; 3 * t * c]);
    let scale = 1.0 / (c as f64).sqrt();
    for i in 0..t {
        let dy = &dy[i * c..][..c];
        let over_channels = |of: &dyn Fn(usize) -> f64| (0..c).map(of).sum::<f64>();
        let score = |j| scale * over_channels(&|ch| qkv(0, i, ch) * qkv(1, j, ch));
        let scores: Vec<f64> = (0..t).map(score).collect();
        let highest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let powers: Vec<f64> = scores.iter().map(|s| (s - highest).exp()).collect();
        let sum: f64 = powers.iter().sum();
        let d_weight = |j| over_channels(&|ch| dy[ch] as f64 * qkv(2, j, ch));
        let d_weights: Vec<f64> = (0..t).map(d_weight).collect();
        let mean: f64 = (0..t).map(|j| powers[j] / sum * d_weights[j]).sum();
        for j in 0..t {
            let w = powers[j] / sum;
            let d_score = scale * w * (d_weights[j] - mean);
            for ch in 0..c {
                y[i * c + ch] += w * qkv(2, j, ch);
                dqkv[3 * i * c + ch] += d_score * qkv(1, j, ch);
                dqkv[(3 * j + 1) * c + ch] += d_score * qkv(0, i, ch);
                dqkv[(3 * j + 2) * c + ch] += w * dy[ch] as f64;
            }
        }
    }
    [y, dqkv]
}

/// As bf16 stores it.
fn rounded(words: Vec<f32>) -> Vec<f32> {
    words.into_iter().map(|v| half::bf16::from_f32(v).to_f32()).collect()
}

/// Runs [n, h, w, c] in bf16, setting and adding gradients; whether the scores stay on chip.
pub(super) fn check(cuda: &Cuda, [n, h, w, c]: [usize; 4], seed: u64, how: &str) -> bool {
    let (t, what) = (h * w, format!("{n} of {h}×{w}×{c}, {how}"));
    let normals = |len: usize, tag: u32| {
        let mut v = vec![0.0; len];
        fill_normals(&mut v, 0, 0, tag, seed);
        rounded(v)
    };
    let (qkv, dy) = (normals(n * t * 3 * c, 1), normals(n * t * c, 2));
    let images: Vec<[Vec<f64>; 2]> = (0..n)
        .map(|i| plain(&qkv[i * t * 3 * c..][..t * 3 * c], &dy[i * t * c..][..t * c], t, c))
        .collect();
    let want = |which: usize, start: f64| -> Vec<f64> {
        images.iter().flat_map(|of| of[which].iter().map(|v| v + start)).collect()
    };
    let qkv = Operand {
        shape: [n, h, w, 3 * c],
        words: qkv,
        grad: Some(String::new()),
        activation: true,
    };
    let case = Case {
        op: Box::new(Attention),
        ins: vec![qkv],
        params: vec![],
        outs: vec![None, None],
        d_outs: vec![Some(dy), None],
        args: StepArgs::default(),
        float32_only: false,
    };
    for (acc, start) in [(Acc::Set, 0.0), (Acc::Add, 0.5)] {
        let ran = case.run_kernels(cuda, Precision::Bf16, acc, start).unwrap();
        let d_qkv = ran.d_ins[0].as_ref().unwrap();
        for (tensor, got, want) in
            [("y", &ran.outs[0], want(0, 0.0)), ("dqkv", d_qkv, want(1, start as f64))]
        {
            let got: Vec<f64> = got.iter().map(|&v| v as f64).collect();
            let off = rel_err(&got, &want).unwrap();
            // Roundings to bf16 of w, of ds and of what is stored, 2⁻⁹ at most each.
            assert!(off < 8e-3, "{what}, {acc:?}: {tensor} is off by {off:.1e}");
            assert!(off > 1e-5, "{what}, {acc:?}: {tensor} was computed in float32");
        }
    }
    let names = case.kernel_names(cuda.limits(), Precision::Bf16).unwrap();
    names.iter().all(|name| name.starts_with("attention_mma_"))
}

#[test]
fn attention_is_right_on_chip_and_through_memory() {
    on_each_gpu("kernels::attention::attention_is_right_on_chip_and_through_memory", || {
        let (cuda, seed) = (cuda(), fresh_seed());
        for (shape, on_chip) in [
            // Networks'; then ragged queries, keys, channels, more than a tile's channels.
            ([1, 16, 16, 256], true),
            ([3, 8, 8, 256], true),
            ([2, 8, 8, 64], true),
            ([1, 16, 16, 128], true),
            ([2, 12, 12, 40], true),
            ([1, 10, 20, 264], true),
            ([1, 8, 17, 8], true),
            // No whole pieces, and more keys than a tile's.
            ([2, 7, 7, 16], false),
            ([2, 4, 4, 12], false),
            ([1, 16, 17, 16], false),
        ] {
            assert_eq!(check(&cuda, shape, seed, "at once"), on_chip, "{shape:?}");
        }
    });
}

/// Rings that go round, of two and of three stages, in more than one block and tile.
#[test]
fn attention_on_chip_waits_for_all_that_it_reads() {
    const NAME: &str = "kernels::attention::attention_on_chip_waits_for_all_that_it_reads";
    in_check_build(NAME, || {
        on_each_gpu(NAME, || {
            let (cuda, seed) = (cuda(), fresh_seed());
            for_each_schedule(|schedule| {
                let how = format!("{schedule:?}");
                assert!(check(&cuda, [1, 10, 20, 264], seed, &how));
                assert!(check(&cuda, [1, 8, 9, 200], seed, &how));
            });
        });
    });
}
