//! RGB pictures: what an SVG scene looks like, images blown up pixel by pixel, PNG. And how wide words are.

use anyhow::{Context as _, Result};
use resvg::tiny_skia::{Color as Ground, Pixmap, Transform};
use resvg::usvg::{Options, Tree, fontdb};
use skrifa::instance::{LocationRef, Size};
use skrifa::{FontRef, MetadataProvider as _};
use std::sync::{Arc, LazyLock};

/// Red, green, blue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Color(pub u8, pub u8, pub u8);

/// The ground that all is drawn on.
pub const WHITE: Color = Color(0xff, 0xff, 0xff);
/// Titles and names.
pub const INK: Color = Color(0x22, 0x26, 0x2e);
/// Notes, ticks and axes.
pub const MUTED: Color = Color(0x6b, 0x72, 0x80);
/// Lines of a grid, and frames of samples that are no copies.
pub const RULE: Color = Color(0xe4, 0xe7, 0xec);
/// Copies, an EMM, and a series without a name.
pub const ACCENT: Color = Color(0xd9, 0x48, 0x0f);

/// What words are measured and drawn with; SVGs name it first.
const FONT: &[u8] = include_bytes!("../../data/font/DejaVuSans.ttf");
/// Families that SVGs ask a browser for, best first.
pub const FAMILIES: &str = "DejaVu Sans, Verdana, sans-serif";

static FONTS: LazyLock<Arc<fontdb::Database>> = LazyLock::new(|| {
    let mut fonts = fontdb::Database::new();
    fonts.load_font_data(FONT.to_vec());
    Arc::new(fonts)
});

/// How wide text of `size` pixels is at most, in pixels: a little wider than drawn here, for browsers that have another
/// font.
pub fn width_of(words: &str, size: f64) -> f64 {
    /// Words are measured 64 pixels high, in whole pixels; the font's letters and what hangs below take 2384 units.
    const HIGH: f32 = 64.0;
    const PER_UNIT: f32 = HIGH / 2384.0;
    /// High as a browser's em, which is smaller than that, and a half percent more.
    const WIDER: f64 = 1.17;
    static MEASURED: LazyLock<FontRef<'_>> =
        LazyLock::new(|| FontRef::new(FONT).expect("the font is part of the program"));
    let glyphs = MEASURED.glyph_metrics(Size::unscaled(), LocationRef::default());
    let letters = MEASURED.charmap();
    let advance = |c: char| glyphs.advance_width(letters.map(c).unwrap_or_default()).unwrap_or(0.0);
    let pixels: f32 = words.chars().map(|c| PER_UNIT * advance(c)).sum();
    WIDER * pixels.floor() as f64 * size / HIGH as f64
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

/// A white RGB picture.
pub struct Canvas {
    /// Pixels.
    pub width: usize,
    /// Pixels.
    pub height: usize,
    /// [height, width, 3].
    pub rgb: Vec<u8>,
}

impl Canvas {
    /// `width` × `height` pixels.
    pub fn new(width: usize, height: usize) -> Self {
        Canvas { width, height, rgb: vec![255; width * height * 3] }
    }

    /// What an SVG looks like, `zoom` pixels a unit.
    pub fn of_svg(svg: &str, width: usize, height: usize, zoom: f32) -> Result<Self> {
        let tree = tree_of(svg)?;
        let (width, height) = (width.max(1), height.max(1));
        let pixels = Pixmap::new(width as u32, height as u32);
        let mut pixels = pixels.context("drawing: a picture without pixels, or of too many")?;
        pixels.fill(Ground::WHITE);
        resvg::render(&tree, Transform::from_scale(zoom, zoom), &mut pixels.as_mut());
        let rgb = pixels.data().chunks_exact(4).flat_map(|p| &p[..3]).copied().collect();
        Ok(Canvas { width, height, rgb })
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

/// What an SVG of ours draws, its words as outlines too.
pub fn tree_of(svg: &str) -> Result<Tree> {
    let options = Options { fontdb: FONTS.clone(), ..Options::default() };
    Tree::from_str(svg, &options).context("drawing")
}

/// How much an image of `side` pixels is blown up to be at least `wanted` wide.
pub fn scale_to(side: usize, wanted: usize) -> usize {
    wanted.div_ceil(side).max(1)
}
