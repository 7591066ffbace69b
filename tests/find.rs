//! The EMM search, the quickstart, the gap to the optimum, the doctor.

use super::support::{Ended, edit_scores, emm, emm_in};
use emm::data::Dataset;
use emm::device::{Cpu, Device};
use emm::error::exit_code;
use emm::run::{RunOptions, SaveEvery};
use emm::study::Found;
use emm::study::quickstart::{self, QuickstartPlan, SET};
use emm::views::search;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::{TempDir, tempdir};

/// Settings whose runs take a moment.
pub const TINY: &str = "--channels 4 --mult 1 --blocks 1 --attn none --batch 4 --epochs 2 --looks 2 \
                    --score-images 8 --rescore-images 0";

/// A folder with `d.zip`: the first 40 digits, without labels.
pub fn folder() -> TempDir {
    let dir = tempdir().unwrap();
    digits(40).save(&dir.path().join("d.zip"), false).unwrap();
    dir
}

pub fn digits(count: usize) -> Dataset {
    let all = Dataset::digits();
    Dataset { pixels: all.pixels[..count * 64].to_vec(), labels: None, ..all }
}

fn find(dir: &Path, flags: &str) -> Ended {
    let args = format!("find --data d.zip --quiet {TINY} {flags}");
    emm_in(dir, args.split_whitespace())
}

pub fn keys(v: &Value) -> Vec<&str> {
    v.as_object().unwrap().keys().map(String::as_str).collect()
}

/// The run directory of a size.
pub fn run_dir(dir: &Path, found: &Value, size: u64) -> PathBuf {
    let sizes = found["sizes"].as_array().unwrap();
    let one = sizes.iter().find(|s| s["size"] == size).unwrap();
    dir.join(one["runs"][0]["run"].as_str().unwrap())
}

#[test]
fn a_list_of_sizes_is_measured_once() {
    let dir = folder();
    let dir = dir.path();
    let found = find(dir, "--sizes 4,8 --json --out out").json();
    assert_eq!(keys(&found)[..4], ["epsilon", "emm", "bracket", "sizes"]);
    assert_eq!(
        (&found["epsilon"], &found["emm"], &found["bracket"]),
        (&json!(0.1), &Value::Null, &Value::Null)
    );
    // Nothing was memorized so far: that is no end.
    assert_eq!((&found["outside"], &found["known"]["below"]), (&Value::Null, &Value::Null));
    for (one, size) in found["sizes"].as_array().unwrap().iter().zip([4, 8]) {
        let fixed = ["size", "ratio", "interval", "looks", "best_epoch", "curve"];
        assert_eq!(keys(one)[..6], fixed);
        assert_eq!((&one["size"], &one["looks"]), (&json!(size), &json!(2)));
        let epochs: Vec<f64> =
            one["curve"].as_array().unwrap().iter().map(|p| p[0].as_f64().unwrap()).collect();
        assert_eq!(epochs, [1.0, 2.0]);
    }
    for file in ["table.md", "sizes.svg", "sizes.png", "epochs.png", "sheet-4.png", "sheet-8.png"] {
        assert!(dir.join("out").join(file).metadata().unwrap().len() > 50, "{file}");
    }
    let stored: Value =
        serde_json::from_slice(&std::fs::read(dir.join("out/results.json")).unwrap()).unwrap();
    assert_eq!(stored, found);

    // The second time nothing is trained: no statistics are added, not even a line for a new start.
    let stats = |size| std::fs::read(run_dir(dir, &found, size).join("stats.jsonl")).unwrap();
    let before = [stats(4), stats(8)];
    assert_eq!(find(dir, "--sizes 4,8 --json").json(), found);
    assert_eq!([stats(4), stats(8)], before);
    find(dir, "--sizes 4,8 --out out").refused(2, "out/results.json: ", "--force");
    find(dir, "--sizes 4,8 --out out --force").ok();

    // `emm train` on the same subset means the same run.
    emm_in(dir, "data subset d.zip --size 8 --out s8.zip".split(' ')).ok();
    let train = format!("train --data s8.zip --quiet --json {TINY}");
    let trained = emm_in(dir, train.split_whitespace()).json();
    assert_eq!(dir.join(trained["run"].as_str().unwrap()), run_dir(dir, &found, 8));

    let said = find(dir, "--sizes 4,8").ok();
    assert!(
        said.contains("images  ")
            && said.contains(
                "EMM(ε = 0.1) not known: 90% was not reached in 2 epochs, and too little"
            ),
        "{said}"
    );
    assert!(said.contains("\nto train longer: emm find --data d.zip --quiet "), "{said}");
    assert!(said.contains(" --sizes 4,8 --epochs 4\n"), "{said}");
}

/// Writes these ratios of 100 images as what the evaluations of a size's run said.
fn pretend(dir: &Path, found: &Value, size: u64, ratios: &[f64]) {
    let path = run_dir(dir, found, size).join("scores.csv");
    let rows = std::fs::read_to_string(&path).unwrap();
    let mut lines = rows.lines();
    let mut text = format!("{}\n", lines.next().unwrap());
    assert_eq!(lines.clone().count(), ratios.len());
    for (line, ratio) in lines.zip(ratios) {
        let cell: Vec<&str> = line.split(',').collect();
        let memorized = (100.0 * ratio).round() as u64;
        let [low, high] = emm::memorization::wilson(memorized, 100);
        let ratio = memorized as f64 / 100.0;
        text += &format!("{},{},100,{memorized},{ratio},{low},{high},1\n", cell[0], cell[1]);
    }
    std::fs::write(path, text).unwrap();
}

#[test]
fn nothing_is_concluded_from_curves_that_still_rise() {
    let dir = folder();
    let dir = dir.path();
    let flags = "--sizes 4,8,16,32 --keep all --score-images 100 --looks 3 --epochs 3";
    let line = format!("find --data d.zip --quiet {TINY} {flags}");
    let line = line.replacen("--epochs 2 --looks 2 --score-images 8 ", "", 1);
    let go = |more: &str| emm_in(dir, format!("{line} {more}").split_whitespace());
    let runs = go("--json").json();
    let steep = [0.05, 0.3, 0.64];
    let ended = [0.3, 0.5, 0.51];
    let pretended = |all: [&[f64]; 4]| {
        for (size, ratios) in [4, 8, 16, 32].into_iter().zip(all) {
            pretend(dir, &runs, size, ratios);
        }
        (go("--json").json(), go("").ok())
    };
    let (found, said) = pretended([&steep, &[0.1, 0.4, 0.736], &steep, &steep]);
    let sizes = found["sizes"].as_array().unwrap();
    assert!(sizes.iter().all(|s| s["rising"] == true), "{found}");
    assert_eq!(found["still_rising"], json!([4, 8, 16, 32]));
    assert_eq!((&found["emm"], &found["outside"]), (&Value::Null, &Value::Null));
    assert_eq!(found["known"], json!({"at_least": null, "below": null}));
    let answer = "EMM(ε = 0.1) not known: 90% was not reached in 3 epochs, and the ratio still rose at the last evaluation \
                  of 4, 8, 16 and 32 images\n";
    assert!(said.contains(answer) && !said.contains("lies below"), "{said}");
    assert_eq!(said.matches('↑').count(), 5, "{said}");
    assert!(
        said.contains("--sizes 4,8,16,32 --keep all --score-images 100 --looks 3 --epochs 6\n"),
        "{said}"
    );

    // What has ended bounds it; a bracket's end that rises makes the number a lower bound.
    let (found, said) = pretended([&steep, &ended, &steep, &steep]);
    assert_eq!(found["known"], json!({"at_least": null, "below": 8}));
    assert!(
        said.contains("of 4, 16 and 32 images; of 8 no longer, so it lies below 8 images"),
        "{said}"
    );
    let (found, said) = pretended([&ended, &ended, &steep, &steep]);
    assert_eq!((&found["outside"], &found["known"]["below"]), (&json!("below"), &json!(4)));
    assert!(said.contains("after 3 epochs and rises no more, so it lies below 4 images"), "{said}");
    assert!(!said.contains("to train longer"), "{said}");
    let all = [0.9, 0.99, 0.99];
    let (found, said) = pretended([&all, &all, &steep, &ended]);
    assert_eq!((&found["emm_is_least"], &found["bracket"]), (&json!(true), &json!([8, 16])));
    assert_eq!(found["known"], json!({"at_least": 8, "below": 32}));
    // Which of the ends still rose says nothing from above but what 32 images do.
    let [low, high] = [0, 1].map(|end| found["emm_interval"][end].as_f64().unwrap());
    assert!((9.0..10.0).contains(&low) && high == 32.0, "{low} {high}");
    let answer = "EMM(ε = 0.1) ≈ 10 images at least (95%: 9 to 32): the ratio falls through 90% between 8 and 16 images, but of 16 it \
                  still rose at the last evaluation, after 3 epochs; it is below 32\n";
    assert!(said.contains(answer) && said.contains("to train longer: emm find "), "{said}");

    // Table, plots, results.json and page say so too; the command replaces what it wrote.
    let said = go("--out out --runs runs").ok();
    assert!(said.contains("--out out --runs runs --epochs 6 --force\n"), "{said}");
    let read = |name: &str| std::fs::read_to_string(dir.join("out").join(name)).unwrap();
    assert!(read("table.md").contains("| rising |") && read("table.md").contains(answer));
    let marks = "open marks: still rising at the last evaluation";
    assert!(read("sizes.svg").contains(marks) && read("epochs.svg").contains(marks));
    assert!(read("sizes.svg").contains("EMM(ε = 0.1) ≥ 10"), "{}", read("sizes.svg"));
    emm_in(dir, ["report", "out"]).ok();
    let page = read("report.html");
    for words in [
        "≈ 10 images at least",
        "<td>↑</td>",
        marks,
        "≥ 10",
        ", still rising at the last evaluation",
    ] {
        assert!(page.contains(words), "no {words:?} in the page");
    }
    let at = |name: &str| page.find(&format!("{name}.png")).unwrap_or_else(|| panic!("{name}"));
    let places = ["sheet-4", "sheet-8", "sheet-16", "sheet-32"].map(at);
    assert!(places.is_sorted(), "sheets by size: {places:?}");

    // Where every curve has ended, nothing of this is said.
    let (found, said) = pretended([&all, &all, &ended, &ended]);
    assert_eq!((&found["emm_is_least"], &found["still_rising"]), (&json!(false), &json!([])));
    assert!(
        !said.contains('↑') && !said.contains("at least") && !said.contains("longer"),
        "{said}"
    );
}

#[test]
fn the_search_follows_what_runs_say_and_reports_violations() {
    let dir = folder();
    let dir = dir.path();
    let found = find(dir, "--sizes 4,8,16,32 --json").json();
    // Finished runs are believed: with these as if all memorized, the EMM lies between 8 and 16.
    for size in [4, 8] {
        edit_scores(&run_dir(dir, &found, size).join("scores.csv"), |_| 8);
    }
    let found = find(dir, "--lo 4 --hi 32 --json").json();
    let sizes: Vec<u64> =
        found["sizes"].as_array().unwrap().iter().map(|s| s["size"].as_u64().unwrap()).collect();
    // 4, 8, 16 by doubling; then 10, a quarter of the way; 10/8 is narrow enough.
    assert_eq!(sizes, [4, 8, 10, 16]);
    assert_eq!(found["bracket"], json!([8, 10]));
    let ten = found["sizes"][2]["ratio"].as_f64().unwrap();
    let emm = 8.0 + (1.0 - 0.9) / (1.0 - ten) * 2.0;
    assert!((found["emm"].as_f64().unwrap() - emm).abs() < 1e-9, "{found}");
    let said = find(dir, "--lo 4 --hi 32").ok();
    assert!(said.contains("EMM(ε = 0.1) ≈ 8 images"), "{said}");
    let found = find(dir, "--lo 4 --hi 8 --json").json();
    assert_eq!((&found["emm"], &found["outside"]), (&Value::Null, &json!("above")));

    let rows = run_dir(dir, &find(dir, "--sizes 4,8 --json").json(), 4).join("scores.csv");
    edit_scores(&rows, |_| 4);
    let found = find(dir, "--sizes 4,8,16 --json").json();
    assert_eq!(found["violations"], json!([[4, 8]]));
    let said = find(dir, "--sizes 4,8,16").ok();
    assert!(said.contains("rises from 50.00% at 4 to 100.00% at 8 images"), "{said}");
}

#[test]
fn repeats_are_runs_with_consecutive_seeds() {
    let dir = folder();
    let dir = dir.path();
    let found = find(dir, "--sizes 4,8 --repeats 2 --seed 7 --json").json();
    for one in found["sizes"].as_array().unwrap() {
        let runs = one["runs"].as_array().unwrap();
        let seeds: Vec<_> = runs.iter().map(|r| r["seed"].as_u64().unwrap()).collect();
        assert_eq!(seeds, [7, 8]);
        let ratios: Vec<_> = runs.iter().map(|r| r["ratio"].as_f64().unwrap()).collect();
        assert_eq!(one["ratio"].as_f64().unwrap(), (ratios[0] + ratios[1]) / 2.0);
        assert_eq!(one["spread"], json!([ratios[0].min(ratios[1]), ratios[0].max(ratios[1])]));
        assert_ne!(runs[0]["run"], runs[1]["run"]);
    }
    assert!(find(dir, "--sizes 4,8 --repeats 2 --seed 7").ok().contains("lowest"));
}

#[test]
fn a_killed_search_goes_on_to_the_same_answer() {
    let dir = folder();
    let dir = dir.path();
    // Long enough to be caught in the middle.
    let flags = "--sizes 4,8 --epochs 3000 --save-every 500 --json --quiet";
    let args = |runs: &str| {
        let line = format!("find --data d.zip {TINY} {flags} --runs {runs}");
        line.replace("--epochs 2 ", "").split_whitespace().map(String::from).collect::<Vec<_>>()
    };
    let without_paths = |mut found: Value| {
        for one in found["sizes"].as_array_mut().unwrap() {
            one.as_object_mut().unwrap().remove("runs");
        }
        found
    };
    for (signal, code) in [(libc::SIGKILL, 128 + 9), (libc::SIGINT, 75)] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_emm"))
            .args(args("a"))
            .current_dir(dir)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let begun = Instant::now();
        let saved = || {
            let runs = std::fs::read_dir(dir.join("a")).into_iter().flatten().flatten();
            runs.map(|r| r.path().join("state/state.safetensors"))
                .filter_map(|state| state.metadata().ok()?.modified().ok())
                .max()
        };
        let before = saved();
        while saved() == before && begun.elapsed() < Duration::from_secs(60) {
            std::thread::sleep(Duration::from_millis(5));
        }
        // SAFETY: the child is ours and has not been waited for.
        unsafe { libc::kill(child.id() as libc::pid_t, signal) };
        let status = child.wait().unwrap();
        use std::os::unix::process::ExitStatusExt as _;
        let ended = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
        assert_eq!(ended, code, "the search had ended before the signal, or ended otherwise");
    }
    let resumed = emm_in(dir, args("a")).json();
    let straight = emm_in(dir, args("b")).json();
    // The same but for what it took.
    let [resumed, straight] = [resumed, straight].map(|mut found| {
        assert_eq!(found["costs"]["flop"].as_f64(), Some(34_049_536_000.0), "{found}");
        found["costs"].take();
        without_paths(found)
    });
    assert_eq!(resumed, straight);
}

#[test]
fn what_cannot_be_searched_is_refused() {
    let dir = folder();
    let dir = dir.path();
    for (flags, code, start, holds) in [
        ("--sizes 8,4", 2, "--sizes: ", "4 after 8"),
        ("--sizes 4,4", 2, "--sizes: ", "4 after 4"),
        ("--sizes 1,4", 2, "--sizes: ", "need 2"),
        ("--sizes 4,4k", 3, "d.zip: ", "has 40 images, --sizes wants 4000"),
        ("--sizes 4 --epsilon 0", 2, "--epsilon: ", "outside (0, 1)"),
        ("--sizes 4 --epsilon 1", 2, "--epsilon: ", "outside (0, 1)"),
        ("--sizes 4 --epsilon -0.1", 2, "--epsilon: ", "outside (0, 1)"),
        ("--sizes 4 --epsilon nan", 2, "--epsilon: ", "outside (0, 1)"),
        ("--sizes 4 --repeats 0", 2, "--repeats: ", "at least 1"),
        ("--sizes 4 --repeats 2 --seed 18446744073709551615", 2, "--seed: ", "--repeats"),
        ("--lo 8 --hi 8", 2, "--lo: 8 is not below --hi 8", ""),
        ("--lo 8 --hi 41", 3, "d.zip: ", "has 40 images"),
        ("--hi 40", 2, "--lo: 500 is not below --hi 40", ""),
    ] {
        find(dir, flags).refused(code, start, holds);
    }
    let no_evaluations =
        format!("find --data d.zip {TINY} --sizes 4").replace("--looks 2", "--looks 0");
    emm_in(dir, no_evaluations.split_whitespace()).refused(2, "--looks: 0", "scoring");
    assert_eq!(find(dir, "--sizes 4,x").code, 2);
    assert_eq!(find(dir, "--sizes 4 --lo 2").code, 2);

    let labels = (0..40).map(|i| u32::from(i >= 30)).collect();
    let uneven = Dataset { labels: Some(labels), ..digits(40) };
    uneven.save(&dir.join("d.zip"), true).unwrap();
    find(dir, "--sizes 4,30").refused(3, "d.zip: class 1 has 10 images, wants 15", "");
    assert!(!dir.join("runs").exists(), "something was trained first");
}

#[test]
fn subsets_are_balanced_by_class() {
    let dir = folder();
    let dir = dir.path();
    let labels = (0..40).map(|i| i % 2).collect();
    let set = Dataset { labels: Some(labels), ..digits(40) };
    set.save(&dir.join("d.zip"), true).unwrap();
    let found = find(dir, "--sizes 4 --json").json();
    let config = std::fs::read_to_string(run_dir(dir, &found, 4).join("config.toml")).unwrap();
    // Two of class 0, then two of class 1; the network does not see the labels.
    let pixels = [0, 2, 1, 3].iter().flat_map(|&i| set.image(i)).copied().collect();
    let balanced = Dataset { pixels, labels: None, ..set };
    assert!(config.contains(&balanced.sha256_pixels()), "{config}");
    assert!(config.contains("sha256_labels = \"none\""), "{config}");
    let conditional = find(dir, "--sizes 4 --cond true --json").json();
    let config =
        std::fs::read_to_string(run_dir(dir, &conditional, 4).join("config.toml")).unwrap();
    assert!(config.contains("label_dim = 2"), "{config}");
}

pub fn cpu() -> Device {
    Device::Cpu(Cpu::new(1).unwrap())
}

/// What `emm quickstart` does: runs, then the files that people look at.
fn quickstart(
    plan: &QuickstartPlan,
    devices: &[Device],
    folder: &Path,
    force: bool,
    options: &RunOptions,
) -> anyhow::Result<Option<(Found, Vec<PathBuf>)>> {
    let Some(found) = quickstart::quickstart(plan, devices, folder, options)? else {
        return Ok(None);
    };
    let (set, device) = (Dataset::digits(), &devices[0]);
    let files = search::write(&found, &set, SET, "Digits 8×8", device, folder, force)?;
    Ok(Some((found, files)))
}

#[test]
fn a_small_quickstart_leaves_its_results_and_reuses_its_runs() {
    let dir = tempdir().unwrap();
    let folder = dir.path().join("q");
    let plan = QuickstartPlan {
        sizes: vec![10, 20],
        epochs: 2.0,
        evaluations: 2,
        score_images: 10,
        seed: 5,
    };
    let options = RunOptions {
        keep_all_snapshots: false,
        save_every: SaveEvery::Seconds(30.0),
        stop_after_steps: None,
        stop_above: None,
        holdout: None,
        data_name: "bundled digits".into(),
        quiet: true,
        tensorboard: None,
    };
    let go =
        |devices: &[Device]| quickstart(&plan, devices, &folder, false, &options).unwrap().unwrap();
    let (found, files) = go(&[cpu(), cpu()]);
    assert_eq!(
        found.sizes.iter().map(|m| (m.size, m.found.evaluations)).collect::<Vec<_>>(),
        [(10, 2), (20, 2)]
    );
    let names: Vec<_> = files.iter().map(|f| f.file_name().unwrap().to_str().unwrap()).collect();
    let expected = [
        "table.md",
        "sizes.png",
        "sizes.svg",
        "epochs.png",
        "epochs.svg",
        "sheet-10.png",
        "sheet-20.png",
        "results.json",
    ];
    assert_eq!(names, expected);
    let bytes = || files.iter().map(|f| std::fs::read(f).unwrap()).collect::<Vec<_>>();
    let first = bytes();
    let runs = || std::fs::read_dir(folder.join("runs")).unwrap().count();
    assert_eq!(runs(), 2);
    let (again, _) = go(&[cpu()]);
    assert_eq!((again, runs()), (found, 2));
    assert_eq!(bytes(), first);

    // Stopped after some steps and continued: the same answer.
    let other = dir.path().join("other");
    let part = RunOptions { stop_after_steps: Some(2), ..options.clone() };
    assert!(quickstart(&plan, &[cpu()], &other, false, &part).unwrap().is_none());
    let (resumed, _) = quickstart(&plan, &[cpu()], &other, false, &options).unwrap().unwrap();
    let (curve, straight) = (|f: &Found| f.sizes[0].found.curve.clone(), &go(&[cpu()]).0);
    assert_eq!(curve(&resumed), curve(straight));

    // Ended while it wrote, it goes on; what somebody else has under such a name stays.
    let (of, results) = (&other, other.join("results.json"));
    for name in ["table.md", "sheet-10.png", "results.json"] {
        let path = of.join(name);
        let own = std::fs::read(&path).unwrap();
        std::fs::remove_file(&results).unwrap();
        quickstart(&plan, &[cpu()], of, false, &options).unwrap().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), own);
        std::fs::remove_file(&results).unwrap();
        std::fs::write(&path, "mine").unwrap();
        let e = quickstart(&plan, &[cpu()], of, false, &options).unwrap_err();
        assert_eq!(exit_code(&e), 2, "{e:#}");
        assert!(format!("{e:#}").starts_with(&path.display().to_string()), "{e:#}");
        assert_eq!(std::fs::read(&path).unwrap(), b"mine");
        quickstart(&plan, &[cpu()], of, true, &options).unwrap().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), own);
    }
}

#[test]
fn the_quickstart_does_not_mix_with_other_things() {
    let dir = tempdir().unwrap();
    std::fs::write(dir.path().join("mine.txt"), "x").unwrap();
    let out = dir.path().to_str().unwrap();
    emm(["quickstart", "--out", out]).refused(2, "--out: ", "--force");
}
