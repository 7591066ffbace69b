//! GroupNorm, SiLU, dropout and resampling, group by group.

use super::super::cases::Case;
use super::sample::{Of, Sample, d_out, silu, silu_slope, some};
use crate::device::cpu::resample::Resampling;
use crate::ops::norm::Norm;
use crate::rng::{Stream, philox, tag};
use rayon::prelude::*;

const EPS: f64 = 1e-6;

/// The channels of one group of one image, [pixel][channel of the group].
struct NormGroup {
    y: Vec<f64>,
    xr: Vec<f64>,
    dx: Vec<f64>,
    dgamma: Vec<f64>,
    dbeta: Vec<f64>,
}

/// Up and down as the paper's DDPM++ has them.
struct ResampledImage {
    how: Option<Resampling>,
    h: usize,
    w: usize,
}

impl ResampledImage {
    fn new(op: &Norm, h: usize, w: usize) -> Self {
        let how = op.resample;
        let known = matches!(how, None | Some(Resampling::Down | Resampling::Up));
        assert!(known, "no definition of {how:?}");
        ResampledImage { how, h, w }
    }

    fn out(&self) -> (usize, usize) {
        match self.how {
            Some(Resampling::Down) => (self.h / 2, self.w / 2),
            Some(_) => (2 * self.h, 2 * self.w),
            None => (self.h, self.w),
        }
    }

    /// Pairs of pixels, of before and after, and what the first counts in the second.
    fn pairs(&self) -> Vec<(usize, usize, f64)> {
        let (ho, wo) = self.out();
        match self.how {
            None => (0..self.h * self.w).map(|p| (p, p, 1.0)).collect(),
            Some(Resampling::Down) => {
                let to = |p: usize| p / self.w / 2 * wo + p % self.w / 2;
                (0..self.h * self.w).map(|p| (p, to(p), 0.25)).collect()
            }
            Some(_) => {
                let from = |q: usize| q / wo / 2 * self.w + q % wo / 2;
                (0..ho * wo).map(|q| (from(q), q, 1.0)).collect()
            }
        }
    }

    fn apply(&self, x: &[f64], cg: usize) -> Vec<f64> {
        let (ho, wo) = self.out();
        let mut y = vec![0.0; ho * wo * cg];
        for (p, q, weight) in self.pairs() {
            (0..cg).for_each(|j| y[q * cg + j] += weight * x[p * cg + j]);
        }
        y
    }

    fn back(&self, dy: &[f64], cg: usize) -> Vec<f64> {
        let mut dx = vec![0.0; self.h * self.w * cg];
        for (p, q, weight) in self.pairs() {
            (0..cg).for_each(|j| dx[p * cg + j] += weight * dy[q * cg + j]);
        }
        dx
    }
}

/// Input and channel of it that channel `ch` of all joined is.
fn place(case: &Case, ch: usize) -> (usize, usize) {
    let first = case.ins[0].shape[3];
    if ch < first { (0, ch) } else { (1, ch - first) }
}

/// What dropout leaves of element `at` of image `n`.
fn kept(op: &Norm, case: &Case, n: usize, at: usize) -> f64 {
    let Some((p, layer)) = op.dropout else { return 1.0 };
    let (args, threshold) = (case.args, ((1.0 - p) * 65536.0).round());
    let counter =
        [(at / 8) as u32, args.first_image + n as u32, args.step, tag(Stream::Dropout, layer)];
    let bits = philox(counter, args.seed)[at % 8 / 2] >> (16 * (at % 2)) & 0xffff;
    if (bits as f64) < threshold { 65536.0 / threshold } else { 0.0 }
}

fn group(op: &Norm, case: &Case, n: usize, g: usize) -> NormGroup {
    let [_, h, w, _] = case.ins[0].shape;
    let c = case.params[0].words.len();
    let (cg, hw, r) = (c / op.groups, h * w, ResampledImage::new(op, h, w));
    let channels = g * cg..(g + 1) * cg;
    let of = |tensor: &[f32], pixels: usize, channels: usize, p: usize, ch: usize| {
        tensor[(n * pixels + p) * channels + ch] as f64
    };
    let at = |p: usize, j: usize| {
        let (i, ch) = place(case, g * cg + j);
        of(&case.ins[i].words, hw, case.ins[i].shape[3], p, ch)
    };
    let each = |f: &dyn Fn(usize, usize) -> f64| -> Vec<f64> {
        (0..hw * cg).map(|e| f(e / cg, e % cg)).collect()
    };
    let x = each(&at);
    let mean = x.iter().sum::<f64>() / x.len() as f64;
    let variance = x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / x.len() as f64;
    let scale = 1.0 / (variance + EPS).sqrt();
    let (gamma, beta) = (&case.params[0].words[channels.clone()], &case.params[1].words[channels]);
    let normed = |p: usize, j: usize| (x[p * cg + j] - mean) * scale;
    let z = each(&|p, j| gamma[j] as f64 * normed(p, j) + beta[j] as f64);
    let mask = each(&|p, j| kept(op, case, n, p * c + g * cg + j));
    let active = each(&|p, j| {
        let z = z[p * cg + j];
        mask[p * cg + j] * if op.silu { silu(z) } else { z }
    });

    let (ho, wo) = r.out();
    let given = |i: usize| -> Vec<f64> {
        let words = d_out(case, i);
        (0..ho * wo * cg).map(|e| of(words, ho * wo, c, e / cg, g * cg + e % cg)).collect()
    };
    let back = r.back(&given(0), cg);
    let dz = each(&|p, j| {
        let e = p * cg + j;
        back[e] * mask[e] * if op.silu { silu_slope(z[e]) } else { 1.0 }
    });
    let sums = |f: &dyn Fn(usize, usize) -> f64| -> Vec<f64> {
        (0..cg).map(|j| (0..hw).map(|p| dz[p * cg + j] * f(p, j)).sum()).collect()
    };
    let (dgamma, dbeta) = (sums(&normed), sums(&|_, _| 1.0));
    let dot = |s: &[f64]| s.iter().zip(gamma).map(|(s, &v)| s * v as f64).sum::<f64>();
    let (of_one, of_normed) = (dot(&dbeta) / (hw * cg) as f64, dot(&dgamma) / (hw * cg) as f64);
    let mut dx = each(&|p, j| {
        scale * (gamma[j] as f64 * dz[p * cg + j] - of_one - normed(p, j) * of_normed)
    });
    if op.resample.is_some() {
        dx.iter_mut().zip(r.back(&given(2), cg)).for_each(|(dx, more)| *dx += more);
    }
    NormGroup { y: r.apply(&active, cg), xr: r.apply(&x, cg), dx, dgamma, dbeta }
}

/// Outputs and input gradients of some groups of the first and the last image, parameters' of the first and last groups.
pub(super) fn samples(op: &Norm, case: &Case) -> Vec<Sample> {
    let [n, h, w, _] = case.ins[0].shape;
    let c = case.params[0].words.len();
    let (cg, (ho, wo)) = (c / op.groups, ResampledImage::new(op, h, w).out());
    let empty = |of: Of| Sample { of, at: vec![], want: vec![] };
    let (mut y, mut xr) = (empty(Of::Out(0)), empty(Of::Out(2)));
    let mut dx: Vec<Sample> = (0..case.ins.len()).map(|i| empty(Of::In(i))).collect();
    let (mut dgamma, mut dbeta) = (empty(Of::Param(0)), empty(Of::Param(1)));

    let wanted: Vec<(usize, usize)> = some(0, n)
        .into_iter()
        .flat_map(|n| some(3, op.groups).into_iter().map(move |g| (n, g)))
        .collect();
    let groups: Vec<NormGroup> = wanted.par_iter().map(|&(n, g)| group(op, case, n, g)).collect();
    for (&(n, g), group) in wanted.iter().zip(&groups) {
        for e in 0..ho * wo * cg {
            let at = (n * ho * wo + e / cg) * c + g * cg + e % cg;
            y.at.push(at);
            xr.at.push(at);
        }
        y.want.extend(&group.y);
        xr.want.extend(&group.xr);
        for (e, &value) in group.dx.iter().enumerate() {
            let (i, ch) = place(case, g * cg + e % cg);
            dx[i].at.push((n * h * w + e / cg) * case.ins[i].shape[3] + ch);
            dx[i].want.push(value);
        }
    }
    for g in some(0, op.groups) {
        let of_images: Vec<NormGroup> =
            (0..n).into_par_iter().map(|n| group(op, case, n, g)).collect();
        for j in 0..cg {
            for (sample, of) in [
                (&mut dgamma, (|group, j| group.dgamma[j]) as fn(&NormGroup, usize) -> f64),
                (&mut dbeta, |group, j| group.dbeta[j]),
            ] {
                sample.at.push(g * cg + j);
                sample.want.push(of_images.iter().map(|group| of(group, j)).sum());
            }
        }
    }
    let mut all = vec![y, dgamma, dbeta];
    all.extend(op.resample.map(|_| xr));
    all.extend(dx.into_iter().filter(|sample| !sample.at.is_empty()));
    all
}
