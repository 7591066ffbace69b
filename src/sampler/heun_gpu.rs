//! The sampler's arithmetic on a GPU (`kernels/heun.cu`): images stay there from noise to pixels.

use super::denoise::{Images, OnGpu, Operands};
use super::state::{Start, State};
use crate::device::cuda::{Buffer, Cuda};
use crate::device::params::{BLOCK_THREADS, DRAWN_ELEMENTS};
use crate::device::{Entry, Fields, Kernel, params};
use anyhow::Result;
use std::ops::Range;

pub(super) struct GpuState<'d> {
    cuda: Cuda,
    denoiser: &'d mut dyn OnGpu,
    operands: Operands,
    image_len: usize,
    /// Images of the batch under way.
    images: usize,
    seeds: Buffer,
    /// The state, where the step began, and its slope there: float64.
    x: Buffer,
    x_hat: Buffer,
    slope: Buffer,
    /// The finished images, as float32 and as bytes, and the first of them that is not finite.
    values: Buffer,
    pixels: Buffer,
    bad_image: Buffer,
}

/// Bytes that sampling on a GPU takes for each value of a batch, beside the denoiser's.
pub const GPU_BYTES: usize = 3 * 8 + 4 + 1;

/// `bad_image` while all are finite.
const NONE: u32 = u32::MAX;

impl<'d> GpuState<'d> {
    /// `batch`: the most images at a time.
    pub fn new(denoiser: &'d mut dyn OnGpu, batch: usize, image_len: usize) -> Result<Self> {
        let cuda = denoiser.cuda().clone();
        let words = batch * image_len;
        Ok(GpuState {
            operands: Operands::default(),
            image_len,
            images: 0,
            seeds: cuda.buffer(2 * batch)?,
            x: cuda.buffer(2 * words)?,
            x_hat: cuda.buffer(2 * words)?,
            slope: cuda.buffer(2 * words)?,
            values: cuda.buffer(words)?,
            pixels: cuda.buffer(words.div_ceil(4))?,
            bad_image: cuda.buffer(1)?,
            cuda,
            denoiser,
        })
    }

    fn count(&self) -> usize {
        self.images * self.image_len
    }

    /// One thread an element.
    fn each<P: Fields>(&self, entry: Entry<P>, arguments: P) -> Result<()> {
        self.cuda.run(&[Kernel::new(entry, self.count().div_ceil(BLOCK_THREADS), arguments)])
    }

    /// One thread eight elements of an image.
    fn drawn<P: Fields>(&self, entry: Entry<P>, arguments: P) -> Result<()> {
        let grid = [self.image_len.div_ceil(DRAWN_ELEMENTS).div_ceil(BLOCK_THREADS), self.images];
        self.cuda.run(&[Kernel::new(entry, grid, arguments)])
    }

    /// D(x; sigma) where the operands say.
    fn evaluate(&mut self, sigma: f64) -> Result<()> {
        let Operands { x: input, sigma: sigmas, .. } = self.operands;
        let (count, n, t) = (self.count(), self.images, sigma);
        let input = params!(HeunInput { input, sigma: sigmas, x: &self.x, count, t, n });
        self.each(params::HEUN_INPUT, input)?;
        self.denoiser.evaluate()
    }
}

impl State for GpuState<'_> {
    fn begin(&mut self, start: Start, images: Range<usize>, labels: &[u32], t: f64) -> Result<()> {
        self.images = images.len();
        self.operands = self.denoiser.begin(self.images, labels)?;
        self.bad_image.write(0, &[f32::from_bits(NONE)])?;
        let seeds: Vec<u64> = images.clone().map(|k| start.seed(k)).collect();
        self.seeds.write(0, bytemuck::cast_slice(&seeds))?;
        match start {
            Start::Seeds(_) => {
                let (x, seeds, words) = (&self.x, &self.seeds, self.image_len);
                self.drawn(params::HEUN_START, params!(HeunStart { x, seeds, t, words }))
            }
            Start::Latents(latents) => {
                let range = images.start * self.image_len..images.end * self.image_len;
                let x: Vec<f64> = latents[range].iter().map(|&z| z as f64 * t).collect();
                self.x.write(0, bytemuck::cast_slice(&x))
            }
        }
    }

    fn add_noise(&mut self, scale: f64, step: u32) -> Result<()> {
        let (x, seeds, words) = (&self.x, &self.seeds, self.image_len);
        self.drawn(params::HEUN_NOISE, params!(HeunNoise { x, seeds, scale, words, step }))
    }

    fn euler(&mut self, t: f64, t_next: f64) -> Result<()> {
        self.evaluate(t)?;
        let (d, count) = (self.operands.out, self.count());
        let GpuState { x, x_hat, slope, .. } = self;
        let euler =
            params!(HeunEuler { x: &*x, x_hat: &*x_hat, slope: &*slope, d, count, t, t_next });
        self.each(params::HEUN_EULER, euler)
    }

    fn correct(&mut self, t: f64, t_next: f64) -> Result<()> {
        self.evaluate(t_next)?;
        let (d, count) = (self.operands.out, self.count());
        let GpuState { x, x_hat, slope, .. } = self;
        let correct =
            params!(HeunCorrect { x: &*x, x_hat: &*x_hat, slope: &*slope, d, count, t, t_next });
        self.each(params::HEUN_CORRECT, correct)
    }

    fn finish(&mut self) -> Result<Option<usize>> {
        let finish = params!(HeunFinish {
            images: &self.values,
            pixels: &self.pixels,
            bad_image: &self.bad_image,
            x: &self.x,
            count: self.count(),
            words: self.image_len,
        });
        self.each(params::HEUN_FINISH, finish)?;
        let bad = self.bad_image.read(0, 1)?[0].to_bits();
        Ok((bad != NONE).then_some(bad as usize))
    }

    fn images(&self) -> Images<'_> {
        Images::Gpu { values: &self.values, pixels: &self.pixels, len: self.count() }
    }
}
