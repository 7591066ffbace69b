//! `emm doctor`: what this machine and this build can do, what is missing, and how to get it.

use super::{Common, say, say_json, self_test};
use crate::check::self_test::Failed;
use crate::data::Dataset;
use crate::device::Cpu;
use crate::device::cuda::{Driver, KERNELS_FOR, LACKING, Trouble, probe, probe::dotted, runs_on};
use crate::memory::{self, Size};
use crate::run::rate::processor;
use anyhow::Result;
use serde_json::{Value, json};
use std::path::Path;

/// Show devices, driver, built-in kernels, CPU features, memory and data; what is missing and how to get it
#[derive(clap::Args, Debug)]
#[command(after_help = "Example:
  emm doctor --json")]
pub struct Args {}

/// Prints what this machine has, and what is missing.
///
/// # Errors
/// Device: no more threads can be started.
pub fn run(_args: Args, common: &Common) -> Result<()> {
    let driver = probe();
    let threads = Cpu::new(common.threads)?.threads();
    let cpu = processor();
    let (total, available) = (memory::total(), memory::available());
    let downloads: Vec<_> = DOWNLOADS.iter().filter(|d| Path::new(d).exists()).collect();
    let missing = missing(&driver, LACKING, downloads.is_empty());
    let digits = Dataset::digits().len();

    if common.json {
        let missing: Vec<_> =
            missing.iter().map(|(what, how)| json!({"what": what, "how": how})).collect();
        let features: serde_json::Map<String, Value> =
            features().into_iter().map(|(name, has)| (name.into(), has.into())).collect();
        say_json!({
            "version": env!("CARGO_PKG_VERSION"),
            "devices": devices(&driver, &cpu),
            "cuda_driver": driver.as_ref().ok().map(|d| dotted(d.version)),
            "cuda_trouble": driver.as_ref().err().map(Trouble::to_string),
            "kernels_for": KERNELS_FOR,
            "cpu": {"name": cpu, "threads": threads, "features": features, "needs": needs()},
            "memory_bytes": total,
            "available_bytes": available,
            "data": {"bundled": [format!("digits: {digits} of 8x8")], "here": downloads},
            "missing": missing,
        });
        return Ok(());
    }
    let size = |bytes: Option<usize>| match bytes {
        Some(b) => Size(b as u64).to_string(),
        None => "unknown".into(),
    };
    say!("emm {}", env!("CARGO_PKG_VERSION"));
    say!("device    cpu: {cpu}, {threads} threads, fp32");
    match &driver {
        Ok(d) => {
            for (k, gpu) in d.gpus.iter().enumerate() {
                let (major, minor) = gpu.capability;
                let memory = Size(gpu.memory_bytes);
                let able = if runs_on(gpu.capability) { "" } else { "; no kernels in this build" };
                say!("device    cuda:{k}: {}, {major}.{minor}, {memory}{able}", gpu.name);
                say!("          {}", self_tested(self_test::known(gpu, d.version)));
            }
            say!("driver    CUDA {}", dotted(d.version));
        }
        Err(trouble) => say!("driver    {trouble}"),
    }
    match KERNELS_FOR {
        [] => say!("kernels   none: this build computes on the CPU only"),
        archs => say!("kernels   for {}", archs.join(", ")),
    }
    let (has, lacks): (Vec<_>, Vec<_>) = features().into_iter().partition(|f| f.1);
    let names = |list: Vec<(&'static str, bool)>| match list.is_empty() {
        true => "none".into(),
        false => list.into_iter().map(|f| f.0).collect::<Vec<_>>().join(" "),
    };
    say!("features  {} (not: {})", names(has), names(lacks));
    if !needs().is_empty() {
        say!("needs     {}: was built for CPUs with them only", needs().join(" "));
    }
    say!("memory    {}, {} available", size(total), size(available));
    say!("data      bundled: {digits} digits of 8×8 pixels (`emm quickstart`)");
    for d in downloads {
        say!("          here: {d}");
    }
    for (what, how) in missing {
        say!("missing   {what}: {how}");
    }
    Ok(())
}

/// The verdict on a GPU with this driver and this program.
fn self_tested(verdict: Option<Vec<Failed>>) -> String {
    match verdict.as_deref() {
        None => "self-test: when it is first used".into(),
        Some([]) => "self-test: passed".into(),
        Some(failed) => {
            let failed = failed.iter().map(|(family, why)| format!("{} ({why})", family.name()));
            format!("self-test: computes without {}", failed.collect::<Vec<_>>().join(", "))
        }
    }
}

/// Files that `emm data import` takes, looked for in the current folder.
const DOWNLOADS: [&str; 4] = [
    "cifar-10-python.tar.gz",
    "cifar-10-binary.tar.gz",
    "train-images-idx3-ubyte.gz",
    "train-images-idx3-ubyte",
];

fn devices(driver: &Result<Driver, Trouble>, cpu: &str) -> Vec<Value> {
    let mut all = vec![json!({"device": "cpu", "name": cpu, "usable": true})];
    let version = driver.as_ref().map_or(0, |d| d.version);
    for (k, gpu) in driver.iter().flat_map(|d| d.gpus.iter().enumerate()) {
        all.push(json!({
            "device": format!("cuda:{k}"),
            "name": gpu.name,
            "capability": format!("{}.{}", gpu.capability.0, gpu.capability.1),
            "memory_bytes": gpu.memory_bytes,
            "usable": runs_on(gpu.capability),
            "self_test": self_test::known(gpu, version),
        }));
    }
    all
}

/// What is not there, and how to get it; `kernels` is what is to say of them, if anything.
fn missing(
    driver: &Result<Driver, Trouble>,
    kernels: &str,
    no_downloads: bool,
) -> Vec<(&'static str, String)> {
    let mut all = Vec::new();
    if let Err(trouble) = driver {
        let how = format!("{trouble}; only --device cuda needs it: NVIDIA's driver 580 or newer");
        all.push(("CUDA driver", how));
    }
    if !kernels.is_empty() {
        all.push(("CUDA kernels", format!("{kernels}; without, everything works on the CPU")));
    }
    if no_downloads {
        all.push((
            "CIFAR-10 in this folder",
            "download cifar-10-python.tar.gz, then `emm data import cifar-10-python.tar.gz --out cifar10.zip`; \
             see data/README.md"
                .into(),
        ));
    }
    all
}

/// Instruction sets that the CPU code has variants for, and whether this CPU has them.
#[cfg(target_arch = "x86_64")]
fn features() -> Vec<(&'static str, bool)> {
    use std::arch::is_x86_feature_detected as has;
    vec![
        ("avx2", has!("avx2")),
        ("fma", has!("fma")),
        ("avx512f", has!("avx512f")),
        ("avx512bw", has!("avx512bw")),
        ("avx512vl", has!("avx512vl")),
        ("avx512vnni", has!("avx512vnni")),
        ("avx512bf16", has!("avx512bf16")),
    ]
}

#[cfg(not(target_arch = "x86_64"))]
fn features() -> Vec<(&'static str, bool)> {
    Vec::new()
}

/// Instruction sets that every CPU needs that runs this build: what compiler flags added to the architecture's own.
fn needs() -> Vec<&'static str> {
    let features = env!("EMM_TARGET_FEATURES").split(',');
    features.filter(|f| !["", "fxsr", "sse", "sse2", "x87"].contains(f)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lacking_kernels_are_missing_with_the_reason_and_the_remedy() {
        let told = missing(&Err(Trouble::Absent), "built so; do that", false);
        let kernels = told.iter().find(|(what, _)| *what == "CUDA kernels").unwrap();
        assert!(kernels.1.starts_with("built so; do that"), "{told:?}");
        let none = missing(&Err(Trouble::Absent), "", false);
        assert!(none.iter().all(|(what, _)| *what != "CUDA kernels"), "{none:?}");
    }
}
