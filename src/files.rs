//! Output files that are either whole or not there: written beside, synced, renamed. Input files that are files.

use crate::error::{Exit, Failed, OrExit as _, exit_of, fail, usage};
use anyhow::Result;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

mod cache;
mod temporary;

pub use cache::{cached, read_cache, write_cache};
use temporary::{Temporary, folder_of};
pub use temporary::{remove_abandoned, remove_all as remove_temporaries};

/// A text file of a run is no longer.
const MOST_TEXT_BYTES: u64 = 256 << 20;

/// Lets `work` fill a folder that is gone afterwards, where the system keeps such (`TMPDIR`).
///
/// # Errors
/// Other (exit 1): it cannot be made. Those of `work`.
pub fn in_passing_folder<T>(work: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
    let parent = std::env::temp_dir();
    let cannot = || format!("TMPDIR: {}: no folder can be made there", parent.display());
    let folder = Temporary::folder(&parent).or_exit(Exit::Other, cannot)?;
    work(&folder.path)
}

/// Refuses an output that would replace something. Commands call it before they work, so that hours of
/// work do not end here; [`write_atomic`] and [`write_dir_atomic`] ask again.
///
/// # Errors
/// Usage (exit 2) if `path` exists and `force` is false; other (1) if it is no plain file and no folder,
/// or if its folder does not exist.
pub fn check_output(path: &Path, force: bool) -> Result<()> {
    if path.file_name().is_none() {
        return Err(usage(format!("{}: names no file", path.display())));
    }
    let folder = folder_of(path);
    let why = match fs::metadata(folder) {
        Ok(found) if found.is_dir() => None,
        Ok(_) => Some("is no folder".to_string()),
        Err(e) if e.kind() == ErrorKind::NotFound => Some("does not exist".into()),
        Err(e) => Some(format!("cannot be looked at: {e}")),
    };
    if let Some(why) = why {
        return Err(cannot_write(path, &format!("{} {why}", folder.display())));
    }
    let found = match fs::symlink_metadata(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        // Whether there is something is not known: nothing is replaced.
        other => other.map_err(|e| cannot_write(path, &e.to_string()))?,
    };
    if !force {
        let path = path.display();
        return Err(usage(format!("{path}: exists already; give --force to replace it")));
    }
    let kind = fs::metadata(path).unwrap_or(found).file_type();
    if !kind.is_file() && !kind.is_dir() && !kind.is_symlink() {
        return Err(cannot_write(path, "it is a device, pipe or socket"));
    }
    Ok(())
}

/// What in a folder this program did not write there: a name, or nothing.
pub type Foreign<'a> = &'a dyn Fn(&Path) -> io::Result<Option<String>>;

/// A name in `folder` that is not among `known`, of what a command writes there, or nothing.
///
/// # Errors
/// The folder cannot be read.
pub fn stranger(folder: &Path, known: &[&str]) -> io::Result<Option<String>> {
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !known.contains(&name.as_str()) {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

/// [`check_output`] of a folder, which `force` replaces only where `foreign` finds nothing in it.
///
/// # Errors
/// As [`check_output`]; usage (exit 2) with what is foreign.
pub fn check_output_dir(path: &Path, force: bool, foreign: Foreign) -> Result<()> {
    check_output(path, force)?;
    if !path.exists() {
        return Ok(());
    }
    if !path.is_dir() {
        return Err(cannot_write(path, "it is a file, not a folder"));
    }
    match foreign(path).map_err(|e| cannot_write(path, &e.to_string()))? {
        None => Ok(()),
        Some(name) => Err(usage(format!(
            "{}: holds {name}, which this command did not write; --force replaces only what it wrote: \
             remove the folder or name another",
            path.display()
        ))),
    }
}

/// Writes a file whole or not at all: `write` fills a temporary file in the same folder, which is then
/// synced and renamed to `path`. A symbolic link is followed. On failure nothing is left behind.
///
/// # Errors
/// As [`check_output`]; what `write` returns, with `path` in front unless it is a [`Failed`], which names
/// its own file; input/output (exit 1).
pub fn write_atomic<T>(
    path: &Path,
    force: bool,
    write: impl FnOnce(&mut BufWriter<File>) -> Result<T>,
) -> Result<T> {
    check_output(path, force)?;
    if path.is_dir() {
        return Err(cannot_write(path, "it is a folder"));
    }
    let failed = |e: io::Error| cannot_write(path, &e.to_string());
    let target = target_of(path).map_err(failed)?;
    let (file, temporary) = Temporary::file(folder_of(&target)).map_err(failed)?;
    let mut file = BufWriter::new(file);
    let value = write(&mut file).map_err(|e| about(path, e))?;
    file.flush().and_then(|()| file.get_ref().sync_all()).map_err(failed)?;
    drop(file);
    check_output(path, force)?;
    temporary.rename_to(&target).map_err(failed)?;
    Ok(value)
}

/// [`write_atomic`] of these bytes.
///
/// # Errors
/// As [`write_atomic`].
pub fn write_bytes(path: &Path, force: bool, bytes: impl AsRef<[u8]>) -> Result<()> {
    write_atomic(path, force, |out| Ok(out.write_all(bytes.as_ref())?))
}

/// Builds a folder whole or not at all: `build` fills a temporary folder beside, which is then renamed.
/// With `force` a folder of that name is replaced, contents and all, unless `foreign` finds something in it.
///
/// # Errors
/// As [`write_atomic`] and [`check_output_dir`].
pub fn write_dir_atomic<T>(
    path: &Path,
    force: bool,
    foreign: Foreign,
    build: impl FnOnce(&Path) -> Result<T>,
) -> Result<T> {
    check_output_dir(path, force, foreign)?;
    let (temporary, value) = built(path, build)?;
    check_output_dir(path, force, foreign)?;
    put(temporary, path)?;
    Ok(value)
}

/// Builds a folder beside `path` and, where `build` says that it is to be taken, puts it there whole, in place of a folder
/// that is there; whether it did.
///
/// # Errors
/// As [`write_dir_atomic`].
pub fn replace_dir_if(path: &Path, build: impl FnOnce(&Path) -> Result<bool>) -> Result<bool> {
    let (temporary, taken) = built(path, build)?;
    if taken {
        put(temporary, path)?;
    }
    Ok(taken)
}

/// A folder that `build` has filled, to become `path`.
fn built<T>(path: &Path, build: impl FnOnce(&Path) -> Result<T>) -> Result<(Temporary, T)> {
    let failed = |e: io::Error| cannot_write(path, &e.to_string());
    let target = target_of(path).map_err(failed)?;
    let temporary = Temporary::folder(folder_of(&target)).map_err(failed)?;
    let value = build(&temporary.path).map_err(|e| about(path, e))?;
    sync_files(&temporary.path).map_err(failed)?;
    Ok((temporary, value))
}

/// Gives a filled folder its name.
fn put(temporary: Temporary, path: &Path) -> Result<()> {
    let failed = |e: io::Error| cannot_write(path, &e.to_string());
    let target = target_of(path).map_err(failed)?;
    let replaced = match target.is_dir() {
        true => temporary.replace(&target),
        false => temporary.rename_to(&target),
    };
    replaced.map_err(failed)
}

/// Opens a plain file for reading; a pipe is refused rather than waited for.
///
/// # Errors
/// Input/output, or what it is instead of a file.
pub fn open(path: &Path) -> io::Result<File> {
    let pipe = || io::Error::new(ErrorKind::InvalidInput, "a device or pipe, expected a file");
    let open = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let file = match open {
        // A socket.
        Err(e) if e.raw_os_error() == Some(libc::ENXIO) => return Err(pipe()),
        other => other?,
    };
    let kind = file.metadata()?.file_type();
    match kind {
        _ if kind.is_file() => Ok(file),
        _ if kind.is_dir() => {
            Err(io::Error::new(ErrorKind::IsADirectory, "a folder, expected a file"))
        }
        _ => Err(pipe()),
    }
}

/// The text of a file; `None` if there is none.
///
/// # Errors
/// As [`cannot_read`].
pub fn read_text(path: &Path) -> Result<Option<String>> {
    let read = || -> io::Result<String> {
        let mut text = String::new();
        open(path)?.take(MOST_TEXT_BYTES + 1).read_to_string(&mut text)?;
        match text.len() as u64 > MOST_TEXT_BYTES {
            true => Err(io::Error::new(ErrorKind::InvalidData, "far too long")),
            false => Ok(text),
        }
    };
    match read() {
        Ok(text) => Ok(Some(text)),
        Err(e) if [ErrorKind::NotFound, ErrorKind::NotADirectory].contains(&e.kind()) => Ok(None),
        Err(e) => Err(cannot_read(path, e)),
    }
}

/// A running checksum, CRC-32: no change of up to 32 bits in a row escapes it.
#[derive(Default)]
pub struct Checksum(flate2::Crc);

impl Checksum {
    pub fn of(bytes: &[u8]) -> String {
        let mut sum = Checksum::default();
        sum.update(bytes);
        sum.text()
    }

    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Eight hexadecimal digits.
    pub fn text(&self) -> String {
        format!("{:08x}", self.0.sum())
    }
}

/// Why a file was not read: what it is is the data's fault (exit 3), all else the machine's (exit 1).
pub fn cannot_read(path: &Path, e: io::Error) -> anyhow::Error {
    fail(exit_of(&e), format!("{}: cannot read: {e}", path.display()))
}

fn cannot_write(path: &Path, why: &str) -> anyhow::Error {
    fail(Exit::Other, format!("{}: cannot write: {why}", path.display()))
}

/// Puts the output's name before an error that does not name a file of its own.
fn about(path: &Path, e: anyhow::Error) -> anyhow::Error {
    if e.is::<Failed>() { e } else { cannot_write(path, &format!("{e:#}")) }
}

/// Where a path leads, if it is a symbolic link; one that leads nowhere is itself replaced.
fn target_of(path: &Path) -> io::Result<PathBuf> {
    match fs::canonicalize(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(path.into()),
        other => other,
    }
}

fn sync_files(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_files(&entry.path())?;
        } else {
            File::open(entry.path())?.sync_all()?;
        }
    }
    Ok(())
}
