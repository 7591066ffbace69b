//! `emm find --predict`: the EMM of a long training from short ones.

use super::common::suspended;
use super::find_flags::Args;
use super::{Common, note_line, say};
use crate::files::write_bytes;
use crate::study::predict::predict;
use crate::study::{EmmSearch, passed_over};
use crate::views::predict as view;
use anyhow::Result;

/// Trains short runs and prints what follows for long ones.
///
/// # Errors
/// As of a search.
pub fn run(args: &Args, search: &mut EmmSearch, common: &Common) -> Result<()> {
    search.check()?;
    let Some(found) = predict(search)? else {
        return Err(suspended("--runs", &args.run.runs));
    };
    if let Some(out) = &args.out {
        let put = |file: &str, bytes: Vec<u8>| write_bytes(&out.join(file), args.force, bytes);
        put("predicted.json", format!("{:#}\n", view::json(&found)).into_bytes())?;
        put("predicted.csv", view::table(&found).csv().into_bytes())?;
    }
    match common.json {
        true => say!("{}", view::json(&found)),
        false => {
            say!("\n{}", view::table(&found).plain());
            view::said(&found).iter().for_each(|line| say!("{line}"));
        }
    }
    if found.emm.is_err() && !common.quiet {
        note_line("the whole search: the same command without --predict");
    }
    passed_over("--runs", found.damage)
}
