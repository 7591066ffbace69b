//! CIFAR-10's and CIFAR-100's training images (Krizhevsky 2009): the python and the binary archive, single files of them.
//!
//! Python: a tar of pickles, each a dict with `data`, uint8 [N, 3072] in channel planes, and `labels` or `fine_labels`.
//! Binary: records of a label byte, of CIFAR-100 a coarse and a fine one, and 3,072 bytes in channel planes.

use super::input::read_file;
use super::open::Reader;
use super::pickle::{Id, Pickle, PickleValue};
use super::source::{Source, StoredImages};
use super::tarball::{MAX_MEMBER, is_tar, walk};
use crate::error::data;
use crate::memory::{Budget, Spent};
use anyhow::Result;
use std::borrow::Cow;
use std::path::{Path, PathBuf};

const SIDE: usize = 32;
const PLANE: usize = SIDE * SIDE;
/// What a pickle begins with: protocol 2 and above.
const PICKLE: u8 = 0x80;

/// What differs between the two sets.
#[derive(Clone, Copy)]
struct Form {
    classes: i64,
    /// Bytes before an image, the label last of them.
    labels: usize,
    key: &'static str,
}

const TEN: Form = Form { classes: 10, labels: 1, key: "labels" };
const HUNDRED: Form = Form { classes: 100, labels: 2, key: "fine_labels" };

impl Form {
    fn record(self) -> usize {
        self.labels + 3 * PLANE
    }

    /// Whether a file of so many bytes is one of records.
    fn fits(self, bytes: usize) -> bool {
        bytes > 0 && bytes.is_multiple_of(self.record())
    }
}

/// Training batches of CIFAR-10 in order, the test batch is not one; then CIFAR-100's.
const BATCHES: [&str; 6] =
    ["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "train"];

pub const READER: Reader = Reader {
    what: "CIFAR-10 or CIFAR-100 archive or .bin batch",
    claims: |files| {
        let one = files.paths.len() == 1;
        one && (is_tar(&files.head) || is_pickle(&files.head)) || files.all_end_in("bin")
    },
    open: |files| match (files.all_end_in("bin"), is_pickle(&files.head)) {
        (true, _) => open_batches(&files.paths, files.budget),
        (false, true) => open_pickle(&files.paths[0], files.budget),
        (false, false) => open_tar(&files.paths[0], files.budget),
    },
};

fn is_pickle(head: &[u8]) -> bool {
    head.first() == Some(&PICKLE)
}

/// Images in H,W,C order and their labels, as batches are added.
struct CifarSet {
    form: Form,
    pixels: Vec<u8>,
    labels: Vec<u32>,
}

impl CifarSet {
    fn of(form: Form) -> Self {
        CifarSet { form, pixels: Vec::new(), labels: Vec::new() }
    }

    /// Announces and reserves what so many images take.
    fn reserve(&mut self, images: usize, budget: &Budget, what: &str) -> Result<()> {
        budget.keep((images * (3 * PLANE + 4)) as u64, || what.into())?;
        self.pixels.reserve_exact(images * 3 * PLANE);
        self.labels.reserve_exact(images);
        Ok(())
    }

    fn add(&mut self, what: &str, planes: &[u8], label: i64) -> Result<()> {
        if !(0..self.form.classes).contains(&label) {
            let (n, last) = (self.labels.len(), self.form.classes - 1);
            return Err(data(format!("{what}: label {label} of image {n}, expected 0 to {last}")));
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
    let mut set: Option<CifarSet> = None;
    for path in paths {
        let (bytes, _spent) = read_file(path, MAX_MEMBER, budget)?;
        let hundred = HUNDRED.fits(bytes.len()) && !TEN.fits(bytes.len());
        let form = if hundred { HUNDRED } else { TEN };
        let set = set.get_or_insert_with(|| CifarSet::of(form));
        add_binary(set, &path.display().to_string(), &bytes, budget)?;
    }
    let set = set.unwrap_or_else(|| CifarSet::of(TEN));
    Ok(set.into_source(paths[0].display().to_string(), budget))
}

/// Opens one pickle of an unpacked python archive.
///
/// # Errors
/// As those of an archive.
fn open_pickle(path: &Path, budget: &Budget) -> Result<Source> {
    let file = path.display().to_string();
    let (bytes, _spent) = read_file(path, MAX_MEMBER, budget)?;
    let holds = |key: &str| bytes.windows(key.len()).any(|at| at == key.as_bytes());
    let mut set = CifarSet::of(if holds(HUNDRED.key) { HUNDRED } else { TEN });
    add_pickle(&mut set, &file, &bytes, budget)?;
    Ok(set.into_source(file, budget))
}

/// Opens the python or the binary archive, gzipped or not: `data_batch_1` to `data_batch_5`, or CIFAR-100's `train`.
///
/// # Errors
/// Data errors that begin with the file and name the member: cut off, corrupt, too large, a batch missing
/// or twice, names that lead outside, arrays of another shape. Over the budget (exit 4).
fn open_tar(path: &Path, budget: &Budget) -> Result<Source> {
    let file = path.display().to_string();
    let mut parts: [Option<(String, Vec<u8>, Spent)>; 6] = Default::default();
    walk(path, budget, |member| {
        let base = member.name.rsplit('/').next().unwrap_or_default();
        let base = base.strip_suffix(".bin").unwrap_or(base);
        let Some(part) = BATCHES.iter().position(|&b| b == base) else { return Ok(true) };
        let (bytes, spent) = member.read(budget)?;
        if parts[part].replace((member.name.clone(), bytes, spent)).is_some() {
            let (what, batch) = (&member.what, BATCHES[part]);
            return Err(data(format!("{what}: {batch} stands in the archive twice")));
        }
        Ok(true)
    })?;
    let hundred = parts[..5].iter().all(Option::is_none) && parts[5].is_some();
    let (form, used) = if hundred { (HUNDRED, 5..6) } else { (TEN, 0..5) };
    let mut set = CifarSet::of(form);
    for (part, expected) in parts.into_iter().zip(BATCHES).skip(used.start).take(used.len()) {
        let Some((name, bytes, _spent)) = part else {
            return Err(data(format!("{file}: {expected} is missing, this is not CIFAR-10")));
        };
        let what = format!("{file}: {name}");
        match name.ends_with(".bin") {
            true => add_binary(&mut set, &what, &bytes, budget)?,
            false => add_pickle(&mut set, &what, &bytes, budget)?,
        }
    }
    let mut source = set.into_source(file, budget);
    source.slow = true;
    Ok(source)
}

fn add_binary(set: &mut CifarSet, what: &str, bytes: &[u8], budget: &Budget) -> Result<()> {
    let (record, labels) = (set.form.record(), set.form.labels);
    if !set.form.fits(bytes.len()) {
        return Err(data(format!(
            "{what}: expected records of {record} bytes, found {} bytes",
            bytes.len()
        )));
    }
    set.reserve(bytes.len() / record, budget, what)?;
    for record in bytes.chunks_exact(record) {
        set.add(what, &record[labels..], record[labels - 1].into())?;
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
    let PickleValue::List(labels) = pickle.value(get(set.form.key)?) else {
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
