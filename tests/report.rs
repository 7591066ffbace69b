//! Tables, charts, sheets. The pictures are left in the target's `tmp` folder to be looked at.

use emm::data::{Dataset, Image};
use emm::report::{
    Cell, Chart, ChartScale, Compared, Panel, Point, Series, Sheet, SheetOf, Style, Table, grid,
    sheets,
};

fn keep(name: &str, bytes: &[u8]) {
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(path, bytes).unwrap();
}

fn decode(png: &[u8]) -> Image {
    Image::decode(png, &Default::default(), "test").unwrap()
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
fn nothing_has_no_sign() {
    let mut table = Table::new(&["hours", "ratio"]);
    table.row(vec![Cell::Number(-0.0, 2), Cell::Percent(-0.0, 1)]);
    table.row(vec![Cell::Number(-0.001, 2), Cell::Percent(-0.02, 1)]);
    assert_eq!(table.csv(), "hours,ratio\n0,0\n-0.001,-0.02\n");
    assert_eq!(
        table.json().to_string(),
        r#"[{"hours":0.0,"ratio":0.0},{"hours":-0.001,"ratio":-0.02}]"#
    );
    assert_eq!(table.plain(), "hours  ratio\n 0.00   0.0%\n 0.00  -2.0%\n");
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

fn sheet(samples: Vec<Compared>, title: &str) -> Vec<u8> {
    let (notes, threshold) = (vec!["40 training images of digits".into()], "1/3".into());
    sheets(&[Sheet {
        samples,
        side: 8,
        title: title.into(),
        notes,
        threshold,
        of: SheetOf::Samples,
    }])
    .unwrap()
}

#[test]
fn sheets_frame_copies() {
    let digits = Dataset::digits();
    let beside = |i: usize, memorized, k: usize| Compared {
        sample: digits.image(i),
        neighbours: (1..=k).map(|n| digits.image(i + n)).collect(),
        distance_ratio: if i == 5 { f64::NAN } else { 0.05 * i as f64 },
        memorized,
    };
    let some: Vec<Compared> = (0..12).map(|i| beside(i, i % 3 == 0, 2)).collect();
    let png = sheet(some, "4 of 12 samples copy a training image");
    keep("sheet_digits.png", &png);
    let with = decode(&png);
    let none = || (0..12).map(|i| beside(i, false, 2)).collect::<Vec<_>>();
    let without = decode(&sheet(none(), "none"));
    assert_eq!((with.width, with.height), (without.width, without.height));
    assert_eq!(count(&without, ACCENT), 0);
    // Four frames, four pixels thick, around 220 × 106 pixels each.
    assert!(count(&with, ACCENT) > 4 * 4 * 2 * 200, "{}", count(&with, ACCENT));
    // Title, two notes and headings stand above the first frame.
    let inked = |y: &usize| (0..with.width).any(|x| with.pixels[(y * with.width + x) * 3] < 200);
    let top = (0..with.height).find(|y| with.pixels[(y * with.width + 28) * 3..][..3] == ACCENT);
    let top = top.unwrap();
    assert!((0..top).filter(inked).count() > 5 * 10, "no words above the samples");
    // The first sample's top left pixel, blown up eight times.
    let at = |x: usize, y: usize| with.pixels[(y * with.width + x) * 3];
    for p in 0..64 {
        let (x, y) = (28 + 8 + p % 8 * 8, top + 8 + p / 8 * 8);
        assert_eq!((at(x, y), at(x + 7, y + 7)), (digits.image(0)[p], digits.image(0)[p]));
    }
    // A title too long for a line takes several, and loses nothing at the right.
    let long = decode(&sheet(none(), &"word ".repeat(60)));
    assert_eq!(long.width, without.width);
    assert_eq!((long.height - without.height) % 28, 0);
    assert!(long.height > without.height + 3 * 28);
    let margin = |x: usize| (0..long.height).all(|y| long.pixels[(y * long.width + x) * 3] == 255);
    assert!((long.width - 20..long.width).all(margin));
    decode(&sheet(vec![beside(0, true, 2)], "a single one"));
    let five: Vec<Compared> = (0..7).map(|i| beside(i, i == 0, 5)).collect();
    let png = sheet(five, "1 of 7 samples copies a training image");
    keep("sheet_of_five.png", &png);
    let wide = decode(&png);
    // The fifth neighbour of the first sample.
    let (x, y) = (28 + 8 + 5 * (64 + 6), top + 8);
    assert_eq!(wide.pixels[((y + 32) * wide.width + x + 24) * 3], digits.image(5)[4 * 8 + 3]);
    decode(&sheet(vec![], "none at all"));
}

fn series(name: &str, style: Style, values: &[(f64, f64)]) -> Series {
    let point = |&(x, y): &(f64, f64)| Point {
        interval: Some([(y - 0.02).max(0.0), (y + 0.02).min(1.0)]),
        ..Point::new(x, y)
    };
    Series::new(name, style, values.iter().map(point).collect())
}

const BASIC: [(f64, f64); 5] =
    [(500.0, 0.998), (1000.0, 0.9209), (2000.0, 0.6093), (3000.0, 0.346), (5000.0, 0.09)];

fn sizes(emm: Option<f64>) -> Chart {
    let series = Series { emm, ..series("", Style::Line, &BASIC) };
    Chart::of("DDPM++ on CIFAR-10", Panel::sizes("", 0.1, vec![series]))
}

fn epochs() -> Chart {
    let line = |n: u64| {
        let at = |i: u64| {
            let e = 2000.0 * i as f64;
            (e, (1.0 - (-e / 9000.0).exp()) * (1000.0 / n as f64).min(1.0).powf(1.2))
        };
        (format!("N = {n}"), (0..=20).map(at).collect())
    };
    let lines = [500, 1000, 2000, 3000, 5000].map(line).to_vec();
    Chart::of("Training dynamics", Panel::epochs("", lines))
}

/// Several panels: sizes with several EMMs and others' values, categories with marks, a log axis, a zoom.
fn panels() -> Chart {
    let wider: Vec<_> = BASIC.iter().map(|&(n, r)| (2.0 * n, r)).collect();
    let mut ours = Series { emm: Some(1067.0), ..series("128 channels", Style::Line, &BASIC) };
    ours.points[4].rising = true;
    let wide = Series { emm: Some(2134.0), ..series("256 channels", Style::Line, &wider) };
    let theirs = Series {
        points: BASIC.map(|(n, r)| Point::new(n, r - 0.03)).to_vec(),
        ..series("paper", Style::Theirs, &[])
    };
    let width = Panel::sizes("a: width", 0.1, vec![ours, wide, theirs]);
    let kept = |name: &str, shift: f64| {
        let mut s = series(name, Style::Marks, &[(0.0, 0.93), (1.0, 0.8 - shift), (2.0, 0.1)]);
        s.points[1].rising = true;
        s
    };
    let names = ["32×32", "16×16", "8×8"].map(String::from).to_vec();
    let places = vec![kept("3 skips", 0.0), kept("2 skips", 0.1), kept("1 skip", 0.25)];
    let places = Panel::new("b: skips", "resolution", ChartScale::Categories(names), places);
    let classes = [(1.0, 0.09), (10.0, 0.23), (50.0, 0.5), (100.0, 0.62), (1000.0, 0.93)];
    let classes = vec![series("N = 5000 <b>&\u{1}</b>", Style::Line, &classes)];
    let classes =
        Panel { level: Some(0.9), ..Panel::new("c: labels", "classes", ChartScale::Log, classes) };
    let spread =
        series("N = 1000", Style::Line, &[(100.0, 0.921), (1000.0, 0.92), (10000.0, 0.92)]);
    let spread = Panel::new("d: samples", "images", ChartScale::Log, vec![spread]).zoomed();
    Chart {
        title: "Four panels".into(),
        panels: vec![width, places, classes, spread],
        footer: vec!["open marks: still rising at the last evaluation".into()],
    }
}

#[test]
fn charts_show_what_they_are_given() {
    for (name, chart) in
        [("sizes", sizes(Some(1067.0))), ("epochs", epochs()), ("panels", panels())]
    {
        let png = chart.png().unwrap();
        keep(&format!("chart_{name}.png"), &png);
        let image = decode(&png);
        let all = image.width * image.height;
        assert!(count(&image, [255; 3]) < all * 99 / 100, "{name}: an empty picture");
        assert_eq!(chart.png().unwrap(), png, "{name}: other bytes the second time");
        keep(&format!("chart_{name}.svg"), chart.svg().as_bytes());
    }
    let svg = sizes(Some(1067.0)).svg();
    for words in [
        "DDPM++ on CIFAR-10",
        "EMM(ε = 0.1) ≈ 1,067",
        "between 1,000 and 2,000",
        "1 − ε = 90%",
        "2,000",
        "log scale",
        "lines: straight in the number of images",
    ] {
        assert!(svg.contains(words), "no {words:?} in {svg}");
    }
    assert!(!sizes(None).svg().contains("EMM("));
    let svg = epochs().svg();
    for words in ["N = 500", "N = 5000", "40,000", "epochs", "100%"] {
        assert!(svg.contains(words), "no {words:?} in {svg}");
    }
    let svg = panels().svg();
    for words in [
        "256 channels · EMM ≈ 2,134",
        "paper · 1,000 training images: 89.09%",
        "128 channels · 5,000 training images: 9.00% (7.00% to 11.00%), still rising at the last evaluation",
        "1 skip · 16×16: 55.00%",
        "N = 5000 &lt;b&gt;&amp; &lt;/b&gt;",
        "open marks",
    ] {
        assert!(svg.contains(words), "no {words:?} in {svg}");
    }
}

#[test]
fn a_level_is_crossed_where_the_emm_is() {
    // Straight in the number of images: halfway between 1,000 and 2,000 lies 1,500, on a log axis right of it.
    let svg = sizes(None).svg();
    let line = svg.lines().find(|l| l.contains("stroke-width=\"2.1\"")).unwrap();
    let path = line.split('"').nth(1).unwrap();
    let numbers: Vec<f64> = path.split(['M', 'L', ' ']).filter_map(|n| n.parse().ok()).collect();
    let points: Vec<_> = numbers.chunks(2).map(|p| (p[0], p[1])).collect();
    assert_eq!(points.len(), 1 + 4 * 16);
    let (a, middle, b) = (points[16], points[24], points[32]);
    let share = (middle.0 - a.0) / (b.0 - a.0);
    assert!((share - 1.5f64.log2()).abs() < 1e-3, "{share}");
    assert!((middle.1 - (a.1 + b.1) / 2.0).abs() < 0.02);
}

#[test]
fn lines_are_said_to_be_what_they_are() {
    let near = [(1000.0, 0.95), (2000.0, 0.5)];
    let of = |scale, values: &[(f64, f64)]| {
        Chart::of("c", Panel::new("", "x", scale, vec![series("", Style::Line, values)])).notes()
    };
    let bent = "lines: straight in the number of images between sizes, as the EMM is interpolated, so bent on the \
                log axis";
    assert_eq!(of(ChartScale::Images, &BASIC), [bent]);
    let straight = "lines: straight between sizes, as the EMM is interpolated";
    assert_eq!(of(ChartScale::Images, &near), [straight]);
    assert_eq!(
        of(ChartScale::Log, &near),
        ["lines only join the points, straight on the log axis"]
    );
    // Of marks alone and of one point no line is drawn.
    assert!(
        of(ChartScale::Images, &near[..1]).is_empty() && of(ChartScale::Linear, &near).is_empty()
    );
    let marks = Panel::new("", "x", ChartScale::Log, vec![series("", Style::Marks, &near)]);
    assert!(Chart::of("c", marks).notes().is_empty());
}

#[test]
fn a_chart_without_values_says_so() {
    let chart = |series| Chart::of("c", Panel::sizes("", 0.1, series)).svg();
    let ours = || series("ours", Style::Line, &BASIC);
    let theirs = || series("paper", Style::Theirs, &BASIC);
    let none = series("ours", Style::Line, &[]);
    let unseen = series("ours", Style::Line, &[(f64::NAN, 0.5)]);
    for nothing in [vec![], vec![none.clone()], vec![unseen]] {
        assert!(chart(nothing).contains(">nothing to show yet: no finished run</text>"));
    }
    assert!(chart(vec![none, theirs()]).contains(">no finished run of ours yet</text>"));
    assert!(!chart(vec![ours(), theirs()]).contains("no finished run"));
}

#[test]
fn others_values_have_the_colour_of_what_they_stand_beside() {
    let theirs = |beside| Series { beside, ..series("paper", Style::Theirs, &BASIC) };
    let ours = |name| series(name, Style::Line, &BASIC);
    let dashed = |beside| {
        let panel = Panel::sizes("", 0.1, vec![ours("a"), ours("b"), theirs(beside)]);
        let svg = Chart::of("c", panel).svg();
        let group = svg.split("data-series=\"2\"").nth(1).unwrap().to_string();
        let color = group.split("stroke=\"").nth(1).unwrap();
        (svg.matches(&color[..7]).count(), color[..7].to_string())
    };
    assert_eq!((dashed(Some(0)).1, dashed(Some(1)).1), ("#1d2f6f".into(), "#c0352b".into()));
    // Beside nothing, and beside what is not there or not ours: grey.
    for beside in [None, Some(2), Some(9)] {
        assert_eq!(dashed(beside).1, "#7a7f88");
    }
}

/// Sizes of the words of an SVG when it is so many pixels wide.
fn sizes_at(svg: &str, width: f64) -> Vec<f64> {
    let number = |name: &str| -> Vec<f64> {
        let start = format!(" {name}=\"");
        let parts = svg.split(&start).skip(1);
        parts.map(|p| p.split('"').next().unwrap().parse().unwrap_or(0.0)).collect()
    };
    let scale = width / number("width")[0];
    number("font-size").into_iter().map(|size| size * scale).collect()
}

#[test]
fn words_can_be_read_on_a_phone() {
    // A picture as wide as a phone's window, and a panel of a page beside its margins.
    for chart in [sizes(Some(1067.0)), epochs()] {
        let least = sizes_at(&chart.svg(), 390.0).into_iter().fold(f64::INFINITY, f64::min);
        assert!(least > 9.0, "{}: {least}", chart.title);
    }
    for svg in panels().panel_svgs() {
        let least = sizes_at(&svg, 360.0).into_iter().fold(f64::INFINITY, f64::min);
        assert!(least >= 14.0, "{least}");
    }
}

#[test]
fn the_emm_stands_where_no_line_is() {
    // Falls steeply, then runs along the bottom: where the words would stand otherwise.
    let steep = [(10.0, 0.99), (12.0, 0.91), (14.0, 0.05), (40.0, 0.04), (80.0, 0.04)];
    let flat = Series { emm: Some(12.1), ..series("", Style::Line, &steep) };
    let svg = Chart::of("c", Panel::sizes("", 0.1, vec![flat])).svg();
    let of = |name: &str, text: &str| -> f64 {
        text.split(&format!("{name}=\""))
            .nth(1)
            .unwrap()
            .split('"')
            .next()
            .unwrap()
            .parse()
            .unwrap()
    };
    let words = svg.lines().find(|l| l.contains(">between 12 and 14<")).unwrap();
    let bottom = svg.lines().find(|l| l.contains(">0%<")).unwrap();
    assert!(of(" y", words) < of(" y", bottom) - 60.0, "{words} {bottom}");
}

#[test]
fn charts_are_data_too() {
    let chart = panels();
    let json = serde_json::to_string(&chart).unwrap();
    assert_eq!(serde_json::from_str::<Chart>(&json).unwrap(), chart);
    let csv = chart.table().csv();
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!(lines[0], "panel,series,x,ratio,low,high,rising");
    assert_eq!(lines[1], "a: width,128 channels,500,0.998,0.978,1,no");
    assert!(lines.contains(&"a: width,paper,1000,0.8909,,,no"), "{csv}");
    assert!(lines.iter().any(|l| l.starts_with("b: skips,2 skips,16×16,0.7")), "{csv}");
    assert_eq!(chart.panel_svgs().len(), 4);
}

#[test]
fn charts_of_little_or_odd_data_can_be_drawn() {
    let sizes = |series| Chart::of("few", Panel::sizes("", 0.1, series));
    let point = |x, y| Point { interval: Some([0.9, 1.0]), ..Point::new(x, y) };
    let of = |points: Vec<Point>| Series { points, ..series("s", Style::Line, &[]) };
    let odd = || vec![point(f64::NAN, 0.5), point(0.0, 0.4), point(3.0, f64::INFINITY)];
    let axis = |scale| Panel::new("", "x", scale, vec![of(odd()), of(vec![])]).zoomed();
    for chart in [
        Chart { title: String::new(), panels: vec![], footer: vec![] },
        sizes(vec![]),
        sizes(vec![of(vec![point(64.0, 1.0)])]),
        sizes(vec![Series { emm: Some(1e300), ..of(odd()) }]),
        Chart::of("none", Panel::epochs("", vec![])),
        Chart::of("one", Panel::epochs("", vec![("N = 1".into(), vec![(0.0, 0.5)])])),
        Chart::of("log", axis(ChartScale::Log)),
        Chart::of("linear", axis(ChartScale::Linear)),
        Chart::of("names", axis(ChartScale::Categories(vec![]))),
        Chart::of(&"very long ".repeat(40), axis(ChartScale::Images)),
    ] {
        decode(&chart.png().unwrap());
        let svg = chart.svg();
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }
}

#[test]
fn names_of_series_fit_their_panel_and_say_what_has_none() {
    let line = series(&"wide name, ".repeat(9), Style::Line, &[(10.0, 0.95), (20.0, 0.5)]);
    let absent = series("absent", Style::Line, &[]);
    let panel = Panel::sizes("", 0.1, vec![Series { emm: Some(11.0), ..line }, absent]);
    let svgs = Chart::of("c", panel).panel_svgs();
    let end = svgs[0].find("… · EMM ≈ 11</text>").expect("the EMM is not cut off");
    let start = svgs[0][..end].rfind('>').unwrap() + 1;
    // 400 units hold forty letters or so beside the sign and the EMM.
    assert!(svgs[0][start..end].chars().count() < 45, "{}", &svgs[0][start..end]);
    assert!(svgs[0].contains(">absent · none</text>"));
    // An axis without a value has no ticks.
    let empty = Chart::of("e", Panel::epochs("", vec![("a".into(), vec![])])).svg();
    assert!(!empty.contains(">1.2</text>"), "{empty}");
}

#[test]
fn charts_are_png_svg_pdf_csv_or_json() {
    let dir = tempfile::tempdir().unwrap();
    let chart = epochs();
    for name in ["a.png", "a.svg", "a.pdf", "a.csv", "a.json"] {
        chart.save(&dir.path().join(name), false).unwrap();
    }
    let e = chart.save(&dir.path().join("a.jpg"), false).unwrap_err();
    assert!(e.to_string().ends_with("a chart is .png, .svg, .pdf, .csv or .json"), "{e}");
    assert_eq!(emm::error::exit_code(&e), 2);
}
