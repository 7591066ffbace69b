//! `emm data`: makes data sets of downloaded files, subsets of data sets, and tells what a set holds.

use super::dedupe::{self, DedupeArgs};
use super::endings::check_ending;
use super::{Common, note_line, open_set, say};
use crate::data::options::Options;
use crate::data::subset::{self, Blend, Labels, Subset};
use crate::data::{Dataset, Transform, kept, open_any};
use crate::error::{data, usage};
use crate::files::check_output;
use crate::numbers::{count, side};
use anyhow::Result;
use serde_json::json;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// Make, cut and look at data sets
#[derive(clap::Subcommand, Debug)]
pub enum Command {
    Import(ImportArgs),
    Subset(SubsetArgs),
    Inspect(InspectArgs),
    Dedupe(DedupeArgs),
}

/// Make a data set (EDM zip) of downloaded files
///
/// Reads a folder or zip of images (PNG, BMP, TIFF, WebP, JPEG), of class folders or in EDM's layout; npz, npy;
/// Hugging Face's Parquet and WebDataset tars, several or a folder of them; CIFAR-10's and CIFAR-100's archives or
/// batches, of which the training images are taken; IDX images (.gz or not) and STL-10's _X.bin, labels beside or as a
/// second SRC; SVHN's .mat. Each image is cropped, padded, resampled, in this order.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  emm data import cifar-10-python.tar.gz --out cifar10.zip
  emm data import train-images-idx3-ubyte.gz --pad 32 --out fashion.zip
  emm data import dogs --center-crop --resolution 32 --rgb --size 2000 --spread --shuffle \\
      --allow-lossy --out dogs.zip")]
pub struct ImportArgs {
    /// Files or folders of one set
    #[arg(value_name = "SRC", required = true)]
    sources: Vec<PathBuf>,
    /// The data set to write
    #[arg(long, value_name = "D.zip")]
    out: PathBuf,
    /// Keep the central square of each image
    #[arg(long)]
    center_crop: bool,
    /// Surround each image with zeros up to this many pixels
    #[arg(long, value_name = "PIXELS")]
    pad: Option<usize>,
    /// Resample to this many pixels (Lanczos, as Pillow does it)
    #[arg(long, value_name = "PIXELS", value_parser = side)]
    resolution: Option<usize>,
    /// Make grey images RGB by repeating their channel
    #[arg(long)]
    rgb: bool,
    /// Only the first N images
    #[arg(long, alias = "max-images", value_name = "N", value_parser = count)]
    size: Option<usize>,
    /// Of each class or folder an equal share of --size, the first ones
    #[arg(long, requires = "size")]
    spread: bool,
    /// Put the chosen images in an order drawn by --seed
    #[arg(long)]
    shuffle: bool,
    /// Replace --out if it exists
    #[arg(long)]
    force: bool,
}

/// Cut a subset of a data set: the paper's sizes, classes, blends and labels
///
/// Of k classes each gives its first N/k images, class 0 first, the last one what is missing to N; sets without
/// labels give their first N.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  emm data subset cifar10.zip --size 1000 --out c1k.zip
  emm data subset cifar10.zip --size 2000 --classes 2 --labels random:10 --out two.zip
  emm data subset cifar10.zip --size 1000 --class 5 --blend dogs.zip:0.8 --labels none --out blend.zip")]
pub struct SubsetArgs {
    /// The data set to take from
    #[arg(value_name = "D.zip")]
    data: PathBuf,
    /// The data set to write
    #[arg(long, value_name = "S.zip")]
    out: PathBuf,
    /// Number of images
    #[arg(long, alias = "max-images", value_name = "N", value_parser = count)]
    size: usize,
    /// Only the first C classes
    #[arg(long, value_name = "C", conflicts_with = "class")]
    classes: Option<usize>,
    /// Only this class
    #[arg(long, value_name = "K")]
    class: Option<u32>,
    /// Leave out the images that this set holds, by their pixels, before any is taken: what held-out images are
    #[arg(long, value_name = "SET")]
    without: Option<PathBuf>,
    /// Take the share ALPHA of the images from E.zip instead
    #[arg(long, value_name = "E.zip:ALPHA")]
    blend: Option<String>,
    /// True labels, labels drawn by --seed as Python's random does, as many of each class dealt out by --seed, the
    /// image's index, or none. By default labels are kept if all images have one
    #[arg(long, value_name = "true|random:C|dealt:C|unique|none")]
    labels: Option<Labels>,
    /// Resample to this many pixels (Lanczos, as Pillow does it)
    #[arg(long, value_name = "PIXELS", value_parser = side)]
    resolution: Option<usize>,
    /// Replace --out if it exists
    #[arg(long)]
    force: bool,
}

/// Tell what a data set holds: images, labels and their counts, duplicates, its hash
#[derive(clap::Args, Debug)]
#[command(after_help = "Example:
  emm data inspect cifar10.zip --json")]
pub struct InspectArgs {
    /// A data set, or anything that `emm data import` reads
    #[arg(value_name = "D.zip", required = true)]
    sources: Vec<PathBuf>,
}

/// Runs `emm data`.
pub fn run(command: Command, common: &Common) -> Result<()> {
    match command {
        Command::Import(args) => import(&args, common),
        Command::Subset(args) => cut(&args, common),
        Command::Inspect(args) => inspect(&args, common),
        Command::Dedupe(args) => dedupe::run(&args, common),
    }
}

fn import(args: &ImportArgs, common: &Common) -> Result<()> {
    check_side("--pad", args.pad)?;
    check_side("--resolution", args.resolution)?;
    check_ending("--out", &args.out, "a data set", &["zip"])?;
    check_output(&args.out, args.force)?;
    let options = common.reading.options();
    let source = open_any(&args.sources, &options)?;
    let mut order = match (args.size, &source.groups) {
        (Some(0), _) => return Err(usage("--size: expected at least one image, found 0")),
        (Some(n), _) if n > source.len() => {
            let have = source.len();
            return Err(data(format!("{}: has {have} images, wants {n}", source.name)));
        }
        (Some(n), Some(groups)) if args.spread => subset::spread(groups, n, &source.name)?,
        (Some(_), None) if args.spread => {
            return Err(usage(format!(
                "--spread: {} has neither classes nor folders",
                source.name
            )));
        }
        (Some(n), _) => (0..n).collect(),
        (None, _) => source.all(),
    };
    if args.shuffle {
        subset::shuffle(&mut order, common.seed);
    }
    let transform = Transform {
        center_crop: args.center_crop,
        pad: args.pad,
        resolution: args.resolution,
        rgb: args.rgb,
    };
    let set = source.collect(&order, &transform)?;
    set.save(&args.out, args.force)?;
    let mut notes = source.notes;
    if options.allow_lossy {
        notes.push(
            "--allow-lossy: pixels of JPEG and WebP images differ from the original's".into(),
        );
    }
    describe(&set, &args.out, notes, common)
}

fn cut(args: &SubsetArgs, common: &Common) -> Result<()> {
    check_ending("--out", &args.out, "a data set", &["zip"])?;
    check_output(&args.out, args.force)?;
    let mut from = open_set(&args.data, common)?;
    let mut name = args.data.display().to_string();
    let other = args.without.as_ref().map(|path| open_set(path, common)).transpose()?;
    if let Some((path, other)) = args.without.as_ref().zip(other.as_ref()) {
        let shape = |set: &Dataset| {
            format!("{r}x{r} pixels and {} channels", set.channels, r = set.resolution)
        };
        if shape(other) != shape(&from) {
            return Err(data(format!(
                "--without: {}: {}, {name} has {}",
                path.display(),
                shape(other),
                shape(&from)
            )));
        }
        let classes = from.label_dim();
        from = subset::without(&from, other);
        // Those before are missed where they are taken from.
        if from.label_dim() < classes && !from.is_empty() && !common.quiet {
            let (left, holds) = (from.label_dim(), path.display());
            note_line(&format!(
                "--without: {holds}: holds all images of the last classes of {name}: {left} of {classes} are left"
            ));
        }
        if from.is_empty() {
            return Err(data(format!("--without: {}: holds all images of {name}", path.display())));
        }
        name = format!("{name} without {}", path.display());
    }
    let blend = args.blend.as_deref().map(parse_blend).transpose()?;
    let subset = Subset {
        size: args.size,
        classes: args.classes,
        class: args.class,
        labels: args.labels.unwrap_or(Labels::Keep),
        resolution: args.resolution,
        seed: common.seed,
        blend: match blend {
            Some((path, alpha)) => {
                let name = path.display().to_string();
                let with = open_set(&path, common)?;
                let with =
                    other.as_ref().map_or(with.clone(), |other| subset::without(&with, other));
                Some(Blend { with, name, alpha })
            }
            None => None,
        },
    };
    let set = subset.of(&from, &name)?;
    set.save(&args.out, args.force)?;
    describe(&set, &args.out, Vec::new(), common)
}

fn inspect(args: &InspectArgs, common: &Common) -> Result<()> {
    let options = Options { allow_lossy: true, ..common.reading.options() };
    let (set, notes) = kept::read(&args.sources, &options)?;
    describe(&set, &args.sources[0], notes, common)
}

/// Prints what a set holds, and on stderr what one may not expect of it.
fn describe(set: &Dataset, path: &Path, mut notes: Vec<String>, common: &Common) -> Result<()> {
    let label_counts = set.label_counts();
    notes.extend(set.empty_classes().map(|what| format!("{}: {what}", path.display())));
    if !common.quiet {
        notes.iter().for_each(|note| note_line(note));
    }
    let mut seen = HashSet::with_capacity(set.len());
    let duplicates = (0..set.len()).filter(|&i| !seen.insert(set.image(i))).count();
    if common.json {
        let object = json!({
            "images": set.len(),
            "resolution": set.resolution,
            "channels": set.channels,
            "label_dim": set.label_dim(),
            "label_counts": label_counts,
            "duplicates": duplicates,
            "sha256_pixels": set.sha256_pixels(),
        });
        say!("{object}");
        return Ok(());
    }
    let labels = match label_counts.as_slice() {
        [] => "none".to_string(),
        counts if counts.iter().all(|c| c == &counts[0]) => {
            format!("{} classes of {} images each", counts.len(), counts[0])
        }
        counts if counts.len() <= 20 => {
            let counts: Vec<_> = counts.iter().map(u64::to_string).collect();
            format!("{} classes of {} images", counts.len(), counts.join(", "))
        }
        counts => format!(
            "{} classes of {} to {} images",
            counts.len(),
            counts.iter().min().unwrap_or(&0),
            counts.iter().max().unwrap_or(&0)
        ),
    };
    let colours = if set.channels == 1 { "grey" } else { "RGB" };
    say!("{}", path.display());
    say!("  images      {} of {r}x{r} pixels, {colours}", set.len(), r = set.resolution);
    say!("  labels      {labels}");
    say!("  duplicates  {duplicates}");
    say!("  sha256      {}", set.sha256_pixels());
    Ok(())
}

pub(super) fn check_side(flag: &str, side: Option<usize>) -> Result<()> {
    match side {
        Some(side) if !subset::SIDES.contains(&side) => {
            let [least, most] = [subset::SIDES.start(), subset::SIDES.end()];
            Err(usage(format!("{flag}: expected {least} to {most} pixels, found {side}")))
        }
        _ => Ok(()),
    }
}

fn parse_blend(text: &str) -> Result<(PathBuf, f64)> {
    let parsed = text.rsplit_once(':').and_then(|(path, alpha)| Some((path, alpha.parse().ok()?)));
    match parsed {
        Some((path, alpha)) if (0.0..=1.0).contains(&alpha) && !path.is_empty() => {
            Ok((path.into(), alpha))
        }
        _ => Err(usage(format!(
            "--blend: expected E.zip:ALPHA with ALPHA from 0 to 1, found {text:?}"
        ))),
    }
}
