//! `emm report`: a folder as one HTML page.

use super::study_flags::StudyFlags;
use super::{Common, say, say_json};
use crate::error::usage;
use crate::files::{check_output, write_bytes};
use crate::memory::Size;
use crate::numbers::count;
use crate::study::theirs::Theirs;
use crate::study::{Study, StudyPlan, passed_over};
use crate::views::report::gather;
use anyhow::Result;
use std::path::{Path, PathBuf};

/// Write one HTML page of everything in a folder: answer, tables, figures, runs, sheets, settings, costs
///
/// With --scale and --data as `emm sweep run` had them, the paper's tables and figures of finished runs are shown
/// too.
///
/// The folder is one that `quickstart` or `find` wrote, a folder of runs, one run, or any folder of charts (the
/// .json of `emm figure`), tables (.csv) and sheets (.png). Of a run, what `emm gap --holdout` wrote into its folder gap is
/// shown too. The page is one file without links to elsewhere: it can be
/// sent, read on a phone and printed.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  emm report quickstart
  emm report runs --scale tiny
  emm report runs --theirs 00000-cifar10-1000-uncond-ddpmpp-vp-gpus8-batch512-fp32
  emm report runs --out runs.html --title \"Digits, wider networks\"")]
pub struct Args {
    /// Folder to report on
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// The page [default: DIR/report.html]
    #[arg(long, value_name = "F.html")]
    out: Option<PathBuf>,
    /// Title of the page [default: the folder's name]
    #[arg(long, value_name = "TEXT")]
    title: Option<String>,
    /// Set a run of DiffMemorize's program beside: its mem_traj.log, an npz of its knn-dist, or the folder of both;
    /// N= says its training images where its folder's name or training_options.json does not
    #[arg(long, value_name = "[N=]PATH")]
    theirs: Vec<String>,
    #[command(flatten)]
    flags: StudyFlags,
    /// Replace the page if it exists
    #[arg(long)]
    force: bool,
}

/// Writes the page of a folder.
///
/// # Errors
/// Usage: flags, or an output that is there. Data: no such folder, nothing in it to show, or runs passed over for
/// damage.
pub fn run(args: Args, common: &Common) -> Result<()> {
    let out = args.out.clone().unwrap_or_else(|| args.folder.join("report.html"));
    if out.extension().is_none_or(|e| e != "html") {
        return Err(usage(format!("--out: expected a .html file, found {}", out.display())));
    }
    let theirs = args.theirs.iter().map(|t| read_theirs(t)).collect::<Result<Vec<_>>>()?;
    let gathered = gather(&args.folder, args.title.as_deref(), &plans(&args, common)?, theirs)?;
    check_output(&out, args.force)?;
    let html = gathered.page.html();
    write_bytes(&out, args.force, &html)?;
    let g = &gathered;
    if common.json {
        say_json!({
            "out": out.display().to_string(),
            "bytes": html.len(),
            "runs": g.runs,
            "charts": g.charts,
            "tables": g.tables,
            "pictures": g.pictures,
        });
    } else {
        say!("{} ({})", out.display(), Size(html.len() as u64));
    }
    passed_over(&args.folder.display().to_string(), gathered.damage)
}

/// `PATH` or `N=PATH`.
fn read_theirs(text: &str) -> Result<Theirs> {
    let numbered = text.split_once('=').and_then(|(n, path)| Some((count(n).ok()?, path)));
    match numbered {
        Some((size, path)) => Theirs::read(Path::new(path), Some(size)),
        None => Theirs::read(Path::new(text), None),
    }
}

/// All studies at the scale that is asked for, as far as there is a set: their runs lie in the folder or its `runs`.
fn plans(args: &Args, common: &Common) -> Result<Vec<StudyPlan>> {
    let inner = args.folder.join("runs");
    let runs = if inner.is_dir() { inner } else { args.folder.clone() };
    let setup = args.flags.setup(common, &runs)?;
    match setup.set {
        Some(_) => args.flags.plans(&Study::shipped(), &setup),
        None => Ok(Vec::new()),
    }
}
