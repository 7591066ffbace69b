//! `emm find --predict`: short runs alone, and the law that their ratios were given.

use crate::find::folder;
use crate::support::{Ended, edit_scores, emm_in};
use std::fs;
use std::path::Path;

/// 640 epochs: short runs have 10, 20, 40, 80, 160 and 320.
const FLAGS: &str = "find --data d.zip --quiet --channels 4 --mult 1 --blocks 1 --attn none --batch 4 --epochs 640 --predict --lo 10";

fn predicted(dir: &Path, more: &str) -> Ended {
    emm_in(dir, format!("{FLAGS} {more}").split_whitespace())
}

/// All samples are copies from epoch 2·N on.
fn give(dir: &Path) {
    for entry in fs::read_dir(dir.join("runs")).unwrap().flatten() {
        let (config, scores) = (entry.path().join("config.toml"), entry.path().join("scores.csv"));
        let text = fs::read_to_string(config).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("images = ")).unwrap();
        let n: f64 = line.parse().unwrap();
        let text = fs::read_to_string(&scores).unwrap();
        let epochs: Vec<f64> = text
            .lines()
            .skip(1)
            .map(|row| row.split(',').nth(1).unwrap().parse().unwrap())
            .collect();
        edit_scores(&scores, |row| if epochs[row - 1] >= 2.0 * n { 100 } else { 0 });
    }
}

#[test]
fn the_emm_is_where_the_law_of_short_runs_reaches_the_length() {
    let folder = folder();
    let dir = folder.path();
    // Nothing is copied as it is: the first size is followed to half of the length, no other is tried.
    let json = predicted(dir, "--json").json();
    assert!(json["emm"].is_null() && json["law"].is_null(), "{json}");
    assert_eq!(json["short_runs"].as_array().unwrap().len(), 1);
    assert_eq!(json["short_runs"][0]["epochs"], 320.0);
    assert!(json["said"][0].as_str().unwrap().starts_with("no prediction: 0 sizes passed 90%"));
    for _ in 0..5 {
        give(dir);
        predicted(dir, "").ok();
    }
    give(dir);
    let json = predicted(dir, "--json --out out").json();
    let shorts = json["short_runs"].as_array().unwrap();
    let of = |key: &str| shorts.iter().map(|s| s[key].as_f64().unwrap()).collect::<Vec<_>>();
    assert_eq!(of("size"), [10.0, 14.0, 20.0, 28.0, 40.0]);
    // No longer than it takes: 2·40 is 80.
    assert!(
        of("epochs").iter().zip(of("size")).all(|(&e, n)| e >= 2.0 * n && e <= 4.0 * n),
        "{shorts:?}"
    );
    let (exponent, emm) =
        (json["law"]["exponent_epochs"].as_f64().unwrap(), json["emm"].as_f64().unwrap());
    assert!((0.8..1.2).contains(&exponent) && (230.0..450.0).contains(&emm), "{json}");
    let ends: Vec<f64> =
        json["emm_interval"].as_array().unwrap().iter().map(|e| e.as_f64().unwrap()).collect();
    assert!(ends[0] < 320.0 && 320.0 < ends[1], "{ends:?}: 2·320 is 640");
    let out = dir.join("out");
    assert!(out.join("predicted.json").exists() && out.join("predicted.csv").exists());
    // What is there is read, not trained again.
    let again = predicted(dir, "--json").json();
    assert_eq!(again["emm"], json["emm"]);
    predicted(dir, "--out out").refused(2, "", "--force");
    let said = predicted(dir, "").ok();
    assert!(said.contains("images after 640 epochs, predicted, 95% interval"), "{said}");
    for other in ["--sizes 10,20", "--hi 40", "--within 1m", "--plan"] {
        let said = predicted(dir, other);
        assert!(said.code == 2 && said.stderr.contains("--predict"), "{said:?}");
    }
}
