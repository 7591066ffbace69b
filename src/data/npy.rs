//! NumPy's `.npy` and `.npz`: little-endian, of five element types; in Fortran order they are read, too.
//! Own code: what these files may hold is little, and each way in which one can be damaged has its line of error.
//!
//! Source: NumPy's format description, version 1.0 (2.0 and 3.0 are read: they differ in the header's length
//! field and encoding).

use super::archive::Archive;
use super::input::map;
use super::stored_zip::StoredZip;
use crate::error::{OrExit as _, data};
use crate::files::write_atomic;
use crate::memory::Budget;
use anyhow::{Result, anyhow, bail};
use memmap2::Mmap;
use std::io::Write as _;
use std::path::Path;

/// What an npy file begins with.
pub const MAGIC: &[u8] = b"\x93NUMPY";
/// Bytes that one array of an npz may take.
const MAX_ARRAY_BYTES: u64 = 4 << 30;

/// Elements of one type, in C order.
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    U8(Vec<u8>),
    I32(Vec<i32>),
    I64(Vec<i64>),
    F32(Vec<f32>),
    F64(Vec<f64>),
}

/// An array of any of the five types.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    pub shape: Vec<usize>,
    pub values: Values,
}

/// An element type that files hold.
pub trait Element: bytemuck::Pod {
    /// NumPy's name of the little-endian type.
    const DESCR: &'static str;
    /// Wraps a vector.
    fn wrap(values: Vec<Self>) -> Values;
    /// Unwraps a vector of this type.
    fn unwrap(values: Values) -> Option<Vec<Self>>;
}

macro_rules! element {
    ($($type:ty, $variant:ident, $descr:literal;)*) => {
        $(impl Element for $type {
            const DESCR: &'static str = $descr;
            fn wrap(values: Vec<Self>) -> Values {
                Values::$variant(values)
            }
            fn unwrap(values: Values) -> Option<Vec<Self>> {
                match values {
                    Values::$variant(v) => Some(v),
                    _ => None,
                }
            }
        })*

        impl Values {
            /// NumPy's name of the element type.
            pub fn descr(&self) -> &'static str {
                match self { $(Values::$variant(_) => $descr,)* }
            }

            /// The elements' bytes, little-endian.
            fn bytes(&self) -> &[u8] {
                match self { $(Values::$variant(v) => bytemuck::cast_slice(v),)* }
            }
        }

        fn parse_values(header: &Header, body: &[u8]) -> Result<Values> {
            match header.descr.as_str() {
                $($descr => Ok(<$type>::wrap(header.in_c_order(body))),)*
                descr => Err(unknown_type(descr)),
            }
        }

        fn element_size(descr: &str) -> Result<usize> {
            match descr {
                $($descr => Ok(size_of::<$type>()),)*
                _ => Err(unknown_type(descr)),
            }
        }
    };
}

element! {
    u8, U8, "|u1";
    i32, I32, "<i4";
    i64, I64, "<i8";
    f32, F32, "<f4";
    f64, F64, "<f8";
}

fn unknown_type(descr: &str) -> anyhow::Error {
    anyhow!(
        "array of type {descr:?}, expected one of |u1, <i4, <i8, <f4, <f8; NumPy's x.astype(\"<i8\") makes labels, \
         x.astype(\"<f4\") other numbers, (x / 257).round().astype(\"u1\") bytes of 16 bits"
    )
}

impl Values {
    pub fn any_nan(&self) -> bool {
        match self {
            Values::F32(v) => v.iter().any(|x| x.is_nan()),
            Values::F64(v) => v.iter().any(|x| x.is_nan()),
            _ => false,
        }
    }

    /// The least and the greatest number, NaN apart; both 0 if there is none.
    pub fn range(&self) -> [f64; 2] {
        fn of<T: Copy>(values: &[T], number: impl Fn(T) -> f64) -> [f64; 2] {
            let numbers = values.iter().map(|&v| number(v)).filter(|v| !v.is_nan());
            numbers
                .map(|v| [v, v])
                .reduce(|a, b| [a[0].min(b[0]), a[1].max(b[1])])
                .unwrap_or([0.0; 2])
        }
        match self {
            Values::U8(v) => of(v, f64::from),
            Values::I32(v) => of(v, f64::from),
            Values::I64(v) => of(v, |i| i as f64),
            Values::F32(v) => of(v, f64::from),
            Values::F64(v) => of(v, |x| x),
        }
    }
}

impl Array {
    /// An array of `shape`.
    ///
    /// # Panics
    /// If the shape's product is not the number of values.
    pub fn new<T: Element>(shape: &[usize], values: Vec<T>) -> Self {
        assert_eq!(shape.iter().product::<usize>(), values.len(), "shape {shape:?}");
        Array { shape: shape.to_vec(), values: T::wrap(values) }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Shape and values of an array of exactly type `T`.
    ///
    /// # Errors
    /// A data error that begins with `what`, if the array is of another type.
    pub fn of<T: Element>(self, what: &str) -> Result<(Vec<usize>, Vec<T>)> {
        let descr = self.values.descr();
        let values = T::unwrap(self.values).ok_or_else(|| {
            let wanted = T::DESCR;
            data(format!(
                "{what}: expected an array of type {wanted}, found {descr}; NumPy's x.astype(\"{wanted}\") makes it"
            ))
        })?;
        Ok((self.shape, values))
    }

    /// Shape and values of an array of integers of any type.
    ///
    /// # Errors
    /// A data error that begins with `what`, if the array is of floating point numbers.
    pub fn integers(self, what: &str) -> Result<(Vec<usize>, Vec<i64>)> {
        let values = match self.values {
            Values::U8(v) => v.into_iter().map(i64::from).collect(),
            Values::I32(v) => v.into_iter().map(i64::from).collect(),
            Values::I64(v) => v,
            v => {
                let found = v.descr();
                return Err(data(format!(
                    "{what}: expected integers, found {found}; NumPy's x.astype(\"<i8\") makes them"
                )));
            }
        };
        Ok((self.shape, values))
    }

    /// Parses the contents of an npy file.
    fn parse(bytes: &[u8]) -> Result<Self> {
        let header = Header::parse(bytes)?;
        let body = header.body(bytes)?;
        Ok(Array { values: parse_values(&header, body)?, shape: header.shape })
    }
}

struct Header {
    descr: String,
    shape: Vec<usize>,
    /// Whether the first index runs fastest, not the last.
    fortran: bool,
    /// Where the data begins.
    end: usize,
}

impl Header {
    /// The data of the file whose `bytes` these are: as many as the shape wants.
    fn body<'b>(&self, bytes: &'b [u8]) -> Result<&'b [u8]> {
        let (size, body) = (element_size(&self.descr)?, &bytes[self.end..]);
        let shape = &self.shape;
        let expected = (shape.iter().try_fold(size, |n, &d| n.checked_mul(d)))
            .ok_or_else(|| anyhow!("shape {shape:?} is too large"))?;
        if body.len() != expected {
            bail!("{} bytes of data, its shape {shape:?} wants {expected}", body.len());
        }
        Ok(body)
    }

    /// The elements of `body` with the last index fastest.
    fn in_c_order<T: Element>(&self, body: &[u8]) -> Vec<T> {
        if !self.fortran {
            return bytemuck::pod_collect_to_vec(body);
        }
        let size = size_of::<T>();
        let mut strides = Vec::with_capacity(self.shape.len());
        let count = self.shape.iter().fold(1, |stride, d| {
            strides.push(stride);
            stride * d
        });
        let mut at = vec![0; self.shape.len()];
        let mut place = 0;
        let next = |_| {
            let value = bytemuck::pod_read_unaligned(&body[place * size..][..size]);
            for d in (0..at.len()).rev() {
                (at[d], place) = (at[d] + 1, place + strides[d]);
                if at[d] < self.shape[d] {
                    break;
                }
                (at[d], place) = (0, place - strides[d] * self.shape[d]);
            }
            value
        };
        (0..count).map(next).collect()
    }

    /// Parses `{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }` and what stands before it.
    fn parse(bytes: &[u8]) -> Result<Self> {
        let short = || anyhow!("the npy header is cut off");
        let rest = bytes.strip_prefix(MAGIC).ok_or_else(|| anyhow!("expected a npy array"))?;
        let (length, start) = match *rest.first().ok_or_else(short)? {
            1 => {
                let b = rest.get(2..4).ok_or_else(short)?;
                (u16::from_le_bytes([b[0], b[1]]) as usize, 10)
            }
            2 | 3 => {
                let b = rest.get(2..6).ok_or_else(short)?;
                (u32::from_le_bytes([b[0], b[1], b[2], b[3]]) as usize, 12)
            }
            v => bail!("npy format version {v}, expected 1, 2 or 3"),
        };
        let text = bytes.get(start..start + length).ok_or_else(short)?;
        let text = std::str::from_utf8(text).map_err(|_| anyhow!("the npy header is no text"))?;
        let wrong = || anyhow!("the npy header is not understood");
        let value = |key: &str| {
            let (_, after) = text.split_once(key)?;
            Some(after.trim_start().strip_prefix(':')?.trim_start())
        };
        let descr = value("'descr'").ok_or_else(wrong)?;
        let descr = match descr.strip_prefix('\'').and_then(|d| d.split_once('\'')) {
            Some((descr, _)) => descr.to_string(),
            None => bail!("a structured npy array, expected plain numbers"),
        };
        let order = value("'fortran_order'").ok_or_else(wrong)?;
        let fortran = order.starts_with("True");
        if !fortran && !order.starts_with("False") {
            return Err(wrong());
        }
        let shape = value("'shape'").and_then(|s| s.strip_prefix('(')?.split_once(')'));
        let (shape, _) = shape.ok_or_else(wrong)?;
        let shape = (shape.split(',').map(str::trim).filter(|d| !d.is_empty()))
            .map(|d| d.parse().map_err(|_| wrong()))
            .collect::<Result<Vec<usize>>>()?;
        Ok(Header { descr, shape, fortran, end: start + length })
    }
}

/// What stands before the data in an npy file.
fn header(shape: &[usize], descr: &str) -> Vec<u8> {
    let shape = match shape {
        [n] => format!("({n},)"),
        _ => format!("({})", shape.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")),
    };
    let dict = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
    // Spaces and a newline bring the data to a multiple of 64 bytes.
    let length = (10 + dict.len() + 1).next_multiple_of(64) - 10;
    let text = format!("{dict:<width$}\n", width = length - 1);
    [MAGIC, &[1, 0], &(length as u16).to_le_bytes(), text.as_bytes()].concat()
}

/// Reads an npy file.
///
/// # Errors
/// Data errors that begin with the file: missing, cut off, another element type, big-endian, a shape that does not
/// fit the data.
pub fn read(path: &Path) -> Result<Array> {
    read_within(path, &Budget::default())
}

/// [`read`] within a budget.
///
/// # Errors
/// As [`read`]; over the budget (exit 4).
pub fn read_within(path: &Path, budget: &Budget) -> Result<Array> {
    let what = || path.display().to_string();
    let map = map(path)?;
    budget.keep(map.len() as u64, what)?;
    Array::parse(&map).or_data(what)
}

/// NumPy's name of the type of an npy file's elements.
///
/// # Errors
/// Data errors that begin with the file: missing, no npy.
pub fn type_of(path: &Path) -> Result<String> {
    Ok(Header::parse(&map(path)?).or_data(|| path.display().to_string())?.descr)
}

/// An npy file of unsigned bytes, mapped into memory rather than read.
pub struct MappedBytes {
    map: Mmap,
    start: usize,
    pub shape: Vec<usize>,
}

impl MappedBytes {
    /// # Errors
    /// As [`read`]; another type, Fortran order.
    pub fn open(path: &Path) -> Result<Self> {
        let what = || path.display().to_string();
        let map = map(path)?;
        let header = Header::parse(&map).or_data(what)?;
        if header.descr != u8::DESCR {
            let (wanted, found) = (u8::DESCR, header.descr);
            return Err(data(format!("{}: expected type {wanted}, found {found}", what())));
        }
        if header.fortran {
            let makes = "NumPy's numpy.ascontiguousarray(x) makes it";
            return Err(data(format!("{}: in Fortran order, expected C order; {makes}", what())));
        }
        header.body(&map).or_data(what)?;
        Ok(MappedBytes { map, start: header.end, shape: header.shape })
    }

    /// The elements, in C order.
    pub fn values(&self) -> &[u8] {
        &self.map[self.start..]
    }
}

/// Reads an npy file of exactly float32.
///
/// # Errors
/// As [`read`]; another type.
pub fn read_f32(path: &Path) -> Result<(Vec<usize>, Vec<f32>)> {
    read(path)?.of(&path.display().to_string())
}

/// Reads an npy file of int64, int32 or uint8.
///
/// # Errors
/// As [`read`]; floating point numbers.
pub fn read_i64(path: &Path) -> Result<(Vec<usize>, Vec<i64>)> {
    read(path)?.integers(&path.display().to_string())
}

/// Writes an npy file, whole or not at all.
///
/// # Errors
/// As [`write_atomic`].
///
/// # Panics
/// If the shape's product is not the number of values.
pub fn write<T: Element>(path: &Path, force: bool, shape: &[usize], values: &[T]) -> Result<()> {
    assert_eq!(shape.iter().product::<usize>(), values.len(), "shape {shape:?}");
    write_atomic(path, force, |out| {
        out.write_all(&header(shape, T::DESCR))?;
        Ok(out.write_all(bytemuck::cast_slice(values))?)
    })
}

/// Reads all arrays of an npz file, in the order of the file, by name without `.npy`.
///
/// # Errors
/// Data errors that begin with the file and name the array: as [`read`] and [`Archive::open`].
pub fn read_npz(path: &Path) -> Result<Vec<(String, Array)>> {
    let budget = Budget::default();
    let archive = Archive::open(path, &budget)?;
    let read = |(i, name)| Ok((name, read_array(&archive, i, &budget)?));
    names(&archive)?.into_iter().enumerate().map(read).collect()
}

/// Names of an archive's arrays, without `.npy`.
///
/// # Errors
/// A data error that names an entry that is no array.
pub fn names(archive: &Archive) -> Result<Vec<String>> {
    let name = |entry: &String| match entry.strip_suffix(".npy") {
        Some(name) => Ok(name.to_string()),
        None => Err(data(format!("{}: {entry} is no npy array", archive.file()))),
    };
    archive.names().iter().map(name).collect()
}

/// Array `i` of an archive.
///
/// # Errors
/// As [`read_npz`]; over the budget (exit 4).
pub fn read_array(archive: &Archive, i: usize, budget: &Budget) -> Result<Array> {
    let what = || format!("{}: {}", archive.file(), archive.names()[i].trim_end_matches(".npy"));
    let (bytes, _spent) = archive.read(i, MAX_ARRAY_BYTES, budget)?;
    budget.keep(bytes.len() as u64, what)?;
    Array::parse(&bytes).or_data(what)
}

/// Writes an npz file (stored, not compressed), whole or not at all; the same arrays give the same bytes.
///
/// # Errors
/// As [`write_atomic`].
pub fn write_npz(path: &Path, force: bool, arrays: &[(&str, Array)]) -> Result<()> {
    write_atomic(path, force, |file| {
        let mut zip = StoredZip::new(file);
        for (name, Array { shape, values }) in arrays {
            zip.add(&format!("{name}.npy"), &[&header(shape, values.descr()), values.bytes()])?;
        }
        Ok(zip.finish()?)
    })
}
