//! Output files that are either whole or not there: written beside, synced, renamed.

use crate::error::{Exit, Failure, fail, usage};
use anyhow::Result;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

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
    if !folder.is_dir() {
        let why = if folder.exists() { "is no folder" } else { "does not exist" };
        return Err(cannot_write(path, &format!("{} {why}", folder.display())));
    }
    let Ok(found) = fs::symlink_metadata(path) else { return Ok(()) };
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

/// Writes a file whole or not at all: `write` fills a temporary file in the same folder, which is then
/// synced and renamed to `path`. A symbolic link is followed. On failure nothing is left behind.
///
/// # Errors
/// As [`check_output`]; what `write` returns, with `path` in front unless it is a [`Failure`], which names
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
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let (file, temporary) =
        beside(&target, |p| OpenOptions::new().write(true).read(true).create_new(true).open(p))
            .map_err(|e| cannot_write(path, &e.to_string()))?;
    let mut file = BufWriter::new(file);
    let value = write(&mut file).map_err(|e| about(path, e))?;
    file.flush()
        .and_then(|()| file.get_ref().sync_all())
        .map_err(|e| cannot_write(path, &e.to_string()))?;
    drop(file);
    check_output(path, force)?;
    temporary.rename_to(&target).map_err(|e| cannot_write(path, &e.to_string()))?;
    Ok(value)
}

/// Builds a folder whole or not at all: `build` fills a temporary folder beside, which is then renamed.
/// With `force` a folder of that name is replaced, contents and all.
///
/// # Errors
/// As [`write_atomic`].
pub fn write_dir_atomic<T>(
    path: &Path,
    force: bool,
    build: impl FnOnce(&Path) -> Result<T>,
) -> Result<T> {
    check_output(path, force)?;
    if path.exists() && !path.is_dir() {
        return Err(cannot_write(path, "it is a file, not a folder"));
    }
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let failed = |e: io::Error| cannot_write(path, &e.to_string());
    let ((), temporary) = beside(&target, |p| fs::create_dir(p)).map_err(failed)?;
    let value = build(&temporary.0).map_err(|e| about(path, e))?;
    sync_files(&temporary.0).map_err(failed)?;
    check_output(path, force)?;
    if target.is_dir() {
        // A folder cannot be renamed over a full one: the old one steps aside, and goes at the end.
        let ((), aside) = beside(&target, |p| fs::create_dir(p)).map_err(failed)?;
        let old = aside.0.join("old");
        fs::rename(&target, &old).map_err(failed)?;
        if let Err(e) = temporary.rename_to(&target) {
            let _ = fs::rename(&old, &target);
            return Err(failed(e));
        }
    } else {
        temporary.rename_to(&target).map_err(failed)?;
    }
    Ok(value)
}

fn cannot_write(path: &Path, why: &str) -> anyhow::Error {
    fail(Exit::Other, format!("{}: cannot write: {why}", path.display()))
}

/// Puts the output's name before an error that does not name a file of its own.
fn about(path: &Path, e: anyhow::Error) -> anyhow::Error {
    if e.is::<Failure>() { e } else { cannot_write(path, &format!("{e:#}")) }
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    }
}

/// A temporary file or folder, removed when dropped.
struct Temporary(PathBuf);

impl Temporary {
    fn rename_to(self, target: &Path) -> io::Result<()> {
        fs::rename(&self.0, target)?;
        let folder = folder_of(target).to_path_buf();
        std::mem::forget(self);
        // Some file systems cannot sync a folder; the rename itself has then still happened.
        let _ = File::open(folder).and_then(|f| f.sync_all());
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = match self.0.is_dir() {
            true => fs::remove_dir_all(&self.0),
            false => fs::remove_file(&self.0),
        };
    }
}

/// Makes something under a free name in `target`'s folder.
fn beside<T>(
    target: &Path,
    mut make: impl FnMut(&Path) -> io::Result<T>,
) -> io::Result<(T, Temporary)> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    loop {
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = folder_of(target).join(format!(".emm-{}-{n}.tmp", std::process::id()));
        match make(&path) {
            Ok(made) => return Ok((made, Temporary(path))),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => continue,
            Err(e) => return Err(e),
        }
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
