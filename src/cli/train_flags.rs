//! The flags that say what to train: shared by `train`, `plan` and `find`.

use super::Common;
use super::numbers::{Auto, amount, auto_or_count, count, switch};
use crate::data::Dataset;
use crate::device::params::ROUNDED_IMAGES;
use crate::error::usage;
use crate::model::{Arch, Embedding, ModelConfig, Precond};
use crate::run::config::{NUMERICS, RAMP_EPOCHS};
use crate::run::scoring::Scoring;
use crate::run::{DataId, Order, Precision, RunConfig, RunOptions, SaveEvery, TrainConfig};
use crate::study::Shape;
use crate::study::presets::{DEFAULT, PRESETS, preset};
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

#[derive(clap::Args, Debug, Clone)]
#[command(next_help_heading = "Training")]
pub struct TrainFlags {
    /// Settings of one of the paper's experiments; flags beside it win
    #[arg(long, value_name = "NAME", value_parser = PRESETS.map(|p| p.name).to_vec())]
    pub preset: Option<String>,
    /// Network family [default: ddpmpp]
    #[arg(long, value_enum)]
    pub arch: Option<Arch>,
    /// Preconditioning, noise levels and loss weight [default: vp for ddpmpp, ve for ncsnpp]
    #[arg(long, value_enum)]
    pub precond: Option<Precond>,
    /// Train on the set's labels (true|false|1|0) [default: false]
    #[arg(long, value_name = "BOOL", value_parser = switch, num_args = 0..=1, default_missing_value = "true")]
    pub cond: Option<bool>,
    /// Width of the network [default: 128]
    #[arg(long, alias = "num-channels", value_name = "C", value_parser = count)]
    pub channels: Option<usize>,
    /// Width of each level over --channels, finest first
    #[arg(long, value_name = "M,M,...", value_delimiter = ',', default_value = "2,2,2")]
    pub mult: Vec<usize>,
    /// Residual blocks per level [default: 2]
    #[arg(long, alias = "num-blocks", value_name = "N", value_parser = count)]
    pub blocks: Option<usize>,
    /// Resolutions with attention: auto is half the images' resolution
    #[arg(
        long,
        alias = "attn-resolutions",
        value_name = "auto|none|R,R,...",
        default_value = "auto"
    )]
    pub attn: String,
    /// Noise embedding: auto is positional for ddpmpp, fourier for ncsnpp
    #[arg(long, value_name = "auto|positional|fourier", default_value = "auto")]
    pub embed: String,
    /// One 0 or 1 per skip connection in encoder order, blocks + 1 per level [default: all 1]
    #[arg(long, alias = "skip-connections", value_name = "1,0,...", value_delimiter = ',')]
    pub skips: Option<Vec<u8>>,
    /// Dropout probability
    #[arg(long, value_name = "P", default_value_t = 0.13)]
    pub dropout: f64,

    /// Length of training [default: 40k]
    #[arg(long, value_name = "EPOCHS", value_parser = amount)]
    pub epochs: Option<f64>,
    /// Length in millions of images at 50,000 images: 20 epochs each
    #[arg(long, value_name = "MIMG", value_parser = amount, conflicts_with = "epochs")]
    pub duration: Option<f64>,
    /// Images per optimizer step
    #[arg(long, value_name = "IMAGES", value_parser = count, default_value = "512")]
    pub batch: usize,
    /// Images computed at a time, rounded up to a multiple of 8: less memory, the same numbers. auto: 32 on the CPU, on
    /// a card as many as fit; kept from the run's first start on
    #[arg(long, value_name = "auto|IMAGES", default_value = "auto")]
    pub micro_batch: String,
    /// Learning rate after its ramp [default: 2e-4]
    #[arg(long, value_name = "RATE")]
    pub lr: Option<f64>,
    /// Epochs over which the learning rate grows from 0; 0 for none
    #[arg(long, value_name = "EPOCHS", value_parser = amount, default_value_t = RAMP_EPOCHS)]
    pub ramp_epochs: f64,
    /// L2 weight decay, added to the gradient
    #[arg(long, value_name = "W", default_value_t = 0.0)]
    pub weight_decay: f64,
    /// EMA rate per step, in place of the half-life rule [default: half-life of 10 epochs]
    #[arg(long, value_name = "R")]
    pub ema_rate: Option<f64>,
    /// auto is bf16 on CUDA devices, fp32 on the CPU
    #[arg(long, value_name = "auto|bf16|tf32|fp32", default_value = "auto")]
    pub precision: String,
    /// A new shuffle each epoch, or one for ever as the reference does [default: shuffle]
    #[arg(long, value_enum)]
    pub order: Option<Order>,
    /// Replace non-finite gradients as the reference does, instead of stopping
    #[arg(long)]
    pub scrub_gradients: bool,

    /// Evenly spaced scorings during training. auto: 20, fewer in trainings too short for them
    #[arg(long, value_name = "auto|N", value_parser = auto_or_count)]
    pub looks: Option<Auto>,
    /// Generated images per look. auto: as many as keep scoring at a quarter of the run's FLOP, 100 to 1000 at the last
    /// look, fewer at early ones
    #[arg(long, value_name = "auto|N", value_parser = auto_or_count)]
    pub score_images: Option<Auto>,
    /// Fresh images that score the best look again, unless it shows no copy; 0 for never. auto: what that quarter leaves,
    /// 200 to 10000
    #[arg(long, value_name = "auto|N", value_parser = auto_or_count)]
    pub rescore_images: Option<Auto>,
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
        let shape = Shape::of(data);
        let config = self.resolve_shape(common, shape)?;
        Ok(RunConfig { data: DataId::of(data), ..config })
    }

    /// The run that these flags ask for on a set, or on images of a shape, which are conditional if they
    /// have labels.
    pub fn resolve_images(&self, common: &Common, images: &ImageFlags) -> Result<RunConfig> {
        if let Some(path) = &images.data {
            return self.resolve(common, &mut Dataset::open(path)?);
        }
        let shape = Shape {
            images: images.size,
            resolution: images.resolution,
            channels: images.image_channels,
            label_dim: images.label_dim,
        };
        let cond = self.cond.or(Some(images.label_dim > 0));
        TrainFlags { cond, ..self.clone() }.resolve_shape(common, shape)
    }

    /// The run that these flags ask for on images of this shape, with an unnamed set.
    pub fn resolve_shape(&self, common: &Common, shape: Shape) -> Result<RunConfig> {
        let mut config = RunConfig {
            model: self.model(shape)?,
            train: self.train(common)?,
            data: DataId {
                images: shape.images,
                sha256_pixels: String::new(),
                sha256_labels: String::new(),
            },
        };
        config.check()?;
        self.scoring().settle(&mut config);
        config.check()?;
        Ok(config)
    }

    /// What these flags and the preset say of looks.
    pub fn scoring(&self) -> Scoring {
        let base = self.base().scoring;
        let either = |flag: Option<Auto>, base| flag.map_or(base, |Auto(said)| said);
        Scoring {
            looks: either(self.looks, base.looks),
            score_images: either(self.score_images, base.score_images),
            rescore_images: either(self.rescore_images, base.rescore_images),
        }
    }

    fn base(&self) -> crate::study::presets::Preset {
        let named = self.preset.as_deref().and_then(preset);
        let mut base = *named.unwrap_or(&DEFAULT);
        if let Some(arch) = self.arch
            && arch != base.arch
        {
            base.arch = arch;
            base.precond = if arch == Arch::NcsnPP { Precond::Ve } else { Precond::Vp };
        }
        base
    }

    fn model(&self, shape: Shape) -> Result<ModelConfig> {
        let base = self.base();
        let conditional = self.cond == Some(true);
        if conditional && shape.label_dim == 0 {
            return Err(usage("--cond: the set has no labels"));
        }
        let fourier_by_default = base.arch == Arch::NcsnPP;
        let embedding = match self.embed.as_str() {
            "auto" if fourier_by_default => Embedding::Fourier,
            "auto" | "positional" => Embedding::Positional,
            "fourier" => Embedding::Fourier,
            e => {
                return Err(usage(format!("--embed: {e:?} is none of auto, positional, fourier")));
            }
        };
        let mut model = ModelConfig {
            arch: base.arch,
            precond: self.precond.unwrap_or(base.precond),
            resolution: shape.resolution,
            image_channels: shape.channels,
            label_dim: if conditional { shape.label_dim } else { 0 },
            model_channels: self.channels.unwrap_or(128),
            channel_mult: self.mult.clone(),
            num_blocks: self.blocks.unwrap_or(base.num_blocks),
            attn_resolutions: self.attention(shape.resolution)?,
            embedding,
            skip_connections: Vec::new(),
            dropout: self.dropout,
        };
        model.check_sizes()?;
        model.skip_connections = self.skips.clone().unwrap_or_else(|| vec![1; model.num_skips()]);
        model.check()?;
        Ok(model)
    }

    fn attention(&self, resolution: usize) -> Result<Vec<usize>> {
        match self.attn.as_str() {
            "auto" if self.mult.len() < 2 => Ok(Vec::new()),
            "auto" => Ok(vec![resolution / 2]),
            "none" => Ok(Vec::new()),
            list => {
                let wrong = |part: &str| {
                    usage(format!("--attn: {part:?} is none of auto, none, a resolution"))
                };
                let all: Result<Vec<usize>> =
                    list.split(',').map(|p| p.trim().parse().map_err(|_| wrong(p))).collect();
                let mut all = all?;
                all.sort_unstable_by(|a, b| b.cmp(a));
                all.dedup();
                Ok(all)
            }
        }
    }

    fn train(&self, common: &Common) -> Result<TrainConfig> {
        let base = self.base();
        let epochs =
            self.duration.map(|d| d * EPOCHS_PER_MIMG).or(self.epochs).unwrap_or(base.epochs);
        let micro_batch = match self.micro_batch.as_str() {
            "auto" => 0,
            text => match count(text) {
                Ok(n) if (1..=self.batch.max(1)).contains(&n) => {
                    n.next_multiple_of(ROUNDED_IMAGES).min(self.batch)
                }
                _ => {
                    return Err(usage(format!(
                        "--micro-batch: {text} is neither auto nor 1..{} (--batch)",
                        self.batch
                    )));
                }
            },
        };
        Ok(TrainConfig {
            seed: common.seed,
            epochs,
            batch: self.batch,
            micro_batch,
            lr: self.lr.unwrap_or(base.lr),
            ramp_epochs: self.ramp_epochs,
            weight_decay: self.weight_decay,
            ema_rate: self.ema_rate,
            precision: precision(&self.precision, common)?,
            order: self.order.unwrap_or(base.order),
            scrub_gradients: self.scrub_gradients,
            // Settled once the run's length is known.
            looks: 1,
            score_images: 1,
            growing_looks: false,
            rescore_images: 0,
            numerics: NUMERICS,
        })
    }
}

/// The precision that `--precision` names on this device.
///
/// # Errors
/// Usage: none of them, or one that the device does not compute in.
pub fn precision(flag: &str, common: &Common) -> Result<Precision> {
    match flag {
        "auto" if common.on_card() => Ok(Precision::Bf16),
        "auto" | "fp32" => Ok(Precision::Fp32),
        "bf16" => Ok(Precision::Bf16),
        "tf32" if common.on_card() => Ok(Precision::Tf32),
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
    /// Of the best look and of the last.
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
    pub runs: std::path::PathBuf,
}

impl RunFlags {
    pub fn options(&self, common: &Common, data: &std::path::Path) -> RunOptions {
        RunOptions {
            keep_all_snapshots: self.keep == Keep::All,
            save_every: self.save_every,
            stop_after_steps: None,
            quiet: common.quiet,
            data_name: data.display().to_string(),
        }
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
