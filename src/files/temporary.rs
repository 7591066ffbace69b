//! Files and folders under a passing name: gone however their process ends.
//!
//! Who is alive removes its own when they are dropped, or when a signal ends the process ([`remove_all`]). What a
//! killed process left is removed by the next one that writes there ([`remove_abandoned`]): each temporary is locked as
//! long as somebody fills it, so that a machine that shares the folder and knows none of our processes sees it too.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The names of this process's temporaries.
static ALL: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

fn all() -> MutexGuard<'static, Vec<PathBuf>> {
    ALL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A temporary file or folder, removed when dropped.
pub struct Temporary {
    pub path: PathBuf,
    /// Locked: others keep their hands off.
    _held: File,
}

impl Temporary {
    /// An empty file in `folder`, open for reading and writing.
    pub fn file(folder: &Path) -> io::Result<(File, Temporary)> {
        let open = |p: &Path| OpenOptions::new().write(true).read(true).create_new(true).open(p);
        let made = Temporary::make(folder, "tmp", open)?;
        Ok((made._held.try_clone()?, made))
    }

    /// An empty folder in `folder`.
    pub fn folder(folder: &Path) -> io::Result<Temporary> {
        Temporary::make_folder(folder, "tmp")
    }

    /// What ends otherwise than in `tmp` is never taken for abandoned.
    fn make_folder(folder: &Path, ending: &str) -> io::Result<Temporary> {
        Temporary::make(folder, ending, |p| fs::create_dir(p).and_then(|()| File::open(p)))
    }

    /// Makes something under a free name.
    fn make(
        folder: &Path,
        ending: &str,
        make: impl Fn(&Path) -> io::Result<File>,
    ) -> io::Result<Temporary> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        remove_abandoned(folder);
        loop {
            let n = COUNT.fetch_add(1, Ordering::Relaxed);
            let path = folder.join(format!(".emm-{}-{n}.{ending}", std::process::id()));
            // No signal comes between the making and the name in the list.
            let mut all = all();
            let held = match make(&path) {
                Ok(held) => held,
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(e) => return Err(e),
            };
            all.push(path.clone());
            drop(all);
            let made = Temporary { path, _held: held };
            // Where nothing can be locked nobody finds out that it is not, either.
            let _ = made._held.try_lock();
            if made._held.metadata()?.nlink() > 0 && made.path.exists() {
                return Ok(made);
            }
            // Taken for abandoned before it was locked.
        }
    }

    /// Gives it its name; a file there is replaced.
    pub fn rename_to(self, target: &Path) -> io::Result<()> {
        let mut all = all();
        fs::rename(&self.path, target)?;
        all.retain(|p| *p != self.path);
        drop(all);
        sync_folder(target);
        Ok(())
    }

    /// Takes the place of a folder, in one step where the file system can, and removes what stood there.
    pub fn replace(self, target: &Path) -> io::Result<()> {
        let name = |p: &Path| CString::new(p.as_os_str().as_encoded_bytes());
        let (from, to) = (name(&self.path)?, name(target)?);
        let (at, how) = (libc::AT_FDCWD, libc::RENAME_EXCHANGE);
        // SAFETY: both names are whole C strings that outlive the call.
        if unsafe { libc::renameat2(at, from.as_ptr(), at, to.as_ptr(), how) } == 0 {
            sync_folder(target);
            return Ok(());
        }
        let e = io::Error::last_os_error();
        if ![Some(libc::EINVAL), Some(libc::ENOSYS)].contains(&e.raw_os_error()) {
            return Err(e);
        }
        // The old one steps aside, and goes at the end; killed in between it stays where it stepped.
        let aside = Temporary::make_folder(folder_of(target), "old")?;
        let old = aside.path.join("old");
        fs::rename(target, &old)?;
        self.rename_to(target).inspect_err(|_| {
            let _ = fs::rename(&old, target);
        })
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let mut all = all();
        // Once it has its name there is nothing under the passing one.
        remove(&self.path);
        all.retain(|p| *p != self.path);
    }
}

fn remove(path: &Path) {
    let _ = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        _ => fs::remove_file(path),
    };
}

/// Some file systems cannot sync a folder; a rename in it has then still happened.
fn sync_folder(target: &Path) {
    let _ = File::open(folder_of(target)).and_then(|f| f.sync_all());
}

/// Removes the temporaries of this process, which is about to end: none can be made after.
pub fn remove_all() {
    let all = all();
    for _ in 0..3 {
        // Somebody may still put a file into a folder while it is being removed.
        all.iter().for_each(|path| remove(path));
    }
    std::mem::forget(all);
}

/// Removes what processes that were killed left in `folder`.
pub fn remove_abandoned(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let (name, path) = (entry.file_name(), entry.path());
        if process_of(&name.to_string_lossy()).is_some_and(|pid| is_abandoned(&path, pid)) {
            remove(&path);
        }
    }
}

/// The process that a temporary's name names.
fn process_of(name: &str) -> Option<i32> {
    let (pid, count) = name.strip_prefix(".emm-")?.strip_suffix(".tmp")?.split_once('-')?;
    let digits = count.chars().all(|c| c.is_ascii_digit());
    pid.parse().ok().filter(|&pid| pid > 0 && digits)
}

/// Whether nobody fills it: no process here has this number, and nobody anywhere holds its lock. Our own number is no
/// evidence, since containers give the same few to all their processes.
fn is_abandoned(path: &Path, pid: i32) -> bool {
    // SAFETY: signal 0 is not sent, it only asks.
    let gone = || unsafe { libc::kill(pid, 0) } != 0
        && io::Error::last_os_error().raw_os_error() == Some(libc::ESRCH);
    if pid as u32 != std::process::id() && !gone() {
        return false;
    }
    let Ok(found) = fs::symlink_metadata(path) else { return false };
    let mut open = OpenOptions::new();
    open.read(true).write(found.is_file()).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    let usable = found.is_file() || found.is_dir();
    usable && open.open(path).is_ok_and(|file| file.try_lock().is_ok())
}

pub fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_abandoned_temporaries_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str| fs::write(folder.path().join(name), "x").unwrap();
        let dead = {
            let mut child = std::process::Command::new("true").spawn().unwrap();
            child.wait().unwrap();
            child.id()
        };
        put(&format!(".emm-{dead}-0.tmp"));
        // Of an earlier process with our number.
        put(&format!(".emm-{}-900000.tmp", std::process::id()));
        let built = folder.path().join(format!(".emm-{dead}-1.tmp"));
        fs::create_dir(&built).unwrap();
        fs::write(built.join("part"), "x").unwrap();
        let stay = [
            format!(".emm-{dead}-0.old"),
            format!(".emm-{dead}-x.tmp"),
            ".emm-1-0.tmp".into(),
            ".emm--1-0.tmp".into(),
            "emm-3-0.tmp".into(),
            "table.tmp".into(),
        ];
        stay.iter().for_each(|name| put(name));
        // Another machine's, where that process lives: it holds the lock.
        let elsewhere = folder.path().join(format!(".emm-{dead}-2.tmp"));
        let held = File::create(&elsewhere).unwrap();
        held.lock().unwrap();

        let (_file, ours) = Temporary::file(folder.path()).unwrap();
        remove_abandoned(folder.path());
        let mut left: Vec<PathBuf> =
            fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().path()).collect();
        left.sort();
        let mut want: Vec<PathBuf> = stay.iter().map(|name| folder.path().join(name)).collect();
        want.extend([elsewhere.clone(), ours.path.clone()]);
        want.sort();
        assert_eq!(left, want);
        drop(held);
        remove_abandoned(folder.path());
        assert!(!elsewhere.exists() && ours.path.exists());
        drop(ours);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), stay.len());
    }
}
