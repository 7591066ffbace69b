//! The sampler on a GPU against the CPU's, to the bit, and the closed-form optimum against its definition in float64.

use super::searching::bytes;
use super::wanted::Wanted;
use super::{CaseSize, Check, Off};
use crate::check::golden::rel_err;
use crate::data::Dataset;
use crate::device::cuda::{Buffer, Cuda};
use crate::device::params::BLOCK_ELEMENTS;
use crate::device::{Device, Kernel, Precision, params};
use crate::rng::fill_normals;
use crate::sampler::{
    Denoise, HeunOptions, OnGpu, Operands, Start, optimum as optimum_of, sample_each,
};
use anyhow::Result;
use rayon::prelude::*;

/// What the optimum is asked for: images of a set, their side and channels, and queries.
#[derive(Debug, Clone, Copy)]
pub struct SetSizes {
    pub images: usize,
    pub side: usize,
    pub channels: usize,
    pub queries: usize,
    pub labels: bool,
}

pub fn optimum_checks(wanted: &Wanted) -> Vec<Check> {
    if !wanted.precision(Precision::Fp32) {
        return vec![];
    }
    let mut sizes = Vec::new();
    for labels in [false, true] {
        if wanted.size(CaseSize::Golden) {
            for [images, side, channels, queries] in [[37, 4, 3, 5], [70, 8, 1, 34], [4, 2, 1, 1]] {
                let set = SetSizes { images, side, channels, queries, labels };
                sizes.push((CaseSize::Golden, set));
            }
        }
        if wanted.size(CaseSize::Real) {
            let (n, channels) = (wanted.network, 3);
            let (images, side, queries) = (30 * n.images, n.side, n.images);
            sizes.push((CaseSize::Real, SetSizes { images, side, channels, queries, labels }));
        }
    }
    (sizes.into_iter())
        .map(|(size, set)| {
            let SetSizes { images, side, channels, labels, .. } = set;
            let of = if labels { "labelled images" } else { "images" };
            Check {
                op: "optimum",
                size,
                precision: Precision::Fp32,
                case: format!("{images} {of} {side}×{side}×{channels}"),
                bar: 1e-6,
                run: Box::new(move |device| optimum(device, set, 2)),
            }
        })
        .collect()
}

/// A set of random images; labels 0..4 are random too.
pub fn set_of(seed: u64, sizes: SetSizes) -> Dataset {
    let SetSizes { images, side, channels, labels, .. } = sizes;
    let pixels = bytes(seed, 2, images * side * side * channels);
    let labels = labels.then(|| (0..images as u32).map(|i| (i * 7 + i / 5) % 4).collect());
    Dataset { resolution: side, channels, pixels, labels, names: Vec::new() }
}

/// Relative error of D* of the worst query, and how far its weights' entropy is off.
///
/// # Errors
/// What the driver says (exit 4).
pub fn optimum(device: &Device, sizes: SetSizes, seed: u64) -> Result<Off> {
    let (set, queries) = (set_of(seed, sizes), sizes.queries);
    let len = set.image_len();
    let levels = [0.002, 0.05, 0.7, 4.0, 80.0];
    let sigma: Vec<f64> = (0..queries).map(|q| levels[q % 5]).collect();
    let mut x = vec![0.0; queries * len];
    fill_normals(&mut x, 0, 0, 0, seed);
    for (q, x) in x.chunks_mut(len).enumerate() {
        // Near an image, as on the sampler's way.
        for (x, &u) in x.iter_mut().zip(set.image(q % set.len())) {
            *x = u as f32 / 127.5 - 1.0 + *x * sigma[q] as f32;
        }
    }
    let labels = 0..if sizes.labels { queries as u32 } else { 0 };
    let labels: Vec<u32> = labels.map(|q| q % 4).collect();
    let mut out = vec![f32::NAN; x.len()];
    let mut entropies = vec![f64::NAN; queries];
    let mut optimum = optimum_of(&set, device)?;
    optimum.denoise_weighed(&x, &sigma, &labels, &mut out, &mut entropies)?;
    let errors = device.host().run(|| {
        let queries = x.par_chunks(len).zip(out.par_chunks(len)).enumerate();
        let error = |(q, (x, got)): (usize, (&[f32], &[f32]))| {
            let (want, entropy) = definition(&set, x, sigma[q], labels.get(q).copied());
            Ok([rel_err(got, &want)?, (entropies[q] - entropy).abs()])
        };
        queries.map(error).collect::<Result<Vec<[f64; 2]>>>()
    })?;
    let mut off = Off::default();
    for (q, [image, entropy]) in errors.into_iter().enumerate() {
        off.take(image, &format!("D* at noise level {}", sigma[q]));
        off.take(entropy, &format!("the weights' entropy at noise level {}", sigma[q]));
    }
    Ok(off)
}

/// D*(x; σ) by the definition, over the images of a label or all, and the entropy of its weights in nats.
fn definition(set: &Dataset, x: &[f32], sigma: f64, label: Option<u32>) -> (Vec<f32>, f64) {
    let counts = |&i: &usize| match (&set.labels, label) {
        (Some(labels), Some(label)) => labels[i] == label,
        _ => true,
    };
    let of = |i: usize| set.image(i).iter().map(|&u| u as f64 / 127.5 - 1.0);
    let images: Vec<usize> = (0..set.len()).filter(counts).collect();
    let exponent = |&i: &usize| {
        let squared: f64 = x.iter().zip(of(i)).map(|(&x, y)| (x as f64 - y).powi(2)).sum();
        -squared / (2.0 * sigma * sigma)
    };
    let exponents: Vec<f64> = images.iter().map(exponent).collect();
    let highest = exponents.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let total: f64 = exponents.iter().map(|e| (e - highest).exp()).sum();
    let (mut sums, mut entropy) = (vec![0.0; x.len()], 0.0);
    for (&i, e) in images.iter().zip(exponents) {
        let weight = (e - highest).exp();
        if weight > 0.0 {
            entropy -= weight / total * (weight / total).ln();
        }
        sums.iter_mut().zip(of(i)).for_each(|(sum, y)| *sum += weight * y);
    }
    (sums.into_iter().map(|sum| (sum / total) as f32).collect(), entropy)
}

/// Images of `len` values, sampled `batch` at a time.
#[derive(Debug, Clone)]
pub struct Sampling {
    pub len: usize,
    pub batch: usize,
    pub images: usize,
    pub options: HeunOptions,
}

pub fn heun_checks(wanted: &Wanted) -> Vec<Check> {
    // The CPU's bits are the reference.
    if !wanted.on_gpu || !wanted.precision(Precision::Fp32) {
        return vec![];
    }
    let mut all = Vec::new();
    if wanted.size(CaseSize::Golden) {
        all.extend(small().map(|(what, s)| (CaseSize::Golden, what.to_string(), s)));
    }
    if wanted.size(CaseSize::Real) {
        let n = wanted.network;
        let (len, batch) = (3 * n.side * n.side, n.images);
        let options = HeunOptions { s_churn: 40.0, ..HeunOptions::default() };
        let sampling = Sampling { len, batch, images: batch + 1, options };
        all.push((CaseSize::Real, format!("images of {len} values"), sampling));
    }
    (all.into_iter())
        .map(|(size, case, sampling)| Check {
            op: "heun",
            size,
            precision: Precision::Fp32,
            case,
            bar: 0.0,
            run: Box::new(move |device| heun(device, &sampling, 3)),
        })
        .collect()
}

/// With and without noise on the way; 2,060 values an image are more than a block draws.
pub fn small() -> [(&'static str, Sampling); 3] {
    let churning = HeunOptions { steps: 4, s_churn: 2.0, s_noise: 1.01, ..HeunOptions::default() };
    let one = HeunOptions { steps: 1, ..churning.clone() };
    let sampling = |len, batch, options| Sampling { len, batch, images: 5, options };
    [
        ("deterministic", sampling(75, 2, HeunOptions::default())),
        ("with noise", sampling(12, 5, churning)),
        ("images of 2060 values", sampling(2060, 3, one)),
    ]
}

/// How many bits patterns of images and pixels differ from the CPU's; from seeds and from latents.
///
/// # Errors
/// What the driver says (exit 4).
pub fn heun(device: &Device, sampling: &Sampling, seed: u64) -> Result<Off> {
    let Sampling { len, batch, images, options } = sampling;
    let seeds: Vec<u64> = (0..*images as u64).map(|k| seed ^ k).collect();
    let mut latents = vec![0.0; images * len];
    fill_normals(&mut latents, 0, 0, 0, seed);
    let host = Device::Cpu(device.host().clone());
    let mut off = Off::default();
    for (start, what) in [(Start::Seeds(&seeds), "seeds"), (Start::Latents(&latents), "latents")] {
        let sample = |device: &Device| -> Result<Vec<f32>> {
            let mut values = Vec::new();
            let mut denoiser = Scaled::new(0.75, *batch, *len, device)?;
            sample_each(&mut denoiser, start, &[], options, &mut |_, images| {
                values.extend_from_slice(&images.values()?);
                values.extend(images.pixels().to_host()?.iter().map(|&u| u as f32));
                Ok(true)
            })?;
            Ok(values)
        };
        off.take_bits(&sample(device)?, &sample(&host)?, &format!("images from {what}"));
    }
    Ok(off)
}

/// D(x; sigma) = factor · x, the same on every device to the bit.
pub struct Scaled {
    factor: f32,
    batch: usize,
    len: usize,
    images: usize,
    gpu: Option<(Cuda, [Buffer; 3])>,
}

impl Scaled {
    /// Of images of `len` values, at most `batch` at a time.
    ///
    /// # Errors
    /// What the driver says (exit 4).
    pub fn new(factor: f32, batch: usize, len: usize, device: &Device) -> Result<Self> {
        let gpu = match device {
            Device::Cpu(_) => None,
            Device::Cuda { cuda, .. } => {
                let buffer = |words| cuda.buffer(words);
                let operands = [buffer(batch * len)?, buffer(2 * batch)?, buffer(batch * len)?];
                Some((cuda.clone(), operands))
            }
        };
        Ok(Scaled { factor, batch, len, images: 0, gpu })
    }

    fn gpu(&self) -> &(Cuda, [Buffer; 3]) {
        self.gpu.as_ref().expect("asked for on a GPU only")
    }
}

impl Denoise for Scaled {
    fn image_len(&self) -> usize {
        self.len
    }
    fn max_batch(&self) -> usize {
        self.batch
    }
    fn sigma_range(&self) -> (f64, f64) {
        (0.0, f64::INFINITY)
    }
    fn denoise(&mut self, x: &[f32], _: &[f64], _: &[u32], out: &mut [f32]) -> Result<()> {
        out.iter_mut().zip(x).for_each(|(out, &x)| *out = self.factor * x);
        Ok(())
    }
    fn on_gpu(&mut self) -> Option<&mut dyn OnGpu> {
        if self.gpu.is_some() { Some(self) } else { None }
    }
}

impl OnGpu for Scaled {
    fn cuda(&self) -> &Cuda {
        &self.gpu().0
    }
    fn begin(&mut self, images: usize, _: &[u32]) -> Result<Operands> {
        self.images = images;
        let [x, sigma, out] = &self.gpu().1;
        Ok(Operands { x: x.into(), sigma: sigma.into(), out: out.into() })
    }
    fn evaluate(&mut self) -> Result<()> {
        let (cuda, [x, _, out]) = self.gpu();
        let n = self.images * self.len;
        let scaled = params!(ScaledAdd { dst: out, src: x, n, scale: self.factor, add: false });
        cuda.run(&[Kernel::new(params::SCALED_ADD, n.div_ceil(BLOCK_ELEMENTS), scaled)])
    }
}
