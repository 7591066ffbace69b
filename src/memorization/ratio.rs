//! The criterion d1/d2 < 1/3 decided in integers, the ratio of memorization and its interval.

use super::Nearest;
use crate::error::usage;
use anyhow::Result;
use serde::Serialize;

/// A rational number a/b in (0, 1): an image is memorized when d1/d2 < a/b.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Threshold {
    a: u32,
    b: u32,
}

impl Default for Threshold {
    /// 1/3, the paper's.
    fn default() -> Self {
        Threshold { a: 1, b: 3 }
    }
}

impl Threshold {
    /// a/b, if it is in (0, 1).
    pub fn new(a: u32, b: u32) -> Option<Self> {
        (0 < a && a < b).then_some(Threshold { a, b })
    }

    /// Reads `1/3` or a decimal such as `0.25`, exactly.
    ///
    /// # Errors
    /// Usage, if it is neither or not between 0 and 1.
    pub fn parse(text: &str) -> Result<Self> {
        let parsed = match text.split_once('/') {
            Some((a, b)) => a.trim().parse().ok().zip(b.trim().parse().ok()),
            None => decimal(text.trim()),
        };
        match parsed {
            Some((a, b)) if 0 < a && a < b => Ok(Threshold { a, b }),
            Some(_) => Err(usage(format!("--threshold: {text} is not between 0 and 1"))),
            None => Err(usage(format!(
                "--threshold: {text:?} is neither a fraction like 1/3 nor a decimal like 0.25"
            ))),
        }
    }

    /// As a number.
    pub fn value(self) -> f64 {
        self.a as f64 / self.b as f64
    }

    /// d1/d2 < a/b, as b²·D1 < a²·D2 in integers; d1 = d2 = 0 (a duplicated training image) is no copy.
    pub fn memorized(&self, n: &Nearest) -> bool {
        self.holds(n.squared[0], n.squared[1])
    }

    /// As [`Threshold::memorized`] with identical training images counted once: d2 is the distance to the nearest
    /// image that differs. False if there is none.
    pub fn memorized_distinct(&self, n: &Nearest) -> bool {
        n.distinct.is_some_and(|second| self.holds(n.squared[0], second.squared))
    }

    fn holds(&self, squared_1: u64, squared_2: u64) -> bool {
        let scaled = |k: u32, squared: u64| k as u128 * k as u128 * squared as u128;
        scaled(self.b, squared_1) < scaled(self.a, squared_2)
    }
}

impl std::fmt::Display for Threshold {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{}/{}", self.a, self.b)
    }
}

/// `0.25` → (25, 100).
fn decimal(text: &str) -> Option<(u32, u32)> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = format!("{whole}{fraction}");
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some((digits.parse().ok()?, 10u32.checked_pow(fraction.len() as u32)?))
}

/// How many of some generated images copy a training image, as `emm score --json` prints it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Score {
    /// Generated images.
    pub images: u64,
    pub memorized: u64,
    /// memorized / images.
    pub ratio: f64,
    /// 95% Wilson interval of the ratio: what drawing other images would change, not training again.
    pub interval: [f64; 2],
    /// Images with d1 = d2 = 0, counted as not memorized.
    pub duplicate_ties: u64,
    /// Mean over images of sqrt(D1 / (C·H·W)), in pixel units 0..255.
    pub mean_d1: f64,
    pub reference_images: u64,
    /// Training images that repeat an earlier one. They hide copies of themselves from `memorized`.
    pub reference_duplicates: u64,
    /// `memorized` with identical training images counted once; null if all of them are equal.
    pub memorized_distinct: Option<u64>,
    /// memorized_distinct / images.
    pub ratio_distinct: Option<f64>,
}

impl Score {
    /// `image_len` = C·H·W; `found` is not empty. Of `references` training images, `repeats` repeat an earlier one.
    pub fn of(
        found: &[Nearest],
        threshold: Threshold,
        image_len: usize,
        references: usize,
        repeats: usize,
    ) -> Self {
        let images = found.len() as u64;
        let memorized = found.iter().filter(|n| threshold.memorized(n)).count() as u64;
        let distinct = found.iter().filter(|n| threshold.memorized_distinct(n)).count() as u64;
        let distinct = found.iter().all(|n| n.distinct.is_some()).then_some(distinct);
        let d1 = |n: &Nearest| (n.squared[0] as f64 / image_len as f64).sqrt();
        Score {
            images,
            memorized,
            ratio: memorized as f64 / images as f64,
            interval: wilson(memorized, images),
            duplicate_ties: found.iter().filter(|n| n.squared == [0, 0]).count() as u64,
            mean_d1: found.iter().map(d1).sum::<f64>() / images as f64,
            reference_images: references as u64,
            reference_duplicates: repeats as u64,
            memorized_distinct: distinct,
            ratio_distinct: distinct.map(|m| m as f64 / images as f64),
        }
    }
}

/// The 95% Wilson score interval of `k` successes in `n` trials (Wilson 1927); n > 0.
pub fn wilson(k: u64, n: u64) -> [f64; 2] {
    const Z: f64 = 1.959_963_984_540_054;
    let (k, n) = (k as f64, n as f64);
    let p = k / n;
    let centre = p + Z * Z / (2.0 * n);
    let half = Z * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    let scale = 1.0 + Z * Z / n;
    // Exactly 0 and 1 at the ends, where rounding would leave a trace.
    let low = if k == 0.0 { 0.0 } else { (centre - half) / scale };
    let high = if k == n { 1.0 } else { (centre + half) / scale };
    [low, high]
}
