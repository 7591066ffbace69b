//! `emm find --plan`: what a search would train and how long that takes.

use super::{say, say_json};
use crate::report::{Cell, Table};
use crate::run::rate::Asked;
use crate::study::EmmSearch;
use crate::study::ahead::{Ahead, SizeAhead};
use crate::views::words::describe_hours;
use anyhow::Result;

/// Prints it; trains nothing.
///
/// # Errors
/// As of the search before it trains; diverged (exit 5): a measured step.
pub fn run(search: &EmmSearch, asked: Asked, json: bool) -> Result<()> {
    let ahead = Ahead::of(search, asked)?;
    let hours = |s: Option<f64>| s.map(|s| s / 3600.0);
    if json {
        let size = |s: &SizeAhead| {
            let [trained, generated] = s.images();
            serde_json::json!({
                "size": s.size,
                "runs": s.runs,
                "finished": s.finished,
                "steps": s.config.steps(),
                "images_trained": trained,
                "images_generated": generated,
                "hours": hours(s.added_s()),
            })
        };
        say_json!({
            "sizes": ahead.sizes.iter().map(size).collect::<Vec<_>>(),
            "more_sizes": ahead.more,
            "epochs": search.config.train.epochs,
            "runs": ahead.runs(),
            "devices": ahead.devices,
            "hours": hours(ahead.added_s()),
            "clock_hours": hours(ahead.clock_s()),
            "rate_basis": ahead.basis,
        });
        return Ok(());
    }
    let mut table =
        Table::new(&["images", "runs", "finished", "steps", "images seen", "generated", "left"]);
    let time = |s: Option<f64>| describe_hours(hours(s).unwrap_or(f64::NAN));
    for s in &ahead.sizes {
        let [trained, generated] = s.images();
        table.row(vec![
            Cell::Integer(s.size as i64),
            Cell::Integer(s.runs as i64),
            Cell::Integer(s.finished as i64),
            Cell::Integer(s.config.steps() as i64),
            Cell::Integer(trained as i64),
            Cell::Integer(generated as i64),
            Cell::Text(time(s.added_s())),
        ]);
    }
    say!("{}", table.plain());
    let most = if ahead.more > 0 { " at most" } else { "" };
    if ahead.more > 0 {
        say!(
            "it ends with the first size below the level, then narrows it by up to {} sizes in between",
            ahead.more
        );
    }
    say!(
        "{} run{}{most}: {} added up, {} by the clock, {} at once ({}); nothing was trained",
        ahead.runs(),
        if ahead.runs() == 1 { "" } else { "s" },
        time(ahead.added_s()),
        time(ahead.clock_s()),
        ahead.devices,
        ahead.basis
    );
    Ok(())
}
