//! STL-10's binary files (Coates et al. 2011): `train_X.bin`, images of 96×96 pixels as three planes of columns, and beside
//! it `train_y.bin`, a byte each from 1 on.

use super::input::map;
use super::open::Reader;
use super::source::{Source, StoredImages};
use crate::error::{OrExit as _, data};
use crate::memory::Budget;
use anyhow::Result;
use std::path::{Path, PathBuf};

const SIDE: usize = 96;
const AREA: usize = SIDE * SIDE;
const CLASSES: u8 = 10;

pub const READER: Reader = Reader {
    what: "STL-10 .bin",
    claims: |files| {
        files.paths.iter().all(|path| ends_in(path, "_X.bin") || ends_in(path, "_y.bin"))
    },
    open: |files| open(&files.paths, files.budget),
};

fn ends_in(path: &Path, end: &str) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(end))
}

/// Where the labels of a file of images lie, if that is how it is called.
pub fn labels_beside(images: &Path) -> Option<PathBuf> {
    let name = images.file_name()?.to_str()?;
    Some(images.with_file_name(format!("{}_y.bin", name.strip_suffix("_X.bin")?)))
}

/// Opens a file of images with the labels given as a second one, or else beside it.
///
/// # Errors
/// Data errors that begin with the file: other lengths, labels outside 1 to 10 or of another number, no images. Over the
/// budget (exit 4).
fn open(paths: &[PathBuf], budget: &Budget) -> Result<Source> {
    let (images, labels): (Vec<&PathBuf>, Vec<&PathBuf>) =
        paths.iter().partition(|path| ends_in(path, "_X.bin"));
    let ([path], [] | [_]) = (&images[..], &labels[..]) else {
        let path = paths[0].display();
        return Err(data(format!(
            "{path}: expected one file of images (_X.bin) and one of labels"
        )));
    };
    let name = path.display().to_string();
    let bytes = map(path)?;
    if !bytes.len().is_multiple_of(3 * AREA) {
        return Err(data(format!(
            "{name}: expected images of {} bytes, found {} bytes",
            3 * AREA,
            bytes.len()
        )));
    }
    let count = bytes.len() / (3 * AREA);
    budget.keep((bytes.len() + 8 * count) as u64, || name.clone())?;
    let mut pixels = Vec::with_capacity(bytes.len());
    for image in bytes.chunks_exact(3 * AREA) {
        for (y, x) in (0..SIDE).flat_map(|y| (0..SIDE).map(move |x| (y, x))) {
            pixels.extend([0, 1, 2].map(|c| image[c * AREA + x * SIDE + y]));
        }
    }
    let given = labels.first().map(|path| path.to_path_buf());
    let beside = labels_beside(path);
    let exists = |path: &PathBuf| path.try_exists().or_data(|| path.display().to_string());
    let labels = match (given, beside) {
        (None, Some(beside)) if exists(&beside)? => Some(beside),
        (given, _) => given,
    };
    let labels = labels.map(|path| read_labels(&path, count)).transpose()?;
    let images = StoredImages::Packed { width: SIDE, height: SIDE, channels: 3, pixels };
    let mut source = Source::new(name, labels, images, budget);
    source.slow = true;
    Ok(source)
}

fn read_labels(path: &Path, images: usize) -> Result<Vec<u32>> {
    let (name, bytes) = (path.display(), map(path)?);
    if bytes.len() != images {
        return Err(data(format!("{name}: {} labels for {images} images", bytes.len())));
    }
    match bytes.iter().position(|label| !(1..=CLASSES).contains(label)) {
        Some(i) => {
            Err(data(format!("{name}: label {} of image {i}, expected 1 to {CLASSES}", bytes[i])))
        }
        None => Ok(bytes.iter().map(|&label| u32::from(label) - 1).collect()),
    }
}
