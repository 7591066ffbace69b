//! Which cells of which studies a command is about, and how it is said again.

use super::Common;
use super::quoted::quoted;
use super::study_flags::StudyFlags;
use crate::error::usage;
use crate::study::{Setup, Study, Sweep};
use anyhow::Result;
use std::path::Path;

/// Which cells
#[derive(clap::Args, Debug, Clone)]
pub struct Cells {
    /// Studies: names, or paths that end in .toml
    #[arg(value_name = "STUDY", required = true)]
    pub studies: Vec<String>,
    #[command(flatten)]
    pub flags: StudyFlags,
}

impl Cells {
    /// # Errors
    /// Usage and data: an unknown study, or a file that is none.
    pub fn studies(&self) -> Result<Vec<Study>> {
        let named = self
            .studies
            .iter()
            .map(|name| Study::named("STUDY", name))
            .collect::<Result<Vec<_>>>()?;
        Ok(named.concat())
    }

    /// # Errors
    /// As [`Cells::studies`]; usage: cells that are not there.
    pub fn sweep(&self, setup: &Setup) -> Result<Sweep> {
        Ok(Sweep::of(&self.flags.plans(&self.studies()?, setup)?))
    }

    /// [`Cells::sweep`] of at least one run.
    ///
    /// # Errors
    /// Usage: that there is none, and why.
    pub fn some_sweep(&self, setup: &Setup) -> Result<Sweep> {
        let sweep = self.sweep(setup)?;
        match sweep.runs.is_empty() {
            false => Ok(sweep),
            true => {
                let why = sweep.describe_impossible().join("; ");
                Err(usage(format!("STUDY: nothing to run: {why}").trim_end_matches(": ")))
            }
        }
    }

    /// The flags again, for a command that the user is told.
    pub fn again(&self, common: &Common, runs: &Path) -> String {
        let only = |(axis, value): &(String, String)| {
            format!(" --only {}", quoted(&format!("{axis}={value}")))
        };
        self.flags.again(common, runs) + &self.flags.only.iter().map(only).collect::<String>()
    }

    /// The studies, as the user would type them.
    pub fn words(&self) -> String {
        self.studies.iter().map(|s| quoted(s)).collect::<Vec<_>>().join(" ")
    }

    /// The files that these cells are made from: what flag or argument names each, and its path.
    pub fn files(&self) -> Vec<(&'static str, &Path)> {
        let studies = self.studies.iter().filter(|s| s.ends_with(".toml"));
        let mut all: Vec<_> = studies.map(|s| ("STUDY", Path::new(s))).collect();
        all.extend(self.flags.data.iter().map(|path| ("--data", path.as_path())));
        all.extend(self.flags.blend.iter().map(|path| ("--blend", path.as_path())));
        all
    }
}
