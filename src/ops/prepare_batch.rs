//! prepare_batch: which images a step sees, their pixels in [−1, 1], noise levels and noise, all functions of
//! (seed, step, index in the whole batch). Outside the tape.

use super::precondition::Precond;
use crate::device::params::{BLOCK_THREADS, DRAWN_ELEMENTS};
use crate::device::{Buffer, Cpu, Kernel, Ptr, Slot, params};
use crate::rng::{Stream, fill_normals, normals8, permute, philox, tag, unit};

/// The images resident on the device.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// [N, H, W, C].
    pub pixels: &'a [u8],
    pub image_len: usize,
    /// One class per image, or empty.
    pub labels: &'a [u32],
}

/// Where in training a batch lies.
#[derive(Debug, Clone, Copy)]
pub struct Position {
    pub seed: u64,
    pub step: u64,
    /// Images of the whole batch; it may straddle epochs and repeat images.
    pub batch: usize,
    /// Index in the whole batch of the first image prepared.
    pub first_image: usize,
    /// A new shuffle each epoch, or epoch 0's for ever.
    pub shuffle: bool,
}

/// What is filled: y and noise `[B, H, W, C]`, sigma `[B]`, labels `[B]` (ignored if empty).
pub struct Batch<'a> {
    pub y: &'a mut [f32],
    pub noise: &'a mut [f32],
    pub sigma: &'a mut [f64],
    pub labels: &'a mut [u32],
}

/// The training image that stands at `place` of the batch.
pub fn image_index(images: usize, at: Position, place: usize) -> usize {
    let seen = at.step * at.batch as u64 + place as u64;
    let (epoch, within) = (seen / images as u64, seen % images as u64);
    permute(within, images as u64, at.seed, if at.shuffle { epoch } else { 0 }) as usize
}

/// The noise level at `place` of the batch.
pub fn training_sigma(precond: Precond, at: Position, place: usize) -> f64 {
    let (image, step, stream) = (place as u32, at.step as u32, tag(Stream::Sigma, 0));
    match precond {
        // Six decimal digits would be too coarse near t = 0: 32 bits of the word are used.
        Precond::Vp | Precond::Ve => {
            precond.training_sigma(unit(philox([0, image, step, stream], at.seed)[0]), 0.0)
        }
        Precond::Edm => {
            precond.training_sigma(0.0, normals8(0, image, step, stream, at.seed)[0] as f64)
        }
    }
}

/// Fills a batch (or micro-batch) of as many images as `out.sigma` holds.
pub fn prepare_batch(cpu: &Cpu, precond: Precond, source: Source, at: Position, out: Batch) {
    let (len, images) = (source.image_len, source.pixels.len() / source.image_len);
    for (i, label) in out.labels.iter_mut().enumerate() {
        *label = source.labels[image_index(images, at, at.first_image + i)];
    }
    let pixels = out.y.chunks_mut(len).zip(out.noise.chunks_mut(len));
    let mut batch: Vec<_> = pixels.zip(out.sigma).enumerate().collect();
    cpu.each_mut(&mut batch, |(i, ((y, noise), sigma))| {
        let place = at.first_image + *i;
        let index = image_index(images, at, place);
        to_unit(y, &source.pixels[index * len..][..len]);
        let stream = tag(Stream::Noise, 0);
        fill_normals(noise, place as u32, at.step as u32, stream, at.seed);
        **sigma = training_sigma(precond, at, place);
    });
}

/// u8 pixels in [−1, 1]: p/127.5 − 1.
pub fn to_unit(to: &mut [f32], from: &[u8]) {
    for (t, &p) in to.iter_mut().zip(from) {
        *t = p as f32 / 127.5 - 1.0;
    }
}

/// Where a batch lies on the CUDA device: its slots in the arena, and what stays on the GPU.
#[derive(Clone, Copy)]
pub struct OnGpu<'a> {
    pub y: Slot,
    pub noise: Slot,
    pub sigma: Slot,
    pub labels: Option<Slot>,
    /// The set: bytes of all images, and their labels.
    pub pixels: &'a Buffer,
    pub set_labels: Option<&'a Buffer>,
    /// A word per image of the batch, for the kernels' own use.
    pub index: &'a Buffer,
    pub images: usize,
    pub image_len: usize,
}

/// As [`prepare_batch`], of `count` images on the CUDA device; the step is in the GPU's step words.
pub fn kernels(precond: Precond, on: OnGpu, at: Position, count: usize) -> Vec<Kernel> {
    let OnGpu { index, sigma, labels, pixels, images, .. } = on;
    let Position { batch, first_image, shuffle, .. } = at;
    let rows = params!(PrepareRows {
        index,
        sigma,
        out_labels: labels,
        labels: on.set_labels.filter(|_| labels.is_some()),
        step: Ptr::Step,
        n: count,
        images,
        batch,
        first_image,
        shuffle,
        precond: precond.number(),
    });
    let of_images = params!(PrepareImages {
        y: on.y,
        noise: on.noise,
        index,
        pixels,
        step: Ptr::Step,
        words: on.image_len,
        first_image,
    });
    let blocks = on.image_len.div_ceil(DRAWN_ELEMENTS).div_ceil(BLOCK_THREADS);
    vec![
        Kernel::new(params::PREPARE_ROWS, count.div_ceil(BLOCK_THREADS), rows),
        Kernel::new(params::PREPARE_IMAGES, [blocks, count], of_images),
    ]
}
