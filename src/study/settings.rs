//! What one cell of a study asks for, as a TOML file states it, and the run that it becomes at a scale.

use super::names::unknown;
pub use super::presets::Overrides;
use super::presets::{PAPER, part, preset, read_run};
use super::scale::Scale;
use crate::data::Dataset;
use crate::data::subset::{Blend, Labels, Subset, shuffle};
use crate::error::usage;
pub use crate::run::ImageShape;
use crate::run::{Precision, RunConfig, RunSettings};
use anyhow::Result;
use serde::Deserialize;

/// The reference's `random.seed` of random labels.
const LABEL_SEED: u64 = 1024;

/// What a cell asks for over the paper's basic setup, at the paper's scale; `None` is the basic setup's.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Settings {
    pub images: ImageSettings,
    pub run: RunSettings,
}

/// Which images a cell is about, and which of its network's skips, in words that no run's configuration keeps.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct ImageSettings {
    /// Training images, balanced by class.
    pub size: Option<usize>,
    /// Pixels along a side where the set has 32: 16 is half of the set's own.
    pub resolution: Option<usize>,
    /// Only the first so many classes.
    pub classes: Option<usize>,
    /// Only this class.
    pub class: Option<u32>,
    /// Share of the images that a second set (`--blend`) gives.
    pub blend: Option<f64>,
    /// none (unconditional), true, unique, random:C.
    pub labels: Option<String>,
    /// So many skips, drawn at random: draw number `draw`.
    pub random_skips: Option<usize>,
    pub draw: Option<u64>,
}

const IMAGE_KEYS: [&str; 8] =
    ["size", "resolution", "classes", "class", "blend", "labels", "random_skips", "draw"];

/// Every key of a study's settings.
pub fn keys() -> impl Iterator<Item = &'static str> {
    IMAGE_KEYS.into_iter().chain(RunSettings::all().map(|s| s.key))
}

impl Settings {
    /// Reads written settings; `what` says where they stand.
    ///
    /// # Errors
    /// Usage that begins with `what`: an unknown key, with the nearest known one; a value of another type.
    pub fn read(written: &Overrides, what: &str) -> Result<Settings> {
        if let Some(key) = written.keys().find(|key| !keys().any(|known| known == *key)) {
            return Err(usage(format!("{what}: {}", unknown("key", key, keys()))));
        }
        let images: ImageSettings = part(written, IMAGE_KEYS, what)?;
        let run = read_run(written, what)?;
        if let Some(text) = &images.labels {
            text.parse::<Labels>().map_err(|e| usage(format!("{what}: labels: {e}")))?;
        }
        // A scale makes at least one of anything, so that a 0 would pass unseen.
        for key in ["size", "batch", "channels", "looks", "score_images"] {
            if written.get(key).and_then(toml::Value::as_integer) == Some(0) {
                return Err(usage(format!("{what}: {key}: 0, expected at least 1")));
            }
        }
        if images.random_skips.is_some() && run.network.skips.is_some() {
            return Err(usage(format!("{what}: skips and random_skips exclude each other")));
        }
        Ok(Settings { images, run })
    }

    /// Which images, at a scale. `full`: the set's resolution and number of classes.
    pub fn recipe(&self, scale: &Scale, full: (usize, usize)) -> Recipe {
        let resolution = scale.resolution(full.0, self.images.resolution.unwrap_or(32));
        let labels =
            self.images.labels.as_deref().and_then(|l| l.parse().ok()).unwrap_or(Labels::None);
        Recipe {
            size: scale.size(self.images.size.unwrap_or(1000)),
            // Of all classes and of the whole set are one recipe.
            classes: self.images.classes.filter(|&classes| classes != full.1),
            class: self.images.class,
            blend: self.images.blend.unwrap_or(0.0),
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
            Labels::Keep | Labels::True if self.images.class.is_none() => {
                (self.images.classes.unwrap_or(found), "classes")
            }
            _ => (self.images.classes.unwrap_or(0), "classes"),
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
        shape: ImageShape,
        seed: u64,
        precision: Precision,
    ) -> Result<RunConfig> {
        let basic = preset(PAPER).expect("the paper's own preset");
        let mut run = self.run.clone().over(basic);
        if let Some(kept) = self.images.random_skips {
            let model = run.network.config();
            model.check_bounds()?;
            let count = model.num_skips();
            if kept > count {
                return Err(usage(format!("random_skips: {kept}, the network has {count} skips")));
            }
            run.network.skips = Some(drawn_skips(count, kept, self.images.draw.unwrap_or(0))?);
        }
        run.resolve(shape, |model, train| {
            model.scale(&|factor, value| scale.scaled(factor, value));
            train.scale(&|factor, value| scale.scaled(factor, value));
            model.precond = scale.precond(model.precond);
            (train.seed, train.precision) = (seed, precision);
        })
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
    /// So many of a set's images, balanced by class.
    pub fn of_size(size: usize, labels: Labels) -> Recipe {
        Recipe { size, classes: None, class: None, blend: 0.0, labels, resolution: None }
    }

    /// Makes the images. `set` and `blend` are read from the files beside them.
    ///
    /// # Errors
    /// As [`Subset::of`]; usage where a second set is needed and not there.
    pub fn of(&self, set: (&Dataset, &str), blend: Option<(&Dataset, &str)>) -> Result<Dataset> {
        let subset = Subset {
            size: self.size,
            skip: 0,
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
    pub fn shape_of_cifar(&self) -> ImageShape {
        let label_dim = match self.labels {
            Labels::None => 0,
            Labels::Keep | Labels::True => self.classes.unwrap_or(10),
            Labels::Random(classes) | Labels::Dealt(classes) => classes as usize,
            Labels::Unique => self.size,
        };
        let resolution = self.resolution.unwrap_or(32);
        ImageShape { images: self.size, resolution, channels: 3, label_dim }
    }
}
