//! Files that are not what they should be: each is refused with exit code 3 and one line that begins with the
//! file, and no output appears.

use super::{golden, golden_npz, gzip, labelled, text, write_png};
use crate::support::emm;
use emm::data::npy::{self, Array};
use emm::data::{Dataset, Image};
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use tempfile::{TempDir, tempdir};

/// A folder whose files are imported and refused.
pub struct Bench(TempDir);

impl Bench {
    pub fn new() -> Self {
        Bench(tempdir().unwrap())
    }

    /// A file of this name in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Importing a file of these bytes is refused with a line that holds `holds`.
    #[track_caller]
    pub fn refuses(&self, name: &str, bytes: &[u8], holds: &str) {
        let path = self.0.path().join(name);
        fs::write(&path, bytes).unwrap();
        self.refuses_path(&path, &[], holds);
        fs::remove_file(path).unwrap();
    }

    /// Importing `path` with more arguments is refused.
    #[track_caller]
    pub fn refuses_path(&self, path: &Path, args: &[&str], holds: &str) {
        let out = self.0.path().join("out.zip");
        let before = listing(self.0.path());
        let import = ["data", "import", text(path), "--out", text(&out)];
        emm(import.iter().chain(args)).refused(3, text(path), holds);
        assert_eq!(listing(self.0.path()), before, "left something behind");
    }
}

/// Names in a folder.
pub fn listing(folder: &Path) -> Vec<String> {
    let name = |e: std::io::Result<fs::DirEntry>| e.unwrap().file_name().into_string().unwrap();
    let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(name).collect();
    names.sort();
    names
}

/// A zip of entries with any names, each stored or deflated, with the size it declares.
pub fn zip_of(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let raw = entries.iter().map(|&(n, b)| (n, b.to_vec(), 0, b.len() as u32, crc(b)));
    raw_zip(&raw.collect::<Vec<_>>())
}

pub fn crc(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

/// Entries as (name, bytes in the file, method, declared size, checksum).
pub fn raw_zip(entries: &[(&str, Vec<u8>, u16, u32, u32)]) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for (name, bytes, method, size, crc) in entries {
        let mut fields = Vec::new();
        fields.extend([20, 0, 0, 0]);
        fields.extend(method.to_le_bytes());
        fields.extend([0, 0, 0x21, 0]);
        fields.extend(crc.to_le_bytes());
        fields.extend((bytes.len() as u32).to_le_bytes());
        fields.extend(size.to_le_bytes());
        fields.extend((name.len() as u16).to_le_bytes());
        fields.extend([0, 0]);
        directory.extend(b"PK\x01\x02\x14\0");
        directory.extend(&fields);
        directory.extend([0; 10]);
        directory.extend((out.len() as u32).to_le_bytes());
        directory.extend(name.as_bytes());
        out.extend(b"PK\x03\x04");
        out.extend(&fields);
        out.extend(name.as_bytes());
        out.extend(bytes);
    }
    let count = (entries.len() as u16).to_le_bytes();
    let start = out.len() as u32;
    out.extend(&directory);
    out.extend(b"PK\x05\x06\0\0\0\0");
    out.extend([count, count].concat());
    out.extend((directory.len() as u32).to_le_bytes());
    out.extend(start.to_le_bytes());
    out.extend([0, 0]);
    out
}

pub fn png(side: usize, channels: usize) -> Vec<u8> {
    Image::encode(side, side, channels, &vec![7; side * side * channels]).unwrap()
}

#[test]
fn files_that_are_missing_empty_or_of_no_format() {
    let bench = Bench::new();
    bench.refuses_path(&bench.0.path().join("none.zip"), &[], "No such file");
    bench.refuses("empty.zip", b"", "empty");
    bench.refuses("empty.bin", b"", "empty");
    bench.refuses("text.zip", b"what is this?", "found something else");
    bench.refuses("empty.gz", &gzip(b""), "empty");
    bench.refuses("text.gz", &gzip(b"what is this?"), "found something else");
    bench.refuses("cut.gz", &gzip(&[7; 5000])[..12], "");
    let empty = bench.0.path().join("folder");
    fs::create_dir(&empty).unwrap();
    bench.refuses_path(&empty, &[], "holds no images");
    let out = bench.0.path().join("out.zip");
    let set = emm(["data", "subset", text(&empty), "--size", "1", "--out", text(&out)]);
    set.refused(3, text(&empty), "holds no images");
    emm(["data", "inspect", text(&empty), "--json"]).refused(3, text(&empty), "no images");
}

#[test]
fn zips_that_are_broken_or_play_tricks() {
    let bench = Bench::new();
    let good = zip_of(&[("a.png", &png(4, 1)), ("b.png", &png(4, 1))]);
    let path = bench.0.path().join("good.zip");
    fs::write(&path, &good).unwrap();
    assert_eq!(Dataset::open(&path).unwrap().len(), 2);
    fs::remove_file(path).unwrap();
    for len in [4, 30, 60, good.len() / 2, good.len() - 30, good.len() - 1] {
        bench.refuses("cut.zip", &good[..len], "");
    }
    let mut flipped = good.clone();
    flipped[35 + 60] ^= 1;
    bench.refuses("flipped.zip", &flipped, "a.png");
    bench.refuses("none.zip", &zip_of(&[]), "no images");
    bench.refuses("text.zip", &zip_of(&[("readme.txt", b"x")]), "no images");
    let twice = zip_of(&[("a.png", &png(4, 1)), ("a.png", &png(4, 1))]);
    bench.refuses("twice.zip", &twice, "same name");
    for name in ["../a.png", "/a.png", "x/../../a.png", "C:/a.png", "x\\..\\a.png"] {
        bench.refuses("trick.zip", &zip_of(&[(name, &png(4, 1))]), "leads outside");
    }
    let encrypted: Vec<u8> = {
        let mut bytes = zip_of(&[("a.png", &png(4, 1))]);
        let directory = bytes.windows(4).position(|w| w == b"PK\x01\x02").unwrap();
        bytes[6] |= 1;
        bytes[directory + 8] |= 1;
        bytes
    };
    bench.refuses("locked.zip", &encrypted, "a.png");
}

#[test]
fn bombs_do_not_go_off() {
    let bench = Bench::new();
    let claims = |size| raw_zip(&[("a.png", png(4, 1), 0, size, crc(&png(4, 1)))]);
    bench.refuses("claims.zip", &claims(300 << 20), "stored in");
    // 257 MiB of zeros that claim to be 100 bytes.
    let zeros = vec![0; 257 << 20];
    let packed = gzip(&zeros);
    let deflated = packed[10..packed.len() - 8].to_vec();
    let lies = raw_zip(&[("a.png", deflated, 8, 100, crc(&zeros))]);
    bench.refuses("lies.zip", &lies, "a.png");
    // A PNG of 4·10⁹ pixels in a few bytes: header with its own checksum.
    let mut huge = png(4, 1);
    huge[16..24].copy_from_slice(&[0, 1, 0, 0, 0, 1, 0, 0]);
    let sum = crc(&huge[12..29]).to_be_bytes();
    huge[29..33].copy_from_slice(&sum);
    bench.refuses("huge.zip", &zip_of(&[("a.png", &huge)]), "65536x65536");
    bench.refuses(
        "set.npz",
        &zip_of(&[("images.npy", &npy_header("|u1", "(9999999, 99999, 9999999)"))]),
        "",
    );
    bench.refuses("big.tar", &tar_of(&[("data_batch_1", b"x", Some(3 << 30))]), "at most");
}

/// The PNG with its pixels' stream changed, and its chunk's checksum made right again.
fn with_stream(png: &[u8], change: impl Fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
    let at = png.windows(4).position(|w| w == b"IDAT").unwrap();
    let len = u32::from_be_bytes(png[at - 4..at].try_into().unwrap()) as usize;
    let chunk = [b"IDAT", &change(&png[at + 4..at + 4 + len])[..]].concat();
    let length = (chunk.len() as u32 - 4).to_be_bytes();
    let sum = crc(&chunk).to_be_bytes();
    [&png[..at - 4], &length, &chunk, &sum, &png[at + 4 + len + 4..]].concat()
}

#[test]
fn a_pngs_pixels_end_where_its_size_says() {
    let bench = Bench::new();
    let one = |bytes: &[u8]| zip_of(&[("a.png", &png(8, 1)), ("b.png", bytes)]);
    let same = with_stream(&png(8, 1), |stream| stream.to_vec());
    assert_eq!(same, png(8, 1));
    let without_sum = with_stream(&same, |stream| stream[..stream.len() - 4].to_vec());
    bench.refuses("sum.zip", &one(&without_sum), "b.png");
    let behind = with_stream(&same, |stream| [stream, b"xyz"].concat());
    bench.refuses("behind.zip", &one(&behind), "b.png: more pixels than its size says");
    // A row more than there are, and very many.
    for rows in [9, 1_000_000] {
        let longer = with_stream(&same, |_| {
            let mut packed = flate2::write::ZlibEncoder::new(Vec::new(), Default::default());
            packed.write_all(&vec![0; 9 * rows]).unwrap();
            packed.finish().unwrap()
        });
        bench.refuses("longer.zip", &one(&longer), "b.png: more pixels than its size says");
    }
    bench.refuses("two.zip", &one(&[&same[..], &same].concat()), "bytes behind its end");
}

#[test]
fn pngs_that_no_set_may_hold() {
    let bench = Bench::new();
    let files = golden_npz("odd.npz");
    let bytes = |name: &str| files[name].clone().of::<u8>(name).unwrap().1;
    let one = |bytes: &[u8]| zip_of(&[("a.png", &png(8, 1)), ("b.png", bytes)]);
    bench.refuses("rgba.zip", &one(&bytes("rgba.png")), "transparency");
    bench.refuses("alpha.zip", &one(&bytes("grey_alpha.png")), "transparency");
    bench.refuses("wide.zip", &one(&bytes("wide.png")), "16 bits");
    bench.refuses("lossy.zip", &one(&bytes("photo.jpg")), "--allow-lossy");
    bench.refuses("text.zip", &one(b"not a png"), "b.png: expected a PNG");
    bench.refuses("name.zip", &zip_of(&[("a\nb.png", b"not a png")]), "a b.png");
    bench.refuses("empty.zip", &one(b""), "b.png");
    bench.refuses("cut.zip", &one(&png(8, 1)[..70]), "b.png");
    let end = png(8, 1).len() - 6;
    bench.refuses("end.zip", &one(&png(8, 1)[..end]), "b.png");
    let mut flipped = png(8, 1);
    flipped[60] ^= 4;
    bench.refuses("flipped.zip", &one(&flipped), "b.png");
    bench.refuses("size.zip", &one(&png(4, 1)), "expected 8x8 pixels and 1 channels");
    bench.refuses("rgb.zip", &one(&png(8, 3)), "--rgb");
    let oblong = Image::encode(8, 4, 1, &[0; 32]).unwrap();
    bench.refuses("oblong.zip", &zip_of(&[("a.png", &oblong)]), "8x4");
}

#[test]
fn labels_that_do_not_fit() {
    let bench = Bench::new();
    let with = |json: &str| {
        zip_of(&[("a.png", &png(4, 1)), ("b.png", &png(4, 1)), ("dataset.json", json.as_bytes())])
    };
    let refuses = |labels: &str, holds: &str| {
        bench.refuses("labels.zip", &with(&format!("{{\"labels\": {labels}}}")), holds);
    };
    refuses(r#"[["a.png", 0]]"#, r#"no label for "b.png""#);
    refuses(r#"[["a.png", 0], ["b.png", 1], ["c.png", 1]]"#, "3 labels for 2 images");
    refuses(r#"[["a.png", 0], ["a.png", 1]]"#, "two labels");
    refuses(r#"[["a.png", [0.5, 1]], ["b.png", 1]]"#, "one class index");
    refuses(r#"[["a.png", -1], ["b.png", 1]]"#, "found -1");
    refuses(r#"[["a.png", 0.5], ["b.png", 1]]"#, "found 0.5");
    refuses(r#"[["a.png", 99999999], ["b.png", 1]]"#, "no class index");
    refuses(r#"[["a.png"], ["b.png"]]"#, "dataset.json");
    refuses("{}", "dataset.json");
    bench.refuses("json.zip", &with("{\"labels\": [[\"a.png\""), "dataset.json");
    bench.refuses("json.zip", &with("not json"), "dataset.json");
}

/// A tar of members with any names, of their own or a declared size.
pub fn tar_of(members: &[(&str, &[u8], Option<u64>)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, bytes, size) in members {
        let mut header = tar::Header::new_ustar();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(size.unwrap_or(bytes.len() as u64));
        header.set_entry_type(tar::EntryType::Regular);
        header.set_cksum();
        out.extend(header.as_bytes());
        out.extend(*bytes);
        out.resize(out.len().next_multiple_of(512), 0);
    }
    out.resize(out.len() + 1024, 0);
    out
}

#[test]
fn cifar_archives_that_are_broken() {
    let bench = Bench::new();
    for kind in ["python", "binary"] {
        let good = fs::read(golden(&format!("cifar-10-{kind}.tar.gz"))).unwrap();
        for len in [100, good.len() / 2, good.len() - 9, good.len() - 1] {
            bench.refuses("cut.tar.gz", &good[..len], "");
        }
        let mut flipped = good.clone();
        flipped[good.len() / 2] ^= 0x10;
        bench.refuses("flipped.tar.gz", &flipped, "");
    }
    let record = [vec![3], vec![0; 3072]].concat();
    let batch = |i| format!("cifar-10-batches-bin/data_batch_{i}.bin");
    let names: Vec<String> = (1..=5).map(batch).collect();
    let with = |third: &[u8]| {
        let member = |i: usize| (names[i].as_str(), if i == 2 { third } else { &record[..] }, None);
        tar_of(&(0..5).map(member).collect::<Vec<_>>())
    };
    let good = with(&record);
    for len in [600, 512 * 9, good.len() / 2] {
        bench.refuses("cut.tar", &good[..len], "");
    }
    bench.refuses("short.tar", &with(&record[..3072]), "data_batch_3.bin: expected records");
    bench.refuses("empty.tar", &with(b""), "data_batch_3.bin");
    bench.refuses("label.tar", &with(&[vec![10], vec![0; 3072]].concat()), "label 10 of image 2");
    bench.refuses("one.tar", &tar_of(&[(&names[0], &record, None)]), "data_batch_2 is missing");
    bench.refuses("no.tar", &tar_of(&[("readme.txt", b"x", None)]), "data_batch_1 is missing");
    let twice = [(names[0].as_str(), &record[..], None), ("data_batch_1.bin", &record, None)];
    bench.refuses("twice.tar", &tar_of(&twice), "twice");
    for name in ["../data_batch_1.bin", "/data_batch_1.bin"] {
        bench.refuses("trick.tar", &tar_of(&[(name, &record, None)]), "leads outside");
    }
    bench.refuses("batch.bin", &record[1..], "expected records of 3073 bytes");
    bench.refuses("batch.bin", &[vec![255], vec![0; 3072]].concat(), "label 255");
}

#[test]
fn pickles_that_are_no_batch() {
    let bench = Bench::new();
    let with = |first: &[u8]| {
        let names: Vec<String> = (1..=5).map(|i| format!("data_batch_{i}")).collect();
        let members: Vec<_> = names.iter().map(|n| (n.as_str(), first, None)).collect();
        tar_of(&members)
    };
    let archive = fs::read(golden("cifar-10-python.tar.gz")).unwrap();
    let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(&archive[..]));
    let mut good = Vec::new();
    for entry in tar.entries().unwrap() {
        let mut entry = entry.unwrap();
        if entry.path_bytes().ends_with(b"data_batch_1") {
            std::io::Read::read_to_end(&mut entry, &mut good).unwrap();
        }
    }
    let edited = |from: &[u8], to: &[u8]| {
        let at = good.windows(from.len()).position(|w| w == from).unwrap();
        [&good[..at], to, &good[at + from.len()..]].concat()
    };
    let path = bench.0.path().join("good.tar");
    fs::write(&path, with(&good)).unwrap();
    emm(["data", "inspect", text(&path)]).ok();
    bench.refuses("text.tar", &with(b"not a pickle"), "data_batch_1: not a readable pickle");
    bench.refuses("cut.tar", &with(&good[..200]), "not a readable pickle");
    bench.refuses("list.tar", &with(b"\x80\x02]."), "no dict");
    bench.refuses("empty.tar", &with(b"\x80\x02}."), "no data");
    bench.refuses("key.tar", &with(&edited(b"U\x06labels", b"U\x06lebals")), "found no labels");
    bench.refuses("width.tar", &with(&edited(b"M\x00\x0c", b"M\x00\x0b")), "found shape");
    bench.refuses("rows.tar", &with(&edited(b"M\x04\x00", b"M\x05\x00")), "found shape");
    bench.refuses("fortran.tar", &with(&edited(b"tb\x89T", b"tb\x88T")), "Fortran");
    bench.refuses("type.tar", &with(&edited(b"U\x01|NNN", b"U\x01<NNN")), "found shape");
    bench.refuses("count.tar", &with(&edited(b"K\x07e", b"e")), "found 3 labels for 4 images");
    bench.refuses("label.tar", &with(&edited(b"K\x07e", b"K\x0be")), "label 11 of image 3");
    bench.refuses("kind.tar", &with(&edited(b"K\x07e", b"Ne")), "no integer");
}

#[test]
fn idx_files_that_are_broken() {
    let bench = Bench::new();
    let images = |n: u8, body: usize| {
        [&[0, 0, 8, 3, 0, 0, 0, n, 0, 0, 0, 4, 0, 0, 0, 4][..], &vec![9; body]].concat()
    };
    bench.refuses("x-idx3-ubyte", &images(2, 31), "does not fit 31 bytes");
    bench.refuses("x-idx3-ubyte", &images(2, 33), "does not fit 33 bytes");
    bench.refuses("x-idx3-ubyte", &images(0, 0), "holds nothing");
    bench.refuses("x-idx3-ubyte", &images(2, 32)[..10], "expected an IDX file of images");
    bench.refuses("x-idx3-ubyte.gz", &gzip(&images(2, 32))[..25], "");
    bench.refuses("x-idx1-ubyte", &[0, 0, 8, 1, 0, 0, 0, 1, 5], "expected a file of images");
    let huge = [&[0, 0, 8, 3][..], &[255; 12]].concat();
    bench.refuses("x-idx3-ubyte", &huge, "does not fit");
    // Labels beside that do not belong.
    let dir = bench.0.path();
    let [image_file, label_file] =
        ["t-images-idx3-ubyte", "t-labels-idx1-ubyte"].map(|n| dir.join(n));
    fs::write(&image_file, images(2, 32)).unwrap();
    let out = dir.join("out.zip");
    let import = |args: &[&Path]| {
        emm(["data", "import", "--out", text(&out)].into_iter().chain(args.iter().map(|p| text(p))))
    };
    for (labels, holds) in [
        (&[0, 0, 8, 1, 0, 0, 0, 3, 1, 2, 3][..], "3 labels for 2 images"),
        (&[0, 0, 8, 1, 0, 0, 0, 2, 1], "does not fit"),
        (&[0, 0, 8, 3, 0, 0, 0, 2, 1, 2], "expected an IDX file of labels"),
        (b"", "empty"),
    ] {
        fs::write(&label_file, labels).unwrap();
        import(&[&image_file]).refused(3, text(&label_file), holds);
    }
    import(&[&image_file, &image_file]).refused(3, text(&image_file), "one of labels");
    import(&[&image_file, &image_file, &image_file]).refused(2, text(&image_file), "one source");
    assert!(!out.exists());
}

fn npy_header(descr: &str, shape: &str) -> Vec<u8> {
    let dict = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n");
    [b"\x93NUMPY\x01\x00", &(dict.len() as u16).to_le_bytes()[..], dict.as_bytes()].concat()
}

#[test]
fn npz_files_that_are_broken() {
    let bench = Bench::new();
    let path = bench.0.path().join("x.npz");
    let refuses = |arrays: &[(&str, Array)], holds: &str| {
        npy::write_npz(&path, true, arrays).unwrap();
        bench.refuses_path(&path, &[], holds);
    };
    let images = || ("images", Array::new(&[2, 4, 4], vec![0_u8; 32]));
    refuses(&[("x", images().1)], "named images");
    refuses(
        &[("images", Array::new(&[2, 4, 4], vec![0_f32; 32]))],
        "expected images of unsigned bytes (|u1), found <f4",
    );
    refuses(&[("images", Array::new(&[2, 16], vec![0_u8; 32]))], "found [2, 16]");
    refuses(&[("images", Array::new(&[2, 2, 4, 2], vec![0_u8; 32]))], "found [2, 2, 4, 2]");
    refuses(&[("images", Array::new(&[0, 4, 4], Vec::<u8>::new()))], "no images");
    refuses(&[("images", Array::new(&[2, 2, 8], vec![0_u8; 32]))], "8x2");
    refuses(&[images(), ("labels", Array::new(&[3], vec![0_i64; 3]))], "shape [2]");
    refuses(&[images(), ("labels", Array::new(&[2, 1], vec![0_i64; 2]))], "shape [2]");
    refuses(&[images(), ("labels", Array::new(&[2], vec![0_f32; 2]))], "expected integers");
    refuses(&[images(), ("labels", Array::new(&[2], vec![0_i64, -1]))], "label -1");
    fs::remove_file(&path).unwrap();
    bench.refuses("x.npz", &zip_of(&[("images.npy", b"x"), ("y.txt", b"x")]), "y.txt is no npy");
    let arrays = golden("arrays");
    for (name, holds) in [("big_endian", ">f4"), ("half", "<f2"), ("structured", "structured")] {
        let bytes = fs::read(arrays.join(format!("{name}.npy"))).unwrap();
        bench.refuses("x.npz", &zip_of(&[("images.npy", &bytes)]), holds);
        let e = format!("{:#}", npy::read(&arrays.join(format!("{name}.npy"))).unwrap_err());
        assert!(e.starts_with(text(&arrays)) && e.contains(holds), "{e}");
    }
    let good = fs::read(arrays.join("u8.npy")).unwrap();
    for len in [0, 5, 7, 9, 40, good.len() - 1] {
        bench.refuses("x.npz", &zip_of(&[("images.npy", &good[..len])]), "images");
    }
    for (descr, shape) in [("|u1", "(2, -1)"), ("|u1", "(x,)"), ("|u1", "7"), ("|O", "(2,)")] {
        bench.refuses("x.npz", &zip_of(&[("images.npy", &npy_header(descr, shape))]), "images");
    }
    let version = [b"\x93NUMPY\x09", &good[7..]].concat();
    bench.refuses("x.npz", &zip_of(&[("images.npy", &version)]), "version 9");
    let f64s = arrays.join("f64.npy");
    assert!(npy::read_f32(&f64s).unwrap_err().to_string().contains("type <f4, found <f8"));
    assert!(npy::read_i64(&f64s).unwrap_err().to_string().contains("expected integers"));
}

#[test]
fn folders_that_are_ambiguous() {
    let bench = Bench::new();
    let root = bench.0.path().join("set");
    write_png(&root.join("a/0.png"), 4, 4, |_| 1);
    write_png(&root.join("b/0.png"), 4, 4, |_| 2);
    let refuses = |path: &str, holds: &str| {
        let out = bench.0.path().join("out.zip");
        let ended = emm(["data", "import", text(&root), "--out", text(&out)]);
        ended.refused(3, text(&root.join(path)), holds);
        assert!(!out.exists());
    };
    write_png(&root.join("0.png"), 4, 4, |_| 1);
    refuses("0.png", "beside class folders");
    fs::remove_file(root.join("0.png")).unwrap();
    write_png(&root.join("a/deep/0.png"), 4, 4, |_| 1);
    refuses("a/deep", "a folder in a class folder");
    fs::remove_dir_all(root.join("a/deep")).unwrap();
    fs::create_dir(root.join("c")).unwrap();
    refuses("c", "without images");
    fs::write(root.join("c/0.gif"), "x").unwrap();
    refuses("c/0.gif", "expected PNG, JPEG, WebP, TIFF or BMP images");
    fs::remove_dir_all(root.join("c")).unwrap();
    let photo = golden_npz("odd.npz")["photo.jpg"].clone().of::<u8>("photo").unwrap().1;
    fs::write(root.join("b/1.jpeg"), &photo).unwrap();
    refuses("b/1.jpeg", "--allow-lossy");
    fs::write(root.join("b/1.jpeg"), &photo[..photo.len() / 2]).unwrap();
    bench.refuses_path(&root, &["--allow-lossy", "--rgb", "--quiet"], "b/1.jpeg");
    fs::write(root.join("b/1.jpeg"), "").unwrap();
    refuses("b/1.jpeg", "empty");
}

#[test]
fn flags_that_do_not_fit_the_set() {
    let bench = Bench::new();
    let d = bench.0.path().join("D.zip");
    labelled(&[0, 1, 1]).save(&d, false).unwrap();
    bench.refuses_path(
        &d,
        &["--pad", "3"],
        "4x4 pixels do not fit into the 3 of `emm data import --pad`",
    );
    bench.refuses_path(&d, &["--size", "4"], "has 3 images, wants 4");
    bench.refuses_path(&d, &["--size", "3", "--spread"], "class or folder 0 has 1 images, wants 2");
    let out = bench.0.path().join("out.zip");
    let import =
        |args: &[&str]| emm(["data", "import", text(&d), "--out", text(&out)].iter().chain(args));
    import(&["--pad", "0"]).refused(2, "--pad: ", "found 0");
    for no_number in ["-1", "1e3", "", "x"] {
        import(&["--pad", no_number]).refused(2, "--pad: ", "expected a whole number");
    }
    let huge = "99999999999999999999999";
    import(&["--pad", huge]).refused(2, "--pad: ", "the number is too large");
    import(&["--resolution", "5000"]).refused(2, "--resolution: ", "found 5000");
    import(&["--size", "0"]).refused(2, "--size: ", "found 0");
    let subset = ["data", "subset", text(&d), "--out", text(&out), "--size", "99999999999999"];
    emm(subset).refused(3, text(&d), "class 0 has 1 images, wants 49999999999999");
    Dataset { labels: None, ..labelled(&[0; 3]) }.save(&d, true).unwrap();
    import(&["--size", "1", "--spread"]).refused(2, "--spread: ", "neither classes nor folders");
    import(&[text(bench.0.path())]).refused(2, text(bench.0.path()), "cannot be mixed");
    import(&[text(&d)]).refused(2, text(&d), "one source at a time");
    assert!(!out.exists());
}
