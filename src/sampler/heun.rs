//! EDM's Heun sampler (Karras et al. 2022, Algorithm 2), state in float64 on every device.

use super::denoise::{Denoise, Images};
use super::heun_cpu::CpuState;
use super::heun_gpu::GpuState;
pub use super::state::Start;
use super::state::State;
use crate::error::{Exit, fail, usage};
use anyhow::Result;

/// How noise becomes an image. The default is EDM's deterministic sampler: 18 steps, 35 evaluations.
#[derive(Debug, Clone, PartialEq, clap::Args)]
pub struct HeunOptions {
    /// Noise levels above zero
    #[arg(long, value_name = "N", default_value_t = Self::default().steps)]
    pub steps: usize,
    // Higher puts more steps at low noise.
    /// Curvature of the noise levels' schedule
    #[arg(long, value_name = "R", default_value_t = Self::default().rho)]
    pub rho: f64,
    /// Lowest noise level [default: 0.002, clipped to the denoiser's range]
    #[arg(long, value_name = "SIGMA", alias = "sigma_min")]
    pub sigma_min: Option<f64>,
    /// Highest noise level [default: 80, clipped to the denoiser's range]
    #[arg(long, value_name = "SIGMA", alias = "sigma_max")]
    pub sigma_max: Option<f64>,
    /// Noise added back while sampling; 0 samples deterministically
    #[arg(long, value_name = "S", default_value_t = Self::default().s_churn, alias = "S_churn")]
    pub s_churn: f64,
    /// Lowest noise level at which noise is added
    #[arg(long, value_name = "SIGMA", default_value_t = Self::default().s_min, alias = "S_min")]
    pub s_min: f64,
    /// Highest noise level at which noise is added
    #[arg(long, value_name = "SIGMA", default_value_t = Self::default().s_max, alias = "S_max")]
    pub s_max: f64,
    // 1 in theory.
    /// Standard deviation of the noise added
    #[arg(long, value_name = "S", default_value_t = Self::default().s_noise, alias = "S_noise")]
    pub s_noise: f64,
}

impl Default for HeunOptions {
    fn default() -> Self {
        HeunOptions {
            steps: 18,
            rho: 7.0,
            sigma_min: None,
            sigma_max: None,
            s_churn: 0.0,
            s_min: 0.0,
            s_max: f64::INFINITY,
            s_noise: 1.0,
        }
    }
}

impl HeunOptions {
    /// That each value makes sense, for any denoiser.
    ///
    /// # Errors
    /// Usage, which begins with the flag.
    pub fn check(&self) -> Result<()> {
        if !(1..=100_000).contains(&self.steps) {
            return Err(usage(format!("--steps: {} is not between 1 and 100,000", self.steps)));
        }
        let (low, high) = (self.sigma_min, self.sigma_max);
        for (flag, value) in
            [("--rho", Some(self.rho)), ("--sigma-min", low), ("--sigma-max", high)]
        {
            if let Some(v) = value.filter(|v| !(*v > 0.0 && v.is_finite())) {
                return Err(usage(format!("{flag}: expected a number above 0, found {v}")));
            }
        }
        let (low, high) = (low.unwrap_or(0.002), high.unwrap_or(80.0));
        if low >= high {
            return Err(usage(format!("--sigma-min: {low} is not below --sigma-max {high}")));
        }
        let (churn, noise) = (("--s-churn", self.s_churn), ("--s-noise", self.s_noise));
        for (flag, v) in [churn, ("--s-min", self.s_min), ("--s-max", self.s_max), noise] {
            let endless = v.is_infinite() && flag != "--s-max";
            if v.is_nan() || v < 0.0 || endless {
                return Err(usage(format!("{flag}: expected a number of at least 0, found {v}")));
            }
        }
        Ok(())
    }

    /// The noise levels above zero, highest first, for a denoiser that accepts those of `range`.
    ///
    /// # Errors
    /// Usage (exit 2) if nothing is left between the lowest and the highest.
    fn levels(&self, range: (f64, f64)) -> Result<Vec<f64>> {
        let low = self.sigma_min.unwrap_or(0.002).max(range.0);
        let high = self.sigma_max.unwrap_or(80.0).min(range.1);
        if low >= high {
            return Err(usage(format!(
                "--sigma-min, --sigma-max: {low} is not below {high}, clipped to the denoiser's {} to {}",
                range.0, range.1
            )));
        }
        Ok(noise_levels(self.steps, self.rho, low, high))
    }
}

/// The sampler's noise levels, highest first, without the final 0: `steps` values.
pub fn noise_levels(steps: usize, rho: f64, sigma_min: f64, sigma_max: f64) -> Vec<f64> {
    let (hi, lo) = (sigma_max.powf(1.0 / rho), sigma_min.powf(1.0 / rho));
    let last = (steps - 1).max(1) as f64;
    (0..steps).map(|i| (hi + i as f64 / last * (lo - hi)).powf(rho)).collect()
}

/// All images at once: [S, H, W, C] before quantisation. See [`sample_each`].
///
/// `progress(done, total)` after each batch; false stops. `None` if it stopped.
pub fn sample(
    denoiser: &mut dyn Denoise,
    start: Start,
    labels: &[u32],
    options: &HeunOptions,
    progress: &mut dyn FnMut(usize, usize) -> bool,
) -> Result<Option<Vec<f32>>> {
    let (len, total) = (denoiser.image_len(), start.len(denoiser.image_len()));
    let mut images = Vec::with_capacity(total * len);
    let finished = sample_each(denoiser, start, labels, options, &mut |_, batch| {
        images.extend_from_slice(&batch.values()?);
        Ok(progress(images.len() / len, total))
    })?;
    Ok(finished.then_some(images))
}

/// Samples images in batches of the denoiser's size, so that memory grows with a batch only.
///
/// - `labels`: `[S]`, or empty for an unconditional denoiser.
/// - `visit(first, images)`: each finished batch in order; false stops.
///
/// Returns whether all were visited. Image k depends on `start`'s k and its label alone.
///
/// # Errors
/// Those of `visit` and of the denoiser; usage (exit 2) when no noise levels are left; diverged (exit 5) when an
/// image is not finite.
pub fn sample_each(
    denoiser: &mut dyn Denoise,
    start: Start,
    labels: &[u32],
    options: &HeunOptions,
    visit: &mut dyn FnMut(usize, &Images) -> Result<bool>,
) -> Result<bool> {
    let len = denoiser.image_len();
    let total = start.len(len);
    assert!(labels.is_empty() || labels.len() == total, "one label per image, or none");
    let mut levels = options.levels(denoiser.sigma_range())?;
    levels.push(0.0);

    let batch = denoiser.max_batch();
    let mut state: Box<dyn State + '_> = match denoiser.on_gpu() {
        Some(network) => Box::new(GpuState::new(network, batch.min(total), len)?),
        None => Box::new(CpuState::new(denoiser)),
    };
    for first in (0..total).step_by(batch) {
        let images = first..(first + batch).min(total);
        let labels = if labels.is_empty() { labels } else { &labels[images.clone()] };
        state.begin(start, images.clone(), labels, levels[0])?;
        advance(&mut *state, &levels, options)?;
        if let Some(bad) = state.finish()? {
            let seed = start.seed(first + bad);
            let message = format!("sampler: the image of seed {seed} is not finite");
            return Err(fail(Exit::Diverged, message));
        }
        if !visit(first, &state.images())? {
            return Ok(images.end == total);
        }
    }
    Ok(true)
}

/// Algorithm 2 over noise levels that end with 0.
fn advance(state: &mut dyn State, levels: &[f64], o: &HeunOptions) -> Result<()> {
    let steps = levels.len() - 1;
    for (i, pair) in levels.windows(2).enumerate() {
        let (t, t_next) = (pair[0], pair[1]);
        let churns = o.s_churn > 0.0 && (o.s_min..=o.s_max).contains(&t);
        let gamma = if churns { (o.s_churn / steps as f64).min(2f64.sqrt() - 1.0) } else { 0.0 };
        let t_hat = t + gamma * t;
        if churns {
            state.add_noise((t_hat * t_hat - t * t).sqrt() * o.s_noise, i as u32)?;
        }
        state.euler(t_hat, t_next)?;
        if t_next > 0.0 {
            state.correct(t_hat, t_next)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_clipped_to_the_denoiser_and_never_rise() {
        let ve = (0.02, 100.0);
        let levels = |sigma_min, sigma_max| {
            HeunOptions { sigma_min, sigma_max, ..HeunOptions::default() }.levels(ve)
        };
        let usual = levels(None, None).unwrap();
        assert!((usual[0] - 80.0).abs() < 1e-12 && (usual[17] - 0.02).abs() < 1e-12, "{usual:?}");
        assert!(usual.is_sorted_by(|a, b| a > b), "{usual:?}");
        for (low, high) in [(None, Some(0.01)), (Some(0.001), Some(0.02)), (Some(90.0), None)] {
            let e = levels(low, high).unwrap_err();
            assert!(e.to_string().starts_with("--sigma-min, --sigma-max: "), "{e}");
            assert_eq!(crate::error::exit_code(&e), 2);
        }
    }
}
