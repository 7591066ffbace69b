//! `emm bench nearest`.

use super::common::check_least;
use super::{Common, say, say_json};
use crate::data::npy::MappedBytes;
use crate::device::cpu::dots::Isa;
use crate::error::{Exit, data, fail};
use crate::memory::{self, Size};
use crate::numbers::count;
use crate::run::bench::median;
use crate::run::bench_nearest::{nearest, random_images};
use anyhow::Result;
use std::path::{Path, PathBuf};

/// Time the search of the two nearest reference images of each query
///
/// Over random pixels, of which each pair has to be compared, or over images from a file. Answers to 64 of the
/// queries are compared with brute force.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  emm bench nearest --queries 2000 --references 50000
  emm bench nearest --queries 2000 --references 50000 --data images.npy")]
pub struct Args {
    /// Images looked up
    #[arg(long, value_name = "N", value_parser = count, default_value = "2000")]
    queries: usize,
    /// Images searched, at least 2
    #[arg(long, value_name = "N", value_parser = count, default_value = "50k")]
    references: usize,
    /// Bytes of an image [default: 3072, or those of --data]
    #[arg(long, value_name = "BYTES", value_parser = count, conflicts_with = "data")]
    pixels: Option<usize>,
    /// Images instead of random pixels, unsigned bytes [N,H,W,C]: the first are searched, the last looked up
    #[arg(long, value_name = "F.npy")]
    data: Option<PathBuf>,
    /// Instructions used [default: the fastest that there are]
    #[arg(long, value_name = "SET", value_parser = isa)]
    instructions: Option<Isa>,
    /// Searches timed, after one that warms up
    #[arg(long, value_name = "N", value_parser = count, default_value = "5")]
    repeats: usize,
}

fn isa(text: &str) -> Result<Isa, String> {
    let all = Isa::available();
    all.iter().copied().find(|i| i.name() == text).ok_or_else(|| {
        format!(
            "this processor has {}",
            all.iter().map(|i| i.name()).collect::<Vec<_>>().join(", ")
        )
    })
}

/// Prints how many pairs of images a second are compared.
///
/// # Errors
/// Data: a file with too few images. Usage: flags. Device: none, or images that don't fit into memory.
pub fn run(a: Args, common: &Common) -> Result<()> {
    let pixels = a.pixels.unwrap_or(3072);
    check_least(&[
        ("--queries", a.queries, 1),
        ("--references", a.references, 2),
        ("--pixels", pixels, 1),
        ("--repeats", a.repeats, 1),
    ])?;
    if let Some(path) = &a.data {
        let images = MappedBytes::open(path)?;
        let wanted = a.queries.saturating_add(a.references);
        let pixels = image_len(&images.shape, wanted, path)?;
        let (first, last) = (a.references * pixels, images.values().len() - a.queries * pixels);
        return report(&a, common, &images.values()[last..], &images.values()[..first], pixels);
    }
    let most = memory::available().unwrap_or(usize::MAX) / 4;
    for (flag, images) in [("--queries", a.queries), ("--references", a.references)] {
        if images.checked_mul(pixels).is_none_or(|bytes| bytes > most) {
            let pixels = Size(pixels as u64);
            let what = format!("{flag}: {images} images of {pixels} don't fit into memory");
            return Err(fail(Exit::Device, what));
        }
    }
    let queries = random_images(common.seed, 0, a.queries, pixels);
    let references = random_images(common.seed, 1, a.references, pixels);
    report(&a, common, &queries, &references, pixels)
}

/// Bytes of an image of a file that holds at least `wanted`.
fn image_len(shape: &[usize], wanted: usize, path: &Path) -> Result<usize> {
    match shape {
        [n, rest @ ..] if *n >= wanted && rest.iter().product::<usize>() > 0 => {
            Ok(rest.iter().product())
        }
        _ => Err(data(format!(
            "{}: expected {wanted} images for --references and --queries, found {shape:?}",
            path.display()
        ))),
    }
}

fn report(
    a: &Args,
    common: &Common,
    queries: &[u8],
    references: &[u8],
    pixels: usize,
) -> Result<()> {
    let device = common.device()?;
    let isa = a.instructions.unwrap_or(Isa::best());
    let times = nearest(&device, common.seed, queries, references, pixels, isa, a.repeats)?;
    let (s, peak) = (median(&times.search_s), memory::peak());
    if common.json {
        say_json!({
            "median_s": s,
            "prepare_s": times.prepare_s,
            "peak_rss_bytes": peak,
            "queries": a.queries,
            "references": a.references,
            "pixels": pixels,
            "checked": times.checked,
            "instructions": isa.name(),
            "search_s": times.search_s,
            "device": device.name(),
        });
        return Ok(());
    }
    let pairs = a.queries as f64 * a.references as f64;
    say!(
        "{} queries, {} references of {pixels} bytes: {s:.3} s, {:.1} G multiply-adds/s if all pairs were compared; \
         prepared in {:.3} s; peak {}; {} answers right by brute force",
        a.queries,
        a.references,
        pairs * pixels as f64 / s / 1e9,
        times.prepare_s,
        Size(peak.unwrap_or(0) as u64),
        times.checked
    );
    Ok(())
}
