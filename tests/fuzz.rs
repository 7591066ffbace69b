//! Wrong inputs by the thousands, to every reader: none may panic, take more memory than it was given, or change what
//! a set is where the file could tell. `EMM_FUZZ_INPUTS` sets how many (50,000), `EMM_FUZZ_SEED` which.

use crate::data::bad_input::{crc, png, raw_zip, tar_of, zip_of};
use crate::data::tools;
use crate::data::zips::streamed;
use crate::data::{golden, golden_npz, gzip, labelled};
use crate::mutate::{Random, mutate};
use crate::support::passing_folder;
use anyhow::Result;
use emm::data::npy::{self, Array};
use emm::data::options::{Colour, Range};
use emm::data::{Image, Options, Transform, open_within};
use emm::error::exit_code;
use emm::memory::Budget;
use emm::model::{Arch, ModelConfig, Params, SavedModel};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use tempfile::tempdir;

/// What readers are given, and what they may take in all: buffers of decoders are not counted, inputs are small.
const BUDGET: u64 = 8 << 20;
const MOST_BYTES: i64 = 32 << 20;

/// Counts what each thread has allocated.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    static NOW: Cell<i64> = const { Cell::new(0) };
    static PEAK: Cell<i64> = const { Cell::new(0) };
}

fn count(bytes: i64) {
    let now = NOW.get() + bytes;
    NOW.set(now);
    PEAK.set(PEAK.get().max(now));
}

// SAFETY: all is the system allocator's own.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as i64);
        // SAFETY: the caller's promise, handed on; so below.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as i64);
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as i64 - layout.size() as i64);
        // SAFETY: as above.
        unsafe { System.realloc(at, layout, size) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(-(layout.size() as i64));
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}

/// An input that is right, of which one file is made wrong.
struct Input {
    name: &'static str,
    /// The file that is changed first. All lie in one folder.
    files: Vec<(&'static str, Vec<u8>)>,
    /// What is done to the changed file before it is written.
    pack: fn(Vec<u8>) -> Vec<u8>,
    /// What the reader makes of the folder.
    read: fn(&Path) -> Result<String>,
    /// whether checksums or second copies cover all that the reader makes of it.
    sealed: bool,
}

impl Input {
    fn write(&self, folder: &Path, bytes: Vec<u8>) {
        fs::write(folder.join(self.files[0].0), (self.pack)(bytes)).unwrap();
    }

    /// Puts it into a folder of its own; the folder, and what is read there.
    fn lay(&self, dir: &Path, k: usize) -> (PathBuf, String) {
        let folder = dir.join(k.to_string());
        fs::create_dir(&folder).unwrap();
        for (name, bytes) in &self.files {
            fs::write(folder.join(name), bytes).unwrap();
        }
        self.write(&folder, self.files[0].1.clone());
        let read = (self.read)(&folder).unwrap_or_else(|e| panic!("{}: {e:#}", self.name));
        (folder, read)
    }

    fn others<'a>(&self, all: &'a [Input]) -> Vec<&'a [u8]> {
        all.iter().map(|input| &input.files[0].1[..]).collect()
    }
}

fn set(paths: &[PathBuf]) -> Result<String> {
    let range = Some(Range::Unit);
    let options =
        Options { allow_lossy: true, to_8_bit: true, range, background: Some(Colour([9; 3])) };
    let square = Transform { center_crop: true, ..Transform::default() };
    let source = open_within(paths, &options, &Budget::of(BUDGET))?;
    let set = source.collect(&source.all(), &square)?;
    let shape = (set.resolution, set.channels, set.labels.as_deref());
    Ok(format!("{shape:?} {}", set.sha256_pixels()))
}

fn file(folder: &Path) -> Result<String> {
    set(&[folder.join("x")])
}

fn batch(folder: &Path) -> Result<String> {
    set(&[folder.join("x.bin")])
}

fn idx(folder: &Path) -> Result<String> {
    set(&[folder.join("x"), folder.join("y")])
}

fn folder(folder: &Path) -> Result<String> {
    set(&[folder.to_path_buf()])
}

fn array(folder: &Path) -> Result<String> {
    let array = npy::read_within(&folder.join("x"), &Budget::of(BUDGET))?;
    Ok(format!("{:?} {}", array.shape, array.values.descr()))
}

fn model(folder: &Path) -> Result<String> {
    SavedModel::open(&folder.join("x")).map(|model| format!("{:?}", model.config))
}

fn foreign_model(folder: &Path) -> Result<String> {
    use emm::model::infer::{Unsaid, convert};
    let unsaid = Unsaid { precond: None, skip_connections: None, dropout: 0.0 };
    convert(&folder.join("x"), &unsaid).map(|model| format!("{:?}", model.config))
}

/// An entry alone in a zip, its checksum right.
fn zipped(name: &str, bytes: &[u8]) -> Vec<u8> {
    zip_of(&[(name, bytes), ("b.png", &png(8, 1))])
}

/// A PNG's bytes with checksums that fit, as far as its chunks go: what is inside is then looked at.
fn with_png_sums(mut png: Vec<u8>) -> Vec<u8> {
    let mut at = 8;
    while let Some(len) = png.get(at..at + 4) {
        let len = u32::from_be_bytes(len.try_into().unwrap()) as usize;
        let end = at + 8 + len;
        if end + 4 > png.len() {
            break;
        }
        let sum = crc(&png[at + 4..end]).to_be_bytes();
        png[end..end + 4].copy_from_slice(&sum);
        at = end + 4;
    }
    png
}

/// A tar's bytes with checksums that fit in whatever may be a header.
fn with_tar_sums(mut tar: Vec<u8>) -> Vec<u8> {
    for block in tar.chunks_exact_mut(512) {
        if &block[257..262] == b"ustar" {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
    tar
}

/// The five batches of an archive, all this pickle.
fn pickled(batch: Vec<u8>) -> Vec<u8> {
    let names: Vec<String> = (1..=5).map(|i| format!("data_batch_{i}")).collect();
    let members: Vec<_> = names.iter().map(|n| (n.as_str(), &batch[..], None)).collect();
    tar_of(&members)
}

/// A batch of one image, of Python 3's protocol 4: what stands before and behind its bytes is nearly all operations.
fn batch_of_protocol_4() -> Vec<u8> {
    let head = b"\x80\x04\x95\xa8\x0c\0\0\0\0\0\0}\x94(\x8c\x06labels\x94]\x94K\x03a\x8c\x04data\x94\x8c\x16numpy._core.multiarray\x94\x8c\
                 \x0c_reconstruct\x94\x93\x94\x8c\x05numpy\x94\x8c\x07ndarray\x94\x93\x94K\0\x85\x94C\x01b\x94\x87\x94R\x94(K\x01K\x01M\0\x0c\
                 \x86\x94h\x07\x8c\x05dtype\x94\x93\x94\x8c\x02u1\x94\x89\x88\x87\x94R\x94(K\x03\x8c\x01|\x94NNNJ\xff\xff\xff\xffJ\xff\xff\xff\
                 \xffK\0t\x94b\x89B\0\x0c\0\0";
    [&head[..], &[7; 3072], b"\x94t\x94bu."].concat()
}

/// A tar with what may stand before a member.
fn extended_tar(record: &[u8]) -> Vec<u8> {
    let extension =
        |kind, name: &str, text: &str| (name.to_string(), kind, text.as_bytes().to_vec());
    let mut members = Vec::new();
    for i in 1..=5 {
        let name = format!("c/data_batch_{i}.bin");
        members.push(extension(b'x', "c/PaxHeaders/data_batch", "20 mtime=1700000000\n"));
        members.push(extension(b'L', "././@LongLink", &format!("{name}\0")));
        members.push((name, b'0', record.to_vec()));
    }
    tools::typed_tar(&members)
}

fn inputs() -> Vec<Input> {
    let dir = tempdir().unwrap();
    let saved = |save: &dyn Fn(&Path)| {
        let path = dir.path().join("x");
        let _ = fs::remove_file(&path);
        save(&path);
        fs::read(path).unwrap()
    };
    let edm = saved(&|path| labelled(&[2, 0, 1]).save(path, false).unwrap());
    let pixels: Vec<u8> = (0..2 * 4 * 4 * 3).collect();
    let images = || Array::new(&[2, 4, 4, 3], pixels.clone());
    let npz = saved(&|path| {
        let arrays = [("images", images()), ("labels", Array::new(&[2], vec![1_i64, 0]))];
        npy::write_npz(path, false, &arrays).unwrap();
    });
    let npy = saved(&|path| npy::write(path, false, &[2, 4, 4, 3], &pixels).unwrap());
    let floats = saved(&|path| npy::write(path, false, &[2, 3], &[0.5_f32; 6]).unwrap());
    let network = saved(&|path| model_file(path));
    let deflated = {
        let packed = gzip(&npy);
        let packed = packed[10..packed.len() - 8].to_vec();
        raw_zip(&[("images.npy", packed, 8, npy.len() as u32, crc(&npy))])
    };
    let record: Vec<u8> = (0..3073).map(|i| (i % 10) as u8).collect();
    let names: Vec<String> = (1..=5).map(|i| format!("data_batch_{i}.bin")).collect();
    let members: Vec<_> = names.iter().map(|n| (n.as_str(), &record[..], None)).collect();
    let idx_images = [&[0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 4, 0, 0, 0, 4][..], &[9; 32]].concat();
    let idx_labels = vec![0, 0, 8, 1, 0, 0, 0, 2, 1, 0];
    let jpeg = golden_npz("odd.npz")["photo.jpg"].clone().of::<u8>("photo").unwrap().1;
    let palette: Vec<u8> = (0..64).map(|i| i * 4).collect();
    let image = Image::encode(8, 8, 1, &palette).unwrap();
    let json = br#"{"labels": [["x.png", 3], ["b.png", 1]]}"#.to_vec();
    let python = fs::read(golden("cifar-10-python.tar.gz")).unwrap();
    let gunzipped = {
        let mut bytes = Vec::new();
        let mut reader = flate2::read::GzDecoder::new(&python[..]);
        std::io::Read::read_to_end(&mut reader, &mut bytes).unwrap();
        bytes
    };
    let fields = [(b"1", "é/1.png"), (b"2", "a/1.png")].map(|(n, u)| tools::unicode_name(n, u));
    let two_names: [tools::Entry; 2] =
        [(b"1", &fields[0], &fields[0], &image), (b"2", &fields[1], &fields[1], &image)];
    let parquet = |name: &str| fs::read(golden(&format!("sets/{name}.parquet"))).unwrap();
    let image_file =
        |name: &str| golden_npz("sets/images.npz")[name].clone().of::<u8>(name).unwrap().1;
    let shard = tar_of(&[
        ("1.png", &image, None),
        ("1.cls", b"3", None),
        ("2.json", br#"{"cls": 1}"#, None),
        ("2.png", &image, None),
    ]);
    let plain = |name, bytes, read, sealed| Input {
        name,
        files: vec![("x", bytes)],
        pack: |bytes| bytes,
        read,
        sealed,
    };
    let packed = |name, bytes, pack| Input {
        name,
        files: vec![("x", bytes)],
        pack,
        read: file,
        sealed: false,
    };
    vec![
        plain("EDM zip", edm, file, true),
        plain("zip by Pillow and zipfile", fs::read(golden("pillow.zip")).unwrap(), file, true),
        plain("zip with sizes behind", streamed(true, false), file, true),
        plain("zip with two names", tools::streamed(&two_names, [false, true, false]), file, true),
        plain("zip of classes", zip_of(&[("a/1.png", &image), ("b/1.png", &image)]), file, true),
        plain("npz", npz, file, true),
        plain("npz, deflated", deflated, file, true),
        plain("python archive", python, file, true),
        plain("binary archive", fs::read(golden("cifar-10-binary.tar.gz")).unwrap(), file, true),
        plain("IDX, gzipped", gzip(&idx_images), file, true),
        packed("labels in a zip", json.clone(), |json| {
            zip_of(&[("x.png", &png(4, 1)), ("b.png", &png(4, 1)), ("dataset.json", &json)])
        }),
        packed("array in an npz", npy.clone(), |npy| zip_of(&[("images.npy", &npy)])),
        packed("PNG in a zip", image.clone(), |png| zipped("a.png", &png)),
        packed("JPEG in a zip", jpeg.clone(), |jpeg| zip_of(&[("a.jpg", &jpeg)])),
        packed("IDX within gzip", idx_images.clone(), |idx| gzip(&idx)),
        packed("PNG, its sums right", image.clone(), |png| zipped("a.png", &with_png_sums(png))),
        packed("pickle in an archive", batch_of_protocol_4(), pickled),
        packed("tar, its sums right", extended_tar(&record), |tar| gzip(&with_tar_sums(tar))),
        plain("Parquet, Snappy", parquet("snappy"), file, false),
        plain("Parquet, Zstandard", parquet("zstd"), file, false),
        plain("Parquet, gzip", parquet("gzip"), file, false),
        plain("Parquet", parquet("plain"), file, false),
        plain("MATLAB, packed", fs::read(golden("sets/packed.mat")).unwrap(), file, false),
        plain("MATLAB", fs::read(golden("sets/plain.mat")).unwrap(), file, false),
        packed("WebDataset", shard, with_tar_sums),
        packed("BMP", image_file("palette.bmp"), |bytes| zip_of(&[("a.bmp", &bytes)])),
        packed("TIFF", image_file("grey.tif"), |bytes| zip_of(&[("a.tif", &bytes)])),
        packed("TIFF, deflated", image_file("deflated.tif"), |bytes| zip_of(&[("a.tif", &bytes)])),
        packed("WebP", image_file("rgb.webp"), |bytes| zip_of(&[("a.webp", &bytes)])),
        packed("WebP, lossy", image_file("lossy.webp"), |bytes| zip_of(&[("a.webp", &bytes)])),
        packed("JPEG, turned", image_file("turned6.jpg"), |bytes| zip_of(&[("a.jpg", &bytes)])),
        Input {
            name: "binary batch of CIFAR-100",
            files: vec![("x.bin", [&[7, 9][..], &record[1..]].concat().repeat(2))],
            pack: |bytes| bytes,
            read: batch,
            sealed: false,
        },
        Input {
            name: "STL-10",
            files: vec![("train_y.bin", vec![1, 10]), ("train_X.bin", vec![5; 2 * 27_648])],
            pack: |bytes| bytes,
            read: |folder| set(&[folder.join("train_X.bin")]),
            sealed: false,
        },
        plain("npy of images", npy, file, false),
        plain("npy", floats, array, false),
        plain("tar of pickles", gunzipped, file, false),
        plain("tar of batches", tar_of(&members), file, false),
        plain("model", network.clone(), model, false),
        plain("model of another program", network, foreign_model, false),
        Input {
            name: "binary batch",
            files: vec![("x.bin", record.repeat(3))],
            pack: |bytes| bytes,
            read: batch,
            sealed: false,
        },
        Input {
            name: "IDX labels",
            files: vec![("y", idx_labels), ("x", idx_images)],
            pack: |bytes| bytes,
            read: idx,
            sealed: false,
        },
        Input {
            name: "PNG in a folder",
            files: vec![("x.png", image), ("b.png", png(8, 1)), ("dataset.json", json.clone())],
            pack: |bytes| bytes,
            read: folder,
            sealed: true,
        },
        Input {
            name: "labels in a folder",
            files: vec![("dataset.json", json), ("x.png", png(4, 1)), ("b.png", png(4, 1))],
            pack: |bytes| bytes,
            read: folder,
            sealed: false,
        },
        Input {
            name: "JPEG in a folder",
            files: vec![("x.jpeg", jpeg)],
            pack: |bytes| bytes,
            read: folder,
            sealed: false,
        },
    ]
}

/// A network of a few thousand weights.
fn model_file(path: &Path) {
    let config = ModelConfig {
        model_channels: 4,
        channel_mult: vec![1],
        num_blocks: 1,
        attn_resolutions: vec![],
        skip_connections: vec![1; 2],
        ..ModelConfig::basic(Arch::DdpmPP, 4, 1)
    };
    config.check().unwrap();
    let weights = vec![0.5; Params::new(&config).flat_len];
    SavedModel { config, precision: None, weights, freqs: Vec::new(), run: None }
        .save(path, false)
        .unwrap();
}

#[test]
fn no_wrong_input_breaks_a_reader_or_passes_for_another() {
    let number = |name: &str, default| {
        std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
    };
    let (count, seed) = (number("EMM_FUZZ_INPUTS", 50_000), number("EMM_FUZZ_SEED", 1));
    let inputs = inputs();
    let workers = 2;
    let accepted: Vec<u64> = std::thread::scope(|scope| {
        let worker = |first| {
            let inputs = &inputs;
            move || {
                // A pool of one thread, so that what is read in parallel is counted on it.
                let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
                pool.install(|| {
                    let all = (first..count).step_by(workers);
                    let dir = passing_folder();
                    let folders: Vec<_> = inputs
                        .iter()
                        .enumerate()
                        .map(|(k, input)| input.lay(dir.path(), k))
                        .collect();
                    all.filter(|&i| try_one(inputs, &folders, seed, i)).count() as u64
                })
            }
        };
        let threads: Vec<_> = (0..workers as u64).map(|w| scope.spawn(worker(w))).collect();
        threads.into_iter().map(|t| t.join().expect("the line above says why")).collect()
    });
    let share = accepted.iter().sum::<u64>() as f64 / count as f64;
    // Neither all too broken to get anywhere nor all too whole.
    assert!((0.02..0.6).contains(&share), "{share} of the inputs were accepted");
}

/// Input `i` of a seed: whether it was accepted.
fn try_one(inputs: &[Input], folders: &[(PathBuf, String)], seed: u64, i: u64) -> bool {
    let k = i as usize % inputs.len();
    let (input, (folder, expected)) = (&inputs[k], &folders[k]);
    let mut random = Random(seed.wrapping_mul(0xA076_1D64_78BD_642F) ^ i);
    let mut bytes = input.files[0].1.clone();
    let changes = mutate(&mut bytes, &input.others(inputs), &mut random);
    input.write(folder, bytes);
    let what = format!("{}, input {i} of seed {seed}", input.name);
    let before = NOW.get();
    PEAK.set(before);
    let read = catch_unwind(AssertUnwindSafe(|| (input.read)(folder)));
    let taken = PEAK.get() - before;
    assert!(taken < MOST_BYTES, "{what}: took {taken} bytes");
    match read.unwrap_or_else(|_| panic!("{what}: panicked")) {
        Ok(found) => {
            // Several changes may do the same to both of what the file says twice.
            let told = input.sealed && changes == 1;
            assert!(!told || found == *expected, "{what}: {found}, not {expected}");
            true
        }
        Err(e) => {
            let line = format!("{e:#}");
            assert!(matches!(exit_code(&e), 2..=4), "{what}: exit {}: {line}", exit_code(&e));
            assert!(line.starts_with(&folder.display().to_string()), "{what}: {line}");
            false
        }
    }
}
