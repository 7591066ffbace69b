//! safetensors files: a JSON header and raw values. Written in a fixed order, so equal content has equal
//! bytes; read one tensor at a time, so a file costs no memory of its own. The crate reads headers;
//! its writer sorts tensors by type and keeps no order of metadata, so that is our own.

use crate::error::{OrExit as _, data};
use crate::files::{Checksum, cannot_read, open, write_atomic};
use anyhow::Result;
use half::{bf16, f16};
use safetensors::Dtype;
use safetensors::tensor::Metadata;
use serde_json::{Map, Value, json};
use std::fs::File;
use std::io::{BufWriter, ErrorKind, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// A header this long is no header: the format's own limit.
const MAX_HEADER: u64 = 100_000_000;

/// What this program writes is of this format: with a checksum of header and values. Older files have neither entry.
const FORMAT: (&str, &str) = ("emm.format", "2");
const CHECKSUM: &str = "emm.checksum";
/// The checksum is the header's first entry, so that its place is known before there is a value.
const BEFORE_CHECKSUM: &str = r#"{"__metadata__":{"emm.checksum":""#;
/// It stands for its own digits.
const NO_CHECKSUM: &str = "00000000";

/// A safetensors file with its header read.
pub struct TensorFile {
    path: PathBuf,
    file: File,
    metadata: Metadata,
    /// Where the values begin.
    start: u64,
}

impl TensorFile {
    /// Opens a file and reads its header.
    ///
    /// # Errors
    /// Data errors (exit 3) that begin with the file: missing, not safetensors, cut short.
    pub fn open(path: &Path) -> Result<Self> {
        let missing = || data(format!("{}: not found", path.display()));
        TensorFile::open_if_there(path)?.ok_or_else(missing)
    }

    /// [`TensorFile::open`] of a file that may be missing.
    pub fn open_if_there(path: &Path) -> Result<Option<Self>> {
        let broken = || format!("{}: not a whole safetensors file", path.display());
        let file = match open(path) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            other => other.map_err(|e| cannot_read(path, e))?,
        };
        let size = file.metadata().map_err(|e| cannot_read(path, e))?.len();
        if size < 8 {
            return Err(data(broken()));
        }
        let mut length = [0; 8];
        file.read_exact_at(&mut length, 0).map_err(|e| cannot_read(path, e))?;
        let length = u64::from_le_bytes(length);
        if length > MAX_HEADER || length + 8 > size {
            return Err(data(broken()));
        }
        let mut header = vec![0; length as usize];
        file.read_exact_at(&mut header, 8).map_err(|e| cannot_read(path, e))?;
        let metadata: Metadata = serde_json::from_slice(&header).or_data(broken)?;
        let start = 8 + length;
        let want = start + metadata.data_len() as u64;
        if size != want {
            return Err(data(format!("{}: {size} bytes, its header wants {want}", path.display())));
        }
        Ok(Some(TensorFile { path: path.into(), file, metadata, start }))
    }

    /// Compares the file with its checksum; false for one of another program, or from before there were any.
    ///
    /// # Errors
    /// Data errors that name the file: another checksum, or none where the format has one.
    pub fn check(&self) -> Result<bool> {
        let name = self.path.display();
        let stored = match (self.meta(CHECKSUM), self.meta(FORMAT.0)) {
            (Some(stored), _) => stored,
            (None, Some(_)) => return Err(data(format!("{name}: damaged: no {CHECKSUM}"))),
            (None, None) => return Ok(false),
        };
        let mut sum = Checksum::default();
        let mut piece = vec![0; 1 << 20];
        let end = self.start + self.metadata.data_len() as u64;
        let mut at = 0;
        while at < end {
            let bytes = &mut piece[..(end - at).min(1 << 20) as usize];
            self.file.read_exact_at(bytes, at).map_err(|e| cannot_read(&self.path, e))?;
            if at == 0 {
                let digits = 8 + BEFORE_CHECKSUM.len();
                let place = bytes.get_mut(digits..digits + NO_CHECKSUM.len());
                if let Some(digits) = place {
                    digits.copy_from_slice(NO_CHECKSUM.as_bytes());
                }
            }
            sum.update(bytes);
            at += bytes.len() as u64;
        }
        match sum.text() == stored {
            true => Ok(true),
            false => Err(data(format!(
                "{name}: damaged: its checksum is {}, it says {stored:?} (a program that changes such a file has to \
                 remove {CHECKSUM} and {} from its metadata)",
                sum.text(),
                FORMAT.0
            ))),
        }
    }

    /// A value of the header's text metadata.
    pub fn meta(&self, key: &str) -> Option<&str> {
        self.metadata.metadata().as_ref()?.get(key).map(String::as_str)
    }

    /// Names in the order of the values.
    pub fn names(&self) -> Vec<String> {
        self.metadata.offset_keys()
    }

    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.metadata.info(name).map(|i| i.shape.as_slice())
    }

    /// Refuses a tensor that is missing or of another shape.
    ///
    /// # Errors
    /// Data errors that name the file and the tensor.
    pub fn check_shape(&self, name: &str, shape: &[usize]) -> Result<()> {
        let path = self.path.display();
        match self.shape(name) {
            None => Err(data(format!("{path}: tensor {name} is missing"))),
            Some(have) if have != shape => {
                Err(data(format!("{path}: tensor {name} is {have:?}, {shape:?} is wanted")))
            }
            Some(_) => Ok(()),
        }
    }

    /// A tensor of F32, F16, BF16 or F64 as f32, without a look at its values.
    ///
    /// # Errors
    /// Data errors that name the file and the tensor: missing, another type.
    pub fn values(&self, name: &str) -> Result<Vec<f32>> {
        let path = self.path.display();
        let Some(info) = self.metadata.info(name) else {
            return Err(data(format!("{path}: tensor {name} is missing")));
        };
        let (from, to) = info.data_offsets;
        let mut bytes = vec![0; to - from];
        self.file
            .read_exact_at(&mut bytes, self.start + from as u64)
            .map_err(|e| cannot_read(&self.path, e))?;
        Ok(match info.dtype {
            Dtype::F32 => each(&bytes, f32::from_le_bytes),
            Dtype::F16 => each(&bytes, |b| f16::from_le_bytes(b).to_f32()),
            Dtype::BF16 => each(&bytes, |b| bf16::from_le_bytes(b).to_f32()),
            Dtype::F64 => each(&bytes, |b| f64::from_le_bytes(b) as f32),
            other => {
                let want = "F32, F16, BF16 or F64 is wanted";
                return Err(data(format!("{path}: tensor {name} is {other}, {want}")));
            }
        })
    }

    /// [`TensorFile::values`] of a tensor that must have this shape and be finite throughout.
    pub fn read(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        self.check_shape(name, shape)?;
        let values = self.values(name)?;
        match values.iter().position(|v| !v.is_finite()) {
            Some(i) => {
                let path = self.path.display();
                Err(data(format!("{path}: tensor {name} holds {} at {i}", values[i])))
            }
            None => Ok(values),
        }
    }
}

fn each<const N: usize>(bytes: &[u8], f: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    bytes.chunks_exact(N).map(|b| f(b.try_into().expect("N bytes"))).collect()
}

/// Writes a file of F32 tensors whole or not at all.
///
/// - `metadata`: text entries, written in this order.
/// - `tensors`: name and shape of each; `values(i)` gives tensor i's values when their turn comes.
///
/// # Errors
/// As [`write_atomic`].
pub fn write(
    path: &Path,
    force: bool,
    metadata: &[(&str, String)],
    tensors: &[(String, Vec<usize>)],
    values: impl Fn(usize) -> Vec<f32>,
) -> Result<()> {
    let mut header = Map::new();
    let ours = [(CHECKSUM, NO_CHECKSUM), FORMAT];
    let given = metadata.iter().map(|(key, value)| (*key, value.as_str()));
    let text = ours.into_iter().chain(given).map(|(k, v)| (k.to_string(), Value::from(v)));
    let text = text.collect();
    header.insert("__metadata__".into(), Value::Object(text));
    let mut end = 0;
    for (name, shape) in tensors {
        let start = end;
        end += 4 * shape.iter().product::<usize>();
        let info = json!({"dtype": "F32", "shape": shape, "data_offsets": [start, end]});
        header.insert(name.clone(), info);
    }
    let mut header = serde_json::to_vec(&header)?;
    // Values begin at a multiple of 8; the format wants spaces in between.
    header.resize(header.len().next_multiple_of(8), b' ');
    write_atomic(path, force, |out| {
        let mut sum = Checksum::default();
        let mut put = |out: &mut BufWriter<File>, bytes: &[u8]| {
            sum.update(bytes);
            out.write_all(bytes)
        };
        put(out, &(header.len() as u64).to_le_bytes())?;
        put(out, &header)?;
        for (i, (name, shape)) in tensors.iter().enumerate() {
            let values = values(i);
            assert_eq!(values.len(), shape.iter().product::<usize>(), "{name}: wrong length");
            put(out, bytemuck::cast_slice(&values))?;
        }
        out.seek(SeekFrom::Start(8 + BEFORE_CHECKSUM.len() as u64))?;
        Ok(out.write_all(sum.text().as_bytes())?)
    })
}
