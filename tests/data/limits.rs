//! Small files that unpack to large ones, and processes that may use little memory: one line, exit code 4, and nothing
//! half-written.

use super::bad_input::{crc, listing, raw_zip, tar_of};
use super::{gzip, text};
use crate::support::{Ended, emm};
use emm::data::{Dataset, Options, open_within};
use emm::memory::Budget;
use std::fs::{self, File};
use std::io::{Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::{TempDir, tempdir};

/// What bombs unpack to, in bytes: more than the address space that they are read in.
const LARGE: u64 = 400 << 20;
const ADDRESSES_KIB: u64 = 200 << 10;

/// Runs `emm ARGS` in an address space of so many KiB.
fn emm_within<'a>(kib: u64, args: impl IntoIterator<Item = &'a str>) -> Ended {
    let mut command = Command::new("sh");
    let limited = format!("ulimit -v {kib}; exec \"$0\" \"$@\"");
    Ended::of(command.args(["-c", &limited, env!("CARGO_BIN_EXE_emm")]).args(args))
}

/// Zeros behind `head`.
fn zeros(head: &[u8], len: u64) -> Box<dyn Read> {
    Box::new(std::io::Cursor::new(head.to_vec()).chain(std::io::repeat(0).take(len)))
}

/// What `reader` gives, gzipped, and the checksum and length of it.
fn packed(mut reader: impl Read) -> (Vec<u8>, u32, u64) {
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let (mut chunk, mut sum, mut len) = (vec![0; 1 << 20], flate2::Crc::new(), 0);
    loop {
        let n = reader.read(&mut chunk).unwrap();
        if n == 0 {
            return (gz.finish().unwrap(), sum.sum(), len);
        }
        gz.write_all(&chunk[..n]).unwrap();
        sum.update(&chunk[..n]);
        len += n as u64;
    }
}

/// A zip entry of what `reader` gives.
fn entry(name: &str, reader: impl Read) -> (&str, Vec<u8>, u16, u32, u32) {
    let (gz, sum, len) = packed(reader);
    (name, gz[10..gz.len() - 8].to_vec(), 8, len as u32, sum)
}

/// The file as a bomb, refused with exit code `code`, within its budget and its address space.
#[track_caller]
fn refuses(dir: &TempDir, name: &str, bytes: &[u8], code: i32, holds: &str) {
    assert!((bytes.len() as u64) < LARGE / 50, "{name}: {} bytes are no bomb", bytes.len());
    let (path, out) = (dir.path().join(name), dir.path().join("out.zip"));
    fs::write(&path, bytes).unwrap();
    let import = ["data", "import", text(&path), "--out", text(&out), "--threads", "2"];
    for limit in [&["--max-memory", "32M"][..], &[]] {
        emm_within(ADDRESSES_KIB, import.iter().chain(limit).copied()).refused(
            code,
            text(&path),
            holds,
        );
    }
    assert_eq!(listing(dir.path()), [name]);
    fs::remove_file(path).unwrap();
}

#[test]
fn bombs_of_every_format_are_refused_before_they_take_memory() {
    let dir = tempdir().unwrap();
    let refuses = |name: &str, bytes: &[u8], holds: &str| refuses(&dir, name, bytes, 4, holds);
    let budget = "--max-memory";

    let side = |n: u64| (n as u32).to_be_bytes();
    let idx = [&[0, 0, 8, 3][..], &side(LARGE / 1024), &side(32), &side(32)].concat();
    refuses("idx.gz", &packed(zeros(&idx, LARGE)).0, budget);

    let header = |shape: &str| {
        let dict = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}\n");
        [b"\x93NUMPY\x01\x00", &(dict.len() as u16).to_le_bytes()[..], dict.as_bytes()].concat()
    };
    let npy = header(&format!("({}, 32, 32)", LARGE / 1024));
    refuses("x.npz", &raw_zip(&[entry("images.npy", zeros(&npy, LARGE))]), budget);

    let names: Vec<String> = (1..=5).map(|i| format!("c/data_batch_{i}.bin")).collect();
    let record = LARGE / 5 / 3073 * 3073;
    let padded = record.next_multiple_of(512);
    let archive = names.iter().map(|name| -> Box<dyn Read> {
        let member = tar_of(&[(name, b"", Some(record))]);
        zeros(&member[..512], padded)
    });
    let archive =
        archive.fold(Box::new(std::io::empty()) as Box<dyn Read>, |a, b| Box::new(a.chain(b)));
    refuses("cifar.tar.gz", &packed(archive.chain(zeros(b"", 1024))).0, budget);

    let entries =
        [entry("a.png", zeros(b"\x89PNG\r\n\x1a\n", LARGE / 2)), entry("b.png", zeros(b"", 9))];
    refuses("png.zip", &raw_zip(&entries), budget);
    // 9000×9000 pixels of one bit, forty times.
    let image = png_of(9000);
    let many: Vec<String> = (0..40).map(|i| format!("{i}.png")).collect();
    let stored =
        |name: &'_ String| (name.clone(), image.clone(), 0, image.len() as u32, crc(&image));
    let many: Vec<_> = many.iter().map(stored).collect();
    let many: Vec<_> =
        many.iter().map(|(n, b, m, s, c)| (n.as_str(), b.clone(), *m, *s, *c)).collect();
    refuses("many.zip", &raw_zip(&many), budget);
}

#[test]
fn lists_and_extensions_without_end_take_no_memory() {
    let dir = tempdir().unwrap();
    let png = super::bad_input::png(4, 1);
    let image = || ("a.png", png.clone(), 0, png.len() as u32, crc(&png));
    let text = b"[\"\",0],".repeat(1 << 17);
    let list = std::iter::repeat_n(text, 25)
        .fold(Box::new(&b"{\"labels\": ["[..]) as Box<dyn Read>, |all, part| {
            Box::new(all.chain(std::io::Cursor::new(part)))
        });
    let json = entry("dataset.json", list.chain(&b"[\"\",0]]}"[..]));
    refuses(&dir, "json.zip", &raw_zip(&[image(), json]), 3, "two labels");

    let deep =
        [b"\x80\x02".to_vec(), b"]".repeat(1_500_000), b"a".repeat(1_499_999), b".".to_vec()]
            .concat();
    let tuples = [b"\x80\x02)".to_vec(), b"\x85".repeat(3_000_000), b".".to_vec()].concat();
    let mut laughs = [b"\x80\x02X\xe8\x03\0\0", &b"a".repeat(1000)[..], b"q\0"].concat();
    for i in 0..12 {
        laughs.push(b'(');
        laughs.extend([b'h', i].repeat(10));
        laughs.extend([b'l', b'q', i + 1]);
    }
    laughs.push(b'.');
    for (name, pickle, holds) in [
        ("deep.tar.gz", deep, "no dict"),
        ("tuples.tar.gz", tuples, "no dict"),
        ("laughs.tar.gz", laughs, "no dict"),
        ("endless.tar.gz", b"N".repeat(5_000_000), "data_batch_1"),
    ] {
        let names: Vec<String> = (1..=5).map(|i| format!("data_batch_{i}")).collect();
        let members: Vec<_> = names.iter().map(|n| (n.as_str(), &pickle[..], None)).collect();
        let path = dir.path().join(name);
        fs::write(&path, gzip(&tar_of(&members))).unwrap();
        for limit in [&["--max-memory", "800M"][..], &[]] {
            let args = ["data", "inspect", path.to_str().unwrap(), "--threads", "2"];
            let ended = emm_within(3 << 20, args.iter().chain(limit).copied());
            ended.refused(3, path.to_str().unwrap(), holds);
        }
        fs::remove_file(path).unwrap();
    }
    // A name of 400 MB, in an extension of the format.
    let mut long = tar_of(&[("././@LongLink", b"", Some(LARGE))]);
    long[156] = b'L';
    long[148..156].fill(b' ');
    let sum: u32 = long[..512].iter().map(|&b| u32::from(b)).sum();
    long[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let long = zeros(&long[..512], LARGE + 1024);
    refuses(&dir, "long.tar.gz", &packed(long).0, 3, "an extension of");
}

/// A grey PNG of one bit a pixel, all black.
fn png_of(side: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, side, side);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::One);
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(&vec![0; (side as usize).div_ceil(8) * side as usize]).unwrap();
    writer.finish().unwrap();
    bytes
}

#[test]
fn a_set_within_max_memory_is_read_and_one_beyond_it_is_not() {
    let dir = tempdir().unwrap();
    let d = dir.path().join("d.zip");
    Dataset::digits().save(&d, false).unwrap();
    let inspect = |limit: &str| emm(["data", "inspect", text(&d), "--max-memory", limit]);
    inspect("2M").ok();
    inspect("100K").refused(4, text(&d), "--max-memory");
    inspect("x").refused(2, "--max-memory: ", "number of bytes");
    let out = dir.path().join("out.zip");
    let padded = ["data", "import", text(&d), "--pad", "4096", "--out", text(&out)];
    emm(padded.into_iter().chain(["--max-memory", "1G"])).refused(4, text(&d), "4096x4096");
    let subset =
        ["data", "subset", text(&d), "--size", "1000", "--resolution", "4096", "--out", text(&out)];
    emm(subset.into_iter().chain(["--max-memory", "1G"])).refused(4, text(&d), "4096x4096");
    assert_eq!(listing(dir.path()), ["d.zip"]);
}

#[test]
fn memory_that_the_system_refuses_ends_a_command_with_one_line() {
    let dir = tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let [d, run, model] = ["d.zip", "run", "m.safetensors"].map(at);
    let set = Dataset::digits();
    let few = Dataset { pixels: set.pixels[..40 * 64].to_vec(), labels: None, ..set };
    few.save(&d, false).unwrap();
    let net = "--precond edm --channels 16 --mult 2,2 --blocks 1 --batch 10 --epochs 1 --looks 0 --quiet --threads 2";
    let train = |to: &PathBuf| -> Vec<String> {
        let words = ["train", "--data", text(&d), "--run", text(to)].into_iter();
        words.chain(net.split(' ')).map(String::from).collect()
    };
    emm(train(&run)).ok();
    emm(["ckpt", "export", text(&run), "--out", text(&model)]).ok();
    let before = listing(dir.path());
    let (again, samples, padded) = (at("again"), at("s.npz"), at("p.zip"));
    let words = |all: &[&str]| all.iter().map(|w| w.to_string()).collect::<Vec<_>>();
    let commands = [
        train(&again),
        words(&[
            "sample",
            "--model",
            text(&model),
            "--seeds",
            "0-2999",
            "--batch",
            "3000",
            "--steps",
            "1",
            "--threads",
            "2",
            "--quiet",
            "--out",
            text(&samples),
        ]),
        words(&[
            "data",
            "import",
            text(&d),
            "--pad",
            "512",
            "--max-memory",
            "4G",
            "--threads",
            "2",
            "--out",
            text(&padded),
        ]),
        words(&["data", "inspect", text(&d), "--threads", "200"]),
    ];
    let mut ends = [[0; 2]; 4];
    // The program with its kernels is 21 MB: with less than these no Rust program of its size starts.
    for kib in (28_000..63_000).step_by(5_000).chain([150_000, 158_000]) {
        for (command, ends) in commands.iter().zip(&mut ends) {
            let ended = emm_within(kib, command.iter().map(String::as_str));
            let line = ended.stderr.lines().collect::<Vec<_>>();
            match ended.code {
                0 => ends[0] += 1,
                4 => {
                    assert!(
                        line.len() == 1 && line[0].starts_with("emm: "),
                        "{kib}: {command:?}: {ended:?}"
                    );
                    ends[1] += 1;
                }
                _ => panic!("{kib}: {command:?}: {ended:?}"),
            }
            for made in [&again, &samples, &padded] {
                assert!(ended.code == 0 || !made.exists(), "{kib}: left {}", made.display());
                let _ = fs::remove_dir_all(made).or_else(|_| fs::remove_file(made));
            }
            assert_eq!(listing(dir.path()), before, "{kib}: {command:?}");
        }
    }
    assert!(ends.iter().all(|[_, refused]| *refused > 0), "{ends:?}");
    assert!(ends[0][0] > 0 && ends[2][0] > 0, "{ends:?}");
}

#[test]
fn what_is_no_plain_file_is_refused_without_waiting() {
    let dir = tempdir().unwrap();
    let folder = dir.path().join("set");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("a.png"), super::bad_input::png(4, 1)).unwrap();
    let pipe = folder.join("b.png");
    let made = Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    for path in [&folder, &pipe] {
        emm(["data", "inspect", text(path)]).refused(
            3,
            text(&pipe),
            "a device or pipe, expected a file",
        );
    }
    emm(["ckpt", "convert", text(&pipe), "--out", "never.safetensors"]).refused(
        3,
        text(&pipe),
        "a device or pipe",
    );
    emm(["data", "inspect", "/dev/null"]).refused(
        3,
        "/dev/null",
        "a device or pipe, expected a file",
    );
    emm(["ckpt", "info", "/dev/null"]).refused(3, "/dev/null", "a device or pipe");
    let model = ["sample", "--seeds", "0", "--out", "never.png", "--model", text(&folder)];
    emm(model).refused(3, text(&folder), "a folder, expected a file");
    assert!(!Path::new("never.png").exists());
    // Names that lead nowhere.
    let ring = dir.path().join("ring");
    std::os::unix::fs::symlink(&ring, &ring).unwrap();
    for path in [&ring, &dir.path().join("n".repeat(300))] {
        emm(["data", "inspect", text(path)]).refused(3, text(path), "os error");
        emm(["ckpt", "info", text(path)]).refused(3, text(path), "os error");
    }
}

#[test]
fn a_file_that_has_no_place_among_the_addresses_is_one_line() {
    let dir = tempdir().unwrap();
    for (name, head) in [("x.npy", &b"\x93NUMPY\x01\0"[..]), ("x.zip", b"PK\x03\x04")] {
        let path = dir.path().join(name);
        fs::write(&path, head).unwrap();
        File::options().write(true).open(&path).unwrap().set_len(2 << 30).unwrap();
        let ended = emm_within(1 << 20, ["data", "inspect", text(&path), "--threads", "2"]);
        ended.refused(4, text(&path), "addresses");
    }
}

#[test]
fn a_member_takes_its_size_and_no_more() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("c.tar");
    let batch = vec![0; 45 * 3073];
    let names: Vec<String> = (1..=5).map(|i| format!("data_batch_{i}.bin")).collect();
    let members: Vec<_> = names.iter().map(|n| (n.as_str(), &batch[..], None)).collect();
    fs::write(&path, gzip(&tar_of(&members))).unwrap();
    // The five members, and the images made of the first.
    let needed = 6 * 46 * 3076;
    let open = |bytes| {
        open_within(std::slice::from_ref(&path), &Options::default(), &Budget::of(bytes))
            .map(|s| s.len())
    };
    assert_eq!(open(needed).unwrap(), 225);
    assert!(open(5 * 45 * 3073).is_err());
}
