//! Samples and the training images that they are nearest to: of runs, and of the theoretical optimum.

use crate::data::Dataset;
use crate::device::{Device, Pixels};
use crate::memorization::{Nearest, Search};
use crate::report::number;
use crate::run::dir::best;
use crate::run::score::labels_of;
use crate::run::{Network, RunDir};
use crate::sampler::{Denoise, HeunOptions, Start, optimum, quantise, sample};
use anyhow::Result;
use std::path::Path;

/// Samples on a sheet: those of the first seeds, not chosen.
pub const SAMPLES: u64 = 16;

/// Samples and their two nearest training images.
pub struct DrawnSamples {
    pub pixels: Vec<u8>,
    pub training: Dataset,
    pub nearest: Vec<Nearest>,
    /// What drew them from which seeds, and where the training images are from.
    pub notes: Vec<String>,
}

impl DrawnSamples {
    /// Samples of the snapshot of a run's best evaluation. `training`: what it was trained on. `of`: which run it is, and
    /// its set.
    ///
    /// # Errors
    /// Data: no snapshot. Those of the device.
    pub fn by_run(
        dir: &Path,
        training: Dataset,
        of: &str,
        device: &Device,
    ) -> Result<DrawnSamples> {
        let run = RunDir::new(dir);
        let (_, model) = run.best_snapshot()?;
        let config = run.config()?;
        let epoch =
            best(&run.scores(&config)?.evaluations).map_or(config.train.epochs, |l| l.epoch);
        let name = dir.file_name().map_or(String::new(), |n| n.to_string_lossy().into());
        let by = format!("run {name} at its best evaluation, epoch {}", number(epoch));
        let label_dim = model.config.label_dim;
        let mut network = Network::new(device, model, SAMPLES as usize, &|| false)?;
        DrawnSamples::by(&mut network, label_dim, training, [of, &by], device)
    }

    /// Samples of the optimum of `training`, labels left aside. `of`: as for [`DrawnSamples::by_run`].
    pub fn by_optimum(mut training: Dataset, of: &str, device: &Device) -> Result<DrawnSamples> {
        training.labels = None;
        let mut optimum = optimum(&training, device)?;
        DrawnSamples::by(&mut *optimum, 0, training, [of, "the theoretical optimum"], device)
    }

    fn by(
        denoise: &mut dyn Denoise,
        label_dim: usize,
        training: Dataset,
        [of, by]: [&str; 2],
        device: &Device,
    ) -> Result<DrawnSamples> {
        let seeds: Vec<u64> = (0..SAMPLES).collect();
        let (labels, options) = (labels_of(&seeds, label_dim), HeunOptions::default());
        let samples = sample(denoise, Start::Seeds(&seeds), &labels, &options, &mut |_, _| true)?;
        let pixels: Vec<u8> = samples.unwrap_or_default().into_iter().map(quantise).collect();
        let mut search = Search::new(device, &training.pixels, training.image_len())?;
        let nearest = search.nearest(&Pixels::Host(pixels.as_slice().into()))?;
        drop(search);
        let sampled = format!("{by}; sampling seeds 0 to {}, not chosen", SAMPLES - 1);
        Ok(DrawnSamples { pixels, training, nearest, notes: vec![of.into(), sampled] })
    }
}
