//! How memorization starts, of the kept curves of runs: when each run's ratio passes a level and its held-out loss turns, how
//! both grow with the training set, and where to stop.

use super::folder::RunSeen;
use crate::memorization::onset::{Counts, Law, Onset, Turn, law, onset, turn};
use crate::run::RunDir;
use crate::run::losses::{self, Losses};
use anyhow::Result;

/// The ratio from which on samples are said to be copied, where nothing else is asked for.
pub const LEVEL: f64 = 0.01;

/// Settings that say how long a run is and how it is evaluated, which changes no curve, only where it ends and is seen.
const OF_LENGTH: [&str; 5] = ["epochs", "looks", "score images", "growing looks", "rescore images"];

/// What a run's curves say.
pub struct RunWhen<'a> {
    pub run: &'a RunSeen,
    /// When the ratio passes the level, in epochs.
    pub tau_mem: Onset,
    /// When the held-out loss turns, in epochs; `None` where it was not measured.
    pub tau_gen: Option<Turn>,
    pub losses: Vec<Losses>,
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
    fn of(run: &RunSeen, level: f64) -> Result<RunWhen<'_>> {
        let rows = losses::read(&RunDir::new(&run.dir), &run.config)?;
        let losses = losses::by_step(&rows);
        let counts = run.evaluations.iter().map(|l| Counts {
            time: l.epoch,
            memorized: l.memorized,
            images: l.images,
        });
        let tau_mem = onset(&counts.collect::<Vec<_>>(), level);
        let heldout: Vec<(f64, f64)> = losses.iter().map(|l| (l.epoch, l.heldout)).collect();
        Ok(RunWhen { run, tau_mem, tau_gen: turn(&heldout), losses })
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
    let mut groups: Vec<(Key, Vec<RunWhen>)> = Vec::new();
    let mut broken = Vec::new();
    for run in runs.iter().filter(|run| !run.evaluations.is_empty()) {
        let key = run.settings_but(&OF_LENGTH);
        match RunWhen::of(run, level) {
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

    pub fn laws(&self) -> Laws {
        let points = |of: &dyn Fn(&RunWhen) -> Option<f64>| {
            let point = |run: &RunWhen| Some((run.size() as f64, of(run).filter(|t| *t > 0.0)?));
            law(&self.runs.iter().filter_map(point).collect::<Vec<_>>())
        };
        Laws {
            tau_mem: points(&|run| run.tau_mem.time),
            tau_gen: points(&|run| run.tau_gen.filter(|turn| turn.turned).map(|turn| turn.time)),
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
        let early = |run: &RunWhen| run.run.evaluations[0].ratio > self.level;
        let epoch = match below > 0.0 {
            true => Ok(below.min(turned)),
            false if unknown.into_iter().any(early) => Err(Unknown::Early),
            false => Err(Unknown::FewImages),
        };
        Advice { images: runs[0].size(), epoch, by_loss: turned < below }
    }
}
