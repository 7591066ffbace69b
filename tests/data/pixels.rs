//! Pixels in other forms than the program keeps them: read where nothing is lost, else refused with what was found, what
//! is expected and what makes it.

use super::bad_input::Bench;
use super::{golden, golden_npz, text};
use crate::support::{Ended, emm};
use emm::data::npy::{self, Array, Element};
use emm::data::{Dataset, Image};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::tempdir;

/// A PNG of such samples.
fn png_of(side: u32, color: png::ColorType, depth: png::BitDepth, samples: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, side, side);
    encoder.set_color(color);
    encoder.set_depth(depth);
    encoder.write_header().unwrap().write_image_data(samples).unwrap();
    bytes
}

#[test]
fn what_loses_nothing_is_read() {
    use png::{BitDepth, ColorType};
    let decode = |color, depth, samples: &[u8]| {
        Image::decode(&png_of(2, color, depth, samples), &Default::default(), "x.png").unwrap()
    };
    let grey = [1, 20, 130, 255];
    let rgb: Vec<u8> = (0..12).map(|i| 21 * i).collect();
    let with_alpha = |pixels: &[u8], channels: usize| -> Vec<u8> {
        pixels.chunks(channels).flat_map(|p| p.iter().copied().chain([255])).collect()
    };
    let doubled = |samples: &[u8]| samples.iter().flat_map(|&v| [v, v]).collect::<Vec<u8>>();
    let eight = BitDepth::Eight;
    for (image, channels, pixels) in [
        (decode(ColorType::GrayscaleAlpha, eight, &with_alpha(&grey, 1)), 1, &grey[..]),
        (decode(ColorType::Rgba, eight, &with_alpha(&rgb, 3)), 3, &rgb),
        (decode(ColorType::Grayscale, BitDepth::Sixteen, &doubled(&grey)), 1, &grey),
        (decode(ColorType::Rgb, BitDepth::Sixteen, &doubled(&rgb)), 3, &rgb),
        (decode(ColorType::Rgba, BitDepth::Sixteen, &doubled(&with_alpha(&rgb, 3))), 3, &rgb),
    ] {
        assert_eq!((image.channels, &image.pixels[..]), (channels, pixels));
    }
    let one_off = |mut samples: Vec<u8>, at: usize| {
        samples[at] -= 1;
        samples
    };
    let refused = |color, depth, samples: &[u8], holds: &str| {
        let e = Image::decode(&png_of(2, color, depth, samples), &Default::default(), "x.png")
            .unwrap_err();
        assert!(
            format!("{e:#}").starts_with("x.png: ") && format!("{e:#}").contains(holds),
            "{e:#}"
        );
    };
    refused(ColorType::Rgba, eight, &one_off(with_alpha(&rgb, 3), 7), "RGBA with transparency");
    refused(ColorType::Grayscale, BitDepth::Sixteen, &one_off(doubled(&grey), 3), "16 bits");
}

#[test]
fn arrays_in_fortran_order_are_read() {
    // The same numbers, by NumPy.
    let [c, fortran] =
        ["f64", "fortran"].map(|n| npy::read(&golden(&format!("arrays/{n}.npy"))).unwrap());
    assert_eq!(fortran, c);
    let dir = tempdir().unwrap();
    let set = Dataset::new("test", 4, 3, (0..5 * 48).map(|i| i as u8).collect(), None).unwrap();
    let mut columns = vec![0; set.pixels.len()];
    for (i, &pixel) in set.pixels.iter().enumerate() {
        let (n, h, w, c) = (i / 48, i / 12 % 4, i / 3 % 4, i % 3);
        columns[n + 5 * (h + 4 * (w + 4 * c))] = pixel;
    }
    let path = dir.path().join("f.npy");
    npy::write(&path, false, &[5, 4, 4, 3], &columns).unwrap();
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.windows(5).position(|w| w == b"False").unwrap();
    bytes[at..at + 5].copy_from_slice(b"True ");
    fs::write(&path, bytes).unwrap();
    assert_eq!(Dataset::open(&path).unwrap(), set);
    let mapped = npy::MappedBytes::open(&path).err().unwrap();
    assert!(format!("{mapped:#}").contains("Fortran order"), "{mapped:#}");
}

#[test]
fn what_systems_put_beside_images_is_no_class() {
    let dir = tempdir().unwrap();
    let folder = dir.path().join("set");
    let image = Image::encode(4, 4, 1, &[7; 16]).unwrap();
    let litter = [
        "@eaDir/a/1.png",
        "__MACOSX/a/2.png",
        "a/@eaDir/1.png/S.jpg",
        "a/Thumbs.db",
        "b/.DS_Store",
    ];
    for name in
        ["a/1.png", "b/1.png"].iter().chain(&litter).chain(&["b/desktop.ini", "Desktop.ini"])
    {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, &image).unwrap();
    }
    let set = Dataset::open(&folder).unwrap();
    assert_eq!((set.len(), set.labels), (2, Some(vec![0, 1])));
}

/// Refusals of arrays: what is found, and what makes it right, which does.
#[test]
fn arrays_that_are_no_images_say_what_makes_them() {
    let bench = Bench::new();
    let (npz, npy_file) = (bench.path("x.npz"), bench.path("x.npy"));
    let refuses = |array: Array, found: &str, makes: &str| {
        npy::write_npz(&npz, true, &[("images", array)]).unwrap();
        bench.refuses_path(&npz, &[], found);
        bench.refuses_path(&npz, &[], makes);
    };
    fn of<T: Element>(shape: [usize; 4], values: [T; 2]) -> Array {
        let len = shape.iter().product();
        Array::new(&shape, values.iter().copied().cycle().take(len).collect())
    }
    let (nhwc, nchw) = ([2, 4, 4, 3], [2, 3, 4, 4]);
    refuses(
        of(nhwc, [-1.0_f32, 1.0]),
        "found <f4 of shape [2, 4, 4, 3]",
        "--range 0,1 or --range=-1,1 says",
    );
    refuses(of(nhwc, [0.0_f32, 1.0]), "from 0.0000 to 1.0000", "--range 0,1 or --range=-1,1 says");
    refuses(
        of(nhwc, [0.0_f64, 255.0]),
        "found <f8",
        "NumPy's x.round().clip(0, 255).astype(\"u1\")",
    );
    refuses(of(nhwc, [-0.1_f32, 1.1]), "found <f4", "NumPy's (255 * x).round().clip");
    refuses(of(nhwc, [-9.0_f32, 270.0]), "found <f4", "NumPy's x.round().clip");
    refuses(of(nchw, [-2.0_f32, 2.0]), "[2, 3, 4, 4]", "NumPy's (127.5 * x + 128).clip");
    refuses(of(nhwc, [0_i64, 255]), "found <i8", "NumPy's x.astype(\"u1\")");
    refuses(of(nhwc, [0_i32, 256]), "found <i4", "NumPy's (x / 257).round().astype(\"u1\")");
    refuses(of(nhwc, [-128_i32, 127]), "found <i4", "NumPy's (x + 128).round().astype(\"u1\")");
    refuses(of(nhwc, [-1e6_f32, 1.0]), "found <f4", "interp(x, [BLACK, WHITE], [0, 255])");
    refuses(of(nhwc, [f32::NAN, 1.0]), "found <f4", "hold NaN");
    refuses(Array::new(&[8, 8, 3], vec![7_u8; 192]), "one image of 3 channels", "x[None]");
    refuses(of([2, 4, 4, 4], [0_u8, 255]), "found [2, 4, 4, 4]", "x[..., :3]");
    refuses(Array::new(&[2, 48], vec![0_u8; 96]), "found [2, 48]", "x.reshape(-1, H, W, C)");
    npy::write_npz(&npz, true, &[("data", of(nhwc, [0_u8, 255])), ("y", of(nhwc, [0_u8, 1]))])
        .unwrap();
    bench.refuses_path(&npz, &[], "images, arr_0 or samples, found data, y");
    bench.refuses_path(&npz, &[], "images=x[\"data\"], labels=x[\"y\"]) names them so");
    npy::write_npz(&npz, true, &[("labels", Array::new(&[2], vec![0_i64, 1]))]).unwrap();
    bench.refuses_path(&npz, &[], "found labels; it holds no images");
    let mut half = fs::read(golden("arrays/f64.npy")).unwrap();
    let at = half.windows(3).position(|w| w == b"<f8").unwrap();
    half[at..at + 3].copy_from_slice(b"<f2");
    fs::write(&npy_file, half).unwrap();
    bench.refuses_path(&npy_file, &[], "x.astype(\"<f4\") other numbers");
    npy::write(&npy_file, true, &[1, 3, 4, 4], &[0.5_f32; 48]).unwrap();
    bench.refuses_path(&npy_file, &[], "values from 0.5000 to 0.5000");
}

/// Refusals of image files name the first at fault, what it is and a command that helps.
#[test]
fn images_that_do_not_fit_say_what_helps() {
    let bench = Bench::new();
    let root = bench.path("set");
    fs::create_dir(&root).unwrap();
    let files = golden_npz("odd.npz");
    let odd = |name: &str| files[name].clone().of::<u8>(name).unwrap().1;
    let plain = |side: usize, channels| {
        Image::encode(side, side, channels, &vec![9; side * side * channels]).unwrap()
    };
    let refuses = |a: Vec<u8>, b: Vec<u8>, holds: &[&str]| {
        let (first, second) = (root.join("a.png"), root.join("b.png"));
        fs::write(&first, a).unwrap();
        fs::write(&second, b).unwrap();
        for holds in holds {
            let said = emm(["data", "inspect", text(&root)]);
            assert!(said.stderr.contains(holds), "{holds}: {said:?}");
            said.refused(3, text(&second), "");
        }
    };
    refuses(plain(8, 3), odd("rgba.png"), &["RGBA", "--background white (or black"]);
    refuses(plain(8, 1), odd("grey_alpha.png"), &["grey and alpha", "--background white"]);
    refuses(plain(8, 1), odd("wide.png"), &["grey of 16 bits", "--to-8-bit rounds them"]);
    refuses(plain(8, 1), plain(8, 3), &["a.png, found 8x8 and 3", "`emm data import --rgb`"]);
    refuses(
        plain(8, 1),
        plain(4, 1),
        &["found 4x4 and 1", "`emm data import --center-crop --resolution 8`"],
    );
}

fn folder_of(set: &Dataset, folder: &Path) {
    fs::create_dir(folder).unwrap();
    for i in 0..set.len() {
        let png =
            Image::encode(set.resolution, set.resolution, set.channels, set.image(i)).unwrap();
        fs::write(folder.join(format!("{i:04}.png")), png).unwrap();
    }
}

/// One set as a zip, a folder, an npz and an npy.
fn forms(set: &Dataset, dir: &Path) -> [PathBuf; 4] {
    let forms = ["set.zip", "set", "set.npz", "set.npy"].map(|name| dir.join(name));
    set.save(&forms[0], false).unwrap();
    folder_of(set, &forms[1]);
    let shape = [set.len(), set.resolution, set.resolution, set.channels];
    npy::write_npz(&forms[2], false, &[("arr_0", Array::new(&shape, set.pixels.clone()))]).unwrap();
    npy::write(&forms[3], false, &shape, &set.pixels).unwrap();
    forms
}

/// Every command that reads a set gives the same for every form of it.
#[test]
fn every_command_reads_every_form() {
    const NET: &str = "--channels 8 --mult 1 --blocks 1 --attn none --epochs 2 --batch 8 --looks 1 --score-images 4 \
                       --rescore-images 0 --threads 1 --device cpu";
    let dir = tempdir().unwrap();
    let mut set = Dataset::digits();
    set.pixels.truncate(16 * set.image_len());
    set.labels = None;
    let forms = forms(&set, dir.path());
    let at = |name: &str| dir.path().join(name).display().to_string();
    let run = |line: String| -> Ended { emm(line.split_whitespace()) };
    let mut all = Vec::new();
    for (k, form) in forms.iter().map(|form| text(form)).enumerate() {
        let (trained, optimum) = (at(&format!("run{k}")), at(&format!("o{k}.npy")));
        run(format!("train --data {form} --run {trained} {NET}")).ok();
        run(format!("optimal --data {form} --seeds 0-3 --steps 2 --out {optimum}")).ok();
        run(format!("find --data {form} --sizes 2,4 --runs {} {NET}", at("runs"))).ok();
        let plan = run(format!("plan --data {form} --rate 1 --json {NET}")).json();
        let sweep = run(format!("sweep plan table3 --scale tiny --data {form} --json")).json();
        let gap = run(format!("gap --data {form} --run {trained} --draws 4 --json"));
        all.push((
            fs::read(Path::new(&trained).join("scores.csv")).unwrap(),
            fs::read(&optimum).unwrap(),
            run(format!("score --samples {form} --reference {form} --json")).json(),
            gap.json(),
            plan["images"].clone(),
            sweep["runs"][0]["name"].clone(),
        ));
        assert_eq!(all[0], all[k], "{form}");
    }
    // find's runs were there after the first form.
    assert_eq!(fs::read_dir(at("runs")).unwrap().count(), 2);
}

#[test]
fn floats_are_scored_as_pixels_or_said_to_be_otherwise() {
    let dir = tempdir().unwrap();
    let set = Dataset::digits();
    let d = dir.path().join("d.zip");
    set.save(&d, false).unwrap();
    // Without an ending that says so.
    let samples = dir.path().join("samples");
    let score = |values: Vec<f32>| {
        npy::write(&samples, true, &[2, 1, 8, 8], &values).unwrap();
        emm(["score", "--samples", text(&samples), "--reference", text(&d), "--json"])
    };
    let as_float = |v: &u8| f32::from(*v) / 127.5 - 1.0;
    let right = score(set.pixels[..128].iter().map(as_float).collect());
    assert_eq!(right.stderr, "");
    assert_eq!(right.json()["memorized"], 2);
    let overshoots = score(set.pixels[..128].iter().map(|v| 1.9 * as_float(v)).collect());
    overshoots.ok();
    for (scale, less, makes) in [
        (1.0 / 255.0, 0.0, "NumPy's 2 * x - 1 makes"),
        (1.0, 0.0, "NumPy's x / 127.5 - 1 makes"),
        (257.0, 0.0, "NumPy's x / 32767.5 - 1 makes"),
        (1.0, 128.0, "NumPy's (x + 128) / 127.5 - 1 makes"),
        (4.0, 512.0, "NumPy's x.clip(-1, 1) makes"),
    ] {
        // As images are, and as a network that overshoots by a tenth has them.
        for overshot in [1.0, 1.1] {
            let value = |v: &u8| (as_float(v) * overshot + 1.0) * 127.5 * scale - less;
            let other = set.pixels[..128].iter().map(value).collect();
            score(other).refused(3, text(&samples), makes);
        }
    }
    let rgb = dir.path().join("rgb.npy");
    npy::write(&rgb, true, &[2, 8, 8, 3], &[7_u8; 384]).unwrap();
    let grey = emm(["score", "--samples", text(&rgb), "--reference", text(&d)]);
    let makes = format!("`emm data import {} --rgb --out RGB.zip`", text(&d));
    grey.refused(3, text(&rgb), &makes);
    npy::write(&samples, true, &[2, 8, 8, 1], &[0.0_f32; 128]).unwrap();
    let planes = emm(["score", "--samples", text(&samples), "--reference", text(&d)]);
    planes.refused(3, text(&samples), "x.transpose(0, 3, 1, 2)");
}
