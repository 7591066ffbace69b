//! A search that ends in a given time: what of a set fits, and its sizes one round after the other.
//!
//! The length of training is chosen once: such that the whole ladder of doublings fits, or, where that is too short to tell, only
//! its first sizes and a part of the time; then the ladder is climbed, as long as sizes are memorized and time is left, and what is
//! left narrows the bracket. Every prediction is corrected by what rounds really took.

use super::ahead::clock_s;
use super::cost::MachineRates;
use super::find::{EmmSearch, Found, Sizes, balanced, find};
use crate::memorization::Beyond;
use crate::run::RunConfig;
use crate::signal::{stop_at, time_is_up};
use anyhow::Result;
use std::time::{Duration, Instant};

/// The share of the time that is planned for; the rest is for what was not foreseen, pictures and the page.
const PLANNED: f64 = 0.8;
/// Of that, what the first sizes of the ladder take.
const LADDER: f64 = 0.6;
/// Doublings that the length of training is chosen by: as far as 8 times the first size.
const RUNGS: usize = 4;
/// Training is broken off at this share of the time.
const BROKEN_OFF: f64 = 0.93;
/// Lengths that are chosen: shorter ones say nothing, and what longer ones take is rather spent on larger sizes.
const EPOCHS: [f64; 2] = [20.0, 4000.0];
/// A shorter training is rather done on smaller images, where they can be smaller, or of fewer sizes; a longer one only where all
/// sizes fit.
pub const ENOUGH_EPOCHS: f64 = 2000.0;
/// The side that larger images are scaled to, and the one that they are where that is too slow.
pub const SIDES: [usize; 2] = [16, 8];
/// The first size where nothing else is said.
const FIRST: usize = 10;

/// Time that is given.
#[derive(Debug, Clone, Copy)]
pub struct Within {
    pub started: Instant,
    pub seconds: f64,
}

impl Within {
    /// What is left of the planned time.
    pub fn left_s(self) -> f64 {
        PLANNED * self.seconds - self.started.elapsed().as_secs_f64()
    }

    fn broken_off(self) -> Instant {
        self.started + Duration::from_secs_f64(BROKEN_OFF * self.seconds)
    }
}

/// Where the ladder begins if nobody says so: one image of each class, or as many as it takes to have ten.
pub fn first_size(classes: usize, images: usize) -> usize {
    let first = match classes {
        0 | 1 => FIRST,
        classes => classes * FIRST.div_ceil(classes),
    };
    first.min(images / 2).max(2)
}

/// A run of so many images and epochs, with its evaluations.
fn run_of(search: &EmmSearch, size: usize, epochs: f64) -> RunConfig {
    let mut config = search.config.clone();
    (config.data.images, config.train.epochs) = (size, epochs);
    search.scoring.settle(&mut config);
    config
}

/// Seconds that these sizes take, so many at once as there are devices; infinite where the rate is not known.
fn seconds(search: &EmmSearch, rates: &MachineRates, sizes: &[usize], epochs: f64) -> f64 {
    let one = |&size: &usize| rates.seconds(&run_of(search, size, epochs));
    let all: Vec<f64> = sizes.iter().rev().map(|n| one(n).unwrap_or(f64::INFINITY)).collect();
    // Each has as many runs as there are repeats.
    let all: Vec<f64> = all.iter().flat_map(|&s| vec![s; search.repeats]).collect();
    clock_s(&all, search.devices.len())
}

/// Two digits of a number, the rest zeros.
fn tidy(n: f64) -> f64 {
    let unit = 10f64.powf((n.max(1.0).log10().floor() - 1.0).max(0.0));
    (n / unit).floor() * unit
}

/// The sizes that the length of training is chosen by, and their share of the planned time.
fn first_sizes(sizes: &Sizes) -> (Vec<usize>, f64) {
    let (rungs, share) = match sizes {
        Sizes::List(_) => (usize::MAX, 1.0),
        Sizes::Between { .. } => (RUNGS, LADDER),
    };
    (sizes.climbed().into_iter().take(rungs).collect(), share)
}

/// Settings of the runs of those sizes, whichever length they will have.
pub fn first_runs(search: &EmmSearch) -> Vec<RunConfig> {
    let (sizes, _) = first_sizes(&search.sizes);
    let run = |size| vec![run_of(search, size, search.config.train.epochs); search.repeats];
    sizes.into_iter().flat_map(run).collect()
}

/// Epochs that all sizes are trained for in `seconds_left`, if those are enough, else the first of them, if none are named.
pub fn epochs_for(search: &EmmSearch, rates: &MachineRates, seconds_left: f64) -> f64 {
    let fitting = |sizes: &[usize], share: f64| {
        let fits = |epochs| in_rounds(search, rates, sizes, epochs) <= share * seconds_left;
        longest(EPOCHS, fits)
    };
    let all = fitting(&search.sizes.climbed(), 1.0);
    let (first, share) = first_sizes(&search.sizes);
    let epochs = all.max(fitting(&first, share).min(ENOUGH_EPOCHS));
    // 4000 rather than the 3900 below 3999.99….
    tidy(1.0001 * if share == 1.0 { all } else { epochs })
}

/// Seconds that these sizes take, one round after the other.
fn in_rounds(search: &EmmSearch, rates: &MachineRates, sizes: &[usize], epochs: f64) -> f64 {
    sizes.chunks(search.devices.len()).map(|round| seconds(search, rates, round, epochs)).sum()
}

/// The most epochs of these bounds that fit, the least if none do.
fn longest([mut low, mut high]: [f64; 2], fits: impl Fn(f64) -> bool) -> f64 {
    for _ in 0..40 {
        let middle = (low * high).sqrt();
        if fits(middle) { low = middle } else { high = middle }
    }
    low
}

/// How many of the sizes that are climbed are expected to be measured in `left_s` seconds.
pub fn fitting(search: &EmmSearch, rates: &MachineRates, epochs: f64, left_s: f64) -> usize {
    let (mut left, mut fit) = (left_s, 0);
    for round in search.sizes.climbed().chunks(search.devices.len()) {
        let takes = |n: usize| seconds(search, rates, &round[..n], epochs);
        let n = (1..=round.len()).rev().find(|&n| takes(n) <= left).unwrap_or(0);
        fit += n;
        left -= takes(n);
        if n < round.len() {
            break;
        }
    }
    fit
}

/// How a search in a given time ended.
pub enum Ended {
    Found(Box<Found>),
    /// A signal stopped it.
    Stopped,
    /// No size was finished.
    Nothing,
}

/// What rounds came to.
struct Climbed {
    /// Of the last round that was ended.
    found: Option<Found>,
    /// All sizes that were begun.
    tried: Vec<usize>,
    /// The last round was broken off.
    unfinished: bool,
}

/// Sizes one round after the other, as many at once as there are devices, as long as the next is expected to end in time. Where
/// they leave time and longer training may change the answer, and `lengthen` allows it, their runs go on.
///
/// # Errors
/// As of [`find`](super::find()).
pub fn find_within(
    search: &mut EmmSearch,
    rates: &MachineRates,
    within: Within,
    lengthen: bool,
) -> Result<Ended> {
    let ends = search.sizes.clone();
    search.check()?;
    stop_at(Some(within.broken_off()));
    let climbed = rounds(search, rates, within, &ends, lengthen);
    let broken_off = time_is_up();
    stop_at(None);
    let Climbed { found, tried, unfinished } = climbed?;
    if unfinished && !broken_off {
        return Ok(Ended::Stopped);
    }
    let last = match unfinished {
        true => finished(search, &tried)?,
        false => None,
    };
    // Of runs that went on, those before them may say more.
    let sizes = |found: &Option<Found>| found.as_ref().map_or(0, |found| found.sizes.len());
    let most = if sizes(&last) >= sizes(&found) { last.or(found) } else { found };
    Ok(most.map_or(Ended::Nothing, |found| Ended::Found(Box::new(found))))
}

/// What is there of sizes whose training was broken off.
fn finished(search: &mut EmmSearch, tried: &[usize]) -> Result<Option<Found>> {
    let mut done = Vec::new();
    for cell in &search.plan(tried)?.cells {
        if cell.runs.iter().all(|run| run.state().done().is_some()) {
            done.push(cell.runs[0].recipe.size);
        }
    }
    if done.is_empty() {
        return Ok(None);
    }
    search.sizes = Sizes::List(done);
    find(search)
}

fn rounds(
    search: &mut EmmSearch,
    rates: &MachineRates,
    within: Within,
    ends: &Sizes,
    lengthen: bool,
) -> Result<Climbed> {
    let at_once = search.devices.len();
    let (mut found, mut tried): (Option<Found>, Vec<usize>) = (None, Vec::new());
    // What rounds took, of what was expected.
    let mut slower = 1.0f64;
    loop {
        let (left, epochs) = (within.left_s() / slower, search.config.train.epochs);
        let longer = found.as_ref().filter(|_| lengthen);
        let longer =
            longer.and_then(|found| longer_epochs(search, rates, found, &tried, ends, left));
        let (next, expected) = match longer {
            Some(longer) => {
                search.config.train.epochs = longer;
                let again = |epochs| in_rounds(search, rates, &tried, epochs);
                (Vec::new(), again(longer) - again(epochs))
            }
            None => {
                let mut next = next_sizes(search, found.as_ref(), ends, &tried, at_once);
                let fits = |next: &[usize]| seconds(search, rates, next, epochs) <= left;
                // The first round is the answer's least.
                while !next.is_empty() && (found.is_some() || next.len() > 1) && !fits(&next) {
                    next.pop();
                }
                if next.is_empty() {
                    return Ok(Climbed { found, tried, unfinished: false });
                }
                let expected = seconds(search, rates, &next, epochs);
                (next, expected)
            }
        };
        let begun = Instant::now();
        tried.extend(next);
        tried.sort_unstable();
        search.sizes = Sizes::List(tried.clone());
        match (find(search), &mut found) {
            // What goes wrong in a longer training costs no answer.
            (Err(e), Some(before)) if longer.is_some() => {
                before.damage.push(format!("{e:#}"));
                return Ok(Climbed { found, tried, unfinished: false });
            }
            (Ok(Some(now)), Some(before)) if now.sizes.len() < before.sizes.len() => {
                before.damage.extend(now.damage);
                return Ok(Climbed { found, tried, unfinished: false });
            }
            (Ok(Some(now)), _) => found = Some(now),
            (Ok(None), _) => return Ok(Climbed { found, tried, unfinished: true }),
            (Err(e), _) => return Err(e),
        }
        let took = begun.elapsed().as_secs_f64() / expected.max(0.1);
        slower = if expected.is_finite() { took.max(0.5 * slower).max(0.2) } else { 1.0 };
    }
}

/// Twice the epochs, where the runs of these sizes can go on to that in `left_s` seconds and it may change the answer.
fn longer_epochs(
    search: &EmmSearch,
    rates: &MachineRates,
    found: &Found,
    tried: &[usize],
    ends: &Sizes,
    left_s: f64,
) -> Option<f64> {
    // Sizes that are named come first.
    let named = matches!(ends, Sizes::List(all) if tried.len() < all.len());
    if named || !found.emm.open() {
        return None;
    }
    let longer = LONGER * search.config.train.epochs;
    let before = in_rounds(search, rates, tried, search.config.train.epochs);
    let takes = in_rounds(search, rates, tried, longer) - before;
    let larger = ends.climbed().into_iter().find(|n| tried.last().is_some_and(|t| n > t));
    let fits = match (&found.emm.found, larger) {
        // Where no size is memorized yet, larger ones come after.
        (Err(_), _) => takes <= LADDER * left_s,
        // Else the largest may be memorized then, and an answer without an upper end is none.
        (Ok(_), larger) => takes + in_rounds(search, rates, larger.as_slice(), longer) <= left_s,
    };
    fits.then_some(longer)
}

/// Runs go on to so many times as many epochs at once: no further than it takes to see whether that was enough.
const LONGER: f64 = 2.0;

/// The sizes of the next round, the most telling first; none if there is no more to ask.
fn next_sizes(
    search: &EmmSearch,
    found: Option<&Found>,
    ends: &Sizes,
    tried: &[usize],
    at_once: usize,
) -> Vec<usize> {
    if let Sizes::List(sizes) = ends {
        let left = sizes.iter().copied().filter(|n| !tried.contains(n));
        return left.take(at_once).collect();
    }
    let above = ends.climbed().into_iter().filter(|n| tried.last().is_none_or(|t| n > t));
    let Some(found) = found else { return above.take(at_once).collect() };
    match &found.emm.found {
        Err(Beyond::Above) => above.take(at_once).collect(),
        Err(_) => Vec::new(),
        Ok((_, bracket)) => {
            let known: Vec<(u64, f64)> =
                found.sizes.iter().map(|m| (m.size as u64, m.found.ratio)).collect();
            let (low, high) = (bracket.lo.0 as f64, bracket.hi.0 as f64);
            if high <= NARROW * low || high - low < 2.0 {
                return Vec::new();
            }
            let inner = |k: usize| {
                let share = (k + 1) as f64 / (at_once + 1) as f64;
                let size = (low.ln() + share * (high / low).ln()).exp().round() as u64;
                let classes = search.set.label_dim() as u64;
                balanced(size.clamp(low as u64 + 1, high as u64 - 1), classes, &known) as usize
            };
            let mut all: Vec<usize> = (0..at_once).map(inner).collect();
            all.dedup();
            all.retain(|n| !tried.contains(n));
            all
        }
    }
}

/// A bracket this narrow is not narrowed.
const NARROW: f64 = 1.25;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ladder_begins_with_a_few_images_of_each_class() {
        for (classes, images, first) in [
            (0, 300, 10),
            (1, 300, 10),
            (10, 1797, 10),
            (3, 300, 12),
            (100, 50_000, 100),
            (0, 12, 6),
            (0, 3, 2),
        ] {
            assert_eq!(first_size(classes, images), first, "{classes} {images}");
        }
        for (hi, sizes) in [(90, vec![10, 20, 40, 80, 90]), (80, vec![10, 20, 40, 80])] {
            assert_eq!(Sizes::Between { lo: 10, hi }.climbed(), sizes);
        }
    }

    #[test]
    fn lengths_have_two_digits() {
        for (n, tidied) in [(7.9, 7.0), (23.4, 23.0), (1234.0, 1200.0), (20_000.0, 20_000.0)] {
            assert_eq!(tidy(n), tidied);
        }
    }
}
