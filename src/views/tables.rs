//! The paper's tables, its values beside ours: views over finished runs, with what is missing and its cost.

use super::matrix::{deviations, difference, matrix, precision};
use super::words::{RISING_MARK, describe_hours};
use crate::memorization::Emm;
use crate::report::{Cell, Table};
use crate::study::EPSILON;
use crate::study::cost::{GPUS, GPUS_BASIS, MachineRates, flop_of};
use crate::study::names::by_reason;
use crate::study::outcome::{Measured, Seen, Spread};
use crate::study::plan::{PlannedCell, StudyPlan};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Begins what is chosen here.
const NOTE: &str = "Not the paper's word";

/// A table of one or several studies.
pub struct TableView<'a> {
    /// Stands above the table.
    pub title: String,
    plans: &'a [StudyPlan],
    /// Of each plan, one a cell.
    seen: Vec<Vec<Seen>>,
    rates: &'a MachineRates,
    /// The command that fills a cell, or without one all of them.
    command: &'a dyn Fn(&StudyPlan, Option<&PlannedCell>) -> String,
}

impl<'a> TableView<'a> {
    /// Reads the cells of `plans`.
    pub fn read(
        title: String,
        plans: &'a [StudyPlan],
        rates: &'a MachineRates,
        command: &'a dyn Fn(&StudyPlan, Option<&PlannedCell>) -> String,
    ) -> Self {
        let seen = plans.iter().map(StudyPlan::read).collect();
        TableView { title, plans, seen, rates, command }
    }

    /// What is wrong with damaged runs, which count as missing.
    pub fn damage(&self) -> impl Iterator<Item = String> {
        self.seen.iter().flatten().flat_map(Seen::damage)
    }

    fn cells(&self) -> impl Iterator<Item = &PlannedCell> {
        self.plans.iter().flat_map(|p| &p.cells)
    }

    fn parts(&self) -> impl Iterator<Item = (&StudyPlan, &Vec<Seen>)> {
        self.plans.iter().zip(&self.seen)
    }

    /// For reading: GitHub's Markdown.
    pub fn markdown(&self) -> String {
        let mut out = format!("# {}\n\n{}\n", self.title, self.head());
        for (plan, seen) in self.parts() {
            let study = &plan.study;
            out += &format!("\n## {}\n\n{}", study.heading(), matrix(plan, seen).markdown());
            if !study.note.is_empty() {
                out += &format!("\n{NOTE}: {}.\n", study.note);
            }
        }
        out += "\n";
        out += &self.legend().join("\n");
        out += "\n";
        if let Some(missing) = self.missing() {
            out += &format!("\n## Missing\n\n{}\n{}\n", missing.markdown(), self.basis());
        }
        for line in by_reason(self.impossible()) {
            out += &format!("\nNot to be had here: {line}\n");
        }
        out
    }

    /// One tabular a study.
    pub fn latex(&self) -> String {
        let comment = |text: &str| text.lines().map(|l| format!("% {l}\n")).collect::<String>();
        let mut out = comment(&self.title) + &comment(&self.head());
        for (plan, seen) in self.parts() {
            out += &comment(&plan.study.heading());
            if !plan.study.note.is_empty() {
                out += &comment(&format!("{NOTE}: {}.", plan.study.note));
            }
            out += &matrix(plan, seen).latex();
        }
        out + &comment(&self.legend().join("\n"))
    }

    /// One row a cell, with everything.
    pub fn csv(&self) -> String {
        let columns = "study cell scale data paper_percent ratio difference_points low high seeds lowest highest \
                       deviation rising runs_done runs hours_here hours_h100 hours_a100 command precision paper_is \
                       note";
        let mut table = Table::new(&columns.split(' ').collect::<Vec<_>>());
        for (plan, seen) in self.parts() {
            for (cell, seen) in plan.cells.iter().zip(seen) {
                let share = |x: Option<f64>| x.map_or(Cell::Empty, |x| Cell::Number(x, 4));
                let found = seen.found.as_ref();
                let of = |what: fn(&Measured) -> f64| share(found.map(what));
                let spread = found.and_then(|m| m.spread);
                let seeds = |of: fn(&Spread) -> f64| share(spread.as_ref().map(of));
                let hours = self.hours(cell, seen);
                table.row(vec![
                    Cell::Text(plan.study.name.clone()),
                    Cell::Text(plan.name(cell)),
                    Cell::Text(plan.scale.name.into()),
                    Cell::Text(plan.set_name.clone()),
                    share(cell.paper.map(|p| p.percent)),
                    of(|m| m.ratio),
                    share(difference(plan, cell, seen)),
                    of(|m| m.interval[0]),
                    of(|m| m.interval[1]),
                    spread.map_or(Cell::Empty, |s| Cell::Integer(s.seeds as i64)),
                    seeds(|s| s.lowest),
                    seeds(|s| s.highest),
                    seeds(|s| s.deviation),
                    Cell::Text(if rising(seen) { "yes".into() } else { String::new() }),
                    Cell::Integer(seen.done() as i64),
                    Cell::Integer(cell.runs.len() as i64),
                    share(hours[0]),
                    share(hours[1]),
                    share(hours[2]),
                    Cell::Text(self.command_of(plan, cell, seen)),
                    Cell::Text(precision(cell, seen)),
                    Cell::Text(cell.paper.map_or("", |p| p.source()).into()),
                    Cell::Text(plan.study.note.clone()),
                ]);
            }
        }
        table.csv()
    }

    /// Every cell with its settings, runs and numbers, as `--json` prints it.
    pub fn json(&self) -> Value {
        let cell = |plan: &StudyPlan, cell: &PlannedCell, seen: &Seen| {
            let hours = self.hours(cell, seen);
            let found = seen.found.as_ref();
            let curve = found.map_or(&[][..], |m| &m.curve);
            let values = plan.axes.iter().zip(&cell.at).map(|(axis, &at)| {
                let v = &axis.values[at];
                (axis.name.clone(), json!({"value": v.name, "paper": v.paper_name}))
            });
            json!({
                "cell": plan.name(cell),
                "at": values.collect::<serde_json::Map<_, _>>(),
                "paper_percent": cell.paper.map(|p| p.percent),
                "paper_is": cell.paper.map(|p| p.source()),
                "ratio": found.map(|m| m.ratio),
                "difference_points": difference(plan, cell, seen),
                "interval": found.map(|m| m.interval),
                "spread": found.and_then(|m| m.spread).map(|s| json!({
                    "seeds": s.seeds, "lowest": s.lowest, "highest": s.highest, "deviation": s.deviation,
                })),
                "difference_deviations": deviations(plan, cell, seen),
                "rising": rising(seen),
                "curve": curve.iter().map(|&(e, r)| [e, r]).collect::<Vec<_>>(),
                "runs": cell.runs.iter().map(|r| r.dir.as_ref().map(|d| d.display().to_string()))
                    .collect::<Vec<_>>(),
                "runs_done": seen.done(),
                "runs_older": seen.older(),
                "precisions": cell.runs.iter().map(|r| r.config.train.precision).collect::<Vec<_>>(),
                "impossible": cell.impossible,
                "flop": flop_left(cell, seen),
                "hours": {"here": hours[0], "h100": hours[1], "a100": hours[2]},
                "command": self.command_of(plan, cell, seen),
            })
        };
        let part = |(plan, seen): (&StudyPlan, &Vec<Seen>)| {
            let emm: Vec<Value> = (plan.emm(seen, EPSILON).into_iter())
                .map(|e| {
                    let ours = e.ours.as_ref().map(|o| match o.found {
                        Ok((n, _)) => json!(n),
                        Err(side) => json!(side),
                    });
                    let least = e.ours.as_ref().map(Emm::at_least);
                    json!({"of": e.name, "paper": e.paper, "ours": ours, "ours_is_least": least})
                })
                .collect();
            let cells = plan.cells.iter().zip(seen);
            json!({
                "study": plan.study.name,
                "title": plan.study.title,
                "source": plan.study.source,
                "note": plan.study.note,
                "cells": cells.map(|(c, s)| cell(plan, c, s)).collect::<Vec<_>>(),
                "emm": emm,
            })
        };
        json!({
            "table": self.title,
            "scale": self.plans.first().map(|p| p.scale.name),
            "said": self.head(),
            "parts": self.parts().map(part).collect::<Vec<_>>(),
            "costs": self.basis(),
        })
    }

    /// Scale and set: what every output says first.
    fn head(&self) -> String {
        let Some(plan) = self.plans.first() else { return String::new() };
        let mut said = plan.scale.said();
        said = said[..1].to_uppercase() + &said[1..];
        match plan.set_name.as_str() {
            "" => format!("{said}. No set given (--data), so no run can be looked up."),
            name => format!("{said}. Set: {name}."),
        }
    }

    fn legend(&self) -> Vec<String> {
        let at_paper = self.plans.iter().any(|p| p.scale.is_paper());
        let mut ours = "ours: highest ratio over a run's looks; 95% sampling: Wilson's interval, what other samples \
                        would change"
            .to_string();
        ours += if at_paper { "; difference: ours less the paper's, in points." } else { "." };
        let mut lines = vec![ours];
        if self.cells().any(|c| c.paper.is_some_and(|p| p.plotted)) {
            lines.push("≈: read off a plot of the paper's.".into());
        }
        let found = || self.seen.iter().flatten().filter_map(|s| s.found.as_ref());
        if found().any(|m| m.spread.is_some()) {
            let mut seeds =
                "seeds: lowest to highest run, what other training seeds change".to_string();
            seeds += match at_paper {
                true => {
                    "; in deviations: the difference over what two such results differ by, of which the paper's is \
                     one run."
                }
                false => ".",
            };
            lines.push(seeds);
        }
        if found().any(|m| m.rising) {
            lines.push(format!(
                "{RISING_MARK}: still rising at the last look; longer training would give more. An EMM beside such a ratio \
                 is a lower bound (≥), and none is said to lie below the sizes."
            ));
        }
        if let Some(said) = self.precisions() {
            lines.push(format!("Computed in {said}."));
        }
        let older: usize = self.parts().flat_map(|(_, seen)| seen).map(Seen::older).sum();
        if older > 0 {
            lines.push(format!(
                "Runs computed by an earlier version, whose numerics are not this version's: {older}."
            ));
        }
        if self.plans.iter().any(|p| !p.scale.is_paper()) {
            lines.push(
                "At another scale than the paper's ours is another experiment than the paper's; where a value has \
                 two names, the second is the paper's."
                    .into(),
            );
        }
        lines
    }

    /// What finished runs were computed in: one precision, or each with how many runs.
    fn precisions(&self) -> Option<String> {
        let mut counts = BTreeMap::<&str, usize>::new();
        for (plan, seen) in self.parts() {
            for (cell, seen) in plan.cells.iter().zip(seen) {
                for run in cell.runs_finished(seen, true) {
                    *counts.entry(run.config.train.precision.name()).or_default() += 1;
                }
            }
        }
        match counts.len() {
            0 => None,
            1 => counts.keys().next().map(|name| name.to_string()),
            _ => {
                let said = counts.iter().map(|(name, n)| format!("{name} ({n} runs)"));
                Some(said.collect::<Vec<_>>().join(" and "))
            }
        }
    }

    /// One row for each cell with runs to be done.
    fn missing(&self) -> Option<Table> {
        let [h100, a100] = &GPUS;
        let mut table = Table::new(&["cell", "runs", "here", h100.name, a100.name, "command"]);
        let (mut cells, mut sum) = (0, [0.0; 3]);
        for (plan, seen) in self.parts() {
            for (cell, seen) in plan.cells.iter().zip(seen) {
                if seen.complete() || cell.impossible.is_some() {
                    continue;
                }
                let hours = self.hours(cell, seen);
                cells += 1;
                (0..3).for_each(|k| sum[k] += hours[k].unwrap_or(f64::NAN));
                let shown =
                    |h: Option<f64>| h.map_or(Cell::Empty, |h| Cell::Text(describe_hours(h)));
                table.row(vec![
                    Cell::Text(format!("{}: {}", plan.study.name, plan.name(cell))),
                    Cell::Integer((cell.runs.len() - seen.done()) as i64),
                    shown(hours[0]),
                    shown(hours[1]),
                    shown(hours[2]),
                    Cell::Text(format!("`{}`", (self.command)(plan, Some(cell)))),
                ]);
            }
        }
        if cells > 1 {
            let all: Vec<String> = self.plans.iter().map(|p| (self.command)(p, None)).collect();
            let shown = |h: f64| Cell::Text(describe_hours(h));
            table.row(vec![
                Cell::Text("all".into()),
                Cell::Empty,
                shown(sum[0]),
                shown(sum[1]),
                shown(sum[2]),
                Cell::Text(all.iter().map(|c| format!("`{c}`")).collect::<Vec<_>>().join("; ")),
            ]);
        }
        (cells > 0).then_some(table)
    }

    fn impossible(&self) -> Vec<(String, String)> {
        let cells = self.plans.iter().flat_map(|p| p.cells.iter().map(move |c| (p, c)));
        cells.filter_map(|(p, c)| Some((p.name(c), c.impossible.clone()?))).collect()
    }

    fn basis(&self) -> String {
        format!("Time here on one device, {}. {GPUS_BASIS}.", self.rates.basis)
    }

    /// Hours that a cell's unfinished runs take here, on an H100, on an A100.
    fn hours(&self, cell: &PlannedCell, seen: &Seen) -> [Option<f64>; 3] {
        let left = || cell.runs_finished(seen, false);
        let here = left().map(|run| self.rates.seconds(&run.config)).sum::<Option<f64>>();
        let on = |k: usize| {
            left().map(|run| self.rates.gpu_seconds(&run.config)[k]).sum::<Option<f64>>()
        };
        // Of nothing left a sum of floats is −0.
        [here, on(0), on(1)].map(|seconds| Some(seconds? / 3600.0 + 0.0))
    }

    fn command_of(&self, plan: &StudyPlan, cell: &PlannedCell, seen: &Seen) -> String {
        match seen.complete() || cell.impossible.is_some() {
            true => String::new(),
            false => (self.command)(plan, Some(cell)),
        }
    }
}

fn rising(seen: &Seen) -> bool {
    seen.found.as_ref().is_some_and(|m| m.rising)
}

fn flop_left(cell: &PlannedCell, seen: &Seen) -> f64 {
    cell.runs_finished(seen, false).map(|run| flop_of(&run.config)).sum::<f64>() + 0.0
}
