//! The training loop: steps, looks, saves; killed at any instant it continues with the same bits.

use super::RunConfig;
use crate::data::Dataset;
use crate::device::Device;
use anyhow::Result;
use std::path::Path;

/// One scoring inside training: a row of `scores.csv`.
#[derive(Debug, Clone, PartialEq)]
pub struct Look {
    pub step: u64,
    pub epoch: f64,
    pub images: u64,
    pub memorized: u64,
    pub ratio: f64,
    /// 95% Wilson sampling interval.
    pub low: f64,
    pub high: f64,
    pub mean_d1: f64,
}

/// What does not change a run's numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct RunOptions {
    pub keep_all_snapshots: bool,
    pub save_every: SaveEvery,
    pub stop_after_steps: Option<u64>,
    pub quiet: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum SaveEvery {
    Steps(u64),
    Seconds(f64),
}

/// How a call of [`train`] ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// False when a signal or `stop_after_steps` ended it early; the same call continues.
    pub finished: bool,
    pub looks: Vec<Look>,
    /// The best look scored again with fresh seeds, if the configuration asks for it.
    pub rescored: Option<Look>,
    pub elapsed_s: f64,
}

/// Trains in `dir` until done or stopped; resumes what `dir` holds. Finished runs return at once.
///
/// # Errors
/// Usage (exit 2) with the difference if `dir` holds another configuration; lock held (1); diverged (5).
pub fn train(
    _device: &Device,
    _config: &RunConfig,
    _data: &Dataset,
    _dir: &Path,
    _options: &RunOptions,
) -> Result<Outcome> {
    todo!()
}
