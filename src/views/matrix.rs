//! A study's table as the paper lays it out: its values, ours beside them, what they differ by.

use super::words::RISING_MARK;
use crate::memorization::{Beyond, Emm};
use crate::report::{Cell, Table};
use crate::study::EPSILON;
use crate::study::outcome::Seen;
use crate::study::plan::{EmmOf, PaperValue, PlannedCell, PlannedValue, StudyPlan};

/// The table as the paper lays it out: a group of lines for each combination of the other axes, a column for each
/// value of the table's.
pub fn matrix(plan: &StudyPlan, seen: &[Seen]) -> Table {
    let study = &plan.study;
    let named = study.tables.first().map(|t| t.columns.as_str()).unwrap_or("size");
    let column = plan.axes.iter().position(|a| a.name == named).unwrap_or(plan.axes.len() - 1);
    let axis = &plan.axes[column];
    let both = |v: &PlannedValue| match v.name == v.paper_name {
        true => v.name.clone(),
        false => format!("{} ({})", v.name, v.paper_name),
    };
    let others: Vec<usize> = (0..plan.axes.len()).filter(|&a| a != column).collect();
    let row_title =
        others.iter().map(|&a| plan.axes[a].title.clone()).collect::<Vec<_>>().join(", ");
    let mut columns = vec![row_title, axis.title.clone()];
    columns.extend(axis.values.iter().map(both));
    let emm = axis.name == "size";
    if emm {
        columns.push(format!("EMM({EPSILON})"));
    }
    let mut table = Table::new(&columns.iter().map(String::as_str).collect::<Vec<_>>());

    let rows = rows(plan, &others, column);
    let printed = plan.cells.iter().any(|c| c.paper.is_some()) || !study.paper.emm.is_empty();
    let repeated = seen.iter().any(|s| s.found.as_ref().is_some_and(|m| m.spread.is_some()));
    let emms = plan.emm(seen, EPSILON);
    for (k, (key, cells)) in rows.iter().enumerate() {
        let name = others.iter().zip(key).map(|(&a, &at)| both(&plan.axes[a].values[at]));
        let mut name = name.collect::<Vec<_>>().join(", ");
        let mut line =
            |what: &str, of: &dyn Fn(&PlannedCell, &Seen) -> String, last: String| {
                let mut row = vec![Cell::Text(std::mem::take(&mut name)), Cell::Text(what.into())];
                row.extend(cells.iter().map(|&i| {
                    Cell::Text(i.map_or(String::new(), |i| of(&plan.cells[i], &seen[i])))
                }));
                if emm {
                    row.push(Cell::Text(last));
                }
                table.row(row);
            };
        let of_emm = emms.get(k);
        let paper_emm = of_emm.map_or(String::new(), printed_emm);
        let our_emm = of_emm.and_then(|e| e.ours.as_ref()).map_or(String::new(), describe_emm);
        if printed {
            line(
                "paper",
                &|c, _| c.paper.as_ref().map_or(String::new(), describe_paper),
                paper_emm,
            );
        }
        let mark = |rising: bool| if rising { RISING_MARK } else { "" };
        let ours = |c: &PlannedCell, s: &Seen| match &s.found {
            Some(m) => format!("{:.2}%{}", 100.0 * m.ratio, mark(m.rising)),
            None if c.impossible.is_some() => "–".into(),
            None => String::new(),
        };
        line("ours", &ours, our_emm);
        if printed && plan.scale.is_paper() {
            let signed = |x: Option<f64>| x.map_or(String::new(), |x| signed(x, 2));
            line("difference", &|c, s| signed(difference(plan, c, s)), String::new());
        }
        line("95% sampling", &interval, String::new());
        if repeated {
            line("seeds", &seeds, String::new());
        }
        if repeated && printed && plan.scale.is_paper() {
            let said = |c: &PlannedCell, s: &Seen| {
                deviations(plan, c, s).map_or(String::new(), |d| signed(d, 1))
            };
            line("in deviations", &said, String::new());
        }
        if seen.iter().any(|s| s.found.is_some()) {
            line("precision", &precision, String::new());
        }
    }
    table
}

/// For each combination of the other axes' values, in the order of the cells: the cell of each column.
fn rows(
    plan: &StudyPlan,
    others: &[usize],
    column: usize,
) -> Vec<(Vec<usize>, Vec<Option<usize>>)> {
    let mut rows: Vec<(Vec<usize>, Vec<Option<usize>>)> = Vec::new();
    for (i, cell) in plan.cells.iter().enumerate() {
        let key: Vec<usize> = others.iter().map(|&a| cell.at[a]).collect();
        if !rows.iter().any(|r| r.0 == key) {
            rows.push((key.clone(), vec![None; plan.axes[column].values.len()]));
        }
        if let Some(row) = rows.iter_mut().find(|r| r.0 == key) {
            row.1[cell.at[column]] = Some(i);
        }
    }
    rows
}

fn interval(_: &PlannedCell, seen: &Seen) -> String {
    let [low, high] = match &seen.found {
        Some(m) => m.interval.map(|end| 100.0 * end),
        None => return String::new(),
    };
    format!("{low:.2}–{high:.2}")
}

fn seeds(_: &PlannedCell, seen: &Seen) -> String {
    match seen.found.as_ref().and_then(|m| m.spread) {
        Some(s) => format!("{}: {:.2}–{:.2}", s.seeds, 100.0 * s.lowest, 100.0 * s.highest),
        None => String::new(),
    }
}

/// What the paper says of a row's EMM.
fn printed_emm(of: &EmmOf) -> String {
    match (of.paper, &of.of_paper) {
        (Some(about), _) => format!("about {about}"),
        (None, Some(emm)) if of.plotted => format!("≈ {}", describe_emm(emm)),
        (None, Some(emm)) => describe_emm(emm),
        (None, None) => String::new(),
    }
}

/// Ours less the paper's, in points: at its scale. At another the two are of different experiments.
pub(super) fn difference(plan: &StudyPlan, cell: &PlannedCell, seen: &Seen) -> Option<f64> {
    let paper = cell.paper.filter(|_| plan.scale.is_paper())?;
    Some(100.0 * seen.found.as_ref()?.ratio - paper.percent)
}

/// What a cell's finished runs were computed in.
pub(super) fn precision(cell: &PlannedCell, seen: &Seen) -> String {
    let done = cell.runs_finished(seen, true);
    let mut names: Vec<&str> = done.map(|run| run.config.train.precision.name()).collect();
    names.sort();
    names.dedup();
    names.join(", ")
}

/// A value of the paper's as people read it.
fn describe_paper(value: &PaperValue) -> String {
    match value.plotted {
        true => format!("≈ {}%", value.percent),
        false => format!("{:.2}%", value.percent),
    }
}

/// The difference over the deviation of a difference between the mean of our seeds and one run of the paper's, whose
/// seeds are taken to spread as ours.
pub(super) fn deviations(plan: &StudyPlan, cell: &PlannedCell, seen: &Seen) -> Option<f64> {
    let spread = seen.found.as_ref()?.spread?;
    let one = 100.0 * spread.deviation * (1.0 + 1.0 / spread.seeds as f64).sqrt();
    Some(difference(plan, cell, seen)? / one).filter(|d| d.is_finite())
}

fn describe_emm(emm: &Emm) -> String {
    match emm.found {
        Ok((n, _)) if emm.at_least() => format!("≥ {n:.0}"),
        Ok((n, _)) => format!("{n:.0}"),
        Err(Beyond::Below) => "below".into(),
        Err(Beyond::Above) => "above".into(),
        Err(Beyond::Unreached) => "not reached".into(),
    }
}

/// A number with its sign.
fn signed(x: f64, decimals: usize) -> String {
    let shown = format!("{:.decimals$}", x.abs());
    // What rounds to nothing has no sign.
    match shown.chars().all(|c| "0.".contains(c)) {
        true => shown,
        false if x < 0.0 => format!("−{shown}"),
        false => format!("+{shown}"),
    }
}
