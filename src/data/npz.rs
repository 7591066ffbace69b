//! Images in NumPy archives: `images`, `arr_0` or `samples`, unsigned bytes `[N,H,W,C]` or `[N,H,W]`; `labels`.

use super::archive::Archive;
use super::npy::{self, Array, Element as _, Values};
use super::open::Reader;
use super::source::{Source, StoredImages};
use crate::error::data;
use crate::memory::Budget;
use anyhow::Result;
use std::path::Path;

pub const READER: Reader = Reader {
    what: "npz, npy",
    claims: |files| match &files.archive {
        Some(archive) => holds_arrays(archive),
        None => files.paths.len() == 1 && files.head.starts_with(npy::MAGIC),
    },
    open: |files| match &files.archive {
        Some(archive) => from_archive(archive, files.budget),
        None => from_npy(&files.paths[0], files.budget),
    },
};

/// Whether a zip is one of arrays, not of images.
pub fn holds_arrays(archive: &Archive) -> bool {
    archive.names().iter().any(|name| name.ends_with(".npy"))
}

/// The images of an npz file.
///
/// # Errors
/// Data errors that begin with the file: as [`npy::read_npz`], no such array, another type or shape, labels
/// that are no class indices or of another number. Over the budget (exit 4).
fn from_archive(archive: &Archive, budget: &Budget) -> Result<Source> {
    let name = archive.file().to_string();
    let arrays = npy::names(archive)?;
    let find = |names: &[&str]| {
        names.iter().find_map(|name| arrays.iter().position(|array| array == name))
    };
    let images = find(&["images", "arr_0", "samples"]);
    let labels = find(&["labels", "arr_1"]);
    let Some(images) = images else {
        let one = |labels| arrays.iter().find(|name| means_labels(name) == labels);
        let of = |name: &str, array: &str| format!("{name}=x[\"{array}\"]");
        let hint = match (one(false), one(true)) {
            (None, _) => "; it holds no images".into(),
            (Some(images), labels) => format!(
                "; with x = load(\"{name}\") NumPy's savez(\"OUT.npz\", {}{}) names them so",
                of("images", images),
                labels.map_or(String::new(), |l| format!(", {}", of("labels", l)))
            ),
        };
        return Err(data(format!(
            "{name}: expected an array named images, arr_0 or samples, found {}{hint}",
            arrays.join(", "),
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
fn from_npy(path: &Path, budget: &Budget) -> Result<Source> {
    of_array(path.display().to_string(), npy::read_within(path, budget)?, None, budget)
}

fn of_array(name: String, images: Array, labels: Option<Array>, budget: &Budget) -> Result<Source> {
    if images.values.descr() != u8::DESCR {
        return Err(data(format!("{name}: {}", no_bytes(&images))));
    }
    let (shape, pixels) = images.of::<u8>(&name)?;
    let (n, height, width, channels) = match shape[..] {
        [h, w, channels @ (1 | 3)] if h > 3 && w > 3 => {
            return Err(data(format!(
                "{name}: expected images [N,H,W,C] or [N,H,W], found {shape:?}, one image of {channels} channels by its \
                 shape; NumPy's x[None] makes a set of it"
            )));
        }
        [n, h, w] => (n, h, w, 1),
        [n, h, w, c @ (1 | 3)] => (n, h, w, c),
        [_, 1 | 3, _, _] => {
            return Err(data(format!(
                "{name}: expected images [N,H,W,C], found {shape:?}; NumPy's x.transpose(0, 2, 3, 1) makes them"
            )));
        }
        _ => {
            let hint = match shape[..] {
                [_, _, _, 4] => "; NumPy's x[..., :3] leaves out the fourth",
                [_, _, _, 2] => "; NumPy's x[..., :1] leaves out the second",
                [_, _] => "; NumPy's x.reshape(-1, H, W, C) gives it their shape",
                _ => "",
            };
            return Err(data(format!(
                "{name}: expected images [N,H,W,C] with 1 or 3 channels or [N,H,W], found {shape:?}{hint}"
            )));
        }
    };
    if pixels.is_empty() {
        return Err(data(format!("{name}: holds no images, its shape is {shape:?}")));
    }
    let labels = labels.map(|l| class_indices(l, n, &name)).transpose()?;
    let images = StoredImages::Packed { width, height, channels, pixels };
    Ok(Source::new(name, labels, images, budget))
}

/// Whether an array of such a name is labels, as others call theirs.
fn means_labels(array: &str) -> bool {
    let lower = array.to_lowercase();
    let word = lower.split('_').next().unwrap_or_default();
    matches!(word, "y" | "label" | "labels" | "targets" | "target" | "classes" | "fine" | "coarse")
}

/// Why an array of other numbers than bytes is no images, and what makes them of its values.
fn no_bytes(images: &Array) -> String {
    let (found, shape) = (images.values.descr(), &images.shape);
    let [least, most] = images.values.range();
    if images.values.any_nan() {
        return format!(
            "expected images of unsigned bytes (|u1), found {found} of shape {shape:?} that hold NaN"
        );
    }
    let floats = matches!(images.values, Values::F32(_) | Values::F64(_));
    let planes = matches!(shape[..], [_, 1 | 3, h, w] if h > 3 && w > 3);
    let x = if planes { "x.transpose(0, 2, 3, 1)" } else { "x" };
    let bytes = match (floats, least, most) {
        // Floats may be a network's, which overshoots.
        (true, -0.3.., ..=1.3) => format!("(255 * {x}).round().clip(0, 255)"),
        (true, -8.0.., ..=8.0) => format!("(127.5 * {x} + 128).clip(0, 255)"),
        (true, -32.0.., ..=300.0) => format!("{x}.round().clip(0, 255)"),
        (false, 0.0.., ..=255.0) => x.to_string(),
        (_, 0.0.., ..=65535.0) => format!("({x} / 257).round()"),
        (_, -128.0.., ..=127.0) => format!("({x} + 128).round()"),
        _ => format!("interp({x}, [BLACK, WHITE], [0, 255]).round()"),
    };
    format!(
        "expected images of unsigned bytes (|u1), found {found} of shape {shape:?} and values from {least:.4} to \
         {most:.4}; NumPy's {bytes}.astype(\"u1\") makes them"
    )
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
