//! Tables, plots, sheets. The pictures are left in the target's `tmp` folder to be looked at.

use emm::data::{Dataset, Image};
use emm::report::{Cell, Plot, SizePoint, Table, Triplet, grid, sheet};

fn keep(name: &str, bytes: &[u8]) {
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(path, bytes).unwrap();
}

fn decode(png: &[u8]) -> Image {
    Image::decode(png, false, "test").unwrap()
}

/// Pixels of exactly this colour.
fn count(image: &Image, color: [u8; 3]) -> usize {
    image.pixels.chunks(3).filter(|p| *p == color).count()
}

const ACCENT: [u8; 3] = [0xd9, 0x48, 0x0f];

fn table() -> Table {
    let mut t = Table::new(&["labels", "N", "ratio", "d1"]);
    let row =
        |l: &str, n, r, d| vec![Cell::Text(l.into()), Cell::Integer(n), Cell::Percent(r, 1), d];
    t.row(row("a|b", 1000, 0.9209, Cell::Number(0.125, 2)));
    t.row(row("true, \"x\"", 20, 1.0, Cell::Empty));
    t
}

#[test]
fn tables_line_up_and_keep_their_numbers() {
    assert_eq!(
        table().markdown(),
        "| labels    |    N |  ratio |   d1 |\n\
         | --------- | ---: | -----: | ---: |\n\
         | a\\|b      | 1000 |  92.1% | 0.12 |\n\
         | true, \"x\" |   20 | 100.0% |      |\n"
    );
    assert_eq!(
        table().plain(),
        "labels        N   ratio    d1\n\
         a|b        1000   92.1%  0.12\n\
         true, \"x\"    20  100.0%\n"
    );
    assert_eq!(
        table().csv(),
        "labels,N,ratio,d1\na|b,1000,0.9209,0.125\n\"true, \"\"x\"\"\",20,1,\n"
    );
    let json = table().json();
    assert_eq!(json[0]["ratio"], 0.9209);
    assert_eq!(
        json[1],
        serde_json::json!({"labels": "true, \"x\"", "N": 20, "ratio": 1.0, "d1": null})
    );
}

#[test]
fn grids_hold_every_image_two_pixels_apart() {
    let digits = Dataset::digits();
    let png = grid(&digits.pixels[..10 * 64], 8, 1).unwrap();
    keep("grid_digits.png", &png);
    let g = decode(&png);
    // 10 images: 4 columns, 3 rows, each pixel 4 × 4.
    assert_eq!((g.width, g.height, g.channels), (4 * 34 + 2, 3 * 34 + 2, 3));
    for i in 0..10 {
        for p in 0..64 {
            let (x, y) = (2 + i % 4 * 34 + p % 8 * 4, 2 + i / 4 * 34 + p / 8 * 4);
            for (dx, dy) in [(0, 0), (3, 3)] {
                let at = ((y + dy) * g.width + x + dx) * 3;
                assert_eq!(g.pixels[at..at + 3], [digits.image(i)[p]; 3], "image {i}, pixel {p}");
            }
        }
    }
    assert_eq!(g.pixels[..3], [255; 3]);
    let rgb: Vec<u8> = (0..2 * 32 * 32 * 3).map(|i| (i % 251) as u8).collect();
    let g = decode(&grid(&rgb, 32, 3).unwrap());
    assert_eq!((g.width, g.height), (2 * 34 + 2, 34 + 2));
    let first_row = &g.pixels[(2 * g.width + 2) * 3..][..96];
    assert_eq!(first_row, &rgb[..96]);
}

#[test]
fn sheets_frame_copies() {
    let digits = Dataset::digits();
    let triplet = |i: usize, memorized| Triplet {
        sample: digits.image(i),
        nearest: digits.image(i + 1),
        second: digits.image(i + 2),
        distance_ratio: if i == 5 { f64::NAN } else { 0.05 * i as f64 },
        memorized,
    };
    let some: Vec<Triplet> = (0..12).map(|i| triplet(i, i % 3 == 0)).collect();
    let png = sheet(&some, 8, "4 of 12 samples copy a training image").unwrap();
    keep("sheet_digits.png", &png);
    let with = decode(&png);
    let none: Vec<Triplet> = (0..12).map(|i| triplet(i, false)).collect();
    let without = decode(&sheet(&none, 8, "none").unwrap());
    assert_eq!((with.width, with.height), (without.width, without.height));
    assert_eq!(count(&without, ACCENT), 0);
    // Four frames, four pixels thick, around 220 × 100 pixels each.
    assert!(count(&with, ACCENT) > 4 * 4 * 2 * 200, "{}", count(&with, ACCENT));
    // The first sample's top left pixel, blown up eight times.
    let at = |x: usize, y: usize| with.pixels[(y * with.width + x) * 3];
    for p in 0..64 {
        let (x, y) = (28 + 8 + p % 8 * 8, 92 + 8 + p / 8 * 8);
        assert_eq!((at(x, y), at(x + 7, y + 7)), (digits.image(0)[p], digits.image(0)[p]));
    }
    decode(&sheet(&some[..1], 8, "a single one").unwrap());
    decode(&sheet(&[], 8, "none at all").unwrap());
}

fn sizes(emm: Option<f64>) -> Plot {
    let point = |(size, ratio): (u64, f64)| SizePoint {
        size,
        ratio,
        interval: [(ratio - 0.02f64).max(0.0), (ratio + 0.02).min(1.0)],
    };
    let measured = [(500, 0.998), (1000, 0.9209), (2000, 0.6093), (3000, 0.346), (5000, 0.09)];
    let points = measured.into_iter().map(point).collect();
    Plot::Sizes { title: "DDPM++ on CIFAR-10".into(), points, epsilon: 0.1, emm }
}

fn epochs() -> Plot {
    let line = |n: u64| {
        let at = |i: u64| {
            let e = 2000.0 * i as f64;
            (e, (1.0 - (-e / 9000.0).exp()) * (1000.0 / n as f64).min(1.0).powf(1.2))
        };
        (format!("N = {n}"), (0..=20).map(at).collect())
    };
    let lines = [500, 1000, 2000, 3000, 5000].map(line).to_vec();
    Plot::Epochs { title: "Training dynamics".into(), lines }
}

#[test]
fn plots_show_what_they_are_given() {
    for (name, plot) in [("sizes", sizes(Some(1067.0))), ("epochs", epochs())] {
        let png = plot.png().unwrap();
        keep(&format!("plot_{name}.png"), &png);
        let image = decode(&png);
        assert_eq!((image.width, image.height), (1440, 900));
        assert!(count(&image, [255; 3]) < 1440 * 900 * 99 / 100, "{name}: an empty picture");
        assert_eq!(plot.png().unwrap(), png, "{name}: other bytes the second time");
        keep(&format!("plot_{name}.svg"), plot.svg().unwrap().as_bytes());
    }
    let svg = sizes(Some(1067.0)).svg().unwrap();
    for words in ["DDPM++ on CIFAR-10", "EMM(ε = 0.1) ≈ 1,067", "1 − ε = 90%", "2,000", "log scale"]
    {
        assert!(svg.contains(words), "no {words:?} in {svg}");
    }
    assert!(!sizes(None).svg().unwrap().contains("EMM"));
    let svg = epochs().svg().unwrap();
    for words in ["N = 500", "N = 5000", "40,000", "epochs", "100%"] {
        assert!(svg.contains(words), "no {words:?} in {svg}");
    }
}

#[test]
fn plots_of_little_data_can_be_drawn() {
    let none = Plot::Sizes { title: "none".into(), points: vec![], epsilon: 0.1, emm: None };
    let one = SizePoint { size: 64, ratio: 1.0, interval: [0.9, 1.0] };
    let one = Plot::Sizes { title: "one".into(), points: vec![one], epsilon: 0.1, emm: None };
    let empty = Plot::Epochs { title: "none".into(), lines: vec![] };
    let single =
        Plot::Epochs { title: "one".into(), lines: vec![("N = 1".into(), vec![(0.0, 0.5)])] };
    for plot in [none, one, empty, single] {
        decode(&plot.png().unwrap());
        plot.svg().unwrap();
    }
}

#[test]
fn plots_are_png_or_svg() {
    let dir = tempfile::tempdir().unwrap();
    let plot = epochs();
    plot.save(&dir.path().join("a.png"), false).unwrap();
    plot.save(&dir.path().join("a.svg"), false).unwrap();
    let e = plot.save(&dir.path().join("a.jpg"), false).unwrap_err();
    assert!(e.to_string().ends_with("a plot is .png or .svg"), "{e}");
    assert_eq!(emm::error::exit_code(&e), 2);
}
