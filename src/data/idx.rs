//! IDX files (MNIST and its kin), plain or gzipped, labels in a file of their own.
//!
//! A header of big-endian u32: 0x803, images, rows, columns, then the pixels; or 0x801, labels, then a byte
//! each.

use super::input::read_file;
use super::open::Reader;
use super::source::{Source, StoredImages};
use crate::error::{OrExit as _, data};
use crate::memory::Budget;
use anyhow::Result;
use std::path::{Path, PathBuf};

const IMAGES: u32 = 0x803;
const LABELS: u32 = 0x801;
/// Bytes that an unpacked file may take.
const MAX_BYTES: u64 = 2 << 30;

pub const READER: Reader = Reader {
    what: "IDX file",
    claims: |files| files.paths.len() <= 2 && matches!(magic(&files.head), Some(IMAGES | LABELS)),
    open: |files| open(&files.paths, files.budget),
};

fn magic(bytes: &[u8]) -> Option<u32> {
    word(bytes, 0)
}

fn word(bytes: &[u8], i: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(4 * i..4 * i + 4)?.try_into().ok()?))
}

/// Opens one file of images, with the labels given as a second file or else beside it (`train-labels-idx1-ubyte`
/// for `train-images-idx3-ubyte`), if there is one.
///
/// # Errors
/// Data errors that begin with the file: corrupt, cut off, two of a kind, labels of another number. Over the budget
/// (exit 4).
fn open(paths: &[PathBuf], budget: &Budget) -> Result<Source> {
    let (mut images, mut labels) = (None, None);
    for path in paths {
        let (bytes, spent) = read_file(path, MAX_BYTES, budget)?;
        let slot = if magic(&bytes) == Some(LABELS) { &mut labels } else { &mut images };
        if slot.replace((path.clone(), bytes, spent)).is_some() {
            let path = path.display();
            return Err(data(format!("{path}: expected one IDX file of images and one of labels")));
        }
    }
    let Some((path, mut bytes, spent)) = images else {
        let path = paths[0].display();
        return Err(data(format!("{path}: holds IDX labels, expected a file of images beside it")));
    };
    if labels.is_none()
        && let Some(beside) = labels_beside(&path)?
    {
        let (bytes, spent) = read_file(&beside, MAX_BYTES, budget)?;
        labels = Some((beside, bytes, spent));
    }
    let name = path.display().to_string();
    let (dims, pixels) = parse(&name, &bytes, IMAGES)?;
    let ([n, height, width], start) = ([dims[0], dims[1], dims[2]], bytes.len() - pixels.len());
    bytes.drain(..start);
    std::mem::forget(spent); // they stay
    let labels = match labels {
        Some((path, bytes, _spent)) => {
            let name = path.display().to_string();
            let (_, labels) = parse(&name, &bytes, LABELS)?;
            if labels.len() != n {
                let found = labels.len();
                return Err(data(format!("{name}: {found} labels for {n} images")));
            }
            budget.keep(2 * 4 * n as u64, || name)?;
            Some(labels.iter().map(|&l| u32::from(l)).collect::<Vec<_>>())
        }
        None => None,
    };
    let images = StoredImages::Packed { width, height, channels: 1, pixels: bytes };
    Ok(Source::new(name, labels, images, budget))
}

/// Dimensions and data of an IDX file of the given kind.
fn parse<'a>(name: &str, bytes: &'a [u8], kind: u32) -> Result<(Vec<usize>, &'a [u8])> {
    let rank = (kind & 0xFF) as usize;
    let dims = (0..=rank).map(|i| word(bytes, i).map(|d| d as usize)).collect::<Option<Vec<_>>>();
    let dims = match dims {
        Some(dims) if dims[0] == kind as usize => dims[1..].to_vec(),
        _ => {
            let what = if kind == IMAGES { "images" } else { "labels" };
            return Err(data(format!("{name}: expected an IDX file of {what} (magic {kind:#x})")));
        }
    };
    let body = &bytes[4 * (rank + 1)..];
    let expected = dims.iter().try_fold(1_usize, |n, &d| n.checked_mul(d));
    if expected == Some(0) && body.is_empty() {
        return Err(data(format!("{name}: an IDX file of {dims:?}, which holds nothing")));
    }
    if expected != Some(body.len()) {
        return Err(data(format!(
            "{name}: an IDX header of {dims:?} does not fit {} bytes of data",
            body.len()
        )));
    }
    Ok((dims, body))
}

/// The existing file of labels that belongs to a file of images by name.
///
/// # Errors
/// A data error, where the system does not say whether there is one.
fn labels_beside(images: &Path) -> Result<Option<PathBuf>> {
    let name = images.file_name().unwrap_or_default().to_string_lossy();
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    let stem = ["images-idx3-ubyte", "images.idx3-ubyte"].iter().find_map(|end| {
        Some((name.strip_suffix(end)?, end.replace("images", "labels").replace("idx3", "idx1")))
    });
    let Some((stem, end)) = stem else { return Ok(None) };
    for name in [format!("{stem}{end}"), format!("{stem}{end}.gz")] {
        let path = images.with_file_name(name);
        if path.try_exists().or_data(|| path.display().to_string())? {
            return Ok(Some(path));
        }
    }
    Ok(None)
}
