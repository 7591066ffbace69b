//! Files as they are opened and read: plain files only, unpacked if they are gzipped, within the budget.

use crate::error::{Exit, OrExit as _, data, fail};
use crate::files;
use crate::memory::{Budget, Size, Spent};
use anyhow::Result;
use flate2::read::MultiGzDecoder;
use memmap2::Mmap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, ErrorKind, Read};
use std::path::Path;

/// Opens a plain file for reading.
///
/// # Errors
/// Data errors that begin with the file: missing, unreadable, a folder, pipe, device or socket.
pub fn open(path: &Path) -> Result<File> {
    files::open(path).or_data(|| path.display().to_string())
}

/// Maps a file that is not empty.
///
/// # Errors
/// As [`open`]; empty.
pub fn map(path: &Path) -> Result<Mmap> {
    let what = || path.display().to_string();
    let file = open(path)?;
    if file.metadata().or_data(what)?.len() == 0 {
        return Err(data(format!("{}: the file is empty", what())));
    }
    // SAFETY: the mapping is private and read only. As everywhere with mappings, another process that
    // shortens the file meanwhile ends this one by a signal; it cannot make it read foreign memory.
    match unsafe { Mmap::map(&file) } {
        Err(e) if e.kind() == ErrorKind::OutOfMemory => {
            let why = "the system has no place for it among this process's addresses (`ulimit -v`)";
            Err(fail(Exit::Device, format!("{}: {why}", what())))
        }
        mapped => mapped.or_data(what),
    }
}

/// A reader of a file that unpacks gzip.
///
/// # Errors
/// As [`open`].
pub fn gunzip(path: &Path) -> Result<Box<dyn Read>> {
    let what = || path.display().to_string();
    let mut file = BufReader::with_capacity(1 << 16, open(path)?);
    let gzipped = file.fill_buf().or_data(what)?.starts_with(&[0x1F, 0x8B]);
    Ok(if gzipped { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) })
}

/// A whole file of at most `limit` bytes, unpacked if it is gzipped, and its share of the budget.
///
/// # Errors
/// As [`open`]; empty, over the limit; over the budget (exit 4).
pub fn read_file(path: &Path, limit: u64, budget: &Budget) -> Result<(Vec<u8>, Spent)> {
    let what = || path.display().to_string();
    let (bytes, spent) = read_all(&mut gunzip(path)?, limit, budget, &what)?;
    match bytes.is_empty() {
        true => Err(data(format!("{}: the file is empty", what()))),
        false => Ok((bytes, spent)),
    }
}

/// All that `reader` gives, at most `limit` bytes, and its share of the budget, which is announced as it grows.
///
/// # Errors
/// Data errors that begin with `what`: the reader's, over the limit; over the budget (exit 4).
pub fn read_all(
    reader: &mut dyn Read,
    limit: u64,
    budget: &Budget,
    what: &dyn Fn() -> String,
) -> Result<(Vec<u8>, Spent)> {
    const FIRST: usize = 64 << 10;
    let mut spent = budget.borrow(FIRST as u64, what)?;
    let mut bytes = vec![0; FIRST];
    let mut len = 0;
    loop {
        if len == bytes.len() {
            // One byte over the limit shows that there are more.
            let more = len.min((limit + 1).saturating_sub(len as u64) as usize);
            spent.grow(more as u64, what)?;
            bytes.resize(len + more, 0);
        }
        match reader.read(&mut bytes[len..]) {
            Ok(0) => break,
            Ok(n) => len += n,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e).or_data(what),
        }
        if len as u64 > limit {
            return Err(data(format!("{}: more than {}", what(), Size(limit))));
        }
    }
    bytes.truncate(len);
    Ok((bytes, spent))
}
