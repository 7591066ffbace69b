//! Image sets: 8-bit pixels in N,H,W,C order with optional labels, and where they come from.
//!
//! A [`Source`] is any set that can be read image by image (one file a format: `edm`, `cifar`, `idx`, `stl10`, `mat`,
//! `folder`, `npz`, `parquet`, `webdataset`); [`Source::collect`] makes the [`Dataset`] of it that everything else works with.

pub mod archive;
pub mod cifar;
pub mod dataset;
pub mod decode;
pub mod edm;
pub mod folder;
pub mod idx;
pub mod image;
pub mod input;
pub mod kept;
pub mod labels;
pub mod layout;
pub mod mat;
pub mod npy;
pub mod npz;
pub mod open;
pub mod options;
pub mod parquet;
pub mod pickle;
pub mod python_random;
pub mod resize;
pub mod samples;
pub mod source;
pub mod stl10;
pub mod stored_zip;
pub mod subset;
pub mod tarball;
pub mod webdataset;

pub use dataset::Dataset;
pub use image::Image;
pub use options::Options;
pub use source::{Source, Transform};

use crate::memory::Budget;
use anyhow::Result;
use std::path::{Path, PathBuf};

/// Every format, in the order in which they are asked.
const READERS: &[open::Reader] = &[
    edm::READER,
    npz::READER,
    parquet::READER,
    stl10::READER,
    webdataset::READER,
    cifar::READER,
    idx::READER,
    mat::READER,
    folder::READER,
];

/// Opens a set of any format, told apart by content: a zip of images or arrays, an array, CIFAR's archives and
/// batches, IDX, STL-10, MATLAB files, Parquet, WebDataset, folders. Several paths are several folders, batches or shards, or
/// images and labels.
///
/// # Errors
/// Data errors that begin with the file: missing, of no known format, and those of the formats; usage if
/// the paths do not belong together; over half of what the process may use, or `--max-memory` (exit 4).
pub fn open_any(paths: &[PathBuf], options: &Options) -> Result<Source> {
    open_within(paths, options, &Budget::default())
}

/// [`open_any`] within a budget, which the set's images are then read from, too.
///
/// # Errors
/// As [`open_any`].
pub fn open_within(paths: &[PathBuf], options: &Options, budget: &Budget) -> Result<Source> {
    open::open_by(READERS, paths, options, budget)
}

impl Dataset {
    /// Reads a data set: an EDM zip (`00000/img00000000.png`…, `dataset.json`), or any other that [`open_any`] takes.
    ///
    /// # Errors
    /// As [`open_any`] and [`Source::collect`].
    pub fn open(path: &Path) -> Result<Self> {
        let source = open_any(&[path.to_path_buf()], &Options::default())?;
        source.collect(&source.all(), &Transform::default())
    }
}
