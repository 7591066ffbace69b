//! Images in NumPy archives: `images`, `arr_0` or `samples`, unsigned bytes [N,H,W,C] or [N,H,W]; `labels`.

use super::archive::Archive;
use super::npy::{self, Array};
use super::source::{Images, Source};
use crate::error::data;
use anyhow::Result;

/// The images of an npz file.
///
/// # Errors
/// Data errors that begin with the file: as [`npy::read_npz`], no such array, another type or shape, labels
/// that are no class indices or of another number.
pub fn from_archive(archive: &Archive) -> Result<Source> {
    let name = archive.file().to_string();
    let mut arrays = npy::read_arrays(archive)?;
    let mut take =
        |name: &str| arrays.iter().position(|(n, _)| n == name).map(|i| arrays.swap_remove(i).1);
    let Some(images) = take("images").or_else(|| take("arr_0")).or_else(|| take("samples")) else {
        return Err(data(format!("{name}: expected an array named images, arr_0 or samples")));
    };
    let labels = take("labels").or_else(|| take("arr_1"));
    let (shape, pixels) = images.of::<u8>(&name)?;
    let (n, height, width, channels) = match shape[..] {
        [n, h, w] => (n, h, w, 1),
        [n, h, w, c @ (1 | 3)] => (n, h, w, c),
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
    Ok(Source { name, groups: labels.clone(), labels, images })
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
