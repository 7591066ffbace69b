//! Folders of image files: one folder per class, or images directly inside and then no labels. A folder with
//! a `dataset.json` is an unpacked EDM zip, its folders are no classes.

use super::input::{open as open_file, read_file};
use super::labels::{Described, parse_labels};
use super::layout::{Files, MAX_JSON_BYTES, arrange, is_hidden, is_image};
use super::open::Reader;
use super::source::{Source, StoredImages};
use crate::error::{OrExit as _, data};
use crate::memory::Budget;
use anyhow::Result;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Folders within each other, more of which are a slip or a loop of links.
const MAX_DEPTH: usize = 16;

pub const READER: Reader = Reader {
    what: "folder of images",
    claims: |files| files.folders,
    open: |files| open(&files.paths, files.budget),
};

/// Opens one folder of images, of class folders or of an unpacked EDM zip, or several folders of images.
///
/// # Errors
/// Data errors that begin with the file: unreadable, no images, images that are no plain files, and those of
/// [`arrange`]. Over the budget (exit 4).
fn open(paths: &[PathBuf], budget: &Budget) -> Result<Source> {
    if let [path] = paths {
        return open_one(path, budget);
    }
    let (mut images, mut names, mut groups) = (Vec::new(), Vec::new(), Vec::new());
    for (group, path) in paths.iter().enumerate() {
        let found = list(path, 1)?;
        if let Some((_, folder)) = found.iter().find(|(name, _)| name.ends_with('/')) {
            return Err(data(format!(
                "{}: expected images only, when several folders are given",
                folder.display()
            )));
        }
        let shown = |name: &str| path.join(name).display().to_string();
        let of = found.iter().map(|(name, _)| name.as_str()).collect();
        let set = path.display().to_string();
        let files = Files { names: of, shown: &shown, set: &set, one_is_a_class: true };
        let arranged = arrange(&files, |_, _| Ok(Described::default()))?;
        groups.extend(arranged.images.iter().map(|_| group as u32));
        let folder = path.file_name().unwrap_or_default().to_string_lossy();
        names.extend(arranged.images.iter().map(|&i| format!("{folder}/{}", found[i].0)));
        images.extend(arranged.images.into_iter().map(|i| found[i].1.clone()));
    }
    let name = paths[0].display().to_string();
    let mut source = Source::new(name, None, StoredImages::Files(images), budget);
    (source.names, source.groups) = (names, Some(groups));
    source.slow = true;
    Ok(source)
}

fn open_one(path: &Path, budget: &Budget) -> Result<Source> {
    let found = list(path, MAX_DEPTH)?;
    let shown = |name: &str| path.join(name).display().to_string();
    let names = found.iter().map(|(name, _)| name.as_str()).collect();
    let set = path.display().to_string();
    let files = Files { names, shown: &shown, set: &set, one_is_a_class: true };
    let arranged = arrange(&files, |json, images| {
        let file = &found[json].1;
        let (json, _spent) = read_file(file, MAX_JSON_BYTES, budget)?;
        parse_labels(&json, images, &file.display().to_string())
    })?;
    let images: Vec<_> = arranged.images.iter().map(|&i| found[i].1.clone()).collect();
    let count = images.len();
    let mut source = Source::new(set, arranged.labels, StoredImages::Files(images), budget);
    source.groups = source.groups.or(Some(vec![0; count]));
    (source.names, source.notes) = (arranged.names, arranged.notes);
    source.slow = true;
    Ok(source)
}

/// What a folder holds that is not hidden, `depth` folders deep: names from it on, folders' with a `/` at the end, and
/// paths.
fn list(root: &Path, depth: usize) -> Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    let mut folders = vec![(String::new(), root.to_path_buf(), 1)];
    while let Some((prefix, folder, level)) = folders.pop() {
        let what = || folder.display().to_string();
        if level > MAX_DEPTH {
            return Err(data(format!("{}: more than {MAX_DEPTH} folders deep", what())));
        }
        for entry in fs::read_dir(&folder).or_data(what)? {
            let path = entry.or_data(what)?.path();
            let base = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if is_hidden(&base) {
                continue;
            }
            let name = prefix.clone() + &base;
            let kind = match fs::metadata(&path) {
                Ok(found) => Some(found.file_type()),
                Err(e) if e.kind() == ErrorKind::NotFound => None, // a link that leads nowhere
                Err(e) => return Err(e).or_data(|| path.display().to_string()),
            };
            if kind.is_some_and(|kind| kind.is_dir()) {
                if level < depth || depth == MAX_DEPTH {
                    folders.push((name.clone() + "/", path.clone(), level + 1));
                }
                found.push((name + "/", path));
                continue;
            }
            if is_image(&name) && !kind.is_some_and(|kind| kind.is_file()) {
                open_file(&path)?; // which says what it is instead
            }
            found.push((name, path));
        }
    }
    found.sort();
    Ok(found)
}
