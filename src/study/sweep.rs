//! The runs of several studies, each once: planned, done by as many devices and processes as there are, looked at. A
//! search for the EMM does its runs here, too.

use super::cost::{MachineRates, flop_of};
use super::names::by_reason;
use super::outcome::{Done, RunState, passed_over};
use super::plan::{PlannedRun, Setup, StudyPlan};
use super::settings::Recipe;
use super::share::share;
use super::standing::{Standing, Watched};
use crate::data::Dataset;
use crate::device::Device;
use crate::error::{Exit, data, exit_code, fail, usage};
use crate::run::RunOptions;
use crate::run::progress::Overall;
use crate::run::train::{train_part, work};
use anyhow::Result;
use std::sync::{Arc, Mutex, PoisonError};

/// Runs in a fixed order, by which `run-one` names them: that of studies, cells and seeds, a run that serves several
/// cells where it comes first.
pub struct Sweep {
    pub runs: Vec<SweepRun>,
    /// Cells that the set or the scale cannot give: name, which begins with what the study was called by, and reason.
    pub impossible: Vec<(String, String)>,
}

pub struct SweepRun {
    /// Study and cell, for people.
    pub name: String,
    pub run: PlannedRun,
}

impl Sweep {
    pub fn of(plans: &[StudyPlan]) -> Sweep {
        let mut sweep = Sweep { runs: Vec::new(), impossible: Vec::new() };
        for plan in plans {
            for cell in &plan.cells {
                if let Some(why) = &cell.impossible {
                    let name = format!("{}: {}", plan.study.called, plan.name(cell));
                    sweep.impossible.push((name, why.clone()));
                }
                let name = format!("{}: {}", plan.study.name, plan.name(cell));
                for run in &cell.runs {
                    // Without a set its images have no names, only recipes.
                    let same_images =
                        |r: &SweepRun| run.dir.is_some() || r.run.recipe == run.recipe;
                    let known = |r: &SweepRun| r.run.config == run.config && same_images(r);
                    if let Some(known) = sweep.runs.iter().position(known) {
                        let known = &mut sweep.runs[known].run;
                        known.holdout = known.holdout.max(run.holdout);
                        continue;
                    }
                    let name = match cell.runs.len() {
                        1 => name.clone(),
                        _ => format!("{name}, seed {}", run.config.train.seed),
                    };
                    sweep.runs.push(SweepRun { name, run: run.clone() });
                }
            }
        }
        sweep
    }

    /// A line for each reason that keeps cells from being.
    pub fn describe_impossible(&self) -> Vec<String> {
        by_reason(self.impossible.iter().cloned())
    }

    /// Trains and scores what is missing, the costliest first; false if a signal stopped it: the same call goes on.
    ///
    /// # Errors
    /// Usage without a set, or with nothing to run; data (3) and diverged (5), for damaged runs and those that
    /// diverge, after all others are done; those of the runs.
    pub fn run(&self, setup: &Setup, devices: &[Device], options: &RunOptions) -> Result<bool> {
        if let (true, Some((name, why))) = (self.runs.is_empty(), self.impossible.first()) {
            return Err(usage(format!("{name}: {why}")));
        }
        let progress = Overall::new(options.quiet);
        for run in &self.runs {
            progress.expect(work(&run.run.config));
        }
        let mut order: Vec<usize> = (0..self.runs.len()).collect();
        let cost = |&i: &usize| -flop_of(&self.runs[i].run.config);
        order.sort_by(|a, b| cost(a).total_cmp(&cost(b)));
        let (damage, diverged) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
        let one = |device: &Device, i: usize| match self.one(setup, i, device, options, &progress) {
            Err(e) => {
                // The others do not need it.
                let aside = match exit_code(&e) {
                    code if code == Exit::Data as i32 => &damage,
                    code if code == Exit::Diverged as i32 => &diverged,
                    _ => return Err(e),
                };
                let said = format!("{}: {e:#}", self.runs[i].name);
                progress.note(&said);
                aside.lock().unwrap_or_else(PoisonError::into_inner).push(said);
                Ok(Some(()))
            }
            done => done,
        };
        let ended = share(devices, order.into(), &progress, &one)?.is_some();
        if !ended {
            return Ok(false);
        }
        let all = |of: Mutex<Vec<String>>| of.into_inner().unwrap_or_else(PoisonError::into_inner);
        passed_over("--runs", all(damage))?;
        match all(diverged) {
            none if none.is_empty() => Ok(true),
            diverged => Err(fail(Exit::Diverged, diverged.join("; "))),
        }
    }

    /// Trains and scores run `i` if that is missing; `None` if a signal stopped it.
    ///
    /// # Errors
    /// As [`Sweep::run`]; other (exit 1): another process works in it.
    pub(super) fn one(
        &self,
        setup: &Setup,
        i: usize,
        device: &Device,
        options: &RunOptions,
        progress: &Overall,
    ) -> Result<Option<()>> {
        let SweepRun { name, run } = &self.runs[i];
        if run.dir.is_none() {
            let scale = setup.scale.name;
            return Err(usage(format!(
                "--data: not given, and runs of scale {scale} need a set (EDM zip) to train on"
            )));
        }
        if let RunState::Done(_) = run.state() {
            progress.part(name.clone()).skip(work(&run.config));
            return Ok(Some(()));
        }
        let images = |recipe: &Recipe| setup.images(recipe);
        let mut options = options.clone();
        if run.holdout > 0 {
            options.holdout = Some(Arc::new(setup.held_out(run)?.for_run(&run.config)?));
        }
        Ok(self.runs[i].train(&images, device, &options, progress)?.map(|_| ()))
    }
}

impl SweepRun {
    /// Trains and scores what is missing of it; `None` if a signal stopped it. `images` makes those of a recipe.
    ///
    /// # Errors
    /// Data (exit 3): files that are not to be believed. As [`train_part`], and those of `images`.
    pub(super) fn train(
        &self,
        images: &dyn Fn(&Recipe) -> Result<Dataset>,
        device: &Device,
        options: &RunOptions,
        progress: &Overall,
    ) -> Result<Option<RunState>> {
        let SweepRun { name, run } = self;
        let dir = run.dir.as_ref().ok_or_else(|| usage("--data: not given"))?;
        if let RunState::Damaged(why) = run.state() {
            return Err(data(why));
        }
        let (images, part) = (images(&run.recipe)?, progress.part(name.clone()));
        let outcome = train_part(device, &run.config, &images, dir, options, Some(part))?;
        let seed = run.config.train.seed;
        let done = outcome.finished.then(|| Done::of(seed, outcome.numerics, outcome.scores));
        Ok(done.map(|done| done.map_or(RunState::Begun, RunState::Done)))
    }

    pub fn at(&self) -> Standing {
        self.run.dir.as_ref().map_or(Standing::Missing, |dir| Standing::of(&self.run.config, dir))
    }

    /// It and how far it is.
    pub fn watched(&self) -> Watched {
        Watched::planned(self.name.clone(), self.run.dir.as_deref(), &self.run.config)
    }

    /// Seconds that are left of it here on one device.
    pub fn left_s(&self, at: &Standing, rates: &MachineRates) -> Option<f64> {
        let whole = rates.seconds(&self.run.config)?;
        Some(match at {
            Standing::Missing | Standing::Damaged(_) => whole,
            Standing::Begun { share, .. } => whole * (1.0 - share),
            Standing::Done => 0.0,
        })
    }
}
