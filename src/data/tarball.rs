//! Members of a tar, gzipped or not: names checked, long ones read, nothing larger than it may be.

use super::archive::check_entry_name;
use super::input::{gunzip, read_all};
use crate::error::{OrExit as _, data};
use crate::memory::{Budget, Size, Spent};
use anyhow::Result;
use std::io::{self, Read};
use std::path::Path;
use tar::{Archive, Entry, EntryType, PaxExtensions};

/// Bytes that a member may take, and all of them together.
pub const MAX_MEMBER: u64 = 1 << 30;
const MAX_TAR: u64 = 64 << 30;
/// Bytes that may be said of a member before it.
const MAX_EXTENSION: u64 = 1 << 20;

/// Whether these bytes begin a tar.
pub fn is_tar(head: &[u8]) -> bool {
    head.get(257..262) == Some(b"ustar")
}

/// A member on which a walk stands.
pub struct Member<'a, 't> {
    /// Archive and member, for messages.
    pub what: String,
    pub name: String,
    pub size: u64,
    entry: &'a mut Entry<'t, Reader>,
}

type Reader = io::Take<Box<dyn Read>>;

impl Member<'_, '_> {
    /// Where its bytes begin in the unpacked tar.
    pub fn start(&self) -> u64 {
        self.entry.raw_file_position()
    }

    /// Its bytes, and their share of the budget.
    ///
    /// # Errors
    /// No plain file, cut off; over the budget (exit 4).
    pub fn read(&mut self, budget: &Budget) -> Result<(Vec<u8>, Spent)> {
        self.check_plain()?;
        let (what, size) = (&self.what, self.size);
        let (bytes, spent) = read_all(self.entry, size, budget, &|| what.clone())?;
        match bytes.len() as u64 == size {
            true => Ok((bytes, spent)),
            false => Err(data(format!("{what}: cut off after {} of {size} bytes", bytes.len()))),
        }
    }

    /// # Errors
    /// A link, device, folder.
    pub fn check_plain(&self) -> Result<()> {
        match self.entry.header().entry_type().is_file() {
            true => Ok(()),
            false => Err(data(format!("{}: expected a plain file", self.what))),
        }
    }
}

/// Gives each member to `take` until that says that it has enough.
///
/// # Errors
/// Data errors that begin with the file and name the member: broken, cut off, too large, a name that leads outside; those
/// of `take`. Over the budget (exit 4).
pub fn walk(
    path: &Path,
    budget: &Budget,
    mut take: impl FnMut(&mut Member) -> Result<bool>,
) -> Result<()> {
    let file = path.display().to_string();
    let broken = || format!("{file}: broken archive");
    let mut tar = Archive::new(gunzip(path)?.take(MAX_TAR));
    // Raw: long names and other extensions would be read whole, however long.
    let mut long_name = None;
    for entry in tar.entries().or_data(broken)?.raw(true) {
        let mut entry = entry.or_data(broken)?;
        let (kind, size) = (entry.header().entry_type(), entry.size());
        let mut name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        if !is_extension(kind) {
            name = long_name.take().unwrap_or(name);
        }
        check_entry_name(&file, &name)?;
        let what = format!("{file}: {name}");
        if size > MAX_MEMBER {
            let [size, most] = [size, MAX_MEMBER].map(Size);
            return Err(data(format!("{what}: {size}, at most {most} are accepted")));
        }
        if is_extension(kind) {
            long_name = read_name(&mut entry, budget, &|| what.clone())?.or(long_name);
            continue;
        }
        if !take(&mut Member { what, name, size, entry: &mut entry })? {
            return Ok(());
        }
    }
    // The gzip checksum stands behind the archive's end.
    io::copy(&mut tar.into_inner(), &mut io::sink()).or_data(broken)?;
    Ok(())
}

/// Whether an entry of a tar says something of the next one, or of all.
fn is_extension(kind: EntryType) -> bool {
    kind.is_gnu_longname()
        || kind.is_gnu_longlink()
        || kind.is_pax_local_extensions()
        || kind.is_pax_global_extensions()
}

/// The name that an extension gives to the next entry, if it gives one.
fn read_name(
    entry: &mut Entry<impl Read>,
    budget: &Budget,
    what: &dyn Fn() -> String,
) -> Result<Option<String>> {
    let (kind, size) = (entry.header().entry_type(), entry.size());
    if !kind.is_gnu_longname() && !kind.is_pax_local_extensions() {
        return Ok(None);
    }
    if size > MAX_EXTENSION {
        let [size, most] = [size, MAX_EXTENSION].map(Size);
        return Err(data(format!("{}: an extension of {size}, over {most}", what())));
    }
    let (bytes, _spent) = read_all(entry, size, budget, what)?;
    if kind.is_gnu_longname() {
        let name = bytes.split(|&byte| byte == 0).next().unwrap_or_default();
        return Ok(Some(String::from_utf8_lossy(name).into_owned()));
    }
    let mut name = None;
    for record in PaxExtensions::new(&bytes) {
        let record = record.or_data(what)?;
        if record.key_bytes() == b"path" {
            name = Some(String::from_utf8_lossy(record.value_bytes()).into_owned());
        }
    }
    Ok(name)
}
