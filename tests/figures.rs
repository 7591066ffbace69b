//! The paper's figures from finished runs. The runs here are files alone; pictures are left in the target's `tmp`
//! folder to be looked at.

use crate::support::{Ended, edit_scores, emm, emm_in};
use emm::data::{Dataset, Image};
use emm::memorization::bootstrap;
use emm::report::{Chart, ChartScale as Axis, Style};
use emm::run::{Evaluation, RunConfig, RunDir};
use emm::settings::Factor;
use emm::study::{NamedSet, Scale, Setup, StudyPlan};
use emm::views::figures::{figure, studies_of};
use std::path::Path;
use std::process::Command;
use tempfile::tempdir;

const CHARTS: &str =
    "1 1c 1d 2 2a 2b 2c 3 3a 3b 3c 3d 4 4a 4b 4c 4d 5 5a 5b 5c 5d 6 7 7a 7f 8 8a 8b 9";

fn tiny(runs: &Path) -> Setup {
    let set = || NamedSet { images: Dataset::digits(), name: "bundled digits".into() };
    let mut setup = Setup::new(Scale::TINY, Some(set()), runs.into());
    setup.blend = Some(set());
    setup
}

fn plans(id: &str, setup: &Setup) -> Vec<StudyPlan> {
    let studies = studies_of(id).unwrap();
    studies.iter().map(|study| StudyPlan::new(study, setup).unwrap()).collect()
}

/// Falls with size; rises with width, labels and kept skips. No model of anything, only something to draw.
fn pretended(config: &RunConfig) -> f64 {
    let m = &config.model;
    let skips: f64 = (m.skip_connections.iter().enumerate())
        .map(|(i, &on)| on as f64 / (1.0 + i as f64))
        .sum::<f64>()
        / 3.0;
    let labels = 1.0 + (m.label_dim as f64).sqrt() / 3.0;
    let room = 12.0 * m.model_channels as f64 / 16.0 * 8.0 / m.resolution as f64 * labels * skips;
    1.0 / (1.0 + (config.data.images as f64 / room).powi(3) / 9.0)
}

fn finish(config: &RunConfig, dir: &Path, ratio: f64) {
    let run = RunDir::new(dir);
    drop(run.lock().unwrap());
    let mut stored = config.clone();
    stored.train.micro_batch = 1;
    run.settle(&stored, "d.zip").unwrap();
    let (steps, images) = (config.evaluation_steps(), config.train.score_images as u64);
    let evaluation = |(k, &step): (usize, &u64)| {
        let ratio = ratio * ((k + 1) as f64 / steps.len() as f64).sqrt();
        let memorized = (ratio * images as f64).round() as u64;
        let [low, high] = emm::memorization::wilson(memorized, images);
        let (epoch, ratio) = (config.epoch(step), memorized as f64 / images as f64);
        Evaluation { step, epoch, images, memorized, ratio, low, high, mean_d1: 1.0 }
    };
    let evaluations: Vec<Evaluation> = steps.iter().enumerate().map(evaluation).collect();
    run.write_evaluations(&evaluations).unwrap();
    if config.train.rescore_images > 0 {
        let images = config.train.rescore_images as u64;
        let memorized = (ratio * images as f64) as u64;
        let [low, high] = emm::memorization::wilson(memorized, images);
        let ratio = memorized as f64 / images as f64;
        let best = evaluations.last().unwrap().clone();
        run.write_rescored(&Evaluation { images, memorized, ratio, low, high, ..best }).unwrap();
    }
}

fn finish_all(plans: &[StudyPlan]) {
    for run in plans.iter().flat_map(|p| &p.cells).flat_map(|c| &c.runs) {
        let dir = run.dir.as_ref().unwrap();
        if !dir.exists() {
            finish(&run.config, dir, pretended(&run.config));
        }
    }
}

fn names(chart: &Chart, panel: usize) -> Vec<&str> {
    chart.panels[panel].series.iter().map(|s| s.name.as_str()).collect()
}

#[test]
fn every_chart_of_the_paper_is_drawn() {
    let dir = tempdir().unwrap();
    let setup = tiny(dir.path());
    let mut charts = std::collections::HashMap::new();
    for id in CHARTS.split(' ') {
        let plans = plans(id, &setup);
        finish_all(&plans);
        let found = figure(id, &plans);
        assert!(found.missing.iter().all(Vec::is_empty), "{id}: {:?}", found.missing);
        let said: String = found.chart.footer.join("\n");
        assert!(said.contains("scale tiny, not the paper's") && said.contains("bundled digits"));
        for panel in &found.chart.panels {
            let points: usize = panel.series.iter().map(|s| s.points.len()).sum();
            assert!(points > 0, "{id}: {} is empty", panel.title);
        }
        let png = found.chart.png().unwrap();
        Image::decode(&png, &Default::default(), id).unwrap();
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("figure_{id}.png"));
        std::fs::write(path, png).unwrap();
        assert!(found.chart.svg().contains("</svg>"));
        charts.insert(id, found.chart);
    }
    let panels = |id: &str| charts[id].panels.len();
    assert_eq!((panels("2"), panels("3"), panels("4"), panels("5")), (3, 4, 4, 4));
    assert_eq!((panels("1"), panels("6"), panels("7"), panels("8"), panels("9")), (2, 2, 6, 2, 3));

    // 2a: a line a resolution over sizes, with EMMs, beside what the paper's plot shows.
    let theirs = ["paper ≈: 4×4", "paper ≈: 2×2"];
    assert_eq!(names(&charts["2a"], 0), [&["8×8", "4×4", "2×2"][..], &theirs].concat());
    let read_off =
        |id: &str| charts[id].footer.iter().any(|f| f == "paper ≈: read off a plot of the paper's");
    assert!(
        read_off("2a") && read_off("4b") && read_off("5b") && read_off("5d") && !read_off("4a")
    );
    let balanced = "2a: subsets are balanced by class";
    assert!(charts["2a"].footer.iter().any(|f| f.starts_with(balanced)));
    for id in ["1c", "1d"] {
        let inferred = format!("{id}: its settings are inferred");
        assert!(charts[id].footer.iter().any(|f| f.starts_with(&inferred)), "{id}");
    }
    assert!(charts["2a"].panels[0].series[0].emm.is_some());
    assert_eq!(charts["2a"].panels[0].level, Some(0.9));
    assert!(charts["2a"].footer.iter().any(|f| f.contains("EMMs, about: 1000, 4000, 8000")));
    // 3a: widths at this scale. 9: a panel for each kind of labels, a curve a size, the paper's end values.
    assert_eq!(names(&charts["3a"], 0), ["width 16", "width 24", "width 32", "width 40"]);
    let sizes = ["N = 10", "N = 20", "N = 30", "N = 40", "N = 50"];
    assert_eq!(
        names(&charts["9"], 2),
        [sizes, sizes.map(|n| format!("paper: {n}").leak() as &str)].concat()
    );
    assert!(charts["9"].panels[2].title.ends_with("unique labels"));
    let printed = &charts["9"].panels[2].series[5];
    assert_eq!((printed.style, printed.beside), (Style::Theirs, Some(0)));
    let second = &charts["9"].panels[2].series[6];
    assert!((second.points[0].y - 0.9988).abs() < 1e-12 && second.beside == Some(1));
    let said = "crosses: the paper's values, of the whole run, in the colour of ours beside";
    assert!(charts["9"].footer.iter().any(|f| f == said), "{:?}", charts["9"].footer);
    // 4a: marks by number of skips at each resolution; 4b: by the resolution of the one.
    let Axis::Categories(places) = &charts["4a"].panels[0].x.scale else { panic!("no categories") };
    assert_eq!(places, &["8×8", "4×4", "2×2", "all"]);
    assert_eq!(names(&charts["4a"], 0), ["3 skips", "2 skips", "1 skip", "all skips"]);
    assert_eq!(
        names(&charts["4b"], 0),
        [&["8×8"], &["4×4", "2×2", "paper ≈: 8×8"][..], &theirs].concat()
    );
    let points: Vec<_> = charts["4b"].panels[0].series.iter().map(|s| s.points.len()).collect();
    assert_eq!(points, [3; 6]);
    let beside: Vec<_> = charts["4b"].panels[0].series.iter().map(|s| s.beside).collect();
    assert_eq!(beside, [None, None, None, Some(0), Some(1), Some(2)]);
    assert_eq!(charts["8a"].panels[0].series.len(), 5);
    // 6: beyond the images of an evaluation.
    for panel in &charts["6"].panels {
        let most = panel.series[0].points.iter().map(|p| p.x).fold(0.0, f64::max);
        let images = setup.scale.scaled(Factor::ScoreImages, Some(10_000.0));
        assert_eq!((most, images), (1250.0, Some(250.0)), "{}", panel.title);
    }
    // Wherever lines are several, none of the paper's is without the name and colour of its own.
    for (id, chart) in &charts {
        for panel in &chart.panels {
            let ours = panel.series.iter().filter(|s| s.style != Style::Theirs);
            let several = ours.clone().filter(|s| !s.points.is_empty()).count() > 1;
            for theirs in panel.series.iter().filter(|s| s.style == Style::Theirs && several) {
                let named = theirs.beside.map(|i| &panel.series[i].name);
                let named = named.is_some_and(|n| theirs.name.ends_with(&format!(": {n}")));
                assert!(named, "{id}: {} {:?}", panel.title, theirs.name);
            }
        }
    }
    // 5a: printed values beside ours, and those of a plot; 5d: one of each.
    let theirs = ["paper: unconditional", "paper: true labels", "paper ≈: random labels"];
    assert_eq!(names(&charts["5a"], 0)[3..], theirs);
    assert_eq!(names(&charts["5d"], 0)[2..], ["paper: unconditional", "paper ≈: unique labels"]);
    assert_eq!(charts["5b"].panels[0].series.len(), 6);
    // Every pretended run rises to its end.
    assert!(charts["1d"].footer.iter().any(|f| f.starts_with("open marks")));
    let point = charts["1d"].panels[0].series[0].points.last().unwrap();
    assert!(point.rising && point.interval.is_some());

    // All of it on one page.
    let page = Path::new(env!("CARGO_TARGET_TMPDIR")).join("study.html");
    let (runs, out) = (dir.path().to_str().unwrap(), page.to_str().unwrap());
    let json = emm(["report", runs, "--scale", "tiny", "--out", out, "--force", "--json"]).json();
    assert!(json["charts"].as_u64() > Some(15) && json["tables"].as_u64() > Some(2), "{json}");
    let html = std::fs::read_to_string(page).unwrap();
    for words in ["9: Unconditional", "Weight decay (Gu et al. 2023, Table 2)", "92.09"] {
        assert!(html.contains(words), "no {words:?}");
    }
}

#[test]
fn what_is_missing_is_named_and_the_rest_drawn() {
    let dir = tempdir().unwrap();
    let setup = tiny(dir.path());
    let mut plans = plans("3a", &setup);
    let none = figure("3a", &plans);
    assert_eq!(none.missing[0].len(), 20);
    assert!(none.chart.panels[0].series.iter().all(|s| s.points.is_empty()));
    assert!(none.chart.footer.iter().any(|f| f == "missing: 20 cells, not drawn"));
    none.chart.png().unwrap();

    let run = &plans[0].cells[1].runs[0];
    finish(&run.config, run.dir.as_ref().unwrap(), 0.5);
    let one = figure("3a", &plans);
    assert_eq!(one.missing[0].len(), 19);
    let point = one.chart.panels[0].series[0].points[0];
    assert_eq!((point.x, point.y), (20.0, 0.5));
    // What scores.csv says is what is drawn.
    let scores = RunDir::new(run.dir.as_ref().unwrap()).scores_path();
    edit_scores(&scores, |row| if row == 4 { 200 } else { 100 });
    assert_eq!(figure("3a", &plans).chart.panels[0].series[0].points[0].y, 0.8);
    std::fs::write(&scores, "step,epoch\n1,2\n").unwrap();
    let damaged = figure("3a", &plans);
    assert!(damaged.damage[0].contains("scores.csv: not a row of scores"), "{:?}", damaged.damage);
    assert_eq!(damaged.missing[0].len(), 20);

    // Several seeds: their mean, lowest and highest.
    let mut two = tiny(&dir.path().join("two"));
    two.repeats = 2;
    plans = self::plans("3a", &two);
    for (run, ratio) in plans[0].cells[0].runs.iter().zip([0.5, 0.7]) {
        finish(&run.config, run.dir.as_ref().unwrap(), ratio);
    }
    let point = figure("3a", &plans).chart.panels[0].series[0].points[0];
    assert!((point.y - 0.6).abs() < 1e-9);
    assert_eq!(point.interval, Some([0.5, 0.7]));
    // One point of a line has a bar, and the footer says what bars are.
    let said = "points, bands and bars: mean, lowest and highest of up to 2 training seeds";
    let footer = figure("3a", &plans).chart.footer;
    assert!(footer.iter().any(|line| line == said), "{footer:?}");
}

#[test]
fn at_the_papers_scale_the_printed_values_stand_beside() {
    let dir = tempdir().unwrap();
    let setup = Setup::new(Scale::PAPER, None, dir.path().into());
    let chart = figure("5a", &plans("5a", &setup)).chart;
    let printed = chart.panels[0].series.iter().find(|s| s.name == "paper: true labels").unwrap();
    let values: Vec<_> = printed.points.iter().map(|p| (p.x, p.y)).collect();
    assert!(values[1].0 == 2000.0 && (values[1].1 - 0.7946).abs() < 1e-12, "{values:?}");
    assert!(!chart.footer.iter().any(|f| f.contains("own scale")), "{:?}", chart.footer);
}

#[test]
fn a_bootstrap_spreads_as_draws_with_replacement_do() {
    // Quantiles of the binomial distribution, by SciPy.
    for (n, low, high) in [(100, 0.86, 0.97), (1000, 0.904, 0.937), (10_000, 0.9155, 0.9261)] {
        let (mean, [l, h]) = bootstrap(9209, 10_000, n);
        let width = high - low;
        assert!((l - low).abs() < 0.15 * width && (h - high).abs() < 0.15 * width, "{n}: {l} {h}");
        assert!((mean - 0.9209).abs() < 0.05 * width, "{n}: {mean}");
    }
    assert_eq!(bootstrap(0, 10, 5).1, [0.0, 0.0]);
    assert_eq!(bootstrap(10, 10, 5).1, [1.0, 1.0]);
}

#[test]
fn a_figure_of_nothing_says_how_to_get_it() {
    let dir = tempdir().unwrap();
    let out =
        emm_in(dir.path(), ["figure", "8b", "--scale", "tiny", "--quiet", "--rate", "300"]).ok();
    for words in [
        "Figure 8b of Gu et al. 2023",
        "scale tiny, not the paper's",
        "emm sweep run skip-deletion --scale tiny",
    ] {
        assert!(out.contains(words), "no {words:?} in {out}");
    }
    let missing = out.lines().find(|l| l.starts_with("missing: 9 of 9 cells of ")).unwrap();
    let hours = missing
        .strip_prefix("missing: 9 of 9 cells of skip-deletion, about ")
        .and_then(|rest| rest.strip_suffix(" of one device here:"))
        .unwrap_or_else(|| panic!("{missing}"));
    let unit = hours.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    assert!(unit == " h" || (unit.len() < hours.len() && hours.ends_with('s')), "{missing}");
    let words = "figure 8b --scale tiny --rate 300 --out f.svg --json";
    let json = emm_in(dir.path(), words.split(' ')).json();
    assert_eq!(json["missing"][0]["cells"].as_array().unwrap().len(), 9);
    assert!(json["missing"][0]["hours_here"].as_f64().unwrap() > 0.0);
    assert_eq!(json["files"][0], "f.svg");
    // The picture itself says so, and how to fill it.
    let svg = std::fs::read_to_string(dir.path().join("f.svg")).unwrap();
    for words in ["nothing to show yet: no finished run", "emm sweep run skip-deletion --scale"] {
        assert!(svg.contains(words), "no {words:?} in {svg}");
    }
}

#[test]
fn the_optimum_copies_and_a_missing_run_is_named() {
    let dir = tempdir().unwrap();
    let run = |args: &[&str]| emm_in(dir.path(), args);
    let out = run(&["figure", "1a", "--scale", "tiny", "--out", "1a.png"]).ok();
    assert!(
        out.contains(
            "16 of the first 16 samples are copies; Figure 1a at scale tiny: 500 images of bundled digits; the \
             theoretical optimum; sampling seeds 0 to 15"
        ),
        "{out}"
    );
    Image::decode(&std::fs::read(dir.path().join("1a.png")).unwrap(), &Default::default(), "1a")
        .unwrap();
    run(&["figure", "10", "--scale", "tiny", "--out", "10.png"]).refused(
        3,
        "--runs: runs: nothing of figure 10 is there: ",
        "emm sweep run edm-50k --scale tiny",
    );
    assert!(!dir.path().join("10.png").exists());
    run(&["figure", "1b", "--out", "1b.png"]).refused(2, "--data: ", "not given");
    run(&["figure", "1b", "--scale", "tiny"]).refused(2, "--out: ", "not given");
}

#[test]
fn the_helps_example_of_a_page_works_as_it_stands() {
    let dir = tempdir().unwrap();
    let help = emm(["figure", "--help"]).ok();
    let line = help.lines().find(|l| l.contains("emm report")).unwrap();
    let bin = Path::new(env!("CARGO_BIN_EXE_emm")).parent().unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let mut shell = Command::new("sh");
    Ended::of(shell.args(["-ec", line]).current_dir(dir.path()).env("PATH", path)).ok();
    let html = std::fs::read_to_string(dir.path().join("page/report.html")).unwrap();
    assert!(html.contains("Figure 9 of Gu et al. 2023"), "{html}");
}

#[test]
fn wrong_figures_are_refused() {
    let dir = tempdir().unwrap();
    let out = dir.path().join("f.jpg");
    let out = out.to_str().unwrap();
    emm(["figure", "2d"]).refused(2, "FIGURE: ", "the paper has 1a to 1d");
    emm(["figure", "ab"]).refused(2, "FIGURE: unknown study \"ab\"", "there are size, ");
    emm(["figure", "widht"]).refused(2, "FIGURE: ", "did you mean \"width\"?");
    emm(["figure", "batch"]).refused(2, "FIGURE: batch", "no [[figure]]");
    emm(["figure", "2a", "--out", out]).refused(2, "--out: ", ".png, .svg, .pdf, .csv, .json");
    emm(["figure", "10", "--out", "f.svg"]).refused(2, "--out: f.svg", ".png");
    let there = dir.path().join("there.png");
    std::fs::write(&there, "x").unwrap();
    let there = there.to_str().unwrap();
    emm(["figure", "2a", "--scale", "tiny", "--out", there]).refused(2, there, "--force");
    emm(["figure", "2a", "--scale", "smal"]).refused(2, "--scale: ", "unknown scale");
}
