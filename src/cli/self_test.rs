//! A GPU's self-test, at its first use with this driver and this program: its verdict is kept in the user's cache.

use crate::check::self_test::{Failed, in_process};
use crate::device::cuda::{Gpu, KERNELS_FOR};
use crate::device::{Family, GpuLimits};
use crate::error::{Exit, OrExit as _};
use crate::files::{read_cache, write_cache};
use crate::run::rate::binary;
use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::env;
use std::io::{Write as _, stderr};
use std::process::Command;

/// Below the user's cache.
const VERDICTS: &str = "self-tests.json";
/// Verdicts that the cache keeps, the newest ones.
const KEPT: usize = 100;

/// Of one GPU.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Verdict {
    /// Its UUID, its driver's version and [`binary`].
    gpu: String,
    driver: i32,
    binary: String,
    failed: Vec<Failed>,
}

fn read() -> Vec<Verdict> {
    serde_json::from_str(&read_cache(VERDICTS)).unwrap_or_default()
}

/// What a GPU failed when it was tested with this program; `None` if it wasn't.
pub fn known(gpu: &Gpu, driver: i32) -> Option<Vec<Failed>> {
    let binary = binary();
    let of_gpu = |v: &Verdict| v.gpu == gpu.uuid && v.driver == driver && v.binary == binary;
    read().into_iter().rev().find(of_gpu).map(|v| v.failed)
}

/// Whether GPUs are tested: where kernels are for GPUs, or `EMM_SELF_TEST=1` says so; `0` says not.
fn wanted() -> bool {
    match env::var("EMM_SELF_TEST").as_deref() {
        Ok("0") => false,
        Ok("1") => true,
        _ => !KERNELS_FOR.contains(&"emulator"),
    }
}

/// What a GPU, `cuda:K`, failed, after a test if there was none. Each failure is a line on stderr. `None`: the test could not
/// open it.
///
/// # Errors
/// This program cannot be started.
pub fn failures(k: usize, gpu: &Gpu, driver: i32, quiet: bool) -> Result<Option<Vec<Failed>>> {
    if !wanted() {
        return Ok(Some(vec![]));
    }
    let failed = match known(gpu, driver) {
        Some(failed) => failed,
        None => {
            if !quiet {
                note(k, gpu, "first used with this driver and this program: testing its kernels");
            }
            let program =
                env::current_exe().or_exit(Exit::Other, || "--device: this program".into())?;
            let tested = in_process(|families| {
                let names: Vec<&str> = families.iter().map(|f| f.name()).collect();
                let words = format!("emm check --device cuda:{k} --self-test {}", names.join(","));
                let mut command = Command::new(&program);
                command.args(words.split(' ').skip(1));
                command
            })?;
            let Some(failed) = tested else { return Ok(None) };
            let verdict = Verdict { gpu: gpu.uuid.clone(), driver, binary: binary(), failed };
            let mut all = read();
            all.push(verdict.clone());
            let oldest = all.len().saturating_sub(KEPT);
            if let Ok(text) = serde_json::to_string(&all[oldest..]) {
                write_cache(VERDICTS, text);
            }
            verdict.failed
        }
    };
    for (family, why) in failed.iter().filter(|_| !quiet) {
        let name = family.name();
        let what = format!("computes without its {name} kernels, which failed the self-test");
        note(k, gpu, &format!("{what}: {why}; `emm check` says more"));
    }
    Ok(Some(failed))
}

/// Says of a GPU that opens that its test could not open it.
pub fn note_untested(k: usize, gpu: &Gpu) {
    note(
        k,
        gpu,
        "its self-test could not open it, so that its kernels are untested; `emm check` tests them",
    );
}

fn note(k: usize, gpu: &Gpu, what: &str) {
    let _ = writeln!(stderr(), "emm: --device: cuda:{k}, {}: {what}", gpu.name);
}

/// Limits without what failed.
pub fn heed(limits: GpuLimits, failed: &[Failed]) -> GpuLimits {
    failed.iter().fold(limits, |limits, (family, _)| limits.without(*family))
}

/// Families by name, as the process that tests them is asked.
///
/// # Errors
/// The name that is none.
pub fn families(names: &str) -> Result<Vec<Family>, String> {
    let family =
        |name| Family::named(name).ok_or_else(|| format!("{name:?} is no family of kernels"));
    names.split(',').map(family).collect()
}
