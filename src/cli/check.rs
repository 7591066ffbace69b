//! `emm check`: every op's cases on a device, against the references.

use super::train_flags::no_tf32;
use super::{Common, say};
use crate::check::NetworkSize;
use crate::check::tally::{CheckOutcome, Tally};
use crate::check::worker;
use crate::check::{CaseSize, Check, OPS, Wanted, children, list, primitives};
use crate::device::cuda::KERNELS_FOR;
use crate::device::{Device, Precision};
use crate::error::{Exit, OrExit as _, usage};
use anyhow::{Result, bail};
use clap::builder::PossibleValuesParser;
use serde_json::json;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Check every op on the device, forward and backward, against references in float64
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  emm check --device cuda
  emm check --primitives --device cuda
  emm check --op conv2d --precision bf16 --device cpu

Each case runs in fp32, and in bf16 and on a GPU tf32 where that changes what the op computes.
Outputs start as NaN; gradients are both written and added. Real sizes run beside the device's own
fp32, a few of their values beside float64. On a GPU also: its instructions, the optimizer, batches,
the sampler and replayed steps. Each op then has a process of its own: a kernel that fails or never
ends fails its case, both are named, and the rest goes on.

A line is printed as each op ends, with --json on stderr. Exit code 1 if an op is off by more than
its bar (‖got − reference‖ / ‖reference‖: 1e-5, 2e-3 of products in tf32, 2e-2 of what is stored in
bf16; 0 where all must be equal), 4 if the device cannot be had. With --device auto, CUDA if a GPU
and kernels for it are there, else the CPU.")]
pub struct Args {
    /// Only this op
    #[arg(long, value_name = "NAME", hide_possible_values = true, value_parser = PossibleValuesParser::new(OPS))]
    op: Option<String>,
    /// Only a GPU's instructions: --op primitives
    #[arg(long, conflicts_with = "op")]
    primitives: bool,
    /// Only this precision [default: all that the device computes in]
    #[arg(long, value_enum, value_name = "bf16|tf32|fp32", hide_possible_values = true)]
    precision: Option<Precision>,
    /// Small cases with references made beforehand, those of a network in use, or both [default: all on a GPU, else
    /// golden]
    #[arg(long, value_enum, value_name = "golden|real|all", hide_possible_values = true)]
    sizes: Option<SizeChoice>,
    /// The network of --sizes real: images of a batch, channels, pixels along a side
    #[arg(long, value_name = "N,C,S", default_value = "64,128,32")]
    network: NetworkSize,
    /// Seconds that a case may take; longer under a tool that slows kernels. Given, the CPU's ops too run in processes of
    /// their own [default: 30]
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    limit_s: Option<u64>,
    /// Run the op's cases from this one on and tell the process that started this one
    #[arg(long, hide = true, value_name = "CASE", requires = "op")]
    child: Option<usize>,
    /// Test these families of kernels and tell the process that started this one
    #[arg(long, hide = true, value_name = "FAMILIES")]
    self_test: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "lower")]
enum SizeChoice {
    Golden,
    Real,
    All,
}

impl SizeChoice {
    fn name(self) -> &'static str {
        match self {
            SizeChoice::Golden => "golden",
            SizeChoice::Real => "real",
            SizeChoice::All => "all",
        }
    }
}

/// Seconds of a case where --limit-s says nothing.
const LIMIT_S: u64 = 30;

impl Args {
    fn op(&self) -> Option<&'static str> {
        let name = if self.primitives { Some("primitives") } else { self.op.as_deref() };
        OPS.into_iter().find(|op| Some(*op) == name)
    }

    /// The emulator takes minutes for a network in use.
    fn sizes(&self, device: &Device) -> SizeChoice {
        let gpu = device.cuda().is_some() && !KERNELS_FOR.contains(&"emulator");
        self.sizes.unwrap_or(if gpu { SizeChoice::All } else { SizeChoice::Golden })
    }

    fn wanted(&self, device: &Device) -> Result<Wanted> {
        let precisions = match self.precision {
            None => device.precisions().to_vec(),
            Some(one) if device.precisions().contains(&one) => vec![one],
            Some(_) => return Err(no_tf32()),
        };
        let sizes = match self.sizes(device) {
            SizeChoice::Golden => vec![CaseSize::Golden],
            SizeChoice::Real => vec![CaseSize::Real],
            SizeChoice::All => vec![CaseSize::Golden, CaseSize::Real],
        };
        let (on_gpu, network) = (device.cuda().is_some(), self.network);
        let hopper = device.cuda().is_some_and(|cuda| cuda.limits().hopper);
        Ok(Wanted { op: self.op(), precisions, sizes, on_gpu, hopper, network })
    }

    /// Why there is nothing to check.
    fn nothing(&self, wanted: &Wanted) -> anyhow::Error {
        let op = self.op().unwrap_or("every op");
        match self.precision {
            Some(p) if p != Precision::Fp32 => {
                let p = p.name();
                usage(format!("--precision: {op} computes in {p} what it does in fp32"))
            }
            _ if !wanted.on_gpu => {
                let flag = if self.primitives { "--primitives" } else { "--op" };
                usage(format!("{flag}: {op} is a GPU's check, --device cuda runs it"))
            }
            _ => usage(format!("--sizes: {op} has only one, leave it out")),
        }
    }

    /// The command of a child.
    fn child(
        &self,
        program: &Path,
        (device, sizes): (&str, SizeChoice),
        common: &Common,
        op: &str,
        from: usize,
    ) -> Command {
        let NetworkSize { images, channels, side } = self.network;
        let mut command = Command::new(program);
        command.args(["check", "--device", device, "--op", op, "--sizes", sizes.name()]);
        command.args(["--child", &from.to_string(), "--threads", &common.threads.to_string()]);
        command.arg("--network").arg(format!("{images},{channels},{side}"));
        if let Some(precision) = self.precision {
            command.args(["--precision", precision.name()]);
        }
        command
    }
}

/// What a self-test's process does.
fn self_test(names: &str, common: &Common) -> Result<()> {
    let families =
        super::self_test::families(names).map_err(|e| usage(format!("--self-test: {e}")))?;
    let device = common.untested_device()?;
    let tell = &mut |told| say!("{}", json!(told));
    if let Some(cuda) = device.cuda() {
        crate::check::self_test::run(cuda, &families, tell);
    }
    Ok(())
}

pub fn run(args: Args, common: &Common) -> Result<()> {
    if let Some(names) = &args.self_test {
        return self_test(names, common);
    }
    if let Some(from) = args.child {
        return match common.untested_device() {
            Ok(device) => {
                let checks = list(&args.wanted(&device)?)?;
                worker::run_as_child(&device, &checks, from);
                Ok(())
            }
            Err(e) => {
                worker::no_device(&e);
                Ok(())
            }
        };
    }
    let device = common.untested_device()?;
    let wanted = args.wanted(&device)?;
    let checks = list(&wanted)?;
    if checks.is_empty() {
        return Err(args.nothing(&wanted));
    }
    let name = device.name().to_string();
    describe(common, &format!("device {name}"));
    let lacking = match wanted.op {
        None | Some("primitives") => primitives::left_out(&wanted),
        Some(_) => vec![],
    };
    if !lacking.is_empty() {
        let why = "not checked, they are compute capability 9.0's";
        describe(common, &format!("{why}: {}", lacking.join("; ")));
    }
    let heads = ["precision", "cases", "bar", "worst error"];
    describe(
        common,
        &format!("{:<20}{:>10}{:>6}{:>8}{:>14}", "op", heads[0], heads[1], heads[2], heads[3]),
    );
    let mut tally = Tally::new(&checks, |outcome| describe(common, &line(outcome)));
    let ran = if wanted.on_gpu || args.limit_s.is_some() {
        in_children(&args, common, device, &checks, &mut tally)
    } else {
        worker::run(&device, &checks, 0, &mut |message| tally.hear(0, message));
        Ok(())
    };
    let outcomes = tally.finish();
    let failed: Vec<String> = (outcomes.iter().filter(|o| !o.ok))
        .map(|o| format!("{} in {}", o.name(), o.precision.name()))
        .collect();
    if common.json {
        say!("{}", json!({"device": name, "ok": failed.is_empty(), "ops": outcomes}));
    }
    ran?;
    if !failed.is_empty() {
        bail!("check: {} of {} ops failed: {}", failed.len(), outcomes.len(), failed.join(", "));
    }
    Ok(())
}

/// Each op by a child. The GPU is given back first: this process needs none.
fn in_children(
    args: &Args,
    common: &Common,
    device: Device,
    checks: &[Check],
    tally: &mut Tally,
) -> Result<()> {
    let sizes = args.sizes(&device);
    let name = device.name().split(',').next().unwrap_or("cpu").to_string();
    drop(device);
    let program = std::env::current_exe().or_exit(Exit::Other, || "check: this program".into())?;
    let start = |op: &'static str, from| args.child(&program, (&name, sizes), common, op, from);
    let limit = Duration::from_secs(args.limit_s.unwrap_or(LIMIT_S));
    children::run(checks, &start, limit, tally)
}

/// Prints a line as soon as it is known; beside --json on stderr.
fn describe(common: &Common, line: &str) {
    match (common.json, common.quiet) {
        (false, _) => say!("{line}"),
        (true, true) => {}
        (true, false) => _ = writeln!(std::io::stderr(), "{line}"),
    }
}

fn line(o: &CheckOutcome) -> String {
    let verdict = match &o.failed {
        None => "ok".into(),
        Some(why) => format!("FAIL {why}").replace(char::is_control, " "),
    };
    let (name, precision) = (o.name(), o.precision.name());
    format!("{name:<20}{precision:>10}{:>6}{:>8.0e}{:>14.1e}  {verdict}", o.cases, o.bar, o.worst)
}
