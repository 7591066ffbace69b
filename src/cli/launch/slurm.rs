//! `emm sweep slurm`: the runs as arrays of jobs.

use super::order::{NOTICE_S, Order, OrderFlags, cap, word};
use super::times::{Limit, class, limit, ranges, written};
use crate::cli::Common;
use crate::cli::quoted::quoted;
use crate::cli::rate_flags::KnownRate;
use crate::error::usage;
use crate::run::RunConfig;
use crate::run::gpu::{GPUS, Gpu};
use crate::study::cost::MachineRates;
use anyhow::Result;
use serde_json::json;
use std::collections::BTreeMap;

/// Write a Slurm script: an array of all runs, requeued until done
#[derive(clap::Args, Debug)]
#[command(
    next_help_heading = "Jobs",
    after_help = "Examples:
  emm sweep slurm table3 --data cifar10.zip --device cuda --out table3.sh && sbatch table3.sh
  emm sweep slurm table3 --data cifar10.zip --device cuda --partition gpu --account lab --cap 8 --container emm.sif
  emm sweep slurm table3 --data cifar10.zip --device cuda --time auto:12:00:00 --gpu h100 --out table3.sh && bash table3.sh

--time auto takes each run's time from its cost: what it took here, or may take, and half as much again; with --gpu three
times the least that such a GPU can take. Runs that need about as long are one array, so that short ones find gaps; with
several arrays the script submits itself (bash table3.sh). With --cap all runs are one array, with the longest one's time,
since a cap holds for an array alone."
)]
pub struct Args {
    /// Limit of a job; a run that needs longer is requeued and goes on. auto: by each run's cost, at most 24 hours or what
    /// is named
    #[arg(long, value_name = "HH:MM:SS|auto[:HH:MM:SS]", default_value = "04:00:00", value_parser = limit)]
    time: Limit,
    /// The GPU that --time auto predicts times for [default: this machine's device]
    #[arg(long, value_name = "h100|a100", value_parser = gpu)]
    gpu: Option<Gpu>,
    #[command(flatten)]
    rate: KnownRate,
    /// Runs at once [default: as many as Slurm starts]
    #[arg(long, value_name = "N", value_parser = cap)]
    cap: Option<usize>,
    /// Partition, or several with commas
    #[arg(long, value_name = "P", value_parser = word)]
    partition: Option<String>,
    /// Account that pays
    #[arg(long, value_name = "A", value_parser = word)]
    account: Option<String>,
    /// Run emm in this image, by `apptainer exec` (its variable APPTAINER_BIND names folders other than home and this one)
    #[arg(long, value_name = "IMAGE", value_parser = image)]
    container: Option<String>,
    #[command(flatten)]
    order: OrderFlags,
}

fn gpu(name: &str) -> Result<Gpu, String> {
    let known = || format!("expected {}, found {name:?}", GPUS.map(|gpu| gpu.name).join(" or "));
    Gpu::named(name).copied().ok_or_else(known)
}

/// A path or an address.
fn image(text: &str) -> Result<String, String> {
    match text.trim().is_empty() || text.starts_with('-') || text.contains(char::is_control) {
        false => Ok(text.into()),
        true => Err(format!("expected an image's path or address, found {text:?}")),
    }
}

/// Runs that one array does, and the limit of each.
struct Array {
    runs: Vec<usize>,
    time: String,
}

/// Writes the script.
///
/// # Errors
/// Usage: flags, or times that are not known; as [`OrderFlags::write`].
pub fn run(args: &Args, common: &Common) -> Result<()> {
    let order = args.order.order(common, "a job's script", &["sh"])?;
    let arrays = args.arrays(&order, common)?;
    let submit = match arrays.len() {
        1 => format!("sbatch {}", args.order.file("F.sh")),
        _ => format!("bash {}", args.order.file("F.sh")),
    };
    let script = args.script(&order, &arrays);
    let value = json!(script.trim_end());
    args.order.write(common, "script", (&script, value), order.sweep.runs.len(), &submit)
}

/// More than a run is expected to take, where that follows from runs or measurements.
const MARGIN: f64 = 1.5;
/// As much where it is the least that a GPU can take.
const FLOOR_MARGIN: f64 = 3.0;

impl Args {
    fn arrays(&self, order: &Order, common: &Common) -> Result<Vec<Array>> {
        let all = || (0..=order.last()).collect();
        let longest_s = match &self.time {
            Limit::Given(time) => return Ok(vec![Array { runs: all(), time: time.clone() }]),
            Limit::Auto(longest_s) => *longest_s,
        };
        let mut classes: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        let (times, margin) = self.times(order, common)?;
        for (i, expected_s) in times.into_iter().enumerate() {
            classes.entry(class(expected_s, margin, longest_s)).or_default().push(i);
        }
        if let (Some(_), Some((&longest, _))) = (self.cap, classes.last_key_value()) {
            classes = BTreeMap::from([(longest, all())]);
        }
        Ok(classes.into_iter().map(|(s, runs)| Array { runs, time: written(s) }).collect())
    }

    /// Seconds that each run is expected to take, and how many times that it is given.
    fn times(&self, order: &Order, common: &Common) -> Result<(Vec<f64>, f64)> {
        let runs = &order.sweep.runs;
        if let Some(gpu) = self.gpu {
            let (rates, k) =
                (MachineRates::elsewhere(), GPUS.iter().position(|g| g.name == gpu.name));
            let seconds = |config: &RunConfig| rates.gpu_seconds(config)[k.unwrap_or_default()];
            let fits = runs.iter().map(|r| {
                let too_large =
                    || usage(format!("--gpu: {}: too small for run {}", gpu.name, r.name));
                seconds(&r.run.config).ok_or_else(too_large)
            });
            return Ok((fits.collect::<Result<_>>()?, FLOOR_MARGIN));
        }
        let here = common.device().map_err(|e| {
            usage(format!(
                "--time: auto: times are not known here ({e:#}); --gpu h100 or a100 predicts them"
            ))
        })?;
        let configs: Vec<_> = runs.iter().map(|r| &r.run.config).collect();
        let rates = MachineRates::here(&here, self.order.runs(), &configs, self.rate.asked())?;
        let known = configs.iter().map(|config| rates.seconds(config)).collect::<Option<_>>();
        let unknown = || {
            usage(
                "--time: auto: how fast this machine is is not known yet; `emm sweep plan` measures it, --rate says it, --gpu \
                 h100 or a100 predicts such a GPU",
            )
        };
        Ok((known.ok_or_else(unknown)?, MARGIN))
    }

    fn script(&self, order: &Order, arrays: &[Array]) -> String {
        let array = |array: &Array| {
            let cap = self.cap.map_or(String::new(), |cap| format!("%{cap}"));
            [format!("--array={}{cap}", ranges(&array.runs)), format!("--time={}", array.time)]
        };
        let mut options = vec!["--job-name=emm".to_string()];
        let mut submit = String::new();
        match arrays {
            [one] => options.extend(array(one)),
            several => {
                submit = "if [ -z \"$SLURM_ARRAY_TASK_ID\" ]; then\n".into();
                for [runs, time] in several.iter().map(array) {
                    submit += &format!("    sbatch {runs} {time} \"$0\" || exit\n");
                }
                submit += "    exit\nfi\n";
            }
        }
        let named = [("partition", &self.partition), ("account", &self.account)];
        let named = named.into_iter().filter_map(|(n, v)| Some(format!("--{n}={}", v.as_ref()?)));
        options.extend(named);
        options.extend(["--requeue".into(), "--open-mode=append".into()]);
        options.push(format!("--signal=B:USR1@{NOTICE_S}"));
        options.push("--output=emm-%A-%a.log".into());
        if order.gpu {
            options.push("--gres=gpu:1".into());
        }
        if order.threads > 0 {
            options.push(format!("--cpus-per-task={}", order.threads));
        }
        let options: String = options.iter().map(|o| format!("#SBATCH {o}\n")).collect();
        let head: String = order.head.iter().map(|line| format!("# {line}\n")).collect();
        let command = order.command("\"$SLURM_ARRAY_TASK_ID\"");
        let command = match &self.container {
            Some(image) => {
                let nv = if order.gpu { " --nv" } else { "" };
                format!("apptainer exec{nv} {} {command}", quoted(image))
            }
            None => command,
        };
        format!(
            "#!/bin/bash
{options}{head}\
             # Two minutes before the limit the run is told to save; it ends with 75, and the job queues again.
{submit}run=
trap '[ -n \"$run\" ] && kill -USR1 \"$run\"' USR1 TERM
{command} &
run=$!
while kill -0 \"$run\" 2>/dev/null; do wait \"$run\"; done
wait \"$run\"
code=$?
if [ \"$code\" = 75 ]; then
    scontrol requeue \"${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}\"
fi
exit \"$code\"
"
        )
    }
}
