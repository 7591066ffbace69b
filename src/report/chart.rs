//! Charts as plain data: one description is drawn as PNG, as SVG and in the report, and written as JSON and CSV.

use super::table::{Cell, Table};
use serde::{Deserialize, Serialize};

/// Panels under one title.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chart {
    /// Stands above the panels.
    pub title: String,
    /// Drawn two a row.
    pub panels: Vec<Panel>,
    /// Lines below the panels: scale, what open marks mean, what is missing.
    pub footer: Vec<String>,
}

/// One pair of axes. The vertical one shows the ratio of memorization, in percent, where nothing else is said.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Panel {
    /// May be empty.
    pub title: String,
    /// The horizontal axis.
    pub x: ChartAxis,
    /// Ends of the vertical axis.
    pub y: [f64; 2],
    /// What the vertical axis shows instead of that ratio.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub values: Option<ValueAxis>,
    /// A dashed line at this share: 1 − ε.
    pub level: Option<f64>,
    /// In the order of their colours and of the legend.
    pub series: Vec<Series>,
}

/// A vertical axis of something else than the ratio of memorization.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ValueAxis {
    /// What stands above it.
    pub name: String,
    /// How its values are written, and where they lie.
    pub scale: ValueScale,
}

/// Values of a vertical axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ValueScale {
    /// Shares, in percent.
    Shares,
    /// Numbers above 0, on a logarithmic axis.
    Log,
}

/// A horizontal axis.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChartAxis {
    /// What stands under it.
    pub name: String,
    /// Where values lie on it.
    pub scale: ChartScale,
}

/// Where values lie on a horizontal axis.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChartScale {
    /// From 0 on.
    Linear,
    /// Of values above 0.
    Log,
    /// Training-set sizes: logarithmic where they span a factor of four. Lines are straight in the number of
    /// images, as the EMM is interpolated: bent where the axis is logarithmic.
    Images,
    /// x = 0, 1, … are these.
    Categories(Vec<String>),
}

/// Points that belong together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Series {
    /// Empty for the only one.
    pub name: String,
    /// How they are drawn.
    pub style: Style,
    /// In the order in which a line joins them.
    pub points: Vec<Point>,
    /// Where the line falls through the panel's level, in images.
    pub emm: Option<f64>,
    /// Others' values take the colour of the panel's series that they stand beside, counted from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beside: Option<usize>,
}

/// How a series is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Style {
    /// Marks on a line; intervals are a band.
    Line,
    /// Marks alone; intervals are bars.
    Marks,
    /// Others' values, to compare with: a thin dashed line and crosses.
    Theirs,
}

/// One value of a series.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Point {
    /// In the axis's unit; of categories the index.
    pub x: f64,
    /// A share, 0 to 1, or what [`Panel::values`] says.
    pub y: f64,
    /// 95% interval, or the spread that the footer names.
    pub interval: Option<[f64; 2]>,
    /// Longer training would give more: drawn as an open mark.
    pub rising: bool,
}

impl Series {
    /// A series without an EMM.
    pub fn new(name: impl Into<String>, style: Style, points: Vec<Point>) -> Self {
        Series { name: name.into(), style, points, emm: None, beside: None }
    }

    /// The points on both sides of [`Series::emm`], as far as there are any.
    pub fn around_emm(&self) -> [Option<&Point>; 2] {
        let Some(emm) = self.emm else { return [None; 2] };
        let left = self.points.iter().filter(|p| p.x <= emm);
        let right = self.points.iter().filter(|p| p.x > emm);
        [left.max_by(|a, b| a.x.total_cmp(&b.x)), right.min_by(|a, b| a.x.total_cmp(&b.x))]
    }

    /// Whether a point beside [`Series::emm`] is rising: then it is a lower bound.
    pub fn emm_at_least(&self) -> bool {
        self.around_emm().into_iter().flatten().any(|p| p.rising)
    }
}

impl Point {
    /// A value without more said about it.
    pub fn new(x: f64, y: f64) -> Self {
        Point { x, y, interval: None, rising: false }
    }
}

/// The word for it on vertical axes that have no other.
pub const RATIO: &str = "ratio of memorization";
/// And on the horizontal one of curves over training.
pub const EPOCHS: &str = "epochs";
/// And of ratios against sizes.
pub const SIZES: &str = "training images";

impl Panel {
    /// A panel from 0 to 100%.
    pub fn new(title: &str, x_name: &str, scale: ChartScale, series: Vec<Series>) -> Self {
        let x = ChartAxis { name: x_name.into(), scale };
        Panel { title: title.into(), x, y: [0.0, 1.0], values: None, level: None, series }
    }

    /// The same with shares of something else.
    pub fn shares_of(mut self, name: &str) -> Self {
        self.values = Some(ValueAxis { name: name.into(), scale: ValueScale::Shares });
        self
    }

    /// The same with numbers above 0 on a logarithmic vertical axis, `room` times beyond those of the first `shown` series on
    /// both sides. Values further out lie at its ends.
    pub fn log_values(mut self, name: &str, shown: usize, room: f64) -> Self {
        self.values = Some(ValueAxis { name: name.into(), scale: ValueScale::Log });
        let values = self.series.iter().take(shown).flat_map(|s| &s.points).map(|p| p.y);
        let (low, high) = values
            .filter(|v| v.is_finite() && *v > 0.0)
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
        if low <= high {
            self.y = [low / room, high * room];
        }
        self
    }

    /// Whether the vertical axis is logarithmic.
    pub fn is_log(&self) -> bool {
        self.values.as_ref().is_some_and(|v| v.scale == ValueScale::Log)
    }

    /// Ratio against training-set size with the line 1 − ε.
    pub fn sizes(title: &str, epsilon: f64, series: Vec<Series>) -> Self {
        let level = Some(1.0 - epsilon);
        Panel { level, ..Panel::new(title, SIZES, ChartScale::Images, series) }
    }

    /// Ratio over training, a line a (name, [(epoch, ratio)]).
    pub fn epochs(title: &str, lines: Vec<(String, Vec<(f64, f64)>)>) -> Self {
        let series = |(name, curve): (String, Vec<(f64, f64)>)| {
            let points = curve.into_iter().map(|(e, r)| Point::new(e, r)).collect();
            Series::new(name, Style::Line, points)
        };
        Panel::new(title, EPOCHS, ChartScale::Linear, lines.into_iter().map(series).collect())
    }

    /// The vertical axis around what is shown, for values too close to be told apart from 0 to 100%.
    pub fn zoomed(mut self) -> Self {
        let points = self.series.iter().flat_map(|s| &s.points);
        let values = points.flat_map(|p| p.interval.unwrap_or([p.y; 2])).filter(|v| v.is_finite());
        let (low, high) =
            values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
        if low <= high {
            let margin = (0.08 * (high - low)).max(0.002);
            self.y = [(low - margin).max(0.0), (high + margin).min(1.0)];
        }
        self
    }
}

impl Chart {
    /// A chart of one panel.
    pub fn of(title: &str, panel: Panel) -> Self {
        Chart { title: title.into(), panels: vec![panel], footer: Vec::new() }
    }

    /// One row a point.
    pub fn table(&self) -> Table {
        let columns = ["panel", "series", "x", "ratio", "low", "high", "rising"];
        let mut table = Table::new(&columns);
        for panel in &self.panels {
            let mut all = panel.series.iter().flat_map(|s| &s.points);
            let decimals = if all.all(|p| p.x.fract() == 0.0) { 0 } else { 4 };
            for series in &panel.series {
                for p in &series.points {
                    let end = |i: usize| p.interval.map_or(Cell::Empty, |v| Cell::Number(v[i], 4));
                    table.row(vec![
                        Cell::Text(panel.title.clone()),
                        Cell::Text(series.name.clone()),
                        match &panel.x.scale {
                            ChartScale::Categories(names) => {
                                Cell::Text(category(names, p.x).into())
                            }
                            _ => Cell::Number(p.x, decimals),
                        },
                        Cell::Number(p.y, 4),
                        end(0),
                        end(1),
                        Cell::Text(if p.rising { "yes" } else { "no" }.into()),
                    ]);
                }
            }
        }
        table
    }
}

/// The name of category `x`.
pub fn category(names: &[String], x: f64) -> &str {
    names.get(x.round().max(0.0) as usize).map_or("?", String::as_str)
}
