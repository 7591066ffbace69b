//! How far runs are, as a table and as JSON.

use super::words::percent;
use crate::report::{Cell, Table};
use crate::run::progress::{describe_epochs, duration};
use crate::study::standing::{Reached, Standing, Watched};
use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};

/// What a run's standing is called.
pub fn state(standing: &Standing) -> &'static str {
    match standing {
        Standing::Missing => "missing",
        Standing::Damaged(_) => "damaged",
        Standing::Begun { running: true, .. } => "running",
        Standing::Begun { .. } => "suspended",
        Standing::Done => "finished",
    }
}

/// One row a run, those that something happens to first. `now`: when it is looked at.
pub fn table(runs: &[Watched], now: SystemTime) -> Table {
    let columns =
        ["run", "images", "state", "epochs", "looks", "latest", "ratio", "img/s", "ETA", "updated"];
    let mut table = Table::new(&columns);
    let mut runs: Vec<&Watched> = runs.iter().collect();
    runs.sort_by_key(|run| match run.standing {
        Standing::Begun { running: true, .. } => 0,
        Standing::Begun { .. } => 1,
        Standing::Damaged(_) => 2,
        Standing::Done => 3,
        Standing::Missing => 4,
    });
    for run in runs {
        let mut row = vec![Cell::Text(run.name.clone())];
        let state = Cell::Text(state(&run.standing).into());
        match &run.reached {
            Some(reached) => {
                row.extend([Cell::Integer(reached.images as i64), state]);
                row.extend(cells(reached, now));
            }
            None => {
                row.extend([Cell::Empty, state]);
                row.resize(columns.len(), Cell::Empty);
            }
        }
        table.row(row);
    }
    table
}

fn cells(reached: &Reached, now: SystemTime) -> [Cell; 7] {
    let text = |text: Option<String>| text.map_or(Cell::Empty, Cell::Text);
    let [epoch, epochs] = reached.epochs.map(describe_epochs);
    let [evaluations, of] = reached.evaluations;
    let age = reached.updated.map(|at| now.duration_since(at).unwrap_or_default().as_secs_f64());
    [
        Cell::Text(format!("{epoch} of {epochs}")),
        Cell::Text(format!("{evaluations} of {of}")),
        text(reached.latest.map(percent)),
        text(reached.ratio.map(percent)),
        reached.images_per_s.map_or(Cell::Empty, |rate| Cell::Number(rate, 1)),
        text(reached.left_s.map(duration)),
        text(age.map(|s| format!("{} ago", duration(s)))),
    ]
}

/// How many are how far, in a line.
pub fn counts(runs: &[Watched]) -> String {
    let all = ["finished", "running", "suspended", "damaged", "missing"];
    let count = |name: &&str| runs.iter().filter(|run| state(&run.standing) == *name).count();
    let said = all.iter().map(|name| (name, count(name))).filter(|(_, n)| *n > 0);
    let said: Vec<String> = said.map(|(name, n)| format!("{n} {name}")).collect();
    let runs = if runs.len() == 1 { "1 run".into() } else { format!("{} runs", runs.len()) };
    format!("{runs}: {}", said.join(", "))
}

/// What is wrong with damaged runs.
pub fn damage(runs: &[Watched]) -> impl Iterator<Item = String> {
    runs.iter().filter_map(|run| match &run.standing {
        Standing::Damaged(why) => Some(why.clone()),
        _ => None,
    })
}

/// A run as `emm status --json` tells it.
pub fn json(run: &Watched) -> Value {
    let reached = run.reached.as_ref();
    let since_1970 = |at: SystemTime| at.duration_since(UNIX_EPOCH).ok().map(|d| d.as_secs_f64());
    json!({
        "name": run.name,
        "run": run.dir.as_ref().map(|dir| dir.display().to_string()),
        "state": state(&run.standing),
        "why": match &run.standing {
            Standing::Damaged(why) => Some(why),
            _ => None,
        },
        "images": reached.map(|r| r.images),
        "epoch": reached.map(|r| r.epochs[0]),
        "epochs": reached.map(|r| r.epochs[1]),
        "looks": reached.map(|r| r.evaluations[0]),
        "of_looks": reached.map(|r| r.evaluations[1]),
        "latest_ratio": reached.and_then(|r| r.latest),
        "ratio": reached.and_then(|r| r.ratio),
        "images_per_s": reached.and_then(|r| r.images_per_s),
        "left_s": reached.and_then(|r| r.left_s),
        "updated_unix_s": reached.and_then(|r| since_1970(r.updated?)),
    })
}
