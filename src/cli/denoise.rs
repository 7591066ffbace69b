//! `emm denoise`: D(x; sigma) of given images.

use super::endings::check_ending;
use super::samples_io::{read_images, read_labels, read_sigmas, write_images};
use super::{Common, say, say_json};
use crate::error::usage;
use crate::files::check_output;
use crate::model::{Denoiser, SavedModel};
use anyhow::Result;
use std::path::PathBuf;

/// Denoise given images at given noise levels: D(x; sigma)
#[derive(clap::Args, Debug)]
#[command(after_help = "Example:\n  \
    emm denoise --model F.safetensors --images x.npy --sigmas sigma.npy --out d.npy")]
pub struct Args {
    /// Model file
    #[arg(long, value_name = "F.safetensors")]
    model: PathBuf,
    /// Noisy images, float32 [B, C, H, W], pixels in [-1, 1] plus noise
    #[arg(long, value_name = "F.npy")]
    images: PathBuf,
    /// Noise level of each image, float32 [B]
    #[arg(long, value_name = "F.npy")]
    sigmas: PathBuf,
    /// Class of each image, int64 [B]; needed for a conditional network
    #[arg(long, value_name = "F.npy")]
    labels: Option<PathBuf>,
    /// Images computed at a time
    #[arg(long, value_name = "IMAGES", default_value_t = 32)]
    batch: usize,
    /// Denoised images, float32 [B, C, H, W]
    #[arg(long, value_name = "F.npy")]
    out: PathBuf,
    /// Replace an existing output
    #[arg(long)]
    force: bool,
}

/// Writes D(x; σ) of a network as float32 [S, C, H, W].
///
/// # Errors
/// Usage: flags, or an output that is there. Data: arrays of another shape than the model takes.
pub fn run(args: Args, common: &Common) -> Result<()> {
    check_ending("--out", &args.out, "an array of images", &["npy"])?;
    check_output(&args.out, args.force)?;
    if args.batch == 0 {
        return Err(usage("--batch: 0 images, at least 1 is needed"));
    }
    let device = common.device()?;
    let model = SavedModel::open(&args.model)?;
    let config = model.config.clone();
    let x = read_images(&args.images, config.resolution, config.image_channels)?;
    let len = config.image_len();
    let images = x.len() / len;
    let sigmas = read_sigmas(&args.sigmas, images)?;
    let n = config.label_dim;
    let labels = match &args.labels {
        Some(_) if n == 0 => return Err(usage("--labels: the network is unconditional")),
        Some(path) => read_labels(path, images, n)?,
        None if n == 0 => Vec::new(),
        None => {
            return Err(usage(format!(
                "--labels: the network has {n} classes, one label per image is needed"
            )));
        }
    };

    let (batch, precision) = (args.batch.min(images), model.precision_on(&device));
    let mut denoiser =
        Denoiser::new(&device, &config, precision, model.weights, model.freqs, batch)?;
    let mut out = Vec::with_capacity(x.len());
    for (i, x) in x.chunks(batch * len).enumerate() {
        let these = i * batch..i * batch + x.len() / len;
        let labels = if labels.is_empty() { &[] } else { &labels[these.clone()] };
        out.extend_from_slice(&denoiser.denoise(x, &sigmas[these], labels)?);
    }
    write_images(&args.out, args.force, &out, config.resolution, config.image_channels)?;
    match common.json {
        true => say_json!({"images": images, "out": args.out.display().to_string()}),
        false => say!("{images} images denoised: {}", args.out.display()),
    }
    Ok(())
}
