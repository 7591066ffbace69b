//! How many runs share a GPU, each on a stream of its own: as many as its memory holds, and as many as still gain something.
//! A small network's kernels fill a part of a GPU, and wait for one another; those of other runs fill the rest.

use super::progress::Progress;
use super::{RunConfig, bench, memory, scoring};
use crate::device::Device;
use crate::model::flops::flops;
use crate::signal::stop_asked;
use anyhow::Result;
use std::time::Instant;

/// The runs that are to be done.
pub struct Work<'a> {
    /// Their settings; one that stands for others may be there for each of them.
    pub runs: &'a [&'a RunConfig],
    /// How many of them there may be at once on the GPU.
    pub most: usize,
    /// Seconds that measuring may take.
    pub seconds: f64,
    pub quiet: bool,
}

/// Runs that share a GPU.
#[derive(Debug, Clone, PartialEq)]
pub struct AtOnce {
    pub jobs: usize,
    /// Images per second of all of them, of those of one alone.
    pub gain: f64,
    /// What was found, if anything was looked for: `4 runs at once: 3.1 times the images of one`.
    pub said: Option<String>,
}

/// Seconds that measuring may take where the work is long.
pub const SECONDS: f64 = 2.0;

/// More runs at once than this are not tried: each takes a thread of the host and a context's worth of queues.
const MOST: usize = 8;
/// Twice as many runs have to do this much more, or they are left.
const LEAST_GAIN: f64 = 1.1;
/// Steps of this many operations fill a GPU by themselves, and nothing is measured: the fastest here (`run/gpu.rs`) takes 6 ms
/// for them, ten times what launching a step's few hundred kernels takes, so that filling the gaps gains less than a tenth.
const FULL_STEP_FLOP: f64 = 4e12;
/// Measuring takes at most this share of the work's steps.
const SHARE: f64 = 0.05;
/// Steps that a measurement times: at most, and fewer tell nothing.
const STEPS: [usize; 2] = [3, 50];
/// A measurement is about this long, if so many steps are enough.
const TIMED_S: f64 = 0.1;

/// Chooses how many of the runs share `device`, a GPU that nobody else uses meanwhile.
///
/// The network that most of the work trains is measured, since there the time goes; the memory is that of the largest. Where
/// a measurement fails, nothing more is measured: its runs say what is wrong.
///
/// # Errors
/// Device (exit 4): what the driver says of its memory; a batch that kernels cannot count.
pub fn choose(device: &Device, work: &Work) -> Result<AtOnce> {
    let one = |said: Option<&str>| AtOnce { jobs: 1, gain: 1.0, said: said.map(Into::into) };
    let most = work.most.min(MOST);
    let (Some(cuda), Some(config)) = (device.cuda(), most_worked_on(work.runs)) else {
        return Ok(one(None));
    };
    if most < 2 || flops(&config.model).train as f64 * config.train.batch as f64 >= FULL_STEP_FLOP {
        return Ok(one(None));
    }
    let steps = work.runs.iter().map(|c| c.steps() as f64).sum::<f64>() * SHARE;
    // One alone is measured twice, then 2, 4, … at once.
    let rounds = 2 * most.next_power_of_two();
    let steps = (steps as usize / rounds).saturating_sub(bench::WARMING).min(STEPS[1]);
    if steps < STEPS[0] {
        return Ok(one(None));
    }
    let most = most.min(memory::side_by_side(device, work.runs)?);
    if most < 2 {
        return Ok(one(Some("one run at a time, its memory holds no two")));
    }
    let (begun, mut progress) = (Instant::now(), Progress::new(0.0, 1.0, work.quiet));
    let images = memory::most_at_once(&config.model, config.train.batch)?;
    let mut measure = |jobs: usize, steps: usize| -> Option<f64> {
        let share = begun.elapsed().as_secs_f64() / work.seconds;
        progress.reached(share, "measuring how many runs share a GPU");
        let devices: Vec<Device> = cuda
            .shared_by(jobs, 1.0)
            .ok()?
            .into_iter()
            .map(|cuda| Device::Cuda { cuda, host: device.host().clone() })
            .collect();
        bench::at_once(&devices, config, images, steps).ok()
    };
    let Some(first) = measure(1, STEPS[0]) else { return Ok(one(None)) };
    let fitting = (TIMED_S * first / images as f64) as usize;
    let steps = fitting.clamp(STEPS[0], steps);
    let again = if steps > STEPS[0] { measure(1, steps) } else { None };
    let mut rates = vec![again.unwrap_or(first)];
    // What each of so many takes if they gain nothing.
    let alone_s = ((steps + bench::WARMING) * images) as f64 / rates[0];
    for jobs in (1..=most.ilog2()).map(|i| 1usize << i) {
        let late = begun.elapsed().as_secs_f64() + jobs as f64 * alone_s > work.seconds;
        if late || stop_asked() || !gains(&rates) {
            break;
        }
        let Some(rate) = measure(jobs, steps) else { break };
        rates.push(rate);
    }
    Ok(found(&rates))
}

/// How many of `jobs` runs another GPU's memory holds, at least one.
///
/// # Errors
/// As [`choose`].
pub fn fit(device: &Device, runs: &[&RunConfig], jobs: usize) -> Result<usize> {
    Ok(memory::side_by_side(device, runs)?.clamp(1, jobs))
}

/// Whether the last number of runs was worth it.
fn gains(rates: &[f64]) -> bool {
    rates.windows(2).last().is_none_or(|two| two[1] >= LEAST_GAIN * two[0])
}

/// What follows from images per second of 1, 2, 4, … runs at once, up to the first that gain too little.
fn found(rates: &[f64]) -> AtOnce {
    let gain = |i: usize| rates[i] / rates[0];
    let worth = rates.len() - usize::from(!gains(rates));
    let (jobs, all) = (1 << (worth - 1), gain(worth - 1));
    let said = match (worth, rates.len()) {
        (1, 1) => "one run at a time: two at once take too long to measure".into(),
        (1, _) => format!("one run at a time: two at once make {:.2} times its images", gain(1)),
        _ => format!("{jobs} runs at once: {all:.1} times the images of one"),
    };
    AtOnce { jobs, gain: all, said: Some(said) }
}

/// Settings of the network, and the batch, that most of the runs' operations go into.
fn most_worked_on<'a>(runs: &[&'a RunConfig]) -> Option<&'a RunConfig> {
    let mut sums: Vec<(&RunConfig, f64)> = Vec::new();
    for run in runs {
        let flop = scoring::flop(run).iter().sum::<f64>();
        let same = |c: &RunConfig| c.model == run.model && c.train.batch == run.train.batch;
        match sums.iter_mut().find(|(known, _)| same(known)) {
            Some((_, sum)) => *sum += flop,
            None => sums.push((run, flop)),
        }
    }
    sums.into_iter().max_by(|a, b| a.1.total_cmp(&b.1)).map(|(config, _)| config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twice_as_many_runs_have_to_gain_a_tenth() {
        for (rates, jobs, said) in [
            (&[100.0][..], 1, "one run at a time: two at once take too long to measure"),
            (&[100.0, 104.0], 1, "one run at a time: two at once make 1.04 times its images"),
            (&[100.0, 190.0], 2, "2 runs at once: 1.9 times the images of one"),
            (&[100.0, 190.0, 195.0], 2, "2 runs at once: 1.9 times the images of one"),
            (&[100.0, 190.0, 310.0, 330.0], 4, "4 runs at once: 3.1 times the images of one"),
            (&[100.0, 190.0, 360.0, 620.0], 8, "8 runs at once: 6.2 times the images of one"),
            (&[100.0, 60.0], 1, "one run at a time: two at once make 0.60 times its images"),
        ] {
            let found = found(rates);
            assert_eq!((found.jobs, found.said.as_deref()), (jobs, Some(said)), "{rates:?}");
        }
    }
}
