//! Run files are checked, not believed: damaged, foreign and impossible ones are named in one line and exit 3, and who
//! looks at many runs passes them over.

use crate::run::{fixture, same_files, suspended, train_args, train_tiny, words};
use crate::support::{edit_scores, emm, with_memorized};
use emm::run::{RunDir, state};
use emm::study::RunState;
use emm::study::outcome::state_of;
use serde_json::{Map, Value, json};
use std::fs;
use std::path::{Path, PathBuf};

/// A copy of the finished reference run.
fn finished(name: &str) -> PathBuf {
    let f = fixture();
    let to = f.folder.path().join(name);
    copy(&f.folder.path().join("reference"), &to);
    to
}

pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (path, to) = (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name()));
        match path.is_dir() {
            true => copy(&path, &to),
            false => {
                fs::copy(&path, &to).unwrap();
            }
        }
    }
}

/// Makes a safetensors file's metadata anew, as a program would that knows nothing of checksums.
pub fn edit_metadata(path: &Path, edit: impl FnOnce(&mut Map<String, Value>)) {
    let bytes = fs::read(path).unwrap();
    let start = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut header: Map<String, Value> = serde_json::from_slice(&bytes[8..start]).unwrap();
    edit(header.get_mut("__metadata__").unwrap().as_object_mut().unwrap());
    let header = serde_json::to_vec(&header).unwrap();
    let length = (header.len() as u64).to_le_bytes();
    fs::write(path, [&length[..], &header, &bytes[start..]].concat()).unwrap();
}

pub fn replaced(path: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{from:?} in {text}");
    fs::write(path, text.replacen(from, to, 1)).unwrap();
}

/// `damage` done to `file` of a finished run makes the same command end with exit 3 and a line that begins with the file
/// and holds `holds`; with the file as it was nothing is lost.
#[track_caller]
fn refused(run: &Path, file: &str, holds: &str, damage: impl FnOnce(&Path)) {
    let path = run.join(file);
    let whole = fs::read(&path).unwrap();
    damage(&path);
    train_tiny(run, "").refused(3, &path.display().to_string(), holds);
    if path.is_dir() {
        fs::remove_dir(&path).unwrap();
    } else if path.exists() {
        fs::remove_file(&path).unwrap();
    }
    fs::write(&path, whole).unwrap();
}

#[test]
fn rows_are_checked_against_one_another_and_the_run() {
    let run = finished("rows");
    let name = "scores.csv";
    let lines = |path: &Path| -> Vec<String> {
        fs::read_to_string(path).unwrap().lines().map(String::from).collect()
    };
    // (row, cell, value): from 1 and 0.
    let cells: [(usize, usize, &str, &str); 23] = [
        (1, 0, "41", "row 1: step 41, evaluation 1 of this run is at step 40"),
        (1, 0, "-40", "not a row"),
        (2, 1, "20.5", "row 2: epoch 20.5, expected 20"),
        (2, 1, "NaN", "row 2: epoch NaN"),
        (2, 2, "20", "row 2: images 20, expected 24"),
        (2, 2, "0", "row 2: images 0"),
        (3, 3, "999", "row 3: 999 of 24 images memorized"),
        (3, 3, "23", "row 3: ratio "),
        (3, 3, "1e1", "not a row"),
        (4, 4, "7.5", "row 4: ratio 7.5, expected "),
        (4, 4, "NaN", "row 4: ratio NaN"),
        (4, 4, "-0.5", "row 4: ratio -0.5"),
        (4, 4, "inf", "row 4: ratio inf"),
        (1, 5, "0.5", "row 1: interval 0.5 to "),
        (1, 6, "NaN", "row 1: interval "),
        (1, 7, "NaN", "row 1: mean_d1 NaN"),
        (1, 7, "-1", "row 1: mean_d1 -1"),
        (1, 7, "256", "row 1: mean_d1 256"),
        (1, 7, "1,2", "not a row"),
        // What reads as a number, but nobody writes so.
        (1, 7, "+5", "not a row"),
        (1, 7, "1e1", "not a row"),
        (2, 1, "20.0", "not a row"),
        (2, 2, "024", "not a row"),
    ];
    for (row, cell, value, holds) in cells {
        refused(&run, name, holds, |path| {
            let mut lines = lines(path);
            let mut row_cells: Vec<&str> = lines[row].split(',').collect();
            row_cells[cell] = value;
            lines[row] = row_cells.join(",");
            fs::write(path, lines.join("\n") + "\n").unwrap();
        });
    }
    let rows = |order: &'static [usize]| {
        move |path: &Path| {
            let lines = lines(path);
            let rows: Vec<&str> = order.iter().map(|&i| lines[i].as_str()).collect();
            fs::write(path, rows.join("\n") + "\n").unwrap();
        }
    };
    refused(&run, name, "row 3: step 80", rows(&[0, 1, 2, 2, 3, 4]));
    refused(&run, name, "row 2: step 120", rows(&[0, 1, 3, 2, 4]));
    refused(&run, name, "row 2: step 120", rows(&[0, 1, 3, 4]));
    refused(&run, name, "row 5: the run has 4 evaluations", rows(&[0, 1, 2, 3, 4, 4]));
    // Rows that are lost, though the state is beyond them; the whole file, too.
    refused(&run, name, "no row of the evaluation at step 80", rows(&[0, 1]));
    refused(&run, name, "no row of the evaluation at step 40", rows(&[0]));
    refused(&run, name, "no row of the evaluation at step 40", |path| {
        fs::remove_file(path).unwrap()
    });
    refused(&run, name, "not a row", |path| fs::write(path, "").unwrap());
    refused(&run, name, "UTF-8", |path| {
        let bytes = fs::read(path).unwrap();
        fs::write(path, [&bytes[..], b"\xff"].concat()).unwrap();
    });
    refused(&run, name, "a folder, expected a file", |path| {
        fs::remove_file(path).unwrap();
        fs::create_dir(path).unwrap();
    });
    refused(&run, name, "pipe, expected a file", |path| {
        fs::remove_file(path).unwrap();
        let made = std::process::Command::new("mkfifo").arg(path).status().unwrap();
        assert!(made.success());
    });
    let path = run.join(name);
    let whole = fs::read(&path).unwrap();
    fs::write(&path, [&whole[..], &[b'7'; 40_000], b"\n"].concat()).unwrap();
    let long = train_tiny(&run, "");
    assert!(long.code == 3 && long.stderr.len() < 500, "{}", long.stderr.len());
    fs::write(&path, whole).unwrap();
    same_files(&run, &fixture().files);
}

#[test]
fn the_rescored_evaluation_is_the_best_one_and_fits() {
    let run = finished("rescored");
    let name = "rescored.csv";
    let row = fs::read_to_string(run.join(name)).unwrap().lines().nth(1).unwrap().to_string();
    let step = row.split(',').next().unwrap().to_string();
    // One whose snapshot was removed.
    refused(&run, name, "the best evaluation is that of step", |path| {
        let other = if step == "40" { "80,20" } else { "40,10" };
        let epoch = row.split(',').nth(1).unwrap();
        replaced(path, &format!("\n{step},{epoch},"), &format!("\n{other},"));
    });
    refused(&run, name, "images 7, expected 8", |path| {
        let [low, high] = emm::memorization::wilson(0, 7);
        let epoch = row.split(',').nth(1).unwrap();
        let text = fs::read_to_string(path).unwrap();
        let header = text.lines().next().unwrap();
        fs::write(path, format!("{header}\n{step},{epoch},7,0,0,{low},{high},1\n")).unwrap();
    });
    refused(&run, name, "expected one row", |path| {
        let text = fs::read_to_string(path).unwrap();
        fs::write(path, format!("{text}{row}\n")).unwrap();
    });
    refused(&run, name, "expected one row", |path| {
        let text = fs::read_to_string(path).unwrap();
        fs::write(path, text.lines().next().unwrap().to_string() + "\n").unwrap();
    });
    refused(&run, name, "UTF-8", |path| fs::write(path, b"\xfe\xff").unwrap());
    // A run that has no such evaluation.
    let plain = fixture().folder.path().join("never-rescored");
    train_tiny(&plain, "--epochs 1 --looks 1 --rescore-images 0").ok();
    fs::copy(run.join(name), plain.join(name)).unwrap();
    let again = train_tiny(&plain, "--epochs 1 --looks 1 --rescore-images 0");
    again.refused(3, &plain.join(name).display().to_string(), "not scored again");
    same_files(&run, &fixture().files);
}

#[test]
fn a_configuration_is_checked_as_a_whole() {
    let run = finished("config");
    let name = "config.toml";
    // With its checksum any change is seen; without, as older files are, what no run can have.
    refused(&run, name, "changed or damaged", |path| replaced(path, "seed = 1024", "seed = 1025"));
    refused(&run, name, "put it back as it was, or give other settings as flags", |path| {
        replaced(path, "lr = 0.0002", "lr = 0.002");
    });
    refused(&run, name, "changed or damaged", |path| replaced(path, "checksum = ", "chexsum = "));
    for (from, to, holds) in [
        ("looks = 4", "looks = 4294967296", "--looks: 4294967296"),
        ("batch = 16", "batch = 0", "--batch: 0"),
        ("epochs = 40.0", "epochs = nan", "--epochs: NaN"),
        ("epochs = 40.0", "epochs = inf", "--epochs: inf"),
        ("epochs = 40.0", "epochs = 1e300", "steps are more than 2^31"),
        ("lr = 0.0002", "lr = nan", "--lr: NaN"),
        ("dropout = 0.13", "dropout = nan", "--dropout: NaN"),
        ("score_images = 24", "score_images = 0", "--score-images: 0"),
        ("micro_batch = 16", "micro_batch = 0", "--micro-batch: 0"),
        ("micro_batch = 16", "micro_batch = 17", "--micro-batch: 17"),
        ("images = 64", "images = 0", "--size: 0"),
        ("num_blocks = 1", "num_blocks = 99999", "--blocks: 99999"),
        ("sha256_labels = \"none\"", "sha256_labels = \"\"", "--data: hashes"),
        ("seed = 1024", "seed = -1", "not a run's configuration"),
        ("seed = 1024\n", "", "missing field"),
        ("seed = 1024\n", "seed = 1024\nsead = 1024\n", "unknown field"),
        ("precond = ", "# ", "missing field"),
        ("cpu = 2", "cpu = \"2\"", "not a run's configuration"),
    ] {
        refused(&run, name, holds, |path| {
            let text = fs::read_to_string(path).unwrap();
            fs::write(path, text.split("[note]").next().unwrap()).unwrap();
            replaced(path, from, to);
        });
    }
    refused(&run, name, "UTF-8", |path| fs::write(path, b"\xff\xfe[model]\n").unwrap());
    refused(&run, name, "a folder, expected a file", |path| {
        fs::remove_file(path).unwrap();
        fs::create_dir(path).unwrap();
    });
    same_files(&run, &fixture().files);
}

#[test]
fn a_run_that_has_lost_its_configuration_is_not_begun_anew() {
    let f = fixture();
    let run = finished("lost-config");
    refused(&run, "config.toml", "not found, though", |path| fs::remove_file(path).unwrap());
    // Scores alone could be anybody's.
    fs::remove_dir_all(run.join("state")).unwrap();
    refused(&run, "config.toml", "scores.csv is there", |path| fs::remove_file(path).unwrap());
    let out = f.folder.path().join("lost-config.html").display().to_string();
    let folder = f.folder.path().join("lost");
    copy(&f.folder.path().join("reference"), &folder.join("runs/whole"));
    copy(&run, &folder.join("runs/lost"));
    fs::remove_file(folder.join("runs/lost/config.toml")).unwrap();
    emm(["report", folder.to_str().unwrap(), "--out", &out])
        .passed_over("runs/lost/config.toml: not found");
    // A folder in which a run was about to begin is none.
    let early = f.folder.path().join("early");
    fs::create_dir_all(early.join("state")).unwrap();
    fs::write(early.join("lock"), "").unwrap();
    train_tiny(&early, "--epochs 1 --looks 0").ok();
}

#[test]
fn what_stands_in_the_place_of_a_lock_is_said() {
    let run = finished("no-lock");
    let lock = run.join("lock");
    fs::remove_file(&lock).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&lock).status().unwrap().success());
    let start = format!("--run: {}: ", lock.display());
    train_tiny(&run, "").refused(3, &start, "no plain file");
    fs::remove_file(&lock).unwrap();
    fs::create_dir(&lock).unwrap();
    train_tiny(&run, "").refused(3, &start, "no plain file");
}

#[test]
fn a_state_is_whole_and_of_this_run() {
    let f = fixture();
    let name = "state/state.safetensors";
    let run = finished("state");
    let half = f.folder.path().join("half");
    suspended(train_tiny(&half, "--stop-after-steps 50"), "stopped at step 50");
    let from = |other: &str, extra: &str| {
        let other = f.folder.path().join(other);
        train_tiny(&other, extra);
        other.join(name)
    };
    let longer = from("longer", "--epochs 80");
    let seeded = from("seeded", "--seed 7");
    let wider = from("wider", "--channels 16 --stop-after-steps 1");
    for run in [&run, &half] {
        for (state, holds) in [
            (&longer, "of another run (--epochs: here 40.0, there 80.0)"),
            (&seeded, "of another run (--seed: here 1024, there 7)"),
            (&wider, "of another run (--channels: here 8, there 16)"),
        ] {
            refused(run, name, holds, |path| {
                fs::copy(state, path).unwrap();
            });
        }
        // Any bit, wherever.
        let bytes = fs::metadata(run.join(name)).unwrap().len() as usize;
        for k in 0..12 {
            let (at, bit) = (k * bytes / 12 + 5 * k, k % 8);
            refused(run, name, "", |path| {
                let mut bytes = fs::read(path).unwrap();
                bytes[at] ^= 1 << bit;
                fs::write(path, bytes).unwrap();
            });
        }
        refused(run, name, "emm.checksum", |path| {
            edit_metadata(path, |meta| drop(meta.remove("emm.checksum")));
        });
        refused(run, name, "its checksum is", |path| {
            edit_metadata(path, |meta| drop(meta.insert("emm.format".into(), "3".into())));
        });
        refused(run, name, "damaged: of step 161 and of step", |path| {
            edit_metadata(path, |meta| drop(meta.insert("emm.step".into(), "161".into())));
        });
    }
    // Of before there were checksums: taken, and said; but not beyond the run's end, nor of another network.
    let older = |meta: &mut Map<String, Value>| {
        let run: Value = serde_json::from_str(meta["emm.run"].as_str().unwrap()).unwrap();
        let step = meta["emm.step"].clone();
        meta.clear();
        meta.insert("emm.step".into(), step);
        meta.insert("emm.model".into(), run["config"]["model"].to_string().into());
    };
    refused(&half, name, "the state of step 161, the run's last is 160", |path| {
        edit_metadata(path, |meta| {
            older(meta);
            meta.insert("emm.step".into(), "161".into());
        });
    });
    refused(&half, name, "the state of another run", |path| {
        fs::copy(&wider, path).unwrap();
        edit_metadata(path, older);
    });
    edit_metadata(&half.join(name), older);
    let args = train_args(&f.data, &half, "").into_iter().filter(|a| a != "--quiet");
    let said = emm(args);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.stderr.contains("taken unchecked"), "{said:?}");
    same_files(&half, &f.files);
    same_files(&run, &f.files);
}

#[test]
fn evaluations_without_a_state_are_not_begun_anew() {
    let f = fixture();
    let run = f.folder.path().join("stateless");
    suspended(train_tiny(&run, "--stop-after-steps 50"), "stopped at step 50");
    fs::remove_file(run.join("state/state.safetensors")).unwrap();
    let scores = run.join("scores.csv");
    let before = fs::read(&scores).unwrap();
    train_tiny(&run, "").refused(3, &scores.display().to_string(), "state.safetensors is missing");
    assert_eq!(fs::read(&scores).unwrap(), before);
    // Nor where only the best evaluation is still to be scored again.
    let run = finished("no-rescored");
    fs::remove_dir_all(run.join("state")).unwrap();
    fs::remove_file(run.join("rescored.csv")).unwrap();
    train_tiny(&run, "").refused(3, &run.display().to_string(), "state.safetensors is missing");
    // A finished run needs none.
    let run = finished("no-state");
    fs::remove_dir_all(run.join("state")).unwrap();
    let json = train_tiny(&run, "--json").json();
    assert_eq!(json["looks"].as_array().unwrap().len(), 4);
    assert!(!run.join("state/state.safetensors").exists());
}

#[test]
fn a_snapshot_is_whole_and_of_its_evaluation() {
    let f = fixture();
    let run = finished("snapshot");
    let config = RunDir::new(&run).config().unwrap();
    let evaluations = RunDir::new(&run).scores(&config).unwrap().evaluations;
    let best = emm::run::dir::best(&evaluations).unwrap().step;
    let path = RunDir::new(&run).snapshot_path(&config, best);
    let whole = fs::read(&path).unwrap();
    let out = f.folder.path().join("sampled.npz").display().to_string();
    let sample = |of: &[&str]| {
        let rest = ["--seeds", "0", "--steps", "2", "--quiet", "--out", &out, "--force"];
        emm([&["sample"], of, &rest].concat())
    };
    let (as_run, as_file) = (["--run", run.to_str().unwrap()], ["--model", path.to_str().unwrap()]);
    sample(&as_run).ok();
    let name = path.display().to_string();
    for k in 0..16 {
        let mut bytes = whole.clone();
        let at = k * bytes.len() / 16 + 11 * k;
        bytes[at] ^= 1 << (k % 8);
        fs::write(&path, bytes).unwrap();
        sample(&as_run).refused(3, &name, "");
        sample(&as_file).refused(3, &name, "");
        train_tiny(&run, "").refused(3, &name, "");
    }
    // Another run's, and this run's of another step.
    let other = f.folder.path().join("other-snapshot");
    train_tiny(&other, "--seed 3 --keep all").ok();
    fs::copy(RunDir::new(&other).snapshot_path(&config, best), &path).unwrap();
    sample(&as_run).refused(3, &name, "of another run (--seed: here 1024, there 3)");
    let all = f.folder.path().join("all-snapshots");
    train_tiny(&all, "--keep all").ok();
    let step = if best == 40 { 80 } else { 40 };
    fs::copy(RunDir::new(&all).snapshot_path(&config, step), &path).unwrap();
    sample(&as_run).refused(3, &name, &format!("a snapshot of step {step}, expected step {best}"));
    fs::remove_file(&path).unwrap();
    sample(&as_run).refused(3, &name, "not found");
    // Without its checksum, as older files are, it is taken; `ckpt info` tells.
    fs::write(&path, &whole).unwrap();
    let info = || emm(["ckpt", "info", &name, "--json"]).json()["checksum"].clone();
    assert_eq!(info(), json!(true));
    edit_metadata(&path, |meta| meta.retain(|key, _| key == "emm.model" || key == "emm.run"));
    sample(&as_run).ok();
    assert_eq!(info(), json!(false));
}

#[test]
fn part_of_an_evaluation_is_not_believed_either() {
    let f = fixture();
    let long = "--epochs 1 --looks 1 --score-images 200 --rescore-images 0";
    let [whole, run] = ["whole-part", "part"].map(|name| f.folder.path().join(name));
    train_tiny(&whole, long).ok();
    suspended(train_tiny(&run, &format!("{long} --stop-after-steps 3")), "stopped at step 3");
    // All 200 images as if they were found, each a copy.
    let config = RunDir::new(&run).config().unwrap();
    let rows = vec![[0u64, 1, 0, 9]; 200];
    let forged = serde_json::to_string(&(config.id(), 4, 0, rows)).unwrap();
    fs::write(run.join("state/look.json"), format!("{forged}\n00000000\n")).unwrap();
    train_tiny(&run, long).ok();
    same_files(&run, &crate::run::files_of(&whole));
}

#[test]
fn a_log_may_hold_anything() {
    let f = fixture();
    let run = f.folder.path().join("log");
    suspended(train_tiny(&run, "--stop-after-steps 20"), "stopped at step 20");
    let log = run.join("stats.jsonl");
    let text = fs::read(&log).unwrap();
    fs::write(&log, [&text[..], b"\xff\xfe\n[1,2\n{\"step\": 99}\n7\nnull\n{\"ti"].concat())
        .unwrap();
    suspended(train_tiny(&run, "--stop-after-steps 20"), "stopped at step 40");
    let lines = fs::read_to_string(&log).unwrap();
    assert!(
        !lines.contains("\"step\":99") && lines.matches("resumed_at_step").count() == 2,
        "{lines}"
    );
    let report = f.folder.path().join("log.html").display().to_string();
    emm(["report", run.to_str().unwrap(), "--out", &report]).ok();
    fs::remove_file(&log).unwrap();
    fs::create_dir(&log).unwrap();
    train_tiny(&run, "").refused(3, &log.display().to_string(), "a folder, expected a file");
}

#[test]
fn committed_runs_stay_readable() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/runs");
    let mut seen = 0;
    for kept in fs::read_dir(root).unwrap() {
        let runs = kept.unwrap().path().join("runs");
        for run in fs::read_dir(runs).into_iter().flatten() {
            let dir = run.unwrap().path();
            let config = RunDir::new(&dir).config().unwrap_or_else(|e| panic!("{e:#}"));
            let state = state_of(&config, &dir);
            assert!(matches!(state, RunState::Done(_)), "{}: {state:?}", dir.display());
            assert!(state::saved_step(&RunDir::new(&dir).state_path(), &config).unwrap().is_none());
            seen += 1;
        }
    }
    assert!(seen >= 74, "{seen}");
}

#[test]
fn the_gap_to_a_foreign_set_is_said() {
    let f = fixture();
    let run = f.folder.path().join("reference").display().to_string();
    let foreign = f.folder.path().join("foreign.zip");
    crate::run::digits(65, &foreign);
    let gap = |data: &Path, flags: &str| {
        let mut args = words("gap --levels 2 --draws 2 --run");
        args.extend([run.clone(), "--data".into(), data.display().to_string()]);
        emm([args, words(flags)].concat())
    };
    let own = gap(&f.data, "");
    assert_eq!((own.code, own.stderr.as_str()), (0, ""));
    assert_eq!(gap(&f.data, "--json").json()["foreign_data"], false);
    let other = gap(&foreign, "");
    assert!(other.code == 0 && other.stderr.contains("trained on other images"), "{other:?}");
    assert_eq!(gap(&foreign, "--json --quiet").json()["foreign_data"], true);
    let out = f.folder.path().join("plain.safetensors");
    fs::copy(RunDir::new(Path::new(&run)).best_snapshot().unwrap().0, &out).unwrap();
    edit_metadata(&out, |meta| meta.retain(|key, _| key == "emm.model"));
    let mut args = words("gap --levels 2 --draws 2 --json --model");
    args.extend([out.display().to_string(), "--data".into(), foreign.display().to_string()]);
    assert_eq!(emm(args).json()["foreign_data"], Value::Null, "the file does not say");
}

#[test]
fn edited_rows_are_what_the_tests_think() {
    let row = with_memorized("40,10,8,1,0.125,0.02,0.47,3", 6);
    assert!(row.starts_with("40,10,8,6,0.75,0.4") && row.ends_with(",3"), "{row}");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x");
    fs::write(&path, format!("header\n{row}\n")).unwrap();
    edit_scores(&path, |i| i as u64);
    assert!(fs::read_to_string(&path).unwrap().contains("\n40,10,8,1,0.125,"));
}
