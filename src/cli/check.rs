//! `emm check`: every op's cases on a device, against the references.

use super::train_flags::no_tf32;
use super::{Common, say};
use crate::check::cases::{Case, GOLDENS};
use crate::check::golden::Golden;
use crate::device::{Device, Precision};
use crate::error::{Exit, exit_code, usage};
use anyhow::{Result, bail};
use clap::builder::PossibleValuesParser;
use serde_json::json;

/// Run every op forward and backward on the device and compare with references in float64
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  emm check --device cuda
  emm check --op conv2d --precision bf16 --device cpu

Each case runs in fp32, and in bf16 and on a card tf32 where that changes what the op computes. Outputs start as NaN;
gradients are both written and added. Exit code 1 if an op is off by more than its bar (‖got − reference‖ / ‖reference‖:
1e-5, 2e-3 of products in tf32, 2e-2 of what is stored in bf16), 4 if the device cannot be had. With --device auto, CUDA
if a card and kernels for it are there, else the CPU.")]
pub struct Args {
    /// Only this op
    #[arg(long, value_name = "NAME", hide_possible_values = true,
          value_parser = PossibleValuesParser::new(GOLDENS.map(|(op, _)| op)))]
    op: Option<String>,
    /// Only this precision [default: all that the device computes in]
    #[arg(long, value_enum, value_name = "bf16|tf32|fp32", hide_possible_values = true)]
    precision: Option<Precision>,
}

fn error(device: &Device, precision: Precision, case: &Case, golden: &Golden) -> Result<f64> {
    case.error(golden, precision, |case, acc, start| match device {
        Device::Cpu(cpu) => case.run(cpu, precision, acc, start),
        Device::Cuda { cuda, .. } => case.run_kernels(cuda, precision, acc, start),
    })
}

/// How an op's cases went at one precision.
struct Outcome {
    op: &'static str,
    precision: Precision,
    /// The widest bar of the cases.
    bar: f64,
    cases: usize,
    /// Largest relative error of the cases that gave numbers.
    worst: f64,
    /// The first case that failed, and why.
    failed: Option<String>,
}

/// An op's cases that say something at one precision.
struct Work {
    op: &'static str,
    precision: Precision,
    golden: Golden,
    cases: Vec<(String, Case)>,
}

impl Work {
    /// # Errors
    /// A golden that cannot be read.
    fn new(op: &'static str, bytes: &[u8], precision: Precision) -> Result<Self> {
        let golden = Golden::parse(bytes)?;
        let cases = (golden.cases().into_iter())
            .map(|(name, attributes)| {
                let case = Case::from_golden(op, &golden, &name, &attributes);
                (name, case)
            })
            .filter(|(_, case)| case.applies(precision))
            .collect();
        Ok(Work { op, precision, golden, cases })
    }

    /// Runs them.
    ///
    /// # Errors
    /// Only what ends the whole check: a device that failed.
    fn check(&self, device: &Device) -> Result<Outcome> {
        let Work { op, precision, .. } = *self;
        let cases = self.cases.len();
        let mut outcome = Outcome { op, precision, bar: 0.0, cases, worst: 0.0, failed: None };
        for (name, case) in &self.cases {
            let bar = case.bar(precision);
            outcome.bar = outcome.bar.max(bar);
            let why = match error(device, precision, case, &self.golden) {
                Ok(err) => {
                    outcome.worst = outcome.worst.max(err);
                    // Not `err > bar`: NaN must fail.
                    if err <= bar { None } else { Some(format!("off by {err:.1e}")) }
                }
                Err(e) if exit_code(&e) == Exit::Device as i32 => {
                    return Err(e.context(format!("check: {op} {name}")));
                }
                Err(e) => Some(format!("{e:#}")),
            };
            outcome.failed = outcome.failed.or(why.map(|why| format!("{name}: {why}")));
        }
        Ok(outcome)
    }
}

pub fn run(args: Args, common: &Common) -> Result<()> {
    let device = common.device()?;
    let name = device.name();
    let precisions = match &args.precision {
        None => device.precisions(),
        Some(one) if device.precisions().contains(one) => std::slice::from_ref(one),
        Some(_) => return Err(no_tf32()),
    };
    let mut work = Vec::new();
    for &precision in precisions {
        let wanted = |op: &str| args.op.as_deref().is_none_or(|name| name == op);
        for (op, bytes) in GOLDENS.into_iter().filter(|(op, _)| wanted(op)) {
            work.push(Work::new(op, bytes, precision)?);
        }
    }
    work.retain(|w| !w.cases.is_empty());
    if let (true, Some(op), Some(p)) = (work.is_empty(), &args.op, args.precision) {
        let p = p.name();
        return Err(usage(format!("--precision: {op} computes in {p} what it does in fp32")));
    }
    if !common.json {
        say!("device {name}");
        let heads = ["precision", "cases", "bar", "worst error"];
        say!("{:<14}{:>10}{:>6}{:>8}{:>14}", "op", heads[0], heads[1], heads[2], heads[3]);
    }
    let mut outcomes = Vec::new();
    for work in work {
        let o = work.check(&device)?;
        if !common.json {
            let verdict = match &o.failed {
                None => "ok".into(),
                Some(why) => format!("FAIL {why}"),
            };
            let Outcome { op, cases, bar, worst, .. } = o;
            let precision = o.precision.name();
            say!("{op:<14}{precision:>10}{cases:>6}{bar:>8.0e}{worst:>14.1e}  {verdict}");
        }
        outcomes.push(o);
    }
    let failed: Vec<String> = (outcomes.iter().filter(|o| o.failed.is_some()))
        .map(|o| format!("{} in {}", o.op, o.precision.name()))
        .collect();
    if common.json {
        let ops: Vec<_> = outcomes
            .iter()
            .map(|o| {
                json!({
                    "op": o.op, "precision": o.precision, "cases": o.cases, "bar": o.bar,
                    "worst_error": o.worst, "ok": o.failed.is_none(), "failed": o.failed,
                })
            })
            .collect();
        say!("{}", json!({"device": name, "ok": failed.is_empty(), "ops": ops}));
    }
    if !failed.is_empty() {
        bail!("check: {} of {} ops failed: {}", failed.len(), outcomes.len(), failed.join(", "));
    }
    Ok(())
}
