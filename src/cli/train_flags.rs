//! The flags that say what to train: shared by `train`, `plan` and `find`.

use super::{Common, check_folder, open_set};
use crate::data::Dataset;
use crate::device::params::ROUNDED_IMAGES;
use crate::error::usage;
use crate::numbers::{amount, count, switch};
use crate::run::scoring::Scoring;
use crate::run::{DataId, ImageShape, Precision, RunConfig, RunOptions, RunSettings, SaveEvery};
use crate::study::presets;
use anyhow::Result;
use std::path::PathBuf;

/// Epochs of 50,000 images in a million: `--duration` is counted so.
const EPOCHS_PER_MIMG: f64 = 20.0;

/// The images that a cost is asked for: a set, or its shape.
#[derive(clap::Args, Debug, Clone)]
pub struct ImageFlags {
    /// Set to train on, in any form that `emm data import` reads; without it images are described by the flags below
    #[arg(long, value_name = "SET")]
    pub data: Option<PathBuf>,
    /// Pixels along a side
    #[arg(long, value_name = "R", value_parser = count, default_value = "32", conflicts_with = "data")]
    pub resolution: usize,
    /// 1 or 3
    #[arg(long, value_name = "C", value_parser = count, default_value = "3", conflicts_with = "data")]
    pub image_channels: usize,
    /// Number of classes; 0 is unconditional
    #[arg(long, value_name = "N", value_parser = count, default_value = "0", conflicts_with = "data")]
    pub label_dim: usize,
    /// Images in the set
    #[arg(long, value_name = "N", value_parser = count, default_value = "1k", conflicts_with = "data")]
    pub size: usize,
}

/// What determines a run's numbers beside its set
#[derive(clap::Args, Debug, Clone)]
#[command(next_help_heading = "Training")]
pub struct TrainFlags {
    /// Settings of one of the paper's experiments; flags beside it win
    #[arg(long, value_name = "NAME", value_parser = presets::names())]
    pub preset: Option<String>,
    /// Train on the set's labels (true|false|1|0) [default: false]
    #[arg(long, value_name = "BOOL", value_parser = switch, num_args = 0..=1, default_missing_value = "true")]
    pub cond: Option<bool>,
    #[command(flatten)]
    pub settings: RunSettings,
    /// Length in millions of images at 50,000 images: 20 epochs each
    #[arg(long, value_name = "MIMG", value_parser = amount, conflicts_with = "epochs")]
    pub duration: Option<f64>,
    /// Images computed at a time, rounded up to a multiple of 8: less memory, the same numbers. auto: 32 on the CPU, on
    /// a GPU as many as fit; kept from the run's first start on
    #[arg(long, value_name = "auto|IMAGES", default_value = "auto")]
    pub micro_batch: String,
    /// auto is bf16 on CUDA devices, fp32 on the CPU
    #[arg(long, value_name = "auto|bf16|tf32|fp32", default_value = "auto")]
    pub precision: String,
}

impl TrainFlags {
    /// The run that these flags ask for on this set, and the set as that run sees it: an unconditional run
    /// does not look at labels.
    ///
    /// # Errors
    /// Usage errors that begin with the flag.
    pub fn resolve(&self, common: &Common, data: &mut Dataset) -> Result<RunConfig> {
        if self.cond != Some(true) {
            data.labels = None;
        }
        let shape = ImageShape::of(data);
        let config = self.resolve_shape(common, shape)?;
        Ok(RunConfig { data: DataId::of(data), ..config })
    }

    /// The run that these flags ask for on a set, or on images of a shape, which are conditional if they
    /// have labels.
    pub fn resolve_images(&self, common: &Common, images: &ImageFlags) -> Result<RunConfig> {
        if let Some(path) = &images.data {
            return self.resolve(common, &mut open_set(path, common)?);
        }
        let shape = ImageShape {
            images: images.size,
            resolution: images.resolution,
            channels: images.image_channels,
            label_dim: images.label_dim,
        };
        let cond = self.cond.or(Some(images.label_dim > 0));
        TrainFlags { cond, ..self.clone() }.resolve_shape(common, shape)
    }

    /// The run that these flags ask for on images of this shape, with an unnamed set.
    pub fn resolve_shape(&self, common: &Common, shape: ImageShape) -> Result<RunConfig> {
        let label_dim = match (self.cond, shape.label_dim) {
            (Some(true), 0) => return Err(usage("--cond: the set has no labels")),
            (Some(true), classes) => classes,
            _ => 0,
        };
        let settings = self.settings();
        let micro_batch = self.micro_batch(settings.training.config().batch)?;
        let precision = precision(&self.precision, common)?;
        settings.resolve(ImageShape { label_dim, ..shape }, |_, train| {
            (train.seed, train.micro_batch, train.precision) =
                (common.seed, micro_batch, precision);
        })
    }

    /// These flags, over the preset's settings.
    fn settings(&self) -> RunSettings {
        let mut given = self.settings.clone();
        if let Some(duration) = self.duration {
            given.training.epochs = Some(duration * EPOCHS_PER_MIMG);
        }
        let Some(preset) = self.preset.as_deref().and_then(presets::preset) else { return given };
        let mut preset = preset.clone();
        let arch = |settings: &RunSettings| settings.network.config().arch;
        if given.network.arch.is_some() && arch(&given) != arch(&preset) {
            // Another family has its own.
            preset.network.precond = None;
        }
        given.over(&preset)
    }

    /// What these flags and the preset say of the evaluations of a run that they have become.
    pub fn scoring(&self, config: &RunConfig) -> Scoring {
        self.settings().scoring(&config.train)
    }

    /// The length of training, if flags or the preset say it.
    pub fn given_epochs(&self) -> Option<f64> {
        self.settings().training.epochs
    }

    /// 0 is auto.
    fn micro_batch(&self, batch: usize) -> Result<usize> {
        match (self.micro_batch.as_str(), count(&self.micro_batch)) {
            ("auto", _) => Ok(0),
            (_, Ok(n)) if (1..=batch.max(1)).contains(&n) => {
                Ok(n.next_multiple_of(ROUNDED_IMAGES).min(batch))
            }
            (text, _) => Err(usage(format!(
                "--micro-batch: {text} is neither auto nor 1..{batch} (--batch)"
            ))),
        }
    }
}

/// The precision that `--precision` names on this device.
///
/// # Errors
/// Usage: none of them, or one that the device does not compute in.
pub fn precision(flag: &str, common: &Common) -> Result<Precision> {
    match flag {
        "auto" if common.on_gpu() => Ok(Precision::Bf16),
        "auto" | "fp32" => Ok(Precision::Fp32),
        "bf16" => Ok(Precision::Bf16),
        "tf32" if common.on_gpu() => Ok(Precision::Tf32),
        "tf32" => Err(no_tf32()),
        p => Err(usage(format!("--precision: {p:?} is none of auto, bf16, tf32, fp32"))),
    }
}

/// Why the CPU device refuses tf32.
pub fn no_tf32() -> anyhow::Error {
    usage("--precision: tf32 is for CUDA devices, the CPU device computes fp32 or bf16")
}

/// Which snapshots stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Keep {
    /// Of the best evaluation and of the last.
    #[value(name = "best,last")]
    BestLast,
    All,
}

/// Flags of a run that do not change its numbers.
#[derive(clap::Args, Debug, Clone)]
#[command(next_help_heading = "Run")]
pub struct RunFlags {
    /// Snapshots that stay
    #[arg(long, value_enum, default_value = "best,last")]
    pub keep: Keep,
    /// How often the state is saved: after steps, or seconds with an s
    #[arg(long, value_name = "STEPS|30s", default_value = "30s", value_parser = save_every)]
    pub save_every: SaveEvery,
    /// Folder of runs named by what determines their numbers
    #[arg(long, value_name = "DIR", default_value = "runs")]
    pub runs: PathBuf,
    /// Write loss, img/s, ratios and samples of every evaluation for TensorBoard, by step, into a folder for each run below
    /// this one; a write that fails is said and ends no training
    #[arg(long, value_name = "DIR")]
    pub tensorboard: Option<PathBuf>,
}

impl RunFlags {
    /// What of a run leaves its numbers alone; `data` is the set's name in messages.
    ///
    /// # Errors
    /// As [`check_folder`], of --tensorboard.
    pub fn options(&self, common: &Common, data: &std::path::Path) -> Result<RunOptions> {
        self.tensorboard.iter().try_for_each(|dir| check_folder("--tensorboard", dir))?;
        Ok(RunOptions {
            keep_all_snapshots: self.keep == Keep::All,
            save_every: self.save_every,
            stop_after_steps: None,
            stop_above: None,
            holdout: None,
            quiet: common.quiet,
            data_name: data.display().to_string(),
            tensorboard: self.tensorboard.clone(),
        })
    }
}

fn save_every(text: &str) -> Result<SaveEvery, String> {
    let wrong = || format!("{text:?} is neither a number of steps nor seconds such as 30s");
    let parsed = match text.strip_suffix('s') {
        Some(seconds) => SaveEvery::Seconds(amount(seconds).map_err(|_| wrong())?),
        None => SaveEvery::Steps(count(text).map_err(|_| wrong())? as u64),
    };
    match parsed {
        SaveEvery::Steps(0) => Err(wrong()),
        other => Ok(other),
    }
}
