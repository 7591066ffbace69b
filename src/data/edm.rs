//! EDM's data set format: a zip of stored PNGs `00000/img00000000.png`… and `dataset.json`,
//! `{"labels": [["00000/img00000000.png", 6], …]}` or `{"labels": null}`. The order is that of the names.

use super::archive::Archive;
use super::source::{Images, Source};
use super::stored_zip::StoredZip;
use super::{Dataset, Image};
use crate::error::{OrExit as _, data};
use crate::files::write_atomic;
use anyhow::Result;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::Path;

const JSON: &str = "dataset.json";
/// Bytes that `dataset.json` may take: over a million images.
pub const MAX_JSON_BYTES: u64 = 256 << 20;
/// Images encoded at a time.
const CHUNK: usize = 1024;

#[derive(Serialize, Deserialize)]
struct Json {
    labels: Option<Vec<(String, serde_json::Value)>>,
}

/// Opens an EDM zip; images are decoded when asked for.
///
/// # Errors
/// Data errors that begin with the file: as [`Archive::open`], no images, labels that are no integers,
/// images without a label or labels without an image.
pub fn open(path: &Path) -> Result<Source> {
    from_archive(Archive::open(path)?)
}

/// The images and labels of an archive that is already open.
///
/// # Errors
/// As [`open`].
pub fn from_archive(archive: Archive) -> Result<Source> {
    let names = archive.names();
    let mut entries: Vec<usize> = (0..names.len()).filter(|&i| is_image(&names[i])).collect();
    entries.sort_by(|&a, &b| names[a].cmp(&names[b]));
    let images: Vec<&str> = entries.iter().map(|&i| names[i].as_str()).collect();
    if images.is_empty() {
        return Err(data(format!("{}: holds no images", archive.file())));
    }
    let labels = match names.iter().position(|n| n == JSON) {
        Some(i) => {
            let what = format!("{}: {JSON}", archive.file());
            parse_labels(&archive.read(i, MAX_JSON_BYTES)?, &images, &what)?
        }
        None => None,
    };
    let name = archive.file().to_string();
    Ok(Source { name, groups: labels.clone(), labels, images: Images::Zip(archive, entries) })
}

/// Whether a file of this name is taken for an image. Hidden files are not, wherever they lie.
pub fn is_image(name: &str) -> bool {
    let base = name.rsplit('/').next().unwrap_or(name);
    let extension = base.rsplit_once('.').map_or("", |(_, e)| e).to_ascii_lowercase();
    !base.starts_with('.') && matches!(extension.as_str(), "png" | "jpg" | "jpeg")
}

/// The label of each of `images` from the text of a `dataset.json`, by name.
///
/// # Errors
/// Data errors that begin with `what`.
pub fn parse_labels(json: &[u8], images: &[&str], what: &str) -> Result<Option<Vec<u32>>> {
    let json: Json = serde_json::from_slice(json).or_data(|| {
        format!(
            "{what}: expected {{\"labels\": [[\"name\", integer], ...]}} or {{\"labels\": null}}"
        )
    })?;
    let Some(list) = json.labels else { return Ok(None) };
    let mut by_name = HashMap::with_capacity(list.len());
    for (name, value) in &list {
        let Some(label) = value.as_u64().and_then(|l| u32::try_from(l).ok()) else {
            return Err(data(format!(
                "{what}: expected one class index as the label of {name:?}, found {value}"
            )));
        };
        if by_name.insert(name.as_str(), label).is_some() {
            return Err(data(format!("{what}: two labels for {name:?}")));
        }
    }
    let mut labels = Vec::with_capacity(images.len());
    for &image in images {
        let Some(&label) = by_name.get(image) else {
            return Err(data(format!("{what}: no label for {image:?}")));
        };
        labels.push(label);
    }
    if by_name.len() != images.len() {
        let (l, i) = (by_name.len(), images.len());
        return Err(data(format!("{what}: {l} labels for {i} images")));
    }
    Ok(Some(labels))
}

/// Writes an EDM zip, whole or not at all; the same set gives the same bytes.
///
/// # Errors
/// As [`write_atomic`].
pub fn write(set: &Dataset, path: &Path, force: bool) -> Result<()> {
    write_atomic(path, force, |file| {
        let mut zip = StoredZip::new(file);
        for start in (0..set.len()).step_by(CHUNK) {
            let range = start..set.len().min(start + CHUNK);
            let side = set.resolution;
            let encode = |i| Image::encode(side, side, set.channels, set.image(i));
            let pngs = range.clone().into_par_iter().map(encode).collect::<Result<Vec<_>>>()?;
            for (i, png) in range.zip(pngs) {
                zip.add(&entry_name(i), &[&png])?;
            }
        }
        let label = |(i, &label): (usize, &u32)| (entry_name(i), label.into());
        let labels = set.labels.as_ref().map(|l| l.iter().enumerate().map(label).collect());
        zip.add(JSON, &[&serde_json::to_vec(&Json { labels })?])?;
        Ok(zip.finish()?)
    })
}

fn entry_name(i: usize) -> String {
    format!("{:05}/img{i:08}.png", i / 1000)
}
