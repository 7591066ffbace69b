//! The sampler's arithmetic on a card (`kernels/heun.cu`): images stay there from noise to pixels.

use super::state::{Start, State};
use super::{Images, OnCard, Operands};
use crate::device::cuda::{Buffer, Cuda};
use crate::device::{Arg, Kernel, args};
use anyhow::Result;
use std::ops::Range;

pub(super) struct CardState<'d> {
    cuda: Cuda,
    denoiser: &'d mut dyn OnCard,
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

/// Bytes that sampling on a card takes for each value of a batch, beside the denoiser's.
pub const CARD_BYTES: usize = 3 * 8 + 4 + 1;

/// `bad_image` while all are finite.
const NONE: u32 = u32::MAX;

impl<'d> CardState<'d> {
    /// `batch`: the most images at a time.
    pub fn new(denoiser: &'d mut dyn OnCard, batch: usize, image_len: usize) -> Result<Self> {
        let cuda = denoiser.cuda().clone();
        let words = batch * image_len;
        Ok(CardState {
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
    fn each(&self, name: &'static str, args: Vec<Arg>) -> Result<()> {
        self.cuda.run(&[Kernel::new(name, self.count().div_ceil(256), args)])
    }

    /// One thread eight elements of an image.
    fn drawn(&self, name: &'static str, args: Vec<Arg>) -> Result<()> {
        let grid = [self.image_len.div_ceil(8).div_ceil(256), self.images];
        self.cuda.run(&[Kernel::new(name, grid, args)])
    }

    fn n(&self) -> Arg {
        Arg::I64(self.count() as i64)
    }

    /// D(x; sigma) where the operands say.
    fn evaluate(&mut self, sigma: f64) -> Result<()> {
        let Operands { x, sigma: sigmas, .. } = self.operands;
        let sigma = Arg::F64(sigma);
        let input = args![x, sigmas, &self.x, self.n(), self.images, sigma];
        self.each("heun_input", input)?;
        self.denoiser.evaluate()
    }
}

impl State for CardState<'_> {
    fn begin(&mut self, start: Start, images: Range<usize>, labels: &[u32], t: f64) -> Result<()> {
        self.images = images.len();
        self.operands = self.denoiser.begin(self.images, labels)?;
        self.bad_image.write(0, &[f32::from_bits(NONE)])?;
        let seeds: Vec<u64> = images.clone().map(|k| start.seed(k)).collect();
        self.seeds.write(0, bytemuck::cast_slice(&seeds))?;
        match start {
            Start::Seeds(_) => {
                let start = args![&self.x, &self.seeds, self.image_len, Arg::F64(t)];
                self.drawn("heun_start", start)
            }
            Start::Latents(latents) => {
                let range = images.start * self.image_len..images.end * self.image_len;
                let x: Vec<f64> = latents[range].iter().map(|&z| z as f64 * t).collect();
                self.x.write(0, bytemuck::cast_slice(&x))
            }
        }
    }

    fn add_noise(&mut self, scale: f64, step: u32) -> Result<()> {
        let scale = Arg::F64(scale);
        let noise = args![&self.x, &self.seeds, self.image_len, scale, step as usize];
        self.drawn("heun_noise", noise)
    }

    fn euler(&mut self, t: f64, t_next: f64) -> Result<()> {
        self.evaluate(t)?;
        let (t, t_next, d) = (Arg::F64(t), Arg::F64(t_next), self.operands.out);
        let euler = args![&self.x, &self.x_hat, &self.slope, d, self.n(), t, t_next];
        self.each("heun_euler", euler)
    }

    fn correct(&mut self, t: f64, t_next: f64) -> Result<()> {
        self.evaluate(t_next)?;
        let (t, t_next, d) = (Arg::F64(t), Arg::F64(t_next), self.operands.out);
        let correct = args![&self.x, &self.x_hat, &self.slope, d, self.n(), t, t_next];
        self.each("heun_correct", correct)
    }

    fn finish(&mut self) -> Result<Option<usize>> {
        let finish =
            args![&self.values, &self.pixels, &self.bad_image, &self.x, self.image_len, self.n()];
        self.each("heun_finish", finish)?;
        let bad = self.bad_image.read(0, 1)?[0].to_bits();
        Ok((bad != NONE).then_some(bad as usize))
    }

    fn images(&self) -> Images<'_> {
        Images::Card { values: &self.values, pixels: &self.pixels, len: self.count() }
    }
}
