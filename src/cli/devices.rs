//! Devices for several runs at once.

use super::Common;
use crate::device::{Cpu, Device};
use crate::error::usage;
use crate::model::flops::flops;
use crate::run::RunConfig;
use anyhow::Result;

/// A device of one thread for each of these threads.
pub fn one_per_thread(cpu: &Cpu) -> Result<Vec<Device>> {
    (0..cpu.threads()).map(|_| Cpu::new(1).map(Device::Cpu)).collect()
}

/// A step of fewer operations gains nothing from a second thread: on the CPU such runs go on a thread each.
const SMALL_STEP_FLOP: u64 = 20_000_000_000;

/// Devices for so many runs at once. On the CPU its threads are shared out, by default a thread for each run of a small
/// network, else all threads for one run.
///
/// # Errors
/// Usage: no jobs, or more than there are threads.
pub fn devices(
    common: &Common,
    jobs: Option<usize>,
    configs: &[&RunConfig],
) -> Result<Vec<Device>> {
    let device = common.device()?;
    if jobs == Some(0) {
        return Err(usage("--jobs-per-device: 0, at least 1 is needed"));
    }
    match (&device, jobs) {
        (Device::Cpu(cpu), None) => {
            let step = |c: &&RunConfig| flops(&c.model).train * c.train.batch as u64;
            match configs.iter().map(step).max() {
                Some(most) if most < SMALL_STEP_FLOP => one_per_thread(cpu),
                _ => Ok(vec![device]),
            }
        }
        (Device::Cpu(cpu), Some(jobs)) => {
            let threads = cpu.threads();
            if jobs > threads {
                let what =
                    format!("--jobs-per-device: {jobs}, the CPU has {threads} threads (--threads)");
                return Err(usage(what));
            }
            let share = |k: usize| threads / jobs + usize::from(k < threads % jobs);
            (0..jobs).map(|k| Cpu::new(share(k)).map(Device::Cpu)).collect()
        }
        (Device::Cuda { .. }, jobs) => {
            // Each run its own stream: the device is opened anew.
            let more = (1..jobs.unwrap_or(1)).map(|_| common.device());
            std::iter::once(Ok(device)).chain(more).collect()
        }
    }
}
