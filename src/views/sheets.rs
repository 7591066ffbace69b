//! Samples beside the training images that they are nearest to: of runs, and of the theoretical optimum
//! (Figures 1a, 1b and 10).

use crate::device::Device;
use crate::error::{Exit, exit_code, usage};
use crate::memorization::Threshold;
use crate::report::{Sheet, SheetOf, sheets};
use crate::run::score::compared;
use crate::study::outcome::RunState;
use crate::study::plan::{PlannedCell, Setup, StudyPlan};
use crate::study::samples::{DrawnSamples, SAMPLES};
use crate::study::spec::{Samples, SheetSpec, Study};
use anyhow::Result;

/// Samples as a sheet of them.
pub fn sheet(drawn: &DrawnSamples) -> Sheet<'_> {
    let threshold = Threshold::default();
    let samples = compared(&drawn.pixels, &drawn.training, &drawn.nearest, threshold);
    let copied = samples.iter().filter(|t| t.memorized).count();
    let title = format!("{copied} of the first {SAMPLES} samples are copies");
    let (side, notes, threshold) =
        (drawn.training.resolution, drawn.notes.clone(), threshold.to_string());
    Sheet { samples, side, title, notes, threshold, of: SheetOf::Samples }
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
    /// The study of which it shows cells.
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
            drawn.push(DrawnSamples::by_optimum(setup.images(&run.recipe)?, &of, device)?);
            break;
        }
        match run.dir.as_ref().map(|dir| (dir, run.state())) {
            Some((dir, RunState::Done(_))) => {
                let of = format!("{figure}: EDM, {} of {set}", name(&plan, cell));
                match DrawnSamples::by_run(dir, setup.images(&run.recipe)?, &of, device) {
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
    let all: Vec<Sheet> = drawn.iter().map(sheet).collect();
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
