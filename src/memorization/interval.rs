//! Between which sizes an EMM lies, by what other samples and other training seeds would have said of each ratio.

use super::bootstrap::RESAMPLES;
use super::emm::{Beyond, SizeRatio, emm_of};
use crate::rng::{Stream, philox, tag, unit};

/// What was counted of a training-set size.
#[derive(Debug, Clone, PartialEq)]
pub struct Counted {
    pub size: u64,
    /// Of each run, one a training seed: copies, and the images that they are counted in.
    pub runs: Vec<(u64, u64)>,
    /// The ratio still rose when training ended.
    pub rising: bool,
}

/// Share of the resamples on either side of an interval.
const TAIL: f64 = 0.025;

/// The 95% interval of EMM(ε): each end has 2.5% of [`RESAMPLES`] resamples beyond it, and is `None` where that many know no
/// size there: they are still above 1 − ε at the largest size, below it at the smallest, or no longer rising nowhere above.
///
/// A resample draws of each size its runs with replacement and of each run a ratio that such counts may come from
/// (Jeffreys' Beta(m + ½, n − m + ½), which leaves all copied and none copied open), and interpolates their means as
/// [`emm_of`] does. Deviations of R > 1 runs are stretched by √(R/(R − 1)): a resample of few varies too little. What a line
/// between two sizes is off by is not in it.
pub fn emm_interval(sizes: &[Counted], epsilon: f64) -> [Option<f64>; 2] {
    let (mut lows, mut highs): (Vec<f64>, Vec<f64>) = (0..RESAMPLES as u32)
        .map(|resample| {
            let of = |(at, counted): (usize, &Counted)| {
                let mut random = Random { resample, at: at as u32, block: 0, left: Vec::new() };
                let ratio = random.ratio(&counted.runs);
                SizeRatio { size: counted.size, ratio, rising: counted.rising }
            };
            bounds(&sizes.iter().enumerate().map(of).collect::<Vec<_>>(), epsilon)
        })
        .unzip();
    let quantile = |all: &mut Vec<f64>, q: f64| {
        all.sort_by(f64::total_cmp);
        let at = all.get((q * (RESAMPLES - 1) as f64).round() as usize);
        at.copied().filter(|n| n.is_finite())
    };
    [quantile(&mut lows, TAIL), quantile(&mut highs, 1.0 - TAIL)]
}

/// What measured ratios say: the EMM is at least the first size and at most the second, infinite where nothing is known.
fn bounds(measured: &[SizeRatio], epsilon: f64) -> (f64, f64) {
    let emm = emm_of(measured, epsilon);
    let below = emm.below.map_or(f64::INFINITY, |n| n as f64);
    match emm.found {
        Ok((n, _)) if emm.at_least() => (n, below),
        Ok((n, _)) => (n, n),
        Err(Beyond::Above) => (emm.reached.map_or(f64::NEG_INFINITY, |n| n as f64), f64::INFINITY),
        Err(Beyond::Below | Beyond::Unreached) => (f64::NEG_INFINITY, below),
    }
}

/// The random numbers of one size in one resample.
struct Random {
    resample: u32,
    at: u32,
    block: u32,
    left: Vec<u32>,
}

impl Random {
    /// A mean ratio that runs of these counts may come from; NaN without any.
    fn ratio(&mut self, runs: &[(u64, u64)]) -> f64 {
        let count = runs.len() as f64;
        let mean = runs.iter().map(|&(m, n)| m as f64 / n as f64).sum::<f64>() / count;
        let drawn = (0..runs.len()).map(|i| match runs.len() {
            1 => self.beta(runs[i]),
            n => {
                let chosen = (self.unit() * n as f64) as usize;
                self.beta(runs[chosen.min(n - 1)])
            }
        });
        let drawn = drawn.sum::<f64>() / count;
        match runs.len() {
            ..=1 => drawn,
            _ => (mean + (drawn - mean) * (count / (count - 1.0)).sqrt()).clamp(0.0, 1.0),
        }
    }

    fn beta(&mut self, (copies, images): (u64, u64)) -> f64 {
        let a = self.gamma(copies as f64 + 0.5);
        let b = self.gamma((images - copies.min(images)) as f64 + 0.5);
        a / (a + b)
    }

    /// Marsaglia and Tsang 2000; a shape below 1 by the one above it.
    fn gamma(&mut self, shape: f64) -> f64 {
        if shape < 1.0 {
            return self.gamma(shape + 1.0) * self.unit().powf(1.0 / shape);
        }
        let d = shape - 1.0 / 3.0;
        let c = 1.0 / (9.0 * d).sqrt();
        loop {
            let x = self.normal();
            let v = (1.0 + c * x).powi(3);
            if v > 0.0 && self.unit().ln() < 0.5 * x * x + d * (1.0 - v + v.ln()) {
                return d * v;
            }
        }
    }

    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * self.unit().ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }

    fn unit(&mut self) -> f64 {
        if self.left.is_empty() {
            let counter = [self.block, self.resample, self.at, tag(Stream::Diagnostic, 7)];
            self.left.extend(philox(counter, 0));
            self.block += 1;
        }
        unit(self.left.pop().expect("four words a block"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(all: &[(u64, &[u64])], images: u64) -> Vec<Counted> {
        let of = |&(size, copies): &(u64, &[u64])| Counted {
            size,
            runs: copies.iter().map(|&m| (m, images)).collect(),
            rising: false,
        };
        all.iter().map(of).collect()
    }

    fn close(found: [Option<f64>; 2], want: [f64; 2], off: f64) {
        for (found, want) in found.into_iter().zip(want) {
            let n = found.expect("an end");
            assert!((n - want).abs() <= off, "{found:?}, expected {want} ± {off}");
        }
    }

    #[test]
    fn draws_are_of_the_counts_posterior() {
        for (copies, images) in [(0, 10), (3, 10), (470, 500), (500, 500)] {
            let draw = |resample| {
                Random { resample, at: 0, block: 0, left: vec![] }.beta((copies, images))
            };
            let all: Vec<f64> = (0..20_000).map(draw).collect();
            let mean = all.iter().sum::<f64>() / all.len() as f64;
            let var = all.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / all.len() as f64;
            let (a, b) = (copies as f64 + 0.5, (images - copies) as f64 + 0.5);
            let want = a * b / ((a + b).powi(2) * (a + b + 1.0));
            assert!((mean - a / (a + b)).abs() < 4.0 * (want / 2e4).sqrt(), "{copies} {mean}");
            assert!((var / want - 1.0).abs() < 0.06, "{copies}/{images}: {var} {want}");
        }
    }

    #[test]
    fn between_two_sizes_it_is_what_errors_of_the_ratios_make_of_the_line() {
        // 950 and 800 of 1000: 20 + 20/3; the delta method's deviation, to first order.
        let measured = sizes(&[(20, &[950]), (40, &[800])], 1000);
        let (r1, r2, level, gap) = (0.95, 0.8, 0.9, 20.0f64);
        let by_r1 = gap * (level - r2) / ((r1 - r2) * (r1 - r2));
        let by_r2 = gap * (r1 - level) / ((r1 - r2) * (r1 - r2));
        let sd = |r: f64| (r * (1.0 - r) / 1000.0f64).sqrt();
        let deviation = (by_r1 * sd(r1)).hypot(by_r2 * sd(r2));
        let emm = 20.0 + gap / 3.0;
        let want = [emm - 1.96 * deviation, emm + 1.96 * deviation];
        close(emm_interval(&measured, 0.1), want, 0.35 * deviation);
        assert_eq!(emm_interval(&measured, 0.1), emm_interval(&measured, 0.1));
    }

    #[test]
    fn an_end_that_is_not_bracketed_is_none() {
        // Well above at the largest size; not quite; at the level itself half of the resamples are.
        assert_eq!(
            emm_interval(&sizes(&[(8, &[500]), (16, &[499])], 500), 0.1),
            [Some(16.0), None]
        );
        let [low, high] = emm_interval(&sizes(&[(8, &[500]), (16, &[455])], 500), 0.1);
        assert!(high.is_none() && low.is_some_and(|n| (12.0..16.0).contains(&n)), "{low:?}");
        let [low, high] = emm_interval(&sizes(&[(8, &[500]), (16, &[440])], 500), 0.1);
        assert!(high.is_none() && low.is_some(), "{high:?}: 2.5% are still above");
        assert!(emm_interval(&sizes(&[(8, &[500]), (16, &[400])], 500), 0.1)[1].is_some());
        assert_eq!(emm_interval(&sizes(&[(8, &[300]), (16, &[99])], 500), 0.1), [None, Some(8.0)]);
        assert_eq!(emm_interval(&sizes(&[(8, &[0]), (16, &[0])], 500), 0.1), [None, None]);
    }

    #[test]
    fn a_ratio_that_still_rose_bounds_nothing_from_above() {
        let mut measured = sizes(&[(8, &[490]), (16, &[300]), (32, &[100])], 500);
        assert!(emm_interval(&measured, 0.1)[1].is_some_and(|n| n < 16.0));
        measured[1].rising = true;
        assert_eq!(emm_interval(&measured, 0.1)[1], Some(32.0));
        measured[2].rising = true;
        let [low, high] = emm_interval(&measured, 0.1);
        assert!(high.is_none() && low.is_some_and(|n| n > 8.0), "{low:?} {high:?}");
    }

    #[test]
    fn training_seeds_that_differ_widen_it() {
        let width = |all: &[(u64, &[u64])]| match emm_interval(&sizes(all, 10_000), 0.1) {
            [Some(low), Some(high)] => high - low,
            other => panic!("{other:?}"),
        };
        let alike = width(&[(20, &[9500, 9500, 9500]), (40, &[8000, 8000, 8000])]);
        let apart = width(&[(20, &[9300, 9500, 9700]), (40, &[7800, 8000, 8200])]);
        assert!(apart > 3.0 * alike, "{apart} {alike}");
        // 200 of three runs: their mean's deviation is 0.02/√3, and the line's as above.
        let deviation = (20.0 * 0.1 / 0.0225f64).hypot(20.0 * 0.05 / 0.0225) * 0.02 / 3f64.sqrt();
        assert!((apart / (3.92 * deviation) - 1.0).abs() < 0.35, "{apart} {deviation}");
    }

    #[test]
    fn it_covers_the_truth_about_as_often_as_it_says() {
        let (truth, images) = ([0.96, 0.93, 0.84], 400);
        let emm = emm_of(&[(10, truth[0]), (20, truth[1]), (40, truth[2])], 0.1).found.unwrap().0;
        let covered = |trial: u32| {
            let count = |at: usize| {
                let mut random =
                    Random { resample: trial, at: 100 + at as u32, block: 0, left: vec![] };
                (0..images).filter(|_| random.unit() < truth[at]).count() as u64
            };
            let counts = [0, 1, 2].map(count);
            let [a, b, c] = counts;
            let [low, high] =
                emm_interval(&sizes(&[(10, &[a]), (20, &[b]), (40, &[c])], images), 0.1);
            low.is_none_or(|n| n <= emm) && high.is_none_or(|n| emm <= n)
        };
        let covered = (0..300).filter(|&trial| covered(trial)).count();
        assert!((277..=297).contains(&covered), "{covered} of 300");
    }
}
