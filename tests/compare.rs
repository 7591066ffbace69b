//! `emm compare`: its numbers against their definitions in float64 over what `emm sample` draws.

use crate::support::{Ended, emm_in};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::fs;
use std::path::Path;

const NET: &str = "--channels 16 --mult 1 --blocks 1 --dropout 0 --precond edm --batch 8 --lr 4e-3 --ema-rate 0.98 \
                   --evaluations 1 --score-images 10 --rescore-images 0 --quiet";

fn go(dir: &Path, line: &str) -> Ended {
    emm_in(dir, line.split_whitespace())
}

/// Two disjoint sets of eight digits each, `a.zip` and `b.zip`, and a run of each.
fn runs(dir: &Path) {
    let from = concat!(env!("CARGO_MANIFEST_DIR"), "/data/digits8x8-images-idx3-ubyte");
    emm_in(dir, ["data", "import", from, "--out", "all.zip"]).ok();
    go(dir, "data subset all.zip --size 8 --out a.zip").ok();
    go(dir, "data subset all.zip --size 8 --without a.zip --out b.zip").ok();
    for (name, seed) in [("a", 1), ("b", 2)] {
        go(dir, &format!("train --data {name}.zip --run {name} --seed {seed} {NET} --epochs 120"))
            .ok();
    }
}

/// Images of a set or of samples as float64, as `emm` reads them.
fn images(path: &Path) -> Vec<Vec<f64>> {
    let set = emm::data::Dataset::open(path).unwrap();
    (0..set.len()).map(|i| set.image(i).iter().map(|&v| v as f64).collect()).collect()
}

/// Root of the mean square.
fn distance(a: &[f64], b: &[f64]) -> f64 {
    (a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>() / a.len() as f64).sqrt()
}

fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let less_mean = |x: &[f64]| -> Vec<f64> {
        let mean = x.iter().sum::<f64>() / x.len() as f64;
        x.iter().map(|v| v - mean).collect()
    };
    let (a, b) = (less_mean(a), less_mean(b));
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    dot(&a, &b) / (dot(&a, &a) * dot(&b, &b)).sqrt()
}

fn mean(all: impl IntoIterator<Item = f64>) -> f64 {
    let all: Vec<f64> = all.into_iter().collect();
    all.iter().sum::<f64>() / all.len() as f64
}

/// The nearest image, and the two least distances.
fn nearest(image: &[f64], set: &[Vec<f64>]) -> (usize, [f64; 2]) {
    let mut all: Vec<(f64, usize)> =
        set.iter().enumerate().map(|(i, x)| (distance(image, x), i)).collect();
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    (all[0].1, [all[0].0, all[1].0])
}

#[track_caller]
fn close(found: &Value, expected: f64) {
    let found = found.as_f64().unwrap();
    assert!(
        (found - expected).abs() <= 1e-9 * expected.abs().max(1.0),
        "{found}, expected {expected}"
    );
}

#[test]
fn numbers_are_those_of_samples_and_sets() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    runs(dir);
    let line = "compare a b --data-a a.zip --data-b b.zip --count 30 --seed 7 --steps 9";
    let told = go(dir, &format!("{line} --out out --json")).json();
    let sampled = |name: &str| {
        go(dir, &format!("sample --run {name} --seeds 7-36 --steps 9 --out {name}.npz --quiet"))
            .ok();
        images(&dir.join(format!("{name}.npz")))
    };
    let (samples, sets) =
        ([sampled("a"), sampled("b")], [images(&dir.join("a.zip")), images(&dir.join("b.zip"))]);
    let (a, b) = (&samples[0], &samples[1]);
    assert_eq!((&told["images"], &told["first_seed"]), (&json!(30), &json!(7)));
    assert_eq!((&told["shared_images"], &told["same_network"]), (&json!(0), &json!(false)));

    let paired: Vec<f64> = (0..30).map(|i| distance(&a[i], &b[i])).collect();
    let others: Vec<(usize, usize)> =
        (0..30).flat_map(|i| (1..=10).map(move |k| (i, (i + k) % 30))).collect();
    let unpaired = mean(others.iter().map(|&(i, j)| distance(&a[i], &b[j])));
    close(&told["same_seed"]["distance"], mean(paired.clone()));
    close(&told["different_seeds"]["distance"], unpaired);
    close(&told["relative_distance"], mean(paired.clone()) / unpaired);
    close(&told["same_seed"]["cosine"], mean((0..30).map(|i| cosine(&a[i], &b[i]))));
    close(
        &told["different_seeds"]["cosine"],
        mean(others.iter().map(|&(i, j)| cosine(&a[i], &b[j]))),
    );
    assert_eq!(
        (&told["same_seed"]["pairs"], &told["different_seeds"]["pairs"]),
        (&json!(30), &json!(300))
    );
    let mut own = Vec::new();
    for (k, name) in ["a", "b"].iter().enumerate() {
        let found: Vec<_> = samples[k].iter().map(|x| nearest(x, &sets[k])).collect();
        let other: Vec<_> = samples[k].iter().map(|x| nearest(x, &sets[1 - k])).collect();
        // Not at the border, where distances are compared as integers.
        let copies = |found: &[(usize, [f64; 2])]| {
            found.iter().filter(|(_, [d1, d2])| 3.0 * d1 < *d2).count()
        };
        let told = &told[*name];
        assert_eq!(
            (&told["memorized"], &told["memorized_of_other"]),
            (&json!(copies(&found)), &json!(copies(&other)))
        );
        close(&told["ratio"], copies(&found) as f64 / 30.0);
        close(&told["mean_d1"], mean(found.iter().map(|f| f.1[0])));
        close(&told["mean_d1_of_other"], mean(other.iter().map(|f| f.1[0])));
        close(
            &told["cosine_to_nearest"],
            mean(samples[k].iter().zip(&found).map(|(x, f)| cosine(x, &sets[k][f.0]))),
        );
        let set = &sets[k];
        let least = |i: usize| {
            (0..set.len())
                .filter(|&j| j != i)
                .map(|j| distance(&set[i], &set[j]))
                .fold(f64::INFINITY, f64::min)
        };
        close(&told["train_to_nearest_other"], mean((0..set.len()).map(least)));
        assert_eq!((&told["foreign_data"], &told["train_images"]), (&json!(false), &json!(8)));
        own.push(found);
    }
    let nearer = (0..30).filter(|&i| paired[i] < own[0][i].1[0].min(own[1][i].1[0])).count();
    assert_eq!(told["nearer_to_each_other"], json!(nearer));

    // A row a seed, and the same in every file.
    let written: Value =
        serde_json::from_str(&fs::read_to_string(dir.join("out/compare.json")).unwrap()).unwrap();
    assert_eq!(written, told);
    let mut seeds = csv::Reader::from_path(dir.join("out/seeds.csv")).unwrap();
    let rows: Vec<csv::StringRecord> = seeds.records().map(Result::unwrap).collect();
    assert_eq!(rows.len(), 30);
    for (i, row) in rows.iter().enumerate() {
        assert_eq!(row[0], (7 + i).to_string());
        let value = |at: usize| row[at].parse::<f64>().unwrap();
        assert!(
            (value(1) - paired[i]).abs() < 1e-9 && (value(2) - cosine(&a[i], &b[i])).abs() < 1e-9
        );
        assert!(
            (value(5) - own[0][i].1[0]).abs() < 1e-9 && (value(11) - own[1][i].1[1]).abs() < 1e-9
        );
    }
    let mut names: Vec<_> = fs::read_dir(dir.join("out"))
        .unwrap()
        .map(|f| f.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let expected =
        "compare.json distances.csv distances.pdf distances.png distances.svg seeds.csv sheet.png";
    assert_eq!(names.join(" "), expected);
    let text = go(dir, line).ok();
    assert!(
        text.contains("copies of its own set (95%)") && text.contains("of the same seed"),
        "{text}"
    );
    go(dir, &format!("{line} --out out")).refused(2, "out: ", "--force");
    fs::write(dir.join("out/mine.txt"), "").unwrap();
    go(dir, &format!("{line} --out out --force")).refused(2, "out: ", "mine.txt");
}

#[test]
fn what_cannot_be_compared_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    runs(dir);
    let told = |line: &str| go(dir, &format!("compare {line} --count 4 --steps 3 --json")).json();
    // One network: equal by itself, which says nothing.
    let same = told("a a --data-a a.zip --data-b a.zip");
    assert_eq!(
        (&same["same_network"], &same["shared_images"], &same["verdict"]),
        (&json!(true), &json!(8), &Value::Null)
    );
    assert_eq!(same["same_seed"]["distance"], json!(0.0));
    assert!(same["notes"][0].as_str().unwrap().contains("the same network"), "{same}");
    // Sets of other networks, and sets that share images.
    let swapped = told("a b --data-a b.zip --data-b b.zip");
    assert_eq!(
        (&swapped["a"]["foreign_data"], &swapped["b"]["foreign_data"]),
        (&json!(true), &json!(false))
    );
    assert_eq!((&swapped["verdict"], &swapped["said"]), (&Value::Null, &Value::Null));
    let notes = swapped["notes"].to_string();
    assert!(
        notes.contains("A was trained on other images or labels than b.zip")
            && notes.contains("8 of 8 images"),
        "{notes}"
    );
    // A model file says what it was trained on, too.
    go(dir, "ckpt export a --out a.safetensors").ok();
    assert_eq!(
        told("a.safetensors b --data-a a.zip --data-b b.zip")["a"]["foreign_data"],
        json!(false)
    );
    // An untrained network is far from all images.
    go(dir, &format!("train --data a.zip --run early {NET} --epochs 1")).ok();
    let far =
        go(dir, "compare early b --data-a a.zip --data-b b.zip --count 30 --steps 5 --json").json();
    assert_eq!(far["verdict"], "far", "{far}");
    assert!(far["said"].as_str().unwrap().starts_with("no verdict: "), "{far}");

    let refused = |line: &str, code: i32, start: &str, holds: &str| {
        go(dir, &format!("compare {line}")).refused(code, start, holds);
    };
    go(dir, "data subset all.zip --size 8 --resolution 16 --out large.zip").ok();
    go(dir, &format!("train --data large.zip --run large {NET} --epochs 1")).ok();
    refused(
        "a large --data-a a.zip --data-b large.zip",
        3,
        "large: expected a network for 8x8",
        "16x16",
    );
    refused("a b --data-a large.zip --data-b b.zip", 3, "large.zip: 16x16", "8x8");
    refused("a b --data-a a.zip --data-b b.zip --count 1", 2, "--count: 1", "2");
    refused("a nothing --data-a a.zip --data-b b.zip", 3, "nothing: ", "");
    refused("a b --data-a a.zip", 2, "--data-b", "");
    go(dir, "data subset all.zip --size 1800 --without a.zip --out no.zip").refused(
        3,
        "all.zip without a.zip: class 0 has 17",
        "wants 180",
    );
    go(dir, "data subset all.zip --size 8 --without large.zip --out no.zip").refused(
        3,
        "--without: large.zip: 16x16 pixels and 1 channels, all.zip has 8x8",
        "",
    );
}

#[test]
fn a_subset_without_another_set_has_none_of_its_images() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    emm::data::Dataset::digits().save(&dir.join("all.zip"), false).unwrap();
    let images = |name: &str| -> HashSet<Vec<u8>> {
        let set = emm::data::Dataset::open(&dir.join(name)).unwrap();
        (0..set.len()).map(|i| set.image(i).to_vec()).collect()
    };
    for size in [1, 25, 800] {
        let [a, b] = [format!("a-{size}.zip"), format!("b-{size}.zip")];
        go(dir, &format!("data subset all.zip --size {size} --out {a}")).ok();
        go(dir, &format!("data subset all.zip --size {size} --without {a} --out {b}")).ok();
        let (first, second) = (images(&a), images(&b));
        assert!(
            first.len() == size && second.len() == size && first.is_disjoint(&second),
            "{size}"
        );
    }
}
