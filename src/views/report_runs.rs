//! What runs become on a page: their table and curves, the settings they share and what they cost, and others' runs
//! beside them.

use super::words::{BANDS, describe_hours, open_marks};
use crate::memorization::emm_of;
use crate::report::chart::EPOCHS;
use crate::report::{Cell, Chart, ChartScale, PagePart, Panel, Point, Series, Style, Table};
use crate::run::Evaluation;
use crate::study::EPSILON;
use crate::study::cost::flop_of;
use crate::study::folder::{HASHES, IMAGES, RunSeen, differing, shared};
use crate::study::log::{Log, devices, wall_s};
use crate::study::names::put;
use crate::study::outcome::{Measured, RunState, Seen};
use crate::study::theirs::{TheirEvaluation, Theirs};
use std::cmp::Reverse;
use std::collections::HashSet;

/// Series of one chart.
const MOST_LINES: usize = 8;
/// Panels of a chart that stands open.
const MOST_PANELS: usize = 8;

/// The runs' table and curves.
pub fn run_parts(runs: &[RunSeen], answered: bool) -> Vec<PagePart> {
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
        let share = |of: &dyn Fn(&Evaluation) -> f64| {
            run.value().map_or(Cell::Empty, |l| Cell::Percent(of(l), 2))
        };
        row.extend([share(&|l| l.ratio), share(&|l| l.low), share(&|l| l.high)]);
        row.push(run.best_epoch().map_or(Cell::Empty, |e| Cell::Number(e, 0)));
        let evaluations = run.evaluations.len();
        row.push(match &run.done {
            Some(_) => Cell::Integer(evaluations as i64),
            None => Cell::Text(format!("{evaluations} of {}", run.config.evaluation_steps().len())),
        });
        row.push(run.hours().map_or(Cell::Empty, |h| Cell::Number(h, if h < 1.0 { 4 } else { 1 })));
        row.push(Cell::Text(run.name.clone()));
        table.row(row);
    }
    let charts = by_size(runs).into_iter().chain(over_training(runs, &differing));
    let charts: Vec<PagePart> = charts.map(shown).collect();
    match answered {
        // The answer's charts show them.
        true => vec![PagePart::Table(table), PagePart::Folded("Charts of the runs".into(), charts)],
        false => std::iter::once(PagePart::Table(table)).chain(charts).collect(),
    }
}

/// A chart, or one of so many panels that it is opened only when it is asked for.
fn shown(chart: Chart) -> PagePart {
    match chart.panels.len() {
        0..=MOST_PANELS => PagePart::Chart(chart),
        n => PagePart::Folded(format!("{}: {n} charts", chart.title), vec![PagePart::Chart(chart)]),
    }
}

/// Ratio against size: a line for each setting that several sizes were measured of.
fn by_size(runs: &[RunSeen]) -> Option<Chart> {
    let mut groups: Vec<(String, Vec<&RunSeen>)> = Vec::new();
    // A run that lies in two folders is one run: its images are not twice as many.
    let mut counted = HashSet::new();
    let first = |r: &&RunSeen| r.done.is_some() && counted.insert((r.config.id(), r.scored()));
    runs.iter().filter(first).for_each(|run| put(&mut groups, run.key(), run));
    groups.retain(|(_, group)| sizes_of(group).len() > 1);
    let firsts: Vec<&RunSeen> = groups.iter().map(|(_, group)| group[0]).collect();
    let varying: Vec<String> =
        differing(&firsts).into_iter().filter(|k| k != IMAGES && k != "seed").collect();
    let series = |group: &[&RunSeen], name: String| {
        let points = sizes_of(group).into_iter().filter_map(|size| mean_point(group, size));
        let points: Vec<Point> = points.collect();
        let pairs: Vec<_> = points.iter().map(|p| (p.x as u64, p.y)).collect();
        let emm = emm_of(&pairs, EPSILON).found.ok().map(|f| f.0);
        Series { emm, ..Series::new(name, Style::Line, points) }
    };
    let panels = groups.chunks(MOST_LINES).map(|chunk| {
        let firsts: Vec<&RunSeen> = chunk.iter().map(|(_, group)| group[0]).collect();
        let (title, names) = named(&firsts, &varying);
        let series = chunk.iter().zip(names).map(|((_, group), name)| series(group, name));
        Panel::sizes(&title, EPSILON, series.collect())
    });
    let of_size = |group: &[&RunSeen], size| {
        let runs = group.iter().filter(|r| r.config.data.images == size);
        (runs.clone().count(), runs.map(|r| r.config.train.seed).collect::<HashSet<_>>().len())
    };
    let several = groups.iter().flat_map(|(_, g)| sizes_of(g).into_iter().map(|n| of_size(g, n)));
    let several: Vec<(usize, usize)> = several.filter(|(runs, _)| *runs > 1).collect();
    let more = match several.iter().all(|(_, seeds)| *seeds == 1) {
        _ if several.is_empty() => "",
        true => "; the mean of several runs of one seed",
        false => "; the mean of several seeds",
    };
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
    let Measured { ratio, interval, rising, .. } = seen.found?;
    Some(Point { x: size as f64, y: ratio, interval: Some(interval), rising })
}

/// Curves, so many a panel that they can be told apart.
fn over_training(runs: &[RunSeen], differing: &[String]) -> Option<Chart> {
    let runs: Vec<&RunSeen> = runs.iter().filter(|r| !r.evaluations.is_empty()).collect();
    let panel = |chunk: &[&RunSeen]| {
        let (title, names) = named(chunk, differing);
        let series = chunk.iter().zip(names).map(|(run, name)| our_curve(run, name));
        Panel::new(&title, EPOCHS, ChartScale::Linear, series.collect())
    };
    chart("Over training", runs.chunks(MOST_LINES).map(panel).collect(), "")
}

/// The title of a panel of runs, and each run's name in it: of the settings that vary in the whole chart those that
/// these runs share, and those that tell them apart.
fn named(runs: &[&RunSeen], varying: &[String]) -> (String, Vec<String>) {
    let mut apart = differing(runs);
    apart.retain(|key| varying.contains(key));
    // A name may be cut: what tells most apart comes first.
    let values = |key: &str| runs.iter().map(|r| r.setting(key)).collect::<HashSet<_>>().len();
    apart.sort_by_key(|key| (HASHES.contains(&key.as_str()), key != IMAGES, Reverse(values(key))));
    let mut shared = varying.to_vec();
    shared.retain(|key| {
        let same = runs.iter().all(|r| r.setting(key) == runs[0].setting(key));
        same && !HASHES.contains(&key.as_str())
    });
    let title = runs.first().map_or(String::new(), |run| run.called(&shared));
    (title, runs.iter().map(|run| run.called(&apart)).collect())
}

fn our_curve(run: &RunSeen, name: String) -> Series {
    let point =
        |l: &Evaluation| Point { interval: Some([l.low, l.high]), ..Point::new(l.epoch, l.ratio) };
    let mut points: Vec<Point> = run.evaluations.iter().map(point).collect();
    if let (Some(last), Some(done)) = (points.last_mut(), &run.done) {
        last.rising = done.rising();
    }
    Series::new(name, Style::Line, points)
}

/// A chart of ratios with intervals; none without panels.
fn chart(title: &str, panels: Vec<Panel>, more: &str) -> Option<Chart> {
    let mut footer = vec![format!("{BANDS}{more}")];
    let mut points = panels.iter().flat_map(|p| &p.series).flat_map(|s| &s.points);
    if points.any(|p| p.rising) {
        footer.push(open_marks());
    }
    (!panels.is_empty()).then(|| Chart { title: title.into(), panels, footer })
}

/// What the runs share, and what they cost.
pub fn setting_parts(runs: &[RunSeen]) -> Vec<PagePart> {
    if runs.is_empty() {
        return Vec::new();
    }
    let all: Vec<&RunSeen> = runs.iter().collect();
    let shared = shared(&all);
    let title =
        if runs.len() == 1 { "Settings of the run." } else { "Settings that all runs share." };
    vec![
        PagePart::Text(
            "Time by the runs' logs, scoring included. Where runs went at once, on a device or a thread each, their own \
             times add up to more than the clock says; runs that share a processor also slow one another."
                .into(),
        ),
        PagePart::Facts(costs(runs)),
        PagePart::Text(title.into()),
        PagePart::Facts(shared),
    ]
}

fn costs(runs: &[RunSeen]) -> Vec<(String, String)> {
    let logs: Vec<&Log> = runs.iter().filter_map(|r| r.log.as_ref()).collect();
    let mut costs = Vec::new();
    let mut say = |what: &str, value: String| costs.push((what.to_string(), value));
    if !logs.is_empty() {
        let [all, clock] = [added_up(&logs), wall_s(logs.iter().copied()) / 3600.0];
        say("all runs, added up", describe_hours(all));
        say("by the clock", describe_hours(clock));
    }
    if logs.len() < runs.len() {
        say("runs without a log", (runs.len() - logs.len()).to_string());
    }
    let longest = logs.iter().map(|l| l.elapsed_s() / 3600.0).reduce(f64::max);
    if let Some(longest) = longest.filter(|_| runs.len() > 1) {
        say("the longest run", describe_hours(longest));
    }
    let on = devices(logs);
    if !on.is_empty() {
        say("each run on", on.join("; "));
    }
    let flop: f64 = runs.iter().map(|r| flop_of(&r.config)).sum();
    say("FLOP of all runs, whole", format!("{flop:.2e}"));
    costs
}

/// Hours of all runs, each by its own log.
pub fn added_up(logs: &[&Log]) -> f64 {
    logs.iter().map(|l| l.elapsed_s()).sum::<f64>() / 3600.0
}

/// Their curves beside our runs of the same size, and their best evaluations against size.
pub fn their_parts(theirs: &[Theirs], runs: &[RunSeen]) -> Vec<PagePart> {
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
            Cell::Integer(t.evaluations.len() as i64),
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
        let ours = same.iter().filter(|r| !r.evaluations.is_empty()).take(MOST_LINES);
        let ours = ours.map(|run| our_curve(run, name(run)));
        let curves = theirs.iter().filter(|t| t.size == size).map(|t| {
            let points = t.evaluations.iter().map(their_point).collect();
            Series::new(t.name.clone(), Style::Theirs, points)
        });
        let title = format!("N = {size}");
        Panel::new(&title, EPOCHS, ChartScale::Linear, ours.chain(curves).collect())
    };
    let mut parts = vec![
        PagePart::Text(
            "Ratios as that program decides them: distances in float32 through a matrix product, evaluations by \
             thousands of images, so that small sets have fewer than large ones."
                .into(),
        ),
        PagePart::Table(table),
    ];
    let title = "Over training, beside DiffMemorize";
    parts.extend(chart(title, sizes.iter().map(panel).collect(), "").map(PagePart::Chart));
    parts.extend(theirs.iter().flat_map(|t| &t.notes).cloned().map(PagePart::Text));
    parts
}

fn of_size(runs: &[RunSeen], size: usize) -> Vec<&RunSeen> {
    runs.iter().filter(|r| r.config.data.images == size).collect()
}

fn their_point(evaluation: &TheirEvaluation) -> Point {
    Point { interval: evaluation.interval, ..Point::new(evaluation.epoch, evaluation.ratio) }
}
