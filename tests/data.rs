//! Data sets: formats, subsets, resampling, and every way in which files can be bad.

pub mod bad_input;
mod dedupe;
mod files;
mod kept;
mod limits;
mod names;
mod outputs;
mod pixels;
mod sets;
mod subsets;
pub mod tools;
pub mod zips;

use crate::support::emm;
use emm::data::npy::{self, Array};
use emm::data::python_random::PythonRandom;
use emm::data::{Dataset, Image, Options, resize};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::{TempDir, tempdir};

/// A file beside `goldens/data/make.py`, which made it.
pub fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/data").join(name)
}

pub fn golden_npz(name: &str) -> BTreeMap<String, Array> {
    npy::read_npz(&golden(name)).unwrap().into_iter().collect()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Grey 4×4 images, image `i` all `i + 1`, with these labels.
pub fn labelled(labels: &[u32]) -> Dataset {
    let pixels = (0..labels.len()).flat_map(|i| [i as u8 + 1; 16]).collect();
    Dataset::new("test", 4, 1, pixels, Some(labels.to_vec())).unwrap()
}

/// Which images of [`labelled`] a set is made of.
fn members(set: &Dataset) -> Vec<usize> {
    (0..set.len()).map(|i| set.image(i)[0] as usize - 1).collect()
}

/// A fresh folder with `D.zip` of the given labels in it.
fn with_set(labels: &[u32]) -> (TempDir, String, String) {
    let dir = tempdir().unwrap();
    let (d, out) = (dir.path().join("D.zip"), dir.path().join("out.zip"));
    labelled(labels).save(&d, false).unwrap();
    (dir, text(&d).into(), text(&out).into())
}

#[test]
fn a_saved_set_reads_back_and_its_bytes_depend_on_the_set_alone() {
    let dir = tempdir().unwrap();
    let digits = Dataset::digits();
    let (a, b) = (dir.path().join("a.zip"), dir.path().join("b.zip"));
    digits.save(&a, false).unwrap();
    digits.save(&b, false).unwrap();
    assert_eq!(Dataset::open(&a).unwrap(), digits);
    assert_eq!(fs::read(&a).unwrap(), fs::read(&b).unwrap());
    assert_eq!((digits.len(), digits.label_dim()), (1797, 10));
    let unlabelled = Dataset { labels: None, ..digits };
    assert!(unlabelled.save(&a, false).is_err(), "replaced a file without being forced to");
    unlabelled.save(&a, true).unwrap();
    assert_eq!(Dataset::open(&a).unwrap(), unlabelled);
}

#[test]
fn a_set_of_more_images_than_a_plain_zip_holds() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("many.zip");
    let labels = (0..70_000).map(|i| i % 7).collect();
    let many = Dataset::new("test", 1, 1, vec![5; 70_000], Some(labels)).unwrap();
    many.save(&path, false).unwrap();
    assert_eq!(Dataset::open(&path).unwrap(), many);
}

#[test]
fn hashes_are_of_the_bytes() {
    // hashlib.sha256 of 16 ones and 16 twos, and of 1, 0, 0, 0, 2, 1, 0, 0.
    let set = labelled(&[1, 258]);
    assert_eq!(
        set.sha256_pixels(),
        "f03f702d6016a19c16ff011ea60a8f81081446624f4c1224de099030e36c1f7c"
    );
    assert_eq!(
        set.sha256_labels(),
        "fb8bbe2ad3ab5292f19bc5d75bbab9b5fbddc5a78ce47ab41b2d3d59bca08596"
    );
    assert_eq!(Dataset { labels: None, ..set }.sha256_labels(), "none");
}

#[test]
fn a_zip_by_pillow_and_zipfile_reads_in_the_order_of_its_names() {
    let set = Dataset::open(&golden("pillow.zip")).unwrap();
    let expected = golden_npz("pillow.npz");
    let (shape, pixels) = expected["images"].clone().of::<u8>("images").unwrap();
    assert_eq!(shape, [5, set.resolution, set.resolution, set.channels]);
    assert_eq!(set.pixels, pixels);
    assert_eq!(set.labels, Some(vec![3, 0, 7, 7, 1]));
}

#[test]
fn pngs_of_one_bit_expand_and_jpegs_come_close() {
    let files = golden_npz("odd.npz");
    let bytes = |name: &str| files[name].clone().of::<u8>(name).unwrap().1;
    let bits = Image::decode(&bytes("bits.png"), &Default::default(), "bits.png").unwrap();
    assert_eq!((bits.channels, &bits.pixels), (1, &bytes("bits")));
    let lossy = Options { allow_lossy: true, ..Options::default() };
    let photo = Image::decode(&bytes("photo.jpg"), &lossy, "photo.jpg").unwrap();
    let expected = bytes("photo");
    assert_eq!((photo.width, photo.channels, photo.pixels.len()), (16, 3, expected.len()));
    let worst = photo.pixels.iter().zip(&expected).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
    assert!(worst <= 3, "a decoded JPEG is off by {worst}");
}

#[test]
fn lanczos_is_pillows() {
    let arrays = golden_npz("resize.npz");
    let array = |name: String| arrays[&name].clone().of::<u8>(&name).unwrap();
    assert_eq!(arrays.len(), 32);
    for i in 0..16 {
        let (shape, pixels) = array(format!("{i:02}_in"));
        let (out_shape, expected) = array(format!("{i:02}_out"));
        let channels = shape.get(2).copied().unwrap_or(1);
        let image = Image { width: shape[1], height: shape[0], channels, pixels };
        let resized = resize::lanczos(image, out_shape[0]);
        assert_eq!([resized.height, resized.width], out_shape[..2], "case {i}");
        assert!(resized.pixels == expected, "case {i}: {shape:?} to {out_shape:?} differs");
    }
}

#[test]
fn random_labels_are_pythons() {
    let arrays = golden_npz("python_random.npz");
    assert_eq!(arrays.len(), 42);
    for (name, array) in arrays {
        let (seed, classes) = name.split_once('_').unwrap();
        let mut random = PythonRandom::new(seed.parse().unwrap());
        let classes = classes.parse().unwrap();
        let draws: Vec<i64> = (0..700).map(|_| random.below(classes).into()).collect();
        let (_, expected) = array.of::<i64>(&name).unwrap();
        assert_eq!([&draws[..20], &draws[615..]].concat(), expected, "{name}");
    }
}

#[test]
fn npy_files_are_numpys_byte_for_byte() {
    let dir = tempdir().unwrap();
    let out = dir.path().join("x.npy");
    for name in ["u8", "i32", "i64", "f32", "f64", "scalar", "empty"] {
        let path = golden(&format!("arrays/{name}.npy"));
        let Array { shape, values } = npy::read(&path).unwrap();
        match values {
            npy::Values::U8(v) => npy::write(&out, true, &shape, &v),
            npy::Values::I32(v) => npy::write(&out, true, &shape, &v),
            npy::Values::I64(v) => npy::write(&out, true, &shape, &v),
            npy::Values::F32(v) => npy::write(&out, true, &shape, &v),
            npy::Values::F64(v) => npy::write(&out, true, &shape, &v),
        }
        .unwrap();
        assert_eq!(fs::read(&out).unwrap(), fs::read(&path).unwrap(), "{name}");
    }
    let (shape, values) = npy::read_f32(&golden("arrays/f32.npy")).unwrap();
    let npy::Values::F64(doubles) = npy::read(&golden("arrays/f64.npy")).unwrap().values else {
        panic!("f64.npy holds doubles");
    };
    assert_eq!(shape, [2, 3, 4]);
    assert_eq!(values, doubles.iter().map(|&v| v as f32).collect::<Vec<_>>());
    assert_eq!(npy::read_i64(&golden("arrays/i32.npy")).unwrap().0, [7]);
}

#[test]
fn npz_files_round_trip() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("x.npz");
    let arrays = [
        ("index", Array::new(&[2, 2], vec![1_i64, -2, 3, i64::MAX])),
        ("x", Array::new(&[3], vec![0.5_f32, -0.0, f32::MIN_POSITIVE])),
    ];
    npy::write_npz(&path, false, &arrays).unwrap();
    let read = npy::read_npz(&path).unwrap();
    assert_eq!(read, arrays.map(|(name, array)| (name.to_string(), array)));
}

/// The formula of `goldens/data/make.py`.
fn cifar() -> Dataset {
    let mut pixels = Vec::new();
    let mut labels = Vec::new();
    for batch in 1..=5 {
        for i in 0..4 {
            for (y, x) in (0..32).flat_map(|y| (0..32).map(move |x| (y, x))) {
                let value = |c| (batch * 41 + i * 13 + c * 57 + y * 3 + x * 5) % 256;
                pixels.extend([0, 1, 2].map(|c| value(c) as u8));
            }
            labels.push(((batch * 4 + i) % 10) as u32);
        }
    }
    Dataset::new("test", 32, 3, pixels, Some(labels)).unwrap()
}

#[test]
fn both_cifar_archives_give_the_training_batches_in_order() {
    let dir = tempdir().unwrap();
    for kind in ["python", "binary"] {
        let (source, out) = (golden(&format!("cifar-10-{kind}.tar.gz")), dir.path().join(kind));
        emm(["data", "import", text(&source), "--out", text(&out)]).ok();
        assert_eq!(Dataset::open(&out).unwrap(), cifar(), "{kind}");
    }
}

#[test]
fn cifar_batches_are_read_in_the_order_given() {
    let dir = tempdir().unwrap();
    let set = cifar();
    let batch = |range: std::ops::Range<usize>| -> Vec<u8> {
        let record = |i: usize| {
            let planes = (0..3).flat_map(move |c| (0..1024).map(move |p| 3 * p + c));
            let label = set.labels.as_ref().unwrap()[i] as u8;
            let pixels: Vec<u8> = planes.map(|p| set.image(i)[p]).collect();
            [vec![label], pixels].concat()
        };
        range.flat_map(record).collect()
    };
    let (a, b) = (dir.path().join("data_batch_2.bin"), dir.path().join("data_batch_1.bin"));
    fs::write(&a, batch(0..7)).unwrap();
    fs::write(&b, batch(7..20)).unwrap();
    let out = dir.path().join("out.zip");
    emm(["data", "import", text(&a), text(&b), "--out", text(&out)]).ok();
    assert_eq!(Dataset::open(&out).unwrap(), set);
}

#[test]
fn idx_images_find_their_labels() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("data");
    let (images, labels) = ("digits8x8-images-idx3-ubyte", "digits8x8-labels-idx1-ubyte");
    let inspect = |paths: &[&Path]| {
        let args = ["data", "inspect", "--json"].map(str::to_string);
        emm(args.into_iter().chain(paths.iter().map(|p| text(p).to_string()))).json()
    };
    let beside = inspect(&[&data.join(images)]);
    let digits = Dataset::digits();
    assert_eq!(beside["images"], 1797);
    assert_eq!(beside["resolution"], 8);
    assert_eq!(beside["channels"], 1);
    assert_eq!(beside["label_dim"], 10);
    assert_eq!(beside["label_counts"][1], 182);
    assert_eq!(beside["sha256_pixels"], digits.sha256_pixels());
    // Gzipped, with a dot in the name, labels plain; then labels elsewhere, given first.
    let dir = tempdir().unwrap();
    let zipped = dir.path().join("t10k-images.idx3-ubyte.gz");
    fs::write(&zipped, gzip(&fs::read(data.join(images)).unwrap())).unwrap();
    assert_eq!(inspect(&[&zipped])["label_dim"], 0);
    assert_eq!(inspect(&[&data.join(labels), &zipped]), beside);
    fs::copy(data.join(labels), dir.path().join("t10k-labels.idx1-ubyte")).unwrap();
    assert_eq!(inspect(&[&zipped]), beside);
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(bytes).unwrap();
    gz.finish().unwrap()
}

#[test]
fn padding_is_centred_and_grey_becomes_rgb() {
    let (_dir, d, out) = with_set(&[0, 1]);
    emm(["data", "import", &d, "--pad", "7", "--rgb", "--out", &out]).ok();
    let set = Dataset::open(Path::new(&out)).unwrap();
    assert_eq!((set.resolution, set.channels), (7, 3));
    for (i, &v) in set.image(1).iter().enumerate() {
        let (y, x) = (i / 3 / 7, i / 3 % 7);
        let inside = (1..5).contains(&y) && (1..5).contains(&x);
        assert_eq!(v, if inside { 2 } else { 0 }, "row {y}, column {x}");
    }
}

/// Writes a PNG whose pixels are `value(x)`.
pub fn write_png(path: &Path, width: usize, height: usize, value: impl Fn(usize) -> u8) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let pixels: Vec<u8> = (0..width * height).map(|i| value(i % width)).collect();
    fs::write(path, Image::encode(width, height, 1, &pixels).unwrap()).unwrap();
}

#[test]
fn class_folders_are_numbered_in_the_order_of_their_names() {
    let dir = tempdir().unwrap();
    let root = dir.path().join("set");
    for (class, count) in [("cat", 3), ("ant", 2), ("bee", 4)] {
        for i in 0..count {
            write_png(&root.join(class).join(format!("{i}.png")), 6, 4, |x| {
                class.as_bytes()[0] + x as u8
            });
        }
    }
    fs::write(root.join("ant/notes.txt"), "no image").unwrap();
    fs::write(root.join("bee/.hidden.png"), "no image").unwrap();
    let out = dir.path().join("out.zip");
    emm(["data", "import", text(&root), "--center-crop", "--out", text(&out)]).ok();
    let set = Dataset::open(&out).unwrap();
    assert_eq!(set.labels, Some(vec![0, 0, 1, 1, 1, 1, 2, 2, 2]));
    assert_eq!(set.image(0)[..4], [b'a' + 1, b'a' + 2, b'a' + 3, b'a' + 4]);
    let again = ["data", "import", text(&root), "--center-crop", "--out", text(&out), "--force"];
    emm(again.into_iter().chain(["--size", "5", "--spread"])).ok();
    // Five of three classes: the first two give one more.
    assert_eq!(Dataset::open(&out).unwrap().labels, Some(vec![0, 0, 1, 1, 2]));
    let small = emm(again.into_iter().chain(["--size", "7", "--spread"]));
    small.refused(3, &format!("{}: class or folder 0 ", root.display()), "has 2 images, wants 3");
}

#[test]
fn a_folder_of_images_has_no_labels_and_folders_spread() {
    let dir = tempdir().unwrap();
    for (folder, count) in [("a", 3), ("b", 5)] {
        for i in 0..count {
            let path = dir.path().join(folder).join(format!("{i}.png"));
            write_png(&path, 4, 4, |_| folder.as_bytes()[0] + i);
        }
    }
    let [a, b, out] = ["a", "b", "out.zip"].map(|name| dir.path().join(name));
    let spread = ["--size", "5", "--spread"];
    emm(["data", "import", text(&a), text(&b), "--out", text(&out)].into_iter().chain(spread)).ok();
    let set = Dataset::open(&out).unwrap();
    assert_eq!(set.labels, None);
    let first: Vec<u8> = (0..set.len()).map(|i| set.image(i)[0]).collect();
    assert_eq!(first, [b'a', b'a' + 1, b'a' + 2, b'b', b'b' + 1]);
}

#[test]
fn an_unpacked_edm_zip_keeps_its_labels() {
    let dir = tempdir().unwrap();
    let root = dir.path().join("set");
    for i in 0..3 {
        write_png(&root.join(format!("0000{}/img{i}.png", i / 2)), 4, 4, |_| i as u8 + 1);
    }
    let json =
        r#"{"labels": [["00001/img2.png", 0], ["00000/img0.png", 4], ["00000/img1.png", 2]]}"#;
    fs::write(root.join("dataset.json"), json).unwrap();
    let out = dir.path().join("out.zip");
    emm(["data", "import", text(&root), "--out", text(&out)]).ok();
    let set = Dataset::open(&out).unwrap();
    assert_eq!((members(&set), set.labels), (vec![0, 1, 2], Some(vec![4, 2, 0])));
}

#[test]
fn npz_images_come_with_and_without_channels_and_labels() {
    let dir = tempdir().unwrap();
    let [npz, out] = ["x.npz", "out.zip"].map(|name| dir.path().join(name));
    let pixels: Vec<u8> = (0..2 * 4 * 4 * 3).collect();
    for (name, shape) in
        [("images", vec![2, 4, 4, 3]), ("arr_0", vec![6, 4, 4]), ("samples", vec![6, 4, 4, 1])]
    {
        let labels: Vec<i32> = (0..shape[0] as i32).collect();
        let arrays = [
            (name, Array::new(&shape, pixels.clone())),
            ("labels", Array::new(&[labels.len()], labels.clone())),
        ];
        for arrays in [&arrays[..], &arrays[..1]] {
            npy::write_npz(&npz, true, arrays).unwrap();
            emm(["data", "import", text(&npz), "--out", text(&out), "--force"]).ok();
            let set = Dataset::open(&out).unwrap();
            assert_eq!((set.len(), set.channels), (shape[0], shape.get(3).copied().unwrap_or(1)));
            assert_eq!(set.pixels, pixels);
            assert_eq!(set.label_dim(), if arrays.len() == 2 { shape[0] } else { 0 });
        }
    }
}

#[test]
fn a_shuffle_depends_on_the_seed_and_loses_nothing() {
    let labels: Vec<u32> = (0..100).collect();
    let (_dir, d, out) = with_set(&labels);
    let shuffled = |seed: &str| {
        emm(["data", "import", &d, "--shuffle", "--seed", seed, "--force", "--out", &out]).ok();
        let set = Dataset::open(Path::new(&out)).unwrap();
        let order = members(&set);
        assert_eq!(set.labels.unwrap(), order.iter().map(|&i| i as u32).collect::<Vec<_>>());
        order
    };
    let (a, again, b) = (shuffled("1"), shuffled("1"), shuffled("2"));
    assert_eq!(a, again);
    assert_ne!(a, b);
    let mut sorted = a.clone();
    sorted.sort();
    assert_eq!(sorted, (0..100).collect::<Vec<_>>());
    // 100 images in random order have one fixed point on average, and hardly ever ten.
    assert!(a.iter().enumerate().filter(|&(i, &image)| i == image).count() < 10, "{a:?}");
}

#[test]
fn inspect_counts_duplicates_and_labels() {
    let (_dir, d, out) = with_set(&[0, 2, 2, 0]);
    let mut set = labelled(&[0, 2, 2, 0]);
    set.pixels.copy_within(0..16, 32);
    set.pixels.copy_within(0..16, 48);
    set.save(Path::new(&d), true).unwrap();
    let json = emm(["data", "inspect", &d, "--json"]).json();
    assert_eq!(json["duplicates"], 2);
    assert_eq!(json["label_dim"], 3);
    assert_eq!(json["label_counts"], serde_json::json!([2, 0, 2]));
    let keys: Vec<_> = json.as_object().unwrap().keys().map(String::as_str).collect();
    let expected = "images resolution channels label_dim label_counts duplicates sha256_pixels";
    assert_eq!(keys, expected.split(' ').collect::<Vec<_>>());
    let told = emm(["data", "import", &d, "--out", &out, "--json"]).json();
    assert_eq!(told, json);
}
