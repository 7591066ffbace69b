//! What images' files were called, through import and subsets.

use super::bad_input::{Bench, png, zip_of};
use super::{text, with_set, write_png};
use crate::support::emm;
use emm::data::Dataset;
use std::fs;
use std::path::Path;
use tempfile::tempdir;

/// Writes `FOLDER/NAME`, all pixels `i + 1`.
fn folder_of(root: &Path, names: &[&str]) {
    for (i, name) in names.iter().enumerate() {
        write_png(&root.join(name), 4, 4, |_| i as u8 + 1);
    }
}

fn names(path: &Path) -> Vec<String> {
    Dataset::open(path).unwrap().names
}

#[test]
fn names_of_files_survive_import_and_subset() {
    let dir = tempdir().unwrap();
    let [root, d, s, again] =
        ["set", "d.zip", "s.zip", "again.zip"].map(|name| dir.path().join(name));
    folder_of(&root, &["cat/tom \u{e9}.png", "cat/a.png", "dog/1.png"]);
    assert_eq!(names(&root), ["cat/a.png", "cat/tom \u{e9}.png", "dog/1.png"]);
    emm(["data", "import", text(&root), "--out", text(&d)]).ok();
    assert_eq!(names(&d), names(&root));
    emm(["data", "import", text(&d), "--out", text(&again), "--size", "2"]).ok();
    assert_eq!(names(&again), ["cat/a.png", "cat/tom \u{e9}.png"]);
    let cut = ["data", "subset", text(&d), "--size", "1", "--out", text(&s), "--force"];
    emm(cut.iter().chain(&["--class", "1", "--resolution", "2"])).ok();
    assert_eq!(names(&s), ["dog/1.png"]);

    // Folders given as one set, of which names may be the same.
    let cat = root.join("cat");
    emm(["data", "import", text(&cat), text(&root.join("dog")), "--out", text(&d), "--force"]).ok();
    assert_eq!(names(&d), ["cat/a.png", "cat/tom \u{e9}.png", "dog/1.png"]);
}

#[test]
fn a_blend_has_names_where_all_of_it_has() {
    let (dir, numbered, out) = with_set(&[0, 1, 1]);
    let [root, d] = ["set", "named.zip"].map(|name| dir.path().join(name));
    folder_of(&root, &["x.png", "y.png"]);
    emm(["data", "import", text(&root), "--out", text(&d)]).ok();
    let blend = |with: &str, alpha: &str| {
        let blend = format!("{with}:{alpha}");
        let args = ["data", "subset", text(&d), "--size", "2", "--blend", &blend, "--out", &out];
        emm(args.iter().chain(&["--force"])).ok();
        names(Path::new(&out))
    };
    assert_eq!(blend(text(&d), "0.5"), ["x.png", "x.png"]);
    assert_eq!(blend(&numbered, "0.5"), [""; 0]);
    assert_eq!(blend(&numbered, "0"), ["x.png", "y.png"]);
    assert_eq!(blend(&numbered, "1"), [""; 0]);
    // Numbers alone are no names, and a set without names is written as EDM's tool writes it.
    assert_eq!(names(Path::new(&numbered)), [""; 0]);
    let bytes = fs::read(&numbered).unwrap();
    assert!(!bytes.windows(7).any(|w| w == b"\"names\""));
}

#[test]
fn names_that_do_not_fit_are_refused() {
    let bench = Bench::new();
    let image = png(4, 1);
    for (json, holds) in [
        (r#"{"labels": null, "names": ["a"]}"#, "1 names for 2 images"),
        (r#"{"labels": null, "names": ["a", "b", "c", "d"]}"#, "4 names for 2 images"),
        (r#"{"labels": null, "names": ["a", 1]}"#, "expected {\"labels\""),
        (r#"{"labels": null, "names": [], "names": []}"#, "duplicate field"),
        (r#"{"names": ["a", "b"]}"#, "missing field"),
    ] {
        let entries: [(&str, &[u8]); 3] =
            [("a.png", &image), ("b.png", &image), ("dataset.json", json.as_bytes())];
        bench.refuses("names.zip", &zip_of(&entries), holds);
    }
}
