//! Reader of golden files: safetensors whose metadata key `cases` describes each case, made by
//! `tests/goldens/make.py`, and the one comparison that decides whether a result is right.

use crate::error::OrExit;
use anyhow::{Result, anyhow, bail, ensure};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use std::collections::HashMap;
use std::path::Path;

/// A golden file in memory. Tensors of case `c` are named `c/<tensor>`.
///
/// The files are part of the program, so a tensor that is missing or has another type is a bug of
/// ours: the accessors panic with its name.
#[derive(Debug, Clone)]
pub struct Golden {
    tensors: HashMap<String, GoldenTensor>,
    metadata: HashMap<String, String>,
    cases: Vec<(String, Value)>,
}

#[derive(Debug, Clone)]
struct GoldenTensor {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Golden {
    /// Reads a file from its bytes, which may be embedded in the binary.
    ///
    /// # Errors
    /// If the bytes are no safetensors file, or its `cases` is no JSON object with entries (a test over
    /// none would pass).
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let file = SafeTensors::deserialize(bytes)?;
        let (_, header) = SafeTensors::read_metadata(bytes)?;
        let metadata = header.metadata().clone().unwrap_or_default();
        let cases =
            match metadata.get("cases").map(|text| serde_json::from_str(text)).transpose()? {
                None => Vec::new(),
                Some(Value::Object(cases)) if !cases.is_empty() => cases.into_iter().collect(),
                Some(other) => bail!("golden: cases must be an object with entries, found {other}"),
            };
        let tensors = file
            .iter()
            .map(|(name, t)| {
                let bytes = t.data().to_vec();
                (
                    name.to_string(),
                    GoldenTensor { dtype: t.dtype(), shape: t.shape().to_vec(), bytes },
                )
            })
            .collect();
        Ok(Golden { tensors, metadata, cases })
    }

    /// Reads a file from disk.
    ///
    /// # Errors
    /// A data error (exit 3) that begins with the path.
    pub fn open(path: &Path) -> Result<Self> {
        let name = || format!("{}: no golden file", path.display());
        Self::parse(&std::fs::read(path).or_data(name)?).or_data(name)
    }

    /// Name and attributes of every case, in the file's order; none in a whole model's file.
    pub fn cases(&self) -> Vec<(String, Value)> {
        self.cases.clone()
    }

    /// A metadata entry as JSON, e.g. `config` of a whole model.
    ///
    /// # Errors
    /// If there is no such entry or it isn't JSON.
    pub fn metadata(&self, key: &str) -> Result<Value> {
        let text = self.metadata.get(key).ok_or_else(|| anyhow!("golden: no metadata {key}"))?;
        serde_json::from_str(text).map_err(|e| anyhow!("golden: metadata {key}: {e}"))
    }

    /// Names of all tensors, sorted.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<_> = self.tensors.keys().map(String::as_str).collect();
        names.sort_unstable();
        names
    }

    pub fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Shape of a tensor of any type, where there is one of that name.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|t| &t.shape[..])
    }

    /// Shape and values of a float32 tensor.
    pub fn f32(&self, name: &str) -> (&[usize], Vec<f32>) {
        self.values(name, Dtype::F32, f32::from_le_bytes)
    }

    /// Shape and values of a float64 tensor.
    pub fn f64(&self, name: &str) -> (&[usize], Vec<f64>) {
        self.values(name, Dtype::F64, f64::from_le_bytes)
    }

    /// Shape and values of a 32-bit integer tensor.
    pub fn i32(&self, name: &str) -> (&[usize], Vec<i32>) {
        self.values(name, Dtype::I32, i32::from_le_bytes)
    }

    /// Shape and values of an unsigned 32-bit tensor.
    pub fn u32(&self, name: &str) -> (&[usize], Vec<u32>) {
        self.values(name, Dtype::U32, u32::from_le_bytes)
    }

    fn values<T, const N: usize>(
        &self,
        name: &str,
        dtype: Dtype,
        read: fn([u8; N]) -> T,
    ) -> (&[usize], Vec<T>) {
        let Some(t) = self.tensors.get(name) else { panic!("golden: no tensor {name}") };
        assert_eq!(t.dtype, dtype, "golden: type of {name}");
        let (chunks, _) = t.bytes.as_chunks::<N>();
        (&t.shape, chunks.iter().map(|&c| read(c)).collect())
    }
}

/// Below this norm of the expected values, [`rel_err`] is an absolute error over it.
pub const FLOOR: f64 = 1e-6;

/// ‖got − want‖ / max(‖want‖, [`FLOOR`]), in float64.
///
/// # Errors
/// If the lengths differ or any value of either is not finite: NaN never passes.
pub fn rel_err<T: Copy + Into<f64>>(got: &[T], want: &[T]) -> Result<f64> {
    ensure!(got.len() == want.len(), "{} values, {} expected", got.len(), want.len());
    let (mut gap, mut norm) = (0.0, 0.0);
    for (i, (&g, &w)) in got.iter().zip(want).enumerate() {
        let (g, w): (f64, f64) = (g.into(), w.into());
        ensure!(g.is_finite() && w.is_finite(), "value {i} is {g}, {w} expected");
        gap += (g - w) * (g - w);
        norm += w * w;
    }
    Ok(gap.sqrt() / norm.sqrt().max(FLOOR))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn golden() -> Golden {
        Golden::parse(include_bytes!("../../tests/goldens/ops/philox.safetensors")).unwrap()
    }

    /// The library's Philox against Random123's known answers and NumPy's words.
    #[test]
    fn philox_matches() {
        let g = golden();
        assert_eq!(g.cases().iter().map(|c| &c.0).collect::<Vec<_>>(), ["known", "random"]);
        for (case, _) in g.cases() {
            let (shape, counter) = g.u32(&format!("{case}/counter"));
            let (_, key) = g.u32(&format!("{case}/key"));
            let (_, words) = g.u32(&format!("{case}/words"));
            for n in 0..shape[0] {
                let c = counter[4 * n..][..4].try_into().unwrap();
                let seed = u64::from(key[2 * n + 1]) << 32 | u64::from(key[2 * n]);
                assert_eq!(crate::rng::philox(c, seed), words[4 * n..][..4], "{case} {n}");
            }
        }
    }

    #[test]
    fn wrong_bytes_and_metadata_are_errors() {
        let g = golden();
        assert!(g.has("known/words") && !g.has("known/nothing"));
        assert!(g.metadata("nothing").is_err());
        assert!(Golden::parse(b"short").is_err());
    }

    #[test]
    #[should_panic(expected = "type of known/words")]
    fn a_wrong_type_panics() {
        golden().f32("known/words");
    }

    #[test]
    fn rel_err_measures_and_refuses() {
        assert_eq!(rel_err(&[3.0_f32, 4.0], &[3.0, 4.0]).unwrap(), 0.0);
        assert!((rel_err(&[0.0_f64, 5.0], &[0.0, 4.0]).unwrap() - 0.25).abs() < 1e-15);
        assert!((rel_err(&[1e-7_f64], &[0.0]).unwrap() - 0.1).abs() < 1e-12);
        assert!(rel_err(&[1.0_f32], &[1.0, 2.0]).is_err());
        for bad in [f32::NAN, f32::INFINITY] {
            assert!(rel_err(&[bad], &[1.0]).is_err());
            assert!(rel_err(&[1.0], &[bad]).is_err());
        }
    }
}
