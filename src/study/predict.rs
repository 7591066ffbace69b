//! The EMM of a long training from short ones: the time at which the ratio passes 1 − ε grows with the training set as a power of
//! its size ([`onset`](crate::memorization::onset)), and the EMM is the size at which that time is the length of training.
//!
//! A run's first epochs do not depend on how long it is, so what short runs say is what long ones would have said there.

use super::find::{EmmSearch, Sizes, find};
use crate::memorization::onset::{Counts, Law, Onset, law, onset};
use crate::run::Evaluation;
use crate::run::scoring::Scoring;
use anyhow::Result;

/// Shares of the length that is asked for, at which short runs are scored; each goes on from the one before it.
const SHARES: [f64; 6] = [1.0 / 64.0, 1.0 / 32.0, 1.0 / 16.0, 1.0 / 8.0, 1.0 / 4.0, 1.0 / 2.0];
/// Sizes from the first one on, each √2 times the one before it.
const SIZES: usize = 7;
/// A law needs as many sizes that passed the level.
const LEAST: usize = 3;
/// Of a short run: the level is met to within some percent, which its time hardly feels.
const SCORING: Scoring =
    Scoring { evaluations: Some(8), score_images: Some(100), rescore_images: Some(0) };

/// A size and training seed, followed until its ratio passed the level.
#[derive(Debug, Clone, PartialEq)]
pub struct Short {
    pub size: usize,
    pub seed: u64,
    pub onset: Onset,
    /// Trained for, and the ratio at the end.
    pub epochs: f64,
    pub ratio: f64,
}

/// What short runs say of long ones.
#[derive(Debug, Clone, PartialEq)]
pub struct Predicted {
    pub epsilon: f64,
    /// The length that is asked for.
    pub epochs: f64,
    pub shorts: Vec<Short>,
    /// Of the epoch at which the ratio passes 1 − ε, over the training images.
    pub law: Option<Law>,
    /// Training images.
    pub emm: Result<f64, Unpredicted>,
    /// 95%; an end is `None` where the law bounds nothing.
    pub interval: [Option<f64>; 2],
    /// Images that the short runs were trained on, one after the other.
    pub seen_images: f64,
    /// What is wrong with damaged runs, which were passed over.
    pub damage: Vec<String>,
}

/// Why there is no prediction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unpredicted {
    /// So few sizes passed the level in half of the length.
    FewSizes(usize),
    /// More images are not shown to take longer.
    NotGrowing,
}

/// The sizes of short runs: from `first` on, where there are labels the nearest multiples of the number of classes.
fn ladder(first: usize, classes: usize, most: usize) -> Vec<usize> {
    let size = |k: usize| {
        let unit = if classes > 1 && first.is_multiple_of(classes) { classes } else { 1 };
        (first as f64 * 2f64.powf(k as f64 / 2.0) / unit as f64).round() as usize * unit
    };
    let mut all: Vec<usize> = (0..SIZES).map(size).filter(|&n| n <= most).collect();
    all.dedup();
    all
}

/// Trains short runs of sizes from the search's first one on and predicts; `None` if a signal stopped it: the same call goes on.
/// The search's sizes, length and scoring are replaced on the way.
///
/// # Errors
/// As of [`find`](super::find()).
pub fn predict(search: &mut EmmSearch) -> Result<Option<Predicted>> {
    let (epochs, sizes) = (search.config.train.epochs, search.sizes.climbed());
    let (first, most) = (sizes[0], sizes[sizes.len() - 1]);
    search.scoring = SCORING;
    let (mut shorts, mut damage) = (Vec::new(), Vec::new());
    let mut from = 0;
    for size in ladder(first, search.set.label_dim(), most) {
        search.sizes = Sizes::List(vec![size]);
        let mut runs: Vec<(u64, Vec<Counts>)> = Vec::new();
        let mut at = from;
        loop {
            search.config.train.epochs = SHARES[at] * epochs;
            let Some(found) = find(search)? else { return Ok(None) };
            damage.extend(found.damage);
            for run in found.sizes.iter().flat_map(|of_size| &of_size.runs) {
                let counts = run.evaluations.iter().map(Evaluation::counts);
                let seed = run.config.train.seed;
                match runs.iter_mut().find(|(known, _)| *known == seed) {
                    Some((_, all)) => {
                        let last = all.last().map_or(0.0, |last| last.time);
                        all.extend(counts.filter(|c| c.time > last));
                    }
                    None => runs.push((seed, counts.collect())),
                }
            }
            let passed =
                runs.iter().all(|(_, all)| onset(all, 1.0 - search.epsilon).time.is_some());
            if passed || at + 1 == SHARES.len() {
                break;
            }
            at += 1;
        }
        let short = |(seed, all): (u64, Vec<Counts>)| {
            let last = all.last().copied();
            Short {
                size,
                seed,
                onset: onset(&all, 1.0 - search.epsilon),
                epochs: search.config.train.epochs,
                ratio: last.map_or(f64::NAN, |l| l.memorized as f64 / l.images as f64),
            }
        };
        let of_size: Vec<Short> = runs.into_iter().map(short).collect();
        let late = of_size.iter().any(|short| short.onset.time.is_none());
        // More images take no less long.
        let earliest =
            of_size.iter().filter_map(|short| short.onset.time).fold(f64::INFINITY, f64::min);
        from = (0..at).rev().find(|&k| SHARES[k] * epochs < earliest).unwrap_or(0);
        shorts.extend(of_size);
        if late {
            break;
        }
    }
    Ok(Some(concluded(search.epsilon, epochs, shorts, damage)))
}

fn concluded(epsilon: f64, epochs: f64, shorts: Vec<Short>, damage: Vec<String>) -> Predicted {
    let passed: Vec<(f64, f64)> =
        shorts.iter().filter_map(|s| Some((s.size as f64, s.onset.time?))).collect();
    let mut sizes: Vec<f64> = passed.iter().map(|p| p.0).collect();
    sizes.dedup();
    let law = law(&passed, 0.0).filter(|_| sizes.len() >= LEAST);
    let (emm, interval) = match &law {
        None => (Err(Unpredicted::FewSizes(sizes.len())), [None, None]),
        // What may as well fall reaches no length.
        Some(law) if !law.interval.is_some_and(|[low, _]| low > 0.0) => {
            (Err(Unpredicted::NotGrowing), [None, None])
        }
        Some(law) => {
            let (emm, interval) = law.reaches(epochs);
            (emm.ok_or(Unpredicted::NotGrowing), interval)
        }
    };
    let seen_images = shorts.iter().map(|s| s.epochs * s.size as f64).sum();
    Predicted { epsilon, epochs, shorts, law, emm, interval, seen_images, damage }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn short(size: usize, time: Option<f64>) -> Short {
        let onset = Onset { time, interval: (0.0, time) };
        Short { size, seed: 1, onset, epochs: 100.0, ratio: 0.95 }
    }

    #[test]
    fn the_emm_is_where_the_law_reaches_the_length() {
        let time = |n: usize| Some(2.0 * n as f64);
        let shorts = [10, 14, 20, 28].map(|n| short(n, time(n))).to_vec();
        let found = concluded(0.1, 400.0, shorts.clone(), vec![]);
        assert!((found.emm.unwrap() - 200.0).abs() < 1e-6, "{found:?}");
        assert_eq!(found.seen_images, 7200.0);
        let few = concluded(0.1, 400.0, shorts[..2].to_vec(), vec![]);
        assert_eq!((few.emm, few.law), (Err(Unpredicted::FewSizes(2)), None));
        let falling = [10, 14, 20].map(|n| short(n, Some(100.0 / n as f64))).to_vec();
        assert_eq!(concluded(0.1, 400.0, falling, vec![]).emm, Err(Unpredicted::NotGrowing));
        // What did not pass is in no law.
        let late = [shorts, vec![short(40, None)]].concat();
        assert!((concluded(0.1, 400.0, late, vec![]).emm.unwrap() - 200.0).abs() < 1e-6);
    }

    #[test]
    fn sizes_grow_by_the_root_of_two() {
        assert_eq!(ladder(10, 0, 1000), [10, 14, 20, 28, 40, 57, 80]);
        assert_eq!(ladder(20, 10, 1000), [20, 30, 40, 60, 80, 110, 160]);
        assert_eq!(ladder(25, 10, 60), [25, 35, 50]);
        assert_eq!(ladder(10, 0, 30), [10, 14, 20, 28]);
    }
}
