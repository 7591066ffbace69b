//! Hugging Face's image sets in Parquet: a column `image` (or `img`) of structs with the file's `bytes` and `path`, and
//! labels as whole numbers. Own code: a library unpacks what a page says of its size before anybody asks whether there is
//! room, and gzip without end.
//!
//! Source: Apache Parquet's format, versions 1 and 2.

mod column;
mod thrift;

use super::input::map;
use super::open::Reader;
use super::source::{Place, Source, Store, StoredImages};
use crate::error::{OrExit as _, data};
use crate::memory::Budget;
use anyhow::{Result, anyhow, bail, ensure};
use column::{BYTE_ARRAY, Cell, INT32, INT64, Pages, Shape};
use std::path::{Path, PathBuf};
use thrift::{BYTES_PER_BYTE, Value, parse};

const MAGIC: &[u8] = b"PAR1";
/// Names that images and labels have, the first that is there counts.
const IMAGES: [&str; 2] = ["image", "img"];
const LABELS: [&str; 3] = ["label", "labels", "fine_label"];

pub const READER: Reader = Reader {
    what: "Parquet file",
    claims: |files| files.head.starts_with(MAGIC),
    open: |files| open(&files.paths, files.budget),
};

/// A column of the schema: its names from the root on.
struct Leaf<'a> {
    path: Vec<&'a str>,
    kind: i64,
    optional: u32,
    repeated: bool,
}

/// Images of several files and their labels, as they are added.
#[derive(Default)]
struct Rows {
    stores: Vec<Store>,
    places: Vec<Place>,
    names: Vec<String>,
    /// Whether an image has a name that is more than its row.
    named: bool,
    labels: Vec<u32>,
    /// Files without labels, and with them.
    unlabelled: Option<String>,
    labelled: Option<String>,
}

/// Opens files of one set, in the order given.
///
/// # Errors
/// Data errors that begin with the file: broken, without a column of images, rows without one, labels that are no class
/// index or missing in some files. Over the budget (exit 4).
fn open(paths: &[PathBuf], budget: &Budget) -> Result<Source> {
    let mut rows = Rows::default();
    for path in paths {
        read_file(path, budget, &mut rows)?;
    }
    let name = paths[0].display().to_string();
    if rows.places.is_empty() {
        return Err(data(format!("{name}: holds no images")));
    }
    if let (Some(without), Some(with)) = (&rows.unlabelled, &rows.labelled) {
        return Err(data(format!("{without}: has no labels, {with} has; all have them or none")));
    }
    let labels = rows.labelled.is_some().then_some(rows.labels);
    let images = StoredImages::Within(rows.stores, rows.places);
    let mut source = Source::new(name, labels, images, budget);
    source.slow = true;
    source.names = if rows.named { rows.names } else { Vec::new() };
    Ok(source)
}

fn read_file(path: &Path, budget: &Budget, rows: &mut Rows) -> Result<()> {
    let what = || path.display().to_string();
    let file = map(path)?;
    let len = file.len();
    let whole = len >= 12 && file.starts_with(MAGIC) && file.ends_with(MAGIC);
    let footer = whole
        .then(|| u32::from_le_bytes([file[len - 8], file[len - 7], file[len - 6], file[len - 5]]));
    let footer = footer.map(|n| n as usize).filter(|&n| n <= len - 12);
    let Some(footer) = footer else {
        return Err(data(format!(
            "{}: expected a Parquet file, found something else or a truncated one",
            what()
        )));
    };
    let footer = &file[len - 8 - footer..len - 8];
    let _spent = budget.borrow(BYTES_PER_BYTE * footer.len() as u64, what)?;
    let (about, _) = parse(footer, footer.len()).or_data(what)?;
    let leaves = leaves(about.list(2)).or_data(what)?;
    let find = |names: &[&str], rest: &[&str]| {
        names.iter().find_map(|name| {
            let is = |l: &Leaf| l.path.split_first() == Some((name, rest));
            leaves.iter().position(is)
        })
    };
    let columns = leaves.iter().map(|leaf| leaf.path.join(".")).collect::<Vec<_>>().join(", ");
    let images = find(&IMAGES, &["bytes"]).or_else(|| find(&IMAGES, &[]));
    let Some(images) = images.filter(|&i| leaves[i].kind == BYTE_ARRAY) else {
        return Err(data(format!(
            "{}: expected a column image or img that holds files' bytes, found {columns}; `datasets`' \
             rename_column(\"...\", \"image\") and to_parquet write one",
            what()
        )));
    };
    let names = find(&IMAGES, &["path"]).filter(|&i| leaves[i].kind == BYTE_ARRAY);
    let labels = find(&LABELS, &[]);
    let groups = about.list(4);
    let mut cells = |column: usize| -> Result<Vec<Cell>> {
        let leaf = &leaves[column];
        let mut pages = Pages { file: &file, stores: &mut rows.stores, budget, what: &what };
        let mut all = Vec::new();
        if leaf.repeated {
            let name = leaf.path.join(".");
            return Err(data(format!("{}: column {name} holds lists, expected one value", what())));
        }
        for group in groups {
            let chunk = group.list(1).get(column).and_then(|chunk| chunk.field(3));
            let chunk = chunk.ok_or_else(|| anyhow!("a group lacks a column")).or_data(what)?;
            let same = chunk.int(1) == Some(leaf.kind) && is_path(chunk.list(3), &leaf.path);
            if !same {
                return Err(anyhow!("a column is not what the schema says")).or_data(what);
            }
            all.extend(pages.read(chunk, Shape { kind: leaf.kind, optional: leaf.optional })?);
        }
        Ok(all)
    };
    let (files, named) = (cells(images)?, names.map(&mut cells).transpose()?);
    let classes = labels.map(&mut cells).transpose()?;
    take(rows, files, named, classes, labels.map(|i| leaves[i].kind), budget, &what)
}

/// Adds the rows of a file.
fn take(
    rows: &mut Rows,
    files: Vec<Cell>,
    named: Option<Vec<Cell>>,
    classes: Option<Vec<Cell>>,
    kind: Option<i64>,
    budget: &Budget,
    what: &dyn Fn() -> String,
) -> Result<()> {
    let count = files.len();
    for (row, cell) in files.into_iter().enumerate() {
        match cell {
            Cell::At(place) => rows.places.push(place),
            _ => {
                return Err(data(format!(
                    "{}: row {row} holds no image's bytes; `datasets`' to_parquet(..., embed_external_files=True) puts them there",
                    what()
                )));
            }
        }
    }
    let mut named = named.into_iter().flatten();
    for row in 0..count {
        let name = match named.next() {
            Some(Cell::At((store, place))) => {
                rows.named = true;
                String::from_utf8_lossy(&rows.stores[store as usize][place]).into_owned()
            }
            _ => format!("row {row}"),
        };
        budget.keep(2 * (name.len() + size_of::<String>()) as u64, what)?;
        rows.names.push(name);
    }
    let Some(classes) = classes else {
        rows.unlabelled.get_or_insert_with(what);
        return Ok(());
    };
    if !matches!(kind, Some(INT32 | INT64)) {
        return Err(data(format!(
            "{}: labels that are no whole numbers, expected class indices",
            what()
        )));
    }
    if classes.len() != count {
        return Err(data(format!("{}: {} labels for {count} images", what(), classes.len())));
    }
    // Hugging Face's mark of a label that is kept back.
    if classes.iter().all(|cell| matches!(cell, Cell::Number(-1) | Cell::None)) {
        rows.unlabelled.get_or_insert_with(what);
        return Ok(());
    }
    rows.labelled.get_or_insert_with(what);
    for (row, cell) in classes.into_iter().enumerate() {
        let label = match cell {
            Cell::Number(label) => u32::try_from(label).map_err(|_| label.to_string()),
            _ => Err("none".into()),
        };
        let wrong =
            |found| data(format!("{}: row {row}: expected a class index, found {found}", what()));
        rows.labels.push(label.map_err(wrong)?);
    }
    Ok(())
}

fn is_path(found: &[Value], path: &[&str]) -> bool {
    found.len() == path.len()
        && found.iter().zip(path).all(|(value, name)| value.as_text() == Some(name))
}

/// The columns of a schema, which lists each group before what is in it.
fn leaves<'a>(schema: &[Value<'a>]) -> Result<Vec<Leaf<'a>>> {
    const OPTIONAL: i64 = 1;
    const REPEATED: i64 = 2;
    let mut leaves = Vec::new();
    // Of each group around: names left in it, and what it adds.
    let mut groups: Vec<(i64, &str, u32, bool)> = Vec::new();
    let Some((root, elements)) = schema.split_first() else { bail!("a file without columns") };
    groups.push((root.int(5).unwrap_or(0), "", 0, false));
    for element in elements {
        while groups.last().is_some_and(|group| group.0 <= 0) {
            groups.pop();
        }
        let Some(group) = groups.last_mut() else { bail!("more columns than its schema has") };
        group.0 -= 1;
        let name = element.text(4).ok_or_else(|| anyhow!("a column without a name"))?;
        let repetition = element.int(3).unwrap_or(0);
        let optional = u32::from(repetition == OPTIONAL || repetition == REPEATED);
        match element.int(5).filter(|&children| children > 0) {
            Some(children) => {
                ensure!(groups.len() < 32, "columns in too many groups");
                groups.push((children, name, optional, repetition == REPEATED));
            }
            None => {
                let names = groups[1..].iter().map(|group| group.1).chain([name]);
                leaves.push(Leaf {
                    path: names.collect(),
                    kind: element.int(1).unwrap_or(-1),
                    optional: groups.iter().map(|group| group.2).sum::<u32>() + optional,
                    repeated: groups.iter().any(|group| group.3) || repetition == REPEATED,
                });
            }
        }
    }
    Ok(leaves)
}
