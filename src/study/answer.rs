//! What a search for the EMM answers, in words and as `results.json` has it. Of curves that still rose nothing is
//! concluded but what they reached.

use super::account::{cost_json, costs_json, settings_json, settings_said};
use super::folder::RunSeen;
use crate::memorization::{Bracket, Emm, Side, SizeRatio};
use crate::run::Precision;
use crate::run::progress::epochs_said;
use serde_json::{Value, json};
use std::path::PathBuf;

/// The runs of one size.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    pub size: usize,
    /// Mean over the runs of each one's value: of its best look, scored again with fresh seeds where the
    /// settings ask for that.
    pub ratio: f64,
    /// 95% Wilson interval over all images of these values: what other samples would change.
    pub interval: [f64; 2],
    /// Looks that the best was chosen from.
    pub looks: usize,
    /// Where the curve is highest.
    pub best_epoch: f64,
    /// (epoch, ratio) of each look, mean over the runs.
    pub curve: Vec<(f64, f64)>,
    /// Of each look the 95% Wilson interval over all its images.
    pub curve_intervals: Vec<[f64; 2]>,
    /// Of a run the ratio [still rose](super::outcome::still_rising).
    pub rising: bool,
    /// Training images that repeat an earlier one.
    pub reference_duplicates: usize,
    /// `ratio` with identical training images counted once; `None` if all of them are equal, or a run that has
    /// duplicates was scored without counting so.
    pub ratio_distinct: Option<f64>,
    pub runs: Vec<Trained>,
}

/// One finished run.
#[derive(Debug, Clone, PartialEq)]
pub struct Trained {
    pub seed: u64,
    pub ratio: f64,
    pub dir: PathBuf,
    /// The run as it lies there: settings and time.
    pub seen: RunSeen,
}

/// What a search found.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    pub emm: Emm,
    /// Length of each run.
    pub epochs: f64,
    /// What the runs were computed in.
    pub precision: Precision,
    /// Ascending sizes.
    pub sizes: Vec<Measured>,
    /// What is wrong with damaged runs, which were passed over.
    pub damage: Vec<String>,
}

impl Found {
    /// The sizes around the EMM.
    pub fn bracket(&self) -> Option<[u64; 2]> {
        self.emm.found.as_ref().ok().map(|(_, b)| [b.lo.0, b.hi.0])
    }

    /// The object of `results.json`.
    pub fn json(&self) -> Value {
        let violations: Vec<_> = self.emm.violations.iter().map(|b| [b.lo.0, b.hi.0]).collect();
        let runs = self.runs();
        let (settings, mut own) = settings_json(&runs);
        let mut of_size = |m: &Measured| m.json(own.drain(..m.runs.len()));
        let sizes: Vec<Value> = self.sizes.iter().map(&mut of_size).collect();
        let outside = self.emm.found.as_ref().err().filter(|side| **side != Side::Unreached);
        json!({
            "epsilon": self.emm.epsilon,
            "emm": self.emm.found.as_ref().ok().map(|f| f.0),
            "bracket": self.bracket(),
            "sizes": sizes,
            "outside": outside,
            "violations": violations,
            "emm_is_least": self.emm.at_least(),
            "known": {"at_least": self.emm.reached, "below": self.emm.below},
            "still_rising": self.emm.rising,
            "epochs": self.epochs,
            "precision": self.precision,
            "said": self.sentence(),
            "settings": settings,
            "settings_said": settings_said(&runs),
            "costs": costs_json(&runs),
        })
    }

    /// All runs, size by size.
    pub fn runs(&self) -> Vec<&RunSeen> {
        self.sizes.iter().flat_map(|m| &m.runs).map(|r| &r.seen).collect()
    }

    /// The answer in one sentence.
    pub fn sentence(&self) -> String {
        let (e, epochs) = (self.emm.epsilon, epochs_said(self.epochs));
        let level = trimmed(100.0 * (1.0 - e));
        let size = |m: Option<&Measured>| m.map_or(0, |m| m.size);
        match &self.emm.found {
            Ok((n, Bracket { lo, hi })) if self.emm.at_least() => {
                let ends = [lo.0, hi.0].into_iter().filter(|n| self.emm.rising.contains(n));
                let below = match self.emm.below {
                    Some(below) => format!("; it is below {below}"),
                    None => String::new(),
                };
                format!(
                    "EMM(ε = {e}) ≈ {n:.0} images at least: the ratio falls through {level}% between {} and {} images, \
                     but of {} it still rose at the last look, after {epochs} epochs{below}",
                    lo.0,
                    hi.0,
                    listed(&ends.collect::<Vec<_>>())
                )
            }
            Ok((n, b)) => format!(
                "EMM(ε = {e}) ≈ {n:.0} images: the ratio falls through {level}% between {} and {} images",
                b.lo.0, b.hi.0
            ),
            Err(Side::Below) => format!(
                "EMM(ε = {e}) not bracketed: every ratio is below {level}% after {epochs} epochs and rises no more, so \
                 it lies below {} images",
                size(self.sizes.first())
            ),
            Err(Side::Above) => format!(
                "EMM(ε = {e}) not bracketed: {} images are still memorized to {level}%, so it is at least that",
                size(self.sizes.last())
            ),
            Err(Side::Unreached) => {
                let why = match self.emm.rising.as_slice() {
                    [] => "too little was memorized to tell when training would be long enough"
                        .to_string(),
                    rising => format!(
                        "the ratio still rose at the last look of {} images",
                        listed(rising)
                    ),
                };
                let below = match self.emm.below {
                    Some(below) => {
                        format!("; of {below} no longer, so it lies below {below} images")
                    }
                    None => String::new(),
                };
                format!(
                    "EMM(ε = {e}) not known: {level}% was not reached in {epochs} epochs, and {why}{below}"
                )
            }
        }
    }

    /// A sentence for each doubt: pairs of sizes that speak against a falling ratio, training images that hide copies.
    pub fn notes(&self) -> Vec<String> {
        let violations = self.emm.violations.iter().map(|b| self.against(b));
        violations.chain(self.sizes.iter().filter_map(Measured::said_of_duplicates)).collect()
    }

    fn against(&self, b: &Bracket) -> String {
        let end = |size, end: usize| {
            self.sizes.iter().find(|m| m.size as u64 == size).map(|m| m.interval[end])
        };
        let doubt = match end(b.hi.0, 0) <= end(b.lo.0, 1) {
            true => "; their intervals overlap",
            false => "",
        };
        format!(
            "the ratio rises from {:.2}% at {} to {:.2}% at {} images, against the hypothesis that it falls{doubt}",
            100.0 * b.lo.1,
            b.lo.0,
            100.0 * b.hi.1,
            b.hi.0
        )
    }
}

/// 90 rather than 90.00000000000001.
fn trimmed(percent: f64) -> f64 {
    (percent * 1e6).round() / 1e6
}

/// `8, 16 and 32`.
fn listed(sizes: &[u64]) -> String {
    let all: Vec<String> = sizes.iter().map(u64::to_string).collect();
    match all.as_slice() {
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
        [] => String::new(),
    }
}

impl Measured {
    /// Lowest and highest ratio of the size's runs.
    pub fn spread(&self) -> [f64; 2] {
        let ratios = || self.runs.iter().map(|r| r.ratio);
        [ratios().fold(f64::INFINITY, f64::min), ratios().fold(f64::NEG_INFINITY, f64::max)]
    }

    pub fn of_size(&self) -> SizeRatio {
        SizeRatio { size: self.size as u64, ratio: self.ratio, rising: self.rising }
    }

    fn said_of_duplicates(&self) -> Option<String> {
        let once = self
            .ratio_distinct
            .map_or("cannot be told".into(), |r| format!("is {:.2}%", 100.0 * r));
        (self.reference_duplicates > 0).then(|| {
            format!(
                "of {} training images {} repeat an earlier one, which hides copies of it: with identical images \
                 counted once the ratio {once}, not {:.2}%",
                self.size,
                self.reference_duplicates,
                100.0 * self.ratio
            )
        })
    }

    /// `own`: for each run the settings that it does not share with all others.
    fn json(&self, own: impl Iterator<Item = Value>) -> Value {
        let run = |(r, own): (&Trained, Value)| {
            let mut all =
                json!({"seed": r.seed, "ratio": r.ratio, "run": r.dir.display().to_string()});
            cost_json(&r.seen).into_iter().for_each(|(key, value)| all[key] = value);
            all["settings"] = own;
            all
        };
        json!({
            "size": self.size,
            "ratio": self.ratio,
            "interval": self.interval,
            "looks": self.looks,
            "best_epoch": self.best_epoch,
            "curve": self.curve.iter().map(|&(e, r)| [e, r]).collect::<Vec<_>>(),
            "curve_intervals": self.curve_intervals,
            "spread": self.spread(),
            "runs": self.runs.iter().zip(own).map(run).collect::<Vec<_>>(),
            "rising": self.rising,
            "reference_duplicates": self.reference_duplicates,
            "ratio_distinct": self.ratio_distinct,
        })
    }
}
