//! Networks in files: safetensors with EDM's names and PyTorch's shapes, so that a strict `load_state_dict`
//! takes them, and `emm.model` in the metadata, so that nothing else is needed to rebuild the network.

use super::config::{Arch, Embedding, ModelConfig};
use super::layout::{Kind, Layout};
use super::params::Params;
use super::tensor_file::{self, TensorFile};
use crate::device::{Device, Precision};
use crate::error::{OrExit as _, data};
use anyhow::Result;
use serde_json::Value;
use std::path::Path;

const FREQS: &str = "model.map_noise.freqs";
const FILTER: &str = ".resample_filter";

/// A network with its weights, as a model file holds it.
#[derive(Debug, Clone, PartialEq)]
pub struct SavedModel {
    pub config: ModelConfig,
    /// What it was trained in; `None` where nobody said.
    pub precision: Option<Precision>,
    /// Flat, master order.
    pub weights: Vec<f32>,
    /// Fourier frequencies; empty for a positional embedding.
    pub freqs: Vec<f32>,
    /// The `emm.run` entry: seed, step and configuration of the run that trained it.
    pub run: Option<Value>,
}

impl SavedModel {
    /// Reads a model file.
    ///
    /// # Errors
    /// Data errors (exit 3) that name the file and the tensor: missing, unexpected, of another shape, not finite; or
    /// that the file does not fit its checksum, if it has one.
    pub fn open(path: &Path) -> Result<Self> {
        let file = TensorFile::open(path)?;
        let name = path.display();
        let Some(text) = file.meta("emm.model") else {
            return Err(data(format!(
                "{name}: no emm.model in its metadata; `emm ckpt convert` takes files of other programs"
            )));
        };
        let what = || format!("{name}: emm.model");
        let mut model: Value = serde_json::from_str(text).or_data(what)?;
        let stored = model.as_object_mut().and_then(|model| model.remove("precision"));
        let config: ModelConfig = serde_json::from_value(model).or_data(what)?;
        config.check().or_data(what)?;
        let run: Option<Value> = match file.meta("emm.run") {
            Some(text) => Some(serde_json::from_str(text).or_data(|| format!("{name}: emm.run"))?),
            None => None,
        };
        // Files from before it was stored have it in their run's configuration.
        let precision = match (stored, &run) {
            (Some(stored), _) => Some(serde_json::from_value(stored).or_data(what)?),
            (None, Some(run)) => {
                serde_json::from_value(run["config"]["train"]["precision"].clone()).ok()
            }
            (None, None) => None,
        };
        refuse_unexpected(path, &file, &config, &[""])?;
        let weights = read_flat(&file, &config, "")?;
        let freqs = read_freqs(&file, &config)?;
        file.check()?;
        Ok(SavedModel { config, precision, weights, freqs, run })
    }

    /// What its network computes in on `device`: what it was trained in, or the device's own choice where the file does
    /// not tell or the device cannot.
    pub fn precision_on(&self, device: &Device) -> Precision {
        let here = |precision: &Precision| device.precisions().contains(precision);
        self.precision.filter(here).unwrap_or(device.precision())
    }

    /// Writes a model file whole or not at all; equal models give equal bytes.
    ///
    /// # Errors
    /// As [`crate::files::write_atomic`].
    pub fn save(&self, path: &Path, force: bool) -> Result<()> {
        let mut model = serde_json::to_value(&self.config)?;
        if let Some(precision) = self.precision {
            model["precision"] = serde_json::to_value(precision)?;
        }
        let mut metadata = vec![("emm.model", model.to_string())];
        metadata.extend(self.run.as_ref().map(|r| ("emm.run", r.to_string())));
        let mut extras = freqs_tensor(&self.freqs);
        extras.extend(resample_filters(&self.config));
        write_flats(path, force, &metadata, &self.config, &[("", &self.weights)], &extras)
    }
}

/// A tensor that is no parameter: name, shape, values.
pub type Extra = (String, Vec<usize>, Vec<f32>);

/// The Fourier frequencies as a file holds them; nothing for a positional embedding.
pub fn freqs_tensor(freqs: &[f32]) -> Vec<Extra> {
    match freqs {
        [] => Vec::new(),
        _ => vec![(FREQS.into(), vec![freqs.len()], freqs.to_vec())],
    }
}

/// Writes flat buffers of one network, each under its prefix, and then the extras.
pub fn write_flats(
    path: &Path,
    force: bool,
    metadata: &[(&str, String)],
    config: &ModelConfig,
    flats: &[(&str, &[f32])],
    extras: &[Extra],
) -> Result<()> {
    let params = Params::new(config);
    let mut tensors = Vec::new();
    for (prefix, _) in flats {
        let named = params.specs.iter().map(|s| (format!("{prefix}{}", s.name), s.shape.clone()));
        tensors.extend(named);
    }
    tensors.extend(extras.iter().map(|(name, shape, _)| (name.clone(), shape.clone())));
    let per_flat = params.specs.len();
    tensor_file::write(path, force, metadata, &tensors, |i| match flats.get(i / per_flat) {
        Some((_, flat)) => params.to_torch(&params.specs[i % per_flat], flat),
        None => extras[i - flats.len() * per_flat].2.clone(),
    })
}

/// Reads all parameters under `prefix` into a flat buffer in master order.
///
/// # Errors
/// Data errors (exit 3) that name the file and the tensor: missing, of another shape, not finite.
pub fn read_flat(file: &TensorFile, config: &ModelConfig, prefix: &str) -> Result<Vec<f32>> {
    read_named(file, config, |name| format!("{prefix}{name}"))
}

/// [`read_flat`] of parameters whose names in the file `stored` makes of EDM's.
pub fn read_named(
    file: &TensorFile,
    config: &ModelConfig,
    stored: impl Fn(&str) -> String,
) -> Result<Vec<f32>> {
    let params = Params::new(config);
    // All shapes before the first allocation, which is then no larger than the file.
    for spec in &params.specs {
        file.check_shape(&stored(&spec.name), &spec.shape)?;
    }
    let mut flat = vec![0.0; params.flat_len];
    for spec in &params.specs {
        let values = file.read(&stored(&spec.name), &spec.shape)?;
        params.from_torch(spec, &values, &mut flat);
    }
    Ok(flat)
}

/// Reads the Fourier frequencies, if the network has any.
pub fn read_freqs(file: &TensorFile, config: &ModelConfig) -> Result<Vec<f32>> {
    match config.embedding {
        Embedding::Positional => Ok(Vec::new()),
        Embedding::Fourier => file.read(FREQS, &[config.noise_channels() / 2]),
    }
}

/// Refuses a file with tensors that the network, under these prefixes, does not have.
pub fn refuse_unexpected(
    path: &Path,
    file: &TensorFile,
    config: &ModelConfig,
    prefixes: &[&str],
) -> Result<()> {
    let params = Params::new(config);
    let mut known: std::collections::HashSet<String> = prefixes
        .iter()
        .flat_map(|prefix| params.specs.iter().map(move |s| format!("{prefix}{}", s.name)))
        .collect();
    if config.embedding == Embedding::Fourier {
        known.insert(FREQS.into());
    }
    for name in file.names() {
        if !known.contains(&name) && !name.ends_with(FILTER) {
            let path = path.display();
            return Err(data(format!("{path}: tensor {name} is unexpected in this network")));
        }
    }
    Ok(())
}

/// The fixed filters that EDM's network keeps as buffers on every convolution that resamples.
fn resample_filters(config: &ModelConfig) -> Vec<Extra> {
    let taps: &[f32] = match config.arch {
        Arch::DdpmPP => &[1.0, 1.0],
        Arch::NcsnPP => &[1.0, 3.0, 3.0, 1.0],
    };
    let total = taps.iter().sum::<f32>().powi(2);
    let filter: Vec<f32> =
        taps.iter().flat_map(|a| taps.iter().map(move |b| a * b / total)).collect();
    let shape = vec![1, 1, taps.len(), taps.len()];
    let layout = Layout::new(config);
    let resampling = layout.parts().filter(|p| p.resample.is_some());
    let names = resampling.flat_map(|part| match part.kind {
        Kind::Block => vec![format!("{}.conv0", part.name), format!("{}.skip", part.name)],
        _ => vec![part.name.clone()],
    });
    names.map(|n| (format!("model.{n}{FILTER}"), shape.clone(), filter.clone())).collect()
}
