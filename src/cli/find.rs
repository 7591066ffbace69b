//! `emm find`: the effective model memorization of a setting.

use super::common::suspended;
use super::data::check_side;
use super::endings::check_ending;
use super::find_flags::{Args, search};
use super::find_within::{Chosen, choose, most_balanced, write_page};
use super::quoted::quoted;
use super::{Common, check_runs, find_plan, find_predict, note_line, open_set, say};
use crate::data::Dataset;
use crate::device::Device;
use crate::error::{Exit, OrExit as _, usage};
use crate::files::check_output;
use crate::run::at_once;
use crate::run::progress::{describe_epochs, duration};
use crate::study::within::{Ended, Within, find_within, first_size};
use crate::study::{EmmSearch, Found, Sizes, find, passed_over};
use crate::views::{answer, search as views};
use anyhow::Result;
use std::fs;
use std::path::PathBuf;
use std::time::Instant;

/// Trains at sizes of its choice and prints the EMM, with a line a training.
///
/// # Errors
/// Usage: flags, or an output that is there. As of training.
pub fn run(mut args: Args, common: &Common) -> Result<()> {
    let within = args.within.map(|seconds| Within { started: Instant::now(), seconds });
    let open = common.devices()?;
    check_runs(&args.run.runs)?;
    check(&args)?;
    let mut set = open_set(&args.data, common)?;
    let name = args.data.display().to_string();
    let mut chosen = match within {
        Some(within) => Some(choose(&mut args, &set, &open, within, common)?),
        None => None,
    };
    let sizes = match &chosen {
        Some(chosen) => chosen.sizes.clone(),
        None => sizes(&args, &set),
    };
    if let Some(chosen) = &chosen {
        set = chosen.set.clone();
        if !common.quiet {
            chosen.said.iter().chain(&chosen.longer).for_each(|line| note_line(line));
        }
    }
    let config = args.flags.resolve(common, &mut set.clone())?;
    let options = args.run.options(common, &args.data)?;
    let mut search = search(&args, &set, &name, &config, sizes, &open, &options);
    let devices = match &chosen {
        Some(chosen) => chosen.devices.clone(),
        None => devices(&args, &search, common)?,
    };
    search.devices = &devices;
    if args.predict {
        return find_predict::run(&args, &mut search, common);
    }
    if args.plan {
        if let Some(chosen) = &chosen {
            let mut sizes = chosen.sizes.climbed();
            sizes.truncate(chosen.fit.max(1));
            search.sizes = Sizes::List(sizes);
        }
        return find_plan::run(&search, args.rate.asked(common), common.json);
    }
    let found = match within.zip(chosen.as_ref()) {
        None => find(&search)?,
        Some((within, chosen)) => found_within(&mut search, within, chosen)?,
    };
    let Some(found) = found else { return Err(suspended("--runs", &args.run.runs)) };
    if let Some(chosen) = chosen.as_mut().filter(|_| found.epochs > config.train.epochs) {
        let [first, last] = [config.train.epochs, found.epochs].map(describe_epochs);
        chosen.longer = Some(format!("time was left: runs went on from {first} to {last} epochs"));
    }
    let files = written(&args, &found, &set, &open[0], within.is_some())?;
    let again = match within {
        Some(within) => longer(&["--within"], &format!("--within {}s", 4.0 * within.seconds)),
        None => {
            let epochs = describe_epochs(2.0 * found.epochs);
            longer(&["--epochs", "--duration"], &format!("--epochs {epochs}"))
        }
    };
    match common.json {
        true => {
            let mut results = answer::results(&found);
            if let Some(chosen) = &chosen {
                results["within"] = serde_json::json!({
                    "seconds": args.within,
                    "resolution": set.resolution,
                    "said": chosen.said.iter().chain(&chosen.longer).collect::<Vec<_>>(),
                });
            }
            say!("{results}");
        }
        false => {
            if let Some(chosen) = &chosen {
                chosen.said.iter().chain(&chosen.longer).for_each(|line| say!("{line}"));
            }
            describe(&found, &again, &files);
        }
    }
    passed_over("--runs", found.damage)
}

/// What can be said of flags before a set is read; makes the folder that `--out` names.
fn check(args: &Args) -> Result<()> {
    check_side("--resolution", args.resolution)?;
    if let (Some(side), None) = (args.resolution, args.within) {
        return Err(usage(format!(
            "--resolution: {side}, but only a search in a given time (--within TIME) scales images; \
             `emm data subset --resolution {side}` makes such a set"
        )));
    }
    if let Some(out) = args.out.as_ref().filter(|_| !args.plan) {
        check_ending("--out", out, "what find writes", &[])?;
        if out.is_file() {
            let out = out.display();
            return Err(usage(format!("--out: {out}: is a file, expected a folder to write into")));
        }
        fs::create_dir_all(out)
            .or_exit(Exit::Other, || format!("--out: {}: cannot create", out.display()))?;
        let page = args.within.map(|_| "report.html");
        let results = if args.predict { "predicted.json" } else { "results.json" };
        for name in [Some(results), page].into_iter().flatten() {
            check_output(&out.join(name), args.force)?;
        }
    }
    Ok(())
}

/// Where a search begins without `--lo`.
const LO: usize = 500;

/// The sizes that flags name, of a set.
fn sizes(args: &Args, set: &Dataset) -> Sizes {
    let classes = if set.labels.is_some() { set.label_dim() } else { 0 };
    // The smallest sets are not yet as the larger ones.
    let lo = if args.predict { 2 * first_size(classes, set.len()) } else { LO };
    match &args.sizes {
        Some(sizes) => Sizes::List(sizes.clone()),
        None => {
            Sizes::Between { lo: args.lo.unwrap_or(lo), hi: args.hi.unwrap_or(most_balanced(set)) }
        }
    }
}

/// What does the runs of a search, of the devices that are open.
fn devices(args: &Args, search: &EmmSearch, common: &Common) -> Result<Vec<Device>> {
    let open = search.devices;
    let runs = match open[0].cuda() {
        Some(_) => search.at_once()?,
        None => vec![search.config.clone()],
    };
    args.devices(open, &runs, at_once::SECONDS, common)
}

/// Searches in a given time; `None` if a signal stopped it.
fn found_within(search: &mut EmmSearch, within: Within, chosen: &Chosen) -> Result<Option<Found>> {
    match find_within(search, &chosen.rates, within, !chosen.epochs_given)? {
        Ended::Found(found) => Ok(Some(*found)),
        Ended::Stopped => Ok(None),
        Ended::Nothing => Err(usage(format!(
            "--within: {}: no size was trained in it; give more time, or --epochs or --sizes that take less",
            duration(within.seconds)
        ))),
    }
}

/// Writes what `--out` asks for, with the page where `page` says so.
fn written(
    args: &Args,
    found: &Found,
    set: &Dataset,
    device: &Device,
    page: bool,
) -> Result<Vec<PathBuf>> {
    let Some(out) = &args.out else { return Ok(Vec::new()) };
    let name = args.data.display().to_string();
    let stem = args.data.file_stem().map_or(name.clone(), |s| s.to_string_lossy().into());
    let mut files = views::write(found, set, &name, &stem, device, out, args.force)?;
    if page {
        files.push(write_page(out, args.force)?);
    }
    Ok(files)
}

/// The same command with `added` in place of the flags of `dropped`.
fn longer(dropped: &[&str], added: &str) -> String {
    let mut words = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned());
    let (mut command, mut force) = (String::from("emm"), false);
    while let Some(word) = words.next() {
        let flag = word.split('=').next().unwrap_or(&word);
        match flag {
            _ if dropped.contains(&flag) => {
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
    format!("{command} {added}{}", if force { " --force" } else { "" })
}

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
