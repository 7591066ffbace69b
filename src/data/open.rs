//! Which reader a set is for: each format's own says whether files are its.

use super::archive::Archive;
use super::input::gunzip;
use super::source::Source;
use crate::error::{OrExit as _, data, usage};
use crate::memory::Budget;
use anyhow::Result;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// Files that somebody gave as one set.
pub struct Candidate<'a> {
    /// At least one.
    pub paths: &'a [PathBuf],
    /// Whether they are folders; all are or none.
    pub folders: bool,
    /// The first bytes of the first file, unpacked if it is gzipped.
    pub head: Vec<u8>,
    /// If it is a zip.
    pub archive: Option<Archive>,
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
    fn new(paths: &'a [PathBuf], budget: &'a Budget) -> Result<Self> {
        let is_folder = |path: &PathBuf| {
            anyhow::Ok(fs::metadata(path).or_data(|| path.display().to_string())?.is_dir())
        };
        let folders = paths.iter().map(is_folder).collect::<Result<Vec<_>>>()?;
        let mut one = Candidate { paths, folders: true, head: Vec::new(), archive: None, budget };
        if folders.iter().all(|&is| is) {
            return Ok(one);
        }
        if let Some(dir) = folders.iter().position(|&is| is) {
            let dir = paths[dir].display();
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
pub fn open_by(readers: &[Reader], paths: &[PathBuf], budget: &Budget) -> Result<Source> {
    let files = Candidate::new(paths, budget)?;
    if let Some(reader) = readers.iter().find(|reader| (reader.claims)(&files)) {
        return (reader.open)(files);
    }
    if let [_, second, ..] = paths {
        return Err(usage(format!(
            "{}: one source at a time, except folders, CIFAR-10 batches (.bin), or IDX images with labels",
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
