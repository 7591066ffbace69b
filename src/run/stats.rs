//! `stats.jsonl`: one line per interval under EDM's keys. Holds clock times, so no two runs' are alike.

use super::memory;
use anyhow::{Context as _, Result};
use serde_json::{Map, Value, json};
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Number, mean and spread of the values seen since the last line.
#[derive(Default, Clone, Copy)]
struct Moments {
    count: u64,
    sum: f64,
    squares: f64,
}

impl Moments {
    fn add(&mut self, x: f64) {
        self.count += 1;
        self.sum += x;
        self.squares += x * x;
    }

    fn json(&self) -> Value {
        let n = self.count as f64;
        let mean = self.sum / n;
        let std = (self.squares / n - mean * mean).max(0.0).sqrt();
        json!({"num": self.count, "mean": mean, "std": std})
    }
}

/// What a run's statistics file is fed.
pub struct Stats {
    path: std::path::PathBuf,
    values: Vec<(&'static str, Moments)>,
    /// Images and seconds of training since the last line.
    images: u64,
    training_s: f64,
    last_line: Instant,
}

impl Stats {
    /// Opens the file, drops what lies after `step`, and adds a line that says so.
    pub fn resume(path: &Path, step: u64) -> Result<Self> {
        drop_after(path, step)?;
        let stats = Stats {
            path: path.into(),
            values: Vec::new(),
            images: 0,
            training_s: 0.0,
            last_line: Instant::now(),
        };
        stats.append(json!({"resumed_at_step": step, "timestamp": timestamp()}))?;
        Ok(stats)
    }

    pub fn add(&mut self, key: &'static str, value: f64) {
        match self.values.iter_mut().find(|(k, _)| *k == key) {
            Some((_, m)) => m.add(value),
            None => {
                let mut m = Moments::default();
                m.add(value);
                self.values.push((key, m));
            }
        }
    }

    pub fn trained(&mut self, images: u64, seconds: f64) {
        self.images += images;
        self.training_s += seconds;
    }

    /// Seconds since the last line.
    pub fn age_s(&self) -> f64 {
        self.last_line.elapsed().as_secs_f64()
    }

    /// Writes what was added since the last line, if anything, as of `step` and `seen` images.
    pub fn flush(&mut self, step: u64, seen: f64, epoch: f64) -> Result<()> {
        if self.values.is_empty() {
            return Ok(());
        }
        self.add("Progress/kimg", seen / 1e3);
        self.add("Progress/epoch", epoch);
        if self.images > 0 {
            self.add("Timing/sec_per_kimg", self.training_s / self.images as f64 * 1e3);
        }
        if let Some(bytes) = memory::peak() {
            self.add("Resources/cpu_mem_gb", bytes as f64 / (1u64 << 30) as f64);
        }
        let mut line: Map<String, Value> =
            self.values.drain(..).map(|(k, m)| (k.to_string(), m.json())).collect();
        line.insert("step".into(), step.into());
        line.insert("timestamp".into(), timestamp().into());
        (self.images, self.training_s, self.last_line) = (0, 0.0, Instant::now());
        self.append(Value::Object(line))
    }

    fn append(&self, line: Value) -> Result<()> {
        let mut file = OpenOptions::new().create(true).append(true).open(&self.path);
        file.as_mut()
            .map_err(|e| std::io::Error::new(e.kind(), e.to_string()))
            .and_then(|f| f.write_all(format!("{line}\n").as_bytes()))
            .with_context(|| format!("{}: cannot write", self.path.display()))
    }
}

/// Keeps the whole lines that say nothing of steps after `step`.
fn drop_after(path: &Path, step: u64) -> Result<()> {
    let Ok(text) = fs::read_to_string(path) else { return Ok(()) };
    let kept: String = text
        .split_inclusive('\n')
        .filter(|line| {
            let Ok(value) = serde_json::from_str::<Value>(line) else { return false };
            let of = value.get("step").or(value.get("resumed_at_step")).and_then(Value::as_u64);
            line.ends_with('\n') && of.is_some_and(|s| s <= step)
        })
        .collect();
    if kept == text {
        return Ok(());
    }
    crate::files::write_atomic(path, true, |out| Ok(out.write_all(kept.as_bytes())?))
}

fn timestamp() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}
