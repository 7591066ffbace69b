//! Sets that take long to decode are decoded once.

use super::text;
use crate::support::Ended;
use emm::data::{Dataset, Image};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::tempdir;

/// Runs `emm ARGS` with a cache of its own.
fn emm_with(cache: &Path, args: &[&str]) -> Ended {
    let mut command = Command::new(env!("CARGO_BIN_EXE_emm"));
    Ended::of(command.env("XDG_CACHE_HOME", cache).args(args))
}

fn png(i: usize) -> Vec<u8> {
    Image::encode(2, 2, 1, &[i as u8, (i / 256) as u8, 1, 2]).unwrap()
}

#[test]
fn a_folder_is_decoded_once_and_again_when_it_or_what_is_kept_changes() {
    let dir = tempdir().unwrap();
    let [folder, cache, out] = ["set", "cache", "s.zip"].map(|name| dir.path().join(name));
    for i in 0..2100 {
        let class = folder.join(if i % 3 == 0 { "a" } else { "b" });
        fs::create_dir_all(&class).unwrap();
        fs::write(class.join(format!("{i:04}.png")), png(i)).unwrap();
    }
    let sets = cache.join("emm/sets");
    let kept = || -> Vec<PathBuf> {
        let entries = fs::read_dir(&sets).into_iter().flatten();
        entries.map(|entry| entry.unwrap().path()).collect()
    };
    let inspect = |flags: &[&str]| {
        emm_with(&cache, &[&["data", "inspect", "--json", text(&folder)], flags].concat())
    };
    let first = inspect(&["--quiet"]);
    assert_eq!((first.stderr.as_str(), kept().len()), ("", 1));
    let again = inspect(&[]);
    let file = kept().remove(0);
    let named = format!("{}: read from {}", folder.display(), file.display());
    assert!(again.stderr.contains(&named), "{again:?}");
    assert_eq!(again.stdout, first.stdout);
    assert_eq!(inspect(&["--quiet"]).stderr, "");

    // One flipped bit, wherever it is, and half of it.
    let good = fs::read(&file).unwrap();
    for at in [3, 12, 40, good.len() / 2, good.len() - 1] {
        let mut bad = good.clone();
        bad[at] ^= 4;
        fs::write(&file, &bad).unwrap();
        let read = inspect(&[]);
        assert!(read.stderr.contains("damaged, made anew"), "{read:?}");
        assert_eq!(read.stdout, first.stdout, "byte {at}");
        assert_eq!(fs::read(&file).unwrap(), good, "byte {at}");
    }
    fs::write(&file, &good[..good.len() / 2]).unwrap();
    assert_eq!(inspect(&["--quiet"]).stdout, first.stdout);

    // Labels and names come back, too.
    let cut = ["data", "subset", text(&folder), "--class", "1", "--size", "3", "--out", text(&out)];
    let ended = emm_with(&cache, &cut);
    assert!(ended.code == 0 && ended.stderr.contains("kept decoded"), "{ended:?}");
    assert_eq!(Dataset::open(&out).unwrap().names, ["b/0001.png", "b/0002.png", "b/0004.png"]);

    // An image more, and other options, are other sets.
    let before = kept().len();
    fs::write(folder.join("a/more.png"), png(2100)).unwrap();
    assert_eq!(inspect(&[]).json()["images"], 2101);
    assert_eq!(kept().len(), before + 1);
    inspect(&["--background", "white"]).ok();
    assert_eq!(kept().len(), before + 2);

    // So are other pixels under the same length and time.
    let of = |ended: Ended| ended.json()["sha256_pixels"].clone();
    let (image, seen) = (folder.join("a/more.png"), of(inspect(&[])));
    let time = fs::metadata(&image).unwrap().modified().unwrap();
    fs::write(&image, png(2101)).unwrap();
    let file = fs::File::options().append(true).open(&image).unwrap();
    file.set_modified(time).unwrap();
    assert_ne!(of(inspect(&[])), seen);
}

#[test]
fn small_sets_and_quick_forms_are_not_kept() {
    let dir = tempdir().unwrap();
    let [folder, cache, zip] = ["set", "cache", "d.zip"].map(|name| dir.path().join(name));
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("a.png"), png(1)).unwrap();
    let many = Dataset::new("test", 2, 1, vec![7; 4 * 2100], None).unwrap();
    many.save(&zip, false).unwrap();
    for path in [&folder, &zip] {
        assert_eq!(emm_with(&cache, &["data", "inspect", text(path)]).stderr, "");
    }
    assert!(!cache.join("emm/sets").exists());
}
