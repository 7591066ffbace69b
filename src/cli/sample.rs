//! `emm sample`: images of a trained network.

use super::samples_io::{Counter, SampleWriter, StartArgs, check_samples_out};
use super::{Common, say, say_json};
use crate::error::usage;
use crate::model::SavedModel;
use crate::run::RunDir;
use crate::run::score::{Network, labels_of};
use crate::sampler::{HeunOptions, sample_each};
use anyhow::Result;
use std::path::PathBuf;

/// Generate images with a trained network and EDM's Heun sampler
///
/// An image depends on its seed alone, its class too where the network has classes and none is given.
#[derive(clap::Args, Debug)]
#[command(
    group = clap::ArgGroup::new("network").required(true).args(["run", "model"]),
    after_help = "Examples:
  emm sample --run runs/digits --seeds 0-63 --out grid.png
  emm sample --model F.safetensors --seeds 0-9999 --out samples.npz
  emm sample --model F.safetensors --latents z.npy --class 3 --out x.npy"
)]
pub struct Args {
    /// A run's directory: the snapshot of its best evaluation
    #[arg(long, value_name = "DIR")]
    run: Option<PathBuf>,
    /// Model file
    #[arg(long, value_name = "F.safetensors")]
    model: Option<PathBuf>,
    #[command(flatten)]
    start: StartArgs,
    #[command(flatten)]
    heun: HeunOptions,
    /// Images computed at a time; they do not depend on it
    #[arg(long, value_name = "IMAGES", default_value_t = 64)]
    batch: usize,
    /// Folder or .zip of PNGs named by seed, .npz, .png (a grid), or .npy (float32 [S,C,H,W])
    #[arg(long, alias = "outdir", value_name = "DIR|F.zip|F.npz|F.png|F.npy")]
    out: PathBuf,
    /// Replace --out if it exists
    #[arg(long)]
    force: bool,
}

/// Writes samples of a network.
///
/// # Errors
/// Usage: flags, or an output that is there. Data: no model, or a run without one.
pub fn run(args: Args, common: &Common) -> Result<()> {
    let device = common.device()?;
    args.heun.check()?;
    if args.batch == 0 {
        return Err(usage("--batch: 0 images, at least 1 is needed"));
    }
    check_samples_out(&args.out, args.force)?;
    let (file, model) = match (&args.run, &args.model) {
        (Some(run), _) => RunDir::new(run).best_snapshot()?,
        (None, Some(model)) => (model.clone(), SavedModel::open(model)?),
        (None, None) => return Err(usage("--model: give a model file, or --run")),
    };
    let c = model.config.clone();
    let beginnings = args.start.beginnings(c.resolution, c.image_channels)?;
    let seeds = &beginnings.seeds;
    let labels = match args.start.labels(seeds.len(), c.label_dim)? {
        Some(labels) => labels,
        None => labels_of(seeds, c.label_dim),
    };
    let mut writer = SampleWriter::new(&args.out, args.force, c.resolution, c.image_channels)?;
    let mut network = Network::new(&device, model, args.batch.min(seeds.len()), &|| false)?;
    let mut counter = Counter::new("sampling", seeds.len(), common.quiet);
    sample_each(&mut network, beginnings.start(), &labels, &args.heun, &mut |first, batch| {
        let batch = batch.values()?;
        writer.push(&batch);
        counter.at(first + batch.len() / c.image_len());
        Ok(true)
    })?;
    drop(counter);
    writer.finish(seeds, &labels)?;
    match common.json {
        true => say_json!({
            "images": seeds.len(),
            "model": file.display().to_string(),
            "out": args.out.display().to_string(),
        }),
        false => say!("{} samples of {} in {}", seeds.len(), file.display(), args.out.display()),
    }
    Ok(())
}
