//! A shorter run's state taken over by a longer one. What varies in training depends on the step, the seed and the images,
//! never on how long it will last, and evaluations leave the state alone: so the longer run ends with the bits of one that
//! was trained in one go. The evaluations of both need not be the same. Those that the longer one would have had before it
//! took over are left out, and the shorter one's stay where they were or, in one folder, in `report`.
//!
//! Order of writes: the state under a name of its own; the configuration, by which the folder is the longer run's; removal of
//! scores and snapshots; the state under its name. A kill before the configuration leaves the shorter run as it was, one after it is made up for
//! by the next start (`finish`).

use super::dir::RunDir;
use super::progress::describe_epochs;
use super::scoring::Scoring;
use super::{RunConfig, RunOptions, state};
use crate::device::Device;
use crate::error::{Exit, OrExit as _, data};
use crate::files::{read_text, write_bytes};
use anyhow::Result;
use std::fs;
use std::path::Path;

/// Where a longer run takes over.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TakenOver {
    /// Length of the shorter run.
    pub epochs: f64,
    pub step: u64,
    /// Evaluations before it that the longer run would have had.
    pub left_out: usize,
}

impl TakenOver {
    /// For people; `from`: the shorter run.
    pub fn said(&self, from: &str) -> String {
        let (epochs, step) = (describe_epochs(self.epochs), self.step);
        let left_out = match self.left_out {
            0 => String::new(),
            1 => "; the evaluation before is left out".into(),
            n => format!("; the {n} evaluations before are left out"),
        };
        format!("goes on from step {step} of {from}, of {epochs} epochs{left_out}")
    }
}

/// Whether `stored` is `asked` but for its length, which is shorter, and what `scoring` makes of that.
pub fn is_shorter(stored: &RunConfig, asked: &RunConfig, scoring: Scoring) -> bool {
    let mut cut = asked.clone();
    cut.train.epochs = stored.train.epochs;
    scoring.settle(&mut cut);
    stored.train.epochs < asked.train.epochs && stored.differences(&cut).is_empty()
}

/// Makes the run in `dir` the longer one that `asked` asks for, if it is a shorter one; also ends what a kill left of that.
///
/// # Errors
/// Usage (exit 2): trained by a version whose results differ. Data (3): files that are not to be believed. Other (1): another
/// process works in it, or it cannot be written.
pub fn lengthen(
    device: &Device,
    dir: &Path,
    asked: &RunConfig,
    scoring: Scoring,
    options: &RunOptions,
) -> Result<Option<TakenOver>> {
    let run = RunDir::new(dir);
    let begun = run.carried_state_path().exists();
    let Some(stored) = run.stored_config()? else { return Ok(None) };
    if !begun && !is_shorter(&stored, asked, scoring) {
        return Ok(None);
    }
    let _lock = run.lock()?;
    finish(&run, options)?;
    let stored = run.config()?;
    if !is_shorter(&stored, asked, scoring) {
        return Ok(None);
    }
    stored.train.numerics.resume(device)?;
    match carry(&run, &stored, &run, asked, options)? {
        None if run.scores_path().exists() => Err(data(format!(
            "{}: missing, needed to go on to {} epochs; choose another --run",
            run.state_path().display(),
            describe_epochs(asked.train.epochs)
        ))),
        // Nothing was trained yet.
        None => run.store(&longer(&stored, asked, 0), &options.data_name).map(|()| None),
        taken => Ok(taken),
    }
}

/// Begins the run of `asked` in `dir`, where there is none yet, with the state of the shorter run in `from`; `None` if that
/// has none yet, or `dir` holds a run.
///
/// # Errors
/// As [`lengthen`].
pub fn begin_from(
    device: &Device,
    from: &Path,
    dir: &Path,
    asked: &RunConfig,
    options: &RunOptions,
) -> Result<Option<TakenOver>> {
    let (from, run) = (RunDir::new(from), RunDir::new(dir));
    let shorter = from.config()?;
    shorter.train.numerics.resume(device)?;
    if !from.state_path().exists() {
        return Ok(None);
    }
    let _lock = run.lock()?;
    match run.stored_config()? {
        None => carry(&from, &shorter, &run, asked, options),
        Some(_) => Ok(None),
    }
}

/// The configuration of the run that `shorter` becomes at `step`.
fn longer(shorter: &RunConfig, asked: &RunConfig, step: u64) -> RunConfig {
    let mut longer = asked.clone();
    longer.train.micro_batch = shorter.train.micro_batch;
    longer.train.numerics = shorter.train.numerics;
    longer.train.left_out = longer.schedule().iter().filter(|&&s| s < step).count();
    longer
}

fn carry(
    from: &RunDir,
    shorter: &RunConfig,
    to: &RunDir,
    asked: &RunConfig,
    options: &RunOptions,
) -> Result<Option<TakenOver>> {
    let (carried, run) = (to.carried_state_path(), longer(shorter, asked, 0));
    let Some(step) = state::carry(&from.state_path(), shorter, &carried, &run)? else {
        return Ok(None);
    };
    let longer = longer(shorter, asked, step);
    if from.state_path() == to.state_path() {
        let kept = [
            ("scores", to.scores_path()),
            ("rescored", to.rescored_path()),
            ("losses", to.losses_path()),
        ];
        for (name, path) in kept {
            if let Some(text) = read_text(&path)? {
                write_bytes(&to.shorter_scores_path(name, shorter.epoch(step)), true, text)?;
            }
        }
    }
    to.store(&longer, &options.data_name)?;
    finish(to, options)?;
    let left_out = longer.train.left_out;
    Ok(Some(TakenOver { epochs: shorter.train.epochs, step, left_out }))
}

/// Puts a carried state in its place, if the folder is that run's by its configuration, and removes scores and snapshots of the
/// shorter run; else removes it.
fn finish(run: &RunDir, options: &RunOptions) -> Result<()> {
    let (carried, config) = (run.carried_state_path(), run.config()?);
    match state::saved_step(&carried, &config) {
        Ok(Some(_)) => {
            run.remove_scores()?;
            let shorter = state::config_of(&run.state_path());
            if let Some(shorter) = shorter.filter(|_| !options.keep_all_snapshots) {
                run.prune_snapshots(&shorter, &[])?;
            }
            fs::rename(&carried, run.state_path())
                .or_exit(Exit::Other, || format!("{}: cannot be put in place", carried.display()))
        }
        Ok(None) => Ok(()),
        Err(_) => run.remove_carried(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::config::tests::example;
    use super::*;

    #[test]
    fn shorter_is_what_differs_in_length_and_what_follows_from_it() {
        let scoring = Scoring::default();
        let of = |epochs: f64, scoring: Scoring| {
            let mut config = example();
            config.train.epochs = epochs;
            scoring.settle(&mut config);
            config
        };
        let (short, long) = (of(600.0, scoring), of(1200.0, scoring));
        assert_ne!(short.train.score_images, long.train.score_images, "follows from the length");
        assert!(is_shorter(&short, &long, scoring));
        assert!(!is_shorter(&long, &short, scoring) && !is_shorter(&long, &long, scoring));
        // What is said is no consequence.
        let said = Scoring { evaluations: Some(7), ..scoring };
        assert!(!is_shorter(&short, &of(1200.0, said), said));
        assert!(is_shorter(&of(600.0, said), &of(1200.0, said), said));
        for change in [
            |c: &mut RunConfig| c.train.lr *= 2.0,
            |c: &mut RunConfig| c.train.seed += 1,
            |c: &mut RunConfig| c.train.ramp_epochs = 1.0,
            |c: &mut RunConfig| c.train.score_images += 1,
            |c: &mut RunConfig| c.model.dropout = 0.5,
            |c: &mut RunConfig| c.data.sha256_pixels = "b".into(),
        ] {
            let mut other = short.clone();
            change(&mut other);
            assert!(!is_shorter(&other, &long, scoring));
        }
        // It keeps its name, and evaluations from there on have the images that they had.
        let taken = longer(&short, &long, short.steps());
        let (all, left) = (long.evaluation_steps(), taken.evaluation_steps());
        assert_eq!((taken.id(), taken.differences(&long)), (long.id(), vec![]));
        assert!(left.len() < all.len() && left[0] >= short.steps() && all.ends_with(&left));
        let images =
            |c: &RunConfig| c.images_at(c.evaluation_steps().len() - 2, c.evaluation_steps().len());
        assert_eq!(images(&taken), images(&long));
    }
}
