//! Where a step's time goes, launch by launch, and how near each comes to what the machine can do.

use crate::check::cases::{Case, GOLDENS};
use crate::check::golden::Golden;
use crate::device::{Cost, Device, Precision};
use crate::model::Params;
use crate::ops::Shape;
use crate::tape::{MemoryPlan, Part};
use anyhow::Result;

/// Launches of one kind: equal in name, shapes and cost.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The kernel, or on the CPU op and direction.
    pub name: &'static str,
    /// First layer that launches it, or the case.
    pub of: String,
    /// Of the op: inputs → first output.
    pub shapes: String,
    /// Launches in a micro-batch's forward and backward; 1 for a case.
    pub count: usize,
    pub cost: Cost,
    /// Of one launch.
    pub median_s: f64,
}

fn text(shape: Shape) -> String {
    match shape {
        [n, 1, 1, c] => format!("{n}×{c}"),
        _ => shape.map(|s| s.to_string()).join("×"),
    }
}

/// Inputs → first output of an op.
pub fn shapes(part: &Part) -> String {
    let ins: Vec<String> = part.ins.iter().map(|&s| text(s)).collect();
    format!("{} → {}", ins.join(" "), text(part.out))
}

/// Module of an op's first parameter, in EDM's names; the op's name where it has none.
pub fn layer(part: &Part, params: &Params) -> String {
    if part.param == Some(params.affine[0]) {
        return "*.affine".into();
    }
    let spec = part.param.and_then(|p| params.at(p.offset));
    match spec {
        Some(spec) => {
            let name = spec.name.strip_prefix("model.").unwrap_or(&spec.name);
            name.rsplit_once('.').map_or(name, |(module, _)| module).into()
        }
        None => part.op.into(),
    }
}

/// The launches of a plan by kind, the longest together first. `seconds`: times of each, in the plan's order.
pub fn of_plan(plan: &MemoryPlan, params: &Params, seconds: &[Vec<f64>]) -> Vec<Row> {
    let mut kinds: Vec<(Row, Vec<f64>)> = Vec::new();
    for part in plan.parts() {
        for i in part.launches.clone() {
            let launch = &plan.launches()[i];
            let (name, shapes) = (launch.name(), shapes(part));
            let cost = launch.kernel().map_or(part.cost, |kernel| kernel.cost());
            let known = kinds
                .iter_mut()
                .find(|(row, _)| (row.name, &row.shapes, row.cost) == (name, &shapes, cost));
            match known {
                Some((row, all)) => {
                    row.count += 1;
                    all.extend(&seconds[i]);
                }
                None => {
                    let of = layer(part, params);
                    let row = Row { name, of, shapes, count: 1, cost, median_s: f64::NAN };
                    kinds.push((row, seconds[i].clone()));
                }
            }
        }
    }
    let mut rows: Vec<Row> =
        kinds.into_iter().map(|(row, all)| Row { median_s: median(&all), ..row }).collect();
    let total = |row: &Row| row.count as f64 * row.median_s;
    rows.sort_by(|a, b| total(b).total_cmp(&total(a)));
    rows
}

/// Every op's cases in what they launch at `precision`, each launch timed `repeats` times.
///
/// # Errors
/// Device (exit 4): what the driver says.
pub fn of_cases(device: &Device, precision: Precision, repeats: usize) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (op, bytes) in GOLDENS {
        let golden = Golden::parse(bytes)?;
        for (name, attributes) in golden.cases() {
            let case = Case::from_golden(op, &golden, &name, &attributes);
            let shapes: Vec<String> = case.ins.iter().map(|o| text(o.shape)).collect();
            for timed in case.time(device, precision, repeats)? {
                rows.push(Row {
                    name: timed.name,
                    of: format!("{op} {name}"),
                    shapes: shapes.join(" "),
                    count: 1,
                    cost: timed.cost,
                    median_s: median(&timed.seconds),
                });
            }
        }
    }
    Ok(rows)
}

/// Median of some times.
pub fn median(times: &[f64]) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (low, high) = ((sorted.len() - 1) / 2, sorted.len() / 2);
    (sorted[low] + sorted[high]) / 2.0
}
