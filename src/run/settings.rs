//! What people give of a run, by flags, study files and presets alike, and the run that it becomes on a set.

use super::scoring::Scoring;
use super::{DataId, RunConfig, TrainConfig, TrainSettings};
use crate::data::Dataset;
use crate::model::{ModelConfig, ModelSettings};
use crate::settings::{Choice, Setting};
use anyhow::Result;

/// What images a network is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageShape {
    pub images: usize,
    pub resolution: usize,
    pub channels: usize,
    pub label_dim: usize,
}

impl ImageShape {
    pub fn of(images: &Dataset) -> ImageShape {
        ImageShape {
            images: images.len(),
            resolution: images.resolution,
            channels: images.channels,
            label_dim: images.label_dim(),
        }
    }
}

/// Of network and training.
#[derive(Debug, Clone, Default, PartialEq, clap::Args)]
pub struct RunSettings {
    #[command(flatten)]
    pub network: ModelSettings,
    #[command(flatten)]
    pub training: TrainSettings,
}

impl RunSettings {
    /// All that can be given.
    pub fn all() -> impl Iterator<Item = &'static Setting> {
        ModelSettings::SETTINGS.iter().chain(TrainSettings::SETTINGS)
    }

    /// With what `base` gives where this gives nothing.
    pub fn over(self, base: &Self) -> Self {
        RunSettings {
            network: self.network.over(&base.network),
            training: self.training.over(&base.training),
        }
    }

    /// What is given of a run's scoring; `config` is this, scaled.
    pub fn scoring(&self, config: &TrainConfig) -> Scoring {
        let given = |given: Option<Choice<usize>>, scaled: usize| {
            given.and_then(Choice::said).map(|_| scaled)
        };
        let t = &self.training;
        Scoring {
            evaluations: given(t.looks, config.looks),
            score_images: given(t.score_images, config.score_images),
            rescore_images: given(t.rescore_images, config.rescore_images),
        }
    }

    /// The run on images of a shape, its set unnamed. `adjust` gives what is no setting (seed, precision, micro-batch) and
    /// scales the rest, before what follows from it is settled.
    ///
    /// # Errors
    /// Usage: what cannot be built or trained of images of this shape.
    pub fn resolve(
        &self,
        shape: ImageShape,
        adjust: impl FnOnce(&mut ModelConfig, &mut TrainConfig),
    ) -> Result<RunConfig> {
        let ImageShape { images, resolution, channels, label_dim } = shape;
        let mut train = self.training.config();
        let images_are = [resolution, channels, label_dim];
        let model = self.network.resolve(images_are, |model| adjust(model, &mut train))?;
        let unnamed = String::new;
        let data = DataId { images, sha256_pixels: unnamed(), sha256_labels: unnamed() };
        let mut config = RunConfig { model, train, data };
        config.check()?;
        self.scoring(&config.train).settle(&mut config);
        config.check()?;
        Ok(config)
    }
}
