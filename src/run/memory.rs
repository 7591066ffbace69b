//! The machine's memory, as the system tells it.

use crate::device::{Device, Precision};
use crate::error::{Exit, fail};
use crate::model::{ModelConfig, Params, Trainer};
use anyhow::Result;
use std::fs;

/// Refuses to train a network, in micro-batches of so many images, that the device's free memory cannot hold,
/// before the system ends the process for it.
///
/// # Errors
/// Device (exit 4) with the bytes wanted and free.
pub fn check(
    device: &Device,
    config: &ModelConfig,
    precision: Precision,
    micro_batch: usize,
) -> Result<()> {
    // Weights, gradient, two moments and EMA.
    let buffers = 5 * 4 * Params::new(config).flat_len;
    let mut wanted = buffers;
    let free = match device {
        Device::Cpu(_) => available().unwrap_or(usize::MAX),
        Device::Cuda { cuda, .. } => cuda.free_bytes()?,
    };
    if buffers <= free {
        wanted += Trainer::plan_bytes(device, config, precision, micro_batch)?;
    }
    match wanted <= free {
        true => Ok(()),
        false => Err(fail(
            Exit::Device,
            format!(
                "--device: training needs {wanted} bytes, {free} are free; \
                 smaller --channels or --micro-batch need less"
            ),
        )),
    }
}

/// Bytes of memory in the machine.
pub fn total() -> Option<usize> {
    field("/proc/meminfo", "MemTotal:")
}

/// Bytes that the system could give without swapping.
pub fn available() -> Option<usize> {
    field("/proc/meminfo", "MemAvailable:")
}

/// The process's largest resident memory so far, in bytes.
pub fn peak() -> Option<usize> {
    field("/proc/self/status", "VmHWM:")
}

/// A line of the system's tables, given there in KiB.
fn field(file: &str, name: &str) -> Option<usize> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find(|l| l.starts_with(name))?;
    Some(line.split_whitespace().nth(1)?.parse::<usize>().ok()? * 1024)
}
