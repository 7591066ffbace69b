//! How memorization starts, of the kept curves of runs: when each run's ratio passes a level and its held-out loss turns, how
//! both grow with the training set, and where to stop.

use super::folder::RunSeen;
use crate::memorization::onset::{Counts, Law, Onset, Turn, law, onset, turn};
use crate::run::losses::{self, Losses};
use crate::run::{DataId, Evaluation, RunDir};
use anyhow::Result;

/// The ratio from which on samples are said to be copied, where nothing else is asked for.
pub const LEVEL: f64 = 0.01;

/// Settings that say how long a run is and how it is evaluated, which changes no curve, only where it ends and is seen.
const OF_LENGTH: [&str; 5] = ["epochs", "looks", "score images", "growing looks", "rescore images"];

/// What the curves of a training say, which several runs may be parts of: the first epochs do not depend on the length.
pub struct RunWhen<'a> {
    /// The longest of them.
    pub run: &'a RunSeen,
    /// With identical training images counted once, where there are any.
    pub evaluations: Vec<Evaluation>,
    pub losses: Vec<Losses>,
    /// The held-out images that these are of: one set, unless parts were measured on others.
    pub heldout: Vec<DataId>,
    /// When the ratio passes the level, in epochs.
    pub tau_mem: Onset,
    /// When the held-out loss turns, in epochs; `None` where it was not measured.
    pub tau_gen: Option<Turn>,
}

/// Runs that differ in size, seed and length alone, by size and seed.
pub struct Alike<'a> {
    /// Settings that tell them from other runs that are shown.
    pub settings: String,
    pub level: f64,
    pub runs: Vec<RunWhen<'a>>,
}

/// How τ_mem and τ_gen grow with the number of training images N, in epochs: c·N^α.
pub struct Laws {
    /// Of the runs whose ratio passed the level, if those are of two sizes at least.
    pub tau_mem: Option<Law>,
    /// Of those whose held-out loss turned.
    pub tau_gen: Option<Law>,
}

/// Where to stop training on so many images.
#[derive(Debug, Clone, PartialEq)]
pub struct Advice {
    pub images: usize,
    /// The epoch; else why there is none.
    pub epoch: Result<f64, Unknown>,
    /// The held-out loss turns before copies appear.
    pub by_loss: bool,
}

/// Why there is no advice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unknown {
    /// Copies were there at the first evaluation.
    Early,
    /// So few images an evaluation that even none of them copied may be more than the level.
    FewImages,
}

impl RunWhen<'_> {
    /// `runs`: of one training, at least one.
    fn of<'a>(runs: &[&'a RunSeen], level: f64) -> Result<RunWhen<'a>> {
        let (mut evaluations, mut losses): (Vec<Evaluation>, Vec<Losses>) = Default::default();
        let mut heldout: Vec<DataId> = Vec::new();
        for run in runs {
            let dir = RunDir::new(&run.dir);
            let distinct = dir.scores(&run.config)?.distinct.evaluations;
            let once = |l: &Evaluation| distinct.iter().find(|once| once.step == l.step).cloned();
            let new = |l: &&Evaluation| evaluations.iter().all(|known| known.step != l.step);
            let own: Vec<Evaluation> = run.evaluations.iter().filter(new).cloned().collect();
            evaluations.extend(own.into_iter().map(|l| once(&l).unwrap_or(l)));
            let measured = losses::by_step(&losses::read(&dir, &run.config)?);
            let new = |l: &Losses| losses.iter().all(|known| known.step != l.step);
            let measured: Vec<Losses> = measured.into_iter().filter(new).collect();
            losses.extend(measured);
            heldout.extend(losses::measured_on(&dir)?.filter(|id| !heldout.contains(id)));
        }
        evaluations.sort_by_key(|l| l.step);
        losses.sort_by_key(|l| l.step);
        let counts: Vec<Counts> = evaluations.iter().map(Evaluation::counts).collect();
        let tau_mem = onset(&counts, level);
        let curve: Vec<(f64, f64)> = losses.iter().map(|l| (l.epoch, l.heldout)).collect();
        let longest = runs.iter().max_by_key(|run| run.config.steps()).expect("at least one");
        let tau_gen = turn(&curve);
        Ok(RunWhen { run: longest, evaluations, losses, heldout, tau_mem, tau_gen })
    }

    pub fn size(&self) -> usize {
        self.run.config.data.images
    }

    pub fn seed(&self) -> u64 {
        self.run.config.train.seed
    }
}

/// Settings and their values.
type Key = Vec<(String, String)>;

/// Runs with evaluations, grouped; and what is wrong with those whose losses are not to be believed. `level`: a share.
pub fn when(runs: &[RunSeen], level: f64) -> (Vec<Alike<'_>>, Vec<String>) {
    // Runs of one training: alike but for their length.
    let mut trainings: Vec<(Key, Vec<&RunSeen>)> = Vec::new();
    for run in runs.iter().filter(|run| !run.evaluations.is_empty()) {
        let key = run.settings_but(&OF_LENGTH);
        let same = |(k, all): &&mut (Key, Vec<&RunSeen>)| {
            let (a, b) = (&all[0].config, &run.config);
            *k == key && a.data == b.data && a.train.seed == b.train.seed
        };
        match trainings.iter_mut().find(same) {
            Some((_, all)) => all.push(run),
            None => trainings.push((key, vec![run])),
        }
    }
    let mut groups: Vec<(Key, Vec<RunWhen>)> = Vec::new();
    let mut broken = Vec::new();
    for (key, runs) in trainings {
        match RunWhen::of(&runs, level) {
            Ok(run) => match groups.iter_mut().find(|(k, _)| *k == key) {
                Some((_, all)) => all.push(run),
                None => groups.push((key, vec![run])),
            },
            Err(e) => broken.push(format!("{e:#}")),
        }
    }
    let keys: Vec<_> = groups.iter().map(|(key, _)| key.clone()).collect();
    let differs = |(k, v): &&(String, String)| {
        keys.iter().any(|key| key.iter().any(|(l, w)| l == k && w != v))
    };
    let mut all = Vec::new();
    for (key, mut runs) in groups {
        runs.sort_by_key(|run| (run.size(), run.seed()));
        let named = key.iter().filter(differs).map(|(k, v)| format!("{k} {v}"));
        all.push(Alike { settings: named.collect::<Vec<_>>().join(", "), level, runs });
    }
    (all, broken)
}

impl<'a> Alike<'a> {
    /// The runs of each size.
    pub fn sizes(&self) -> impl Iterator<Item = &[RunWhen<'a>]> {
        self.runs.chunk_by(|a, b| a.size() == b.size())
    }

    /// Whether it is about more than one run's ratios, which are shown anyway.
    pub fn tells_more(&self) -> bool {
        self.laws().tau_mem.is_some() || self.runs.iter().any(|run| !run.losses.is_empty())
    }

    /// How many sets of held-out images its losses are of: of several, losses are not to be compared.
    pub fn holdouts(&self) -> usize {
        let mut all: Vec<&DataId> = Vec::new();
        for id in self.runs.iter().flat_map(|run| &run.heldout) {
            if !all.contains(&id) {
                all.push(id);
            }
        }
        all.len()
    }

    pub fn laws(&self) -> Laws {
        let point = |run: &RunWhen, time: Option<f64>| Some((run.size() as f64, time?));
        let passed = self.runs.iter().filter_map(|run| point(run, run.tau_mem.time));
        let turned = |run: &RunWhen| run.tau_gen.filter(|turn| turn.turned);
        let turns = self.runs.iter().filter_map(|run| point(run, Some(turned(run)?.time)));
        // A turn is somewhere between two evaluations, any time there being as likely.
        let widths =
            self.runs.iter().filter_map(turned).map(|t| (t.interval.1 / t.interval.0).ln());
        let squares: Vec<f64> = widths.map(|width| width * width / 12.0).collect();
        let known = (squares.iter().sum::<f64>() / squares.len().max(1) as f64).sqrt();
        Laws {
            tau_mem: law(&passed.collect::<Vec<_>>(), 0.0),
            tau_gen: law(&turns.collect::<Vec<_>>(), known),
        }
    }

    /// For each size the last evaluation up to which no run copies more than the level, by the 95% intervals, or at which the
    /// held-out loss turns if that is earlier.
    pub fn advice(&self) -> Vec<Advice> {
        self.sizes().map(|runs| self.advice_of(runs)).collect()
    }

    fn advice_of(&self, runs: &[RunWhen]) -> Advice {
        let below = runs.iter().map(|run| run.tau_mem.interval.0).fold(f64::INFINITY, f64::min);
        let turns = runs.iter().filter_map(|run| run.tau_gen.filter(|turn| turn.turned));
        let turned = turns.map(|turn| turn.time).fold(f64::INFINITY, f64::min);
        let unknown = runs.iter().filter(|run| run.tau_mem.interval.0 == 0.0);
        let early = |run: &RunWhen| run.evaluations[0].ratio > self.level;
        let epoch = match below > 0.0 {
            true => Ok(below.min(turned)),
            false if unknown.into_iter().any(early) => Err(Unknown::Early),
            false => Err(Unknown::FewImages),
        };
        Advice { images: runs[0].size(), epoch, by_loss: turned < below }
    }
}
