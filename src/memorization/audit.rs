//! What an audit says of samples beside the ratio of memorization: which are only repetitions of each other, how far from
//! the training images they are beside images that nobody trained on.

use super::{Nearest, Threshold, Within};

/// What a sample is (Pham et al. 2025, arXiv:2505.21777), by the one rule d1/d2 < threshold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It copies a training image.
    Memorized,
    /// It copies none, but another sample is the same or would count as its copy.
    Spurious,
    /// Neither.
    Novel,
}

/// Of each sample what it is. `mirrored`: whether its mirror image copies a training image, where that was asked.
pub fn kinds(
    found: &[Nearest],
    mirrored: Option<&[Nearest]>,
    samples: &Within,
    threshold: Threshold,
) -> Vec<Kind> {
    let kind = |i: usize| match copies(found, mirrored, i, threshold) {
        true => Kind::Memorized,
        false if samples.has_like(i, threshold) => Kind::Spurious,
        false => Kind::Novel,
    };
    (0..found.len()).map(kind).collect()
}

/// Whether sample `i`, as it is or mirrored, copies a training image, identical ones counted once.
pub fn copies(
    found: &[Nearest],
    mirrored: Option<&[Nearest]>,
    i: usize,
    threshold: Threshold,
) -> bool {
    let holds = |n: &Nearest| threshold.memorized_distinct(n);
    holds(&found[i]) || mirrored.is_some_and(|m| holds(&m[i]))
}

/// The share of samples that are strictly farther from their nearest training image than that one is from its nearest other
/// (AuthPct; authenticity of Alaa et al. 2022, arXiv:2102.08921, in pixels). None of a single training image.
pub fn auth_pct(found: &[Nearest], training: &Within) -> Option<f64> {
    let authentic =
        |n: &Nearest| Some(n.squared[0] > training.squared_to_other(n.index[0] as usize)?);
    let all: Option<Vec<bool>> = found.iter().map(authentic).collect();
    let all = all.filter(|all| !all.is_empty())?;
    Some(all.iter().filter(|yes| **yes).count() as f64 / all.len() as f64)
}

/// The data-copying statistic C_T (Meehan et al. 2020, arXiv:2004.05675) with all of the space as its one cell: the
/// Mann-Whitney U of the samples' distances to their nearest training images beside the held-out images', in standard
/// deviations from its mean. Ties count half. Well below 0: samples are nearer to the training images than new images are.
/// None where there are no held-out images or no samples.
pub fn c_t(samples: &[Nearest], holdout: &[Nearest]) -> Option<f64> {
    let sorted = |found: &[Nearest]| {
        let mut all: Vec<u64> = found.iter().map(|n| n.squared[0]).collect();
        all.sort_unstable();
        all
    };
    let (q, p) = (sorted(samples), sorted(holdout));
    if q.is_empty() || p.is_empty() {
        return None;
    }
    // Twice the number of pairs in which the sample is farther, ties counted half.
    let twice = |d: &u64| p.partition_point(|x| x < d) + p.partition_point(|x| x <= d);
    let u = q.iter().map(|d| twice(d) as u128).sum::<u128>() as f64 / 2.0;
    let (m, n) = (q.len() as f64, p.len() as f64);
    Some((u - m * n / 2.0) / (m * n * (m + n + 1.0) / 12.0).sqrt())
}

/// The share of samples with d1/d2 below k/steps for k = 0 to `steps`: as the paper defines it, and with identical training
/// images counted once.
pub fn curve(found: &[Nearest], steps: u32) -> Vec<(f64, [f64; 2])> {
    let share = |count: usize| count as f64 / found.len().max(1) as f64;
    let at = |k: u32| {
        let [all, distinct]: [&dyn Fn(&Nearest) -> bool; 2] = match Threshold::new(k, steps) {
            Some(t) => [&move |n| t.memorized(n), &move |n| t.memorized_distinct(n)],
            // None is below 0. Below 1 are all but those with two nearest at one distance.
            None if k == 0 => [&|_| false, &|_| false],
            None => [&|n| n.squared[0] < n.squared[1], &|n| {
                n.distinct.is_some_and(|d| n.squared[0] < d.squared)
            }],
        };
        let count =
            |holds: &dyn Fn(&Nearest) -> bool| share(found.iter().filter(|n| holds(n)).count());
        (k as f64 / steps as f64, [count(all), count(distinct)])
    };
    (0..=steps).map(at).collect()
}

/// Samples that copy each training image, as they are or mirrored: indices of the samples by image.
pub fn copied(
    found: &[Nearest],
    mirrored: Option<&[Nearest]>,
    images: usize,
    threshold: Threshold,
) -> Vec<Vec<u32>> {
    let mut by_image = vec![Vec::new(); images];
    for i in 0..found.len() {
        if let Some(n) = copy_of(found, mirrored, i, threshold) {
            by_image[n.index[0] as usize].push(i as u32);
        }
    }
    by_image
}

/// What makes sample `i` a copy: itself, or where it is none its mirror image.
pub fn copy_of<'a>(
    found: &'a [Nearest],
    mirrored: Option<&'a [Nearest]>,
    i: usize,
    threshold: Threshold,
) -> Option<&'a Nearest> {
    let own = Some(&found[i]).filter(|n| threshold.memorized_distinct(n));
    own.or_else(|| mirrored.map(|m| &m[i]).filter(|n| threshold.memorized_distinct(n)))
}

/// Images of [.., H, W, C] mirrored left to right.
pub fn mirror(pixels: &[u8], width: usize, channels: usize) -> Vec<u8> {
    let rows = pixels.chunks_exact(width * channels);
    rows.flat_map(|row| row.chunks_exact(channels).rev().flatten().copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memorization::Neighbour;

    fn at(squared: u64) -> Nearest {
        let [one, two] = [(0, squared), (1, 10 * squared + 10)]
            .map(|(index, squared)| Neighbour { index, squared });
        Nearest::new([one, two], two)
    }

    /// By the definition: all pairs.
    #[test]
    fn c_t_counts_pairs() {
        let q = [3, 5, 5, 1].map(at);
        let p = [5, 2, 9].map(at);
        let pairs = q.iter().flat_map(|a| p.iter().map(|b| a.squared[0].cmp(&b.squared[0]) as i32));
        let u: f64 = pairs.map(|order| (order as f64 + 1.0) / 2.0).sum();
        let want = (u - 6.0) / (12.0 * 8.0_f64 / 12.0).sqrt();
        assert_eq!(c_t(&q, &p), Some(want));
        assert_eq!(c_t(&q, &[]), None);
    }

    #[test]
    fn mirroring_twice_changes_nothing() {
        let pixels: Vec<u8> = (0..2 * 3 * 2 * 3).collect();
        let once = mirror(&pixels, 2, 3);
        assert_eq!(once[..6], [3, 4, 5, 0, 1, 2]);
        assert_eq!(mirror(&once, 2, 3), pixels);
    }

    #[test]
    fn the_curve_rises_from_nothing() {
        let found = [at(0), at(1), at(50)];
        let curve = curve(&found, 300);
        assert_eq!((curve[0].1, curve[300].1), ([0.0; 2], [1.0; 2]));
        assert!(curve.windows(2).all(|w| w[0].1[0] <= w[1].1[0]));
        // d1/d2 are 0, 0.22 and 0.31.
        assert_eq!([30, 90, 100].map(|k| curve[k].1[0]), [1.0 / 3.0, 2.0 / 3.0, 1.0]);
    }
}
