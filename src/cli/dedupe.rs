//! `emm data dedupe`: a set without the images that it holds already.

use super::endings::check_ending;
use super::samples_io::Counter;
use super::{Common, open_set, say};
use crate::data::Dataset;
use crate::data::subset::pick;
use crate::files::check_output;
use crate::memorization::{Repeats, Threshold, Within};
use anyhow::Result;
use serde_json::json;
use std::collections::{HashMap, HashSet};
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
        (kept, near) = apart(&set, &kept, common)?;
    }
    pick(&set, &kept).save(&args.out, args.force)?;
    print(args, common, &set, &kept, [&equal, &near]);
    Ok(())
}

/// The images whose pixels are no earlier one's, and the others.
fn distinct(set: &Dataset) -> (Vec<usize>, Vec<Dropped>) {
    let Some(repeats) = Repeats::of(&set.pixels, set.image_len()) else {
        return ((0..set.len()).collect(), Vec::new());
    };
    let firsts = repeats.firsts();
    let first = |(i, &place): (usize, &u32)| (i, firsts[place as usize] as usize);
    let dropped = repeats.places().iter().enumerate().map(first).filter(|(i, of)| i != of);
    (firsts.iter().map(|&i| i as usize).collect(), dropped.collect())
}

/// Of images that all differ those that do not nearly repeat another, and the others.
fn apart(set: &Dataset, images: &[usize], common: &Common) -> Result<(Vec<usize>, Vec<Dropped>)> {
    let mut counter = Counter::new("images among themselves", images.len(), common.quiet);
    let told = &mut |done| counter.at(done);
    let within = Within::new(&set.pixels, set.image_len(), &common.device()?, told);
    let near = within.near(Threshold::default());
    let like: HashMap<usize, usize> = near.map(|(i, n)| (i, n.index[0] as usize)).collect();
    let (mut kept, mut dropped) = (Vec::new(), Vec::new());
    let mut gone = HashSet::new();
    for &i in images {
        // Of two that repeat each other the earlier stays; one whose like is gone stays, too.
        let stays = |of: usize| gone.contains(&of) || of > i && like.get(&of) == Some(&i);
        match like.get(&i).filter(|&&of| !stays(of)) {
            Some(&of) => {
                gone.insert(i);
                dropped.push((i, of));
            }
            None => kept.push(i),
        }
    }
    Ok((kept, dropped))
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
    let said = |how: &'static str| move |pair: &Dropped| (*pair, how);
    let pairs = equal.iter().map(said("repeats")).chain(near.iter().map(said("nearly repeats")));
    for ((i, of), how) in pairs.take(SHOWN) {
        say!("  {} {how} {}", name(i), name(of));
    }
    let more = (equal.len() + near.len()).saturating_sub(SHOWN);
    if more > 0 {
        say!("  and {more} more, which --json lists");
    }
}
