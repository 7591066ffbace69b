//! What a search leaves for people: table, plots and sheets.

use super::account::describe_settings;
use super::answer::{notes, results, sentence};
use super::sheets::sheet;
use super::words::{BANDS, RISING, RISING_MARK, open_marks};
use crate::data::Dataset;
use crate::data::subset::Labels;
use crate::device::Device;
use crate::error::{Exit, OrExit as _};
use crate::files::{read_text, write_bytes};
use crate::report::chart::EPOCHS;
use crate::report::{Cell, Chart, ChartScale, Panel, Point, Series, Style, Table, sheets};
use crate::study::find::{Found, OfSize};
use crate::study::folder::RunSeen;
use crate::study::outcome::Measured;
use crate::study::samples::DrawnSamples;
use crate::study::settings::Recipe;
use anyhow::Result;
use serde_json::Value;
use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

/// One row a size, of (size, what was found). Columns that say nothing here are left out: of several seeds, of
/// duplicated training images, of curves that still rose.
pub fn table(sizes: &[(usize, &Measured)]) -> Table {
    let any = |of: fn(&Measured) -> bool| sizes.iter().any(|(_, m)| of(m));
    let repeated = any(|m| m.spread.is_some());
    let duplicates = any(|m| m.reference_duplicates > 0);
    let rising = any(|m| m.rising);
    let mut columns = vec!["images", "ratio", "95% from", "to", "best epoch", "looks"];
    let more = [
        (repeated, &["seeds", "lowest", "highest"][..]),
        (duplicates, &["duplicates", "counted once"]),
        (rising, &["rising"]),
    ];
    more.iter().filter(|(shown, _)| *shown).for_each(|(_, names)| columns.extend(*names));
    let mut table = Table::new(&columns);
    for (size, m) in sizes {
        let mut row = vec![
            Cell::Integer(*size as i64),
            Cell::Percent(m.ratio, 2),
            Cell::Percent(m.interval[0], 2),
            Cell::Percent(m.interval[1], 2),
            Cell::Number(m.best_epoch, 0),
            Cell::Integer(m.evaluations as i64),
        ];
        if repeated {
            let [low, high] = m.ends();
            row.push(Cell::Integer(m.spread.map_or(1, |s| s.seeds) as i64));
            row.extend([Cell::Percent(low, 2), Cell::Percent(high, 2)]);
        }
        if duplicates {
            row.push(Cell::Integer(m.reference_duplicates as i64));
            row.push(m.ratio_distinct.map_or(Cell::Empty, |r| Cell::Percent(r, 2)));
        }
        if rising {
            row.push(Cell::Text(if m.rising { RISING_MARK.into() } else { String::new() }));
        }
        table.row(row);
    }
    table
}

/// The sizes of a search.
pub fn sizes(found: &Found) -> Vec<(usize, &Measured)> {
    found.sizes.iter().map(|m| (m.size, &m.found)).collect()
}

/// What is said below the table: the answer, what its marks mean, doubts.
pub fn said(found: &Found) -> Vec<String> {
    let mut lines = vec![sentence(found)];
    if !found.emm.rising.is_empty() {
        lines.push(format!("{RISING_MARK} {RISING}"));
    }
    lines.extend(notes(found).into_iter().map(|note| format!("note: {note}")));
    lines
}

/// Writes `table.md`, `sizes` and `epochs` as PNG and SVG, a `sheet-N.png` a size and, last, `results.json`
/// into `folder`; returns their paths. What is there under these names is replaced with `force`, or beside the
/// `results.json` of an earlier search.
///
/// # Errors
/// Usage (exit 2) if something else is there under one of these names; input/output (1).
///
/// `set` and `name` are the search's; `title` begins the plots' titles.
pub fn write(
    found: &Found,
    set: &Dataset,
    name: &str,
    title: &str,
    device: &Device,
    folder: &Path,
    force: bool,
) -> Result<Vec<PathBuf>> {
    fs::create_dir_all(folder)
        .or_exit(Exit::Other, || format!("--out: {}: cannot create", folder.display()))?;
    let force = force || holds_results(folder);
    let mut written = Vec::new();
    let mut put = |file: &str, bytes: &[u8]| -> Result<()> {
        let path = folder.join(file);
        // A search that was ended while it wrote left the same there.
        let same = || fs::read(&path).is_ok_and(|there| there == bytes);
        write_bytes(&path, force || (path.is_file() && same()), bytes)?;
        written.push(path);
        Ok(())
    };
    let mut lines = said(found);
    lines.push(describe_settings(&found.runs()));
    let table = format!("{}\n{}\n", table(&sizes(found)).markdown(), lines.join("\n\n"));
    put("table.md", table.as_bytes())?;
    for (stem, chart) in charts(found, title) {
        put(&format!("{stem}.png"), &chart.png()?)?;
        put(&format!("{stem}.svg"), chart.svg().as_bytes())?;
    }
    for m in &found.sizes {
        put(&format!("sheet-{}.png", m.size), &copies(m, set, name, device)?)?;
    }
    put("results.json", format!("{:#}\n", results(found)).as_bytes())?;
    Ok(written)
}

/// `sizes` and `epochs`.
fn charts(found: &Found, title: &str) -> [(&'static str, Chart); 2] {
    let (sizes, epsilon) = (sizes(found), found.emm.epsilon);
    let emm = found.emm.found.as_ref().ok().map(|f| f.0);
    let chart = |what: &str, panel: Panel, first: Option<String>| {
        let runs = found.runs();
        let mut footer: Vec<String> = first.into_iter().collect();
        footer.extend([describe_settings(&runs), describe_intervals(&runs)]);
        footer.extend((!found.emm.rising.is_empty()).then(open_marks));
        Chart { title: format!("{title}: memorization {what}"), panels: vec![panel], footer }
    };
    let against_size = against_size("", &sizes, emm, epsilon);
    let said = Some(sentence(found));
    [
        ("sizes", chart("against training-set size", against_size, said)),
        ("epochs", chart("over training", over_training("", &sizes, epsilon), None)),
    ]
}

/// The ratio against training-set size, with the EMM where there is one.
pub fn against_size(
    title: &str,
    sizes: &[(usize, &Measured)],
    emm: Option<f64>,
    epsilon: f64,
) -> Panel {
    let point = |(size, m): &(usize, &Measured)| Point {
        x: *size as f64,
        y: m.ratio,
        interval: Some(m.interval),
        rising: m.rising,
    };
    let points = sizes.iter().map(point).collect();
    let series = Series { emm, ..Series::new("", Style::Line, points) };
    Panel::sizes(title, epsilon, vec![series])
}

/// The ratio over training, a line a size.
pub fn over_training(title: &str, sizes: &[(usize, &Measured)], epsilon: f64) -> Panel {
    let line = |(size, m): &(usize, &Measured)| {
        Series::new(format!("N = {size}"), Style::Line, curve(m, &m.curve_intervals))
    };
    let panel = Panel::new(title, EPOCHS, ChartScale::Linear, sizes.iter().map(line).collect());
    Panel { level: Some(1.0 - epsilon), ..panel }
}

/// A curve over training, with the intervals of its points as far as there are any.
pub fn curve(found: &Measured, intervals: &[[f64; 2]]) -> Vec<Point> {
    let last = found.curve.len().saturating_sub(1);
    let point = |(k, &(x, y)): (usize, &(f64, f64))| {
        let (interval, rising) = (intervals.get(k).copied(), found.rising && k == last);
        Point { x, y, interval, rising }
    };
    found.curve.iter().enumerate().map(point).collect()
}

/// What bands show, and what they do not.
pub fn describe_intervals(runs: &[&RunSeen]) -> String {
    let seeds: HashSet<u64> = runs.iter().map(|r| r.config.train.seed).collect();
    let mean = match seeds.len() {
        0 | 1 => String::new(),
        n => format!("points: the mean of {n} training seeds; "),
    };
    format!("{mean}{BANDS}")
}

/// The first samples of a size's first run, at its best evaluation, beside what they are nearest to.
fn copies(m: &OfSize, set: &Dataset, name: &str, device: &Device) -> Result<Vec<u8>> {
    let images = Recipe::of_size(m.size, Labels::None).of((set, name), None)?;
    let set = Path::new(name).file_name().map_or(name.into(), |n| n.to_string_lossy());
    let of = format!("{} training images of {set}", m.size);
    sheets(&[sheet(&DrawnSamples::by_run(&m.runs[0].dir, images, &of, device)?)])
}

/// Whether a search wrote its results there.
fn holds_results(folder: &Path) -> bool {
    let text = read_text(&folder.join("results.json")).ok().flatten().unwrap_or_default();
    let results: Value = serde_json::from_str(&text).unwrap_or_default();
    results["epsilon"].is_number() && results["sizes"].is_array()
}
