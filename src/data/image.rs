//! One 8-bit image: encoding, cropping, padding.

use crate::memory::Size;
use anyhow::{Result, anyhow};

/// Bytes that one decoded image may take; anything larger is no image set's image.
pub const MAX_IMAGE_BYTES: u64 = 256 << 20;

/// An 8-bit image of any shape.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    pub width: usize,
    pub height: usize,
    /// 1 (grey) or 3 (RGB).
    pub channels: usize,
    /// [H, W, C].
    pub pixels: Vec<u8>,
}

impl Image {
    /// The image as a PNG without compression and filters: the same bytes on every machine.
    pub fn encode(width: usize, height: usize, channels: usize, pixels: &[u8]) -> Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(pixels.len() + height + 256);
        let mut encoder = png::Encoder::new(&mut bytes, width as u32, height as u32);
        encoder.set_color(if channels == 1 {
            png::ColorType::Grayscale
        } else {
            png::ColorType::Rgb
        });
        encoder.set_depth(png::BitDepth::Eight);
        encoder.set_compression(png::Compression::NoCompression);
        encoder.set_filter(png::Filter::NoFilter);
        let mut writer = encoder.write_header()?;
        writer.write_image_data(pixels)?;
        writer.finish()?;
        Ok(bytes)
    }

    /// The central square; of an odd remainder the larger part goes at the right and bottom.
    pub fn center_crop(self) -> Image {
        let side = self.width.min(self.height);
        let (x0, y0) = ((self.width - side) / 2, (self.height - side) / 2);
        let rows = (y0..y0 + side).flat_map(|y| {
            &self.pixels[(y * self.width + x0) * self.channels..][..side * self.channels]
        });
        let pixels = rows.copied().collect();
        Image { width: side, height: side, channels: self.channels, pixels }
    }

    /// The image in the middle of a black square of `side` pixels; an odd remainder goes right and bottom.
    ///
    /// # Errors
    /// If the image is larger than `side`.
    pub fn pad(self, side: usize) -> Result<Image> {
        let Image { width, height, channels, .. } = self;
        if width > side || height > side {
            return Err(anyhow!(
                "{width}x{height} pixels do not fit into the {side} of `emm data import --pad`"
            ));
        }
        let (x0, y0) = ((side - width) / 2, (side - height) / 2);
        let mut pixels = vec![0; side * side * channels];
        for (y, row) in self.pixels.chunks_exact(width * channels).enumerate() {
            let start = ((y0 + y) * side + x0) * channels;
            pixels[start..start + row.len()].copy_from_slice(row);
        }
        Ok(Image { width: side, height: side, channels, pixels })
    }

    /// A grey image with its channel three times; RGB as it is.
    pub fn into_rgb(self) -> Image {
        if self.channels == 3 {
            return self;
        }
        let pixels = self.pixels.iter().flat_map(|&v| [v; 3]).collect();
        Image { channels: 3, pixels, ..self }
    }
}

/// Refuses sizes beyond [`MAX_IMAGE_BYTES`].
///
/// # Errors
/// With the size.
pub fn check_size(width: usize, height: usize) -> Result<()> {
    let bytes = (3 * width as u64).saturating_mul(height as u64);
    if bytes > MAX_IMAGE_BYTES {
        return Err(anyhow!(
            "{width}x{height} pixels, images of at most {} are accepted",
            Size(MAX_IMAGE_BYTES)
        ));
    }
    Ok(())
}
