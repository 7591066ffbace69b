//! Samples beside the training images nearest to them.

use super::canvas::{ACCENT, BROWSER, Canvas, INK, MUTED, RULE, drawn, scale_to, text, wrap};
use anyhow::Result;
use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

/// One sample and what it is compared with, each [H, W, C].
pub struct Compared<'a> {
    pub sample: &'a [u8],
    /// Nearest first; as many for each sample of a sheet.
    pub neighbours: Vec<&'a [u8]>,
    /// d1 / d2; not a number where both are 0.
    pub distance_ratio: f64,
    pub memorized: bool,
}

/// Images are blown up by a whole factor to at least this many pixels.
const TILE: usize = 64;
/// Images in a row of the sheet, as long as at least one sample with its neighbours stands there.
const ROW: usize = 12;
const MARGIN: usize = 28;
/// Above the samples without the title, whose lines are this high.
const HEADER: usize = 64;
const TITLE_LINE: usize = 28;
const TITLE: f64 = 22.0;
const GAP: usize = 6;
/// Frame around a sample and its neighbours, and the space between frames.
const PAD: usize = 8;
const BETWEEN: usize = 22;
const CAPTION: usize = 20;

/// Samples of one network, and a line about them.
pub struct Sheet<'a> {
    pub samples: Vec<Compared<'a>>,
    /// Pixels along an image's side.
    pub side: usize,
    /// Broken into lines where it is long.
    pub title: String,
}

/// A PNG of samples with their neighbours, row by row; memorized ones have a coloured frame.
///
/// - `side`: pixels along an image's side. `title`: broken into lines where it is long.
pub fn sheet(samples: &[Compared], side: usize, title: &str) -> Result<Vec<u8>> {
    drawn_sheet(samples, side, title)?.png()
}

/// Several sheets, one below the other.
pub fn sheets(all: &[Sheet]) -> Result<Vec<u8>> {
    let parts = all.iter().map(|s| drawn_sheet(&s.samples, s.side, &s.title));
    let parts: Vec<Canvas> = parts.collect::<Result<_>>()?;
    let width = parts.iter().map(|p| p.width).max().unwrap_or(1);
    let height = parts.iter().map(|p| p.height).sum::<usize>().max(1);
    let mut whole = Canvas::new(width, height);
    let mut top = 0;
    for part in &parts {
        for (row, line) in part.rgb.chunks_exact(part.width * 3).enumerate() {
            whole.rgb[(top + row) * width * 3..][..line.len()].copy_from_slice(line);
        }
        top += part.height;
    }
    whole.png()
}

/// What stands over a sample and its neighbours.
const HEADINGS: [&str; 12] = [
    "sample", "nearest", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth",
    "ninth", "tenth", "eleventh",
];

fn drawn_sheet(samples: &[Compared], side: usize, title: &str) -> Result<Canvas> {
    let scale = scale_to(side, TILE);
    let tile = side * scale;
    let images = 1 + samples.first().map_or(2, |s| s.neighbours.len());
    let width = images * tile + (images - 1) * GAP + 2 * PAD;
    let height = tile + 2 * PAD + CAPTION;
    let columns = samples.len().clamp(1, (ROW / images).max(1));
    let rows = samples.len().div_ceil(columns);
    let whole = (2 * MARGIN + columns * (width + BETWEEN) - BETWEEN).max(560);
    let title = wrap(title, TITLE, BROWSER * (whole - 2 * MARGIN) as f64);
    let header = HEADER + title.len() * TITLE_LINE;
    let mut canvas = Canvas::new(
        whole,
        header + rows * (height + BETWEEN) - BETWEEN.min(rows * BETWEEN) + MARGIN,
    );
    let corner = |i: usize| {
        (MARGIN + i % columns * (width + BETWEEN), header + i / columns * (height + BETWEEN))
    };
    let place = |(x, y): (usize, usize)| (x as i32, y as i32);
    canvas.draw(|area| {
        for (i, line) in title.iter().enumerate() {
            let at = place((MARGIN, 30 + i * TITLE_LINE));
            drawn(area.draw_text(line, &text(TITLE, INK, HPos::Left), at))?;
        }
        for column in 0..columns {
            let (x, _) = corner(column);
            for (k, name) in HEADINGS.iter().take(images).enumerate() {
                let middle = x + PAD + k * (tile + GAP) + tile / 2;
                let style = text(15.0, MUTED, HPos::Center);
                drawn(area.draw_text(name, &style, place((middle, header - 16))))?;
            }
        }
        for (i, t) in samples.iter().enumerate() {
            let (x, y) = corner(i);
            let frame = |inset: usize| {
                [place((x + inset, y + inset)), place((x + width - inset, y + height - inset))]
            };
            let (color, thickness) = if t.memorized { (ACCENT, 4) } else { (RULE, 1) };
            drawn(area.draw(&Rectangle::new(frame(0), color.filled())))?;
            drawn(area.draw(&Rectangle::new(frame(thickness), WHITE.filled())))?;
            let (words, ink) = match t.memorized {
                true => (format!("copy · d₁/d₂ = {:.3}", t.distance_ratio), ACCENT),
                false if t.distance_ratio.is_nan() => ("d₁ = d₂ = 0".into(), MUTED),
                false => (format!("d₁/d₂ = {:.3}", t.distance_ratio), MUTED),
            };
            let at = (x + width / 2, y + height - CAPTION / 2 - 5);
            drawn(area.draw_text(&words, &text(14.0, ink, HPos::Center), place(at)))?;
        }
        Ok(())
    })?;
    for (i, t) in samples.iter().enumerate() {
        let (x, y) = corner(i);
        for (k, image) in std::iter::once(t.sample).chain(t.neighbours.iter().copied()).enumerate()
        {
            canvas.put(x + PAD + k * (tile + GAP), y + PAD, image, side, scale);
        }
    }
    Ok(canvas)
}
