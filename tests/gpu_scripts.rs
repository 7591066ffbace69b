//! `bench/gpu.sh` and `bench/gpu-study.sh`: what they leave wherever they are cut off, and what they say first.

use crate::support::{Ended, MOMENT, SIZES, study};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};
use tempfile::TempDir;

/// A program in place of emm whose every part ends at once, but for sampling, which lasts.
const QUICK: &str = r#"#!/bin/sh
case "$*" in
    doctor*) echo '{"devices": [{"device": "cuda:0", "name": "Quick", "capability": "9.0", "usable": true}]}' ;;
    check*) echo '{"ok": true, "ops": [{"op": "norm", "precision": "bf16", "cases": 7, "worst_error": 1e-3, "ok": true}]}' ;;
    *sample*) : >"$TMPDIR/sampling"; sleep 60 ;;
    *) echo '{"images_per_s": 12.5}' ;;
esac
"#;

/// A folder with programs of its own before all others.
struct Scene(TempDir);

impl Scene {
    fn new() -> Scene {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("bin")).unwrap();
        Scene(dir)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Puts a program there.
    fn program(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path("bin").join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    /// A script of `bench`, at its small settings, with arguments and PARTS.
    fn script(&self, script: &str, arguments: &[&Path], parts: &str) -> Command {
        let mut command = Command::new("bash");
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench").join(script);
        let others = std::env::var("PATH").unwrap_or_default();
        command.arg(path).args(arguments).current_dir(self.0.path()).stdin(Stdio::null());
        command.env("PATH", format!("{}:{others}", self.path("bin").display()));
        command.env("TMPDIR", self.0.path()).env("SMALL", "1").env("PARTS", parts);
        command
    }

    fn gpu(&self, emm: &Path, parts: &str) -> Command {
        self.script("gpu.sh", &[emm, &self.path("out")], parts)
    }

    /// The files of the archive, by name.
    fn kept(&self) -> BTreeMap<String, Vec<u8>> {
        let file = fs::File::open(self.path("out/results.tar.gz")).unwrap();
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(file));
        let mut all = BTreeMap::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            let name = entry.path().unwrap().display().to_string();
            all.insert(name.trim_start_matches("./").to_string(), bytes);
        }
        all
    }

    /// How each part of the archive went. One that went well has kept what it printed.
    fn parts(&self) -> BTreeMap<String, String> {
        let kept = self.kept();
        let text = |name: &str| String::from_utf8(kept[name].clone()).unwrap();
        let mut parts = BTreeMap::new();
        for line in text("parts.tsv").lines() {
            let [name, how, ..] = line.split('\t').collect::<Vec<_>>()[..] else {
                panic!("{line}")
            };
            if how == "ok" && kept.contains_key(&format!("{name}.json")) {
                let printed: Value = serde_json::from_str(&text(&format!("{name}.json"))).unwrap();
                assert!(printed.is_object(), "{printed}");
            }
            parts.insert(name.to_string(), how.to_string());
        }
        parts
    }

    fn page(&self) -> String {
        fs::read_to_string(self.path("out/README.md")).unwrap()
    }
}

/// Starts a script in a process group of its own; its stdout goes to `stdout`.
fn start(mut command: Command, stdout: &Path) -> Child {
    command.stdout(fs::File::create(stdout).unwrap()).stderr(Stdio::null());
    command.process_group(0).spawn().unwrap()
}

#[track_caller]
fn wait_for(what: &str, done: impl Fn() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(60), "waited a minute for: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn lines(file: &Path) -> Vec<String> {
    fs::read_to_string(file).unwrap().lines().map(String::from).collect()
}

fn end(mut child: Child, group: bool, signal: i32) -> Option<i32> {
    let id = child.id() as i32;
    // SAFETY: a plain system call on a child, or its group, that has not been waited for.
    unsafe { libc::kill(if group { -id } else { id }, signal) };
    child.wait().unwrap().code()
}

#[test]
fn what_has_a_line_is_in_the_archive_whenever_the_call_is_killed() {
    for part in 1..6 {
        let scene = Scene::new();
        let (emm, stdout) = (scene.program("emm", QUICK), scene.path("stdout"));
        let child = start(scene.gpu(&emm, "check step-* losses-* kernels-* nearest*"), &stdout);
        wait_for("a few parts", || lines(&stdout).len() >= part);
        // Anywhere within a part, or while its results are written.
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        std::thread::sleep(Duration::from_micros(now.subsec_micros() as u64 % 200_000));
        end(child, true, libc::SIGKILL);
        let parts = scene.parts();
        for line in lines(&stdout) {
            let name = line.split_whitespace().next().unwrap();
            assert!(name == "gpu.sh:" || parts.contains_key(name), "{line}: {parts:?}");
        }
        assert!(scene.page().contains("| doctor | ok |"), "{}", scene.page());
    }
}

#[test]
fn a_signal_ends_the_part_under_way_and_says_so() {
    let scene = Scene::new();
    let (emm, stdout) = (scene.program("emm", QUICK), scene.path("stdout"));
    let child = start(scene.gpu(&emm, "check sample"), &stdout);
    wait_for("sampling", || scene.path("sampling").exists());
    assert_eq!(end(child, false, libc::SIGTERM), Some(1));
    let parts = scene.parts();
    assert_eq!((&parts["check"][..], &parts["sample"][..]), ("ok", "stopped by SIGTERM"));
}

#[test]
fn a_part_that_fails_keeps_what_it_printed_and_the_rest_goes_on() {
    let scene = Scene::new();
    let failing = QUICK.replace(
        "*sample*) : >\"$TMPDIR/sampling\"; sleep 60 ;;",
        "*nearest*) echo '{\"median_s\": 2}'; echo >&2 'emm: --device: it broke'; exit 4 ;;",
    );
    let emm = scene.program("emm", &failing);
    scene.program("nvidia-smi", "#!/bin/sh\necho 'Quick, 580.1, P0, 1980 MHz, 30 W, 25'\n");
    let said = Ended::of(&mut scene.gpu(&emm, "check nearest sample peer-nearest")).ok();
    let parts = scene.parts();
    assert_eq!(parts["nearest"], "failed with 4: emm: --device: it broke");
    let kept = scene.kept();
    assert_eq!(kept["nearest.json"], b"{\"median_s\": 2}\n");
    assert_eq!(kept["nearest.log"], b"emm: --device: it broke\n");
    assert_eq!((&parts["sample"][..], parts.contains_key("step-bf16")), ("ok", false));
    assert!(said.contains("emm: --device: it broke; 2000.0 ms"), "{said}");
    assert!(scene.page().contains("1980 MHz"), "{}", scene.page());
    // What is there is not written over.
    let again = Ended::of(&mut scene.gpu(&emm, "check"));
    assert!(again.code == 2 && again.stderr.contains("results.tar.gz already"), "{again:?}");
}

#[test]
fn what_a_call_does_not_understand_is_one_line() {
    let scene = Scene::new();
    let emm = scene.program("emm", QUICK);
    let refused = |mut command: Command, said: &str| {
        let ended = Ended::of(&mut command);
        assert_eq!(ended.code, 2, "{ended:?}");
        assert!(ended.stderr.lines().any(|line| line.starts_with(said)), "{said}: {ended:?}");
        ended.stdout
    };
    for budget in ["4m", "0", "-1"] {
        let mut command = scene.gpu(&emm, "check");
        command.env("BUDGET_S", budget);
        assert!(refused(command, &format!("gpu.sh: BUDGET_S: '{budget}'")).is_empty());
    }
    let file = scene.path("bin/emm");
    refused(scene.script("gpu.sh", &[&emm, &file], "check"), "gpu.sh: FOLDER: ");
    // What is understood is done.
    let done =
        refused(scene.gpu(&emm, "check nearst"), "gpu.sh: PARTS: this call has no part nearst");
    assert!(done.contains("check "), "{done}");
}

/// The page that the summary makes of parts that printed these objects.
fn page_of(printed: &[(&str, Value)]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let mut rows = String::new();
    for (name, object) in printed {
        fs::write(dir.path().join(format!("{name}.json")), object.to_string()).unwrap();
        rows += &format!("{name}\tok\t1\temm\n");
    }
    fs::write(dir.path().join("parts.tsv"), rows).unwrap();
    let summary = concat!(env!("CARGO_MANIFEST_DIR"), "/bench/gpu_summary.py");
    let mut python = Command::new("python3");
    Ended::of(python.args(["-B", summary]).arg(dir.path()).args(["--part", printed[0].0])).ok();
    fs::read_to_string(dir.path().join("README.md")).unwrap()
}

/// A part that prints an object of another form than expected costs its own section and no other.
#[test]
fn the_page_has_the_rest_whatever_a_part_prints() {
    let parts = "doctor check check-2 primitives losses-cpu losses-bf16 step-bf16 peer-step-bf16 kernels-bf16 kernels-fp32 \
                 peer-conv-bf16 sample peer-sample nearest peer-nearest optimal optimal-cpu status";
    let parts: Vec<&str> = parts.split_whitespace().collect();
    let kernels = json!({"ceilings": {"bf16": 1e12}, "images": 4, "layers": []});
    for other in [
        json!({"images_per_s": 12.5}),
        json!({"devices": 1, "ops": 2, "losses": "x", "ceilings": [], "layers": {}, "images_per_s": "fast",
               "median_s": [], "nearest": 7, "cases": null, "batch": {}, "settings": 3, "done": {}}),
        json!({"devices": [1], "ops": [null], "losses": [[]], "layers": [{}], "cases": [{}], "nearest": [{}]}),
    ] {
        for part in &parts {
            let page = page_of(&[(part, other.clone()), ("kernels-tf32", kernels.clone())]);
            assert!(page.contains("## Kernels, tf32, 4 images"), "{part}: {page}");
            assert!(page.contains(&format!("| {part} | ok | 1 |")), "{part}: {page}");
        }
    }
}

#[test]
fn the_page_begins_with_what_is_wrong() {
    let doctor = json!({"devices": [{"device": "cuda:0", "name": "C", "usable": true}]});
    let op = |ok: bool| {
        let failed = if ok { Value::Null } else { "wide: off by 0.3".into() };
        let worst = if ok { 1e-3.into() } else { Value::Null };
        json!({"op": "norm", "precision": "bf16", "cases": 2, "ok": ok, "worst_error": worst, "failed": failed})
    };
    let losses = |values: [Option<f64>; 2]| json!({"losses": values, "images_per_s": 1.0});
    let cpu = [Some(100.0), Some(90.0)];
    let page = |ops: Value, bf16: [Option<f64>; 2], nearest: Value| {
        page_of(&[
            ("doctor", doctor.clone()),
            ("check", json!({"ops": ops})),
            ("losses-cpu", losses(cpu)),
            ("losses-bf16", losses(bf16)),
            ("losses-fp32", losses(cpu)),
            ("optimal", json!({"nearest": nearest})),
            ("optimal-cpu", json!({"nearest": [1, 2]})),
        ])
    };
    let head = |page: String| page.split("\n| | |").next().unwrap().to_string();
    let good = page(json!([op(true)]), [Some(100.1), Some(89.9)], json!([1, 2]));
    assert_eq!(head(good), "# C, None\n\nEvery op that was checked passes, losses agree.\n");
    for (ops, bf16, nearest, said) in [
        (
            json!([op(true)]),
            [Some(100.0), None],
            json!([1, 2]),
            "losses-bf16: a loss is not finite",
        ),
        (json!([op(true)]), [Some(104.0), cpu[1]], json!([1, 2]), "losses in bf16 are off from"),
        (json!([op(true)]), cpu, json!([1, 3]), "optimum: 1 of 2 samples"),
        (json!([op(true), op(false)]), cpu, json!([1, 2]), "emm check: 1 of 2 fail: norm in bf16"),
        (json!([op(false)]), cpu, json!([1, 2]), "Nothing was measured: no case of emm check"),
    ] {
        let head = head(page(ops, bf16, nearest));
        assert!(head.starts_with(&format!("# C, None\n\n- **{said}")), "{said}: {head}");
        assert!(!head.contains("Every op"), "{head}");
    }
}

/// What is shown of a study of two sizes.
const SHOWN: &str = r#"
[paper]
percent = [90.5, 60.25]

[[table]]
id = "m"
columns = "size"

[[figure]]
id = "m"
x = "epochs"
lines = "size"
"#;

#[test]
fn a_study_goes_on_from_its_archive() {
    let scene = Scene::new();
    crate::run::digits(200, &scene.path("d.zip"));
    fs::write(scene.path("moment.toml"), study("moment", MOMENT, &[SIZES, SHOWN].concat()))
        .unwrap();
    let study = |sizes: &str, runs: &str| {
        let [images, out] = ["d.zip", "out"].map(|name| scene.path(name));
        let mut command = scene.script("gpu-study.sh", &[&images, &out], "*");
        command.env("EMM", env!("CARGO_BIN_EXE_emm")).env("DEVICE", "cpu").env("SCALE", "tiny");
        command.env("STUDY", "moment.toml").env("SIZES", sizes).env("RUNS", runs);
        Ended::of(&mut command).ok()
    };
    let said = study("400", "runs");
    assert!(said.contains(": ok; 1 runs done; "), "{said}");
    assert!(scene.page().contains("EMM(0.1)"), "{}", scene.page());
    let first = scene.kept();
    let runs = |kept: &BTreeMap<String, Vec<u8>>, file: &str| {
        kept.keys().filter(|name| name.starts_with("runs/") && name.ends_with(file)).count()
    };
    assert!(first.contains_key("figure.png") && runs(&first, "/scores.csv") == 1);
    for (name, bytes) in first.iter().filter(|(name, b)| name.starts_with("runs/") && !b.is_empty())
    {
        let path = scene.path("elsewhere").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    let said = study("400 800", "elsewhere/runs");
    assert!(said.contains(": ok; 2 runs done; "), "{said}");
    let second = scene.kept();
    assert_eq!(runs(&second, "/scores.csv"), 2);
    // The first was not begun again.
    let stats = first.keys().find(|name| name.ends_with("/stats.jsonl")).unwrap();
    assert_eq!(first[stats], second[stats]);
    let said = study("400 900", "elsewhere/runs");
    assert!(said.contains("FAILED: sizes-900: failed with 2: emm: --only: "), "{said}");
}

#[cfg(feature = "emulator")]
mod on_the_emulator {
    use super::*;

    /// The small settings on the emulator's driver, beside tools that a machine with a GPU has.
    fn gpu(scene: &Scene, parts: &str) -> Command {
        crate::support::put_emulated_driver(&scene.path("driver"));
        let memcheck = "#!/bin/sh\necho '========= COMPUTE-SANITIZER'\necho '========= ERROR SUMMARY: 0 errors'\n";
        scene.program("compute-sanitizer", memcheck);
        let mut command = scene.gpu(Path::new(env!("CARGO_BIN_EXE_emm")), parts);
        command.env("LD_LIBRARY_PATH", scene.path("driver"));
        command
    }

    #[test]
    fn every_part_of_ours_runs_as_on_a_gpu() {
        let scene = Scene::new();
        // Tests of the check and of the bench run ops and time kernels on the emulator.
        let parts = "memcheck step-* losses-* nearest* optimal* sample";
        let said = Ended::of(&mut gpu(&scene, parts)).ok();
        let parts = scene.parts();
        let skipped = |how: &str| how.starts_with("skipped: no nvidia-smi");
        assert!(parts.values().all(|how| how == "ok" || skipped(how)), "{parts:?}");
        assert_eq!(parts.values().filter(|how| *how == "ok").count(), 14, "{parts:?}");
        assert!(said.contains("gpu.sh: CPU emulator: ok; "), "{said}");
        let page = scene.page();
        assert!(page.contains("\nLosses agree.\n"), "{page}");
        assert_eq!(page.matches("| the CPU's in fp32 |").count(), 3, "{page}");
    }

    #[test]
    fn a_gpu_that_does_not_work_is_told_in_moments() {
        for (fault, said) in [
            ("open", "CUDA_ERROR_DEVICE_UNAVAILABLE"),
            ("load", "CUDA_ERROR_NO_BINARY_FOR_GPU"),
            ("launch", "CUDA_ERROR_ILLEGAL_ADDRESS"),
            ("read", "CUDA_ERROR_ILLEGAL_ADDRESS"),
        ] {
            let scene = Scene::new();
            let begun = Instant::now();
            let ended = Ended::of(gpu(&scene, "*").env("EMM_EMULATOR_FAIL", fault));
            assert!(begun.elapsed() < Duration::from_secs(60), "{fault}: {ended:?}");
            assert_eq!(ended.code, 1, "{fault}: {ended:?}");
            let verdict = ended.stdout.lines().last().unwrap();
            assert!(verdict.contains("FAILED: ") && verdict.contains(said), "{fault}: {verdict}");
            let (page, parts) = (scene.page(), scene.parts());
            let head = page.split("\n| | |").next().unwrap();
            assert!(
                head.contains("**Nothing was measured: ") && head.contains(said),
                "{fault}: {head}"
            );
            assert!(parts.keys().any(|name| name.starts_with("diagnose-")), "{fault}: {parts:?}");
            assert!(!parts.values().any(|how| how.starts_with("failed with 2")), "{parts:?}");
            assert_eq!(parts["diagnose-sanitizer"], "ok", "{fault}: {parts:?}");
            assert!(!parts.contains_key("step-bf16"), "{fault}: {parts:?}");
        }
    }
}
