//! How the images of a folder or a zip lie: as EDM's data set tool packs them (`dataset.json` holds the labels), a
//! folder a class, or all in one place without labels. One folder above all of it changes nothing.

use super::labels::Described;
use crate::error::data;
use anyhow::Result;
use std::collections::{BTreeMap, BTreeSet};

/// What holds the labels.
pub const JSON: &str = "dataset.json";
/// Bytes that it may take: over a million images.
pub const MAX_JSON_BYTES: u64 = 256 << 20;

/// Files of a set, by names with `/` between folders; a folder's own ends in one.
pub struct Files<'a> {
    pub names: Vec<&'a str>,
    /// The name of a file in messages.
    pub shown: &'a dyn Fn(&str) -> String,
    /// The folder or zip in messages.
    pub set: &'a str,
    /// Whether one folder of images is a class, rather than where all of them lie.
    pub one_is_a_class: bool,
}

/// The images of a set in order, as places among its names.
#[derive(Debug, PartialEq)]
pub struct Arranged {
    pub images: Vec<usize>,
    pub labels: Option<Vec<u32>>,
    /// What each image's file is called, or was where it came from; empty where names only number the images.
    pub names: Vec<String>,
    /// What the user may not expect.
    pub notes: Vec<String>,
}

/// The name of image `i` in a zip of EDM's.
pub fn numbered(i: usize) -> String {
    format!("{:05}/img{i:08}.png", i / 1000)
}

/// Finds the layout. `read` is given the place of `dataset.json` among the names and the images' names from its folder
/// on, in order, and returns what it says of them.
///
/// # Errors
/// Data errors that begin with the file: no images, formats that are not read, images both beside and in class
/// folders, folders in class folders, class folders without images, two `dataset.json`, labels that do not fit.
pub fn arrange(
    files: &Files,
    read: impl FnOnce(usize, &[&str]) -> Result<Described>,
) -> Result<Arranged> {
    let names = &files.names;
    let seen: Vec<usize> = (0..names.len()).filter(|&i| !is_hidden(names[i])).collect();
    let all = |keep: fn(&str) -> bool| seen.iter().copied().filter(move |&i| keep(names[i]));
    if let Some(foreign) = all(is_foreign_image).next() {
        let file = (files.shown)(names[foreign]);
        let ending = names[foreign].rsplit('.').next().unwrap_or_default();
        return Err(data(format!(
            "{file}: expected PNG, JPEG, WebP, TIFF or BMP images; ImageMagick's `mogrify -path OUT -format png *.{ending}` makes them \
             in a folder OUT"
        )));
    }
    let images: Vec<usize> = all(is_image).collect();
    if images.is_empty() {
        return Err(data(format!("{}: holds no images", files.set)));
    }
    let mut jsons = all(|name| base(name) == JSON);
    let mut arranged = match (jsons.next(), jsons.next()) {
        (Some(json), None) => edm(files, images, json, read),
        (Some(json), Some(other)) => {
            let [json, other] = [json, other].map(|i| (files.shown)(names[i]));
            Err(data(format!("{json}: a second one lies in {other}; one set has one")))
        }
        (None, _) => folders(files, images, &seen),
    }?;
    let count = |(i, &image): (usize, &usize)| names[image].ends_with(&numbered(i));
    if arranged.names.is_empty() && !arranged.images.iter().enumerate().all(count) {
        arranged.names = arranged.images.iter().map(|&image| names[image].to_string()).collect();
    }
    Ok(arranged)
}

/// Whether a file of this name is taken for an image.
pub fn is_image(name: &str) -> bool {
    let read = ["bmp", "jpeg", "jpg", "png", "tif", "tiff", "webp"];
    read.contains(&extension(name).as_str())
}

/// Formats that would silently be missing if they were passed over like any other file.
fn is_foreign_image(name: &str) -> bool {
    let foreign = ["avif", "gif", "heic", "jp2", "jxl", "pgm", "ppm"];
    foreign.contains(&extension(name).as_str())
}

/// What systems put beside a set's files, in any case: macOS into zips, Windows and Synology into folders.
const LITTER: [&str; 6] =
    ["__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir", "$recycle.bin"];

/// Whether a file is hidden or of no person's making, or lies in such a folder.
pub fn is_hidden(name: &str) -> bool {
    let litter = |part: &str| LITTER.iter().any(|l| part.eq_ignore_ascii_case(l));
    name.split('/').any(|part| part.starts_with('.') || litter(part))
}

/// Whether a file that is not read may be where the labels are.
fn may_hold_labels(name: &str) -> bool {
    let name = base(name).to_ascii_lowercase();
    let tables = [".csv", ".json", ".jsonl", ".tsv"];
    name.contains("label") || tables.iter().any(|end| name.ends_with(end))
}

fn base(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

fn extension(name: &str) -> String {
    base(name).rsplit_once('.').map_or("", |(_, e)| e).to_ascii_lowercase()
}

/// EDM's layout: names in `dataset.json` are relative to its folder, the order is that of the names.
fn edm(
    files: &Files,
    mut images: Vec<usize>,
    json: usize,
    read: impl FnOnce(usize, &[&str]) -> Result<Described>,
) -> Result<Arranged> {
    let names = &files.names;
    let root = names[json].len() - JSON.len();
    let outside = |&&i: &&usize| !names[i].starts_with(&names[json][..root]);
    if let Some(&image) = images.iter().find(outside) {
        let (image, json) = ((files.shown)(names[image]), (files.shown)(names[json]));
        return Err(data(format!("{image}: lies outside the folder of {json}")));
    }
    images.sort_by_key(|&i| names[i]);
    let inside: Vec<&str> = images.iter().map(|&i| &names[i][root..]).collect();
    let Described { labels, names } = read(json, &inside)?;
    Ok(Arranged { images, labels, names, notes: Vec::new() })
}

/// A folder a class, or no labels.
fn folders(files: &Files, mut images: Vec<usize>, seen: &[usize]) -> Result<Arranged> {
    let names = &files.names;
    let root = root(files, &images);
    let inside = |i: usize| &names[i][root..];
    images.sort_by_key(|&i| inside(i).rsplit_once('/').unwrap_or(("", inside(i))));
    let mut notes = Vec::new();
    let shown = |i: usize, len: usize| (files.shown)(&names[i][..root + len]);
    let mut say = |what: String| notes.push(format!("{}: no labels: {what}", files.set));
    let numbered = || images.iter().all(|&i| is_numbered(names[i]));
    if images.iter().all(|&i| !inside(i).contains('/')) && root > 0 || numbered() {
        match numbered() {
            true => say(format!("folders numbered as EDM's tools do, and no {JSON}")),
            false => {
                say(format!("all images lie in one folder, {}", &names[images[0]][..root - 1]))
            }
        }
        images.sort_by_key(|&i| names[i]);
        return Ok(Arranged { images, labels: None, names: Vec::new(), notes });
    }
    let mut labels = Vec::with_capacity(images.len());
    let mut classes = BTreeMap::new();
    for &i in &images {
        let (class, file) = inside(i).split_once('/').unwrap_or(("", inside(i)));
        if let Some((deep, _)) = file.rsplit_once('/') {
            let folder = shown(i, class.len() + 1 + deep.len());
            return Err(data(format!("{folder}: a folder in a class folder")));
        }
        let next = classes.len() as u32;
        labels.push(*classes.entry(class).or_insert(next));
    }
    let full: BTreeSet<&str> =
        seen.iter().filter_map(|&i| parent(names[i].trim_end_matches('/'))).collect();
    let is_empty = |&i: &usize| {
        let folder = names[i].strip_suffix('/');
        folder.is_some_and(|folder| folder.len() > root && !full.contains(folder))
    };
    let empty = seen.iter().copied().find(is_empty);
    match (classes.get("").map(|_| images[0]), classes.len(), empty) {
        (Some(image), 2.., _) | (Some(image), _, Some(_)) => {
            let image = (files.shown)(names[image]);
            Err(data(format!(
                "{image}: an image beside class folders; it belongs into one of them"
            )))
        }
        (None, _, Some(empty)) => {
            let folder = (files.shown)(names[empty].trim_end_matches('/'));
            Err(data(format!("{folder}: a class folder without images")))
        }
        (Some(_), _, None) => {
            if let Some(&unread) = seen.iter().find(|&&i| may_hold_labels(names[i])) {
                say(format!("they are read from {JSON}, not from {}", names[unread]));
            }
            Ok(Arranged { images, labels: None, names: Vec::new(), notes })
        }
        (None, _, None) => Ok(Arranged { images, labels: Some(labels), names: Vec::new(), notes }),
    }
}

/// Bytes of the names that all images have in common: the folders above the set.
fn root(files: &Files, images: &[usize]) -> usize {
    let names = &files.names;
    let mut root = 0;
    loop {
        let first = &names[images[0]][root..];
        let Some(len) = first.find('/').map(|at| at + 1) else { return root };
        let folder = &names[images[0]][..root + len];
        let below = |&i: &usize| names[i].strip_prefix(folder);
        if !images.iter().all(|i| below(i).is_some()) {
            return root;
        }
        let deep = images.iter().all(|i| below(i).is_some_and(|rest| rest.contains('/')));
        if files.one_is_a_class && !deep {
            return root;
        }
        root += len;
    }
}

fn parent(name: &str) -> Option<&str> {
    name.rsplit_once('/').map(|(parent, _)| parent)
}

/// Whether an image lies in a folder of a thousand, as EDM's data set tool (`00001/img00001234.png`) and its generator
/// (`001000/001234.png`) number them.
fn is_numbered(name: &str) -> bool {
    let mut parts = name.rsplit('/');
    let (file, folder) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
    let stem = file.rsplit_once('.').map_or(file, |(stem, _)| stem);
    let digits = stem.trim_start_matches(|c: char| !c.is_ascii_digit());
    let wide = folder.len() >= 5 && folder.bytes().all(|b| b.is_ascii_digit());
    match (wide, folder.parse::<u64>(), digits.parse::<u64>()) {
        (true, Ok(folder), Ok(image)) => folder == image / 1000 || folder == image - image % 1000,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(
        names: &[&str],
        one_is_a_class: bool,
    ) -> Result<(String, Option<Vec<u32>>, bool), String> {
        let shown = |name: &str| name.to_string();
        let files = Files { names: names.to_vec(), shown: &shown, set: "set", one_is_a_class };
        let read = |_, inside: &[&str]| {
            let labels = inside.iter().map(|name| name.len() as u32).collect();
            Ok(Described { labels: Some(labels), names: Vec::new() })
        };
        let found = arrange(&files, read).map_err(|e| e.to_string())?;
        let images: Vec<&str> = found.images.iter().map(|&i| names[i]).collect();
        Ok((images.join(" "), found.labels, !found.notes.is_empty()))
    }

    #[test]
    fn what_a_zip_of_a_set_may_look_like() {
        for (names, images, labels, noted) in [
            ("b.png a.png", "a.png b.png", None, false),
            ("b.png a.png labels.csv", "a.png b.png", None, true),
            ("x/b.png x/a.png", "x/a.png x/b.png", None, true),
            ("x/ x/y/ x/y/b.png x/y/a.png", "x/y/a.png x/y/b.png", None, true),
            (
                "dog/1.png cat/2.png dog/0.png",
                "cat/2.png dog/0.png dog/1.png",
                Some(vec![0, 1, 1]),
                false,
            ),
            ("s/dog/1.png s/cat/2.png", "s/cat/2.png s/dog/1.png", Some(vec![0, 1]), false),
            (
                "s/ s/b/ s/b/1.png s/a/2.png s/readme.txt",
                "s/a/2.png s/b/1.png",
                Some(vec![0, 1]),
                false,
            ),
            ("a/1.png a-b/1.png", "a/1.png a-b/1.png", Some(vec![0, 1]), false),
            (
                "a/1.png b/1.png __MACOSX/a/._1.png .git/x.png .y.png a/.DS_Store Thumbs.db b/desktop.ini @eaDir/ \
                 @eaDir/1.png/S.jpg b/@eaDir/1.png b/THUMBS.DB $RECYCLE.BIN/2.png __MACOSX/",
                "a/1.png b/1.png",
                Some(vec![0, 1]),
                false,
            ),
            ("dataset.json b/3.png a/12.png", "a/12.png b/3.png", Some(vec![8, 7]), false),
            (
                "x/y/dataset.json x/y/b.png x/y/aa.png",
                "x/y/aa.png x/y/b.png",
                Some(vec![6, 5]),
                false,
            ),
            (
                "00000/img00000999.png 00001/img00001000.png",
                "00000/img00000999.png 00001/img00001000.png",
                None,
                true,
            ),
            (
                "001000/001000.png 000000/000000.png",
                "000000/000000.png 001000/001000.png",
                None,
                true,
            ),
            ("00000/a.png 00001/b.png", "00000/a.png 00001/b.png", Some(vec![0, 1]), false),
            ("0/0.png 1/1.png", "0/0.png 1/1.png", Some(vec![0, 1]), false),
        ] {
            let names: Vec<&str> = names.split(' ').collect();
            assert_eq!(of(&names, false), Ok((images.into(), labels, noted)), "{names:?}");
        }
        // In a folder, one class is one; in a zip it is where all images lie.
        assert_eq!(of(&["x/a.png"], true), Ok(("x/a.png".into(), Some(vec![0]), false)));
        assert_eq!(of(&["y/x/a.png"], true), Ok(("y/x/a.png".into(), Some(vec![0]), false)));
    }

    #[test]
    fn what_is_ambiguous_is_refused() {
        for (names, start) in [
            ("readme.txt", "set: holds no images"),
            ("a.png a/b.png", "a.png: an image beside class folders"),
            ("a.png b/", "a.png: an image beside class folders"),
            ("a/1.png b/1.png c/", "c: a class folder without images"),
            ("a/1.png b/c/1.png", "b/c: a folder in a class folder"),
            ("a/1.png b/1.gif", "b/1.gif: expected PNG, JPEG"),
            ("a/dataset.json b/dataset.json a/1.png", "a/dataset.json: a second one"),
            (
                "a/dataset.json a/1.png b/1.png",
                "b/1.png: lies outside the folder of a/dataset.json",
            ),
        ] {
            let names: Vec<&str> = names.split(' ').collect();
            let found = of(&names, false);
            assert!(found.as_ref().is_err_and(|e| e.starts_with(start)), "{names:?}: {found:?}");
        }
    }
}
