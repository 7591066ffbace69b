//! CIFAR-10's training images (Krizhevsky 2009): the python and the binary archive, single binary batches.
//!
//! Python: a tar of pickles, each a dict with `data`, uint8 [N, 3072] in channel planes, and `labels`.
//! Binary: records of a label byte and 3,072 bytes in channel planes.

use super::archive::check_entry_name;
use super::source::{Images, Source, gunzip, read_file};
use crate::error::{OrExit as _, data};
use anyhow::Result;
use serde_pickle::{DeOptions, HashableValue, Value};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use tar::Archive;

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

/// Images in H,W,C order and their labels, as batches are added.
#[derive(Default)]
struct Set {
    pixels: Vec<u8>,
    labels: Vec<u32>,
}

impl Set {
    fn add(&mut self, what: &str, planes: &[u8], label: i64) -> Result<()> {
        if !(0..CLASSES).contains(&label) {
            let n = self.labels.len();
            return Err(data(format!("{what}: label {label} of image {n}, expected 0 to 9")));
        }
        self.labels.push(label as u32);
        self.pixels.extend((0..PLANE).flat_map(|i| [0, 1, 2].map(|c| planes[c * PLANE + i])));
        Ok(())
    }

    fn into_source(self, name: String) -> Source {
        let images = Images::Packed { width: SIDE, height: SIDE, channels: 3, pixels: self.pixels };
        Source { name, groups: Some(self.labels.clone()), labels: Some(self.labels), images }
    }
}

/// Opens binary batches, in the order given.
///
/// # Errors
/// Data errors that begin with the file: a length that is no multiple of a record, labels over 9.
pub fn open_batches(paths: &[PathBuf]) -> Result<Source> {
    let mut set = Set::default();
    for path in paths {
        add_binary(&mut set, &path.display().to_string(), &read_file(path, MAX_MEMBER)?)?;
    }
    Ok(set.into_source(paths[0].display().to_string()))
}

/// Opens the python or the binary archive, gzipped or not: `data_batch_1` to `data_batch_5`.
///
/// # Errors
/// Data errors that begin with the file and name the member: cut off, corrupt, too large, a batch missing
/// or twice, names that lead outside, arrays of another shape.
pub fn open_tar(path: &Path) -> Result<Source> {
    let file = path.display().to_string();
    let broken = || format!("{file}: broken archive");
    let mut batches: [Option<(String, Vec<u8>)>; 5] = Default::default();
    let mut tar = Archive::new(gunzip(path)?.take(MAX_TAR));
    for entry in tar.entries().or_data(broken)? {
        let mut entry = entry.or_data(broken)?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        check_entry_name(&file, &name)?;
        let what = format!("{file}: {name}");
        let size = entry.size();
        if size > MAX_MEMBER {
            return Err(data(format!("{what}: {size} bytes, at most {MAX_MEMBER} are accepted")));
        }
        let base = name.rsplit('/').next().unwrap_or(&name);
        let base = base.strip_suffix(".bin").unwrap_or(base);
        let Some(batch) = BATCHES.iter().position(|&b| b == base) else { continue };
        if !entry.header().entry_type().is_file() {
            return Err(data(format!("{what}: expected a plain file")));
        }
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).or_data(|| what.clone())?;
        if bytes.len() as u64 != size {
            return Err(data(format!("{what}: cut off after {} of {size} bytes", bytes.len())));
        }
        if batches[batch].replace((name, bytes)).is_some() {
            let batch = BATCHES[batch];
            return Err(data(format!("{what}: {batch} stands in the archive twice")));
        }
    }
    // The gzip checksum stands behind the archive's end.
    io::copy(&mut tar.into_inner(), &mut io::sink()).or_data(broken)?;
    let mut set = Set::default();
    for (batch, expected) in batches.into_iter().zip(BATCHES) {
        let Some((name, bytes)) = batch else {
            return Err(data(format!("{file}: {expected} is missing, this is not CIFAR-10")));
        };
        let what = format!("{file}: {name}");
        match name.ends_with(".bin") {
            true => add_binary(&mut set, &what, &bytes)?,
            false => add_pickle(&mut set, &what, &bytes)?,
        }
    }
    Ok(set.into_source(file))
}

fn add_binary(set: &mut Set, what: &str, bytes: &[u8]) -> Result<()> {
    if bytes.is_empty() || !bytes.len().is_multiple_of(RECORD) {
        return Err(data(format!(
            "{what}: expected records of {RECORD} bytes, found {} bytes",
            bytes.len()
        )));
    }
    for record in bytes.chunks_exact(RECORD) {
        set.add(what, &record[1..], record[0].into())?;
    }
    Ok(())
}

fn add_pickle(set: &mut Set, what: &str, bytes: &[u8]) -> Result<()> {
    let value = serde_pickle::value_from_slice(bytes, DeOptions::new())
        .or_data(|| format!("{what}: not a readable pickle"))?;
    let wrong = |found: String| {
        data(format!(
            "{what}: expected a dict with uint8 data [N, {}] and labels, {found}",
            3 * PLANE
        ))
    };
    let Value::Dict(mut dict) = value else { return Err(wrong("found no dict".into())) };
    // Python 2 pickled its keys as bytes, Python 3 does as text.
    let mut take = |key: &str| {
        dict.remove(&HashableValue::Bytes(key.into()))
            .or_else(|| dict.remove(&HashableValue::String(key.into())))
            .ok_or_else(|| wrong(format!("found no {key}")))
    };
    let (rows, planes) = unpickle_array(take("data")?).map_err(wrong)?;
    let Value::List(labels) = take("labels")? else {
        return Err(wrong("found labels that are no list".into()));
    };
    if labels.len() != rows {
        return Err(wrong(format!("found {} labels for {rows} images", labels.len())));
    }
    for (planes, label) in planes.chunks_exact(3 * PLANE).zip(labels) {
        let Value::I64(label) = label else {
            return Err(wrong("found a label that is no integer".into()));
        };
        set.add(what, planes, label)?;
    }
    Ok(())
}

/// Rows and bytes of a pickled NumPy array. The reader leaves the array's state in its place: (version,
/// shape, dtype, Fortran order, bytes), and the dtype's state in its: (3, "|", …) for types of one byte.
fn unpickle_array(value: Value) -> Result<(usize, Vec<u8>), String> {
    let Value::Tuple(state) = value else { return Err("found data that is no array".into()) };
    let [_, Value::Tuple(shape), Value::Tuple(dtype), Value::Bool(false), Value::Bytes(bytes)] =
        &state[..]
    else {
        return Err("found data in Fortran order or of another kind".into());
    };
    let one_byte = match dtype.get(1) {
        Some(Value::Bytes(order)) => order == b"|",
        Some(Value::String(order)) => order == "|",
        _ => false,
    };
    match shape[..] {
        [Value::I64(rows), Value::I64(3072)]
            if one_byte && rows > 0 && bytes.len() as i64 == rows.saturating_mul(3072) =>
        {
            Ok((rows as usize, bytes.clone()))
        }
        _ => Err(format!("found shape {shape:?} with {} bytes", bytes.len())),
    }
}
