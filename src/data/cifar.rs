//! CIFAR-10's training images (Krizhevsky 2009): the python and the binary archive, single binary batches.
//!
//! Python: a tar of pickles, each a dict with `data`, uint8 [N, 3072] in channel planes, and `labels`.
//! Binary: records of a label byte and 3,072 bytes in channel planes.

use super::archive::check_entry_name;
use super::input::{gunzip, read_all, read_file};
use super::open::Reader;
use super::pickle::{Id, Pickle, PickleValue};
use super::source::{Source, StoredImages};
use crate::error::{OrExit as _, data};
use crate::memory::{Budget, Size, Spent};
use anyhow::Result;
use std::borrow::Cow;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use tar::{Archive, EntryType, PaxExtensions};

const SIDE: usize = 32;
const PLANE: usize = SIDE * SIDE;
const RECORD: usize = 1 + 3 * PLANE;
const CLASSES: i64 = 10;
/// Training batches in order; the test batch is not one.
const BATCHES: [&str; 5] =
    ["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5"];
/// Bytes that a member of the archive may take, and all of them together.
const MAX_MEMBER: u64 = 1 << 30;
const MAX_TAR: u64 = 8 << 30;
/// Bytes that may be said of a member before it.
const MAX_EXTENSION: u64 = 1 << 20;

pub const READER: Reader = Reader {
    what: "CIFAR-10 archive or .bin batch",
    claims: |files| {
        let tar = files.paths.len() == 1 && files.head.get(257..262) == Some(b"ustar");
        tar || files.all_end_in("bin")
    },
    open: |files| match files.all_end_in("bin") {
        true => open_batches(files.paths, files.budget),
        false => open_tar(&files.paths[0], files.budget),
    },
};

/// Images in H,W,C order and their labels, as batches are added.
#[derive(Default)]
struct CifarSet {
    pixels: Vec<u8>,
    labels: Vec<u32>,
}

impl CifarSet {
    /// Announces and reserves what so many images take.
    fn reserve(&mut self, images: usize, budget: &Budget, what: &str) -> Result<()> {
        budget.keep((images * (RECORD + 3)) as u64, || what.into())?;
        self.pixels.reserve_exact(images * 3 * PLANE);
        self.labels.reserve_exact(images);
        Ok(())
    }

    fn add(&mut self, what: &str, planes: &[u8], label: i64) -> Result<()> {
        if !(0..CLASSES).contains(&label) {
            let n = self.labels.len();
            return Err(data(format!("{what}: label {label} of image {n}, expected 0 to 9")));
        }
        self.labels.push(label as u32);
        self.pixels.extend((0..PLANE).flat_map(|i| [0, 1, 2].map(|c| planes[c * PLANE + i])));
        Ok(())
    }

    fn into_source(self, name: String, budget: &Budget) -> Source {
        let images =
            StoredImages::Packed { width: SIDE, height: SIDE, channels: 3, pixels: self.pixels };
        Source::new(name, Some(self.labels), images, budget)
    }
}

/// Opens binary batches, in the order given.
///
/// # Errors
/// Data errors that begin with the file: a length that is no multiple of a record, labels over 9. Over the budget
/// (exit 4).
fn open_batches(paths: &[PathBuf], budget: &Budget) -> Result<Source> {
    let mut set = CifarSet::default();
    for path in paths {
        let (bytes, _spent) = read_file(path, MAX_MEMBER, budget)?;
        add_binary(&mut set, &path.display().to_string(), &bytes, budget)?;
    }
    Ok(set.into_source(paths[0].display().to_string(), budget))
}

/// Opens the python or the binary archive, gzipped or not: `data_batch_1` to `data_batch_5`.
///
/// # Errors
/// Data errors that begin with the file and name the member: cut off, corrupt, too large, a batch missing
/// or twice, names that lead outside, arrays of another shape. Over the budget (exit 4).
fn open_tar(path: &Path, budget: &Budget) -> Result<Source> {
    let file = path.display().to_string();
    let broken = || format!("{file}: broken archive");
    let mut batches: [Option<(String, Vec<u8>, Spent)>; 5] = Default::default();
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
            return Err(data(format!(
                "{what}: {}, at most {} are accepted",
                Size(size),
                Size(MAX_MEMBER)
            )));
        }
        if is_extension(kind) {
            long_name = read_name(&mut entry, budget, &|| what.clone())?.or(long_name);
            continue;
        }
        let base = name.rsplit('/').next().unwrap_or(&name);
        let base = base.strip_suffix(".bin").unwrap_or(base);
        let Some(batch) = BATCHES.iter().position(|&b| b == base) else { continue };
        if !kind.is_file() {
            return Err(data(format!("{what}: expected a plain file")));
        }
        let (bytes, spent) = read_all(&mut entry, size, budget, &|| what.clone())?;
        if bytes.len() as u64 != size {
            return Err(data(format!("{what}: cut off after {} of {size} bytes", bytes.len())));
        }
        if batches[batch].replace((name, bytes, spent)).is_some() {
            let batch = BATCHES[batch];
            return Err(data(format!("{what}: {batch} stands in the archive twice")));
        }
    }
    // The gzip checksum stands behind the archive's end.
    io::copy(&mut tar.into_inner(), &mut io::sink()).or_data(broken)?;
    let mut set = CifarSet::default();
    for (batch, expected) in batches.into_iter().zip(BATCHES) {
        let Some((name, bytes, _spent)) = batch else {
            return Err(data(format!("{file}: {expected} is missing, this is not CIFAR-10")));
        };
        let what = format!("{file}: {name}");
        match name.ends_with(".bin") {
            true => add_binary(&mut set, &what, &bytes, budget)?,
            false => add_pickle(&mut set, &what, &bytes, budget)?,
        }
    }
    Ok(set.into_source(file, budget))
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
    entry: &mut tar::Entry<impl io::Read>,
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

fn add_binary(set: &mut CifarSet, what: &str, bytes: &[u8], budget: &Budget) -> Result<()> {
    if bytes.is_empty() || !bytes.len().is_multiple_of(RECORD) {
        return Err(data(format!(
            "{what}: expected records of {RECORD} bytes, found {} bytes",
            bytes.len()
        )));
    }
    set.reserve(bytes.len() / RECORD, budget, what)?;
    for record in bytes.chunks_exact(RECORD) {
        set.add(what, &record[1..], record[0].into())?;
    }
    Ok(())
}

fn add_pickle(set: &mut CifarSet, what: &str, bytes: &[u8], budget: &Budget) -> Result<()> {
    let pickle = Pickle::read(bytes, budget, &|| what.into())?;
    let wrong = |found: String| {
        data(format!(
            "{what}: expected a dict with uint8 data [N, {}] and labels, {found}",
            3 * PLANE
        ))
    };
    let PickleValue::Dict(_) = pickle.value(pickle.root()) else {
        return Err(wrong("found no dict".into()));
    };
    let get = |key| pickle.get(pickle.root(), key).ok_or_else(|| wrong(format!("found no {key}")));
    let array = array(&pickle, get("data")?).map_err(wrong)?;
    // Text stands for bytes in some: a byte of it for one or two.
    let _spent = budget.borrow(array.encoded_bytes(), || what.into())?;
    let (rows, planes) = array.planes().map_err(wrong)?;
    let PickleValue::List(labels) = pickle.value(get("labels")?) else {
        return Err(wrong("found labels that are no list".into()));
    };
    if labels.len() != rows {
        return Err(wrong(format!("found {} labels for {rows} images", labels.len())));
    }
    set.reserve(rows, budget, what)?;
    for (planes, &label) in planes.chunks_exact(3 * PLANE).zip(labels) {
        let Some(label) = pickle.int(label) else {
            return Err(wrong("found a label that is no integer".into()));
        };
        set.add(what, planes, label)?;
    }
    Ok(())
}

/// A pickled NumPy array of unsigned bytes.
struct PickledArray<'a> {
    shape: Vec<Option<i64>>,
    contents: Contents<'a>,
}

/// Bytes, or the text whose code points they are.
enum Contents<'a> {
    Bytes(&'a [u8]),
    Latin1(&'a [u8]),
}

/// The array that is made by `_reconstruct` with the state (version, shape, dtype, Fortran order, bytes), or by
/// `_frombuffer(bytes, dtype, shape, order)`.
fn array<'a>(pickle: &Pickle<'a>, id: Id) -> Result<PickledArray<'a>, String> {
    let none = || "found data that is no array".to_string();
    let (name, args, state) = pickle.object(id).ok_or_else(none)?;
    let (bytes, dtype, shape, c_order) = match (name, state) {
        (b"_reconstruct", Some(state)) => match *pickle.tuple(state).ok_or_else(none)? {
            [_, shape, dtype, fortran, bytes] => {
                (bytes, dtype, shape, matches!(pickle.value(fortran), PickleValue::Bool(false)))
            }
            _ => return Err(none()),
        },
        (b"_frombuffer", None) => match *args {
            [bytes, dtype, shape, order] => {
                (bytes, dtype, shape, pickle.bytes(order) == Some(b"C"))
            }
            _ => return Err(none()),
        },
        _ => return Err(none()),
    };
    if !c_order {
        return Err("found data in Fortran order or of another kind".into());
    }
    let unsigned_bytes = match pickle.object(dtype) {
        Some((b"dtype", args, state)) => {
            let text = |ids: Option<&[Id]>, i: usize| pickle.bytes(*ids?.get(i)?);
            let order = text(state.and_then(|id| pickle.tuple(id)), 1);
            matches!(text(Some(args), 0), Some(b"u1" | b"|u1")) && order == Some(b"|")
        }
        _ => false,
    };
    let shape = pickle.tuple(shape).ok_or_else(none)?;
    let shape: Vec<_> = shape.iter().take(9).map(|&id| pickle.int(id)).collect();
    if !unsigned_bytes {
        return Err(format!("found shape {} of another type", said(&shape)));
    }
    let contents = match (pickle.bytes(bytes), pickle.object(bytes)) {
        (Some(bytes), _) => Contents::Bytes(bytes),
        (None, Some((b"encode", &[text, _], None))) => {
            Contents::Latin1(pickle.bytes(text).ok_or_else(none)?)
        }
        _ => return Err("found an array without its bytes".into()),
    };
    Ok(PickledArray { shape, contents })
}

fn said(shape: &[Option<i64>]) -> String {
    let sizes = shape.iter().map(|d| d.map_or("?".into(), |d| d.to_string()));
    format!("[{}]", sizes.collect::<Vec<_>>().join(", "))
}

impl<'a> PickledArray<'a> {
    /// Bytes that [`PickledArray::planes`] takes.
    fn encoded_bytes(&self) -> u64 {
        match self.contents {
            Contents::Bytes(_) => 0,
            Contents::Latin1(text) => text.len() as u64,
        }
    }

    /// Rows and bytes of an array [rows, 3072].
    fn planes(&self) -> Result<(usize, Cow<'a, [u8]>), String> {
        let bytes = match self.contents {
            Contents::Bytes(bytes) => Cow::Borrowed(bytes),
            Contents::Latin1(text) => {
                let text =
                    std::str::from_utf8(text).map_err(|_| "found a text that is no UTF-8")?;
                let mut bytes = Vec::with_capacity(text.len());
                for c in text.chars() {
                    bytes.push(u8::try_from(c).map_err(|_| "found a text that is no bytes")?);
                }
                Cow::Owned(bytes)
            }
        };
        match self.shape[..] {
            [Some(rows), Some(3072)]
                if rows > 0 && bytes.len() as i64 == rows.saturating_mul(3072) =>
            {
                Ok((rows as usize, bytes))
            }
            _ => Err(format!("found shape {} with {} bytes", said(&self.shape), bytes.len())),
        }
    }
}
