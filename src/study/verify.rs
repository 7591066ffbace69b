//! Which runs of a folder or of a search's results are trained again, on which images, and the certificate of it.

use super::cost::flop_of;
use super::folder::runs_in;
use super::settings::Recipe;
use crate::data::Dataset;
use crate::data::subset::Labels;
use crate::device::Device;
use crate::error::{Exit, OrExit as _, data, exit_code, usage};
use crate::files::read_text;
use crate::run::verify::{Difference, Kept, Verified, verify};
use crate::run::{DataId, RunConfig, RunDir};
use anyhow::Result;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// One run that can be trained again.
pub struct VerifyCell {
    /// Its folder's name, or where there is none the name that its settings give it.
    pub name: String,
    pub config: RunConfig,
    pub kept: Kept,
    /// Where its set was read from, if its folder says so.
    pub noted: Option<String>,
}

/// What came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    Same,
    Differs,
    /// Other numerics, a GPU, or nothing kept so far.
    NotCompared,
    /// What was kept cannot be read.
    Damaged,
}

/// A run that was looked at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Checked {
    pub run: String,
    /// The hash of its settings.
    pub id: String,
    pub images: usize,
    pub seed: u64,
    /// Of the whole run.
    pub of_steps: u64,
    pub verdict: Verdict,
    /// Why it was not compared, or what is damaged.
    pub why: Option<String>,
    #[serde(flatten)]
    pub verified: Verified,
}

/// What `emm verify` says, as its certificate holds it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Certificate {
    /// Version and SHA-256 of the program that trained again.
    pub emm: String,
    pub binary_sha256: String,
    pub processor: String,
    /// UTC.
    pub date: String,
    /// The folder or file that was given.
    pub of: String,
    /// Runs found there, of which those of `cells` were looked at.
    pub runs: usize,
    pub cells: Vec<Checked>,
}

impl Certificate {
    /// Whether at least one run was compared, and all that were looked at are the same.
    pub fn holds(&self) -> bool {
        !self.cells.is_empty() && self.cells.iter().all(|c| c.verdict == Verdict::Same)
    }
}

/// Which of the runs found.
#[derive(Debug, Clone, PartialEq)]
pub enum Which {
    All,
    /// So many, those that cost least first.
    Cheapest(usize),
    /// Whose names begin so.
    Named(Vec<String>),
}

/// The runs of a run's folder, of a folder of runs, or of a search's `results.json`; the cheapest first, those that can be
/// compared before others. A line for each run that cannot be read.
///
/// # Errors
/// Data (exit 3): nothing there to verify.
pub fn cells_of(path: &Path) -> Result<(Vec<VerifyCell>, Vec<String>)> {
    let (mut cells, broken) = match path.is_dir() {
        true => of_folder(path)?,
        false => (of_results(path)?, Vec::new()),
    };
    if let (true, None) = (cells.is_empty(), broken.first()) {
        return Err(data(format!("{}: expected runs, found none", path.display())));
    }
    let key =
        |c: &VerifyCell| (c.config.train.numerics.incomparable().is_some(), flop_of(&c.config));
    cells.sort_by(|a, b| {
        let (a, b) = (key(a), key(b));
        a.0.cmp(&b.0).then(a.1.total_cmp(&b.1))
    });
    Ok((cells, broken))
}

fn of_folder(path: &Path) -> Result<(Vec<VerifyCell>, Vec<String>)> {
    let (runs, broken) = runs_in(path)?;
    let cell = |run: super::folder::RunSeen| {
        let dir = RunDir::new(&run.dir);
        let noted = dir.noted_data();
        let kept = Kept { dir: Some(dir), ..Kept::default() };
        VerifyCell { name: run.name, config: run.config, kept, noted }
    };
    Ok((runs.into_iter().map(cell).collect(), broken))
}

/// What a certificate needs of `results.json`.
#[derive(Deserialize)]
struct Results {
    settings: Value,
    sizes: Vec<ResultsOfSize>,
}

#[derive(Deserialize)]
struct ResultsOfSize {
    curve: Vec<(f64, f64)>,
    runs: Vec<ResultsRun>,
}

#[derive(Deserialize)]
struct ResultsRun {
    run: String,
    ratio: Option<f64>,
    settings: Value,
}

/// Runs as the results say them; of one whose folder is there what that keeps is compared too.
fn of_results(path: &Path) -> Result<Vec<VerifyCell>> {
    let what =
        || format!("{}: expected a folder of runs or a search's results.json", path.display());
    let text = read_text(path)?.ok_or_else(|| data(format!("{}: not found", path.display())))?;
    let results: Results = serde_json::from_str(&text).or_data(what)?;
    let file = path.file_name().map_or(String::new(), |n| n.to_string_lossy().into());
    let mut cells = Vec::new();
    for size in &results.sizes {
        for run in &size.runs {
            let config = merged(&results.settings, &run.settings);
            let config = RunConfig::deserialize(config).or_data(what)?;
            config.check_stored().or_data(what)?;
            let dir = folder_of(path, &run.run, &config);
            // The curve is a mean over the runs of a size.
            let steps = config.evaluation_steps();
            let step = |epoch: f64| steps.iter().copied().find(|&s| config.epoch(s) == epoch);
            let ratios = match size.runs.len() {
                1 => size.curve.iter().filter_map(|&(e, r)| Some((step(e)?, r))).collect(),
                _ => Vec::new(),
            };
            let noted = dir.as_ref().and_then(RunDir::noted_data);
            let kept = Kept { dir, ratios, value: run.ratio, file: file.clone() };
            let name = Path::new(&run.run).file_name();
            let name = name.map_or_else(|| config.id(), |n| n.to_string_lossy().into());
            cells.push(VerifyCell { name, config, kept, noted });
        }
    }
    Ok(cells)
}

/// A configuration of what all runs share and what one has of its own.
fn merged(shared: &Value, own: &Value) -> Value {
    let mut all = shared.clone();
    for (section, keys) in own.as_object().into_iter().flatten() {
        for (key, value) in keys.as_object().into_iter().flatten() {
            all[section][key] = value.clone();
        }
    }
    all
}

/// Where a run of a search lies, if it still does: as the results name it, or beside them.
fn folder_of(results: &Path, named: &str, config: &RunConfig) -> Option<RunDir> {
    let beside = results.parent().unwrap_or(Path::new("."));
    let name = Path::new(named).file_name()?;
    let places: [PathBuf; 4] =
        [named.into(), beside.join(named), beside.join("runs").join(name), beside.join(name)];
    let dirs = places.iter().map(|place| RunDir::new(place));
    let is_it =
        |dir: &RunDir| dir.stored_config().is_ok_and(|c| c.is_some_and(|c| c.id() == config.id()));
    dirs.into_iter().find(is_it)
}

/// Those of `cells` that are asked for.
///
/// # Errors
/// Usage: a name that none has, or none at all.
pub fn chosen(cells: Vec<VerifyCell>, which: &Which) -> Result<Vec<VerifyCell>> {
    match which {
        Which::All => Ok(cells),
        Which::Cheapest(count) => Ok(cells.into_iter().take(*count).collect()),
        Which::Named(names) => {
            let is = |cell: &VerifyCell, name: &String| cell.name.starts_with(name.as_str());
            if let Some(name) = names.iter().find(|name| !cells.iter().any(|c| is(c, name))) {
                let known: Vec<&str> = cells.iter().take(5).map(|c| c.name.as_str()).collect();
                return Err(usage(format!(
                    "--cells: no run begins with {name:?}, expected e.g. {}",
                    known.join(", ")
                )));
            }
            Ok(cells.into_iter().filter(|c| names.iter().any(|name| is(c, name))).collect())
        }
    }
}

/// A run's set: `base`, or the subset of it that a search or a study takes; none if it is none of these.
pub fn set_of(config: &RunConfig, base: &Dataset, name: &str) -> Option<Dataset> {
    let is_it = |set: &Dataset| DataId::of(set) == config.data;
    let (m, size) = (&config.model, config.data.images);
    let bare = |set: &Dataset| Dataset { labels: None, ..set.clone() };
    if (base.len(), base.resolution, base.channels) == (size, m.resolution, m.image_channels) {
        let whole = if m.label_dim == 0 { bare(base) } else { base.clone() };
        if is_it(&whole) {
            return Some(whole);
        }
    }
    let labels: Vec<Labels> = match m.label_dim as u32 {
        0 => vec![Labels::None],
        n => vec![Labels::True, Labels::Random(n), Labels::Dealt(n), Labels::Unique],
    };
    let resolution = (m.resolution != base.resolution).then_some(m.resolution);
    let classes = base.label_dim();
    let all = (None, None);
    let few = (1..classes).map(|k| (Some(k), None));
    let one = (0..classes as u32).map(|k| (None, Some(k)));
    // Of a hundred classes each would be a subset to make.
    let some = few.chain(one).filter(|_| classes <= 20);
    for (classes, class) in std::iter::once(all).chain(some) {
        for &labels in &labels {
            let recipe = Recipe { classes, class, resolution, ..Recipe::of_size(size, labels) };
            if let Some(set) = recipe.of((base, name), None).ok().filter(is_it) {
                return Some(set);
            }
        }
    }
    None
}

/// Trains one run again on its set and compares.
///
/// # Errors
/// Other than of data: a process that works in it, a signal, memory.
pub fn check(
    device: &Device,
    cell: &VerifyCell,
    set: &Dataset,
    most_steps: u64,
    quiet: bool,
) -> Result<Checked> {
    let config = &cell.config;
    let mut checked = checked(cell, Verdict::NotCompared, None);
    match verify(device, config, set, &cell.kept, most_steps, quiet) {
        Ok(verified) => {
            let nothing = verified.tensors == 0 && verified.rows == 0;
            checked.verdict = match (&verified.difference, nothing) {
                (Some(_), _) => Verdict::Differs,
                (None, true) => Verdict::NotCompared,
                (None, false) => Verdict::Same,
            };
            checked.why = (checked.verdict == Verdict::NotCompared).then(|| match most_steps {
                u64::MAX => "nothing is kept of it yet".into(),
                _ => format!("nothing is kept of its first {most_steps} steps"),
            });
            checked.verified = verified;
        }
        Err(e) if exit_code(&e) == Exit::Data as i32 => {
            (checked.verdict, checked.why) = (Verdict::Damaged, Some(format!("{e:#}")));
        }
        Err(e) => return Err(e),
    }
    Ok(checked)
}

/// A run that was looked at, without what a comparison says.
pub fn checked(cell: &VerifyCell, verdict: Verdict, why: Option<String>) -> Checked {
    let config = &cell.config;
    Checked {
        run: cell.name.clone(),
        id: config.id(),
        images: config.data.images,
        seed: config.train.seed,
        of_steps: config.steps(),
        verdict,
        why,
        verified: Verified::default(),
    }
}

impl Certificate {
    /// Reads a certificate; none if there is no file.
    ///
    /// # Errors
    /// Data (exit 3): another file.
    pub fn read(path: &Path) -> Result<Option<Certificate>> {
        let Some(text) = read_text(path)? else { return Ok(None) };
        let what = || format!("{}: not a certificate of `emm verify`", path.display());
        Ok(Some(serde_json::from_str(&text).or_data(what)?))
    }

    /// The line that says what is wrong, and how the program ends with it; none if all is the same.
    ///
    /// # Errors
    /// Data (exit 3): a run differs or is damaged. Usage (2): one cannot be compared.
    pub fn judged(&self) -> Result<()> {
        let first = |verdict: Verdict| self.cells.iter().find(|c| c.verdict == verdict);
        if let Some(cell) = first(Verdict::Differs) {
            let d = cell.verified.difference.as_ref();
            return Err(data(format!(
                "{}: {}",
                cell.run,
                d.map_or(String::new(), Difference::said)
            )));
        }
        if let Some(cell) = first(Verdict::Damaged) {
            let why = cell.why.as_deref().unwrap_or_default();
            return Err(data(why.to_string()));
        }
        match first(Verdict::NotCompared) {
            Some(cell) => {
                Err(usage(format!("{}: {}", cell.run, cell.why.as_deref().unwrap_or_default())))
            }
            None => Ok(()),
        }
    }
}
