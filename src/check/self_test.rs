//! Whether a GPU computes with each family of fast kernels what it must: a few of the ops' cases, in a process of its own
//! that may fail or never end. The slower kernels stand in for a family that does not pass.

use super::cases::{Case, GOLDENS};
use super::children::{end, end_with_parent};
use super::golden::Golden;
use crate::device::cuda::Cuda;
use crate::device::{Family, GpuLimits, Precision};
use crate::error::{Exit, OrExit as _};
use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

/// A line of what the process tells.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Told {
    /// The GPU is open.
    Ready,
    Begun(Family),
    /// What is wrong with it, if anything.
    Ended(Family, Option<String>),
    /// There is no more.
    Done,
}

/// A family that this GPU does not compute right with, and why.
pub type Failed = (Family, String);

/// To open a GPU and to compile PTX for it.
const OPENING: Duration = Duration::from_secs(60);
/// For the cases of a family, which take a fraction of a second.
const LIMIT: Duration = Duration::from_secs(5);

/// Tests the families on this GPU, telling what it does; not further than one that fails, which may have broken the context.
pub fn run(cuda: &Cuda, families: &[Family], tell: &mut dyn FnMut(Told)) {
    tell(Told::Ready);
    for &family in families.iter().filter(|&&f| cuda.limits().has(f)) {
        tell(Told::Begun(family));
        let wrong = cases_of(cuda, family).err().map(|e| format!("{e:#}"));
        let goes_on = wrong.is_none();
        tell(Told::Ended(family, wrong));
        if !goes_on {
            return;
        }
    }
    tell(Told::Done);
}

/// Runs what a family is for, so that its kernels are taken whatever the GPU's size.
fn cases_of(cuda: &Cuda, family: Family) -> Result<()> {
    let others = Family::ALL.into_iter().filter(|&f| f != family);
    let alone = others.fold(cuda.limits(), GpuLimits::without);
    let cuda = cuda.with_limits(GpuLimits { multiprocessors: 1, ..alone });
    let op = if family == Family::Slabs { "norm" } else { "conv2d" };
    let (_, bytes) = GOLDENS.into_iter().find(|(name, _)| *name == op).expect("an op's golden");
    let golden = Golden::parse(bytes)?;
    let precision = Precision::Bf16;
    for (name, attributes) in golden.cases().into_iter().filter(|(n, _)| n.starts_with("even")) {
        let case = Case::from_golden(op, &golden, &name, &attributes);
        let run = |case: &Case, acc, start| case.run_kernels(&cuda, precision, acc, start);
        let off = case.error(&golden, precision, run)?;
        let (by, bar) = (off.by, case.bar(precision));
        ensure!(by < bar, "{op} {name}: {} is off by {by:.1e}, the bar is {bar:.0e}", off.at);
    }
    Ok(())
}

/// Has processes test the families; `start` makes one that does so for some. `None`: the GPU could not be opened there.
///
/// # Errors
/// The program does not start.
pub fn in_process(start: impl Fn(&[Family]) -> Command) -> Result<Option<Vec<Failed>>> {
    let mut failed = Vec::new();
    let mut left = Family::ALL.to_vec();
    while !left.is_empty() {
        let mut command = start(&left);
        end_with_parent(&mut command);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let name = command.get_program().to_string_lossy().into_owned();
        let mut child =
            command.spawn().or_exit(Exit::Other, || format!("{name}: does not start"))?;
        let (tell, told) = channel();
        let out = BufReader::new(child.stdout.take().expect("its stdout is ours"));
        thread::spawn(move || {
            let lines = out.lines().map_while(Result::ok);
            lines.filter_map(|l| serde_json::from_str(&l).ok()).all(|t| tell.send(t).is_ok())
        });
        let (mut now, mut limit, before) = (None, OPENING, left.len());
        let how = loop {
            match told.recv_timeout(limit) {
                Ok(Told::Ready) => limit = LIMIT,
                Ok(Told::Begun(family)) => now = Some(family),
                Ok(Told::Ended(family, wrong)) => {
                    left.retain(|f| *f != family);
                    failed.extend(wrong.map(|why| (family, why)));
                    now = None;
                }
                Ok(Told::Done) => {
                    left.clear();
                    break String::new();
                }
                Err(RecvTimeoutError::Timeout) => {
                    break format!("had not ended after {} s", limit.as_secs());
                }
                Err(RecvTimeoutError::Disconnected) => break "its process ended".to_string(),
            }
        };
        end(&mut child);
        match now {
            Some(family) => {
                left.retain(|f| *f != family);
                failed.push((family, how));
            }
            None if left.len() < before => {}
            None => return Ok(None),
        }
    }
    Ok(Some(failed))
}
