//! How fast this machine trains a network: measured once for each network, then kept in the user's cache.

use super::progress::Progress;
use super::{RunConfig, bench};
use crate::device::params::ROUNDED_IMAGES;
use crate::device::{Device, Precision};
use crate::files::{read_cache, write_cache};
use crate::model::ModelConfig;
use crate::simd;
use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::time::{SystemTime, UNIX_EPOCH};
use std::{env, fs};

/// What may be done to learn how fast a machine is.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    /// Training images per second, said by the user.
    pub given: Option<f64>,
    /// Whether what is not known may be measured, which takes seconds.
    pub measure: bool,
    /// Without a bar.
    pub quiet: bool,
}

/// Training of one network on one machine, as measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    model: ModelConfig,
    precision: Precision,
    /// [`machine`] and [`binary`] that it was measured with.
    machine: String,
    binary: String,
    pub images_per_s: f64,
    /// Steps that were timed, and the images of each.
    pub steps: usize,
    pub images: usize,
    /// Seconds since 1970 began.
    pub measured_at_s: u64,
}

/// Time for one network's measurement, steps that warm up left out; a slow one takes three steps all the same.
pub const MEASURED_S: f64 = 2.0;
/// Below the user's cache.
const RATES: &str = "rates.json";
/// Rates that the cache keeps, the newest ones.
const KEPT: usize = 500;

impl Rate {
    /// How it is known, for people.
    pub fn said(&self) -> String {
        let Rate { steps, images, machine, .. } = self;
        let machine = machine.split('|').next().unwrap_or_default();
        let of = if *images == 1 { "an image".into() } else { format!("{images} images") };
        format!("measured {} on {machine}: {steps} steps of {of}", utc(self.measured_at_s))
    }

    /// As [`Rate::said`], of so many networks, of which this was measured last.
    pub fn describe(&self, networks: usize) -> String {
        let (at, machine) = (utc(self.measured_at_s), self.machine.split('|').next());
        let machine = machine.unwrap_or_default();
        format!("measured until {at} on {machine}: a few steps of {networks} networks")
    }

    pub fn model(&self) -> &ModelConfig {
        &self.model
    }
}

/// What this machine and this program have measured so far on `device` in `precision`, newest first.
pub fn kept(device: &Device, precision: Precision) -> Vec<Rate> {
    let (machine, binary) = (machine(device), binary());
    let mut all = read();
    all.retain(|r| r.machine == machine && r.binary == binary && r.precision == precision);
    all.sort_by_key(|r| std::cmp::Reverse(r.measured_at_s));
    all
}

/// Measures how fast `device` trains the network of `config`, for about `seconds`, with a bar, and keeps it where the
/// user's cache can be written.
///
/// # Errors
/// Device (exit 4): no memory for a step; diverged (5).
pub fn measure(device: &Device, config: &RunConfig, seconds: f64, quiet: bool) -> Result<Rate> {
    let images = config.train.batch.min(ROUNDED_IMAGES);
    let mut progress = Progress::new(0.0, 1.0, quiet);
    let step_s = bench::steps_for(device, config, images, seconds, &mut |share| {
        progress.reached(share, "measuring how fast this machine trains");
    })?;
    let rate = Rate {
        model: config.model.clone(),
        precision: config.train.precision,
        machine: machine(device),
        binary: binary(),
        images_per_s: images as f64 / bench::median(&step_s),
        steps: step_s.len(),
        images,
        measured_at_s: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()),
    };
    keep(&rate);
    Ok(rate)
}

/// A cache that cannot be read, or not understood, is an empty one: everything in it can be measured again.
fn read() -> Vec<Rate> {
    let all: Vec<Rate> = serde_json::from_str(&read_cache(RATES)).unwrap_or_default();
    all.into_iter().filter(|r| r.images_per_s > 0.0 && r.images_per_s.is_finite()).collect()
}

fn keep(rate: &Rate) {
    let mut all = read();
    let same = |r: &Rate| {
        (&r.model, r.precision, &r.machine) == (&rate.model, rate.precision, &rate.machine)
    };
    all.retain(|r| !same(r));
    all.push(rate.clone());
    let oldest = all.len().saturating_sub(KEPT);
    // Without a cache the next call measures again, which is all that is lost.
    if let Ok(text) = serde_json::to_string(&all[oldest..]) {
        write_cache(RATES, text);
    }
}

/// The device's name and threads; after `|` what else its speed depends on.
fn machine(device: &Device) -> String {
    match (device.cuda(), device.host().threads()) {
        (Some(_), _) => device.name().into(),
        (None, 1) => format!("{}, 1 thread|{}", processor(), simd::level()),
        (None, n) => format!("{}, {n} threads|{}", processor(), simd::level()),
    }
}

/// The CPU's name, as far as the system tells it.
pub fn processor() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = info.lines().find(|l| l.starts_with("model name"));
    let name = line.and_then(|l| l.split_once(':')).map(|(_, name)| name.trim().to_string());
    name.unwrap_or_else(|| env::consts::ARCH.into())
}

/// Tells one build of this program from another.
pub fn binary() -> String {
    let file = env::current_exe().and_then(fs::metadata);
    let changed = file.as_ref().ok().and_then(|f| f.modified().ok());
    let changed = changed.and_then(|t| t.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    let len = file.map_or(0, |f| f.len());
    format!("{} {len} {}", env!("CARGO_PKG_VERSION"), changed.as_nanos())
}

/// A time as `2026-11-27 19:40 UTC`.
pub fn utc(unix_s: u64) -> String {
    let (days, minutes) = (unix_s / 86_400, unix_s / 60 % 1440);
    // Days since 1 March of the year 0, so that leap days are the last of their years.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = year + 400 * era + next;
    format!("{year}-{month:02}-{day:02} {:02}:{:02} UTC", minutes / 60, minutes % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        // As `date -u -d @N` says them.
        for (unix_s, said) in [
            (0, "1970-01-01 00:00 UTC"),
            (951_782_400, "2000-02-29 00:00 UTC"),
            (1_709_164_800, "2024-02-29 00:00 UTC"),
            (1_735_689_599, "2024-12-31 23:59 UTC"),
            (1_795_808_400, "2026-11-27 19:40 UTC"),
            (4_107_542_400, "2100-03-01 00:00 UTC"),
        ] {
            assert_eq!(utc(unix_s), said, "{unix_s}");
        }
    }
}
