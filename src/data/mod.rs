//! Image sets: 8-bit pixels in N,H,W,C order with optional labels, and where they come from.
//!
//! A [`Source`] is any set that can be read image by image (one file a format: `edm`, `cifar`, `idx`,
//! `folder`, `npz`); [`Source::collect`] makes the [`Dataset`] of it that everything else works with.

pub mod archive;
pub mod cifar;
pub mod dataset;
pub mod edm;
pub mod folder;
pub mod idx;
pub mod image;
pub mod input;
pub mod labels;
pub mod layout;
pub mod npy;
pub mod npz;
pub mod open;
pub mod pickle;
pub mod python_random;
pub mod resize;
pub mod source;
pub mod stored_zip;
pub mod subset;

pub use dataset::Dataset;
pub use image::Image;
pub use source::{Source, Transform};

use crate::memory::Budget;
use anyhow::Result;
use std::path::{Path, PathBuf};

/// Every format, in the order in which they are asked.
const READERS: &[open::Reader] =
    &[edm::READER, npz::READER, cifar::READER, idx::READER, folder::READER];

/// Opens a set of any format, told apart by content: a zip of images or arrays, an array, CIFAR-10's archives and
/// batches, IDX, folders. Several paths are several folders, several batches, or IDX images and labels.
///
/// # Errors
/// Data errors that begin with the file: missing, of no known format, and those of the formats; usage if
/// the paths do not belong together; over half of what the process may use, or `--max-memory` (exit 4).
pub fn open_any(paths: &[PathBuf]) -> Result<Source> {
    open_within(paths, &Budget::default())
}

/// [`open_any`] within a budget, which the set's images are then read from, too.
///
/// # Errors
/// As [`open_any`].
pub fn open_within(paths: &[PathBuf], budget: &Budget) -> Result<Source> {
    open::open_by(READERS, paths, budget)
}

impl Dataset {
    /// Reads a data set: an EDM zip (`00000/img00000000.png`…, `dataset.json`), or any other that [`open_any`] takes.
    ///
    /// # Errors
    /// As [`open_any`] and [`Source::collect`].
    pub fn open(path: &Path) -> Result<Self> {
        let source = open_any(&[path.to_path_buf()])?;
        source.collect(&source.all(), &Transform::default())
    }
}
