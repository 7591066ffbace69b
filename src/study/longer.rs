//! Shorter runs of a folder that a longer one goes on from.

use crate::device::Device;
use crate::error::{Exit, exit_code};
use crate::run::longer::{TakenOver, begin_from, is_shorter, lengthen};
use crate::run::scoring::Scoring;
use crate::run::{RunConfig, RunDir, RunOptions, state};
use anyhow::Result;
use std::path::{Path, PathBuf};

/// The runs of a folder, as far as they can be read.
pub struct Known(Vec<(PathBuf, RunConfig)>);

impl Known {
    pub fn runs_in(folder: &Path) -> Known {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let run = |path: PathBuf| {
            let config = RunDir::new(&path).stored_config().ok().flatten()?;
            Some((path, config))
        };
        Known(entries.filter_map(|entry| run(entry.path())).collect())
    }

    /// The run that `asked` goes on from, and its step: of those that are shorter the one that is farthest.
    pub fn shorter(&self, asked: &RunConfig, scoring: Scoring) -> Option<(&Path, u64)> {
        let of = |(path, config): &'_ (PathBuf, RunConfig)| {
            let step = state::saved_step(&RunDir::new(path).state_path(), config).ok()??;
            Some(step).filter(|&step| step > 0)
        };
        let shorter = self.0.iter().filter(|(_, config)| is_shorter(config, asked, scoring));
        let at = shorter.filter_map(|run| Some((run.0.as_path(), of(run)?)));
        at.max_by_key(|&(path, step)| (step, path))
    }

    /// Readies `dir` for the run of `asked`: it begins with the state of a shorter one, if there is any; the shorter one's folder,
    /// and where it takes over. What a kill left of that is ended.
    ///
    /// # Errors
    /// As [`lengthen`].
    pub fn ready(
        &self,
        device: &Device,
        dir: &Path,
        asked: &RunConfig,
        scoring: Scoring,
        options: &RunOptions,
    ) -> Result<Option<(&Path, TakenOver)>> {
        if RunDir::new(dir).is_run() {
            lengthen(device, dir, asked, scoring, options)?;
            return Ok(None);
        }
        let Some((from, _)) = self.shorter(asked, scoring) else { return Ok(None) };
        match begin_from(device, from, dir, asked, options) {
            Ok(taken) => Ok(taken.map(|taken| (from, taken))),
            // A shorter run that is damaged, or another version's, is not needed: the longer one begins at the beginning.
            Err(e) if [Exit::Data as i32, Exit::Usage as i32].contains(&exit_code(&e)) => Ok(None),
            Err(e) => Err(e),
        }
    }
}
