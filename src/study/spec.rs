//! A study: which settings vary, over which values, and what the paper printed. Declared in TOML; those of the paper
//! are shipped in the binary (`src/study/files`), a user's own is read from a file.
//!
//! ```toml
//! name = "width"
//! title = "Width of the network"
//! source = "Gu et al. 2023, Figure 3a"
//! note = "sizes are ours"              # optional: what the paper does not say
//!
//! [settings]                           # optional: over the basic setup, for every cell; keys as in `settings.rs`
//! labels = "none"
//!
//! [[axis]]                             # the cells are all combinations of the axes' values
//! name = "width"
//! title = "Model channels"
//! key = "channels"                     # each value is this key's …
//! values = [128, 192, 256, 320]
//!
//! [[axis]]
//! name = "labels"
//! values = [                           # … or a name and any keys
//!   { name = "none", labels = "none" },
//!   { name = "10 random classes", labels = "random:10" },
//! ]
//!
//! [[without]]                          # optional: combinations that are no cells, by the values' names
//! labels = ["10 random classes"]
//! width = ["256", "320"]
//!
//! [paper]                              # optional: printed values, nested in the order of the axes; nan where none is
//! percent = [[92.09, 90.0], [60.93, 80.0]]
//! plotted = [[nan, nan], [nan, 81]]    # optional: where none is printed, about what a plot shows
//! emm = [1000, 4000]                   # over the axes other than `size`
//!
//! [[table]]                            # optional: which table this study is (a part of)
//! id = "1"
//! columns = "batch"                    # all other axes make its rows
//!
//! [[figure]]                           # optional: which figure, and how its axes are laid out
//! id = "3a"
//! x = "size"                           # an axis, or "epochs" for curves over training
//! lines = "width"                      # one line a value of this axis
//! only = { labels = ["none"] }         # optional: of these axes only these values (by name)
//! draw = "marks"                       # optional: "marks" side by side, which no line joins; "bootstrap": a panel a
//!                                      # cell, what fewer generated images would say; else "lines"
//! scale = "log"                        # optional: of a numeric axis; else sizes lie as they do, other values side by side
//!
//! [[sheet]]                            # optional: samples beside their nearest training images
//! id = "1b"
//! of = "runs"                          # of each cell's first run, or of the "optimum" of the first cell's images
//! only = { size = ["50000"] }          # optional, as a figure's
//! ```
//!
//! A value of a figure of marks may also say its `series`, and its `place` on the axis where several share one; a number is
//! a resolution, of images that have 32.

use super::names::unknown;
use super::settings::{Overrides, Settings};
use crate::error::usage;
use anyhow::Result;
use serde::Deserialize;
use std::collections::BTreeMap;

/// One experiment.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
pub struct Study {
    pub name: String,
    /// What a command calls it: its name if it is shipped, else the path of its file.
    #[serde(skip)]
    pub called: String,
    pub title: String,
    /// Where in the paper; a user's study may have none.
    #[serde(default)]
    pub source: String,
    /// What the paper does not say and is chosen here.
    #[serde(default)]
    pub note: String,
    /// Settings of every cell.
    #[serde(default)]
    pub settings: Overrides,
    #[serde(skip)]
    pub axes: Vec<Axis>,
    /// Combinations that are no cells.
    #[serde(default)]
    pub without: Vec<Held>,
    #[serde(skip)]
    pub paper: Paper,
    #[serde(default, rename = "table")]
    pub tables: Vec<TableSpec>,
    #[serde(default, rename = "figure")]
    pub figures: Vec<FigureSpec>,
    #[serde(default, rename = "sheet")]
    pub sheets: Vec<SheetSpec>,
    /// The file as it was read.
    #[serde(skip)]
    pub text: String,
}

/// Values, by name, of some axes.
pub type Held = BTreeMap<String, Vec<String>>;

/// What varies.
#[derive(Debug, Clone, PartialEq)]
pub struct Axis {
    pub name: String,
    pub title: String,
    /// The one key that its values set, if they are plain values.
    pub key: Option<String>,
    pub values: Vec<AxisValue>,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct AxisValue {
    /// At the paper's scale.
    pub name: String,
    pub settings: Overrides,
    /// Among marks: the series that it is of, and where it stands.
    pub series: Option<String>,
    pub place: Option<String>,
}

/// What the paper printed; empty where it did not.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Paper {
    /// Percent memorized of each cell, in the order of [`Study::cells`]; NaN where none is printed.
    pub percent: Vec<f64>,
    /// About what a plot of the paper's shows of each cell, likewise.
    pub plotted: Vec<f64>,
    /// EMM for each combination of the axes other than `size`, in order; NaN where none is known.
    pub emm: Vec<f64>,
}

/// Of which table a study is the contents.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableSpec {
    pub id: String,
    /// The axis whose values are its columns; all others make its rows.
    pub columns: String,
}

/// Which figure a study's cells are drawn in, and how.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FigureSpec {
    pub id: String,
    /// An axis, or `epochs`: the curve of each run.
    pub x: String,
    /// One line for each value of this axis.
    #[serde(default)]
    pub lines: Option<String>,
    /// What other axes are held at.
    #[serde(default)]
    pub only: Held,
    #[serde(default)]
    pub draw: Draw,
    /// A numeric axis is logarithmic.
    #[serde(default)]
    pub scale: Option<AxisScale>,
}

/// What stands for a figure's cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Draw {
    #[default]
    Lines,
    Marks,
    /// A panel a cell: the ratio's spread against the number of generated images.
    Bootstrap,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AxisScale {
    Log,
}

/// Which sheet a study's cells are drawn in.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SheetSpec {
    pub id: String,
    pub of: Samples,
    #[serde(default)]
    pub only: Held,
}

/// Whose samples a sheet shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Samples {
    /// The theoretical optimum's, of the first cell's images.
    Optimum,
    /// Of each cell's first run.
    Runs,
}

impl Study {
    /// That of a search for the EMM: sizes of one setting.
    pub(super) fn of_sizes(sizes: &[usize]) -> Study {
        let value = |n: &usize| AxisValue { name: n.to_string(), ..AxisValue::default() };
        let size = Axis {
            name: "size".into(),
            title: "Training images".into(),
            key: Some("size".into()),
            values: sizes.iter().map(value).collect(),
        };
        Study { name: "find".into(), axes: vec![size], ..Study::default() }
    }

    /// That tables, figures and what is left out name axes and values that are there.
    pub(super) fn check_names(&self, file: &str) -> Result<()> {
        let names = || self.axes.iter().map(|a| a.name.as_str());
        let axis = |name: &str, what: String| match self.axis(name) {
            Some(axis) => Ok(axis),
            None => Err(usage(format!("{file}: {what}: {}", unknown("axis", name, names())))),
        };
        let held = |held: &Held, what: String| {
            for (name, values) in held {
                let axis = axis(name, what.clone())?;
                for value in values {
                    axis.value(value).map_err(|e| usage(format!("{file}: {what}: {e}")))?;
                }
            }
            anyhow::Ok(())
        };
        for without in &self.without {
            held(without, "without".into())?;
        }
        for table in &self.tables {
            axis(&table.columns, format!("table {}", table.id))?;
        }
        for figure in &self.figures {
            let what = || format!("figure {}", figure.id);
            let wrong = |why: String| usage(format!("{file}: {}: {why}", what()));
            if figure.x != "epochs" {
                let x = axis(&figure.x, what())?;
                let number = |v: &&AxisValue| v.name.parse().is_ok_and(|n: f64| n > 0.0);
                let other = x.values.iter().find(|v| !number(v));
                if let (Some(AxisScale::Log), Some(AxisValue { name, .. })) = (figure.scale, other)
                {
                    return Err(wrong(format!("scale: log, but {name:?} is no number above 0")));
                }
            } else if figure.draw != Draw::Lines {
                return Err(wrong("draw: over epochs there are only lines".into()));
            }
            if let Some(name) = &figure.lines {
                axis(name, what())?;
            }
            held(&figure.only, what())?;
        }
        for sheet in &self.sheets {
            held(&sheet.only, format!("sheet {}", sheet.id))?;
        }
        Ok(())
    }

    /// Title, and where in the paper.
    pub fn heading(&self) -> String {
        match self.source.as_str() {
            "" => self.title.clone(),
            source => format!("{} ({source})", self.title),
        }
    }

    pub fn axis(&self, name: &str) -> Option<&Axis> {
        self.axes.iter().find(|a| a.name == name)
    }

    /// All combinations of the axes' values but [`Study::without`], the last axis fastest: for each axis the index of
    /// its value.
    pub fn cells(&self) -> Vec<Vec<usize>> {
        let mut all = self.combinations();
        all.retain(|at| self.is_cell(at));
        all
    }

    pub(super) fn is_cell(&self, at: &[usize]) -> bool {
        let is = |(name, values): (&String, &Vec<String>)| {
            let mut axes = self.axes.iter().zip(at);
            axes.any(|(axis, &v)| axis.name == *name && values.contains(&axis.values[v].name))
        };
        !self.without.iter().any(|without| without.iter().all(is))
    }

    pub(super) fn combinations(&self) -> Vec<Vec<usize>> {
        self.axes.iter().fold(vec![vec![]], |cells, axis| {
            let values = 0..axis.values.len();
            let more =
                cells.iter().flat_map(|c| values.clone().map(move |v| [&c[..], &[v]].concat()));
            more.collect()
        })
    }

    /// Settings of a cell: the study's, then each axis' in order.
    ///
    /// # Errors
    /// Usage, which begins with what the study was called by: settings that do not go together.
    pub fn settings_of(&self, cell: &[usize]) -> Result<Settings> {
        let mut all = self.settings.clone();
        for (axis, &value) in self.axes.iter().zip(cell) {
            all.extend(axis.values[value].settings.clone());
        }
        Settings::read(&all, &self.called)
    }
}

impl Axis {
    /// Index of the value of this name.
    ///
    /// # Errors
    /// Usage, with the nearest known name.
    pub fn value(&self, name: &str) -> Result<usize> {
        let found = self.values.iter().position(|v| v.name == name);
        found.ok_or_else(|| {
            let names = self.values.iter().map(|v| v.name.as_str());
            usage(unknown(&format!("value of {}", self.name), name, names))
        })
    }
}
