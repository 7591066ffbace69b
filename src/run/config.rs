//! Everything that determines a run's numbers, as `config.toml` holds it.

use crate::data::Dataset;
use crate::model::ModelConfig;
use serde::{Deserialize, Serialize};

/// Raised whenever results may change; stored with a run and compared on resume.
pub const NUMERICS: u32 = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
#[value(rename_all = "lower")]
pub enum Precision {
    Bf16,
    Tf32,
    Fp32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
#[value(rename_all = "lower")]
pub enum Order {
    /// A new shuffle each epoch.
    Shuffle,
    /// Epoch 0's shuffle for ever, as the reference does.
    Fixed,
}

/// The optimizer's side of a run. Lengths of time are in epochs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    pub seed: u64,
    pub epochs: f64,
    pub batch: usize,
    /// Resolved at the run's first start and kept.
    pub micro_batch: usize,
    pub lr: f64,
    pub weight_decay: f64,
    /// Table 2's rate r; `None` is the default half-life rule.
    pub ema_rate: Option<f64>,
    pub precision: Precision,
    pub order: Order,
    /// Replace non-finite gradients as the reference does instead of stopping.
    pub scrub_gradients: bool,
    /// Evenly spaced scorings; the last is at the end.
    pub looks: usize,
    /// Generated images per look.
    pub score_images: usize,
    /// Fresh images that score the best look again; 0 for never.
    pub rescore_images: usize,
    pub numerics: u32,
}

/// The data set by content, not by path.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataId {
    pub images: usize,
    pub sha256_pixels: String,
    pub sha256_labels: String,
}

impl DataId {
    pub fn of(data: &Dataset) -> Self {
        DataId {
            images: data.len(),
            sha256_pixels: data.sha256_pixels(),
            sha256_labels: data.sha256_labels(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    pub model: ModelConfig,
    pub train: TrainConfig,
    pub data: DataId,
}

impl RunConfig {
    /// ceil(epochs · N / batch).
    pub fn steps(&self) -> u64 {
        (self.train.epochs * self.data.images as f64 / self.train.batch as f64).ceil() as u64
    }

    /// Name of the run under `--runs`: a hash of all of this.
    pub fn id(&self) -> String {
        todo!()
    }
}
