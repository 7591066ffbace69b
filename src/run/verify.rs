//! A run trained again from its configuration, elsewhere, and compared bit by bit with what was kept of it: snapshots, the
//! state, rows of scores. Nothing is written where it was kept.

use super::dir::RunDir;
use super::{Evaluation, RunConfig, RunOptions, SaveEvery, state, train};
use crate::data::Dataset;
use crate::device::Device;
use crate::error::{Exit, fail};
use crate::files::in_passing_folder;
use crate::model::tensor_file::TensorFile;
use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::Path;

/// What is known of a run.
#[derive(Debug, Clone, Default)]
pub struct Kept {
    /// Its folder, if that is there.
    pub dir: Option<RunDir>,
    /// Ratios of evaluations, by step, from elsewhere than its folder; with the file that says so.
    pub ratios: Vec<(u64, f64)>,
    /// The finished run's value, from there.
    pub value: Option<f64>,
    /// The name of that file.
    pub file: String,
}

/// The first thing that differs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Difference {
    /// The first step of those compared after which something differs.
    pub step: u64,
    /// Where it was kept: a name in the run's folder, or that of the results.
    pub file: String,
    /// A tensor's name, or a column of scores.
    pub what: String,
    /// The first value of a tensor that differs, counted from 0 in the file's order, and how many do.
    pub index: Option<usize>,
    pub values: Option<usize>,
    /// What was kept and what came out, as numbers, tensors' with their bits.
    pub kept: String,
    pub again: String,
}

impl Difference {
    /// In a line: `differs first at step 40: state/state.safetensors: ema.model.out_conv.weight at 17: kept …`.
    pub fn said(&self) -> String {
        let at = self.index.map_or(String::new(), |i| format!(" at {i}"));
        let more = match self.values {
            Some(n @ 2..) => format!(", as do {} more of its values", n - 1),
            _ => String::new(),
        };
        format!(
            "differs first at step {}: {}: {}{at}: kept {}, trained again {}{more}",
            self.step, self.file, self.what, self.kept, self.again
        )
    }
}

/// What was compared.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verified {
    /// Steps trained and compared.
    pub steps: u64,
    /// Tensors and their values, of snapshots and of the state.
    pub tensors: usize,
    pub values: u64,
    /// Rows of scores, and ratios.
    pub rows: usize,
    pub difference: Option<Difference>,
}

/// Trains a run again and compares up to the last kept step that is no further than `most_steps`, or to the first that
/// differs. `data` is the run's set by content.
///
/// # Errors
/// Data (exit 3): what was kept cannot be read. Other (exit 1): a process works in it, or a signal. Those of training.
pub fn verify(
    device: &Device,
    config: &RunConfig,
    data: &Dataset,
    kept: &Kept,
    most_steps: u64,
    quiet: bool,
) -> Result<Verified> {
    let stored = Stored::read(config, kept)?;
    in_passing_folder(|folder| {
        let again = RunDir::new(folder);
        let mut found = Verified::default();
        for step in stored.points(config, kept).into_iter().filter(|&step| step <= most_steps) {
            let options = RunOptions {
                keep_all_snapshots: true,
                save_every: SaveEvery::Seconds(f64::INFINITY),
                stop_after_steps: (step < config.steps()).then_some(step - found.steps),
                stop_above: None,
                holdout: None,
                tensorboard: None,
                quiet,
                data_name: String::new(),
            };
            let outcome = train(device, config, data, folder, &options)?;
            if outcome.step != step || outcome.finished != (step == config.steps()) {
                return Err(fail(Exit::Other, "stopped by a signal"));
            }
            found.steps = step;
            stored.compare(config, kept, &again, step, &mut found)?;
            if found.difference.is_some() {
                break;
            }
        }
        Ok(found)
    })
}

/// What a run's folder keeps.
#[derive(Default)]
struct Stored {
    /// The state's step.
    state: Option<u64>,
    snapshots: Vec<u64>,
    /// Rows by file.
    rows: Vec<(&'static str, Vec<Evaluation>)>,
}

impl Stored {
    fn read(config: &RunConfig, kept: &Kept) -> Result<Self> {
        let Some(dir) = &kept.dir else { return Ok(Stored::default()) };
        let scores = dir.scores(config)?;
        let mut snapshots = [&config.evaluation_steps()[..], &[config.steps()]].concat();
        snapshots.dedup();
        snapshots.retain(|&step| dir.snapshot_path(config, step).exists());
        let again = |row: Option<Evaluation>| row.into_iter().collect();
        Ok(Stored {
            state: state::saved_step(&dir.state_path(), config)?,
            snapshots,
            rows: vec![
                ("scores.csv", scores.evaluations),
                ("scores-distinct.csv", scores.distinct.evaluations),
                ("rescored.csv", again(scores.rescored)),
                ("rescored-distinct.csv", again(scores.distinct.rescored)),
            ],
        })
    }

    /// Steps after which something is kept.
    fn points(&self, config: &RunConfig, kept: &Kept) -> BTreeSet<u64> {
        let mut points: BTreeSet<u64> = self.state.into_iter().collect();
        points.extend(&self.snapshots);
        for (file, rows) in &self.rows {
            let of_end = is_of_end(file);
            points.extend(rows.iter().map(|row| if of_end { config.steps() } else { row.step }));
        }
        points.extend(kept.ratios.iter().map(|r| r.0));
        points.extend(kept.value.map(|_| config.steps()));
        points
    }

    /// Compares all that is kept of `step`.
    fn compare(
        &self,
        config: &RunConfig,
        kept: &Kept,
        again: &RunDir,
        step: u64,
        found: &mut Verified,
    ) -> Result<()> {
        if let Some(dir) = &kept.dir {
            let paths = |dir: &RunDir, snapshot: bool| match snapshot {
                true => dir.snapshot_path(config, step),
                false => dir.state_path(),
            };
            for snapshot in [true, false] {
                let here = if snapshot {
                    self.snapshots.contains(&step)
                } else {
                    self.state == Some(step)
                };
                if here && found.difference.is_none() {
                    compare_tensors(&paths(dir, snapshot), &paths(again, snapshot), step, found)?;
                }
            }
        }
        let now = again.scores(config)?;
        for (file, rows) in &self.rows {
            let of_end = is_of_end(file);
            let ours: Vec<&Evaluation> = match *file {
                "scores.csv" => now.evaluations.iter().collect(),
                "scores-distinct.csv" => now.distinct.evaluations.iter().collect(),
                "rescored.csv" => now.rescored.iter().collect(),
                _ => now.distinct.rescored.iter().collect(),
            };
            let due =
                |row: &&Evaluation| if of_end { step == config.steps() } else { row.step == step };
            for row in rows.iter().filter(due) {
                let again = ours.iter().find(|again| of_end || again.step == step);
                compare_rows(row, again.copied(), (step, file), found);
            }
        }
        let mut ratio = |what: &str, wanted: f64, again: Option<f64>| {
            found.rows += 1;
            if again != Some(wanted) && found.difference.is_none() {
                found.difference = Some(Difference {
                    step,
                    file: kept.file.clone(),
                    what: what.into(),
                    index: None,
                    values: None,
                    kept: wanted.to_string(),
                    again: again.map_or("nothing".into(), |r| r.to_string()),
                });
            }
        };
        for (_, wanted) in kept.ratios.iter().filter(|r| r.0 == step) {
            let again = now.evaluations.iter().find(|row| row.step == step);
            ratio("ratio of an evaluation", *wanted, again.map(|row| row.ratio));
        }
        if let Some(wanted) = kept.value.filter(|_| step == config.steps()) {
            ratio("ratio of the run", wanted, now.value().map(|row| row.ratio));
        }
        Ok(())
    }
}

/// Whether a file's row is written once training has ended.
fn is_of_end(file: &str) -> bool {
    file.starts_with("rescored")
}

/// Compares all tensors of two files by their bits; the first that differs is told.
fn compare_tensors(kept: &Path, again: &Path, step: u64, found: &mut Verified) -> Result<()> {
    let (kept_file, again_file) = (TensorFile::open(kept)?, TensorFile::open(again)?);
    let name = |path: &Path| {
        let names: Vec<_> = path.iter().map(|part| part.to_string_lossy()).collect();
        names[names.len().saturating_sub(2)..].join("/")
    };
    let difference = |what: &str, index, values, kept_as: String, again_as: String| Difference {
        step,
        file: name(kept),
        what: what.into(),
        index,
        values,
        kept: kept_as,
        again: again_as,
    };
    let shape = |file: &TensorFile, tensor: &str| match file.shape(tensor) {
        Some(shape) => format!("of shape {shape:?}"),
        None => "nothing".to_string(),
    };
    let mut names = kept_file.names();
    names.extend(again_file.names().into_iter().filter(|n| kept_file.shape(n).is_none()));
    for tensor in names {
        let shapes = [shape(&kept_file, &tensor), shape(&again_file, &tensor)];
        if shapes[0] != shapes[1] {
            let [kept_as, again_as] = shapes;
            found.difference = Some(difference(&tensor, None, None, kept_as, again_as));
            return Ok(());
        }
        let (kept, again) = (kept_file.values(&tensor)?, again_file.values(&tensor)?);
        found.tensors += 1;
        found.values += kept.len() as u64;
        let differs = |i: &usize| kept[*i].to_bits() != again[*i].to_bits();
        let values = (0..kept.len()).filter(differs).count();
        if let Some(i) = (0..kept.len()).find(differs) {
            let said = |v: f32| format!("{v:e} (0x{:08x})", v.to_bits());
            let (kept, again) = (said(kept[i]), said(again[i]));
            found.difference = Some(difference(&tensor, Some(i), Some(values), kept, again));
            return Ok(());
        }
    }
    // All values are right; what the file says of itself may not be.
    if let Err(e) = kept_file.check() {
        found.difference = Some(difference(
            "checksum",
            None,
            None,
            format!("{e:#}"),
            "values are the same".into(),
        ));
    }
    Ok(())
}

/// Compares a row of scores, column by column.
fn compare_rows(
    kept: &Evaluation,
    again: Option<&Evaluation>,
    (step, file): (u64, &str),
    found: &mut Verified,
) {
    found.rows += 1;
    if Some(kept) == again || found.difference.is_some() {
        return;
    }
    let columns = |row: &Evaluation| {
        [
            ("images", row.images.to_string()),
            ("memorized", row.memorized.to_string()),
            ("ratio", row.ratio.to_string()),
            ("mean_d1", row.mean_d1.to_string()),
            ("step", row.step.to_string()),
            ("epoch", row.epoch.to_string()),
            ("low", row.low.to_string()),
            ("high", row.high.to_string()),
        ]
    };
    let theirs = columns(kept);
    let ours = again.map(columns);
    let first = match &ours {
        Some(ours) => theirs.iter().zip(ours).find(|(a, b)| a.1 != b.1),
        None => None,
    };
    let (what, kept, again) = match first {
        Some((a, b)) => (a.0, a.1.clone(), b.1.clone()),
        None => ("row", format!("{} of {}", kept.memorized, kept.images), "nothing".into()),
    };
    found.difference = Some(Difference {
        step,
        file: file.into(),
        what: what.into(),
        index: None,
        values: None,
        kept,
        again,
    });
}
