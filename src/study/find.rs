//! The effective model memorization of one setting: runs of several sizes, scored, and the size at which the
//! ratio falls through 1 − ε (Gu et al. 2023, Definition 1).

use super::share::share;
use crate::data::Dataset;
use crate::data::subset::{Labels, Subset};
use crate::device::Device;
use crate::error::{data, usage};
use crate::memorization::{Bracket, Emm, Next, Side, emm_of, next_size, wilson};
use crate::run::dir::best;
use crate::run::progress::Overall;
use crate::run::train::{train_part, work};
use crate::run::{DataId, Look, Outcome, RunConfig, RunOptions};
use anyhow::Result;
use serde_json::{Value, json};
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
    /// Settings of every run. Its set is replaced by each subset; its seed is the first of `repeats`.
    pub config: &'a RunConfig,
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

/// The runs of one size.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    pub size: usize,
    /// Mean over the runs of each one's value: of its best look, scored again with fresh seeds where the
    /// settings ask for that.
    pub ratio: f64,
    /// 95% Wilson interval over all images of these values: what other samples would change.
    pub interval: [f64; 2],
    /// Looks that the best was chosen from.
    pub looks: usize,
    /// Where the curve is highest.
    pub best_epoch: f64,
    /// (epoch, ratio) of each look, mean over the runs.
    pub curve: Vec<(f64, f64)>,
    pub runs: Vec<Trained>,
}

/// One finished run.
#[derive(Debug, Clone, PartialEq)]
pub struct Trained {
    pub seed: u64,
    pub ratio: f64,
    pub dir: PathBuf,
}

/// What a search found.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    pub emm: Emm,
    /// Ascending sizes.
    pub sizes: Vec<Measured>,
}

/// Trains and scores what is missing and interpolates; `None` if a signal stopped it: finished runs stay, and
/// the same call goes on.
///
/// # Errors
/// Usage (exit 2): sizes that do not ascend or have no two images, ε outside (0, 1), no looks. Data (exit 3):
/// more images asked than there are, of a class or at all. Those of the runs.
pub fn find(search: &Search) -> Result<Option<Found>> {
    search.check()?;
    let progress = Overall::new(search.options.quiet);
    let mut measured = Vec::new();
    match search.sizes {
        Sizes::List(ref sizes) => match search.measure(sizes, &progress)? {
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
            match search.measure(&[size as usize], &progress)? {
                Some(one) => measured.extend(one),
                None => return Ok(None),
            }
        },
    }
    measured.sort_by_key(|m| m.size);
    let pairs: Vec<_> = measured.iter().map(|m| (m.size as u64, m.ratio)).collect();
    Ok(Some(Found { emm: emm_of(&pairs, search.epsilon), sizes: measured }))
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
                return Err(usage(format!("--lo: {lo} is not below --hi {hi}")));
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
        Ok((config, images))
    }

    /// Runs of these sizes, several at once; `None` if a signal stopped them.
    fn measure(&self, sizes: &[usize], progress: &Overall) -> Result<Option<Vec<Measured>>> {
        let first = self.config.train.seed;
        let seeds = || (0..self.repeats as u64).map(move |r| first + r);
        let jobs: Vec<Job> =
            sizes.iter().flat_map(|&size| seeds().map(move |seed| Job { size, seed })).collect();
        for job in &jobs {
            let mut config = self.config.clone();
            config.data.images = job.size;
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
            let part = Some(progress.part(name));
            let outcome = train_part(device, &config, &images, &dir, self.options, part)?;
            Ok(outcome.finished.then_some((dir, outcome)))
        };
        // The largest first: what is left for the end is short.
        let order = (0..jobs.len()).rev().collect();
        let Some(done) = share(self.devices, order, progress, &train)? else { return Ok(None) };
        let all = sizes.iter().zip(done.chunks(self.repeats));
        Ok(Some(all.map(|(&size, runs)| self.summary(size, runs)).collect()))
    }

    /// What the runs of one size say together.
    fn summary(&self, size: usize, runs: &[(PathBuf, Outcome)]) -> Measured {
        let values: Vec<&Look> = runs.iter().map(|(_, outcome)| value(outcome)).collect();
        let count = runs.len() as f64;
        let curve: Vec<(f64, f64)> = (runs[0].1.looks.iter().enumerate())
            .map(|(k, look)| {
                let ratios = runs.iter().map(|(_, outcome)| outcome.looks[k].ratio);
                (look.epoch, ratios.sum::<f64>() / count)
            })
            .collect();
        let highest = curve.iter().copied().reduce(|a, b| if b.1 > a.1 { b } else { a });
        let memorized = values.iter().map(|l| l.memorized).sum();
        let trained = runs.iter().zip(&values).enumerate();
        Measured {
            size,
            ratio: values.iter().map(|l| l.ratio).sum::<f64>() / count,
            interval: wilson(memorized, values.iter().map(|l| l.images).sum()),
            looks: curve.len(),
            best_epoch: highest.map_or(0.0, |h| h.0),
            curve,
            runs: trained
                .map(|(r, ((dir, _), look))| Trained {
                    seed: self.config.train.seed + r as u64,
                    ratio: look.ratio,
                    dir: dir.clone(),
                })
                .collect(),
        }
    }
}

/// The value of a finished run: its best look, as scored again if it was.
fn value(outcome: &Outcome) -> &Look {
    let best = best(&outcome.looks).expect("a search trains with at least one look");
    outcome.rescored.as_ref().unwrap_or(best)
}

impl Found {
    /// The sizes around the EMM.
    pub fn bracket(&self) -> Option<[u64; 2]> {
        self.emm.found.as_ref().ok().map(|(_, b)| [b.lo.0, b.hi.0])
    }

    /// The object of `results.json`.
    pub fn json(&self) -> Value {
        let violations: Vec<_> = self.emm.violations.iter().map(|b| [b.lo.0, b.hi.0]).collect();
        json!({
            "epsilon": self.emm.epsilon,
            "emm": self.emm.found.as_ref().ok().map(|f| f.0),
            "bracket": self.bracket(),
            "sizes": self.sizes.iter().map(Measured::json).collect::<Vec<_>>(),
            "outside": self.emm.found.as_ref().err(),
            "violations": violations,
        })
    }

    /// The answer in one sentence.
    pub fn sentence(&self) -> String {
        let e = self.emm.epsilon;
        let level = trimmed(100.0 * (1.0 - e));
        let size = |m: Option<&Measured>| m.map_or(0, |m| m.size);
        match &self.emm.found {
            Ok((n, b)) => format!(
                "EMM(ε = {e}) ≈ {n:.0} images: the ratio falls through {level}% between {} and {} images",
                b.lo.0, b.hi.0
            ),
            Err(Side::Below) => format!(
                "EMM(ε = {e}) not bracketed: every ratio is below {level}%, so it lies below {} images",
                size(self.sizes.first())
            ),
            Err(Side::Above) => format!(
                "EMM(ε = {e}) not bracketed: {} images are still memorized to {level}%, so it is at least that",
                size(self.sizes.last())
            ),
        }
    }

    /// A sentence for each pair of sizes that speaks against a falling ratio.
    pub fn warnings(&self) -> Vec<String> {
        let end = |size, end: usize| {
            self.sizes.iter().find(|m| m.size as u64 == size).map(|m| m.interval[end])
        };
        let one = |b: &Bracket| {
            let doubt = match end(b.hi.0, 0) <= end(b.lo.0, 1) {
                true => "; their intervals overlap",
                false => "",
            };
            format!(
                "the ratio rises from {:.2}% at {} to {:.2}% at {} images, against the hypothesis that it \
                 falls{doubt}",
                100.0 * b.lo.1,
                b.lo.0,
                100.0 * b.hi.1,
                b.hi.0
            )
        };
        self.emm.violations.iter().map(one).collect()
    }
}

/// 90 rather than 90.00000000000001.
fn trimmed(percent: f64) -> f64 {
    (percent * 1e6).round() / 1e6
}

impl Measured {
    /// Lowest and highest ratio of the size's runs.
    pub fn spread(&self) -> [f64; 2] {
        let ratios = || self.runs.iter().map(|r| r.ratio);
        [ratios().fold(f64::INFINITY, f64::min), ratios().fold(f64::NEG_INFINITY, f64::max)]
    }

    fn json(&self) -> Value {
        let run = |r: &Trained| json!({"seed": r.seed, "ratio": r.ratio, "run": r.dir.display().to_string()});
        json!({
            "size": self.size,
            "ratio": self.ratio,
            "interval": self.interval,
            "looks": self.looks,
            "best_epoch": self.best_epoch,
            "curve": self.curve.iter().map(|&(e, r)| [e, r]).collect::<Vec<_>>(),
            "spread": self.spread(),
            "runs": self.runs.iter().map(run).collect::<Vec<_>>(),
        })
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
