//! `emm sweep`: the runs of studies, planned, done, looked at, handed to batch systems.

use super::bucket_flags::BucketFlags;
use super::cells::Cells;
use super::common::suspended;
use super::devices::{Jobs, SMALL_STEP_FLOP, Shared, devices, jobs, unmeasured};
use super::launch::{k8s, sky, slurm};
use super::live::{Drawn, live};
use super::quoted::quoted;
use super::rate_flags::RateFlags;
use super::train_flags::RunFlags;
use super::{Common, say, say_json};
use crate::device::Device;
use crate::numbers::seconds;
use crate::report::{Cell, Table};
use crate::run::{RunConfig, RunOptions, at_once};
use crate::study::cost::{GPUS, GPUS_BASIS, MachineRates, flop_of};
use crate::study::lent::Worker;
use crate::study::standing::{Standing, Watched};
use crate::study::sweep::SweepRun;
use crate::study::{Setup, Sweep, passed_over};
use crate::views;
use crate::views::words::describe_hours;
use anyhow::Result;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::SystemTime;

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
    Slurm(slurm::Args),
    K8s(k8s::Args),
    Sky(sky::Args),
}

/// List the runs and what they cost; does nothing
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  emm sweep plan table3 --scale tiny
  emm sweep plan width --data cifar10.zip
  emm sweep plan table3 --print > mine.toml")]
pub struct PlanArgs {
    #[command(flatten)]
    what: Cells,
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
    what: Cells,
    #[command(flatten)]
    run: RunFlags,
    /// Runs at once on a device, which share its memory. auto: on a GPU as many as are measured to gain something; on the
    /// CPU, whose threads are shared out, a thread for each run of a small network, else 1
    #[arg(long, value_name = "K|auto", default_value = "auto", value_parser = jobs)]
    jobs_per_device: Jobs,
}

/// Do run I of those that `sweep plan` numbers, for any scheduler; exit 75 if stopped and to be started again
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  emm sweep run-one 4 table3 --scale tiny
  emm sweep run-one 4 table3 --data cifar10.zip --pull 'aws s3 sync s3://bucket/runs/{run} {dir}' \\
    --push 'aws s3 sync {dir} s3://bucket/runs/{run}'")]
pub struct RunOneArgs {
    /// Number of the run
    #[arg(value_name = "I")]
    index: usize,
    #[command(flatten)]
    what: Cells,
    #[command(flatten)]
    run: RunFlags,
    /// While another process works in the run, wait so long for it before giving up with exit 1 [default: not at all]
    #[arg(long, value_name = "5m", value_parser = seconds)]
    wait: Option<f64>,
    #[command(flatten)]
    bucket: BucketFlags,
}

/// Tell which runs are done, running, left, and the hours that are left; drawn anew on a terminal, as `emm status` is
#[derive(clap::Args, Debug)]
#[command(after_help = "Example:
  emm sweep status table3 --scale tiny")]
pub struct StatusArgs {
    #[command(flatten)]
    what: Cells,
    #[command(flatten)]
    rate: RateFlags,
    /// Folder of runs
    #[arg(long, value_name = "DIR", default_value = "runs")]
    runs: PathBuf,
    /// Print it once, as is done where stdout is no terminal
    #[arg(long)]
    once: bool,
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
        Command::Slurm(args) => slurm::run(&args, common),
        Command::K8s(args) => k8s::run(&args, common),
        Command::Sky(args) => sky::run(&args, common),
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
fn head(setup: &Setup, sweep: &Sweep) -> String {
    let set = match &setup.set {
        Some(set) => format!("set {}", set.name),
        None => {
            "no set given (--data): costs are for 32×32 RGB images, nothing can be looked up".into()
        }
    };
    let mut text = format!("{}\n{set}\n\n", setup.scale.said());
    for line in sweep.describe_impossible() {
        text += &format!("not to be had here: {line}\n");
    }
    text
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
        let run = |(i, r): (usize, &SweepRun)| {
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
    say!("{}", head(&setup, &sweep).strip_suffix('\n').unwrap_or_default());
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
    let options = options(args.what.flags.data.as_ref(), &args.run, common)?;
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
    let options = options(args.what.flags.data.as_ref(), &args.run, common)?;
    let worker = Worker { wait_s: args.wait.unwrap_or(0.0), bucket: args.bucket.bucket() };
    if !worker.run(&sweep, args.index, &setup, &device, &options)? {
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

fn options(data: Option<&PathBuf>, run: &RunFlags, common: &Common) -> Result<RunOptions> {
    let name = data.map_or(PathBuf::from("bundled digits"), Clone::clone);
    run.options(common, &name)
}

/// What a look at all runs of a sweep found.
struct Seen {
    runs: Vec<Watched>,
    /// Hours of one device that are left.
    hours: f64,
}

impl Seen {
    fn of(sweep: &Sweep, rates: &MachineRates) -> Seen {
        let runs: Vec<Watched> = sweep.runs.iter().map(SweepRun::watched).collect();
        let left = |(r, run): (&SweepRun, &Watched)| r.left_s(&run.standing, rates);
        let seconds: Option<f64> = sweep.runs.iter().zip(&runs).map(left).sum();
        // Of nothing left a sum of floats is −0.
        Seen { runs, hours: seconds.unwrap_or(f64::NAN) / 3600.0 + 0.0 }
    }

    fn count(&self, what: fn(&Standing) -> bool) -> usize {
        self.runs.iter().filter(|run| what(&run.standing)).count()
    }

    fn done(&self) -> usize {
        self.count(|at| *at == Standing::Done)
    }

    fn running(&self) -> usize {
        self.count(|at| matches!(at, Standing::Begun { running: true, .. }))
    }

    fn begun(&self) -> usize {
        self.count(|at| matches!(at, Standing::Begun { running: false, .. }))
    }

    fn damaged(&self) -> usize {
        self.count(|at| matches!(at, Standing::Damaged(_)))
    }

    fn left(&self) -> usize {
        self.runs.len() - self.done() - self.running() - self.damaged()
    }

    /// A run as scripts know it, and as `emm status` tells it.
    fn json(run: &Watched) -> Value {
        let mut json = views::status::json(run);
        let (state, share) = match run.standing {
            Standing::Missing => ("missing", 0.0),
            Standing::Damaged(_) => ("damaged", 0.0),
            Standing::Begun { share, running: true } => ("running", share),
            Standing::Begun { share, .. } => ("begun", share),
            Standing::Done => ("done", 1.0),
        };
        (json["state"], json["share"]) = (state.into(), share.into());
        json
    }

    /// Counts, time, and the runs that have begun and are not finished.
    fn text(&self, rates: &MachineRates, devices: usize) -> String {
        let [done, running, begun, damaged, left] =
            [self.done(), self.running(), self.begun(), self.damaged(), self.left()];
        let mut text = format!(
            "done     {done} of {}\nrunning  {running}\nleft     {left}, of which {begun} begun\n",
            self.runs.len()
        );
        if damaged > 0 {
            text += &format!("damaged  {damaged}\n");
        }
        text += &format!(
            "time     {} of one device here ({}), {devices} at once: {}\n",
            describe_hours(self.hours),
            rates.basis,
            describe_hours(self.hours / devices as f64)
        );
        let under_way =
            |run: &&Watched| !matches!(run.standing, Standing::Done | Standing::Missing);
        let under_way: Vec<Watched> = self.runs.iter().filter(under_way).cloned().collect();
        match under_way.is_empty() {
            true => text,
            false => text + "\n" + &views::status::table(&under_way, SystemTime::now()).plain(),
        }
    }
}

fn status(args: &StatusArgs, common: &Common) -> Result<()> {
    let setup = args.what.flags.setup(common, &args.runs)?;
    let sweep = args.what.sweep(&setup)?;
    let devices = unmeasured(&common.devices()?, &configs(&sweep), common)?;
    let asked = args.rate.asked(common);
    let rates = MachineRates::here(&devices[0], &args.runs, &configs(&sweep), asked)?;
    let devices = devices.len();
    let mut seen = Seen::of(&sweep, &rates);
    if common.json {
        say_json!({
            "scale": setup.scale.name,
            "done": seen.done(),
            "running": seen.running(),
            "begun": seen.begun(),
            "damaged": seen.damaged(),
            "left": seen.left(),
            "hours_left_here": seen.hours,
            "devices": devices,
            "runs": seen.runs.iter().map(Seen::json).collect::<Vec<_>>(),
        });
        return passed_over("--runs", views::status::damage(&seen.runs));
    }
    let head = head(&setup, &sweep);
    live(args.once, &mut || {
        seen = Seen::of(&sweep, &rates);
        let text = head.clone() + &seen.text(&rates, devices);
        Ok(Drawn { text, over: seen.done() + seen.damaged() == seen.runs.len() })
    })?;
    passed_over("--runs", views::status::damage(&seen.runs))
}
