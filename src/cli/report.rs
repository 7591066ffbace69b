//! `emm report`: a folder as one HTML page.

use super::{Common, say};
use crate::error::usage;
use crate::files::{check_output, write_atomic};
use crate::study::report::gather;
use anyhow::Result;
use serde_json::json;
use std::io::Write as _;
use std::path::PathBuf;

/// Write one HTML page of everything in a folder: answer, tables, figures, runs, sheets, settings, costs
///
/// The folder is one that `quickstart` or `find` wrote, a folder of runs, one run, or any folder of charts (the
/// .json of `emm figure`), tables (.csv) and sheets (.png). The page is one file without links to elsewhere: it can be
/// sent, read on a phone and printed.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  emm report quickstart
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
    /// Replace the page if it exists
    #[arg(long)]
    force: bool,
}

pub fn run(args: Args, common: &Common) -> Result<()> {
    let out = args.out.unwrap_or_else(|| args.folder.join("report.html"));
    if out.extension().is_none_or(|e| e != "html") {
        return Err(usage(format!("--out: expected a .html file, found {}", out.display())));
    }
    let gathered = gather(&args.folder, args.title.as_deref(), Vec::new())?;
    check_output(&out, args.force)?;
    let html = gathered.page.html();
    write_atomic(&out, args.force, |file| Ok(file.write_all(html.as_bytes())?))?;
    let g = &gathered;
    if common.json {
        say!(
            "{}",
            json!({
                "out": out.display().to_string(),
                "bytes": html.len(),
                "runs": g.runs,
                "charts": g.charts,
                "tables": g.tables,
                "pictures": g.pictures,
            })
        );
    } else {
        say!("{} ({} kB)", out.display(), html.len().div_ceil(1000));
    }
    Ok(())
}
