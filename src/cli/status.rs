//! `emm status`: how far runs are.

use super::live::{Drawn, live};
use super::{Common, say_json};
use crate::error::data;
use crate::study::passed_over;
use crate::study::standing::{Standing, watched};
use crate::views::status;
use anyhow::Result;
use std::path::PathBuf;
use std::time::SystemTime;

/// Tell how far runs are: a table that is drawn anew on a terminal until all are finished
///
/// latest: memorized at the last evaluation; ratio: at the best one, as scored again with fresh seeds if it was. ETA counts
/// evaluations, too, at the rate of the last training steps. A run is suspended if it was begun and nobody works in it: the
/// command that began it goes on.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  emm status runs
  emm status runs/digits quickstart --once")]
pub struct Args {
    /// Runs, and folders of runs, such as the one that `quickstart` makes
    #[arg(value_name = "RUNS", default_value = "runs")]
    runs: Vec<PathBuf>,
    /// Print the table once, as is done where stdout is no terminal
    #[arg(long)]
    once: bool,
}

/// Prints how far the runs of some folders are, until all are finished.
///
/// # Errors
/// Data: damaged runs and folders without any, after all others were told.
pub fn run(args: Args, common: &Common) -> Result<()> {
    let mut wrong = Vec::new();
    let mut look = || {
        let (runs, none) = watched(&args.runs);
        wrong = status::damage(&runs).chain(none.clone()).collect();
        match runs.is_empty() {
            true => Err(data(none.join("; "))),
            false => Ok((runs, none)),
        }
    };
    if common.json {
        let (runs, none) = look()?;
        say_json!({"runs": runs.iter().map(status::json).collect::<Vec<_>>(), "without_runs": none});
        return passed_over("RUNS", wrong);
    }
    live(args.once, &mut || {
        let (runs, none) = look()?;
        let mut text = format!("{}\n\n", status::counts(&runs));
        text += &status::table(&runs, SystemTime::now()).plain();
        for why in status::damage(&runs).chain(none) {
            text += &format!("\n{}", super::common::printable(&why));
        }
        let over = |run: &crate::study::standing::Watched| {
            matches!(run.standing, Standing::Done | Standing::Damaged(_))
        };
        Ok(Drawn { text, over: runs.iter().all(over) })
    })?;
    passed_over("RUNS", wrong)
}
