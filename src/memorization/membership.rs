//! Membership inference by loss (Yeom et al. 2018, arXiv:1709.01604): a member's is smaller than that of an image that nobody
//! trained on, as far as the model has memorized.

use serde::{Deserialize, Serialize};

/// Standard normal's 97.5th percentile.
const Z95: f64 = 1.959_963_984_540_054;
/// Of the images that nobody trained on, so many at most may be taken for members.
pub const FALSE_POSITIVES: f64 = 0.01;

/// How well members are told from others by a number that is smaller for members.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inference {
    /// Area under the ROC curve: the share of pairs of a member and another image in which the member's number is
    /// smaller, ties counted half. 1/2 is chance.
    pub auc: f64,
    /// Of [`Inference::auc`], 95%: [`auc_interval`].
    pub auc_interval: [f64; 2],
    /// The share of members that are found while at most [`FALSE_POSITIVES`] of the others are taken for members
    /// (Carlini et al. 2022, arXiv:2112.03570).
    pub true_positive_rate: f64,
}

impl Inference {
    /// From the numbers of members and of others; none where either are missing or a number is not finite.
    pub fn of(members: &[f64], others: &[f64]) -> Option<Self> {
        let finite = members.iter().chain(others).all(|v| v.is_finite());
        if members.is_empty() || others.is_empty() || !finite {
            return None;
        }
        let mut others = others.to_vec();
        others.sort_by(f64::total_cmp);
        // Twice the pairs in which the member's is smaller, ties counted once.
        let above = |m: &f64| {
            2 * others.len()
                - others.partition_point(|o| o < m)
                - others.partition_point(|o| o <= m)
        };
        let twice: u128 = members.iter().map(|m| above(m) as u128).sum();
        let auc = twice as f64 / (2.0 * members.len() as f64 * others.len() as f64);
        // All below the first that may not be taken for a member.
        let taken = (FALSE_POSITIVES * others.len() as f64).floor() as usize;
        let limit = others[taken];
        let found = members.iter().filter(|m| **m < limit).count();
        Some(Inference {
            auc,
            auc_interval: auc_interval(auc, members.len(), others.len()),
            true_positive_rate: found as f64 / members.len() as f64,
        })
    }
}

/// The 95% interval of an area under the ROC curve over so many members and others: all areas whose standard error, by
/// Hanley & McNeil's formula, does not keep the one that was found away from them (Newcombe 2006, Statistics in Medicine 25,
/// method 5).
pub fn auc_interval(auc: f64, members: usize, others: usize) -> [f64; 2] {
    let (m, n) = (members as f64, others as f64);
    let more = (m + n) / 2.0 - 1.0;
    let variance = |a: f64| {
        let spread = 1.0 + more * ((1.0 - a) / (2.0 - a) + a / (1.0 + a));
        a * (1.0 - a) * spread / (m * n)
    };
    let end = |mut outside: f64| {
        let mut inside = auc;
        for _ in 0..60 {
            let middle = 0.5 * (inside + outside);
            let far = (middle - auc).abs() > Z95 * variance(middle).max(0.0).sqrt();
            if far { outside = middle } else { inside = middle }
        }
        inside
    };
    [end(0.0), end(1.0)]
}

/// The mean over levels of each number's rank among those of members and others at that level, equal ones sharing their
/// mean rank; `[members, others]` alike. No level is chosen, and none outweighs another.
pub fn mean_ranks<'a>(levels: impl Iterator<Item = [&'a [f64]; 2]>) -> [Vec<f64>; 2] {
    let (mut sums, mut count) = ([Vec::new(), Vec::new()], 0.0);
    for level in levels {
        let mut all = level.concat();
        all.sort_by(f64::total_cmp);
        count += 1.0;
        for (sums, numbers) in sums.iter_mut().zip(level) {
            sums.resize(numbers.len(), 0.0);
            for (sum, v) in sums.iter_mut().zip(numbers) {
                let (below, upto) =
                    (all.partition_point(|a| a < v), all.partition_point(|a| a <= v));
                *sum += 0.5 * (below + upto + 1) as f64;
            }
        }
    }
    sums.map(|sums| sums.into_iter().map(|s| s / count).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{philox, unit};

    fn numbers(count: usize, of: u32, levels: f64) -> Vec<f64> {
        let one = |i| (unit(philox([i, of, 0, 0], 99)[0]) * levels).floor() + of as f64;
        (0..count as u32).map(one).collect()
    }

    /// By the definitions: all pairs, and all thresholds.
    #[test]
    fn areas_and_rates_count_pairs_and_thresholds() {
        for (m, n, levels) in [(40, 250, 30.0), (7, 99, 5.0), (13, 100, 4.0), (1, 1, 2.0)] {
            let (members, others) = (numbers(m, 0, levels), numbers(n, 1, levels));
            let found = Inference::of(&members, &others).unwrap();
            let pair = |a: f64, b: f64| if a < b { 1.0 } else { 0.5 * (a == b) as u8 as f64 };
            let pairs: f64 = members.iter().flat_map(|a| others.iter().map(|b| pair(*a, *b))).sum();
            assert!((found.auc - pairs / (m * n) as f64).abs() < 1e-12);
            let share =
                |of: &[f64], t: f64| of.iter().filter(|v| **v < t).count() as f64 / of.len() as f64;
            let allowed = (0..40).map(f64::from).filter(|&t| share(&others, t) <= FALSE_POSITIVES);
            let most = allowed.map(|t| share(&members, t)).fold(0.0, f64::max);
            assert_eq!(found.true_positive_rate, most, "{m} {n}");
        }
        assert_eq!(Inference::of(&[1.0, f64::NAN], &[2.0]), None);
        assert_eq!(Inference::of(&[1.0], &[]), None);
    }

    /// Newcombe's equation holds at both ends, and an area of 1 is not certain.
    #[test]
    fn the_interval_solves_its_equation() {
        for (auc, m, n) in [(0.5, 30, 40), (0.83, 100, 20), (1.0, 50, 50)] {
            for end in auc_interval(auc, m, n) {
                let (q1, q2) = (end / (2.0 - end), 2.0 * end * end / (1.0 + end));
                let pairs = (m + n) as f64 / 2.0 - 1.0;
                let e2 = end * end;
                let variance =
                    (end * (1.0 - end) + pairs * ((q1 - e2) + (q2 - e2))) / (m * n) as f64;
                let off = (end - auc).abs() - Z95 * variance.sqrt();
                assert!(off.abs() < 1e-9 || end == 1.0, "{auc} {end} {off}");
            }
        }
        let [low, high] = auc_interval(1.0, 50, 50);
        assert!((0.9..0.99).contains(&low) && high == 1.0, "{low}");
    }

    #[test]
    fn ranks_are_shared_and_averaged() {
        let [members, others] = [[3.0, 1.0], [1.0, 5.0]];
        let [a, b] =
            mean_ranks([[&members[..], &others[..]], [&others[..], &members[..]]].into_iter());
        // 1, 1, 3, 5 have the ranks 1.5, 1.5, 3, 4, first those of the members and then of the others.
        assert_eq!(
            (a, b),
            (
                vec![(3.0 + 1.5) / 2.0, (1.5 + 4.0) / 2.0],
                vec![(1.5 + 3.0) / 2.0, (4.0 + 1.5) / 2.0]
            )
        );
    }
}
