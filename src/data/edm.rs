//! EDM's data set format: a zip of stored PNGs `00000/img00000000.png`… and `dataset.json`,
//! `{"labels": [["00000/img00000000.png", 6], …]}` or `{"labels": null}`. The order is that of the names. Sets that were
//! made of files keep what these were called, as `"names"` in `dataset.json`, which EDM's own programs pass over.

use super::archive::Archive;
use super::labels::parse_labels;
use super::layout::{Files, JSON, MAX_JSON_BYTES, arrange, numbered};
use super::npz::holds_arrays;
use super::open::Reader;
use super::source::{Source, StoredImages};
use super::stored_zip::StoredZip;
use super::{Dataset, Image};
use crate::files::write_atomic;
use crate::memory::Budget;
use anyhow::Result;
use rayon::prelude::*;
use serde::Serialize;
use std::path::Path;

#[derive(Serialize)]
struct Json<'a> {
    labels: Option<Vec<(String, u32)>>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    names: &'a [String],
}

/// Images encoded at a time, and bytes of them at most.
const CHUNK: usize = 1024;
const CHUNK_BYTES: usize = 32 << 20;

pub const READER: Reader = Reader {
    what: "EDM zip",
    claims: |files| files.archive.as_ref().is_some_and(|archive| !holds_arrays(archive)),
    open: |files| from_archive(files.archive.expect("a zip"), files.budget),
};

/// The images and labels of an archive.
///
/// # Errors
/// Data errors that begin with the file: those of [`arrange`], labels that are no integers, images without a label or
/// labels without an image. Over the budget (exit 4).
fn from_archive(archive: Archive, budget: &Budget) -> Result<Source> {
    let name = archive.file().to_string();
    let shown = |entry: &str| format!("{name}: {entry}");
    let names = archive.names().iter().map(String::as_str).collect();
    let files = Files { names, shown: &shown, set: &name, one_is_a_class: false };
    let arranged = arrange(&files, |json, images| {
        let what = shown(&archive.names()[json]);
        let (json, _spent) = archive.read(json, MAX_JSON_BYTES, budget)?;
        parse_labels(&json, images, &what)
    })?;
    let name_bytes = arranged.names.iter().map(|n| (n.len() + size_of::<String>()) as u64);
    budget.keep(name_bytes.sum(), || name.clone())?;
    let slow = !archive.names().iter().any(|name| name.rsplit('/').next() == Some(JSON));
    let images = StoredImages::Zip(archive, arranged.images);
    let mut source = Source::new(name, arranged.labels, images, budget);
    (source.names, source.notes) = (arranged.names, arranged.notes);
    source.slow = slow;
    Ok(source)
}

impl Dataset {
    /// Writes an EDM zip, whole or not at all; the same set gives the same bytes.
    ///
    /// # Errors
    /// As [`write_atomic`].
    pub fn save(&self, path: &Path, force: bool) -> Result<()> {
        write_atomic(path, force, |file| {
            let mut zip = StoredZip::new(file);
            let chunk = (CHUNK_BYTES / self.image_len().max(1)).clamp(1, CHUNK);
            for start in (0..self.len()).step_by(chunk) {
                let range = start..self.len().min(start + chunk);
                let side = self.resolution;
                let encode = |i| Image::encode(side, side, self.channels, self.image(i));
                let pngs = range.clone().into_par_iter().map(encode).collect::<Result<Vec<_>>>()?;
                for (i, png) in range.zip(pngs) {
                    zip.add(&numbered(i), &[&png])?;
                }
            }
            let label = |(i, &label): (usize, &u32)| (numbered(i), label);
            let labels = self.labels.as_ref().map(|l| l.iter().enumerate().map(label).collect());
            zip.add(JSON, &[&serde_json::to_vec(&Json { labels, names: &self.names })?])?;
            Ok(zip.finish()?)
        })
    }
}
