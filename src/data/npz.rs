//! Images in NumPy archives: `images`, `arr_0` or `samples`, unsigned bytes [N,H,W,C] or [N,H,W]; `labels`.

use super::archive::Archive;
use super::npy::{self, Array, Element as _};
use super::source::{Images, Source};
use crate::error::data;
use crate::memory::Budget;
use anyhow::Result;
use std::path::Path;

/// The images of an npz file.
///
/// # Errors
/// Data errors that begin with the file: as [`npy::read_npz`], no such array, another type or shape, labels
/// that are no class indices or of another number. Over the budget (exit 4).
pub fn from_archive(archive: &Archive, budget: &Budget) -> Result<Source> {
    let name = archive.file().to_string();
    let arrays = npy::names(archive)?;
    let find = |names: &[&str]| {
        names.iter().find_map(|name| arrays.iter().position(|array| array == name))
    };
    let images = find(&["images", "arr_0", "samples"]);
    let labels = find(&["labels", "arr_1"]);
    let Some(images) = images else {
        return Err(data(format!(
            "{name}: expected an array named images, arr_0 or samples, found {}",
            arrays.join(", ")
        )));
    };
    let others = (0..arrays.len()).filter(|&i| i != images && Some(i) != labels);
    let others: Vec<_> = others.map(|i| arrays[i].as_str()).collect();
    let array = npy::read_array(archive, images, budget)?;
    let labels = labels.map(|i| npy::read_array(archive, i, budget)).transpose()?;
    let mut source = of_array(name, array, labels, budget)?;
    if !others.is_empty() && source.labels.is_none() {
        let others = others.join(", ");
        source.notes.push(format!(
            "{}: no labels: they are read from an array named labels, not from {others}",
            source.name
        ));
    }
    Ok(source)
}

/// The images of an npy file.
///
/// # Errors
/// As [`from_archive`].
pub fn from_npy(path: &Path, budget: &Budget) -> Result<Source> {
    of_array(path.display().to_string(), npy::read_within(path, budget)?, None, budget)
}

fn of_array(name: String, images: Array, labels: Option<Array>, budget: &Budget) -> Result<Source> {
    let found = images.values.descr();
    if found != u8::DESCR {
        return Err(data(format!(
            "{name}: expected images of unsigned bytes (|u1), found {found}; of values from -1 to 1 NumPy's \
             (127.5 * x + 128).clip(0, 255).astype(\"u1\") makes them"
        )));
    }
    let (shape, pixels) = images.of::<u8>(&name)?;
    let (n, height, width, channels) = match shape[..] {
        [n, h, w] => (n, h, w, 1),
        [n, h, w, c @ (1 | 3)] => (n, h, w, c),
        [_, 1 | 3, _, _] => {
            return Err(data(format!(
                "{name}: expected images [N,H,W,C], found {shape:?}; NumPy's x.transpose(0, 2, 3, 1) makes them"
            )));
        }
        _ => {
            return Err(data(format!(
                "{name}: expected images [N,H,W,C] with 1 or 3 channels or [N,H,W], found {shape:?}"
            )));
        }
    };
    if pixels.is_empty() {
        return Err(data(format!("{name}: holds no images, its shape is {shape:?}")));
    }
    let labels = labels.map(|l| class_indices(l, n, &name)).transpose()?;
    let images = Images::Packed { width, height, channels, pixels };
    Ok(Source::new(name, labels, images, budget))
}

fn class_indices(labels: Array, images: usize, name: &str) -> Result<Vec<u32>> {
    let (shape, values) = labels.integers(&format!("{name}: labels"))?;
    if shape != [images] {
        return Err(data(format!(
            "{name}: expected labels of shape [{images}], one per image, found {shape:?}"
        )));
    }
    let index =
        |l: i64| u32::try_from(l).map_err(|_| data(format!("{name}: label {l} is no class index")));
    values.into_iter().map(index).collect()
}
