//! A chart as a picture, or as what a file holds.

use super::canvas::tree_of;
use super::chart::{Chart, Panel};
use super::layout::{describe_lines, panel_scene, scene};
use super::pdf::pdf;
use crate::error::usage;
use crate::files::write_bytes;
use anyhow::Result;
use std::path::Path;

impl Chart {
    /// Writes `.png`, `.svg` or `.pdf`, the values as `.csv`, or all of it as `.json`.
    ///
    /// # Errors
    /// Usage for another extension; as [`write_bytes`].
    pub fn save(&self, path: &Path, force: bool) -> Result<()> {
        let bytes = match path.extension().and_then(|e| e.to_str()) {
            Some("png") => self.png()?,
            Some("svg") => self.svg().into_bytes(),
            Some("pdf") => self.pdf()?,
            Some("csv") => self.table().csv().into_bytes(),
            Some("json") => format!("{}\n", serde_json::to_string_pretty(self)?).into_bytes(),
            _ => {
                let path = path.display();
                return Err(usage(format!("{path}: a chart is .png, .svg, .pdf, .csv or .json")));
            }
        };
        write_bytes(path, force, &bytes)
    }

    /// What stands below the panels: the footer, and how lines are to be read.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = self.footer.clone();
        for line in describe_lines(&self.panels) {
            if !notes.contains(&line) {
                notes.push(line);
            }
        }
        notes
    }

    /// Twice as many pixels as the SVG has units.
    pub fn png(&self) -> Result<Vec<u8>> {
        scene(self).drawn(2)?.png()
    }

    /// As the SVG, on a page of its size.
    pub fn pdf(&self) -> Result<Vec<u8>> {
        pdf(&tree_of(&self.svg())?)
    }

    /// All panels, two a row.
    pub fn svg(&self) -> String {
        scene(self).svg(&self.title)
    }

    /// Each panel by itself, for pages that are narrower than two.
    pub fn panel_svgs(&self) -> Vec<String> {
        let title =
            |p: &Panel| if p.title.is_empty() { self.title.clone() } else { p.title.clone() };
        self.panels.iter().map(|p| panel_scene(p).svg(&title(p))).collect()
    }
}
