//! Which reader a set is for: each format's own says whether files are its.

use super::archive::Archive;
use super::input::gunzip;
use super::layout::{is_hidden, is_image};
use super::options::Options;
use super::source::Source;
use crate::error::{OrExit as _, data, usage};
use crate::memory::Budget;
use anyhow::Result;
use std::borrow::Cow;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// Files that somebody gave as one set.
pub struct Candidate<'a> {
    /// At least one.
    pub paths: Cow<'a, [PathBuf]>,
    /// Whether they are folders; all are or none.
    pub folders: bool,
    /// The first bytes of the first file, unpacked if it is gzipped.
    pub head: Vec<u8>,
    /// If it is a zip.
    pub archive: Option<Archive>,
    /// What the user may not expect of how the files were chosen.
    pub notes: Vec<String>,
    pub options: &'a Options,
    pub budget: &'a Budget,
}

/// A format.
pub struct Reader {
    /// What it reads, as `expected …` says it.
    pub what: &'static str,
    pub claims: fn(&Candidate) -> bool,
    pub open: fn(Candidate) -> Result<Source>,
}

impl<'a> Candidate<'a> {
    fn new(paths: &'a [PathBuf], options: &'a Options, budget: &'a Budget) -> Result<Self> {
        let is_folder = |path: &PathBuf| {
            anyhow::Ok(fs::metadata(path).or_data(|| path.display().to_string())?.is_dir())
        };
        let folders = paths.iter().map(is_folder).collect::<Result<Vec<_>>>()?;
        let (head, paths, notes) = (Vec::new(), Cow::Borrowed(paths), Vec::new());
        let mut one =
            Candidate { paths, folders: true, head, archive: None, notes, options, budget };
        if folders.iter().all(|&is| is) {
            match shards(&one.paths)? {
                Some((shards, notes)) => (one.paths, one.notes) = (Cow::Owned(shards), notes),
                None => return Ok(one),
            }
        }
        let paths = &one.paths;
        if let Some(dir) = paths.iter().find(|path| path.is_dir()) {
            let dir = dir.display();
            return Err(usage(format!("{dir}: folders and files cannot be mixed")));
        }
        one.folders = false;
        one.head = read_head(&paths[0])?;
        if paths.len() == 1 && one.head.starts_with(b"PK") {
            one.archive = Some(Archive::open(&paths[0], budget)?);
        }
        Ok(one)
    }

    /// Whether all files end so.
    pub fn all_end_in(&self, extension: &str) -> bool {
        !self.folders && self.paths.iter().all(|p| p.extension().is_some_and(|e| e == extension))
    }
}

/// Opens a set by the first of `readers` that claims it.
///
/// # Errors
/// As [`super::open_any`].
pub fn open_by(
    readers: &[Reader],
    paths: &[PathBuf],
    options: &Options,
    budget: &Budget,
) -> Result<Source> {
    let files = Candidate::new(paths, options, budget)?;
    if let Some(reader) = readers.iter().find(|reader| (reader.claims)(&files)) {
        let notes = files.notes.clone();
        let mut source = (reader.open)(files)?.with(options);
        source.notes.splice(0..0, notes);
        return Ok(source);
    }
    if let [_, second, ..] = paths {
        return Err(usage(format!(
            "{}: one source at a time, except folders, CIFAR batches (.bin), Parquet files, WebDataset tars, or images with labels (IDX, STL-10)",
            second.display()
        )));
    }
    let known: Vec<&str> = readers.iter().map(|reader| reader.what).collect();
    let (last, others) = known.split_last().expect("there are readers");
    Err(data(format!(
        "{}: expected an {} or {last}, found something else",
        paths[0].display(),
        others.join(", ")
    )))
}

/// The files of a folder that holds a set in parts, Parquet or tar, in the order of their names, and notes on them; none
/// if it does not. Where parts of training and of tests lie side by side, those of training are the set.
fn shards(folders: &[PathBuf]) -> Result<Option<(Vec<PathBuf>, Vec<String>)>> {
    const DEPTH: usize = 2;
    let [folder] = folders else { return Ok(None) };
    let ends = |path: &Path, end: &str| path.extension().is_some_and(|e| e == end);
    let mut found = Vec::new();
    let mut left = vec![(folder.clone(), DEPTH)];
    while let Some((folder, depth)) = left.pop() {
        let what = || folder.display().to_string();
        for entry in fs::read_dir(&folder).or_data(what)? {
            let path = entry.or_data(what)?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if is_hidden(&name) {
                continue;
            }
            // A folder of images is another's.
            if is_image(&name) {
                return Ok(None);
            }
            if ends(&path, "parquet") || ends(&path, "tar") {
                found.push(path);
            } else if depth > 1 && path.is_dir() {
                left.push((path, depth - 1));
            }
        }
    }
    found.sort();
    let parquet = found.iter().any(|path| ends(path, "parquet"));
    found.retain(|path| ends(path, if parquet { "parquet" } else { "tar" }));
    let trains = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("train")
    };
    let mut notes = Vec::new();
    if found.iter().any(trains)
        && let Some(other) = found.iter().find(|path| !trains(path))
    {
        notes.push(format!(
            "{}: its files train* are read, not {}; give files themselves for others",
            folder.display(),
            other.display()
        ));
        found.retain(trains);
    }
    Ok(if found.is_empty() { None } else { Some((found, notes)) })
}

/// The first bytes of a file, unpacked if it is gzipped.
fn read_head(path: &Path) -> Result<Vec<u8>> {
    let what = || path.display().to_string();
    let mut head = Vec::new();
    gunzip(path)?.take(512).read_to_end(&mut head).or_data(what)?;
    if head.is_empty() {
        return Err(data(format!("{}: the file is empty", what())));
    }
    Ok(head)
}
