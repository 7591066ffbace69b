//! Training through the binary: it continues after any kill with the same bytes, and says what is wrong.

use crate::support::{Ended, emm, say};
use emm::data::Dataset;
use emm::model::SavedModel;
use emm::model::tensor_file::TensorFile;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// 64 images, a network of a few thousand parameters, 160 steps, 4 evaluations: a few seconds.
pub const TINY: &str = "--channels 8 --mult 1,1 --blocks 1 --attn none --batch 16 --epochs 40 \
                    --looks 4 --score-images 24 --rescore-images 8 --quiet";
const STEPS: u64 = 160;

pub struct Fixture {
    pub folder: tempfile::TempDir,
    pub data: PathBuf,
    /// Files of an uninterrupted run, and how long it took.
    /// Files of an uninterrupted run, and how long it took.
    pub files: BTreeMap<String, Vec<u8>>,
    elapsed: Duration,
}

pub fn some_digits(n: usize) -> Dataset {
    let mut set = Dataset::digits();
    set.pixels.truncate(n * 64);
    set.labels.as_mut().unwrap().truncate(n);
    set
}

pub fn digits(n: usize, path: &Path) {
    some_digits(n).save(path, false).unwrap();
}

/// Images of 8×8 pixels that the network of `flags` draws of the first seeds before it has learnt anything: after a
/// training of a moment on a set that holds them, it copies them.
pub fn drawn(folder: &Path, flags: &str, images: usize) -> Vec<u8> {
    let [data, run, out] = ["plain.zip", "plain", "drawn.npz"].map(|name| folder.join(name));
    digits(20, &data);
    let mut args = words("train --epochs 1 --looks 0 --data");
    args.extend([data.display().to_string(), "--run".into(), run.display().to_string()]);
    let flags = words(flags);
    let (network, rest) = flags.split_at(flags.iter().position(|f| f == "--epochs").unwrap());
    args.extend(network.iter().chain(rest.iter().filter(|f| *f == "--quiet")).cloned());
    emm(args).ok();
    let mut args = words(&format!("sample --quiet --seeds 0-{} --run", images - 1));
    args.extend([run.display().to_string(), "--out".into(), out.display().to_string()]);
    emm(args).ok();
    Dataset::open(&out).unwrap().pixels
}

pub fn fixture() -> &'static Fixture {
    static FIXTURE: OnceLock<Fixture> = OnceLock::new();
    FIXTURE.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("digits.zip");
        let drawn = drawn(folder.path(), TINY, 8);
        let mut set = some_digits(64);
        set.pixels[..drawn.len()].copy_from_slice(&drawn);
        set.save(&data, false).unwrap();
        let run = folder.path().join("reference");
        let started = Instant::now();
        emm(train_args(&data, &run, "")).ok();
        let elapsed = started.elapsed();
        Fixture { files: files_of(&run), folder, data, elapsed }
    })
}

pub fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(String::from).collect()
}

/// `emm train` with TINY's flags and those of `extra`, which take the place of TINY's.
pub fn train_args(data: &Path, run: &Path, extra: &str) -> Vec<String> {
    let mut args = words("train --data");
    args.push(data.display().to_string());
    args.push("--run".into());
    args.push(run.display().to_string());
    let tiny = words(TINY);
    let mut i = 0;
    while i < tiny.len() {
        let valued = tiny.get(i + 1).is_some_and(|v| !v.starts_with("--"));
        let here = &tiny[i..i + 1 + valued as usize];
        if !words(extra).contains(&here[0]) {
            args.extend_from_slice(here);
        }
        i += here.len();
    }
    args.extend(words(extra));
    args
}

pub fn train_tiny(run: &Path, extra: &str) -> Ended {
    emm(train_args(&fixture().data, run, extra))
}

fn spawn(args: &[String]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_emm"))
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// The files that are functions of settings and seed alone.
pub fn files_of(run: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for folder in ["", "state", "snapshots"] {
        for entry in fs::read_dir(run.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(run).unwrap().display().to_string();
            if path.is_file() && !["config.toml", "stats.jsonl", "lock"].contains(&name.as_str()) {
                files.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    files
}

#[track_caller]
pub fn same_files(run: &Path, want: &BTreeMap<String, Vec<u8>>) {
    let have = files_of(run);
    let run = run.display();
    assert_eq!(have.keys().collect::<Vec<_>>(), want.keys().collect::<Vec<_>>());
    for (name, bytes) in &have {
        assert!(bytes == &want[name], "{run}: {name} differs from the uninterrupted run's");
    }
}

pub fn saved_step(run: &Path) -> Option<u64> {
    let file = TensorFile::open(&run.join("state/state.safetensors")).ok()?;
    file.meta("emm.step")?.parse().ok()
}

pub fn starts(run: &Path) -> Vec<u64> {
    let text = fs::read_to_string(run.join("stats.jsonl")).unwrap();
    let lines = text.lines().map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap());
    lines.filter_map(|l| l["resumed_at_step"].as_u64()).collect()
}

#[track_caller]
pub fn wait_until(what: &str, mut ready: impl FnMut() -> bool) {
    let started = Instant::now();
    while !ready() {
        assert!(started.elapsed() < Duration::from_secs(120), "never {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The run printed its results, said `holds` and ended with 75.
#[track_caller]
pub fn suspended(ended: Ended, holds: &str) {
    assert_eq!(ended.code, 75, "{ended:?}");
    assert!(ended.stderr.contains(holds), "does not say {holds:?}: {ended:?}");
}

#[test]
fn an_uninterrupted_run_leaves_what_the_contract_says() {
    let f = fixture();
    let names: Vec<&str> = f.files.keys().map(String::as_str).collect();
    assert!(names.contains(&"scores.csv") && names.contains(&"rescored.csv"), "{names:?}");
    assert!(names.contains(&"state/state.safetensors"), "{names:?}");
    assert!(names.contains(&"snapshots/epoch-000040.safetensors"), "{names:?}");
    assert!(names.len() <= 5, "{names:?}");
    let csv = String::from_utf8(f.files["scores.csv"].clone()).unwrap();
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!(lines[0], "step,epoch,images,memorized,ratio,low,high,mean_d1");
    let steps: Vec<&str> = lines[1..].iter().map(|l| l.split(',').next().unwrap()).collect();
    assert_eq!(steps, ["40", "80", "120", "160"]);

    let run = f.folder.path().join("reference");
    let stats = fs::read_to_string(run.join("stats.jsonl")).unwrap();
    for key in ["Loss/loss", "Progress/kimg", "Progress/epoch", "Timing/sec_per_kimg", "Mem/ratio"]
    {
        assert!(stats.contains(&format!("\"{key}\":{{\"num\":")), "{key} in {stats}");
    }
    let snapshot = SavedModel::open(&run.join("snapshots/epoch-000040.safetensors")).unwrap();
    assert_eq!(snapshot.run.unwrap()["step"], STEPS);
    assert!(snapshot.weights.iter().any(|&w| w != 0.0));
}

#[test]
fn killed_at_random_instants_it_ends_with_the_same_bytes() {
    let f = fixture();
    let mut random = 0x9E37_79B9_7F4A_7C15u64;
    let mut kills = 0;
    let mut round = 0;
    while kills < 20 {
        let run = f.folder.path().join(format!("killed-{round}"));
        let save = ["--save-every 5", "--save-every 0.1s"][round % 2];
        let args = train_args(&f.data, &run, save);
        loop {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let share = 0.02 + 0.38 * (random >> 33) as f64 / (1u64 << 31) as f64;
            let mut child = spawn(&args);
            let deadline = Instant::now() + f.elapsed.mul_f64(share);
            while Instant::now() < deadline && child.try_wait().unwrap().is_none() {
                std::thread::sleep(Duration::from_millis(1));
            }
            if let Some(status) = child.try_wait().unwrap() {
                assert_eq!(status.code(), Some(0));
                break;
            }
            child.kill().unwrap();
            child.wait().unwrap();
            kills += 1;
            if kills % 50 == 0 {
                break; // more kills than a run can need: finish it below
            }
        }
        emm(&args).ok();
        same_files(&run, &f.files);
        let starts = starts(&run);
        assert!(starts.is_sorted(), "{starts:?}");
        round += 1;
    }
}

#[test]
fn after_a_kill_at_80_percent_the_rest_is_short() {
    let f = fixture();
    let run = f.folder.path().join("late");
    let args = train_args(&f.data, &run, "--save-every 4");
    let mut child = spawn(&args);
    wait_until("at 80%", || saved_step(&run).is_some_and(|s| s >= STEPS * 8 / 10));
    child.kill().unwrap();
    child.wait().unwrap();
    let at = saved_step(&run).unwrap();
    let started = Instant::now();
    emm(&args).ok();
    let rest = started.elapsed();
    assert_eq!(starts(&run), [0, at]);
    assert!(STEPS - at < STEPS * 4 / 10);
    let bound = f.elapsed.mul_f64(0.4) + Duration::from_secs(1);
    assert!(rest < bound, "{rest:?} of {:?}", f.elapsed);
    same_files(&run, &f.files);
}

#[test]
fn stopped_by_steps_and_by_sigterm_it_exits_75_and_continues() {
    let f = fixture();
    let run = f.folder.path().join("stopped");
    suspended(train_tiny(&run, "--stop-after-steps 7"), "stopped at step 7 of 160");
    suspended(train_tiny(&run, "--stop-after-steps 40"), "stopped at step 47 of 160");
    assert_eq!(saved_step(&run), Some(47));

    let args = train_args(&f.data, &run, "");
    let mut child = spawn(&args);
    wait_until("started again", || starts(&run).len() == 3);
    // SAFETY: a plain system call on a child that has not been waited for.
    unsafe { libc::kill(child.id() as i32, libc::SIGTERM) };
    assert_eq!(child.wait().unwrap().code(), Some(75));

    emm(&args).ok();
    same_files(&run, &f.files);
    let starts = starts(&run);
    assert_eq!((starts.len(), &starts[..3]), (4, &[0, 7, 47][..]));

    // Finished: the same command has nothing to do.
    let before = fs::metadata(run.join("state/state.safetensors")).unwrap().modified().unwrap();
    let json = train_tiny(&run, "--json").json();
    assert_eq!((json["finished"].as_bool(), json["step"].as_u64()), (Some(true), Some(STEPS)));
    assert_eq!(json["looks"].as_array().unwrap().len(), 4);
    assert!(json["rescored"]["ratio"].is_number());
    let after = fs::metadata(run.join("state/state.safetensors")).unwrap().modified().unwrap();
    assert_eq!(before, after);
}

#[test]
fn killed_within_an_evaluation_it_goes_on_with_that_evaluation() {
    let f = fixture();
    let long = "--epochs 1 --looks 1 --score-images 800 --rescore-images 0";
    let whole = f.folder.path().join("whole-look");
    train_tiny(&whole, long).ok();
    let run = f.folder.path().join("killed-look");
    let args = train_args(&f.data, &run, &format!("{long} --save-every 0.01s"));
    let partial = run.join("state/look.json");
    for signal in [libc::SIGKILL, libc::SIGTERM] {
        let before = fs::metadata(&partial).map_or(0, |m| m.len());
        let mut child = spawn(&args);
        wait_until("further in the evaluation", || {
            fs::metadata(&partial).is_ok_and(|m| m.len() > before)
        });
        // SAFETY: a plain system call on a child that has not been waited for.
        unsafe { libc::kill(child.id() as i32, signal) };
        let code = child.wait().unwrap().code();
        assert_eq!(code, if signal == libc::SIGKILL { None } else { Some(75) });
    }
    emm(&args).ok();
    assert_eq!(starts(&run), [0, 4, 4]);
    same_files(&run, &files_of(&whole));
}

#[test]
fn threads_and_micro_batches_change_no_byte() {
    let f = fixture();
    for (name, extra) in [
        ("one-thread", "--threads 1"),
        ("two-threads", "--threads 2"),
        ("micro", "--micro-batch 3"),
        ("saves", "--save-every 0.01s"),
    ] {
        let run = f.folder.path().join(name);
        train_tiny(&run, extra).ok();
        same_files(&run, &f.files);
    }
}

#[test]
fn another_seed_or_order_changes_the_numbers() {
    let f = fixture();
    for (name, extra) in [("seed", "--seed 1"), ("order", "--order fixed")] {
        let run = f.folder.path().join(name);
        train_tiny(&run, &format!("{extra} --epochs 2 --looks 1")).ok();
        let plain = f.folder.path().join(format!("{name}-plain"));
        train_tiny(&plain, "--epochs 2 --looks 1").ok();
        let state = |r: &Path| fs::read(r.join("state/state.safetensors")).unwrap();
        assert!(state(&run) != state(&plain), "{extra} changes nothing");
    }
}

#[test]
fn a_changed_setting_is_refused_with_the_difference() {
    let f = fixture();
    let run = f.folder.path().join("reference");
    let asked = train_tiny(&run, "--lr 1e-3 --dropout 0.5");
    asked.refused(2, "--dropout: stored 0.13, asked 0.5; --lr: stored 0.0002, asked 0.001", "run");
    let other = f.folder.path().join("other.zip");
    digits(65, &other);
    let asked = emm(train_args(&other, &run, ""));
    asked.refused(2, "--data (images): stored 64, asked 65", "--data (sha256_pixels)");
    same_files(&run, &f.files);
}

#[test]
fn one_process_at_a_time() {
    let f = fixture();
    let run = f.folder.path().join("locked");
    let args = train_args(&f.data, &run, "--epochs 4000");
    let mut child = spawn(&args);
    wait_until("started", || run.join("stats.jsonl").exists());
    emm(&args).refused(1, "--run: ", "another process works in this run");
    child.kill().unwrap();
    child.wait().unwrap();
    suspended(emm([args, words("--stop-after-steps 1")].concat()), "stopped at step 1 ");

    // Two at the same instant: one works, the other says so.
    let run = f.folder.path().join("race");
    let args = train_args(&f.data, &run, "");
    let (mut a, mut b) = (spawn(&args), spawn(&args));
    let mut codes = [a.wait().unwrap().code(), b.wait().unwrap().code()];
    codes.sort();
    assert!(codes == [Some(0), Some(1)] || codes == [Some(0), Some(0)], "{codes:?}");
    same_files(&run, &f.files);
}

#[test]
fn a_full_disk_is_said_and_the_old_state_stays() {
    let f = fixture();
    let mount = f.folder.path().join("small");
    fs::create_dir(&mount).unwrap();
    let args = train_args(&f.data, &mount.join("run"), "--save-every 1").join(" ");
    let out = f.folder.path().display();
    let (emm, mount) = (env!("CARGO_BIN_EXE_emm"), mount.display());
    let script = format!(
        "mount -t tmpfs -o size=4m tmpfs {mount} || exit 99
         {emm} {args} --stop-after-steps 3 2>/dev/null; test $? = 75 || exit 98
         cp {mount}/run/state/state.safetensors {out}/before
         dd if=/dev/zero of={mount}/fill bs=4k 2>/dev/null
         {emm} {args} 2>{out}/said; test $? = 1 || exit 97
         cp {mount}/run/state/state.safetensors {out}/after
         ls {mount}/run/state > {out}/left
         rm {mount}/fill
         {emm} {args} --stop-after-steps 3 2>/dev/null; test $? = 75 || exit 96"
    );
    let ended = Command::new("unshare").args(["-rm", "sh", "-c", &script]).output();
    match ended.ok().and_then(|e| e.status.code()) {
        Some(0) => {}
        code @ (None | Some(1) | Some(99)) => {
            say(&format!("run: skipped, no small file system can be mounted here ({code:?})"));
            return;
        }
        code => panic!("script ended with {code:?}"),
    }
    let said = fs::read_to_string(f.folder.path().join("said")).unwrap();
    assert!(said.contains("No space left on device") && said.starts_with("emm: "), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    let read = |n: &str| fs::read(f.folder.path().join(n)).unwrap();
    assert!(read("before") == read("after"));
    assert_eq!(read("left"), b"state.safetensors\n");
}

#[test]
fn a_network_beyond_memory_is_a_device_error() {
    let run = fixture().folder.path().join("huge");
    let huge = train_tiny(&run, "--channels 4096 --mult 16,16 --blocks 8");
    huge.refused(4, "--device: training needs ", "iB");
    assert!(!run.exists(), "a refused network leaves nothing");
}

#[test]
fn a_directory_that_cannot_be_is_said() {
    let f = fixture();
    let run = f.data.join("run");
    train_tiny(&run, "").refused(1, "--run: ", "Not a directory");
}

#[test]
fn a_closed_stdout_stops_nothing() {
    let f = fixture();
    let run = f.folder.path().join("closed");
    let mut child = Command::new(env!("CARGO_BIN_EXE_emm"))
        .args(train_args(&f.data, &run, ""))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    same_files(&run, &f.files);
}

#[test]
fn divergence_names_the_step_and_keeps_a_good_state() {
    let f = fixture();
    let run = f.folder.path().join("diverged");
    let ended = train_tiny(&run, "--lr 1e30");
    ended.refused(5, "step ", "not finite");
    let out = f.folder.path().join("diverged.safetensors");
    let export = ["ckpt", "export"].map(String::from).to_vec();
    let paths = [run.display().to_string(), "--out".into(), out.display().to_string()];
    emm([export, paths.to_vec()].concat()).ok();
    let model = SavedModel::open(&out).unwrap();
    assert!(model.weights.iter().all(|w| w.is_finite()));
    // The same command meets the same step again.
    train_tiny(&run, "--lr 1e30").refused(5, "step ", "not finite");
}

#[test]
fn a_broken_state_or_configuration_is_a_data_error() {
    let f = fixture();
    let run = f.folder.path().join("broken");
    suspended(train_tiny(&run, "--stop-after-steps 2"), "stopped at");
    let state = run.join("state/state.safetensors");
    let bytes = fs::read(&state).unwrap();
    fs::write(&state, &bytes[..bytes.len() / 2]).unwrap();
    train_tiny(&run, "").refused(3, &state.display().to_string(), "bytes");
    fs::write(&state, &bytes).unwrap();
    let config = run.join("config.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("lr = ", "lr = \"x\" #")).unwrap();
    train_tiny(&run, "").refused(3, &config.display().to_string(), "configuration");
    fs::write(&config, text.replace("[train]", "[train]\nnew_setting = 1")).unwrap();
    train_tiny(&run, "").refused(3, &config.display().to_string(), "configuration");
}

#[test]
fn runs_are_named_by_their_settings() {
    let f = fixture();
    let runs = f.folder.path().join("runs");
    let tiny = TINY.replace("--epochs 40", "--epochs 1").replace("--looks 4", "--looks 1");
    let train = |extra: &str| {
        let mut args = words("train --json --data");
        args.push(f.data.display().to_string());
        args.extend([String::from("--runs"), runs.display().to_string()]);
        args.extend(words(&format!("{tiny} {extra}")));
        emm(args).json()["run"].as_str().unwrap().to_string()
    };
    let a = train("");
    assert_eq!(a, train("--threads 1 --keep all"));
    assert_ne!(a, train("--lr 1e-3"));
    assert_eq!(fs::read_dir(&runs).unwrap().count(), 2);
}
