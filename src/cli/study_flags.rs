//! The flags of commands over studies: shared by `sweep` and `table`.

use super::quoted::{quoted, quoted_path};
use super::train_flags::precision;
use super::{Common, check_runs, open_set};
use crate::data::Dataset;
use crate::error::usage;
use crate::numbers::count;
use crate::run::Precision;
use crate::study::plan::PlannedCell;
use crate::study::{NamedSet, Scale, Setup, Study, StudyPlan};
use anyhow::Result;
use std::path::{Path, PathBuf};

/// Studies' scale and set, and settings over theirs
#[derive(clap::Args, Debug, Clone)]
#[command(next_help_heading = "Study")]
pub struct StudyFlags {
    /// How much of the paper's experiment: sizes, widths, epochs and images shrink together (`emm sweep plan` says how)
    #[arg(long, value_name = "paper|half|mini|tiny", default_value = "paper")]
    pub scale: String,
    /// Set to take subsets of, in any form that `emm data import` reads [default at scale tiny: the bundled digits]
    #[arg(long, value_name = "SET")]
    pub data: Option<PathBuf>,
    /// Second set, for the study `blend`
    #[arg(long, value_name = "SET")]
    pub blend: Option<PathBuf>,
    /// Runs of each cell, with seeds S, S + 1, …: their spread is what training seeds change
    #[arg(long, value_name = "R", value_parser = count, default_value = "1")]
    pub repeats: usize,
    /// What runs are computed in. auto is bf16 on CUDA devices and fp32 on the CPU, and takes runs that have finished
    /// in another precision as they are
    #[arg(long, value_name = "auto|bf16|tf32|fp32", default_value = "auto")]
    pub precision: String,
    /// Only the cells with this value, by its name in the study; several for one axis add up
    #[arg(long, value_name = "AXIS=VALUE", value_parser = pair)]
    pub only: Vec<(String, String)>,
}

/// Seeds of a cell: far more than a spread needs.
const MAX_REPEATS: usize = 1000;

fn pair(text: &str) -> Result<(String, String), String> {
    let (axis, value) = text.split_once('=').ok_or("expected AXIS=VALUE")?;
    Ok((axis.trim().into(), value.trim().into()))
}

impl StudyFlags {
    /// Reads the sets.
    pub fn setup(&self, common: &Common, runs: &Path) -> Result<Setup> {
        check_runs(runs)?;
        let scale = Scale::named(&self.scale)?;
        if !(1..=MAX_REPEATS).contains(&self.repeats) {
            let found = self.repeats;
            return Err(usage(format!("--repeats: {found}, expected 1 to {MAX_REPEATS}")));
        }
        if common.seed.checked_add(self.repeats as u64 - 1).is_none() {
            return Err(usage("--seed: too large for --repeats more seeds"));
        }
        let open = |path: &PathBuf| -> Result<NamedSet> {
            Ok(NamedSet { images: open_set(path, common)?, name: path.display().to_string() })
        };
        let set = match &self.data {
            Some(path) => Some(open(path)?),
            None if scale == Scale::TINY => {
                Some(NamedSet { images: Dataset::digits(), name: "bundled digits".into() })
            }
            None => None,
        };
        let mut setup = Setup::new(scale, set, runs.into());
        setup.blend = self.blend.as_ref().map(open).transpose()?;
        (setup.repeats, setup.seed) = (self.repeats, common.seed);
        let first = precision(&self.precision, common)?;
        setup.precisions = vec![first];
        if self.precision == "auto" {
            let all = [Precision::Bf16, Precision::Tf32, Precision::Fp32];
            setup.precisions.extend(all.into_iter().filter(|&p| p != first));
        }
        Ok(setup)
    }

    /// The cells of studies, as asked for.
    pub fn plans(&self, studies: &[Study], setup: &Setup) -> Result<Vec<StudyPlan>> {
        let mut plans = Vec::new();
        for study in studies {
            let mut plan = StudyPlan::new(study, setup)?;
            plan.keep(&self.only)?;
            plans.push(plan);
        }
        Ok(plans)
    }

    /// The flags again, for a command that the user is told: all but --only.
    pub fn again(&self, common: &Common, runs: &Path) -> String {
        let mut out = String::new();
        let mut flag = |name: &str, value: String| out += &format!(" --{name} {value}");
        if self.scale != "paper" {
            flag("scale", quoted(&self.scale));
        }
        match &self.data {
            Some(path) => flag("data", quoted_path(path)),
            None if self.scale != "tiny" => flag("data", "D.zip".into()),
            None => {}
        }
        if let Some(path) = &self.blend {
            flag("blend", quoted_path(path));
        }
        if self.repeats != 1 {
            flag("repeats", self.repeats.to_string());
        }
        if self.precision != "auto" {
            flag("precision", quoted(&self.precision));
        }
        if common.seed != 1024 {
            flag("seed", common.seed.to_string());
        }
        if runs != Path::new("runs") {
            flag("runs", quoted_path(runs));
        }
        out + &common.reading.again()
    }

    /// The command that fills a cell of a study, or all of it.
    pub fn fills(
        &self,
        common: &Common,
        runs: &Path,
        plan: &StudyPlan,
        cell: Option<&PlannedCell>,
    ) -> String {
        let study = quoted(&plan.study.called);
        let mut command = format!("emm sweep run {study}{}", self.again(common, runs));
        for (axis, &at) in plan.axes.iter().zip(cell.map_or(&[][..], |c| &c.at)) {
            let only = format!("{}={}", axis.name, axis.values[at].paper_name);
            command += &format!(" --only {}", quoted(&only));
        }
        command
    }
}
