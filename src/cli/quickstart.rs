//! `emm quickstart`: from clone to answer on bundled images.

use super::common::suspended;
use super::devices::one_per_thread;
use super::endings::check_ending;
use super::find::describe;
use super::quoted::quoted;
use super::{Common, say};
use crate::data::Dataset;
use crate::device::Device;
use crate::error::usage;
use crate::numbers::amount;
use crate::run::progress::{describe_epochs, duration};
use crate::run::{RunOptions, SaveEvery};
use crate::study::passed_over;
use crate::study::quickstart::{QuickstartPlan, SET, quickstart};
use crate::views::{answer, search};
use anyhow::Result;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Train a small network on bundled digits at several sizes, score it, find where memorization ends
///
/// Takes a few minutes on two cores. The same command goes on where it was stopped.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example:
  emm quickstart --out quickstart")]
pub struct Args {
    /// Folder of the runs, table, plots and sheets
    #[arg(long, value_name = "DIR", default_value = "quickstart")]
    out: PathBuf,
    /// Length of training: more than the default lets the ratio settle
    #[arg(long, value_name = "EPOCHS", value_parser = amount, default_value = "1000")]
    epochs: f64,
    /// Use the folder even if it holds other things
    #[arg(long)]
    force: bool,
}

/// Trains on a small set and writes a report of it.
///
/// # Errors
/// Usage: a folder that holds other things. As of training.
pub fn run(args: Args, common: &Common) -> Result<()> {
    let started = Instant::now();
    check_ending("--out", &args.out, "what quickstart writes", &[])?;
    let device = common.device()?;
    if !args.force && !ours_or_empty(&args.out) {
        return Err(usage(format!(
            "--out: {} holds other things than a quickstart's; give --force to add to it",
            args.out.display()
        )));
    }
    let plan =
        QuickstartPlan { seed: common.seed, epochs: args.epochs, ..QuickstartPlan::default() };
    let devices = match &device {
        Device::Cpu(cpu) => one_per_thread(cpu)?,
        Device::Cuda { .. } => vec![device],
    };
    let options = RunOptions {
        keep_all_snapshots: false,
        save_every: SaveEvery::Seconds(10.0),
        stop_after_steps: None,
        stop_above: None,
        holdout: None,
        quiet: common.quiet,
        data_name: SET.into(),
        tensorboard: None,
    };
    let Some(found) = quickstart(&plan, &devices, &args.out, &options)? else {
        return Err(suspended("--out", &args.out));
    };
    let (set, title) = (Dataset::digits(), "Digits 8×8");
    let files = search::write(&found, &set, SET, title, &devices[0], &args.out, args.force)?;
    if common.json {
        say!("{}", answer::results(&found));
        return passed_over("--out", found.damage);
    }
    say!(
        "8×8 digits, {} epochs each; ratio of memorization = highest of {} evaluations at {} samples",
        describe_epochs(plan.epochs),
        plan.evaluations,
        plan.score_images
    );
    describe(&found, &args.longer(common), &files);
    say!("time  {}", duration(started.elapsed().as_secs_f64()));
    passed_over("--out", found.damage)
}

impl Args {
    /// The same command with twice the epochs, in the same folder.
    fn longer(&self, common: &Common) -> String {
        let mut command = format!("emm quickstart --epochs {}", describe_epochs(2.0 * self.epochs));
        if self.out != Path::new("quickstart") {
            command += &format!(" --out {}", quoted(&self.out.display().to_string()));
        }
        if common.seed != 1024 {
            command += &format!(" --seed {}", common.seed);
        }
        command
    }
}

/// Whether nothing is lost or mixed up by writing there.
fn ours_or_empty(folder: &Path) -> bool {
    match std::fs::read_dir(folder) {
        Ok(mut entries) => entries.next().is_none() || folder.join("runs").is_dir(),
        Err(_) => !folder.exists(),
    }
}
