//! How much of the paper's experiment: everything that costs time shrinks together, by factors that every
//! output names.

use super::names::unknown;
use crate::data::subset::Labels;
use crate::error::usage;
use crate::model::Precond;
use crate::settings::Factor;
use anyhow::Result;

/// Factors over the paper's settings. What is not here (depth, levels, skips, classes, weight decay, dropout) stays as
/// the paper has it; a cell with fewer images than classes is none.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scale {
    pub name: &'static str,
    /// Training-set sizes, rounded; at least 2.
    pub size: f64,
    /// Width of the network, rounded to a multiple of 4.
    pub channels: f64,
    pub epochs: f64,
    pub batch: f64,
    /// Learning rate.
    pub lr: f64,
    /// The highest that it makes of a lower one: Adam on batches of a few images diverges beyond, as EDM's 1e-3 times ten does.
    pub max_lr: f64,
    /// Epochs over which the learning rate grows. The scale's own and no share of a run's length, so that a longer run
    /// begins with a shorter one's bits.
    pub ramp: f64,
    /// Half-life, in steps, of the average over weights: a rate r becomes r^(1/f).
    pub ema_halflife: f64,
    /// Generated images per evaluation.
    pub score_images: f64,
    /// Scorings of a run.
    pub evaluations: f64,
    /// EDM's preconditioning in place of VP's and VE's, which learn too slowly for short runs.
    pub edm_precond: bool,
    /// The full resolution is the set's, but at most this; the paper's 32, 16 and 8 are 1, ½ and ¼ of it.
    pub max_resolution: usize,
}

/// Those that `--scale` names.
pub const SCALES: [Scale; 4] = [
    Scale {
        name: "paper",
        size: 1.0,
        channels: 1.0,
        epochs: 1.0,
        batch: 1.0,
        lr: 1.0,
        max_lr: f64::INFINITY,
        ramp: 1.0,
        ema_halflife: 1.0,
        score_images: 1.0,
        evaluations: 1.0,
        edm_precond: false,
        max_resolution: 32,
    },
    Scale {
        name: "half",
        size: 0.5,
        channels: 0.5,
        epochs: 0.5,
        batch: 0.5,
        lr: 1.0,
        max_lr: f64::INFINITY,
        ramp: 0.5,
        ema_halflife: 0.5,
        score_images: 0.5,
        evaluations: 1.0,
        edm_precond: false,
        max_resolution: 32,
    },
    Scale {
        name: "mini",
        size: 0.1,
        channels: 0.25,
        epochs: 0.1,
        batch: 0.125,
        lr: 2.0,
        max_lr: f64::INFINITY,
        ramp: 0.1,
        ema_halflife: 0.125,
        score_images: 0.2,
        evaluations: 0.5,
        edm_precond: false,
        max_resolution: 32,
    },
    Scale {
        name: "tiny",
        size: 0.01,
        channels: 0.125,
        epochs: 0.025,
        batch: 1.0 / 64.0,
        lr: 10.0,
        max_lr: 3.5e-3,
        ramp: 0.025,
        ema_halflife: 1.0 / 16.0,
        score_images: 0.025,
        evaluations: 0.2,
        edm_precond: true,
        max_resolution: 16,
    },
];

/// EMA rate that the paper's half-life rule settles at (Gu et al. 2023, appendix B): 0.99929.
const SETTLED_EMA_RATE: f64 = 0.999_290_47;

impl Scale {
    pub const PAPER: Scale = SCALES[0];
    pub const TINY: Scale = SCALES[3];

    /// # Errors
    /// Usage, with the nearest known name.
    pub fn named(name: &str) -> Result<Scale> {
        let names = || SCALES.iter().map(|s| s.name);
        let found = SCALES.iter().find(|s| s.name == name);
        found.copied().ok_or_else(|| usage(format!("--scale: {}", unknown("scale", name, names()))))
    }

    pub fn is_paper(&self) -> bool {
        *self == Scale::PAPER
    }

    /// What is done to the paper's settings, for people: part of every output.
    pub fn said(&self) -> String {
        if self.is_paper() {
            return "scale paper: the paper's own settings".into();
        }
        let by = |f: f64| match f < 1.0 {
            true => format!("1/{}", tidy(1.0 / f)),
            false => format!("×{}", tidy(f)),
        };
        let highest = match self.max_lr.is_finite() {
            true => format!(" but at most {}", self.max_lr),
            false => String::new(),
        };
        format!(
            "scale {}, not the paper's: sizes {}, widths {}, epochs {}, batch {}, learning rate {}{highest}, its ramp {}, EMA \
             half-life {}, scored images {}, looks {}, at most {r}×{r} pixels, random labels dealt evenly{}",
            self.name,
            by(self.size),
            by(self.channels),
            by(self.epochs),
            by(self.batch),
            by(self.lr),
            by(self.ramp),
            by(self.ema_halflife),
            by(self.score_images),
            by(self.evaluations),
            if self.edm_precond { ", EDM's preconditioning in place of VP's and VE's" } else { "" },
            r = self.max_resolution,
        )
    }

    /// A training-set size of the paper's at this scale.
    pub fn size(&self, size: usize) -> usize {
        scaled(size, self.size, 1).max(2)
    }

    /// A setting of the paper's at this scale.
    pub fn scaled(&self, factor: Factor, value: Option<f64>) -> Option<f64> {
        let count = |by, unit| value.map(|n| scaled(n as usize, by, unit) as f64);
        match factor {
            // A rate that is above the scale's highest as it stands in the study stays as it is.
            Factor::Lr => value.map(|lr| (lr * self.lr).min(self.max_lr.max(lr))),
            Factor::Epochs => value.map(|epochs| epochs * self.epochs),
            Factor::Ramp => value.map(|epochs| epochs * self.ramp),
            Factor::EmaRate => self.ema_rate(value),
            Factor::Channels => count(self.channels, 4),
            Factor::Batch => count(self.batch, 1),
            Factor::Evaluations => count(self.evaluations, 1),
            Factor::ScoreImages => count(self.score_images, 1),
        }
    }

    /// Labels as the paper draws them for thousands of images leave some of the classes of a few dozen without any,
    /// which are sampled all the same: there they are dealt out.
    pub fn labels(&self, labels: Labels) -> Labels {
        match labels {
            Labels::Random(classes) if !self.is_paper() => Labels::Dealt(classes),
            other => other,
        }
    }

    /// A constant EMA rate; `None` is the paper's half-life rule, which has no meaning in short runs: there it
    /// becomes the rate that it settles at.
    fn ema_rate(&self, rate: Option<f64>) -> Option<f64> {
        if self.is_paper() {
            return rate;
        }
        Some(rate.unwrap_or(SETTLED_EMA_RATE).powf(1.0 / self.ema_halflife))
    }

    pub fn precond(&self, precond: Precond) -> Precond {
        if self.edm_precond { Precond::Edm } else { precond }
    }

    /// A resolution that the paper states for images of 32 pixels.
    pub fn resolution(&self, full: usize, at_32: usize) -> usize {
        full.min(self.max_resolution) * at_32 / 32
    }
}

/// `n` times `factor`, as a multiple of `unit`, at least one of what is there.
fn scaled(n: usize, factor: f64, unit: usize) -> usize {
    if factor == 1.0 || n == 0 {
        return n;
    }
    let units = (n as f64 * factor / unit as f64).round() as usize;
    units.max(1) * unit
}

/// 100 rather than 100.00000000000001.
fn tidy(x: f64) -> f64 {
    (x * 1e3).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_papers_scale_changes_nothing() {
        let p = Scale::PAPER;
        for factor in [Factor::Batch, Factor::Channels, Factor::Lr, Factor::Evaluations] {
            assert_eq!(p.scaled(factor, Some(130.0)), Some(130.0), "{factor:?}");
        }
        assert_eq!((p.ema_rate(None), p.ema_rate(Some(0.5))), (None, Some(0.5)));
        assert_eq!((p.size(1000), p.labels(Labels::Random(10))), (1000, Labels::Random(10)));
        assert_eq!((p.resolution(32, 8), p.resolution(64, 32)), (8, 32));
    }

    #[test]
    fn what_shrinks_stays_something() {
        let t = Scale::TINY;
        assert_eq!((t.size(1000), t.size(5000), t.size(1)), (10, 50, 2));
        let of = |factor, value| t.scaled(factor, Some(value)).unwrap();
        let all = |factor, values: [f64; 3]| values.map(|value| of(factor, value));
        assert_eq!(all(Factor::Channels, [128.0, 192.0, 8.0]), [16.0, 24.0, 4.0]);
        assert_eq!(all(Factor::Batch, [128.0, 896.0, 1.0]), [2.0, 14.0, 1.0]);
        assert_eq!(all(Factor::Lr, [2e-4, 1e-3, 0.5]), [2e-4 * 10.0, 3.5e-3, 0.5]);
        assert_eq!(all(Factor::Evaluations, [20.0, 240.0, 1.0]), [4.0, 48.0, 1.0]);
        assert_eq!(all(Factor::ScoreImages, [10_000.0, 1.0, 0.0]), [250.0, 1.0, 0.0]);
        let rate = t.ema_rate(None).unwrap();
        assert!((rate - 0.98870).abs() < 1e-5, "{rate}");
        assert_eq!(t.ema_rate(Some(0.0)), Some(0.0));
        assert_eq!(t.labels(Labels::Random(10)), Labels::Dealt(10));
        assert_eq!((t.resolution(8, 32), t.resolution(32, 32), t.resolution(32, 8)), (8, 16, 4));
        assert!(t.said().contains("sizes 1/100"), "{}", t.said());
    }
}
