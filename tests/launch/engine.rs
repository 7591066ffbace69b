//! A stand-in for an engine of many machines: starts workers, disturbs some, starts them again as the engine would.

use crate::support::{emm_in, study};
use std::collections::VecDeque;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};
use tempfile::{TempDir, tempdir};

/// Runs of the sweep.
pub const RUNS: usize = 20;
pub const FLAGS: &str = "twenty.toml --scale tiny --repeats 10";

/// Two sizes, ten seeds each: runs of a moment, long enough to be caught.
fn twenty() -> String {
    study("twenty", "epochs = 16000\nbatch = 256\nscore_images = 320", crate::support::SIZES)
}

pub fn folder() -> TempDir {
    let dir = tempdir().unwrap();
    std::fs::write(dir.path().join("twenty.toml"), twenty()).unwrap();
    dir
}

pub fn go(dir: &Path, line: &str) -> crate::support::Ended {
    emm_in(dir, line.split_whitespace().chain(["--quiet"]))
}

/// A sweep that nobody disturbed, and the names of its runs by number.
pub struct Straight {
    folder: TempDir,
    pub names: Vec<String>,
}

pub static STRAIGHT: LazyLock<Straight> = LazyLock::new(|| {
    let folder = folder();
    let plan = go(folder.path(), &format!("sweep plan {FLAGS} --no-measure --json")).json();
    let name = |run: &serde_json::Value| {
        let path = Path::new(run["run"].as_str().unwrap());
        path.file_name().unwrap().to_string_lossy().into_owned()
    };
    let names = plan["runs"].as_array().unwrap().iter().map(name).collect();
    go(folder.path(), &format!("sweep run {FLAGS}")).ok();
    Straight { folder, names }
});

impl Straight {
    /// Compares scores and snapshots of the runs in a folder with these, byte for byte.
    pub fn compare(&self, runs: &Path) {
        assert_eq!(self.names.len(), RUNS);
        for name in &self.names {
            let files = |run: PathBuf| {
                let entries = std::fs::read_dir(run.join("snapshots")).unwrap();
                let mut all: Vec<_> = entries.map(|e| e.unwrap().path()).collect();
                all.sort();
                all.extend(["scores.csv", "rescored.csv"].map(|f| run.join(f)));
                let read = |p: &PathBuf| (p.file_name().unwrap().to_owned(), std::fs::read(p).ok());
                all.iter().map(read).collect::<Vec<_>>()
            };
            let (ours, theirs) =
                (files(self.folder.path().join("runs").join(name)), files(runs.join(name)));
            assert!(ours == theirs, "{name}: not what an undisturbed sweep gives");
            assert!(ours.len() >= 3);
        }
    }
}

/// How often work was begun in a run.
pub fn starts(runs: &Path) -> Vec<usize> {
    let count = |name: &String| {
        let stats = std::fs::read_to_string(runs.join(name).join("stats.jsonl"));
        stats.unwrap_or_default().matches("resumed_at_step").count()
    };
    STRAIGHT.names.iter().map(count).collect()
}

/// What happens to a worker once its run has begun.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fate {
    Undisturbed,
    /// Told to stop, with time to save.
    Told,
    /// Told to stop, and killed before it has.
    Hurried,
    /// Killed with all its children.
    Killed,
}

/// A third is left alone, of the others the first try is disturbed, of some the second, too.
pub fn disturbed(index: usize, attempt: usize) -> Fate {
    match (index % 6, attempt) {
        (0, 0) | (3, 1) => Fate::Told,
        (1, 0) | (0, 1) => Fate::Killed,
        (2, 0) => Fate::Hurried,
        (3, 0) => Fate::Told,
        _ => Fate::Undisturbed,
    }
}

/// Nobody is disturbed.
pub fn calm(_index: usize, _attempt: usize) -> Fate {
    Fate::Undisturbed
}

/// What an engine does after a worker's end.
#[derive(Debug, PartialEq)]
pub enum Next {
    Done,
    Again,
}

/// A worker of one of the tries of a run: its command, and where its run's folder of runs is.
pub struct Try {
    pub command: Command,
    pub runs: PathBuf,
}

struct Worker {
    child: Child,
    index: usize,
    attempt: usize,
    runs: PathBuf,
    began: Instant,
    hit: Fate,
}

/// Tries of each run, and what was met.
pub struct Told {
    pub tries: Vec<usize>,
    pub codes: Vec<Option<i32>>,
}

/// Does all indices, at most `cap` at once. `fate` is that of each try of each; `judge` says what the engine does when a worker has ended so after that fate.
pub fn drive(
    indices: impl IntoIterator<Item = usize>,
    cap: usize,
    start: &dyn Fn(usize, usize) -> Try,
    fate: &dyn Fn(usize, usize) -> Fate,
    judge: &mut dyn FnMut(usize, ExitStatus, Fate) -> Next,
) -> Told {
    let mut queue: VecDeque<(usize, usize)> = indices.into_iter().map(|i| (i, 0)).collect();
    let mut told = Told { tries: vec![0; RUNS], codes: vec![] };
    let mut at_work: Vec<Worker> = Vec::new();
    let begun = Instant::now();
    while !queue.is_empty() || !at_work.is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(120), "the sweep does not end");
        while at_work.len() < cap
            && let Some((index, attempt)) = queue.pop_front()
        {
            let Try { mut command, runs } = start(index, attempt);
            command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null());
            let child = command.stderr(Stdio::null()).spawn().unwrap();
            told.tries[index] += 1;
            let hit = Fate::Undisturbed;
            at_work.push(Worker { child, index, attempt, runs, began: Instant::now(), hit });
        }
        let mut left = Vec::new();
        for mut worker in at_work {
            let Some(status) = worker.child.try_wait().unwrap() else {
                worker.disturb(fate);
                left.push(worker);
                continue;
            };
            told.codes.push(status.code());
            if judge(worker.index, status, worker.hit) == Next::Again {
                queue.push_back((worker.index, worker.attempt + 1));
            }
        }
        at_work = left;
        std::thread::sleep(Duration::from_millis(2));
    }
    told
}

impl Worker {
    fn disturb(&mut self, fate: &dyn Fn(usize, usize) -> Fate) {
        let group = -(self.child.id() as libc::pid_t);
        // SAFETY: the child is ours, leads its group and has not been waited for.
        let send = |to: libc::pid_t, signal| unsafe { libc::kill(to, signal) };
        if self.hit == Fate::Hurried && self.began.elapsed() > Duration::from_millis(3) {
            send(group, libc::SIGKILL);
        }
        let run = self.runs.join(&STRAIGHT.names[self.index]);
        // Of a later try a state is there from the first on: its own line says that this one has begun.
        let begun = || {
            let stats = std::fs::read_to_string(run.join("stats.jsonl")).unwrap_or_default();
            run.join("state/state.safetensors").exists()
                && stats.matches("resumed_at_step").count() > self.attempt
        };
        if self.hit != Fate::Undisturbed || !begun() {
            return;
        }
        self.hit = fate(self.index, self.attempt);
        self.began = Instant::now();
        match self.hit {
            Fate::Undisturbed => {}
            Fate::Told | Fate::Hurried => {
                send(-group, libc::SIGTERM);
            }
            Fate::Killed => {
                send(group, libc::SIGKILL);
            }
        }
    }
}

/// Whether a worker was killed rather than ended by itself.
pub fn was_killed(status: ExitStatus) -> bool {
    status.signal() == Some(libc::SIGKILL)
}

/// A folder of programs that stand in for others: `emm` as built, and each of (name, script for sh).
pub fn programs(dir: &Path, scripts: &[(&str, &str)]) -> String {
    let bin = dir.join("bin");
    std::fs::create_dir(&bin).unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_emm"), bin.join("emm")).unwrap();
    for (name, script) in scripts {
        std::fs::write(bin.join(name), format!("#!/bin/sh\n{script}\n")).unwrap();
        let all = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(bin.join(name), all).unwrap();
    }
    format!("{}:{}", bin.display(), std::env::var("PATH").unwrap())
}
