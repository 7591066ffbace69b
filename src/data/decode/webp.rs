//! WebP, lossless or not.

use crate::data::image::{MAX_IMAGE_BYTES, check_size};
use crate::data::samples::{Samples, orientation};
use anyhow::{Result, anyhow, bail, ensure};
use image_webp::WebPDecoder;
use std::io::Cursor;

/// Whether these bytes begin a WebP file.
pub fn claims(bytes: &[u8]) -> bool {
    bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP")
}

/// Chunks of a file by name, as far as they go.
fn chunks(bytes: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut rest = bytes.get(12..).unwrap_or_default();
    std::iter::from_fn(move || {
        let (head, behind) = rest.split_first_chunk::<8>()?;
        let len = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        let (name, chunk) = (&rest[..4], behind.get(..len)?);
        rest = behind.get(len.next_multiple_of(2)..).unwrap_or_default();
        Some((name, chunk))
    })
}

/// Whether pixels were lost when the file was made.
pub fn is_lossy(bytes: &[u8]) -> bool {
    chunks(bytes).any(|(name, _)| name == b"VP8 ")
}

/// The sizes that the parts of a file say for themselves.
fn sizes(bytes: &[u8]) -> impl Iterator<Item = (usize, usize)> {
    chunks(bytes).filter_map(|(name, chunk)| match name {
        b"VP8 " => {
            let b = chunk.get(6..10)?;
            let side = |i: usize| usize::from(u16::from_le_bytes([b[i], b[i + 1]]) & 0x3FFF);
            Some((side(0), side(2)))
        }
        b"VP8L" => {
            let b = chunk.get(1..5)?;
            let bits = u32::from_le_bytes([b[0], b[1], b[2], b[3]]) as usize;
            Some(((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1))
        }
        b"VP8X" => {
            let b = chunk.get(4..10)?;
            let side = |i: usize| 1 + u32::from_le_bytes([b[i], b[i + 1], b[i + 2], 0]) as usize;
            Some((side(0), side(3)))
        }
        _ => None,
    })
}

/// Memory that decoding takes: the pixels twice, and of lossless ones what they are coded with.
pub fn memory(bytes: &[u8]) -> u64 {
    let size = sizes(bytes).find(|&(width, height)| check_size(width, height).is_ok());
    size.map_or(0, |(width, height)| 12 * width as u64 * height as u64)
}

/// # Errors
/// Corrupt, truncated, an animation, too large.
pub fn decode(bytes: &[u8]) -> Result<Samples> {
    let webp = |e: image_webp::DecodingError| anyhow!("not a readable WebP: {e}");
    let said: Vec<_> = sizes(bytes).take(8).collect();
    let Some(&(width, height)) = said.first() else { bail!("not a readable WebP: no image in it") };
    check_size(width, height)?;
    ensure!(said.iter().all(|s| *s == (width, height)), "a WebP whose parts have several sizes");
    let mut decoder = WebPDecoder::new(Cursor::new(bytes)).map_err(webp)?;
    decoder.set_memory_limit(MAX_IMAGE_BYTES as usize);
    ensure!(!decoder.is_animated(), "an animation, expected one image");
    let found = decoder.dimensions();
    ensure!((found.0 as usize, found.1 as usize) == (width, height), "a WebP of several sizes");
    let per_pixel = if decoder.has_alpha() { 4 } else { 3 };
    let mut values = vec![0; width * height * per_pixel];
    decoder.read_image(&mut values).map_err(webp)?;
    let exif = decoder.exif_metadata().ok().flatten();
    let orientation = exif.as_deref().map_or(1, orientation);
    Ok(Samples { width, height, per_pixel, bytes: 1, values, orientation })
}
