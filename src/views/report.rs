//! What a folder holds, as a page: a search's answer, tables, charts, sheets, and runs with their settings, curves
//! and costs.

use super::figures::figure;
use super::held::HeldView;
use super::matrix::matrix;
use super::report_runs::{added_up, run_parts, setting_parts, their_parts};
use super::search;
use super::verify;
use super::when::parts as when_parts;
use super::words::{BANDS, RISING, RISING_MARK, describe_hours, open_marks};
use crate::error::{Exit, OrExit as _, data};
use crate::files::open;
use crate::memory::Size;
use crate::report::{Chart, Page, PagePart, Section, Series, Style, Table};
use crate::study::folder::{RunSeen, runs_in};
use crate::study::held::HeldReport;
use crate::study::log::{Log, wall_s};
use crate::study::outcome::{Measured, Seen};
use crate::study::plan::StudyPlan;
use crate::study::theirs::{self, Theirs};
use crate::study::verify::Certificate;
use crate::study::when::{LEVEL, when};
use anyhow::{Result, anyhow};
use serde::Deserialize;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// Larger files are named, not shown.
const MOST_PICTURE_BYTES: u64 = 16 << 20;
const MOST_TABLE_ROWS: usize = 500;
/// Tables of a run, which its row and curve show.
const OF_RUNS: [&str; 4] = ["scores", "rescored", "scores-distinct", "rescored-distinct"];
const MOST_TEXT_BYTES: u64 = 8 << 20;

/// What [`gather`] found.
pub struct Gathered {
    /// All that was found.
    pub page: Page,
    /// Runs on the page.
    pub runs: usize,
    /// Charts on the page.
    pub charts: usize,
    /// Tables on the page.
    pub tables: usize,
    /// Sheets and other pictures on the page.
    pub pictures: usize,
    /// What is wrong with the damaged runs, which are named on the page and otherwise left out.
    pub damage: Vec<String>,
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
    plans: &[StudyPlan],
    mut theirs: Vec<Theirs>,
) -> Result<Gathered> {
    let what = || folder.display().to_string();
    let mut files: Vec<PathBuf> = (fs::read_dir(folder).or_data(what)?)
        .map(|entry| entry.map(|e| e.path()))
        .collect::<Result<_, _>>()
        .or_exit(Exit::Other, what)?;
    files.sort_by_key(|path| in_order(&name(path)));
    let (runs, damage) = runs_in(folder)?;
    let mut found = FoundRuns { damage, ..FoundRuns::default() };
    found.answer(&folder.join("results.json"));
    found.held(&folder.join("gap/gap.json"));
    match Certificate::read(&folder.join("verify.json")) {
        Ok(certificate) => found.verified = certificate.iter().flat_map(verify::parts).collect(),
        Err(e) => found.broken.push(format!("{e:#}")),
    }
    files.iter().for_each(|path| found.take(path));
    plans.iter().for_each(|plan| found.study(plan));
    if folder.join(theirs::LOG).exists() {
        theirs.push(Theirs::read(folder, None)?);
    }
    found.theirs = their_parts(&theirs, &runs);
    let (groups, broken) = when(&runs, LEVEL);
    found.when = groups.iter().filter(|group| group.tells_more()).flat_map(when_parts).collect();
    found.broken.extend(broken);
    let counts = (found.charts.len(), found.tables.len(), found.pictures.len());
    let empty = runs.is_empty()
        && found.answer.is_empty()
        && found.theirs.is_empty()
        && found.held.is_empty()
        && found.verified.is_empty()
        && counts == (0, 0, 0);
    if empty {
        let why = found
            .damage
            .iter()
            .chain(&found.broken)
            .next()
            .map(|b| format!(" ({b})"))
            .unwrap_or_default();
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
    let mut lead = lead(&runs);
    lead.extend(plans.first().map(|plan| format!("{}; set: {}", plan.scale.said(), plan.set_name)));
    let mut said = std::collections::HashSet::new();
    found.damage.retain(|why| said.insert(why.clone()));
    let damage = found.damage.clone();
    let page = Page { title, lead, sections: found.sections(&runs) };
    let (charts, tables, pictures) = counts;
    Ok(Gathered { page, runs: runs.len(), charts, tables, pictures, damage })
}

fn lead(runs: &[RunSeen]) -> Vec<String> {
    let mut lead = vec![
        "A sample is memorized if it is less than a third as far from its nearest training image as from the \
         second nearest (Gu et al. 2023, arXiv:2310.02664)."
            .to_string(),
    ];
    if !runs.is_empty() {
        let done = runs.iter().filter(|r| r.done.is_some()).count();
        let logs: Vec<&Log> = runs.iter().filter_map(|r| r.log.as_ref()).collect();
        let clock = describe_hours(wall_s(logs.iter().copied()) / 3600.0);
        let hours = match logs.len() {
            0 => "no logs of their time".into(),
            1 => clock,
            _ => format!("{} added up, {clock} by the clock", describe_hours(added_up(&logs))),
        };
        lead.push(format!("{done} of {} runs finished · {hours}", runs.len()));
    }
    lead.push(format!("emm {}", env!("CARGO_PKG_VERSION")));
    lead
}

/// Parts by what they are.
#[derive(Default)]
struct FoundRuns {
    answer: Vec<PagePart>,
    tables: Vec<(String, Table)>,
    charts: Vec<Chart>,
    pictures: Vec<(String, Vec<u8>)>,
    theirs: Vec<PagePart>,
    when: Vec<PagePart>,
    held: Vec<PagePart>,
    verified: Vec<PagePart>,
    /// A line for each damaged run, and for each other thing that could not be read.
    damage: Vec<String>,
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
    /// The answer in words; older files have none.
    said: Option<String>,
    /// Network, training, evaluations and seeds in a line.
    describe_settings: Option<String>,
}

#[derive(Deserialize)]
struct SizeResult {
    size: usize,
    #[serde(flatten)]
    found: Measured,
}

impl FoundRuns {
    /// Reads a file's text, or notes why not.
    fn text(&mut self, path: &Path) -> Option<String> {
        let text = read_shown(path, MOST_TEXT_BYTES).and_then(|bytes| {
            String::from_utf8(bytes).map_err(|_| anyhow!("stream did not contain valid UTF-8"))
        });
        text.map_err(|e| self.broken.push(format!("{}: {e:#}", name(path)))).ok()
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

    /// Takes what `emm gap --holdout` wrote.
    fn held(&mut self, path: &Path) {
        if !path.exists() {
            return;
        }
        let Some(text) = self.text(path) else { return };
        match serde_json::from_str::<HeldReport>(&text) {
            Ok(report) => self.held = HeldView(&report).parts(),
            Err(e) => self.broken.push(format!("gap/gap.json: not what `emm gap` writes: {e}")),
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
    fn study(&mut self, plan: &StudyPlan) {
        let seen = plan.read();
        self.damage.extend(seen.iter().flat_map(Seen::damage));
        if seen.iter().all(|s| s.found.is_none()) {
            return;
        }
        let mut chart = figure(&plan.study.name, std::slice::from_ref(plan)).chart;
        // What the scale does is said once, at the top.
        let said = plan.scale.said();
        let short = said.split(':').next().unwrap_or(&said);
        chart.footer.iter_mut().for_each(|line| *line = line.replace(&said, short));
        chart.panels.retain(|p| p.series.iter().any(is_ours));
        let title = format!("{}; {short}", plan.study.heading());
        if !plan.study.tables.is_empty() {
            self.tables.push((title, matrix(plan, &seen)));
        }
        if !chart.panels.is_empty() {
            self.charts.push(chart);
        }
    }

    fn table(&mut self, path: &Path, stem: String) {
        // A chart's values are in the chart.
        if path.with_extension("json").exists() || OF_RUNS.contains(&&*stem) {
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
            let bytes = read_shown(path, MOST_PICTURE_BYTES)?;
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
            .flat_map(|(name, table)| [PagePart::Text(name), PagePart::Table(table)]);
        let pictures =
            self.pictures.into_iter().map(|(name, png)| PagePart::Picture { name, png }).collect();
        let not_shown = self.damage.into_iter().chain(self.broken);
        let runs_shown = run_parts(runs, !self.answer.is_empty());
        let all: [(&str, Vec<PagePart>); 11] = [
            ("Answer", self.answer),
            ("Tables", tables.collect()),
            ("Figures", self.charts.into_iter().map(PagePart::Chart).collect()),
            ("Runs", runs_shown),
            ("When memorization starts", self.when),
            ("Training and held-out images", self.held),
            ("Beside DiffMemorize", self.theirs),
            ("Sheets", pictures),
            ("Trained again", self.verified),
            ("Settings and costs", setting_parts(runs)),
            ("Not shown", not_shown.map(PagePart::Text).collect()),
        ];
        let section =
            |(title, parts): (&str, Vec<PagePart>)| Section { title: title.into(), parts };
        all.into_iter().filter(|(_, parts)| !parts.is_empty()).map(section).collect()
    }
}

/// The bytes of a file that is not too large to be shown.
fn read_shown(path: &Path, most: u64) -> Result<Vec<u8>> {
    let mut file = open(path)?;
    let length = file.metadata()?.len();
    if length > most {
        return Err(data(format!("{}, at most {} are shown", Size(length), Size(most))));
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Whether a series shows something of ours.
fn is_ours(series: &Series) -> bool {
    series.style != Style::Theirs && !series.points.is_empty()
}

fn name(path: &Path) -> String {
    path.file_name().map_or(String::new(), |n| n.to_string_lossy().into())
}

/// A name by which files are listed as people count: `sheet-8` before `sheet-16`.
fn in_order(name: &str) -> Vec<(String, u128, String)> {
    let digit = |c: &char| c.is_ascii_digit();
    let (mut parts, mut rest) = (Vec::new(), name.chars().peekable());
    while rest.peek().is_some() {
        let words: String = std::iter::from_fn(|| rest.next_if(|c| !digit(c))).collect();
        let digits: String = std::iter::from_fn(|| rest.next_if(digit)).collect();
        parts.push((words, digits.parse().unwrap_or(u128::MAX), digits));
    }
    parts
}

fn answer_parts(results: &Results) -> Vec<PagePart> {
    let e = results.epsilon;
    let sentence = match (&results.said, results.emm, results.bracket) {
        (Some(said), ..) => format!("{said}."),
        (None, Some(emm), Some([lo, hi])) => {
            format!("EMM(ε = {e}) ≈ {emm:.0} training images, interpolated between {lo} and {hi}.")
        }
        _ => format!("EMM(ε = {e}): not bracketed by the measured sizes."),
    };
    let sizes: Vec<(usize, &Measured)> = results.sizes.iter().map(|s| (s.size, &s.found)).collect();
    let rising = sizes.iter().any(|(_, m)| m.rising);
    let panels = vec![
        search::against_size("Against training-set size", &sizes, results.emm, e),
        search::over_training("Over training", &sizes, e),
    ];
    let mut footer: Vec<String> = results.describe_settings.iter().cloned().collect();
    footer.push(BANDS.to_string());
    footer.extend(rising.then(open_marks));
    let title = "Ratio of memorization".into();
    let mut parts = vec![PagePart::Text(sentence), PagePart::Table(search::table(&sizes))];
    parts.extend(rising.then(|| PagePart::Text(format!("{RISING_MARK} {RISING}"))));
    parts.push(PagePart::Chart(Chart { title, panels, footer }));
    parts
}
