//! A predicted EMM: the short runs, the law of their times, the answer in words.

use crate::memorization::onset::Law;
use crate::report::{Cell, Table};
use crate::run::progress::describe_epochs;
use crate::study::predict::{Predicted, Short, Unpredicted};
use serde_json::{Value, json};

/// One row a short run; times in epochs.
pub fn table(found: &Predicted) -> Table {
    let mut table = Table::new(&[
        "images",
        "seed",
        "passed at",
        "below at",
        "above at",
        "epochs",
        "last ratio",
    ]);
    let epochs = |time: Option<f64>| time.map_or(Cell::Empty, |t| Cell::Number(t, 1));
    for short in &found.shorts {
        let (below, above) = short.onset.interval;
        table.row(vec![
            Cell::Integer(short.size as i64),
            Cell::Integer(short.seed as i64),
            epochs(short.onset.time),
            epochs(Some(below)),
            epochs(above),
            Cell::Number(short.epochs, 1),
            Cell::Percent(short.ratio, 2),
        ]);
    }
    table
}

/// As `emm find --predict --json` prints it.
pub fn json(found: &Predicted) -> Value {
    let short = |s: &Short| {
        json!({
            "size": s.size,
            "seed": s.seed,
            "passed_epochs": s.onset.time,
            "interval": [Some(s.onset.interval.0), s.onset.interval.1],
            "epochs": s.epochs,
            "ratio": s.ratio,
        })
    };
    let law = |law: &Law| json!({"exponent_epochs": law.exponent, "interval": law.interval, "runs": law.points});
    json!({
        "predicted": true,
        "epsilon": found.epsilon,
        "epochs": found.epochs,
        "emm": found.emm.ok(),
        "emm_interval": found.interval,
        "law": found.law.as_ref().map(law),
        "short_runs": found.shorts.iter().map(short).collect::<Vec<_>>(),
        "seen_images": found.seen_images,
        "said": said(found),
    })
}

/// The answer, and what it rests on, a line each.
pub fn said(found: &Predicted) -> Vec<String> {
    let level = format!("{}%", crate::report::number(100.0 * (1.0 - found.epsilon)));
    let (e, epochs) = (found.epsilon, describe_epochs(found.epochs));
    let Ok(emm) = found.emm else {
        return vec![unpredicted(found, &level)];
    };
    let end = |n: Option<f64>| n.map_or("?".to_string(), |n| format!("{n:.0}"));
    let [low, high] = found.interval.map(end);
    let mut said = vec![format!(
        "EMM(ε = {e}) ≈ {emm:.0} images after {epochs} epochs, predicted, 95% interval {low} to {high}"
    )];
    if let Some(law) = &found.law {
        let ends = law.interval.map_or(String::new(), |[a, b]| format!(" [{a:.2}, {b:.2}]"));
        said.push(format!(
            "by {} runs of {} to {} images: the ratio passes {level} after epochs that go as N^{:.2}{ends}",
            law.points,
            found.shorts.first().map_or(0, |s| s.size),
            found.shorts.last().map_or(0, |s| s.size),
            law.exponent
        ));
    }
    let one = emm * found.epochs;
    said.push(format!(
        "the short runs saw {:.2} times the images that one run of {emm:.0} images sees in {epochs} epochs",
        found.seen_images / one
    ));
    let largest = found.shorts.iter().filter(|s| s.onset.time.is_some()).map(|s| s.size).max();
    if let Some(largest) = largest.filter(|&n| emm > 8.0 * n as f64) {
        said.push(format!(
            "note: {:.0} times the largest size that was tried, {largest}: a law may end before that",
            emm / largest as f64
        ));
    }
    said
}

fn unpredicted(found: &Predicted, level: &str) -> String {
    let epochs = describe_epochs(found.epochs);
    match found.emm {
        Err(Unpredicted::FewSizes(n)) => format!(
            "no prediction: {n} sizes passed {level} in half of {epochs} epochs, a law needs 3 (a lower --lo, or more --epochs)"
        ),
        _ => format!(
            "no prediction: that the ratio of more images passes {level} later is not shown (95%), so that no size follows from {epochs} \
             epochs; --repeats takes more seeds, --lo larger sizes"
        ),
    }
}
