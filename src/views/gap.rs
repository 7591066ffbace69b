//! The gap to the optimum, as a table and as JSON.

use crate::report::{Cell, Table};
use crate::study::gap::Level;
use serde_json::{Value, json};

/// One row a noise level.
pub fn table(levels: &[Level]) -> Table {
    let mut table = Table::new(&["sigma", "weight", "gap", "optimum's loss", "model's loss"]);
    for l in levels {
        table.row(vec![
            Cell::Number(l.sigma, 4),
            Cell::Number(l.weight, 4),
            Cell::Number(l.gap, 4),
            Cell::Number(l.optimum, 4),
            Cell::Number(l.loss, 4),
        ]);
    }
    table
}

/// The levels as `emm gap --json` prints them.
pub fn json(levels: &[Level], draws: usize) -> Value {
    let one = |l: &Level| {
        json!({
            "sigma": l.sigma,
            "weight": l.weight,
            "gap": l.gap,
            "optimum_loss": l.optimum,
            "loss": l.loss,
        })
    };
    json!({"draws": draws, "levels": levels.iter().map(one).collect::<Vec<_>>()})
}
