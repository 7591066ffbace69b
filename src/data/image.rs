//! One 8-bit image: decoding, encoding, cropping, padding.

use crate::error::{OrExit as _, data};
use crate::memory::Size;
use anyhow::{Result, anyhow, ensure};
use std::io::{self, Cursor, Read as _};

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
    /// Decodes a PNG, or a JPEG if `allow_lossy`. Palettes and grey of 1, 2, 4 bits are expanded to 8 bits. Alpha that is
    /// 255 everywhere is dropped, and 16 bits that hold 8 widened ones are these.
    ///
    /// # Errors
    /// Data errors that begin with `what`: neither format, corrupt, truncated, transparent, of truly 16 bits, over
    /// [`MAX_IMAGE_BYTES`], a JPEG where it is not allowed.
    pub fn decode(bytes: &[u8], allow_lossy: bool, what: &str) -> Result<Image> {
        if bytes.starts_with(&[0xFF, 0xD8, 0xFF]) {
            if !allow_lossy {
                return Err(data(format!(
                    "{what}: JPEG is lossy, its pixels differ from the original's; `emm data import SET --allow-lossy \
                     --out SET.zip` takes them all the same, for any command to read"
                )));
            }
            return decode_jpeg(bytes).or_data(|| what.into());
        }
        if !bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
            return Err(data(format!("{what}: expected a PNG image, found something else")));
        }
        decode_png(bytes).or_data(|| what.into())
    }

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

/// Memory that decoding an image takes, by its header; 0 where it is none or too large, which decoding then says.
pub fn decoding_bytes(bytes: &[u8]) -> u64 {
    const PNG_SIZE: std::ops::Range<usize> = 16..24;
    const PNG_DEPTH: usize = 24;
    if bytes.starts_with(&[0xFF, 0xD8, 0xFF]) {
        use zune_jpeg::zune_core::bytestream::ZCursor;
        let mut decoder = zune_jpeg::JpegDecoder::new(ZCursor::new(bytes));
        let size = decoder.decode_headers().ok().and_then(|()| decoder.dimensions());
        let fits = size.filter(|&(width, height)| check_size(width, height).is_ok());
        // Coefficients of 16 bits of all parts, where they come in several passes, beside the pixels.
        return fits.map_or(0, |(width, height)| 3 * 4 * width as u64 * height as u64);
    }
    let side = |b: &[u8]| u32::from_be_bytes([b[0], b[1], b[2], b[3]]) as usize;
    let size = bytes.get(PNG_SIZE).map(|b| (side(b), side(&b[4..])));
    let fits = size.filter(|&(width, height)| check_size(width, height).is_ok());
    // Of three channels and alpha, expanded from palettes and fewer bits.
    let sample = if bytes.get(PNG_DEPTH) == Some(&16) { 2 } else { 1 };
    fits.map_or(0, |(width, height)| 4 * sample * width as u64 * height as u64)
}

fn check_size(width: usize, height: usize) -> Result<()> {
    let bytes = (3 * width as u64).saturating_mul(height as u64);
    if bytes > MAX_IMAGE_BYTES {
        return Err(anyhow!(
            "{width}x{height} pixels, images of at most {} are accepted",
            Size(MAX_IMAGE_BYTES)
        ));
    }
    Ok(())
}

fn decode_png(bytes: &[u8]) -> Result<Image> {
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
    let (color, depth) = reader.output_color_type();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap_or(0)];
    reader.next_frame(&mut pixels)?;
    // Reads to the end: a truncated file or a wrong checksum behind the last pixel is found here.
    let unpacked = reader.info().raw_bytes() as u64;
    let most = if reader.info().interlaced { 2 * unpacked } else { unpacked };
    reader.finish()?;
    check_stream(bytes, most)?;
    let (name, channels) = match color {
        png::ColorType::Grayscale => ("grey", 1),
        png::ColorType::GrayscaleAlpha => ("grey and alpha", 1),
        png::ColorType::Rgba => ("RGBA", 3),
        _ => ("RGB", 3),
    };
    if depth == png::BitDepth::Sixteen {
        let rounds =
            "ImageMagick's `mogrify -path OUT -depth 8 *.png` rounds them into a folder OUT";
        ensure!(halve(&mut pixels), "{name} of 16 bits a channel, expected 8; {rounds}");
    }
    if color.samples() > channels {
        let removes = "`mogrify -path OUT -background black -alpha remove -alpha off *.png` lays them on black in a folder OUT";
        ensure!(
            drop_opaque(&mut pixels, color.samples()),
            "{name} with transparency (alpha below 255), expected grey or RGB; ImageMagick's {removes}"
        );
    }
    Ok(Image { width, height, channels, pixels })
}

/// Turns samples of 16 bits into the 8 that they were widened from (their bytes are twice the same); false if any was
/// not.
fn halve(samples: &mut Vec<u8>) -> bool {
    let widened = samples.chunks_exact(2).all(|s| s[0] == s[1]);
    keep(samples, 2, 1);
    widened
}

/// Drops the last of so many samples of each pixel, alpha; false if any is not opaque.
fn drop_opaque(pixels: &mut Vec<u8>, samples: usize) -> bool {
    let opaque = pixels.chunks_exact(samples).all(|p| p[samples - 1] == 255);
    keep(pixels, samples, samples - 1);
    opaque
}

/// Keeps the first `kept` of every `of` bytes.
fn keep(bytes: &mut Vec<u8>, of: usize, kept: usize) {
    let groups = bytes.len() / of;
    for i in 0..groups {
        bytes.copy_within(i * of..i * of + kept, i * kept);
    }
    bytes.truncate(groups * kept);
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

fn decode_jpeg(bytes: &[u8]) -> Result<Image> {
    use zune_jpeg::JpegDecoder;
    use zune_jpeg::zune_core::bytestream::ZCursor;
    use zune_jpeg::zune_core::colorspace::ColorSpace;
    use zune_jpeg::zune_core::options::DecoderOptions;
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
    Ok(Image { width, height, channels, pixels })
}
