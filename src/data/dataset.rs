//! The one form in which every part of the program sees images.

use anyhow::Result;
use std::path::Path;

/// Square 8-bit images of one size, in the order of their names, with a label each or none.
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    /// Pixels along a side.
    pub resolution: usize,
    /// 1 or 3.
    pub channels: usize,
    /// [N, H, W, C].
    pub pixels: Vec<u8>,
    /// One class index per image, or none.
    pub labels: Option<Vec<u32>>,
}

impl Dataset {
    /// Reads an EDM zip (`00000/img00000000.png`…, `dataset.json`).
    ///
    /// # Errors
    /// Data errors (exit 3) that begin with the file: missing, corrupt, images of different shapes, …
    pub fn open(_path: &Path) -> Result<Self> {
        todo!()
    }

    pub fn len(&self) -> usize {
        self.pixels.len() / self.image_len().max(1)
    }

    pub fn is_empty(&self) -> bool {
        self.pixels.is_empty()
    }

    /// Bytes of one image: H·W·C.
    pub fn image_len(&self) -> usize {
        self.resolution * self.resolution * self.channels
    }

    /// Pixels of image `i`, [H, W, C].
    pub fn image(&self, i: usize) -> &[u8] {
        &self.pixels[i * self.image_len()..][..self.image_len()]
    }

    /// Largest label + 1, 0 without labels.
    pub fn label_dim(&self) -> usize {
        self.labels.as_ref().map_or(0, |l| l.iter().max().map_or(0, |&m| m as usize + 1))
    }

    /// SHA-256 over the images as H,W,C in order, lower-case hex: the set's name.
    pub fn sha256_pixels(&self) -> String {
        todo!()
    }

    /// SHA-256 over the labels (little-endian u32), or "none".
    pub fn sha256_labels(&self) -> String {
        todo!()
    }
}
