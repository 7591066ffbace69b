//! Image files to pixels: PNG, JPEG, WebP, TIFF, BMP, told apart by their first bytes.

mod bmp;
mod jpeg;
mod png;
mod tiff;
mod webp;

use super::image::Image;
use super::options::Options;
use super::samples::Samples;
use crate::error::{OrExit as _, data};
use anyhow::Result;

/// A format of image files.
struct Format {
    claims: fn(&[u8]) -> bool,
    /// What it is called where pixels may have been lost when the file was made.
    lossy: fn(&[u8]) -> Option<&'static str>,
    /// Memory that decoding takes, by its header; 0 where it is none or too large, which decoding then says.
    memory: fn(&[u8]) -> u64,
    decode: fn(&[u8]) -> Result<Samples>,
}

const FORMATS: [Format; 5] = [
    Format {
        claims: |bytes| bytes.starts_with(png::MAGIC),
        lossy: |_| None,
        memory: png::memory,
        decode: png::decode,
    },
    Format {
        claims: |bytes| bytes.starts_with(jpeg::MAGIC),
        lossy: |_| Some("JPEG"),
        memory: jpeg::memory,
        decode: jpeg::decode,
    },
    Format {
        claims: webp::claims,
        lossy: |bytes| webp::is_lossy(bytes).then_some("WebP of this kind"),
        memory: webp::memory,
        decode: webp::decode,
    },
    Format { claims: tiff::claims, lossy: |_| None, memory: tiff::memory, decode: tiff::decode },
    Format {
        claims: |bytes| bytes.starts_with(bmp::MAGIC),
        lossy: |_| None,
        memory: bmp::memory,
        decode: bmp::decode,
    },
];

fn format_of(bytes: &[u8]) -> Option<&'static Format> {
    FORMATS.iter().find(|format| (format.claims)(bytes))
}

/// Whether these bytes begin an image file.
pub fn is_image_file(bytes: &[u8]) -> bool {
    format_of(bytes).is_some()
}

/// Memory that decoding an image takes, by its header; 0 where it is none or too large, which decoding then says.
pub fn decoding_bytes(bytes: &[u8]) -> u64 {
    format_of(bytes).map_or(0, |format| (format.memory)(bytes))
}

impl Image {
    /// Decodes an image file. Alpha that is 255 everywhere is dropped, and 16 bits that hold 8 widened ones are these;
    /// EXIF's orientation is applied.
    ///
    /// # Errors
    /// Data errors that begin with `what`: none of the formats, corrupt, truncated, over
    /// [`MAX_IMAGE_BYTES`](super::image::MAX_IMAGE_BYTES); lossy, transparent or of 16 bits without the option for it.
    pub fn decode(bytes: &[u8], options: &Options, what: &str) -> Result<Image> {
        let Some(format) = format_of(bytes) else {
            return Err(data(format!(
                "{what}: expected a PNG image, JPEG, WebP, TIFF or BMP, found something else"
            )));
        };
        if let Some(name) = (format.lossy)(bytes).filter(|_| !options.allow_lossy) {
            return Err(data(format!(
                "{what}: {name} is lossy, its pixels differ from the original's; --allow-lossy takes them all the same"
            )));
        }
        let samples = (format.decode)(bytes).or_data(|| what.into())?;
        samples.into_image(options).or_data(|| what.into())
    }
}
