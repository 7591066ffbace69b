//! What fewer generated images would have said of a ratio (Gu et al. 2023, Figure 6).

use crate::rng::{Stream, philox, tag};

/// Resamples of each number of images.
pub const RESAMPLES: usize = 1000;

/// The ratio of `n` images drawn with replacement from `images`, of which `memorized` are copies: mean and middle 95%
/// of many such draws. Which images are copies does not matter, so their number is enough.
pub fn bootstrap(memorized: u64, images: u64, n: u64) -> (f64, [f64; 2]) {
    let mut ratios: Vec<f64> = (0..RESAMPLES as u32)
        .map(|resample| {
            let words = (0..n.div_ceil(4) as u32)
                .flat_map(|block| philox([block, resample, 0, tag(Stream::Diagnostic, 6)], n));
            let image = |word: u32| (word as u64 * images) >> 32;
            let copies = words.take(n as usize).filter(|&w| image(w) < memorized).count();
            copies as f64 / n as f64
        })
        .collect();
    ratios.sort_by(f64::total_cmp);
    let quantile = |q: f64| ratios[(q * (RESAMPLES - 1) as f64).round() as usize];
    (ratios.iter().sum::<f64>() / RESAMPLES as f64, [quantile(0.025), quantile(0.975)])
}
