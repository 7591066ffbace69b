//! How memorization starts: losses at evaluations, training that stops at a ratio, and what `emm when` makes of the curves.

use crate::run::{files_of, fixture, same_files, saved_step, train_args, train_tiny};
use crate::support::{Ended, edit_scores, emm, emm_in};
use emm::data::Dataset;
use emm::device::{Cpu, Device};
use emm::model::SavedModel;
use emm::run::Network;
use emm::sampler::Denoise as _;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// Digits that the fixture's run does not see.
fn held_out(folder: &Path) -> PathBuf {
    let path = folder.join("when-held.zip");
    if !path.exists() {
        let all = Dataset::digits();
        let pixels = all.pixels[64 * 64..264 * 64].to_vec();
        let set = Dataset { pixels, labels: None, ..all };
        set.save(&path, false).unwrap();
    }
    path
}

fn with_holdout(run: &Path, extra: &str) -> Ended {
    let held = held_out(run.parent().unwrap());
    train_tiny(run, &format!("--holdout {} {extra}", held.display()))
}

fn losses(run: &Path) -> Vec<[f64; 5]> {
    let text = fs::read_to_string(run.join("losses.csv")).unwrap();
    let row = |line: &str| {
        let row: Vec<f64> = line.split(',').map(|cell| cell.parse().unwrap()).collect();
        row.try_into().unwrap()
    };
    text.lines().skip(1).map(row).collect()
}

/// λ E‖D(x; σ) − y‖² of a snapshot, and its standard error, over other draws than a run makes.
fn loss_of(model: &SavedModel, set: &Dataset, sigma: f64, seed: u64) -> [f64; 2] {
    const DRAWS: usize = 1500;
    let mut state = seed;
    let mut unit = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((state >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    };
    let device = Device::Cpu(Cpu::new(1).unwrap());
    let weight = model.config.precond.weight(sigma);
    let mut network = Network::new(&device, model.clone(), 50, &|| false).unwrap();
    let len = set.image_len();
    let mut all = Vec::new();
    for _ in 0..DRAWS / 50 {
        let (mut y, mut x) = (Vec::new(), Vec::new());
        for _ in 0..50 {
            let image = (unit() * set.len() as f64) as usize;
            for &u in set.image(image) {
                let normal = (-2.0 * unit().ln()).sqrt() * (std::f64::consts::TAU * unit()).cos();
                y.push(u as f64 / 127.5 - 1.0);
                x.push((y[y.len() - 1] + sigma * normal) as f32);
            }
        }
        let mut out = vec![f32::NAN; x.len()];
        network.denoise(&x, &[sigma; 50], &[], &mut out).unwrap();
        for (out, y) in out.chunks(len).zip(y.chunks(len)) {
            let one: f64 = out.iter().zip(y).map(|(&d, &y)| (d as f64 - y).powi(2)).sum();
            all.push(weight * one);
        }
    }
    let n = all.len() as f64;
    let mean = all.iter().sum::<f64>() / n;
    let variance = all.iter().map(|one| (one - mean).powi(2)).sum::<f64>() / (n - 1.0);
    [mean, variance.sqrt()]
}

#[test]
fn losses_are_those_of_the_network_and_the_runs_bits_stay() {
    let run = fixture().folder.path().join("when-losses");
    with_holdout(&run, "").ok();
    let rows = losses(&run);
    let mut files = files_of(&run);
    for more in ["losses.csv", "heldout.toml"] {
        files.remove(more).unwrap();
    }
    same_files_of(&files, &fixture().files);
    assert_eq!(rows.len(), 4 * 5, "evaluations and levels");
    assert_eq!(rows[0][..3], [40.0, 10.0, 0.05]);
    let model = SavedModel::open(&run.join("snapshots/epoch-000040.safetensors")).unwrap();
    let sets = [
        Dataset::open(&fixture().data).unwrap(),
        Dataset::open(&held_out(run.parent().unwrap())).unwrap(),
    ];
    for row in &rows[15..] {
        for (set, found) in sets.iter().zip(&row[3..]) {
            let unlabelled = Dataset { labels: None, ..set.clone() };
            let [mean, deviation] = loss_of(&model, &unlabelled, row[2], 77);
            // The run's are of 128 draws.
            let error = deviation * (1.0 / 128.0 + 1.0 / 1500.0f64).sqrt();
            assert!((found - mean).abs() < 4.5 * error, "{row:?}: {mean} ± {error}");
        }
    }

    // In parts, with other micro-batches, the same bytes.
    let parts = run.with_file_name("when-losses-in-parts");
    for _ in 0..2 {
        assert_eq!(with_holdout(&parts, "--stop-after-steps 50 --micro-batch 8").code, 75);
    }
    with_holdout(&parts, "--micro-batch 8").ok();
    for file in ["losses.csv", "heldout.toml"] {
        assert_eq!(fs::read(run.join(file)).unwrap(), fs::read(parts.join(file)).unwrap());
    }
}

fn same_files_of(
    have: &std::collections::BTreeMap<String, Vec<u8>>,
    want: &std::collections::BTreeMap<String, Vec<u8>>,
) {
    assert_eq!(have.keys().collect::<Vec<_>>(), want.keys().collect::<Vec<_>>());
    for (name, bytes) in have {
        assert!(bytes == &want[name], "{name} differs from the run without losses");
    }
}

#[test]
fn held_out_images_that_do_not_fit_are_refused() {
    let folder = fixture().folder.path();
    let run = folder.join("when-refused");
    let with = |path: &Path, extra: &str| {
        train_tiny(&run, &format!("--holdout {} {extra}", path.display()))
    };
    let large = folder.join("when-large.zip");
    let set = Dataset::digits();
    let pixels = set.pixels[..256].to_vec();
    Dataset { resolution: 16, pixels, labels: None, names: vec![], ..set.clone() }
        .save(&large, false)
        .unwrap();
    with(&large, "").refused(
        3,
        "--holdout: ",
        "16x16 pixels and 1 channels, the training set has 8x8 and 1",
    );
    let held = held_out(folder);
    with(&held, "--looks 0").refused(3, "--holdout: ", "of which there are none");
    let missing = folder.join("when-nowhere.zip");
    with(&missing, "").refused(3, &missing.display().to_string(), "");
    assert!(!run.exists(), "nothing is begun");
    // Labels that the network takes have to be there.
    with(&held, "--cond").refused(3, "--holdout: ", "no labels");

    // Others than those that the run began with, and a file that somebody changed.
    assert_eq!(with(&held, "--stop-after-steps 50").code, 75);
    let other = folder.join("when-other.zip");
    let pixels = set.pixels[..100 * 64].to_vec();
    Dataset { pixels, labels: None, ..set }.save(&other, false).unwrap();
    with(&other, "").refused(2, "--holdout: ", "other images or labels than the 200");
    let path = run.join("losses.csv");
    let text = fs::read_to_string(&path).unwrap();
    for (from, to) in [("0.05,", "0.06,"), (",10,", ",11,"), ("40,", "41,"), ("step", "stop")] {
        fs::write(&path, text.replacen(from, to, 1)).unwrap();
        let said = with(&held, "");
        assert!(said.code == 3 && said.stderr.contains("losses.csv: "), "{said:?}");
    }
    let half = text.lines().take(4).collect::<Vec<_>>().join("\n") + "\n";
    fs::write(&path, half).unwrap();
    with(&held, "").refused(
        3,
        &path.display().to_string(),
        "the last evaluation lacks noise levels",
    );
    // Without it the run goes on and says so.
    fs::write(&path, text).unwrap();
    let mut args = train_args(&fixture().data, &run, "");
    args.retain(|word| word != "--quiet");
    let ended = emm(&args);
    assert!(ended.stderr.contains("losses.csv gets no more rows"), "{ended:?}");
    assert_eq!(losses(&run).len(), 5);
}

#[test]
fn training_stops_at_a_ratio_and_goes_on_without() {
    let run = fixture().folder.path().join("when-stopped");
    // A third of the samples are copies from the first evaluation on, at step 40.
    let flag = "--stop-when ratio>30%";
    let stopped = train_tiny(&run, &format!("{flag} --json")).json();
    assert_eq!((stopped["finished"].as_bool(), stopped["step"].as_u64()), (Some(false), Some(40)));
    assert_eq!(stopped["stopped_above"], 0.3);
    // The same again does nothing more.
    let files = files_of(&run);
    let said = train_tiny(&run, flag).ok();
    assert!(said.contains("stopped     at epoch 10: 33.33% > 30%; without --stop-when"), "{said}");
    assert!(said.contains("before it   no evaluation of this run was as low"), "{said}");
    same_files(&run, &files);
    let json = train_tiny(&run, "--json --stop-when ratio>0.4").json();
    assert!(json["finished"] == true && json["stopped_above"].is_null());
    same_files(&run, &fixture().files);

    // Of two evaluations the second is above: the snapshot of the first stays, though it is neither best nor last.
    let run = run.with_file_name("when-stopped-second");
    assert_eq!(train_tiny(&run, "--stop-after-steps 90").code, 75);
    edit_scores(&run.join("scores.csv"), |row| if row == 1 { 2 } else { 8 });
    let said = train_tiny(&run, flag).ok();
    assert!(said.contains("stopped     at epoch 20: "), "{said}");
    let before = "snapshots/epoch-000010.safetensors";
    assert!(said.contains(&format!("{before}: 8.33% memorized")), "{said}");
    assert!(files_of(&run).contains_key(before) && saved_step(&run) == Some(90));
    for wrong in ["ratio>", "ratio<0.1", "0.1", "ratio>2", "ratio>-1", "ratio>nan", "loss>1"] {
        train_tiny(&run, &format!("--stop-when {wrong}")).refused(
            2,
            "--stop-when: ",
            "expected ratio>R",
        );
    }
}

/// A finished run of the study `law`, which is given these copies of 200 images at its evaluations.
fn give(dir: &Path, size: u64, seed: u64, copies: &[u64]) {
    for entry in fs::read_dir(dir.join("runs")).unwrap().flatten() {
        let config = fs::read_to_string(entry.path().join("config.toml")).unwrap();
        let is = |line: String| config.lines().any(|l| l == line);
        if is(format!("images = {size}")) && is(format!("seed = {seed}")) {
            edit_scores(&entry.path().join("scores.csv"), |row| copies[row - 1]);
            return;
        }
    }
    panic!("no run of {size} images and seed {seed}");
}

const LAW: &str = r#"
name = "law"
title = "A law"

[settings]
channels = 32
mult = [1]
blocks = 1
epochs = 800
batch = 128
looks = 25
score_images = 8000
rescore_images = 0
holdout = 6000

[[axis]]
name = "size"
key = "size"
values = [1000, 2000, 4000]
"#;

#[test]
fn laws_are_those_that_the_curves_were_given() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    fs::write(dir.join("law.toml"), LAW).unwrap();
    let line = "sweep run law.toml --scale tiny --repeats 2 --quiet";
    emm_in(dir, line.split(' ')).ok();
    // Five evaluations at 4, 8, …, 20 epochs. τ_mem: 8 + 4·… epochs, growing as √N.
    for (size, copies) in
        [(10, [0, 4, 50, 100, 200]), (20, [0, 0, 4, 50, 200]), (40, [0, 0, 0, 4, 200])]
    {
        (1024..1026).for_each(|seed| give(dir, size, seed, &copies));
    }
    let json = emm_in(dir, ["when", "runs", "--json", "--level", "2%", "--out", "when"]).json();
    let group = &json["groups"][0];
    let runs = group["runs"].as_array().unwrap();
    assert_eq!((json["groups"].as_array().unwrap().len(), runs.len()), (1, 6));
    let tau = |k: usize| runs[k]["tau_mem_epochs"].as_f64().unwrap();
    // 2% is 4 of 200: passed beyond the evaluations at 8, 12 and 16 epochs, at the next one.
    for (k, size) in [(0, 8.0), (2, 12.0), (4, 16.0)] {
        assert!((tau(k) - size).abs() < 1e-9, "{}", tau(k));
        assert_eq!(runs[k]["tau_mem_interval"][1], size + 4.0, "above for sure");
    }
    let law = &group["tau_mem"];
    // By hand: the least squares line of ln 8, 12, 16 over ln 10, 20, 40 has the slope ln 2 / (2 ln 2).
    let exponent = law["exponent_epochs"].as_f64().unwrap();
    assert!((exponent - 0.5).abs() < 1e-9, "{exponent}");
    assert_eq!(law["exponent_seen"].as_f64().unwrap(), exponent + 1.0);
    assert_eq!(law["runs"], 6);
    // None of 200 may be 1.9%, 4 of 200 may be 5%.
    let stop = |k: usize| group["stop"][k]["epoch"].as_f64();
    assert_eq!([0, 1, 2].map(stop), [Some(4.0), Some(8.0), Some(12.0)].map(|e| by_loss(group, e)));
    for run in runs {
        assert_eq!(run["losses"].as_array().unwrap().len(), 5);
        let own = dir.join(run["run"].as_str().unwrap()).join("heldout.toml");
        assert!(fs::read_to_string(own).unwrap().contains("images = 60"));
    }
    for ending in ["html", "json", "csv", "png", "svg", "pdf"] {
        assert!(dir.join(format!("when/when.{ending}")).exists(), "{ending}");
    }
    emm_in(dir, ["when", "runs", "--out", "when"]).refused(2, "when: ", "--force");
    let said = emm_in(dir, ["when", "runs", "--out", "when", "--force"]).ok();
    assert!(said.contains("for N = 10 ") && said.contains("Bonnaire"), "{said}");
    // At a level that no run passes there is no law.
    let json = emm_in(dir, ["when", "runs", "--json", "--level", "0.9999"]).json();
    assert!(json["groups"][0]["tau_mem"].is_object(), "all of the samples are copies at last");
}

/// An epoch by the ratio, unless the held-out loss of those runs turned before it.
fn by_loss(group: &Value, epoch: Option<f64>) -> Option<f64> {
    let turned = |stop: &Value| stop["by_heldout_loss"] == true;
    match group["stop"].as_array().unwrap().iter().any(turned) {
        true => panic!("runs of 20 epochs turn: choose other settings"),
        false => epoch,
    }
}

#[test]
fn what_has_no_curves_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    emm_in(dir, ["when", "nowhere"]).refused(3, "nowhere: ", "nothing there, expected a folder");
    fs::create_dir(dir.join("empty")).unwrap();
    emm_in(dir, ["when", "empty"]).refused(3, "empty: ", "no run with evaluations");
    for level in ["0", "1", "100%"] {
        emm_in(dir, ["when", "empty", "--level", level]).refused(
            2,
            "--level: ",
            "expected 0.0001 to 0.9999",
        );
    }
    emm_in(dir, ["when", "empty", "--level", "2"]).refused(2, "--level: ", "no share");
    // A run is one, too; what is wrong with its losses is said.
    let run = fixture().folder.path().join("when-one");
    with_holdout(&run, "").ok();
    let name = run.display().to_string();
    let json = emm(["when", &name, "--json"]).json();
    assert_eq!(json["groups"][0]["runs"][0]["losses"].as_array().unwrap().len(), 4);
    fs::write(run.join("losses.csv"), "step\n").unwrap();
    emm(["when", &name]).passed_over("losses.csv: not a run's losses");
}

#[test]
fn parts_of_one_training_are_one() {
    let run = fixture().folder.path().join("when-short");
    let name = run.display().to_string();
    with_holdout(&run, "--epochs 20").ok();
    let of = |more: &[&str]| {
        let args =
            ["when", "--json", "--level", "10%", &name].into_iter().chain(more.iter().copied());
        emm(args).json()["groups"][0]["runs"].clone()
    };
    let short = of(&[]);
    assert_eq!(short.as_array().unwrap().len(), 1);
    // The same folder twice, and a run of the same training, are no more trainings.
    assert_eq!(of(&[&name]), short);
    let long = run.with_file_name("when-long");
    with_holdout(&long, "").ok();
    let both = of(&[long.to_str().unwrap()]);
    assert_eq!(both.as_array().unwrap().len(), 1);
    let epochs = |of: &Value, key: &str| -> Vec<f64> {
        of[0][key].as_array().unwrap().iter().map(|p| p[0].as_f64().unwrap()).collect()
    };
    assert_eq!(epochs(&both, "curve"), [5.0, 10.0, 15.0, 20.0, 30.0, 40.0]);
    assert_eq!(epochs(&both, "losses"), [5.0, 10.0, 15.0, 20.0, 30.0, 40.0]);
    // A third is copied at the first evaluation: when that began is not known, and the losses before are kept for people.
    assert!(both[0]["tau_mem_epochs"].is_null() && both[0]["tau_mem_interval"][0] == 0.0);
    with_holdout(&run, "").ok();
    assert!(run.join("report/losses-to-epoch-000020.csv").exists());
}

#[test]
fn what_a_set_is_too_small_for_is_said_before_anything_is_trained() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    fs::write(dir.join("law.toml"), LAW).unwrap();
    let all = Dataset::digits();
    all.save(&dir.join("all.zip"), false).unwrap();
    emm_in(dir, "data subset all.zip --size 60 --out small.zip".split(' ')).ok();
    // 60 held out, and 10 to 40 to train on.
    let line = "sweep plan law.toml --scale tiny --data small.zip --no-measure --json";
    let plan = emm_in(dir, line.split(' ')).json();
    let why = plan["impossible"][0]["why"].as_str().unwrap();
    assert!(why.contains("the set is too small for both"), "{plan}");
    assert_eq!(
        (plan["runs"].as_array().unwrap().len(), plan["impossible"].as_array().unwrap().len()),
        (0, 3)
    );

    // A subset without another may lose a class.
    let nines = all.label_counts()[9];
    let line = format!("data subset all.zip --size {nines} --class 9 --out nines.zip");
    emm_in(dir, line.split(' ')).ok();
    let line = "data subset all.zip --size 18 --without nines.zip --out rest.zip";
    let said = emm_in(dir, line.split(' '));
    assert!(said.code == 0 && said.stderr.contains("9 of 10 are left"), "{said:?}");
    let line = "data subset nines.zip --size 1 --without nines.zip --out none.zip";
    emm_in(dir, line.split(' ')).refused(3, "--without: nines.zip: holds all images", "");
}
