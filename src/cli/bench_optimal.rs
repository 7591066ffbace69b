//! `emm bench optimal`.

use super::samples_io::read_images;
use super::{Common, say, say_json};
use crate::data::Dataset;
use crate::data::npy::MappedBytes;
use crate::error::{data, usage};
use crate::memory::{self, Size};
use crate::numbers::count;
use crate::run::bench::median;
use crate::run::bench_nearest::random_images;
use crate::run::bench_optimal::optimal;
use crate::sampler::{HeunOptions, Start};
use anyhow::Result;
use std::path::{Path, PathBuf};

/// Side of the random images.
const SIDE: usize = 32;

/// Time the Heun sampler over the closed-form optimum of a training set
///
/// Of random 32x32 RGB images, or of the first ones of a file. Says which training image each sample is nearest to.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example:
  emm bench optimal --images 256 --references 10000 --data images.npy")]
pub struct Args {
    /// Images sampled
    #[arg(long, value_name = "N", value_parser = count, default_value = "256")]
    images: usize,
    /// Training images, at least 2
    #[arg(long, value_name = "N", value_parser = count, default_value = "10k")]
    references: usize,
    /// Training images instead of random pixels, unsigned bytes [N,H,W,C]
    #[arg(long, value_name = "F.npy")]
    data: Option<PathBuf>,
    /// Latents of unit variance instead of seeds 0 to N − 1, float32 [S,C,H,W]: the first are taken
    #[arg(long, value_name = "F.npy")]
    latents: Option<PathBuf>,
    /// Noise levels above zero
    #[arg(long, value_name = "N", value_parser = count, default_value = "18")]
    steps: usize,
    /// Samplings timed, after one that warms up
    #[arg(long, value_name = "N", value_parser = count, default_value = "5")]
    repeats: usize,
}

/// Prints how many images a second the optimal denoiser samples.
///
/// # Errors
/// Data: a file with too few images. Usage: flags. Device: none, or out of memory.
pub fn run(a: Args, common: &Common) -> Result<()> {
    if a.images == 0 || a.steps == 0 || a.repeats == 0 || a.references < 2 {
        return Err(usage(
            "--images, --steps, --repeats: at least 1 of each is needed, --references: at least 2",
        ));
    }
    let set = match &a.data {
        Some(path) => read_set(path, a.references)?,
        None => Dataset {
            resolution: SIDE,
            channels: 3,
            pixels: random_images(common.seed, 1, a.references, SIDE * SIDE * 3),
            labels: None,
            names: Vec::new(),
        },
    };
    let latents = match &a.latents {
        Some(path) => Some(read_latents(path, &set, a.images)?),
        None => None,
    };
    let seeds: Vec<u64> = (0..a.images as u64).collect();
    let start = match &latents {
        Some(latents) => Start::Latents(latents),
        None => Start::Seeds(&seeds),
    };
    let options = HeunOptions { steps: a.steps, ..HeunOptions::default() };
    let device = common.device()?;
    let times = optimal(&device, &set, start, &options, a.repeats)?;
    let (s, peak) = (median(&times.sample_s), memory::peak());
    if common.json {
        say_json!({
            "images_per_s": a.images as f64 / s,
            "median_s": s,
            "prepare_s": times.prepare_s,
            "peak_rss_bytes": peak,
            "images": a.images,
            "references": a.references,
            "steps": a.steps,
            "memorized": times.memorized,
            "nearest": times.nearest,
            "sample_s": times.sample_s,
            "device": device.name(),
        });
        return Ok(());
    }
    say!(
        "{} images of the optimum of {}, {} steps: {s:.3} s, {:.1} img/s; prepared in {:.3} s; peak {}; \
         {} memorized",
        a.images,
        a.references,
        a.steps,
        a.images as f64 / s,
        times.prepare_s,
        Size(peak.unwrap_or(0) as u64),
        times.memorized
    );
    Ok(())
}

/// The first `wanted` images of a file.
fn read_set(path: &Path, wanted: usize) -> Result<Dataset> {
    let images = MappedBytes::open(path)?;
    let name = path.display().to_string();
    match images.shape[..] {
        [n, h, w, channels] if n >= wanted && h == w => {
            let pixels = images.values()[..wanted * h * w * channels].to_vec();
            Dataset::new(&name, h, channels, pixels, None)
        }
        _ => Err(data(format!(
            "{name}: expected {wanted} square images [N,H,W,C] for --references, found {:?}",
            images.shape
        ))),
    }
}

/// The first `wanted` latents of a file, [S, H, W, C].
fn read_latents(path: &Path, set: &Dataset, wanted: usize) -> Result<Vec<f32>> {
    let mut latents = read_images(path, set.resolution, set.channels)?;
    let found = latents.len() / set.image_len();
    if found < wanted {
        let name = path.display();
        return Err(data(format!("{name}: expected {wanted} latents for --images, found {found}")));
    }
    latents.truncate(wanted * set.image_len());
    Ok(latents)
}
