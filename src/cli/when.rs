//! `emm when`: how memorization starts, of runs that are there.

use super::endings::check_ending;
use super::{Common, say};
use crate::error::{data, usage};
use crate::files::{check_output_dir, write_dir_atomic};
use crate::numbers::share;
use crate::study::folder::{RunSeen, runs_in};
use crate::study::passed_over;
use crate::study::when::{Alike, when};
use crate::views::when as view;
use anyhow::Result;
use std::io;
use std::path::{Path, PathBuf};

/// Say when memorization starts, how that grows with the training set, and where to stop
///
/// From the kept evaluations of runs. tau_mem is the epoch at which the ratio passes --level, with the last evaluation that is
/// sure to be below it and the first that is sure to be above; tau_gen the one at which the loss on held-out images is least
/// (`emm train --holdout`). Over runs of two sizes or more both are fitted as powers of the number of images N (Bonnaire et
/// al. 2025, Favero et al. 2025).
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  emm when runs/digits
  emm sweep run dynamics --scale tiny --repeats 3 && emm when runs --out when")]
pub struct Args {
    /// Folders of runs: a run, or what `emm sweep run` or `find` left
    #[arg(required = true, value_name = "RUNS")]
    runs: Vec<PathBuf>,
    /// The ratio from which on samples are said to be copied
    #[arg(long, value_name = "R", value_parser = share, default_value = "1%")]
    level: f64,
    /// Write page, table, chart and JSON into this folder
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Replace --out if it exists
    #[arg(long)]
    force: bool,
}

/// Of what it may write: `when` and, from the second group of alike runs on, its number.
const ENDINGS: [&str; 6] = [".csv", ".html", ".json", ".pdf", ".png", ".svg"];

/// Prints when memorization starts, and writes it into a folder.
///
/// # Errors
/// Usage: flags, or an output that is there. Data: no runs with evaluations.
pub fn run(args: Args, common: &Common) -> Result<()> {
    if !(1e-4..=0.9999).contains(&args.level) {
        let level = args.level;
        return Err(usage(format!("--level: {level}, expected 0.0001 to 0.9999")));
    }
    if let Some(out) = &args.out {
        check_ending("--out", out, "what it writes", &[])?;
        check_output_dir(out, args.force, &foreign)?;
    }
    let (mut runs, mut damage) = (Vec::new(), Vec::new());
    for folder in &args.runs {
        if !folder.is_dir() {
            let is = if folder.exists() { "a file" } else { "nothing there" };
            return Err(data(format!("{}: {is}, expected a folder of runs", folder.display())));
        }
        // Twice the same is once.
        let place = |e: io::Error| data(format!("{}: {e}", folder.display()));
        let (found, broken) = runs_in(&folder.canonicalize().map_err(place)?)?;
        let new = |run: &RunSeen| runs.iter().all(|known: &RunSeen| known.dir != run.dir);
        let found: Vec<RunSeen> = found.into_iter().filter(new).collect();
        runs.extend(found);
        damage.extend(broken);
    }
    let (groups, broken) = when(&runs, args.level);
    damage.extend(broken);
    if groups.is_empty() {
        passed_over("RUNS", damage)?;
        let name = args.runs[0].display();
        return Err(data(format!(
            "{name}: no run with evaluations (emm train, or emm sweep run dynamics, makes some)"
        )));
    }
    if let Some(out) = &args.out {
        write(out, args.force, &groups)?;
    }
    if common.json {
        say!("{}", view::json(&groups));
        return passed_over("RUNS", damage);
    }
    for (i, alike) in groups.iter().enumerate() {
        if i > 0 {
            say!("");
        }
        if !alike.settings.is_empty() {
            say!("{}", alike.settings);
        }
        say!("{}", view::table(alike).plain().trim_end());
        view::said(alike).iter().for_each(|line| say!("{line}"));
    }
    if let Some(out) = &args.out {
        say!("{}", out.join("when.html").display());
    }
    passed_over("RUNS", damage)
}

/// What in a folder this command did not write.
fn foreign(folder: &Path) -> io::Result<Option<String>> {
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !name.starts_with("when") || !ENDINGS.iter().any(|ending| name.ends_with(ending)) {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

fn write(out: &Path, force: bool, groups: &[Alike]) -> Result<()> {
    let mut files = vec![
        ("when.html".to_string(), view::page(groups).html().into_bytes()),
        ("when.json".to_string(), format!("{:#}\n", view::json(groups)).into_bytes()),
    ];
    for (i, alike) in groups.iter().enumerate() {
        let stem = if i == 0 { "when".to_string() } else { format!("when-{}", i + 1) };
        let (chart, mut put) = (view::chart(alike), |ending: &str, bytes: Vec<u8>| {
            files.push((format!("{stem}.{ending}"), bytes));
        });
        put("csv", view::table(alike).csv().into_bytes());
        put("png", chart.png()?);
        put("svg", chart.svg().into_bytes());
        put("pdf", chart.pdf()?);
    }
    write_dir_atomic(out, force, &foreign, |folder| {
        files.iter().try_for_each(|(name, bytes)| Ok(std::fs::write(folder.join(name), bytes)?))
    })
}
