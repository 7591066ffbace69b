//! Attention and linear layers.

use super::super::cases::Case;
use super::sample::{Of, Sample, d_out, in_rows, silu, silu_slope, some};
use crate::ops::linear::Linear;
use rayon::prelude::*;

/// Output and gradient of qkv of the first and the last image.
pub(super) fn attention(case: &Case) -> Vec<Sample> {
    let [n, h, w, c3] = case.ins[0].shape;
    let (t, c, dy) = (h * w, c3 / 3, d_out(case, 0));
    let images = some(0, n);
    let of_images: Vec<[Vec<f64>; 2]> = (images.par_iter())
        .map(|&n| {
            attend(&case.ins[0].words[n * t * c3..][..t * c3], &dy[n * t * c..][..t * c], t, c)
        })
        .collect();
    let sample = |of: Of, which: usize, len: usize| Sample {
        of,
        at: in_rows(&images, len),
        want: of_images.iter().flat_map(|image| image[which].iter().copied()).collect(),
    };
    vec![sample(Of::Out(0), 0, t * c), sample(Of::In(0), 1, t * c3)]
}

/// y = softmax(q kᵀ / √c) v of one image, and dqkv.
fn attend(qkv: &[f32], dy: &[f32], t: usize, c: usize) -> [Vec<f64>; 2] {
    let row = |which: usize, i: usize| {
        qkv[(3 * i + which) * c..][..c].iter().map(|&v| v as f64).collect::<Vec<f64>>()
    };
    let rows = |which: usize| (0..t).map(|i| row(which, i)).collect::<Vec<_>>();
    let (q, k, v) = (rows(0), rows(1), rows(2));
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let scale = 1.0 / (c as f64).sqrt();
    let (mut y, mut dqkv) = (vec![0.0; t * c], vec![0.0; 3 * t * c]);
    let add = |to: &mut [f64], factor: f64, from: &[f64]| {
        to.iter_mut().zip(from).for_each(|(to, from)| *to += factor * from);
    };
    for i in 0..t {
        let scores: Vec<f64> = k.iter().map(|k| scale * dot(&q[i], k)).collect();
        let highest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|s| (s - highest).exp()).collect();
        let total: f64 = weights.iter().sum();
        let weights: Vec<f64> = weights.iter().map(|w| w / total).collect();
        let given: Vec<f64> = dy[i * c..][..c].iter().map(|&v| v as f64).collect();
        let back: Vec<f64> = v.iter().map(|v| dot(&given, v)).collect();
        let mean = dot(&weights, &back);
        for j in 0..t {
            let slope = scale * weights[j] * (back[j] - mean);
            add(&mut y[i * c..][..c], weights[j], &v[j]);
            add(&mut dqkv[3 * i * c..][..c], slope, &k[j]);
            add(&mut dqkv[(3 * j + 1) * c..][..c], slope, &q[i]);
            add(&mut dqkv[(3 * j + 2) * c..][..c], weights[j], &given);
        }
    }
    [y, dqkv]
}

/// y = x Wᵀ + b, through SiLU where asked: of some images whole, and some values of the parameters' gradients.
pub(super) fn linear(op: &Linear, case: &Case) -> Vec<Sample> {
    let [n, _, _, depth] = case.ins[0].shape;
    let (x, w, b) = (&case.ins[0].words, &case.params[0].words, &case.params[1].words);
    let (dy, o) = (d_out(case, 0), b.len());
    let z = |image: usize, q: usize| {
        let (x, w) = (&x[image * depth..][..depth], &w[q * depth..][..depth]);
        b[q] as f64 + x.iter().zip(w).map(|(&x, &w)| x as f64 * w as f64).sum::<f64>()
    };
    let dz = |image: usize, q: usize| {
        let slope = if op.silu { silu_slope(z(image, q)) } else { 1.0 };
        dy[image * o + q] as f64 * slope
    };
    let images = some(2, n);
    let of_images: Vec<Vec<f64>> = (images.par_iter())
        .map(|&image| {
            let mut dx = vec![0.0; depth];
            for q in 0..o {
                let (dz, w) = (dz(image, q), &w[q * depth..][..depth]);
                dx.iter_mut().zip(w).for_each(|(dx, &w)| *dx += dz * w as f64);
            }
            dx
        })
        .collect();
    vec![
        Sample::new(Of::Out(0), in_rows(&images, o), |at| {
            let z = z(at / o, at % o);
            if op.silu { silu(z) } else { z }
        }),
        Sample { of: Of::In(0), at: in_rows(&images, depth), want: of_images.concat() },
        Sample::new(Of::Param(0), some(256, o * depth), |at| {
            let (q, j) = (at / depth, at % depth);
            (0..n).map(|image| dz(image, q) * x[image * depth + j] as f64).sum()
        }),
        Sample::new(Of::Param(1), some(64, o), |q| (0..n).map(|image| dz(image, q)).sum()),
    ]
}
