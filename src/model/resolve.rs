//! From what is given of a network to one that can be built.

use super::config::{Arch, Embedding, ModelConfig, ModelSettings, Precond};
use super::layout::{Kind, Layout};
use crate::error::usage;
use crate::settings::Choice;
use anyhow::Result;

impl ModelSettings {
    /// The network for images of `resolution` pixels a side, `image_channels` and `label_dim` classes (0: unconditional).
    /// `scaled` changes what is given and the defaults, before what follows from them is settled.
    ///
    /// # Errors
    /// As [`ModelConfig::check`].
    pub fn resolve(
        &self,
        [resolution, image_channels, label_dim]: [usize; 3],
        scaled: impl FnOnce(&mut ModelConfig),
    ) -> Result<ModelConfig> {
        let mut model = ModelConfig { resolution, image_channels, label_dim, ..self.config() };
        let fourier = model.arch == Arch::NcsnPP;
        if self.precond.is_none() && fourier {
            model.precond = Precond::Ve;
        }
        if self.embedding.and_then(Choice::said).is_none() && fourier {
            model.embedding = Embedding::Fourier;
        }
        if matches!(self.attn, None | Some(Choice::Auto)) && model.levels() > 1 {
            model.attn_resolutions = vec![resolution / 2];
        }
        scaled(&mut model);
        model.check_sizes()?;
        if self.skips.is_none() {
            model.skip_connections = vec![1; model.num_skips()];
        }
        model.check()?;
        Ok(model)
    }
}

impl ModelConfig {
    /// Whether every part of the network can be built.
    ///
    /// # Errors
    /// Usage errors that begin with the flag at fault; a width whose norms do not divide names the layer.
    pub fn check(&self) -> Result<()> {
        self.check_sizes()?;
        let (r, levels) = (self.resolution, self.levels());
        for &a in &self.attn_resolutions {
            if !(0..levels).any(|l| r >> l == a) {
                let have: Vec<_> = (0..levels).map(|l| (r >> l).to_string()).collect();
                return Err(usage(format!(
                    "--attn: the network has no resolution {a}, only {}",
                    have.join(", ")
                )));
            }
        }
        let (have, want) = (self.skip_connections.len(), self.num_skips());
        if have != want || self.skip_connections.iter().any(|&s| s > 1) {
            return Err(usage(format!(
                "--skips: {have} values given, {want} values of 0 or 1 wanted ({} per level, {levels} levels)",
                self.num_blocks + 1
            )));
        }
        check_norms(self)
    }
}

/// min(32, C/4) must divide C at every norm.
///
/// # Errors
/// A usage error that begins with `--channels:` and names the first layer that does not divide.
fn check_norms(config: &ModelConfig) -> Result<()> {
    let check = |layer: String, channels: usize| {
        let groups = (channels / 4).min(32);
        if groups > 0 && channels.is_multiple_of(groups) {
            return Ok(());
        }
        Err(usage(format!(
            "--channels: {} gives {layer} {channels} channels, which do not split into {groups} groups; \
             a multiple of 32 always works",
            config.model_channels
        )))
    };
    let layout = Layout::new(config);
    for part in layout.parts().filter(|p| p.kind == Kind::Block) {
        check(format!("{}.norm0", part.name), part.cin)?;
        check(format!("{}.norm1", part.name), part.cout)?;
    }
    check(layout.aux_norm, layout.out_channels)
}
