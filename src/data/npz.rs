//! Images in NumPy archives: `images`, `arr_0` or `samples`, unsigned bytes `[N,H,W,C]`, `[N,C,H,W]` or `[N,H,W]`, or floats
//! whose range the user says; `labels`.

use super::archive::Archive;
use super::npy::{self, Array, Element as _, Values};
use super::open::Reader;
use super::options::Options;
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
        Some(archive) => from_archive(archive, files.options, files.budget),
        None => from_npy(&files.paths[0], files.options, files.budget),
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
fn from_archive(archive: &Archive, options: &Options, budget: &Budget) -> Result<Source> {
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
    let mut source = of_array(name, array, labels, options, budget)?;
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
fn from_npy(path: &Path, options: &Options, budget: &Budget) -> Result<Source> {
    let array = npy::read_within(path, budget)?;
    of_array(path.display().to_string(), array, None, options, budget)
}

fn of_array(
    name: String,
    images: Array,
    labels: Option<Array>,
    options: &Options,
    budget: &Budget,
) -> Result<Source> {
    let (shape, pixels) = as_bytes(images, options, budget, &name)?;
    let (n, height, width, channels, planes) = match shape[..] {
        [h, w, channels @ (1 | 3)] if h > 3 && w > 3 => {
            return Err(data(format!(
                "{name}: expected images [N,H,W,C] or [N,H,W], found {shape:?}, one image of {channels} channels by its \
                 shape; NumPy's x[None] makes a set of it"
            )));
        }
        [n, h, w] => (n, h, w, 1, false),
        [n, h, w, c @ (1 | 3)] => (n, h, w, c, false),
        [n, c @ (1 | 3), h, w] => (n, h, w, c, c == 3),
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
    let pixels = match planes {
        true => {
            let _spent = budget.borrow(pixels.len() as u64, || name.clone())?;
            packed(&pixels, height * width)
        }
        false => pixels,
    };
    let labels = labels.map(|l| class_indices(l, n, &name)).transpose()?;
    let images = StoredImages::Packed { width, height, channels, pixels };
    Ok(Source::new(name, labels, images, budget))
}

/// Images [N, 3, H·W] as [N, H·W, 3].
pub fn packed(planes: &[u8], area: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(planes.len());
    for image in planes.chunks_exact(3 * area) {
        out.extend((0..area).flat_map(|p| [image[p], image[area + p], image[2 * area + p]]));
    }
    out
}

/// An array's shape, and its values as bytes: they are ones, or floats of the range that the options say.
fn as_bytes(
    images: Array,
    options: &Options,
    budget: &Budget,
    name: &str,
) -> Result<(Vec<usize>, Vec<u8>)> {
    if images.values.descr() == u8::DESCR {
        return images.of::<u8>(name);
    }
    let floats = matches!(images.values, Values::F32(_) | Values::F64(_));
    let Some(range) = options.range.filter(|_| floats) else {
        return Err(data(format!("{name}: {}", no_bytes(&images))));
    };
    let count = images.shape.iter().product::<usize>();
    budget.keep(count as u64, || name.into())?;
    let mut bytes = Vec::with_capacity(count);
    let mut take = |value: f64| match range.byte(value) {
        Some(byte) => {
            bytes.push(byte);
            Ok(())
        }
        None => {
            let ([black, white], each) = (range.ends(), count / images.shape[0].max(1));
            let image = bytes.len() / each.max(1);
            Err(data(format!(
                "{name}: image {image} holds {value}, outside of {black} to {white}; another --range, or NumPy's \
                 x.clip({black}, {white}), takes it"
            )))
        }
    };
    match &images.values {
        Values::F32(values) => values.iter().try_for_each(|&v| take(v.into()))?,
        Values::F64(values) => values.iter().try_for_each(|&v| take(v))?,
        _ => {}
    }
    Ok((images.shape, bytes))
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
    if let (true, -1.0.., ..=1.0) = (floats, least, most) {
        return format!(
            "expected images of unsigned bytes (|u1), found {found} of shape {shape:?} and values from {least:.4} to \
             {most:.4}; --range 0,1 or --range=-1,1 says what black and white are"
        );
    }
    let bytes = match (floats, least, most) {
        // Floats may be a network's, which overshoots.
        (true, -0.3.., ..=1.3) => "(255 * x).round().clip(0, 255)",
        (true, -8.0.., ..=8.0) => "(127.5 * x + 128).clip(0, 255)",
        (true, -32.0.., ..=300.0) => "x.round().clip(0, 255)",
        (false, 0.0.., ..=255.0) => "x",
        (_, 0.0.., ..=65535.0) => "(x / 257).round()",
        (_, -128.0.., ..=127.0) => "(x + 128).round()",
        _ => "interp(x, [BLACK, WHITE], [0, 255]).round()",
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
