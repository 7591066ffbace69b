//! `emm gap`: how far a network is from the theoretical optimum.

use super::gap_flags::{Args, BATCH, Levels, check, check_flags};
use super::samples_io::Counter;
use super::{Common, gap_held, open_set, say};
use crate::error::data;
use crate::files::write_bytes;
use crate::model::SavedModel;
use crate::run::{DataId, Network, RunDir};
use crate::sampler::{HeunOptions, noise_levels, optimum};
use crate::study::gap::gap;
use crate::views;
use anyhow::Result;
use std::io::{self, Write as _};
use std::path::Path;

/// Prints by noise level how far a network's denoising is from the optimum's.
///
/// # Errors
/// Usage: flags, or an output that is there. Data: a model or a set that do not fit each other.
pub fn run(args: Args, common: &Common) -> Result<()> {
    let device = common.device()?;
    check_flags(&args)?;
    let model = match (&args.run, &args.model) {
        (Some(run), _) => RunDir::new(run).best_snapshot()?.1,
        (None, model) => SavedModel::open(&model.clone().unwrap_or_default())?,
    };
    let mut set = open_set(&args.data, common)?;
    let name = args.data.display().to_string();
    check(&model, &mut set, &name)?;
    let foreign = DataId::of_model(&model).map(|own| own != DataId::of(&set));
    if foreign == Some(true) && !common.quiet {
        let _ = writeln!(
            io::stderr(),
            "note: the network was trained on other images or labels than {name}, whose optimum it is compared with"
        );
    }
    let precond = model.config.precond;
    let (lo, hi) = precond.sigma_range();
    let rho = HeunOptions::default().rho;
    let sigmas = noise_levels(args.levels, rho, lo.max(0.002), hi.min(80.0));
    let not_finite = || match (&args.run, &args.model) {
        (Some(run), _) => format!("--run: {}", run.display()),
        (_, model) => format!("--model: {}", model.as_deref().unwrap_or(Path::new("")).display()),
    };
    let levels = Levels { sigmas, precond, not_finite: &not_finite };
    if let Some(path) = &args.holdout {
        return gap_held::run(&args, path, model, (set, foreign), &levels, &device, common);
    }
    let mut network = Network::new(&device, model, BATCH.min(args.draws), &|| false)?;
    let mut optimum = optimum(&set, &device)?;
    let mut bar =
        Counter::new("noisy images", args.draws.saturating_mul(args.levels), common.quiet);
    let progress = &mut |done, _| bar.at(done);
    let (weight, sigmas) = (|sigma| precond.weight(sigma), &levels.sigmas);
    let levels =
        gap(&mut network, &mut *optimum, &set, &weight, sigmas, args.draws, common.seed, progress)?;
    drop(bar);
    if let Some(level) = levels.iter().find(|l| !l.loss.is_finite()) {
        let what = not_finite();
        return Err(data(format!(
            "{what}: a loss at noise level {:.4} is not finite",
            level.sigma
        )));
    }

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
