//! `emm figure`: the paper's figures from finished runs.

use super::devices::unmeasured;
use super::rate_flags::KnownRate;
use super::study_flags::StudyFlags;
use super::{Common, say};
use crate::error::{Exit, fail, usage};
use crate::files::{check_output, write_bytes};
use crate::report::Chart;
use crate::run::RunConfig;
use crate::study::cost::MachineRates;
use crate::study::{Setup, StudyPlan, passed_over};
use crate::views::figures::{figure, studies_of};
use crate::views::sheets::{is_sheet, sheet_figure};
use crate::views::words::describe_hours;
use anyhow::Result;
use serde_json::{Value, json};
use std::path::PathBuf;

/// Draw a figure of the paper from finished runs; tell what is missing and what that would cost
///
/// 1c to 9 are charts (`2` draws 2a to 2c side by side), written as .png, .svg, .pdf, .csv or .json by the names given to
/// --out. 1a, 1b and 10 are sheets of samples beside their nearest training images (.png). Any study with [[figure]]
/// entries is drawn the same way. Nothing is trained: `emm sweep run` does that.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  emm figure 3a --scale tiny --out figure3a.png --out figure3a.svg
  mkdir -p page && emm figure 9 --scale tiny --out page/figure9.json && emm report page
  emm figure 1a --data cifar10.zip --out figure1a.png")]
pub struct Args {
    /// A figure of the paper, or a study
    #[arg(value_name = "1a|...|10|STUDY")]
    figure: String,
    #[command(flatten)]
    flags: StudyFlags,
    #[command(flatten)]
    rate: KnownRate,
    /// Folder of runs
    #[arg(long, value_name = "DIR", default_value = "runs")]
    runs: PathBuf,
    /// Write it here; may be given several times [default: print the values]
    #[arg(long, value_name = "F.png|F.svg|F.csv|F.json")]
    out: Vec<PathBuf>,
    /// Replace --out if it exists
    #[arg(long)]
    force: bool,
}

/// What one study lacks.
struct Missing {
    study: String,
    cells: Vec<String>,
    of: usize,
    command: String,
    /// Of one device here; `None` if nothing is known.
    hours: Option<f64>,
}

/// Writes a figure in the forms that `--out` asks for.
///
/// # Errors
/// Usage: flags, an unknown figure, an output that is there. Data: a sheet without a run, or runs passed over for
/// damage.
pub fn run(args: Args, common: &Common) -> Result<()> {
    let forms: &[&str] =
        if is_sheet(&args.figure) { &["png"] } else { &["png", "svg", "pdf", "csv", "json"] };
    for out in &args.out {
        let known = out.extension().is_some_and(|e| forms.iter().any(|f| e == *f));
        if !known {
            let all: Vec<String> = forms.iter().map(|f| format!(".{f}")).collect();
            let (all, out) = (all.join(", "), out.display());
            return Err(usage(format!("--out: {out}: figure {} is written as {all}", args.figure)));
        }
        check_output(out, args.force)?;
    }
    match is_sheet(&args.figure) {
        true => sheet(&args, common),
        false => chart(&args, common),
    }
}

fn chart(args: &Args, common: &Common) -> Result<()> {
    let setup = args.flags.setup(common, &args.runs)?;
    let plans = args.flags.plans(&studies_of(&args.figure)?, &setup)?;
    let mut found = figure(&args.figure, &plans);
    let missing = missing(args, common, plans.iter().zip(&found.missing))?;
    if !args.out.is_empty() {
        // The picture is seen without what is printed here.
        found.chart.footer.extend(missing.iter().map(|m| format!("to fill it: {}", m.command)));
    }
    for out in &args.out {
        found.chart.save(out, args.force)?;
    }
    if common.json {
        describe_json(args, &setup, ("chart", json!(found.chart)), &missing);
        return passed_over("--runs", found.damage);
    }
    if args.out.is_empty() {
        print(&found.chart);
    }
    describe(args, &missing);
    passed_over("--runs", found.damage)
}

fn sheet(args: &Args, common: &Common) -> Result<()> {
    let setup = args.flags.setup(common, &args.runs)?;
    if args.out.is_empty() {
        return Err(usage("--out: not given; a sheet is a picture, F.png"));
    }
    let device = common.device()?;
    let found = sheet_figure(&args.figure, &setup, &device)?;
    let missing = missing(args, common, std::iter::once((&found.plan, &found.missing)))?;
    let Some(png) = &found.png else {
        passed_over("--runs", found.damage)?;
        let command = missing.first().map(|m| m.command.as_str()).unwrap_or_default();
        return Err(fail(
            Exit::Data,
            format!(
                "--runs: {}: nothing of figure {} is there: {command}",
                args.runs.display(),
                args.figure
            ),
        ));
    };
    for out in &args.out {
        write_bytes(out, args.force, png)?;
    }
    if common.json {
        describe_json(args, &setup, ("sheets", json!(found.parts)), &missing);
        return passed_over("--runs", found.damage);
    }
    for part in &found.parts {
        say!("{part}");
    }
    describe(args, &missing);
    passed_over("--runs", found.damage)
}

/// What each study lacks, with the command that fills it and its hours.
fn missing<'a>(
    args: &Args,
    common: &Common,
    plans: impl Iterator<Item = (&'a StudyPlan, &'a Vec<usize>)>,
) -> Result<Vec<Missing>> {
    let lacking: Vec<_> = plans.filter(|(_, cells)| !cells.is_empty()).collect();
    let configs: Vec<&RunConfig> = (lacking.iter())
        .flat_map(|(plan, cells)| cells.iter().flat_map(|&i| &plan.cells[i].runs))
        .map(|run| &run.config)
        .collect();
    if configs.is_empty() {
        return Ok(Vec::new());
    }
    let device = unmeasured(&[common.device()?], &configs, common)?.swap_remove(0);
    let rates = MachineRates::here(&device, &args.runs, &configs, args.rate.asked())?;
    let one = |(plan, cells): (&StudyPlan, &Vec<usize>)| {
        let one_cell = match cells.as_slice() {
            &[only] => Some(&plan.cells[only]),
            _ => None,
        };
        let runs = cells.iter().flat_map(|&i| &plan.cells[i].runs);
        let seconds: Option<f64> = runs.map(|run| rates.seconds(&run.config)).sum();
        Missing {
            study: plan.study.name.clone(),
            cells: cells.iter().map(|&i| plan.name(&plan.cells[i])).collect(),
            of: plan.cells.len(),
            command: args.flags.fills(common, &args.runs, plan, one_cell),
            hours: seconds.map(|s| s / 3600.0),
        }
    };
    Ok(lacking.into_iter().map(one).collect())
}

impl Missing {
    fn json(&self) -> Value {
        json!({
            "study": self.study,
            "cells": self.cells,
            "command": self.command,
            "hours_here": self.hours,
        })
    }
}

/// The values as columns, then what the footer says.
fn print(chart: &Chart) {
    say!("{}\n", chart.title);
    if !chart.table().is_empty() {
        say!("{}", chart.table().plain());
    }
    chart.notes().iter().for_each(|line| say!("{line}"));
}

fn describe(args: &Args, missing: &[Missing]) {
    for out in &args.out {
        say!("{}", out.display());
    }
    for m in missing {
        let (cells, of, study) = (m.cells.len(), m.of, &m.study);
        let hours = m.hours.map(|h| format!(", about {} of one device here", describe_hours(h)));
        say!("missing: {cells} of {of} cells of {study}{}:", hours.unwrap_or_default());
        say!("  {}", m.command);
    }
}

/// What was drawn under its name, what is missing, what was written.
fn describe_json(args: &Args, setup: &Setup, drawn: (&str, Value), missing: &[Missing]) {
    let mut all = json!({
        "figure": args.figure,
        "scale": setup.scale.name,
        "missing": missing.iter().map(Missing::json).collect::<Vec<_>>(),
        "files": args.out.iter().map(|p| p.display().to_string()).collect::<Vec<_>>(),
    });
    all[drawn.0] = drawn.1;
    say!("{all}");
}
