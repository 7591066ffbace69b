//! Folders of image files: one folder per class, or images directly inside and then no labels. A folder with
//! a `dataset.json` is an unpacked EDM zip, its folders are no classes.

use super::edm::{is_image, parse_labels};
use super::source::{Images, Source, read_file};
use crate::error::{OrExit as _, data};
use anyhow::Result;
use std::fs;
use std::path::{Path, PathBuf};

/// Opens one folder of images, of class folders or of an unpacked EDM zip, or several folders of images.
///
/// # Errors
/// Data errors that begin with the file: unreadable, no images, image formats other than PNG and JPEG,
/// images both beside and in class folders, folders in class folders.
pub fn open(paths: &[PathBuf]) -> Result<Source> {
    if let [path] = paths {
        let inside = list(path)?;
        let labels_file = path.join("dataset.json");
        return match (labels_file.is_file(), inside.folders.is_empty()) {
            (true, _) => unpacked_edm(path, &labels_file),
            (false, false) => classes(path, inside),
            (false, true) => source(path, vec![inside.images], false),
        };
    }
    let mut groups = Vec::new();
    for path in paths {
        let inside = list(path)?;
        if let Some(folder) = inside.folders.first() {
            return Err(data(format!(
                "{}: expected images only, when several folders are given",
                folder.display()
            )));
        }
        groups.push(inside.images);
    }
    source(&paths[0], groups, false)
}

fn classes(path: &Path, inside: Listing) -> Result<Source> {
    if let Some(image) = inside.images.first() {
        return Err(data(format!(
            "{}: an image beside class folders; it belongs into one of them",
            image.display()
        )));
    }
    let mut groups = Vec::new();
    for class in &inside.folders {
        let inside = list(class)?;
        if let Some(folder) = inside.folders.first() {
            return Err(data(format!("{}: a folder in a class folder", folder.display())));
        }
        if inside.images.is_empty() {
            return Err(data(format!("{}: a class folder without images", class.display())));
        }
        groups.push(inside.images);
    }
    source(path, groups, true)
}

fn source(path: &Path, groups: Vec<Vec<PathBuf>>, labelled: bool) -> Result<Source> {
    let sizes = groups.iter().map(Vec::len).enumerate();
    let group_of: Vec<u32> = sizes.flat_map(|(g, n)| std::iter::repeat_n(g as u32, n)).collect();
    let name = path.display().to_string();
    if group_of.is_empty() {
        return Err(data(format!("{name}: holds no images")));
    }
    let labels = labelled.then(|| group_of.clone());
    let images = Images::Files(groups.into_iter().flatten().collect());
    Ok(Source { name, labels, groups: Some(group_of), images })
}

fn unpacked_edm(path: &Path, labels_file: &Path) -> Result<Source> {
    let mut files = Vec::new();
    let mut folders = vec![path.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let inside = list(&folder)?;
        files.extend(inside.images);
        folders.extend(inside.folders);
    }
    let name_of = |file: &PathBuf| {
        let inside = file.strip_prefix(path).unwrap_or(file);
        inside.to_str().map(String::from)
    };
    let mut named = Vec::new();
    for file in files {
        let Some(name) = name_of(&file) else {
            return Err(data(format!("{}: the name is no UTF-8", file.display())));
        };
        named.push((name, file));
    }
    named.sort();
    let names: Vec<&str> = named.iter().map(|(name, _)| name.as_str()).collect();
    let json = read_file(labels_file, super::edm::MAX_JSON_BYTES)?;
    let labels = parse_labels(&json, &names, &labels_file.display().to_string())?;
    let name = path.display().to_string();
    if names.is_empty() {
        return Err(data(format!("{name}: holds no images")));
    }
    let images = Images::Files(named.into_iter().map(|(_, file)| file).collect());
    Ok(Source { name, groups: labels.clone(), labels, images })
}

/// What a folder holds, sorted by name.
struct Listing {
    images: Vec<PathBuf>,
    folders: Vec<PathBuf>,
}

fn list(folder: &Path) -> Result<Listing> {
    let what = || folder.display().to_string();
    let (mut images, mut folders) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(folder).or_data(what)? {
        let path = entry.or_data(what)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with('.') {
            continue;
        }
        if path.is_dir() {
            folders.push(path);
        } else if is_image(&name) {
            images.push(path);
        } else if is_foreign_image(&name) {
            return Err(data(format!("{}: expected PNG or JPEG images", path.display())));
        }
    }
    images.sort();
    folders.sort();
    Ok(Listing { images, folders })
}

/// Formats that would silently be missing if they were passed over like any other file.
fn is_foreign_image(name: &str) -> bool {
    let extension = name.rsplit_once('.').map_or("", |(_, e)| e).to_ascii_lowercase();
    let foreign = ["avif", "bmp", "gif", "jp2", "pgm", "ppm", "tif", "tiff", "webp"];
    foreign.contains(&extension.as_str())
}
