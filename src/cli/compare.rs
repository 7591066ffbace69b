//! `emm compare`: two networks from the same noise.

use super::common::check_least;
use super::endings::check_ending;
use super::gap_flags::check;
use super::samples_io::Stages;
use super::samples_set::{last, two_at_least};
use super::{Common, open_set, say};
use crate::data::Dataset;
use crate::error::{data, usage};
use crate::files::{check_output_dir, stranger, write_dir_atomic};
use crate::model::SavedModel;
use crate::numbers::count;
use crate::run::DataId;
use crate::run::dir::model_at;
use crate::sampler::HeunOptions;
use crate::study::compare::compare;
use crate::views::compare::{CompareView, NAMES};
use anyhow::Result;
use std::fs;
use std::path::{Path, PathBuf};

/// Compare what two networks make of the same noise with what each was trained on
///
/// Networks that were trained on disjoint parts of a set make nearly the same image of the same noise once the parts are
/// large, and copies of their own training images while these are few (Kadkhodaie et al. 2024, arXiv:2310.02557).
///
/// Distances are L2 over 8-bit pixels, told as root mean squares; cosines are of images less their own mean; copies are those
/// of `emm score`. Seeds are --seed, --seed + 1, …: image for image the samples of `emm sample`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example:
  emm data subset digits.zip --size 800 --out a.zip
  emm data subset digits.zip --size 800 --without a.zip --out b.zip
  emm compare runs/a runs/b --data-a a.zip --data-b b.zip --out alike")]
pub struct Args {
    /// A run, of which the best evaluation is taken, or a model file
    #[arg(value_name = "A")]
    a: PathBuf,
    /// The other one
    #[arg(value_name = "B")]
    b: PathBuf,
    /// The set that A was trained on, in any form that `emm data import` reads
    #[arg(long, value_name = "SET")]
    data_a: PathBuf,
    /// The set that B was trained on
    #[arg(long, value_name = "SET")]
    data_b: PathBuf,
    /// Samples of each network
    #[arg(long, value_name = "N", value_parser = count, default_value = "1k")]
    count: usize,
    /// Noise levels of the sampler above zero
    #[arg(long, value_name = "N", default_value_t = HeunOptions::default().steps)]
    steps: usize,
    /// Write numbers, chart and a sheet into this folder
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Replace --out if it exists
    #[arg(long)]
    force: bool,
}

/// More samples than this are a slip of the hand.
const MOST: usize = 1_000_000;

/// What is written into a folder.
const FILES: [&str; 7] = [
    "compare.json",
    "distances.csv",
    "distances.pdf",
    "distances.png",
    "distances.svg",
    "seeds.csv",
    "sheet.png",
];

/// Prints how alike two networks' samples are, and how near their training sets.
///
/// # Errors
/// Usage: flags, or an output that is there. Data: networks or sets that do not fit one another.
pub fn run(args: Args, common: &Common) -> Result<()> {
    let device = common.device()?;
    check_least(&[("--count", args.count, 2)])?;
    if args.count > MOST {
        return Err(usage(format!("--count: {}, expected 2 to {MOST}", args.count)));
    }
    let Some(end) = common.seed.checked_add(args.count as u64) else {
        return Err(usage(format!("--seed: too large for --count {} more seeds", args.count)));
    };
    let options = HeunOptions { steps: args.steps, ..HeunOptions::default() };
    options.check()?;
    let foreign = |folder: &Path| stranger(folder, &FILES);
    if let Some(out) = &args.out {
        check_ending("--out", out, "a comparison", &[])?;
        check_output_dir(out, args.force, &foreign)?;
    }
    let [(file_a, a), (file_b, b)] = [model_at(&args.a)?, model_at(&args.b)?];
    alike_in_shape(&args, &a, &b)?;
    let (a, of_a, foreign_a) = side(a, &args.data_a, common)?;
    let (b, of_b, foreign_b) = side(b, &args.data_b, common)?;

    let mut stages = Stages::new(common.quiet);
    let mut progress = |what, done, of| stages.at(what, done, of);
    let seeds = (common.seed..end).collect();
    let comparison = compare([a, b], [&of_a, &of_b], seeds, &options, &device, &mut progress)?;
    drop(stages);
    let view = CompareView {
        comparison: &comparison,
        networks: [&args.a, &args.b].map(|path| path.display().to_string()),
        files: [file_a, file_b].map(|file| file.display().to_string()),
        sets: [last(&args.data_a), last(&args.data_b)],
        foreign: [foreign_a, foreign_b],
        steps: args.steps,
    };
    if let Some(out) = &args.out {
        let chart = view.chart();
        let files = [
            ("compare.json", format!("{:#}\n", view.json()).into_bytes()),
            ("distances.csv", chart.table().csv().into_bytes()),
            ("distances.pdf", chart.pdf()?),
            ("distances.png", chart.png()?),
            ("distances.svg", chart.svg().into_bytes()),
            ("seeds.csv", view.seeds().csv().into_bytes()),
            ("sheet.png", view.sheet()?),
        ];
        write_dir_atomic(out, args.force, &foreign, |folder| {
            files.iter().try_for_each(|(name, bytes)| Ok(fs::write(folder.join(name), bytes)?))
        })?;
    }
    if common.json {
        say!("{}", view.json());
        return Ok(());
    }
    for (name, (file, set)) in NAMES.iter().zip(view.files.iter().zip(&view.sets)) {
        say!("{name}  {file}, set {set}");
    }
    say!("\n{}\n{}", view.networks().plain(), view.pairs().plain());
    view.notes().iter().for_each(|note| say!("note: {note}"));
    if let Some(said) = view.said() {
        say!("{said}");
    }
    if let Some(out) = &args.out {
        say!("{}", out.join("sheet.png").display());
    }
    Ok(())
}

/// That both networks make images of one shape, with as many classes.
fn alike_in_shape(args: &Args, a: &SavedModel, b: &SavedModel) -> Result<()> {
    let shape = |m: &SavedModel| (m.config.resolution, m.config.image_channels, m.config.label_dim);
    if shape(a) == shape(b) {
        return Ok(());
    }
    let said = |m: &SavedModel| {
        let (side, channels, classes) = shape(m);
        format!("{side}x{side} pixels, {channels} channels and {classes} classes")
    };
    let (name, other) = (args.b.display(), args.a.display());
    Err(data(format!(
        "{name}: expected a network for {} as {other} is, found {}",
        said(a),
        said(b)
    )))
}

/// A network, the set that it is said to have been trained on as it sees that, and whether it was trained on another one.
fn side(
    model: SavedModel,
    path: &Path,
    common: &Common,
) -> Result<(SavedModel, Dataset, Option<bool>)> {
    let mut set = open_set(path, common)?;
    two_at_least(path, &set)?;
    check(&model, &mut set, &path.display().to_string())?;
    let foreign = DataId::of_model(&model).map(|own| own != DataId::of(&set));
    Ok((model, set, foreign))
}
