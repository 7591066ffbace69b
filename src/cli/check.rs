//! `emm check`: every op's cases on a device, against the references.

use super::{Common, say};
use crate::check::cases::{Case, GOLDENS};
use crate::check::golden::Golden;
use crate::device::{Device, Precision};
use crate::error::{Exit, exit_code};
use anyhow::{Result, bail};
use clap::builder::PossibleValuesParser;
use serde_json::json;

/// Largest relative error, ‖got − reference‖ / ‖reference‖, that passes.
const BAR: f64 = 1e-5;

/// Run every op forward and backward on the device and compare with references in float64
#[derive(clap::Args, Debug)]
#[command(after_help = "Example:
  emm check --device cuda

Outputs start as NaN; gradients are both written and added. Exit code 1 if an op is off by more than 1e-5,
4 if the device cannot be had. With --device auto, CUDA if a card and kernels for it are there, else the CPU.")]
pub struct Args {
    /// Only this op
    #[arg(long, value_name = "NAME", hide_possible_values = true,
          value_parser = PossibleValuesParser::new(GOLDENS.map(|(op, _)| op)))]
    op: Option<String>,
}

fn error(device: &Device, case: &Case, golden: &Golden) -> Result<f64> {
    case.error(golden, Precision::Fp32, |case, acc, start| match device {
        Device::Cpu(cpu) => case.run(cpu, Precision::Fp32, acc, start),
        Device::Cuda { cuda, .. } => case.run_kernels(cuda, Precision::Fp32, acc, start),
    })
}

/// How an op's cases went.
struct Outcome {
    op: &'static str,
    cases: usize,
    /// Largest relative error of the cases that gave numbers.
    worst: f64,
    /// The first case that failed, and why.
    failed: Option<String>,
}

pub fn run(args: Args, common: &Common) -> Result<()> {
    let device = common.device()?;
    let name = device.name();
    if !common.json {
        say!("device {name}; bar {BAR:e}");
        say!("{:<14}{:>6}{:>14}", "op", "cases", "worst error");
    }
    let mut outcomes = Vec::new();
    let wanted = |op: &str| args.op.as_deref().is_none_or(|name| name == op);
    for (op, bytes) in GOLDENS.into_iter().filter(|(op, _)| wanted(op)) {
        let o = check(&device, op, bytes)?;
        if !common.json {
            let verdict = match &o.failed {
                None => "ok".into(),
                Some(why) => format!("FAIL {why}"),
            };
            say!("{op:<14}{:>6}{:>14.1e}  {verdict}", o.cases, o.worst);
        }
        outcomes.push(o);
    }
    let failed: Vec<&str> = outcomes.iter().filter(|o| o.failed.is_some()).map(|o| o.op).collect();
    if common.json {
        let ops: Vec<_> = outcomes
            .iter()
            .map(|o| {
                json!({
                    "op": o.op, "cases": o.cases, "worst_error": o.worst,
                    "ok": o.failed.is_none(), "failed": o.failed,
                })
            })
            .collect();
        say!("{}", json!({"device": name, "bar": BAR, "ok": failed.is_empty(), "ops": ops}));
    }
    if !failed.is_empty() {
        bail!("check: {} of {} ops failed: {}", failed.len(), outcomes.len(), failed.join(", "));
    }
    Ok(())
}

/// Runs all cases of an op.
///
/// # Errors
/// Only what ends the whole check: a golden that cannot be read, a device that failed.
fn check(device: &Device, op: &'static str, bytes: &[u8]) -> Result<Outcome> {
    let golden = Golden::parse(bytes)?;
    let mut outcome = Outcome { op, cases: 0, worst: 0.0, failed: None };
    for (name, attributes) in golden.cases() {
        let case = Case::from_golden(op, &golden, &name, &attributes);
        let why = match error(device, &case, &golden) {
            Ok(err) => {
                outcome.worst = outcome.worst.max(err);
                // Not `err > BAR`: NaN must fail.
                if err <= BAR { None } else { Some(format!("off by {err:.1e}")) }
            }
            Err(e) if exit_code(&e) == Exit::Device as i32 => {
                return Err(e.context(format!("check: {op} {name}")));
            }
            Err(e) => Some(format!("{e:#}")),
        };
        outcome.failed = outcome.failed.or(why.map(|why| format!("{name}: {why}")));
        outcome.cases += 1;
    }
    Ok(outcome)
}
