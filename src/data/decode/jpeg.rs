//! JPEG, baseline and progressive, of 8 bits; turned as its EXIF data say.

use crate::data::image::check_size;
use crate::data::samples::{Samples, orientation};
use anyhow::{Result, anyhow};
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

pub const MAGIC: &[u8] = &[0xFF, 0xD8, 0xFF];

/// Memory that decoding takes.
pub fn memory(bytes: &[u8]) -> u64 {
    let mut decoder = JpegDecoder::new(ZCursor::new(bytes));
    let size = decoder.decode_headers().ok().and_then(|()| decoder.dimensions());
    let fits = size.filter(|&(width, height)| check_size(width, height).is_ok());
    // Coefficients of 16 bits of all parts, where they come in several passes, beside the pixels.
    fits.map_or(0, |(width, height)| 3 * 4 * width as u64 * height as u64)
}

/// # Errors
/// Corrupt, truncated, too large, of a colour space other than grey and colour.
pub fn decode(bytes: &[u8]) -> Result<Samples> {
    let jpeg = |e| anyhow!("not a readable JPEG: {}", format!("{e:?}").trim().replace('\n', " "));
    let options = DecoderOptions::default().set_strict_mode(true);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(jpeg)?;
    let (width, height) = decoder.dimensions().ok_or_else(|| anyhow!("JPEG without a size"))?;
    check_size(width, height)?;
    let grey = decoder.input_colorspace() == Some(ColorSpace::Luma);
    let (space, channels) = if grey { (ColorSpace::Luma, 1) } else { (ColorSpace::RGB, 3) };
    decoder.set_options(options.jpeg_set_out_colorspace(space));
    let pixels = decoder.decode().map_err(jpeg)?;
    if pixels.len() != width * height * channels {
        return Err(anyhow!("JPEG of an unsupported colour space"));
    }
    let orientation = decoder.exif().map_or(1, |exif| orientation(exif));
    Ok(Samples { width, height, per_pixel: channels, bytes: 1, values: pixels, orientation })
}
