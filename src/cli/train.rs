//! `emm train`: one run, from a set to scores; the same command resumes.

use super::train_flags::{RunFlags, TrainFlags};
use super::{Common, check_runs, note_line, open_set, say};
use crate::data::Dataset;
use crate::data::subset::without;
use crate::error::{Exit, fail, usage};
use crate::model::Params;
use crate::numbers::share;
use crate::run::dir::best;
use crate::run::longer::lengthen;
use crate::run::progress::{describe_epochs, duration};
use crate::run::{Evaluation, HeldOut, Outcome, RunConfig, RunDir, train};
use crate::study::outcome::still_rising;
use crate::views::words::RISING;
use anyhow::Result;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Train a network on a set and score it on the way; the same command resumes
///
/// With more --epochs a run goes on from where it is, to the weights of one that was trained so long at once. Evaluations
/// from before are left out of it and kept in its folder report.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example:\n  \
    emm train --data digits.zip --run runs/digits --channels 32 --epochs 2k --batch 64")]
pub struct Args {
    /// Set to train on, as `emm data import` and `subset` write it or in any form that they read
    #[arg(long, value_name = "SET")]
    data: PathBuf,
    /// The run's directory [default: a folder of --runs named by the settings]
    #[arg(long, alias = "outdir", value_name = "DIR")]
    run: Option<PathBuf>,
    #[command(flatten)]
    pub(super) flags: TrainFlags,
    #[command(flatten)]
    options: RunFlags,
    /// Stop after this many steps of this start, saved; the same command continues
    #[arg(long, value_name = "K")]
    stop_after_steps: Option<u64>,
    /// Stop, saved, after an evaluation whose ratio is higher, such as ratio>0.01 or ratio>1%; the snapshot of the last one
    /// before stays. Without it the same command goes on
    #[arg(long, value_name = "ratio>R", value_parser = ratio_above)]
    stop_when: Option<f64>,
    /// Images that the network is not trained on: at each evaluation the loss on these and on training images goes into
    /// losses.csv, for `emm when`
    #[arg(long, value_name = "SET")]
    holdout: Option<PathBuf>,
}

/// The ratio of `ratio>0.01` or `ratio>1%`.
fn ratio_above(text: &str) -> Result<f64, String> {
    let number = text.trim().strip_prefix("ratio").and_then(|rest| rest.trim().strip_prefix('>'));
    let ratio = number.and_then(|number| share(number.trim()).ok());
    ratio
        .ok_or_else(|| format!("expected ratio>R with R from 0 to 1 or 0% to 100%, found {text:?}"))
}

/// Trains a network, or goes on, and prints the highest ratio of copies.
///
/// # Errors
/// Usage: flags, or a run of other settings. Data: a set that cannot be read. Suspended: stopped after its state was
/// saved.
pub fn run(args: Args, common: &Common) -> Result<()> {
    let device = common.device()?;
    if args.run.is_none() {
        check_runs(&args.options.runs)?;
    }
    let mut data = open_set(&args.data, common)?;
    let config = args.flags.resolve(common, &mut data)?;
    if let Some(what) = data.empty_classes().filter(|_| config.model.label_dim > 0 && !common.quiet)
    {
        note_line(&format!("{}: {what}", args.data.display()));
    }
    let dir = args.run.clone().unwrap_or_else(|| args.options.runs.join(config.id()));
    let mut options = args.options.options(common, &args.data)?;
    options.stop_after_steps = args.stop_after_steps;
    options.stop_above = args.stop_when;
    if args.stop_when.is_some() && config.train.looks == 0 {
        return Err(usage(
            "--stop-when: ratios are those of evaluations, of which there are none (--evaluations)",
        ));
    }
    if let Some(path) = &args.holdout {
        let held = held_out(path, &config, &data, common)?;
        options.holdout = Some(Arc::new(held));
    }
    let scoring = args.flags.scoring(&config);
    if let Some(taken) = lengthen(&device, &dir, &config, scoring, &options)?
        && !common.quiet
    {
        note_line(&format!("--run: {}: {}", dir.display(), taken.said("the run there")));
    }
    let outcome = train(&device, &config, &data, &dir, &options)?;
    if options.holdout.is_some() && !RunDir::new(&dir).losses_path().exists() && !common.quiet {
        note_line("--holdout: the run had finished before; losses are measured while one trains");
    }
    if common.json {
        let mut json = as_json(&config, &dir, &outcome);
        json["stopped_above"] = args.stop_when.filter(|_| outcome.is_above(args.stop_when)).into();
        say!("{json}");
    } else {
        print(&config, &dir, &outcome);
        if outcome.is_above(args.stop_when) {
            print_stop(&config, &dir, &outcome, args.stop_when.unwrap_or_default());
        }
    }
    match outcome.finished || outcome.is_above(args.stop_when) {
        true => Ok(()),
        false => Err(fail(
            Exit::Suspended,
            format!(
                "--run: {}: stopped at step {} of {}, saved; the same command continues",
                dir.display(),
                outcome.step,
                config.steps()
            ),
        )),
    }
}

/// The images of a set that are not trained on.
///
/// # Errors
/// Data: images that do not fit the run, or none that it is not trained on.
fn held_out(
    path: &Path,
    config: &RunConfig,
    training: &Dataset,
    common: &Common,
) -> Result<HeldOut> {
    let name = path.display().to_string();
    let all = HeldOut { images: open_set(path, common)?, name }.for_run(config)?;
    let held = HeldOut { images: without(&all.images, training), ..all.clone() };
    match all.images.len() - held.images.len() {
        0 => {}
        n if held.images.is_empty() => {
            return Err(fail(
                Exit::Data,
                format!("--holdout: {}: all {n} images are in the training set", held.name),
            ));
        }
        n if !common.quiet => note_line(&format!(
            "--holdout: {}: {n} of {} images are in the training set and are left out",
            held.name,
            all.images.len()
        )),
        _ => {}
    }
    Ok(held)
}

fn print(config: &RunConfig, dir: &Path, outcome: &Outcome) {
    let parameters = Params::new(&config.model).count();
    say!("run         {}", dir.display());
    say!("parameters  {parameters}");
    say!("steps       {} of {}", outcome.step, config.steps());
    if let Some(l) = best(&outcome.scores.evaluations) {
        let evaluations = outcome.scores.evaluations.len();
        say!("best        {} (highest of {evaluations} evaluations)", said(l));
    }
    if let Some(l) = &outcome.scores.rescored {
        say!("rescored    {} with fresh seeds", said(l));
    }
    if let (repeats @ 1.., Some(value)) = (outcome.scores.distinct.repeats, outcome.scores.value())
    {
        let once = match outcome.scores.value_distinct() {
            Some(l) => format!(
                "with identical images counted once {:.2}%, else {:.2}% memorized",
                100.0 * l.ratio,
                100.0 * value.ratio
            ),
            None => "identical images cannot be counted once, since no two differ".into(),
        };
        say!(
            "duplicates  {repeats} training images repeat an earlier one, which hides copies of it: {once}"
        );
    }
    if outcome.finished && still_rising(&outcome.scores.evaluations) {
        say!("note        the ratio is {RISING} (--epochs)");
    }
    if let Some(numerics) = outcome.numerics.older() {
        say!(
            "note        computed by an earlier version, with numerics {numerics}, which this version no longer has"
        );
    }
    say!("time        {}", duration(outcome.elapsed_s));
}

/// Where a run stopped at a ratio, and the last snapshot before it.
fn print_stop(config: &RunConfig, dir: &Path, outcome: &Outcome, level: f64) {
    let evaluations = &outcome.scores.evaluations;
    if let Some(last) = evaluations.last() {
        let (epoch, ratio) = (describe_epochs(last.epoch), 100.0 * last.ratio);
        say!(
            "stopped     at epoch {epoch}: {ratio:.2}% > {}%; without --stop-when the same command goes on",
            100.0 * level
        );
    }
    match evaluations.iter().rev().find(|l| l.ratio <= level) {
        Some(l) => say!(
            "before it   {}: {}",
            RunDir::new(dir).snapshot_path(config, l.step).display(),
            said(l)
        ),
        None => say!("before it   no evaluation of this run was as low (--evaluations takes more)"),
    }
}

fn said(l: &Evaluation) -> String {
    format!(
        "{:.2}% memorized, interval [{:.2}, {:.2}], {} of {} images at epoch {}",
        100.0 * l.ratio,
        100.0 * l.low,
        100.0 * l.high,
        l.memorized,
        l.images,
        describe_epochs(l.epoch)
    )
}

fn as_json(config: &RunConfig, dir: &Path, outcome: &Outcome) -> Value {
    // Of the run's value, with identical training images counted once.
    let distinct = match outcome.scores.distinct.repeats {
        0 => outcome.scores.value(),
        _ => outcome.scores.value_distinct(),
    };
    json!({
        "run": dir.display().to_string(),
        "finished": outcome.finished,
        "step": outcome.step,
        "steps": config.steps(),
        "epochs": config.train.epochs,
        "parameters": Params::new(&config.model).count(),
        "looks": outcome.scores.evaluations.iter().map(evaluation_json).collect::<Vec<_>>(),
        "best": best(&outcome.scores.evaluations).map(evaluation_json),
        "rescored": outcome.scores.rescored.as_ref().map(evaluation_json),
        "rising": outcome.finished && still_rising(&outcome.scores.evaluations),
        "reference_duplicates": outcome.scores.distinct.repeats,
        "memorized_distinct": distinct.map(|l| l.memorized),
        "ratio_distinct": distinct.map(|l| l.ratio),
        "elapsed_s": outcome.elapsed_s,
    })
}

fn evaluation_json(l: &Evaluation) -> Value {
    json!({
        "step": l.step,
        "epoch": l.epoch,
        "images": l.images,
        "memorized": l.memorized,
        "ratio": l.ratio,
        "interval": [l.low, l.high],
        "mean_d1": l.mean_d1,
    })
}
