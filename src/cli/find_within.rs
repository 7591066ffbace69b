//! `emm find --within 10m`: settings for the set at hand that fit the time on this machine.

use super::Common;
use super::common::open_scaled;
use super::find_flags::{Args, search};
use crate::data::Dataset;
use crate::device::Device;
use crate::error::{data, usage};
use crate::files::write_bytes;
use crate::run::progress::{describe_epochs, duration};
use crate::study::Sizes;
use crate::study::cost::MachineRates;
use crate::study::presets::SMALL;
use crate::study::within::{
    ENOUGH_EPOCHS, SIDES, Within, epochs_for, first_runs, first_size, fitting,
};
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
    /// How many of the sizes that are climbed are expected to be measured.
    pub fit: usize,
    /// The length of training is the user's.
    pub epochs_given: bool,
    /// What, and why.
    pub said: Vec<String>,
    /// What a longer time would buy; once it was trained longer, how long.
    pub longer: Option<String>,
}

/// Chooses the images' side and the length of training; what `args` says stays. `args.flags` are those of the runs afterwards.
///
/// # Errors
/// Usage: flags. Data: a set of fewer than 4 images, or than the sizes want. As of reading, and of a measurement.
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
        return Err(data(format!("{name}: has {images} images, --within needs at least 4")));
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
        let options = args.run.options(common, &args.data)?;
        let mut search = search(args, &of_side, &name, &config, sizes.clone(), open, &options);
        search.check()?;
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
        // In the time, and in four times as much.
        let [now, more] = [1.0, 4.0].map(|times| {
            let left = Within { seconds: times * within.seconds, ..within }.left_s();
            let epochs = given.unwrap_or_else(|| epochs_for(&search, &rates, left));
            Fit { epochs, sizes: fitting(&search, &rates, epochs, left) }
        });
        if given.is_none() && now.epochs < ENOUGH_EPOCHS && i + 1 < sides.len() {
            continue;
        }
        let sides = [set.resolution, side];
        let said = said(args, within, sides, now, &sizes, &rates.basis);
        let longer = longer(within, [now, more], given.is_some(), sizes.climbed().len());
        args.flags.settings.training.epochs = Some(now.epochs);
        args.flags.duration = None;
        return Ok(Chosen {
            set: of_side,
            devices,
            rates,
            sizes,
            fit: now.sizes,
            epochs_given: given.is_some(),
            said,
            longer,
        });
    }
    unreachable!("the last side is taken")
}

/// Of the time, what finding out how many runs share a GPU may take.
const MEASURED: f64 = 0.05;

/// The largest subset that holds each class alike; all images where none are labelled.
pub fn most_balanced(set: &Dataset) -> usize {
    let counts = set.label_counts();
    counts.iter().min().map_or(set.len(), |&least| (least as usize * counts.len()).max(2))
}

/// What fits into a time: so long a training of so many of the sizes.
#[derive(Clone, Copy)]
struct Fit {
    epochs: f64,
    sizes: usize,
}

fn said(
    args: &Args,
    within: Within,
    [whole, side]: [usize; 2],
    now: Fit,
    sizes: &Sizes,
    basis: &str,
) -> Vec<String> {
    let scaled = match side == whole {
        true => format!("{side}×{side} pixels"),
        false => format!("images scaled from {whole}×{whole} to {side}×{side} pixels"),
    };
    let range = match sizes {
        Sizes::List(_) => "the sizes named".to_string(),
        Sizes::Between { lo, hi } => format!("sizes from {lo} by doubling, up to {hi}"),
    };
    let (preset, all) = (args.flags.preset.as_deref().unwrap_or(SMALL), sizes.climbed());
    let (time, epochs) = (duration(within.seconds), describe_epochs(now.epochs));
    let mut said = vec![
        format!(
            "within {time}: {scaled}, the network of --preset {preset} and flags, {epochs} epochs, {range}"
        ),
        match now.sizes {
            0 => format!(
                "even {} images are expected to take longer than 80% of the time here ({basis})",
                all[0]
            ),
            n if n == all.len() => {
                format!("all of them are expected to fit into 80% of the time here ({basis})")
            }
            n => {
                let named: Vec<_> = all[..n].iter().map(usize::to_string).collect();
                format!(
                    "{} are expected to fit into 80% of the time here ({basis})",
                    named.join(", ")
                )
            }
        },
    ];
    if side < whole {
        said.push(
            "the answer is that of these smaller images (--resolution R takes others)".into(),
        );
    }
    said
}

/// What four times the time would buy, of so many sizes, if anything.
fn longer(within: Within, [now, more]: [Fit; 2], given: bool, sizes: usize) -> Option<String> {
    let times = format!("4 times the time, {},", duration(4.0 * within.seconds));
    if more.sizes == 0 {
        Some(format!("{times} would not be enough, either"))
    } else if !given && more.epochs > now.epochs {
        let short = if now.epochs < ENOUGH_EPOCHS { "this is short: " } else { "" };
        let longer = describe_epochs(more.epochs);
        Some(format!("{short}{times} would train {longer} epochs: ratios rise with them"))
    } else if more.sizes > now.sizes {
        let n = match more.sizes {
            n if n == sizes => "all".to_string(),
            n => n.to_string(),
        };
        Some(format!("{times} would measure {n} of the {sizes} sizes"))
    } else {
        None
    }
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
