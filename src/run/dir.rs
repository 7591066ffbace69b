//! A run's directory: what lies where, and how each file stays whole.

use super::{Look, RunConfig};
use crate::error::{Exit, OrExit as _, data, usage};
use crate::files::write_atomic;
use anyhow::Result;
use serde::Serialize;
use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// `config.toml`'s table that is not compared.
#[derive(Serialize)]
struct NoteTable {
    note: Note,
}

#[derive(Serialize)]
struct Note {
    emm: &'static str,
    directory: String,
    data: String,
}

const CSV_HEADER: &str = "step,epoch,images,memorized,ratio,low,high,mean_d1";

/// Where a run's files are.
#[derive(Debug, Clone)]
pub struct RunDir {
    root: PathBuf,
}

/// Held while a process works in a run directory; the system lets go of it however the process ends.
pub struct Lock(#[expect(dead_code, reason = "held, not read")] File);

/// Why a lock could not be had.
#[derive(Debug)]
struct Busy;

impl fmt::Display for Busy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("another process works in this run")
    }
}

impl std::error::Error for Busy {}

/// Whether an error says that another process holds a run's lock.
pub fn is_busy(e: &anyhow::Error) -> bool {
    e.is::<Busy>() || e.chain().any(|e| e.is::<Busy>())
}

impl RunDir {
    pub fn new(root: &Path) -> Self {
        RunDir { root: root.into() }
    }

    pub fn config_path(&self) -> PathBuf {
        self.root.join("config.toml")
    }
    pub fn stats_path(&self) -> PathBuf {
        self.root.join("stats.jsonl")
    }
    pub fn scores_path(&self) -> PathBuf {
        self.root.join("scores.csv")
    }
    pub fn rescored_path(&self) -> PathBuf {
        self.root.join("rescored.csv")
    }
    /// As `scores.csv` and `rescored.csv`, with identical training images counted once: only where there are any.
    fn distinct_scores_path(&self) -> PathBuf {
        self.root.join("scores-distinct.csv")
    }
    fn distinct_rescored_path(&self) -> PathBuf {
        self.root.join("rescored-distinct.csv")
    }
    /// Weights, moments, EMA and step.
    pub fn state_path(&self) -> PathBuf {
        self.root.join("state/state.safetensors")
    }
    /// Images of an unfinished look that are scored already.
    pub fn partial_look_path(&self) -> PathBuf {
        self.root.join("state/look.json")
    }
    fn snapshots(&self) -> PathBuf {
        self.root.join("snapshots")
    }

    /// The EMA's weights after `step`. Named by epoch, and by step where epochs would not tell looks apart.
    pub fn snapshot_path(&self, config: &RunConfig, step: u64) -> PathBuf {
        let t = &config.train;
        let apart = t.batch >= config.data.images || t.epochs >= 2.0 * t.looks as f64;
        let epoch = config.epoch(step).round() as u64;
        let name = match apart {
            true => format!("epoch-{epoch:06}.safetensors"),
            false => format!("epoch-{epoch:06}-step-{step:09}.safetensors"),
        };
        self.snapshots().join(name)
    }

    /// Makes the folders and takes the lock.
    ///
    /// # Errors
    /// Other (exit 1): cannot be created, or another process works in it ([`is_busy`]).
    pub fn lock(&self) -> Result<Lock> {
        for path in ["state", "snapshots", "report"].map(|folder| self.root.join(folder)) {
            fs::create_dir_all(&path)
                .or_exit(Exit::Other, || format!("--run: {}: cannot create", path.display()))?;
        }
        let path = self.root.join("lock");
        let cannot = || format!("--run: {}: cannot lock", path.display());
        let file = File::options().create(true).truncate(false).write(true).open(&path);
        let file = file.or_exit(Exit::Other, cannot)?;
        let mut looks = 0;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                // Somebody may only be asking whether anybody works here.
                Err(TryLockError::WouldBlock) if looks < 5 => {
                    looks += 1;
                    std::thread::sleep(Duration::from_millis(10));
                }
                Err(TryLockError::WouldBlock) => {
                    let root = self.root.display();
                    return Err(Busy).or_exit(Exit::Other, || format!("--run: {root}"));
                }
                Err(TryLockError::Error(e)) => return Err(e).or_exit(Exit::Other, cannot),
            }
        }
        for folder in ["", "state", "snapshots"] {
            self.remove_leftovers(&self.root.join(folder));
        }
        Ok(Lock(file))
    }

    /// Whether a process works in it now.
    pub fn is_locked(&self) -> bool {
        let Ok(file) = File::open(self.root.join("lock")) else { return false };
        matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
    }

    /// Temporary files of a process that was killed. Called under the lock, so nobody writes them.
    fn remove_leftovers(&self, folder: &Path) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with(".emm-") && name.ends_with(".tmp") {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// The stored configuration, if there is one.
    ///
    /// # Errors
    /// Data (exit 3) if the file cannot be read as one.
    pub fn stored_config(&self) -> Result<Option<RunConfig>> {
        let path = self.config_path();
        let what = || format!("{}: not a run's configuration", path.display());
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            Err(e) => return Err(e).or_exit(Exit::Other, what),
        };
        let broken = |e: toml::de::Error| data(format!("{}: {}", what(), e.message()));
        let mut table: toml::Table = toml::from_str(&text).map_err(broken)?;
        table.remove("note");
        let config: RunConfig = table.try_into().map_err(broken)?;
        config.model.check().or_data(what)?;
        Ok(Some(config))
    }

    /// [`RunDir::stored_config`] of a directory that must hold a run.
    pub fn config(&self) -> Result<RunConfig> {
        let none = || data(format!("--run: {}: no config.toml: not a run", self.root.display()));
        self.stored_config()?.ok_or_else(none)
    }

    /// Stores the configuration of a new run, or compares `asked` with the one stored; returns the run's.
    /// `data`: where its set was read from, for the note.
    ///
    /// # Errors
    /// Usage (exit 2) with every difference.
    pub fn settle(&self, asked: &RunConfig, data: &str) -> Result<RunConfig> {
        if let Some(stored) = self.stored_config()? {
            let differences = stored.differences(asked);
            return match differences.is_empty() {
                true => Ok(stored),
                false => Err(usage(format!(
                    "{}: {} was started otherwise; ask for what it stores or choose another --run",
                    differences.join("; "),
                    self.root.display()
                ))),
            };
        }
        let directory = self.root.display().to_string();
        let note = Note { emm: env!("CARGO_PKG_VERSION"), directory, data: data.into() };
        let text = toml::to_string(asked)? + "\n" + &toml::to_string(&NoteTable { note })?;
        write_atomic(&self.config_path(), true, |out| Ok(out.write_all(text.as_bytes())?))?;
        Ok(asked.clone())
    }

    /// The rows of `scores.csv`; none if there is no such file.
    pub fn looks(&self) -> Result<Vec<Look>> {
        read_csv(&self.scores_path())
    }

    pub fn write_looks(&self, looks: &[Look]) -> Result<()> {
        write_csv(&self.scores_path(), looks)
    }

    /// The best look scored again, once that is done.
    pub fn rescored(&self) -> Result<Option<Look>> {
        Ok(read_csv(&self.rescored_path())?.pop())
    }

    pub fn write_rescored(&self, look: &Look) -> Result<()> {
        write_csv(&self.rescored_path(), std::slice::from_ref(look))
    }

    /// The looks with identical training images counted once; none where all differ, or all are equal.
    pub fn distinct_looks(&self) -> Result<Vec<Look>> {
        read_csv(&self.distinct_scores_path())
    }

    pub fn write_distinct_looks(&self, looks: &[Look]) -> Result<()> {
        write_csv(&self.distinct_scores_path(), looks)
    }

    /// [`RunDir::rescored`] with identical training images counted once, where there are any.
    pub fn distinct_rescored(&self) -> Result<Option<Look>> {
        Ok(read_csv(&self.distinct_rescored_path())?.pop())
    }

    pub fn write_distinct_rescored(&self, look: &Look) -> Result<()> {
        write_csv(&self.distinct_rescored_path(), std::slice::from_ref(look))
    }

    /// Removes snapshots other than those of the given steps.
    pub fn prune_snapshots(&self, config: &RunConfig, keep: &[u64]) -> Result<()> {
        let keep: Vec<PathBuf> = keep.iter().map(|&s| self.snapshot_path(config, s)).collect();
        for entry in fs::read_dir(self.snapshots())?.flatten() {
            let path = entry.path();
            let ours = path.extension().is_some_and(|e| e == "safetensors");
            if ours && !keep.contains(&path) {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    /// The snapshot of the best look.
    ///
    /// # Errors
    /// Data (exit 3) if the run has none yet.
    pub fn best_snapshot(&self) -> Result<PathBuf> {
        let (config, looks) = (self.config()?, self.looks()?);
        let step = best(&looks).map_or(config.steps(), |l| l.step);
        let path = self.snapshot_path(&config, step);
        match path.exists() {
            true => Ok(path),
            false => Err(data(format!(
                "--run: {}: no snapshot yet: the first look has not come",
                self.root.display()
            ))),
        }
    }
}

/// The look with the highest ratio, the earliest of equals.
pub fn best(looks: &[Look]) -> Option<&Look> {
    looks.iter().reduce(|a, b| if b.ratio > a.ratio { b } else { a })
}

fn write_csv(path: &Path, looks: &[Look]) -> Result<()> {
    let mut text = format!("{CSV_HEADER}\n");
    for l in looks {
        text += &format!(
            "{},{},{},{},{},{},{},{}\n",
            l.step, l.epoch, l.images, l.memorized, l.ratio, l.low, l.high, l.mean_d1
        );
    }
    write_atomic(path, true, |out| Ok(out.write_all(text.as_bytes())?))
}

fn read_csv(path: &Path) -> Result<Vec<Look>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => {
            return Err(e).or_exit(Exit::Other, || format!("{}: cannot read", path.display()));
        }
    };
    let broken = |line: &str| data(format!("{}: not a row of scores: {line:?}", path.display()));
    let mut lines = text.lines();
    match lines.next() {
        Some(CSV_HEADER) => {}
        other => return Err(broken(other.unwrap_or(""))),
    }
    if !text.ends_with('\n') {
        return Err(broken(text.lines().next_back().unwrap_or("")));
    }
    lines.map(|line| row(line).ok_or_else(|| broken(line))).collect()
}

fn row(line: &str) -> Option<Look> {
    let cells: Vec<&str> = line.split(',').collect();
    let &[step, epoch, images, memorized, ratio, low, high, mean_d1] = cells.as_slice() else {
        return None;
    };
    Some(Look {
        step: step.parse().ok()?,
        epoch: epoch.parse().ok()?,
        images: images.parse().ok()?,
        memorized: memorized.parse().ok()?,
        ratio: ratio.parse().ok()?,
        low: low.parse().ok()?,
        high: high.parse().ok()?,
        mean_d1: mean_d1.parse().ok()?,
    })
}
