//! PNG: palettes and grey of 1, 2, 4 bits are expanded to 8.

use crate::data::image::check_size;
use crate::data::samples::{Samples, orientation};
use anyhow::{Result, anyhow};
use std::io::{self, Cursor, Read as _};

pub const MAGIC: &[u8] = b"\x89PNG\r\n\x1a\n";

/// Memory that decoding takes.
pub fn memory(bytes: &[u8]) -> u64 {
    const SIZE: std::ops::Range<usize> = 16..24;
    const DEPTH: usize = 24;
    let side = |b: &[u8]| u32::from_be_bytes([b[0], b[1], b[2], b[3]]) as usize;
    let size = bytes.get(SIZE).map(|b| (side(b), side(&b[4..])));
    let fits = size.filter(|&(width, height)| check_size(width, height).is_ok());
    // Of three channels and alpha, expanded from palettes and fewer bits.
    let sample = if bytes.get(DEPTH) == Some(&16) { 2 } else { 1 };
    fits.map_or(0, |(width, height)| 4 * sample * width as u64 * height as u64)
}

/// # Errors
/// Corrupt, truncated, an animation, too large.
pub fn decode(bytes: &[u8]) -> Result<Samples> {
    let mut options = png::DecodeOptions::default();
    options.set_ignore_checksums(false);
    options.set_skip_ancillary_crc_failures(false);
    // Texts and profiles change no pixel, and may unpack to much.
    options.set_ignore_text_chunk(true);
    options.set_ignore_iccp_chunk(true);
    let mut decoder = png::Decoder::new_with_options(Cursor::new(bytes), options);
    decoder.set_transformations(png::Transformations::EXPAND);
    let header = decoder.read_header_info()?;
    let (width, height) = (header.width as usize, header.height as usize);
    check_size(width, height)?;
    let mut reader = decoder.read_info()?;
    if reader.info().is_animated() {
        return Err(anyhow!("an animation, expected one image"));
    }
    let orientation = reader.info().exif_metadata.as_deref().map_or(1, orientation);
    let (color, depth) = reader.output_color_type();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap_or(0)];
    reader.next_frame(&mut pixels)?;
    // Reads to the end: a truncated file or a wrong checksum behind the last pixel is found here.
    let unpacked = reader.info().raw_bytes() as u64;
    let most = if reader.info().interlaced { 2 * unpacked } else { unpacked };
    reader.finish()?;
    check_stream(bytes, most)?;
    let bytes = if depth == png::BitDepth::Sixteen { 2 } else { 1 };
    let per_pixel = color.samples();
    Ok(Samples { width, height, per_pixel, bytes, values: pixels, orientation })
}

/// Unpacks the pixels of a PNG that was decoded to see that nothing is missing behind the last one, of which the decoder
/// asks no more: the stream's own checksum, and that there is nothing else.
fn check_stream(bytes: &[u8], most: u64) -> Result<()> {
    let mut parts = Vec::new();
    let mut rest = &bytes[8..];
    while let Some((head, behind)) = rest.split_first_chunk::<8>() {
        let len = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let (data, crc) = behind.split_at_checked(len).ok_or_else(|| anyhow!("a cut-off chunk"))?;
        match &head[4..] {
            b"IDAT" => parts.push(data),
            b"IEND" => {
                let after = crc.len().saturating_sub(4);
                return match after {
                    0 => check_parts(parts, most),
                    _ => Err(anyhow!("{after} bytes behind its end")),
                };
            }
            _ => {}
        }
        rest = crc.get(4..).unwrap_or_default();
    }
    Err(anyhow!("no end"))
}

fn check_parts(parts: Vec<&[u8]>, most: u64) -> Result<()> {
    let packed = parts.concat();
    let mut stream = flate2::bufread::ZlibDecoder::new(&packed[..]);
    let unpacked = io::copy(&mut (&mut stream).take(most + 1), &mut io::sink())
        .map_err(|e| anyhow!("its pixels do not unpack: {e}"))?;
    match unpacked > most || !stream.into_inner().is_empty() {
        true => Err(anyhow!("more pixels than its size says")),
        false => Ok(()),
    }
}
