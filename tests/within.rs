//! A search that ends in a given time.

use super::find::{TINY, folder};
use super::support::{Ended, emm_in};
use serde_json::Value;
use std::path::Path;
use std::time::Instant;

fn find(dir: &Path, flags: &str) -> Ended {
    emm_in(dir, format!("find --data d.zip --quiet {flags}").split_whitespace())
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

#[test]
fn a_search_in_a_given_time_ends_in_it_with_an_answer_and_a_page() {
    let dir = folder();
    let dir = dir.path();
    let started = Instant::now();
    let found = find(dir, "--within 30s --channels 4 --mult 1 --json --out emm").json();
    let took = started.elapsed().as_secs_f64();
    assert!(took < 40.0, "{took} s");
    assert!(!found["sizes"].as_array().unwrap().is_empty(), "{found}");
    assert_eq!(found["within"]["resolution"], 8);
    assert_eq!(found["emm_interval"].as_array().unwrap().len(), 2);
    let settings = &found["settings"];
    // Given flags win over those of --preset small.
    assert_eq!(
        (&settings["model"]["model_channels"], &settings["train"]["batch"]),
        (&4.into(), &10.into())
    );
    assert!(number(&settings["train"]["epochs"]) >= 20.0);
    for file in ["report.html", "sizes.png", "epochs.svg", "table.md", "results.json"] {
        assert!(dir.join("emm").join(file).metadata().unwrap().len() > 100, "{file}");
    }
    let page = std::fs::read_to_string(dir.join("emm/report.html")).unwrap();
    assert!(page.contains(found["said"].as_str().unwrap()), "{found}");
}

#[test]
fn sizes_and_lengths_that_are_named_stay() {
    let dir = folder();
    let dir = dir.path();
    std::fs::write(dir.join("file"), "mine").unwrap();
    let found = find(dir, &format!("{TINY} --within 60s --sizes 4,8,9 --json")).json();
    let sizes: Vec<_> =
        found["sizes"].as_array().unwrap().iter().map(|s| s["size"].as_u64().unwrap()).collect();
    assert_eq!((sizes, &found["epochs"]), (vec![4, 8, 9], &2.0.into()));
    let found =
        find(dir, &format!("{TINY} --within 60s --resolution 4 --lo 4 --hi 8 --json")).json();
    assert_eq!(
        (&found["settings"]["model"]["resolution"], &found["within"]["resolution"]),
        (&4.into(), &4.into())
    );
    let said = find(dir, &format!("{TINY} --within 60s --sizes 4,8")).ok();
    assert!(said.starts_with("within 1m00s: 8×8 pixels, "), "{said}");
    assert!(said.contains("--within 240s\n"), "{said}");
    // All sizes that are named come before any is trained longer.
    // A machine that is busy with others may need more time for the first.
    let within = |seconds| {
        find(dir, &format!("--within {seconds}s --sizes 4,8,9 --channels 4 --mult 1 --json"))
    };
    let found = [15, 60].into_iter().map(within).find(|ended| ended.code == 0);
    let found = found.unwrap_or_else(|| within(240)).json();
    let all = found["sizes"].as_array().unwrap().len() == 3;
    assert!(all || !found["within"]["said"].to_string().contains("went on"), "{found}");
    find(dir, "--within 1s --sizes 30 --epochs 100k --rate 100").refused(
        2,
        "--within: 1s: no size was trained",
        "",
    );
    for (flags, start) in [
        ("--within 10", "--within: "),
        ("--within 0s", "--within: "),
        ("--within xm", "--within: "),
        (
            "--within -5s",
            "--within: \"-5s\" follows, but a value that begins with a dash is written",
        ),
        ("--within=-5s", "--within: "),
        ("--lo -5k", "--lo: \"-5k\" follows"),
        ("--resolution 8", "--resolution: 8, but only a search in a given time (--within TIME)"),
        ("--within 60s --lo 8 --hi 4", "--lo: 8 is not below --hi 4"),
        ("--within 60s --out file", "--out: file: is a file"),
        ("--within 60s --resolution 0", "--resolution: expected "),
    ] {
        find(dir, flags).refused(2, start, "");
    }
}

#[test]
fn what_is_expected_to_fit_is_said_and_planned() {
    let dir = folder();
    let plan = |flags: &str| {
        let ended =
            emm_in(dir.path(), format!("find --data d.zip --plan {flags}").split_whitespace());
        assert_eq!(ended.code, 0, "{ended:?}");
        ended
    };
    // 500 steps a second of a batch of 10 images.
    let of = |flags: &str| {
        plan(&format!("--channels 4 --mult 1 --batch 10 --threads 1 --rate 5000 {flags}"))
    };
    let some = of("--within 100s --epochs 10k --sizes 4,8,30");
    assert!(some.stderr.contains("\n4, 8 are expected to fit into 80% of the time"), "{some:?}");
    assert!(some.stderr.contains("would measure all of the 3 sizes"), "{some:?}");
    assert!(some.stdout.contains("2 runs: "), "{some:?}");
    let none = of("--within 2s --epochs 1m --sizes 4,8");
    assert!(none.stderr.contains("\neven 4 images are expected to take longer"), "{none:?}");
    assert!(none.stderr.contains("would not be enough, either"), "{none:?}");
    assert!(none.stdout.contains("1 run: "), "{none:?}");
    let all = of("--within 10m --epochs 100 --sizes 4,8");
    assert!(all.stderr.contains("\nall of them are expected to fit"), "{all:?}");
    assert!(!all.stderr.contains("4 times the time"), "{all:?}");
}

#[test]
fn a_page_that_is_there_is_seen_before_anything_is_trained() {
    let dir = folder();
    std::fs::create_dir(dir.path().join("emm")).unwrap();
    std::fs::write(dir.path().join("emm/report.html"), "mine").unwrap();
    find(dir.path(), "--within 60s --out emm").refused(2, "emm/report.html: ", "--force");
    assert!(!dir.path().join("runs").exists());
}
