//! A set of images of any format, read image by image, so that only what is asked for is decoded.

use super::archive::Archive;
use super::image::MAX_IMAGE_BYTES;
use super::resize::lanczos;
use super::{Dataset, Image, cifar, edm, folder, idx, npz};
use crate::error::{OrExit as _, data, usage};
use anyhow::Result;
use flate2::read::MultiGzDecoder;
use rayon::prelude::*;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};

/// Bytes that a whole set may take in memory.
const MAX_SET_BYTES: usize = 64 << 30;

/// Images in a fixed order, with a label each or none.
pub struct Source {
    /// The file or folder, as messages show it.
    pub name: String,
    pub labels: Option<Vec<u32>>,
    /// The class or folder of each image, which `--spread` takes equal shares of.
    pub groups: Option<Vec<u32>>,
    pub images: Images,
}

/// Where the pixels are.
pub enum Images {
    /// In memory: `pixels` is [N, H, W, C].
    Packed { width: usize, height: usize, channels: usize, pixels: Vec<u8> },
    /// One file an image.
    Files(Vec<PathBuf>),
    /// One zip entry an image, by index.
    Zip(Archive, Vec<usize>),
}

/// What is done to each image on the way in, in this order.
#[derive(Debug, Clone, Default)]
pub struct Transform {
    /// Accept JPEG.
    pub allow_lossy: bool,
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
    /// Number of images.
    pub fn len(&self) -> usize {
        match &self.images {
            Images::Packed { width, height, channels, pixels } => {
                pixels.len() / (width * height * channels).max(1)
            }
            Images::Files(paths) => paths.len(),
            Images::Zip(_, entries) => entries.len(),
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
    /// from the first, a set that fits no memory. Of several the first in order is told.
    pub fn collect(&self, order: &[usize], transform: &Transform) -> Result<Dataset> {
        let Some(&first) = order.first() else {
            return Err(data(format!("{}: holds no images", self.name)));
        };
        let example = self.image(first, transform)?;
        let Image { width, height, channels, .. } = example;
        if width != height {
            return Err(self.not_square(first, &example));
        }
        let image_len = width * height * channels;
        if image_len.saturating_mul(order.len()) > MAX_SET_BYTES {
            return Err(data(format!(
                "{}: {} images of {width}x{height}x{channels} exceed {MAX_SET_BYTES} bytes",
                self.name,
                order.len()
            )));
        }
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
        Dataset::new(&self.name, width, channels, pixels, labels)
    }

    fn not_square(&self, i: usize, image: &Image) -> anyhow::Error {
        data(format!(
            "{}: expected a square image, found {}x{} pixels; --center-crop makes it square",
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
            true => "; --rgb makes grey images RGB",
            false => "",
        };
        data(format!(
            "{}: expected {w}x{h} pixels and {c} channels as in {}, found {}x{} and {}{hint}",
            self.describe(i),
            self.describe(first),
            image.width,
            image.height,
            image.channels
        ))
    }

    fn image(&self, i: usize, transform: &Transform) -> Result<Image> {
        let mut image = self.decode(i, transform.allow_lossy)?;
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

    fn decode(&self, i: usize, allow_lossy: bool) -> Result<Image> {
        match &self.images {
            &Images::Packed { width, height, channels, ref pixels } => {
                let len = width * height * channels;
                let pixels = pixels[i * len..][..len].to_vec();
                Ok(Image { width, height, channels, pixels })
            }
            Images::Files(paths) => {
                let bytes = read_file(&paths[i], MAX_IMAGE_BYTES)?;
                Image::decode(&bytes, allow_lossy, &self.describe(i))
            }
            Images::Zip(archive, entries) => {
                let bytes = archive.read(entries[i], MAX_IMAGE_BYTES)?;
                Image::decode(&bytes, allow_lossy, &self.describe(i))
            }
        }
    }

    fn describe(&self, i: usize) -> String {
        match &self.images {
            Images::Packed { .. } => format!("{}: image {i}", self.name),
            Images::Files(paths) => paths[i].display().to_string(),
            Images::Zip(archive, entries) => {
                format!("{}: {}", self.name, archive.names()[entries[i]])
            }
        }
    }
}

/// Opens a set of any format, told apart by content: a zip of images or arrays, CIFAR-10's archives and
/// batches, IDX, folders. Several paths are several folders, several batches, or IDX images and labels.
///
/// # Errors
/// Data errors that begin with the file: missing, of no known format, and those of the formats; usage if
/// the paths do not belong together.
pub fn open_any(paths: &[PathBuf]) -> Result<Source> {
    let first = &paths[0];
    let what = || first.display().to_string();
    for path in paths {
        fs::metadata(path).or_data(|| path.display().to_string())?;
    }
    if paths.iter().all(|p| p.is_dir()) {
        return folder::open(paths);
    }
    if let Some(dir) = paths.iter().find(|p| p.is_dir()) {
        return Err(usage(format!("{}: folders and files cannot be mixed", dir.display())));
    }
    if paths.iter().all(|p| p.extension().is_some_and(|e| e == "bin")) {
        return cifar::open_batches(paths);
    }
    let head = read_head(first)?;
    if idx::is_idx(&head) && paths.len() <= 2 {
        return idx::open(paths);
    }
    if paths.len() > 1 {
        return Err(usage(format!(
            "{}: one source at a time, except folders, CIFAR-10 batches (.bin), or IDX images with labels",
            paths[1].display()
        )));
    }
    if head.starts_with(b"PK") {
        let archive = Archive::open(first)?;
        let arrays = archive.names().iter().any(|n| n.ends_with(".npy"));
        return if arrays { npz::from_archive(&archive) } else { edm::from_archive(archive) };
    }
    if head.get(257..262) == Some(b"ustar") {
        return cifar::open_tar(first);
    }
    Err(data(format!(
        "{}: expected an EDM zip, npz, CIFAR-10 archive or .bin batch, IDX file or folder of images, found \
         something else",
        what()
    )))
}

/// The first bytes of a file, unpacked if it is gzipped.
fn read_head(path: &Path) -> Result<Vec<u8>> {
    let what = || path.display().to_string();
    let mut head = Vec::new();
    gunzip(path)?.take(512).read_to_end(&mut head).or_data(what)?;
    if head.is_empty() {
        return Err(data(format!("{}: the file is empty", what())));
    }
    Ok(head)
}

/// A reader of a file that unpacks gzip.
///
/// # Errors
/// Data errors that begin with the file: missing or unreadable.
pub fn gunzip(path: &Path) -> Result<Box<dyn Read>> {
    let what = || path.display().to_string();
    let mut file = BufReader::with_capacity(1 << 16, File::open(path).or_data(what)?);
    let gzipped = file.fill_buf().or_data(what)?.starts_with(&[0x1F, 0x8B]);
    Ok(if gzipped { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) })
}

/// A whole file of at most `limit` bytes, unpacked if it is gzipped.
///
/// # Errors
/// Data errors that begin with the file: missing, unreadable, empty, over the limit.
pub fn read_file(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let what = || path.display().to_string();
    let mut bytes = Vec::new();
    gunzip(path)?.take(limit + 1).read_to_end(&mut bytes).or_data(what)?;
    if bytes.is_empty() {
        return Err(data(format!("{}: the file is empty", what())));
    }
    if bytes.len() as u64 > limit {
        return Err(data(format!("{}: more than {limit} bytes", what())));
    }
    Ok(bytes)
}
