//! `emm sweep`: the runs of studies, planned, done, looked at, handed to batch systems.

use super::common::suspended;
use super::devices::{Jobs, SMALL_STEP_FLOP, Shared, devices, jobs, unmeasured};
use super::endings::check_ending;
use super::quoted::quoted;
use super::rate_flags::RateFlags;
use super::study_flags::StudyFlags;
use super::train_flags::RunFlags;
use super::{Common, say, say_json};
use crate::device::Device;
use crate::error::usage;
use crate::files::{check_output, write_bytes};
use crate::report::{Cell, Table};
use crate::run::{RunConfig, RunOptions, at_once};
use crate::study::cost::{GPUS, GPUS_BASIS, MachineRates, flop_of};
use crate::study::sweep::Standing;
use crate::study::{Setup, Study, Sweep, passed_over};
use crate::views::words::describe_hours;
use anyhow::Result;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Do the runs of the paper's experiments, or of a study file of your own
///
/// A STUDY is a name such as table3, width or weight-decay, table1 or figure3a for all that is drawn there, all, or
/// a path that ends in .toml (`emm sweep plan table3 --print` shows how one is written). Runs lie under --runs, named
/// by what determines their numbers; each is done once, whichever studies it serves. Several `sweep run` may work in
/// one folder, on one machine or on several that share it.
#[derive(clap::Subcommand, Debug)]
pub enum Command {
    Plan(PlanArgs),
    Run(RunArgs),
    RunOne(RunOneArgs),
    Status(StatusArgs),
    Slurm(SlurmArgs),
}

/// List the runs and what they cost; does nothing
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  emm sweep plan table3 --scale tiny
  emm sweep plan width --data cifar10.zip
  emm sweep plan table3 --print > mine.toml")]
pub struct PlanArgs {
    #[command(flatten)]
    what: What,
    #[command(flatten)]
    rate: RateFlags,
    /// Print the study files instead
    #[arg(long)]
    print: bool,
    /// Folder of runs
    #[arg(long, value_name = "DIR", default_value = "runs")]
    runs: PathBuf,
}

/// Do what is missing; the same command goes on where it was stopped
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  emm sweep run table3 width --scale tiny
  emm sweep run table3 --data cifar10.zip --device cuda:all
  emm sweep run table3 --data cifar10.zip --only labels='unique labels' --only size=1000")]
pub struct RunArgs {
    #[command(flatten)]
    what: What,
    #[command(flatten)]
    run: RunFlags,
    /// Runs at once on a device, which share its memory. auto: on a GPU as many as are measured to gain something; on the
    /// CPU, whose threads are shared out, a thread for each run of a small network, else 1
    #[arg(long, value_name = "K|auto", default_value = "auto", value_parser = jobs)]
    jobs_per_device: Jobs,
}

/// Do run I of those that `sweep plan` numbers, for any scheduler; exit 75 if stopped and to be started again
#[derive(clap::Args, Debug)]
#[command(after_help = "Example:
  emm sweep run-one 4 table3 --scale tiny")]
pub struct RunOneArgs {
    /// Number of the run
    #[arg(value_name = "I")]
    index: usize,
    #[command(flatten)]
    what: What,
    #[command(flatten)]
    run: RunFlags,
}

/// Tell which runs are done, running, left, and the hours that are left
#[derive(clap::Args, Debug)]
#[command(after_help = "Example:
  emm sweep status table3 --scale tiny")]
pub struct StatusArgs {
    #[command(flatten)]
    what: What,
    #[command(flatten)]
    rate: RateFlags,
    /// Folder of runs
    #[arg(long, value_name = "DIR", default_value = "runs")]
    runs: PathBuf,
}

/// Write a Slurm script: an array of all runs, requeued until done
#[derive(clap::Args, Debug)]
#[command(after_help = "Example:
  emm sweep slurm table3 --data cifar10.zip --device cuda --out table3.sh && sbatch table3.sh")]
pub struct SlurmArgs {
    #[command(flatten)]
    what: What,
    /// Folder of runs, on a disk that all nodes share
    #[arg(long, value_name = "DIR", default_value = "runs")]
    runs: PathBuf,
    /// Limit of a job; a run that needs longer is requeued and goes on
    #[arg(long, value_name = "HH:MM:SS", default_value = "04:00:00")]
    time: String,
    /// Write the script here [default: print it]
    #[arg(long, value_name = "F.sh")]
    out: Option<PathBuf>,
    /// Replace --out if it exists
    #[arg(long)]
    force: bool,
}

/// Which cells
#[derive(clap::Args, Debug, Clone)]
pub struct What {
    /// Studies: names, or paths that end in .toml
    #[arg(value_name = "STUDY", required = true)]
    studies: Vec<String>,
    #[command(flatten)]
    flags: StudyFlags,
}

/// Plans studies, trains their cells, or says how far they are.
///
/// # Errors
/// Usage: flags, unknown studies or cells. As of training.
pub fn run(command: Command, common: &Common) -> Result<()> {
    match command {
        Command::Plan(args) => plan(&args, common),
        Command::Run(args) => run_all(&args, common),
        Command::RunOne(args) => run_one(&args, common),
        Command::Status(args) => status(&args, common),
        Command::Slurm(args) => slurm(&args, common),
    }
}

impl What {
    fn studies(&self) -> Result<Vec<Study>> {
        let named = self
            .studies
            .iter()
            .map(|name| Study::named("STUDY", name))
            .collect::<Result<Vec<_>>>()?;
        Ok(named.concat())
    }

    fn sweep(&self, setup: &Setup) -> Result<Sweep> {
        Ok(Sweep::of(&self.flags.plans(&self.studies()?, setup)?))
    }

    /// The flags again, for a command that the user is told.
    fn again(&self, common: &Common, runs: &Path) -> String {
        let only = |(axis, value): &(String, String)| {
            format!(" --only {}", quoted(&format!("{axis}={value}")))
        };
        self.flags.again(common, runs) + &self.flags.only.iter().map(only).collect::<String>()
    }

    /// The studies, as the user would type them.
    fn words(&self) -> String {
        self.studies.iter().map(|s| quoted(s)).collect::<Vec<_>>().join(" ")
    }
}

fn configs(sweep: &Sweep) -> Vec<&RunConfig> {
    sweep.runs.iter().map(|r| &r.run.config).collect()
}

/// What does the runs of a sweep that are left.
fn measured(sweep: &Sweep, jobs: Jobs, common: &Common) -> Result<Vec<Device>> {
    let open = common.devices()?;
    let left = sweep.runs.iter().filter(|r| r.at() != Standing::Done);
    let runs: Vec<&RunConfig> = match open[0].cuda() {
        Some(_) => left.map(|r| &r.run.config).collect(),
        // Nothing is measured there, and a sweep goes on as it began.
        None => configs(sweep),
    };
    let (most, small_step_flop, seconds) = (runs.len(), SMALL_STEP_FLOP, at_once::SECONDS);
    devices(&open, &Shared { jobs, runs: &runs, most, small_step_flop, seconds }, common)
}

/// Scale, set and what cannot be had, before a listing.
fn head(setup: &Setup, sweep: &Sweep) {
    say!("{}", setup.scale.said());
    match &setup.set {
        Some(set) => say!("set {}", set.name),
        None => {
            say!("no set given (--data): costs are for 32×32 RGB images, nothing can be looked up")
        }
    }
    say!("");
    for line in sweep.describe_impossible() {
        say!("not to be had here: {line}");
    }
}

fn plan(args: &PlanArgs, common: &Common) -> Result<()> {
    if args.print {
        let texts: Vec<String> = args.what.studies()?.into_iter().map(|s| s.text).collect();
        match common.json {
            true => say_json!({"studies": texts}),
            false => say!("{}", texts.join("\n").trim_end()),
        }
        return Ok(());
    }
    let setup = args.what.flags.setup(common, &args.runs)?;
    let sweep = args.what.sweep(&setup)?;
    let devices = unmeasured(&common.devices()?, &configs(&sweep), common)?;
    let asked = args.rate.asked(common);
    let rates = MachineRates::here(&devices[0], &args.runs, &configs(&sweep), asked)?;
    if common.json {
        let run = |(i, r): (usize, &crate::study::sweep::SweepRun)| {
            let config = &r.run.config;
            let gpu = rates.gpu_seconds(config);
            json!({
                "index": i,
                "name": r.name,
                "run": r.run.dir.as_ref().map(|d| d.display().to_string()),
                "steps": config.steps(),
                "flop": flop_of(config),
                "hours": {
                    "here": rates.seconds(config).map(|s| s / 3600.0),
                    "h100": gpu[0].map(|s| s / 3600.0),
                    "a100": gpu[1].map(|s| s / 3600.0),
                },
                "config": config,
            })
        };
        say_json!({
            "scale": setup.scale.name,
            "said": setup.scale.said(),
            "data": setup.set.as_ref().map(|s| &s.name),
            "runs": sweep.runs.iter().enumerate().map(run).collect::<Vec<_>>(),
            "impossible": sweep.impossible.iter().map(|(n, w)| json!({"cell": n, "why": w})).collect::<Vec<_>>(),
            "devices": devices.len(),
            "costs": format!("here: one device, {}; {GPUS_BASIS}", rates.basis),
        });
        return Ok(());
    }
    head(&setup, &sweep);
    let [h100, a100] = &GPUS;
    let mut table = Table::new(&["I", "run", "steps", "here", h100.name, a100.name, "folder"]);
    let mut sums = [0.0; 3];
    for (i, r) in sweep.runs.iter().enumerate() {
        let config = &r.run.config;
        let [h100, a100] = rates.gpu_seconds(config);
        let seconds = [rates.seconds(config), h100, a100].map(|s| s.unwrap_or(f64::NAN));
        (0..3).for_each(|k| sums[k] += seconds[k]);
        let hours = seconds.map(|s| Cell::Text(describe_hours(s / 3600.0)));
        let id = r.run.dir.as_ref().and_then(|d| d.file_name()).map(|n| n.to_string_lossy().into());
        let mut row = vec![
            Cell::Integer(i as i64),
            Cell::Text(r.name.clone()),
            Cell::Integer(config.steps() as i64),
        ];
        row.extend(hours);
        row.push(id.map_or(Cell::Empty, Cell::Text));
        table.row(row);
    }
    say!("{}", table.plain());
    let hours = sums.map(|s| describe_hours(s / 3600.0));
    say!(
        "{} runs: {} of one device here ({}; {} at once), {} on an H100, {} on an A100",
        sweep.runs.len(),
        hours[0],
        rates.basis,
        devices.len(),
        hours[1],
        hours[2]
    );
    say!("{GPUS_BASIS}");
    Ok(())
}

fn run_all(args: &RunArgs, common: &Common) -> Result<()> {
    let setup = args.what.flags.setup(common, &args.run.runs)?;
    let sweep = args.what.sweep(&setup)?;
    let devices = measured(&sweep, args.jobs_per_device, common)?;
    let options = options(args.what.flags.data.as_ref(), &args.run, common);
    if !common.quiet {
        for line in sweep.describe_impossible() {
            eprintln!("not to be had here: {line}");
        }
    }
    if !sweep.run(&setup, &devices, &options)? {
        return Err(suspended("--runs", &args.run.runs));
    }
    let runs = sweep.runs.len();
    if common.json {
        say_json!({"runs": runs, "done": runs, "scale": setup.scale.name});
        return Ok(());
    }
    say!("{runs} runs done; to see them:");
    let flags = args.what.again(common, &args.run.runs);
    args.what.studies.iter().for_each(|study| say!("  emm table {}{flags}", quoted(study)));
    Ok(())
}

fn run_one(args: &RunOneArgs, common: &Common) -> Result<()> {
    let setup = args.what.flags.setup(common, &args.run.runs)?;
    let sweep = args.what.sweep(&setup)?;
    let device = common.device()?;
    let options = options(args.what.flags.data.as_ref(), &args.run, common);
    if !sweep.run_one(&setup, args.index, &device, &options)? {
        return Err(suspended("--runs", &args.run.runs));
    }
    let run = &sweep.runs[args.index];
    let dir = run.run.dir.as_ref().map(|d| d.display().to_string());
    match common.json {
        true => say_json!({"index": args.index, "name": run.name, "run": dir}),
        false => say!("{} done: {}", run.name, dir.unwrap_or_default()),
    }
    Ok(())
}

fn options(data: Option<&PathBuf>, run: &RunFlags, common: &Common) -> RunOptions {
    let name = data.map_or(PathBuf::from("bundled digits"), Clone::clone);
    run.options(common, &name)
}

fn status(args: &StatusArgs, common: &Common) -> Result<()> {
    let setup = args.what.flags.setup(common, &args.runs)?;
    let sweep = args.what.sweep(&setup)?;
    let devices = unmeasured(&common.devices()?, &configs(&sweep), common)?;
    let at: Vec<Standing> = sweep.runs.iter().map(|r| r.at()).collect();
    let asked = args.rate.asked(common);
    let rates = MachineRates::here(&devices[0], &args.runs, &configs(&sweep), asked)?;
    let count = |what: fn(&Standing) -> bool| at.iter().filter(|a| what(a)).count();
    let done = count(|a| *a == Standing::Done);
    let running = count(|a| matches!(a, Standing::Begun { running: true, .. }));
    let begun = count(|a| matches!(a, Standing::Begun { running: false, .. }));
    let damaged = count(|a| matches!(a, Standing::Damaged(_)));
    let left = sweep.runs.len() - done - running - damaged;
    let seconds: Option<f64> = sweep.runs.iter().zip(&at).map(|(r, at)| r.left_s(at, &rates)).sum();
    // Of nothing left a sum of floats is −0.
    let hours = seconds.unwrap_or(f64::NAN) / 3600.0 + 0.0;
    let damage = || {
        at.iter().filter_map(|a| match a {
            Standing::Damaged(why) => Some(why.clone()),
            _ => None,
        })
    };
    if common.json {
        let run = |(r, at): (&crate::study::sweep::SweepRun, &Standing)| -> Value {
            let (state, share) = match *at {
                Standing::Missing => ("missing", 0.0),
                Standing::Damaged(_) => ("damaged", 0.0),
                Standing::Begun { share, running: true } => ("running", share),
                Standing::Begun { share, .. } => ("begun", share),
                Standing::Done => ("done", 1.0),
            };
            let dir = r.run.dir.as_ref().map(|d| d.display().to_string());
            let why = if let Standing::Damaged(why) = at { Some(why) } else { None };
            json!({"name": r.name, "run": dir, "state": state, "share": share, "why": why})
        };
        say_json!({
            "scale": setup.scale.name,
            "done": done,
            "running": running,
            "begun": begun,
            "damaged": damaged,
            "left": left,
            "hours_left_here": hours,
            "devices": devices.len(),
            "runs": sweep.runs.iter().zip(&at).map(run).collect::<Vec<_>>(),
        });
        return passed_over("--runs", damage());
    }
    head(&setup, &sweep);
    for (r, at) in sweep.runs.iter().zip(&at) {
        if let Standing::Damaged(_) = at {
            say!("damaged: {}", r.name);
        }
        if let Standing::Begun { share, running } = at {
            let state = if *running { "running" } else { "begun, nobody at work" };
            say!("{state}: {} ({:.0}%)", r.name, 100.0 * share);
        }
    }
    say!("done     {done} of {}", sweep.runs.len());
    say!("running  {running}");
    say!("left     {left}, of which {begun} begun");
    if damaged > 0 {
        say!("damaged  {damaged}");
    }
    say!(
        "time     {} of one device here ({}), {} at once: {}",
        describe_hours(hours),
        rates.basis,
        devices.len(),
        describe_hours(hours / devices.len() as f64)
    );
    passed_over("--runs", damage())
}

fn slurm(args: &SlurmArgs, common: &Common) -> Result<()> {
    if let Some(out) = &args.out {
        check_ending("--out", out, "a job's script", &["sh"])?;
        check_output(out, args.force)?;
    }
    common.check_one_device()?;
    let setup = args.what.flags.setup(common, &args.runs)?;
    let sweep = args.what.sweep(&setup)?;
    if sweep.runs.is_empty() {
        let why = sweep.describe_impossible().join("; ");
        return Err(usage(format!("STUDY: nothing to run: {why}").trim_end_matches(": ")));
    }
    let time = &args.time;
    if time.is_empty() || !time.chars().all(|c| c.is_ascii_digit() || ":-".contains(c)) {
        return Err(usage(format!("--time: {time:?} is no time such as 04:00:00")));
    }
    let mut flags = args.what.again(common, &args.runs);
    if common.device != "auto" {
        flags += &format!(" --device {}", common.device);
    }
    let gpu = match common.device.starts_with("cuda") {
        true => "#SBATCH --gres=gpu:1\n",
        false => "",
    };
    let script = format!(
        "#!/bin/bash
#SBATCH --job-name=emm
#SBATCH --array=0-{last}
#SBATCH --time={time}
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@120
#SBATCH --output=emm-%A-%a.log
{gpu}# {runs} runs of {called}; {said}.
# Two minutes before the limit the run is told to save; it ends with 75, and the job queues again.
run=
trap '[ -n \"$run\" ] && kill -USR1 \"$run\"' USR1 TERM
emm sweep run-one \"$SLURM_ARRAY_TASK_ID\" {words}{flags} &
run=$!
while kill -0 \"$run\" 2>/dev/null; do wait \"$run\"; done
wait \"$run\"
code=$?
if [ \"$code\" = 75 ]; then
    scontrol requeue \"${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}\"
fi
exit \"$code\"",
        last = sweep.runs.len() - 1,
        runs = sweep.runs.len(),
        words = args.what.words(),
        // A comment ends with its line.
        called = args.what.words().replace(char::is_control, " "),
        said = setup.scale.said(),
    );
    match &args.out {
        Some(out) => {
            write_bytes(out, args.force, format!("{script}\n"))?;
            match common.json {
                true => say_json!({"script": out.display().to_string(), "runs": sweep.runs.len()}),
                false => say!("{}", out.display()),
            }
        }
        None if common.json => say_json!({"script": script, "runs": sweep.runs.len()}),
        None => say!("{script}"),
    }
    Ok(())
}
