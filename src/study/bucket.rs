//! Runs brought to a place that is no file system with locks and renames, such as a bucket, and back, by commands of the
//! user's.
//!
//! A command may be killed at any instant, so what a bucket holds of a run is believed only where it is whole: all that the
//! run goes on from fits its checksum and itself. A finished run is marked after all else, so that its state and
//! snapshots may be removed there once it has its mark.

use super::outcome::{RunState, state_of};
use super::plan::PlannedRun;
use crate::error::{Exit, OrExit as _, data, fail};
use crate::files::{read_text, replace_dir_if, write_bytes};
use crate::run::progress::Overall;
use crate::run::{RunConfig, RunDir, whole};
use anyhow::Result;
use std::fs;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// Where runs are brought from and to.
#[derive(Debug, Clone)]
pub struct Bucket {
    /// Shell commands in which `{dir}` stands for a run's folder here and `{run}` for its name.
    pub pull: Option<String>,
    pub push: Option<String>,
    /// Seconds between pushes of a run that goes on.
    pub every_s: f64,
}

/// A file in a run's folder: names the finished run that was pushed.
const PUSHED: &str = "pushed";

/// How far a run is.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
enum Reached {
    Step(u64),
    End,
}

impl Bucket {
    /// Takes what the bucket holds of a run in place of what is here, if it is whole and further.
    ///
    /// # Errors
    /// Other (exit 1): the command failed; input/output.
    pub fn pull(&self, run: &PlannedRun, progress: &Overall) -> Result<()> {
        let (Some(command), Some(dir)) = (&self.pull, &run.dir) else { return Ok(()) };
        let here = match run.state() {
            // Training will say what is wrong.
            RunState::Done(_) | RunState::Damaged(_) => return Ok(()),
            RunState::Missing => None,
            RunState::Begun => reached(&run.config, dir).ok().flatten(),
        };
        if RunDir::new(dir).is_locked() {
            return Ok(());
        }
        let runs = dir.parent().unwrap_or(Path::new("."));
        let cannot = || format!("--runs: {}: cannot create", runs.display());
        fs::create_dir_all(runs).or_exit(Exit::Other, cannot)?;
        replace_dir_if(dir, |pulled| {
            call("--pull", command, pulled, &run.config)?;
            match reached(&run.config, pulled) {
                Ok(there) => Ok(there > here),
                Err(e) => {
                    let name = run.config.id();
                    progress.note(&format!("--pull: {name}: not whole, not taken: {e:#}"));
                    Ok(false)
                }
            }
        })?;
        Ok(())
    }

    /// Brings a run, finished or suspended, to the bucket; nothing where that is done, or somebody works in it.
    ///
    /// # Errors
    /// Other (exit 1): the command failed; input/output.
    pub fn push(&self, run: &PlannedRun, finished: bool) -> Result<()> {
        let (Some(command), Some(dir)) = (&self.push, &run.dir) else { return Ok(()) };
        let here = RunDir::new(dir);
        if (finished && is_pushed(&run.config, dir)) || here.is_locked() {
            return Ok(());
        }
        let _lock = here.lock()?;
        call("--push", command, dir, &run.config)?;
        if finished {
            let mark = dir.join(PUSHED);
            write_bytes(&mark, true, run.config.id() + "\n")?;
            call("--push", command, dir, &run.config).inspect_err(|_| {
                let _ = fs::remove_file(&mark);
            })?;
        }
        Ok(())
    }
}

fn is_pushed(config: &RunConfig, dir: &Path) -> bool {
    let mark = read_text(&dir.join(PUSHED)).ok().flatten();
    mark.is_some_and(|name| name.trim_end() == config.id())
}

/// How far the run in a folder is; `None` if there is none.
///
/// # Errors
/// Data (exit 3): it is not whole.
fn reached(config: &RunConfig, dir: &Path) -> Result<Option<Reached>> {
    let finished = match state_of(config, dir) {
        RunState::Missing => return Ok(None),
        RunState::Damaged(why) => return Err(data(why)),
        RunState::Done(_) if is_pushed(config, dir) => return Ok(Some(Reached::End)),
        RunState::Done(_) => true,
        RunState::Begun => false,
    };
    let run = RunDir::new(dir);
    let step = whole::step(&run, &run.config()?)?;
    match finished {
        true if step < config.steps() => Err(data(format!(
            "{}: of step {step}, though the run is finished",
            run.state_path().display()
        ))),
        true => Ok(Some(Reached::End)),
        false => Ok(Some(Reached::Step(step))),
    }
}

/// Runs a command of the user's on the run in a folder.
fn call(flag: &str, command: &str, dir: &Path, config: &RunConfig) -> Result<()> {
    // As variables a path of any bytes needs no quotes.
    let line = command.replace("{dir}", "\"$EMM_DIR\"").replace("{run}", "\"$EMM_RUN\"");
    let cannot = || format!("{flag}: `{command}`: cannot start");
    // Standard output is for results.
    let out = std::io::stderr().as_fd().try_clone_to_owned().or_exit(Exit::Other, cannot)?;
    let ended = Command::new("sh")
        .args(["-c", &line])
        .env("EMM_DIR", dir)
        .env("EMM_RUN", config.id())
        .stdin(Stdio::null())
        .stdout(out)
        .status()
        .or_exit(Exit::Other, cannot)?;
    match ended.success() {
        true => Ok(()),
        false => Err(fail(
            Exit::Other,
            format!(
                "{flag}: `{command}` failed for run {} ({ended}); what is here of it stays",
                config.id()
            ),
        )),
    }
}
