//! TIFF: grey and RGB of 8 or 16 bits, with or without alpha, packed by LZW, deflate, bits or not at all.

use crate::data::image::{MAX_IMAGE_BYTES, check_size};
use crate::data::samples::Samples;
use anyhow::{Result, anyhow, bail, ensure};
use std::io::Cursor;
use tiff::decoder::{Decoder, DecodingResult, Limits};
use tiff::tags::Tag;
use tiff::{ColorType, TiffError};

/// Whether these bytes begin a TIFF file.
pub fn claims(bytes: &[u8]) -> bool {
    bytes.starts_with(b"II*\0") || bytes.starts_with(b"MM\0*")
}

/// Memory that a value of a directory takes once it is read.
const VALUE_BYTES: u64 = 64;

/// The number of values in the first directory, all of which lie in the file: the decoder reserves room for as many as an
/// entry says, before it looks for them.
fn values(bytes: &[u8]) -> Option<u64> {
    /// Bytes of a value of each type.
    const SIZES: [u64; 14] = [0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4];
    let little = bytes.starts_with(b"II");
    let word = |at: usize, len: usize| {
        let word = bytes.get(at..)?.get(..len)?.iter();
        let join = |v: u64, b: &u8| v << 8 | u64::from(*b);
        Some(if little { word.rev().fold(0, join) } else { word.fold(0, join) })
    };
    let directory = word(4, 4)? as usize;
    let mut count = 0;
    for i in 0..word(directory, 2)? as usize {
        let entry = directory + 2 + 12 * i;
        let (kind, values) = (word(entry + 2, 2)? as usize, word(entry + 4, 4)?);
        let len = SIZES.get(kind).copied().unwrap_or(8) * values;
        if len > 4 && word(entry + 8, 4)? + len > bytes.len() as u64 {
            return None;
        }
        count += values;
    }
    Some(count)
}

fn open(bytes: &[u8]) -> Result<Decoder<Cursor<&[u8]>>, TiffError> {
    if values(bytes).is_none() {
        return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
    }
    // No part unpacks to more than the image, which is checked before.
    let mut limits = Limits::default();
    limits.decoding_buffer_size = 2 * MAX_IMAGE_BYTES as usize;
    limits.intermediate_buffer_size = bytes.len();
    limits.ifd_value_size = bytes.len();
    Ok(Decoder::new(Cursor::new(bytes))?.with_limits(limits))
}

/// Memory that decoding takes: the pixels twice, of up to four samples of 16 bits, and the directory.
pub fn memory(bytes: &[u8]) -> u64 {
    let size = open(bytes).and_then(|mut decoder| decoder.dimensions()).ok();
    let size = size.map(|(width, height)| (width as usize, height as usize));
    let fits = size.filter(|&(width, height)| check_size(width, height).is_ok());
    let directory = VALUE_BYTES * values(bytes).unwrap_or(0);
    fits.map_or(0, |(width, height)| 16 * width as u64 * height as u64) + directory
}

/// # Errors
/// Corrupt, truncated, of several pages, too large, of other samples than grey, RGB and alpha of 8 or 16 bits.
pub fn decode(bytes: &[u8]) -> Result<Samples> {
    let tiff = |e: TiffError| anyhow!("not a readable TIFF: {e}");
    let mut decoder = open(bytes).map_err(tiff)?;
    let (width, height) = decoder.dimensions().map_err(tiff)?;
    let (width, height) = (width as usize, height as usize);
    check_size(width, height)?;
    ensure!(!decoder.more_images(), "a TIFF of several pages, expected one image");
    let color = decoder.colortype().map_err(tiff)?;
    let per_pixel = match color {
        ColorType::Gray(8 | 16) => 1,
        ColorType::GrayA(8 | 16) => 2,
        ColorType::RGB(8 | 16) => 3,
        ColorType::RGBA(8 | 16) => 4,
        _ => bail!(
            "a TIFF of {color:?}, expected grey or RGB of 8 or 16 bits; ImageMagick's `mogrify -path OUT -format png \
             *.tif` makes it in a folder OUT"
        ),
    };
    let planar = decoder.find_tag_unsigned::<u16>(Tag::PlanarConfiguration).map_err(tiff)?;
    ensure!(per_pixel == 1 || planar != Some(2), "a TIFF of separate planes, expected pixels");
    let orientation = decoder.find_tag_unsigned::<u16>(Tag::Orientation).ok().flatten();
    let (bytes, values) = match decoder.read_image().map_err(tiff)? {
        DecodingResult::U8(values) => (1, values),
        DecodingResult::U16(values) => (2, values.iter().flat_map(|v| v.to_be_bytes()).collect()),
        _ => bail!("a TIFF of signed or floating point samples, expected unsigned ones"),
    };
    let expected = width * height * per_pixel * bytes;
    ensure!(values.len() == expected, "{} bytes of pixels, expected {expected}", values.len());
    Ok(Samples { width, height, per_pixel, bytes, values, orientation: orientation.unwrap_or(1) })
}
