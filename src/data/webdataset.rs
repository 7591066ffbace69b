//! WebDataset: tars whose files of one name but for the ending belong together, as `0001.jpg` and `0001.cls` or
//! `0001.json` with its label.

use super::decode::is_image_file;
use super::input::{gunzip, map};
use super::layout::{is_hidden, is_image};
use super::open::{Candidate, Reader};
use super::source::{Place, Source, Store, StoredImages};
use super::tarball::{Member, is_tar, walk};
use crate::error::{OrExit as _, data};
use crate::memory::{Budget, Size};
use anyhow::Result;
use serde_json::Value;
use std::collections::HashMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// Bytes that a file with a label may take.
const MAX_LABEL: u64 = 1 << 20;
/// Memory that an image takes beside its bytes and name.
const IMAGE_BYTES: u64 = 256;
/// What a label is called in a `.json`.
const LABELS: [&str; 4] = ["label", "cls", "class", "fine_label"];

pub const READER: Reader =
    Reader { what: "WebDataset tar", claims, open: |files| open(&files.paths, files.budget) };

fn claims(files: &Candidate) -> bool {
    if files.folders || !is_tar(&files.head) {
        return false;
    }
    let mut found = false;
    // What is wrong is said by who reads it.
    let _ = walk(&files.paths[0], files.budget, |member| {
        let plain = member.check_plain().is_ok() && !is_hidden(&member.name);
        found = plain && kind(&member.name).is_some();
        Ok(!plain)
    });
    found
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Image,
    Class,
    Json,
}

/// What a member holds by its ending, if that is known.
fn kind(name: &str) -> Option<Kind> {
    match name.rsplit_once('.')?.1 {
        "cls" => Some(Kind::Class),
        "json" => Some(Kind::Json),
        _ => is_image(name).then_some(Kind::Image),
    }
}

/// A member's name without its ending, which begins at the first dot behind the folder.
fn key(name: &str) -> &str {
    let base = name.rfind('/').map_or(0, |at| at + 1);
    name[base..].find('.').map_or(name, |dot| &name[..base + dot])
}

/// The files of one name.
#[derive(Default)]
struct Sample {
    image: Option<(String, Place)>,
    label: Option<u32>,
}

/// Opens shards, in the order given.
///
/// # Errors
/// Data errors that begin with the file and name the member: a broken tar, files of one name without an image or with
/// two, labels that are no class index, images of which some have labels. Over the budget (exit 4).
fn open(paths: &[PathBuf], budget: &Budget) -> Result<Source> {
    let name = paths[0].display().to_string();
    let (mut stores, mut samples) = (Vec::new(), Vec::new());
    for path in paths {
        read_shard(path, budget, &mut stores, &mut samples)?;
    }
    if samples.is_empty() {
        return Err(data(format!("{name}: holds no images")));
    }
    let without = samples.iter().find(|s| s.label.is_none()).map(shown);
    let with = samples.iter().find(|s| s.label.is_some()).map(shown);
    if let (Some(without), Some(with)) = (&without, with) {
        return Err(data(format!(
            "{name}: {without} has no label, {with} has one; all have one or none"
        )));
    }
    let labels = without.is_none().then(|| samples.iter().filter_map(|s| s.label).collect());
    let (names, places) = samples.into_iter().filter_map(|s| s.image).unzip();
    let mut source = Source::new(name, labels, StoredImages::Within(stores, places), budget);
    (source.names, source.slow) = (names, true);
    Ok(source)
}

fn shown(sample: &Sample) -> String {
    sample.image.as_ref().map_or(String::new(), |(name, _)| name.clone())
}

fn read_shard(
    path: &Path,
    budget: &Budget,
    stores: &mut Vec<Store>,
    samples: &mut Vec<Sample>,
) -> Result<()> {
    let file = path.display().to_string();
    let mut start = Vec::new();
    gunzip(path)?.take(512).read_to_end(&mut start).or_data(|| file.clone())?;
    if !is_tar(&start) {
        return Err(data(format!("{file}: expected a tar, as the others are")));
    }
    let mapped = map(path).ok().filter(|map| !map.starts_with(&[0x1F, 0x8B]));
    let shard = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let first = stores.len() as u32;
    let is_mapped = mapped.is_some();
    let bytes = mapped.as_ref().map_or(0, |map| map.len() as u64);
    stores.extend(mapped.map(Store::Mapped));
    let mut of_key: HashMap<String, usize> = HashMap::new();
    let before = samples.len();
    walk(path, budget, |member| {
        let Some(kind) = kind(&member.name).filter(|_| !is_hidden(&member.name)) else {
            return Ok(true);
        };
        member.check_plain()?;
        budget.keep(IMAGE_BYTES + 4 * member.name.len() as u64, || member.what.clone())?;
        let at = *of_key.entry(key(&member.name).into()).or_insert(samples.len());
        if at == samples.len() {
            samples.push(Sample::default());
        }
        if kind != Kind::Image {
            return read_label(member, kind, &mut samples[at], budget).map(|()| true);
        }
        let place = match is_mapped {
            true => {
                let (start, end) = (member.start(), member.start().saturating_add(member.size));
                if end > bytes {
                    return Err(data(format!("{}: cut off", member.what)));
                }
                (first, start as usize..end as usize)
            }
            false => {
                let (read, spent) = member.read(budget)?;
                std::mem::forget(spent); // they stay
                stores.push(Store::Read(read));
                (stores.len() as u32 - 1, 0..member.size as usize)
            }
        };
        let (store, range) = &place;
        if !is_image_file(&stores[*store as usize][range.clone()]) {
            return Err(data(format!("{}: expected an image, found something else", member.what)));
        }
        let name = format!("{shard}/{}", member.name);
        if samples[at].image.replace((name, place)).is_some() {
            return Err(data(format!("{}: a second image of this name", member.what)));
        }
        Ok(true)
    })?;
    let key_of = |i: usize| of_key.iter().find(|(_, at)| **at == i).map_or("", |(key, _)| key);
    match samples[before..].iter().position(|s| s.image.is_none()) {
        Some(i) => Err(data(format!("{file}: {}: a label without an image", key_of(before + i)))),
        None => Ok(()),
    }
}

fn read_label(member: &mut Member, kind: Kind, sample: &mut Sample, budget: &Budget) -> Result<()> {
    if member.size > MAX_LABEL {
        let (what, size) = (&member.what, Size(member.size));
        return Err(data(format!("{what}: expected a class index, found {size}")));
    }
    let what = member.what.clone();
    let (bytes, _spent) = member.read(budget)?;
    let text = String::from_utf8_lossy(&bytes);
    let wrong = |found: &str| {
        let found: String = found.chars().take(40).collect();
        data(format!("{what}: expected a class index, found {found:?}"))
    };
    let label = match kind {
        Kind::Class => text.trim().parse().map_err(|_| wrong(&text))?,
        _ => {
            let json: Value = serde_json::from_slice(&bytes).or_data(|| what.clone())?;
            // Other things than labels stand there, too.
            let Some(value) = LABELS.iter().find_map(|key| json.get(key)) else { return Ok(()) };
            let index = value.as_u64().and_then(|label| u32::try_from(label).ok());
            index.ok_or_else(|| wrong(&value.to_string()))?
        }
    };
    match sample.label.replace(label) {
        Some(other) if other != label => {
            Err(data(format!("{what}: label {label}, another file of this name says {other}")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_ends_at_the_first_dot_of_the_file() {
        let keys = ["a.b/0001.seg.png", "0001.cls", "x/y", ".hidden"].map(key);
        assert_eq!(keys, ["a.b/0001", "0001", "x/y", ""]);
        let kinds = ["a.seg.png", "a.jpg", "a.cls", "a.json", "a.txt", "a"].map(kind);
        assert_eq!(kinds[..3], [Some(Kind::Image), Some(Kind::Image), Some(Kind::Class)]);
        assert_eq!(kinds[3..], [Some(Kind::Json), None, None]);
    }
}
