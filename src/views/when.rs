//! How memorization starts: a table of runs, the laws by which it comes later with more images, where to stop, the curves.

use crate::memorization::onset::{Law, Turn};
use crate::report::chart::{EPOCHS, RATIO};
use crate::report::{
    Cell, Chart, ChartScale, Page, PagePart, Panel, Point, Section, Series, Style, Table,
};
use crate::run::losses::Losses;
use crate::run::progress::describe_epochs;
use crate::study::when::{Advice, Alike, RunWhen, Unknown};
use serde_json::{Value, json};

/// One row a run; times in epochs.
pub fn table(alike: &Alike) -> Table {
    let losses = alike.runs.iter().any(|run| run.tau_gen.is_some());
    let mut columns = vec!["images", "seed", "tau_mem", "below at", "above at"];
    columns.extend(losses.then_some(["tau_gen", "from", "to", "turned"]).into_iter().flatten());
    columns.extend(["looks", "last ratio", "run"]);
    let mut table = Table::new(&columns);
    let epochs = |time: Option<f64>| time.map_or(Cell::Empty, |t| Cell::Number(t, 0));
    for run in &alike.runs {
        let mut row = vec![Cell::Integer(run.size() as i64), Cell::Integer(run.seed() as i64)];
        let (below, above) = run.tau_mem.interval;
        row.extend([run.tau_mem.time, Some(below), above].map(epochs));
        if losses {
            let turn = run.tau_gen;
            let of = |part: &dyn Fn(Turn) -> f64| epochs(turn.map(part));
            row.extend([of(&|t| t.time), of(&|t| t.interval.0), of(&|t| t.interval.1)]);
            row.push(
                turn.map_or(Cell::Empty, |t| {
                    Cell::Text(if t.turned { "yes" } else { "no" }.into())
                }),
            );
        }
        let evaluations = &run.evaluations;
        row.push(Cell::Integer(evaluations.len() as i64));
        row.push(evaluations.last().map_or(Cell::Empty, |l| Cell::Percent(l.ratio, 2)));
        row.push(Cell::Text(run.run.name.clone()));
        table.row(row);
    }
    table
}

/// As `emm when --json` prints it.
pub fn json(groups: &[Alike]) -> Value {
    let group = |alike: &Alike| {
        let laws = alike.laws();
        json!({
            "settings": alike.settings,
            "runs": alike.runs.iter().map(run_json).collect::<Vec<_>>(),
            "tau_mem": laws.tau_mem.as_ref().map(law_json),
            "tau_gen": laws.tau_gen.as_ref().map(law_json),
            "stop": alike.advice().iter().map(advice_json).collect::<Vec<_>>(),
            "said": said(alike),
        })
    };
    json!({
        "level": groups.first().map(|g| g.level),
        "groups": groups.iter().map(group).collect::<Vec<_>>(),
    })
}

fn run_json(run: &RunWhen) -> Value {
    let (below, above) = run.tau_mem.interval;
    json!({
        "run": run.run.dir.display().to_string(),
        "images": run.size(),
        "seed": run.seed(),
        "tau_mem_epochs": run.tau_mem.time,
        "tau_mem_interval": [below, above],
        "tau_gen_epochs": run.tau_gen.map(|t| t.time),
        "tau_gen_interval": run.tau_gen.map(|t| [t.interval.0, t.interval.1]),
        "tau_gen_turned": run.tau_gen.map(|t| t.turned),
        "curve": run.evaluations.iter().map(|l| [l.epoch, l.ratio]).collect::<Vec<_>>(),
        "losses": run.losses.iter().map(|l| [l.epoch, l.training, l.heldout]).collect::<Vec<_>>(),
    })
}

/// Exponents of the time in epochs, and in images seen: epochs times N.
fn law_json(law: &Law) -> Value {
    json!({
        "exponent_epochs": law.exponent,
        "interval_epochs": law.interval,
        "exponent_seen": law.exponent + 1.0,
        "interval_seen": law.interval.map(|ends| ends.map(|e| e + 1.0)),
        "runs": law.points,
    })
}

fn advice_json(advice: &Advice) -> Value {
    let why = advice.epoch.err().map(|why| match why {
        Unknown::Early => "early",
        Unknown::FewImages => "few images",
    });
    json!({
        "images": advice.images,
        "epoch": advice.epoch.ok(),
        "by_heldout_loss": advice.epoch.is_ok() && advice.by_loss,
        "unknown": why,
    })
}

/// What it comes to, a line each.
pub fn said(alike: &Alike) -> Vec<String> {
    let (level, laws) = (percent_short(alike.level), alike.laws());
    let mut said = Vec::new();
    // By its first evaluation: a bound.
    let early = |run: &RunWhen| run.evaluations.first().is_some_and(|l| l.ratio > alike.level);
    let of = |unlike: &dyn Fn(&RunWhen) -> bool| -> Vec<String> {
        let sizes = alike.sizes().filter(|runs| runs.iter().any(unlike));
        sizes.map(|runs| runs[0].size().to_string()).collect()
    };
    let none = |run: &RunWhen| run.tau_mem.time.is_none();
    let (soon, late) = (of(&|run| none(run) && early(run)), of(&|run| none(run) && !early(run)));
    if !soon.is_empty() {
        said.push(format!(
            "of {} images a run had passed {level} by its first evaluation: such are in no law (--evaluations takes more)",
            soon.join(", ")
        ));
    }
    if !late.is_empty() {
        said.push(format!(
            "of {} images not every run passed {level}: those that did not are in no law, which may make it rise too little",
            late.join(", ")
        ));
    }
    if alike.holdouts() > 1 {
        let n = alike.holdouts();
        said.push(format!(
            "losses are of {n} different sets of held-out images: tau_gen is not one measure here"
        ));
    }
    if let Some(law) = &laws.tau_mem {
        said.push(law_said(&format!("tau_mem, when {level} of the samples are copies,"), law));
    }
    if let Some(law) = &laws.tau_gen {
        said.push(law_said("tau_gen, when the held-out loss turns,", law));
    }
    said.extend(bonnaire(laws.tau_mem, laws.tau_gen));
    said.extend(alike.advice().iter().map(|advice| advice_said(advice, alike.level)));
    said
}

/// 1% rather than 1.00%.
fn percent_short(share: f64) -> String {
    format!("{}%", crate::report::number(100.0 * share))
}

fn law_said(what: &str, law: &Law) -> String {
    let seen = law.exponent + 1.0;
    let (in_epochs, in_images) = match law.interval {
        Some([low, high]) => {
            (format!(" [{low:.2}, {high:.2}]"), format!(" [{:.2}, {:.2}]", low + 1.0, high + 1.0))
        }
        None => Default::default(),
    };
    let (runs, sure) = (law.points, if law.interval.is_some() { "95%, " } else { "" });
    format!(
        "{what} goes as N^{:.2}{in_epochs} in epochs, N^{seen:.2}{in_images} in images seen ({sure}{runs} runs)",
        law.exponent
    )
}

/// Whether what Bonnaire et al. (2025) find holds: counted in steps, τ_mem grows in proportion to N, τ_gen does not.
fn bonnaire(tau_mem: Option<Law>, tau_gen: Option<Law>) -> Option<String> {
    let seen = |law: Option<Law>| law?.interval.map(|ends| ends.map(|e| e + 1.0));
    let holds = |[low, high]: [f64; 2], value: f64| low <= value && value <= high;
    let mem = seen(tau_mem).map(|ends| match ends {
        ends if holds(ends, 0.0) => "tau_mem is not shown to grow",
        ends if holds(ends, 1.0) => "tau_mem grows in proportion to N, as they find",
        [low, _] if low > 0.0 => "tau_mem grows with N, though not in proportion",
        _ => "tau_mem falls with N, against what they find",
    })?;
    let generalizing = match seen(tau_gen) {
        None => "whether tau_gen stays is not known (train --holdout)",
        Some(ends) if holds(ends, 0.0) => "tau_gen is not shown to grow, as they find",
        Some([low, _]) if low > 0.0 => "tau_gen grows, too, against what they find",
        Some(_) => "tau_gen falls with N",
    };
    Some(format!("counted in images seen, beside Bonnaire et al. 2025: {mem}; {generalizing}"))
}

fn advice_said(advice: &Advice, level: f64) -> String {
    let (n, level_said) = (advice.images, percent_short(level));
    match advice.epoch {
        Ok(epoch) => {
            let why = match advice.by_loss {
                true => "the held-out loss turns there",
                false => "the last evaluation that is sure to be below it",
            };
            let epoch = describe_epochs(epoch);
            format!("for N = {n} stop at epoch {epoch} to copy less than {level_said}: {why}")
        }
        Err(Unknown::Early) => format!(
            "for N = {n} copies are above {level_said} at the first evaluation: --evaluations takes more of them"
        ),
        Err(Unknown::FewImages) => format!(
            "for N = {n} no evaluation is sure to be below {level_said}: --score-images takes more, {} at least even if none is a copy",
            images_for(level)
        ),
    }
}

/// Images of which none copied is at most `level`, by Wilson's 95% interval.
fn images_for(level: f64) -> u64 {
    let z = 1.96f64;
    (z * z * (1.0 - level) / level.max(1e-9)).ceil() as u64
}

/// The ratio over epochs, and over epochs/N^α, where the curves lie over each other if τ_mem's law is all there is to them; and
/// both losses.
pub fn chart(alike: &Alike) -> Chart {
    let line = |runs: &[RunWhen], by: f64| {
        let scale = (runs[0].size() as f64).powf(by);
        let points = ratios(runs).into_iter().map(|p| Point { x: p.x / scale, ..p });
        Series::new(format!("N = {}", runs[0].size()), Style::Line, points.collect())
    };
    let panel = |title: &str, name: &str, by: f64| {
        let series = alike.sizes().map(|runs| line(runs, by)).collect();
        let panel = Panel::new(title, name, ChartScale::Linear, series).shares_of(RATIO);
        Panel { level: Some(alike.level), ..panel }
    };
    let mut panels = vec![panel("Over training", EPOCHS, 0.0)];
    if let Some(law) = alike.laws().tau_mem {
        let by = law.exponent;
        panels.push(panel("Laid over each other", &format!("epochs / N^{by:.2}"), by));
    }
    let mut footer: Vec<String> =
        Some(alike.settings.clone()).filter(|settings| !settings.is_empty()).into_iter().collect();
    footer.push(
        "points: the mean of the training seeds; bands: lowest to highest of them, or the 95% sampling interval of one".into(),
    );
    let heldout: Vec<Series> = alike
        .sizes()
        .map(|runs| {
            let name = format!("N = {}, held out", runs[0].size());
            Series::new(name, Style::Line, losses(runs, |l| l.heldout))
        })
        .collect();
    if heldout.iter().any(|series| !series.points.is_empty()) {
        let training = alike.sizes().enumerate().map(|(i, runs)| Series {
            beside: Some(i),
            ..Series::new("", Style::Theirs, losses(runs, |l| l.training))
        });
        let series = heldout.into_iter().chain(training).collect::<Vec<_>>();
        let all = series.len();
        let panel = Panel::new("Losses", EPOCHS, ChartScale::Linear, series);
        panels.push(panel.log_values("loss at fixed noise levels", all, 1.1));
        footer.push("losses: dashed on training images".into());
    }
    let title = format!("When copies appear: dashed at {}", percent_short(alike.level));
    Chart { title, panels, footer }
}

/// The mean ratio of runs of one size at each evaluation that all of them have, over epochs.
fn ratios(runs: &[RunWhen]) -> Vec<Point> {
    let curves = runs.iter().map(|run| run.evaluations.iter().map(|l| (l.epoch, l.ratio)));
    let mut points = mean(&curves.map(Iterator::collect).collect::<Vec<_>>());
    if let [run] = runs {
        let intervals = run.evaluations.iter().map(|l| [l.low, l.high]);
        points.iter_mut().zip(intervals).for_each(|(p, interval)| p.interval = Some(interval));
    }
    points
}

/// The same of a loss, of those runs that have any.
fn losses(runs: &[RunWhen], of: fn(&Losses) -> f64) -> Vec<Point> {
    let measured = runs.iter().filter(|run| !run.losses.is_empty());
    let curves = measured.map(|run| run.losses.iter().map(|l| (l.epoch, of(l))).collect());
    mean(&curves.collect::<Vec<_>>())
}

/// The mean of curves at each x that all of them have, with the lowest and highest of them.
fn mean(curves: &[Vec<(f64, f64)>]) -> Vec<Point> {
    let Some(first) = curves.first() else { return Vec::new() };
    let point = |&(x, _): &(f64, f64)| {
        let at = |curve: &Vec<(f64, f64)>| curve.iter().find(|p| p.0 == x).map(|p| p.1);
        let all: Vec<f64> = curves.iter().map(at).collect::<Option<_>>()?;
        let fold = |from: f64, of: fn(f64, f64) -> f64| all.iter().copied().fold(from, of);
        let ends = [fold(f64::INFINITY, f64::min), fold(f64::NEG_INFINITY, f64::max)];
        let interval = Some(ends).filter(|_| all.len() > 1);
        let y = all.iter().sum::<f64>() / all.len() as f64;
        Some(Point { interval, ..Point::new(x, y) })
    };
    first.iter().filter_map(point).collect()
}

/// A group's part of a page.
pub fn parts(alike: &Alike) -> Vec<PagePart> {
    let settings = Some(alike.settings.clone()).filter(|settings| !settings.is_empty());
    let mut parts: Vec<PagePart> = settings.into_iter().map(PagePart::Text).collect();
    parts.extend(said(alike).into_iter().map(PagePart::Text));
    parts.push(PagePart::Chart(chart(alike)));
    parts.push(PagePart::Table(table(alike)));
    parts
}

/// All groups on a page.
pub fn page(groups: &[Alike]) -> Page {
    let title = "When memorization starts".to_string();
    let parts = groups.iter().flat_map(parts).collect();
    let lead = vec![format!("emm {}", env!("CARGO_PKG_VERSION"))];
    Page { title: title.clone(), lead, sections: vec![Section { title, parts }] }
}
