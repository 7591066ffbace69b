//! Devices for several runs at once.

use super::{Common, note_line};
use crate::device::{Cpu, Device};
use crate::error::usage;
use crate::model::flops::flops;
use crate::run::RunConfig;
use crate::run::at_once::{self, AtOnce, Work};
use anyhow::Result;

/// What `--jobs-per-device` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Jobs {
    Auto,
    Count(usize),
}

/// Reads the flag.
///
/// # Errors
/// What is neither, with what is expected.
pub fn jobs(text: &str) -> Result<Jobs, String> {
    match (text, text.parse()) {
        ("auto", _) => Ok(Jobs::Auto),
        (_, Ok(count)) if count > 0 => Ok(Jobs::Count(count)),
        _ => Err(format!("expected auto or at least 1, found {text:?}")),
    }
}

/// A device of one thread for each of these threads.
pub fn one_per_thread(cpu: &Cpu) -> Result<Vec<Device>> {
    (0..cpu.threads()).map(|_| Cpu::new(1).map(Device::Cpu)).collect()
}

/// A step of a study that has fewer operations gains nothing from a second thread: on the CPU such runs go on a thread each.
pub const SMALL_STEP_FLOP: u64 = 20_000_000_000;

/// What decides how many runs share a device.
pub struct Shared<'a> {
    pub jobs: Jobs,
    /// Settings of the runs that are to be done, for `auto`.
    pub runs: &'a [&'a RunConfig],
    /// How many of them there may be at once.
    pub most: usize,
    /// On the CPU, runs whose steps have fewer operations go on a thread each.
    pub small_step_flop: u64,
    /// Seconds that a GPU may be measured for; 0 measures nothing, and each run has one for itself.
    pub seconds: f64,
}

/// Devices for so many runs at once, of those that are open. The CPU's threads are shared out, where `auto` decides a
/// thread for each run of a small network, else all threads for one run. On a GPU each run has a stream of its own; `auto`
/// measures on the first GPU how many gain something, and says so.
///
/// # Errors
/// Usage: more jobs than there are threads. As of measuring.
pub fn devices(open: &[Device], shared: &Shared, common: &Common) -> Result<Vec<Device>> {
    match (open, shared.jobs) {
        ([Device::Cpu(cpu)], Jobs::Auto) => {
            let step = |c: &&RunConfig| flops(&c.model).train * c.train.batch as u64;
            match shared.runs.iter().map(step).max() {
                Some(most) if most < shared.small_step_flop => one_per_thread(cpu),
                _ => Ok(open.to_vec()),
            }
        }
        ([Device::Cpu(cpu)], Jobs::Count(jobs)) => {
            let threads = cpu.threads();
            if jobs > threads {
                let what =
                    format!("--jobs-per-device: {jobs}, the CPU has {threads} threads (--threads)");
                return Err(usage(what));
            }
            let share = |k: usize| threads / jobs + usize::from(k < threads % jobs);
            (0..jobs).map(|k| Cpu::new(share(k)).map(Device::Cpu)).collect()
        }
        (gpus, Jobs::Auto) => share_gpus(gpus, &measured(gpus, shared, common)?),
        // What they gain is not known: in predictions nothing.
        (gpus, Jobs::Count(jobs)) => share_gpus(gpus, &vec![(jobs, 1.0); gpus.len()]),
    }
}

/// What would do a study's runs, for what is said of them: nothing is measured, so on a GPU one at a time.
///
/// # Errors
/// As [`devices`].
pub fn unmeasured(open: &[Device], runs: &[&RunConfig], common: &Common) -> Result<Vec<Device>> {
    let (jobs, most, small_step_flop, seconds) = (Jobs::Auto, runs.len(), SMALL_STEP_FLOP, 0.0);
    devices(open, &Shared { jobs, runs, most, small_step_flop, seconds }, common)
}

/// Jobs on each GPU and what they gain, as measured on the first.
fn measured(gpus: &[Device], shared: &Shared, common: &Common) -> Result<Vec<(usize, f64)>> {
    let alone = vec![(1, 1.0); gpus.len()];
    if shared.seconds == 0.0 {
        return Ok(alone);
    }
    let most = shared.most.div_ceil(gpus.len());
    let (runs, seconds, quiet) = (shared.runs, shared.seconds, common.quiet);
    let AtOnce { jobs, gain, said } =
        at_once::choose(&gpus[0], &Work { runs, most, seconds, quiet })?;
    if let (Some(said), false) = (said, common.quiet) {
        let names: Vec<&str> =
            gpus.iter().map(|gpu| gpu.name().split(',').next().unwrap_or_default()).collect();
        let others = match &names[1..] {
            [] => String::new(),
            others => format!(" (and by it {})", others.join(", ")),
        };
        note_line(&format!("{}{others}: {said}", names[0]));
    }
    let mut all = vec![(jobs, gain)];
    for gpu in &gpus[1..] {
        let fit = if jobs > 1 { at_once::fit(gpu, runs, jobs)? } else { 1 };
        // Fewer gain less, in proportion at most.
        all.push((fit, gain * fit as f64 / jobs as f64));
    }
    Ok(all)
}

/// So many devices of each GPU, a first of each before a second of any: few runs are spread over all GPUs.
fn share_gpus(gpus: &[Device], jobs: &[(usize, f64)]) -> Result<Vec<Device>> {
    let mut all = Vec::new();
    for (k, (gpu, &(jobs, gain))) in gpus.iter().zip(jobs).enumerate() {
        let Device::Cuda { cuda, host } = gpu else { continue };
        let shared = cuda.shared_by(jobs, gain)?.into_iter().enumerate();
        all.extend(shared.map(|(j, cuda)| ((j, k), Device::Cuda { cuda, host: host.clone() })));
    }
    all.sort_by_key(|(place, _)| *place);
    Ok(all.into_iter().map(|(_, device)| device).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_are_a_number_or_auto() {
        assert_eq!(jobs("auto"), Ok(Jobs::Auto));
        assert_eq!(jobs("3"), Ok(Jobs::Count(3)));
        for wrong in ["0", "-1", "", "two", "1.5"] {
            assert!(jobs(wrong).unwrap_err().contains("auto or at least 1"), "{wrong}");
        }
    }
}
