//! `emm audit`: what of any model's samples copies what.

use super::endings::check_ending;
use super::samples_io::Stages;
use super::samples_set::{check_shape, last, read_samples, two_at_least};
use super::{Common, open_set, say};
use crate::files::{check_output_dir, stranger, write_dir_atomic};
use crate::memorization::Threshold;
use crate::run::audit::{AuditOptions, audit};
use crate::views::audit::{AuditView, Names};
use anyhow::Result;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Say of any model's samples which copy a training image, which training images are copied, and what duplicates hide
///
/// A sample is a copy if it is less than --threshold times as far from its nearest training image as from the second
/// nearest (L2 over 8-bit pixels), as in `emm score`. What is no copy is spurious if another sample is the same or would
/// count as its copy (Pham et al. 2025), else novel. With --near or --holdout also AuthPct (Alaa et al. 2022), with --holdout
/// the data-copying statistic C_T (Meehan et al. 2020), over pixels and with all of the space as one cell.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  emm audit --samples out/ --train digits.zip
  emm audit --samples samples.npz --train c10k.zip --mirror --near --out audit
  emm audit --samples out.zip --train train/ --holdout test/ --json")]
pub struct Args {
    /// Samples of any model, in any form that `emm data import` reads, or npy as `emm sample` writes it
    #[arg(long, value_name = "SET")]
    samples: PathBuf,
    /// The images that the model was trained on, at least two
    #[arg(long, alias = "reference", value_name = "SET")]
    train: PathBuf,
    /// Images like the training images that the model has not seen
    #[arg(long, value_name = "SET")]
    holdout: Option<PathBuf>,
    /// Count a sample whose mirror image is a copy, too
    #[arg(long)]
    mirror: bool,
    /// Look for training images that nearly repeat others: each against all, a minute for 100,000 images
    #[arg(long)]
    near: bool,
    /// A copy has d1/d2 below this: a fraction or a decimal
    #[arg(long, value_name = "A/B", default_value = "1/3")]
    threshold: String,
    /// Write page, tables, charts and sheets into this folder
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Replace --out if it exists
    #[arg(long)]
    force: bool,
}

/// Prints what an audit found, and writes it into a folder.
///
/// # Errors
/// Usage: flags, or an output that is there. Data: samples or held-out images of another shape than the training set.
pub fn run(args: Args, common: &Common) -> Result<()> {
    let device = common.device()?;
    let threshold = Threshold::parse(&args.threshold)?;
    if let Some(out) = &args.out {
        check_ending("--out", out, "an audit", &[])?;
        check_output_dir(out, args.force, &foreign)?;
    }
    let training = open_set(&args.train, common)?;
    two_at_least(&args.train, &training)?;
    let samples = read_samples(&args.samples, &training, &args.train, &device, common)?;
    let holdout = match &args.holdout {
        Some(path) => {
            let set = open_set(path, common)?;
            check_shape(path, [set.resolution, set.channels], &args.train, &training)?;
            Some(set)
        }
        None => None,
    };
    let options = AuditOptions { threshold, mirror: args.mirror, near: args.near };
    let mut stages = Stages::new(common.quiet);
    let mut progress = |what, done, of| stages.at(what, done, of);
    let audit = audit(&training, &samples, holdout.as_ref(), options, &device, &mut progress)?;
    drop(stages);
    let names = Names {
        samples: last(&args.samples),
        train: last(&args.train),
        holdout: args.holdout.as_deref().map(last),
        threshold: args.threshold.trim().into(),
    };
    let view = AuditView { audit: &audit, names: &names };
    if let Some(out) = &args.out {
        write(out, args.force, &view)?;
    }
    if common.json {
        say!("{}", view.json());
        return Ok(());
    }
    for (name, value) in view.facts() {
        say!("{name}: {value}");
    }
    for warning in view.warnings() {
        say!("warning: {warning}");
    }
    if let Some(out) = &args.out {
        say!("{}", out.join("audit.html").display());
    }
    Ok(())
}

/// What an audit may write.
const FILES: [&str; 12] = [
    "audit.html",
    "audit.json",
    "copied.csv",
    "copied.png",
    "copies.csv",
    "copies.png",
    "curve.csv",
    "curve.pdf",
    "curve.png",
    "curve.svg",
    "duplicates.csv",
    "samples.csv",
];

/// What in a folder no audit wrote.
fn foreign(folder: &Path) -> io::Result<Option<String>> {
    stranger(folder, &FILES)
}

/// Writes all of an audit into a folder.
fn write(out: &Path, force: bool, view: &AuditView) -> Result<()> {
    let mut sheets = Vec::new();
    sheets.extend(view.copies_sheet()?.map(|png| ("copies.png", png)));
    sheets.extend(view.copied_sheet()?.map(|png| ("copied.png", png)));
    let chart = view.curve();
    let mut files = vec![
        ("audit.html", view.page(&sheets).html().into_bytes()),
        ("audit.json", format!("{:#}\n", view.json()).into_bytes()),
        ("copies.csv", view.copies().csv().into_bytes()),
        ("copied.csv", view.copied().csv().into_bytes()),
        ("samples.csv", view.samples().csv().into_bytes()),
        ("curve.csv", chart.table().csv().into_bytes()),
        ("curve.pdf", chart.pdf()?),
        ("curve.svg", chart.svg().into_bytes()),
        ("curve.png", chart.png()?),
    ];
    files.extend(view.duplicates().map(|table| ("duplicates.csv", table.csv().into_bytes())));
    files.extend(sheets);
    write_dir_atomic(out, force, &foreign, |folder| {
        files.iter().try_for_each(|(name, bytes)| Ok(fs::write(folder.join(name), bytes)?))
    })
}
