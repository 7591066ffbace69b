//! A run's state: weights, Adam's moments, EMA and step in one file, replaced whole.

use super::RunConfig;
use crate::error::{Exit, OrExit as _, data, fail};
use crate::model::checkpoint::{
    freqs_tensor, read_flat, read_freqs, refuse_unexpected, write_flats,
};
use crate::model::tensor_file::TensorFile;
use crate::model::{SavedModel, Trainer};
use anyhow::Result;
use serde::Deserialize as _;
use serde_json::{Value, json};
use std::path::Path;

const PREFIXES: [&str; 4] = ["weights.", "adam_m.", "adam_v.", "ema."];

/// Writes the state after `step` steps.
///
/// # Errors
/// Diverged (exit 5), and the file left as it was, if a weight is not finite; input/output (1).
pub fn save(path: &Path, config: &RunConfig, step: u64, trainer: &Trainer) -> Result<()> {
    let t = &trainer.training;
    let flats = [&t.weights, &t.adam_m, &t.adam_v, &t.ema].map(|b| b.read(0, trainer.flat_len()));
    let [w, m, v, ema] = flats;
    write(path, config, step, [&w?, &m?, &v?, &ema?], &t.freqs)
}

fn write(
    path: &Path,
    config: &RunConfig,
    step: u64,
    flats: [&[f32]; 4],
    freqs: &[f32],
) -> Result<()> {
    if flats.iter().any(|flat| flat.iter().any(|v| !v.is_finite())) {
        return Err(fail(Exit::Diverged, format!("step {step}: a weight is not finite")));
    }
    let metadata =
        [("emm.step", step.to_string()), ("emm.run", run_note(config, step).to_string())];
    let named: Vec<_> = PREFIXES.into_iter().zip(flats).collect();
    write_flats(path, true, &metadata, &config.model, &named, &freqs_tensor(freqs))
}

/// Writes the state of `shorter` that `from` holds as one of `longer` to `to`; its step, or `None` if there is no state.
///
/// # Errors
/// As [`load`]; input/output (1).
pub fn carry(
    from: &Path,
    shorter: &RunConfig,
    to: &Path,
    longer: &RunConfig,
) -> Result<Option<u64>> {
    let Some((file, step)) = open(from, shorter)? else { return Ok(None) };
    file.check()?;
    refuse_unexpected(from, &file, &shorter.model, &PREFIXES)?;
    let [w, m, v, ema] = PREFIXES.map(|prefix| read_flat(&file, &shorter.model, prefix));
    let freqs = read_freqs(&file, &shorter.model)?;
    write(to, longer, step, [&w?, &m?, &v?, &ema?], &freqs)?;
    Ok(Some(step))
}

/// The step of a stored state, by its header alone; `None` if there is no file.
///
/// # Errors
/// Data (exit 3): no state, or of another run, or of a step that the run does not have.
pub fn saved_step(path: &Path, config: &RunConfig) -> Result<Option<u64>> {
    Ok(open(path, config)?.map(|(_, step)| step))
}

/// [`saved_step`] of a state whose every bit is checked.
///
/// # Errors
/// As [`saved_step`], and data (exit 3) if it does not fit its checksum.
pub fn whole_step(path: &Path, config: &RunConfig) -> Result<Option<u64>> {
    let Some((file, step)) = open(path, config)? else { return Ok(None) };
    file.check()?;
    Ok(Some(step))
}

fn open(path: &Path, config: &RunConfig) -> Result<Option<(TensorFile, u64)>> {
    let Some(file) = TensorFile::open_if_there(path)? else { return Ok(None) };
    let name = path.display();
    let step = file.meta("emm.step").and_then(|s| s.parse().ok());
    let step = step.ok_or_else(|| data(format!("{name}: no emm.step in its metadata")))?;
    let run = match (file.meta("emm.run"), file.meta("emm.model")) {
        (Some(text), _) => {
            Some(serde_json::from_str::<Value>(text).or_data(|| format!("{name}: emm.run"))?)
        }
        // Of before states named their run.
        (None, Some(model)) if *model == serde_json::to_string(&config.model)? => None,
        _ => return Err(data(format!("{name}: the state of another run"))),
    };
    if let Some(run) = &run {
        same_run(path, config, Some(run))?;
        if run["step"] != step {
            let other = &run["step"];
            return Err(data(format!("{name}: damaged: of step {step} and of step {other}")));
        }
    }
    match step <= config.steps() {
        true => Ok(Some((file, step))),
        false => {
            let last = config.steps();
            Err(data(format!("{name}: the state of step {step}, the run's last is {last}")))
        }
    }
}

/// Refuses what a file's `emm.run` says if that is not this run.
///
/// # Errors
/// Data (exit 3) with the file and the differences.
pub fn same_run(path: &Path, config: &RunConfig, run: Option<&Value>) -> Result<()> {
    let name = path.display();
    let of = run.and_then(|run| RunConfig::deserialize(&run["config"]).ok());
    let Some(mut of) = of else {
        return Err(data(format!("{name}: says of no run that it is its")));
    };
    of.train.micro_batch = config.train.micro_batch;
    let differences =
        config.differences(&of).join("; ").replace("stored", "here").replace("asked", "there");
    match differences.is_empty() {
        true => Ok(()),
        false => Err(data(format!("{name}: of another run ({differences})"))),
    }
}

/// The configuration that a state says it is of, if it is there and says so.
pub fn config_of(path: &Path) -> Option<RunConfig> {
    let file = TensorFile::open_if_there(path).ok().flatten()?;
    let run: Value = serde_json::from_str(file.meta("emm.run")?).ok()?;
    RunConfig::deserialize(&run["config"]).ok()
}

/// A state that was put into a trainer.
pub struct Loaded {
    pub step: u64,
    /// Compared with its checksum; those of before there were any have none.
    pub checked: bool,
}

/// Puts a stored state into `trainer`; `None`, and nothing changed, if there is no file. After an error the trainer is of
/// no use.
///
/// # Errors
/// As [`whole_step`]; data (exit 3) that name the file and the tensor.
pub fn load(path: &Path, config: &RunConfig, trainer: &mut Trainer) -> Result<Option<Loaded>> {
    let Some((file, step)) = open(path, config)? else { return Ok(None) };
    let checked = file.check()?;
    refuse_unexpected(path, &file, &config.model, &PREFIXES)?;
    // One buffer at a time, so that loading costs no memory to speak of.
    trainer.training.weights.write(0, &read_flat(&file, &config.model, PREFIXES[0])?)?;
    trainer.training.adam_m.write(0, &read_flat(&file, &config.model, PREFIXES[1])?)?;
    trainer.training.adam_v.write(0, &read_flat(&file, &config.model, PREFIXES[2])?)?;
    trainer.training.ema.write(0, &read_flat(&file, &config.model, PREFIXES[3])?)?;
    trainer.training.freqs = read_freqs(&file, &config.model)?;
    Ok(Some(Loaded { step, checked }))
}

/// The `emm.run` entry of a model file or state: seed, step, the run's name, which is its configuration's hash, and the
/// configuration.
pub fn run_note(config: &RunConfig, step: u64) -> Value {
    // The micro-batch changes no number, so it must change no byte; nor do evaluations that are left out.
    let mut config = config.clone();
    (config.train.micro_batch, config.train.left_out) = (0, 0);
    json!({"seed": config.train.seed, "step": step, "id": config.id(), "config": config})
}

/// The EMA's weights of a stored state, or the live ones, as a model; `None` if there is no file.
///
/// # Errors
/// As [`whole_step`]; data (exit 3) that name the file and the tensor.
pub fn model_of(path: &Path, config: &RunConfig, live: bool) -> Result<Option<SavedModel>> {
    let Some((file, step)) = open(path, config)? else { return Ok(None) };
    file.check()?;
    Ok(Some(SavedModel {
        config: config.model.clone(),
        precision: Some(config.train.precision),
        weights: read_flat(&file, &config.model, PREFIXES[if live { 0 } else { 3 }])?,
        freqs: read_freqs(&file, &config.model)?,
        run: Some(run_note(config, step)),
    }))
}
