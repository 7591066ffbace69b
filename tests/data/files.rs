//! Image files of every format, as Pillow reads them, and pixels that a flag makes 8-bit grey or RGB.

use super::bad_input::{Bench, listing};
use super::{golden, text};
use crate::support::emm;
use emm::data::npy::{self, Array};
use emm::data::options::{Colour, Range};
use emm::data::{Dataset, Image, Options, Transform, open_any};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use tempfile::tempdir;

/// Image files by name, and what Pillow reads in them.
fn files() -> BTreeMap<String, (Vec<u8>, Array)> {
    let mut all: BTreeMap<_, _> =
        npy::read_npz(&golden("sets/images.npz")).unwrap().into_iter().collect();
    let names: Vec<String> = all.keys().filter(|n| !n.ends_with(".pixels")).cloned().collect();
    let mut take = |name: &str| all.remove(name).unwrap();
    names
        .into_iter()
        .map(|name| {
            let bytes = take(&name).of::<u8>(&name).unwrap().1;
            let pixels = take(&format!("{name}.pixels"));
            (name, (bytes, pixels))
        })
        .collect()
}

/// Which formats any file of theirs may come in, and how far a lossy one may be off.
#[test]
fn files_of_every_format_read_as_pillow_reads_them() {
    let options = Options { allow_lossy: true, ..Options::default() };
    let files = files();
    assert_eq!(files.len(), 28);
    let mut read = 0;
    for (name, (bytes, expected)) in &files {
        // A BMP of 32 bits says nothing of alpha, and Pillow reads none.
        if ["clear.tif", "clear.webp", "wide.tif"].contains(&name.as_str()) {
            let e = format!("{:#}", Image::decode(bytes, &options, name).unwrap_err());
            let flag = if name.contains("wide") { "--to-8-bit" } else { "--background" };
            assert!(e.starts_with(name) && e.contains(flag), "{e}");
            continue;
        }
        let image = Image::decode(bytes, &options, name).unwrap_or_else(|e| panic!("{e:#}"));
        let (shape, mut pixels) = expected.clone().of::<u8>(name).unwrap();
        if shape.last() == Some(&4) {
            pixels = pixels.chunks_exact(4).flat_map(|p| p[..3].to_vec()).collect();
        }
        assert_eq!([image.height, image.width], shape[..2], "{name}");
        assert_eq!(image.channels, if shape.len() == 2 { 1 } else { 3 }, "{name}");
        let off = image.pixels.iter().zip(&pixels).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        let most = if name.ends_with(".jpg") || name.starts_with("lossy") { 3 } else { 0 };
        assert!(off <= most && image.pixels.len() == pixels.len(), "{name} is off by {off}");
        read += 1;
        // A file that ends early is none.
        for len in [bytes.len() / 2, bytes.len() - 2] {
            let cut = Image::decode(&bytes[..len], &options, name);
            let trailing = name.starts_with("turned") || name.contains(".tif");
            assert!(cut.is_err() || trailing && len > bytes.len() / 2, "{name}: {len} bytes");
        }
    }
    assert_eq!(read, 25);
    let e = Image::decode(&files["lossy.webp"].0, &Options::default(), "x").unwrap_err();
    assert!(format!("{e:#}").contains("WebP of this kind is lossy"), "{e:#}");
}

#[test]
fn sixteen_bits_and_alpha_become_what_the_flags_say() {
    let files = files();
    let (wide, expected) = &files["wide.tif"];
    let to_8_bit = Options { to_8_bit: true, ..Options::default() };
    let image = Image::decode(wide, &to_8_bit, "x").unwrap();
    let (_, values) = expected.clone().integers("x").unwrap();
    let rounded: Vec<u8> = values.iter().map(|&v| (v as f64 / 257.0).round() as u8).collect();
    assert_eq!((image.channels, image.pixels), (1, rounded));

    let on = |colour| Options { background: Some(Colour(colour)), ..Options::default() };
    for name in ["clear.tif", "clear.webp"] {
        let (bytes, expected) = &files[name];
        let (_, rgba) = expected.clone().of::<u8>(name).unwrap();
        for colour in [[255; 3], [0; 3], [10, 200, 33]] {
            let image = Image::decode(bytes, &on(colour), name).unwrap();
            let laid = rgba.chunks_exact(4).flat_map(|p| {
                let alpha = f64::from(p[3]) / 255.0;
                let mix =
                    move |c: usize| f64::from(p[c]) * alpha + f64::from(colour[c]) * (1.0 - alpha);
                [0, 1, 2].map(|c| mix(c).round() as u8)
            });
            assert_eq!(image.pixels, laid.collect::<Vec<_>>(), "{name} on {colour:?}");
        }
    }
}

/// The flags on the command line, by every way in.
#[test]
fn flags_of_pixels_belong_to_every_command_that_opens_a_set() {
    let dir = tempdir().unwrap();
    let [folder, out, json] = ["set", "out.zip", "x.npz"].map(|name| dir.path().join(name));
    fs::create_dir(&folder).unwrap();
    let rgba: Vec<u8> = (0..64).map(|i| i * 4).collect();
    let mut png = Vec::new();
    let mut encoder = png::Encoder::new(&mut png, 4, 4);
    encoder.set_color(png::ColorType::Rgba);
    encoder.write_header().unwrap().write_image_data(&rgba).unwrap();
    for name in ["a.png", "b.png"] {
        fs::write(folder.join(name), &png).unwrap();
    }
    let folder = text(&folder);
    let image = text(&out).to_string();
    emm(["data", "import", folder, "--out", &image]).refused(3, folder, "--background white");
    emm(["data", "import", folder, "--out", &image, "--background", "white"]).ok();
    let hash = |set: &str, flags: &[&str]| {
        let args = ["data", "inspect", "--json", set];
        emm(args.iter().chain(flags)).json()["sha256_pixels"].clone()
    };
    assert_eq!(hash(folder, &["--background", "#FFFFFF"]), hash(&image, &[]));
    assert_ne!(hash(folder, &["--background", "black"]), hash(&image, &[]));
    let wrong = emm(["data", "inspect", folder, "--background", "red"]);
    wrong.refused(2, "--background", "white, black or #rrggbb");

    let cut = text(&json).replace(".npz", ".zip");
    emm(["data", "subset", folder, "--size", "1", "--background", "black", "--out", &cut]).ok();
    let score = ["score", "--samples", folder, "--reference", folder, "--device", "cpu"];
    emm(score).refused(3, folder, "--background");
    emm(score.iter().chain(&["--background", "black"])).ok();
    let optimum = dir.path().join("o.npy");
    let optimal = ["optimal", "--data", folder, "--seeds", "0", "--steps", "2", "--out"];
    emm(optimal.iter().chain(&[text(&optimum), "--background", "black"])).ok();
}

#[test]
fn arrays_of_planes_and_floats_are_read() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("x.npz");
    let pixels: Vec<u8> = (0..2 * 48).map(|i| (i * 5 % 256) as u8).collect();
    let packed = Dataset::new("test", 4, 3, pixels.clone(), None).unwrap();
    let planes: Vec<u8> = (0..96).map(|i| pixels[i / 48 * 48 + i % 16 * 3 + i / 16 % 3]).collect();
    let write = |array| npy::write_npz(&path, true, &[("images", array)]).unwrap();
    let read = |range| {
        let options = Options { range, ..Options::default() };
        let source = open_any(std::slice::from_ref(&path), &options)?;
        source.collect(&source.all(), &Transform::default())
    };
    write(Array::new(&[2, 3, 4, 4], planes.clone()));
    assert_eq!(read(None).unwrap(), packed);
    write(Array::new(&[6, 1, 4, 4], pixels.clone()));
    assert_eq!((read(None).unwrap().pixels, read(None).unwrap().channels), (pixels.clone(), 1));

    let unit = |v: &u8| f32::from(*v) / 255.0;
    write(Array::new(&[2, 4, 4, 3], pixels.iter().map(unit).collect::<Vec<f32>>()));
    assert_eq!(read(Some(Range::Unit)).unwrap(), packed);
    // Both fit: another is another set, and not to be guessed.
    assert_ne!(read(Some(Range::Signed)).unwrap(), packed);
    let signed = |v: &u8| f64::from(*v) / 127.5 - 1.0;
    write(Array::new(&[2, 3, 4, 4], planes.iter().map(signed).collect::<Vec<f64>>()));
    assert_eq!(read(Some(Range::Signed)).unwrap(), packed);
    let refused = |range: Option<Range>, holds: &str| {
        let e = read(range).unwrap_err();
        let line = format!("{e:#}");
        assert_eq!(emm::error::exit_code(&e), 3);
        assert!(line.starts_with(text(&path)) && line.contains(holds), "{line}");
    };
    refused(Some(Range::Unit), "image 0 holds -1, outside of 0 to 1");
    refused(None, "--range 0,1 or --range=-1,1");
    write(Array::new(&[1, 4, 4], [vec![0.5; 15], vec![f64::NAN]].concat()));
    refused(Some(Range::Unit), "holds NaN");
    write(Array::new(&[1, 4, 4], vec![7_i64; 16]));
    refused(Some(Range::Unit), "found <i8");

    let npy = dir.path().join("f.npy");
    npy::write(&npy, false, &[2, 4, 4], &[-0.5_f32; 32]).unwrap();
    let inspect = ["data", "inspect", "--json", text(&npy)];
    emm(inspect).refused(3, text(&npy), "--range=-1,1");
    for flags in [&["--range=-1,1"][..], &["--range", "-1,1"]] {
        assert_eq!(emm(inspect.iter().chain(flags)).json()["images"], 2);
    }
    emm(inspect.iter().chain(&["--range", "0,255"])).refused(2, "--range", "0,1 or -1,1");
}

/// Files under a wrong name, and damaged ones, are refused by name.
#[test]
fn wrong_image_files_are_refused() {
    let bench = Bench::new();
    let folder = bench.path("set");
    fs::create_dir(&folder).unwrap();
    let files = files();
    let refuses = |name: &str, bytes: &[u8], holds: &str| {
        let path = folder.join(name);
        fs::write(&path, bytes).unwrap();
        assert_eq!(listing(&folder).len(), 1);
        let said = emm(["data", "inspect", text(&folder)]);
        assert!(said.stderr.contains(holds), "{holds}: {said:?}");
        said.refused(3, text(&path), "");
        fs::remove_file(path).unwrap();
    };
    let edited = |name: &str, at: usize, bytes: &[u8]| {
        let mut file = files[name].0.clone();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        file
    };
    refuses("a.bmp", b"no image", "expected a PNG image, JPEG, WebP, TIFF or BMP");
    refuses("a.bmp", &edited("rgb.bmp", 18, &[255, 255, 255, 127]), "images of at most");
    refuses("a.bmp", &edited("rgb.bmp", 18, &[0; 4]), "a BMP of 0x5 pixels");
    refuses("a.bmp", &edited("grey.bmp", 30, &[1]), "packed by method 1");
    refuses("a.bmp", &edited("rgb.bmp", 28, &[16]), "16 bits a pixel");
    refuses("a.bmp", &edited("rgb.bmp", 14, &[12]), "a header of 12 bytes");
    refuses("a.webp", &edited("rgb.webp", 21, &[255, 255, 255]), "WebP");
    refuses("a.tif", &files["rgb.tif"].0[..40], "TIFF");
    refuses("a.gif", b"GIF89a", "expected PNG, JPEG, WebP, TIFF or BMP");
}

/// Every name that a format's files have is one of a set's.
#[test]
fn folders_and_zips_hold_images_of_every_format() {
    let dir = tempdir().unwrap();
    let folder = dir.path().join("set");
    fs::create_dir(&folder).unwrap();
    for (name, (bytes, _)) in files() {
        if name.starts_with("rgb.") {
            fs::write(folder.join(&name), &bytes).unwrap();
            fs::write(folder.join(name.to_uppercase()), &bytes).unwrap();
        }
    }
    let out = dir.path().join("out.zip");
    emm(["data", "import", text(&folder), "--center-crop", "--out", text(&out)]).ok();
    let set = Dataset::open(&out).unwrap();
    assert_eq!(set.len(), 6);
    assert!((1..6).all(|i| set.image(i) == set.image(0)));
    assert_eq!(set.names[0], "RGB.BMP");
    assert!(Path::new(&set.names[3]).extension().is_some());
}
