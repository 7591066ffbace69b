//! `emm status`: runs that are finished, running, suspended, damaged, and what is none.

use crate::support::{Ended, emm_in};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

const NET: &str = "--channels 8 --mult 1 --blocks 1 --dropout 0 --precond edm --batch 8 --lr 2e-3 --ema-rate 0.9 \
                   --evaluations 3 --score-images 20 --rescore-images 20 --quiet";

fn go(dir: &Path, line: &str) -> Ended {
    emm_in(dir, line.split_whitespace())
}

fn digits(dir: &Path) {
    let from = concat!(env!("CARGO_MANIFEST_DIR"), "/data/digits8x8-images-idx3-ubyte");
    emm_in(dir, ["data", "import", from, "--out", "all.zip"]).ok();
    go(dir, "data subset all.zip --size 8 --out d.zip").ok();
}

/// Runs named by their state below `runs`, and a folder that is none.
fn runs(dir: &Path) {
    digits(dir);
    let train = |run: &str, more: &str| {
        go(dir, &format!("train --data d.zip --run runs/{run} {NET} --epochs 30 {more}"))
    };
    train("finished", "").ok();
    assert_eq!(train("suspended", "--stop-after-steps 17").code, 75);
    train("damaged", "").ok();
    let scores = dir.join("runs/damaged/scores.csv");
    let text = fs::read_to_string(&scores).unwrap();
    fs::write(&scores, text.replacen(",20,", ",19,", 1)).unwrap();
    fs::create_dir_all(dir.join("runs/foreign/deeper")).unwrap();
}

#[test]
fn each_state_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    runs(dir);
    let ended = go(dir, "status --json");
    let why = ended.stderr.clone();
    assert!(why.contains("passed over: runs/damaged/scores.csv: row 1: "), "{why}");
    let told: Value = serde_json::from_str(&ended.passed_over("scores.csv: row 1")).unwrap();
    let of =
        |name: &str| told["runs"].as_array().unwrap().iter().find(|r| r["name"] == name).unwrap();
    assert_eq!(told["runs"].as_array().unwrap().len(), 3);
    for state in ["finished", "suspended", "damaged"] {
        assert_eq!(of(state)["state"], state);
        assert_eq!(of(state)["run"], format!("runs/{state}"));
    }
    let rows = |run: &str| {
        let path = dir.join("runs").join(run).join("scores.csv");
        let rows = fs::read_to_string(path).unwrap();
        rows.lines()
            .skip(1)
            .map(|r| r.split(',').nth(4).unwrap().parse::<f64>().unwrap())
            .collect::<Vec<_>>()
    };
    let finished = of("finished");
    let rescored = fs::read_to_string(dir.join("runs/finished/rescored.csv")).ok();
    let value = rescored
        .map(|r| r.lines().nth(1).unwrap().split(',').nth(4).unwrap().parse::<f64>().unwrap());
    let best = rows("finished").into_iter().fold(0.0, f64::max);
    assert_eq!(finished["latest_ratio"], json!(rows("finished")[2]));
    assert_eq!(finished["ratio"], json!(value.unwrap_or(best)));
    assert_eq!((&finished["epoch"], &finished["epochs"]), (&json!(30.0), &json!(30.0)));
    assert_eq!((&finished["looks"], &finished["of_looks"]), (&json!(3), &json!(3)));
    assert_eq!(finished["left_s"], Value::Null);
    let suspended = of("suspended");
    assert_eq!((&suspended["epoch"], &suspended["looks"]), (&json!(17.0), &json!(1)));
    assert_eq!(suspended["latest_ratio"], json!(rows("suspended")[0]));
    // 13 steps of 8 images, two evaluations and the best one again, of 20 images each, which cost 35/3 of a training image.
    let [rate, left] = ["images_per_s", "left_s"].map(|key| suspended[key].as_f64().unwrap());
    let work = 13.0 * 8.0 + 60.0 * 35.0 / 3.0;
    assert!((left * rate - work).abs() < 1e-6 * work, "{left} s at {rate}");
    assert_eq!(of("damaged")["epoch"], Value::Null);

    // A table with the same; what is no run is named where it was asked for.
    let table = go(dir, "status runs").passed_over("scores.csv: row 1");
    assert!(table.starts_with("3 runs: 1 finished, 1 suspended, 1 damaged\n"), "{table}");
    assert!(table.contains("suspended       8  suspended  17 of 30  1 of 3"), "{table}");
    let line =
        go(dir, "status runs/finished runs/foreign").passed_over("runs/foreign: no run in it");
    assert!(line.contains("runs/foreign: no run in it or its subfolders"), "{line}");
    go(dir, "status runs/foreign").refused(3, "runs/foreign: no run in it", "");
    go(dir, "status nowhere").refused(3, "nowhere: ", "No such file");
    let one = go(dir, "status runs/finished --once").ok();
    assert!(one.starts_with("1 run: 1 finished\n"), "{one}");
}

/// A terminal of its own, where `script` can make one: the table is drawn again until the run ends.
#[test]
fn a_terminal_shows_a_run_until_it_ends() {
    if Command::new("script").arg("--version").output().is_err() {
        return crate::support::say("status: no `script` here to make a terminal: skipped");
    }
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    digits(dir);
    let mut train = Command::new(env!("CARGO_BIN_EXE_emm"));
    let line = format!("train --data d.zip --run runs/a {NET} --epochs 6000");
    let mut train =
        train.args(line.split_whitespace()).current_dir(dir).stdout(Stdio::null()).spawn().unwrap();
    while !dir.join("runs/a/state/state.safetensors").exists() {
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert!(train.try_wait().unwrap().is_none(), "the run ended before it was looked at");
    }
    let now = go(dir, "status --json").json();
    assert_eq!(now["runs"][0]["state"], "running");
    let emm = env!("CARGO_BIN_EXE_emm");
    let shown = Ended::of(
        Command::new("script")
            .args(["-qec", &format!("{emm} status"), "/dev/null"])
            .current_dir(dir)
            .stdin(Stdio::null()),
    )
    .ok();
    train.wait().unwrap();
    assert!(shown.contains("1 run: 1 running"), "{shown}");
    let last = shown.rsplit("\x1b[J").next().unwrap();
    assert!(last.starts_with("1 run: 1 finished"), "{shown}");
}
