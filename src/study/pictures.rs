//! What a search leaves for people: table, plots and sheets.

use super::account::settings_said;
use super::folder::RunSeen;
use super::outcome::{BANDS, RISING, RISING_MARK, open_marks};
use super::sheets::Drawn;
use super::{Found, Measured};
use crate::data::Dataset;
use crate::data::subset::{Labels, Subset};
use crate::device::Device;
use crate::error::{Exit, OrExit as _};
use crate::files::{read_text, write_atomic};
use crate::report::{Cell, Chart, Panel, Point, Series, Style, Table, sheets};
use anyhow::Result;
use serde_json::Value;
use std::collections::HashSet;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// One row a size. Columns that say nothing here are left out: of several seeds, of duplicated training images, of
/// curves that still rose.
pub fn table(found: &Found) -> Table {
    let any = |of: fn(&Measured) -> bool| found.sizes.iter().any(of);
    let repeated = any(|m| m.runs.len() > 1);
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
    for m in &found.sizes {
        let mut row = vec![
            Cell::Integer(m.size as i64),
            Cell::Percent(m.ratio, 2),
            Cell::Percent(m.interval[0], 2),
            Cell::Percent(m.interval[1], 2),
            Cell::Number(m.best_epoch, 0),
            Cell::Integer(m.looks as i64),
        ];
        if repeated {
            let [low, high] = m.spread();
            row.push(Cell::Integer(m.runs.len() as i64));
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

/// What is said below the table: the answer, what its marks mean, doubts.
pub fn said(found: &Found) -> Vec<String> {
    let mut lines = vec![found.sentence()];
    if !found.emm.rising.is_empty() {
        lines.push(format!("{RISING_MARK} {RISING}"));
    }
    lines.extend(found.notes().into_iter().map(|note| format!("note: {note}")));
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
        write_atomic(&path, force || (path.is_file() && same()), |out| Ok(out.write_all(bytes)?))?;
        written.push(path);
        Ok(())
    };
    let mut lines = said(found);
    lines.push(settings_said(&found.runs()));
    let table = format!("{}\n{}\n", table(found).markdown(), lines.join("\n\n"));
    put("table.md", table.as_bytes())?;
    for (stem, chart) in [("sizes", sizes(found, title)), ("epochs", epochs(found, title))] {
        put(&format!("{stem}.png"), &chart.png()?)?;
        put(&format!("{stem}.svg"), chart.svg().as_bytes())?;
    }
    for m in &found.sizes {
        put(&format!("sheet-{}.png", m.size), &copies(m, set, name, device)?)?;
    }
    put("results.json", format!("{:#}\n", found.json()).as_bytes())?;
    Ok(written)
}

/// The ratio against training-set size, with the EMM where there is one.
pub fn sizes(found: &Found, title: &str) -> Chart {
    let point = |m: &Measured| Point {
        x: m.size as f64,
        y: m.ratio,
        interval: Some(m.interval),
        rising: m.rising,
    };
    let points = found.sizes.iter().map(point).collect();
    let emm = found.emm.found.as_ref().ok().map(|f| f.0);
    let series = Series { emm, ..Series::new("", Style::Line, points) };
    let panel = Panel::sizes("", found.emm.epsilon, vec![series]);
    let mut chart = chart(found, format!("{title}: memorization against training-set size"), panel);
    chart.footer.insert(0, found.sentence());
    chart
}

/// The ratio over training, a line a size.
pub fn epochs(found: &Found, title: &str) -> Chart {
    let line = |m: &Measured| (format!("N = {}", m.size), m.curve.clone());
    let mut panel = Panel::epochs("", found.sizes.iter().map(line).collect());
    panel.level = Some(1.0 - found.emm.epsilon);
    let intervals = found.sizes.iter().map(|m| m.curve_intervals.as_slice());
    let panel = panel.rising(found.sizes.iter().map(|m| m.rising)).intervals(intervals);
    chart(found, format!("{title}: memorization over training"), panel)
}

fn chart(found: &Found, title: String, panel: Panel) -> Chart {
    let mut footer = vec![settings_said(&found.runs()), said_of_intervals(&found.runs())];
    footer.extend((!found.emm.rising.is_empty()).then(open_marks));
    Chart { title, panels: vec![panel], footer }
}

/// What bands show, and what they do not.
pub fn said_of_intervals(runs: &[&RunSeen]) -> String {
    let seeds: HashSet<u64> = runs.iter().map(|r| r.config.train.seed).collect();
    let mean = match seeds.len() {
        0 | 1 => String::new(),
        n => format!("points: the mean of {n} training seeds; "),
    };
    format!("{mean}{BANDS}")
}

/// The first samples of a size's first run, at its best look, beside what they are nearest to.
fn copies(m: &Measured, set: &Dataset, name: &str, device: &Device) -> Result<Vec<u8>> {
    let subset = Subset {
        size: m.size,
        classes: None,
        class: None,
        blend: None,
        labels: Labels::None,
        resolution: None,
        seed: 0,
    };
    let images = subset.of(set, name)?;
    let set = Path::new(name).file_name().map_or(name.into(), |n| n.to_string_lossy());
    let of = format!("{} training images of {set}", m.size);
    sheets(&[Drawn::by_run(&m.runs[0].dir, images, &of, device)?.sheet()])
}

/// Whether a search wrote its results there.
fn holds_results(folder: &Path) -> bool {
    let text = read_text(&folder.join("results.json")).ok().flatten().unwrap_or_default();
    let results: Value = serde_json::from_str(&text).unwrap_or_default();
    results["epsilon"].is_number() && results["sizes"].is_array()
}
