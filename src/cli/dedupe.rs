//! `emm data dedupe`: a set without the images that it holds already.

use super::endings::check_ending;
use super::{Common, open_set, say};
use crate::data::Dataset;
use crate::data::subset::pick;
use crate::device::Device;
use crate::files::check_output;
use crate::memorization::{Nearest, References, Threshold};
use anyhow::Result;
use serde_json::json;
use std::collections::HashMap;
use std::path::PathBuf;

/// Drop images that repeat an earlier one, and with --near those that nearly do
///
/// Equal are images of the same pixels. Nearly equal is an image whose nearest other image is nearer than 1/3 of the
/// distance to the second nearest, as copies are told in generated images; of two such the earlier stays.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example:
  emm data dedupe cifar10.zip --near --out distinct.zip")]
pub struct DedupeArgs {
    /// A data set, or anything that `emm data import` reads
    #[arg(value_name = "SET")]
    set: PathBuf,
    /// The data set to write
    #[arg(long, value_name = "F.zip")]
    out: PathBuf,
    /// Drop images that nearly repeat another, too
    #[arg(long)]
    near: bool,
    /// Replace --out if it exists
    #[arg(long)]
    force: bool,
}

/// Lines that are printed of images that were dropped.
const SHOWN: usize = 10;

/// An image that is dropped, and the one that it repeats, by their places in the set.
type Dropped = (usize, usize);

/// Writes the set without what it holds already.
///
/// # Errors
/// Usage: an output that is there. Data: a set that cannot be read.
pub fn run(args: &DedupeArgs, common: &Common) -> Result<()> {
    check_ending("--out", &args.out, "a data set", &["zip"])?;
    check_output(&args.out, args.force)?;
    let set = open_set(&args.set, common)?;
    let (mut kept, equal) = distinct(&set);
    let mut near = Vec::new();
    if args.near {
        let device = common.device()?;
        (kept, near) = apart(&set, &kept, &device);
    }
    pick(&set, &kept).save(&args.out, args.force)?;
    print(args, common, &set, &kept, [&equal, &near]);
    Ok(())
}

/// The images whose pixels are no earlier one's, and the others.
fn distinct(set: &Dataset) -> (Vec<usize>, Vec<Dropped>) {
    let (mut kept, mut dropped) = (Vec::new(), Vec::new());
    let mut first: HashMap<&[u8], usize> = HashMap::new();
    for i in 0..set.len() {
        match *first.entry(set.image(i)).or_insert(i) {
            earlier if earlier < i => dropped.push((i, earlier)),
            _ => kept.push(i),
        }
    }
    (kept, dropped)
}

/// Of images that all differ those that do not nearly repeat another, and the others.
fn apart(set: &Dataset, images: &[usize], device: &Device) -> (Vec<usize>, Vec<Dropped>) {
    // With fewer there is no second nearest to compare with.
    const LEAST: usize = 3;
    if images.len() < LEAST {
        return (images.to_vec(), Vec::new());
    }
    let chosen = pick(set, images);
    let references = References::new(&chosen.pixels[..], chosen.image_len());
    let found = references.nearest_k(&chosen.pixels, LEAST, device);
    let repeats: Vec<Option<usize>> = found
        .chunks_exact(LEAST)
        .enumerate()
        .map(|(i, found)| {
            // Itself is among them, being the only one at distance 0.
            let others: Vec<_> = found.iter().filter(|n| n.index as usize != i).collect();
            let [one, two] = [others[0], others[1]];
            let (index, squared) = ([one.index, two.index], [one.squared, two.squared]);
            let nearest = Nearest { index, squared, distinct: None };
            Threshold::default().memorized(&nearest).then_some(one.index as usize)
        })
        .collect();
    let (mut kept, mut dropped) = (Vec::new(), Vec::new());
    let mut gone = vec![false; repeats.len()];
    for (i, repeated) in repeats.iter().enumerate() {
        // Of two that repeat each other the earlier stays; one whose like is gone stays, too.
        let stays = |other: usize| gone[other] || other > i && repeats[other] == Some(i);
        match repeated.filter(|&other| !stays(other)) {
            Some(other) => {
                gone[i] = true;
                dropped.push((images[i], images[other]));
            }
            None => kept.push(images[i]),
        }
    }
    (kept, dropped)
}

fn print(
    args: &DedupeArgs,
    common: &Common,
    set: &Dataset,
    kept: &[usize],
    [equal, near]: [&[Dropped]; 2],
) {
    let relabelled = |&&(i, of): &&Dropped| set.labels.as_ref().is_some_and(|l| l[i] != l[of]);
    let other_labels = equal.iter().chain(near).filter(relabelled).count();
    if common.json {
        let pairs = |all: &[Dropped]| all.iter().map(|&(i, of)| [i, of]).collect::<Vec<_>>();
        let object = json!({
            "images": set.len(),
            "kept": kept.len(),
            "equal": pairs(equal),
            "near": pairs(near),
            "other_labels": other_labels,
        });
        say!("{object}");
        return;
    }
    let name = |i: usize| match set.names.get(i) {
        Some(name) => name.clone(),
        None => format!("image {i}"),
    };
    say!("{}", args.out.display());
    say!("  images      {} of {}", kept.len(), set.len());
    say!("  equal       {} dropped", equal.len());
    if args.near {
        say!("  nearly      {} dropped", near.len());
    }
    if other_labels > 0 {
        say!(
            "  labels      {other_labels} dropped images had another label than the one that stays"
        );
    }
    for (i, of) in equal.iter().chain(near).take(SHOWN) {
        say!("  {} repeats {}", name(*i), name(*of));
    }
    let more = (equal.len() + near.len()).saturating_sub(SHOWN);
    if more > 0 {
        say!("  and {more} more, which --json lists");
    }
}
