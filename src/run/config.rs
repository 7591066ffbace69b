//! Everything that determines a run's numbers, as `config.toml` holds it.

use crate::data::Dataset;
use crate::device::Precision;
use crate::error::usage;
use crate::model::ModelConfig;
use anyhow::Result;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Raised whenever results may change; stored with a run and compared on resume.
pub const NUMERICS: u32 = 2;

/// Epochs over which the paper's learning rate grows (Gu et al. 2023, appendix B).
pub const RAMP_EPOCHS: f64 = 200.0;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
#[value(rename_all = "lower")]
pub enum Order {
    /// A new shuffle each epoch.
    Shuffle,
    /// Epoch 0's shuffle for ever, as the reference does.
    Fixed,
}

/// The optimizer's side of a run. Lengths of time are in epochs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    pub seed: u64,
    pub epochs: f64,
    pub batch: usize,
    /// Resolved at the run's first start and kept.
    pub micro_batch: usize,
    pub lr: f64,
    /// The learning rate grows linearly over so many; 0 for none. Where it is the paper's it is not written, so that
    /// runs older than this field keep their names.
    #[serde(default = "papers_ramp", skip_serializing_if = "is_papers_ramp")]
    pub ramp_epochs: f64,
    pub weight_decay: f64,
    /// Table 2's rate r; `None` is the default half-life rule.
    pub ema_rate: Option<f64>,
    pub precision: Precision,
    pub order: Order,
    /// Replace non-finite gradients as the reference does instead of stopping.
    pub scrub_gradients: bool,
    /// Evenly spaced scorings; the last is at the end.
    pub looks: usize,
    /// Generated images per look; where looks grow, at the last one.
    pub score_images: usize,
    /// Whether early looks have fewer: look i of n its share i/n. Where not, it is not written, as in runs older than it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub growing_looks: bool,
    /// Fresh images that score the best look again; 0 for never.
    pub rescore_images: usize,
    pub numerics: u32,
}

fn papers_ramp() -> f64 {
    RAMP_EPOCHS
}

fn is_papers_ramp(epochs: &f64) -> bool {
    *epochs == RAMP_EPOCHS
}

/// The data set by content, not by path.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataId {
    pub images: usize,
    pub sha256_pixels: String,
    pub sha256_labels: String,
}

impl DataId {
    pub fn of(data: &Dataset) -> Self {
        DataId {
            images: data.len(),
            sha256_pixels: data.sha256_pixels(),
            sha256_labels: data.sha256_labels(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    pub model: ModelConfig,
    pub train: TrainConfig,
    pub data: DataId,
}

impl RunConfig {
    /// Whether such a run can be trained and scored, its network aside ([`ModelConfig::check`]).
    ///
    /// # Errors
    /// Usage errors that begin with the flag at fault.
    pub fn check(&self) -> Result<()> {
        let t = &self.train;
        if t.score_images == 0 {
            return Err(usage("--score-images: 0; to train without scoring give --looks 0"));
        }
        let counts = [
            ("--size", self.data.images, 1, u32::MAX as usize),
            ("--batch", t.batch, 1, 1 << 20),
            ("--looks", t.looks, 0, 1_000_000),
            ("--score-images", t.score_images, 1, 100_000_000),
            ("--rescore-images", t.rescore_images, 0, 100_000_000),
        ];
        for (flag, n, least, most) in counts {
            if !(least..=most).contains(&n) {
                return Err(usage(format!("{flag}: {n}, expected {least} to {most}")));
            }
        }
        for (flag, value) in [
            ("--epochs", t.epochs),
            ("--lr", t.lr),
            ("--ramp-epochs", t.ramp_epochs),
            ("--weight-decay", t.weight_decay),
        ] {
            if !value.is_finite() || value < 0.0 {
                return Err(usage(format!("{flag}: {value} is not a finite number ≥ 0")));
            }
        }
        if t.epochs == 0.0 {
            return Err(usage("--epochs: 0, at least a part of one is needed"));
        }
        if let Some(rate) = t.ema_rate.filter(|r| !(0.0..1.0).contains(r)) {
            return Err(usage(format!("--ema-rate: {rate} is outside [0, 1)")));
        }
        if self.data.images < 2 && t.looks > 0 {
            return Err(usage(
                "--data: holds 1 image; nearest and second nearest need 2 (or --looks 0)",
            ));
        }
        if self.steps() > 1 << 31 {
            return Err(usage(format!("--epochs: {} steps are more than 2^31", self.steps())));
        }
        Ok(())
    }

    /// Whether it is one that [`RunConfig::check`] lets a run be stored with.
    ///
    /// # Errors
    /// As [`RunConfig::check`] and [`ModelConfig::check`].
    pub fn check_stored(&self) -> Result<()> {
        self.model.check()?;
        self.check()?;
        let (micro, batch) = (self.train.micro_batch, self.train.batch);
        if !(1..=batch).contains(&micro) {
            return Err(usage(format!("--micro-batch: {micro}, expected 1 to {batch} (--batch)")));
        }
        let is_hash = |text: &str| {
            text.len() == 64 && text.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f'))
        };
        let DataId { sha256_pixels, sha256_labels, .. } = &self.data;
        let labels_fit = match self.model.label_dim {
            0 => sha256_labels == "none",
            _ => is_hash(sha256_labels),
        };
        match is_hash(sha256_pixels) && labels_fit {
            true => Ok(()),
            false => Err(usage("--data: hashes that no set has")),
        }
    }

    /// ceil(epochs · N / batch).
    pub fn steps(&self) -> u64 {
        (self.train.epochs * self.data.images as f64 / self.train.batch as f64).ceil() as u64
    }

    /// Epochs seen after `step` steps.
    pub fn epoch(&self, step: u64) -> f64 {
        step as f64 * self.train.batch as f64 / self.data.images as f64
    }

    /// Steps after which the run is scored: evenly spaced, the last at the end, each once.
    pub fn look_steps(&self) -> Vec<u64> {
        let (steps, looks) = (self.steps(), self.train.looks as u64);
        let at = |i| (steps as u128 * i as u128 / looks as u128) as u64;
        let mut all: Vec<u64> = (1..=looks).map(at).filter(|&s| s > 0).collect();
        all.dedup();
        all
    }

    /// Images generated at look `i`, from 0, of `looks`.
    pub fn images_at(&self, i: usize, looks: usize) -> usize {
        match self.train.growing_looks {
            true => self.train.score_images.saturating_mul(i + 1).div_ceil(looks),
            false => self.train.score_images,
        }
    }

    /// Images that the first `done` looks generate.
    pub fn images_of(&self, done: usize) -> u64 {
        let looks = self.look_steps().len();
        (0..done).fold(0, |sum: u64, i| sum.saturating_add(self.images_at(i, looks) as u64))
    }

    /// Images that all looks generate, and the rescoring of the best one.
    pub fn generated(&self) -> u64 {
        match self.look_steps().len() {
            0 => 0,
            looks => self.images_of(looks).saturating_add(self.train.rescore_images as u64),
        }
    }

    /// Name of the run under `--runs`: a hash of all that determines its numbers. Not the micro-batch,
    /// which does not.
    pub fn id(&self) -> String {
        let mut config = self.clone();
        config.train.micro_batch = 0;
        let text = serde_json::to_string(&config).expect("a configuration is JSON");
        let hash = Sha256::digest(text.as_bytes());
        hash.iter().take(8).map(|b| format!("{b:02x}")).collect()
    }

    /// What differs from `asked`, as `--flag: stored X, asked Y`; nothing if nothing does. A micro-batch of 0
    /// (auto) asks for what is stored.
    pub fn differences(&self, asked: &RunConfig) -> Vec<String> {
        let mut asked = asked.clone();
        if asked.train.micro_batch == 0 {
            asked.train.micro_batch = self.train.micro_batch;
        }
        let json = |c: &RunConfig| {
            let mut json = serde_json::to_value(c).expect("a configuration is JSON");
            // Left out where they are the paper's, but compared.
            json["train"]["ramp_epochs"] = c.train.ramp_epochs.into();
            json["train"]["growing_looks"] = c.train.growing_looks.into();
            json
        };
        let (stored, asked) = (json(self), json(&asked));
        let mut all = Vec::new();
        for (table, fields) in stored.as_object().into_iter().flatten() {
            for (key, have) in fields.as_object().into_iter().flatten() {
                let want = &asked[table][key];
                if have != want {
                    all.push(format!("{}: stored {have}, asked {want}", flag_of(table, key)));
                }
            }
        }
        all
    }
}

/// The flag that sets a field.
fn flag_of(table: &str, key: &str) -> String {
    match (table, key) {
        ("model", "model_channels") => "--channels".into(),
        ("model", "channel_mult") => "--mult".into(),
        ("model", "num_blocks") => "--blocks".into(),
        ("model", "attn_resolutions") => "--attn".into(),
        ("model", "embedding") => "--embed".into(),
        ("model", "skip_connections") => "--skips".into(),
        ("model", "label_dim") => "--cond (classes)".into(),
        ("model", "resolution" | "image_channels") | ("data", _) => format!("--data ({key})"),
        ("train", "growing_looks") => "--score-images (fewer at early looks)".into(),
        ("train", "numerics") => "--run (numerics of this version)".into(),
        _ => format!("--{}", key.replace('_', "-")),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::model::Arch;

    pub(crate) fn example() -> RunConfig {
        RunConfig {
            model: ModelConfig::basic(Arch::DdpmPP, 8, 1),
            train: TrainConfig {
                seed: 1024,
                epochs: 100.0,
                batch: 64,
                micro_batch: 16,
                lr: 2e-4,
                ramp_epochs: RAMP_EPOCHS,
                weight_decay: 0.0,
                ema_rate: None,
                precision: Precision::Fp32,
                order: Order::Shuffle,
                scrub_gradients: false,
                looks: 20,
                score_images: 100,
                growing_looks: false,
                rescore_images: 0,
                numerics: NUMERICS,
            },
            data: DataId { images: 100, sha256_pixels: "a".into(), sha256_labels: "none".into() },
        }
    }

    #[test]
    fn looks_are_evenly_spaced_and_end_with_the_run() {
        let mut c = example();
        assert_eq!(c.steps(), 157);
        let looks = c.look_steps();
        assert_eq!((looks.len(), looks[0], looks[19]), (20, 7, 157));
        c.train.epochs = 2.0;
        assert_eq!(c.look_steps(), [1, 2, 3, 4]);
        c.train.looks = 0;
        assert!(c.look_steps().is_empty());
    }

    #[test]
    fn differences_name_the_flag_and_both_values() {
        let (stored, mut asked) = (example(), example());
        assert!(stored.differences(&asked).is_empty());
        asked.train.micro_batch = 0;
        assert!(stored.differences(&asked).is_empty());
        asked.train.lr = 1e-3;
        asked.model.model_channels = 64;
        asked.train.ema_rate = Some(0.5);
        let lines = stored.differences(&asked);
        assert_eq!(
            lines,
            [
                "--channels: stored 128, asked 64",
                "--lr: stored 0.0002, asked 0.001",
                "--ema-rate: stored null, asked 0.5"
            ]
        );
    }

    /// A run's configuration and name from before the ramp was a setting.
    const OLDER: (&str, &str) = (
        r#"
[model]
arch = "ddpmpp"
precond = "edm"
resolution = 8
image_channels = 1
label_dim = 0
model_channels = 16
channel_mult = [2, 2, 2]
num_blocks = 2
attn_resolutions = [4]
embedding = "positional"
skip_connections = [1, 1, 1, 1, 1, 1, 1, 1, 1]
dropout = 0.13

[train]
seed = 1024
epochs = 1000.0
batch = 8
micro_batch = 8
lr = 0.002
weight_decay = 0.0001
ema_rate = 0.9887077323666074
precision = "fp32"
order = "fixed"
scrub_gradients = false
looks = 4
score_images = 250
rescore_images = 0
numerics = 2

[data]
images = 10
sha256_pixels = "0af657d9c077d4ac9257e96c0ceab562167494113261311eecfc0e221286cd1d"
sha256_labels = "none"
"#,
        "00082136b4c7368c",
    );

    #[test]
    fn a_run_older_than_the_ramp_keeps_its_name_and_any_other_ramp_has_its_own() {
        let paper: RunConfig = toml::from_str(OLDER.0).unwrap();
        assert_eq!((paper.train.ramp_epochs, paper.id().as_str()), (200.0, OLDER.1));
        let mut other = paper.clone();
        other.train.ramp_epochs = 5.0;
        assert_ne!(paper.id(), other.id());
        let text = toml::to_string(&paper).unwrap();
        assert!(!text.contains("ramp"), "{text}");
        assert_eq!(toml::from_str::<RunConfig>(&text).unwrap(), paper);
        assert_eq!(toml::from_str::<RunConfig>(&toml::to_string(&other).unwrap()).unwrap(), other);
        assert_eq!(paper.differences(&other), ["--ramp-epochs: stored 200.0, asked 5.0"]);
        assert_eq!(other.differences(&paper), ["--ramp-epochs: stored 5.0, asked 200.0"]);
        for (epochs, right) in [(0.0, true), (-1.0, false), (f64::NAN, false)] {
            other.train.ramp_epochs = epochs;
            assert_eq!(other.check().is_ok(), right, "{epochs}");
        }
    }

    #[test]
    fn the_name_does_not_depend_on_the_micro_batch() {
        let (a, mut b) = (example(), example());
        b.train.micro_batch = 0;
        assert_eq!(a.id(), b.id());
        b.train.seed = 1;
        assert_ne!(a.id(), b.id());
    }
}
