//! Samples side by side.

use super::canvas::{Canvas, scale_to};
use anyhow::Result;

const GAP: usize = 2;
/// Images smaller than this are blown up by a whole factor.
const SMALLEST: usize = 32;

/// A PNG of images [S, H, W, C] of `side` pixels in a near-square grid with gaps of 2 pixels, row by row.
///
/// `images` holds at least one.
pub fn grid(images: &[u8], side: usize, channels: usize) -> Result<Vec<u8>> {
    let image_len = side * side * channels;
    let count = images.len() / image_len;
    let columns = (count as f64).sqrt().ceil() as usize;
    let rows = count.div_ceil(columns);
    let scale = scale_to(side, SMALLEST);
    let pitch = side * scale + GAP;
    let mut canvas = Canvas::new(columns * pitch + GAP, rows * pitch + GAP);
    for (i, image) in images.chunks_exact(image_len).enumerate() {
        canvas.put(GAP + i % columns * pitch, GAP + i / columns * pitch, image, side, scale);
    }
    canvas.png()
}
