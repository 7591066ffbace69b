//! The TOML of a study, as `spec.rs` shows it, read into a [`Study`]: the paper's, and users' own.

use super::names::unknown;
use super::settings::{Overrides, Settings};
use super::spec::{Axis, AxisValue, FigureSpec, Paper, Study, TableSpec};
use crate::error::{data, usage};
use crate::files::read_text;
use anyhow::Result;
use serde::Deserialize;
use std::path::Path;

/// The studies of the paper: file contents, in the paper's order; and one of ours.
const SHIPPED: [&str; 23] = [
    include_str!("files/size.toml"),
    include_str!("files/edm-size.toml"),
    include_str!("files/resolution.toml"),
    include_str!("files/classes.toml"),
    include_str!("files/blend.toml"),
    include_str!("files/width.toml"),
    include_str!("files/depth.toml"),
    include_str!("files/embedding.toml"),
    include_str!("files/skip-resolution.toml"),
    include_str!("files/skip-location.toml"),
    include_str!("files/batch.toml"),
    include_str!("files/weight-decay.toml"),
    include_str!("files/ema-rate.toml"),
    include_str!("files/labels.toml"),
    include_str!("files/random-labels.toml"),
    include_str!("files/unique-labels.toml"),
    include_str!("files/edm-50k.toml"),
    include_str!("files/table3.toml"),
    include_str!("files/width-depth.toml"),
    include_str!("files/skip-number.toml"),
    include_str!("files/skip-deletion.toml"),
    include_str!("files/bootstrap.toml"),
    include_str!("files/dynamics.toml"),
];

/// What of a file a [`Study`] does not take as it is written.
#[derive(Deserialize)]
struct File {
    #[serde(rename = "axis")]
    axes: Vec<AxisFile>,
    #[serde(default)]
    paper: PaperFile,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AxisFile {
    name: String,
    #[serde(default)]
    title: String,
    key: Option<String>,
    values: Vec<toml::Value>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct PaperFile {
    percent: Option<toml::Value>,
    plotted: Option<toml::Value>,
    emm: Option<toml::Value>,
}

/// Keys of the tables of a file, for "did you mean".
const FILE_KEYS: [&str; 11] = [
    "name", "title", "source", "note", "settings", "axis", "without", "paper", "table", "figure",
    "sheet",
];
const AXIS_KEYS: [&str; 4] = ["name", "title", "key", "values"];
const PAPER_KEYS: [&str; 3] = ["percent", "plotted", "emm"];
const TABLE_KEYS: [&str; 2] = ["id", "columns"];
const FIGURE_KEYS: [&str; 6] = ["id", "x", "lines", "only", "draw", "scale"];
const SHEET_KEYS: [&str; 3] = ["id", "of", "only"];

/// Far more than anyone would train.
const MAX_CELLS: usize = 10_000;

impl Study {
    /// All studies of the paper, and ours, which have no source.
    pub fn shipped() -> Vec<Study> {
        let read =
            |text: &&str| Study::parse(text, "shipped study").expect("a shipped study is whole");
        SHIPPED.iter().map(read).collect()
    }

    /// A shipped study by name, or one read from a file: what ends in `.toml` is a path. Errors as of
    /// [`Study::given`], whose argument is STUDY.
    pub fn load(name: &str) -> Result<Study> {
        Study::given("STUDY", name)
    }

    /// As [`Study::load`], of a name that a command's `argument` gave.
    ///
    /// # Errors
    /// Usage: an unknown name, begins with `argument` and has the nearest known one; a file that is no study.
    /// As [`crate::files::cannot_read`]: unreadable.
    pub fn given(argument: &str, name: &str) -> Result<Study> {
        if name.ends_with(".toml") {
            let none = || data(format!("{name}: not found"));
            let text = read_text(Path::new(name))?.ok_or_else(none)?;
            return Ok(Study { called: name.into(), ..Study::parse(&text, name)? });
        }
        let all = Study::shipped();
        let names: Vec<String> = all.iter().map(|s| s.name.clone()).collect();
        let found = all.into_iter().find(|s| s.name == name);
        found.ok_or_else(|| {
            let known = names.iter().map(String::as_str);
            let what = unknown("study", name, known);
            usage(format!("{argument}: {what} (or a path that ends in .toml)"))
        })
    }

    /// The studies of a name: as [`Study::given`], and `table1`, `figure3a` for all that are a part of it, `all` for
    /// all of the paper's.
    ///
    /// # Errors
    /// As [`Study::given`].
    pub fn named(argument: &str, name: &str) -> Result<Vec<Study>> {
        let shipped = Study::shipped();
        let part_of = |study: &Study| {
            let table = |t: &TableSpec| name.strip_prefix("table") == Some(&t.id);
            let figure = |f: &FigureSpec| name.strip_prefix("figure") == Some(&f.id);
            study.tables.iter().any(table) || study.figures.iter().any(figure)
        };
        if name == "all" {
            return Ok(shipped.into_iter().filter(|study| !study.source.is_empty()).collect());
        }
        let parts: Vec<Study> = shipped.into_iter().filter(part_of).collect();
        if parts.is_empty() { Ok(vec![Study::given(argument, name)?]) } else { Ok(parts) }
    }

    /// Reads a study; `file` begins its errors.
    ///
    /// # Errors
    /// Usage, one line: TOML that is none (with its line), an unknown key (with the nearest known one), axes
    /// without values, printed values that are not as many as the cells, …
    pub fn parse(text: &str, file: &str) -> Result<Study> {
        let broken = |e: toml::de::Error| {
            let line = e.span().map_or(0, |s| text[..s.start].lines().count().max(1));
            let message = e.message().replace('\n', " ");
            usage(match line {
                0 => format!("{file}: {message}"),
                _ => format!("{file}: line {line}: {message}"),
            })
        };
        let table: toml::Table = toml::from_str(text).map_err(broken)?;
        check_keys(&table, &FILE_KEYS, file)?;
        check_parts(&table, file)?;
        let mut study: Study = toml::from_str(text).map_err(broken)?;
        let read: File = toml::from_str(text).map_err(broken)?;
        let wrong = |why: String| usage(format!("{file}: {why}"));
        Settings::read(&study.settings, &format!("{file}: settings"))?;
        let axes = read.axes.into_iter().map(|axis| axis.read(&study.settings, file));
        study.axes = axes.collect::<Result<_>>()?;
        (study.called, study.text) = (study.name.clone(), text.into());
        let twice = |i: usize| study.axes[..i].iter().any(|a| a.name == study.axes[i].name);
        if let Some(i) = (0..study.axes.len()).find(|&i| twice(i)) {
            return Err(wrong(format!("axis {:?} is there twice", study.axes[i].name)));
        }
        let lengths: Vec<usize> = study.axes.iter().map(|a| a.values.len()).collect();
        let all = lengths.iter().try_fold(1usize, |n, &len| n.checked_mul(len));
        if all.is_none_or(|n| n > MAX_CELLS) {
            return Err(wrong(format!("axis: the values combine to more than {MAX_CELLS} cells")));
        }
        let but_size = study.axes.iter().filter(|a| a.name != "size").map(|a| a.values.len());
        let printed = |value: Option<toml::Value>, lengths: &[usize], key: &str| {
            let mut all = Vec::new();
            match value {
                None => Ok(all),
                Some(value) if flatten(&value, lengths, &mut all) => Ok(all),
                Some(_) => {
                    let shape: Vec<_> = lengths.iter().map(usize::to_string).collect();
                    Err(wrong(format!(
                        "paper: {key}: expected numbers nested as {}",
                        shape.join("×")
                    )))
                }
            }
        };
        let of_cells = |value: Option<toml::Value>, key: &str| {
            let all = printed(value, &lengths, key)?.into_iter().zip(study.combinations());
            let cells = all.filter(|(_, at)| study.is_cell(at));
            anyhow::Ok(cells.map(|(value, _)| value).collect())
        };
        study.paper = Paper {
            percent: of_cells(read.paper.percent, "percent")?,
            plotted: of_cells(read.paper.plotted, "plotted")?,
            emm: printed(read.paper.emm, &but_size.collect::<Vec<_>>(), "emm")?,
        };
        study.check_names(file)?;
        if study.cells().is_empty() {
            return Err(wrong("without: leaves no cell".into()));
        }
        Ok(study)
    }
}

impl AxisFile {
    fn read(self, shared: &Overrides, file: &str) -> Result<Axis> {
        let what = format!("{file}: axis {}", self.name);
        if self.values.is_empty() {
            return Err(usage(format!("{what}: values: none")));
        }
        let mut values: Vec<AxisValue> = Vec::new();
        for value in self.values {
            let value = match (value, &self.key) {
                (toml::Value::Table(mut settings), _) => {
                    let Some(toml::Value::String(name)) = settings.remove("name") else {
                        return Err(usage(format!("{what}: a value has no name")));
                    };
                    let mut word = |key: &str| settings.remove(key).as_ref().map(shown);
                    let (series, place) = (word("series"), word("place"));
                    AxisValue { name, settings, series, place }
                }
                (plain, Some(key)) => {
                    let settings = Overrides::from_iter([(key.clone(), plain.clone())]);
                    AxisValue { name: shown(&plain), settings, ..AxisValue::default() }
                }
                (plain, None) => {
                    return Err(usage(format!(
                        "{what}: value {plain}: without a key = \"…\" values are tables"
                    )));
                }
            };
            let AxisValue { name, settings, .. } = &value;
            if values.iter().any(|v| v.name == *name) {
                return Err(usage(format!("{what}: value {name:?} is there twice")));
            }
            Settings::read(settings, &what)?;
            let mut with_shared = shared.clone();
            with_shared.extend(settings.clone());
            Settings::read(&with_shared, &what)?;
            values.push(value);
        }
        let title = if self.title.is_empty() { self.name.clone() } else { self.title };
        Ok(Axis { name: self.name, title, key: self.key, values })
    }
}

/// That the tables within a file have only keys that they may have.
fn check_parts(table: &toml::Table, file: &str) -> Result<()> {
    for (name, keys) in [
        ("axis", &AXIS_KEYS[..]),
        ("paper", &PAPER_KEYS),
        ("table", &TABLE_KEYS),
        ("figure", &FIGURE_KEYS),
        ("sheet", &SHEET_KEYS),
    ] {
        let part = table.get(name);
        let all = part.and_then(toml::Value::as_array).map_or(&[][..], Vec::as_slice);
        for part in all.iter().chain(part).filter_map(toml::Value::as_table) {
            check_keys(part, keys, &format!("{file}: {name}"))?;
        }
    }
    Ok(())
}

fn check_keys(table: &toml::Table, known: &[&str], what: &str) -> Result<()> {
    match table.keys().find(|k| !known.contains(&k.as_str())) {
        Some(key) => Err(usage(format!("{what}: {}", unknown("key", key, known.iter().copied())))),
        None => Ok(()),
    }
}

/// A value as a name.
fn shown(value: &toml::Value) -> String {
    match value {
        toml::Value::String(s) => s.clone(),
        toml::Value::Float(x) => x.to_string(),
        other => other.to_string(),
    }
}

/// Numbers nested as `lengths` say, in order; false if they are not.
fn flatten(value: &toml::Value, lengths: &[usize], out: &mut Vec<f64>) -> bool {
    match (value, lengths) {
        (toml::Value::Integer(i), []) => out.push(*i as f64),
        (toml::Value::Float(x), []) => out.push(*x),
        (toml::Value::Array(all), [len, rest @ ..]) => {
            return all.len() == *len && all.iter().all(|v| flatten(v, rest, out));
        }
        _ => return false,
    }
    true
}
