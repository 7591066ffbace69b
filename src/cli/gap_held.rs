//! `emm gap --holdout`: the network's losses of training and held-out images.

use super::gap_flags::{Args, BATCH, FILES, Levels, check, is_csv, not_ours};
use super::samples_io::Counter;
use super::samples_set::{check_shape, last};
use super::{Common, open_set, say};
use crate::data::Dataset;
use crate::data::subset::without;
use crate::device::Device;
use crate::error::{Exit, OrExit as _, data, fail};
use crate::files::{write_bytes, write_dir_atomic};
use crate::memory::{Size, available};
use crate::model::SavedModel;
use crate::run::Network;
use crate::sampler::{Gaussian, optimum};
use crate::study::held::{HeldOptions, HeldReport, held};
use crate::views::held::HeldView;
use anyhow::Result;
use std::fs;
use std::path::Path;

/// Measures, prints and writes. `set`: the training set as the network sees it, and whether it is another than its own.
///
/// # Errors
/// Data: held-out images that do not fit, or a loss that is not finite.
pub fn run(
    args: &Args,
    path: &Path,
    model: SavedModel,
    (set, foreign): (Dataset, Option<bool>),
    levels: &Levels,
    device: &Device,
    common: &Common,
) -> Result<()> {
    let (other, shared) = open_holdout(path, &args.data, &model, &set, common)?;
    check_memory(&args.data, &set)?;
    let mut network = Network::new(device, model, BATCH, &|| false)?;
    let mut optimum = optimum(&set, device)?;
    let mut bar = Counter::new("covariance", set.len().min(set.image_len()), common.quiet);
    let gaussian = Gaussian::new(&set, device, &mut |done, _| bar.at(done));
    drop(bar);
    let options = HeldOptions { images: args.images, noises: args.noises, seed: common.seed };
    let mut bar = None;
    let mut progress = |done, of| {
        bar.get_or_insert_with(|| Counter::new("noisy images", of, common.quiet)).at(done);
    };
    let held = held(
        &mut network,
        &mut *optimum,
        &gaussian,
        [&set, &other],
        device,
        &|sigma| levels.precond.weight(sigma),
        &levels.sigmas,
        options,
        &mut progress,
    )
    .or_exit(Exit::Data, levels.not_finite)?;
    drop(bar);
    let report = HeldReport {
        data: last(&args.data),
        holdout: last(path),
        holdout_in_train: shared,
        foreign_data: foreign,
        held,
    };
    print(args, &HeldView(&report), common)
}

/// That the training images' covariance can be held.
///
/// # Errors
/// Memory (exit 4).
fn check_memory(name: &Path, set: &Dataset) -> Result<()> {
    let (wanted, free) = (Gaussian::bytes(set), available().unwrap_or(usize::MAX) as u64);
    match wanted > free {
        true => Err(fail(
            Exit::Device,
            format!(
                "{}: the covariance of {} images of {} values takes {}, {} are free; fewer images (`emm data subset`) or smaller \
                 ones take less",
                name.display(),
                set.len(),
                set.image_len(),
                Size(wanted),
                Size(free)
            ),
        )),
        false => Ok(()),
    }
}

/// The held-out images without those of the training set, and how many these are.
///
/// # Errors
/// Data: another shape, classes that the training set has no image of, or no image that is not in it.
fn open_holdout(
    path: &Path,
    train: &Path,
    model: &SavedModel,
    set: &Dataset,
    common: &Common,
) -> Result<(Dataset, usize)> {
    let name = format!("--holdout: {}", path.display());
    let mut other = open_set(path, common)?;
    check_shape(path, [other.resolution, other.channels], train, set)?;
    check(model, &mut other, &name)?;
    if let (Some(ours), Some(theirs)) = (&set.labels, &other.labels)
        && let Some(class) = theirs.iter().find(|label| !ours.contains(label))
    {
        return Err(data(format!(
            "{name}: has an image of class {class}, expected classes that {} has images of",
            train.display()
        )));
    }
    let all = other.len();
    let other = without(&other, set);
    let shared = all - other.len();
    if other.is_empty() {
        return Err(data(format!(
            "{name}: expected images that are not in {}, found that all {shared} are",
            train.display()
        )));
    }
    Ok((other, shared))
}

/// Writes and prints what held-out images said.
fn print(args: &Args, view: &HeldView, common: &Common) -> Result<()> {
    match &args.out {
        Some(out) if is_csv(out) => write_bytes(out, args.force, view.table().csv())?,
        Some(out) => write(out, args.force, view)?,
        None => {}
    }
    if common.json {
        say!("{}", view.json());
        return Ok(());
    }
    say!("{}", view.shown().plain().trim_end());
    for (name, value) in view.facts() {
        say!("{name}: {value}");
    }
    for warning in view.warnings() {
        say!("warning: {warning}");
    }
    if let Some(out) = args.out.as_ref().filter(|out| !is_csv(out)) {
        say!("{}", out.join("gap.html").display());
    }
    Ok(())
}

/// Writes page, table and charts into a folder.
fn write(out: &Path, force: bool, view: &HeldView) -> Result<()> {
    let chart = view.chart();
    let files: [Vec<u8>; FILES.len()] = [
        view.page().html().into_bytes(),
        format!("{:#}\n", view.json()).into_bytes(),
        view.table().csv().into_bytes(),
        serde_json::to_string_pretty(&chart)?.into_bytes(),
        chart.pdf()?,
        chart.png()?,
        chart.svg().into_bytes(),
    ];
    let files = || FILES.iter().zip(&files);
    write_dir_atomic(out, force, &not_ours, |folder| {
        files().try_for_each(|(name, bytes)| Ok(fs::write(folder.join(name), bytes)?))
    })
}
