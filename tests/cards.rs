//! All GPUs of a machine: which ones a command takes, and runs that several of them share.

use crate::run::{digits, files_of, same_files, starts, wait_until, words};
use crate::support::{Ended, put_emulated_driver, say, study};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// Twenty runs of 8 to 16 steps of two images, and one evaluation of one, at scale tiny.
fn twenty() -> String {
    let axes = r#"
[[axis]]
name = "size"
key = "size"
values = [800, 1000, 1200, 1400, 1600]

[[axis]]
name = "weight decay"
key = "weight_decay"
values = [0.0, 1e-4, 1e-3, 1e-2]
"#;
    study("twenty", "epochs = 80\nbatch = 128\nscore_images = 40\nlooks = 1", axes)
        .replace("channels = 32", "channels = 64")
}

/// Does them. In fp32, whose kernels take the emulator the least time.
const SWEEP: &str = "sweep run twenty.toml --scale tiny --precision fp32";

/// A folder with a driver that sees two GPUs, a user's cache, 60 digits, `d.zip`, and `twenty.toml`.
struct Scene(TempDir);

impl Scene {
    fn new() -> Scene {
        let dir = tempfile::tempdir().unwrap();
        put_emulated_driver(&dir.path().join("driver"));
        digits(60, &dir.path().join("d.zip"));
        fs::write(dir.path().join("twenty.toml"), twenty()).unwrap();
        Scene(dir)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn command(&self, args: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_emm"));
        command.args(words(args)).stdin(Stdio::null()).current_dir(self.0.path());
        command.env("LD_LIBRARY_PATH", self.path("driver")).env("EMM_EMULATOR_DEVICES", "2");
        command.env("XDG_CACHE_HOME", self.path("cache"));
        command
    }

    fn go(&self, args: &str) -> Ended {
        Ended::of(&mut self.command(args))
    }

    /// A worker of the sweep in `runs`: two runs at once on each of two GPUs.
    fn worker(&self) -> Child {
        let line = format!("{SWEEP} --runs runs --save-every 1 --quiet --device cuda:0,1");
        let mut command = self.command(&format!("{line} --jobs-per-device 2"));
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    fn status(&self, runs: &str) -> Value {
        let line = SWEEP.replace("run", "status") + &format!(" --runs {runs} --no-measure");
        self.go(&format!("{line} --device cuda:all --json")).json()
    }

    /// The files of the finished runs in `runs`, and how often each was begun.
    fn finished(&self) -> BTreeMap<PathBuf, (BTreeMap<String, Vec<u8>>, usize)> {
        let runs = self.status("runs")["runs"].as_array().unwrap().clone();
        let done = runs.iter().filter(|run| run["state"] == "done");
        let dir = |run: &Value| self.path(run["run"].as_str().unwrap());
        done.map(dir).map(|dir| (dir.clone(), (files_of(&dir), starts(&dir).len()))).collect()
    }
}

fn signal(child: &Child, signal: i32) {
    // SAFETY: a plain system call on a child that has not been waited for.
    unsafe { libc::kill(child.id() as i32, signal) };
}

#[test]
fn a_device_that_is_not_there_or_one_too_many_is_refused() {
    let scene = Scene::new();
    let train = "train --data d.zip --run run --quiet";
    for (command, code, why) in [
        (format!("{train} --device cuda:0,1"), 2, "cuda:0,1: this command uses one device"),
        (format!("{train} --device cuda:all"), 2, "cuda:all: this command uses one device"),
        ("check --device cuda:0-1".into(), 2, "`emm sweep run` and `emm find` take several"),
        ("quickstart --device cuda:0,1".into(), 2, "this command uses one device"),
        ("sweep run-one 0 twenty.toml --scale tiny --device cuda:0,1".into(), 2, "one device"),
        ("sweep slurm twenty.toml --scale tiny --device cuda:all".into(), 2, "one device"),
        ("sweep run twenty.toml --scale tiny --device cuda:1,1".into(), 2, "names GPU 1 twice"),
        ("find --data d.zip --device cuda:1-0".into(), 2, "1-0 descends"),
        ("find --data d.zip --device gpu".into(), 2, "cuda:A-B"),
        (format!("{train} --device cuda:2"), 4, "cuda:2: there is no GPU 2, the driver sees 2"),
        ("find --data d.zip --device cuda:0-7".into(), 4, "there is no GPU 2, the driver sees 2"),
        ("sweep run twenty.toml --scale tiny --device cuda:1,5".into(), 4, "there is no GPU 5"),
        ("find --data d.zip --jobs-per-device 0".into(), 2, ""),
    ] {
        let flag = if command.contains("jobs") { "--jobs-per-device: " } else { "--device: " };
        scene.go(&command).refused(code, flag, why);
    }
    assert!(!scene.path("run").exists() && !scene.path("runs").exists());
}

#[test]
fn each_gpu_is_listed_used_and_tested_once() {
    let scene = Scene::new();
    let doctor = scene.go("doctor --json").json();
    let devices: Vec<_> =
        doctor["devices"].as_array().unwrap().iter().map(|d| &d["device"]).collect();
    assert_eq!(devices, ["cpu", "cuda:0", "cuda:1"]);
    let step = "bench step --resolution 8 --channels 8 --mult 1 --batch 2 --repeats 1 --json";
    assert_eq!(
        scene.go(&format!("{step} --device cuda:1")).json()["device"],
        "cuda:1, CPU emulator"
    );
    let plan = scene.go("sweep plan twenty.toml --scale tiny --rate 100 --device cuda:all").ok();
    assert!(plan.contains("2 at once"), "{plan}");

    let line =
        "find --data d.zip --sizes 10,20 --preset small --plan --rate 100 --json --device cuda:0,1";
    let mut tested = scene.command(&format!("{line} --jobs-per-device 2"));
    let ended = Ended::of(tested.env("EMM_SELF_TEST", "1"));
    let first =
        |k: usize| format!("emm: --device: cuda:{k}, CPU emulator: first used with this driver");
    let lines: Vec<&str> = ended.stderr.lines().collect();
    assert!(lines.len() == 2 && (0..2).all(|k| lines[k].starts_with(&first(k))), "{ended:?}");
    assert_eq!(ended.json()["devices"], json!(4));
    let again = scene.go(line);
    assert_eq!(again.stderr, "");
    assert_eq!(again.json()["devices"], json!(2));
}

#[test]
fn auto_shares_a_gpu_as_far_as_its_memory_goes_and_something_is_gained() {
    let scene = Scene::new();
    let net = "--channels 8 --mult 1 --blocks 1 --attn none --batch 2 --epochs 40k --looks 1 --score-images 4 --rescore-images 0 --precision fp32";
    let plan =
        format!("find --data d.zip --sizes 10,20,30,40 {net} --plan --json --device cuda:0,1");
    // The emulator's launches run one at a time: two runs at once gain nothing there.
    let ended = scene.go(&plan);
    assert_eq!(ended.stderr.matches("cuda:0 (and by it cuda:1): ").count(), 1, "{ended:?}");
    assert!(ended.json()["devices"].as_u64() >= Some(2));
    // Nothing is measured where that is not asked for, where the work is short, and where memory holds one run.
    for (flags, memory, said) in [
        ("--no-measure", None, ""),
        ("--epochs 5 --rate 1", None, ""),
        (
            "--rate 1",
            Some("12000000"),
            "cuda:0 (and by it cuda:1): one run at a time, its memory holds no two\n",
        ),
    ] {
        let line = match flags.contains("--epochs") {
            true => plan.replace(" --epochs 40k", ""),
            false => plan.clone(),
        };
        let mut command = scene.command(&format!("{line} {flags}"));
        memory.map(|bytes| command.env("EMM_EMULATOR_MEMORY", bytes));
        let ended = Ended::of(&mut command);
        assert_eq!(ended.stderr, said, "{flags}");
        assert_eq!(ended.json()["devices"], json!(2), "{flags}");
    }
}

#[test]
fn a_search_on_two_gpus_finds_what_it_finds_on_one() {
    let scene = Scene::new();
    let net = "--channels 8 --mult 1 --blocks 1 --attn none --batch 2 --epochs 1 --precision fp32";
    let scoring = "--looks 1 --score-images 2 --rescore-images 0 --quiet --json";
    let find = format!("find --data d.zip --sizes 10,20,30 {net} {scoring}");
    let one = scene.go(&format!("{find} --runs one --device cuda:1")).json();
    let two = scene.go(&format!("{find} --runs two --device cuda:all --jobs-per-device 2")).json();
    assert_eq!(one["emm"], two["emm"]);
    let runs = |found: &Value| -> Vec<Value> {
        found["sizes"].as_array().unwrap().iter().map(|size| size["runs"][0].clone()).collect()
    };
    let (one, two) = (runs(&one), runs(&two));
    assert_eq!((one.len(), two.len()), (3, 3));
    for (one, two) in one.iter().zip(&two) {
        let dir = |run: &Value| scene.path(run["run"].as_str().unwrap());
        same_files(&dir(two), &files_of(&dir(one)));
        assert_eq!(one["devices"], json!(["cuda:1, CPU emulator"]));
    }
    assert!(two.iter().any(|run| run["devices"] == json!(["cuda:0, CPU emulator"])));
}

/// Nothing is lost, nothing is done twice, and every run has the bytes of one that nobody disturbed.
#[test]
fn twenty_runs_by_four_workers_on_two_gpus_survive_kills() {
    let scene = Scene::new();
    let [mut a, mut b] = [scene.worker(), scene.worker()];
    let mut kept = BTreeMap::new();
    let mut interrupted = 0;
    for (least, stop) in [(2, libc::SIGKILL), (7, libc::SIGTERM), (12, libc::SIGKILL)] {
        wait_until("so far", || scene.finished().len() >= least);
        signal(&a, stop);
        let code = a.wait().unwrap().code();
        assert!([None, Some(75)].contains(&code), "{code:?}");
        kept.extend(scene.finished());
        interrupted += 4;
        // The other goes on, and the next to be stopped is the older one.
        a = std::mem::replace(&mut b, scene.worker());
    }
    for mut worker in [a, b] {
        assert_eq!(worker.wait().unwrap().code(), Some(0));
    }
    let all = scene.finished();
    assert_eq!(all.len(), 20);
    for (dir, (files, begun)) in &kept {
        assert_eq!((begun, true), (&all[dir].1, *files == all[dir].0), "{}", dir.display());
    }
    let begun: usize = all.values().map(|run| run.1).sum();
    assert!((21..=20 + interrupted).contains(&begun), "{begun} starts");
    let stats = |dir: &PathBuf| fs::read_to_string(dir.join("stats.jsonl")).unwrap();
    let stats: String = all.keys().map(stats).collect();
    assert!(["cuda:0, ", "cuda:1, "].iter().all(|gpu| stats.contains(gpu)));
    say(&format!("20 runs by workers that were stopped three times: {begun} starts"));

    scene.go(&format!("{SWEEP} --runs alone --quiet --device cuda:0 --jobs-per-device 1")).ok();
    assert_eq!(scene.status("alone")["done"], json!(20));
    for (dir, (files, _)) in &all {
        same_files(&scene.path("alone").join(dir.file_name().unwrap()), files);
    }
}
