//! `emm find --within 10m`: settings for the set at hand that fit the time on this machine.

use super::Common;
use super::common::open_scaled;
use super::find_flags::{Args, search};
use crate::data::Dataset;
use crate::device::Device;
use crate::error::usage;
use crate::files::write_bytes;
use crate::run::progress::{describe_epochs, duration};
use crate::study::Sizes;
use crate::study::cost::MachineRates;
use crate::study::presets::SMALL;
use crate::study::within::{ENOUGH_EPOCHS, SIDES, Within, epochs_for, first_runs, first_size};
use crate::views::report::gather;
use anyhow::Result;
use std::path::{Path, PathBuf};

/// What was chosen.
pub struct Chosen {
    pub set: Dataset,
    /// What does the runs.
    pub devices: Vec<Device>,
    pub rates: MachineRates,
    pub sizes: Sizes,
    /// What, why, and what a longer time would buy.
    pub said: Vec<String>,
}

/// Chooses the images' side and the length of training; what `args` says stays. `args.flags` are those of the runs afterwards.
///
/// # Errors
/// Usage: flags; a set of fewer than 4 images. As of reading, and of a measurement.
pub fn choose(
    args: &mut Args,
    set: &Dataset,
    open: &[Device],
    within: Within,
    common: &Common,
) -> Result<Chosen> {
    let name = args.data.display().to_string();
    if set.len() < 4 {
        let images = set.len();
        return Err(usage(format!("--data: holds {images} images, --within needs at least 4")));
    }
    args.flags.preset.get_or_insert_with(|| SMALL.into());
    let given = args.flags.given_epochs();
    let sides: Vec<usize> = match args.resolution {
        Some(side) => vec![side],
        None => {
            let first = set.resolution.min(SIDES[0]);
            std::iter::once(first).chain(SIDES.into_iter().filter(|&s| s < first)).collect()
        }
    };
    let classes = if set.labels.is_some() { set.label_dim() } else { 0 };
    let sizes = match args.sizes.clone() {
        Some(sizes) => Sizes::List(sizes),
        None => {
            let hi = args.hi.unwrap_or(most_balanced(set));
            Sizes::Between { lo: args.lo.unwrap_or(first_size(classes, hi)), hi }
        }
    };
    for (i, &side) in sides.iter().enumerate() {
        let of_side = match side == set.resolution {
            true => set.clone(),
            false => open_scaled(&args.data, side, common)?,
        };
        let config = args.flags.resolve(common, &mut of_side.clone())?;
        let options = args.run.options(common, &args.data);
        let (devices, epochs, rates, longer) = {
            let mut search = search(args, &of_side, &name, &config, sizes.clone(), open, &options);
            let seconds = MEASURED * within.left_s();
            let devices = args.devices(open, &first_runs(&search), seconds, common)?;
            search.devices = &devices;
            let asked = args.rate.asked(common);
            let rates = MachineRates::here(&devices[0], &args.run.runs, &[&config], asked)?;
            if given.is_none() && rates.seconds(&config).is_none() {
                return Err(usage(
                    "--no-measure: --within needs to know how fast this machine trains; --rate says it",
                ));
            }
            let of = |times: f64| {
                let more = Within { seconds: times * within.seconds, ..within };
                given.unwrap_or_else(|| epochs_for(&search, &rates, more.left_s()))
            };
            let [now, longer] = [1.0, 4.0].map(of);
            (devices, now, rates, longer)
        };
        if given.is_none() && epochs < ENOUGH_EPOCHS && i + 1 < sides.len() {
            continue;
        }
        args.flags.settings.training.epochs = Some(epochs);
        args.flags.duration = None;
        let sides = [set.resolution, side];
        let said =
            said(args, within, sides, [epochs, longer], given.is_some(), &sizes, &rates.basis);
        return Ok(Chosen { set: of_side, devices, rates, sizes, said });
    }
    unreachable!("the last side is taken")
}

/// Of the time, what finding out how many runs share a GPU may take.
const MEASURED: f64 = 0.05;

/// The largest subset that holds each class alike; all images where none are labelled.
fn most_balanced(set: &Dataset) -> usize {
    let counts = set.label_counts();
    counts.iter().min().map_or(set.len(), |&least| (least as usize * counts.len()).max(2))
}

fn said(
    args: &Args,
    within: Within,
    [whole, side]: [usize; 2],
    [epochs, longer]: [f64; 2],
    given: bool,
    sizes: &Sizes,
    basis: &str,
) -> Vec<String> {
    let scaled = match side == whole {
        true => format!("{side}×{side} pixels"),
        false => format!("images scaled from {whole}×{whole} to {side}×{side} pixels"),
    };
    let sizes = match sizes {
        Sizes::List(_) => "the sizes named".to_string(),
        Sizes::Between { lo, hi } => format!("sizes from {lo} by doubling, up to {hi}"),
    };
    let preset = args.flags.preset.as_deref().unwrap_or(SMALL);
    let time = duration(within.seconds);
    let mut said = vec![
        format!(
            "within {time}: {scaled}, the network of --preset {preset} and flags, {} epochs, {sizes}",
            describe_epochs(epochs)
        ),
        match given {
            true => format!("as many sizes as fit into 80% of the time ({basis})"),
            false => format!(
                "so long a training leaves room for several sizes in 80% of the time here ({basis})"
            ),
        },
    ];
    if side < whole {
        said.push(
            "the answer is that of these smaller images (--resolution R takes others)".into(),
        );
    }
    let more = duration(4.0 * within.seconds);
    said.push(match given || longer <= epochs {
        true => format!("4 times the time, {more}, would measure more sizes"),
        false => {
            let short = if epochs < ENOUGH_EPOCHS { "this is short: " } else { "" };
            let longer = describe_epochs(longer);
            format!("{short}4 times the time, {more}, would train {longer} epochs: ratios rise with them")
        }
    });
    said
}

/// Writes the page of a search's folder into it.
///
/// # Errors
/// As of `emm report`.
pub fn write_page(out: &Path, force: bool) -> Result<PathBuf> {
    let page = gather(out, None, &[], Vec::new())?.page.html();
    let path = out.join("report.html");
    write_bytes(&path, force, page)?;
    Ok(path)
}
