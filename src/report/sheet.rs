//! Samples beside the training images nearest to them.

use super::canvas::{ACCENT, Canvas, INK, MUTED, RULE, WHITE, scale_to, wrap};
use super::scene::{Anchor, Scene, SceneShape, words};
use anyhow::Result;

/// One sample and what it is compared with, each [H, W, C].
pub struct Compared<'a> {
    /// The generated image.
    pub sample: &'a [u8],
    /// Nearest first; as many for each sample of a sheet.
    pub neighbours: Vec<&'a [u8]>,
    /// d1 / d2; not a number where both are 0. Of a copied training image how many samples copy it; of a pair its distance over
    /// that of samples of different seeds.
    pub distance_ratio: f64,
    /// Whether it counts as a copy.
    pub memorized: bool,
}

/// Images are blown up by a whole factor to at least this many pixels.
const TILE: usize = 64;
/// Images in a row of the sheet, as long as at least one sample with its neighbours stands there: no more, so that
/// words can be read on a phone.
const ROW: usize = 6;
/// The same where each row is a pair of samples, whose rows are many.
const PAIRS_ROW: usize = 8;
/// The least width of a sheet.
const LEAST: usize = 520;
const MARGIN: usize = 28;
const TITLE: f64 = 19.0;
const TITLE_LINE: usize = 28;
const SMALL: f64 = 16.0;
const SMALL_LINE: usize = 24;
const GAP: usize = 6;
/// Frame around a sample and its neighbours, and the space between frames.
const PAD: usize = 8;
const BETWEEN: usize = 22;
const CAPTION: usize = 26;

/// What the rows of a sheet are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SheetOf {
    /// Samples beside the training images nearest to them.
    Samples,
    /// Training images beside samples that copy them.
    Copied,
    /// Samples of two networks, A and B, from one seed, and the training image that each is nearest to.
    Pairs,
}

/// Samples of one network, and what is said of them.
pub struct Sheet<'a> {
    /// In the order of the rows.
    pub samples: Vec<Compared<'a>>,
    /// Pixels along an image's side.
    pub side: usize,
    /// How many are copies. This and `notes` are broken into lines where they are long.
    pub title: String,
    /// What drew the samples, and the training images.
    pub notes: Vec<String>,
    /// A copy has d1/d2 below this, such as `1/3`.
    pub threshold: String,
    pub of: SheetOf,
}

impl Sheet<'_> {
    /// What columns, numbers and frames are.
    fn legend(&self) -> String {
        if self.of == SheetOf::Copied {
            return format!(
                "Left to right: a training image, samples that copy it. A copy: d₁/d₂ < {}, of its L2 distances from the \
                 nearest and the second nearest training image, over 8-bit pixels.",
                self.threshold
            );
        }
        if self.of == SheetOf::Pairs {
            return format!(
                "Left to right: A's sample, B's of the same seed, the nearest image of A's training set to A's sample and that of B's to B's. d: \
                 L2 distance of the two samples over 8-bit pixels, over that of samples of different seeds. Orange frame: one of \
                 the two is a copy, d₁/d₂ < {}.",
                self.threshold
            );
        }
        let neighbours = match self.neighbours() {
            2 => "its nearest and second-nearest training image".to_string(),
            n => format!("the {n} training images nearest to it"),
        };
        format!(
            "Left to right: sample, {neighbours}. d₁, d₂: L2 distance of the sample from the nearest and the second \
             nearest, over 8-bit pixels. Orange frame: a copy, d₁/d₂ < {}.",
            self.threshold
        )
    }

    fn neighbours(&self) -> usize {
        self.samples.first().map_or(2, |s| s.neighbours.len())
    }
}

/// A PNG of sheets, one below the other: samples with their neighbours, row by row; memorized ones have a coloured
/// frame.
pub fn sheets(all: &[Sheet]) -> Result<Vec<u8>> {
    let parts: Vec<Canvas> = all.iter().map(drawn_sheet).collect::<Result<_>>()?;
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
    "sample",
    "nearest",
    "second nearest",
    "third",
    "fourth",
    "fifth",
    "sixth",
    "seventh",
    "eighth",
    "ninth",
    "tenth",
    "eleventh",
];

const COPIED_HEADINGS: [&str; 12] =
    ["training image", "copies", "", "", "", "", "", "", "", "", "", ""];

const PAIRS_HEADINGS: [&str; 12] =
    ["A", "B", "A's nearest", "B's nearest", "", "", "", "", "", "", "", ""];

/// Where everything on a sheet goes, in pixels.
struct SheetLayout {
    scale: usize,
    tile: usize,
    /// Of one sample with its neighbours.
    images: usize,
    width: usize,
    height: usize,
    columns: usize,
    /// Lines above the samples: their size and words.
    lines: Vec<(f64, String)>,
    header: usize,
    whole: (usize, usize),
}

impl SheetLayout {
    fn new(sheet: &Sheet) -> SheetLayout {
        let scale = scale_to(sheet.side, TILE);
        let tile = sheet.side * scale;
        let images = 1 + sheet.neighbours();
        let width = images * tile + (images - 1) * GAP + 2 * PAD;
        let height = tile + 2 * PAD + CAPTION;
        let row = if sheet.of == SheetOf::Pairs { PAIRS_ROW } else { ROW };
        let columns = sheet.samples.len().clamp(1, (row / images).max(1));
        let rows = sheet.samples.len().div_ceil(columns);
        let whole = (2 * MARGIN + columns * (width + BETWEEN) - BETWEEN).max(LEAST);
        let room = (whole - 2 * MARGIN) as f64;
        let of =
            |size: f64, words: &str| wrap(words, size, room).into_iter().map(move |w| (size, w));
        let mut lines: Vec<(f64, String)> = of(TITLE, &sheet.title).collect();
        lines.extend(sheet.notes.iter().flat_map(|note| of(SMALL, note)));
        lines.extend(of(SMALL, &sheet.legend()));
        let high: usize = lines.iter().map(|(size, _)| line_of(*size)).sum();
        let header = 16 + high + 12 + 2 * SMALL_LINE;
        let below = header + rows * (height + BETWEEN) - BETWEEN.min(rows * BETWEEN) + MARGIN;
        SheetLayout {
            scale,
            tile,
            images,
            width,
            height,
            columns,
            lines,
            header,
            whole: (whole, below),
        }
    }

    /// The left upper corner of the frame of sample `i`.
    fn corner(&self, i: usize) -> (usize, usize) {
        let (column, row) = (i % self.columns, i / self.columns);
        (MARGIN + column * (self.width + BETWEEN), self.header + row * (self.height + BETWEEN))
    }
}

fn line_of(size: f64) -> usize {
    if size == TITLE { TITLE_LINE } else { SMALL_LINE }
}

/// Frames and words; the images are put into their picture.
fn scene_of(sheet: &Sheet, laid: &SheetLayout) -> Scene {
    let mut shapes = Vec::new();
    let mut say = |text: &str, size, color, anchor, (x, y): (usize, usize)| {
        shapes.push(words(text, size, color, anchor, (x as f64, y as f64)));
    };
    let mut y = 16;
    for (size, line) in &laid.lines {
        let color = if *size == TITLE { INK } else { MUTED };
        say(line, *size, color, Anchor::Left, (MARGIN, y + line_of(*size) / 2));
        y += line_of(*size);
    }
    for column in 0..laid.columns {
        let (x, top) = laid.corner(column);
        let headings = match sheet.of {
            SheetOf::Samples => HEADINGS,
            SheetOf::Copied => COPIED_HEADINGS,
            SheetOf::Pairs => PAIRS_HEADINGS,
        };
        for (k, name) in headings.iter().take(laid.images).enumerate() {
            let middle = x + PAD + k * (laid.tile + GAP) + laid.tile / 2;
            for (i, word) in name.split(' ').rev().enumerate() {
                let at = (middle, top - 14 - i * (SMALL_LINE - 4));
                say(word, SMALL, INK, Anchor::Center, at);
            }
        }
    }
    for (i, t) in sheet.samples.iter().enumerate() {
        let (x, y) = laid.corner(i);
        let frame = |inset: usize, color| {
            let [left, top] = [x + inset, y + inset].map(|v| v as f64);
            let [right, bottom] =
                [x + laid.width - inset, y + laid.height - inset].map(|v| v as f64);
            let path = vec![(left, top), (right, top), (right, bottom), (left, bottom)];
            SceneShape::Area { path, color, opacity: 1.0 }
        };
        let (color, thickness) = if t.memorized { (ACCENT, 4) } else { (RULE, 1) };
        shapes.extend([frame(0, color), frame(thickness, WHITE)]);
        let (said, ink) = match t.memorized {
            _ if sheet.of == SheetOf::Copied => {
                let many = if t.distance_ratio == 1.0 { "sample copies" } else { "samples copy" };
                (format!("{} {many} it", t.distance_ratio), INK)
            }
            _ if sheet.of == SheetOf::Pairs => {
                let word = if t.memorized { "copy · " } else { "" };
                let ink = if t.memorized { ACCENT } else { MUTED };
                (format!("{word}d = {:.2}", t.distance_ratio), ink)
            }
            true => (format!("copy · d₁/d₂ = {:.3}", t.distance_ratio), ACCENT),
            false if t.distance_ratio.is_nan() => ("d₁ = d₂ = 0".into(), MUTED),
            false => (format!("d₁/d₂ = {:.3}", t.distance_ratio), MUTED),
        };
        let at = (x + laid.width / 2, y + laid.height - CAPTION / 2 - 5);
        let at = (at.0 as f64, at.1 as f64);
        shapes.push(words(said, SMALL, ink, Anchor::Center, at));
    }
    Scene { width: laid.whole.0 as f64, height: laid.whole.1 as f64, shapes }
}

fn drawn_sheet(sheet: &Sheet) -> Result<Canvas> {
    let laid = SheetLayout::new(sheet);
    let mut canvas = scene_of(sheet, &laid).drawn(1)?;
    for (i, t) in sheet.samples.iter().enumerate() {
        let (x, y) = laid.corner(i);
        let images = std::iter::once(t.sample).chain(t.neighbours.iter().copied());
        for (k, image) in images.enumerate() {
            let left = x + PAD + k * (laid.tile + GAP);
            canvas.put(left, y + PAD, image, sheet.side, laid.scale);
        }
    }
    Ok(canvas)
}
