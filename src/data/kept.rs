//! Sets that take long to decode, kept decoded in the user's cache: found again by what they are made of, named where they
//! are read, and made anew where a byte of them is not as it was written.
//!
//! A file: a line, the length of its head (u64), the head (JSON), the pixels, SHA-256 of all before.

use super::options::Options;
use super::stl10::labels_beside;
use super::{Dataset, Transform, open_any};
use crate::files::{cached, write_atomic};
use crate::memory::Budget;
use anyhow::{Result, anyhow, ensure};
use memmap2::Mmap;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::fs;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// The number is raised when a reader gives other pixels or labels of the same file.
const MAGIC: &[u8] = b"emm set 1\n";
const SUM_BYTES: usize = 32;
/// Fewer images are decoded in no time.
const LEAST_IMAGES: usize = 2000;
/// Folders within each other.
const MAX_DEPTH: usize = 16;

#[derive(Serialize, Deserialize)]
struct Head {
    resolution: usize,
    channels: usize,
    labels: Option<Vec<u32>>,
    names: Vec<String>,
    notes: Vec<String>,
}

/// Reads all images of a set, from the cache where they are kept there, and what one may not expect of it.
///
/// # Errors
/// As [`open_any`] and [`super::Source::collect`].
pub fn read(paths: &[PathBuf], options: &Options) -> Result<(Dataset, Vec<String>)> {
    let key = key(paths, options);
    let kept = key.as_ref().and_then(|key| cached(&format!("sets/{key}.set")));
    let mut damaged = Vec::new();
    if let Some(file) = kept.as_ref().filter(|file| file.is_file()) {
        match load(file) {
            Ok((set, mut notes)) => {
                let (name, file) = (paths[0].display(), file.display());
                notes.push(format!("{name}: read from {file}, where it is kept decoded"));
                return Ok((set, notes));
            }
            Err(e) => damaged.push(format!("{}: damaged, made anew: {e:#}", file.display())),
        }
    }
    let source = open_any(paths, options)?;
    let set = source.collect(&source.all(), &Transform::default())?;
    let mut notes = source.notes.clone();
    notes.splice(0..0, damaged);
    if let Some(file) = kept.filter(|_| source.slow && set.len() > LEAST_IMAGES) {
        // What changed meanwhile is not what the key says, and a full disk is no reason to stop.
        let same = self::key(paths, options) == key;
        if same && save(&file, &set, &source.notes).is_ok() {
            let (name, file) = (paths[0].display(), file.display());
            notes.push(format!("{name}: kept decoded as {file}, which other commands read"));
        }
    }
    Ok((set, notes))
}

/// What a set is made of: paths, sizes, times of change, and options; nothing where the system does not say.
fn key(paths: &[PathBuf], options: &Options) -> Option<String> {
    let mut hash = Sha256::new();
    hash.update(format!("{:?} {options:?}", env!("CARGO_PKG_VERSION")));
    let beside = paths.iter().filter_map(|path| labels_beside(path)).filter(|path| path.exists());
    for path in paths.iter().cloned().chain(beside) {
        add(&mut hash, &fs::canonicalize(path).ok()?, 0)?;
    }
    Some(hash.finalize()[..16].iter().map(|byte| format!("{byte:02x}")).collect())
}

fn add(hash: &mut Sha256, path: &Path, depth: usize) -> Option<()> {
    let found = fs::metadata(path).ok()?;
    let name = path.as_os_str().as_bytes();
    hash.update((name.len() as u64).to_le_bytes());
    hash.update(name);
    if !found.is_dir() {
        // A file's contents may change under a time of change that was set back; when that was done can't be.
        let times = [found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec()];
        let place = [found.len() as i64, found.ino() as i64, found.dev() as i64];
        for number in times.into_iter().chain(place) {
            hash.update(number.to_le_bytes());
        }
        return Some(());
    }
    let entries = fs::read_dir(path).ok()?;
    let mut inside = entries.map(|e| e.map(|e| e.path())).collect::<Result<Vec<_>, _>>().ok()?;
    inside.sort();
    hash.update((inside.len() as u64).to_le_bytes());
    // Links that lead nowhere are passed over, as readers do.
    let there = inside.iter().filter(|path| path.exists());
    (depth < MAX_DEPTH).then_some(())?;
    there.into_iter().try_for_each(|path| add(hash, path, depth + 1))
}

fn save(file: &Path, set: &Dataset, notes: &[String]) -> Result<()> {
    let head = Head {
        resolution: set.resolution,
        channels: set.channels,
        labels: set.labels.clone(),
        names: set.names.clone(),
        notes: notes.to_vec(),
    };
    let head = serde_json::to_vec(&head)?;
    let folder = file.parent().ok_or_else(|| anyhow!("no folder"))?;
    fs::create_dir_all(folder)?;
    let len = (head.len() as u64).to_le_bytes();
    let parts = [MAGIC, &len, &head, &set.pixels];
    let mut sum = Sha256::new();
    parts.iter().for_each(|part| sum.update(part));
    write_atomic(file, true, |out| {
        parts.iter().try_for_each(|part| out.write_all(part))?;
        Ok(out.write_all(&sum.finalize())?)
    })
}

fn load(path: &Path) -> Result<(Dataset, Vec<String>)> {
    let file = fs::File::open(path)?;
    // SAFETY: the mapping is private and read only; what shortens the file meanwhile ends the process by a signal, as
    // everywhere with mappings.
    let map = unsafe { Mmap::map(&file) }?;
    let (bytes, sum) =
        map.split_at_checked(map.len().saturating_sub(SUM_BYTES)).unwrap_or_default();
    ensure!(Sha256::digest(bytes)[..] == *sum, "its bytes do not fit their checksum");
    let cut_off = || anyhow!("cut off");
    let rest = bytes.strip_prefix(MAGIC).ok_or_else(cut_off)?;
    let (&len, rest) = rest.split_first_chunk::<8>().ok_or_else(cut_off)?;
    let split =
        usize::try_from(u64::from_le_bytes(len)).ok().and_then(|len| rest.split_at_checked(len));
    let (head, pixels) = split.ok_or_else(cut_off)?;
    let budget = Budget::default();
    budget.keep((4 * head.len() + pixels.len()) as u64, || path.display().to_string())?;
    let head: Head = serde_json::from_slice(head)?;
    let what = path.display().to_string();
    let mut set =
        Dataset::new(&what, head.resolution, head.channels, pixels.to_vec(), head.labels)?;
    ensure!(head.names.is_empty() || head.names.len() == set.len(), "other names than images");
    set.names = head.names;
    Ok((set, head.notes))
}
