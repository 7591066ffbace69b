//! Checks of a device against references made outside: what there is to check, each in its place, and who runs it.

pub mod cases;
pub mod children;
pub mod golden;
mod laid;
pub mod list;
pub mod plain;
pub mod primitives;
pub mod real;
mod running;
pub mod sampling;
pub mod searching;
pub mod self_test;
pub mod tally;
pub mod training;
mod wanted;
pub mod worker;

pub use list::{OPS, list};
pub use wanted::{NetworkSize, Wanted};

use crate::device::{Device, Precision};
use anyhow::Result;
use serde::Serialize;

/// How far a result is from what it must be at most, and where.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Off {
    /// A relative error, or a count of differences where everything must be equal.
    pub by: f64,
    /// The tensor.
    pub at: String,
}

impl Off {
    /// Keeps the larger of two errors; NaN is larger than all.
    pub fn take(&mut self, by: f64, at: &str) {
        // Not `by > self.by`: NaN must stay.
        if !(by <= self.by || self.by.is_nan()) {
            *self = Off { by, at: at.into() };
        }
    }

    /// As [`Off::take`], of how many bits patterns differ.
    pub fn take_bits(&mut self, got: &[f32], want: &[f32], at: &str) {
        let differ = got.iter().zip(want).filter(|(g, w)| g.to_bits() != w.to_bits()).count();
        self.take((differ + got.len().abs_diff(want.len())) as f64, at);
    }
}

/// Sizes of what is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
#[value(rename_all = "lower")]
pub enum CaseSize {
    /// Small ones, with everything known beforehand.
    Golden,
    /// Those of a network in use.
    Real,
}

/// Something that is checked at one precision.
pub struct Check {
    pub op: &'static str,
    pub size: CaseSize,
    pub precision: Precision,
    pub case: String,
    /// What the error must not exceed; 0 where everything must be equal.
    pub bar: f64,
    pub run: Run,
}

/// Runs a check on a device.
pub type Run = Box<dyn Fn(&Device) -> Result<Off>>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_larger_error_stays_and_nan_above_all() {
        let mut off = Off::default();
        off.take(0.5, "a");
        off.take(0.25, "b");
        assert_eq!(off, Off { by: 0.5, at: "a".into() });
        off.take(f64::NAN, "c");
        off.take(9.0, "d");
        assert!(off.by.is_nan() && off.at == "c");
        let mut off = Off::default();
        off.take_bits(&[0.0, f32::NAN, 1.0], &[-0.0, f32::NAN, 1.0], "x");
        assert_eq!(off.by, 1.0);
        off.take_bits(&[0.0], &[0.0, 1.0, 2.0], "y");
        assert_eq!(off.by, 2.0);
    }
}
