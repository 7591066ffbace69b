//! The one form in which every part of the program sees images.

use crate::error::data;
use anyhow::Result;
use sha2::{Digest as _, Sha256};

/// Class indices are below this; far more than images, since a table row belongs to each class.
pub const MAX_CLASSES: u32 = 1 << 24;

/// Square 8-bit images of one size, in the order of their names, with a label each or none.
///
/// ```
/// use emm::data::Dataset;
///
/// let digits = Dataset::digits();
/// assert_eq!((digits.len(), digits.resolution, digits.channels), (1797, 8, 1));
/// assert_eq!(digits.image(0).len(), digits.image_len());
/// assert_eq!(digits.label_dim(), 10);
/// ```
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
    /// The name of each image's file within the set it was read from; empty where they had none.
    pub names: Vec<String>,
}

impl Dataset {
    /// The bundled digits: 1,797 handwritten digits of 8×8 grey pixels with labels (E. Alpaydin,
    /// C. Kaynak: Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998;
    /// CC BY 4.0).
    pub fn digits() -> Self {
        let images: &[u8] = include_bytes!("../../data/digits8x8-images-idx3-ubyte");
        let labels: &[u8] = include_bytes!("../../data/digits8x8-labels-idx1-ubyte");
        Dataset {
            resolution: 8,
            channels: 1,
            pixels: images[16..].to_vec(),
            labels: Some(labels[8..].iter().map(|&l| l.into()).collect()),
            names: Vec::new(),
        }
    }

    /// An image's file name, where the set has them, else its index.
    pub fn name(&self, image: usize) -> String {
        self.names.get(image).cloned().unwrap_or_else(|| image.to_string())
    }

    /// Checks that the lengths agree, for pixels that come from elsewhere than a file.
    ///
    /// # Errors
    /// A data error that begins with `what`.
    pub fn new(
        what: &str,
        resolution: usize,
        channels: usize,
        pixels: Vec<u8>,
        labels: Option<Vec<u32>>,
    ) -> Result<Self> {
        let set = Dataset { resolution, channels, pixels, labels, names: Vec::new() };
        let len = set.image_len();
        if !matches!(channels, 1 | 3)
            || len == 0
            || set.is_empty()
            || !set.pixels.len().is_multiple_of(len)
        {
            return Err(data(format!(
                "{what}: expected images of {resolution}x{resolution} pixels and 1 or 3 channels, found \
                 {channels} channels and {} bytes",
                set.pixels.len()
            )));
        }
        if let Some(labels) = &set.labels {
            if labels.len() != set.len() {
                return Err(data(format!(
                    "{what}: {} labels for {} images",
                    labels.len(),
                    set.len()
                )));
            }
            if let Some(i) = labels.iter().position(|&l| l >= MAX_CLASSES) {
                return Err(data(format!(
                    "{what}: label {} of image {i} is no class index, they end at {MAX_CLASSES}",
                    labels[i]
                )));
            }
        }
        Ok(set)
    }

    /// Number of images.
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

    /// Images of each class, from class 0 on; empty without labels.
    pub fn label_counts(&self) -> Vec<u64> {
        let mut counts = vec![0; self.label_dim()];
        for &label in self.labels.iter().flatten() {
            counts[label as usize] += 1;
        }
        counts
    }

    /// Which classes have no images, in words, if any: a network would get a place for each.
    pub fn empty_classes(&self) -> Option<String> {
        const NAMED: usize = 10;
        let counts = self.label_counts();
        let empty = || (0..counts.len()).filter(|&class| counts[class] == 0);
        let named: Vec<_> = empty().take(NAMED).map(|class| class.to_string()).collect();
        let last = counts.len().checked_sub(1)?;
        let networks = format!("networks would have {} classes, 0 to {last}", last + 1);
        let more = match empty().count().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        match named.as_slice() {
            [] => None,
            [first] if first == "0" => {
                Some(format!("class 0 has no images: labels go from 1 to {last}; {networks}"))
            }
            _ => Some(format!("no images of classes {}{more}; {networks}", named.join(", "))),
        }
    }

    /// SHA-256 over the images as H,W,C in order, lower-case hex: the set's name.
    pub fn sha256_pixels(&self) -> String {
        hex(Sha256::new().chain_update(&self.pixels))
    }

    /// SHA-256 over the labels (little-endian u32), or "none".
    pub fn sha256_labels(&self) -> String {
        let Some(labels) = &self.labels else { return "none".into() };
        let mut hash = Sha256::new();
        for label in labels {
            hash.update(label.to_le_bytes());
        }
        hex(hash)
    }
}

fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
