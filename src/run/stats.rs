//! `stats.jsonl`: one line per interval under EDM's keys. Holds clock times, so no two runs' are alike.

use crate::device::Device;
use crate::error::{Exit, OrExit as _};
use crate::files::{cannot_read, open, write_bytes};
use crate::memory;
use anyhow::Result;
use serde_json::{Map, Value, json};
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
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

    /// Mean and standard deviation.
    fn mean_std(&self) -> [f64; 2] {
        let n = self.count as f64;
        let mean = self.sum / n;
        [mean, (self.squares / n - mean * mean).max(0.0).sqrt()]
    }

    fn json(&self) -> Value {
        let [mean, std] = self.mean_std();
        json!({"num": self.count, "mean": mean, "std": std})
    }
}

/// A line that was written.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    pub step: u64,
    /// Key, mean and standard deviation.
    pub values: Vec<(&'static str, [f64; 2])>,
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
    /// Opens the file, drops what lies after `step`, and adds a line that says so and what the run goes on with.
    pub fn resume(path: &Path, step: u64, device: &Device) -> Result<Self> {
        drop_after(path, step)?;
        let stats = Stats {
            path: path.into(),
            values: Vec::new(),
            images: 0,
            training_s: 0.0,
            last_line: Instant::now(),
        };
        let device = match (device.cuda(), device.host().threads()) {
            (Some(_), _) => device.name().to_string(),
            (None, 1) => "cpu, 1 thread".into(),
            (None, n) => format!("cpu, {n} threads"),
        };
        let line = json!({"resumed_at_step": step, "timestamp": timestamp(), "device": device});
        stats.append(line)?;
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

    /// Writes what was added since the last line, if anything, as of `step` and `seen` images, and returns it.
    pub fn flush(&mut self, step: u64, seen: f64, epoch: f64) -> Result<Option<Row>> {
        if self.values.is_empty() {
            return Ok(None);
        }
        self.add("Progress/kimg", seen / 1e3);
        self.add("Progress/epoch", epoch);
        if self.images > 0 {
            self.add("Timing/sec_per_kimg", self.training_s / self.images as f64 * 1e3);
        }
        if let Some(bytes) = memory::peak() {
            self.add("Resources/cpu_mem_gb", bytes as f64 / (1u64 << 30) as f64);
        }
        let values = self.values.iter().map(|(k, m)| (*k, m.mean_std())).collect();
        let mut line: Map<String, Value> =
            self.values.drain(..).map(|(k, m)| (k.to_string(), m.json())).collect();
        line.insert("step".into(), step.into());
        line.insert("timestamp".into(), timestamp().into());
        (self.images, self.training_s, self.last_line) = (0, 0.0, Instant::now());
        self.append(Value::Object(line))?;
        Ok(Some(Row { step, values }))
    }

    fn append(&self, line: Value) -> Result<()> {
        let mut open = OpenOptions::new();
        // A pipe is refused rather than waited for.
        let file = open.create(true).append(true).custom_flags(libc::O_NONBLOCK).open(&self.path);
        file.and_then(|mut f| f.write_all(format!("{line}\n").as_bytes()))
            .or_exit(Exit::Other, || format!("{}: cannot write", self.path.display()))
    }
}

/// The whole lines of a log; of one that was cut off or damaged, as a killed process may leave it, what is whole.
///
/// # Errors
/// As [`cannot_read`]; a log that is not there has no lines.
pub fn lines(path: &Path) -> Result<Vec<Value>> {
    let mut bytes = Vec::new();
    match open(path).and_then(|mut file| file.read_to_end(&mut bytes)) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(cannot_read(path, e)),
        Ok(_) => {}
    }
    Ok(whole(&bytes))
}

/// What the end of a log says.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Latest {
    pub step: Option<u64>,
    /// Training images per second.
    pub images_per_s: Option<f64>,
}

/// More than a line takes.
const END_BYTES: u64 = 1 << 15;

/// What the last lines of a log say; nothing if there is none.
///
/// # Errors
/// As [`cannot_read`].
pub fn latest(path: &Path) -> Result<Latest> {
    let end = || -> std::io::Result<Vec<u8>> {
        let (mut file, mut bytes) = (open(path)?, Vec::new());
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(END_BYTES)))?;
        file.take(END_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let lines = match end() {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Latest::default()),
        other => whole(&other.map_err(|e| cannot_read(path, e))?),
    };
    let last = |of: &dyn Fn(&Value) -> Option<f64>| lines.iter().rev().find_map(of);
    let rate = last(&|line| line["Timing/sec_per_kimg"]["mean"].as_f64()).map(|s| 1e3 / s);
    Ok(Latest {
        step: lines.iter().rev().find_map(|line| line["step"].as_u64()),
        images_per_s: rate.filter(|rate| rate.is_finite() && *rate > 0.0),
    })
}

/// The lines that are whole.
fn whole(bytes: &[u8]) -> Vec<Value> {
    let whole = bytes.split_inclusive(|&b| b == b'\n').filter(|line| line.ends_with(b"\n"));
    whole.filter_map(|line| serde_json::from_slice(line).ok()).collect()
}

/// Keeps the lines that say nothing of steps after `step`.
fn drop_after(path: &Path, step: u64) -> Result<()> {
    let lines = lines(path)?;
    let kept = lines.iter().filter(|line| {
        let of = line.get("step").or(line.get("resumed_at_step")).and_then(Value::as_u64);
        of.is_some_and(|s| s <= step)
    });
    let text: String = kept.map(|line| format!("{line}\n")).collect();
    if !path.exists() || fs::read(path).is_ok_and(|bytes| bytes == text.as_bytes()) {
        return Ok(());
    }
    write_bytes(path, true, text)
}

fn timestamp() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}
