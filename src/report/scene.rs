//! What charts are made of, written as SVG or drawn as PNG.

use super::canvas::{Canvas, drawn, text};
use anyhow::Result;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::HPos;
use std::fmt::Write as _;

/// A place in units of the SVG.
pub type At = (f64, f64);

/// Shapes on a white ground, in units of the SVG.
pub struct Scene {
    pub width: f64,
    pub height: f64,
    pub shapes: Vec<Shape>,
}

pub enum Shape {
    Line {
        path: Vec<At>,
        width: f64,
        color: RGBColor,
        dashed: bool,
    },
    /// A translucent polygon.
    Band {
        path: Vec<At>,
        color: RGBColor,
    },
    Mark {
        at: At,
        radius: f64,
        sign: Sign,
        color: RGBColor,
        open: bool,
    },
    Text {
        words: String,
        size: f64,
        color: RGBColor,
        anchor: HPos,
        at: At,
    },
    /// What a page can switch or ask about: `class` and `series` become attributes, `tip` a title.
    Group {
        class: &'static str,
        series: Option<usize>,
        tip: String,
        shapes: Vec<Shape>,
    },
}

/// How a point is marked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    Circle,
    Square,
    Diamond,
    Triangle,
    Down,
    Cross,
}

impl Sign {
    /// Corners around 0 for radius 1; none for the circle. The cross is two lines.
    fn corners(self) -> &'static [At] {
        match self {
            Sign::Circle => &[],
            Sign::Square => &[(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
            Sign::Diamond => &[(0.0, -1.3), (1.3, 0.0), (0.0, 1.3), (-1.3, 0.0)],
            Sign::Triangle => &[(0.0, -1.25), (1.15, 0.85), (-1.15, 0.85)],
            Sign::Down => &[(0.0, 1.25), (1.15, -0.85), (-1.15, -0.85)],
            Sign::Cross => &[(-0.9, -0.9), (0.9, 0.9), (-0.9, 0.9), (0.9, -0.9)],
        }
    }

    fn around(self, at: At, radius: f64) -> Vec<At> {
        self.corners().iter().map(|c| (at.0 + radius * c.0, at.1 + radius * c.1)).collect()
    }
}

const DASH: f64 = 5.0;
const PERIOD: f64 = 9.0;
const BAND_OPACITY: f64 = 0.16;
/// Marks stand off from lines by a white rim; open ones are a line this wide.
const RIM: f64 = 1.2;
const OUTLINE: f64 = 1.8;

impl Scene {
    /// One line a shape; no font, picture or script from elsewhere.
    pub fn svg(&self, title: &str) -> String {
        let (w, h) = (self.width, self.height);
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {w} {h}\" width=\"{w}\" height=\"{h}\" \
             role=\"img\" aria-label=\"{}\" font-family=\"DejaVu Sans, Verdana, sans-serif\">\n\
             <rect width=\"{w}\" height=\"{h}\" fill=\"#ffffff\"/>\n",
            escape(title)
        );
        self.shapes.iter().for_each(|s| write_svg(&mut out, s));
        out + "</svg>\n"
    }

    /// Drawn at four times the size, then halved: plotters' thick lines have jagged edges.
    pub fn png(&self) -> Result<Vec<u8>> {
        let pixels = |units: f64| 4 * units.ceil() as usize;
        let mut canvas = Canvas::new(pixels(self.width), pixels(self.height));
        canvas
            .draw(|area| self.shapes.iter().try_for_each(|s| Pen { area, unit: 4.0 }.shape(s)))?;
        canvas.halved().png()
    }
}

/// Text for XML and HTML, in elements and in attributes. What XML cannot hold becomes a space.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\'' => out += "&#39;",
            '\n' | '\t' => out.push(c),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

fn hex(color: &RGBColor) -> String {
    format!("#{:02x}{:02x}{:02x}", color.0, color.1, color.2)
}

/// A coordinate: hundredths are finer than any screen.
fn place(value: f64) -> f64 {
    let rounded = (value * 100.0).round() / 100.0;
    rounded + 0.0
}

fn path_of(path: &[At], closed: bool) -> String {
    let mut out = String::new();
    for (i, p) in path.iter().enumerate() {
        let _ = write!(out, "{}{} {}", if i == 0 { "M" } else { "L" }, place(p.0), place(p.1));
    }
    if closed { out + "Z" } else { out }
}

fn write_svg(out: &mut String, shape: &Shape) {
    let _ = match shape {
        Shape::Line { path, width, color, dashed } => {
            let dash = match dashed {
                true => format!(" stroke-dasharray=\"{DASH} {}\"", PERIOD - DASH),
                false => String::new(),
            };
            writeln!(
                out,
                "<path d=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"{width}\" \
                 stroke-linejoin=\"round\"{dash}/>",
                path_of(path, false),
                hex(color)
            )
        }
        Shape::Band { path, color } => writeln!(
            out,
            "<path d=\"{}\" fill=\"{}\" fill-opacity=\"{BAND_OPACITY}\"/>",
            path_of(path, true),
            hex(color)
        ),
        Shape::Mark { at, radius, sign, color, open } => {
            let color = hex(color);
            let (fill, stroke, width) = match (sign, open) {
                (Sign::Cross, _) => ("none", color.as_str(), OUTLINE),
                (_, true) => ("#ffffff", color.as_str(), OUTLINE),
                (_, false) => (color.as_str(), "#ffffff", RIM),
            };
            let look = format!("fill=\"{fill}\" stroke=\"{stroke}\" stroke-width=\"{width}\"");
            match sign {
                Sign::Circle => {
                    let (x, y) = (place(at.0), place(at.1));
                    writeln!(out, "<circle cx=\"{x}\" cy=\"{y}\" r=\"{radius}\" {look}/>")
                }
                Sign::Cross => {
                    let c = sign.around(*at, *radius);
                    let (a, b) = (path_of(&c[..2], false), path_of(&c[2..], false));
                    writeln!(out, "<path d=\"{a}{b}\" {look}/>")
                }
                _ => {
                    let path = path_of(&sign.around(*at, *radius), true);
                    writeln!(out, "<path d=\"{path}\" {look}/>")
                }
            }
        }
        Shape::Text { words, size, color, anchor, at } => {
            let anchor = match anchor {
                HPos::Left => "start",
                HPos::Center => "middle",
                HPos::Right => "end",
            };
            // The baseline that puts capitals around the middle, whatever a viewer knows of baselines.
            let (x, y) = (place(at.0), place(at.1 + 0.35 * size));
            writeln!(
                out,
                "<text x=\"{x}\" y=\"{y}\" font-size=\"{size}\" fill=\"{}\" text-anchor=\"{anchor}\">{}</text>",
                hex(color),
                escape(words)
            )
        }
        Shape::Group { class, series, tip, shapes } => {
            let series = series.map(|s| format!(" data-series=\"{s}\"")).unwrap_or_default();
            let _ = write!(out, "<g class=\"{class}\"{series}>");
            let _ = match tip.is_empty() {
                true => writeln!(out),
                false => writeln!(out, "<title>{}</title>", escape(tip)),
            };
            shapes.iter().for_each(|s| write_svg(out, s));
            writeln!(out, "</g>")
        }
    };
}

/// Draws in the SVG's units on a bitmap.
struct Pen<'a, 'b> {
    area: &'a DrawingArea<BitMapBackend<'b>, Shift>,
    unit: f64,
}

/// How far text is set lower, in its size: bitmaps centre a font's box, we mean its letters.
const DROP: f64 = 0.16;

impl Pen<'_, '_> {
    fn at(&self, (x, y): At) -> (i32, i32) {
        ((x * self.unit).round() as i32, (y * self.unit).round() as i32)
    }

    fn shape(&self, shape: &Shape) -> Result<()> {
        match shape {
            Shape::Line { path, width, color, dashed: false } => self.line(path, *width, color),
            Shape::Line { path, width, color, dashed: true } => {
                dashes(path).iter().try_for_each(|dash| self.line(dash, *width, color))
            }
            Shape::Band { path, color } => self.polygon(path, color.mix(BAND_OPACITY).filled()),
            Shape::Mark { at, radius, sign, color, open } => {
                self.mark(*at, *radius, *sign, color, *open)
            }
            Shape::Text { words, size, color, anchor, at } => {
                let style = text(size * self.unit, *color, *anchor);
                let at = self.at((at.0, at.1 + DROP * size));
                drawn(self.area.draw_text(words, &style, at))
            }
            Shape::Group { shapes, .. } => shapes.iter().try_for_each(|s| self.shape(s)),
        }
    }

    fn line(&self, path: &[At], width: f64, color: &RGBColor) -> Result<()> {
        let style = color.stroke_width((width * self.unit).round().max(1.0) as u32);
        let path: Vec<_> = path.iter().map(|&p| self.at(p)).collect();
        drawn(self.area.draw(&PathElement::new(path, style)))
    }

    fn polygon(&self, path: &[At], style: ShapeStyle) -> Result<()> {
        let path: Vec<_> = path.iter().map(|&p| self.at(p)).collect();
        drawn(self.area.draw(&Polygon::new(path, style)))
    }

    fn mark(&self, at: At, radius: f64, sign: Sign, color: &RGBColor, open: bool) -> Result<()> {
        let fill = |radius: f64, color: &RGBColor| match sign {
            Sign::Circle => {
                let radius = (radius * self.unit).round() as i32;
                drawn(self.area.draw(&Circle::new(self.at(at), radius, color.filled())))
            }
            _ => self.polygon(&sign.around(at, radius), color.filled()),
        };
        match (sign, open) {
            (Sign::Cross, _) => {
                let c = sign.around(at, radius);
                self.line(&c[..2], OUTLINE, color)?;
                self.line(&c[2..], OUTLINE, color)
            }
            (_, true) => {
                fill(radius + OUTLINE / 2.0, color)?;
                fill(radius - OUTLINE / 2.0, &WHITE)
            }
            (_, false) => {
                fill(radius + RIM, &WHITE)?;
                fill(radius, color)
            }
        }
    }
}

/// The drawn pieces of a dashed path.
fn dashes(path: &[At]) -> Vec<Vec<At>> {
    let mut pieces: Vec<Vec<At>> = Vec::new();
    let mut walked = 0.0;
    for w in path.windows(2) {
        let (from, to) = (w[0], w[1]);
        let length = (to.0 - from.0).hypot(to.1 - from.1);
        let point = |s: f64| {
            let t = s / length;
            (from.0 + t * (to.0 - from.0), from.1 + t * (to.1 - from.1))
        };
        let mut s = 0.0;
        while s < length {
            let phase = (walked + s) % PERIOD;
            let (drawn, end) = match phase < DASH {
                true => (true, s + DASH - phase),
                false => (false, s + PERIOD - phase),
            };
            // Steps too small to move on are rounding.
            let end = end.max(s + 1e-6).min(length);
            if drawn {
                pieces.push(vec![point(s), point(end)]);
            }
            s = end;
        }
        walked += length;
    }
    pieces
}
