//! Outputs are of the format that their name says: an ending that says another one is refused.

use crate::error::usage;
use anyhow::Result;
use std::path::Path;
use std::{fs, io};

/// Endings that tell a format; what else stands behind a dot (`width.0.5`) tells nothing.
const FORMATS: &str = "avif bin bmp bz2 csv gif gz h5 hdf5 html idx jpeg jpg json jsonl log md mp4 npy npz \
                       parquet pdf pgm pickle pkl png ppm pt pth py safetensors sh svg tar tex tgz tif tiff toml \
                       tsv txt webp xz zip";

/// Refuses an output under the name of another format than `what` is written as; `written` are the endings of that, or
/// none for a folder.
///
/// # Errors
/// Usage: begins with the flag, says what is written, and how to name it.
pub fn check_ending(flag: &str, path: &Path, what: &str, written: &[&str]) -> Result<()> {
    let Some(ending) = path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase()) else {
        return Ok(());
    };
    if written.contains(&ending.as_str()) || !FORMATS.split(' ').any(|known| known == ending) {
        return Ok(());
    }
    let (is, named) = match written.first() {
        Some(first) => (format!("written as .{first}"), path.with_extension(first)),
        None => ("a folder".into(), path.with_extension("")),
    };
    Err(usage(format!("{flag}: {}: {what} is {is}; name it {}", path.display(), named.display())))
}
/// What in a folder has none of the `known` names, which stand with spaces between.
///
/// # Errors
/// Of the system.
pub fn other_than(known: &str, folder: &Path) -> io::Result<Option<String>> {
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !known.split(' ').any(|known| known == name) {
            return Ok(Some(name));
        }
    }
    Ok(None)
}
