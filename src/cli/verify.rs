//! `emm verify`: trains runs again and compares their bits with what was kept.

use super::endings::check_ending;
use super::{Common, open_set, say};
use crate::data::Dataset;
use crate::device::{Cpu, Device};
use crate::error::{Exit, OrExit as _, data, fail, usage};
use crate::files::{check_output, write_bytes};
use crate::numbers::count;
use crate::run::rate;
use crate::study::passed_over;
use crate::study::verify::{
    Certificate, Checked, Verdict, VerifyCell, Which, cells_of, check, checked, chosen, set_of,
};
use crate::views::verify as views;
use anyhow::Result;
use sha2::{Digest as _, Sha256};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Train runs again and compare every bit with what was kept of them
///
/// Of each run that is chosen its snapshots, its state and its rows of scores are compared with those of a training from the
/// beginning, on the CPU, up to the last that is kept or to the first that differs: then step, tensor and value are named. A
/// run that is not finished is compared as far as it is saved. Nothing is written where the runs lie; what is trained lies
/// under TMPDIR until it is compared. Runs of a GPU, and those of a version with other numerics, cannot be compared.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  emm verify runs/digits
  emm verify emm/results.json --data digits.zip --cells 3 --out emm/verify.json
  emm verify runs --cells all --steps 1k")]
pub struct Args {
    /// A run, a folder of runs, or the results.json of a search
    #[arg(value_name = "DIR|results.json")]
    path: PathBuf,
    /// Which runs: the N that cost least, all, or names or their beginnings
    #[arg(long, value_name = "N|all|NAME,…", default_value = "1")]
    cells: String,
    /// Train each run no further
    #[arg(long, value_name = "K", value_parser = count)]
    steps: Option<usize>,
    /// The set that the runs were trained on, or that their subsets were taken of [default: where it was then]
    #[arg(long, value_name = "SET")]
    data: Option<PathBuf>,
    /// Write the certificate, which `emm report` of a folder shows where it is called verify.json there
    #[arg(long, value_name = "F.json")]
    out: Option<PathBuf>,
    /// Replace --out if it exists
    #[arg(long)]
    force: bool,
}

/// Prints which runs give the same bits again.
///
/// # Errors
/// Usage: flags, an output that is there, runs that cannot be compared. Data: another set, a run that differs or is
/// damaged.
pub fn run(args: Args, common: &Common) -> Result<()> {
    if common.asks_gpu()? {
        return Err(usage(format!(
            "--device: {}, but only a CPU gives the same bits everywhere; expected cpu",
            common.device
        )));
    }
    let which = which(&args.cells)?;
    if args.steps == Some(0) {
        return Err(usage("--steps: 0, expected 1 at least"));
    }
    if let Some(out) = &args.out {
        check_ending("--out", out, "a certificate", &["json"])?;
        check_output(out, args.force)?;
    }
    let (cells, broken) = cells_of(&args.path)?;
    let runs = cells.len();
    let cells = chosen(cells, &which)?;
    let device = Device::Cpu(Cpu::new(common.threads)?);
    let mut sets = Sets { asked: args.data.as_deref(), common, open: Vec::new() };
    let mut all = Vec::new();
    for cell in &cells {
        all.push(look_at(cell, &mut sets, &args, &device, common)?);
    }
    let certificate = Certificate {
        emm: env!("CARGO_PKG_VERSION").into(),
        binary_sha256: own_hash()?,
        processor: rate::processor(),
        date: today(),
        of: args.path.display().to_string(),
        runs,
        cells: all,
    };
    let text = serde_json::to_string_pretty(&certificate)? + "\n";
    if let Some(out) = &args.out {
        write_bytes(out, args.force, text)?;
    }
    match common.json {
        true => say!("{}", serde_json::to_string(&certificate)?),
        false => {
            say!("{}", views::table(&certificate).plain().trim_end());
            views::notes(&certificate).iter().for_each(|note| say!("{note}"));
        }
    }
    certificate.judged()?;
    passed_over(&args.path.display().to_string(), broken)
}

/// Trains a run again, unless its bits cannot be compared.
fn look_at(
    cell: &VerifyCell,
    sets: &mut Sets,
    args: &Args,
    device: &Device,
    common: &Common,
) -> Result<Checked> {
    if let Some(why) = cell.config.train.numerics.incomparable() {
        return Ok(checked(cell, Verdict::NotCompared, Some(why)));
    }
    if cell.kept.dir.as_ref().is_some_and(|dir| dir.is_locked()) {
        return Err(fail(Exit::Other, format!("{}: another process works in this run", cell.name)));
    }
    let set = sets.of(cell)?;
    let steps = args.steps.map_or(u64::MAX, |steps| steps as u64);
    check(device, cell, &set, steps, common.quiet)
}

/// `3`, `all` or `NAME,NAME`.
fn which(text: &str) -> Result<Which> {
    match (text, text.parse::<usize>()) {
        ("all", _) => Ok(Which::All),
        (_, Ok(0)) => Err(usage("--cells: 0, expected 1 at least")),
        // A run's name is a hash, which may be of digits alone.
        (_, Ok(count)) if text.len() < 8 => Ok(Which::Cheapest(count)),
        _ => {
            let names: Vec<String> = text.split(',').map(|name| name.trim().into()).collect();
            match names.iter().any(String::is_empty) {
                true => Err(usage(format!("--cells: {text:?}, expected a number, all, or names"))),
                false => Ok(Which::Named(names)),
            }
        }
    }
}

/// Sets that were opened, by their names.
struct Sets<'a> {
    asked: Option<&'a Path>,
    common: &'a Common,
    open: Vec<(String, Dataset)>,
}

impl Sets<'_> {
    /// The images that a run was trained on.
    ///
    /// # Errors
    /// Data: no set, or another one.
    fn of(&mut self, cell: &VerifyCell) -> Result<Dataset> {
        let noted = cell.noted.as_deref().map(Path::new).filter(|path| path.exists());
        let known = &cell.config.data;
        let needs = format!(
            "{} was trained on {} images with SHA-256 {}…",
            cell.name,
            known.images,
            known.sha256_pixels.chars().take(12).collect::<String>()
        );
        let path = self.asked.or(noted);
        let found = match path {
            Some(path) => {
                let base = self.opened(path)?;
                set_of(&cell.config, base, &path.display().to_string())
            }
            None => set_of(&cell.config, &Dataset::digits(), "the bundled digits"),
        };
        found.ok_or_else(|| match (path, &cell.noted) {
            (Some(path), _) => {
                let flag = if self.asked.is_some() { "--data: " } else { "" };
                data(format!("{flag}{}: another set than that of the run: {needs}", path.display()))
            }
            (None, noted) => {
                let there = noted.as_ref().map_or(String::new(), |n| format!(", which lay at {n}"));
                data(format!("--data: not given, and needed: {needs}{there}"))
            }
        })
    }

    fn opened(&mut self, path: &Path) -> Result<&Dataset> {
        let name = path.display().to_string();
        let at = match self.open.iter().position(|(known, _)| *known == name) {
            Some(at) => at,
            None => {
                self.open.push((name, open_set(path, self.common)?));
                self.open.len() - 1
            }
        };
        Ok(&self.open[at].1)
    }
}

/// SHA-256 of this program's file.
fn own_hash() -> Result<String> {
    let what = || "verify: this program".to_string();
    let path = std::env::current_exe().or_exit(Exit::Other, what)?;
    let mut file = std::fs::File::open(path).or_exit(Exit::Other, what)?;
    let mut hash = Sha256::new();
    io::copy(&mut file, &mut hash).or_exit(Exit::Other, what)?;
    Ok(hash.finalize().iter().map(|b| format!("{b:02x}")).collect())
}

fn today() -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    rate::utc(now.as_secs())
}
