//! An audit's answer: lines, tables, charts, sheets and the page of them.

use super::words::percent;
use crate::memorization::audit::{self, Kind};
use crate::report::{
    Cell, Chart, ChartScale, Compared, Page, PagePart, Panel, Point, Section, Series, Sheet,
    SheetOf, Style, Table, sheets,
};
use crate::run::audit::{Audit, Copy};
use anyhow::Result;
use serde_json::{Value, json};
use std::collections::HashMap;

/// Steps of the curve of thresholds from 0 to 1: 1/3 is one of them.
const STEPS: u32 = 300;
/// Copies on a sheet, training images on another, and copies beside each of these.
const SHEET_ROWS: usize = 48;
const COPIED_ROWS: usize = 24;
const COPIES: usize = 5;
/// Rows of a table on the page.
const PAGE_ROWS: usize = 50;

/// Names of what is audited, as they were given.
pub struct Names {
    pub samples: String,
    pub train: String,
    pub holdout: Option<String>,
    /// As it was typed, such as `1/3`.
    pub threshold: String,
}

/// All that an audit says, to be drawn and written.
pub struct AuditView<'a> {
    pub audit: &'a Audit<'a>,
    pub names: &'a Names,
}

impl AuditView<'_> {
    /// As `emm audit --json` prints it.
    pub fn json(&self) -> Value {
        let (a, s) = (self.audit, &self.audit.score);
        let distinct = a.memorized_distinct();
        json!({
            "images": s.images,
            "memorized": s.memorized,
            "ratio": s.ratio,
            "interval": s.interval,
            "memorized_distinct": distinct,
            "ratio_distinct": distinct.map(|n| n as f64 / s.images as f64),
            "mirrored": a.only_mirrored(),
            "spurious": a.count(Kind::Spurious),
            "novel": a.count(Kind::Novel),
            "train_images": s.reference_images,
            "train_duplicates": s.reference_duplicates,
            "train_near_duplicates": a.near_duplicates().map(|near| near.len()),
            "copied_images": a.copied_images(),
            "copied_share": a.copied_images() as f64 / s.reference_images as f64,
            "holdout_images": a.holdout,
            "holdout_in_train": a.holdout_in_train,
            "auth_pct": a.auth_pct,
            "c_t": a.c_t,
            "mean_d1": s.mean_d1,
            "duplicate_ties": s.duplicate_ties,
            "threshold": self.names.threshold,
        })
    }

    /// Names and values, one a line.
    pub fn facts(&self) -> Vec<(String, String)> {
        let (a, s) = (self.audit, &self.audit.score);
        let of =
            |n: usize| format!("{n} of {} ({})", s.images, percent(n as f64 / s.images as f64));
        let [low, high] = s.interval.map(percent);
        let mut facts = vec![(
            "copies".into(),
            format!("{}, 95% interval {low} to {high}", of(s.memorized as usize)),
        )];
        let mut say = |name: &str, value: String| facts.push((name.to_string(), value));
        if s.reference_duplicates > 0 || a.options.mirror {
            let counted = match (s.reference_duplicates > 0, a.options.mirror) {
                (true, true) => "identical training images once, mirror images too",
                (true, false) => "identical training images once",
                _ => "mirror images too",
            };
            let value = a
                .memorized_distinct()
                .map_or("none can be told, all training images are equal".into(), |n| {
                    of(n as usize)
                });
            say(&format!("copies, counting {counted}"), value);
        }
        if let Some(n) = a.only_mirrored() {
            say("of these only mirrored", n.to_string());
        }
        say("spurious: no copy, but like another sample", of(a.count(Kind::Spurious)));
        say("novel", of(a.count(Kind::Novel)));
        let share = a.copied_images() as f64 / s.reference_images as f64;
        say(
            "training images that are copied",
            format!("{} of {} ({})", a.copied_images(), s.reference_images, percent(share)),
        );
        if let Some((image, samples)) = a.most_copied().first() {
            say(
                "the most copied",
                format!("{}, by {} samples", a.training.name(*image), samples.len()),
            );
        }
        say("training images that repeat an earlier one", s.reference_duplicates.to_string());
        match a.near_duplicates() {
            Some(near) => {
                say("training images near another one, by the same rule", near.len().to_string())
            }
            None => say("training images near another one", "not looked for (--near)".into()),
        }
        if let Some(share) = a.auth_pct {
            say(
                "AuthPct: farther from their nearest training image than it from its nearest other",
                percent(share),
            );
        }
        if let Some(z) = a.c_t {
            say(
                "C_T: distance to the training set beside held-out images, in deviations; below −2: nearer",
                format!("{z:.2}"),
            );
        }
        say("mean distance to the nearest training image", format!("{:.2} grey levels", s.mean_d1));
        facts
    }

    /// What a reader must know before believing the numbers.
    pub fn warnings(&self) -> Vec<String> {
        let (a, s) = (self.audit, &self.audit.score);
        let mut said = Vec::new();
        if a.repeats_matter() {
            let then = match s.memorized_distinct {
                Some(_) => "believe the number that counts identical ones once",
                None => "all are equal, so that nothing can be told to be a copy",
            };
            said.push(format!(
                "{} training images repeat an earlier one, which hides copies of them by the paper's rule: {then}",
                s.reference_duplicates
            ));
        }
        // All samples nearer than all held-out images: the least that there can be.
        let (m, n) = (s.images as f64, a.holdout.unwrap_or(0) as f64);
        if a.holdout.is_some() && (3.0 * m * n / (m + n + 1.0)).sqrt() < 2.0 {
            said.push("too few samples or held-out images for C_T to fall below -2".into());
        }
        if let (Some(n @ 1..), Some(of)) = (a.holdout_in_train, a.holdout) {
            said.push(format!(
                "{n} of {of} held-out images are in the training set: leave them out of --holdout, they raise C_T"
            ));
        }
        said
    }

    /// Each copy, the clearest first.
    pub fn copies(&self) -> Table {
        let a = self.audit;
        let mut table = Table::new(&[
            "sample",
            "sample_name",
            "image",
            "image_name",
            "d1",
            "d2",
            "d1/d2",
            "mirrored",
        ]);
        for copy in a.copies() {
            let ([d1, d2], image) = (copy.distances(), copy.nearest.index[0] as usize);
            table.row(vec![
                Cell::Integer(copy.sample as i64),
                Cell::Text(a.samples.name(copy.sample)),
                Cell::Integer(image as i64),
                Cell::Text(a.training.name(image)),
                Cell::Number(d1, 3),
                Cell::Number(d2, 3),
                Cell::Number(copy.ratio(), 5),
                Cell::Text(if copy.mirrored { "yes" } else { "no" }.into()),
            ]);
        }
        table
    }

    /// Each sample and what it is; of a copy what it copies, d2 from the nearest that differs from that.
    pub fn samples(&self) -> Table {
        let a = self.audit;
        let columns =
            ["sample", "sample_name", "kind", "image", "image_name", "d1", "d2", "mirrored"];
        let mut table = Table::new(&columns);
        let mut copies: HashMap<usize, Copy> = HashMap::new();
        copies.extend(a.copies().into_iter().map(|copy| (copy.sample, copy)));
        for (i, (n, kind)) in a.found.iter().zip(&a.kinds).enumerate() {
            let own = Copy { sample: i, nearest: *n, mirrored: false };
            let shown = copies.get(&i).unwrap_or(&own);
            let ([d1, d2], image) = (shown.distances(), shown.nearest.index[0] as usize);
            table.row(vec![
                Cell::Integer(i as i64),
                Cell::Text(a.samples.name(i)),
                Cell::Text(name_of(*kind).into()),
                Cell::Integer(image as i64),
                Cell::Text(a.training.name(image)),
                Cell::Number(d1, 3),
                if d2.is_finite() { Cell::Number(d2, 3) } else { Cell::Empty },
                Cell::Text(if shown.mirrored { "yes" } else { "no" }.into()),
            ]);
        }
        table
    }

    /// Each copied training image, the most copied first.
    pub fn copied(&self) -> Table {
        let a = self.audit;
        let mut table = Table::new(&["image", "image_name", "copies"]);
        for (image, samples) in a.most_copied() {
            let cells = [Cell::Integer(image as i64), Cell::Text(a.training.name(image))];
            table.row(cells.into_iter().chain([Cell::Integer(samples.len() as i64)]).collect());
        }
        table
    }

    /// Training images that repeat another one, exactly or nearly; none where the audit does not know them.
    pub fn duplicates(&self) -> Option<Table> {
        let (a, within) = (self.audit, self.audit.within.as_ref()?);
        let mut table = Table::new(&["image", "image_name", "of", "of_name", "kind", "d1", "d2"]);
        let mut row = |image: usize, of: usize, kind: &str, d: [Cell; 2]| {
            let [d1, d2] = d;
            let named = |i: usize| [Cell::Integer(i as i64), Cell::Text(a.training.name(i))];
            let [image, image_name] = named(image);
            let [of, of_name] = named(of);
            table.row(vec![image, image_name, of, of_name, Cell::Text(kind.into()), d1, d2]);
        };
        for image in 0..a.training.len() {
            let first = within.first(image);
            if first != image {
                row(image, first, "exact", [Cell::Number(0.0, 3), Cell::Empty]);
            }
        }
        for (image, n) in a.near_duplicates().into_iter().flatten() {
            let d = n.squared.map(|squared| Cell::Number((squared as f64).sqrt(), 3));
            row(image, n.index[0] as usize, "near", d);
        }
        Some(table)
    }

    /// The ratio at every threshold, with the rule's marked.
    pub fn curve(&self) -> Chart {
        let (a, curve) = (self.audit, audit::curve(&self.audit.found, STEPS));
        let line = |k: usize| curve.iter().map(|(x, y)| Point::new(*x, y[k])).collect::<Vec<_>>();
        let mut series = vec![Series::new("as the paper defines it", Style::Line, line(0))];
        if a.score.reference_duplicates > 0 {
            series.push(Series::new("identical training images once", Style::Line, line(1)));
        }
        let rule = Point {
            interval: Some(a.score.interval),
            ..Point::new(a.options.threshold.value(), a.score.ratio)
        };
        series.push(Series::new(
            format!("the rule, {}", self.names.threshold),
            Style::Marks,
            vec![rule],
        ));
        let panel = Panel::new("", "threshold of d1/d2", ChartScale::Linear, series);
        let title = format!("Samples of {} whose d1/d2 lies below a threshold", self.names.samples);
        let of = format!(
            "{} samples, {} training images of {}",
            a.score.images, a.score.reference_images, self.names.train
        );
        Chart { footer: vec![of], ..Chart::of(&title, panel) }
    }

    /// Copies beside their training images, the clearest first, as a PNG; none where there are none.
    pub fn copies_sheet(&self) -> Result<Option<Vec<u8>>> {
        let (a, copies) = (self.audit, self.audit.copies());
        let shown = copies.iter().take(SHEET_ROWS).map(|copy| {
            let second = copy.nearest.distinct.map_or(copy.nearest.index[0], |d| d.index);
            let images = [copy.nearest.index[0], second].map(|i| a.training.image(i as usize));
            Compared {
                sample: a.samples.image(copy.sample),
                neighbours: images.to_vec(),
                distance_ratio: copy.ratio(),
                memorized: true,
            }
        });
        let title = match copies.len() {
            n if n > SHEET_ROWS => format!("The {SHEET_ROWS} clearest of {n} copies"),
            n => format!("All {n} copies, the clearest first"),
        };
        self.sheet(shown.collect(), title, SheetOf::Samples)
    }

    /// The most copied training images with samples that copy them, as a PNG; none where there are none.
    pub fn copied_sheet(&self) -> Result<Option<Vec<u8>>> {
        let (a, most) = (self.audit, self.audit.most_copied());
        let blank = vec![255; a.training.image_len()];
        let columns = most.first().map_or(0, |(_, samples)| samples.len().min(COPIES));
        let shown = most.iter().take(COPIED_ROWS).map(|(image, samples)| {
            let copies = samples.iter().map(|&s| a.samples.image(s as usize));
            let blanks = std::iter::repeat(&blank[..]);
            Compared {
                sample: a.training.image(*image),
                neighbours: copies.chain(blanks).take(columns).collect(),
                distance_ratio: samples.len() as f64,
                memorized: false,
            }
        });
        let title = format!("The most copied of {} copied training images", most.len());
        self.sheet(shown.collect(), title, SheetOf::Copied)
    }

    fn sheet(&self, samples: Vec<Compared>, title: String, of: SheetOf) -> Result<Option<Vec<u8>>> {
        if samples.is_empty() {
            return Ok(None);
        }
        let notes = vec![format!(
            "samples of {}, training images of {}",
            self.names.samples, self.names.train
        )];
        let (side, threshold) = (self.audit.training.resolution, self.names.threshold.clone());
        sheets(&[Sheet { samples, side, title, notes, threshold, of }]).map(Some)
    }

    /// All of it on one page. The sheets are those drawn before.
    pub fn page(&self, sheets: &[(&str, Vec<u8>)]) -> Page {
        let picture = |(name, png): &(&str, Vec<u8>)| PagePart::Picture {
            name: name.to_string(),
            png: png.clone(),
        };
        let mut answer: Vec<PagePart> = self.warnings().into_iter().map(PagePart::Text).collect();
        answer.push(PagePart::Facts(self.facts()));
        answer.push(PagePart::Chart(self.curve()));
        let section = |title: &str, parts| Section { title: title.into(), parts };
        let mut sections = vec![section("Answer", answer)];
        if !sheets.is_empty() {
            sections.push(section("Copies", sheets.iter().map(picture).collect()));
        }
        let (copies, copied) = (self.copies(), self.copied());
        let tables = [
            ("Copies, the clearest first", Some(copies)),
            ("Copied training images", Some(copied)),
            ("Training images that repeat others", self.duplicates()),
        ];
        let tables = tables.into_iter().filter_map(|(name, table)| Some((name, table?)));
        let folded = |(name, table): (&str, Table)| {
            let shown = table.first(PAGE_ROWS);
            let more = table.len() - shown.len();
            let mut parts = vec![PagePart::Table(shown)];
            if more > 0 {
                parts.push(PagePart::Text(format!("and {more} more, in the CSV file")));
            }
            PagePart::Folded(format!("{name} ({})", table.len()), parts)
        };
        let tables: Vec<_> = tables.filter(|(_, table)| !table.is_empty()).map(folded).collect();
        if !tables.is_empty() {
            sections.push(section("Lists", tables));
        }
        let mut lead = vec![format!(
            "A sample is a copy if it is less than {} times as far from its nearest training image as from the second nearest (L2 over 8-bit pixels; Gu et al. 2023, arXiv:2310.02664).",
            self.names.threshold
        )];
        lead.extend(self.names.holdout.iter().map(|h| format!("Held-out images: {h}.")));
        let title = format!("Audit of {} against {}", self.names.samples, self.names.train);
        Page { title, lead, sections }
    }
}

fn name_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Memorized => "memorized",
        Kind::Spurious => "spurious",
        Kind::Novel => "novel",
    }
}
