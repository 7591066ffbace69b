//! Inference: D(x; sigma) for a batch of images.

use super::unet::{self, Inputs};
use super::{Embedding, ModelConfig, Params};
use crate::device::cuda::{Cuda, Repeated};
use crate::device::{Buffer, Device, Precision, Slot, StepArgs};
use crate::error::usage;
use crate::ops::precondition::{Denoised, ScaleInput};
use crate::tape::{MemoryPlan, Mode, Tape};
use anyhow::{Result, ensure};
use std::borrow::Cow;

/// A network ready to denoise. Weights are a flat buffer in master order; each image's result depends on
/// that image alone, whatever the batch.
///
/// ```
/// use emm::device::{Cpu, Device, Precision};
/// use emm::model::{Arch, Denoiser, ModelConfig, Params};
///
/// # fn main() -> anyhow::Result<()> {
/// let config = ModelConfig { model_channels: 16, ..ModelConfig::basic(Arch::DdpmPP, 8, 1) };
/// let weights = Params::new(&config).init(1024);
/// let device = Device::Cpu(Cpu::new(1)?);
/// let mut network = Denoiser::new(&device, &config, Precision::Fp32, weights, Vec::new(), 2)?;
/// let noisy = [0.5; 2 * 64]; // two images [8, 8, 1]
/// let denoised = network.denoise(&noisy, &[1.0, 80.0], &[])?;
/// assert_eq!(denoised.len(), noisy.len());
/// # Ok(())
/// # }
/// ```
pub struct Denoiser {
    device: Device,
    config: ModelConfig,
    weights: Buffer,
    batch: usize,
    plan: MemoryPlan,
    memory: Buffer,
    /// A run on a GPU.
    evaluation: Repeated,
    places: Places,
}

/// Where a plan takes its operands and leaves its result.
struct Places {
    x: Slot,
    sigma: Slot,
    labels: Option<Slot>,
    freqs: Option<Slot>,
    out: Slot,
}

/// Records and plans the network for batches of `batch` images.
fn record(
    device: &Device,
    config: &ModelConfig,
    precision: Precision,
    batch: usize,
) -> Result<(MemoryPlan, Places)> {
    let mut tape = Tape::new();
    let image = [batch, config.resolution, config.resolution, config.image_channels];
    let x = tape.input(image);
    let sigma = tape.input([batch, 1, 1, 2]);
    let labels = (config.label_dim > 0).then(|| tape.input([batch, 1, 1, 1]));
    let fourier = config.embedding == Embedding::Fourier;
    let freqs = fourier.then(|| tape.input([1, 1, 1, config.noise_channels() / 2]));
    let scaled = tape.push1(ScaleInput(config.precond), &[x, sigma], &[])?;
    let inputs = Inputs { x: scaled, sigma, labels, freqs };
    let f = unet::record(&mut tape, config, &Params::new(config), inputs, false)?;
    let out = tape.push1(Denoised(config.precond), &[x, f, sigma], &[])?;
    let plan = MemoryPlan::new(&tape, device, precision, Mode::Inference, &[out]);
    let [labels, freqs] = [labels, freqs].map(|v| v.map(|v| plan.slot(v)));
    let places =
        Places { x: plan.slot(x), sigma: plan.slot(sigma), labels, freqs, out: plan.slot(out) };
    Ok((plan, places))
}

impl Denoiser {
    /// Records and plans the network for batches of `batch` images.
    ///
    /// - `weights`: flat, master order, `Params::new(config).flat_len` values.
    /// - `freqs`: Fourier frequencies (empty for a positional embedding).
    ///
    /// # Errors
    /// Device errors: out of memory names bytes asked and free.
    pub fn new(
        device: &Device,
        config: &ModelConfig,
        precision: Precision,
        weights: Vec<f32>,
        freqs: Vec<f32>,
        batch: usize,
    ) -> Result<Self> {
        let flat_len = Params::new(config).flat_len;
        ensure!(weights.len() == flat_len, "{} weights given", weights.len());
        let (plan, places) = record(device, config, precision, batch)?;
        let wanted = places.freqs.map_or(0, |s| s.len);
        ensure!(freqs.len() == wanted, "{} frequencies given", freqs.len());
        let on_device = Buffer::of(device, &weights)?;
        // Before the arena is reserved: both at once would be the peak.
        drop(weights);
        let mut memory = Buffer::new(device, plan.memory_words(device))?;
        if let Some(slot) = places.freqs {
            memory.put(slot, &freqs)?;
        }
        plan.pack(device, &mut memory, &on_device)?;
        Ok(Denoiser {
            device: device.clone(),
            config: config.clone(),
            weights: on_device,
            batch,
            places,
            plan,
            memory,
            evaluation: Repeated::default(),
        })
    }
    /// Takes other weights and frequencies of the same network.
    ///
    /// # Errors
    /// Device (exit 4): what the driver says.
    pub fn set_weights(&mut self, weights: &[f32], freqs: &[f32]) -> Result<()> {
        self.weights.write(0, weights)?;
        if let Some(slot) = self.places.freqs {
            self.memory.put(slot, freqs)?;
        }
        self.plan.pack(&self.device, &mut self.memory, &self.weights)
    }

    /// Bytes of weights, arena and scratch that a denoiser of `config` reserves; nothing is reserved.
    pub fn plan_bytes(
        device: &Device,
        config: &ModelConfig,
        precision: Precision,
        batch: usize,
    ) -> Result<usize> {
        let (plan, _) = record(device, config, precision, batch)?;
        Ok(4 * (plan.memory_words(device) + Params::new(config).flat_len))
    }

    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The largest number of images one call takes.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// D(x; sigma) of up to `batch` images.
    ///
    /// - `x`: `[B, H, W, C]` f32. `sigma`: `[B]`. `labels`: `[B]`, empty for an unconditional network.
    /// - Returns [B, H, W, C].
    ///
    /// # Errors
    /// Usage errors for labels that are missing, superfluous or not below label_dim.
    pub fn denoise(&mut self, x: &[f32], sigma: &[f64], labels: &[u32]) -> Result<Cow<'_, [f32]>> {
        let (len, b) = (self.config.image_len(), sigma.len());
        ensure!(
            b > 0 && b <= self.batch && x.len() == b * len,
            "{b} noise levels and {} values for images of {len}",
            x.len()
        );
        self.fill(x, sigma, labels)?;
        self.run()?;
        self.memory.read(self.places.out.offset, b * len)
    }

    /// The GPU that it computes on, if it does.
    pub fn cuda(&self) -> Option<&Cuda> {
        self.device.cuda()
    }

    /// On a GPU: takes the labels of the `images` images that come next, and returns the addresses of x
    /// `[B, H, W, C]` f32, sigma `[B]` f64 and D(x; sigma). A [`Denoiser::run`] computes what lies there.
    ///
    /// # Errors
    /// As [`Denoiser::denoise`].
    pub fn operands(&mut self, images: usize, labels: &[u32]) -> Result<[u64; 3]> {
        ensure!(
            images > 0 && images <= self.batch,
            "{images} images for batches of {}",
            self.batch
        );
        self.fill(&[], &vec![1.0; images], labels)?;
        Ok([self.places.x, self.places.sigma, self.places.out]
            .map(|s| self.memory.address() + 4 * s.offset as u64))
    }

    /// Queues an evaluation of what lies in the operands' places.
    ///
    /// # Errors
    /// Device (exit 4): a kernel that does not launch.
    pub fn run(&mut self) -> Result<()> {
        let (device, memory, weights) = (&self.device, &mut self.memory, &self.weights);
        let plan = &self.plan;
        let mut run = || plan.run(device, memory, weights, None, None, StepArgs::default());
        match device.cuda() {
            None => run(),
            Some(cuda) => self.evaluation.run(cuda, run),
        }
    }

    /// Puts a batch into its places.
    fn fill(&mut self, x: &[f32], sigma: &[f64], labels: &[u32]) -> Result<()> {
        let b = sigma.len();
        self.check_labels(labels, b)?;
        // The rest of the batch is computed too; it must be something.
        let fill = |given: &[f32], words: usize, rest: f32| {
            let mut all = vec![rest; words];
            all[..given.len()].copy_from_slice(given);
            all
        };
        self.memory.put(self.places.x, &fill(x, self.places.x.len, 0.0))?;
        let mut levels = vec![1.0; self.batch];
        levels[..b].copy_from_slice(sigma);
        self.memory.put(self.places.sigma, bytemuck::cast_slice(&levels))?;
        if let Some(slot) = self.places.labels {
            self.memory.put(slot, &fill(bytemuck::cast_slice(labels), slot.len, 0.0))?;
        }
        Ok(())
    }

    fn check_labels(&self, labels: &[u32], batch: usize) -> Result<()> {
        let dim = self.config.label_dim;
        let want = if dim > 0 { batch } else { 0 };
        if labels.len() != want {
            return Err(usage(format!(
                "--labels: {} given for {batch} images, the network (label_dim {dim}) takes {want}",
                labels.len()
            )));
        }
        match labels.iter().find(|&&l| l as usize >= dim) {
            Some(l) => {
                Err(usage(format!("--labels: {l} is not below the network's label_dim {dim}")))
            }
            None => Ok(()),
        }
    }
}
