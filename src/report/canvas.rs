//! RGB pictures: plotters' text and shapes, images blown up pixel by pixel, PNG.

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::sync::OnceLock;

pub const INK: RGBColor = RGBColor(0x22, 0x26, 0x2e);
pub const MUTED: RGBColor = RGBColor(0x6b, 0x72, 0x80);
pub const RULE: RGBColor = RGBColor(0xe4, 0xe7, 0xec);
pub const ACCENT: RGBColor = RGBColor(0xd9, 0x48, 0x0f);

/// Registers the embedded font under the name every viewer of an SVG knows.
const FONT: &str = "sans-serif";

fn embed_font() {
    static REGISTERED: OnceLock<()> = OnceLock::new();
    REGISTERED.get_or_init(|| {
        let bytes = include_bytes!("../../data/font/DejaVuSans.ttf");
        // Cannot fail: the font is part of the program, and the tests draw with it.
        let _ = plotters::style::register_font(FONT, FontStyle::Normal, bytes);
    });
}

/// Text of `size` pixels, anchored at its left, centre or right and vertical middle.
pub fn text(size: f64, color: RGBColor, anchor: HPos) -> TextStyle<'static> {
    embed_font();
    (FONT, size).into_font().color(&color).pos(Pos::new(anchor, VPos::Center))
}

/// How much wider words are in browsers: a bitmap's font is as high as its size from top to bottom, a browser's in its
/// em, which is smaller.
pub const BROWSER: f64 = 1.17;

/// How wide text of `size` pixels is at most, in pixels: in a browser.
pub fn width_of(words: &str, size: f64) -> f64 {
    // Measured large: boxes are whole pixels.
    let measured = text(64.0, INK, HPos::Left).font.box_size(words);
    measured.map_or(0.0, |(width, _)| BROWSER * width as f64 * size / 64.0)
}

/// Lines of at most `width` pixels, broken at spaces; none for no text.
pub fn wrap(text: &str, size: f64, width: f64) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if width_of(&format!("{line} {word}"), size) <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.into()),
        }
    }
    lines
}

/// An error of plotters, whose types are not `Send`.
pub fn drawn<T, E: std::fmt::Display>(result: Result<T, E>) -> Result<T> {
    result.map_err(|e| anyhow!("drawing: {e}"))
}

/// A white RGB picture.
pub struct Canvas {
    pub width: usize,
    pub height: usize,
    pub rgb: Vec<u8>,
}

impl Canvas {
    pub fn new(width: usize, height: usize) -> Self {
        Canvas { width, height, rgb: vec![255; width * height * 3] }
    }

    /// Draws with plotters.
    pub fn draw(
        &mut self,
        f: impl FnOnce(&DrawingArea<BitMapBackend<'_>, Shift>) -> Result<()>,
    ) -> Result<()> {
        let size = (self.width as u32, self.height as u32);
        let area = BitMapBackend::with_buffer(&mut self.rgb, size).into_drawing_area();
        f(&area)?;
        drawn(area.present())
    }

    /// Puts an image [H, W, C] of `side` pixels at (x, y), each pixel `scale` × `scale`.
    pub fn put(&mut self, x: usize, y: usize, image: &[u8], side: usize, scale: usize) {
        let channels = image.len() / (side * side);
        for (row, line) in
            self.rgb.chunks_exact_mut(self.width * 3).skip(y).take(side * scale).enumerate()
        {
            for (column, out) in line[x * 3..].chunks_exact_mut(3).take(side * scale).enumerate() {
                let pixel = &image[(row / scale * side + column / scale) * channels..][..channels];
                for (c, out) in out.iter_mut().enumerate() {
                    *out = pixel[c % channels];
                }
            }
        }
    }

    /// Half the size, each pixel the mean of four: smooth edges for whatever plotters drew jagged.
    pub fn halved(&self) -> Canvas {
        let mut half = Canvas::new(self.width / 2, self.height / 2);
        for (i, out) in half.rgb.iter_mut().enumerate() {
            let (y, x, c) = (i / (half.width * 3), i / 3 % half.width, i % 3);
            let at = |dy: usize, dx: usize| {
                self.rgb[((2 * y + dy) * self.width + 2 * x + dx) * 3 + c] as u32
            };
            *out = ((at(0, 0) + at(0, 1) + at(1, 0) + at(1, 1) + 2) / 4) as u8;
        }
        half
    }

    /// The picture as a compressed PNG.
    pub fn png(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, self.width as u32, self.height as u32);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.set_compression(png::Compression::Balanced);
        let mut writer = encoder.write_header()?;
        writer.write_image_data(&self.rgb)?;
        writer.finish()?;
        Ok(bytes)
    }
}

/// How much an image of `side` pixels is blown up to be at least `wanted` wide.
pub fn scale_to(side: usize, wanted: usize) -> usize {
    wanted.div_ceil(side).max(1)
}
