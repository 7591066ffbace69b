//! A run's state: weights, Adam's moments, EMA and step in one file, replaced whole.

use super::RunConfig;
use crate::error::{Exit, data, fail};
use crate::model::checkpoint::{
    freqs_tensor, read_flat, read_freqs, refuse_unexpected, write_flats,
};
use crate::model::tensor_file::TensorFile;
use crate::model::{SavedModel, Trainer};
use anyhow::Result;
use serde_json::{Value, json};
use std::path::Path;

const PREFIXES: [&str; 4] = ["weights.", "adam_m.", "adam_v.", "ema."];

/// Writes the state after `step` steps.
///
/// # Errors
/// Diverged (exit 5), and the file left as it was, if a weight is not finite; input/output (1).
pub fn save(path: &Path, config: &RunConfig, step: u64, trainer: &Trainer) -> Result<()> {
    let t = trainer;
    let flats = [&t.weights, &t.adam_m, &t.adam_v, &t.ema].map(|b| b.read(0, t.flat_len()));
    let [w, m, v, ema] = flats;
    let flats: [&[f32]; 4] = [&w?, &m?, &v?, &ema?];
    if flats.iter().any(|flat| flat.iter().any(|v| !v.is_finite())) {
        return Err(fail(Exit::Diverged, format!("step {step}: a weight is not finite")));
    }
    let metadata = [
        ("emm.step", step.to_string()),
        ("emm.numerics", config.train.numerics.to_string()),
        ("emm.model", serde_json::to_string(&config.model)?),
    ];
    let named: Vec<_> = PREFIXES.into_iter().zip(flats).collect();
    write_flats(path, true, &metadata, &config.model, &named, &freqs_tensor(&trainer.freqs))
}

/// The step of a stored state, without its values; `None` if there is no file.
pub fn saved_step(path: &Path) -> Result<Option<u64>> {
    if !path.exists() {
        return Ok(None);
    }
    step_of(path, &TensorFile::open(path)?).map(Some)
}

/// Puts a stored state into `trainer` and returns its step; `None`, and nothing changed, if there is no file.
/// After an error the trainer is of no use.
///
/// # Errors
/// Data (exit 3) that name the file and the tensor.
pub fn load(path: &Path, config: &RunConfig, trainer: &mut Trainer) -> Result<Option<u64>> {
    if !path.exists() {
        return Ok(None);
    }
    let file = TensorFile::open(path)?;
    let step = step_of(path, &file)?;
    refuse_unexpected(path, &file, &config.model, &PREFIXES)?;
    // One buffer at a time, so that loading costs no memory to speak of.
    trainer.weights.write(0, &read_flat(&file, &config.model, PREFIXES[0])?)?;
    trainer.adam_m.write(0, &read_flat(&file, &config.model, PREFIXES[1])?)?;
    trainer.adam_v.write(0, &read_flat(&file, &config.model, PREFIXES[2])?)?;
    trainer.ema.write(0, &read_flat(&file, &config.model, PREFIXES[3])?)?;
    trainer.freqs = read_freqs(&file, &config.model)?;
    Ok(Some(step))
}

/// The `emm.run` entry of a model file: seed, step and configuration.
pub fn run_note(config: &RunConfig, step: u64) -> Value {
    // The micro-batch changes no number, so it must change no byte.
    let mut config = config.clone();
    config.train.micro_batch = 0;
    json!({"seed": config.train.seed, "step": step, "config": config})
}

/// The EMA's weights of a stored state, or the live ones, as a model.
///
/// # Errors
/// Data (exit 3) that name the file and the tensor.
pub fn model_of(path: &Path, config: &RunConfig, live: bool) -> Result<SavedModel> {
    let file = TensorFile::open(path)?;
    let step = step_of(path, &file)?;
    Ok(SavedModel {
        config: config.model.clone(),
        weights: read_flat(&file, &config.model, PREFIXES[if live { 0 } else { 3 }])?,
        freqs: read_freqs(&file, &config.model)?,
        run: Some(run_note(config, step)),
    })
}

fn step_of(path: &Path, file: &TensorFile) -> Result<u64> {
    let step = file.meta("emm.step").and_then(|s| s.parse().ok());
    step.ok_or_else(|| data(format!("{}: no emm.step in its metadata", path.display())))
}
