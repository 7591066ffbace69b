//! What `--tensorboard` writes, read by a reader of its own: frames with their checksums, events, scalars, images.
//! `tests/tensorboard_reader.py FOLDER` reads such a folder with TensorBoard.

use crate::support::{Ended, emm_in};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// CRC-32C by its definition: the polynomial, bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |sum, &byte| {
        (0..8).fold(sum ^ byte as u32, |sum, _| {
            (sum >> 1) ^ if sum & 1 == 1 { 0x82f6_3b78 } else { 0 }
        })
    })
}

fn masked(bytes: &[u8]) -> u32 {
    let sum = crc32c(bytes);
    sum.rotate_right(15).wrapping_add(0xa282_ead8)
}

/// Takes `n` bytes off the front.
fn take<'a>(bytes: &mut &'a [u8], n: usize) -> &'a [u8] {
    let (taken, rest) = bytes.split_at(n);
    *bytes = rest;
    taken
}

fn u32_of(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(bytes.try_into().unwrap())
}

/// The records of a file, each against both checksums.
fn records(mut file: &[u8]) -> Vec<&[u8]> {
    let mut records = Vec::new();
    while !file.is_empty() {
        let length = take(&mut file, 8);
        assert_eq!(u32_of(take(&mut file, 4)), masked(length));
        let record = take(&mut file, u64::from_le_bytes(length.try_into().unwrap()) as usize);
        assert_eq!(u32_of(take(&mut file, 4)), masked(record));
        records.push(record);
    }
    records
}

#[derive(Debug, Clone, PartialEq)]
enum Field<'a> {
    Number(u64),
    Float(f32),
    Double(f64),
    Bytes(&'a [u8]),
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut n = 0;
    for shift in (0..).step_by(7) {
        let byte = take(bytes, 1)[0];
        n |= ((byte & 0x7f) as u64) << shift;
        if byte < 0x80 {
            break;
        }
    }
    n
}

/// The fields of a message in their order.
fn fields(mut message: &[u8]) -> Vec<(u64, Field<'_>)> {
    let mut all = Vec::new();
    while !message.is_empty() {
        let key = varint(&mut message);
        let field = match key & 7 {
            0 => Field::Number(varint(&mut message)),
            1 => Field::Double(f64::from_le_bytes(take(&mut message, 8).try_into().unwrap())),
            2 => {
                let n = varint(&mut message) as usize;
                Field::Bytes(take(&mut message, n))
            }
            5 => Field::Float(f32::from_le_bytes(take(&mut message, 4).try_into().unwrap())),
            other => panic!("wire type {other}"),
        };
        all.push((key >> 3, field));
    }
    all
}

fn field<'a>(message: &[(u64, Field<'a>)], number: u64) -> Option<Field<'a>> {
    message.iter().find(|(n, _)| *n == number).map(|(_, field)| field.clone())
}

fn bytes_of<'a>(message: &[(u64, Field<'a>)], number: u64) -> Option<&'a [u8]> {
    match field(message, number)? {
        Field::Bytes(bytes) => Some(bytes),
        other => panic!("{other:?}"),
    }
}

/// What a reader has of a run: by tag the values and images at each step.
#[derive(Debug, Default)]
struct Board {
    scalars: BTreeMap<String, Vec<(u64, f32)>>,
    images: BTreeMap<String, Vec<(u64, Vec<u8>)>>,
    /// Steps at which files began.
    starts: Vec<u64>,
}

/// The event files of a folder, as they sort.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|f| f.unwrap().path()).collect();
    files.sort();
    files
}

/// Reads all files in the order of their names; a start drops what is of its step and later ones, as TensorBoard does.
fn read(folder: &Path) -> Board {
    let mut board = Board::default();
    for path in files(folder) {
        let file = fs::read(path).unwrap();
        for (i, record) in records(&file).into_iter().enumerate() {
            let event = fields(record);
            assert!(matches!(field(&event, 1), Some(Field::Double(time)) if time > 1.7e9));
            let Some(Field::Number(step)) = field(&event, 2) else { panic!("no step") };
            if i == 0 {
                assert_eq!(bytes_of(&event, 3), Some(&b"brain.Event:2"[..]));
            }
            if let Some(log) = bytes_of(&event, 7) {
                assert_eq!((i, fields(log)), (1, vec![(1, Field::Number(1))]));
                board.starts.push(step);
                board.scalars.values_mut().for_each(|all| all.retain(|(s, _)| *s < step));
                board.images.values_mut().for_each(|all| all.retain(|(s, _)| *s < step));
            }
            for (number, value) in bytes_of(&event, 5).map(fields).unwrap_or_default() {
                let Field::Bytes(value) = value else { panic!("{value:?}") };
                assert_eq!(number, 1);
                let value = fields(value);
                let tag = String::from_utf8(bytes_of(&value, 1).unwrap().into()).unwrap();
                match (field(&value, 2), bytes_of(&value, 4)) {
                    (Some(Field::Float(x)), None) => {
                        board.scalars.entry(tag).or_default().push((step, x));
                    }
                    (None, Some(image)) => {
                        let image = fields(image);
                        let png = bytes_of(&image, 4).unwrap();
                        let info =
                            png::Decoder::new(std::io::Cursor::new(png)).read_info().unwrap();
                        let side = |n| match field(&image, n) {
                            Some(Field::Number(side)) => side as u32,
                            other => panic!("{other:?}"),
                        };
                        assert_eq!(
                            (side(2), side(1), side(3)),
                            (info.info().width, info.info().height, 3)
                        );
                        board.images.entry(tag).or_default().push((step, png.into()));
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
    }
    board
}

const NET: &str = "--channels 8 --mult 1 --blocks 1 --dropout 0 --precond edm --batch 8 --lr 2e-3 --ema-rate 0.9 --epochs 30 \
                   --evaluations 3 --score-images 20 --rescore-images 20";

fn go(dir: &Path, line: &str) -> Ended {
    emm_in(dir, line.split_whitespace())
}

fn digits(dir: &Path) {
    let from = concat!(env!("CARGO_MANIFEST_DIR"), "/data/digits8x8-images-idx3-ubyte");
    emm_in(dir, ["data", "import", from, "--out", "all.zip"]).ok();
    go(dir, "data subset all.zip --size 8 --out d.zip").ok();
}

/// Step and value of a column of `scores.csv`.
fn column(path: &Path, name: &str) -> Vec<(u64, f32)> {
    let mut reader = csv::Reader::from_path(path).unwrap();
    let at = reader.headers().unwrap().iter().position(|h| h == name).unwrap();
    let rows = reader.records().map(Result::unwrap);
    rows.map(|r| (r[0].parse().unwrap(), r[at].parse::<f64>().unwrap() as f32)).collect()
}

#[test]
fn a_run_shows_what_its_files_say_and_no_step_twice() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    digits(dir);
    let train =
        |more: &str| go(dir, &format!("train --data d.zip --run r {NET} --tensorboard tb {more}"));
    assert_eq!(train("--stop-after-steps 17 --save-every 4").code, 75);
    let seen = read(&dir.join("tb/r"));
    assert_eq!(seen.starts, [0]);
    let file = |name: &str| dir.join(name);
    fs::copy(file("r/state/state.safetensors"), file("of-17")).unwrap();
    train("").ok();
    let all = read(&dir.join("tb/r"));
    assert_eq!((&all.starts[..], files(&dir.join("tb/r")).len()), (&[0, 18][..], 2));
    for (tag, name) in [
        ("memorization/ratio", "ratio"),
        ("memorization/ratio, 95% from", "low"),
        ("memorization/ratio, 95% to", "high"),
        ("memorization/mean distance to the nearest", "mean_d1"),
    ] {
        assert_eq!(all.scalars[tag], column(&dir.join("r/scores.csv"), name), "{tag}");
    }
    let steps = |all: &[(u64, f32)]| all.iter().map(|v| v.0).collect::<Vec<_>>();
    let once = |all: &[u64]| all.is_sorted_by(|a, b| a < b);
    for (tag, values) in &all.scalars {
        assert!(once(&steps(values)), "{tag}: {values:?}");
    }
    // A row of stats.jsonl is a row here.
    let lines = fs::read_to_string(dir.join("r/stats.jsonl")).unwrap();
    let lines: Vec<serde_json::Value> =
        lines.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let of = |key: &str, value: &str| -> Vec<(u64, f32)> {
        let rows = lines.iter().filter(|l| l.get(key).is_some() && l.get("Loss/loss").is_some());
        rows.map(|l| (l["step"].as_u64().unwrap(), l[key][value].as_f64().unwrap() as f32))
            .collect()
    };
    assert!(of("Loss/loss", "mean").len() >= 4);
    assert_eq!(all.scalars["training/loss"], of("Loss/loss", "mean"));
    assert_eq!(all.scalars["training/loss, standard deviation"], of("Loss/loss", "std"));
    assert_eq!(all.scalars["training/epoch"], of("Progress/epoch", "mean"));
    assert!(all.scalars["training/images per second"].iter().all(|v| v.1 > 0.0));
    assert!(all.scalars["training/learning rate"].iter().all(|v| (0.0..=2e-3f32).contains(&v.1)));
    let sheets: Vec<u64> = all.images["samples"].iter().map(|v| v.0).collect();
    assert_eq!(sheets, [10, 20, 30]);

    // An older state is put back: what came after it is shown once, as it comes again.
    fs::copy(file("of-17"), file("r/state/state.safetensors")).unwrap();
    train("").ok();
    let again = read(&dir.join("tb/r"));
    assert_eq!(again.starts, [0, 18, 18]);
    assert_eq!(again.scalars["memorization/ratio"], all.scalars["memorization/ratio"]);
    assert_eq!(again.images["samples"], all.images["samples"]);
    assert!(once(&steps(&again.scalars["training/loss"])));
}

#[test]
fn what_cannot_be_written_ends_no_training() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    digits(dir);
    let train = |run: &str, more: &str| {
        go(dir, &format!("train --data d.zip --run {run} {NET} --tensorboard {more}"))
    };
    fs::write(dir.join("file"), "").unwrap();
    train("a", "file").refused(2, "--tensorboard: file: expected a folder", "something else");
    assert!(!dir.join("a").exists());
    // A file stands where the run's folder would be.
    fs::create_dir(dir.join("tb")).unwrap();
    fs::write(dir.join("tb/b"), "").unwrap();
    let ended = train("b", "tb --quiet");
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(ended.stderr.starts_with("--tensorboard: tb/b: cannot write: "), "{ended:?}");
    assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
    go(dir, &format!("train --data d.zip --run c {NET} --quiet")).ok();
    let scores = |run: &str| fs::read(dir.join(run).join("scores.csv")).unwrap();
    assert_eq!(scores("b"), scores("c"));
}

#[test]
fn a_search_shows_each_of_its_runs() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    digits(dir);
    go(dir, &format!("find --data d.zip --sizes 4,8 {NET} --tensorboard tb --quiet")).ok();
    let names = |folder: &str| {
        files(&dir.join(folder)).iter().map(|p| p.file_name().unwrap().into()).collect()
    };
    let (runs, shown): (Vec<std::ffi::OsString>, Vec<_>) = (names("runs"), names("tb"));
    assert_eq!((runs.len(), &runs), (2, &shown));
    assert!(
        shown
            .iter()
            .all(|run| read(&dir.join("tb").join(run)).scalars["memorization/ratio"].len() == 3)
    );
}
