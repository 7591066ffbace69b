//! How fast this machine is: said, known from earlier, or measured.

use super::Common;
use crate::numbers::amount;
use crate::run::rate::Asked;

/// For commands that measure.
#[derive(clap::Args, Debug, Clone, Copy)]
pub struct RateFlags {
    /// Training images per second, in place of a measurement; in a sweep those of the first run's network, from which
    /// others follow by their FLOP
    #[arg(long, value_name = "IMG/S", value_parser = rate)]
    pub rate: Option<f64>,
    /// Measure nothing: times come from earlier runs and measurements, or are left out
    #[arg(long, conflicts_with = "rate")]
    pub no_measure: bool,
}

/// For commands that never measure.
#[derive(clap::Args, Debug, Clone, Copy)]
pub struct KnownRate {
    /// Training images per second of the first cell's network, from which others follow by their FLOP [default: as earlier
    /// runs and measurements were]
    #[arg(long, value_name = "IMG/S", value_parser = rate)]
    pub rate: Option<f64>,
}

impl RateFlags {
    /// The rate given, else one to be measured where that is allowed.
    pub fn asked(self, common: &Common) -> Asked {
        Asked { given: self.rate, measure: !self.no_measure, quiet: common.quiet }
    }
}

impl KnownRate {
    /// The rate given; nothing is measured.
    pub fn asked(self) -> Asked {
        Asked { given: self.rate, measure: false, quiet: true }
    }
}

fn rate(text: &str) -> Result<f64, String> {
    match amount(text)? {
        ..1e-6 => Err(format!("{text} images per second never end")),
        rate => Ok(rate),
    }
}
