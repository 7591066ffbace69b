//! One self-contained HTML page: nothing is fetched, everything that comes from files is escaped.

use super::chart::Chart;
use super::scene::escape;
use super::table::Table;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::fmt::Write as _;

/// What a page says, in order.
pub struct Page {
    /// The heading, and the name of the browser's tab.
    pub title: String,
    /// What stands under the title.
    pub lead: Vec<String>,
    /// One below the other.
    pub sections: Vec<Section>,
}

/// What stands under one heading.
pub struct Section {
    /// The heading.
    pub title: String,
    /// One below the other.
    pub parts: Vec<PagePart>,
}

/// A piece of a page; text in it is plain and is escaped here.
pub enum PagePart {
    /// A paragraph.
    Text(String),
    /// Names and values.
    Facts(Vec<(String, String)>),
    /// Columns of numbers stand right.
    Table(Table),
    /// Drawn as SVG, a panel each, so that a phone shows them one below the other.
    Chart(Chart),
    /// A PNG inside the page, its name below.
    Picture {
        /// Shown below it, and read aloud.
        name: String,
        /// The whole file.
        png: Vec<u8>,
    },
    /// Closed until it is opened or printed.
    Folded(String, Vec<PagePart>),
}

/// Nothing may be loaded, whatever a file's text has tried to put in: pictures are data, style and script our own.
const POLICY: &str = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; \
                      script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";

impl Page {
    /// The whole file.
    pub fn html(&self) -> String {
        let title = escape(&self.title);
        let mut out = format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\n\
             <title>{title}</title>\n<style>\n{}</style>\n</head>\n<body>\n<main>\n<h1>{title}</h1>\n",
            include_str!("page.css")
        );
        for line in &self.lead {
            let _ = writeln!(out, "<p class=\"lead\">{}</p>", escape(line));
        }
        if self.sections.len() > 2 {
            out += "<nav>";
            for (i, section) in self.sections.iter().enumerate() {
                let _ = write!(out, "<a href=\"#s{i}\">{}</a> ", escape(&section.title));
            }
            out += "</nav>\n";
        }
        for (i, section) in self.sections.iter().enumerate() {
            let _ = writeln!(out, "<section id=\"s{i}\">\n<h2>{}</h2>", escape(&section.title));
            section.parts.iter().for_each(|p| write_part(&mut out, p));
            out += "</section>\n";
        }
        out + "</main>\n<div id=\"tip\" role=\"status\"></div>\n<script>\n"
            + include_str!("page.js")
            + "</script>\n</body>\n</html>\n"
    }
}

fn write_part(out: &mut String, part: &PagePart) {
    match part {
        PagePart::Text(text) => {
            let _ = writeln!(out, "<p>{}</p>", escape(text));
        }
        PagePart::Facts(facts) => {
            *out += "<dl>\n";
            for (name, value) in facts {
                let (name, value) = (escape(name), escape(value));
                let _ = writeln!(out, "<div><dt>{name}</dt><dd>{value}</dd></div>");
            }
            *out += "</dl>\n";
        }
        PagePart::Table(table) => {
            let _ = writeln!(out, "<div class=\"wide\">\n{}</div>", table.html());
        }
        PagePart::Chart(chart) => write_chart(out, chart),
        PagePart::Picture { name, png } => {
            let (name, data) = (escape(name), STANDARD.encode(png));
            let _ = writeln!(
                out,
                "<figure class=\"picture\"><img alt=\"{name}\" src=\"data:image/png;base64,{data}\">\
                 <figcaption>{name}</figcaption></figure>"
            );
        }
        PagePart::Folded(title, parts) => {
            let _ = writeln!(out, "<details>\n<summary>{}</summary>", escape(title));
            parts.iter().for_each(|p| write_part(out, p));
            *out += "</details>\n";
        }
    }
}

fn write_chart(out: &mut String, chart: &Chart) {
    let _ = writeln!(out, "<figure class=\"chart\">\n<h3>{}</h3>", escape(&chart.title));
    *out += "<div class=\"panels\">\n";
    chart.panel_svgs().iter().for_each(|svg| *out += svg);
    *out += "</div>\n";
    let notes = chart.notes();
    if !notes.is_empty() {
        let lines: Vec<String> = notes.iter().map(|f| escape(f)).collect();
        let _ = writeln!(out, "<figcaption>{}</figcaption>", lines.join("<br>"));
    }
    *out += "</figure>\n";
}
