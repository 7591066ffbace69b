//! How fast the machine is, measured once; and how much of a run goes into scoring where that is left to the program.

use crate::support::{Ended, emm_in};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

const NET: &str = "--precond edm --channels 4 --mult 1 --blocks 1 --attn none --dropout 0 --batch 10 \
                   --lr 2e-3 --ema-rate 0.99 --device cpu";

/// Runs `emm LINE` with a cache of its own in `dir`.
fn go(dir: &Path, line: &str) -> Ended {
    let mut command = Command::new(env!("CARGO_BIN_EXE_emm"));
    command.args(line.split_whitespace()).current_dir(dir).stdin(Stdio::null());
    Ended::of(command.env("XDG_CACHE_HOME", dir.join("cache")))
}

fn plan(dir: &Path, more: &str) -> Value {
    go(dir, &format!("plan --resolution 8 --image-channels 1 --size 20 {NET} --json {more}")).json()
}

#[test]
fn a_measurement_is_kept_and_told_with_its_date() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let kept = dir.join("cache/emm/rates.json");
    let nothing = plan(dir, "--no-measure");
    assert!(nothing["images_per_s"].is_null() && nothing["train_hours"].is_null(), "{nothing}");
    let said = plan(dir, "--rate 5");
    assert_eq!((&said["images_per_s"], kept.exists()), (&5.0.into(), false), "{said}");
    let first = plan(dir, "");
    assert!(first["images_per_s"].as_f64().unwrap() > 0.0, "{first}");
    // The second call, also of another length and batch, and one that may not measure.
    for more in ["", "--epochs 7 --no-measure"] {
        let again = plan(dir, more);
        for key in ["images_per_s", "measured_at_s", "rate_basis"] {
            assert_eq!(again[key], first[key], "{more}");
        }
    }
    let basis = first["rate_basis"].as_str().unwrap();
    assert!(basis.starts_with("measured 20") && basis.contains("UTC on "), "{basis}");
    // Another number of threads is another machine; so is another program, as which the file passes with one bit changed.
    assert!(plan(dir, "--threads 1 --no-measure")["images_per_s"].is_null());
    let text = fs::read_to_string(&kept).unwrap();
    fs::write(&kept, text.replace("\"binary\":\"", "\"binary\":\"other ")).unwrap();
    assert!(plan(dir, "--no-measure")["images_per_s"].is_null());
    // What cannot be understood is measured again.
    for damaged in ["", "{", "[{}]", &text.replace("\"images_per_s\":", "\"images_per_s\":-")] {
        fs::write(&kept, damaged).unwrap();
        assert!(plan(dir, "--no-measure")["images_per_s"].is_null(), "{damaged}");
    }
    assert!(plan(dir, "")["images_per_s"].as_f64().unwrap() > 0.0);
    for wrong in ["--rate 0", "--rate x", "--rate nan"] {
        go(dir, &format!("plan {wrong}")).refused(2, "--rate: ", "");
    }
    go(dir, "plan --rate 5 --no-measure").refused(2, "--", "cannot be used with");
}

/// Not as one without runs, in commands that only read there either.
#[test]
fn a_folder_of_runs_that_is_none_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fs::write(dir.join("file"), "").unwrap();
    std::os::unix::fs::symlink("loop", dir.join("loop")).unwrap();
    let digits = concat!(env!("CARGO_MANIFEST_DIR"), "/data/digits8x8-images-idx3-ubyte");
    let find = format!("find --data {digits} --sizes 4");
    let train = format!("train --data {digits}");
    for command in
        ["table 3", "figure 3a", "sweep plan width", "sweep status width", "sweep run width"]
    {
        let tiny = |runs: &str| go(dir, &format!("{command} --scale tiny --runs {runs}"));
        tiny("file").refused(2, "--runs: file: expected a folder", "");
        tiny("loop").refused(3, "--runs: loop: ", "");
    }
    for command in [find, train] {
        go(dir, &format!("{command} --runs file")).refused(
            2,
            "--runs: file: expected a folder",
            "",
        );
    }
}

#[test]
fn without_a_place_to_keep_it_a_measurement_serves_once() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("cache"), "").unwrap();
    assert!(plan(dir.path(), "")["images_per_s"].as_f64().unwrap() > 0.0);
    assert_eq!(fs::read_to_string(dir.path().join("cache")).unwrap(), "");
}

#[test]
fn tables_and_figures_never_measure() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let (kept, cell) =
        (dir.join("cache"), "--scale tiny --only labels=unconditional --only size=1000");
    for command in ["table 3", "figure 5a"] {
        let text = go(dir, &format!("{command} --scale tiny")).ok();
        assert!(!kept.exists() && !text.contains("of one device here"), "{text}");
    }
    assert!(go(dir, "table 3 --scale tiny").ok().contains("not measured yet"));
    let unknown = go(dir, &format!("sweep plan table3 {cell} --no-measure --json")).json();
    assert!(unknown["runs"][0]["hours"]["here"].is_null(), "{unknown}");
    assert!(
        go(dir, &format!("sweep status table3 {cell} --no-measure")).ok().contains("time     ? of")
    );
    let hours = |rate: u32| {
        let plan = go(dir, &format!("sweep plan table3 {cell} --rate {rate} --json")).json();
        plan["runs"][0]["hours"]["here"].as_f64().unwrap()
    };
    assert!((hours(100) / hours(200) - 2.0).abs() < 1e-9);
    let measured = go(dir, &format!("sweep plan table3 {cell} --json")).json();
    assert!(kept.exists());
    let again = go(dir, &format!("sweep plan table3 {cell} --json")).json();
    assert_eq!(measured, again);
    assert!(go(dir, &format!("table 3 {cell}")).ok().contains("measured 20"));
}

/// A run's images an evaluation, those of its rescoring, and `scores.csv`.
fn scored(run: &Path) -> (Vec<u64>, Option<u64>, String) {
    let images = |name: &str| -> Option<Vec<u64>> {
        let text = fs::read_to_string(run.join(name)).ok()?;
        Some(text.lines().skip(1).map(|l| l.split(',').nth(2).unwrap().parse().unwrap()).collect())
    };
    let scores = fs::read_to_string(run.join("scores.csv")).unwrap();
    (images("scores.csv").unwrap(), images("rescored.csv").map(|all| all[0]), scores)
}

#[test]
fn scoring_takes_its_share_and_early_evaluations_fewer_images() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let digits = concat!(env!("CARGO_MANIFEST_DIR"), "/data/digits8x8-images-idx3-ubyte");
    go(dir, &format!("data import {digits} --size 20 --out d.zip --quiet")).ok();
    let train = |run: &str, more: &str| {
        go(dir, &format!("train --data d.zip --run {run} {NET} --epochs 1500 --quiet {more}"))
    };
    let whole = train("whole", "--json").json();
    let (evaluations, again, scores) = scored(&dir.join("whole"));
    assert_eq!(evaluations, [10, 20, 30, 40, 50, 60, 70, 80, 90, 100]);
    // Of a ratio of 0 nothing is scored again.
    let copies = whole["best"]["memorized"].as_u64().unwrap() > 0;
    assert_eq!(again, copies.then_some(300), "{whole}");
    assert_eq!(whole["rescored"].is_null(), !copies);
    let plan = plan(dir, "--epochs 1500 --rate 1");
    assert_eq!(plan["images_generated"], 550 + 300);
    assert!(plan["scoring_share"].as_f64().unwrap() <= 0.25, "{plan}");
    // Stopped within an evaluation's reach and gone on with: the same bytes.
    let stopped = train("part", "--stop-after-steps 1400");
    assert_eq!(stopped.code, 75, "{stopped:?}");
    train("part", "").ok();
    assert_eq!(scored(&dir.join("part")).2, scores);
    // Done is done; another number of images is another run.
    assert_eq!(train("whole", "--json").json()["looks"], whole["looks"]);
    let other = "--score-images (fewer at early evaluations): stored true, asked false";
    train("whole", "--score-images 100").refused(2, "--evaluations: stored 10, asked 20", other);
    // What counts repeated images where there are none is not this run's either.
    let distinct = dir.join("part/scores-distinct.csv");
    fs::write(&distinct, &scores).unwrap();
    train("part", "").refused(3, "part/scores-distinct.csv: ", "all of the set differ");
    fs::remove_file(&distinct).unwrap();
    // A row with the images of another evaluation is not this run's.
    let path = dir.join("part/scores.csv");
    fs::write(&path, scores.replacen(",10,", ",12,", 1)).unwrap();
    train("part", "").refused(3, "part/scores.csv: row 1: images 12, expected 10", "");
}

#[test]
fn a_ratio_of_nothing_is_not_scored_again() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let digits = concat!(env!("CARGO_MANIFEST_DIR"), "/data/digits8x8-images-idx3-ubyte");
    go(dir, &format!("data import {digits} --size 20 --out d.zip --quiet")).ok();
    let line = format!("train --data d.zip --run r {NET} --epochs 2 --looks 2 --quiet --json");
    let run = go(dir, &line).json();
    assert_eq!(
        (run["best"]["memorized"].as_u64(), run["finished"].as_bool()),
        (Some(0), Some(true))
    );
    assert!(run["rescored"].is_null() && !dir.join("r/rescored.csv").exists(), "{run}");
    // The value is that of the evaluation with most images.
    assert_eq!((&run["best"]["images"], &run["best"]["step"]), (&100.into(), &4.into()));
    let begun = std::time::SystemTime::now();
    let again = emm_in(dir, line.split_whitespace()).json();
    assert_eq!(again["looks"], run["looks"]);
    let state =
        fs::metadata(dir.join("r/state/state.safetensors")).or(fs::metadata(dir.join("r/state")));
    assert!(state.unwrap().modified().unwrap() < begun, "nothing was done again");
}
