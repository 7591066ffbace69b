//! Commands over many runs: a damaged one is named and passed over, and the rest is done.

use crate::believed::replaced;
use crate::run::{fixture, words};
use crate::support::{Ended, emm_in};
use emm::data::Dataset;
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// A study of four runs that take a moment.
const FOUR: &str = r#"
name = "four"
title = "Four"

[settings]
channels = 32
mult = [1]
blocks = 1
epochs = 160
batch = 256
score_images = 320

[[axis]]
name = "labels"
values = [{ name = "none", labels = "none" }, { name = "unique", labels = "unique" }]

[[axis]]
name = "size"
key = "size"
values = [400, 800]

[[figure]]
id = "four"
x = "size"
lines = "labels"
"#;

fn go(dir: &Path, line: &str) -> Ended {
    emm_in(dir, words(&format!("{line} --scale tiny --quiet")))
}

#[test]
fn a_damaged_run_is_passed_over_and_the_rest_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fs::write(dir.join("four.toml"), FOUR).unwrap();
    go(dir, "sweep run four.toml --only size=400").ok();
    let table = go(dir, "table four.toml --json").json();
    let cells = table["parts"][0]["cells"].as_array().unwrap();
    let run = |i: usize| cells[i]["runs"][0].as_str().unwrap().to_string();
    let scores = dir.join(run(0)).join("scores.csv");
    let whole = fs::read_to_string(&scores).unwrap();
    replaced(&scores, "\n4,", "\n5,");
    let named = format!("{}/scores.csv: row ", run(0));

    // The two that are missing are done; the damaged one is left as it is.
    assert_eq!(go(dir, "sweep run four.toml").passed_over(&named), "");
    let damaged = fs::read_to_string(&scores).unwrap();
    assert_ne!(damaged, whole);
    let status = go(dir, "sweep status four.toml --json").passed_over(&named);
    let status: Value = serde_json::from_str(&status).unwrap();
    assert_eq!(
        (&status["done"], &status["damaged"], &status["left"]),
        (&json!(3), &json!(1), &json!(0))
    );
    assert_eq!(status["runs"][0]["state"], "damaged");
    assert!(status["runs"][0]["why"].as_str().unwrap().contains("row"), "{status}");
    assert!(go(dir, "sweep status four.toml").passed_over(&named).contains("done     3 of 4"));
    for form in ["md", "csv", "json", "latex"] {
        let shown = go(dir, &format!("table four.toml --format {form}")).passed_over(&named);
        assert!(shown.len() > 100, "{form}: {shown}");
    }
    let shown = go(dir, "table four.toml --json").passed_over(&named);
    let shown: Value = serde_json::from_str(&shown).unwrap();
    let ratios: Vec<bool> = (shown["parts"][0]["cells"].as_array().unwrap().iter())
        .map(|c| c["ratio"].is_number())
        .collect();
    assert_eq!(ratios, [false, true, true, true]);
    go(dir, "figure four.toml --out four.csv --out four.png").passed_over(&named);
    assert_eq!(fs::read_to_string(dir.join("four.csv")).unwrap().lines().count(), 4);
    assert!(dir.join("four.png").exists());
    go(dir, "figure four.toml --json").passed_over(&named);
    let page = go(dir, "report runs --json").passed_over("scores.csv: row");
    let page: Value = serde_json::from_str(&page).unwrap();
    assert_eq!(page["runs"], 3);
    assert!(fs::read_to_string(dir.join("runs/report.html")).unwrap().contains("scores.csv: row"));
    go(dir, "sweep run-one 0 four.toml").refused(3, &named, "");

    // Several: three are named, the others counted.
    for i in 1..4 {
        fs::write(dir.join(run(i)).join("config.toml"), b"\xff").unwrap();
    }
    let all = go(dir, "table four.toml").stderr;
    assert!(
        all.contains("4 damaged runs were passed over: ") && all.contains("; and 1 more"),
        "{all}"
    );
    fs::write(&scores, whole).unwrap();
    let status = go(dir, "sweep status four.toml --json");
    assert_eq!(status.code, 3);
}

#[test]
fn a_search_goes_on_past_a_damaged_run() {
    let dir = tempfile::tempdir().unwrap();
    let mut set = Dataset::digits();
    (set.labels, set.pixels) = (None, set.pixels[..40 * 64].to_vec());
    set.save(&dir.path().join("d.zip"), false).unwrap();
    let find = |flags: &str| {
        let tiny = "--channels 4 --mult 1 --blocks 1 --attn none --batch 4 --epochs 2 --looks 2 --score-images 8 \
                    --rescore-images 0";
        emm_in(dir.path(), words(&format!("find --data d.zip --quiet {tiny} {flags}")))
    };
    let found = find("--sizes 4,8 --repeats 2 --json").json();
    let run = |size: usize, seed: usize| {
        found["sizes"][size]["runs"][seed]["run"].as_str().unwrap().to_string()
    };
    let scores = dir.path().join(run(0, 0)).join("scores.csv");
    let whole = fs::read_to_string(&scores).unwrap();
    fs::write(&scores, whole.replace(",8,", ",9,")).unwrap();
    // The other seed stands for the size, and a new size is trained.
    let named = format!("{}/scores.csv: row 1", run(0, 0));
    let said = find("--sizes 4,8,16 --repeats 2 --json --out found").passed_over(&named);
    let past: Value = serde_json::from_str(&said).unwrap();
    let seeds: Vec<&Value> =
        past["sizes"][0]["runs"].as_array().unwrap().iter().map(|r| &r["seed"]).collect();
    assert_eq!(seeds, [&json!(1025)]);
    assert_eq!(past["sizes"].as_array().unwrap().len(), 3);
    assert!(dir.path().join("found/results.json").exists());
    // A size without any other is left out; where it would be asked for again and again the search ends.
    let said = find("--sizes 4,8 --json").passed_over(&named);
    let past: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(past["sizes"][0]["size"], 8);
    find("--lo 4 --hi 32").refused(3, "--runs: a damaged run was passed over: ", &named);
    find("--sizes 4").refused(3, "--runs: ", &named);
    // A folder that holds another run than its name says.
    fs::write(&scores, whole).unwrap();
    let (a, b) = (dir.path().join(run(0, 0)), dir.path().join(run(1, 0)));
    fs::copy(b.join("config.toml"), a.join("config.toml")).unwrap();
    find("--sizes 4,8").passed_over("holds another run than its name says");
}

#[test]
fn a_batch_script_names_paths_of_any_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let name = OsStr::from_bytes(b"se\xff't \\1.zip");
    fs::copy(&fixture().data, dir.path().join(name)).unwrap();
    fs::write(dir.path().join("four.toml"), FOUR).unwrap();
    let mut args: Vec<&OsStr> =
        ["sweep", "slurm", "four.toml", "--scale", "tiny", "--data"].map(OsStr::new).to_vec();
    args.push(name);
    let script = emm_in(dir.path(), args).ok();
    let line = script.lines().find(|l| l.starts_with("emm sweep run-one")).unwrap();
    let flags = line.split("--data ").nth(1).unwrap().trim_end_matches(" &");
    let run = format!("test -f {flags}");
    let mut bash = std::process::Command::new("bash");
    let found = bash.args(["-c", &run]).current_dir(dir.path()).status();
    assert!(found.unwrap().success(), "{line}");
}
