//! What finished runs say, read from their folders: `config.toml`, `scores.csv`, `rescored.csv`. Nothing else is
//! needed, so a folder of these files alone serves tables and figures too.

use crate::error::data;
use crate::memorization::{SizeRatio, wilson};
use crate::run::dir::{Scores, best};
use crate::run::numerics::Numerics;
use crate::run::scores::scored_again;
use crate::run::{Distinct, Evaluation, RunConfig, RunDir};
use anyhow::Result;
use serde::Deserialize;
use std::path::Path;

/// How far a run is.
#[derive(Debug, Clone, PartialEq)]
pub enum RunState {
    /// No folder, or none that a run has begun in.
    Missing,
    Begun,
    Done(Done),
    /// Its files are not to be believed: what is wrong, in one line that begins with the file.
    Damaged(String),
}

/// A finished run.
#[derive(Debug, Clone, PartialEq)]
pub struct Done {
    pub seed: u64,
    /// All evaluations, in order: the curve.
    pub evaluations: Vec<Evaluation>,
    /// The run's value: its best evaluation, as scored again if it was.
    pub value: Evaluation,
    /// The value with identical training images counted once, where it was counted so.
    pub distinct: Option<Evaluation>,
    /// Training images that repeat an earlier one; 0 where only files were read, which do not say it.
    pub repeats: usize,
    /// The numerics it was trained with, where this version's differ.
    pub older: Option<u32>,
}

/// What is known of one cell.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// One a planned run, in order.
    pub states: Vec<RunState>,
    /// `None` if no run is finished.
    pub found: Option<Measured>,
}

/// What the finished runs of a cell found together: the same for a table, a figure, a search and a page. Its names are
/// those of `results.json`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Measured {
    /// Mean of the runs' values.
    pub ratio: f64,
    /// 95% Wilson interval over all images of these values: what other samples would change.
    pub interval: [f64; 2],
    /// Of the runs' values, if there are at least two: what other training seeds change.
    #[serde(skip)]
    pub spread: Option<Spread>,
    /// Evaluations that the best was chosen from.
    #[serde(rename = "looks")]
    pub evaluations: usize,
    /// Where the curve is highest.
    pub best_epoch: f64,
    /// (epoch, ratio) of each evaluation, mean over the runs.
    pub curve: Vec<(f64, f64)>,
    /// Of each evaluation the 95% Wilson interval over all its images; older files have none.
    #[serde(default)]
    pub curve_intervals: Vec<[f64; 2]>,
    /// Of each evaluation the lowest and the highest ratio of a run.
    #[serde(skip)]
    pub curve_spreads: Vec<[f64; 2]>,
    /// Of a run the ratio [still rose](still_rising).
    #[serde(default)]
    pub rising: bool,
    /// Training images that repeat an earlier one, as [`Done::repeats`].
    #[serde(default)]
    pub reference_duplicates: usize,
    /// `ratio` with identical training images counted once; `None` if all of them are equal, or a run that has
    /// duplicates was scored without counting so.
    pub ratio_distinct: Option<f64>,
}

/// Over training seeds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    pub seeds: usize,
    pub lowest: f64,
    pub highest: f64,
    /// Sample standard deviation.
    pub deviation: f64,
}

/// Reads a run's state. What cannot be read, does not fit or is another run than `config` says is damaged: whoever looks
/// at many runs names it and passes it over ([`passed_over`]).
pub fn state_of(config: &RunConfig, dir: &Path) -> RunState {
    read_state(config, dir).unwrap_or_else(|e| RunState::Damaged(format!("{e:#}")))
}

fn read_state(config: &RunConfig, dir: &Path) -> Result<RunState> {
    let run = RunDir::new(dir);
    let Some(stored) = run.stored_config()? else { return Ok(RunState::Missing) };
    let mut asked = config.clone();
    asked.train.micro_batch = stored.train.micro_batch;
    let differences = stored.differences(&asked);
    if !differences.is_empty() {
        let dir = dir.display();
        return Err(data(format!(
            "--runs: {dir}: holds another run than its name says ({})",
            differences.join("; ")
        )));
    }
    // Some evaluations may be left out.
    asked.train.left_out = stored.train.left_out;
    let config = &asked;
    let scores = run.scores(config)?;
    let all = scores.evaluations.len() == config.evaluation_steps().len();
    let again = || scored_again(config, &scores.evaluations, &scores.distinct);
    let whole = all && (scores.rescored.is_some() || again().is_none());
    let done =
        if whole { Done::of(config.train.seed, stored.train.numerics, scores) } else { None };
    Ok(done.map_or(RunState::Begun, RunState::Done))
}

/// The ratio must have risen by this much, beside its interval.
const LEAST_RISE: f64 = 0.01;

/// Whether the ratio still rose when training ended: in the last quarter of the evaluations, taken together, it lies above
/// that in the quarter before by more than its 95% sampling interval, and by a point. An only evaluation is compared with the
/// untrained network, which memorizes nothing. All memorized cannot rise.
pub fn still_rising(evaluations: &[Evaluation]) -> bool {
    let quarter = (evaluations.len() / 4).max(1);
    let (before, last) = evaluations.split_at(evaluations.len().saturating_sub(quarter));
    let before = &before[before.len().saturating_sub(quarter)..];
    let together = |evaluations: &[Evaluation]| {
        evaluations
            .iter()
            .fold((0, 0), |(m, n), evaluation| (m + evaluation.memorized, n + evaluation.images))
    };
    let ((memorized, images), (memorized_before, images_before)) =
        (together(last), together(before));
    if images == 0 || memorized == images {
        return false;
    }
    let ratio = memorized as f64 / images as f64;
    let ratio_before = memorized_before as f64 / images_before.max(1) as f64;
    wilson(memorized, images)[0] > ratio_before && ratio - ratio_before >= LEAST_RISE
}

impl Done {
    /// Of a run whose evaluations are all there; `None` if it has none.
    pub fn of(seed: u64, numerics: Numerics, scores: Scores) -> Option<Done> {
        let value = scores.value()?.clone();
        let distinct = scores.value_distinct().cloned();
        let Scores { evaluations, distinct: Distinct { repeats, .. }, .. } = scores;
        let older = numerics.older();
        Some(Done { seed, evaluations, value, distinct, repeats, older })
    }

    /// As [`still_rising`] says of its evaluations.
    pub fn rising(&self) -> bool {
        still_rising(&self.evaluations)
    }
}

impl Seen {
    pub fn of(states: Vec<RunState>) -> Seen {
        let done: Vec<&Done> = states.iter().filter_map(RunState::done).collect();
        let found = if done.is_empty() { None } else { Some(Measured::of(&done)) };
        Seen { states, found }
    }

    /// What is wrong with the damaged runs.
    pub fn damage(&self) -> impl Iterator<Item = String> {
        self.states.iter().filter_map(|s| match s {
            RunState::Damaged(why) => Some(why.clone()),
            _ => None,
        })
    }

    /// How many runs are finished.
    pub fn done(&self) -> usize {
        self.states.iter().filter(|s| s.done().is_some()).count()
    }

    /// How many were computed with numerics that this version no longer has.
    pub fn older(&self) -> usize {
        self.states.iter().filter(|s| s.done().is_some_and(|done| done.older.is_some())).count()
    }

    /// Whether no run is left to be done.
    pub fn complete(&self) -> bool {
        self.done() == self.states.len()
    }
}

impl Measured {
    /// `done` holds at least one run.
    fn of(done: &[&Done]) -> Measured {
        let count = done.len() as f64;
        let mean = |of: &dyn Fn(&Done) -> f64| done.iter().map(|d| of(d)).sum::<f64>() / count;
        let ratio = mean(&|d| d.value.ratio);
        // Of runs that began as shorter ones the first may be left out.
        let at = |step: u64| -> Option<Vec<&Evaluation>> {
            done.iter().map(|d| d.evaluations.iter().find(|l| l.step == step)).collect()
        };
        let steps = done[0].evaluations.iter().map(|l| l.step);
        let evaluations: Vec<Vec<&Evaluation>> = steps.filter_map(at).collect();
        let ratios = |all: &[&Evaluation]| all.iter().map(|l| l.ratio).sum::<f64>() / count;
        let curve: Vec<(f64, f64)> =
            evaluations.iter().map(|all| (all[0].epoch, ratios(all))).collect();
        let best_epoch = match done {
            [only] => best(&only.evaluations).map(|l| l.epoch),
            _ => curve.iter().copied().reduce(|a, b| if b.1 > a.1 { b } else { a }).map(|h| h.0),
        };
        let repeats = done.iter().map(|d| d.repeats).max().unwrap_or(0);
        let once: Option<Vec<f64>> =
            done.iter().map(|d| d.distinct.as_ref().map(|l| l.ratio)).collect();
        Measured {
            ratio,
            interval: pooled(done.iter().map(|d| &d.value)),
            spread: (done.len() > 1).then(|| Spread::of(done, ratio)),
            evaluations: curve.len(),
            best_epoch: best_epoch.unwrap_or(0.0),
            curve,
            curve_intervals: (evaluations.iter()).map(|all| pooled(all.iter().copied())).collect(),
            curve_spreads: (evaluations.iter())
                .map(|all| ends(all.iter().map(|l| l.ratio)))
                .collect(),
            rising: done.iter().any(|d| d.rising()),
            reference_duplicates: repeats,
            ratio_distinct: match repeats {
                0 => Some(ratio),
                _ => once.map(|all| all.iter().sum::<f64>() / count),
            },
        }
    }

    pub fn at_size(&self, size: u64) -> SizeRatio {
        SizeRatio { size, ratio: self.ratio, rising: self.rising }
    }

    /// Lowest and highest value of a run.
    pub fn ends(&self) -> [f64; 2] {
        self.spread.map_or([self.ratio; 2], |s| [s.lowest, s.highest])
    }
}

impl Spread {
    fn of(done: &[&Done], mean: f64) -> Spread {
        let all = || done.iter().map(|d| d.value.ratio);
        let squares: f64 = all().map(|r| (r - mean).powi(2)).sum();
        let [lowest, highest] = ends(all());
        let deviation = (squares / (done.len() as f64 - 1.0)).sqrt();
        Spread { seeds: done.len(), lowest, highest, deviation }
    }
}

/// The 95% Wilson interval over all images of these evaluations.
fn pooled<'a>(evaluations: impl Iterator<Item = &'a Evaluation> + Clone) -> [f64; 2] {
    wilson(evaluations.clone().map(|l| l.memorized).sum(), evaluations.map(|l| l.images).sum())
}

/// The lowest and the highest.
fn ends(ratios: impl Iterator<Item = f64> + Clone) -> [f64; 2] {
    [ratios.clone().fold(f64::INFINITY, f64::min), ratios.fold(f64::NEG_INFINITY, f64::max)]
}

/// Damaged runs are named in the error at the end, so many of them in full.
const MOST_NAMED: usize = 3;

/// The error that ends a command which left damaged runs aside and did the rest; `what` begins it.
///
/// # Errors
/// Data (exit 3), if there is any damage.
pub fn passed_over(what: &str, damage: impl IntoIterator<Item = String>) -> Result<()> {
    let mut all: Vec<String> = Vec::new();
    for why in damage {
        if !all.contains(&why) {
            all.push(why);
        }
    }
    let count = match all.len() {
        0 => return Ok(()),
        1 => "a damaged run was".to_string(),
        n => format!("{n} damaged runs were"),
    };
    let more = match all.len().saturating_sub(MOST_NAMED) {
        0 => String::new(),
        n => format!("; and {n} more"),
    };
    all.truncate(MOST_NAMED);
    Err(data(format!("{what}: {count} passed over: {}{more}", all.join("; "))))
}

impl RunState {
    pub fn done(&self) -> Option<&Done> {
        match self {
            RunState::Done(done) => Some(done),
            _ => None,
        }
    }
}
