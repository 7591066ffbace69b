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
pub enum Side {
    /// It is below the smallest size: every ratio is below 1 − ε.
    Below,
    /// It is at or above the largest size, whose ratio is still 1 − ε or more.
    Above,
}

/// The effective model memorization of measured (size, ratio) pairs.
#[derive(Debug, Clone, PartialEq)]
pub struct Emm {
    pub epsilon: f64,
    /// The interpolated size and its bracket, or on which side of the measured sizes it lies.
    pub found: Result<(f64, Bracket), Side>,
    /// Neighbouring sizes whose ratio rises with the size, against the hypothesis that it falls.
    pub violations: Vec<Bracket>,
}

/// EMM(ε) = max N with R(N) ≥ 1 − ε, interpolated linearly between the measured sizes around it.
///
/// `measured`: (training images, ratio) in any order, at least one, sizes distinct. Where violations make the
/// ratio cross 1 − ε several times, the definition's maximum takes the last crossing.
pub fn emm_of(measured: &[(u64, f64)], epsilon: f64) -> Emm {
    let level = 1.0 - epsilon;
    let sorted = sorted(measured);
    let pairs = || sorted.windows(2).map(|w| Bracket { lo: w[0], hi: w[1] });
    let last = sorted.iter().rposition(|&(_, ratio)| ratio >= level);
    let found = match last {
        None => Err(Side::Below),
        Some(i) if i + 1 == sorted.len() => Err(Side::Above),
        Some(i) => {
            let bracket = Bracket { lo: sorted[i], hi: sorted[i + 1] };
            Ok((bracket.interpolate(level), bracket))
        }
    };
    Emm { epsilon, found, violations: pairs().filter(|b| b.hi.1 > b.lo.1).collect() }
}

/// What a search for the EMM does next.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Next {
    /// Train this size.
    Train(u64),
    /// The bracket is narrow enough.
    Done(Bracket),
    /// The search's own ends do not bracket the EMM.
    NoBracket(Side),
}

/// The next size to train in a search over `lo..=hi`, by what is known so far.
///
/// Training costs time in proportion to the size, so it begins at `lo` and doubles until the ratio falls below
/// 1 − ε, then narrows the bracket by false position, kept away from its ends, until hi/lo ≤ 1.25. Sizes known
/// from elsewhere count, inside `lo..=hi`.
pub fn next_size(known: &[(u64, f64)], lo: u64, hi: u64, epsilon: f64) -> Next {
    let level = 1.0 - epsilon;
    let known: Vec<_> = sorted(known).into_iter().filter(|k| (lo..=hi).contains(&k.0)).collect();
    let Some(i) = known.iter().rposition(|&(_, ratio)| ratio >= level) else {
        // Everything measured is below: the answer, if any, lies below the smallest.
        return match known.first() {
            Some(&(size, _)) if size == lo => Next::NoBracket(Side::Below),
            _ => Next::Train(lo),
        };
    };
    let (n1, r1) = known[i];
    let Some(&(n2, r2)) = known.get(i + 1) else {
        return if n1 >= hi {
            Next::NoBracket(Side::Above)
        } else {
            Next::Train(n1.saturating_mul(2).min(hi))
        };
    };
    let bracket = Bracket { lo: (n1, r1), hi: (n2, r2) };
    if n2 as f64 <= NARROW * n1 as f64 || n2 - n1 < 2 {
        return Next::Done(bracket);
    }
    // Ratios fall steeply and not along a line: a guess in the middle half (in log size) always shrinks a bracket.
    let (a, b) = ((n1 as f64).ln(), (n2 as f64).ln());
    let guess = bracket.interpolate(level).ln().clamp(a + 0.25 * (b - a), b - 0.25 * (b - a));
    Next::Train((guess.exp().round() as u64).clamp(n1 + 1, n2 - 1))
}

fn sorted(measured: &[(u64, f64)]) -> Vec<(u64, f64)> {
    let mut sorted = measured.to_vec();
    sorted.sort_by_key(|m| m.0);
    sorted
}
