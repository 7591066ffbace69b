//! The theoretical optimum on a GPU (`kernels/optimal.cu`), over images that stay there.

use super::denoise::{Denoise, OnGpu, Operands, Posterior};
use super::optimal::{ByClass, Classes, entropy};
use crate::data::Dataset;
use crate::device::cuda::{Buffer, Cuda};
use crate::device::params::BLOCK_WARPS;
use crate::device::{Kernel, Ptr, params};
use anyhow::Result;
use std::ops::Range;

/// Queries of a batch, at most,
const BATCH: usize = 256;
/// and fewer where the weights of so many exceed this.
const WEIGHT_BYTES: usize = 256 << 20;

/// [`super::Optimal`] of a GPU: float64 there too.
pub struct GpuOptimal {
    cuda: Cuda,
    image_len: usize,
    count: usize,
    batch: usize,
    classes: Classes,
    /// Images of the evaluations to come.
    images: usize,
    /// [N, H, W, C] bytes, sorted by class where there are labels, and the squared norms.
    pixels: Buffer,
    norms: Buffer,
    x: Buffer,
    sigma: Buffer,
    /// First image and end of those that count, for each query.
    ranges: Buffer,
    weights: Buffer,
    totals: Buffer,
    out: Buffer,
}

impl GpuOptimal {
    /// `data` holds at least one image.
    ///
    /// # Errors
    /// Device (exit 4): out of memory.
    pub fn new(data: &Dataset, cuda: &Cuda) -> Result<Self> {
        let (count, image_len) = (data.len(), data.image_len());
        let ByClass { pixels, classes } = ByClass::of(data);
        let batch = (WEIGHT_BYTES / (8 * count)).clamp(1, BATCH);
        let optimal = GpuOptimal {
            cuda: cuda.clone(),
            image_len,
            count,
            batch,
            classes,
            images: 0,
            pixels: cuda.buffer_of(&pixels)?,
            norms: cuda.buffer(2 * count)?,
            x: cuda.buffer(batch * image_len)?,
            sigma: cuda.buffer(2 * batch)?,
            ranges: cuda.buffer(2 * batch)?,
            weights: cuda.buffer(2 * batch * count)?,
            totals: cuda.buffer(2 * batch)?,
            out: cuda.buffer(batch * image_len)?,
        };
        let (norms, pixels) = (&optimal.norms, &optimal.pixels);
        let norms = params!(OptimalNorms { norms, pixels, words: image_len, count });
        cuda.run(&[Kernel::new(params::OPTIMAL_NORMS, count.div_ceil(BLOCK_WARPS), norms)])?;
        Ok(optimal)
    }
}

impl GpuOptimal {
    /// [`Denoise::denoise`]; after each part its first image and their count are told, whose weights lie on the GPU.
    fn denoise_parts(
        &mut self,
        x: &[f32],
        sigma: &[f64],
        labels: &[u32],
        out: &mut [f32],
        after: &mut dyn FnMut(&Self, Range<usize>) -> Result<()>,
    ) -> Result<()> {
        let words = self.batch * self.image_len;
        let parts = x.chunks(words).zip(sigma.chunks(self.batch)).zip(out.chunks_mut(words));
        for (i, ((x, sigma), out)) in parts.enumerate() {
            let first = i * self.batch;
            let of = |n: usize| n.min(labels.len());
            let labels = &labels[of(first)..of(first + self.batch)];
            self.begin(sigma.len(), labels)?;
            self.x.write(0, x)?;
            self.sigma.write(0, bytemuck::cast_slice(sigma))?;
            self.evaluate()?;
            out.copy_from_slice(&self.out.read(0, out.len())?);
            after(self, first..first + sigma.len())?;
        }
        Ok(())
    }
}

impl Posterior for GpuOptimal {
    fn denoise_weighed(
        &mut self,
        x: &[f32],
        sigma: &[f64],
        labels: &[u32],
        out: &mut [f32],
        entropies: &mut [f64],
    ) -> Result<()> {
        self.denoise_parts(x, sigma, labels, out, &mut |this, part| {
            // Float64 in a buffer of words of four bytes.
            let weights = this.weights.read(0, 2 * part.len() * this.count)?;
            let weights: Vec<f64> = bytemuck::pod_collect_to_vec(&weights);
            for (weights, of) in weights.chunks_exact(this.count).zip(&mut entropies[part]) {
                let total: f64 = weights.iter().sum();
                *of = entropy(total, weights.iter().map(|&w| (w, w.ln())));
            }
            Ok(())
        })
    }
}

impl Denoise for GpuOptimal {
    fn image_len(&self) -> usize {
        self.image_len
    }

    fn max_batch(&self) -> usize {
        self.batch
    }

    fn sigma_range(&self) -> (f64, f64) {
        (0.0, f64::INFINITY)
    }

    fn denoise(&mut self, x: &[f32], sigma: &[f64], labels: &[u32], out: &mut [f32]) -> Result<()> {
        self.denoise_parts(x, sigma, labels, out, &mut |_, _| Ok(()))
    }

    fn on_gpu(&mut self) -> Option<&mut dyn OnGpu> {
        Some(self)
    }
}

impl OnGpu for GpuOptimal {
    fn cuda(&self) -> &Cuda {
        &self.cuda
    }

    fn begin(&mut self, images: usize, labels: &[u32]) -> Result<Operands> {
        self.images = images;
        let range = |&label: &u32| {
            let images = self.classes.of(label)?;
            Ok([images.start as u32, images.end as u32])
        };
        let ranges = match labels {
            [] => vec![[0, self.count as u32]; images],
            labels => labels.iter().map(range).collect::<Result<_>>()?,
        };
        self.ranges.write(0, bytemuck::cast_slice(&ranges))?;
        let (x, sigma, out) = (Ptr::from(&self.x), Ptr::from(&self.sigma), Ptr::from(&self.out));
        Ok(Operands { x, sigma, out })
    }

    fn evaluate(&mut self) -> Result<()> {
        let (q, count, words) = (self.images, self.count, self.image_len);
        let GpuOptimal { pixels, norms, x, sigma, ranges, weights, totals, out, .. } = &*self;
        let kernels = [
            Kernel::new(
                params::OPTIMAL_EXPONENTS,
                [q.div_ceil(32), count.div_ceil(32)],
                params!(OptimalExponents {
                    weights,
                    x,
                    pixels,
                    norms,
                    sigma,
                    ranges,
                    q,
                    count,
                    words
                }),
            ),
            Kernel::new(
                params::OPTIMAL_WEIGHTS,
                q,
                params!(OptimalWeights { weights, totals, count }),
            ),
            Kernel::new(
                params::OPTIMAL_IMAGES,
                [words.div_ceil(64), q.div_ceil(16)],
                params!(OptimalImages { out, weights, totals, pixels, q, count, words }),
            ),
        ];
        self.cuda.run(&kernels)
    }
}
