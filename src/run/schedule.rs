//! Learning rate and EMA rate of each step, in float64, counted in images seen before it.

use super::RunConfig;
use crate::model::Rates;

/// The EMA's half-life settles at this many epochs.
const HALFLIFE_EPOCHS: f64 = 10.0;
/// and until then is this share of the images seen.
const HALFLIFE_SHARE: f64 = 0.05;

/// What varies at step `step` (from 0).
pub fn rates(config: &RunConfig, step: u64) -> Rates {
    let t = &config.train;
    let seen = step as f64 * t.batch as f64;
    let images = config.data.images as f64;
    let grown = match t.ramp_epochs {
        0.0 => 1.0,
        epochs => (seen / (epochs * images)).min(1.0),
    };
    Rates {
        step,
        lr: t.lr * grown,
        ema_beta: ema_beta(t.ema_rate, t.batch as f64, images, seen),
        ..t.rates()
    }
}

/// The default rule settles at 0.5^(512/500000) whatever the set's size; with `rate` (Table 2 of Gu et al.
/// 2023) it settles there instead.
fn ema_beta(rate: Option<f64>, batch: f64, images: f64, seen: f64) -> f64 {
    let halflife = (HALFLIFE_EPOCHS * images).min(HALFLIFE_SHARE * seen);
    if halflife == 0.0 {
        return 0.0;
    }
    let decay =
        |images_per_step: f64| 0.5f64.powf(images_per_step * images / (50_000.0 * halflife));
    match rate {
        None => decay(512.0),
        Some(r) => r / 0.5f64.powf(batch / 500_000.0) * decay(batch),
    }
}

#[cfg(test)]
mod tests {
    use super::super::config::tests::example;
    use super::*;

    #[test]
    fn the_learning_rate_grows_over_the_ramp_whatever_the_length_of_training() {
        let mut config = example();
        let lr = |config: &RunConfig, step| rates(config, step).lr;
        // 64 of 100 images a step: 200 epochs are 312.5 steps.
        assert_eq!(lr(&config, 0), 0.0);
        assert_eq!(lr(&config, 100), 2e-4 * (6400.0 / 20_000.0));
        assert_eq!([312, 313, 9999].map(|s| lr(&config, s) == 2e-4), [false, true, true]);
        config.train.epochs *= 40.0;
        assert_eq!(lr(&config, 100), 2e-4 * (6400.0 / 20_000.0));
        config.train.ramp_epochs = 5.0;
        assert_eq!(lr(&config, 4), 2e-4 * (256.0 / 500.0));
        assert_eq!(lr(&config, 8), 2e-4);
        (config.train.beta2, config.train.weight_decay) = (0.95, 0.1);
        let given = rates(&config, 8);
        assert_eq!((given.beta2, given.weight_decay, given.step), (0.95, 0.1, 8));
        config.train.ramp_epochs = 0.0;
        assert_eq!(lr(&config, 0), 2e-4);
    }

    #[test]
    fn ema_settles_where_it_should() {
        for images in [1.0, 1e3, 5e4] {
            assert_eq!(ema_beta(None, 512.0, images, 0.0), 0.0);
            let late = ema_beta(None, 64.0, images, 1e9);
            assert!((late - 0.5f64.powf(512.0 / 500_000.0)).abs() < 1e-15, "{late}");
            for r in [0.0, 0.1, 0.5, 0.999] {
                let late = ema_beta(Some(r), 512.0, images, 1e9);
                assert!((late - r).abs() < 1e-15, "{late}");
            }
        }
        // N = 1000, after 512 images: h = 25.6 images.
        let early = ema_beta(None, 512.0, 1000.0, 512.0);
        assert!((early - 0.5f64.powf(512.0 / 50.0 / 25.6)).abs() < 1e-15, "{early}");
    }
}
