//! When runs worked, and on what, by their logs.

use crate::run::stats::lines;
use anyhow::Result;
use std::path::Path;

/// When a run worked, and on what, by its `stats.jsonl`.
#[derive(Debug, Clone, PartialEq)]
pub struct Log {
    /// Beginnings and ends of its stretches, in seconds of the clock.
    spans: Vec<[f64; 2]>,
    /// As the log names them, each once; none in logs that are older than this field.
    pub devices: Vec<String>,
}

impl Log {
    /// The time between the lines of a log, but not while the run lay still: before a line that says it was resumed.
    /// `None` without a log.
    ///
    /// # Errors
    /// As [`lines`].
    pub fn read(stats: &Path) -> Result<Option<Log>> {
        let (mut log, mut last) = (Log { spans: Vec::new(), devices: Vec::new() }, None::<f64>);
        for line in lines(stats)? {
            let Some(at) = line["timestamp"].as_f64() else { continue };
            match (line.get("resumed_at_step"), last) {
                (None, Some(before)) if at > before => log.spans.push([before, at]),
                _ => {}
            }
            if let Some(device) = line["device"].as_str()
                && !log.devices.iter().any(|d| d == device)
            {
                log.devices.push(device.into());
            }
            last = Some(at);
        }
        Ok(last.map(|_| log))
    }

    /// Seconds that the run worked, scoring included.
    pub fn elapsed_s(&self) -> f64 {
        self.spans.iter().map(|[from, to]| to - from).sum()
    }
}

/// Seconds of the clock in which any of these runs worked: what several did at once counts once.
pub fn wall_s<'a>(logs: impl IntoIterator<Item = &'a Log>) -> f64 {
    let mut spans: Vec<[f64; 2]> = logs.into_iter().flat_map(|l| l.spans.clone()).collect();
    spans.sort_by(|a, b| a[0].total_cmp(&b[0]));
    let (mut total, mut until) = (0.0, f64::NEG_INFINITY);
    for [from, to] in spans {
        total += (to - from.max(until)).max(0.0);
        until = until.max(to);
    }
    total
}

/// The devices of these runs, each once.
pub fn devices<'a>(logs: impl IntoIterator<Item = &'a Log>) -> Vec<&'a str> {
    let mut all: Vec<&str> = logs.into_iter().flat_map(|l| &l.devices).map(|d| &**d).collect();
    all.sort();
    all.dedup();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_did_at_once_counts_once_by_the_clock() {
        let log = |spans: &[[f64; 2]]| Log { spans: spans.to_vec(), devices: Vec::new() };
        let (a, b) = (log(&[[0.0, 10.0], [20.0, 30.0]]), log(&[[5.0, 12.0], [22.0, 25.0]]));
        assert_eq!((a.elapsed_s(), b.elapsed_s()), (20.0, 10.0));
        assert_eq!(wall_s([&a, &b]), 22.0);
        assert_eq!(wall_s([&a, &a]), 20.0);
        assert_eq!(wall_s([]), 0.0);
    }
}
