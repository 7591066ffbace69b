//! `emm find`: the effective model memorization of a setting.

use super::common::suspended;
use super::devices::one_per_thread;
use super::endings::check_ending;
use super::quoted::quoted;
use super::rate_flags::RateFlags;
use super::train_flags::{RunFlags, TrainFlags};
use super::{Common, check_runs, find_plan, open_set, say};
use crate::device::Device;
use crate::error::{Exit, OrExit as _};
use crate::files::check_output;
use crate::model::flops::flops;
use crate::numbers::count;
use crate::run::progress::describe_epochs;
use crate::study::{EmmSearch, Found, Sizes, find, passed_over};
use crate::views::{answer, search as views};
use anyhow::Result;
use std::fs;
use std::path::PathBuf;

/// Find the effective model memorization (EMM): the largest training set most of which is memorized
///
/// Trains the setting on subsets of several sizes, or on as few as bracket the EMM, and interpolates. Subsets
/// are balanced by class where there are labels. Finished runs in --runs are used; the same command goes on
/// where it was stopped, and one with more --epochs where shorter runs ended. Where the ratio still rose when training ended, only what it reached is concluded.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  emm find --data cifar10.zip --sizes 1k,2k,3k --plan
  emm find --data cifar10.zip --sizes 1k,2k,3k --out emm
  emm find --data digits.zip --lo 20 --hi 320 --channels 32 --mult 2,2 --batch 64 --epochs 2k")]
pub struct Args {
    /// Set to take subsets of, as `emm data import` writes it or in any form that it reads
    #[arg(long, value_name = "SET")]
    data: PathBuf,
    /// Sizes to measure, ascending
    #[arg(long, value_name = "N,N,...", value_parser = count, value_delimiter = ',', conflicts_with_all = ["lo", "hi"])]
    sizes: Option<Vec<usize>>,
    /// Without --sizes: bracket the EMM from this size on
    #[arg(long, value_name = "N", value_parser = count, default_value = "500")]
    lo: usize,
    /// Without --sizes: bracket the EMM up to this size [default: the whole set]
    #[arg(long, value_name = "N", value_parser = count)]
    hi: Option<usize>,
    /// A size counts as memorized from the ratio 1 − E on
    #[arg(long, value_name = "E", default_value_t = 0.1)]
    epsilon: f64,
    /// Runs of each size, with seeds S, S + 1, …: the ratio is their mean
    #[arg(long, value_name = "R", value_parser = count, default_value = "1")]
    repeats: usize,
    /// Write table, plots, sheets and results.json into this folder
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Replace the results in --out
    #[arg(long)]
    force: bool,
    /// Print the sizes, their images and how long they take; trains nothing
    #[arg(long)]
    plan: bool,
    #[command(flatten)]
    rate: RateFlags,
    #[command(flatten)]
    flags: TrainFlags,
    #[command(flatten)]
    run: RunFlags,
}

/// Trains at sizes of its choice and prints the EMM, with a line a training.
///
/// # Errors
/// Usage: flags, or an output that is there. As of training.
pub fn run(args: Args, common: &Common) -> Result<()> {
    let device = common.device()?;
    check_runs(&args.run.runs)?;
    if let Some(out) = args.out.as_ref().filter(|_| !args.plan) {
        check_ending("--out", out, "what find writes", &[])?;
        fs::create_dir_all(out)
            .or_exit(Exit::Other, || format!("--out: {}: cannot create", out.display()))?;
        check_output(&out.join("results.json"), args.force)?;
    }
    let set = open_set(&args.data, common)?;
    let name = args.data.display().to_string();
    let config = args.flags.resolve(common, &mut set.clone())?;
    let step = flops(&config.model).train * config.train.batch as u64;
    let devices = match &device {
        Device::Cpu(cpu) if step < SMALL_STEP_FLOP => one_per_thread(cpu)?,
        _ => vec![device],
    };
    let sizes = match args.sizes {
        Some(sizes) => Sizes::List(sizes),
        None => Sizes::Between { lo: args.lo, hi: args.hi.unwrap_or(set.len()) },
    };
    let search = EmmSearch {
        set: &set,
        name: &name,
        config: &config,
        scoring: args.flags.scoring(&config),
        sizes,
        epsilon: args.epsilon,
        repeats: args.repeats,
        runs: &args.run.runs,
        devices: &devices,
        options: &args.run.options(common, &args.data),
    };
    if args.plan {
        return find_plan::run(&search, args.rate.asked(common), common.json);
    }
    let Some(found) = find(&search)? else {
        return Err(suspended("--runs", &args.run.runs));
    };
    let files = match &args.out {
        Some(out) => {
            let stem = args.data.file_stem().map_or(name.clone(), |s| s.to_string_lossy().into());
            views::write(&found, &set, &name, &stem, &devices[0], out, args.force)?
        }
        None => Vec::new(),
    };
    match common.json {
        true => say!("{}", answer::results(&found)),
        false => describe(&found, &longer(found.epochs), &files),
    }
    passed_over("--runs", found.damage)
}

/// The same command with twice the epochs.
fn longer(epochs: f64) -> String {
    let mut words = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned());
    let (mut command, mut force) = (String::from("emm"), false);
    while let Some(word) = words.next() {
        let flag = word.split('=').next().unwrap_or(&word);
        match flag {
            "--epochs" | "--duration" => {
                if flag == word {
                    words.next();
                }
                continue;
            }
            "--out" => force = true,
            "--force" => continue,
            _ => {}
        }
        command += &format!(" {}", quoted(&word));
    }
    // What it wrote is replaced.
    format!(
        "{command} --epochs {}{}",
        describe_epochs(2.0 * epochs),
        if force { " --force" } else { "" }
    )
}

/// A step this small is over before a second thread has woken up: each run has one, and several run at once.
const SMALL_STEP_FLOP: u64 = 1_000_000_000;

/// Prints table, answer, doubts, what would settle them, and where the files are.
pub fn describe(found: &Found, longer: &str, files: &[PathBuf]) {
    say!("\n{}", views::table(&views::sizes(found)).plain());
    for line in views::said(found) {
        say!("{line}");
    }
    if found.emm.open() {
        say!("to train longer: {longer}");
    }
    if !files.is_empty() {
        say!("");
    }
    for file in files {
        say!("{}", file.display());
    }
}
