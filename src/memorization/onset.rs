//! When memorization starts: the time at which the ratio of a run passes a level, and how such times grow with the training set
//! (Bonnaire et al. 2025, Favero et al. 2025: the time at which copies appear grows with N, that of generalizing does not).

use super::wilson;

/// What one evaluation of a run counted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Counts {
    /// Epochs.
    pub time: f64,
    pub memorized: u64,
    pub images: u64,
}

/// When a ratio passed a level, in epochs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Onset {
    /// Between two evaluations along a line, of ratios that never fall; `None` if the level is not passed, or was by the first
    /// evaluation.
    pub time: Option<f64>,
    /// The last evaluation that was below the level, 0 if none is known to be, and the first that was above it, by the 95%
    /// intervals of their ratios.
    pub interval: (f64, Option<f64>),
}

/// When the ratio passes `level`, of evaluations in the order of their times. The true ratio is taken to never fall over
/// training: what a later evaluation bounds from above bounds all earlier ones, and the other way round.
pub fn onset(evaluations: &[Counts], level: f64) -> Onset {
    let ends: Vec<[f64; 2]> = evaluations.iter().map(|e| wilson(e.memorized, e.images)).collect();
    let below = ends.iter().rposition(|[_, high]| *high <= level);
    let above = ends.iter().position(|[low, _]| *low > level);
    let at = |i: usize| evaluations[i].time;
    // A later evaluation below says more than an earlier one above it, which then was luck.
    let above = match (below, above) {
        (Some(b), Some(a)) if a < b => (b + 1..ends.len()).find(|&i| ends[i][0] > level),
        _ => above,
    };
    let ratios = never_falling(evaluations);
    // Of what came before the first evaluation nothing is known.
    let passed = ratios.iter().position(|&ratio| ratio > level).filter(|&i| i > 0);
    let time = passed.map(|i| {
        let (t, r, next) = (at(i - 1), ratios[i - 1], ratios[i]);
        t + (at(i) - t) * ((level - r) / (next - r)).clamp(0.0, 1.0)
    });
    Onset { time, interval: (below.map_or(0.0, at), above.map(at)) }
}

/// The ratios of least squares that never fall, each weighed by its images (isotonic regression: neighbours that fall are pooled).
fn never_falling(evaluations: &[Counts]) -> Vec<f64> {
    let mut pools: Vec<(f64, f64, usize)> = Vec::new();
    for e in evaluations {
        pools.push((e.memorized as f64, e.images as f64, 1));
        while let [.., (m, n, _), (m2, n2, _)] = pools[..]
            && m * n2 >= m2 * n
            && let (Some((m2, n2, k2)), Some(last)) = (pools.pop(), pools.last_mut())
        {
            *last = (m + m2, n + n2, last.2 + k2);
        }
    }
    pools.into_iter().flat_map(|(m, n, k)| vec![m / n; k]).collect()
}

/// Share of a loss's least value that others may be above it and count as the same.
const SAME: f64 = 0.01;

/// When a loss turns, in epochs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Turn {
    /// Of its least value.
    pub time: f64,
    /// The evaluations around those whose losses are at most `SAME` above the least: it turns between.
    pub interval: (f64, f64),
    /// It fell to there and has risen since; else it may be least before the first evaluation, or longer training may lower it.
    pub turned: bool,
}

/// When a loss turns, of (epochs, loss) in the order of their times; `None` without any.
pub fn turn(losses: &[(f64, f64)]) -> Option<Turn> {
    let &(time, least) = losses.iter().min_by(|a, b| a.1.total_cmp(&b.1))?;
    let same = |&(_, loss): &(f64, f64)| loss <= least * (1.0 + SAME);
    let (first, last) = (losses.iter().position(same)?, losses.iter().rposition(same)?);
    let before = first.checked_sub(1).map(|i| losses[i].0);
    let after = losses.get(last + 1).map(|l| l.0);
    let interval = (before.unwrap_or(0.0), after.unwrap_or(losses[last].0));
    Some(Turn { time, interval, turned: before.is_some() && after.is_some() })
}

/// A power law y = c·x^α, by least squares of the logarithms.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Law {
    pub exponent: f64,
    /// 95%, by Student's t; needs three points.
    pub interval: Option<[f64; 2]>,
    /// Of what it is fitted to.
    pub points: usize,
    /// ln y at the mean of ln x.
    level: f64,
    mean: f64,
    /// Sum of squares of ln x around its mean.
    spread: f64,
    /// Deviation of ln y from the law.
    deviation: f64,
}

/// The law of points (x, y) > 0, of whose ln y `known` is the deviation to which they are known at best; `None` unless two x
/// differ.
pub fn law(points: &[(f64, f64)], known: f64) -> Option<Law> {
    let n = points.len() as f64;
    let logs: Vec<(f64, f64)> = points.iter().map(|&(x, y)| (x.ln(), y.ln())).collect();
    let mean = logs.iter().map(|p| p.0).sum::<f64>() / n;
    let level = logs.iter().map(|p| p.1).sum::<f64>() / n;
    let spread: f64 = logs.iter().map(|p| (p.0 - mean).powi(2)).sum();
    if !(spread > 1e-12 && spread.is_finite() && level.is_finite()) {
        return None;
    }
    let exponent = logs.iter().map(|p| (p.0 - mean) * (p.1 - level)).sum::<f64>() / spread;
    let off = |p: &(f64, f64)| (p.1 - level - exponent * (p.0 - mean)).powi(2);
    let free = points.len().saturating_sub(2);
    let deviation = match free {
        0 => f64::NAN,
        free => (logs.iter().map(off).sum::<f64>() / free as f64).sqrt().max(known),
    };
    let half = t_975(free).map(|t| t * deviation / spread.sqrt());
    let interval = half.map(|half| [exponent - half, exponent + half]);
    Some(Law { exponent, interval, points: points.len(), level, mean, spread, deviation })
}

impl Law {
    /// y at x.
    pub fn at(&self, x: f64) -> f64 {
        (self.level + self.exponent * (x.ln() - self.mean)).exp()
    }

    /// The x at which the law is y, and the 95% interval: the x for which a new point (x, y) would be no surprise. An end is
    /// `None` where that goes on for ever, or nothing is known.
    pub fn reaches(&self, y: f64) -> (Option<f64>, [Option<f64>; 2]) {
        let x = (self.mean + (y.ln() - self.level) / self.exponent).exp();
        let found = Some(x).filter(|x| self.exponent != 0.0 && x.is_finite() && *x > 0.0);
        let (Some(x), Some(t)) = (found, t_975(self.points.saturating_sub(2))) else {
            return (found, [None, None]);
        };
        let expected = |ln_x: f64| {
            let from_mean = ln_x - self.mean;
            let off = (self.level + self.exponent * from_mean - y.ln()).abs();
            let known = 1.0 + 1.0 / self.points as f64 + from_mean.powi(2) / self.spread;
            off <= t * self.deviation * known.sqrt()
        };
        // Steps of 1%, as far as a factor of a thousand.
        let end = |step: f64| {
            let walk = (1..=700).map(|k| x.ln() + step * k as f64);
            walk.take_while(|&ln_x| expected(ln_x))
                .map(|ln_x| (ln_x + step).exp())
                .last()
                .or(Some(x))
        };
        let bounded = |end: &f64| (end / x).ln().abs() < 6.99;
        (Some(x), [end(-0.01).filter(bounded), end(0.01).filter(bounded)])
    }
}

/// The 97.5% quantile of Student's t with `free` degrees of freedom; `None` without any.
fn t_975(free: usize) -> Option<f64> {
    const FIRST: [f64; 30] = [
        12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
        2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056,
        2.052, 2.048, 2.045, 2.042,
    ];
    match free {
        0 => None,
        1..=30 => Some(FIRST[free - 1]),
        // To within 0.001.
        _ => Some(1.96 + 2.46 / free as f64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(all: &[(f64, u64)], images: u64) -> Vec<Counts> {
        all.iter().map(|&(time, memorized)| Counts { time, memorized, images }).collect()
    }

    #[test]
    fn a_level_is_passed_between_two_evaluations() {
        let run = counts(&[(10.0, 0), (20.0, 0), (30.0, 40), (40.0, 200)], 1000);
        let found = onset(&run, 0.01);
        assert_eq!(found.time, Some(22.5));
        assert_eq!(found.interval, (20.0, Some(30.0)));
        // Half: between 4% and 20% nowhere.
        assert_eq!(onset(&run, 0.5), Onset { time: None, interval: (40.0, None) });
        // Before the first evaluation nothing is known.
        assert_eq!(onset(&run[2..], 0.01), Onset { time: None, interval: (0.0, Some(30.0)) });
        assert_eq!(onset(&[], 0.01), Onset { time: None, interval: (0.0, None) });
    }

    #[test]
    fn few_images_know_little() {
        // None of 100 may be 3.7%; one of 100 may be 0.2%.
        let found = onset(&counts(&[(1.0, 0), (2.0, 0), (3.0, 2), (4.0, 50)], 100), 0.01);
        assert_eq!((found.time, found.interval), (Some(2.5), (0.0, Some(4.0))));
        let found = onset(&counts(&[(1.0, 0), (2.0, 0), (3.0, 2), (4.0, 50)], 100), 0.05);
        assert_eq!(found.interval, (2.0, Some(4.0)), "2 of 100 may be 7%");
    }

    #[test]
    fn what_falls_is_pooled_and_an_early_excess_that_falls_was_luck() {
        let run = counts(&[(1.0, 0), (2.0, 30), (3.0, 4), (4.0, 500)], 1000);
        let found = onset(&run, 0.02);
        // 0, 17, 17, 500 of 1000.
        let time = 3.0 + 3.0 / 483.0;
        assert!((found.time.unwrap() - time).abs() < 1e-12, "{found:?}");
        assert_eq!(found.interval, (3.0, Some(4.0)));
        assert_eq!(never_falling(&run), [0.0, 0.017, 0.017, 0.5]);
        assert_eq!(never_falling(&counts(&[(1.0, 9), (2.0, 5), (3.0, 1)], 10)), [0.5; 3]);
    }

    #[test]
    fn a_loss_turns_where_it_is_least_and_rises_after() {
        let fell = [(1.0, 9.0), (2.0, 4.02), (3.0, 4.0), (4.0, 4.03), (5.0, 4.3)];
        let found = turn(&fell).unwrap();
        assert_eq!(found, Turn { time: 3.0, interval: (1.0, 5.0), turned: true });
        assert!(!turn(&fell[..4]).unwrap().turned, "still the same");
        let rose = turn(&fell[2..]).unwrap();
        assert!(!rose.turned && rose.interval == (0.0, 5.0), "it may have turned before: {rose:?}");
        assert_eq!(turn(&[]), None);
    }

    #[test]
    fn a_law_is_what_made_the_points() {
        let made: Vec<(f64, f64)> =
            [10.0f64, 20.0, 40.0, 80.0].iter().map(|&n| (n, 3.0 * n.powf(0.7))).collect();
        let found = law(&made, 0.0).unwrap();
        assert!(
            (found.exponent - 0.7).abs() < 1e-12
                && (found.at(160.0) / (3.0 * 160f64.powf(0.7)) - 1.0).abs() < 1e-12
        );
        let (x, _) = found.reaches(3.0 * 640f64.powf(0.7));
        assert!((x.unwrap() - 640.0).abs() < 1e-6);
        assert!(law(&made[..1], 0.0).is_none() && law(&[(4.0, 1.0), (4.0, 2.0)], 0.0).is_none());
        assert!(law(&made[..2], 0.0).unwrap().interval.is_none());
        // Points that lie on a line by rounding are no better known than they are rounded: t(2)·0.1/√(5·ln²2).
        let [low, high] = law(&made, 0.1).unwrap().interval.unwrap();
        assert!((high - low - 2.0 * 4.303 * 0.1 / (5f64.sqrt() * 2f64.ln())).abs() < 1e-6);
    }

    #[test]
    fn intervals_are_of_students_t() {
        // By SciPy 1.16: linregress and t.ppf, roots by brentq.
        let logs = [(0.0, 0.1), (1.0, 0.9), (2.0, 2.2), (3.0, 3.1)];
        let points: Vec<(f64, f64)> =
            logs.iter().map(|&(x, y): &(f64, f64)| (x.exp(), y.exp())).collect();
        let found = law(&points, 0.0).unwrap();
        let close = |found: f64, want: f64, off: f64| {
            assert!((found - want).abs() < off, "{found}, expected {want}")
        };
        let [low, high] = found.interval.unwrap();
        close(found.exponent, 1.03, 1e-9);
        close(low, 0.747856, 1e-4);
        close(high, 1.312144, 1e-4);
        // Ends are stepped to, by 1%.
        let (x, ends) = found.reaches(points[3].1);
        let [a, b] = ends.map(Option::unwrap);
        close(x.unwrap().ln(), 2.980583, 1e-6);
        close(a.ln(), 2.264466, 0.0101);
        close(b.ln(), 3.936916, 0.0101);
        for (free, t) in [(31, 2.03951), (40, 2.02108), (60, 2.00030), (100, 1.98397)] {
            close(t_975(free).unwrap(), t, 1e-3);
        }
    }
}
