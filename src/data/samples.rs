//! Pixels as decoders give them, made 8-bit grey or RGB: by what loses nothing, else as the options say.

use super::image::Image;
use super::options::Options;
use anyhow::{Result, ensure};

/// A decoded image of 1 to 4 samples a pixel: grey, grey and alpha, RGB, RGB and alpha.
pub struct Samples {
    pub width: usize,
    pub height: usize,
    pub per_pixel: usize,
    /// Bytes a sample: 1, or 2 with the higher one first.
    pub bytes: usize,
    /// [H, W, C].
    pub values: Vec<u8>,
    /// How the camera was held, as EXIF numbers it: 1 to 8, of which 1 is upright.
    pub orientation: u16,
}

impl Samples {
    /// The image. 16 bits that hold 8 widened ones are these, alpha that is opaque everywhere is dropped.
    ///
    /// # Errors
    /// 16 bits, or transparency, and no option that says what becomes of them.
    pub fn into_image(self, options: &Options) -> Result<Image> {
        let Samples { width, height, per_pixel, bytes, mut values, orientation } = self;
        let name = ["grey", "grey and alpha", "RGB", "RGBA"][per_pixel - 1];
        if bytes == 2 {
            let widened = values.chunks_exact(2).all(|s| s[0] == s[1]);
            ensure!(
                widened || options.to_8_bit,
                "{name} of 16 bits a channel, expected 8; --to-8-bit rounds them"
            );
            for i in 0..values.len() / 2 {
                values[i] = to_8_bit(u16::from_be_bytes([values[2 * i], values[2 * i + 1]]));
            }
            values.truncate(values.len() / 2);
        }
        let mut channels = per_pixel;
        if per_pixel.is_multiple_of(2) {
            channels = per_pixel - 1;
            let opaque = values.chunks_exact(per_pixel).all(|p| p[channels] == 255);
            match (opaque, options.background) {
                (true, _) => keep(&mut values, per_pixel, channels),
                (false, None) => anyhow::bail!(
                    "{name} with transparency (alpha below 255), expected grey or RGB; --background white (or black, \
                     #rrggbb) says what shows through"
                ),
                (false, Some(colour)) => {
                    let [r, g, b] = colour.0;
                    if channels == 1 && (r != g || g != b) {
                        channels = 3;
                        values =
                            values.chunks_exact(2).flat_map(|p| [p[0], p[0], p[0], p[1]]).collect();
                    }
                    lay_on(&mut values, channels, colour.0);
                }
            }
        }
        let image = Image { width, height, channels, pixels: values };
        Ok(upright(image, orientation))
    }
}

/// The 8 bits nearest to 16.
fn to_8_bit(value: u16) -> u8 {
    ((u32::from(value) + 128) / 257) as u8
}

/// Lays pixels of so many channels and alpha on a colour.
fn lay_on(values: &mut Vec<u8>, channels: usize, colour: [u8; 3]) {
    for pixel in values.chunks_exact_mut(channels + 1) {
        let alpha = u32::from(pixel[channels]);
        for c in 0..channels {
            let sum = u32::from(pixel[c]) * alpha + u32::from(colour[c]) * (255 - alpha);
            pixel[c] = ((sum + 127) / 255) as u8;
        }
    }
    keep(values, channels + 1, channels);
}

/// Keeps the first `kept` of every `of` bytes.
fn keep(bytes: &mut Vec<u8>, of: usize, kept: usize) {
    let groups = bytes.len() / of;
    for i in 0..groups {
        bytes.copy_within(i * of..i * of + kept, i * kept);
    }
    bytes.truncate(groups * kept);
}

/// Turns an image that was taken in an orientation of EXIF's.
fn upright(image: Image, orientation: u16) -> Image {
    if !(2..=8).contains(&orientation) {
        return image;
    }
    let Image { width: w, height: h, channels, pixels } = image;
    let swapped = orientation >= 5;
    let (width, height) = if swapped { (h, w) } else { (w, h) };
    let mut out = Vec::with_capacity(pixels.len());
    for y in 0..height {
        for x in 0..width {
            let (sx, sy) = match orientation {
                2 => (w - 1 - x, y),
                3 => (w - 1 - x, h - 1 - y),
                4 => (x, h - 1 - y),
                5 => (y, x),
                6 => (y, h - 1 - x),
                7 => (w - 1 - y, h - 1 - x),
                _ => (w - 1 - y, x),
            };
            out.extend_from_slice(&pixels[(sy * w + sx) * channels..][..channels]);
        }
    }
    Image { width, height, channels, pixels: out }
}

/// The orientation in EXIF data: a TIFF header, then a directory of entries of 12 bytes. 1 where none is said.
pub fn orientation(exif: &[u8]) -> u16 {
    const ORIENTATION: u16 = 0x0112;
    const SHORT: u16 = 3;
    let exif = exif.strip_prefix(b"Exif\0\0").unwrap_or(exif);
    let little = exif.starts_with(b"II*\0");
    if !little && !exif.starts_with(b"MM\0*") {
        return 1;
    }
    let u16_at = |at: usize| {
        let bytes = exif.get(at..at + 2)?.try_into().ok()?;
        Some(if little { u16::from_le_bytes(bytes) } else { u16::from_be_bytes(bytes) })
    };
    let found = || {
        let bytes = exif.get(4..8)?.try_into().ok()?;
        let at =
            if little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) } as usize;
        let entries = u16_at(at)?;
        for i in 0..usize::from(entries) {
            let entry = at + 2 + 12 * i;
            if u16_at(entry)? == ORIENTATION && u16_at(entry + 2)? == SHORT {
                return u16_at(entry + 8);
            }
        }
        None
    };
    found().filter(|o| (1..=8).contains(o)).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::super::options::Colour;
    use super::*;

    fn image(per_pixel: usize, values: &[u8], options: &Options) -> Result<Image> {
        let (width, height) = (values.len() / per_pixel, 1);
        let values = values.to_vec();
        Samples { width, height, per_pixel, bytes: 1, values, orientation: 1 }.into_image(options)
    }

    #[test]
    fn sixteen_bits_round_to_the_nearest() {
        for value in 0..=u16::MAX {
            let exact = f64::from(value) / 257.0;
            assert_eq!(f64::from(to_8_bit(value)), exact.round(), "{value}");
        }
    }

    #[test]
    fn alpha_is_laid_on_the_background() {
        let on = |colour| Options { background: Some(Colour(colour)), ..Options::default() };
        let rgba = [10, 20, 30, 255, 200, 100, 0, 0, 0, 255, 51, 102];
        let white = image(4, &rgba, &on([255; 3])).unwrap();
        assert_eq!(white.pixels, [10, 20, 30, 255, 255, 255, 153, 255, 173]);
        assert_eq!(image(2, &[7, 128, 9, 255], &on([0; 3])).unwrap().pixels, [4, 9]);
        let coloured = image(2, &[7, 0, 9, 255], &on([1, 2, 3])).unwrap();
        assert_eq!((coloured.channels, &coloured.pixels[..]), (3, &[1, 2, 3, 9, 9, 9][..]));
        let refused = image(4, &rgba, &Options::default()).unwrap_err().to_string();
        assert!(refused.contains("--background"), "{refused}");
    }

    #[test]
    fn orientations_turn_as_exif_says() {
        // Row 0 and column 0 of the stored image lie at: 2 top right, 3 bottom right, 4 bottom left, 5 left top, 6 right
        // top, 7 right bottom, 8 left bottom.
        let stored = Image { width: 3, height: 2, channels: 1, pixels: vec![1, 2, 3, 4, 5, 6] };
        for (orientation, width, pixels) in [
            (1, 3, [1, 2, 3, 4, 5, 6]),
            (2, 3, [3, 2, 1, 6, 5, 4]),
            (3, 3, [6, 5, 4, 3, 2, 1]),
            (4, 3, [4, 5, 6, 1, 2, 3]),
            (5, 2, [1, 4, 2, 5, 3, 6]),
            (6, 2, [4, 1, 5, 2, 6, 3]),
            (7, 2, [6, 3, 5, 2, 4, 1]),
            (8, 2, [3, 6, 2, 5, 1, 4]),
        ] {
            let turned = upright(stored.clone(), orientation);
            assert_eq!((turned.width, &turned.pixels[..]), (width, &pixels[..]), "{orientation}");
        }
    }

    #[test]
    fn the_orientation_is_found_in_either_byte_order() {
        let little = b"Exif\0\0II*\0\x08\0\0\0\x02\0\x0f\x01\x02\0\0\0\0\0\0\0\0\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0";
        assert_eq!(orientation(little), 6);
        let big = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x08\0\0";
        assert_eq!(orientation(big), 8);
        assert_eq!([&big[..19], b"II*\0\xff\xff\xff\xff", b"", b"MM"].map(orientation), [1; 4]);
    }
}
