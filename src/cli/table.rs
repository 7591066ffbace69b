//! `emm table`: the paper's tables beside finished runs.

use super::devices::unmeasured;
use super::endings::check_ending;
use super::rate_flags::KnownRate;
use super::study_flags::StudyFlags;
use super::{Common, say};
use crate::error::usage;
use crate::files::{check_output, write_bytes};
use crate::study::cost::MachineRates;
use crate::study::{Study, StudyPlan, passed_over};
use crate::views::tables::TableView;
use anyhow::Result;
use std::path::PathBuf;

/// Print a table of the paper: its values, ours from finished runs, what is missing and what that would cost
///
/// 1 is batch sizes, 2 weight decay and EMA rate, 3 labels. Any other study of `emm sweep` is shown the same way.
/// Nothing is trained: `emm sweep run` does that.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  emm table 3
  emm table 3 --scale tiny --repeats 3 --format csv --out table3.csv
  emm table width --scale tiny")]
pub struct Args {
    /// A table's number, or a study
    #[arg(value_name = "1|2|3|STUDY")]
    table: String,
    #[command(flatten)]
    flags: StudyFlags,
    #[command(flatten)]
    rate: KnownRate,
    /// Folder of runs
    #[arg(long, value_name = "DIR", default_value = "runs")]
    runs: PathBuf,
    /// Form of the output [default: the one that --out is named for, else md]
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Write it here [default: print it]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Replace --out if it exists
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Md,
    Csv,
    Json,
    Latex,
}

impl Args {
    /// The form that is asked for, by --json, --format or the ending of --out, which must not disagree.
    fn format(&self, common: &Common) -> Result<Format> {
        const ENDINGS: [(Format, &str, &[&str]); 4] = [
            (Format::Md, "Markdown", &["md", "txt"]),
            (Format::Csv, "CSV", &["csv"]),
            (Format::Json, "JSON", &["json"]),
            (Format::Latex, "LaTeX", &["tex"]),
        ];
        let ending = self.out.as_ref().and_then(|out| Some(out.extension()?.to_str()?.to_owned()));
        let named =
            ending.and_then(|e| ENDINGS.iter().find(|(_, _, all)| all.contains(&e.as_str())));
        let asked = if common.json { Some(Format::Json) } else { self.format };
        let format = asked.or(named.map(|n| n.0)).unwrap_or(Format::Md);
        if let (Some(out), Some((_, what, all))) =
            (&self.out, ENDINGS.iter().find(|(f, ..)| *f == format))
        {
            check_ending("--out", out, what, all)?;
        }
        Ok(format)
    }
}

/// Prints or writes a table of the paper, or of a study.
///
/// # Errors
/// Usage: flags, an unknown table, an output that is there. Data: runs passed over for damage.
pub fn run(args: Args, common: &Common) -> Result<()> {
    let format = args.format(common)?;
    if let Some(out) = &args.out {
        check_output(out, args.force)?;
    }
    let name = args.table.as_str();
    let studies = match name.parse::<u32>() {
        Ok(1..=3) => Study::named("TABLE", &format!("table{name}"))?,
        Ok(_) => return Err(usage(format!("TABLE: {name}, the paper has tables 1, 2 and 3"))),
        Err(_) => Study::named("TABLE", name)?,
    };
    let setup = args.flags.setup(common, &args.runs)?;
    let plans = args.flags.plans(&studies, &setup)?;
    let configs: Vec<_> = (plans.iter().flat_map(|p| &p.cells))
        .flat_map(|cell| cell.runs.iter().map(|run| &run.config))
        .collect();
    let device = unmeasured(&[common.device()?], &configs, common)?.swap_remove(0);
    let rates = MachineRates::here(&device, &args.runs, &configs, args.rate.asked())?;
    let fills =
        |plan: &StudyPlan, cell: Option<&_>| args.flags.fills(common, &args.runs, plan, cell);
    let title = match name.parse::<u32>() {
        Ok(n) => format!("Table {n} of Gu et al. 2023"),
        Err(_) => studies.iter().map(|s| s.name.as_str()).collect::<Vec<_>>().join(", "),
    };
    let view = TableView::read(title, &plans, &rates, &fills);
    let text = match format {
        Format::Md => view.markdown(),
        Format::Csv => view.csv(),
        Format::Json => format!("{}\n", view.json()),
        Format::Latex => view.latex(),
    };
    match &args.out {
        Some(out) => write_bytes(out, args.force, text)?,
        None => say!("{}", text.trim_end()),
    }
    passed_over("--runs", view.damage())
}
