//! How many images a run's evaluations generate where that is not said: as many as a quarter of the run's FLOP pays for.

use super::RunConfig;
use crate::model::flops::flops;

/// Calls of the network for one generated image: 18 steps of Heun's method.
pub const NETWORK_CALLS: u64 = 35;

/// Evaluations of a run, where its length pays for them.
const EVALUATIONS: usize = 20;
/// Images at each evaluation, and of the best one scored again, however long the run.
const IMAGES: usize = 1000;
const AGAIN: usize = 10_000;

/// However short the run: images at the last evaluation, and of the best one scored again.
const LEAST_IMAGES: usize = 100;
const LEAST_AGAIN: usize = 200;

/// The share of a run's FLOP that scoring takes at most where it is left to the program.
pub const SHARE: f64 = 0.25;

/// What is said of a run's scoring; the rest follows from the run's settings alone, so that a run's numbers do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Scoring {
    pub evaluations: Option<usize>,
    /// At every evaluation.
    pub score_images: Option<usize>,
    pub rescore_images: Option<usize>,
}

impl Scoring {
    /// Gives `config`, whose network, images and length are known, its evaluations and their images.
    ///
    /// What is not said takes together at most a quarter of the run's FLOP, but has at least 100 images at the last evaluation
    /// and 200 that score the best one again. Where a quarter is not enough for all, evaluations begin with few images and grow
    /// ([`RunConfig::images_at`]), and the shortest runs have fewer evaluations.
    pub fn settle(self, config: &mut RunConfig) {
        let paid_for = images_paid_for(config);
        let most_evaluations = EVALUATIONS.min(config.steps() as usize).max(1);
        let t = &mut config.train;
        t.looks = self.evaluations.unwrap_or(most_evaluations);
        t.score_images = self.score_images.unwrap_or(IMAGES);
        t.growing_looks = false;
        if t.looks == 0 {
            t.rescore_images = self.rescore_images.unwrap_or(AGAIN);
            return;
        }
        if self.score_images.is_none() {
            let left = match self.rescore_images {
                Some(again) => paid_for.saturating_sub(again),
                None => (paid_for / 3 * 2).min(paid_for.saturating_sub(LEAST_AGAIN)),
            };
            if self.evaluations.is_none() {
                t.looks = (2 * left / LEAST_IMAGES).saturating_sub(1).clamp(1, most_evaluations);
            }
            if left / t.looks < IMAGES {
                t.growing_looks = t.looks > 1;
                t.score_images = tidy(2 * left / (t.looks + 1)).clamp(LEAST_IMAGES, IMAGES);
            }
        }
        t.rescore_images = 0;
        let left = paid_for.saturating_sub(config.generated() as usize);
        let again = || tidy(left).clamp(LEAST_AGAIN, AGAIN);
        config.train.rescore_images = self.rescore_images.unwrap_or_else(again);
    }
}

/// The share of a run's FLOP that its evaluations take.
pub fn share(config: &RunConfig) -> f64 {
    let [trained, generated] = flop(config);
    generated / (trained + generated).max(1.0)
}

/// FLOP of training, and of all images that are generated for evaluations.
pub fn flop(config: &RunConfig) -> [f64; 2] {
    let cost = flops(&config.model);
    let trained = config.steps() as f64 * config.train.batch as f64 * cost.train as f64;
    [trained, config.generated() as f64 * NETWORK_CALLS as f64 * cost.forward as f64]
}

/// Images that a quarter of the run's FLOP generates, where the rest is training.
fn images_paid_for(config: &RunConfig) -> usize {
    let image = (NETWORK_CALLS * flops(&config.model).forward) as f64;
    (SHARE / (1.0 - SHARE) * flop(config)[0] / image) as usize
}

/// Two digits of a number, the rest zeros.
fn tidy(n: usize) -> usize {
    let unit = 10usize.pow(n.max(1).ilog10().saturating_sub(1));
    n / unit * unit
}

#[cfg(test)]
mod tests {
    use super::super::config::tests::example;
    use super::*;

    fn settled(scoring: Scoring, images: usize, epochs: f64) -> RunConfig {
        let mut config = example();
        (config.data.images, config.train.epochs) = (images, epochs);
        scoring.settle(&mut config);
        config
    }

    #[test]
    fn a_quarter_of_the_flop_or_the_least_that_says_something() {
        for images in [2, 20, 40, 500, 5000] {
            for epochs in [1.0, 100.0, 300.0, 1000.0, 4e3, 4e4] {
                let config = settled(Scoring::default(), images, epochs);
                let t = &config.train;
                assert!(t.score_images >= 100 && t.rescore_images >= 200);
                let all = config.generated() as usize;
                assert!(share(&config) <= SHARE || all == 300, "{images} {epochs} {t:?}");
                // Nothing that is paid for is left lying, up to the most.
                let taken = all as f64 / images_paid_for(&config).min(30_000) as f64;
                assert!(taken > 0.8, "{images} {epochs} {taken}");
            }
        }
    }

    #[test]
    fn long_runs_take_all_there_is_to_take_and_short_ones_fewer_evaluations() {
        let of = |images, epochs| {
            let t = settled(Scoring::default(), images, epochs).train;
            (t.looks, t.score_images, t.growing_looks, t.rescore_images)
        };
        assert_eq!(of(1000, 4e4), (20, 1000, false, 10_000));
        assert_eq!(of(20, 4e4), (20, 1000, true, 10_000));
        assert_eq!(of(40, 1e4), (20, 720, true, 3800));
        assert_eq!(of(40, 1e3), (14, 100, true, 380));
        assert_eq!(of(40, 100.0), (1, 100, false, 200));
    }

    #[test]
    fn what_is_said_stays() {
        let of = |evaluations, score_images, rescore_images, epochs| {
            let t =
                settled(Scoring { evaluations, score_images, rescore_images }, 40, epochs).train;
            (t.looks, t.score_images, t.growing_looks, t.rescore_images)
        };
        assert_eq!(of(Some(7), Some(50), Some(0), 100.0), (7, 50, false, 0));
        assert_eq!(of(None, None, Some(0), 1e4), (20, 1000, true, 0));
        assert_eq!(of(Some(20), None, None, 100.0), (20, 100, true, 200));
        assert_eq!(of(None, Some(70), None, 100.0), (20, 70, false, 200));
        assert_eq!(of(Some(0), None, None, 100.0), (0, 1000, false, 10_000));
    }
}
