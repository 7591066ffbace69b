//! What finished runs say, read from their folders: `config.toml`, `scores.csv`, `rescored.csv`. Nothing else is
//! needed, so a folder of these files alone serves tables and figures too.

use super::plan::PlannedRun;
use crate::error::data;
use crate::memorization::wilson;
use crate::run::dir::{Scores, best};
use crate::run::scores::scored_again;
use crate::run::{Look, RunConfig, RunDir};
use anyhow::Result;
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
    /// All looks, in order: the curve.
    pub looks: Vec<Look>,
    /// The run's value: its best look, as scored again if it was.
    pub value: Look,
}

/// The runs of one cell.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// One a planned run, in order.
    pub states: Vec<RunState>,
    /// Mean of the finished runs' values; `None` if there are none.
    pub ratio: Option<f64>,
    /// 95% Wilson interval over all images of these values: what other samples would change.
    pub interval: [f64; 2],
    /// Of the finished runs' values, if there are at least two: what other training seeds change.
    pub spread: Option<Spread>,
    /// (epoch, ratio) of each look, mean over the finished runs.
    pub curve: Vec<(f64, f64)>,
    /// Of a run the ratio [still rose](still_rising).
    pub rising: bool,
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
    let Scores { looks, rescored, distinct } = run.scores(config)?;
    let all = looks.len() == config.look_steps().len();
    let value = match (best(&looks), rescored) {
        (Some(_), Some(again)) if all => again,
        (Some(best), None) if all && scored_again(config, &looks, &distinct).is_none() => {
            best.clone()
        }
        _ => return Ok(RunState::Begun),
    };
    Ok(RunState::Done(Done { seed: config.train.seed, looks, value }))
}

/// What a table's ↑ and a chart's open marks mean, everywhere.
pub const RISING: &str = "still rising at the last look; longer training would give more";
/// Marks such a ratio in tables.
pub const RISING_MARK: &str = "↑";

/// The line below a chart that has open marks.
pub fn open_marks() -> String {
    format!("open marks: {RISING}")
}

/// What is drawn around points that are no spread over seeds.
pub const BANDS: &str =
    "bands and bars: 95% sampling interval (Wilson); training seeds spread more";

/// The ratio must have risen by this much, beside its interval.
const LEAST_RISE: f64 = 0.01;

/// Whether the ratio still rose when training ended: in the last quarter of the looks, taken together, it lies above
/// that in the quarter before by more than its 95% sampling interval, and by a point. An only look is compared with the
/// untrained network, which memorizes nothing. All memorized cannot rise.
pub fn still_rising(looks: &[Look]) -> bool {
    let quarter = (looks.len() / 4).max(1);
    let (before, last) = looks.split_at(looks.len().saturating_sub(quarter));
    let before = &before[before.len().saturating_sub(quarter)..];
    let together = |looks: &[Look]| {
        looks.iter().fold((0, 0), |(m, n), look| (m + look.memorized, n + look.images))
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
    /// As [`still_rising`] says of its looks.
    pub fn rising(&self) -> bool {
        still_rising(&self.looks)
    }
}

impl Seen {
    pub fn read(runs: &[PlannedRun]) -> Seen {
        let state = |run: &PlannedRun| match &run.dir {
            None => RunState::Missing,
            Some(dir) => state_of(&run.config, dir),
        };
        Seen::of(runs.iter().map(state).collect())
    }

    pub fn of(states: Vec<RunState>) -> Seen {
        let done: Vec<&Done> = states.iter().filter_map(RunState::done).collect();
        let count = done.len() as f64;
        let mean = |of: &dyn Fn(&Done) -> f64| done.iter().map(|d| of(d)).sum::<f64>() / count;
        let ratio = (!done.is_empty()).then(|| mean(&|d| d.value.ratio));
        let sum = |of: &dyn Fn(&Look) -> u64| done.iter().map(|d| of(&d.value)).sum::<u64>();
        let interval = match ratio {
            Some(_) => wilson(sum(&|l| l.memorized), sum(&|l| l.images)),
            None => [f64::NAN; 2],
        };
        let spread = ratio.filter(|_| done.len() > 1).map(|ratio| {
            let all = || done.iter().map(|d| d.value.ratio);
            let squares: f64 = all().map(|r| (r - ratio).powi(2)).sum();
            Spread {
                seeds: done.len(),
                lowest: all().fold(f64::INFINITY, f64::min),
                highest: all().fold(f64::NEG_INFINITY, f64::max),
                deviation: (squares / (count - 1.0)).sqrt(),
            }
        });
        let looks = done.first().map_or(0, |d| d.looks.len());
        let curve = (0..looks).map(|k| (done[0].looks[k].epoch, mean(&|d| d.looks[k].ratio)));
        let (curve, rising) = (curve.collect(), done.iter().any(|d| d.rising()));
        Seen { ratio, interval, spread, curve, rising, states }
    }

    /// What is wrong with the damaged runs.
    pub fn damage(&self) -> impl Iterator<Item = String> {
        self.states.iter().filter_map(|s| match s {
            RunState::Damaged(why) => Some(why.clone()),
            _ => None,
        })
    }

    /// Whether no run is left to be done.
    pub fn complete(&self) -> bool {
        self.states.iter().all(|s| s.done().is_some())
    }
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
