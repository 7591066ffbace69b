//! What charts and sheets are made of, written as SVG, and that drawn as a picture.

use super::canvas::{Canvas, Color, FAMILIES};
use anyhow::Result;
use std::fmt::Write as _;

/// A place in units of the SVG.
pub type At = (f64, f64);

/// Shapes on a white ground, in units of the SVG.
pub struct Scene {
    /// Of the whole.
    pub width: f64,
    /// Of the whole.
    pub height: f64,
    /// Later ones lie over earlier ones.
    pub shapes: Vec<SceneShape>,
}

/// A shape, in units of the SVG.
pub enum SceneShape {
    Line {
        path: Vec<At>,
        width: f64,
        color: Color,
        dashed: bool,
    },
    /// A polygon, translucent where it is a band.
    Area {
        path: Vec<At>,
        color: Color,
        opacity: f64,
    },
    Mark {
        at: At,
        radius: f64,
        sign: Sign,
        color: Color,
        open: bool,
    },
    Text {
        words: String,
        size: f64,
        color: Color,
        anchor: Anchor,
        at: At,
    },
    /// What a page can switch or ask about: `class` and `series` become attributes, `tip` a title.
    Group {
        class: &'static str,
        series: Option<usize>,
        tip: String,
        shapes: Vec<SceneShape>,
    },
}

/// Which part of words stands at their place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anchor {
    Left,
    Center,
    Right,
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
/// Marks stand off from lines by a white rim; open ones are a line this wide.
const RIM: f64 = 1.2;
const OUTLINE: f64 = 1.8;

impl Scene {
    /// One line a shape; no font, picture or script from elsewhere.
    pub fn svg(&self, title: &str) -> String {
        let (w, h) = (self.width, self.height);
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {w} {h}\" width=\"{w}\" height=\"{h}\" \
             role=\"img\" aria-label=\"{}\" font-family=\"{FAMILIES}\">\n\
             <rect width=\"{w}\" height=\"{h}\" fill=\"#ffffff\"/>\n",
            escape(title)
        );
        self.shapes.iter().for_each(|s| write_svg(&mut out, s));
        out + "</svg>\n"
    }

    /// As a picture of `zoom` pixels a unit.
    pub fn drawn(&self, zoom: usize) -> Result<Canvas> {
        let pixels = |units: f64| zoom * units.ceil() as usize;
        Canvas::of_svg(&self.svg(""), pixels(self.width), pixels(self.height), zoom as f32)
    }
}

/// Words at a place, their capitals around its height.
pub fn words(
    words: impl Into<String>,
    size: f64,
    color: Color,
    anchor: Anchor,
    at: At,
) -> SceneShape {
    // What no font shows.
    let words = words.into().replace(char::is_control, " ");
    SceneShape::Text { words, size, color, anchor, at }
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

fn hex(color: &Color) -> String {
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

fn write_svg(out: &mut String, shape: &SceneShape) {
    let _ = match shape {
        SceneShape::Line { path, width, color, dashed } => {
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
        SceneShape::Area { path, color, opacity } => {
            let opacity = match *opacity < 1.0 {
                true => format!(" fill-opacity=\"{opacity}\""),
                false => String::new(),
            };
            writeln!(out, "<path d=\"{}\" fill=\"{}\"{opacity}/>", path_of(path, true), hex(color))
        }
        SceneShape::Mark { at, radius, sign, color, open } => {
            let color = hex(color);
            let (fill, stroke, width) = match (sign, open) {
                (Sign::Cross, _) => ("none", color.as_str(), OUTLINE),
                (_, true) => ("#ffffff", color.as_str(), OUTLINE),
                (_, false) => (color.as_str(), "#ffffff", RIM),
            };
            let paint = format!("fill=\"{fill}\" stroke=\"{stroke}\" stroke-width=\"{width}\"");
            match sign {
                Sign::Circle => {
                    let (x, y) = (place(at.0), place(at.1));
                    writeln!(out, "<circle cx=\"{x}\" cy=\"{y}\" r=\"{radius}\" {paint}/>")
                }
                Sign::Cross => {
                    let c = sign.around(*at, *radius);
                    let (a, b) = (path_of(&c[..2], false), path_of(&c[2..], false));
                    writeln!(out, "<path d=\"{a}{b}\" {paint}/>")
                }
                _ => {
                    let path = path_of(&sign.around(*at, *radius), true);
                    writeln!(out, "<path d=\"{path}\" {paint}/>")
                }
            }
        }
        SceneShape::Text { words, size, color, anchor, at } => {
            let anchor = match anchor {
                Anchor::Left => "start",
                Anchor::Center => "middle",
                Anchor::Right => "end",
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
        SceneShape::Group { class, series, tip, shapes } => {
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
