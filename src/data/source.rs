//! A set of images of any format, read image by image, so that only what is asked for is decoded.

use super::archive::Archive;
use super::decode::decoding_bytes;
use super::image::MAX_IMAGE_BYTES;
use super::input::read_file;
use super::options::Options;
use super::resize::lanczos;
use super::{Dataset, Image};
use crate::error::{Exit, OrExit as _, data, exit_code};
use crate::memory::{Budget, Spent};
use anyhow::Result;
use memmap2::Mmap;
use rayon::prelude::*;
use std::borrow::Cow;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{PoisonError, RwLock};

/// Images in a fixed order, with a label each or none.
pub struct Source {
    /// The file or folder, as messages show it.
    pub name: String,
    pub labels: Option<Vec<u32>>,
    /// The class or folder of each image, which `emm data import --spread` takes equal shares of.
    pub groups: Option<Vec<u32>>,
    pub images: StoredImages,
    /// The name of each image's file within the set; empty where they have none.
    pub names: Vec<String>,
    /// What the user may not expect of this set; each begins with the file.
    pub notes: Vec<String>,
    /// How its pixels are read where its form leaves that open.
    pub options: Options,
    /// Whether decoding it takes longer than reading what it decodes to.
    pub slow: bool,
    /// Memory that reading it may still take.
    budget: Budget,
    /// Taken by who reads an image alone.
    turn: RwLock<()>,
}

/// Where the pixels are.
pub enum StoredImages {
    /// In memory: `pixels` is [N, H, W, C].
    Packed { width: usize, height: usize, channels: usize, pixels: Vec<u8> },
    /// One file an image.
    Files(Vec<PathBuf>),
    /// One zip entry an image, by index.
    Zip(Archive, Vec<usize>),
    /// Image files within larger ones: of each which store it lies in, and where.
    Within(Vec<Store>, Vec<Place>),
}

/// Where an image file lies within [`StoredImages::Within`].
pub type Place = (u32, Range<usize>);

/// Bytes that image files lie in.
pub enum Store {
    Mapped(Mmap),
    Read(Vec<u8>),
}

impl std::ops::Deref for Store {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Store::Mapped(map) => map,
            Store::Read(bytes) => bytes,
        }
    }
}

/// What is done to each image on the way in, in this order.
#[derive(Debug, Clone, Default)]
pub struct Transform {
    /// Keep the central square.
    pub center_crop: bool,
    /// Surround with zeros up to this side.
    pub pad: Option<usize>,
    /// Resample to this side.
    pub resolution: Option<usize>,
    /// Repeat a grey channel three times.
    pub rgb: bool,
}

impl Source {
    /// A set whose groups are its classes.
    pub fn new(
        name: String,
        labels: Option<Vec<u32>>,
        images: StoredImages,
        budget: &Budget,
    ) -> Self {
        let (groups, budget) = (labels.clone(), budget.clone());
        let (names, notes, options) = (Vec::new(), Vec::new(), Options::default());
        let turn = RwLock::new(());
        let slow = false;
        Source { name, labels, groups, images, names, notes, options, slow, budget, turn }
    }

    /// The same set, to be read as these options say.
    pub fn with(self, options: &Options) -> Self {
        Source { options: options.clone(), ..self }
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        match &self.images {
            StoredImages::Packed { width, height, channels, pixels } => {
                pixels.len() / (width * height * channels).max(1)
            }
            StoredImages::Files(paths) => paths.len(),
            StoredImages::Zip(_, entries) => entries.len(),
            StoredImages::Within(_, places) => places.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Indices of all images, in order.
    pub fn all(&self) -> Vec<usize> {
        (0..self.len()).collect()
    }

    /// Reads the images `order` into a data set.
    ///
    /// # Errors
    /// Data errors that begin with the file: no images, an unreadable one, one that is not square or differs
    /// from the first. Of several the first in order is told. Over the budget (exit 4).
    pub fn collect(&self, order: &[usize], transform: &Transform) -> Result<Dataset> {
        let Some(&first) = order.first() else {
            return Err(data(format!("{}: holds no images", self.name)));
        };
        let example = self.image(first, transform)?;
        let Image { width, height, channels, .. } = example;
        if width != height {
            return Err(self.not_square(first, &example));
        }
        drop(example);
        let image_len = width * height * channels;
        self.budget.keep((image_len as u64).saturating_mul(order.len() as u64), || {
            let count = order.len();
            format!(
                "{}: {count} images of {width}x{height} pixels and {channels} channels",
                self.name
            )
        })?;
        let name_bytes =
            |&i: &usize| self.names.get(i).map_or(0, |n| (n.len() + size_of::<String>()) as u64);
        self.budget.keep(order.iter().map(name_bytes).sum(), || {
            format!("{}: names of its images", self.name)
        })?;
        let mut pixels = vec![0; image_len * order.len()];
        let failed =
            pixels.par_chunks_exact_mut(image_len).zip(order).find_map_first(|(out, &i)| {
                let image = match self.image(i, transform) {
                    Ok(image) => image,
                    Err(e) => return Some(e),
                };
                if (image.width, image.height, image.channels) != (width, height, channels) {
                    return Some(self.differs(i, &image, first, [width, height, channels]));
                }
                out.copy_from_slice(&image.pixels);
                None
            });
        if let Some(e) = failed {
            return Err(e);
        }
        let labels = self.labels.as_ref().map(|l| order.iter().map(|&i| l[i]).collect());
        let mut set = Dataset::new(&self.name, width, channels, pixels, labels)?;
        set.names = order.iter().filter_map(|&i| self.names.get(i).cloned()).collect();
        Ok(set)
    }

    fn not_square(&self, i: usize, image: &Image) -> anyhow::Error {
        data(format!(
            "{}: expected a square image, found {}x{} pixels; `emm data import` makes it square by \
             --center-crop or --pad N",
            self.describe(i),
            image.width,
            image.height
        ))
    }

    fn differs(
        &self,
        i: usize,
        image: &Image,
        first: usize,
        [w, h, c]: [usize; 3],
    ) -> anyhow::Error {
        let hint = match (image.width, image.height) == (w, h) {
            true => "`emm data import --rgb` makes grey images RGB".into(),
            false => format!(
                "`emm data import --center-crop --resolution {}` makes all of one size",
                w.min(h)
            ),
        };
        data(format!(
            "{}: expected {w}x{h} pixels and {c} channels as in {}, found {}x{} and {}; {hint}",
            self.describe(i),
            self.describe(first),
            image.width,
            image.height,
            image.channels
        ))
    }

    /// Reads one image. Where the budget does not hold what several threads read at a time, it is read alone, so that
    /// a refusal does not depend on the number of threads.
    fn image(&self, i: usize, transform: &Transform) -> Result<Image> {
        let beside_others = {
            let _turn = self.turn.read().unwrap_or_else(PoisonError::into_inner);
            self.read(i, transform)
        };
        match beside_others {
            Err(e) if exit_code(&e) == Exit::Device as i32 => {
                let _turn = self.turn.write().unwrap_or_else(PoisonError::into_inner);
                self.read(i, transform)
            }
            read => read,
        }
    }

    fn read(&self, i: usize, transform: &Transform) -> Result<Image> {
        let (mut image, mut spent) = self.decode(i)?;
        let sides = [transform.pad, transform.resolution].into_iter().flatten();
        let rows = image.width.max(image.height) as u64;
        let room = sides.map(|side| 3 * side as u64 * rows.max(side as u64)).sum::<u64>();
        spent.grow(room + 3 * image.pixels.len() as u64, || self.describe(i))?;
        if transform.center_crop {
            image = image.center_crop();
        }
        if let Some(side) = transform.pad {
            image = image.pad(side).or_data(|| self.describe(i))?;
        }
        if let Some(side) = transform.resolution {
            if image.width != image.height {
                return Err(self.not_square(i, &image));
            }
            image = lanczos(image, side);
        }
        Ok(if transform.rgb { image.into_rgb() } else { image })
    }

    fn decode(&self, i: usize) -> Result<(Image, Spent)> {
        let what = || self.describe(i);
        let (bytes, mut spent) = match &self.images {
            &StoredImages::Packed { width, height, channels, ref pixels } => {
                let len = width * height * channels;
                let spent = self.budget.borrow(len as u64, what)?;
                let pixels = pixels[i * len..][..len].to_vec();
                return Ok((Image { width, height, channels, pixels }, spent));
            }
            StoredImages::Files(paths) => {
                let (bytes, spent) = read_file(&paths[i], MAX_IMAGE_BYTES, &self.budget)?;
                (Cow::Owned(bytes), spent)
            }
            StoredImages::Zip(archive, entries) => {
                archive.read(entries[i], MAX_IMAGE_BYTES, &self.budget)?
            }
            StoredImages::Within(stores, places) => {
                let (store, place) = &places[i];
                let bytes = &stores[*store as usize][place.clone()];
                (Cow::Borrowed(bytes), self.budget.borrow(0, what)?)
            }
        };
        spent.grow(decoding_bytes(&bytes), what)?;
        Ok((Image::decode(&bytes, &self.options, &what())?, spent))
    }

    fn describe(&self, i: usize) -> String {
        match &self.images {
            StoredImages::Packed { .. } | StoredImages::Within(..) => match self.names.get(i) {
                Some(name) => format!("{}: {name}", self.name),
                None => format!("{}: image {i}", self.name),
            },
            StoredImages::Files(paths) => paths[i].display().to_string(),
            StoredImages::Zip(archive, entries) => {
                format!("{}: {}", self.name, archive.names()[entries[i]])
            }
        }
    }
}
