//! The flags of `emm gap`, and what both of its measurements share.

use super::endings::check_ending;
use crate::data::Dataset;
use crate::error::{data, usage};
use crate::files::{check_output, check_output_dir, stranger};
use crate::model::{Precond, SavedModel};
use crate::numbers::count;
use anyhow::Result;
use std::io;
use std::path::{Path, PathBuf};

/// Compare a network with the theoretical optimum at the sampler's noise levels
///
/// At each level, over draws of a training image with noise: the loss's weight times the squared distance of
/// the network to the optimum, and the losses of both. The network's is about the sum of the other two.
///
/// With --holdout the same over images of both sets, beside the loss of the Gaussian of the training images' mean and
/// covariance (Wang & Vastola 2024; of all classes). Whether the network's loss of an image, mean over --noises, tells its
/// training images from the others is said as the area under the ROC curve and as the share of training images
/// that are found while 1% of the others are taken for some: at each level; by the mean over levels of an image's rank,
/// which chooses none; and at the best level, chosen on every second image and measured on the others. How many images the
/// optimum is effectively a mean of is e to the entropy of their weights, mean over draws; where that falls through 2 for
/// good, interpolated in logarithms, it has chosen one. Both sets have to be drawn alike: where they differ otherwise, losses
/// do, too.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  emm gap --run runs/digits --data digits.zip --draws 1k
  emm gap --run runs/digits --data train.zip --holdout test.zip --out runs/digits/gap")]
pub struct Args {
    /// The best evaluation of this run
    #[arg(long, value_name = "DIR", required_unless_present = "model", conflicts_with = "model")]
    pub run: Option<PathBuf>,
    /// A model file
    #[arg(long, value_name = "F.safetensors")]
    pub model: Option<PathBuf>,
    /// The set that it was trained on, in any form that `emm data import` reads
    #[arg(long, value_name = "SET")]
    pub data: PathBuf,
    /// Images like those that it was not trained on
    #[arg(long, value_name = "SET", conflicts_with = "draws")]
    pub holdout: Option<PathBuf>,
    /// Noise levels, as the sampler spaces them
    #[arg(long, value_name = "N", value_parser = count, default_value = "18")]
    pub levels: usize,
    /// Noisy images at each level
    #[arg(long, value_name = "N", value_parser = count, default_value = "256")]
    pub draws: usize,
    /// The most images of each set, with --holdout
    #[arg(long, value_name = "N", value_parser = count, default_value = "500", requires = "holdout")]
    pub images: usize,
    /// Noisy versions of each image at each level, with --holdout
    #[arg(long, value_name = "N", value_parser = count, default_value = "4", requires = "holdout")]
    pub noises: usize,
    /// Write the table as CSV; or, with --holdout, page, table and charts into this folder, which `emm report` of the run shows
    /// where it is the run's folder gap
    #[arg(long, value_name = "F.csv|DIR")]
    pub out: Option<PathBuf>,
    /// Replace --out if it exists
    #[arg(long)]
    pub force: bool,
}

/// Images in one evaluation.
pub const BATCH: usize = 64;

/// The noise levels, the loss's weight, and what begins the line that says that a loss is not finite.
pub struct Levels<'a> {
    pub sigmas: Vec<f64>,
    pub precond: Precond,
    pub not_finite: &'a dyn Fn() -> String,
}

/// What may be written into a folder.
pub const FILES: [&str; 7] =
    ["gap.html", "gap.json", "levels.csv", "losses.json", "losses.pdf", "losses.png", "losses.svg"];

/// What in a folder no `emm gap` wrote.
pub fn not_ours(folder: &Path) -> io::Result<Option<String>> {
    stranger(folder, &FILES)
}

/// That numbers are in their ranges, and that the output may be written.
pub fn check_flags(args: &Args) -> Result<()> {
    let numbers = [
        ("--levels", args.levels),
        ("--draws", args.draws),
        ("--images", args.images),
        ("--noises", args.noises),
    ];
    for (flag, value) in numbers {
        if value == 0 || value > u32::MAX as usize {
            return Err(usage(format!("{flag}: {value} is outside 1..{}", u32::MAX)));
        }
    }
    if args.images as u64 * args.noises as u64 > u32::MAX as u64 {
        return Err(usage(format!(
            "--noises: {} of {} images each are more than 2^32",
            args.noises, args.images
        )));
    }
    let Some(out) = &args.out else { return Ok(()) };
    match args.holdout.is_some() && !is_csv(out) {
        true => {
            check_ending("--out", out, "a page with tables and charts", &[])?;
            check_output_dir(out, args.force, &not_ours)
        }
        false => {
            check_ending("--out", out, "the table", &["csv"])?;
            check_output(out, args.force)
        }
    }
}

/// Whether --out names a table.
pub fn is_csv(out: &Path) -> bool {
    out.extension().is_some_and(|e| e.eq_ignore_ascii_case("csv"))
}

/// That the network is for images like these; an unconditional one does not look at labels.
pub fn check(model: &SavedModel, set: &mut Dataset, name: &str) -> Result<()> {
    let m = &model.config;
    if (m.resolution, m.image_channels) != (set.resolution, set.channels) {
        return Err(data(format!(
            "{name}: {r}x{r} pixels and {} channels, the network is for {n}x{n} and {}",
            set.channels,
            m.image_channels,
            r = set.resolution,
            n = m.resolution,
        )));
    }
    if m.label_dim == 0 {
        set.labels = None;
    } else if set.label_dim() == 0 || set.label_dim() > m.label_dim {
        return Err(data(format!(
            "{name}: {} classes, the network has {}",
            set.label_dim(),
            m.label_dim
        )));
    }
    Ok(())
}
