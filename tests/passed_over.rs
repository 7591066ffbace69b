//! Commands over many runs: a damaged one is named and passed over, and the rest is done.

use crate::believed::replaced;
use crate::run::{fixture, words};
use crate::support::{Ended, MOMENT, SIZES, emm_in, study};
use emm::data::Dataset;
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// What makes a study of four runs.
const LABELS: &str = r#"
[[axis]]
name = "labels"
values = [{ name = "none", labels = "none" }, { name = "unique", labels = "unique" }]
"#;
const FIGURE: &str = r#"
[[figure]]
id = "four"
x = "size"
lines = "labels"
"#;

fn four() -> String {
    study("four", MOMENT, &[LABELS, SIZES, FIGURE].concat())
}

fn go(dir: &Path, line: &str) -> Ended {
    emm_in(dir, words(&format!("{line} --scale tiny --quiet")))
}

#[test]
fn a_damaged_run_is_passed_over_and_the_rest_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fs::write(dir.join("four.toml"), four()).unwrap();
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
fn what_is_no_file_is_said_and_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let mut mkfifo = std::process::Command::new("mkfifo");
    assert!(mkfifo.args(["pipe", "pipe.toml"]).current_dir(dir).status().unwrap().success());
    fs::create_dir(dir.join("runs")).unwrap();
    fs::create_dir(dir.join("folder.toml")).unwrap();
    fs::write(dir.join("bytes.toml"), b"\xff").unwrap();
    for (name, holds) in [
        ("pipe.toml", "pipe, expected a file"),
        ("folder.toml", "a folder, expected a file"),
        ("bytes.toml", "UTF-8"),
        ("none.toml", "not found"),
    ] {
        for command in ["table", "figure", "sweep plan", "sweep status"] {
            let args = words(&format!("{command} {name} --scale tiny"));
            emm_in(dir, args).refused(3, name, holds);
        }
    }
    for (path, holds) in
        [("pipe", "pipe, expected"), ("/dev/zero", "device"), ("none", "not found")]
    {
        emm_in(dir, ["report", "runs", "--theirs", path]).refused(3, path, holds);
    }
    // Where a word has to be text, which it is is said.
    let bytes = OsStr::from_bytes(b"n\xff");
    emm_in(dir, [OsStr::new("table"), bytes]).refused(2, "n", "is not UTF-8");
    let theirs = ["report", "runs", "--theirs"].map(OsStr::new);
    emm_in(dir, [&theirs[..], &[bytes]].concat()).refused(2, "--theirs: ", "is not UTF-8");
    // A name that no file can have.
    let endless = "a".repeat(300);
    emm_in(dir, ["sample", "--seeds", "0", "--out", "o.npz", "--model", &endless]).refused(
        3,
        &endless,
        "cannot read",
    );
}

#[test]
fn a_batch_script_names_paths_of_any_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let path = |name: &[u8]| dir.join(OsStr::from_bytes(name));
    // In the place of the program: writes down what it is given.
    let program = "#!/bin/sh\nprintf '%s\\0' \"$@\" > given\n";
    fs::create_dir(dir.join("bin")).unwrap();
    fs::write(dir.join("bin/emm"), program).unwrap();
    fs::set_permissions(dir.join("bin/emm"), fs::Permissions::from_mode(0o755)).unwrap();
    let bin = format!("{}:{}", dir.join("bin").display(), std::env::var("PATH").unwrap());
    for name in [
        &b"se\xff't \\1"[..],
        b"a\ntouch executed\n",
        b"$(touch executed)`touch executed`",
        b"; touch executed; \"",
        b"-x\ty\r*~!",
    ] {
        let [set, runs] = [&b".zip"[..], b" runs"].map(|end| [name, end].concat());
        // Studies are named in text.
        let study = format!("./{}.toml", String::from_utf8_lossy(name).replace('\u{fffd}', ""));
        fs::copy(&fixture().data, path(&set)).unwrap();
        fs::write(dir.join(&study), four()).unwrap();
        let mut args: Vec<&OsStr> =
            ["sweep", "slurm", &study, "--scale", "tiny"].map(OsStr::new).to_vec();
        let [data_is, runs_is] =
            [[&b"--data="[..], &set].concat(), [&b"--runs="[..], &runs].concat()];
        args.extend([
            OsStr::from_bytes(&data_is),
            OsStr::from_bytes(&runs_is),
            OsStr::new("--out"),
        ]);
        args.extend([OsStr::new("script.sh"), OsStr::new("--force")]);
        emm_in(dir, args).ok();
        let mut bash = std::process::Command::new("bash");
        bash.arg("script.sh").current_dir(dir).env("PATH", &bin).env("SLURM_ARRAY_TASK_ID", "2");
        assert_eq!(Ended::of(&mut bash).code, 0);
        let given = fs::read(dir.join("given")).unwrap();
        let given: Vec<&[u8]> = given.split(|&b| b == 0).collect();
        assert_eq!(&given[..4], [&b"sweep"[..], b"run-one", b"2", study.as_bytes()]);
        for (flag, value) in [("--data", &set), ("--runs", &runs)] {
            let at = given.iter().position(|word| *word == flag.as_bytes()).unwrap();
            assert_eq!(given[at + 1], &value[..], "{flag}");
        }
        assert!(!dir.join("executed").exists(), "{study:?}");
    }
}
