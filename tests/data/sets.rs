//! Sets in the forms that people have them in: Parquet, MATLAB, STL-10, CIFAR-100, WebDataset.

use super::bad_input::{Bench, png, tar_of};
use super::{golden, golden_npz, gzip, text};
use crate::support::emm;
use emm::data::{Dataset, Image};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::tempdir;

fn sets(name: &str) -> PathBuf {
    golden("sets").join(name)
}

/// A set of `images` and `labels` in an npz that Python wrote.
fn expected(name: &str) -> Dataset {
    let arrays = golden_npz(&format!("sets/{name}"));
    let (shape, pixels) = arrays["images"].clone().of::<u8>("images").unwrap();
    let (_, labels) = arrays["labels"].clone().integers("labels").unwrap();
    let labels = labels.into_iter().map(|l| l as u32).collect();
    Dataset::new("test", shape[1], shape[3], pixels, Some(labels)).unwrap()
}

fn of(set: &Dataset) -> (&[u8], Option<&[u32]>) {
    (&set.pixels, set.labels.as_deref())
}

#[test]
fn parquet_reads_however_it_is_packed() {
    let set = expected("parquet.npz");
    let names: Vec<String> = (0..7).map(|i| format!("train_{i}.png")).collect();
    for name in ["snappy", "gzip", "zstd", "plain"] {
        let read = Dataset::open(&sets(&format!("{name}.parquet"))).unwrap();
        assert_eq!(of(&read), of(&set), "{name}");
        assert_eq!(read.names, if name == "plain" { vec![] } else { names.clone() }, "{name}");
    }
}

#[test]
fn shards_of_a_folder_are_one_set_and_tests_are_left_out() {
    let dir = tempdir().unwrap();
    let data = dir.path().join("set/data");
    fs::create_dir_all(&data).unwrap();
    fs::write(dir.path().join("set/README.md"), "a set").unwrap();
    for (from, to) in [
        ("zstd", "train-00001-of-00002"),
        ("snappy", "train-00000-of-00002"),
        ("plain", "test-00000-of-00001"),
    ] {
        let [from, to] = [sets(from), data.join(to)].map(|path| path.with_extension("parquet"));
        fs::copy(from, to).unwrap();
    }
    let folder = dir.path().join("set");
    let inspect = |paths: &[&Path]| {
        let args = ["data", "inspect", "--json"].into_iter();
        emm(args.chain(paths.iter().map(|path| text(path))))
    };
    let all = inspect(&[&folder]);
    assert!(all.stderr.contains("files train* are read, not "), "{all:?}");
    let all = all.json();
    assert_eq!((&all["images"], &all["duplicates"]), (&14.into(), &8.into()));
    let shards = [0, 1].map(|i| data.join(format!("train-0000{i}-of-00002.parquet")));
    assert_eq!(inspect(&[&shards[0], &shards[1]]).json(), all);
    let mixed = inspect(&[&shards[0], &sets("packed.mat")]);
    mixed.refused(3, text(&sets("packed.mat")), "expected a Parquet file");
}

#[test]
fn parquet_that_holds_no_images_is_refused() {
    let bench = Bench::new();
    let read = |name: &str| fs::read(sets(name)).unwrap();
    for (name, holds) in [
        ("lists", "expected a column image or img that holds files' bytes, found image.list"),
        ("absent", "row 1 holds no image's bytes"),
        ("brotli", "packed by Brotli"),
        ("delta", "encoding 6"),
    ] {
        bench.refuses("x.parquet", &read(&format!("{name}.parquet")), holds);
    }
    let good = read("snappy.parquet");
    bench.refuses("x.parquet", &good[..good.len() - 1], "truncated");
    let mut long = good.clone();
    let at = long.len() - 8;
    long[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    bench.refuses("x.parquet", &long, "truncated");
}

#[test]
fn mat_files_read_packed_or_not_and_ten_is_nought() {
    let set = expected("svhn.npz");
    for name in ["packed.mat", "plain.mat"] {
        let read = emm(["data", "inspect", "--json", text(&sets(name))]);
        assert!(read.stderr.contains("label 10 is read as class 0"), "{read:?}");
        assert_eq!(of(&Dataset::open(&sets(name)).unwrap()), of(&set), "{name}");
    }
    let bench = Bench::new();
    let plain = fs::read(sets("plain.mat")).unwrap();
    let edited = |from: &[u8], to: &[u8]| {
        let at = plain.windows(from.len()).position(|w| w == from).unwrap();
        [&plain[..at], to, &plain[at + from.len()..]].concat()
    };
    bench.refuses("x.mat", &edited(b"5.0 MAT", b"7.3 MAT"), "\"-v6\") makes one");
    bench.refuses("x.mat", &plain[..plain.len() / 2], "cut off");
    bench.refuses(
        "x.mat",
        &edited(b"\x01\0\x01\0X", b"\x01\0\x01\0Z"),
        "an array named X, found Z, y",
    );
    bench.refuses("x.mat", &edited(&[8, 0, 0, 0, 8], &[8, 0, 0, 0, 9]), "expected X of unsigned");
}

#[test]
fn stl_10_is_planes_of_columns_with_labels_beside() {
    let dir = tempdir().unwrap();
    let [x, y] = ["train_X.bin", "train_y.bin"].map(|name| dir.path().join(name));
    let value = |i: usize, row: usize, column: usize, c: usize| {
        (i * 91 + row * 2 + column * 3 + c * 50) as u8
    };
    let mut bytes = Vec::new();
    for i in 0..2 {
        for c in 0..3 {
            for column in 0..96 {
                bytes.extend((0..96).map(|row| value(i, row, column, c)));
            }
        }
    }
    fs::write(&x, &bytes).unwrap();
    assert_eq!(Dataset::open(&x).unwrap().labels, None);
    fs::write(&y, [10, 1]).unwrap();
    let set = Dataset::open(&x).unwrap();
    assert_eq!((set.resolution, set.labels.as_deref()), (96, Some(&[9, 0][..])));
    assert_eq!(set.image(1)[(5 * 96 + 7) * 3..][..3], [0, 1, 2].map(|c| value(1, 5, 7, c)));
    let both = emm(["data", "inspect", "--json", text(&y), text(&x)]).json();
    assert_eq!(both["label_dim"], 10);

    let refused = |path: &Path, holds: &str| {
        emm(["data", "inspect", text(&x)]).refused(3, text(path), holds);
    };
    fs::write(&y, [1, 11]).unwrap();
    refused(&y, "label 11 of image 1, expected 1 to 10");
    fs::write(&y, [1]).unwrap();
    refused(&y, "1 labels for 2 images");
    fs::write(&x, &bytes[1..]).unwrap();
    refused(&x, "expected images of 27648 bytes");
    emm(["data", "inspect", text(&y)]).refused(3, text(&y), "expected one file of images");
}

/// Three images, their coarse and fine labels.
fn cifar_100() -> (Dataset, Vec<u8>) {
    let pixels = (0..3 * 3072).map(|i| (i * 7 % 251) as u8).collect();
    let set = Dataset::new("test", 32, 3, pixels, Some(vec![99, 0, 42])).unwrap();
    let record = |i: usize| {
        let planes = (0..3).flat_map(move |c| (0..1024).map(move |p| 3 * p + c));
        let label = set.labels.as_ref().unwrap()[i] as u8;
        [vec![19, label], planes.map(|p| set.image(i)[p]).collect()].concat()
    };
    let records = (0..3).flat_map(record).collect();
    (set, records)
}

#[test]
fn cifar_100_gives_its_fine_labels() {
    let dir = tempdir().unwrap();
    let (set, records) = cifar_100();
    let planes: Vec<u8> = records.chunks(3074).flat_map(|r| r[2..].to_vec()).collect();
    // Protocol 2 of Python 2, as in the archive.
    let short = |text: &str| [&[b'U', text.len() as u8], text.as_bytes()].concat();
    let pickle = [
        b"\x80\x02}(".to_vec(),
        short("coarse_labels"),
        b"](K\x13K\x13K\x13e".to_vec(),
        short("fine_labels"),
        b"](K\x63K\x00K\x2ae".to_vec(),
        short("data"),
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85".to_vec(),
        short("b"),
        b"\x87R(K\x01M\x03\x00M\x00\x0c\x86cnumpy\ndtype\n".to_vec(),
        short("u1"),
        b"K\x00K\x01\x87R(K\x03".to_vec(),
        short("|"),
        b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T".to_vec(),
        (planes.len() as u32).to_le_bytes().to_vec(),
        planes,
        b"tbu.".to_vec(),
    ]
    .concat();
    let test = records[..3074].to_vec();
    let binary = tar_of(&[
        ("cifar-100-binary/test.bin", &test, None),
        ("cifar-100-binary/train.bin", &records, None),
    ]);
    let python = tar_of(&[
        ("cifar-100-python/meta", b"?", None),
        ("cifar-100-python/train", &pickle, None),
        ("cifar-100-python/test", b"?", None),
    ]);
    for (name, bytes) in [
        ("cifar-100-binary.tar.gz", gzip(&binary)),
        ("cifar-100-python.tar.gz", gzip(&python)),
        ("cifar-100-python.tar", python),
        ("train.bin", records.clone()),
        ("train", pickle),
    ] {
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        assert_eq!(Dataset::open(&path).unwrap(), set, "{name}");
    }
    let bench = Bench::new();
    let mut wrong = records;
    wrong[3075] = 100;
    bench.refuses("train.bin", &wrong, "label 100 of image 1, expected 0 to 99");
}

#[test]
fn webdataset_groups_files_of_one_name() {
    let dir = tempdir().unwrap();
    let images: Vec<_> = (0..3).map(|i| Image::encode(4, 4, 1, &[i * 9; 16]).unwrap()).collect();
    let first = tar_of(&[
        ("0001.png", &images[0], None),
        ("0001.cls", b"3\n", None),
        ("0001.txt", b"a digit", None),
        ("0000.json", b"{\"label\": 1, \"text\": \"one\"}", None),
        ("0000.png", &images[1], None),
    ]);
    let second = tar_of(&[("0000.cls", b"0", None), ("0000.png", &images[2], None)]);
    let folder = dir.path().join("shards");
    fs::create_dir(&folder).unwrap();
    let shards = ["train-000.tar", "train-001.tar"].map(|name| folder.join(name));
    fs::write(&shards[0], &first).unwrap();
    fs::write(&shards[1], &second).unwrap();
    let set = Dataset::open(&folder).unwrap();
    assert_eq!(set.labels.as_deref(), Some(&[3, 1, 0][..]));
    assert_eq!([0, 1, 2].map(|i| set.image(i)[0]), [0, 9, 18]);
    let names = ["train-000.tar/0001.png", "train-000.tar/0000.png", "train-001.tar/0000.png"];
    assert_eq!(set.names, names);
    // Gzipped, and given one by one.
    let packed = dir.path().join("a.tar.gz");
    fs::write(&packed, gzip(&first)).unwrap();
    let args = ["data", "inspect", "--json"];
    let both = emm(args.iter().chain(&[text(&packed), text(&shards[1])])).json();
    assert_eq!(both["sha256_pixels"], set.sha256_pixels());
    assert_eq!(both["label_counts"][3], 1);
}

#[test]
fn webdataset_that_does_not_fit_is_refused() {
    let bench = Bench::new();
    let image = png(4, 1);
    let tar = |members: &[(&str, &[u8])]| {
        tar_of(&members.iter().map(|&(name, bytes)| (name, bytes, None)).collect::<Vec<_>>())
    };
    for (members, holds) in [
        (&[("1.png", &image[..]), ("1.jpg", &image)][..], "1.jpg: a second image of this name"),
        (&[("1.png", &image), ("2.cls", b"1")], "2: a label without an image"),
        (&[("1.png", &image), ("1.cls", b"cat")], "expected a class index, found \"cat\""),
        (&[("1.png", &image), ("1.cls", b"-1")], "expected a class index, found \"-1\""),
        (&[("1.png", &image), ("1.json", b"{\"label\": \"x\"}")], "expected a class index"),
        (&[("1.png", &image), ("1.json", b"{")], "1.json: "),
        (
            &[("1.png", &image), ("1.cls", b"1"), ("1.json", b"{\"cls\": 2}")],
            "another file of this name says 1",
        ),
        (&[("1.png", &image), ("1.cls", b"1"), ("2.png", &image)], "2.png has no label"),
        (&[("1.png", b"no image")], "1.png: expected an image, found something else"),
        (&[("1.png", &image), ("../2.png", &image)], "leads outside"),
    ] {
        bench.refuses("x.tar", &tar(members), holds);
    }
    let good = tar(&[("1.png", &image), ("2.png", &image)]);
    bench.refuses("x.tar", &good[..1100], "x.tar");
    let unlabelled = bench.path("good.tar");
    fs::write(&unlabelled, &good).unwrap();
    assert_eq!(Dataset::open(&unlabelled).unwrap().labels, None);
}
