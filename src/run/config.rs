//! Everything that determines a run's numbers, as `config.toml` holds it.

use super::numerics::Numerics;
use crate::data::Dataset;
use crate::device::Precision;
use crate::error::usage;
use crate::model::{ModelConfig, ModelSettings, Rates, SavedModel, TrainerOptions};
use crate::numbers::{amount, count};
use crate::settings::{Choice, auto_or_count, settings};
use anyhow::Result;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
#[value(rename_all = "lower")]
pub enum Order {
    /// A new shuffle each epoch.
    Shuffle,
    /// Epoch 0's shuffle for ever, as the reference does.
    Fixed,
}

settings! {
    /// The optimizer's side of a run. Lengths of time are in epochs.
    TrainConfig, TrainSettings, first [
        seed epochs batch micro_batch lr weight_decay ema_rate precision order scrub_gradients looks score_images
        rescore_images numerics
    ];

    seed: u64 = 1024;
    epochs: f64 = 40_000.0 => epochs: f64, "Length of training", [value_name = "EPOCHS", value_parser = amount],
        within 0.0.., scaled Epochs;
    batch: usize = 512 => batch: usize, "Images per optimizer step", [value_name = "IMAGES", value_parser = count],
        within 1.0..=1_048_576.0, scaled Batch;
    /// Resolved at the run's first start and kept; 0 until then.
    micro_batch: usize = 0;
    lr: f64 = 2e-4 => lr: f64, "Learning rate after its ramp", [value_name = "RATE"], within 0.0.., scaled Lr;
    ramp_epochs: f64 = 200.0 => ramp_epochs: f64, "Epochs over which the learning rate grows from 0; 0 for none",
        [value_name = "EPOCHS", value_parser = amount], within 0.0.., scaled Ramp;
    beta2: f64 = 0.999 => beta2: f64, "Decay rate of Adam's second moment", [value_name = "B"], within 0.0..1.0;
    weight_decay: f64 = 0.0 => weight_decay: f64, "L2 weight decay, added to the gradient", [value_name = "W"],
        within 0.0..;
    ema_rate: Option<f64> = None => ema_rate: f64,
        "EMA rate per step, in place of the half-life rule [default: half-life of 10 epochs]", [value_name = "R"],
        within 0.0..1.0, scaled EmaRate;
    precision: Precision = Precision::Fp32;
    order: Order = Order::Shuffle => order: Order,
        "A new shuffle each epoch, or one for ever as the reference does", [value_enum];
    scrub_gradients: bool = false => scrub_gradients: bool,
        "Replace non-finite gradients as the reference does, instead of stopping",
        [num_args = 0, default_missing_value = "true"];
    looks: usize = 1 => looks: Choice<usize>,
        "Evenly spaced evaluations of memorization during training. auto: 20, fewer in trainings too short for them",
        [alias = "looks", value_name = "auto|N", value_parser = auto_or_count], flag "evaluations",
        within 0.0..=1_000_000.0, scaled Evaluations;
    score_images: usize = 1 => score_images: Choice<usize>,
        "Generated images per evaluation. auto: as many as keep scoring at a quarter of the run's FLOP, 100 to 1000 at the last \
         evaluation, fewer at early ones",
        [value_name = "auto|N", value_parser = auto_or_count], within 1.0..=100_000_000.0, scaled ScoreImages;
    /// Whether early evaluations have fewer images: evaluation i of n its share i/n.
    growing_looks: bool = false;
    rescore_images: usize = 0 => rescore_images: Choice<usize>,
        "Fresh images that score the best evaluation again, unless it shows no copy; 0 for never. auto: what that quarter leaves, \
         200 to 10000",
        [value_name = "auto|N", value_parser = auto_or_count], within 0.0..=100_000_000.0, scaled ScoreImages;
    /// The first so many evaluations are left out: the run began with the state of a shorter one, which had others.
    left_out: usize = 0;
    numerics: Numerics = Numerics::default();
}

impl TrainConfig {
    /// What steps are given, where it doesn't change from one to the next.
    pub fn rates(&self) -> Rates {
        let TrainConfig { lr, beta2, weight_decay, .. } = *self;
        Rates { beta2, weight_decay, ..Rates::new(0, lr, 0.0) }
    }

    /// What fixes a trainer beside the network.
    pub fn trainer_options(&self) -> TrainerOptions {
        TrainerOptions {
            seed: self.seed,
            batch: self.batch,
            micro_batch: self.micro_batch,
            shuffle: self.order == Order::Shuffle,
            scrub_gradients: self.scrub_gradients,
            precision: self.precision,
        }
    }
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

    /// Of the set that a network was trained on, if its file says so.
    pub fn of_model(model: &SavedModel) -> Option<Self> {
        DataId::deserialize(&model.run.as_ref()?["config"]["data"]).ok()
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
            return Err(usage("--score-images: 0; to train without scoring give --evaluations 0"));
        }
        if !(1..=u32::MAX as usize).contains(&self.data.images) {
            let (images, most) = (self.data.images, u32::MAX);
            return Err(usage(format!("--size: {images}, expected 1 to {most}")));
        }
        t.check_bounds()?;
        if t.epochs == 0.0 {
            return Err(usage("--epochs: 0, at least a part of one is needed"));
        }
        if self.data.images < 2 && t.looks > 0 {
            return Err(usage(
                "--data: holds 1 image; nearest and second nearest need 2 (or --evaluations 0)",
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
        let (left_out, all) = (self.train.left_out, self.schedule().len());
        if left_out > 0 && left_out >= all {
            return Err(usage(format!("left_out: {left_out} of {all} evaluations")));
        }
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

    /// Steps after which the run is scored.
    pub fn evaluation_steps(&self) -> Vec<u64> {
        self.schedule().split_off(self.train.left_out.min(self.schedule().len()))
    }

    /// Steps of all evaluations: evenly spaced, the last at the end, each once.
    pub(super) fn schedule(&self) -> Vec<u64> {
        let (steps, evaluations) = (self.steps(), self.train.looks as u64);
        let at = |i| (steps as u128 * i as u128 / evaluations as u128) as u64;
        let mut all: Vec<u64> = (1..=evaluations).map(at).filter(|&s| s > 0).collect();
        all.dedup();
        all
    }

    /// Images generated at evaluation `i`, from 0, of the `evaluations` that are not left out.
    pub fn images_at(&self, i: usize, evaluations: usize) -> usize {
        let left_out = self.train.left_out;
        let (nth, all) = (left_out + i + 1, left_out + evaluations);
        match self.train.growing_looks {
            true => self.train.score_images.saturating_mul(nth).div_ceil(all),
            false => self.train.score_images,
        }
    }

    /// Images that the first `done` evaluations generate.
    pub fn images_of(&self, done: usize) -> u64 {
        let evaluations = self.evaluation_steps().len();
        (0..done).fold(0, |sum: u64, i| sum.saturating_add(self.images_at(i, evaluations) as u64))
    }

    /// Images that all evaluations generate, and the rescoring of the best one.
    pub fn generated(&self) -> u64 {
        match self.evaluation_steps().len() {
            0 => 0,
            evaluations => {
                self.images_of(evaluations).saturating_add(self.train.rescore_images as u64)
            }
        }
    }

    /// Name of the run under `--runs`: a hash of all that determines its numbers, not of the micro-batch, the version's
    /// numerics and whether it began as a shorter run. A setting that is younger than the first runs is a part of it only where it isn't its default, so that a
    /// new one renames no run.
    pub fn id(&self) -> String {
        let fields = |train: &TrainConfig| match serde_json::to_value(train) {
            Ok(Value::Object(fields)) => fields,
            _ => panic!("a configuration is an object"),
        };
        let defaults = fields(&TrainConfig::default());
        let mut train = fields(&self.train);
        train.retain(|key, value| {
            TrainConfig::FIRST.contains(&key.as_str()) || *value != defaults[key]
        });
        train.remove("left_out");
        train["micro_batch"] = 0.into();
        train["numerics"] = 2.into();
        let named = json!({"model": self.model, "train": train, "data": self.data});
        let hash = Sha256::digest(named.to_string().as_bytes());
        hash.iter().take(8).map(|b| format!("{b:02x}")).collect()
    }

    /// What differs from `asked`, as `--lr: stored X, asked Y`; nothing if nothing does. A micro-batch of 0
    /// (auto) asks for what is stored, numerics are compared by [`Numerics::resume`], and evaluations that are left out are nobody's
    /// to ask for.
    pub fn differences(&self, asked: &RunConfig) -> Vec<String> {
        let mut asked = asked.clone();
        (asked.train.numerics, asked.train.left_out) = (self.train.numerics, self.train.left_out);
        if asked.train.micro_batch == 0 {
            asked.train.micro_batch = self.train.micro_batch;
        }
        let json = |c: &RunConfig| serde_json::to_value(c).expect("a configuration is JSON");
        let (stored, asked) = (json(self), json(&asked));
        let mut all = Vec::new();
        for (table, fields) in stored.as_object().into_iter().flatten() {
            for (key, have) in fields.as_object().into_iter().flatten() {
                let want = &asked[table][key];
                if have != want {
                    all.push(format!("{}: stored {have}, asked {want}", flag_of(key)));
                }
            }
        }
        all
    }
}

/// The flag that sets a field.
fn flag_of(field: &str) -> String {
    let all = ModelSettings::SETTINGS.iter().chain(TrainSettings::SETTINGS);
    match (all.clone().find(|s| s.field == field), field) {
        (Some(setting), _) => setting.flag(),
        (None, "label_dim") => "--cond (classes)".into(),
        (None, "seed" | "precision" | "micro_batch") => format!("--{}", field.replace('_', "-")),
        (None, "growing_looks") => "--score-images (fewer at early evaluations)".into(),
        (None, of_the_set) => format!("--data ({of_the_set})"),
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
                epochs: 100.0,
                batch: 64,
                micro_batch: 16,
                looks: 20,
                score_images: 100,
                ..TrainConfig::default()
            },
            data: DataId { images: 100, sha256_pixels: "a".into(), sha256_labels: "none".into() },
        }
    }

    #[test]
    fn evaluations_are_evenly_spaced_and_end_with_the_run() {
        let mut c = example();
        assert_eq!(c.steps(), 157);
        let evaluations = c.evaluation_steps();
        assert_eq!((evaluations.len(), evaluations[0], evaluations[19]), (20, 7, 157));
        c.train.epochs = 2.0;
        assert_eq!(c.evaluation_steps(), [1, 2, 3, 4]);
        c.train.looks = 0;
        assert!(c.evaluation_steps().is_empty());
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
        assert_eq!(toml::from_str::<RunConfig>(&toml::to_string(&paper).unwrap()).unwrap(), paper);
        assert_eq!(toml::from_str::<RunConfig>(&toml::to_string(&other).unwrap()).unwrap(), other);
        assert_eq!(paper.differences(&other), ["--ramp-epochs: stored 200.0, asked 5.0"]);
        assert_eq!(other.differences(&paper), ["--ramp-epochs: stored 5.0, asked 200.0"]);
        let second = |beta2| {
            let train = TrainConfig { beta2, ..paper.train.clone() };
            RunConfig { train, ..paper.clone() }.id()
        };
        assert_eq!((second(0.999).as_str(), second(0.99) != second(0.999)), (OLDER.1, true));
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
