//! The configuration of a network in a file of another program, from its tensors' names and shapes.

use super::checkpoint::{SavedModel, read_freqs, read_named, refuse_unexpected};
use super::config::{Arch, Embedding, ModelConfig, Precond};
use super::tensor_file::TensorFile;
use crate::error::{OrExit as _, data};
use anyhow::Result;
use std::path::Path;

/// What names and shapes do not tell.
#[derive(Debug, Clone, PartialEq)]
pub struct Unsaid {
    /// `None`: VP for DDPM++, VE for NCSN++.
    pub precond: Option<Precond>,
    /// `None`: all on.
    pub skip_connections: Option<Vec<u8>>,
    pub dropout: f64,
}

/// Reads a network under EDM's names, with or without the leading `model.`.
///
/// # Errors
/// Data errors (exit 3) that name the file and what is missing, unexpected, misshapen or not finite; usage if
/// what is given in `unsaid` does not fit.
pub fn convert(path: &Path, unsaid: &Unsaid) -> Result<SavedModel> {
    let file = TensorFile::open(path)?;
    let prefixed = file.names().iter().any(|n| n.starts_with("model."));
    let names = Names { file: &file, prefix: if prefixed { "model." } else { "" } };
    let mut config = infer(path, &names)?;
    config.check().or_data(|| format!("{}: its network", path.display()))?;
    config.precond = unsaid.precond.unwrap_or(config.precond);
    config.dropout = unsaid.dropout;
    if let Some(skips) = &unsaid.skip_connections {
        config.skip_connections.clone_from(skips);
    }
    config.check()?;
    if prefixed {
        refuse_unexpected(path, &file, &config, &[""])?;
    }
    let stored = |name: &str| format!("{}{}", names.prefix, name.trim_start_matches("model."));
    let weights = read_named(&file, &config, stored)?;
    let freqs = match (config.embedding, prefixed) {
        (Embedding::Fourier, false) => {
            file.read("map_noise.freqs", &[config.noise_channels() / 2])?
        }
        _ => read_freqs(&file, &config)?,
    };
    file.check()?;
    Ok(SavedModel { config, precision: None, weights, freqs, run: None })
}

struct Names<'a> {
    file: &'a TensorFile,
    prefix: &'a str,
}

impl Names<'_> {
    fn shape(&self, name: &str) -> Option<&[usize]> {
        self.file.shape(&format!("{}{name}", self.prefix))
    }
    fn has(&self, name: &str) -> bool {
        self.shape(name).is_some()
    }
}

/// The network with every skip on, no dropout, and its family's usual preconditioning.
fn infer(path: &Path, names: &Names) -> Result<ModelConfig> {
    let missing =
        |what: &str| data(format!("{}: no {what}: not an EDM U-Net's file", path.display()));
    let resolution = (0..16)
        .map(|e| 1usize << e)
        .find(|r| names.has(&format!("enc.{r}x{r}_conv.weight")))
        .ok_or_else(|| missing("enc.RxR_conv.weight"))?;
    let first = names.shape(&format!("enc.{resolution}x{resolution}_conv.weight"));
    let &[model_channels, image_channels, 3, 3] = first.unwrap_or(&[]) else {
        return Err(missing("3×3 convolution in enc.RxR_conv.weight"));
    };
    let levels = (1..16)
        .take_while(|l| {
            let r = resolution >> l;
            names.has(&format!("enc.{r}x{r}_down.conv0.weight"))
        })
        .count()
        + 1;
    let block = |level: usize, b: usize, what: &str| {
        let r = resolution >> level;
        format!("enc.{r}x{r}_block{b}.{what}")
    };
    let num_blocks = (0..1024).take_while(|&b| names.has(&block(0, b, "conv0.weight"))).count();
    let mut channel_mult = Vec::new();
    for level in 0..levels {
        let name = block(level, 0, "conv0.weight");
        let shape = names.shape(&name).ok_or_else(|| missing(&name))?;
        channel_mult.push(shape.first().copied().unwrap_or(0) / model_channels.max(1));
    }
    let arch = match names.has(&format!("enc.{0}x{0}_aux_residual.weight", resolution / 2)) {
        true => Arch::NcsnPP,
        false => Arch::DdpmPP,
    };
    let fourier = names.has("map_noise.freqs");
    let mut config = ModelConfig {
        label_dim: names.shape("map_label.weight").and_then(|s| s.get(1).copied()).unwrap_or(0),
        model_channels,
        channel_mult,
        num_blocks,
        attn_resolutions: (0..levels)
            .filter(|&l| names.has(&block(l, 0, "qkv.weight")))
            .map(|l| resolution >> l)
            .collect(),
        embedding: if fourier { Embedding::Fourier } else { Embedding::Positional },
        skip_connections: Vec::new(),
        dropout: 0.0,
        ..ModelConfig::basic(arch, resolution, image_channels)
    };
    config.skip_connections = vec![1; config.num_skips()];
    Ok(config)
}
