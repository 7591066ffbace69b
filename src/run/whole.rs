//! Whether a run's folder holds all that the run goes on from: files that were brought from elsewhere may be of two
//! instants, or missing.

use super::dir::{RunDir, best};
use super::{RunConfig, state};
use crate::error::data;
use anyhow::Result;

/// The step of the state of a run, every bit of which is checked; as are the snapshots of the best and of the last
/// evaluation up to it, which have to be there.
///
/// # Errors
/// Data (exit 3): what is missing, damaged, or does not fit the rest.
pub fn step(dir: &RunDir, config: &RunConfig) -> Result<u64> {
    let Some(step) = state::whole_step(&dir.state_path(), config)? else {
        return Err(data(format!("{}: not found", dir.state_path().display())));
    };
    // Those after it are taken again.
    let mut evaluations = dir.scores(config)?.evaluations;
    evaluations.retain(|evaluation| evaluation.step <= step);
    for kept in [best(&evaluations), evaluations.last()].into_iter().flatten() {
        dir.snapshot(config, kept.step)?;
    }
    Ok(step)
}
