//! Zip files, mapped into memory. A zip says most things twice, in its directory and before each entry: what differs is
//! refused, and so is every byte that belongs to no entry, since it may be one that the directory lost.
//!
//! Source: PKWARE's APPNOTE 6.3, sections 4.3 to 4.5.

use super::input::map;
use crate::error::{OrExit as _, data};
use crate::memory::{Budget, Size, Spent};
use anyhow::{Result, anyhow, bail, ensure};
use flate2::{Decompress, FlushDecompress, Status};
use memmap2::Mmap;
use std::borrow::Cow;
use std::collections::HashSet;
use std::ops::Range;
use std::path::Path;

const LOCAL: &[u8] = b"PK\x03\x04";
const DIRECTORY: &[u8] = b"PK\x01\x02";
const DESCRIPTOR: &[u8] = b"PK\x07\x08";
const END: &[u8] = b"PK\x05\x06";
const END_64: &[u8] = b"PK\x06\x06";
const LOCATOR_64: &[u8] = b"PK\x06\x07";

/// Bits of an entry's flags.
const ENCRYPTED: u16 = 1;
const SIZES_BEHIND: u16 = 8;
const UTF8: u16 = 1 << 11;

/// Numbers of extra fields.
const ZIP64: u16 = 1;
const UNICODE_NAME: u16 = 0x7075;

const STORED: u16 = 0;
const DEFLATED: u16 = 8;
/// A byte of deflate's unpacks to less than so many.
const MAX_RATIO: u64 = 1033;

/// Memory that an entry takes beside its name.
const ENTRY_BYTES: u64 = 256;

/// An open zip file whose directory agrees with its entries, whose names are distinct and stay inside.
pub struct Archive {
    file: String,
    map: Mmap,
    names: Vec<String>,
    entries: Vec<ZipEntry>,
}

struct ZipEntry {
    data: Range<usize>,
    size: u64,
    crc: u32,
    deflated: bool,
}

/// What the directory says of an entry.
struct Listed<'a> {
    name: &'a [u8],
    /// The field that holds it in UTF-8.
    unicode_name: Option<&'a [u8]>,
    flags: u16,
    method: u16,
    time_and_date: u32,
    crc: u32,
    /// Packed and unpacked.
    sizes: [u64; 2],
    /// Where its local header begins.
    start: u64,
}

impl Archive {
    /// Opens a zip file and checks its directory against every entry's own header.
    ///
    /// # Errors
    /// Data errors (exit 3) that begin with the file: missing, empty, no zip, truncated, an entry twice, encrypted, of
    /// an unknown method, whose name is absolute or leads outside (`..`), that the directory describes otherwise; bytes
    /// that belong to no entry. Over the budget (exit 4).
    pub fn open(path: &Path, budget: &Budget) -> Result<Self> {
        let file = path.display().to_string();
        let map = map(path)?;
        let (directory, end, count) = find_directory(&map).or_data(|| file.clone())?;
        let bytes = count * ENTRY_BYTES + 2 * (end - directory) as u64;
        budget.keep(bytes, || file.clone())?;
        let listed = list(&map, directory..end, count).or_data(|| file.clone())?;
        let mut names = Vec::with_capacity(listed.len());
        for entry in &listed {
            let name = decode_name(entry).or_data(|| file.clone())?;
            check_entry_name(&file, &name)?;
            names.push(name);
        }
        let mut seen = HashSet::with_capacity(names.len());
        if let Some(twice) = names.iter().find(|name| !seen.insert(name.as_str())) {
            return Err(data(format!(
                "{file}: two entries of this zip have the same name {twice:?}"
            )));
        }
        let mut order: Vec<usize> = (0..listed.len()).collect();
        order.sort_by_key(|&i| listed[i].start);
        let mut places = vec![0..0; listed.len()];
        let mut at = 0;
        for (k, &i) in order.iter().enumerate() {
            let next = order.get(k + 1).map_or(directory as u64, |&i| listed[i].start);
            let entry = &listed[i];
            places[i] = place(&map, entry, at, next).or_data(|| format!("{file}: {}", names[i]))?;
            at = next;
        }
        if at != directory as u64 {
            return Err(data(format!(
                "{file}: bytes 0 to {directory} belong to no entry of the zip"
            )));
        }
        let entries = listed.iter().zip(places).map(|(entry, data)| ZipEntry {
            data,
            size: entry.sizes[1],
            crc: entry.crc,
            deflated: entry.method == DEFLATED,
        });
        let entries = entries.collect();
        Ok(Archive { file, map, names, entries })
    }

    /// Entry names in the order of the archive's directory, with `/` between folders.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The archive's path, as messages show it.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The bytes of entry `i`, of at most `limit` bytes, checksum verified, and their share of the budget.
    ///
    /// # Errors
    /// Data errors that name archive and entry: larger than `limit`, corrupt. Over the budget (exit 4).
    pub fn read(&self, i: usize, limit: u64, budget: &Budget) -> Result<(Cow<'_, [u8]>, Spent)> {
        let what = || format!("{}: {}", self.file, self.names[i]);
        let entry = &self.entries[i];
        if entry.size > limit {
            let [size, limit] = [entry.size, limit].map(Size);
            return Err(data(format!("{}: {size}, at most {limit} are accepted", what())));
        }
        let packed = &self.map[entry.data.clone()];
        let (bytes, spent) = match entry.deflated {
            false => (Cow::Borrowed(packed), budget.borrow(0, what)?),
            true => {
                let spent = budget.borrow(entry.size, what)?;
                (Cow::Owned(inflate(packed, entry.size as usize).or_data(what)?), spent)
            }
        };
        let mut crc = flate2::Crc::new();
        crc.update(&bytes);
        match crc.sum() == entry.crc {
            true => Ok((bytes, spent)),
            false => Err(data(format!("{}: its bytes do not fit their checksum", what()))),
        }
    }
}

/// A name with `/` between folders, as the format wants it; some tools on Windows write `\\`, some put `./` before all.
pub fn plain_name(name: &str) -> Cow<'_, str> {
    if !name.contains('\\') && !name.split('/').any(|part| part == ".") {
        return Cow::Borrowed(name);
    }
    let name = name.replace('\\', "/");
    let parts: Vec<&str> = name.split('/').filter(|&part| part != ".").collect();
    Cow::Owned(parts.join("/"))
}

/// Refuses names that would leave the folder an archive is unpacked to.
///
/// # Errors
/// A data error that begins with `file` and holds the name.
pub fn check_entry_name(file: &str, name: &str) -> Result<()> {
    let absolute = name.starts_with(['/', '\\']) || name.chars().nth(1) == Some(':');
    if absolute || name.contains('\0') || name.split(['/', '\\']).any(|part| part == "..") {
        return Err(data(format!("{file}: entry {name:?} leads outside the archive")));
    }
    Ok(())
}

/// Little-endian integers, one after the other.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or_else(|| anyhow!("cut off"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn u16(&mut self) -> Result<u16> {
        Ok(u16::from_le_bytes(self.take(2)?.try_into()?))
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.take(4)?.try_into()?))
    }

    fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.take(8)?.try_into()?))
    }
}

/// The fields behind a signature that must stand at `at`.
fn fields<'a>(bytes: &'a [u8], at: u64, signature: &[u8], what: &str) -> Result<Fields<'a>> {
    let rest = usize::try_from(at).ok().and_then(|at| bytes.get(at..));
    match rest.and_then(|rest| rest.strip_prefix(signature)) {
        Some(rest) => Ok(Fields(rest)),
        None => bail!("broken zip: no {what} at byte {at}"),
    }
}

/// Where the directory begins and ends, and the number of its entries.
fn find_directory(bytes: &[u8]) -> Result<(usize, usize, u64)> {
    // Its last record stands at the very end, before a comment of at most 65,535 bytes whose length it holds, and zeros
    // that fill a block where a tool wrote to a pipe.
    const LEN: usize = 22;
    let fits = |&at: &usize| {
        let comment = u16::from_le_bytes([bytes[at + LEN - 2], bytes[at + LEN - 1]]) as usize;
        let behind = bytes[at..].starts_with(END).then(|| bytes.get(at + LEN + comment..));
        behind.flatten().is_some_and(|behind| behind.iter().all(|&byte| byte == 0))
    };
    let last = bytes.len().checked_sub(LEN);
    let found = last.and_then(|last| (last.saturating_sub(0xFFFF)..=last).rev().find(fits));
    let Some(at) = found else {
        bail!(
            "expected a zip file, found something else, a truncated one, or bytes behind its end"
        );
    };
    let mut end = fields(bytes, at as u64, END, "end")?;
    let disks = [end.u16()?, end.u16()?];
    let counts = [end.u16()?, end.u16()?].map(u64::from);
    let (size, start) = (u64::from(end.u32()?), u64::from(end.u32()?));
    let mut said = [counts[0], counts[1], size, start];
    let mut directory_end = at;
    let locator = at.checked_sub(20).filter(|&at| bytes[at..].starts_with(LOCATOR_64));
    if let Some(locator) = locator {
        let mut fields_64 = fields(bytes, locator as u64, LOCATOR_64, "locator")?;
        let (disk, end_64, all) = (fields_64.u32()?, fields_64.u64()?, fields_64.u32()?);
        ensure!(disk == 0 && all == 1, "a zip in several parts");
        let mut fields_64 = fields(bytes, end_64, END_64, "zip64 end")?;
        let len = fields_64.u64()?;
        let whole = len >= 44
            && end_64.checked_add(12).and_then(|e| e.checked_add(len)) == Some(locator as u64);
        ensure!(whole, "broken zip: its zip64 end is cut off");
        let _versions = fields_64.u32()?;
        ensure!([fields_64.u32()?, fields_64.u32()?] == [0, 0], "a zip in several parts");
        // A field of all ones refers to the wider one; any other is a copy of it.
        for (value, ones) in said.iter_mut().zip([0xFFFF, 0xFFFF, 0xFFFF_FFFF, 0xFFFF_FFFF]) {
            let wide = fields_64.u64()?;
            ensure!(*value == ones || *value == wide, "broken zip: its two ends differ");
            *value = wide;
        }
        directory_end = end_64 as usize;
    }
    let [here, count, size, start] = said;
    ensure!(disks == [0, 0] && here == count, "broken zip, or one in several parts");
    let fits = start.checked_add(size) == Some(directory_end as u64) && count <= size / 46;
    ensure!(fits, "broken zip: {count} entries in {size} bytes from {start} do not fit");
    Ok((start as usize, directory_end, count))
}

/// The entries of the directory that lies at `place`.
fn list(bytes: &[u8], place: Range<usize>, count: u64) -> Result<Vec<Listed<'_>>> {
    let mut listed = Vec::with_capacity(count as usize);
    let mut at = place.start;
    for _ in 0..count {
        let mut f = fields(&bytes[..place.end], at as u64, DIRECTORY, "entry of the directory")?;
        let before = f.0.len();
        let (_made_by, needs) = (f.u16()?, f.u16()?);
        ensure!(needs & 0xFF <= 63, "an entry needs version {needs} of the format");
        let (flags, method, time_and_date, crc) = (f.u16()?, f.u16()?, f.u32()?, f.u32()?);
        let (packed, size) = (u64::from(f.u32()?), u64::from(f.u32()?));
        let [name, extra, comment] = [f.u16()?, f.u16()?, f.u16()?].map(usize::from);
        let disk = f.u16()?;
        let _attributes = f.take(6)?;
        let start = u64::from(f.u32()?);
        let name = f.take(name)?;
        let extra = f.take(extra)?;
        let unicode_name = extra_field(extra, UNICODE_NAME);
        let mut wide = Fields(extra_field(extra, ZIP64).unwrap_or_default());
        let mut widen = |value| if value == 0xFFFF_FFFF { wide.u64() } else { Ok(value) };
        let (size, packed, start) = (widen(size)?, widen(packed)?, widen(start)?);
        f.take(comment)?;
        ensure!(disk == 0, "a zip in several parts");
        ensure!(start < place.start as u64, "broken zip: an entry at {start}, in its directory");
        at += DIRECTORY.len() + before - f.0.len();
        let sizes = [packed, size];
        listed.push(Listed { name, unicode_name, flags, method, time_and_date, crc, sizes, start });
    }
    ensure!(at == place.end, "broken zip: its directory is longer than its {count} entries");
    Ok(listed)
}

/// The first of the extra fields that has this number.
fn extra_field(mut extra: &[u8], id: u16) -> Option<&[u8]> {
    // What tools pad with may be no whole field.
    while let Some((&[a, b, c, d], rest)) = extra.split_first_chunk() {
        let (values, others) = rest.split_at_checked(u16::from_le_bytes([c, d]).into())?;
        if u16::from_le_bytes([a, b]) == id {
            return Some(values);
        }
        extra = others;
    }
    None
}

/// The name as text: that of its field for UTF-8, where it has one.
fn decode_name(entry: &Listed) -> Result<String> {
    let no_text = || anyhow!("the name of an entry is no UTF-8");
    let text = match (entry.unicode_name, std::str::from_utf8(entry.name)) {
        (Some(field), _) => {
            let mut field = Fields(field);
            let (version, sum) = (field.take(1)?[0], field.u32()?);
            let mut crc = flate2::Crc::new();
            crc.update(entry.name);
            ensure!(version == 1 && crc.sum() == sum, "an entry has two names that do not fit");
            std::str::from_utf8(field.0).map_err(|_| no_text())?.to_string()
        }
        (None, Ok(text)) => text.to_string(),
        (None, Err(_)) if entry.flags & UTF8 != 0 => return Err(no_text()),
        // Some old code page: told apart is all they need to be.
        (None, Err(_)) => entry.name.iter().map(|&byte| char::from(byte)).collect(),
    };
    Ok(plain_name(&text).into_owned())
}

/// Where the bytes of an entry lie, which must begin at `at` and end at `next`, once its own header was compared with
/// the directory.
fn place(bytes: &[u8], entry: &Listed, at: u64, next: u64) -> Result<Range<usize>> {
    ensure!(entry.start == at, "bytes {at} to {} before it belong to no entry", entry.start);
    ensure!(entry.flags & ENCRYPTED == 0, "it is encrypted");
    ensure!(
        matches!(entry.method, STORED | DEFLATED),
        "packed by method {}, expected stored or deflated",
        entry.method
    );
    let start = check_header(bytes, entry)?;
    let [packed, size] = entry.sizes;
    ensure!(
        entry.method == DEFLATED || packed == size,
        "stored in {packed} bytes, expected its size of {size}"
    );
    ensure!(size / MAX_RATIO <= packed, "{packed} bytes cannot unpack to {size}");
    let end = (start as u64).checked_add(packed).filter(|&end| end <= next);
    let Some(end) = end else { bail!("its {packed} bytes reach into the next entry") };
    let rest = &bytes[end as usize..next as usize];
    let fits = match entry.flags & SIZES_BEHIND != 0 {
        true => is_descriptor(rest, entry),
        false => rest.is_empty(),
    };
    ensure!(fits, "{} bytes behind it belong to no entry, or do not fit it", rest.len());
    Ok(start..end as usize)
}

/// Compares an entry's own header with the directory; where its bytes begin.
fn check_header(bytes: &[u8], entry: &Listed) -> Result<usize> {
    let mut f = fields(bytes, entry.start, LOCAL, "entry")?;
    let _version = f.u16()?;
    let (flags, method, time_and_date, crc) = (f.u16()?, f.u16()?, f.u32()?, f.u32()?);
    let (packed, size) = (u64::from(f.u32()?), u64::from(f.u32()?));
    let (name, extra) = (f.u16()?, f.u16()?);
    let (name, extra) = (f.take(name.into())?, f.take(extra.into())?);
    if name != entry.name {
        let name = String::from_utf8_lossy(name);
        bail!("the zip's directory names it so, the entry itself {name:?}");
    }
    ensure!(
        extra_field(extra, UNICODE_NAME) == entry.unicode_name,
        "the zip's directory names it so, the entry itself otherwise"
    );
    let mut wide = Fields(extra_field(extra, ZIP64).unwrap_or_default());
    let mut widen = |value| match value {
        0xFFFF_FFFF if !wide.0.is_empty() => wide.u64(),
        value => Ok(value),
    };
    let (size, packed) = (widen(size)?, widen(packed)?);
    let same = |what: &str, listed: u64, own: u64| match listed == own {
        true => Ok(()),
        false => Err(anyhow!("the zip's directory says {what} {listed}, the entry itself {own}")),
    };
    same("flags", entry.flags.into(), flags.into())?;
    same("method", entry.method.into(), method.into())?;
    same("time", entry.time_and_date.into(), time_and_date.into())?;
    // What comes behind is zero here, all of it or what the tool did not know yet.
    let behind = flags & SIZES_BEHIND != 0;
    for (what, listed, own) in [
        ("checksum", entry.crc.into(), crc.into()),
        ("packed size", entry.sizes[0], packed),
        ("size", entry.sizes[1], size),
    ] {
        if !(behind && own == 0) {
            same(what, listed, own)?;
        }
    }
    Ok(bytes.len() - f.0.len())
}

/// Whether `bytes` are what stands behind an entry whose sizes do: checksum and sizes of 32 or 64 bits, with or without
/// a signature.
fn is_descriptor(bytes: &[u8], entry: &Listed) -> bool {
    let bytes = match bytes.len() {
        16 | 24 => bytes.strip_prefix(DESCRIPTOR).unwrap_or(&[]),
        _ => bytes,
    };
    let (crc, sizes) = (entry.crc.to_le_bytes(), entry.sizes);
    bytes == [&crc[..], &sizes.map(u64::to_le_bytes).concat()].concat()
        || bytes == [&crc[..], &sizes.map(|s| (s as u32).to_le_bytes()).concat()].concat()
}

/// Unpacks exactly `size` bytes.
fn inflate(packed: &[u8], size: usize) -> Result<Vec<u8>> {
    // Room for one byte too many, which then shows.
    let mut out = Vec::with_capacity(size + 1);
    let mut inflater = Decompress::new(false);
    let status = inflater.decompress_vec(packed, &mut out, FlushDecompress::Finish)?;
    let whole = inflater.total_in() == packed.len() as u64 && out.len() == size;
    let fits = status == Status::StreamEnd && whole;
    ensure!(fits, "its {} bytes do not unpack to the {size} that the zip says", packed.len());
    Ok(out)
}
