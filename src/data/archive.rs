//! Zip files, mapped into memory: names are checked once, entries are read by any thread.

use crate::error::{OrExit as _, data};
use anyhow::Result;
use memmap2::Mmap;
use std::fs::File;
use std::io::{Cursor, Read as _};
use std::path::Path;
use std::sync::Arc;
use zip::ZipArchive;

/// An open zip file whose entry names are distinct and stay inside the archive.
pub struct Archive {
    file: String,
    names: Vec<String>,
    zip: ZipArchive<Cursor<Bytes>>,
}

#[derive(Clone)]
struct Bytes(Arc<Mmap>);

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Archive {
    /// Opens a zip file and checks the name of every entry.
    ///
    /// # Errors
    /// Data errors (exit 3) that begin with the file: missing, empty, no zip, truncated, an entry twice, an
    /// entry whose name is absolute or leads outside (`..`).
    pub fn open(path: &Path) -> Result<Self> {
        let file = path.display().to_string();
        let zip = ZipArchive::new(Cursor::new(Bytes(Arc::new(map(path)?)))).or_data(|| {
            format!("{file}: expected a zip file, found something else or a truncated one")
        })?;
        if zip.has_duplicate_names() {
            return Err(data(format!("{file}: two entries of this zip have the same name")));
        }
        let names = (zip.file_names().map(|n| n.map(|n| n.into_owned())))
            .collect::<Result<Vec<_>, _>>()
            .or_data(|| format!("{file}: unreadable entry name"))?;
        for name in &names {
            check_entry_name(&file, name)?;
        }
        Ok(Archive { file, names, zip })
    }

    /// Entry names in the order of the archive's directory.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The archive's path, as messages show it.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The bytes of entry `i`, of at most `limit` bytes, checksum verified.
    ///
    /// # Errors
    /// Data errors that name archive and entry: larger than `limit`, corrupt, encrypted.
    pub fn read(&self, i: usize, limit: u64) -> Result<Vec<u8>> {
        let what = || format!("{}: {}", self.file, self.names[i]);
        // Clones share the directory and the mapping.
        let mut zip = self.zip.clone();
        let mut entry = zip.by_index(i).or_data(what)?;
        let too_large = |size: u64| {
            data(format!("{}: {size} bytes or more, at most {limit} are accepted", what()))
        };
        if entry.size() > limit {
            return Err(too_large(entry.size()));
        }
        // A stored entry cannot be longer than the file; a compressed one may lie about its size.
        let plausible = entry.size().min(1032 * (entry.compressed_size() + 1));
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(plausible as usize).or_data(what)?;
        (&mut entry).take(limit + 1).read_to_end(&mut bytes).or_data(what)?;
        if bytes.len() as u64 > limit {
            return Err(too_large(bytes.len() as u64));
        }
        Ok(bytes)
    }
}

/// Maps a file that is not empty.
///
/// # Errors
/// Data errors that begin with the file: missing, unreadable, empty, a folder.
pub fn map(path: &Path) -> Result<Mmap> {
    let what = || path.display().to_string();
    let file = File::open(path).or_data(what)?;
    let meta = file.metadata().or_data(what)?;
    if !meta.is_file() {
        return Err(data(format!("{}: expected a file", what())));
    }
    if meta.len() == 0 {
        return Err(data(format!("{}: the file is empty", what())));
    }
    // SAFETY: the mapping is private and read only. As everywhere with mappings, another process that
    // shortens the file meanwhile ends this one by a signal; it cannot make it read foreign memory.
    unsafe { Mmap::map(&file) }.or_data(what)
}

/// Refuses names that would leave the folder an archive is unpacked to.
///
/// # Errors
/// A data error that begins with `file` and holds the name.
pub fn check_entry_name(file: &str, name: &str) -> Result<()> {
    let absolute = name.starts_with('/') || name.chars().nth(1) == Some(':');
    if absolute || name.contains(['\\', '\0']) || name.split('/').any(|part| part == "..") {
        return Err(data(format!("{file}: entry {name:?} leads outside the archive")));
    }
    Ok(())
}
