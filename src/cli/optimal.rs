//! `emm optimal`: what a model that fits its training images perfectly would do.

use super::samples_io::{
    Counter, SampleWriter, StartArgs, check_samples_out, read_images, read_sigmas, write_images,
};
use super::{Common, open_set, say, say_json};
use crate::data::Dataset;
use crate::error::usage;
use crate::files::check_output;
use crate::sampler::{Denoise, HeunOptions, optimum, sample_each};
use anyhow::Result;
use std::path::{Path, PathBuf};

/// Sample or denoise with the closed-form optimum of a training set
///
/// The optimum of the training loss is known in closed form; it memorizes everything: its samples are training
/// images. --seeds and --latents sample it with the Heun sampler, --images and --sigmas denoise with it. With
/// --class or --labels only the images of that class count.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  emm optimal --data digits.zip --seeds 0-99 --out samples.npz
  emm optimal --data digits.zip --seeds 0-63 --class 7 --out sevens.png
  emm optimal --data digits.zip --images noisy.npy --sigmas sigmas.npy --out clean.npy")]
pub struct Args {
    /// Training images: EDM zip, folder, npz, npy, or what else `emm data import` reads
    #[arg(long, value_name = "SET")]
    data: PathBuf,
    #[command(flatten)]
    start: StartArgs,
    /// Images to denoise instead, float32 [B,C,H,W], pixels in −1..1 plus noise
    #[arg(long, value_name = "F.npy", requires = "sigmas", conflicts_with_all = ["seeds", "latents"])]
    images: Option<PathBuf>,
    /// Their noise levels, float32 [B]
    #[arg(long, value_name = "F.npy", requires = "images")]
    sigmas: Option<PathBuf>,
    #[command(flatten)]
    heun: HeunOptions,
    /// Folder or .zip of PNGs named by seed, .npz, .png (a grid), or .npy (float32 [S,C,H,W])
    #[arg(long, alias = "outdir", value_name = "DIR|F.zip|F.npz|F.png|F.npy")]
    out: PathBuf,
    /// Replace --out if it exists
    #[arg(long)]
    force: bool,
}

/// Writes samples of the optimal denoiser, or images that it denoised.
///
/// # Errors
/// Usage: flags, or an output that is there. Data: images of another shape than the set.
pub fn run(args: Args, common: &Common) -> Result<()> {
    let device = common.device()?;
    args.heun.check()?;
    match args.images.is_some() {
        true if args.out.extension().is_none_or(|e| e != "npy") => {
            return Err(usage("--out: denoised images are written as .npy"));
        }
        true => check_output(&args.out, args.force)?,
        false => check_samples_out(&args.out, args.force)?,
    }
    let data = open_set(&args.data, common)?;
    let mut optimal = optimum(&data, &device)?;
    if let (Some(images), Some(sigmas)) = (&args.images, &args.sigmas) {
        return denoise(&args, common, &data, &mut *optimal, images, sigmas);
    }

    let beginnings = args.start.beginnings(data.resolution, data.channels)?;
    let seeds = &beginnings.seeds;
    let labels = args.start.labels(seeds.len(), data.label_dim())?.unwrap_or_default();
    let mut writer = SampleWriter::new(&args.out, args.force, data.resolution, data.channels)?;
    let mut counter = Counter::new("sampling", seeds.len(), common.quiet);
    sample_each(&mut *optimal, beginnings.start(), &labels, &args.heun, &mut |first, batch| {
        let batch = batch.values()?;
        writer.push(&batch);
        counter.at(first + batch.len() / data.image_len());
        Ok(true)
    })?;
    drop(counter);
    writer.finish(seeds, &labels)?;
    report(&args, common, seeds.len(), "samples");
    Ok(())
}

fn denoise(
    args: &Args,
    common: &Common,
    data: &Dataset,
    optimal: &mut dyn Denoise,
    images: &Path,
    sigmas: &Path,
) -> Result<()> {
    let x = read_images(images, data.resolution, data.channels)?;
    let count = x.len() / data.image_len();
    let sigmas = read_sigmas(sigmas, count)?;
    let labels = args.start.labels(count, data.label_dim())?.unwrap_or_default();
    let mut out = vec![f32::NAN; x.len()];
    optimal.denoise(&x, &sigmas, &labels, &mut out)?;
    write_images(&args.out, args.force, &out, data.resolution, data.channels)?;
    report(args, common, count, "denoised images");
    Ok(())
}

fn report(args: &Args, common: &Common, count: usize, what: &str) {
    if common.json {
        say_json!({ "images": count, "out": args.out.display().to_string() });
    } else {
        say!("{count} {what} of the optimum in {}", args.out.display());
    }
}
