//! Files as other tools write them: what is within their formats is read.

use super::bad_input::{Bench, crc, png, tar_of, zip_of};
use super::{cifar, golden, gzip, text};
use crate::support::emm;
use emm::data::{Dataset, Options, Transform, open_within};
use emm::memory::Budget;
use std::fs;
use std::io::Read as _;
use std::path::Path;
use tempfile::tempdir;

fn read(path: &Path) -> anyhow::Result<Dataset> {
    let source = open_within(&[path.to_path_buf()], &Options::default(), &Budget::of(64 << 20))?;
    source.collect(&source.all(), &Transform::default())
}

/// An entry of a zip: its name, the extra fields before it and in the directory, its bytes.
pub type Entry<'a> = (&'a [u8], &'a [u8], &'a [u8], &'a [u8]);

/// A zip of stored entries with checksum and sizes behind them; those of checksum, packed size and size that are `known`
/// stand before them, too.
pub fn streamed(entries: &[Entry], known: [bool; 3]) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for (name, extra, listed_extra, bytes) in entries {
        let size = (bytes.len() as u32).to_le_bytes();
        let values = [crc(bytes).to_le_bytes(), size, size];
        let start = (out.len() as u32).to_le_bytes();
        let before = |values: [[u8; 4]; 3], extra: &[u8]| {
            let lengths = [name.len() as u16, extra.len() as u16].map(u16::to_le_bytes);
            let head = [20, 0, 8, 0, 0, 0, 0, 0, 0x21, 0];
            [&head[..], values.as_flattened(), lengths.as_flattened()].concat()
        };
        let shown = std::array::from_fn(|i| if known[i] { values[i] } else { [0; 4] });
        out.extend([b"PK\x03\x04", &before(shown, extra)[..], name, extra, bytes].concat());
        out.extend([b"PK\x07\x08", values.as_flattened()].concat());
        directory.extend([b"PK\x01\x02\x14\0", &before(values, listed_extra)[..]].concat());
        directory.extend([&[0; 10][..], &start, name, listed_extra].concat());
    }
    let counts = [entries.len() as u16; 2].map(u16::to_le_bytes);
    let sizes = [directory.len() as u32, out.len() as u32].map(u32::to_le_bytes);
    let end = [b"PK\x05\x06\0\0\0\0", counts.as_flattened(), sizes.as_flattened(), &[0, 0]];
    [out, directory, end.concat()].concat()
}

#[test]
fn a_zip_may_say_behind_an_entry_what_its_tool_did_not_know_before() {
    let bench = Bench::new();
    let image = png(4, 1);
    let entries: Vec<Entry> = vec![(b"a/1.png", b"", b"", &image), (b"b/1.png", b"", b"", &image)];
    for bits in 0..8 {
        let good = streamed(&entries, [0, 1, 2].map(|i| bits >> i & 1 == 1));
        let path = bench.path("streamed.zip");
        // Written to a pipe, a block is filled with zeros.
        fs::write(&path, [&good[..], &[0; 700]].concat()).unwrap();
        assert_eq!(read(&path).unwrap().labels, Some(vec![0, 1]), "{bits}");
        fs::remove_file(path).unwrap();
        // Checksum, packed size and size of the first entry, before it: zero or right.
        for byte in 14..26 {
            let mut bad = good.clone();
            bad[byte] ^= 0x40;
            bench.refuses("bad.zip", &bad, "a/1.png: the zip's directory says");
        }
        bench.refuses("more.zip", &[&good[..], &[0; 70], b"x"].concat(), "found something else");
    }
}

#[test]
fn names_may_begin_at_the_folder_itself() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("dot.zip");
    let image = png(4, 1);
    for (names, json) in [
        (["./", "./a/", "./a/1.png", "./b/1.png", "./b/./2.png"], None),
        (["x/", "x/./a/", ".\\x\\a\\1.png", "x/b/1.png", "./x/b/2.png"], None),
        (
            ["./", "./0/", "./0/1.png", "./0/2.png", "./0/3.png"],
            Some(r#"[["./0/1.png", 0], ["0/2.png", 1], [".\\0\\3.png", 1]]"#),
        ),
    ] {
        let json = json.map(|labels| format!("{{\"labels\": {labels}}}"));
        let bytes = |name: &str| if name.ends_with('/') { &b""[..] } else { &image };
        let mut entries: Vec<(&str, &[u8])> = names.iter().map(|n| (*n, bytes(n))).collect();
        entries.extend(json.as_ref().map(|json| ("./dataset.json", json.as_bytes())));
        fs::write(&path, zip_of(&entries)).unwrap();
        assert_eq!(read(&path).unwrap().labels, Some(vec![0, 1, 1]), "{names:?}");
    }
    fs::write(&path, zip_of(&[("./../a.png", &image)])).unwrap();
    assert!(read(&path).unwrap_err().to_string().contains("leads outside"));
    fs::write(&path, zip_of(&[("./a.png", &image), ("a.png", &image)])).unwrap();
    assert!(read(&path).unwrap_err().to_string().contains("same name"));
}

/// The extra field that holds a name in UTF-8.
pub fn unicode_name(name: &[u8], unicode: &str) -> Vec<u8> {
    let len = (5 + unicode.len() as u16).to_le_bytes();
    [&b"up"[..], &len, &[1], &crc(name).to_le_bytes(), unicode.as_bytes()].concat()
}

#[test]
fn a_name_in_utf_8_beside_another_counts() {
    let bench = Bench::new();
    let image = png(4, 1);
    let json = "{\"labels\": [[\"é.png\", 1], [\"日.png\", 0]]}";
    // Of code page 437, and what is left of a name that it lacks.
    let (first, second) = (b"\x82.png", b"_.png");
    let field = [unicode_name(first, "é.png"), unicode_name(second, "日.png")];
    let padded = [&b"\x55\x54\x05\0\x03abcd"[..], &field[0], b"xyz"].concat();
    let set = |here: &[u8], listed: &[u8]| {
        let entries: [Entry; 3] = [
            (first, here, listed, &image),
            (second, &field[1], &field[1], &image),
            (b"dataset.json", b"", b"", json.as_bytes()),
        ];
        streamed(&entries, [true; 3])
    };
    for extra in [&field[0], &padded] {
        let path = bench.path("unicode.zip");
        fs::write(&path, set(extra, extra)).unwrap();
        assert_eq!(read(&path).unwrap().labels, Some(vec![1, 0]));
        fs::remove_file(path).unwrap();
    }
    // In one place only, or otherwise in the other; bits of it wrong in both.
    bench.refuses("none.zip", &set(b"", &field[0]), "the entry itself otherwise");
    bench.refuses("listed.zip", &set(&field[0], b""), "");
    let other = unicode_name(first, "è.png");
    bench.refuses("other.zip", &set(&other, &field[0]), "the entry itself otherwise");
    for byte in 4..9 {
        let mut bad = field[0].clone();
        bad[byte] ^= 1;
        bench.refuses("sum.zip", &set(&bad, &bad), "two names");
    }
    let mut bad = field[0].clone();
    bad[9] ^= 0x40;
    bench.refuses("text.zip", &set(&bad, &bad), "UTF-8");
}

#[test]
fn what_may_hold_labels_and_is_not_read_is_named() {
    let dir = tempdir().unwrap();
    let [path, out] = ["set.zip", "out.zip"].map(|name| dir.path().join(name));
    let image = png(4, 1);
    for name in ["Dataset.json", "classes.csv", "meta.TSV", "labels.txt", "all.jsonl"] {
        fs::write(&path, zip_of(&[("a.png", &image), ("b.png", &image), (name, b"x")])).unwrap();
        let subset = ["data", "subset", text(&path), "--size", "1", "--out", text(&out), "--force"];
        for args in [&["data", "inspect", text(&path)][..], &subset] {
            let ended = emm(args);
            let said = format!("no labels: they are read from dataset.json, not from {name}");
            assert!(ended.code == 0 && ended.stderr.contains(&said), "{ended:?}");
        }
    }
    fs::write(&path, zip_of(&[("a.png", &image), ("readme.txt", b"x")])).unwrap();
    assert_eq!(emm(["data", "inspect", text(&path)]).stderr, "");
}

/// The batches of the archive that Python wrote, by name.
fn batches() -> Vec<(String, Vec<u8>)> {
    let archive = fs::read(golden("cifar-10-python.tar.gz")).unwrap();
    let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(&archive[..]));
    let mut all = Vec::new();
    for entry in tar.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        if name.contains("data_batch_") {
            all.push((name.rsplit('/').next().unwrap().to_string(), bytes));
        }
    }
    all
}

/// A member of a tar: its name, its type, its bytes.
type Member = (String, u8, Vec<u8>);

/// A tar of members of any types.
pub fn typed_tar(members: &[Member]) -> Vec<u8> {
    let list: Vec<_> = members.iter().map(|(name, _, b)| (name.as_str(), &b[..], None)).collect();
    let mut tar = tar_of(&list);
    let mut at = 0;
    for (_, kind, bytes) in members {
        let header = &mut tar[at..at + 512];
        header[156] = *kind;
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        at += 512 + bytes.len().next_multiple_of(512);
    }
    tar
}

#[test]
fn a_cifar_archive_may_be_packed_again() {
    let bench = Bench::new();
    let batches = batches();
    assert_eq!(batches.len(), 5);
    let deep = "d".repeat(120);
    let record = |key: &str, value: &str| {
        let len = (1..).find(|n: &usize| *n == format!("{n} {key}={value}\n").len()).unwrap();
        format!("{len} {key}={value}\n").into_bytes()
    };
    let with = |before: &dyn Fn(&str) -> Vec<Member>, own: &dyn Fn(&str) -> String| {
        let mut all = Vec::new();
        for (name, bytes) in &batches {
            all.extend(before(name));
            all.push((own(name), b'0', bytes.clone()));
        }
        typed_tar(&all)
    };
    let times = |name: &str| vec![(format!("c/PaxHeaders/{name}"), b'x', record("mtime", "1.5"))];
    let pax_name = |name: &str| {
        let path = record("path", &format!("{deep}/{name}"));
        vec![(format!("x/PaxHeader/{name}"), b'x', path)]
    };
    let gnu_name = |name: &str| {
        let path = format!("{deep}/{name}\0").into_bytes();
        vec![("././@LongLink".to_string(), b'L', path)]
    };
    let both = |name: &str| [gnu_name(name), times(name)].concat();
    let global = |_: &str| vec![("pax_global_header".to_string(), b'g', record("comment", "x"))];
    let cut = |_: &str| deep[..100].to_string();
    let short = |name: &str| format!("c/{name}");
    let packed: [(&str, Vec<u8>); 5] = [
        ("times", with(&times, &short)),
        ("pax", with(&pax_name, &cut)),
        ("gnu", with(&gnu_name, &cut)),
        ("both", with(&both, &cut)),
        ("global", with(&global, &short)),
    ];
    for (name, tar) in packed {
        let path = bench.path("c.tar.gz");
        fs::write(&path, gzip(&tar)).unwrap();
        assert_eq!(read(&path).unwrap(), cifar(), "{name}");
        fs::remove_file(path).unwrap();
    }
    let outside = |name: &str| vec![(name.into(), b'L', format!("../{name}\0").into_bytes())];
    bench.refuses("outside.tar", &with(&outside, &cut), "leads outside");
    let elsewhere = |name: &str| vec![(name.into(), b'x', record("path", &format!("{name}_old")))];
    bench.refuses("old.tar", &with(&elsewhere, &short), "data_batch_1 is missing");
    let broken = |name: &str| vec![(name.into(), b'x', b"99 path=x\n".to_vec())];
    bench.refuses("broken.tar", &with(&broken, &short), "");
}

#[test]
fn a_cifar_batch_may_be_pickled_again() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("c.tar");
    let mut members = Vec::new();
    for (name, bytes) in batches() {
        // Python 2's texts become Python 3's bytes, which its protocol 2 writes as a text to be encoded.
        let mut again = bytes;
        for key in ["data", "labels"] {
            let from = [&b"U"[..], &[key.len() as u8], key.as_bytes()].concat();
            let at = again.windows(from.len()).position(|w| w == from).unwrap();
            let text = |text: &str| {
                [&b"X"[..], &(text.len() as u32).to_le_bytes(), text.as_bytes()].concat()
            };
            let to = [b"c_codecs\nencode\n", &text(key)[..], &text("latin1"), b"\x86R"].concat();
            again.splice(at..at + from.len(), to);
        }
        members.push((name, b'0', again));
    }
    fs::write(&path, typed_tar(&members)).unwrap();
    assert_eq!(read(&path).unwrap(), cifar());
}

#[test]
fn a_label_that_is_no_integer_is_shown_as_it_stands() {
    let bench = Bench::new();
    for (label, shown) in [("1.0", "1.0"), ("-1", "-1"), ("true", "true"), ("[1]", "a list")] {
        let json = format!("{{\"labels\": [[\"a.png\", {label}]]}}");
        let zip = zip_of(&[("a.png", &png(4, 1)), ("dataset.json", json.as_bytes())]);
        bench.refuses("label.zip", &zip, &format!("found {shown}"));
    }
}
