//! `emm report`: one HTML page of whatever a folder holds. Looked at in a browser by whoever changes it; here its
//! structure, and that nothing of what files say becomes markup.

use crate::support::{emm, emm_in, say};
use emm::data::Dataset;
use emm::report::{
    Cell, Chart, Compared, Page, PagePart, Panel, Section, Sheet, SheetOf, Table, sheets,
};
use std::fs;
use std::path::Path;
use std::process::Command;
use tempfile::tempdir;

const EVIL: &str = "</title></style><script>alert(1)</script>\"'&\u{1}<img src=http://x/>";

/// Every element that opens closes, in order; attributes are quoted; nothing is loaded from elsewhere.
fn check(html: &str) {
    assert!(html.starts_with("<!DOCTYPE html>\n"));
    let mut open: Vec<String> = Vec::new();
    let mut rest = html;
    while let Some(at) = rest.find('<') {
        rest = &rest[at + 1..];
        let name: String = rest.chars().take_while(|c| c.is_alphanumeric()).collect();
        if let Some(closing) = rest.strip_prefix('/') {
            let name: String = closing.chars().take_while(|c| c.is_alphanumeric()).collect();
            assert_eq!(open.pop().as_deref(), Some(name.as_str()), "closed out of order");
            continue;
        }
        if name.is_empty() {
            assert!(rest.starts_with('!'), "a stray <: {}", &rest[..rest.len().min(40)]);
            continue;
        }
        // Quoted attributes hold no angle brackets: everything in them is escaped.
        let end = rest.find('>').expect("a tag ends");
        let tag = &rest[..end];
        assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
        // Names of attributes and their values take turns.
        let parts: Vec<&str> = tag.split('"').collect();
        for (name, value) in parts.iter().step_by(2).zip(parts.iter().skip(1).step_by(2)) {
            if name.ends_with("src=") || name.ends_with("href=") {
                let inside = value.starts_with("data:image/png;base64,") || value.starts_with('#');
                assert!(inside, "{tag}");
            }
            assert!(!name.trim().starts_with("on"), "a handler: {tag}");
        }
        let void = ["meta", "img", "br", "rect", "circle", "path"].contains(&name.as_str());
        if !void && !tag.ends_with('/') {
            open.push(name.clone());
        }
        rest = &rest[end + 1..];
        // Style and script are ours: they hold no markup.
        if name == "script" || name == "style" {
            let end = rest.find("</").expect("it ends");
            assert!(!rest[..end].contains("http") && !rest[..end].contains("@import"));
            rest = &rest[end..];
        }
    }
    assert!(open.is_empty(), "left open: {open:?}");
    assert_eq!(html.matches("<script>").count(), 1);
    // The namespace of SVG is a name, not an address that is asked.
    let elsewhere = html.replace("xmlns=\"http://www.w3.org/2000/svg\"", "");
    assert!(!elsewhere.contains("=\"http"), "loads something");
}

fn picture() -> Vec<u8> {
    let digits = Dataset::digits();
    let neighbours = vec![digits.image(1), digits.image(2)];
    let one =
        Compared { sample: digits.image(0), neighbours, distance_ratio: 0.1, memorized: true };
    let (title, threshold) = ("one".into(), "1/3".into());
    sheets(&[Sheet {
        samples: vec![one],
        side: 8,
        title,
        notes: vec![],
        threshold,
        of: SheetOf::Samples,
    }])
    .unwrap()
}

#[test]
fn pages_escape_everything() {
    let mut table = Table::new(&[EVIL, "n"]);
    table.row(vec![Cell::Text(EVIL.into()), Cell::Integer(12345)]);
    let lines = vec![(EVIL.to_string(), vec![(0.0, 0.1), (10.0, 0.5)])];
    let chart = Chart { footer: vec![EVIL.into()], ..Chart::of(EVIL, Panel::epochs(EVIL, lines)) };
    let parts = vec![
        PagePart::Text(EVIL.into()),
        PagePart::Facts(vec![(EVIL.into(), EVIL.into())]),
        PagePart::Table(table),
        PagePart::Folded(EVIL.into(), vec![PagePart::Chart(chart)]),
        PagePart::Picture { name: EVIL.into(), png: picture() },
    ];
    let section = |parts| Section { title: EVIL.into(), parts };
    let sections = vec![section(parts), section(vec![]), section(vec![])];
    let html = Page { title: EVIL.into(), lead: vec![EVIL.into()], sections }.html();
    check(&html);
    assert!(!html.contains("<script>alert"));
    assert!(html.contains("Content-Security-Policy"));
    assert!(html.contains("<td class=\"n\">12345</td>"));
    assert!(html.contains("10 epochs: 50.00%"), "values on hover");
    // No words of the page itself are smaller than 14 pixels on a screen.
    let screen = html.split("@media print").next().unwrap();
    let rem = screen.split("font-size: ").skip(1).filter_map(|s| s.split("rem").next());
    let rem: Vec<f64> = rem.map(|s| s.parse().unwrap()).collect();
    assert!(rem.len() > 4 && rem.iter().all(|&r| r * 16.0 >= 14.0), "{rem:?}");
    // Tables scroll within themselves.
    assert!(
        html.contains("<div class=\"wide\">\n<table>")
            && screen.contains(".wide { overflow: auto;")
    );
}

#[test]
fn tables_are_read_back() {
    let csv = "labels,N,ratio\n\"a,\"\"b\"\"\",1000,92.09\nx,,1e-4\n";
    let table = Table::from_csv(csv).unwrap();
    assert_eq!(table.csv(), csv);
    let html = table.html();
    assert!(html.contains("<td class=\"n\">1000</td>") && html.contains("<td>1e-4</td>"), "{html}");
    for wrong in ["", "\n", "a,b\n1\n", "a,\"b\n1,2\n"] {
        assert!(Table::from_csv(wrong).is_none(), "{wrong:?}");
    }
}

fn trained(dir: &Path) {
    let digits = format!("{}/data/digits8x8-images-idx3-ubyte", env!("CARGO_MANIFEST_DIR"));
    emm_in(dir, ["data", "import", &digits, "--out", "d.zip"]).ok();
    emm_in(
        dir,
        "find --data d.zip --sizes 10,20 --epsilon 0.1 --channels 4 --mult 1,1 --blocks 1 --epochs 20 --looks 2 \
         --score-images 16 --rescore-images 0 --batch 10 --out found --runs found/runs --precond edm"
            .split_whitespace(),
    )
    .ok();
}

#[test]
fn a_search_becomes_a_page() {
    let dir = tempdir().unwrap();
    trained(dir.path());
    let found = dir.path().join("found");
    fs::write(found.join("table3.csv"), "labels,ours\nunique,99.5\n").unwrap();
    fs::write(found.join("broken.png"), "no picture").unwrap();
    fs::write(found.join("notes.json"), "{\"a\": 1}").unwrap();
    let lines = vec![("N = 7".to_string(), vec![(0.0, 0.125)])];
    let chart = Chart::of("A saved figure", Panel::epochs("", lines));
    chart.save(&found.join("figure.json"), false).unwrap();
    fs::create_dir_all(found.join("runs/other")).unwrap();
    fs::write(found.join("runs/other/config.toml"), "[model]\nfuture = 1\n").unwrap();

    let said = emm_in(dir.path(), ["report", "found", "--json"]).passed_over("other/config.toml");
    let json: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(
        (&json["runs"], &json["charts"], &json["tables"], &json["pictures"]),
        (&2.into(), &1.into(), &1.into(), &2.into())
    );
    let html = fs::read_to_string(found.join("report.html")).unwrap();
    check(&html);
    for words in [
        "Memorization: found",
        "EMM(ε = 0.1)",
        "A saved figure",
        "N = 7 · 0 epochs: 12.50%",
        "<td>unique</td>",
        "sheet-20.png",
        "2 of 2 runs finished",
        "<dt>model channels</dt><dd>4</dd>",
        "<dt>skip connections</dt><dd>all</dd>",
        "added up, ",
        "<dt>by the clock</dt>",
        "<dt>each run on</dt><dd>cpu, 1 thread</dd>",
        "4 channels × 1,1",
        "broken.png: not a picture",
        "config.toml: not a run&#39;s configuration",
    ] {
        assert!(html.contains(words), "no {words:?} in the page");
    }
    // Bands over training too, and what was trained.
    assert!(html.contains(" epochs: 0.00% (0.00% to "), "intervals of evaluations");
    assert!(html.contains("evaluations: 2 of 16 images"), "settings of the answer's charts");
    // Redrawn, not embedded.
    assert!(!html.contains("sizes.png"));

    // The folder of runs alone, one run alone, and a run that is not finished.
    fs::remove_dir_all(found.join("runs/other")).unwrap();
    emm_in(dir.path(), ["report", "found/runs", "--out", "runs.html"]).ok();
    let html = fs::read_to_string(dir.path().join("runs.html")).unwrap();
    check(&html);
    assert!(html.contains("Over training") && html.contains("N = 20"));
    let run = fs::read_dir(found.join("runs")).unwrap().map(|e| e.unwrap().path());
    let run = run.filter(|p| p.join("scores.csv").exists()).min().unwrap();
    let text = fs::read_to_string(run.join("scores.csv")).unwrap();
    let shorter: String = text.split_inclusive('\n').take(2).collect();
    // With its last state the run has lost a row; without, it is one that somebody began.
    let file = run.to_str().unwrap();
    fs::write(run.join("scores.csv"), text.lines().next().unwrap().to_string() + "\n").unwrap();
    let lost = emm_in(dir.path(), ["report", file, "--out", "lost.html"]);
    lost.refused(3, file, "no row of the evaluation");
    fs::write(run.join("scores.csv"), shorter).unwrap();
    fs::remove_dir_all(run.join("state")).unwrap();
    let run = run.to_str().unwrap();
    emm_in(dir.path(), ["report", run, "--out", "run.html", "--title", "One <run>"]).ok();
    let html = fs::read_to_string(dir.path().join("run.html")).unwrap();
    check(&html);
    assert!(html.contains("<td>1 of 2</td>") && html.contains("0 of 1 runs finished"));
    assert!(html.contains("<title>One &lt;run&gt;</title>"));
}

#[test]
fn a_run_in_two_folders_is_one_run_and_one_seed() {
    let dir = tempdir().unwrap();
    trained(dir.path());
    let runs = dir.path().join("found/runs");
    let page = |name: &str| {
        emm_in(dir.path(), ["report", "found/runs", "--out", name]).ok();
        fs::read_to_string(dir.path().join(name)).unwrap()
    };
    // Its points on the chart over sizes, with their intervals.
    let points = |page: &str| {
        let tips = page.split("<title>").skip(1).filter_map(|t| t.split("</title>").next());
        let of_sizes = tips.filter(|t| t.contains("training images: ")).map(String::from);
        of_sizes.collect::<Vec<_>>()
    };
    let once = page("once.html");
    assert!(!once.contains("the mean of"), "one run a size");
    let first = fs::read_dir(&runs).unwrap().map(|e| e.unwrap().path()).min().unwrap();
    let copy = |to: &str, edit: &dyn Fn(&str, String) -> String| {
        fs::create_dir_all(runs.join(to)).unwrap();
        for name in ["config.toml", "scores.csv"] {
            let text = fs::read_to_string(first.join(name)).unwrap();
            fs::write(runs.join(to).join(name), edit(name, text)).unwrap();
        }
    };
    copy("again", &|_, text| text);
    let twice = page("twice.html");
    assert!(
        twice.contains("3 of 3 runs finished") && !twice.contains("the mean of"),
        "twice the same run"
    );
    assert!(points(&once).len() > 1);
    assert_eq!(points(&once), points(&twice), "its images count once");
    copy("other", &|name, text| match name {
        // Without the note, which has a checksum of what stands before it.
        "config.toml" => text.split("[note]").next().unwrap().replace("seed = 1024", "seed = 7"),
        _ => text,
    });
    assert!(page("seeds.html").contains("the mean of several seeds"));
}

#[test]
fn a_page_needs_something_to_show() {
    let dir = tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    emm(["report", path]).refused(3, path, "nothing to report");
    emm(["report", "nowhere"]).refused(3, "nowhere", "No such file");
    fs::write(dir.path().join("results.json"), "{\"epsilon\": 0.1}").unwrap();
    emm(["report", path]).refused(3, path, "results.json: not a search's results");
    fs::write(dir.path().join("a.png"), picture()).unwrap();
    emm(["report", path]).ok();
    emm(["report", path]).refused(2, &format!("{path}/report.html"), "--force");
    emm(["report", path, "--force"]).ok();
    emm(["report", path, "--out", "page.pdf"]).refused(2, "--out: ", ".html");
}

/// The browser that `EMM_BROWSER` names, which has to be there, or else one that is.
fn browser() -> Option<String> {
    let runs = |browser: &String| {
        Command::new(browser).arg("--version").output().is_ok_and(|o| o.status.success())
    };
    if let Ok(named) = std::env::var("EMM_BROWSER") {
        assert!(runs(&named), "EMM_BROWSER: {named:?} does not run");
        return Some(named);
    }
    ["chromium", "chromium-browser", "google-chrome"].map(String::from).into_iter().find(runs)
}

/// In a browser, if there is one: scripts run without errors, names switch series, points tell their values.
#[test]
fn a_browser_runs_the_page() {
    let Some(browser) = browser() else {
        say("pages::a_browser_runs_the_page: skipped, no browser; EMM_BROWSER names one");
        return;
    };
    let dir = tempdir().unwrap();
    let lines = vec![("first".to_string(), vec![(0.0, 0.1), (10.0, 0.5)])];
    let parts = vec![PagePart::Chart(Chart::of("chart", Panel::epochs("", lines)))];
    let sections = vec![Section { title: "one".into(), parts }];
    let page = Page { title: "t".into(), lead: vec![], sections }.html();
    let probe = "<script>
        const key = document.querySelector('.key');
        key.dispatchEvent(new Event('click'));
        const off = document.querySelector('.series').classList.contains('off');
        key.dispatchEvent(new Event('click'));
        const svg = document.querySelector('.panels svg');
        const box = svg.querySelectorAll('.point')[1].getBoundingClientRect();
        svg.dispatchEvent(new PointerEvent('pointermove', { clientX: box.x + 4, clientY: box.y + 4 }));
        document.title = 'off ' + off + '; ' + document.getElementById('tip').textContent;
        </script></body>";
    let file = dir.path().join("page.html");
    fs::write(&file, page.replace("</body>", probe)).unwrap();
    let out = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .arg(format!("--user-data-dir={}", dir.path().join("profile").display()))
        .args(["--dump-dom", file.to_str().unwrap()])
        .output()
        .unwrap();
    let dom = String::from_utf8_lossy(&out.stdout);
    assert!(dom.contains("<title>off true; first · 10 epochs: 50.00%</title>"), "{dom}");
}
