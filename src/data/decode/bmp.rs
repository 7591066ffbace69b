//! BMP: palettes of 1, 4 and 8 bits, and 24 or 32 bits a pixel. Own code: its decoders take missing rows for black ones.
//!
//! Source: Microsoft's BITMAPINFOHEADER, BITMAPV4HEADER and BITMAPV5HEADER.

use crate::data::image::check_size;
use crate::data::samples::Samples;
use anyhow::{Result, anyhow, bail, ensure};

pub const MAGIC: &[u8] = b"BM";

/// Methods of packing: none, and none with masks that say where a pixel's samples lie.
const PLAIN: u32 = 0;
const MASKS: u32 = 3;

fn u16_at(bytes: &[u8], at: usize) -> Result<u16> {
    let found = bytes.get(at..at + 2).ok_or_else(|| anyhow!("cut off in its header"))?;
    Ok(u16::from_le_bytes([found[0], found[1]]))
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32> {
    Ok(u32::from(u16_at(bytes, at)?) | u32::from(u16_at(bytes, at + 2)?) << 16)
}

/// Width and height, and whether rows go from top to bottom.
fn size(bytes: &[u8]) -> Result<(usize, usize, bool)> {
    let (width, height) = (u32_at(bytes, 18)? as i32, u32_at(bytes, 22)? as i32);
    ensure!(width > 0 && height != 0, "a BMP of {width}x{height} pixels");
    let (width, down, height) = (width as usize, height < 0, height.unsigned_abs() as usize);
    check_size(width, height)?;
    Ok((width, height, down))
}

/// Memory that decoding takes.
pub fn memory(bytes: &[u8]) -> u64 {
    size(bytes).map_or(0, |(width, height, _)| 4 * width as u64 * height as u64)
}

/// # Errors
/// Truncated, too large, packed, of other bits a pixel.
pub fn decode(bytes: &[u8]) -> Result<Samples> {
    let (start, header) = (u32_at(bytes, 10)? as usize, u32_at(bytes, 14)? as usize);
    ensure!(
        (40..=124).contains(&header),
        "a BMP with a header of {header} bytes, expected 40 to 124"
    );
    let (width, height, down) = size(bytes)?;
    let (bits, method) = (usize::from(u16_at(bytes, 28)?), u32_at(bytes, 30)?);
    let alpha = match (bits, method) {
        (1 | 4 | 8 | 24 | 32, PLAIN) => false,
        (32, MASKS) => {
            // Of a short header they stand behind it.
            let masks = [54, 58, 62].map(|at| u32_at(bytes, at).unwrap_or(0));
            let alpha = if header >= 56 { u32_at(bytes, 66)? } else { 0 };
            let usual = masks == [0xFF_0000, 0xFF00, 0xFF] && matches!(alpha, 0 | 0xFF00_0000);
            ensure!(
                usual,
                "a BMP with masks {masks:x?} and {alpha:x}, expected blue, green, red, alpha"
            );
            alpha != 0
        }
        _ => bail!(
            "a BMP of {bits} bits a pixel, packed by method {method}, expected 1, 4, 8, 24 or 32 bits, unpacked; \
             ImageMagick's `mogrify -path OUT -format png *.bmp` makes it in a folder OUT"
        ),
    };
    let row_bytes = (width * bits).div_ceil(32) * 4;
    let rows = bytes.get(start..).and_then(|rest| rest.get(..row_bytes * height));
    let Some(rows) = rows.filter(|_| start >= 14 + header) else {
        bail!("a BMP of {} bytes, its {width}x{height} pixels do not fit there", bytes.len());
    };
    let palette: Option<Vec<&[u8]>> = (bits <= 8).then(|| {
        let entries = bytes[14 + header..start].chunks_exact(4);
        entries.take(1 << bits).collect()
    });
    let grey = palette.as_ref().is_some_and(|p| p.iter().all(|c| c[0] == c[1] && c[1] == c[2]));
    let per_pixel = if grey { 1 } else { 3 + usize::from(alpha) };
    let mut values = Vec::with_capacity(width * height * per_pixel);
    for y in 0..height {
        let row = &rows[if down { y } else { height - 1 - y } * row_bytes..][..row_bytes];
        for x in 0..width {
            let pixel = match &palette {
                Some(palette) => {
                    let first = x * bits;
                    let index =
                        usize::from(row[first / 8]) >> (8 - bits - first % 8) & ((1 << bits) - 1);
                    *palette.get(index).ok_or_else(|| {
                        anyhow!("a pixel of colour {index}, which its palette lacks")
                    })?
                }
                None => &row[x * bits / 8..][..bits / 8],
            };
            match per_pixel {
                1 => values.push(pixel[0]),
                _ => values.extend([pixel[2], pixel[1], pixel[0]]),
            }
            if alpha {
                values.push(pixel[3]);
            }
        }
    }
    Ok(Samples { width, height, per_pixel, bytes: 1, values, orientation: 1 })
}
