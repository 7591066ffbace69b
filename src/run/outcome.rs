//! How a call that trains ended.

use super::dir::{RunDir, Scores, best};
use super::numerics::Numerics;
use super::scores::scored_again;
use super::{Distinct, Evaluation, RunConfig, state};
use crate::error::data;
use anyhow::Result;
use std::time::Instant;

/// How a call of [`train`](super::train()) ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// False when a signal, `stop_after_steps` or `stop_above` ended it early; the same call continues.
    pub finished: bool,
    /// Steps of the run that are done and saved.
    pub step: u64,
    pub scores: Scores,
    pub numerics: Numerics,
    pub elapsed_s: f64,
}

/// The ratio of the last evaluation, with identical training images counted once where there are any.
pub(super) fn last_ratio(evaluations: &[Evaluation], distinct: &Distinct) -> Option<f64> {
    let last = evaluations.last()?;
    let once = distinct.evaluations.iter().find(|l| l.step == last.step);
    Some(once.unwrap_or(last).ratio)
}

impl Outcome {
    /// Whether it stopped at a ratio above this one.
    pub fn is_above(&self, level: Option<f64>) -> bool {
        let ratio = last_ratio(&self.scores.evaluations, &self.scores.distinct);
        !self.finished && level.zip(ratio).is_some_and(|(level, ratio)| ratio > level)
    }

    /// That of a run which needs no more work, from its folder; `None` if there is work left.
    ///
    /// # Errors
    /// Data (exit 3): files that do not fit, or evaluations without the state from which the run would go on.
    pub fn stored(dir: &RunDir, config: &RunConfig, started: Instant) -> Result<Option<Outcome>> {
        let step = config.steps();
        let state = state::whole_step(&dir.state_path(), config)?;
        let scores = dir.scores(config)?;
        let Scores { evaluations, rescored, distinct } = &scores;
        let all = evaluations.len() == config.evaluation_steps().len();
        // What a finished run says needs no state.
        let trained = state == Some(step) || (state.is_none() && !evaluations.is_empty());
        let done = trained
            && all
            && (rescored.is_some() || scored_again(config, evaluations, distinct).is_none())
            && (!evaluations.is_empty() || dir.snapshot_path(config, step).exists());
        if let (false, None, Some(last)) = (done, state, evaluations.last()) {
            return Err(data(format!(
                "{}: has evaluations up to step {}, but {} is missing, from which the run would go on; put it back, or remove \
                 the run to begin again",
                dir.scores_path().display(),
                last.step,
                dir.state_path().display()
            )));
        }
        if !done {
            return Ok(None);
        }
        // Who removes snapshots wants none; but those that are there are this run's, and whole.
        let kept = [best(evaluations), evaluations.last()]
            .map(|evaluation| evaluation.map_or(step, |l| l.step));
        for of in kept {
            if dir.snapshot_path(config, of).exists() {
                dir.snapshot(config, of)?;
            }
        }
        let elapsed_s = started.elapsed().as_secs_f64();
        Ok(Some(Outcome {
            finished: true,
            step,
            scores,
            numerics: config.train.numerics,
            elapsed_s,
        }))
    }
}
