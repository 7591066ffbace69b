//! What one cell of a study asks for, as a TOML file states it, and the run that it becomes at a scale.

use super::names::unknown;
use super::presets::{DEFAULT, LOOKS, SCORE_IMAGES};
use super::scale::Scale;
use crate::data::Dataset;
use crate::data::subset::{Blend, Labels, Subset, shuffle};
use crate::error::usage;
use crate::model::{Arch, Embedding, ModelConfig, Precond};
use crate::run::config::{NUMERICS, RAMP_EPOCHS};
use crate::run::{DataId, Order, Precision, RunConfig, TrainConfig};
use anyhow::Result;
use serde::Deserialize;

/// The reference's `random.seed` of random labels.
const LABEL_SEED: u64 = 1024;

/// Fields of [`Settings`], each a key of study files.
macro_rules! settings {
    ($($(#[$doc:meta])* $key:ident: $type:ty,)*) => {
        /// Settings over the paper's basic setup, at the paper's scale; `None` is the basic setup's.
        #[derive(Debug, Clone, PartialEq, Default, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct Settings { $($(#[$doc])* pub $key: Option<$type>,)* }

        /// Every key.
        pub const KEYS: &[&str] = &[$(stringify!($key),)*];
    };
}

settings! {
    /// Training images, balanced by class.
    size: usize,
    /// Pixels along a side where the set has 32: 16 is half of the set's own.
    resolution: usize,
    /// Only the first so many classes.
    classes: usize,
    /// Only this class.
    class: u32,
    /// Share of the images that a second set (`--blend`) gives.
    blend: f64,
    /// none (unconditional), true, unique, random:C.
    labels: String,

    arch: Arch,
    precond: Precond,
    /// Width.
    channels: usize,
    mult: Vec<usize>,
    /// Residual blocks per level.
    blocks: usize,
    embedding: Embedding,
    /// One 0 or 1 per skip connection in encoder order.
    skips: Vec<u8>,
    /// So many skips, drawn at random: draw number `draw`.
    random_skips: usize,
    draw: u64,
    dropout: f64,

    epochs: f64,
    batch: usize,
    lr: f64,
    /// Epochs over which the learning rate grows.
    ramp_epochs: f64,
    weight_decay: f64,
    ema_rate: f64,
    /// Replace non-finite gradients as the reference does.
    scrub_gradients: bool,
    /// Evenly spaced scorings.
    looks: usize,
    /// Generated images per look.
    score_images: usize,
    /// Fresh images that score the best look again.
    rescore_images: usize,
}

/// Settings as written: tables of keys, put over one another.
pub type Overrides = toml::Table;

impl Settings {
    /// Reads written settings; `what` says where they stand.
    ///
    /// # Errors
    /// Usage that begins with `what`: an unknown key, with the nearest known one; a value of another type.
    pub fn read(written: &Overrides, what: &str) -> Result<Settings> {
        if let Some(key) = written.keys().find(|k| !KEYS.contains(&k.as_str())) {
            let unknown = unknown("key", key, KEYS.iter().copied());
            return Err(usage(format!("{what}: {unknown}")));
        }
        for (key, value) in written {
            let one = Overrides::from_iter([(key.clone(), value.clone())]);
            one.try_into::<Settings>()
                .map_err(|e| usage(format!("{what}: {key} = {value}: {}", e.message())))?;
        }
        let settings: Settings = written
            .clone()
            .try_into()
            .map_err(|e: toml::de::Error| usage(format!("{what}: {}", e.message())))?;
        if let Some(text) = &settings.labels {
            text.parse::<Labels>().map_err(|e| usage(format!("{what}: labels: {e}")))?;
        }
        // A scale makes at least one of anything, so that a 0 would pass unseen.
        let counts = [
            ("size", settings.size),
            ("batch", settings.batch),
            ("channels", settings.channels),
            ("looks", settings.looks),
            ("score_images", settings.score_images),
        ];
        if let Some((key, _)) = counts.iter().find(|(_, n)| *n == Some(0)) {
            return Err(usage(format!("{what}: {key}: 0, expected at least 1")));
        }
        if settings.random_skips.is_some() && settings.skips.is_some() {
            return Err(usage(format!("{what}: skips and random_skips exclude each other")));
        }
        Ok(settings)
    }

    /// Which images, at a scale. `full`: the set's resolution and number of classes.
    pub fn recipe(&self, scale: &Scale, full: (usize, usize)) -> Recipe {
        let resolution = scale.resolution(full.0, self.resolution.unwrap_or(32));
        let labels = self.labels.as_deref().and_then(|l| l.parse().ok()).unwrap_or(Labels::None);
        Recipe {
            size: scale.size(self.size.unwrap_or(1000)),
            // Of all classes and of the whole set are one recipe.
            classes: self.classes.filter(|&classes| classes != full.1),
            class: self.class,
            blend: self.blend.unwrap_or(0.0),
            labels: scale.labels(labels),
            resolution: (resolution != full.0).then_some(resolution),
        }
    }

    /// Why fewer images than classes are no such cell. Samples are drawn of every class: those of a class without images
    /// would be of a label that was never trained. `found`: the set's classes.
    pub fn too_few(&self, recipe: &Recipe, found: usize) -> Option<String> {
        let (classes, kind) = match recipe.labels {
            Labels::Random(classes) | Labels::Dealt(classes) => {
                (classes as usize, "random classes")
            }
            Labels::Keep | Labels::True if self.class.is_none() => {
                (self.classes.unwrap_or(found), "classes")
            }
            _ => (self.classes.unwrap_or(0), "classes"),
        };
        let size = recipe.size;
        let said = || format!("{size} images are not one for each of {classes} {kind}");
        (size < classes).then(said)
    }

    /// The run at a scale on images of this shape, its set unnamed.
    ///
    /// # Errors
    /// Usage: what cannot be built of images of this shape.
    pub fn config(
        &self,
        scale: &Scale,
        shape: Shape,
        seed: u64,
        precision: Precision,
    ) -> Result<RunConfig> {
        let basic =
            ModelConfig::basic(self.arch.unwrap_or(DEFAULT.arch), shape.resolution, shape.channels);
        let mult = self.mult.clone().unwrap_or(basic.channel_mult.clone());
        let mut model = ModelConfig {
            precond: scale.precond(self.precond.unwrap_or(basic.precond)),
            label_dim: shape.label_dim,
            model_channels: scale.channels(self.channels.unwrap_or(basic.model_channels)),
            num_blocks: self.blocks.unwrap_or(basic.num_blocks),
            attn_resolutions: if mult.len() < 2 { vec![] } else { vec![shape.resolution / 2] },
            channel_mult: mult,
            embedding: self.embedding.unwrap_or(basic.embedding),
            skip_connections: Vec::new(),
            dropout: self.dropout.unwrap_or(basic.dropout),
            ..basic
        };
        model.check_sizes()?;
        model.skip_connections = self.skips(model.num_skips())?;
        model.check()?;
        let epochs = self.epochs.unwrap_or(DEFAULT.epochs) * scale.epochs;
        let train = TrainConfig {
            seed,
            epochs,
            batch: scale.batch(self.batch.unwrap_or(512)),
            micro_batch: 0,
            lr: scale.lr(self.lr.unwrap_or(DEFAULT.lr)),
            ramp_epochs: self.ramp_epochs.unwrap_or(RAMP_EPOCHS) * scale.ramp,
            weight_decay: self.weight_decay.unwrap_or(0.0),
            ema_rate: scale.ema_rate(self.ema_rate),
            precision,
            // As the `paper-*` presets.
            order: Order::Fixed,
            scrub_gradients: self.scrub_gradients.unwrap_or(false),
            looks: scale.looks(self.looks.unwrap_or(LOOKS)),
            score_images: scale.score_images(self.score_images.unwrap_or(SCORE_IMAGES)),
            growing_looks: false,
            rescore_images: match self.rescore_images {
                None | Some(0) => 0,
                Some(images) => scale.score_images(images),
            },
            numerics: NUMERICS,
        };
        let data = DataId {
            images: shape.images,
            sha256_pixels: String::new(),
            sha256_labels: String::new(),
        };
        let config = RunConfig { model, train, data };
        config.check()?;
        Ok(config)
    }

    /// The mask of a network with so many skips.
    fn skips(&self, count: usize) -> Result<Vec<u8>> {
        let Some(kept) = self.random_skips else {
            return Ok(self.skips.clone().unwrap_or_else(|| vec![1; count]));
        };
        if kept > count {
            return Err(usage(format!("random_skips: {kept}, the network has {count} skips")));
        }
        drawn_skips(count, kept, self.draw.unwrap_or(0))
    }
}

/// Draws of so many skips that a network is asked for: each is compared with all before it.
const MAX_DRAWS: u64 = 1000;

/// Draw number `draw` of `kept` skips out of `count`: a mask that no draw of a lower number has.
///
/// # Errors
/// Usage: more draws than there are choices, or than [`MAX_DRAWS`].
fn drawn_skips(count: usize, kept: usize, draw: u64) -> Result<Vec<u8>> {
    let choices = (0..kept as u128)
        .try_fold(1u128, |c, i| c.checked_mul(count as u128 - i).map(|c| c / (i + 1)));
    let most = choices.map_or(MAX_DRAWS, |c| c.min(MAX_DRAWS as u128) as u64);
    if draw >= most {
        return Err(usage(format!(
            "draw: {draw}, expected 0 to {}: {kept} of {count} skips have {most} draws that differ",
            most - 1
        )));
    }
    let mask = |seed: u64| {
        let mut order: Vec<usize> = (0..count).collect();
        shuffle(&mut order, (kept as u64) << 32 | seed);
        let mut mask = vec![0; count];
        order[..kept].iter().for_each(|&skip| mask[skip] = 1);
        mask
    };
    let mut drawn: Vec<Vec<u8>> = Vec::new();
    for draw in 0..=draw {
        // Drawn again, with seeds that no other draw has, where it has been drawn before.
        let mut again = (0..).map(|again| mask(draw + again * MAX_DRAWS));
        drawn.extend(again.find(|mask| !drawn.contains(mask)));
    }
    Ok(drawn.pop().expect("at least one draw"))
}

/// What images a network is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    pub images: usize,
    pub resolution: usize,
    pub channels: usize,
    pub label_dim: usize,
}

impl Shape {
    pub fn of(images: &Dataset) -> Shape {
        Shape {
            images: images.len(),
            resolution: images.resolution,
            channels: images.channels,
            label_dim: images.label_dim(),
        }
    }
}

/// Which images of a set.
#[derive(Debug, Clone, PartialEq)]
pub struct Recipe {
    pub size: usize,
    pub classes: Option<usize>,
    pub class: Option<u32>,
    /// Share that the second set gives.
    pub blend: f64,
    pub labels: Labels,
    /// `None` is the set's own.
    pub resolution: Option<usize>,
}

impl Recipe {
    /// Makes the images. `set` and `blend` are read from the files beside them.
    ///
    /// # Errors
    /// As [`Subset::of`]; usage where a second set is needed and not there.
    pub fn of(&self, set: (&Dataset, &str), blend: Option<(&Dataset, &str)>) -> Result<Dataset> {
        let subset = Subset {
            size: self.size,
            classes: self.classes,
            class: self.class,
            blend: match blend {
                _ if self.blend == 0.0 => None,
                Some((with, name)) => {
                    Some(Blend { with: with.clone(), name: name.into(), alpha: self.blend })
                }
                None => {
                    let share = self.blend;
                    return Err(usage(format!(
                        "--blend: not given, and a share of {share} is to come from it"
                    )));
                }
            },
            labels: self.labels,
            resolution: self.resolution,
            // Always, as the reference draws random labels; training seeds are another matter.
            seed: LABEL_SEED,
        };
        subset.of(set.0, set.1)
    }

    /// The shape of the images of a set of 32×32 RGB pixels with ten classes, where there is no set.
    pub fn shape_of_cifar(&self) -> Shape {
        let label_dim = match self.labels {
            Labels::None => 0,
            Labels::Keep | Labels::True => self.classes.unwrap_or(10),
            Labels::Random(classes) | Labels::Dealt(classes) => classes as usize,
            Labels::Unique => self.size,
        };
        let resolution = self.resolution.unwrap_or(32);
        Shape { images: self.size, resolution, channels: 3, label_dim }
    }
}
