//! The effective model memorization (Gu et al. 2023, Definition 1): the largest training set most of which a
//! model still memorizes; and which size to train next when looking for it.

use serde::Serialize;

/// A bracket this narrow is interpolated rather than narrowed.
const NARROW: f64 = 1.25;

/// Two measured sizes between which the ratio falls through 1 − ε.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Bracket {
    /// The largest size with ratio ≥ 1 − ε, and that ratio.
    pub lo: (u64, f64),
    /// The next larger measured size; its ratio is below 1 − ε.
    pub hi: (u64, f64),
}

impl Bracket {
    /// Where the line between its ends crosses `level` = 1 − ε.
    pub fn interpolate(&self, level: f64) -> f64 {
        let ((n1, r1), (n2, r2)) = (self.lo, self.hi);
        n1 as f64 + (r1 - level) / (r1 - r2) * (n2 - n1) as f64
    }
}

/// Why no two sizes bracket the EMM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Beyond {
    /// It is below the smallest size: every ratio is below 1 − ε, and longer training would not change that.
    Below,
    /// It is at or above the largest size, whose ratio is still 1 − ε or more.
    Above,
    /// Every ratio is below 1 − ε, but the smallest size was not trained to the end: nothing is known from below.
    Unreached,
}

/// What was measured of a training-set size.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SizeRatio {
    pub size: u64,
    pub ratio: f64,
    /// The ratio still rose when training ended: it is a lower bound of what longer training gives.
    pub rising: bool,
}

impl From<(u64, f64)> for SizeRatio {
    /// Trained to the end.
    fn from((size, ratio): (u64, f64)) -> Self {
        SizeRatio { size, ratio, rising: false }
    }
}

/// A ratio below this shows no more than that training has hardly begun, or that the set is far too large.
const HARDLY_ANY: f64 = 0.01;

/// The effective model memorization of measured (size, ratio) pairs.
#[derive(Debug, Clone, PartialEq)]
pub struct Emm {
    pub epsilon: f64,
    /// The interpolated size and its bracket, or on which side of the measured sizes it lies.
    pub found: Result<(f64, Bracket), Beyond>,
    /// The largest size whose ratio is at least 1 − ε: the EMM is at least this.
    pub reached: Option<u64>,
    /// The smallest larger size whose ratio is below 1 − ε and was no longer rising: the EMM is below this.
    pub below: Option<u64>,
    /// Sizes whose ratio still rose when training ended, ascending.
    pub rising: Vec<u64>,
    /// Neighbouring sizes whose ratio rises with the size, against the hypothesis that it falls.
    pub violations: Vec<Bracket>,
}

impl Emm {
    /// Whether an end of the bracket still rose, so that longer training can only raise what is interpolated.
    pub fn at_least(&self) -> bool {
        let ends = self.found.as_ref().map(|(_, b)| [b.lo.0, b.hi.0]);
        ends.is_ok_and(|ends| ends.iter().any(|end| self.rising.contains(end)))
    }

    /// Whether longer training may change the answer.
    pub fn open(&self) -> bool {
        self.at_least() || self.found == Err(Beyond::Unreached)
    }
}

/// 1 − ε, to the decimals that people write: as a difference of doubles 1 − 0.43 is more than 57 of 100.
fn level(epsilon: f64) -> f64 {
    const DECIMALS: f64 = 1e12;
    ((1.0 - epsilon) * DECIMALS).round() / DECIMALS
}

/// EMM(ε) = max N with R(N) ≥ 1 − ε, interpolated linearly between the measured sizes around it.
///
/// `measured`: in any order, at least one, sizes distinct. Where violations make the ratio cross 1 − ε several times,
/// the definition's maximum takes the last crossing. A ratio that still rose is no bound from above, nor is one that has
/// hardly begun to where no smaller size has finished.
pub fn emm_of<M: Copy + Into<SizeRatio>>(measured: &[M], epsilon: f64) -> Emm {
    let level = level(epsilon);
    let mut all: Vec<SizeRatio> = measured.iter().map(|&m| m.into()).collect();
    all.sort_by_key(|m| m.size);
    let pair = |m: &SizeRatio| (m.size, m.ratio);
    let pairs = || all.windows(2).map(|w| Bracket { lo: pair(&w[0]), hi: pair(&w[1]) });
    let last = all.iter().rposition(|m| m.ratio >= level);
    let over = last.map_or(0, |i| i + 1);
    let settled = all.iter().position(|m| !m.rising && m.ratio >= HARDLY_ANY);
    let finished = |i: usize| !all[i].rising && settled.is_some_and(|first| first <= i);
    let below = (over..all.len()).find(|&i| finished(i) && all[i].ratio < level);
    let found = match last {
        None if below == Some(0) => Err(Beyond::Below),
        None => Err(Beyond::Unreached),
        Some(i) if i + 1 == all.len() => Err(Beyond::Above),
        Some(i) => {
            let bracket = Bracket { lo: pair(&all[i]), hi: pair(&all[i + 1]) };
            Ok((bracket.interpolate(level), bracket))
        }
    };
    Emm {
        epsilon,
        found,
        reached: last.map(|i| all[i].size),
        below: below.map(|i| all[i].size),
        rising: all.iter().filter(|m| m.rising).map(|m| m.size).collect(),
        violations: pairs().filter(|b| b.hi.1 > b.lo.1).collect(),
    }
}

/// What a search for the EMM does next.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum NextSize {
    /// Train this size.
    Train(u64),
    /// The bracket is narrow enough.
    Done(Bracket),
    /// The search's own ends do not bracket the EMM.
    NoBracket(Beyond),
}

/// The next size to train in a search over `lo..=hi`, by what is known so far.
///
/// Training costs time in proportion to the size, so it begins at `lo` and doubles until the ratio falls below
/// 1 − ε, then narrows the bracket by false position, kept away from its ends, until hi/lo ≤ 1.25. Sizes known
/// from elsewhere count, inside `lo..=hi`.
pub fn next_size(known: &[(u64, f64)], lo: u64, hi: u64, epsilon: f64) -> NextSize {
    let level = level(epsilon);
    let mut known: Vec<_> = known.iter().copied().filter(|k| (lo..=hi).contains(&k.0)).collect();
    known.sort_by_key(|k| k.0);
    let Some(i) = known.iter().rposition(|&(_, ratio)| ratio >= level) else {
        // Everything measured is below: the answer, if any, lies below the smallest.
        return match known.first() {
            Some(&(size, _)) if size == lo => NextSize::NoBracket(Beyond::Below),
            _ => NextSize::Train(lo),
        };
    };
    let (n1, r1) = known[i];
    let Some(&(n2, r2)) = known.get(i + 1) else {
        return if n1 >= hi {
            NextSize::NoBracket(Beyond::Above)
        } else {
            NextSize::Train(n1.saturating_mul(2).min(hi))
        };
    };
    let bracket = Bracket { lo: (n1, r1), hi: (n2, r2) };
    if n2 as f64 <= NARROW * n1 as f64 || n2 - n1 < 2 {
        return NextSize::Done(bracket);
    }
    // Ratios fall steeply and not along a line: a guess in the middle half (in log size) always shrinks a bracket.
    let (a, b) = ((n1 as f64).ln(), (n2 as f64).ln());
    let guess = bracket.interpolate(level).ln().clamp(a + 0.25 * (b - a), b - 0.25 * (b - a));
    NextSize::Train((guess.exp().round() as u64).clamp(n1 + 1, n2 - 1))
}
