//! The effective model memorization of one setting: runs of several sizes, scored, and the size at which the
//! ratio falls through 1 − ε (Gu et al. 2023, Definition 1).

use super::answer::{Found, Measured, Trained};
use super::folder::RunSeen;
use super::outcome::{RunState, passed_over, state_of, still_rising};
use super::share::share;
use crate::data::Dataset;
use crate::data::subset::{Labels, Subset};
use crate::device::Device;
use crate::error::{Exit, data, exit_code, usage};
use crate::memorization::{Next, SizeRatio, emm_of, next_size, wilson};
use crate::run::dir::best;
use crate::run::progress::Overall;
use crate::run::scoring::Scoring;
use crate::run::train::{train_part, work};
use crate::run::{DataId, Look, Outcome, RunConfig, RunOptions};
use anyhow::Result;
use std::path::{Path, PathBuf};

/// Which training-set sizes are measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sizes {
    /// These, ascending.
    List(Vec<usize>),
    /// As few as bracket the EMM to within a factor of 1.25, between these ends.
    Between { lo: usize, hi: usize },
}

/// What is searched, and with what.
pub struct Search<'a> {
    /// The whole set, with its labels: subsets are balanced by class, whether or not the network sees it.
    pub set: &'a Dataset,
    /// The set's file, for messages.
    pub name: &'a str,
    /// Settings of every run. Its set is replaced by each subset, and its looks by what `scoring` makes of it; its seed is
    /// the first of `repeats`.
    pub config: &'a RunConfig,
    pub scoring: Scoring,
    pub sizes: Sizes,
    pub epsilon: f64,
    /// Runs of each size, with consecutive seeds.
    pub repeats: usize,
    /// Folder of runs, each named by its settings: finished ones are used, unfinished ones go on.
    pub runs: &'a Path,
    /// Runs at once: one on each device.
    pub devices: &'a [Device],
    pub options: &'a RunOptions,
}

/// Trains and scores what is missing and interpolates; `None` if a signal stopped it: finished runs stay, and
/// the same call goes on.
///
/// # Errors
/// Usage (exit 2): sizes that do not ascend or have no two images, ε outside (0, 1), no looks. Data (exit 3):
/// more images asked than there are, of a class or at all; nothing but damaged runs. Those of the runs.
pub fn find(search: &Search) -> Result<Option<Found>> {
    search.check()?;
    let progress = Overall::new(search.options.quiet);
    let (mut measured, mut damage) = (Vec::new(), Vec::new());
    match search.sizes {
        Sizes::List(ref sizes) => match search.measure(sizes, &progress, &mut damage)? {
            Some(all) => measured = all,
            None => return Ok(None),
        },
        Sizes::Between { lo, hi } => loop {
            let known: Vec<_> =
                measured.iter().map(|m: &Measured| (m.size as u64, m.ratio)).collect();
            let Next::Train(size) = next_size(&known, lo as u64, hi as u64, search.epsilon) else {
                break;
            };
            let size = balanced(size, search.set.label_dim() as u64, &known);
            match search.measure(&[size as usize], &progress, &mut damage)? {
                // Damaged: it would be asked for again and again.
                Some(none) if none.is_empty() => break,
                Some(one) => measured.extend(one),
                None => return Ok(None),
            }
        },
    }
    if measured.is_empty() {
        passed_over("--runs", std::mem::take(&mut damage))?;
    }
    measured.sort_by_key(|m| m.size);
    let ratios: Vec<SizeRatio> = measured.iter().map(Measured::of_size).collect();
    let emm = emm_of(&ratios, search.epsilon);
    let train = &search.config.train;
    let (epochs, precision) = (train.epochs, train.precision);
    Ok(Some(Found { emm, epochs, precision, sizes: measured, damage }))
}

/// A size near `size` of equally many images a class, if there is one between the known sizes around `size`;
/// else `size`. The search's first sizes are its ends and stay.
fn balanced(size: u64, classes: u64, known: &[(u64, f64)]) -> u64 {
    let below = known.iter().map(|k| k.0).filter(|&k| k < size).max();
    let above = known.iter().map(|k| k.0).filter(|&k| k > size).min();
    let (Some(below), Some(above), 2..) = (below, above, classes) else { return size };
    let down = size / classes * classes;
    let near = [down, down + classes];
    near.into_iter().find(|n| (below + 1..above).contains(n)).unwrap_or(size)
}

/// One run to be done.
struct Job {
    size: usize,
    seed: u64,
}

impl Search<'_> {
    fn check(&self) -> Result<()> {
        let (have, name) = (self.set.len(), self.name);
        if !(self.epsilon > 0.0 && self.epsilon < 1.0) {
            return Err(usage(format!("--epsilon: {} is outside (0, 1)", self.epsilon)));
        }
        if self.repeats == 0 {
            return Err(usage("--repeats: 0 runs of each size, at least 1 is needed"));
        }
        if self.config.train.seed.checked_add(self.repeats as u64 - 1).is_none() {
            return Err(usage("--seed: too large for --repeats more seeds"));
        }
        if self.config.train.looks == 0 {
            return Err(usage("--looks: 0; a search needs at least one scoring of each run"));
        }
        let (flag, sizes) = match &self.sizes {
            Sizes::List(sizes) => {
                if sizes.is_empty() {
                    return Err(usage("--sizes: names no size"));
                }
                if let Some(w) = sizes.windows(2).find(|w| w[0] >= w[1]) {
                    return Err(usage(format!(
                        "--sizes: {} after {}: sizes ascend and none is named twice",
                        w[1], w[0]
                    )));
                }
                ("--sizes", sizes.clone())
            }
            &Sizes::Between { lo, hi } if lo >= hi => {
                return Err(usage(format!(
                    "--lo: {lo} is not below --hi {hi} (the whole set unless given); --lo N, --hi N or --sizes \
                     N,N,... name others"
                )));
            }
            &Sizes::Between { lo, hi } => ("--lo, --hi", vec![lo, hi]),
        };
        if let Some(size) = sizes.iter().find(|&&s| s < 2) {
            return Err(usage(format!(
                "{flag}: {size}, but a nearest and a second nearest image need 2"
            )));
        }
        // Here rather than after the runs of smaller sizes.
        for &size in &sizes {
            if size > have {
                return Err(data(format!("{name}: has {have} images, {flag} wants {size}")));
            }
            self.prepare(&Job { size, seed: 0 })?;
        }
        Ok(())
    }

    /// The run of a job and its images.
    fn prepare(&self, job: &Job) -> Result<(RunConfig, Dataset)> {
        let subset = Subset {
            size: job.size,
            classes: None,
            class: None,
            blend: None,
            labels: Labels::Keep,
            resolution: None,
            seed: job.seed,
        };
        let mut images = subset.of(self.set, self.name)?;
        let mut config = self.config.clone();
        if config.model.label_dim == 0 {
            images.labels = None;
        }
        config.train.seed = job.seed;
        config.data = DataId::of(&images);
        self.scoring.settle(&mut config);
        Ok((config, images))
    }

    /// Runs of these sizes, several at once; `None` if a signal stopped them. What is wrong with damaged ones goes to
    /// `damage`; a size without any other is left out.
    fn measure(
        &self,
        sizes: &[usize],
        progress: &Overall,
        damage: &mut Vec<String>,
    ) -> Result<Option<Vec<Measured>>> {
        let first = self.config.train.seed;
        let seeds = || (0..self.repeats as u64).map(move |r| first + r);
        let jobs: Vec<Job> =
            sizes.iter().flat_map(|&size| seeds().map(move |seed| Job { size, seed })).collect();
        for job in &jobs {
            let mut config = self.config.clone();
            config.data.images = job.size;
            self.scoring.settle(&mut config);
            progress.expect(work(&config));
        }
        let train = |device: &Device, i: usize| {
            let job = &jobs[i];
            let (config, images) = self.prepare(job)?;
            let dir = self.runs.join(config.id());
            let name = match self.repeats {
                1 => format!("N = {}", job.size),
                _ => format!("N = {}, seed {}", job.size, job.seed),
            };
            if let RunState::Damaged(why) = state_of(&config, &dir) {
                return Ok(Some(Err(why)));
            }
            let part = Some(progress.part(name));
            match train_part(device, &config, &images, &dir, self.options, part) {
                Err(e) if exit_code(&e) == Exit::Data as i32 => Ok(Some(Err(format!("{e:#}")))),
                Err(e) => Err(e),
                Ok(outcome) => Ok(outcome.finished.then_some(Ok((job.seed, dir, outcome)))),
            }
        };
        // The largest first: what is left for the end is short.
        let order = (0..jobs.len()).rev().collect();
        let Some(done) = share(self.devices, order, progress, &train)? else { return Ok(None) };
        let mut done = done.into_iter();
        let mut measured = Vec::new();
        for &size in sizes {
            let mut runs = Vec::new();
            for run in done.by_ref().take(self.repeats) {
                match run {
                    Ok(run) => runs.push(run),
                    Err(why) => damage.push(why),
                }
            }
            if !runs.is_empty() {
                measured.push(summary(size, &runs)?);
            }
        }
        Ok(Some(measured))
    }
}

/// What the runs of one size say together: seed, folder and outcome of each.
fn summary(size: usize, runs: &[(u64, PathBuf, Outcome)]) -> Result<Measured> {
    let outcomes = || runs.iter().map(|(_, _, outcome)| outcome);
    let value = |outcome| Outcome::value(outcome).expect("a search trains with looks");
    let values: Vec<&Look> = outcomes().map(value).collect();
    let distinct: Vec<&Look> = outcomes().filter_map(Outcome::value_distinct).collect();
    let count = runs.len() as f64;
    let mean = |looks: &[&Look]| looks.iter().map(|l| l.ratio).sum::<f64>() / count;
    let curve: Vec<(f64, f64)> = (runs[0].2.looks.iter().enumerate())
        .map(|(k, look)| (look.epoch, outcomes().map(|o| o.looks[k].ratio).sum::<f64>() / count))
        .collect();
    let best_epoch = match runs {
        [(_, _, only)] => best(&only.looks).map(|l| l.epoch),
        _ => curve.iter().copied().reduce(|a, b| if b.1 > a.1 { b } else { a }).map(|h| h.0),
    };
    let memorized = values.iter().map(|l| l.memorized).sum();
    let at_look = |k: usize| {
        let looks = || outcomes().map(|o| &o.looks[k]);
        wilson(looks().map(|l| l.memorized).sum(), looks().map(|l| l.images).sum())
    };
    let trained = |((seed, dir, _), look): (&(u64, PathBuf, Outcome), &&Look)| {
        let seen = RunSeen::read(dir)?;
        Ok(Trained { seed: *seed, ratio: look.ratio, dir: dir.clone(), seen })
    };
    let trained: Result<Vec<Trained>> = runs.iter().zip(&values).map(trained).collect();
    let repeats = outcomes().map(|o| o.distinct.repeats).max().unwrap_or(0);
    Ok(Measured {
        size,
        ratio: mean(&values),
        interval: wilson(memorized, values.iter().map(|l| l.images).sum()),
        looks: curve.len(),
        best_epoch: best_epoch.unwrap_or(0.0),
        curve_intervals: (0..curve.len()).map(at_look).collect(),
        curve,
        rising: outcomes().any(|outcome| still_rising(&outcome.looks)),
        reference_duplicates: repeats,
        ratio_distinct: match repeats {
            0 => Some(mean(&values)),
            _ => (distinct.len() == runs.len()).then(|| mean(&distinct)),
        },
        runs: trained?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_between_known_ones_are_balanced() {
        let known = [(40, 1.0), (80, 0.5)];
        assert_eq!(balanced(57, 10, &known), 50);
        assert_eq!(balanced(48, 10, &known), 50, "40 is known");
        assert_eq!(balanced(57, 0, &known), 57);
        assert_eq!(balanced(160, 100, &known), 160, "doubling is not touched");
        assert_eq!(balanced(44, 10, &[(40, 1.0), (50, 0.5)]), 44, "nothing balanced is new");
        assert_eq!(balanced(20, 10, &[]), 20);
    }
}
