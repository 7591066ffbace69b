//! Run files under thousands of seeded mutations: nothing panics, and nothing wrong is accepted. `EMM_LONG=1` tries
//! fifty times as many.

use crate::believed::copy;
use crate::mutate::Random;
use crate::run::fixture;
use emm::error::{Exit, exit_code};
use emm::model::SavedModel;
use emm::run::score::{load_partial, save_partial};
use emm::run::{RunConfig, RunDir, state, stats};
use emm::study::RunState;
use emm::study::folder::runs_in;
use emm::study::outcome::{Done, state_of};
use std::fs;
use std::path::{Path, PathBuf};

/// A piece of at most 200 bytes of so many.
fn range(random: &mut Random, length: usize) -> std::ops::Range<usize> {
    let (a, b) = (random.below(length + 1), random.below(length + 1));
    a.min(b)..a.max(b).min(a.min(b) + 200)
}

const NASTY: [&str; 18] = [
    "",
    "nan",
    "NaN",
    "inf",
    "-inf",
    "-1",
    "0",
    "1",
    "1e309",
    "4294967296",
    "18446744073709551616",
    "0.5",
    "null",
    "\"\"",
    "[]",
    "[note]\n",
    "\u{0}",
    ",",
];

/// One to three changes; `other`: a file of the same kind of another run, from which pieces may come.
fn mutated(whole: &[u8], other: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = whole.to_vec();
    for _ in 0..1 + random.below(3) {
        let at = random.below(bytes.len());
        match random.below(9) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
            1 if !bytes.is_empty() => bytes[at] = random.next() as u8,
            2 => drop(bytes.drain(range(random, bytes.len()))),
            3 => bytes.truncate(at),
            4 => {
                drop(bytes.splice(
                    at..at,
                    (0..random.below(9)).map(|_| random.0 as u8).collect::<Vec<_>>(),
                ))
            }
            5 => {
                let piece = bytes[range(random, bytes.len())].to_vec();
                bytes.splice(at..at, piece);
            }
            6 => {
                let range = range(random, bytes.len().min(other.len()));
                bytes[range.clone()].copy_from_slice(&other[range]);
            }
            7 => {
                // A number, or a word, becomes another.
                let of_word = |b: &u8| b.is_ascii_alphanumeric() || b".-+_".contains(b);
                let start = bytes[..at].iter().rposition(|b| !of_word(b)).map_or(0, |i| i + 1);
                let end =
                    bytes[at..].iter().position(|b| !of_word(b)).map_or(bytes.len(), |i| at + i);
                let word = NASTY[random.below(NASTY.len())];
                bytes.splice(start..end.max(start), word.bytes());
            }
            _ => {
                let mut lines: Vec<&[u8]> = bytes.split_inclusive(|&b| b == b'\n').collect();
                if lines.len() > 1 {
                    let (a, b) = (random.below(lines.len()), random.below(lines.len()));
                    match random.below(3) {
                        0 => lines.swap(a, b),
                        1 => lines.insert(a, lines[b]),
                        _ => drop(lines.remove(a)),
                    }
                }
                bytes = lines.concat();
            }
        }
    }
    bytes
}

/// A finished run to damage, alone in a folder, and one with another seed.
struct Scene {
    _dir: tempfile::TempDir,
    folder: PathBuf,
    run: PathBuf,
    other: PathBuf,
    config: RunConfig,
    done: Done,
}

fn scene() -> Scene {
    let f = fixture();
    let dir = tempfile::tempdir().unwrap();
    let [folder, other] = ["runs", "other"].map(|name| dir.path().join(name));
    let run = folder.join("run");
    copy(&f.folder.path().join("reference"), &run);
    crate::support::emm(crate::run::train_args(&f.data, &other, "--seed 9")).ok();
    let config = RunDir::new(&run).config().unwrap();
    let RunState::Done(done) = state_of(&config, &run) else { panic!("unfinished") };
    Scene { _dir: dir, folder, run, other, config, done }
}

fn count(inputs: usize) -> usize {
    if std::env::var_os("EMM_LONG").is_some() { 50 * inputs } else { inputs }
}

/// Gives `check` so many mutations of a file, one at a time; says how many were taken.
fn each(scene: &Scene, file: &str, inputs: usize, check: impl Fn(&Path, bool) -> bool) {
    let path = scene.run.join(file);
    let (whole, other) = (fs::read(&path).unwrap(), fs::read(scene.other.join(file)).unwrap());
    let mut random = Random(1024 + file.len() as u64);
    let mut taken = 0;
    for _ in 0..count(inputs) {
        let bytes = mutated(&whole, &other, &mut random);
        fs::write(&path, &bytes).unwrap();
        taken += usize::from(check(&path, bytes == whole));
    }
    fs::write(&path, whole).unwrap();
    assert!(taken < count(inputs) / 4, "{file}: {taken} taken: they change nothing");
}

#[track_caller]
fn refusal(e: &anyhow::Error, path: &Path) {
    let said = format!("{e:#}");
    assert_eq!(exit_code(e), Exit::Data as i32, "{said}");
    assert!(said.starts_with(&path.display().to_string()), "{said}");
    assert!(said.len() < 1500, "{} characters", said.len());
}

/// The same but for the distances, of which nothing else tells.
fn same(a: &Done, b: &Done) -> bool {
    let bare = |done: &Done| {
        let mut done = done.clone();
        done.evaluations.iter_mut().chain([&mut done.value]).for_each(|evaluation| {
            assert!((0.0..=255.0).contains(&evaluation.mean_d1), "{evaluation:?}");
            evaluation.mean_d1 = 0.0;
        });
        done
    };
    let [a, b] = [bare(a), bare(b)];
    let near = |x: f64, y: f64| (x - y).abs() <= 1e-9;
    a.evaluations.len() == b.evaluations.len()
        && a.evaluations.iter().chain([&a.value]).zip(b.evaluations.iter().chain([&b.value])).all(
            |(x, y)| {
                (x.step, x.epoch, x.images, x.memorized, x.ratio)
                    == (y.step, y.epoch, y.images, y.memorized, y.ratio)
                    && near(x.low, y.low)
                    && near(x.high, y.high)
            },
        )
}

#[test]
fn configurations_and_scores() {
    let scene = scene();
    for (file, inputs) in [("config.toml", 2000), ("scores.csv", 2000), ("rescored.csv", 1000)] {
        each(&scene, file, inputs, |path, _| {
            let (seen, damaged) = runs_in(&scene.folder).unwrap();
            match state_of(&scene.config, &scene.run) {
                RunState::Done(done) => {
                    assert!(same(&done, &scene.done), "{file}: {:?}", fs::read_to_string(path));
                    assert_eq!(seen.len(), 1, "{damaged:?}");
                    assert!(same(seen[0].done.as_ref().unwrap(), &scene.done));
                    let mut config = seen[0].config.clone();
                    config.train.micro_batch = scene.config.train.micro_batch;
                    assert_eq!(config, scene.config);
                    true
                }
                RunState::Damaged(why) => {
                    assert!(why.len() < 1500 && why.contains("run/"), "{why}");
                    assert!(seen.is_empty(), "{why}: {:?}", seen[0].config);
                    false
                }
                other => panic!("{file}: {other:?}: {:?}", fs::read_to_string(path)),
            }
        });
    }
}

#[test]
fn states() {
    let scene = scene();
    each(&scene, "state/state.safetensors", 1500, |path, whole| {
        let step = state::whole_step(path, &scene.config);
        let model = state::model_of(path, &scene.config, false);
        assert_eq!(step.is_ok(), model.is_ok());
        match step {
            Ok(step) => {
                assert!(whole && step == Some(scene.config.steps()), "{step:?}");
                true
            }
            Err(e) => {
                refusal(&e, path);
                refusal(&model.unwrap_err(), path);
                false
            }
        }
    });
}

#[test]
fn snapshots() {
    let scene = scene();
    let run = RunDir::new(&scene.run);
    let step = scene.config.steps();
    let path = run.snapshot_path(&scene.config, step);
    let file = path.strip_prefix(&scene.run).unwrap().display().to_string();
    each(&scene, &file, 1500, |path, whole| {
        let (own, any) = (run.snapshot(&scene.config, step), SavedModel::open(path));
        match own {
            Ok(model) => {
                assert!(whole && any.unwrap() == model);
                true
            }
            Err(e) => {
                refusal(&e, path);
                if let Err(e) = any {
                    refusal(&e, path);
                }
                false
            }
        }
    });
}

#[test]
fn logs_and_parts_of_evaluations() {
    let scene = scene();
    let path = scene.run.join("stats.jsonl");
    let (whole, mut random) = (fs::read(&path).unwrap(), Random(7));
    for _ in 0..count(1000) {
        fs::write(&path, mutated(&whole, &whole, &mut random)).unwrap();
        stats::lines(&path).unwrap();
        let (seen, damaged) = runs_in(&scene.folder).unwrap();
        assert!(seen.len() == 1 && damaged.is_empty(), "{damaged:?}");
        assert!(seen[0].hours().is_none_or(|h| h >= 0.0 && h.is_finite()));
    }
    let path = scene.run.join("state/look.json");
    let found = emm::memorization::Nearest { index: [3, 5], squared: [70, 90], distinct: None };
    let found = vec![found; 9];
    save_partial(&path, &scene.config, 40, 0, &found).unwrap();
    let whole = fs::read(&path).unwrap();
    let mut taken = 0;
    for _ in 0..count(2000) {
        fs::write(&path, mutated(&whole, &whole, &mut random)).unwrap();
        let have = load_partial(&path, &scene.config, 40, 0, 24);
        assert!(have.is_empty() || have == found, "{have:?}");
        taken += usize::from(!have.is_empty());
    }
    assert!(taken < count(2000) / 4, "{taken}");
    fs::write(&path, &whole).unwrap();
    assert_eq!(load_partial(&path, &scene.config, 40, 0, 24), found);
    assert!(load_partial(&path, &scene.config, 80, 0, 24).is_empty());
    assert!(load_partial(&path, &scene.config, 40, 1, 24).is_empty());
    let mut other = scene.config.clone();
    other.train.lr = 1.0;
    assert!(load_partial(&path, &other, 40, 0, 24).is_empty());
}
