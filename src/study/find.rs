//! The effective model memorization of one setting: a study with the axis `size`, and the size at which the ratio falls
//! through 1 − ε (Gu et al. 2023, Definition 1).

use super::folder::RunSeen;
use super::longer::Known;
use super::outcome::{Measured, RunState, Seen, passed_over};
use super::plan::{PlannedRun, StudyPlan};
use super::scale::Scale;
use super::settings::Recipe;
use super::share::share;
use super::spec::Study;
use super::sweep::SweepRun;
use crate::data::Dataset;
use crate::data::subset::Labels;
use crate::device::Device;
use crate::error::{Exit, data, exit_code, usage};
use crate::memorization::{Counted, Emm, NextSize, emm_interval, emm_of, next_size};
use crate::run::progress::Overall;
use crate::run::scoring::Scoring;
use crate::run::train::work;
use crate::run::{DataId, Precision, RunConfig, RunOptions};
use anyhow::Result;
use std::path::Path;

/// Which training-set sizes are measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sizes {
    /// These, ascending.
    List(Vec<usize>),
    /// As few as bracket the EMM to within a factor of 1.25, between these ends.
    Between { lo: usize, hi: usize },
}

impl Sizes {
    /// Those named; between two ends doublings of the one, and the other.
    pub fn climbed(&self) -> Vec<usize> {
        match self {
            Sizes::List(sizes) => sizes.clone(),
            &Sizes::Between { lo, hi } => {
                let doubled = std::iter::successors(Some(lo), |n| n.checked_mul(2));
                doubled.take_while(|&n| n < hi).chain([hi]).collect()
            }
        }
    }
}

/// What is searched, and with what.
pub struct EmmSearch<'a> {
    /// The whole set, with its labels: subsets are balanced by class, whether or not the network sees it.
    pub set: &'a Dataset,
    /// The set's file, for messages.
    pub name: &'a str,
    /// Settings of every run. Its set is replaced by each subset, and its evaluations by what `scoring` makes of it; its seed is
    /// the first of `repeats`.
    pub config: RunConfig,
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

/// What a search found.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    pub emm: Emm,
    /// Its 95% interval, an end `None` where it is not bracketed ([`emm_interval`]).
    pub interval: [Option<f64>; 2],
    /// Length of each run.
    pub epochs: f64,
    /// What the runs were computed in.
    pub precision: Precision,
    /// Ascending sizes.
    pub sizes: Vec<OfSize>,
    /// What is wrong with damaged runs, which were passed over.
    pub damage: Vec<String>,
}

/// The cell of a size.
#[derive(Debug, Clone, PartialEq)]
pub struct OfSize {
    pub size: usize,
    pub found: Measured,
    /// Its finished runs as they lie there: settings and time.
    pub runs: Vec<RunSeen>,
}

impl OfSize {
    /// Copies and images of each run's value.
    fn counted(&self) -> Counted {
        let values = self.runs.iter().filter_map(|run| run.done.as_ref().map(|done| &done.value));
        let runs = values.map(|value| (value.memorized, value.images)).collect();
        Counted { size: self.size as u64, runs, rising: self.found.rising }
    }
}

impl Found {
    /// The sizes around the EMM.
    pub fn bracket(&self) -> Option<[u64; 2]> {
        self.emm.found.as_ref().ok().map(|(_, b)| [b.lo.0, b.hi.0])
    }

    /// All runs, size by size.
    pub fn runs(&self) -> Vec<&RunSeen> {
        self.sizes.iter().flat_map(|m| &m.runs).collect()
    }
}

/// Trains and scores what is missing and interpolates; `None` if a signal stopped it: finished runs stay, and
/// the same call goes on.
///
/// # Errors
/// Usage (exit 2): sizes that do not ascend or have no two images, ε outside (0, 1), no evaluations. Data (exit 3):
/// more images asked than there are, of a class or at all; nothing but damaged runs. Those of the runs.
pub fn find(search: &EmmSearch) -> Result<Option<Found>> {
    let progress = Overall::new(search.options.quiet);
    let plan = search.check()?;
    let (mut sizes, mut damage) = (Vec::new(), Vec::new());
    match search.sizes {
        Sizes::List(_) => match search.measure(&plan, &progress, &mut damage)? {
            Some(all) => sizes = all,
            None => return Ok(None),
        },
        Sizes::Between { lo, hi } => loop {
            let known: Vec<_> =
                sizes.iter().map(|m: &OfSize| (m.size as u64, m.found.ratio)).collect();
            let NextSize::Train(size) = next_size(&known, lo as u64, hi as u64, search.epsilon)
            else {
                break;
            };
            let size = balanced(size, search.set.label_dim() as u64, &known);
            match search.measure(&search.plan(&[size as usize])?, &progress, &mut damage)? {
                // Damaged: it would be asked for again and again.
                Some(none) if none.is_empty() => break,
                Some(one) => sizes.extend(one),
                None => return Ok(None),
            }
        },
    }
    if sizes.is_empty() {
        passed_over("--runs", std::mem::take(&mut damage))?;
    }
    sizes.sort_by_key(|m| m.size);
    let ratios: Vec<_> = sizes.iter().map(|m| m.found.at_size(m.size as u64)).collect();
    let emm = emm_of(&ratios, search.epsilon);
    let counted: Vec<Counted> = sizes.iter().map(OfSize::counted).collect();
    let interval = emm_interval(&counted, search.epsilon);
    let train = &search.config.train;
    let (epochs, precision) = (train.epochs, train.precision);
    Ok(Some(Found { emm, interval, epochs, precision, sizes, damage }))
}

/// A size near `size` of equally many images a class, if there is one between the known sizes around `size`;
/// else `size`. The search's first sizes are its ends and stay.
pub(super) fn balanced(size: u64, classes: u64, known: &[(u64, f64)]) -> u64 {
    let below = known.iter().map(|k| k.0).filter(|&k| k < size).max();
    let above = known.iter().map(|k| k.0).filter(|&k| k > size).min();
    let (Some(below), Some(above), 2..) = (below, above, classes) else { return size };
    let down = size / classes * classes;
    let near = [down, down + classes];
    near.into_iter().find(|n| (below + 1..above).contains(n)).unwrap_or(size)
}

impl EmmSearch<'_> {
    /// That it can be searched; the study of the sizes that it names.
    pub fn check(&self) -> Result<StudyPlan> {
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
            return Err(usage("--evaluations: 0; a search needs at least one scoring of each run"));
        }
        let sizes = match &self.sizes {
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
                sizes.clone()
            }
            &Sizes::Between { lo, hi } if lo >= hi => {
                return Err(usage(format!(
                    "--lo: {lo} is not below --hi {hi} (if not given, all images, or as many as are balanced by \
                     class); --lo N, --hi N or --sizes N,N,... name others"
                )));
            }
            &Sizes::Between { lo, hi } => vec![lo, hi],
        };
        if let Some(size) = sizes.iter().find(|&&s| s < 2) {
            return Err(usage(format!(
                "{}: {size}, but a nearest and a second nearest image need 2",
                self.flag(*size)
            )));
        }
        // Here rather than after the runs of smaller sizes.
        self.plan(&sizes)
    }

    /// Settings of the runs that are not done and may be at once: those of all sizes named, or of one of a bracket's, the last.
    ///
    /// # Errors
    /// As of [`find`], before it trains.
    pub fn at_once(&self) -> Result<Vec<RunConfig>> {
        let plan = self.check()?;
        let cells = match self.sizes {
            Sizes::List(_) => &plan.cells[..],
            Sizes::Between { .. } => &plan.cells[plan.cells.len() - 1..],
        };
        let left = cells.iter().flat_map(|c| &c.runs).filter(|run| run.state().done().is_none());
        Ok(left.map(|run| run.config.clone()).collect())
    }

    /// What names this size.
    fn flag(&self, size: usize) -> &'static str {
        match self.sizes {
            Sizes::List(_) => "--sizes",
            Sizes::Between { lo, .. } if size == lo => "--lo",
            Sizes::Between { .. } => "--hi",
        }
    }

    /// The images of a recipe.
    fn images(&self, recipe: &Recipe) -> Result<Dataset> {
        recipe.of((self.set, self.name), None)
    }

    /// The study of these sizes.
    pub(super) fn plan(&self, sizes: &[usize]) -> Result<StudyPlan> {
        let labels = match self.config.model.label_dim {
            0 => Labels::None,
            _ => Labels::Keep,
        };
        let (have, name) = (self.set.len(), self.name);
        let runs = |at: &[usize]| {
            let size = sizes[at[0]];
            if size > have {
                let flag = self.flag(size);
                return Err(data(format!("{name}: has {have} images, {flag} wants {size}")));
            }
            let recipe = Recipe::of_size(size, labels);
            let data = DataId::of(&self.images(&recipe)?);
            let run = |repeat: usize| {
                let mut config = self.config.clone();
                config.train.seed += repeat as u64;
                config.data = data.clone();
                self.scoring.settle(&mut config);
                let dir = Some(self.runs.join(config.id()));
                PlannedRun { config, recipe: recipe.clone(), holdout: 0, dir }
            };
            Ok(Ok((0..self.repeats).map(run).collect()))
        };
        StudyPlan::of(&Study::of_sizes(sizes), Scale::PAPER, self.set.resolution, name, &runs)
    }

    /// Trains and scores what is missing of a run, from where a shorter one of `known` has come; `None` if a signal stopped it.
    fn train(
        &self,
        run: &SweepRun,
        known: &Known,
        device: &Device,
        progress: &Overall,
    ) -> Result<Option<RunState>> {
        let (config, options) = (&run.run.config, self.options);
        if let Some(dir) = &run.run.dir
            && let Some((from, taken)) = known.ready(device, dir, config, self.scoring, options)?
        {
            let from = from.display().to_string();
            progress.note(&format!("{}  {}", run.name, taken.said(&from)));
        }
        run.train(&|recipe: &Recipe| self.images(recipe), device, self.options, progress)
    }

    /// The runs of a plan, several at once; `None` if a signal stopped them. What is wrong with damaged ones goes to
    /// `damage`; a size without any other is left out.
    fn measure(
        &self,
        plan: &StudyPlan,
        progress: &Overall,
        damage: &mut Vec<String>,
    ) -> Result<Option<Vec<OfSize>>> {
        let named = |run: &PlannedRun| {
            let (size, seed) = (run.recipe.size, run.config.train.seed);
            let name = match self.repeats {
                1 => format!("N = {size}"),
                _ => format!("N = {size}, seed {seed}"),
            };
            SweepRun { name, run: run.clone() }
        };
        let runs: Vec<SweepRun> = plan.cells.iter().flat_map(|c| &c.runs).map(named).collect();
        runs.iter().for_each(|r| progress.expect(work(&r.run.config)));
        let known = Known::runs_in(self.runs);
        let train = |device: &Device, i: usize| match self.train(&runs[i], &known, device, progress)
        {
            Err(e) if exit_code(&e) == Exit::Data as i32 => {
                Ok(Some(RunState::Damaged(format!("{e:#}"))))
            }
            other => other,
        };
        // The largest first: what is left for the end is short.
        let order = (0..runs.len()).rev().collect();
        let Some(states) = share(self.devices, order, progress, &train)? else { return Ok(None) };
        let mut states = states.into_iter();
        let mut measured = Vec::new();
        for cell in &plan.cells {
            let seen = Seen::of(states.by_ref().take(cell.runs.len()).collect());
            damage.extend(seen.damage());
            let dirs = cell.runs_finished(&seen, true).filter_map(|run| run.dir.as_deref());
            let runs = dirs.map(RunSeen::read).collect::<Result<Vec<_>>>()?;
            let size = cell.runs[0].recipe.size;
            measured.extend(seen.found.map(|found| OfSize { size, found, runs }));
        }
        Ok(Some(measured))
    }
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
