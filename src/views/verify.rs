//! What `emm verify` found: a table, lines and the part of a page.

use crate::report::{Cell, PagePart, Table};
use crate::study::verify::{Certificate, Checked, Verdict};

/// One row a run that was looked at.
pub fn table(certificate: &Certificate) -> Table {
    let mut table = Table::new(&["run", "images", "steps", "of", "tensors", "rows", "verdict"]);
    for cell in &certificate.cells {
        let v = &cell.verified;
        table.row(vec![
            Cell::Text(cell.run.clone()),
            Cell::Integer(cell.images as i64),
            Cell::Integer(v.steps as i64),
            Cell::Integer(cell.of_steps as i64),
            Cell::Integer(v.tensors as i64),
            Cell::Integer(v.rows as i64),
            Cell::Text(verdict(cell.verdict).into()),
        ]);
    }
    table
}

fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Same => "the same bits",
        Verdict::Differs => "differs",
        Verdict::NotCompared => "not compared",
        Verdict::Damaged => "damaged",
    }
}

/// What differs, is damaged or was not compared, a line each.
pub fn notes(certificate: &Certificate) -> Vec<String> {
    let note = |cell: &Checked| match (&cell.verified.difference, &cell.why) {
        (Some(difference), _) => Some(format!("{}: {}", cell.run, difference.said())),
        (None, Some(why)) => Some(format!("{}: {why}", cell.run)),
        _ => None,
    };
    certificate.cells.iter().filter_map(note).collect()
}

/// The part of a page.
pub fn parts(certificate: &Certificate) -> Vec<PagePart> {
    let c = certificate;
    let same = c.cells.iter().filter(|cell| cell.verdict == Verdict::Same).count();
    let facts = vec![
        (
            "trained again".to_string(),
            format!("{} of {} runs of {}; {same} gave the same bits", c.cells.len(), c.runs, c.of),
        ),
        ("on".into(), format!("{}, by a {}", c.date, c.processor)),
        ("program".into(), format!("emm {}, SHA-256 {}", c.emm, c.binary_sha256)),
    ];
    let mut parts = vec![PagePart::Facts(facts), PagePart::Table(table(c))];
    parts.extend(notes(c).into_iter().map(PagePart::Text));
    parts
}
