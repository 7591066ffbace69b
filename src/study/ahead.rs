//! What a search would train, and how long that would take, before it does.

use super::cost::MachineRates;
use super::find::{EmmSearch, Sizes};
use super::longer::Known;
use super::standing::Standing;
use super::sweep::SweepRun;
use crate::run::RunConfig;
use crate::run::rate::Asked;
use anyhow::Result;

/// A size and its runs.
pub struct SizeAhead {
    pub size: usize,
    pub runs: usize,
    pub finished: usize,
    /// Of the first run.
    pub config: RunConfig,
    /// What is left of each run, on one device; `None` where the rate is not known.
    left_s: Vec<Option<f64>>,
    /// A run that nobody has begun.
    whole_s: Option<f64>,
}

/// A search's sizes, at most: one that brackets ends earlier where the ratio falls earlier.
pub struct Ahead {
    /// Ascending: those named; of a search that brackets its doublings.
    pub sizes: Vec<SizeAhead>,
    /// So many more at most, between two neighbours of these.
    pub more: usize,
    /// How the rate is known.
    pub basis: String,
    pub devices: usize,
}

/// A bracket of a factor of two is narrow enough after so many sizes within it: each leaves at most three quarters of it.
const NARROWING: usize = 4;

impl Ahead {
    /// Looks at what there is; trains nothing. Where `asked` says so, the machine's rate is measured.
    ///
    /// # Errors
    /// As of [`find`](super::find()), before it trains; diverged (exit 5): a measured step.
    pub fn of(search: &EmmSearch, asked: Asked) -> Result<Ahead> {
        let (sizes, more) = match search.sizes {
            Sizes::List(_) => (None, 0),
            Sizes::Between { .. } => {
                let sizes = search.sizes.climbed();
                let gap = sizes.windows(2).map(|w| w[1] - w[0] - 1).max().unwrap_or(0);
                (Some(sizes), gap.min(NARROWING))
            }
        };
        let checked = search.check()?;
        let plan = match sizes {
            Some(sizes) => search.plan(&sizes)?,
            None => checked,
        };
        let configs: Vec<&RunConfig> =
            plan.cells.iter().flat_map(|c| &c.runs).map(|r| &r.config).collect();
        let rates = MachineRates::here(&search.devices[0], search.runs, &configs, asked)?;
        let known = Known::runs_in(search.runs);
        let mut all = Vec::new();
        for cell in &plan.cells {
            let left = |run: &SweepRun| {
                let at = run.at();
                let config = &run.run.config;
                let shorter = known.shorter(config, search.scoring).map(|(_, step)| step);
                match (at, shorter) {
                    (Standing::Missing, Some(step)) => {
                        let share = step as f64 / config.steps() as f64;
                        (false, rates.seconds(config).map(|s| s * (1.0 - share)))
                    }
                    (at, _) => (at == Standing::Done, run.left_s(&at, &rates)),
                }
            };
            let named =
                |run: &super::plan::PlannedRun| SweepRun { name: String::new(), run: run.clone() };
            let seen: Vec<_> = cell.runs.iter().map(|run| left(&named(run))).collect();
            all.push(SizeAhead {
                size: cell.runs[0].recipe.size,
                runs: cell.runs.len(),
                finished: seen.iter().filter(|s| s.0).count(),
                config: cell.runs[0].config.clone(),
                left_s: seen.into_iter().map(|s| s.1).collect(),
                whole_s: rates.seconds(&cell.runs[0].config),
            });
        }
        Ok(Ahead { sizes: all, more, basis: rates.basis, devices: search.devices.len() })
    }

    /// Runs of these sizes and those between them, at most.
    pub fn runs(&self) -> usize {
        let each = self.sizes.first().map_or(0, |s| s.runs);
        self.sizes.iter().map(|s| s.runs).sum::<usize>() + self.more * each
    }

    /// Seconds of all runs added up, at most.
    pub fn added_s(&self) -> Option<f64> {
        let sizes: Option<f64> = self.sizes.iter().map(SizeAhead::added_s).sum();
        let last = self.sizes.last()?;
        Some(sizes? + (self.more * last.runs) as f64 * last.whole_s?)
    }

    /// Seconds by the clock, at most: so many runs at once as there are devices.
    pub fn clock_s(&self) -> Option<f64> {
        if self.more == 0 {
            let all: Option<Vec<f64>> =
                self.sizes.iter().rev().flat_map(|s| s.left_s.iter().copied()).collect();
            return Some(clock_s(&all?, self.devices));
        }
        // One size after the other.
        let mut all = 0.0;
        for size in &self.sizes {
            let left: Option<Vec<f64>> = size.left_s.iter().copied().collect();
            all += clock_s(&left?, self.devices);
        }
        let last = self.sizes.last()?;
        let each = vec![last.whole_s?; last.runs];
        Some(all + self.more as f64 * clock_s(&each, self.devices))
    }
}

impl SizeAhead {
    /// Seconds that are left of its runs, added up.
    pub fn added_s(&self) -> Option<f64> {
        self.left_s.iter().copied().sum()
    }

    /// Images that its runs see, and that they generate.
    pub fn images(&self) -> [u64; 2] {
        let c = &self.config;
        [c.steps() * c.train.batch as u64, c.generated()].map(|n| n * self.runs as u64)
    }
}

/// Seconds that jobs take which are handed out in this order, so many at once.
pub fn clock_s(jobs: &[f64], at_once: usize) -> f64 {
    let mut busy = vec![0.0f64; at_once.max(1)];
    for job in jobs {
        let first = busy.iter_mut().min_by(|a, b| a.total_cmp(b)).expect("at least one");
        *first += job;
    }
    busy.into_iter().fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_go_to_whoever_is_free_first() {
        assert_eq!(clock_s(&[8.0, 4.0, 2.0, 1.0], 2), 8.0);
        assert_eq!(clock_s(&[8.0, 4.0, 2.0, 1.0], 1), 15.0);
        assert_eq!(clock_s(&[3.0, 3.0, 3.0], 2), 6.0);
        assert_eq!(clock_s(&[], 2), 0.0);
    }
}
