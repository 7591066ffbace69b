//! Zips that say a thing in one place and another elsewhere, and zips of other tools than ours.

use super::bad_input::{Bench, crc, listing, png, raw_zip, zip_of};
use super::{gzip, labelled, text};
use crate::support::{emm, passing_folder};
use emm::data::{Dataset, Options, Transform, open_within};
use emm::memory::Budget;
use std::fs;
use std::path::Path;
use tempfile::tempdir;

/// What a zip reads as, or the error.
fn read(path: &Path) -> anyhow::Result<Dataset> {
    let source = open_within(&[path.to_path_buf()], &Options::default(), &Budget::of(64 << 20))?;
    source.collect(&source.all(), &Transform::default())
}

#[test]
fn a_flipped_bit_changes_nothing_or_is_refused() {
    let dir = passing_folder();
    let path = dir.path().join("d.zip");
    let set = labelled(&[1, 0, 1]);
    set.save(&path, false).unwrap();
    let good = fs::read(&path).unwrap();
    let mut refused = 0;
    for bit in 0..8 * good.len() {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, &bad).unwrap();
        match read(&path) {
            Ok(read) => assert_eq!(read, set, "bit {bit}"),
            Err(e) => {
                assert_eq!(emm::error::exit_code(&e), 3, "bit {bit}: {e:#}");
                refused += 1;
            }
        }
    }
    // What is left are versions and attributes, which nobody reads.
    assert!(8 * good.len() - refused < 500, "{refused} of {} refused", 8 * good.len());
}

#[test]
fn a_directory_that_differs_from_the_entries_is_refused() {
    let bench = Bench::new();
    let images = [("a.png", png(4, 1)), ("b.png", png(4, 1)), ("c.png", png(4, 1))];
    let entries: Vec<(&str, &[u8])> = images.iter().map(|(n, b)| (*n, &b[..])).collect();
    let json = br#"{"labels": [["a.png", 0], ["b.png", 1], ["c.png", 2]]}"#;
    let good = zip_of(&[&entries[..], &[("dataset.json", json)]].concat());
    let directory = good.windows(4).position(|w| w == b"PK\x01\x02").unwrap();
    let edited = |from: &[u8], to: &[u8]| {
        let at = directory + good[directory..].windows(from.len()).position(|w| w == from).unwrap();
        [&good[..at], to, &good[at + from.len()..]].concat()
    };
    let path = bench.path("good.zip");
    fs::write(&path, &good).unwrap();
    assert_eq!(read(&path).unwrap().labels, Some(vec![0, 1, 2]));
    fs::remove_file(path).unwrap();

    bench.refuses("labels.zip", &edited(b"dataset.json", b"dataset.jsoo"), "the entry itself");
    bench.refuses("lost.zip", &edited(b"b.png", b"b.pnf"), "the entry itself \"b.png\"");
    bench.refuses("order.zip", &edited(b"b.png", b"d.png"), "the entry itself \"b.png\"");
    let crc = crc(&png(4, 1)).to_le_bytes();
    bench.refuses("crc.zip", &edited(&crc, &[1, 2, 3, 4]), "checksum");
    let size = (png(4, 1).len() as u32).to_le_bytes();
    let other = (png(4, 1).len() as u32 + 1).to_le_bytes();
    bench.refuses("size.zip", &edited(&size, &other), "size");
    bench.refuses("method.zip", &edited(&[20, 0, 0, 0, 0, 0], &[20, 0, 0, 0, 8, 0]), "method");
    bench.refuses("time.zip", &edited(&[0, 0, 0x21, 0], &[0, 0, 0x22, 0]), "time");
    // An entry that the directory lost, with and without its count mended; one that it names twice.
    let end = good.len() - 22;
    let last = good[..end].windows(4).rposition(|w| w == b"PK\x01\x02").unwrap();
    let with_end = |directory: &[u8], count: u8, bytes: &[u8]| {
        let mut end = good[end..].to_vec();
        (end[8], end[10]) = (count, count);
        end[12..16].copy_from_slice(&(directory.len() as u32).to_le_bytes());
        [bytes, directory, &end].concat()
    };
    let entries = &good[..directory];
    let less = &good[directory..last];
    bench.refuses("three.zip", &with_end(less, 3, entries), "belong to no entry");
    bench.refuses("count.zip", &with_end(less, 4, entries), "");
    bench.refuses("less.zip", &with_end(&good[directory..end], 3, entries), "longer than its 3");
    let twice = [&good[directory..end], &good[last..end]].concat();
    bench.refuses("twice.zip", &with_end(&twice, 5, entries), "same name");
    let mut again = twice.clone();
    let at = again.len() - 1;
    again[at] = b'x';
    bench.refuses("again.zip", &with_end(&again, 5, entries), "");
    for (name, bytes) in [
        ("before.zip", [b"x", &good[..]].concat()),
        ("behind.zip", [&good[..], b"x"].concat()),
        ("twofold.zip", [&good[..], &good[..]].concat()),
        ("between.zip", with_end(&good[directory..end], 4, &[entries, b"xyz"].concat())),
    ] {
        bench.refuses(name, &bytes, "");
    }
    // A comment is part of the format.
    let mut commented = [&good[..], b"hello"].concat();
    commented[good.len() - 2] = 5;
    let path = bench.path("comment.zip");
    fs::write(&path, commented).unwrap();
    assert_eq!(read(&path).unwrap().len(), 3);
}

#[test]
fn entries_that_do_not_unpack_to_what_the_zip_says() {
    let bench = Bench::new();
    let image = png(4, 1);
    let packed = gzip(&image);
    let packed = packed[10..packed.len() - 8].to_vec();
    let (size, sum) = (image.len() as u32, crc(&image));
    let one =
        |bytes: &[u8], method, size, crc| raw_zip(&[("a.png", bytes.to_vec(), method, size, crc)]);
    let path = bench.path("good.zip");
    fs::write(&path, one(&packed, 8, size, sum)).unwrap();
    assert_eq!(read(&path).unwrap().len(), 1);
    fs::remove_file(path).unwrap();
    bench.refuses("short.zip", &one(&packed, 8, size - 1, sum), "a.png: its");
    bench.refuses("long.zip", &one(&packed, 8, size + 1, sum), "a.png: its");
    bench.refuses("cut.zip", &one(&packed[..packed.len() - 3], 8, size, sum), "a.png");
    bench.refuses("more.zip", &one(&[&packed[..], b"xx"].concat(), 8, size, sum), "a.png: its");
    bench.refuses("sum.zip", &one(&packed, 8, size, sum ^ 1), "checksum");
    bench.refuses("stored.zip", &one(&image, 0, size + 1, sum), "stored in");
    bench.refuses("method.zip", &one(&image, 12, size, sum), "method 12");
    bench.refuses("ratio.zip", &one(&packed, 8, u32::MAX - 1, sum), "cannot unpack to");
}

/// A zip as tools write it that do not know an entry's size before it ends: sizes stand behind it.
pub fn streamed(signature: bool, wide: bool) -> Vec<u8> {
    let image = png(4, 1);
    let mut zip = zip_of(&[("a.png", &image), ("b.png", &image)]);
    let directory = zip.windows(4).position(|w| w == b"PK\x01\x02").unwrap();
    let tail = zip.split_off(directory);
    let entry = directory / 2;
    let (sum, size) = (crc(&image).to_le_bytes(), image.len() as u32);
    let mut descriptor = if signature { b"PK\x07\x08".to_vec() } else { Vec::new() };
    descriptor.extend(sum);
    for _ in 0..2 {
        match wide {
            true => descriptor.extend(u64::from(size).to_le_bytes()),
            false => descriptor.extend(size.to_le_bytes()),
        }
    }
    let mut out = Vec::new();
    for local in zip.chunks(entry) {
        let mut local = local.to_vec();
        local[6] |= 8;
        local[14..26].fill(0);
        out.extend(local);
        out.extend(&descriptor);
    }
    let (start, second) = (out.len() as u32, (entry + descriptor.len()) as u32);
    let mut tail = tail;
    tail[8] |= 8;
    let next = tail[4..].windows(4).position(|w| w == b"PK\x01\x02").unwrap() + 4;
    tail[next + 8] |= 8;
    tail[next + 42..next + 46].copy_from_slice(&second.to_le_bytes());
    let end = tail.len() - 6;
    tail[end..end + 4].copy_from_slice(&start.to_le_bytes());
    [out, tail].concat()
}

#[test]
fn sizes_may_stand_behind_an_entry() {
    let bench = Bench::new();
    for (signature, wide) in [(true, false), (false, false), (true, true), (false, true)] {
        let good = streamed(signature, wide);
        let path = bench.path("streamed.zip");
        fs::write(&path, &good).unwrap();
        assert_eq!(read(&path).unwrap().len(), 2, "{signature} {wide}");
        fs::remove_file(path).unwrap();
        let mut bad = good.clone();
        let at = good.windows(4).rposition(|w| w == b"PK\x01\x02").unwrap();
        let first = good.windows(4).position(|w| w == b"PK\x01\x02").unwrap();
        assert!(first < at);
        bad[first - 1] ^= 1;
        bench.refuses("bad.zip", &bad, "b.png");
    }
}

#[test]
fn labels_are_found_wherever_a_zip_has_them() {
    let dir = tempdir().unwrap();
    let [path, out] = ["set.zip", "out.zip"].map(|name| dir.path().join(name));
    let image = |value: u8| emm::data::Image::encode(4, 4, 1, &[value; 16]).unwrap();
    let images: Vec<Vec<u8>> = (1..=4).map(image).collect();
    let labels = |all: [&str; 4]| {
        let pairs: Vec<String> =
            all.iter().zip([3, 1, 0, 2]).map(|(n, l)| format!("[{n:?}, {l}]")).collect();
        format!("{{\"labels\": [{}]}}", pairs.join(", "))
    };
    let plain = labels(["0/a.png", "0/b.png", "1/a.png", "1/b.png"]);
    let windows = labels(["0\\a.png", "0\\b.png", "1\\a.png", "1\\b.png"]);
    let json = Some(vec![3, 1, 0, 2]);
    let mac: &[(&str, &[u8])] =
        &[("__MACOSX/", b""), ("__MACOSX/top/._a.png", b"x"), (".DS_Store", b"x")];
    for (names, text_of_labels, more, expected) in [
        (
            ["0/a.png", "0/b.png", "1/a.png", "1/b.png"],
            Some(("dataset.json", &plain)),
            mac,
            json.clone(),
        ),
        (
            ["top/0/a.png", "top/0/b.png", "top/1/a.png", "top/1/b.png"],
            Some(("top/dataset.json", &plain)),
            mac,
            json.clone(),
        ),
        (
            ["t/o/0/a.png", "t/o/0/b.png", "t/o/1/a.png", "t/o/1/b.png"],
            Some(("t/o/dataset.json", &plain)),
            &[("t/", b"")],
            json.clone(),
        ),
        (
            ["0\\a.png", "0\\b.png", "1\\a.png", "1\\b.png"],
            Some(("dataset.json", &plain)),
            mac,
            json.clone(),
        ),
        (
            ["t\\0\\a.png", "t\\0\\b.png", "t\\1\\a.png", "t\\1\\b.png"],
            Some(("t\\dataset.json", &windows)),
            mac,
            json.clone(),
        ),
        (["cat/a.png", "cat/b.png", "dog/a.png", "dog/b.png"], None, mac, Some(vec![0, 0, 1, 1])),
        (
            ["top/cat/a.png", "top/cat/b.png", "top/dog/a.png", "top/dog/b.png"],
            None,
            mac,
            Some(vec![0, 0, 1, 1]),
        ),
        (
            ["top\\cat\\a.png", "top\\dog\\b.png", "top\\emu\\a.png", "top\\emu\\b.png"],
            None,
            &[("top\\", b"")],
            Some(vec![0, 1, 2, 2]),
        ),
        (["top/a.png", "top/b.png", "top/c.png", "top/d.png"], None, mac, None),
    ] {
        let mut entries: Vec<(&str, &[u8])> =
            names.iter().zip(&images).map(|(n, b)| (*n, &b[..])).collect();
        entries.extend(text_of_labels.map(|(name, text)| (name, text.as_bytes())));
        entries.extend(more);
        fs::write(&path, zip_of(&entries)).unwrap();
        emm(["data", "import", text(&path), "--out", text(&out), "--force"]).ok();
        let set = Dataset::open(&out).unwrap();
        assert_eq!(set.labels, expected, "{names:?}");
        let first: Vec<u8> = (0..4).map(|i| set.image(i)[0]).collect();
        assert_eq!(first, [1, 2, 3, 4], "{names:?}");
        assert_eq!(Dataset::open(&path).unwrap(), set, "as --data");
    }
}

#[test]
fn a_zip_and_the_folder_that_it_unpacks_to_are_one_set() {
    let dir = tempdir().unwrap();
    let image = png(4, 1);
    for names in [
        &["cat/1.png", "cat/2.png", "dog/1.png"][..],
        &["00000/img00000000.png", "00000/img00000001.png", "00001/img00001000.png"],
        &["1.png", "2.png"],
        &["cat/1.png", "2.png"],
        &["cat/1.png", "dog/deep/2.png"],
    ] {
        let (zip, folder) = (dir.path().join("x.zip"), dir.path().join("x"));
        let _ = fs::remove_dir_all(&folder);
        for name in names {
            fs::create_dir_all(folder.join(name).parent().unwrap()).unwrap();
            fs::write(folder.join(name), &image).unwrap();
        }
        fs::write(&zip, zip_of(&names.iter().map(|n| (*n, &image[..])).collect::<Vec<_>>()))
            .unwrap();
        let say = |path: &Path| {
            let said = |e: anyhow::Error| e.to_string().replace(": ", "/").replace("x.zip", "x");
            read(path).map_err(said)
        };
        assert_eq!(say(&zip), say(&folder).map_err(|e| e.replace(": ", "/")), "{names:?}");
    }
}

#[test]
fn labels_from_one_and_empty_classes_are_said() {
    let dir = tempdir().unwrap();
    let [path, out] = ["d.zip", "out.zip"].map(|name| dir.path().join(name));
    for (labels, holds) in [
        (
            &[1, 2, 3][..],
            "class 0 has no images: labels go from 1 to 3; networks would have 4 classes",
        ),
        (&[0, 1, 4], "no images of classes 2, 3; networks would have 5 classes, 0 to 4"),
        (&[0, 30], "no images of classes 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 19 more"),
        (&[0, 1, 1], ""),
    ] {
        labelled(labels).save(&path, true).unwrap();
        for args in [
            &["data", "inspect", text(&path), "--json"][..],
            &["data", "inspect", text(&path)],
            &["data", "import", text(&path), "--out", text(&out), "--force"],
        ] {
            let ended = emm(args);
            assert_eq!(ended.code, 0);
            assert_eq!(ended.stderr.is_empty(), holds.is_empty(), "{ended:?}");
            assert!(ended.stderr.contains(holds), "{ended:?}");
        }
        assert_eq!(emm(["data", "inspect", text(&path), "--quiet"]).stderr, "");
    }
    // Labels that stand where nobody looks.
    fs::write(&path, zip_of(&[("a.png", &png(4, 1)), ("labels.csv", b"a.png,3")])).unwrap();
    let ended = emm(["data", "inspect", text(&path)]);
    assert!(
        ended.stderr.contains("not from labels.csv") && ended.stdout.contains("labels      none")
    );
    assert_eq!(listing(dir.path()), ["d.zip", "out.zip"]);
}
