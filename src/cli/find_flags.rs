//! The flags of `emm find`, and the search that they ask for.

use super::Common;
use super::devices::{Jobs, Shared, devices, jobs};
use super::rate_flags::RateFlags;
use super::train_flags::{RunFlags, TrainFlags};
use crate::data::Dataset;
use crate::device::Device;
use crate::numbers::{count, seconds, side};
use crate::run::{RunConfig, RunOptions, at_once};
use crate::study::{EmmSearch, Sizes};
use anyhow::Result;
use std::path::PathBuf;

/// Find the effective model memorization (EMM): the largest training set most of which is memorized
///
/// Trains the setting on subsets of several sizes, or on as few as bracket the EMM, and interpolates. Subsets
/// are balanced by class where there are labels. Finished runs in --runs are used; the same command goes on
/// where it was stopped, and one with more --epochs where shorter runs ended. Where the ratio still rose when training ended, only what it reached is concluded.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  emm find --data photos --within 10m --out emm
  emm find --data cifar10.zip --sizes 1k,2k,3k --plan
  emm find --data cifar10.zip --sizes 1k,2k,3k --out emm --device cuda:0,1
  emm find --data digits.zip --lo 20 --hi 320 --channels 32 --mult 2,2 --batch 64 --epochs 2k")]
pub struct Args {
    /// Set to take subsets of, as `emm data import` writes it or in any form that it reads
    #[arg(long, value_name = "SET")]
    pub(super) data: PathBuf,
    /// Sizes to measure, ascending
    #[arg(long, value_name = "N,N,...", value_parser = count, value_delimiter = ',', conflicts_with_all = ["lo", "hi"])]
    pub(super) sizes: Option<Vec<usize>>,
    /// Without --sizes: bracket the EMM from this size on [default: 500, about 10 with --within, 20 with --predict]
    #[arg(long, value_name = "N", value_parser = count)]
    pub(super) lo: Option<usize>,
    /// Without --sizes: bracket the EMM up to this size [default: all images, or as many as each class has alike]
    #[arg(long, value_name = "N", value_parser = count)]
    pub(super) hi: Option<usize>,
    /// A size counts as memorized from the ratio 1 − E on
    #[arg(long, value_name = "E", default_value_t = 0.1)]
    pub(super) epsilon: f64,
    /// Runs of each size, with seeds S, S + 1, …: the ratio is their mean
    #[arg(long, value_name = "R", value_parser = count, default_value = "1")]
    pub(super) repeats: usize,
    /// Write table, plots, sheets and results.json into this folder
    #[arg(long, value_name = "DIR")]
    pub(super) out: Option<PathBuf>,
    /// Replace the results in --out
    #[arg(long)]
    pub(super) force: bool,
    /// Print the sizes, their images and how long they take; trains nothing
    #[arg(long)]
    pub(super) plan: bool,
    /// Choose images' size, --preset small, epochs and sizes so that the search ends in this time (90s, 10m, 2h); flags that
    /// are given win. With --out also the page, report.html
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    pub(super) within: Option<f64>,
    /// Train short runs alone, up to half of --epochs and from --lo on, and extrapolate: the epoch at which the ratio passes
    /// 1 − E grows as a power of the number of images, and the EMM is where it reaches --epochs. Their evaluations are its own
    #[arg(long, conflicts_with_all = ["sizes", "hi", "within", "plan"])]
    pub(super) predict: bool,
    /// With --within: scale images to this side [default: 16, 8 where that is too slow, or the set's if smaller]
    #[arg(long, value_name = "R", value_parser = side)]
    pub(super) resolution: Option<usize>,
    /// Runs at once on a device, which share its memory. auto: on a GPU as many as are measured to gain something; on the
    /// CPU, whose threads are shared out, a thread for each run where steps are small, else 1
    #[arg(long, value_name = "K|auto", default_value = "auto", value_parser = jobs)]
    pub(super) jobs_per_device: Jobs,
    #[command(flatten)]
    pub(super) rate: RateFlags,
    #[command(flatten)]
    pub(super) flags: TrainFlags,
    #[command(flatten)]
    pub(super) run: RunFlags,
}

/// A step this small is over before a second thread has woken up: each run has one, and several run at once.
const SMALL_STEP_FLOP: u64 = 1_000_000_000;

impl Args {
    /// What does these runs, which there may be at once, of the devices that are open; a GPU is measured for so many seconds.
    ///
    /// # Errors
    /// As of [`devices`].
    pub(super) fn devices(
        &self,
        open: &[Device],
        runs: &[RunConfig],
        seconds: f64,
        common: &Common,
    ) -> Result<Vec<Device>> {
        let runs: &[&RunConfig] = &runs.iter().collect::<Vec<_>>();
        let seconds = if self.rate.no_measure { 0.0 } else { seconds.min(at_once::SECONDS) };
        let (jobs, small_step_flop) = (self.jobs_per_device, SMALL_STEP_FLOP);
        let most = runs.len();
        devices(open, &Shared { jobs, runs, most, small_step_flop, seconds }, common)
    }
}

/// The search that flags ask for.
pub(super) fn search<'a>(
    args: &'a Args,
    set: &'a Dataset,
    name: &'a str,
    config: &RunConfig,
    sizes: Sizes,
    devices: &'a [Device],
    options: &'a RunOptions,
) -> EmmSearch<'a> {
    EmmSearch {
        set,
        name,
        config: config.clone(),
        scoring: args.flags.scoring(config),
        sizes,
        epsilon: args.epsilon,
        repeats: args.repeats,
        runs: &args.run.runs,
        devices,
        options,
    }
}
