//! The paper's figures as charts: views over finished runs, missing ones left out and named.

use super::search::curve;
use super::words::{BANDS, open_marks};
use crate::error::usage;
use crate::memorization::{RESAMPLES, bootstrap};
use crate::report::chart::{EPOCHS, SIZES};
use crate::report::{Chart, ChartScale, Panel, Point, Series, Style};
use crate::run::Evaluation;
use crate::study::EPSILON;
use crate::study::names::{by_reason, put};
use crate::study::outcome::Seen;
use crate::study::plan::{self, EmmLine, PlannedCell, PlannedValue, StudyPlan};
use crate::study::spec::{AxisScale, Draw, FigureSpec, Study};
use anyhow::Result;

/// Names of the paper's values: printed, and read off its plots.
const PRINTED: &str = "paper";
const PLOTTED: &str = "paper ≈";

/// Numbers of images, as shares of those that were generated.
const SHARES: [f64; 7] = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0];

/// A figure and what it lacks.
pub struct Figure {
    /// What is drawn, of the cells that have a result.
    pub chart: Chart,
    /// For each plan which of its cells the figure would show, had they a result.
    pub missing: Vec<Vec<usize>>,
    /// What is wrong with damaged runs, which count as missing.
    pub damage: Vec<String>,
}

/// The studies that a figure shows: of an id such as `2a`, of all its panels (`2`), or of a study with figures.
///
/// # Errors
/// Usage: no such figure, or a study that draws none.
pub fn studies_of(id: &str) -> Result<Vec<Study>> {
    let mut shipped = Study::shipped();
    shipped.retain(|study| study.figures.iter().any(|f| is_of(&f.id, id)));
    if !shipped.is_empty() {
        return Ok(shipped);
    }
    if id.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(usage(format!(
            "FIGURE: no {id:?}; the paper has 1a to 1d, 2a to 2c, 3a to 3d, 4a to 4d, 5a to 5d, 6, 7a to 7f, \
             8a, 8b, 9, 10"
        )));
    }
    let study = Study::given("FIGURE", id)?;
    match study.figures.is_empty() {
        true => Err(usage(format!("FIGURE: {id}: the study has no [[figure]]"))),
        false => Ok(vec![study]),
    }
}

/// Whether the figure of id `own` is (a panel of) `asked`.
fn is_of(own: &str, asked: &str) -> bool {
    own == asked || own.strip_prefix(asked).is_some_and(|rest| "abcdef".contains(rest))
}

/// Draws what finished runs say. `asked`: as for [`studies_of`], whose studies `plans` are of.
pub fn figure(asked: &str, plans: &[StudyPlan]) -> Figure {
    let own = |plan: &StudyPlan| !plan.study.figures.iter().any(|f| is_of(&f.id, asked));
    let shown = |plan: &StudyPlan, f: &FigureSpec| own(plan) || is_of(&f.id, asked);
    let of = |plan: &StudyPlan| {
        let ids = plan.study.figures.iter().filter(|f| shown(plan, f)).map(|f| f.id.as_str());
        ids.collect::<Vec<_>>().join(", ")
    };
    let mut panels: Vec<(String, Panel)> = Vec::new();
    let (mut missing, mut damage) = (Vec::new(), Vec::new());
    let mut footer = Vec::new();
    for plan in plans {
        let seen = plan.read();
        damage.extend(seen.iter().flat_map(Seen::damage));
        let mut lacking: Vec<usize> = Vec::new();
        for spec in plan.study.figures.iter().filter(|f| shown(plan, f)) {
            let lines = plan.lines(spec, &seen);
            for point in lines.iter().flat_map(|l| &l.points) {
                if point.seen.found.is_none() && point.cell.impossible.is_none() {
                    lacking.extend(plan.cells.iter().position(|c| c.at == point.cell.at));
                }
            }
            let view = FigureView { plan, spec, lines: &lines };
            let drawn = match spec.draw {
                Draw::Bootstrap => view.bootstrapped(),
                Draw::Lines | Draw::Marks => view.panels(),
            };
            panels.extend(drawn.into_iter().map(|p| (spec.id.clone(), p)));
        }
        footer.extend(describe(plan, &seen, &of(plan)));
        lacking.sort();
        lacking.dedup();
        missing.push(lacking);
    }
    panels.sort_by(|a, b| a.0.cmp(&b.0));
    let panels: Vec<Panel> = panels.into_iter().map(|(_, panel)| panel).collect();
    let mut all = general_footer(plans, &panels);
    all.extend(footer);
    let lacking: usize = missing.iter().map(Vec::len).sum();
    if lacking > 0 {
        all.push(format!("missing: {lacking} cells, not drawn"));
    }
    let mut said = std::collections::HashSet::new();
    all.retain(|line| said.insert(line.clone()));
    let title = match plans.iter().all(own) {
        true => plans.iter().map(|p| p.study.title.as_str()).collect::<Vec<_>>().join("; "),
        false => format!("Figure {asked} of Gu et al. 2023"),
    };
    Figure { chart: Chart { title, panels, footer: all }, missing, damage }
}

/// ChartScale, set, what bands and open marks mean.
fn general_footer(plans: &[StudyPlan], panels: &[Panel]) -> Vec<String> {
    let mut out = Vec::new();
    if let Some(plan) = plans.first() {
        let set = if plan.set_name.is_empty() { "no set given" } else { &plan.set_name };
        out.push(format!("{}; {set}", plan.scale.said()));
    }
    let series = || panels.iter().flat_map(|p| &p.series);
    let points = || series().filter(|s| s.style != Style::Theirs).flat_map(|s| &s.points);
    if points().any(|p| p.rising) {
        out.push(open_marks());
    }
    if series().any(|s| s.style == Style::Theirs) && plans.iter().any(|p| !p.scale.is_paper()) {
        out.push("paper: its values, at its own scale".into());
    }
    if series().any(|s| s.beside.is_some()) {
        let ends = panels.iter().any(|p| p.x.name == EPOCHS);
        let ends = if ends { ", of the whole run" } else { "" };
        out.push(format!("crosses: the paper's values{ends}, in the colour of ours beside"));
    }
    if series().any(|s| s.name.starts_with(PLOTTED)) {
        out.push(format!("{PLOTTED}: read off a plot of the paper's"));
    }
    out
}

/// What one study adds to the footer; `of`: its panels.
fn describe(plan: &StudyPlan, seen: &[Seen], of: &str) -> Vec<String> {
    let mut out = Vec::new();
    let spread = seen.iter().filter_map(|s| s.found.as_ref()?.spread).map(|s| s.seeds).max();
    out.push(match (spread, plan.study.figures.iter().any(|f| f.draw == Draw::Bootstrap)) {
        (_, true) => format!("band: the middle 95% of {RESAMPLES} bootstrap resamples"),
        (Some(seeds), _) => {
            format!(
                "points, bands and bars: mean, lowest and highest of up to {seeds} training seeds"
            )
        }
        (None, _) => BANDS.into(),
    });
    let printed = plan.study.paper.emm.iter().filter(|e| e.is_finite());
    let printed: Vec<String> = printed.map(|e| e.to_string()).collect();
    if !printed.is_empty() {
        out.push(format!("{of}: the paper's EMMs, about: {} images", printed.join(", ")));
    }
    if !plan.study.note.is_empty() {
        out.push(format!("{of}: {}", plan.study.note));
    }
    let impossible = plan.cells.iter().filter_map(|c| Some((plan.name(c), c.impossible.clone()?)));
    let lines = by_reason(impossible).into_iter();
    out.extend(lines.map(|line| format!("{of}: not to be had here: {line}")));
    out
}

/// The lines of one panel, named, and the values that make it one.
type Group<'a> = (Vec<usize>, Vec<(String, &'a EmmLine<'a>)>);

/// One figure's lines, about to become panels.
struct FigureView<'a> {
    plan: &'a StudyPlan,
    spec: &'a FigureSpec,
    lines: &'a [EmmLine<'a>],
}

/// A line and what it is called.
type Named<'a> = (String, &'a EmmLine<'a>);

impl FigureView<'_> {
    fn axis(&self, name: &str) -> Option<usize> {
        self.plan.axes.iter().position(|a| a.name == name)
    }

    /// A panel for each combination of the axes that are neither `x` nor `lines`.
    fn panels(&self) -> Vec<Panel> {
        let cell =
            |line: &EmmLine| line.points.first().map(|p| p.cell.at.clone()).unwrap_or_default();
        let cells: Vec<Vec<usize>> = self.lines.iter().map(cell).collect();
        let x = self.axis(&self.spec.x);
        let varies = |&a: &usize| cells.iter().any(|c| c.get(a) != cells[0].get(a));
        let varying: Vec<usize> =
            (0..self.plan.axes.len()).filter(|a| Some(*a) != x).filter(varies).collect();
        let named = self.spec.lines.as_deref().and_then(|l| self.axis(l));
        let (naming, splitting): (Vec<usize>, Vec<usize>) = match named {
            Some(n) if varying.contains(&n) => varying.iter().partition(|&&a| a == n),
            _ => (varying, Vec::new()),
        };
        let mut groups: Vec<Group> = Vec::new();
        for (line, at) in self.lines.iter().zip(&cells) {
            let key: Vec<usize> = splitting.iter().map(|&a| at[a]).collect();
            let names: Vec<String> = naming.iter().map(|&a| self.value(a, at[a])).collect();
            put(&mut groups, key, (names.join(", "), line));
        }
        let held = self.spec.only.iter().filter(|(_, values)| values.len() == 1);
        let held: Vec<String> = held
            .filter_map(|(axis, values)| {
                let a = self.axis(axis)?;
                let at = self.plan.axes[a].values.iter().position(|v| v.paper_name == values[0])?;
                Some(self.value(a, at))
            })
            .collect();
        let panel = |(key, lines): Group| {
            let split = splitting.iter().zip(key).map(|(&a, at)| self.value(a, at));
            let more: Vec<String> = held.iter().cloned().chain(split).collect();
            let more =
                if more.is_empty() { String::new() } else { format!(" · {}", more.join(", ")) };
            self.panel(&format!("{}: {}{more}", self.spec.id, self.plan.study.title), &lines)
        };
        groups.into_iter().map(panel).collect()
    }

    /// A value of an axis as names of lines say it.
    fn value(&self, axis: usize, at: usize) -> String {
        let axis = &self.plan.axes[axis];
        let value = &axis.values[at];
        match (axis.name.as_str(), value.number) {
            ("size", Some(_)) => format!("N = {}", value.name),
            ("resolution", Some(_)) => format!("{0}×{0}", value.name),
            (name, Some(_)) => format!("{name} {}", value.name),
            _ => value.name.clone(),
        }
    }

    fn panel(&self, title: &str, lines: &[Named]) -> Panel {
        let x_name = match self.axis(&self.spec.x) {
            None => EPOCHS.to_string(),
            Some(_) if self.spec.x == "size" => SIZES.into(),
            Some(a) => self.plan.axes[a].title.to_lowercase(),
        };
        let (scale, mut series, printed) = match (self.spec.draw, self.scale(lines)) {
            (Draw::Marks, _) => self.marks(lines),
            (_, scale) => {
                let series = lines.iter().map(|(name, line)| self.line(name, line, &scale));
                let (series, printed) = (series.collect(), self.printed(lines, &scale));
                (scale, series, printed)
            }
        };
        series.extend(printed);
        Panel { level: Some(1.0 - EPSILON), ..Panel::new(title, &x_name, scale, series) }
    }

    /// How cells lie along the horizontal axis.
    fn scale(&self, lines: &[Named]) -> ChartScale {
        match (self.spec.x.as_str(), self.spec.scale) {
            ("epochs", _) => return ChartScale::Linear,
            (_, Some(AxisScale::Log)) => return ChartScale::Log,
            ("size", None) => return ChartScale::Images,
            _ => {}
        }
        let mut names: Vec<String> = Vec::new();
        for value in lines.iter().flat_map(|(_, l)| &l.points).filter_map(|p| p.x) {
            if !names.contains(&value.name) {
                names.push(value.name.clone());
            }
        }
        ChartScale::Categories(names)
    }

    fn line(&self, name: &str, line: &EmmLine, scale: &ChartScale) -> Series {
        if *scale == ChartScale::Linear {
            return curves(name, line);
        }
        let points: Vec<Point> =
            line.points.iter().filter_map(|p| point(place(p.x?, scale)?, p.seen)).collect();
        // Where the line falls through the level; points beside it say whether that is a lower bound.
        let of_sizes = (*scale == ChartScale::Images).then(|| line.emm(EPSILON)).flatten();
        let emm = of_sizes.and_then(|emm| Some(emm.found.ok()?.0));
        Series { emm, ..Series::new(name, Style::Line, points) }
    }

    /// Marks side by side, each in the series and at the place that its value names, else in its line's at its own; ours
    /// and the paper's.
    fn marks(&self, lines: &[Named]) -> (ChartScale, Vec<Series>, Vec<Series>) {
        let mut places: Vec<String> = Vec::new();
        let (mut ours, mut theirs): (Vec<Series>, Vec<Series>) = Default::default();
        let axis = self.axis(&self.spec.x).unwrap_or(0);
        for (name, line) in lines {
            for p in &line.points {
                let Some(x) = p.x else { continue };
                let value = &self.plan.study.axes[axis].values[p.cell.at[axis]];
                let said = |word: &Option<String>| word.as_ref().map(|w| resolved(p.cell, w));
                let place = said(&value.place).unwrap_or_else(|| x.name.clone());
                let name = said(&value.series).unwrap_or_else(|| name.clone());
                let x = index_of(&mut places, |c| *c == place, || place.clone()) as f64;
                let new = |style| Series::new(name.clone(), style, Vec::new());
                let i = index_of(&mut ours, |s| s.name == name, || new(Style::Marks));
                ours[i].points.extend(point(x, p.seen));
                let Some(paper) = p.cell.paper else { continue };
                let whose = of_paper(paper.plotted, &name);
                let new = || beside(i, Series::new(whose.clone(), Style::Theirs, Vec::new()));
                let k = index_of(&mut theirs, |s| s.name == whose, new);
                theirs[k].points.push(Point::new(x, paper.percent / 100.0));
            }
        }
        (ChartScale::Categories(places), ours, theirs)
    }

    /// A panel for each cell, close around its ratio: what fewer generated images would have said.
    fn bootstrapped(&self) -> Vec<Panel> {
        let points = self.lines.iter().flat_map(|l| &l.points);
        let panel = |p: &plan::EmmPoint| {
            let done: Vec<_> = p.seen.states.iter().filter_map(|s| s.done()).collect();
            let sum = |of: fn(&Evaluation) -> u64| done.iter().map(|d| of(&d.value)).sum();
            let (memorized, images): (u64, u64) = (sum(|l| l.memorized), sum(|l| l.images));
            let x = self.axis(&self.spec.x)?;
            let title = format!("{}: {}", self.spec.id, self.value(x, p.cell.at[x]));
            let resampled = |share: &f64| {
                let n = ((share * images as f64).round() as u64).max(1);
                let (mean, ends) = bootstrap(memorized, images, n);
                Point { interval: Some(ends), ..Point::new(n as f64, mean) }
            };
            let shares = if images == 0 { &[][..] } else { &SHARES };
            let points = shares.iter().map(resampled).collect();
            let series = Series::new("", Style::Line, points);
            Some(Panel::new(&title, "generated images", ChartScale::Log, vec![series]).zoomed())
        };
        points.filter_map(panel).collect()
    }

    /// The paper's values of these lines, each in the colour of its own where there are several.
    fn printed(&self, lines: &[Named], scale: &ChartScale) -> Vec<Series> {
        let series = lines.iter().enumerate().map(|(i, (name, line))| {
            let at = |p: &plan::EmmPoint| match scale {
                // Of the whole run: at its end.
                ChartScale::Linear => p.cell.runs.first().map(|r| r.config.train.epochs),
                _ => place(p.x?, scale),
            };
            [false, true].map(|plotted| {
                let value = |p: &plan::EmmPoint| {
                    let paper = p.cell.paper.filter(|v| v.plotted == plotted)?;
                    Some(Point::new(at(p)?, paper.percent / 100.0))
                };
                let points = line.points.iter().filter_map(value).collect();
                let series = Series::new(of_paper(plotted, name), Style::Theirs, points);
                if lines.len() > 1 { beside(i, series) } else { series }
            })
        });
        series.flatten().filter(|s| !s.points.is_empty()).collect()
    }
}

/// What the paper's values of a line are called.
fn of_paper(plotted: bool, line: &str) -> String {
    let whose = if plotted { PLOTTED } else { PRINTED };
    if line.is_empty() { whose.into() } else { format!("{whose}: {line}") }
}

fn beside(ours: usize, series: Series) -> Series {
    Series { beside: Some(ours), ..series }
}

/// Where the first that `is` stands among `all`, a new one at their end if there is none.
fn index_of<T>(all: &mut Vec<T>, is: impl Fn(&T) -> bool, new: impl FnOnce() -> T) -> usize {
    all.iter().position(is).unwrap_or_else(|| {
        all.push(new());
        all.len() - 1
    })
}

/// Where a value lies on the axis.
fn place(value: &PlannedValue, scale: &ChartScale) -> Option<f64> {
    match scale {
        ChartScale::Categories(names) => {
            names.iter().position(|n| *n == value.name).map(|i| i as f64)
        }
        _ => value.number,
    }
}

/// A cell's result: of several seeds their spread, else the sampling interval.
fn point(x: f64, seen: &Seen) -> Option<Point> {
    let found = seen.found.as_ref()?;
    let interval = found.spread.map_or(found.interval, |s| [s.lowest, s.highest]);
    Some(Point { x, y: found.ratio, interval: Some(interval), rising: found.rising })
}

/// Cells' curves over training, with intervals as [`point`]'s.
fn curves(name: &str, line: &EmmLine) -> Series {
    let points = line.points.iter().filter_map(|p| p.seen.found.as_ref()).flat_map(|found| {
        let of_seeds = found.spread.is_some();
        curve(found, if of_seeds { &found.curve_spreads } else { &found.curve_intervals })
    });
    Series::new(name, Style::Line, points.collect())
}

/// `8`, of an image of 32 pixels, as the resolution that it is here; other words as they are.
fn resolved(cell: &PlannedCell, word: &str) -> String {
    let model = cell.runs.first().map(|r| &r.config.model);
    match (model, word.parse::<usize>()) {
        (Some(model), Ok(at)) => format!("{0}×{0}", (model.resolution * at / 32).max(1)),
        _ => word.into(),
    }
}
