//! Tables, for reading (Markdown, plain text) and for other programs (CSV, JSON rows).

use super::scene::escape;
use serde_json::{Map, Value};

/// One cell.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// Nothing: no word in Markdown and CSV, null in JSON.
    Empty,
    /// Words, escaped as a format needs it.
    Text(String),
    /// A count.
    Integer(i64),
    /// A number and the decimals people see; CSV and JSON hold all of it.
    Number(f64, usize),
    /// A share in 0..1 that people see in percent with this many decimals.
    Percent(f64, usize),
}

impl Cell {
    /// An integer or number as written, else text; nothing for no text.
    pub fn of_text(text: &str) -> Cell {
        if let Ok(i) = text.parse() {
            return Cell::Integer(i);
        }
        let decimals = text.split_once('.').map_or(0, |(_, d)| d.len());
        match text.parse::<f64>() {
            _ if text.is_empty() => Cell::Empty,
            // Written as people see it; 1e-4 stays text.
            Ok(x) if x.is_finite() && format!("{x:.decimals$}") == text => {
                Cell::Number(x, decimals)
            }
            _ => Cell::Text(text.into()),
        }
    }

    fn shown(&self) -> String {
        match *self {
            Cell::Empty => String::new(),
            Cell::Text(ref t) => t.clone(),
            Cell::Integer(i) => i.to_string(),
            Cell::Number(x, decimals) => rounded(x, decimals),
            Cell::Percent(x, decimals) => rounded(100.0 * x, decimals) + "%",
        }
    }

    fn exact(&self) -> String {
        match *self {
            // Nobody reads −0.
            Cell::Number(x, _) | Cell::Percent(x, _) => (x + 0.0).to_string(),
            _ => self.shown(),
        }
    }

    fn json(&self) -> Value {
        match *self {
            Cell::Empty => Value::Null,
            Cell::Text(ref t) => t.as_str().into(),
            Cell::Integer(i) => i.into(),
            // What is no number becomes null.
            Cell::Number(x, _) | Cell::Percent(x, _) => (x + 0.0).into(),
        }
    }
}

/// A number as people see it; what rounds to nothing has no sign.
fn rounded(x: f64, decimals: usize) -> String {
    let text = format!("{x:.decimals$}");
    let digits = text.strip_prefix('-').filter(|digits| digits.chars().all(|c| "0.".contains(c)));
    digits.map_or(text.clone(), String::from)
}

/// Named columns and rows of as many cells.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    columns: Vec<String>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table without rows.
    pub fn new(columns: &[&str]) -> Self {
        Table { columns: columns.iter().map(|c| c.to_string()).collect(), rows: Vec::new() }
    }

    /// # Panics
    /// If the row has another number of cells than there are columns.
    pub fn row(&mut self, cells: Vec<Cell>) {
        assert_eq!(cells.len(), self.columns.len(), "table: one cell per column");
        self.rows.push(cells);
    }

    /// Reads what [`Table::csv`] writes; `None` if it is no table: no header, quotes without an end, rows of
    /// another length.
    pub fn from_csv(text: &str) -> Option<Table> {
        if !text.matches('"').count().is_multiple_of(2) {
            return None;
        }
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        let columns: Vec<String> = reader.headers().ok()?.iter().map(String::from).collect();
        columns.iter().find(|name| !name.is_empty())?;
        let row = |row: csv::Result<csv::StringRecord>| {
            row.ok().map(|row| row.iter().map(Cell::of_text).collect())
        };
        Some(Table { columns, rows: reader.records().map(row).collect::<Option<_>>()? })
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Its first rows, so many at most.
    pub fn first(&self, rows: usize) -> Table {
        let rows = self.rows.iter().take(rows).cloned().collect();
        Table { columns: self.columns.clone(), rows }
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// GitHub's Markdown, columns of numbers aligned right.
    pub fn markdown(&self) -> String {
        let escape = |cell: String| cell.replace('|', "\\|");
        let columns = self.columns.iter().cloned().map(escape).collect();
        let shown = |row: &Vec<Cell>| row.iter().map(|c| escape(c.shown())).collect();
        let rows: Vec<Vec<String>> = self.rows.iter().map(shown).collect();
        let widths = widths(&columns, &rows, 3);
        let line =
            |cells: &Vec<String>| format!("| {} |\n", self.aligned(cells, &widths).join(" | "));
        let mut out = line(&columns);
        let rule = (0..columns.len()).map(|c| match self.is_numeric(c) {
            true => format!("{}:", "-".repeat(widths[c] - 1)),
            false => "-".repeat(widths[c]),
        });
        out += &format!("| {} |\n", rule.collect::<Vec<_>>().join(" | "));
        rows.iter().for_each(|r| out += &line(r));
        out
    }

    /// A LaTeX tabular.
    pub fn latex(&self) -> String {
        let columns: String =
            (0..self.columns.len()).map(|c| if self.is_numeric(c) { 'r' } else { 'l' }).collect();
        let line = |cells: Vec<String>| {
            let cells: Vec<_> = cells.iter().map(|c| latex_escaped(c)).collect();
            format!("{} \\\\\n", cells.join(" & "))
        };
        let rows = self.rows.iter().map(|r| line(r.iter().map(Cell::shown).collect()));
        let (head, rows) = (line(self.columns.clone()), rows.collect::<String>());
        format!(
            "\\begin{{tabular}}{{{columns}}}\n\\hline\n{head}\\hline\n{rows}\\hline\n\\end{{tabular}}\n"
        )
    }

    /// Aligned columns for a terminal.
    pub fn plain(&self) -> String {
        let shown = |row: &Vec<Cell>| row.iter().map(Cell::shown).collect();
        let rows: Vec<Vec<String>> = self.rows.iter().map(shown).collect();
        let widths = widths(&self.columns, &rows, 0);
        let mut out = String::new();
        for row in std::iter::once(&self.columns).chain(&rows) {
            out += self.aligned(row, &widths).join("  ").trim_end();
            out.push('\n');
        }
        out
    }

    /// RFC 4180 with a header, numbers in full.
    pub fn csv(&self) -> String {
        let mut writer = csv::Writer::from_writer(Vec::new());
        let rows = self.rows.iter().map(|row| row.iter().map(Cell::exact).collect());
        for row in std::iter::once(self.columns.clone()).chain(rows) {
            writer.write_record(row).expect("rows as long as the header, into memory");
        }
        let bytes = writer.into_inner().unwrap_or_default();
        String::from_utf8(bytes).expect("of strings")
    }

    /// A table element, everything escaped.
    pub fn html(&self) -> String {
        let class = |c: usize| if self.is_numeric(c) { " class=\"n\"" } else { "" };
        let row = |tag: &str, cells: Vec<String>| {
            let cells = cells
                .iter()
                .enumerate()
                .map(|(c, cell)| format!("<{tag}{}>{}</{tag}>", class(c), escape(cell)));
            format!("<tr>{}</tr>\n", cells.collect::<String>())
        };
        let head = row("th", self.columns.clone());
        let body = self.rows.iter().map(|r| row("td", r.iter().map(Cell::shown).collect()));
        format!(
            "<table>\n<thead>\n{head}</thead>\n<tbody>\n{}</tbody>\n</table>\n",
            body.collect::<String>()
        )
    }

    /// An array of one object a row.
    pub fn json(&self) -> Value {
        let object = |row: &Vec<Cell>| {
            let pairs = self.columns.iter().zip(row);
            Value::Object(pairs.map(|(k, c)| (k.clone(), c.json())).collect::<Map<_, _>>())
        };
        self.rows.iter().map(object).collect()
    }

    /// Whether a column holds numbers only.
    fn is_numeric(&self, column: usize) -> bool {
        self.rows.iter().all(|r| !matches!(r[column], Cell::Text(_)))
    }

    fn aligned(&self, cells: &[String], widths: &[usize]) -> Vec<String> {
        let pad = |(c, cell): (usize, &String)| match self.is_numeric(c) {
            true => format!("{cell:>width$}", width = widths[c]),
            false => format!("{cell:<width$}", width = widths[c]),
        };
        cells.iter().enumerate().map(pad).collect()
    }
}

fn latex_escaped(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '&' | '%' | '$' | '#' | '_' | '{' | '}' => out.extend(['\\', c]),
            '\\' => out += "\\textbackslash{}",
            '~' => out += "\\textasciitilde{}",
            '^' => out += "\\textasciicircum{}",
            '–' => out += "--",
            '−' => out += "$-$",
            '×' => out += "$\\times$",
            '↑' => out += "$\\uparrow$",
            c => out.push(c),
        }
    }
    out
}

fn widths(columns: &Vec<String>, rows: &[Vec<String>], least: usize) -> Vec<usize> {
    let width = |c: usize| {
        let cells = std::iter::once(columns).chain(rows).map(|r| r[c].chars().count());
        cells.max().unwrap_or(0).max(least)
    };
    (0..columns.len()).map(width).collect()
}
