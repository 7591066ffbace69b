//! Samples beside the training images that they are nearest to: of runs, and of the theoretical optimum
//! (Figures 1a, 1b and 10).

use crate::data::Dataset;
use crate::device::{Device, Pixels};
use crate::error::{Exit, exit_code, usage};
use crate::memorization::{Nearest, Search, Threshold};
use crate::report::{Sheet, number, sheets};
use crate::run::dir::best;
use crate::run::score::{compared, labels_of};
use crate::run::{Network, RunDir};
use crate::sampler::{Denoise, HeunOptions, Start, optimum, quantise, sample};
use crate::study::outcome::RunState;
use crate::study::plan::{PlannedCell, Setup, StudyPlan};
use crate::study::spec::{Samples, SheetSpec, Study};
use anyhow::Result;
use std::path::Path;

/// Samples on a sheet: those of the first seeds, not chosen.
pub const SAMPLES: u64 = 16;

/// Samples and their two nearest training images.
pub struct DrawnSheet {
    pixels: Vec<u8>,
    training: Dataset,
    nearest: Vec<Nearest>,
    /// What drew them from which seeds, and where the training images are from.
    notes: Vec<String>,
}

impl DrawnSheet {
    /// Samples of the snapshot of a run's best look. `training`: what it was trained on. `of`: which run it is, and
    /// its set.
    ///
    /// # Errors
    /// Data: no snapshot. Those of the device.
    pub fn by_run(dir: &Path, training: Dataset, of: &str, device: &Device) -> Result<DrawnSheet> {
        let run = RunDir::new(dir);
        let (_, model) = run.best_snapshot()?;
        let config = run.config()?;
        let epoch = best(&run.scores(&config)?.looks).map_or(config.train.epochs, |l| l.epoch);
        let name = dir.file_name().map_or(String::new(), |n| n.to_string_lossy().into());
        let by = format!("run {name} at its best look, epoch {}", number(epoch));
        let label_dim = model.config.label_dim;
        let mut network = Network::new(device, model, SAMPLES as usize, &|| false)?;
        DrawnSheet::by(&mut network, label_dim, training, [of, &by], device)
    }

    /// Samples of the optimum of `training`, labels left aside. `of`: as for [`DrawnSheet::by_run`].
    pub fn by_optimum(mut training: Dataset, of: &str, device: &Device) -> Result<DrawnSheet> {
        training.labels = None;
        let mut optimum = optimum(&training, device)?;
        DrawnSheet::by(&mut *optimum, 0, training, [of, "the theoretical optimum"], device)
    }

    fn by(
        denoise: &mut dyn Denoise,
        label_dim: usize,
        training: Dataset,
        [of, by]: [&str; 2],
        device: &Device,
    ) -> Result<DrawnSheet> {
        let seeds: Vec<u64> = (0..SAMPLES).collect();
        let (labels, options) = (labels_of(&seeds, label_dim), HeunOptions::default());
        let samples = sample(denoise, Start::Seeds(&seeds), &labels, &options, &mut |_, _| true)?;
        let pixels: Vec<u8> = samples.unwrap_or_default().into_iter().map(quantise).collect();
        let mut search = Search::new(device, &training.pixels, training.image_len())?;
        let nearest = search.nearest(&Pixels::Host(pixels.as_slice().into()))?;
        drop(search);
        let sampled = format!("{by}; sampling seeds 0 to {}, not chosen", SAMPLES - 1);
        Ok(DrawnSheet { pixels, training, nearest, notes: vec![of.into(), sampled] })
    }

    pub fn sheet(&self) -> Sheet<'_> {
        let threshold = Threshold::default();
        let samples = compared(&self.pixels, &self.training, &self.nearest, threshold);
        let copied = samples.iter().filter(|t| t.memorized).count();
        let title = format!("{copied} of the first {SAMPLES} samples are copies");
        let (side, notes, threshold) =
            (self.training.resolution, self.notes.clone(), threshold.to_string());
        Sheet { samples, side, title, notes, threshold }
    }
}

/// The study and part of it that a figure is a sheet of, if it is one.
fn sheet_of(id: &str) -> Option<(Study, SheetSpec)> {
    let sheet = |study: Study| {
        let own = study.sheets.iter().find(|s| s.id == id)?.clone();
        Some((study, own))
    };
    Study::shipped().into_iter().find_map(sheet)
}

/// Whether a figure of the paper is a sheet.
pub fn is_sheet(id: &str) -> bool {
    sheet_of(id).is_some()
}

/// A sheet figure and the cells that it lacks.
pub struct SheetFigure {
    /// `None` where nothing can be shown.
    pub png: Option<Vec<u8>>,
    pub plan: StudyPlan,
    /// Which of the plan's cells have no finished run.
    pub missing: Vec<usize>,
    /// What is wrong with damaged runs, which count as missing.
    pub damage: Vec<String>,
    /// What each part shows, with the scale.
    pub parts: Vec<String>,
}

/// Draws a sheet.
///
/// # Errors
/// Usage: no set to draw from, or one too small. Those of reading runs and of the device.
pub fn sheet_figure(id: &str, setup: &Setup, device: &Device) -> Result<SheetFigure> {
    let Some((study, spec)) = sheet_of(id) else {
        return Err(usage(format!("FIGURE: {id} is no sheet")));
    };
    let plan = StudyPlan::new(&study, setup)?;
    if setup.set.is_none() {
        return Err(usage("--data: not given; a sheet shows a set's images"));
    }
    let (scale, set) = (plan.scale.said(), &plan.set_name);
    let figure = match plan.scale.is_paper() {
        true => format!("Figure {id}"),
        false => format!("Figure {id} at scale {}", plan.scale.name),
    };
    let (mut drawn, mut missing, mut damage) = (Vec::new(), Vec::new(), Vec::new());
    let shown = |(_, cell): &(usize, &PlannedCell)| plan.is_held(cell, &spec.only);
    for (i, cell) in plan.cells.iter().enumerate().filter(shown) {
        let Some(run) = cell.runs.first() else {
            let why = cell.impossible.as_deref().unwrap_or_default();
            return Err(usage(format!("--data: {}: {why}", plan.name(cell))));
        };
        if spec.of == Samples::Optimum {
            let of = format!("{figure}: {} images of {set}", run.recipe.size);
            drawn.push(DrawnSheet::by_optimum(setup.images(&run.recipe)?, &of, device)?);
            break;
        }
        match run.dir.as_ref().map(|dir| (dir, run.state())) {
            Some((dir, RunState::Done(_))) => {
                let of = format!("{figure}: EDM, {} of {set}", name(&plan, cell));
                match DrawnSheet::by_run(dir, setup.images(&run.recipe)?, &of, device) {
                    Err(e) if exit_code(&e) == Exit::Data as i32 => damage.push(format!("{e:#}")),
                    other => {
                        drawn.push(other?);
                        continue;
                    }
                }
            }
            Some((_, RunState::Damaged(why))) => damage.push(why),
            _ => {}
        }
        missing.push(i);
    }
    let all: Vec<Sheet> = drawn.iter().map(DrawnSheet::sheet).collect();
    let part = |s: &Sheet| format!("{}; {} ({scale})", s.title, s.notes.join("; "));
    let parts = all.iter().map(part).collect();
    let png = if all.is_empty() { None } else { Some(sheets(&all)?) };
    drop(all);
    Ok(SheetFigure { png, plan, missing, damage, parts })
}

/// A cell's name with its size.
fn name(plan: &StudyPlan, cell: &PlannedCell) -> String {
    let images = cell.runs.first().map_or(0, |r| r.recipe.size);
    let name = plan.name(cell);
    match name.contains(&images.to_string()) {
        true => name,
        false => format!("{images} images, {name}"),
    }
}
