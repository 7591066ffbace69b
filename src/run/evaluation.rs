//! What a scoring inside training says.

use crate::memorization::onset::Counts;
use serde::Deserialize;

/// One scoring inside training: a row of `scores.csv`, in its columns' order.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Evaluation {
    pub step: u64,
    pub epoch: f64,
    pub images: u64,
    pub memorized: u64,
    pub ratio: f64,
    /// 95% Wilson sampling interval.
    pub low: f64,
    pub high: f64,
    pub mean_d1: f64,
}

impl Evaluation {
    /// What it counted, and at which epoch.
    pub fn counts(&self) -> Counts {
        Counts { time: self.epoch, memorized: self.memorized, images: self.images }
    }
}

/// Scores with identical training images counted once; empty where all differ.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Distinct {
    /// Training images that repeat an earlier one.
    pub repeats: usize,
    pub evaluations: Vec<Evaluation>,
    pub rescored: Option<Evaluation>,
}
