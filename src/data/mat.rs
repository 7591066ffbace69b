//! Images in MATLAB's files of version 5, as SVHN's (Netzer et al. 2011): `X`, unsigned bytes `[H,W,C,N]` with the first
//! index fastest, and `y`, a class each, of which SVHN's 10 means the digit 0.
//!
//! Source: MathWorks' MAT-File Format, version 5.

use super::input::{map, read_all};
use super::open::Reader;
use super::source::{Source, StoredImages};
use crate::error::{OrExit as _, data};
use crate::memory::{Budget, Spent};
use anyhow::{Result, anyhow, bail, ensure};
use flate2::read::ZlibDecoder;
use std::borrow::Cow;
use std::path::Path;

const HEADER_BYTES: usize = 128;
/// Bytes that one array may take.
const MAX_ARRAY: u64 = 8 << 30;

/// Types of elements.
const INT8: u32 = 1;
const UINT8: u32 = 2;
const INT16: u32 = 3;
const UINT16: u32 = 4;
const INT32: u32 = 5;
const UINT32: u32 = 6;
const DOUBLE: u32 = 9;
const MATRIX: u32 = 14;
const COMPRESSED: u32 = 15;

pub const READER: Reader = Reader {
    what: "MATLAB file (.mat)",
    claims: |files| files.paths.len() == 1 && files.head.starts_with(b"MATLAB "),
    open: |files| open(&files.paths[0], files.budget),
};

/// An element: its type, its data, and what stands behind it.
fn element(bytes: &[u8]) -> Result<(u32, &[u8], &[u8])> {
    let cut_off = || anyhow!("cut off");
    let (head, rest) = bytes.split_first_chunk::<8>().ok_or_else(cut_off)?;
    let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let (kind, size) = (word(0), word(4) as usize);
    if kind >> 16 != 0 {
        // A small one lies within its tag.
        let size = (kind >> 16) as usize;
        ensure!(size <= 4, "a small element of {size} bytes");
        return Ok((kind & 0xFFFF, &bytes[4..4 + size], rest));
    }
    let data = rest.get(..size).ok_or_else(cut_off)?;
    // Compressed ones are not padded; the last one may lack it.
    let padded = if kind == COMPRESSED { size } else { size.next_multiple_of(8) };
    Ok((kind, data, rest.get(padded..).unwrap_or_default()))
}

/// An array of real numbers.
struct Matrix<'a> {
    name: String,
    dims: Vec<usize>,
    kind: u32,
    values: &'a [u8],
}

impl<'a> Matrix<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self> {
        let (kind, flags, rest) = element(bytes)?;
        ensure!(kind == UINT32 && flags.len() == 8, "an array without its flags");
        let (kind, dims, rest) = element(rest)?;
        ensure!(kind == INT32 && dims.len() <= 64, "an array without its size");
        let size = |d: &[u8]| usize::try_from(i32::from_le_bytes([d[0], d[1], d[2], d[3]]));
        let dims = dims.chunks_exact(4).map(size).collect::<Result<Vec<_>, _>>()?;
        let (kind, name, rest) = element(rest)?;
        ensure!(matches!(kind, INT8 | UINT8), "an array without its name");
        let name = String::from_utf8_lossy(name).into_owned();
        // Structs, texts and sparse arrays hold something else here.
        let (kind, values, _) = element(rest).unwrap_or((0, &[], &[]));
        Ok(Matrix { name, dims, kind, values })
    }

    fn count(&self) -> Option<usize> {
        self.dims.iter().try_fold(1_usize, |n, &d| n.checked_mul(d))
    }

    /// The values as whole numbers.
    fn integers(&self) -> Result<Vec<i64>> {
        let v = self.values;
        let values: Vec<i64> = match self.kind {
            INT8 => v.iter().map(|&b| i64::from(b as i8)).collect(),
            UINT8 => v.iter().map(|&b| i64::from(b)).collect(),
            INT16 => {
                v.chunks_exact(2).map(|b| i64::from(i16::from_le_bytes([b[0], b[1]]))).collect()
            }
            UINT16 => {
                v.chunks_exact(2).map(|b| i64::from(u16::from_le_bytes([b[0], b[1]]))).collect()
            }
            INT32 => {
                bytemuck::pod_collect_to_vec::<u8, i32>(v).into_iter().map(i64::from).collect()
            }
            UINT32 => {
                bytemuck::pod_collect_to_vec::<u8, u32>(v).into_iter().map(i64::from).collect()
            }
            DOUBLE => {
                let values: Vec<f64> = bytemuck::pod_collect_to_vec(v);
                ensure!(
                    values.iter().all(|v| v.fract() == 0.0),
                    "y holds numbers that are not whole"
                );
                values.into_iter().map(|v| v as i64).collect()
            }
            kind => bail!("y holds values of type {kind}, expected numbers"),
        };
        ensure!(Some(values.len()) == self.count(), "y is cut off");
        Ok(values)
    }
}

/// Opens a file.
///
/// # Errors
/// Data errors that begin with the file: another version, cut off, no `X` of images, `y` of another number or with other
/// values than class indices. Over the budget (exit 4).
fn open(path: &Path, budget: &Budget) -> Result<Source> {
    let what = || path.display().to_string();
    let bytes = map(path)?;
    if !bytes.starts_with(b"MATLAB 5") || bytes.get(126..128) != Some(b"IM") {
        return Err(data(format!(
            "{}: expected a little-endian MATLAB file of version 5, found another; MATLAB's save(\"OUT.mat\", \"X\", \"y\", \
             \"-v6\") makes one",
            what()
        )));
    }
    let (mut images, mut labels, mut names) = (None, None, Vec::new());
    let mut rest = &bytes[HEADER_BYTES..];
    while !rest.is_empty() {
        let (kind, packed, behind) = element(rest).or_data(what)?;
        rest = behind;
        let (contents, spent) = match kind {
            COMPRESSED => unpack(packed, budget, &what)?,
            _ => (Cow::Borrowed(packed), budget.borrow(0, what)?),
        };
        let matrix = match kind {
            COMPRESSED => element(&contents).or_data(what)?,
            _ => (kind, &contents[..], &[][..]),
        };
        let (MATRIX, body, _) = matrix else { continue };
        let matrix = Matrix::parse(body).or_data(what)?;
        names.push(matrix.name.clone());
        let twice = match &*matrix.name {
            "X" => images.replace(pixels(&matrix, budget, &what)?).is_some(),
            "y" => {
                budget.keep(16 * matrix.values.len() as u64, what)?;
                labels.replace(matrix.integers().or_data(what)?).is_some()
            }
            _ => false,
        };
        if twice {
            return Err(data(format!("{}: two arrays named {}", what(), matrix.name)));
        }
        drop(spent);
    }
    let Some((images, count)) = images else {
        let names = if names.is_empty() { "none".into() } else { names.join(", ") };
        return Err(data(format!("{}: expected an array named X, found {names}", what())));
    };
    let mut notes = Vec::new();
    let labels = match labels {
        Some(values) => {
            if values.len() != count {
                let labels = values.len();
                return Err(data(format!(
                    "{}: y holds {labels} labels for {count} images",
                    what()
                )));
            }
            let digits = values.iter().all(|l| (1..=10).contains(l)) && values.contains(&10);
            if digits {
                notes.push(format!("{}: label 10 is read as class 0, as SVHN means it", what()));
            }
            let index = |l: i64| u32::try_from(if digits { l % 10 } else { l });
            let indices = values.into_iter().map(index).collect::<Result<Vec<_>, _>>();
            Some(indices.map_err(|_| data(format!("{}: y holds labels below 0", what())))?)
        }
        None => None,
    };
    let mut source = Source::new(what(), labels, images, budget);
    (source.notes, source.slow) = (notes, true);
    Ok(source)
}

fn unpack<'a>(
    packed: &[u8],
    budget: &Budget,
    what: &dyn Fn() -> String,
) -> Result<(Cow<'a, [u8]>, Spent)> {
    let (bytes, spent) = read_all(&mut ZlibDecoder::new(packed), MAX_ARRAY, budget, what)?;
    Ok((Cow::Owned(bytes), spent))
}

/// Images and their number.
fn pixels(
    matrix: &Matrix,
    budget: &Budget,
    what: &dyn Fn() -> String,
) -> Result<(StoredImages, usize)> {
    let dims = &matrix.dims;
    let (height, width, channels, count) = match dims[..] {
        [h, w, c @ (1 | 3), n] => (h, w, c, n),
        // One image: MATLAB drops the last size of 1.
        [h, w, 3] => (h, w, 3, 1),
        _ => (0, 0, 0, 0),
    };
    let values = matrix.values;
    let right = matrix.kind == UINT8 && matrix.count() == Some(values.len()) && !values.is_empty();
    if !right || channels == 0 {
        let (kind, len) = (matrix.kind, values.len());
        return Err(data(format!(
            "{}: expected X of unsigned bytes [H, W, 3, N], found {dims:?} with {len} bytes of type {kind}",
            what()
        )));
    }
    budget.keep(values.len() as u64, what)?;
    let mut out = Vec::with_capacity(values.len());
    for image in values.chunks_exact(height * width * channels) {
        for (y, x) in (0..height).flat_map(|y| (0..width).map(move |x| (y, x))) {
            out.extend((0..channels).map(|c| image[y + height * (x + width * c)]));
        }
    }
    Ok((StoredImages::Packed { width, height, channels, pixels: out }, count))
}
