//! Longer runs that go on from shorter ones: the same bits as in one go, and nothing else than the length may differ.

use super::find::{folder, run_dir};
use super::run::{
    files_of, fixture, same_files, saved_step, suspended, train_args, train_tiny, words,
};
use super::support::{Ended, emm, emm_in};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

fn state(run: &Path) -> Vec<u8> {
    fs::read(run.join("state/state.safetensors")).unwrap()
}

fn rows(run: &Path) -> Vec<String> {
    let text = fs::read_to_string(run.join("scores.csv")).unwrap();
    text.lines().skip(1).map(String::from).collect()
}

/// Weights, moments, EMA and last snapshot are the uninterrupted run's, evaluations those from step 80 on.
#[track_caller]
fn as_if_at_once(run: &Path) {
    let (have, want) = (files_of(run), &fixture().files);
    for name in ["state/state.safetensors", "snapshots/epoch-000040.safetensors"] {
        assert!(have[name] == want[name], "{}: {name} differs", run.display());
    }
    let scores = String::from_utf8(want["scores.csv"].clone()).unwrap();
    let since: Vec<&str> = scores.lines().skip(1).filter(|l| !l.starts_with("40,")).collect();
    assert_eq!(rows(run), since);
    assert!(!have.contains_key("state/longer.safetensors") && have.len() <= 5, "{:?}", have.keys());
}

fn copied(from: &Path, to: &str) -> PathBuf {
    let to = from.with_file_name(to);
    for folder in ["", "state", "snapshots", "report"] {
        fs::create_dir_all(to.join(folder)).unwrap();
        for entry in fs::read_dir(from.join(folder)).unwrap().flatten() {
            if entry.path().is_file() {
                fs::copy(entry.path(), to.join(folder).join(entry.file_name())).unwrap();
            }
        }
    }
    to
}

fn half(name: &str) -> PathBuf {
    let run = fixture().folder.path().join(name);
    train_tiny(&run, "--epochs 20").ok();
    run
}

#[test]
fn a_finished_run_goes_on_to_the_bits_of_a_longer_one() {
    let run = half("longer-half");
    let before = rows(&run);
    let mut args = train_args(&fixture().data, &run, "");
    args.retain(|word| word != "--quiet");
    let ended = emm(&args);
    let said = "the run there, of 20 epochs; the evaluation before is left out";
    assert_eq!(ended.stderr.matches("goes on from step 80 of ").count(), 1, "{ended:?}");
    assert!(ended.stderr.contains(said), "{ended:?}");
    ended.ok();
    // Weights, moments, EMA, snapshot; of the evaluations those from there on, that of step 80 made anew.
    as_if_at_once(&run);
    let kept = fs::read_to_string(run.join("report/scores-to-epoch-000020.csv")).unwrap();
    assert_eq!(kept.lines().skip(1).map(String::from).collect::<Vec<_>>(), before);
    // Finished; and no way back.
    let again = train_tiny(&run, "--json").json();
    assert_eq!(
        (again["finished"].as_bool(), again["looks"].as_array().unwrap().len()),
        (Some(true), 3)
    );
    train_tiny(&run, "--epochs 20").refused(2, "--epochs: stored 40.0, asked 20.0", "run");
    as_if_at_once(&run);
}

#[test]
fn what_varies_in_training_does_not_depend_on_its_length() {
    // Batches that do not divide the set, dropout, ramp, the half-life rule, epochs that end within a batch; two steps further.
    let f = fixture();
    for (name, flags) in
        [("odd", "--batch 24"), ("fixed", "--batch 24 --order fixed --ramp-epochs 3 --looks 0")]
    {
        let of = |kind: &str| f.folder.path().join(format!("{name}-{kind}"));
        let (parts, whole) = (of("parts"), of("whole"));
        for epochs in ["0.3", "3.2", "5", "7.7"] {
            train_tiny(&parts, &format!("{flags} --epochs {epochs}")).ok();
        }
        train_tiny(&whole, &format!("{flags} --epochs 7.7")).ok();
        assert_eq!(saved_step(&parts), Some(21));
        assert!(state(&parts) == state(&whole), "{flags}");
        let last = |run: &Path| {
            let name = |name: &&String| name.starts_with("snapshots/epoch-000008");
            let files = files_of(run);
            files[files.keys().find(name).unwrap()].clone()
        };
        assert!(last(&parts) == last(&whole));
    }
}

#[test]
fn an_unfinished_run_goes_on_and_kills_change_nothing() {
    let f = fixture();
    let run = f.folder.path().join("longer-unfinished");
    suspended(train_tiny(&run, "--epochs 20 --stop-after-steps 30"), "stopped at step 30 of 80");
    train_tiny(&run, "").ok();
    same_files(&run, &f.files);

    let first = half("longer-killed");
    for round in 0..4 {
        let run = copied(&first, &format!("longer-killed-{round}"));
        let args = train_args(&f.data, &run, "--save-every 3");
        for wait in [5, 9, 14, 22, 35, 60, 110, 200] {
            let mut child = Command::new(env!("CARGO_BIN_EXE_emm"))
                .args(&args)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            std::thread::sleep(Duration::from_millis(wait + 3 * round));
            let _ = child.kill();
            child.wait().unwrap();
        }
        emm(&args).ok();
        as_if_at_once(&run);
    }
}

#[test]
fn a_kill_at_either_side_of_the_change_is_made_up_for() {
    let first = half("longer-change");
    let after = copied(&first, "longer-changed");
    suspended(train_tiny(&after, "--stop-after-steps 0"), "stopped at step 80 of 160");
    let carried = |run: &Path| {
        fs::copy(after.join("state/state.safetensors"), run.join("state/longer.safetensors"))
            .unwrap();
    };
    // Before the configuration was written: either command does what it says.
    let run = copied(&first, "longer-before");
    carried(&run);
    let was = files_of(&first);
    train_tiny(&run, "--epochs 20").ok();
    same_files(&run, &was);
    carried(&run);
    train_tiny(&run, "").ok();
    as_if_at_once(&run);
    // After it.
    let run = copied(&first, "longer-after");
    carried(&run);
    fs::copy(after.join("config.toml"), run.join("config.toml")).unwrap();
    train_tiny(&run, "").ok();
    as_if_at_once(&run);
}

#[test]
fn nothing_but_the_length_may_differ() {
    let run = half("longer-refused");
    let was = files_of(&run);
    for (extra, differences) in [
        ("--lr 1e-3", "--epochs: stored 20.0, asked 40.0; --lr: stored 0.0002, asked 0.001"),
        ("--looks 5", "--epochs: stored 20.0, asked 40.0; --looks: stored 4, asked 5"),
        ("--seed 7", "--seed: stored 1024, asked 7; --epochs: stored 20.0, asked 40.0"),
        ("--epochs 10", "--epochs: stored 20.0, asked 10.0"),
    ] {
        train_tiny(&run, extra).refused(2, differences, "started otherwise");
    }
    same_files(&run, &was);
}

fn find(dir: &Path, flags: &str) -> Ended {
    let network = "--channels 4 --mult 1 --blocks 1 --attn none --batch 4";
    emm_in(dir, words(&format!("find --data d.zip {network} --sizes 4,10 --json {flags}")))
}

#[test]
fn a_search_with_more_epochs_goes_on_from_its_runs() {
    let dir = folder();
    let dir = dir.path();
    find(dir, "--epochs 30").ok();
    let ended = find(dir, "--epochs 60");
    assert_eq!(ended.stderr.matches("  goes on from step ").count(), 2, "{ended:?}");
    let said =
        ended.stderr.lines().find(|l| l.starts_with("N = 10  goes on from step 75 of runs/"));
    assert!(said.is_some_and(|l| l.contains(", of 30 epochs")), "{ended:?}");
    let (found, straight) = (ended.json(), find(dir, "--epochs 60 --runs other").json());
    for size in [4, 10] {
        let [a, b] = [&found, &straight].map(|found| run_dir(dir, found, size));
        assert!(state(&a) == state(&b), "{size}");
        assert_eq!(a.file_name(), b.file_name());
        let (a, b) = (rows(&a), rows(&b));
        assert!(b.ends_with(&a), "{a:?} {b:?}");
    }
    // Once.
    let again = find(dir, "--epochs 60");
    assert!(!again.stderr.contains("goes on from"), "{again:?}");
    assert_eq!(again.json(), found);
    // The shorter ones are still there, and other settings begin anew.
    assert_eq!(find(dir, "--epochs 30").json()["epochs"], 30.0);
    let other = find(dir, "--epochs 90 --lr 1e-3");
    assert!(!other.stderr.contains("goes on from"), "{other:?}");
    // Of two seeds one goes on: their curve is what both have.
    let ended = find(dir, "--epochs 100 --repeats 2 --looks 4");
    assert!(!ended.stderr.contains("goes on from"), "{ended:?}");
    let ended = find(dir, "--epochs 90 --repeats 2");
    assert_eq!(ended.stderr.matches("seed 1024  goes on from step ").count(), 2, "{ended:?}");
    let found = ended.json();
    let curve = found["sizes"][1]["curve"].as_array().unwrap();
    assert!(curve[0][0].as_f64().unwrap() >= 60.0, "{found}");
    // A damaged shorter run is nothing to go on from.
    let run = run_dir(dir, &found, 10);
    fs::write(run.join("state/state.safetensors"), b"broken").unwrap();
    let ended = find(dir, "--epochs 120");
    assert!(ended.stderr.contains("N = 10  goes on from step 150 of "), "{ended:?}");
}

#[test]
fn a_run_without_its_state_stays_what_it_is() {
    let run = half("longer-stateless");
    fs::remove_dir_all(run.join("state")).unwrap();
    let config = || fs::read_to_string(run.join("config.toml")).unwrap();
    let before = config();
    let file = run.join("state/state.safetensors").display().to_string();
    train_tiny(&run, "").refused(3, &file, "needed to go on to 40 epochs; choose another --run");
    assert_eq!(config(), before);
    train_tiny(&run, "--epochs 20").ok();
}
