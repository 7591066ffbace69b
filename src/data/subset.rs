//! Which images of a set: the paper's subsets (Gu et al. 2023, section 3 and 5) and plain selections.

use super::python_random::PythonRandom;
use super::{Dataset, Image, resize};
use crate::error::{data, usage};
use crate::memory::Budget;
use crate::rng::{Stream, philox, tag};
use anyhow::Result;
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// What becomes of the labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Labels {
    /// Kept where all images have one.
    Keep,
    /// Kept; images without one are an error.
    True,
    /// Drawn by Python's `random.randint(0, C − 1)` for one image after the other.
    Random(u32),
    /// Dealt out at random: each class gets as many images as any other, or one more.
    Dealt(u32),
    /// The index of the image.
    Unique,
    /// Dropped.
    None,
}

impl FromStr for Labels {
    type Err = String;

    fn from_str(text: &str) -> Result<Labels, String> {
        let classes = |of: &str| text.strip_prefix(of)?.parse().ok().filter(|&c| c > 0);
        match text {
            "true" => Ok(Labels::True),
            "unique" => Ok(Labels::Unique),
            "none" => Ok(Labels::None),
            _ => (classes("random:").map(Labels::Random))
                .or(classes("dealt:").map(Labels::Dealt))
                .ok_or_else(|| {
                    format!("expected true, random:C, dealt:C, unique or none, found {text:?}")
                }),
        }
    }
}

/// Images that take the place of some of a set's own.
#[derive(Debug, Clone)]
pub struct Blend {
    pub with: Dataset,
    /// The file, for messages.
    pub name: String,
    /// Share of the images that `with` gives, 0 to 1.
    pub alpha: f64,
}

/// Pixels along the side of an image that is resampled.
pub const SIDES: RangeInclusive<usize> = 1..=4096;

/// A subset to be made of a set.
#[derive(Debug, Clone)]
pub struct Subset {
    /// Number of images.
    pub size: usize,
    /// The images of the subset of this size are left out, for one that has none of them.
    pub skip: usize,
    /// Only the first so many classes.
    pub classes: Option<usize>,
    /// Only this class; excludes `classes`.
    pub class: Option<u32>,
    pub blend: Option<Blend>,
    pub labels: Labels,
    /// Lanczos to this side, before anything is compared.
    pub resolution: Option<usize>,
    /// Of random and dealt labels.
    pub seed: u64,
}

impl Subset {
    /// Makes the subset of `set`, whose file is `name`.
    ///
    /// Of k classes each gives its first ⌊n/k⌋ images, class 0 first, the last one what is missing to n; sets
    /// without labels give their first n. With a blend, n = trunc(size·(1 − alpha)) in double precision, and
    /// the first images of the other set follow.
    ///
    /// # Errors
    /// Usage errors that begin with the flag: size 0, a resolution outside [`SIDES`], classes or a class that are not there, labels that are
    /// not there. Data errors that begin with the file: too few images of a class (with class, have and want)
    /// or at all, blends of different shapes. Over the budget (exit 4).
    pub fn of(&self, set: &Dataset, name: &str) -> Result<Dataset> {
        if let Some(side) = self.resolution.filter(|side| !SIDES.contains(side)) {
            let [least, most] = [SIDES.start(), SIDES.end()];
            let expected = format!("expected {least} to {most} pixels");
            return Err(usage(format!("--resolution: {expected}, found {side}")));
        }
        if self.size == 0 {
            return Err(usage("--size: expected at least one image, found 0"));
        }
        let own = match &self.blend {
            Some(blend) => (self.size as f64 * (1.0 - blend.alpha)) as usize,
            None => self.size,
        };
        let resized = |set| match self.resolution {
            Some(side) => resize_all(set, side),
            None => set,
        };
        if let (Some(_), 1..) = (&self.blend, self.skip) {
            return Err(usage("--skip: images of two sets are blended, of which it says nothing"));
        }
        let chosen = self.own_images(set, name, own)?;
        let side = self.resolution.unwrap_or(set.resolution) as u64;
        // Twice: as single images, and put together.
        let image_bytes = 2 * side * side * set.channels as u64;
        let all = || format!("{name}: {} images of {side}x{side} pixels", self.size);
        Budget::default().keep(image_bytes.saturating_mul(self.size as u64), all)?;
        let mut out = resized(pick(set, &chosen));
        if let Some(blend) = &self.blend {
            let rest = self.size - own;
            let have = blend.with.len();
            if have < rest {
                return Err(data(format!("{}: has {have} images, wants {rest}", blend.name)));
            }
            let with = resized(pick(&blend.with, &(0..rest).collect::<Vec<_>>()));
            let shape = |s: &Dataset| (s.resolution, s.channels);
            if shape(&out) != shape(&with) {
                return Err(data(format!(
                    "{}: {r}x{r} pixels and {} channels cannot blend with {q}x{q} and {} of {name}",
                    blend.name,
                    with.channels,
                    out.channels,
                    r = with.resolution,
                    q = out.resolution,
                )));
            }
            out.pixels.extend_from_slice(&with.pixels);
            out.labels = out.labels.zip(with.labels).map(|(a, b)| [a, b].concat());
            out.names =
                match own == 0 || rest == 0 || !out.names.is_empty() && !with.names.is_empty() {
                    true => [out.names, with.names].concat(),
                    false => Vec::new(),
                };
        }
        out.labels = match self.labels {
            Labels::True if out.labels.is_none() => {
                return Err(usage(format!(
                    "--labels: true, but not every image of {name} has one"
                )));
            }
            Labels::Keep | Labels::True => out.labels,
            Labels::Random(classes) => {
                let mut random = PythonRandom::new(self.seed);
                Some((0..self.size).map(|_| random.below(classes)).collect())
            }
            Labels::Dealt(classes) if classes as usize > self.size => {
                let size = self.size;
                return Err(usage(format!(
                    "--labels: dealt:{classes}, but {size} images are not one for each class"
                )));
            }
            Labels::Dealt(classes) => {
                let mut labels: Vec<usize> = (0..self.size).map(|i| i % classes as usize).collect();
                shuffle(&mut labels, self.seed);
                Some(labels.into_iter().map(|label| label as u32).collect())
            }
            Labels::Unique => Some((0..self.size as u32).collect()),
            Labels::None => None,
        };
        Ok(out)
    }

    /// Indices of the first `n` images that the subset takes from the set itself, behind those that it skips.
    fn own_images(&self, set: &Dataset, name: &str, n: usize) -> Result<Vec<usize>> {
        let Some(labels) = &set.labels else {
            if let Some(class) = self.class {
                return Err(usage(format!("--class: {class}, but {name} has no labels")));
            }
            if let Some(classes) = self.classes {
                return Err(usage(format!("--classes: {classes}, but {name} has no labels")));
            }
            let all = self.skip.saturating_add(n);
            if set.len() < all {
                return Err(data(format!("{name}: has {} images, wants {all}", set.len())));
            }
            return Ok((self.skip..all).collect());
        };
        let found = set.label_dim();
        let (first, classes) = match (self.class, self.classes) {
            (Some(class), _) if class as usize >= found => {
                return Err(usage(format!(
                    "--class: {class}, but {name} has classes 0 to {}",
                    found - 1
                )));
            }
            (_, Some(classes)) if classes == 0 || classes > found => {
                return Err(usage(format!("--classes: {classes}, but {name} has {found} classes")));
            }
            (Some(class), _) => (class, 1),
            (None, classes) => (0, classes.unwrap_or(found)),
        };
        let mut members = vec![Vec::new(); classes];
        for (i, &label) in labels.iter().enumerate() {
            if let Some(class) = label.checked_sub(first).and_then(|c| members.get_mut(c as usize))
            {
                class.push(i);
            }
        }
        let mut order = Vec::with_capacity(n.min(set.len()));
        for (class, members) in members.iter().enumerate() {
            let share = |n: usize| match class + 1 == classes {
                true => n - n / classes * class,
                false => n / classes,
            };
            let skipped = share(self.skip);
            let all = skipped.saturating_add(share(n));
            let named = || format!("{name}: class {}", first as usize + class);
            order.extend(&take(members, all, named)?[skipped..]);
        }
        Ok(order)
    }
}

/// Indices of `size` images out of groups that have an equal share each, the first `size mod k` of the k groups
/// one more; group after group, in the order of the set.
///
/// # Errors
/// A data error that begins with `name`, if a group has too few.
pub fn spread(groups: &[u32], size: usize, name: &str) -> Result<Vec<usize>> {
    let mut members: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for (i, &group) in groups.iter().enumerate() {
        members.entry(group).or_default().push(i);
    }
    let (share, more) = (size / members.len().max(1), size % members.len().max(1));
    let mut order = Vec::with_capacity(size);
    for (i, (group, members)) in members.iter().enumerate() {
        let want = share + usize::from(i < more);
        order.extend(take(members, want, || format!("{name}: class or folder {group}"))?);
    }
    Ok(order)
}

/// Puts images in an order that depends on the seed and their number alone.
pub fn shuffle(order: &mut [usize], seed: u64) {
    let key = |place: usize| philox([0, place as u32, 0, tag(Stream::Subset, 0)], seed);
    let mut keyed: Vec<_> =
        order.iter().enumerate().map(|(i, &image)| (key(i), i, image)).collect();
    keyed.sort_unstable();
    for (to, (_, _, image)) in order.iter_mut().zip(keyed) {
        *to = image;
    }
}

fn take(members: &[usize], want: usize, what: impl Fn() -> String) -> Result<&[usize]> {
    members
        .get(..want)
        .ok_or_else(|| data(format!("{} has {} images, wants {want}", what(), members.len())))
}

/// The images `order` of a set.
pub fn pick(set: &Dataset, order: &[usize]) -> Dataset {
    let name = |&i: &usize| set.names.get(i).cloned();
    Dataset {
        pixels: order.iter().flat_map(|&i| set.image(i)).copied().collect(),
        labels: set.labels.as_ref().map(|l| order.iter().map(|&i| l[i]).collect()),
        names: order.iter().filter_map(name).collect(),
        ..*set
    }
}

fn resize_all(set: Dataset, side: usize) -> Dataset {
    let (width, channels) = (set.resolution, set.channels);
    let one = |pixels: &[u8]| {
        let image = Image { width, height: width, channels, pixels: pixels.to_vec() };
        resize::lanczos(image, side).pixels
    };
    let images: Vec<Vec<u8>> = set.pixels.par_chunks_exact(set.image_len()).map(one).collect();
    Dataset { resolution: side, pixels: images.concat(), ..set }
}
