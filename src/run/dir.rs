//! A run's directory: what lies where, and how each file stays whole.

use super::{Distinct, Evaluation, RunConfig, scores, state};
use crate::error::{Exit, OrExit as _, data, fail, usage};
use crate::files::{Checksum, read_text, remove_abandoned, write_bytes};
use crate::model::SavedModel;
use anyhow::Result;
use serde::Serialize;
use std::collections::HashSet;
use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use super::scores::best;

/// `config.toml`'s table that is not compared.
#[derive(Serialize)]
struct NoteTable {
    note: Note,
}

#[derive(Serialize)]
struct Note {
    emm: &'static str,
    /// Of the file: since 2 it has a checksum.
    format: u32,
    /// Of all that stands before this table.
    checksum: String,
    directory: String,
    data: String,
}

const FORMAT: u32 = 2;
/// What begins [`NoteTable`].
const NOTE: &str = "[note]\n";

/// Where a run's files are.
#[derive(Debug, Clone)]
pub struct RunDir {
    root: PathBuf,
}

/// What a run's evaluations said so far.
#[derive(Debug, Clone, PartialEq)]
pub struct Scores {
    pub evaluations: Vec<Evaluation>,
    /// The best evaluation scored again, once that is done.
    pub rescored: Option<Evaluation>,
    /// The same with identical training images counted once.
    pub distinct: Distinct,
}

impl Scores {
    /// The run's value: its best evaluation, as scored again if it was; none without evaluations.
    pub fn value(&self) -> Option<&Evaluation> {
        self.rescored.as_ref().or(best(&self.evaluations))
    }

    /// The same samples with identical training images counted once, where there are any.
    pub fn value_distinct(&self) -> Option<&Evaluation> {
        let best = best(&self.evaluations)?;
        let evaluation = self.distinct.evaluations.iter().find(|l| l.step == best.step);
        if self.rescored.is_some() { self.distinct.rescored.as_ref() } else { evaluation }
    }
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

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.root
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
    /// Training and held-out losses, where those are measured.
    pub fn losses_path(&self) -> PathBuf {
        self.root.join("losses.csv")
    }
    /// Which held-out images they are of.
    pub fn heldout_path(&self) -> PathBuf {
        self.root.join("heldout.toml")
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
    /// A state that is about to become this run's, which began as a shorter one.
    pub fn carried_state_path(&self) -> PathBuf {
        self.root.join("state/longer.safetensors")
    }
    /// Where the scores of the shorter run that this one was, up to `epoch`, are kept for people.
    pub fn shorter_scores_path(&self, name: &str, epoch: f64) -> PathBuf {
        self.root.join(format!("report/{name}-to-epoch-{:06}.csv", epoch.round()))
    }
    /// Images of an unfinished evaluation that are scored already.
    pub fn partial_evaluation_path(&self) -> PathBuf {
        self.root.join("state/look.json")
    }
    fn snapshots(&self) -> PathBuf {
        self.root.join("snapshots")
    }

    /// The EMA's weights after `step`. Named by epoch, and by step where epochs would not tell evaluations apart.
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
        let mut open = File::options();
        open.create(true).truncate(false).write(true).custom_flags(libc::O_NONBLOCK);
        let file = match open.open(&path) {
            // A folder or pipe.
            Err(_) if path.exists() && !path.is_file() => {
                return Err(data(format!(
                    "--run: {}: no plain file, as a run's lock is",
                    path.display()
                )));
            }
            other => other.or_exit(Exit::Other, cannot)?,
        };
        let mut tries = 0;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                // Somebody may only be asking whether anybody works here.
                Err(TryLockError::WouldBlock) if tries < 5 => {
                    tries += 1;
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
            remove_abandoned(&self.root.join(folder));
        }
        Ok(Lock(file))
    }

    /// Whether a process works in it now.
    pub fn is_locked(&self) -> bool {
        let Ok(file) = crate::files::open(&self.root.join("lock")) else { return false };
        matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
    }

    /// The stored configuration, if there is one. All of it is checked, and the file against its checksum, which those
    /// from before there were any do not have.
    ///
    /// # Errors
    /// Data (exit 3) if the file is not a configuration, whole and possible.
    pub fn stored_config(&self) -> Result<Option<RunConfig>> {
        let path = self.config_path();
        let Some(text) = read_text(&path)? else {
            return match self.remains() {
                None => Ok(None),
                Some(remains) => Err(data(format!(
                    "{}: not found, though {} is there: a run that has lost it is of no use",
                    path.display(),
                    remains.display()
                ))),
            };
        };
        let what = || format!("{}: not a run's configuration", path.display());
        let broken = |e: toml::de::Error| data(format!("{}: {}", what(), e.message()));
        let mut table: toml::Table = toml::from_str(&text).map_err(broken)?;
        if let Some(note) = table.remove("note") {
            let settings = text.split_once(NOTE).map_or("", |(before, _)| before);
            let sum = Checksum::of(settings.as_bytes());
            match note.get("checksum") {
                Some(stored) if stored.as_str() == Some(&sum) => {}
                None if note.get("format").is_none() => {}
                _ => {
                    return Err(data(format!(
                        "{}: a configuration changed or damaged since the run was started; put it back as it was, or give other \
                         settings as flags, with another --run",
                        path.display()
                    )));
                }
            }
        }
        let config: RunConfig = table.try_into().map_err(broken)?;
        config.check_stored().or_data(what)?;
        Ok(Some(config))
    }

    /// Where the run's set was read from when it was trained, if its configuration says so.
    pub fn noted_data(&self) -> Option<String> {
        let text = read_text(&self.config_path()).ok()??;
        let table: toml::Table = toml::from_str(&text).ok()?;
        Some(table.get("note")?.get("data")?.as_str()?.to_string())
    }

    /// A file that a run writes after its configuration.
    fn remains(&self) -> Option<PathBuf> {
        let all = [self.state_path(), self.scores_path(), self.rescored_path()];
        all.into_iter()
            .find(|path| scores::are_scores(path) || *path == self.state_path() && path.exists())
    }

    /// Whether a run has begun here, be it damaged.
    pub fn is_run(&self) -> bool {
        self.config_path().exists() || self.remains().is_some()
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
        self.store(asked, data)?;
        Ok(asked.clone())
    }

    /// Writes a run's configuration, and where its set was read from.
    ///
    /// # Errors
    /// Input/output (exit 1).
    pub fn store(&self, config: &RunConfig, data: &str) -> Result<()> {
        let directory = self.root.display().to_string();
        let settings = toml::to_string(config)? + "\n";
        let note = Note {
            emm: env!("CARGO_PKG_VERSION"),
            format: FORMAT,
            checksum: Checksum::of(settings.as_bytes()),
            directory,
            data: data.into(),
        };
        let text = settings + &toml::to_string(&NoteTable { note })?;
        write_bytes(&self.config_path(), true, text)
    }

    /// What `scores.csv` and `rescored.csv` say; nothing if there are none.
    ///
    /// # Errors
    /// Data (exit 3): what does not fit the configuration or itself, a state of another run, or an evaluation without its row
    /// though the state is beyond it.
    pub fn scores(&self, config: &RunConfig) -> Result<Scores> {
        // In the opposite order of writing, so that somebody who trains meanwhile makes nothing seem lost.
        let rescored = self.rescored_path().exists();
        let step = state::saved_step(&self.state_path(), config)?;
        let evaluations = scores::read(&self.scores_path(), config)?;
        let schedule = config.evaluation_steps();
        if let Some(&due) = schedule.get(evaluations.len())
            && let Some(step) = step.filter(|&step| step > due)
        {
            return Err(data(format!(
                "{}: no row of the evaluation at step {due}, though the state is that of step {step}",
                self.scores_path().display()
            )));
        }
        let rescored = match rescored {
            true => scores::read_rescored(&self.rescored_path(), config, &evaluations)?,
            false => None,
        };
        let distinct = [self.distinct_scores_path(), self.distinct_rescored_path()];
        let distinct = scores::read_distinct(distinct, config, &evaluations, rescored.as_ref())?;
        Ok(Scores { evaluations, rescored, distinct })
    }

    pub fn write_evaluations(&self, evaluations: &[Evaluation]) -> Result<()> {
        scores::write(&self.scores_path(), evaluations)
    }

    pub fn write_rescored(&self, evaluation: &Evaluation) -> Result<()> {
        scores::write(&self.rescored_path(), std::slice::from_ref(evaluation))
    }

    /// Drops the evaluations after `step`, which a state from before them will take again.
    pub fn drop_evaluations_after(&self, step: u64, scores: &mut Scores) -> Result<()> {
        if scores.evaluations.iter().all(|l| l.step <= step) {
            return Ok(());
        }
        if scores.rescored.take().is_some() {
            remove(&self.rescored_path())?;
        }
        if scores.distinct.rescored.take().is_some() {
            remove(&self.distinct_rescored_path())?;
        }
        scores.evaluations.retain(|l| l.step <= step);
        scores.distinct.evaluations.retain(|l| l.step <= step);
        self.write_evaluations(&scores.evaluations)
    }

    /// Removes all that evaluations left but snapshots.
    pub(super) fn remove_scores(&self) -> Result<()> {
        let scores = [self.scores_path(), self.rescored_path(), self.partial_evaluation_path()];
        let more = [self.distinct_scores_path(), self.distinct_rescored_path(), self.losses_path()];
        scores.iter().chain(&more).try_for_each(|path| remove(path))
    }

    /// Removes a state that was to become another run's.
    pub(super) fn remove_carried(&self) -> Result<()> {
        remove(&self.carried_state_path())
    }

    pub fn write_distinct_evaluations(&self, evaluations: &[Evaluation]) -> Result<()> {
        scores::write(&self.distinct_scores_path(), evaluations)
    }

    pub fn write_distinct_rescored(&self, evaluation: &Evaluation) -> Result<()> {
        scores::write(&self.distinct_rescored_path(), std::slice::from_ref(evaluation))
    }

    /// Removes this run's snapshots other than those of the given steps. What lies there under other names is somebody's.
    pub fn prune_snapshots(&self, config: &RunConfig, keep: &[u64]) -> Result<()> {
        let all = |steps: &[u64]| -> HashSet<PathBuf> {
            steps.iter().map(|&s| self.snapshot_path(config, s)).collect()
        };
        let steps = [&config.evaluation_steps()[..], &[config.steps()]].concat();
        let (ours, keep) = (all(&steps), all(keep));
        let folder = self.snapshots();
        let what = || format!("{}: cannot list", folder.display());
        for entry in fs::read_dir(&folder).or_exit(Exit::Other, what)?.flatten() {
            let path = entry.path();
            if ours.contains(&path) && path.is_file() && !keep.contains(&path) {
                remove(&path)?;
            }
        }
        Ok(())
    }

    /// The snapshot of the evaluation after `step`.
    ///
    /// # Errors
    /// Data (exit 3): missing, damaged, or of another run or step.
    pub fn snapshot(&self, config: &RunConfig, step: u64) -> Result<SavedModel> {
        let path = self.snapshot_path(config, step);
        let model = SavedModel::open(&path)?;
        let run = model.run.as_ref();
        state::same_run(&path, config, run)?;
        match run.and_then(|r| r["step"].as_u64()) {
            Some(of) if of == step => Ok(model),
            of => {
                let of = of.map_or("no step".into(), |s| format!("step {s}"));
                let path = path.display();
                Err(data(format!("{path}: a snapshot of {of}, expected step {step}")))
            }
        }
    }

    /// Refuses scores that count identical training images once where all images differ.
    ///
    /// # Errors
    /// Data (exit 3).
    pub fn check_distinct(&self, distinct: &Distinct) -> Result<()> {
        match distinct.repeats == 0 && !distinct.evaluations.is_empty() {
            true => Err(data(format!(
                "{}: counts identical training images once, but all of the set differ",
                self.distinct_scores_path().display()
            ))),
            false => Ok(()),
        }
    }

    /// The snapshot of the best evaluation, and its file.
    ///
    /// # Errors
    /// Data (exit 3) if the run has none yet, or it is missing, damaged or another's.
    pub fn best_snapshot(&self) -> Result<(PathBuf, SavedModel)> {
        let config = self.config()?;
        let evaluations = self.scores(&config)?.evaluations;
        let best = best(&evaluations).map(|l| l.step);
        let step = best.unwrap_or(config.steps());
        let path = self.snapshot_path(&config, step);
        if best.is_none() && !path.exists() {
            let root = self.root.display();
            return Err(data(format!(
                "--run: {root}: no snapshot yet: the first evaluation has not come"
            )));
        }
        Ok((path, self.snapshot(&config, step)?))
    }
}

/// The model of a file, or of a run's directory that of its best evaluation; and its file.
///
/// # Errors
/// As [`SavedModel::open`] and [`RunDir::best_snapshot`].
pub fn model_at(path: &Path) -> Result<(PathBuf, SavedModel)> {
    match path.is_dir() {
        true => RunDir::new(path).best_snapshot(),
        false => Ok((path.to_path_buf(), SavedModel::open(path)?)),
    }
}

/// Removes a file, if it is still there.
fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => {
            Err(fail(Exit::Other, format!("{}: cannot remove: {e}", path.display())))
        }
        _ => Ok(()),
    }
}
