//! `emm gap`: how far a network is from the theoretical optimum.

use super::endings::check_ending;
use super::{Common, open_set, say};
use crate::data::Dataset;
use crate::error::{data, usage};
use crate::files::{check_output, write_bytes};
use crate::model::SavedModel;
use crate::numbers::count;
use crate::run::{DataId, Network, RunDir};
use crate::sampler::{HeunOptions, noise_levels, optimum};
use crate::study::gap::gap;
use crate::views;
use anyhow::Result;
use std::io::Write as _;
use std::path::PathBuf;

/// Compare a network with the theoretical optimum at the sampler's noise levels
///
/// At each level, over draws of a training image with noise: the loss's weight times the squared distance of
/// the network to the optimum, and the losses of both. The network's is about the sum of the other two.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example:
  emm gap --run runs/digits --data digits.zip --draws 1k")]
pub struct Args {
    /// The best evaluation of this run
    #[arg(long, value_name = "DIR", required_unless_present = "model", conflicts_with = "model")]
    run: Option<PathBuf>,
    /// A model file
    #[arg(long, value_name = "F.safetensors")]
    model: Option<PathBuf>,
    /// The set that it was trained on, in any form that `emm data import` reads
    #[arg(long, value_name = "SET")]
    data: PathBuf,
    /// Noise levels, as the sampler spaces them
    #[arg(long, value_name = "N", value_parser = count, default_value = "18")]
    levels: usize,
    /// Noisy images at each level
    #[arg(long, value_name = "N", value_parser = count, default_value = "256")]
    draws: usize,
    /// Write the table as CSV
    #[arg(long, value_name = "F.csv")]
    out: Option<PathBuf>,
    /// Replace --out if it exists
    #[arg(long)]
    force: bool,
}

/// Images in one evaluation.
const BATCH: usize = 64;

/// Prints by noise level how far a network's denoising is from the optimum's.
///
/// # Errors
/// Usage: flags, or an output that is there. Data: a model or a set that do not fit each other.
pub fn run(args: Args, common: &Common) -> Result<()> {
    let device = common.device()?;
    for (flag, value) in [("--levels", args.levels), ("--draws", args.draws)] {
        if value == 0 || value > u32::MAX as usize {
            return Err(usage(format!("{flag}: {value} is outside 1..{}", u32::MAX)));
        }
    }
    if let Some(out) = &args.out {
        check_ending("--out", out, "the table", &["csv"])?;
        check_output(out, args.force)?;
    }
    let model = match (&args.run, args.model) {
        (Some(run), _) => RunDir::new(run).best_snapshot()?.1,
        (None, model) => SavedModel::open(&model.unwrap_or_default())?,
    };
    let mut set = open_set(&args.data, common)?;
    let name = args.data.display().to_string();
    check(&model, &mut set, &name)?;
    let foreign = DataId::of_model(&model).map(|own| own != DataId::of(&set));
    if foreign == Some(true) && !common.quiet {
        let _ = writeln!(
            std::io::stderr(),
            "note: the network was trained on other images or labels than {name}, whose optimum it is compared with"
        );
    }

    let precond = model.config.precond;
    let (lo, hi) = precond.sigma_range();
    let rho = HeunOptions::default().rho;
    let sigmas = noise_levels(args.levels, rho, lo.max(0.002), hi.min(80.0));
    let mut network = Network::new(&device, model, BATCH.min(args.draws), &|| false)?;
    let mut optimum = optimum(&set, &device)?;
    let weight = |sigma| precond.weight(sigma);
    let levels = gap(&mut network, &mut *optimum, &set, &weight, &sigmas, args.draws, common.seed)?;

    let table = views::gap::table(&levels);
    if let Some(out) = &args.out {
        write_bytes(out, args.force, table.csv())?;
    }
    match common.json {
        true => {
            let mut json = views::gap::json(&levels, args.draws);
            json["foreign_data"] = foreign.into();
            say!("{json}");
        }
        false => say!("{}", table.plain().trim_end()),
    }
    Ok(())
}

/// That the network is for images like these; an unconditional one does not look at labels.
pub(super) fn check(model: &SavedModel, set: &mut Dataset, name: &str) -> Result<()> {
    let m = &model.config;
    if (m.resolution, m.image_channels) != (set.resolution, set.channels) {
        return Err(data(format!(
            "{name}: {r}x{r} pixels and {} channels, the network is for {n}x{n} and {}",
            set.channels,
            m.image_channels,
            r = set.resolution,
            n = m.resolution,
        )));
    }
    if m.label_dim == 0 {
        set.labels = None;
    } else if set.label_dim() == 0 || set.label_dim() > m.label_dim {
        return Err(data(format!(
            "{name}: {} classes, the network has {}",
            set.label_dim(),
            m.label_dim
        )));
    }
    Ok(())
}
