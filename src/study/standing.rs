//! How far runs are, read from their folders while somebody may work in them.

use super::folder::places;
use super::outcome::{RunState, state_of};
use crate::run::dir::{Scores, best};
use crate::run::progress::IMAGE_COST;
use crate::run::train::work;
use crate::run::{RunConfig, RunDir, state, stats};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Where a run is.
#[derive(Debug, Clone, PartialEq)]
pub enum Standing {
    Missing,
    /// What is wrong with it.
    Damaged(String),
    /// Begun and left, or with somebody at work, after this share of its steps.
    Begun {
        share: f64,
        running: bool,
    },
    Done,
}

/// A run and how far it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Watched {
    pub name: String,
    /// None where its images are not known.
    pub dir: Option<PathBuf>,
    pub standing: Standing,
    /// Of what has begun and is not damaged.
    pub reached: Option<Reached>,
}

/// How far a run is.
#[derive(Debug, Clone, PartialEq)]
pub struct Reached {
    /// In its training set.
    pub images: usize,
    /// Done and of all.
    pub epochs: [f64; 2],
    pub evaluations: [usize; 2],
    /// Of the last evaluation.
    pub latest: Option<f64>,
    /// The run's value so far: its best evaluation, as scored again if it was.
    pub ratio: Option<f64>,
    /// Training images per second, by the last line of its log that says it.
    pub images_per_s: Option<f64>,
    /// Seconds that are left at that rate.
    pub left_s: Option<f64>,
    /// When one of its files was last written.
    pub updated: Option<SystemTime>,
}

impl Standing {
    /// Of the run of `config` in `dir`.
    pub fn of(config: &RunConfig, dir: &Path) -> Standing {
        match state_of(config, dir) {
            RunState::Done(_) => Standing::Done,
            RunState::Missing => Standing::Missing,
            RunState::Damaged(why) => Standing::Damaged(why),
            RunState::Begun => {
                let run = RunDir::new(dir);
                match state::saved_step(&run.state_path(), config) {
                    Err(e) => Standing::Damaged(format!("{e:#}")),
                    Ok(step) => {
                        let (step, steps) = (step.unwrap_or(0), config.steps());
                        let unscored = config.evaluation_steps().is_empty();
                        match unscored && step == steps && run.snapshot_path(config, steps).exists()
                        {
                            true => Standing::Done,
                            false => {
                                let share = step as f64 / steps.max(1) as f64;
                                Standing::Begun { share, running: run.is_locked() }
                            }
                        }
                    }
                }
            }
        }
    }
}

impl Watched {
    /// The run of `config`, which may be there.
    pub fn planned(name: String, dir: Option<&Path>, config: &RunConfig) -> Watched {
        let standing = dir.map_or(Standing::Missing, |dir| Standing::of(config, dir));
        let reached = match standing {
            Standing::Begun { .. } | Standing::Done => {
                dir.and_then(|dir| Reached::read(config, dir, &standing))
            }
            Standing::Missing | Standing::Damaged(_) => None,
        };
        Watched { name, dir: dir.map(Path::to_path_buf), standing, reached }
    }

    /// The run that lies in `dir`, whatever it is.
    fn found(dir: &Path) -> Watched {
        let name = dir.canonicalize().unwrap_or_else(|_| dir.into());
        let name = name.file_name().unwrap_or_default().to_string_lossy().into();
        match RunDir::new(dir).config() {
            Ok(config) => Watched::planned(name, Some(dir), &config),
            Err(e) => {
                let standing = Standing::Damaged(format!("{e:#}"));
                Watched { name, dir: Some(dir.into()), standing, reached: None }
            }
        }
    }
}

/// The runs of these folders, as [`places`] finds them, each once; and a line for each folder without any.
pub fn watched(folders: &[PathBuf]) -> (Vec<Watched>, Vec<String>) {
    let (mut all, mut none) = (Vec::<PathBuf>::new(), Vec::new());
    for folder in folders {
        match places(folder) {
            Ok(found) if found.is_empty() => {
                none.push(format!("{}: no run in it or its subfolders", folder.display()));
            }
            Ok(found) => all.extend(found),
            Err(e) => none.push(format!("{e:#}")),
        }
    }
    all.sort();
    all.dedup();
    (all.iter().map(|dir| Watched::found(dir)).collect(), none)
}

impl Reached {
    /// `None` if its files changed so that they cannot be read.
    fn read(config: &RunConfig, dir: &Path, standing: &Standing) -> Option<Reached> {
        let run = RunDir::new(dir);
        let stored = run.config().ok()?;
        let scores: Scores = run.scores(&stored).ok()?;
        let evaluations = &scores.evaluations;
        let log = stats::latest(&run.stats_path()).unwrap_or_default();
        let (steps, running) =
            (config.steps(), matches!(standing, Standing::Begun { running: true, .. }));
        let step = match *standing {
            // Its log is ahead of what it saves.
            Standing::Begun { share, .. } => {
                let saved = (share * steps as f64).round() as u64;
                if running { saved.max(log.step.unwrap_or(0)).min(steps) } else { saved }
            }
            _ => steps,
        };
        let generated = stored.images_of(evaluations.len()) as f64;
        let done = step as f64 * config.train.batch as f64 + generated * IMAGE_COST;
        let left = (work(&stored) - done).max(0.0);
        let left_s =
            log.images_per_s.map(|rate| left / rate).filter(|_| *standing != Standing::Done);
        let files =
            [run.stats_path(), run.state_path(), run.scores_path(), run.partial_evaluation_path()];
        let written = files.iter().filter_map(|file| fs::metadata(file).ok()?.modified().ok());
        Some(Reached {
            images: config.data.images,
            epochs: [config.epoch(step).min(config.train.epochs), config.train.epochs],
            evaluations: [evaluations.len(), stored.evaluation_steps().len()],
            latest: evaluations.last().map(|l| l.ratio),
            ratio: scores.rescored.as_ref().or(best(evaluations)).map(|l| l.ratio),
            images_per_s: log.images_per_s,
            left_s,
            updated: written.max(),
        })
    }
}
