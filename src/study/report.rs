//! What a folder holds, as a page: a search's answer, tables, charts, sheets, and runs with their settings, curves
//! and costs.

use super::figures::figure;
use super::folder::{IMAGES, RunSeen, differing, runs_in, shared};
use super::outcome::{RunState, Seen};
use super::plan::Plan;
use super::tables::{hours_said, matrix};
use super::theirs::{self, TheirLook, Theirs};
use crate::error::{Exit, OrExit as _, data};
use crate::memorization::emm_of;
use crate::report::{Cell, Chart, Page, Panel, Part, Point, Scale, Section, Series, Style, Table};
use crate::run::Look;
use anyhow::Result;
use serde::Deserialize;
use std::fs;
use std::path::{Path, PathBuf};

/// Series of one chart.
const MOST_LINES: usize = 8;
/// Larger files are named, not shown.
const MOST_PICTURE_BYTES: u64 = 16 << 20;
const MOST_TABLE_ROWS: usize = 500;
const MOST_TEXT_BYTES: u64 = 8 << 20;
const EPSILON: f64 = 0.1;
const RISING: &str = "open marks: the run's ratio was still rising at its last look";

/// What [`gather`] found.
pub struct Gathered {
    pub page: Page,
    pub runs: usize,
    pub charts: usize,
    pub tables: usize,
    pub pictures: usize,
}

/// Reads `folder`: a run, a folder of runs, what `find` or `quickstart` wrote, or saved charts, tables and sheets.
/// `plans`: studies at one scale; tables and figures of those with a finished run are shown. `theirs`: results of the reference's program, set beside; one in the folder itself is found.
///
/// A run or file that cannot be read is named on the page and does not stop it.
///
/// # Errors
/// Data (exit 3): no such folder, nothing in it to report.
pub fn gather(
    folder: &Path,
    title: Option<&str>,
    plans: &[Plan],
    mut theirs: Vec<Theirs>,
) -> Result<Gathered> {
    let what = || folder.display().to_string();
    let mut files: Vec<PathBuf> = (fs::read_dir(folder).or_data(what)?)
        .map(|entry| entry.map(|e| e.path()))
        .collect::<Result<_, _>>()
        .or_exit(Exit::Other, what)?;
    files.sort();
    let (runs, broken) = runs_in(folder)?;
    let mut found = Found { broken, ..Found::default() };
    found.answer(&folder.join("results.json"));
    files.iter().for_each(|path| found.take(path));
    plans.iter().for_each(|plan| found.study(plan));
    if folder.join(theirs::LOG).exists() {
        theirs.push(Theirs::read(folder, None)?);
    }
    found.theirs = their_parts(&theirs, &runs);
    let counts = (found.charts.len(), found.tables.len(), found.pictures.len());
    let empty = runs.is_empty()
        && found.answer.is_empty()
        && found.theirs.is_empty()
        && counts == (0, 0, 0);
    if empty {
        let why = found.broken.first().map(|b| format!(" ({b})")).unwrap_or_default();
        return Err(data(format!(
            "{}: nothing to report: no run, results.json, chart, table or picture that can be read{why}",
            what()
        )));
    }
    let title = match title {
        Some(title) => title.to_string(),
        None => {
            let whole = fs::canonicalize(folder).unwrap_or_else(|_| folder.to_path_buf());
            let name = whole.file_name().map_or(what(), |n| n.to_string_lossy().into());
            format!("Memorization: {name}")
        }
    };
    let page = Page { title, lead: lead(&runs), sections: found.sections(&runs) };
    let (charts, tables, pictures) = counts;
    Ok(Gathered { page, runs: runs.len(), charts, tables, pictures })
}

fn lead(runs: &[RunSeen]) -> Vec<String> {
    let mut lead = vec![
        "A sample is memorized if it is less than a third as far from its nearest training image as from the \
         second nearest (Gu et al. 2023, arXiv:2310.02664)."
            .to_string(),
    ];
    if !runs.is_empty() {
        let done = runs.iter().filter(|r| r.done.is_some()).count();
        let hours: Vec<f64> = runs.iter().filter_map(|r| r.hours).collect();
        let hours = match hours.is_empty() {
            true => "no logs of their time".into(),
            false => format!("{} of one device", hours_said(hours.iter().sum())),
        };
        lead.push(format!("{done} of {} runs finished · {hours}", runs.len()));
    }
    lead.push(format!("emm {}", env!("CARGO_PKG_VERSION")));
    lead
}

/// Parts by what they are.
#[derive(Default)]
struct Found {
    answer: Vec<Part>,
    tables: Vec<(String, Table)>,
    charts: Vec<Chart>,
    pictures: Vec<(String, Vec<u8>)>,
    theirs: Vec<Part>,
    /// A line for each thing that could not be read.
    broken: Vec<String>,
    /// Stems of pictures that charts of the same data stand for.
    drawn: Vec<String>,
}

/// `results.json` of a search, as far as a page needs it.
#[derive(Deserialize)]
struct Results {
    epsilon: f64,
    emm: Option<f64>,
    bracket: Option<[u64; 2]>,
    sizes: Vec<SizeResult>,
}

#[derive(Deserialize)]
struct SizeResult {
    size: u64,
    ratio: f64,
    interval: [f64; 2],
    looks: usize,
    best_epoch: f64,
    curve: Vec<(f64, f64)>,
}

impl Found {
    /// Reads a file's text, or notes why not.
    fn text(&mut self, path: &Path) -> Option<String> {
        let read = || -> Result<String> {
            let length = fs::metadata(path)?.len();
            if length > MOST_TEXT_BYTES {
                return Err(data(format!("{length} bytes, at most {MOST_TEXT_BYTES} are shown")));
            }
            Ok(fs::read_to_string(path)?)
        };
        read().map_err(|e| self.broken.push(format!("{}: {e:#}", name(path)))).ok()
    }

    fn answer(&mut self, path: &Path) {
        if !path.exists() {
            return;
        }
        let Some(text) = self.text(path) else { return };
        match serde_json::from_str::<Results>(&text) {
            Ok(results) => {
                self.answer = answer_parts(&results);
                self.drawn = ["sizes", "epochs"].map(String::from).to_vec();
            }
            Err(e) => self.broken.push(format!("results.json: not a search's results: {e}")),
        }
    }

    /// Takes a file that is something to show.
    fn take(&mut self, path: &Path) {
        let stem = path.file_stem().map_or(String::new(), |s| s.to_string_lossy().into());
        match path.extension().and_then(|e| e.to_str()) {
            Some("json") if stem != "results" => {
                let Some(text) = self.text(path) else { return };
                // Other JSON files may lie there.
                if let Ok(chart) = serde_json::from_str::<Chart>(&text) {
                    self.charts.push(chart);
                    self.drawn.push(stem);
                }
            }
            Some("csv") => self.table(path, stem),
            Some("png") => self.picture(path, stem),
            _ => {}
        }
    }

    /// A study's tables and figures, if anything of it has finished.
    fn study(&mut self, plan: &Plan) {
        let drawn = plan.read().and_then(|seen| {
            if seen.iter().all(|s| s.ratio.is_none()) {
                return Ok(None);
            }
            let figure = figure(&plan.study.name, std::slice::from_ref(plan))?;
            Ok(Some((matrix(plan, &seen), figure.chart)))
        });
        match drawn {
            Ok(Some((table, chart))) => {
                let scale = plan.scale.said();
                let title = format!("{} ({}); {scale}", plan.study.title, plan.study.source);
                if !plan.study.tables.is_empty() {
                    self.tables.push((title, table));
                }
                if !chart.panels.is_empty() {
                    self.charts.push(chart);
                }
            }
            Ok(None) => {}
            Err(e) => self.broken.push(format!("{}: {e:#}", plan.study.name)),
        }
    }

    fn table(&mut self, path: &Path, stem: String) {
        // A chart's values are in the chart.
        if path.with_extension("json").exists() || ["scores", "rescored"].contains(&&*stem) {
            return;
        }
        let Some(text) = self.text(path) else { return };
        match Table::from_csv(&text) {
            Some(table) if table.len() <= MOST_TABLE_ROWS => self.tables.push((stem, table)),
            Some(_) => {
                self.broken.push(format!("{}: more than {MOST_TABLE_ROWS} rows", name(path)));
            }
            None => self.broken.push(format!("{}: not a table", name(path))),
        }
    }

    fn picture(&mut self, path: &Path, stem: String) {
        let read = || -> Result<Vec<u8>> {
            let length = fs::metadata(path)?.len();
            if length > MOST_PICTURE_BYTES {
                return Err(data(format!(
                    "{length} bytes, at most {MOST_PICTURE_BYTES} are shown"
                )));
            }
            let bytes = fs::read(path)?;
            png::Decoder::new(std::io::Cursor::new(&bytes)).read_info()?;
            Ok(bytes)
        };
        if self.drawn.contains(&stem) || path.with_extension("json").exists() {
            return;
        }
        match read() {
            Ok(bytes) => self.pictures.push((name(path), bytes)),
            Err(e) => self.broken.push(format!("{}: not a picture: {e:#}", name(path))),
        }
    }

    fn sections(self, runs: &[RunSeen]) -> Vec<Section> {
        let tables = self
            .tables
            .into_iter()
            .flat_map(|(name, table)| [Part::Text(name), Part::Table(table)]);
        let pictures =
            self.pictures.into_iter().map(|(name, png)| Part::Picture { name, png }).collect();
        let runs_shown = run_parts(runs, !self.answer.is_empty());
        let all: [(&str, Vec<Part>); 8] = [
            ("Answer", self.answer),
            ("Tables", tables.collect()),
            ("Figures", self.charts.into_iter().map(Part::Chart).collect()),
            ("Runs", runs_shown),
            ("Beside DiffMemorize", self.theirs),
            ("Sheets", pictures),
            ("Settings and costs", setting_parts(runs)),
            ("Not shown", self.broken.into_iter().map(Part::Text).collect()),
        ];
        let section = |(title, parts): (&str, Vec<Part>)| Section { title: title.into(), parts };
        all.into_iter().filter(|(_, parts)| !parts.is_empty()).map(section).collect()
    }
}

fn name(path: &Path) -> String {
    path.file_name().map_or(String::new(), |n| n.to_string_lossy().into())
}

fn answer_parts(results: &Results) -> Vec<Part> {
    let e = results.epsilon;
    let sentence = match (results.emm, results.bracket) {
        (Some(emm), Some([lo, hi])) => {
            format!("EMM(ε = {e}) ≈ {emm:.0} training images, interpolated between {lo} and {hi}.")
        }
        _ => format!("EMM(ε = {e}): not bracketed by the measured sizes."),
    };
    let columns = ["images", "ratio", "95% from", "to", "best epoch", "looks"];
    let mut table = Table::new(&columns);
    for s in &results.sizes {
        table.row(vec![
            Cell::Integer(s.size as i64),
            Cell::Percent(s.ratio, 2),
            Cell::Percent(s.interval[0], 2),
            Cell::Percent(s.interval[1], 2),
            Cell::Number(s.best_epoch, 0),
            Cell::Integer(s.looks as i64),
        ]);
    }
    let points = results
        .sizes
        .iter()
        .map(|s| Point { interval: Some(s.interval), ..Point::new(s.size as f64, s.ratio) });
    let series = Series {
        name: String::new(),
        style: Style::Line,
        points: points.collect(),
        emm: results.emm,
    };
    let line = |s: &SizeResult| (format!("N = {}", s.size), s.curve.clone());
    let sizes = Panel::sizes("Against training-set size", e, vec![series]);
    let epochs = Panel::epochs("Over training", results.sizes.iter().map(line).collect());
    let footer = vec!["band: 95% sampling interval (Wilson)".into()];
    let title = "Ratio of memorization".into();
    vec![
        Part::Text(sentence),
        Part::Table(table),
        Part::Chart(Chart { title, panels: vec![sizes, epochs], footer }),
    ]
}

/// The runs' table and curves.
fn run_parts(runs: &[RunSeen], answered: bool) -> Vec<Part> {
    if runs.is_empty() {
        return Vec::new();
    }
    let differing = differing(&runs.iter().collect::<Vec<_>>());
    let mut columns: Vec<&str> = differing.iter().map(String::as_str).collect();
    columns.extend(["ratio", "95% from", "to", "best epoch", "looks", "hours", "run"]);
    let mut table = Table::new(&columns);
    for run in runs {
        let mut row: Vec<Cell> =
            differing.iter().map(|key| Cell::of_text(run.setting(key))).collect();
        let share = |of: &dyn Fn(&Look) -> f64| {
            run.value().map_or(Cell::Empty, |l| Cell::Percent(of(l), 2))
        };
        row.extend([share(&|l| l.ratio), share(&|l| l.low), share(&|l| l.high)]);
        row.push(run.best_epoch().map_or(Cell::Empty, |e| Cell::Number(e, 0)));
        let looks = run.looks.len();
        row.push(match &run.done {
            Some(_) => Cell::Integer(looks as i64),
            None => Cell::Text(format!("{looks} of {}", run.config.look_steps().len())),
        });
        row.push(run.hours.map_or(Cell::Empty, |h| Cell::Number(h, if h < 1.0 { 4 } else { 1 })));
        row.push(Cell::Text(run.name.clone()));
        table.row(row);
    }
    let charts = by_size(runs).into_iter().chain(over_training(runs, &differing));
    let charts: Vec<Part> = charts.map(Part::Chart).collect();
    match answered {
        // The answer's charts show them.
        true => vec![Part::Table(table), Part::Folded("Charts of the runs".into(), charts)],
        false => std::iter::once(Part::Table(table)).chain(charts).collect(),
    }
}

/// Ratio against size: a line for each setting that several sizes were measured of.
fn by_size(runs: &[RunSeen]) -> Option<Chart> {
    let mut groups: Vec<(String, Vec<&RunSeen>)> = Vec::new();
    for run in runs.iter().filter(|r| r.done.is_some()) {
        let key = run.key();
        match groups.iter_mut().find(|(k, _)| *k == key) {
            Some((_, group)) => group.push(run),
            None => groups.push((key, vec![run])),
        }
    }
    groups.retain(|(_, group)| sizes_of(group).len() > 1);
    let firsts: Vec<&RunSeen> = groups.iter().map(|(_, group)| group[0]).collect();
    let varying: Vec<String> =
        differing(&firsts).into_iter().filter(|k| k != IMAGES && k != "seed").collect();
    let series = |(_, group): &(String, Vec<&RunSeen>)| {
        let points = sizes_of(group).into_iter().filter_map(|size| mean_point(group, size));
        let points: Vec<Point> = points.collect();
        let pairs: Vec<_> = points.iter().map(|p| (p.x as u64, p.y)).collect();
        let emm = emm_of(&pairs, EPSILON).found.ok().map(|f| f.0);
        Series { name: group[0].called(&varying), style: Style::Line, emm, points }
    };
    let series: Vec<Series> = groups.iter().map(series).collect();
    let panels = series.chunks(MOST_LINES).map(|c| Panel::sizes("", EPSILON, c.to_vec()));
    let averaged = groups.iter().any(|(_, group)| sizes_of(group).len() < group.len());
    let more = if averaged { "; the mean of several seeds" } else { "" };
    chart("Against training-set size", panels.collect(), more)
}

/// Ascending.
fn sizes_of(group: &[&RunSeen]) -> Vec<usize> {
    let mut sizes: Vec<usize> = group.iter().map(|r| r.config.data.images).collect();
    sizes.sort();
    sizes.dedup();
    sizes
}

/// The finished runs of one size: their mean, the interval of all their images.
fn mean_point(group: &[&RunSeen], size: usize) -> Option<Point> {
    let runs = group.iter().filter(|r| r.config.data.images == size);
    let seen = Seen::of(runs.filter_map(|r| r.done.clone().map(RunState::Done)).collect());
    let (interval, rising) = (Some(seen.interval), seen.rising);
    Some(Point { x: size as f64, y: seen.ratio?, interval, rising })
}

/// Curves, so many a panel that they can be told apart.
fn over_training(runs: &[RunSeen], differing: &[String]) -> Option<Chart> {
    let series = |run: &RunSeen| our_curve(run, run.called(differing));
    let series: Vec<Series> = runs.iter().filter(|r| !r.looks.is_empty()).map(series).collect();
    let panel = |c: &[Series]| Panel::new("", "epochs", Scale::Linear, c.to_vec());
    chart("Over training", series.chunks(MOST_LINES).map(panel).collect(), "")
}

fn our_curve(run: &RunSeen, name: String) -> Series {
    let point =
        |l: &Look| Point { interval: Some([l.low, l.high]), ..Point::new(l.epoch, l.ratio) };
    let mut points: Vec<Point> = run.looks.iter().map(point).collect();
    if let (Some(last), Some(done)) = (points.last_mut(), &run.done) {
        last.rising = done.rising();
    }
    Series { name, style: Style::Line, points, emm: None }
}

/// A chart of ratios with intervals; none without panels.
fn chart(title: &str, panels: Vec<Panel>, more: &str) -> Option<Chart> {
    let mut footer = vec![format!("band: 95% sampling interval (Wilson){more}")];
    let mut points = panels.iter().flat_map(|p| &p.series).flat_map(|s| &s.points);
    if points.any(|p| p.rising) {
        footer.push(RISING.into());
    }
    (!panels.is_empty()).then(|| Chart { title: title.into(), panels, footer })
}

/// What the runs share, and what they cost.
fn setting_parts(runs: &[RunSeen]) -> Vec<Part> {
    if runs.is_empty() {
        return Vec::new();
    }
    let all: Vec<&RunSeen> = runs.iter().collect();
    let mut costs = Vec::new();
    let known: Vec<f64> = runs.iter().filter_map(|r| r.hours).collect();
    if !known.is_empty() {
        costs.push(("all runs".to_string(), hours_said(known.iter().sum())));
    }
    if known.len() < runs.len() {
        let without = (runs.len() - known.len()).to_string();
        costs.push(("runs without a log".to_string(), without));
    }
    if let Some(longest) = known.iter().copied().reduce(f64::max).filter(|_| runs.len() > 1) {
        costs.push(("the longest run".to_string(), hours_said(longest)));
    }
    let shared = shared(&all);
    let title =
        if runs.len() == 1 { "Settings of the run." } else { "Settings that all runs share." };
    vec![
        Part::Text(
            "Device-hours by the runs' logs, scoring included; a device is what one run computes on."
                .into(),
        ),
        Part::Facts(costs),
        Part::Text(title.into()),
        Part::Facts(shared),
    ]
}

/// Their curves beside our runs of the same size, and their best looks against size.
fn their_parts(theirs: &[Theirs], runs: &[RunSeen]) -> Vec<Part> {
    if theirs.is_empty() {
        return Vec::new();
    }
    let columns = ["images", "ratio", "ours", "95% from", "to", "best epoch", "looks", "run"];
    let mut table = Table::new(&columns);
    for t in theirs {
        let best = t.best();
        let end = |i: usize| best.interval.map_or(Cell::Empty, |v| Cell::Percent(v[i], 2));
        let ours: Vec<String> = (of_size(runs, t.size).iter())
            .filter_map(|r| Some(format!("{:.2}%", 100.0 * r.done.as_ref()?.value.ratio)))
            .collect();
        table.row(vec![
            Cell::Integer(t.size as i64),
            Cell::Percent(best.ratio, 2),
            Cell::Text(ours.join(", ")),
            end(0),
            end(1),
            Cell::Number(best.epoch, 0),
            Cell::Integer(t.looks.len() as i64),
            Cell::Text(t.name.clone()),
        ]);
    }
    let mut sizes: Vec<usize> = theirs.iter().map(|t| t.size).collect();
    sizes.sort();
    sizes.dedup();
    let panel = |&size: &usize| {
        let same = of_size(runs, size);
        let differing = differing(&same);
        let name = |run: &RunSeen| match differing.is_empty() {
            true => "ours".to_string(),
            false => format!("ours: {}", run.called(&differing)),
        };
        let ours = same.iter().filter(|r| !r.looks.is_empty()).take(MOST_LINES);
        let ours = ours.map(|run| our_curve(run, name(run)));
        let curves = theirs.iter().filter(|t| t.size == size).map(|t| Series {
            name: t.name.clone(),
            style: Style::Theirs,
            points: t.looks.iter().map(their_point).collect(),
            emm: None,
        });
        let title = format!("N = {size}");
        Panel::new(&title, "epochs", Scale::Linear, ours.chain(curves).collect())
    };
    let mut parts = vec![
        Part::Text(
            "Ratios as that program decides them: distances in float32 through a matrix product, looks by \
             thousands of images, so that small sets have fewer than large ones."
                .into(),
        ),
        Part::Table(table),
    ];
    let title = "Over training, beside DiffMemorize";
    parts.extend(chart(title, sizes.iter().map(panel).collect(), "").map(Part::Chart));
    parts.extend(theirs.iter().flat_map(|t| &t.notes).cloned().map(Part::Text));
    parts
}

fn of_size(runs: &[RunSeen], size: usize) -> Vec<&RunSeen> {
    runs.iter().filter(|r| r.config.data.images == size).collect()
}

fn their_point(look: &TheirLook) -> Point {
    Point { interval: look.interval, ..Point::new(look.epoch, look.ratio) }
}
