//! The two plots that answer the paper's question, as PNG and SVG from one drawing.

use super::canvas::{ACCENT, Canvas, INK, MUTED, RULE, drawn, text};
use crate::error::usage;
use crate::files::write_atomic;
use anyhow::Result;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::HPos;
use std::io::Write as _;
use std::path::Path;

/// Size of the SVG, in its units; the PNG has twice as many pixels.
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 450.0;
const LINE: RGBColor = RGBColor(0x1f, 0x5f, 0xa8);
/// Small to large: dark blue, blue, green, ochre, red.
const SCALE: [(u8, u8, u8); 5] = [
    (0x1d, 0x2f, 0x6f),
    (0x2b, 0x7b, 0xba),
    (0x2a, 0xa1, 0x80),
    (0xdc, 0x9a, 0x1c),
    (0xc0, 0x35, 0x2b),
];

/// A ratio of memorization measured at one training-set size.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SizePoint {
    pub size: u64,
    pub ratio: f64,
    /// 95% interval.
    pub interval: [f64; 2],
}

/// A plot; ratios are shares in 0..1.
#[derive(Debug, Clone, PartialEq)]
pub enum Plot {
    /// Ratio against training-set size, with the line 1 − ε and the EMM where there is one.
    Sizes { title: String, points: Vec<SizePoint>, epsilon: f64, emm: Option<f64> },
    /// Ratio over epochs, one line a label; the labels ascend.
    Epochs { title: String, lines: Vec<(String, Vec<(f64, f64)>)> },
}

impl Plot {
    /// Writes `.png` or `.svg`.
    ///
    /// # Errors
    /// Usage for another extension; as [`write_atomic`].
    pub fn save(&self, path: &Path, force: bool) -> Result<()> {
        let bytes = match path.extension().and_then(|e| e.to_str()) {
            Some("png") => self.png()?,
            Some("svg") => self.svg()?.into_bytes(),
            _ => return Err(usage(format!("{}: a plot is .png or .svg", path.display()))),
        };
        write_atomic(path, force, |file| Ok(file.write_all(&bytes)?))
    }

    pub fn png(&self) -> Result<Vec<u8>> {
        // Drawn at twice the size, then halved: plotters' thick lines have jagged edges.
        let mut canvas = Canvas::new(4 * WIDTH as usize, 4 * HEIGHT as usize);
        canvas.draw(|area| self.draw(area, 4.0, 0.16))?;
        canvas.halved().png()
    }

    pub fn svg(&self) -> Result<String> {
        let mut svg = String::new();
        let area =
            SVGBackend::with_string(&mut svg, (WIDTH as u32, HEIGHT as u32)).into_drawing_area();
        self.draw(&area, 1.0, 0.0)?;
        drawn(area.present())?;
        drop(area);
        Ok(svg)
    }

    fn draw<DB: DrawingBackend>(
        &self,
        area: &DrawingArea<DB, Shift>,
        unit: f64,
        drop: f64,
    ) -> Result<()> {
        drawn(area.fill(&WHITE))?;
        let pen = Pen { area, unit, drop };
        match self {
            Plot::Sizes { title, points, epsilon, emm } => {
                draw_sizes(&pen, title, points, *epsilon, *emm)
            }
            Plot::Epochs { title, lines } => draw_epochs(&pen, title, lines),
        }
    }
}

fn draw_sizes<DB: DrawingBackend>(
    pen: &Pen<DB>,
    title: &str,
    points: &[SizePoint],
    epsilon: f64,
    emm: Option<f64>,
) -> Result<()> {
    let mut points = points.to_vec();
    points.sort_by_key(|p| p.size);
    let sizes: Vec<f64> = points.iter().map(|p| p.size as f64).collect();
    let log = sizes.last() >= sizes.first().map(|s| 4.0 * s).as_ref();
    let axis = Axis::around(&sizes, log);
    let frame = Frame { right: WIDTH - 40.0, axis };
    let mut ticks: Vec<(f64, String)> = Vec::new();
    for &size in &sizes {
        // A label needs room.
        if ticks.last().is_none_or(|t| frame.x(size) - frame.x(t.0) > 46.0) {
            ticks.push((size, thousands(size)));
        }
    }
    let scale = if log { " (log scale)" } else { "" };
    pen.frame(&frame, title, &ticks, &format!("training images{scale}"))?;

    let level = frame.y(1.0 - epsilon);
    pen.dashed((LEFT, level), (frame.right, level), MUTED)?;
    let name = format!("1 − ε = {}%", trimmed(100.0 * (1.0 - epsilon)));
    pen.text(&name, 12.0, MUTED, HPos::Right, (frame.right - 6.0, level - 11.0))?;

    // Straight in the number of images, as the EMM is interpolated: bent on a log axis.
    let frame_at = &frame;
    let path = points.windows(2).flat_map(|w| {
        let (a, b) = (w[0], w[1]);
        (0..=16).map(move |i| {
            let t = i as f64 / 16.0;
            let size = a.size as f64 + t * (b.size - a.size) as f64;
            (frame_at.x(size), frame_at.y(a.ratio + t * (b.ratio - a.ratio)))
        })
    });
    pen.line(path.collect(), 2.0, LINE)?;
    for p in &points {
        let (x, y) = (frame.x(p.size as f64), frame.y(p.ratio));
        let (low, high) = (frame.y(p.interval[0]), frame.y(p.interval[1]));
        pen.line(vec![(x, low), (x, high)], 1.4, LINE)?;
        for y in [low, high] {
            pen.line(vec![(x - 4.0, y), (x + 4.0, y)], 1.4, LINE)?;
        }
        pen.dot((x, y), 4.0, LINE)?;
    }

    if let Some(emm) = emm {
        let x = frame.x(emm);
        pen.dashed((x, level), (x, BOTTOM), ACCENT)?;
        pen.dot((x, level), 4.5, ACCENT)?;
        // Beside the line, where the falling curve is not.
        let (anchor, dx) = if x > LEFT + 190.0 { (HPos::Right, -9.0) } else { (HPos::Left, 9.0) };
        let name = format!("EMM(ε = {}) ≈ {}", trimmed(epsilon), thousands(emm.round()));
        pen.text(&name, 14.0, ACCENT, anchor, (x + dx, BOTTOM - 20.0))?;
    }
    Ok(())
}

fn draw_epochs<DB: DrawingBackend>(
    pen: &Pen<DB>,
    title: &str,
    lines: &[(String, Vec<(f64, f64)>)],
) -> Result<()> {
    let last = lines.iter().flat_map(|l| &l.1).map(|p| p.0).fold(0.0, f64::max);
    let axis = Axis { log: false, low: 0.0, high: if last > 0.0 { last } else { 1.0 } };
    let frame = Frame { right: WIDTH - 150.0, axis };
    let ticks: Vec<_> = round_ticks(frame.axis.high).map(|t| (t, thousands(t))).collect();
    pen.frame(&frame, title, &ticks, "epochs")?;
    let pitch = 24f64.min((BOTTOM - TOP) / lines.len().max(1) as f64);
    for (i, (label, points)) in lines.iter().enumerate() {
        let color = along_scale(i, lines.len());
        let path: Vec<_> = points.iter().map(|p| (frame.x(p.0), frame.y(p.1))).collect();
        pen.line(path.clone(), 2.2, color)?;
        for at in path {
            pen.dot(at, 2.6, color)?;
        }
        let (x, y) = (frame.right + 22.0, TOP + 8.0 + i as f64 * pitch);
        pen.line(vec![(x, y), (x + 22.0, y)], 3.0, color)?;
        pen.text(label, 13.0, INK, HPos::Left, (x + 31.0, y))?;
    }
    Ok(())
}

const LEFT: f64 = 64.0;
const TOP: f64 = 66.0;
const BOTTOM: f64 = HEIGHT - 58.0;

/// What the horizontal axis shows.
struct Axis {
    log: bool,
    low: f64,
    high: f64,
}

impl Axis {
    /// From a little before the first value to a little behind the last.
    fn around(sorted: &[f64], log: bool) -> Axis {
        let (first, last) = match sorted {
            [] => (1.0, 2.0),
            [only] => (only * 0.5, only * 1.5),
            [first, .., last] => (*first, *last),
        };
        if log {
            let margin = (last / first).powf(0.06);
            return Axis { log, low: first / margin, high: last * margin };
        }
        let margin = 0.06 * (last - first);
        Axis { log, low: first - margin, high: last + margin }
    }

    /// 0 at the axis' left end, 1 at its right.
    fn place(&self, value: f64) -> f64 {
        let f = |v: f64| if self.log { v.ln() } else { v };
        (f(value) - f(self.low)) / (f(self.high) - f(self.low))
    }
}

/// Where values are, in the SVG's units.
struct Frame {
    right: f64,
    axis: Axis,
}

impl Frame {
    fn x(&self, value: f64) -> f64 {
        LEFT + self.axis.place(value) * (self.right - LEFT)
    }

    fn y(&self, ratio: f64) -> f64 {
        BOTTOM - ratio * (BOTTOM - TOP)
    }
}

/// Draws in the SVG's units, whatever the backend's.
struct Pen<'a, DB: DrawingBackend> {
    area: &'a DrawingArea<DB, Shift>,
    unit: f64,
    /// How far text is set lower, in its size: bitmaps centre a font's box, viewers of SVG its letters.
    drop: f64,
}

impl<DB: DrawingBackend> Pen<'_, DB> {
    fn at(&self, (x, y): (f64, f64)) -> (i32, i32) {
        ((x * self.unit).round() as i32, (y * self.unit).round() as i32)
    }

    fn line(&self, path: Vec<(f64, f64)>, width: f64, color: RGBColor) -> Result<()> {
        let style = color.stroke_width((width * self.unit).round().max(1.0) as u32);
        let path: Vec<_> = path.into_iter().map(|p| self.at(p)).collect();
        drawn(self.area.draw(&PathElement::new(path, style)))
    }

    /// A horizontal or vertical line of dashes.
    fn dashed(&self, from: (f64, f64), to: (f64, f64), color: RGBColor) -> Result<()> {
        let (dx, dy) = (to.0 - from.0, to.1 - from.1);
        let length = dx.hypot(dy);
        let point = |s: f64| (from.0 + dx * s / length, from.1 + dy * s / length);
        for i in 0..(length / 9.0).ceil() as usize {
            let start = 9.0 * i as f64;
            let end = (start + 5.0).min(length);
            self.line(vec![point(start), point(end)], 1.3, color)?;
        }
        Ok(())
    }

    fn dot(&self, at: (f64, f64), radius: f64, color: RGBColor) -> Result<()> {
        let circle = |r: f64, style: ShapeStyle| {
            Circle::new(self.at(at), (r * self.unit).round() as i32, style)
        };
        drawn(self.area.draw(&circle(radius + 1.2, WHITE.filled())))?;
        drawn(self.area.draw(&circle(radius, color.filled())))
    }

    fn text(
        &self,
        words: &str,
        size: f64,
        color: RGBColor,
        anchor: HPos,
        at: (f64, f64),
    ) -> Result<()> {
        let style = text(size * self.unit, color, anchor);
        drawn(self.area.draw_text(words, &style, self.at((at.0, at.1 + self.drop * size))))
    }

    /// Title, percent axis with rules, horizontal axis with ticks.
    fn frame(
        &self,
        frame: &Frame,
        title: &str,
        ticks: &[(f64, String)],
        x_name: &str,
    ) -> Result<()> {
        self.text(title, 18.0, INK, HPos::Left, (20.0, 24.0))?;
        self.text("ratio of memorization", 12.5, MUTED, HPos::Left, (20.0, TOP - 18.0))?;
        for percent in (0..=100).step_by(20) {
            let y = frame.y(percent as f64 / 100.0);
            let color = if percent == 0 { MUTED } else { RULE };
            self.line(vec![(LEFT, y), (frame.right, y)], 1.0, color)?;
            let label = format!("{percent}%");
            self.text(&label, 12.5, MUTED, HPos::Right, (LEFT - 9.0, y))?;
        }
        for (value, label) in ticks {
            let x = frame.x(*value);
            self.line(vec![(x, BOTTOM), (x, BOTTOM + 5.0)], 1.0, MUTED)?;
            self.text(label, 12.5, MUTED, HPos::Center, (x, BOTTOM + 17.0))?;
        }
        let middle = (LEFT + frame.right) / 2.0;
        self.text(x_name, 13.0, INK, HPos::Center, (middle, BOTTOM + 40.0))
    }
}

/// Round steps of 1, 2 or 5 times a power of ten up to `high`, five or so.
fn round_ticks(high: f64) -> impl Iterator<Item = f64> {
    let rough = high / 5.0;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|m| m * power).into_iter().find(|&s| s >= rough);
    let step = step.unwrap_or(rough);
    (0..=(high / step).floor() as usize).map(move |i| i as f64 * step)
}

/// The colour of line `i` of `n`.
fn along_scale(i: usize, n: usize) -> RGBColor {
    let place = i as f64 / (n.max(2) - 1) as f64 * (SCALE.len() - 1) as f64;
    let k = (place as usize).min(SCALE.len() - 2);
    let mix = |a: u8, b: u8| (a as f64 + (place - k as f64) * (b as f64 - a as f64)).round() as u8;
    let (a, b) = (SCALE[k], SCALE[k + 1]);
    RGBColor(mix(a.0, b.0), mix(a.1, b.1), mix(a.2, b.2))
}

/// 12345 → "12,345"; below one, up to three decimals.
fn thousands(value: f64) -> String {
    if value.fract() != 0.0 {
        return trimmed(value);
    }
    let digits = format!("{value:.0}");
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// Up to three decimals, no trailing zeros.
fn trimmed(value: f64) -> String {
    let s = format!("{value:.3}");
    s.trim_end_matches('0').trim_end_matches('.').to_string()
}
