//! Where values lie in a panel, and which of them its axes name.

use super::canvas::width_of;
use super::chart::{ChartScale, Panel, Point};
use super::scene::At;

/// From a panel's left side to its vertical axis, and from its right end back.
pub const LEFT: f64 = 54.0;
/// From the right end of the horizontal axis to the panel's right side.
pub const RIGHT: f64 = 22.0;
/// Size of ticks' words.
pub const SMALL: f64 = 14.0;

/// Where values are, in the SVG's units.
pub struct Frame {
    /// The plot's sides.
    pub left: f64,
    pub right: f64,
    pub top: f64,
    pub bottom: f64,
    /// Whether the horizontal axis is logarithmic.
    pub log: bool,
    /// Whether lines are straight in the value, and so bent where the axis is logarithmic.
    pub straight_in_images: bool,
    /// Ends of the horizontal axis, in the values' unit.
    pub x: [f64; 2],
    /// Ends of the vertical axis.
    pub y: [f64; 2],
    /// Whether the vertical axis is logarithmic.
    pub log_y: bool,
}

impl Frame {
    /// A panel whose left upper corner is (`x`, `y`), with `head` above the plot.
    pub fn new(panel: &Panel, x: f64, y: f64, width: f64, head: f64, plot: f64) -> Frame {
        let usable = |v: &f64| v.is_finite() && (*v > 0.0 || panel.x.scale != ChartScale::Log);
        let all = panel.series.iter().flat_map(|s| &s.points).map(|p| p.x).filter(usable);
        let (low, high) =
            all.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
        let log = match panel.x.scale {
            ChartScale::Log => true,
            ChartScale::Images => low > 0.0 && high >= 4.0 * low,
            _ => false,
        };
        let ends = match &panel.x.scale {
            ChartScale::Categories(names) => [-0.5, names.len().max(1) as f64 - 0.5],
            // No value at all: an empty frame.
            _ if low > high => [1.0, 2.0],
            ChartScale::Linear => [0.0_f64.min(low), if high > 0.0 { high } else { low + 1.0 }],
            _ if low == high => [low * 0.5, if high > 0.0 { high * 1.5 } else { 1.0 }],
            _ if log => {
                let margin = (high / low).powf(0.06);
                [low / margin, high * margin]
            }
            _ => [low - 0.06 * (high - low), high + 0.06 * (high - low)],
        };
        let log_y = panel.is_log();
        let y_ends = match panel.y {
            [a, b] if a.is_finite() && b.is_finite() && a < b && (a > 0.0 || !log_y) => panel.y,
            _ if log_y => [0.1, 1.0],
            _ => [0.0, 1.0],
        };
        Frame {
            left: x + LEFT,
            right: x + width - RIGHT,
            top: y + head,
            bottom: y + head + plot,
            log,
            straight_in_images: panel.x.scale == ChartScale::Images,
            x: ends,
            y: y_ends,
            log_y,
        }
    }

    /// Where a value lies from left to right.
    pub fn x(&self, value: f64) -> f64 {
        let f = |v: f64| if self.log { v.ln() } else { v };
        let [low, high] = self.x.map(f);
        self.left + (f(value) - low) / (high - low) * (self.right - self.left)
    }

    /// Where a value lies from top to bottom; one outside the axis, at its end.
    pub fn y(&self, value: f64) -> f64 {
        let f = |v: f64| if self.log_y { v.ln() } else { v };
        let [low, high] = self.y.map(f);
        let value = f(value.clamp(self.y[0], self.y[1]));
        self.bottom - (value - low) / (high - low) * (self.bottom - self.top)
    }

    /// Values with a label on the vertical axis.
    pub fn y_ticks(&self) -> Vec<(f64, String)> {
        let [low, high] = self.y;
        if self.log_y {
            let powers = low.log10().ceil() as i32..=high.log10().floor() as i32;
            // Within a decade or two more than powers of ten.
            let between: &[f64] =
                if powers.clone().count() < 3 { &[1.0, 2.0, 5.0] } else { &[1.0] };
            let around = powers.start() - 1..=*powers.end();
            let all = around.flat_map(|p| between.iter().map(move |m| m * 10f64.powi(p)));
            let inside = all.filter(|v| (low..=high).contains(v));
            return inside.map(|v| (v, magnitude(v))).collect();
        }
        let step = round_step((high - low) * 100.0);
        let first = (low * 100.0 / step).ceil();
        let percent = (0..).map(|i| (first + i as f64) * step);
        let inside = percent.take_while(|p| *p <= high * 100.0 + 1e-9);
        inside.map(|p| (p / 100.0, format!("{}%", number(p)))).collect()
    }

    /// Whether a point has a place.
    pub fn shows(&self, p: &Point) -> bool {
        p.y.is_finite() && p.x.is_finite() && (self.x[0]..=self.x[1]).contains(&p.x)
    }

    /// A line through values; straight in the number of images on a logarithmic axis of sizes.
    pub fn path(&self, values: &[At]) -> Vec<At> {
        let place = |(x, y): At| (self.x(x), self.y(y));
        if !(self.log && self.straight_in_images) {
            return values.iter().map(|&v| place(v)).collect();
        }
        let first = values.iter().take(1).map(|&v| place(v));
        let rest = values.windows(2).flat_map(|w| {
            let (a, b) = (w[0], w[1]);
            (1..=16).map(move |i| {
                let t = i as f64 / 16.0;
                place((a.0 + t * (b.0 - a.0), a.1 + t * (b.1 - a.1)))
            })
        });
        first.chain(rest).collect()
    }

    /// Values with a label on the horizontal axis: round ones, or those that were measured, as far as there
    /// is room.
    pub fn ticks(&self, panel: &Panel) -> Vec<(f64, String)> {
        let measured = || {
            let points = panel.series.iter().flat_map(|s| &s.points).filter(|p| self.shows(p));
            let mut values: Vec<f64> = points.map(|p| p.x).collect();
            values.sort_by(f64::total_cmp);
            values.dedup();
            values
        };
        let wanted: Vec<(f64, String)> = match &panel.x.scale {
            ChartScale::Categories(names) => {
                names.iter().enumerate().map(|(i, n)| (i as f64, n.clone())).collect()
            }
            ChartScale::Linear if measured().is_empty() => Vec::new(),
            ChartScale::Linear => {
                let step = round_step(self.x[1] - self.x[0]);
                let first = (self.x[0] / step).ceil() as i64;
                let last = (self.x[1] / step * (1.0 + 1e-12)).floor() as i64;
                (first..=last).map(|i| i as f64 * step).map(|v| (v, number(v))).collect()
            }
            _ => measured().into_iter().map(|v| (v, number(v))).collect(),
        };
        let mut ticks: Vec<(f64, String)> = Vec::new();
        let mut free = f64::NEG_INFINITY;
        for (value, label) in wanted {
            let (x, half) = (self.x(value), width_of(&label, SMALL) / 2.0);
            if x - half > free {
                free = x + half + 7.0;
                ticks.push((value, label));
            }
        }
        ticks
    }
}

/// A step of 1, 2 or 5 times a power of ten that divides `span` into five or so.
pub fn round_step(span: f64) -> f64 {
    let rough = span / 5.0;
    let power = 10f64.powf(rough.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|m| m * power);
    let step = steps.into_iter().find(|&s| s >= rough * (1.0 - 1e-9)).unwrap_or(rough);
    if step.is_finite() && step > 0.0 { step } else { 1.0 }
}

/// A number of any size, to four digits or two: "72.22", "10,000", "3.1e-7", "1e6".
pub fn magnitude(value: f64) -> String {
    if value != 0.0 && !(1e-3..1e5).contains(&value.abs()) {
        return format!("{value:.1e}").replace(".0e", "e");
    }
    let digits = 3 - (value.abs().max(1e-3).log10().floor() as i32).min(3);
    number((value * 10f64.powi(digits)).round() / 10f64.powi(digits))
}

/// 12345 → "12,345"; fractions with up to three decimals, no trailing zeros.
pub fn number(value: f64) -> String {
    let rounded = format!("{value:.3}");
    let (whole, fraction) = rounded.split_once('.').unwrap_or((&rounded, ""));
    let (sign, digits) = match whole.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", whole),
    };
    let mut out = sign.to_string();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    match fraction.trim_end_matches('0') {
        "" => out,
        fraction => format!("{out}.{fraction}"),
    }
}
