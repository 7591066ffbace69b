//! The sampler's arithmetic on the CPU.

use super::denoise::{Denoise, Images};
use super::state::{Start, State};
use crate::rng::{Stream, fill_normals, tag};
use anyhow::Result;
use std::ops::Range;

pub(super) struct CpuState<'d> {
    denoiser: &'d mut dyn Denoise,
    seeds: Vec<u64>,
    labels: Vec<u32>,
    /// The state, [B, H, W, C].
    x: Vec<f64>,
    /// Where the step began, and its slope there.
    x_hat: Vec<f64>,
    slope: Vec<f64>,
    /// Unit latents at first, then each evaluation's input, at last the images.
    input: Vec<f32>,
    denoised: Vec<f32>,
}

impl<'d> CpuState<'d> {
    pub fn new(denoiser: &'d mut dyn Denoise) -> Self {
        CpuState {
            denoiser,
            seeds: Vec::new(),
            labels: Vec::new(),
            x: Vec::new(),
            x_hat: Vec::new(),
            slope: Vec::new(),
            input: Vec::new(),
            denoised: Vec::new(),
        }
    }

    /// `denoised` = D(x; sigma).
    fn evaluate(&mut self, sigma: f64) -> Result<()> {
        self.round();
        let sigmas = vec![sigma; self.seeds.len()];
        self.denoiser.denoise(&self.input, &sigmas, &self.labels, &mut self.denoised)
    }

    fn round(&mut self) {
        for (input, &x) in self.input.iter_mut().zip(&self.x) {
            *input = x as f32;
        }
    }
}

impl State for CpuState<'_> {
    fn begin(&mut self, start: Start, images: Range<usize>, labels: &[u32], t: f64) -> Result<()> {
        let len = self.denoiser.image_len();
        let words = images.len() * len;
        self.seeds = images.clone().map(|k| start.seed(k)).collect();
        self.labels = labels.to_vec();
        self.input.resize(words, 0.0);
        for (k, latent) in images.zip(self.input.chunks_exact_mut(len)) {
            start.latent(k, latent);
        }
        self.x = self.input.iter().map(|&latent| latent as f64 * t).collect();
        self.x_hat.resize(words, 0.0);
        self.slope.resize(words, 0.0);
        self.denoised.resize(words, 0.0);
        Ok(())
    }

    fn add_noise(&mut self, scale: f64, step: u32) -> Result<()> {
        let len = self.denoiser.image_len();
        let mut noise = vec![0.0; len];
        for (x, &seed) in self.x.chunks_exact_mut(len).zip(&self.seeds) {
            fill_normals(&mut noise, 0, step, tag(Stream::Churn, 0), seed);
            for (x, &z) in x.iter_mut().zip(&noise) {
                *x += scale * z as f64;
            }
        }
        Ok(())
    }

    fn euler(&mut self, t: f64, t_next: f64) -> Result<()> {
        self.x_hat.copy_from_slice(&self.x);
        self.evaluate(t)?;
        for (((x, &x_hat), &d), s) in
            self.x.iter_mut().zip(&self.x_hat).zip(&self.denoised).zip(&mut self.slope)
        {
            *s = (x_hat - d as f64) / t;
            *x = x_hat + (t_next - t) * *s;
        }
        Ok(())
    }

    fn correct(&mut self, t: f64, t_next: f64) -> Result<()> {
        self.evaluate(t_next)?;
        for (((x, &x_hat), &d), &s) in
            self.x.iter_mut().zip(&self.x_hat).zip(&self.denoised).zip(&self.slope)
        {
            let s_next = (*x - d as f64) / t_next;
            *x = x_hat + (t_next - t) * (0.5 * s + 0.5 * s_next);
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<Option<usize>> {
        self.round();
        let bad = self.input.iter().position(|v| !v.is_finite());
        Ok(bad.map(|i| i / self.denoiser.image_len()))
    }

    fn images(&self) -> Images<'_> {
        Images::Host(&self.input)
    }
}
