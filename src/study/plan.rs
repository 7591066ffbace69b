//! A study at a scale on a set: which runs its cells are, and where those lie.
//!
//! How tables and figures use it:
//!
//! ```text
//! let study = Study::load("width")?;               // or any in Study::shipped() whose `figures` hold an id
//! let plan = StudyPlan::new(&study, &setup)?;           // cells → runs, named by what determines their numbers
//! let seen = plan.read();                          // one `Seen` a cell, from scores.csv under `--runs`
//! for figure in &study.figures {
//!     for line in plan.lines(figure, &seen) { … }  // points with x, ratio, interval, spread, curve
//! }
//! plan.emm(&seen, 0.1)                             // EMM of each combination of the axes other than size
//! ```
//!
//! A [`Seen`] that found nothing is missing: nothing is drawn for it, and its runs say what it would cost. Every output
//! names [`Scale::said`] and `plan.set_name`.

use super::names::{put, unknown};
use super::outcome::{RunState, Seen, state_of};
use super::scale::Scale;
use super::settings::{ImageShape, Recipe, Settings};
use super::spec::{FigureSpec, Held, Study};
use crate::data::Dataset;
use crate::data::subset::{pick, without};
use crate::error::{Exit, data, exit_code, usage};
use crate::memorization::{Emm, SizeRatio, emm_of};
use crate::run::{DataId, HeldOut, Precision, RunConfig, RunSettings};
use anyhow::Result;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

/// Images that subsets are taken from, and the file they were read from.
pub struct NamedSet {
    pub images: Dataset,
    pub name: String,
}

/// How studies are run.
pub struct Setup {
    pub scale: Scale,
    /// `None`: nothing can be run or looked up, only costed, as for 32×32 RGB images with ten classes.
    pub set: Option<NamedSet>,
    /// The second set of the blends.
    pub blend: Option<NamedSet>,
    /// Runs of each cell, with consecutive seeds from `seed` on.
    pub repeats: usize,
    pub seed: u64,
    /// What new runs are computed in; the first of those in which a finished run counts.
    pub precisions: Vec<Precision>,
    /// Folder of runs.
    pub runs: PathBuf,
    /// Shapes and names of the subsets that are made already: many cells share one.
    made: Mutex<Vec<(Recipe, Made)>>,
}

/// A subset's shape and content, or why there is none.
type Made = Result<(ImageShape, DataId), String>;

impl Setup {
    pub fn new(scale: Scale, set: Option<NamedSet>, runs: PathBuf) -> Setup {
        Setup {
            scale,
            set,
            blend: None,
            repeats: 1,
            seed: 1024,
            precisions: vec![Precision::Fp32],
            runs,
            made: Mutex::default(),
        }
    }

    /// The images of a recipe.
    ///
    /// # Errors
    /// Usage and data: what the set cannot give.
    pub fn images(&self, recipe: &Recipe) -> Result<Dataset> {
        let set = self.set.as_ref().ok_or_else(|| usage("--data: not given"))?;
        let blend = self.blend.as_ref().map(|s| (&s.images, s.name.as_str()));
        recipe.of((&set.images, &set.name), blend)
    }

    /// The images at the set's end that a run measures losses on, as many of each class, less those that it is trained on.
    ///
    /// # Errors
    /// As [`Setup::images`]; data where more than a tenth of them is trained on.
    pub(super) fn held_out(&self, run: &PlannedRun) -> Result<HeldOut> {
        let set = self.set.as_ref().ok_or_else(|| usage("--data: not given"))?;
        let backwards: Vec<usize> = (0..set.images.len()).rev().collect();
        let recipe = Recipe { size: run.holdout, blend: 0.0, ..run.recipe.clone() };
        let last = recipe.of((&pick(&set.images, &backwards), &set.name), None)?;
        let training = self.images(&run.recipe)?;
        let kept = without(&last, &training);
        if 10 * kept.len() < 9 * last.len() {
            let (name, both) = (&set.name, last.len() - kept.len());
            return Err(data(format!(
                "--data: {name}: {both} of the {} images at its end, held out for losses, are among the {} that are trained on: \
                 the set is too small for both",
                last.len(),
                training.len()
            )));
        }
        Ok(HeldOut { images: kept, name: format!("the end of {}", set.name) })
    }

    fn made(&self, recipe: &Recipe) -> Result<Made> {
        let mut all = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, made)) = all.iter().find(|(r, _)| r == recipe) {
            return Ok(made.clone());
        }
        let made = match self.images(recipe) {
            Ok(images) => Ok((ImageShape::of(&images), DataId::of(&images))),
            Err(e) => Err(impossible(e)?),
        };
        all.push((recipe.clone(), made.clone()));
        Ok(made)
    }

    /// Pixels along a side of the set's images and its classes; CIFAR-10's where there is none.
    fn full(&self) -> (usize, usize) {
        self.set.as_ref().map_or((32, 10), |s| (s.images.resolution, s.images.label_dim()))
    }
}

/// Why a cell cannot be: what a set or a network cannot give is no error of the study's.
fn impossible(e: anyhow::Error) -> Result<String> {
    match exit_code(&e) {
        code if code == Exit::Usage as i32 || code == Exit::Data as i32 => Ok(format!("{e:#}")),
        _ => Err(e),
    }
}

/// A study's cells as runs.
pub struct StudyPlan {
    pub study: Study,
    pub scale: Scale,
    /// The set's file; empty where there is none.
    pub set_name: String,
    /// As the study's, with values at this scale.
    pub axes: Vec<PlannedAxis>,
    /// In the order of [`Study::cells`].
    pub cells: Vec<PlannedCell>,
}

pub struct PlannedAxis {
    pub name: String,
    pub title: String,
    pub values: Vec<PlannedValue>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct PlannedValue {
    /// At this scale.
    pub name: String,
    /// At the paper's.
    pub paper_name: String,
    /// The name at this scale, if it is a number.
    pub number: Option<f64>,
}

pub struct PlannedCell {
    /// For each axis the index of the value.
    pub at: Vec<usize>,
    /// One for each seed; empty if the cell is impossible.
    pub runs: Vec<PlannedRun>,
    /// Why this set or scale has no such cell.
    pub impossible: Option<String>,
    /// What the paper has, at its own scale.
    pub paper: Option<PaperValue>,
}

/// A value of the paper's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PaperValue {
    pub percent: f64,
    /// About, as a plot shows it; else it is printed.
    pub plotted: bool,
}

impl PaperValue {
    /// Where it is from, as tables say it.
    pub fn source(&self) -> &'static str {
        if self.plotted { "read off a plot" } else { "printed" }
    }
}

#[derive(Clone)]
pub struct PlannedRun {
    /// Without a set its images are unnamed.
    pub config: RunConfig,
    pub recipe: Recipe,
    /// Held-out images of its set that losses are measured on; 0 for none.
    pub holdout: usize,
    /// Its folder; `None` without a set.
    pub dir: Option<PathBuf>,
}

/// The runs of a cell, or why it has none.
pub(super) type CellRuns = Result<Vec<PlannedRun>, String>;

impl PlannedCell {
    /// The runs that are finished, or those that are not.
    pub fn runs_finished(&self, seen: &Seen, done: bool) -> impl Iterator<Item = &PlannedRun> {
        let all = self.runs.iter().zip(&seen.states);
        all.filter(move |(_, s)| s.done().is_some() == done).map(|(run, _)| run)
    }
}

impl PlannedRun {
    /// As [`state_of`] reads it.
    pub fn state(&self) -> RunState {
        self.dir.as_ref().map_or(RunState::Missing, |dir| state_of(&self.config, dir))
    }
}

impl StudyPlan {
    /// # Errors
    /// Usage: settings that do not go together in the study's file.
    pub fn new(study: &Study, setup: &Setup) -> Result<StudyPlan> {
        let set_name = setup.set.as_ref().map_or("", |set| set.name.as_str());
        let runs = |at: &[usize]| setup.runs_of(&study.settings_of(at)?);
        StudyPlan::of(study, setup.scale, setup.full().0, set_name, &runs)
    }

    /// As [`StudyPlan::new`], with the `runs` of each cell, or why it has none, by the indices of its axes' values. `full`: the
    /// set's resolution.
    ///
    /// # Errors
    /// Those of `runs`.
    pub(super) fn of(
        study: &Study,
        scale: Scale,
        full: usize,
        set_name: &str,
        runs: &dyn Fn(&[usize]) -> Result<CellRuns>,
    ) -> Result<StudyPlan> {
        let axes = study.axes.iter().map(|axis| PlannedAxis {
            name: axis.name.clone(),
            title: axis.title.clone(),
            values: (axis.values.iter())
                .map(|value| {
                    let number = value.name.parse().ok();
                    let at_scale = axis
                        .key
                        .as_deref()
                        .zip(number)
                        .and_then(|(k, n)| scaled(&scale, full, k, n));
                    PlannedValue {
                        name: at_scale.map_or(value.name.clone(), |n| n.to_string()),
                        paper_name: value.name.clone(),
                        number: at_scale.or(number),
                    }
                })
                .collect(),
        });
        let paper = |i: usize| {
            let of = |all: &[f64], plotted: bool| {
                let percent = all.get(i).copied().filter(|p| !p.is_nan())?;
                Some(PaperValue { percent, plotted })
            };
            of(&study.paper.percent, false).or(of(&study.paper.plotted, true))
        };
        let cells = study.cells().into_iter().enumerate().map(|(i, at)| {
            let (runs, impossible) = match runs(&at)? {
                Ok(runs) => (runs, None),
                Err(why) => (Vec::new(), Some(why)),
            };
            Ok(PlannedCell { at, runs, impossible, paper: paper(i) })
        });
        Ok(StudyPlan {
            scale,
            set_name: set_name.into(),
            axes: axes.collect(),
            cells: cells.collect::<Result<_>>()?,
            study: study.clone(),
        })
    }

    /// What is known of each cell.
    pub fn read(&self) -> Vec<Seen> {
        let seen = |cell: &PlannedCell| Seen::of(cell.runs.iter().map(|r| r.state()).collect());
        self.cells.iter().map(seen).collect()
    }

    /// Keeps only the cells with one of these values, by name at this scale or the paper's, on each axis that is named.
    ///
    /// # Errors
    /// Usage that begins with `--only`: an axis or value that is not there, with the nearest that is.
    pub fn keep(&mut self, only: &[(String, String)]) -> Result<()> {
        let mut kept: Vec<Option<Vec<usize>>> = vec![None; self.axes.len()];
        for (name, value) in only {
            let Some(a) = self.axes.iter().position(|axis| axis.name == *name) else {
                let names = self.axes.iter().map(|a| a.name.as_str());
                return Err(usage(format!("--only: {}", unknown("axis", name, names))));
            };
            let values = &self.axes[a].values;
            let is = |v: &PlannedValue| v.paper_name == *value;
            let at = values.iter().position(is).or(values.iter().position(|v| v.name == *value));
            let Some(at) = at else {
                let names = values.iter().map(|v| v.paper_name.as_str());
                let what = format!("value of {name}");
                return Err(usage(format!("--only: {}", unknown(&what, value, names))));
            };
            kept[a].get_or_insert_default().push(at);
        }
        let stays = |at: &[usize]| {
            kept.iter().zip(at).all(|(k, v)| k.as_ref().is_none_or(|k| k.contains(v)))
        };
        self.cells.retain(|cell| stays(&cell.at));
        Ok(())
    }

    /// A cell's name: its axes' values at this scale.
    pub fn name(&self, cell: &PlannedCell) -> String {
        let value = |(axis, &at): (&PlannedAxis, &usize)| match axis.values[at].number {
            Some(_) => format!("{} {}", axis.name, axis.values[at].name),
            None => axis.values[at].name.clone(),
        };
        self.axes.iter().zip(&cell.at).map(value).collect::<Vec<_>>().join(", ")
    }

    /// Whether a cell has one of these values on each axis that is named.
    pub fn is_held(&self, cell: &PlannedCell, only: &Held) -> bool {
        self.axes.iter().zip(&cell.at).all(|(axis, &at)| {
            only.get(&axis.name).is_none_or(|only| only.contains(&axis.values[at].paper_name))
        })
    }

    /// The cells that a figure shows, as lines. Where `x` is an axis, a line runs over its values; where it is
    /// `epochs`, each cell is a line of one point, whose `seen.curve` is drawn. Axes that are neither `x` nor held
    /// at one value name the line.
    pub fn lines<'a>(&'a self, figure: &FigureSpec, seen: &'a [Seen]) -> Vec<EmmLine<'a>> {
        let x = self.axes.iter().position(|axis| axis.name == figure.x);
        let cells = || self.cells.iter().zip(seen).filter(|(c, _)| self.is_held(c, &figure.only));
        let varies = |axis: usize| {
            let mut values = cells().map(|(cell, _)| cell.at[axis]);
            let first = values.next();
            values.any(|v| Some(v) != first)
        };
        let naming: Vec<usize> =
            (0..self.axes.len()).filter(|&a| Some(a) != x && varies(a)).collect();
        let mut lines: Vec<(Vec<usize>, Vec<EmmPoint>)> = Vec::new();
        for (cell, seen) in cells() {
            let key = naming.iter().map(|&a| cell.at[a]).collect();
            let x = x.map(|x| &self.axes[x].values[cell.at[x]]);
            put(&mut lines, key, EmmPoint { x, cell, seen });
        }
        let line = |(key, points): (Vec<usize>, _)| {
            let names = naming.iter().zip(key).map(|(&a, at)| &*self.axes[a].values[at].name);
            EmmLine { name: names.collect::<Vec<_>>().join(", "), points }
        };
        lines.into_iter().map(line).collect()
    }

    /// The EMM over the sizes of each combination of the other axes' values, in their order: its name, what the paper
    /// has at its own scale, and ours, once two sizes are measured.
    pub fn emm(&self, seen: &[Seen], epsilon: f64) -> Vec<EmmOf> {
        let figure = FigureSpec { x: "size".into(), ..FigureSpec::default() };
        if self.axes.iter().all(|a| a.name != "size") {
            return Vec::new();
        }
        // Printed for each combination of the others, whichever of them are kept.
        let printed = |cell: &PlannedCell| {
            let others = self.axes.iter().zip(&cell.at).filter(|(axis, _)| axis.name != "size");
            let place = others.fold(0, |place, (axis, &at)| place * axis.values.len() + at);
            self.study.paper.emm.get(place).copied()
        };
        let emm = |line: EmmLine| {
            let about = line.points.first().and_then(|p| printed(p.cell));
            let paper = |p: &EmmPoint| {
                let size = p.x?.paper_name.parse().ok()?;
                Some(SizeRatio::from((size, p.cell.paper?.percent / 100.0)))
            };
            let known: Vec<SizeRatio> = line.points.iter().filter_map(paper).collect();
            EmmOf {
                ours: line.emm(epsilon),
                paper: about.filter(|p| !p.is_nan()),
                of_paper: (known.len() > 1).then(|| emm_of(&known, epsilon)),
                plotted: line.points.iter().any(|p| p.cell.paper.is_some_and(|v| v.plotted)),
                name: line.name,
            }
        };
        self.lines(&figure, seen).into_iter().map(emm).collect()
    }
}

/// Cells that are joined by a line.
pub struct EmmLine<'a> {
    pub name: String,
    pub points: Vec<EmmPoint<'a>>,
}

pub struct EmmPoint<'a> {
    /// `None` where `x` is epochs.
    pub x: Option<&'a PlannedValue>,
    pub cell: &'a PlannedCell,
    pub seen: &'a Seen,
}

impl EmmLine<'_> {
    /// The EMM, once two sizes are measured, of a line along sizes.
    pub fn emm(&self, epsilon: f64) -> Option<Emm> {
        let of = |p: &EmmPoint| Some(p.seen.found.as_ref()?.at_size(p.x?.number? as u64));
        let known: Vec<SizeRatio> = self.points.iter().filter_map(of).collect();
        (known.len() > 1).then(|| emm_of(&known, epsilon))
    }
}

pub struct EmmOf {
    pub name: String,
    /// About, at the paper's scale.
    pub paper: Option<f64>,
    /// That of the paper's values, if it has two at least, and whether any of them is read off a plot.
    pub of_paper: Option<Emm>,
    pub plotted: bool,
    pub ours: Option<Emm>,
}

impl Setup {
    /// The runs of a cell, or why it has none here.
    fn runs_of(&self, settings: &Settings) -> Result<CellRuns> {
        let recipe = settings.recipe(&self.scale, self.full());
        if let Some(why) = settings.too_few(&recipe, self.full().1) {
            return Ok(Err(why));
        }
        let (shape, id) = match self.set {
            None => (recipe.shape_of_cifar(), None),
            Some(_) => match self.made(&recipe)? {
                Ok((shape, id)) => (shape, Some(id)),
                Err(why) => return Ok(Err(why)),
            },
        };
        let mut runs = Vec::new();
        for seed in (0..self.repeats as u64).map(|r| self.seed.wrapping_add(r)) {
            let mut config = match settings.config(&self.scale, shape, seed, self.precisions[0]) {
                Ok(config) => config,
                Err(e) => return Ok(Err(impossible(e)?)),
            };
            if let Some(id) = &id {
                config.data = id.clone();
            }
            let holdout = settings.images.holdout.map_or(0, |n| self.scale.size(n));
            let run = PlannedRun { config, recipe: recipe.clone(), holdout, dir: None };
            // Of all seeds the same images.
            if let (true, true, Some(_)) = (holdout > 0, runs.is_empty(), &id)
                && let Err(e) = self.held_out(&run)
            {
                return Ok(Err(impossible(e)?));
            }
            runs.push(if id.is_some() { self.place(run) } else { run });
        }
        Ok(Ok(runs))
    }

    /// A run with its folder, in the first precision that it has finished in, else in one in which it is damaged, so that
    /// this is seen, else in the first of all.
    fn place(&self, run: PlannedRun) -> PlannedRun {
        let planned = |&precision| {
            let mut run = run.clone();
            run.config.train.precision = precision;
            run.dir = Some(self.runs.join(run.config.id()));
            run
        };
        let mut chosen = planned(&self.precisions[0]);
        for run in self.precisions.iter().map(planned) {
            let dir = run.dir.as_deref().filter(|dir| dir.exists());
            match dir.map(|d| state_of(&run.config, d)) {
                Some(RunState::Done(_)) => return run,
                Some(RunState::Damaged(_)) => chosen = run,
                _ => {}
            }
        }
        chosen
    }
}

/// A number of an axis' key at a scale, if that key is scaled. An EMA rate is called as the paper calls it.
fn scaled(scale: &Scale, full: usize, key: &str, n: f64) -> Option<f64> {
    match key {
        "size" => Some(scale.size(n as usize) as f64),
        "resolution" => Some(scale.resolution(full, n as usize) as f64),
        "ema_rate" => None,
        _ => {
            let setting = RunSettings::all().find(|s| s.key == key)?;
            scale.scaled(setting.scaled?, Some(n))
        }
    }
}
