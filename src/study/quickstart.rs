//! A small experiment from clone to answer: the bundled digits, several sizes, one small network.

use super::EPSILON;
use super::find::{EmmSearch, Found, Sizes, find};
use crate::data::Dataset;
use crate::device::Device;
use crate::model::{Arch, Embedding, ModelConfig, Precond};
use crate::run::scoring::Scoring;
use crate::run::{DataId, RunConfig, RunOptions, TrainConfig};
use anyhow::Result;
use std::path::Path;

/// How much of it.
#[derive(Debug, Clone, PartialEq)]
pub struct QuickstartPlan {
    /// Training-set sizes, ascending; all are trained alike, for as many epochs.
    pub sizes: Vec<usize>,
    pub epochs: f64,
    pub evaluations: usize,
    /// Generated images per evaluation.
    pub score_images: usize,
    pub seed: u64,
}

impl Default for QuickstartPlan {
    fn default() -> Self {
        QuickstartPlan {
            sizes: vec![10, 20, 40, 80],
            epochs: 1000.0,
            evaluations: 4,
            score_images: 500,
            seed: 1024,
        }
    }
}

/// What its set is called.
pub const SET: &str = "bundled digits";

impl QuickstartPlan {
    /// The settings of its runs, for the set as a whole.
    fn config(&self, set: &Dataset) -> RunConfig {
        let model = ModelConfig {
            precond: Precond::Edm,
            embedding: Embedding::Positional,
            model_channels: 16,
            channel_mult: vec![2, 2],
            num_blocks: 1,
            skip_connections: vec![1; 4],
            dropout: 0.0,
            ..ModelConfig::basic(Arch::DdpmPP, set.resolution, set.channels)
        };
        let train = TrainConfig {
            seed: self.seed,
            epochs: self.epochs,
            batch: 10,
            lr: 2e-3,
            // The usual half-life of 10 epochs would be most of the smallest run's thousand steps.
            ema_rate: Some(0.99),
            looks: self.evaluations,
            score_images: self.score_images,
            ..TrainConfig::default()
        };
        RunConfig { model, train, data: DataId::of(set) }
    }
}

/// Trains and scores in `folder` what it does not hold yet. `None` if a signal stopped it; the same call goes on.
///
/// `devices`: one run at a time on each.
///
/// # Errors
/// Usage: a plan of no epochs, evaluations or images. Those of the search.
pub fn quickstart(
    plan: &QuickstartPlan,
    devices: &[Device],
    folder: &Path,
    options: &RunOptions,
) -> Result<Option<Found>> {
    let set = Dataset::digits();
    let config = plan.config(&set);
    config.check()?;
    find(&EmmSearch {
        set: &set,
        name: SET,
        config,
        scoring: Scoring {
            evaluations: Some(plan.evaluations),
            score_images: Some(plan.score_images),
            rescore_images: Some(0),
        },
        sizes: Sizes::List(plan.sizes.clone()),
        epsilon: EPSILON,
        repeats: 1,
        runs: &folder.join("runs"),
        devices,
        options,
    })
}
