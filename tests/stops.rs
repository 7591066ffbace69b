//! Signals at any instant, limits and `--force`: nothing half-written is left, and nobody's files are lost.

use crate::run::{fixture, suspended, train_args, train_tiny, wait_until, words};
use crate::support::{Ended, emm, emm_in};
use std::fs;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Names in a folder, in order.
fn listing(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> =
        entries.map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn temporaries(folder: &Path) -> Vec<String> {
    listing(folder).into_iter().filter(|name| name.starts_with(".emm-")).collect()
}

/// Whoever started the tests may ignore hang-ups, as nohup does, and programs inherit that.
fn heed_hangups() {
    // SAFETY: the default disposition, no handler.
    unsafe { libc::signal(libc::SIGHUP, libc::SIG_DFL) };
}

fn signal(child: &Child, signal: i32) {
    // SAFETY: a plain system call on a child that has not been waited for.
    unsafe { libc::kill(child.id() as i32, signal) };
}

fn start(args: &[String]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_emm"));
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// An IDX file of grey images of 28×28 pixels that takes a while to import.
fn large_set(path: &Path) {
    let images = 20_000u32;
    let mut bytes = vec![0, 0, 8, 3];
    [images, 28, 28].iter().for_each(|n| bytes.extend(n.to_be_bytes()));
    bytes.extend((0..images * 784).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8));
    fs::write(path, bytes).unwrap();
}

/// An import that stands still while it has a temporary file in `folder`.
fn halted_import(set: &Path, folder: &Path) -> Child {
    let out = folder.join("out.zip").display().to_string();
    let set = set.display().to_string();
    let child = start(&["data", "import", &set, "--out", &out].map(String::from)).spawn().unwrap();
    let begun = Instant::now();
    while temporaries(folder).is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(60), "never writes");
        std::thread::sleep(Duration::from_micros(100));
    }
    signal(&child, libc::SIGSTOP);
    assert_eq!(temporaries(folder).len(), 1, "stopped too late: a larger set is needed");
    child
}

#[test]
fn an_import_ended_by_any_signal_leaves_nothing() {
    heed_hangups();
    let dir = tempfile::tempdir().unwrap();
    let set = dir.path().join("images-idx3-ubyte");
    large_set(&set);
    let folder = dir.path().join("out");
    fs::create_dir(&folder).unwrap();
    for s in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGUSR1, libc::SIGALRM] {
        let mut child = halted_import(&set, &folder);
        signal(&child, s);
        signal(&child, libc::SIGCONT);
        assert_eq!(child.wait().unwrap().signal(), Some(s));
        assert_eq!(listing(&folder), [""; 0], "after signal {s}");
    }
    // What nothing can catch leaves a temporary, and the next one to write there removes it; not one in use.
    let mut killed = halted_import(&set, &folder);
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert_eq!(temporaries(&folder).len(), 1);
    let digits = concat!(env!("CARGO_MANIFEST_DIR"), "/data/digits8x8-images-idx3-ubyte");
    let import = |out: &str| {
        let out = folder.join(out).display().to_string();
        emm(["data", "import", digits, "--out", &out]).ok();
    };
    import("a.zip");
    assert_eq!(listing(&folder), ["a.zip"]);
    let mut alive = halted_import(&set, &folder);
    import("b.zip");
    signal(&alive, libc::SIGCONT);
    assert_eq!(alive.wait().unwrap().code(), Some(0));
    assert_eq!(listing(&folder), ["a.zip", "b.zip", "out.zip"]);
}

#[test]
fn a_limit_of_file_size_is_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let digits = concat!(env!("CARGO_MANIFEST_DIR"), "/data/digits8x8-images-idx3-ubyte");
    let out = dir.path().join("d.zip").display().to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_emm"));
    command.args(["data", "import", digits, "--out", &out]);
    // SAFETY: a plain system call between fork and exec.
    unsafe {
        command.pre_exec(|| {
            let limit = libc::rlimit { rlim_cur: 100 << 10, rlim_max: 100 << 10 };
            libc::setrlimit(libc::RLIMIT_FSIZE, &limit);
            Ok(())
        })
    };
    Ended::of(&mut command).refused(1, &out, "File too large");
    assert_eq!(listing(dir.path()), [""; 0]);
}

/// Whether the process holds back a signal.
fn holds(child: &Child, signal: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("SigBlk:"));
    let mask = line.and_then(|l| u64::from_str_radix(l.trim(), 16).ok()).unwrap_or(0);
    mask >> (signal - 1) & 1 == 1
}

#[test]
fn a_signal_at_the_very_start_saves_and_ends_with_75() {
    heed_hangups();
    let f = fixture();
    for s in [libc::SIGUSR1, libc::SIGHUP, libc::SIGTERM] {
        let run = f.folder.path().join(format!("early-{s}"));
        let args = train_args(&f.data, &run, "--epochs 4000");
        let mut child = start(&args).spawn().unwrap();
        wait_until("started", || holds(&child, s));
        signal(&child, s);
        assert_eq!(child.wait().unwrap().code(), Some(75), "signal {s}");
        assert!(run.join("state/state.safetensors").exists(), "signal {s}");
    }
}

#[test]
fn a_terminal_that_is_closed_saves_the_run_unless_nohup_says_otherwise() {
    heed_hangups();
    let f = fixture();
    let run = f.folder.path().join("hung-up");
    let args = train_args(&f.data, &run, "--epochs 4000");
    let mut child = start(&args).spawn().unwrap();
    wait_until("trained", || run.join("stats.jsonl").exists());
    signal(&child, libc::SIGHUP);
    assert_eq!(child.wait().unwrap().code(), Some(75));

    let mut command = start(&args);
    // SAFETY: a plain call between fork and exec.
    unsafe {
        command.pre_exec(|| {
            libc::signal(libc::SIGHUP, libc::SIG_IGN);
            Ok(())
        })
    };
    let mut child = command.spawn().unwrap();
    wait_until("started", || holds(&child, libc::SIGTERM));
    signal(&child, libc::SIGHUP);
    signal(&child, libc::SIGTERM);
    assert_eq!(child.wait().unwrap().code(), Some(75), "the second was the first");
}

#[test]
fn a_second_signal_ends_at_once() {
    let f = fixture();
    let run = f.folder.path().join("twice");
    let mut child = start(&train_args(&f.data, &run, "--epochs 4000")).spawn().unwrap();
    wait_until("started", || holds(&child, libc::SIGTERM));
    signal(&child, libc::SIGSTOP);
    // The same one twice would be one.
    signal(&child, libc::SIGTERM);
    signal(&child, libc::SIGINT);
    signal(&child, libc::SIGCONT);
    let by = child.wait().unwrap().signal();
    assert!(by == Some(libc::SIGTERM) || by == Some(libc::SIGINT), "{by:?}");
    assert_eq!(train_tiny(&run, "--epochs 4000 --stop-after-steps 1").code, 75);
}

#[test]
fn force_replaces_only_samples() {
    let dir = tempfile::tempdir().unwrap();
    let f = fixture();
    let sample = |out: &str, extra: &str| {
        let run = f.folder.path().join("reference").display().to_string();
        let mut args = words("sample --seeds 0-2 --steps 2 --quiet --run");
        args.extend([run, "--out".into(), out.into()]);
        emm_in(dir.path(), [args, words(extra)].concat())
    };
    sample("s", "").ok();
    sample("s", "").refused(2, "s: ", "--force");
    sample("s", "--force").ok();
    let names = ["00000000.png", "00000001.png", "00000002.png"];
    assert_eq!(listing(&dir.path().join("s")), names);
    // The samples are what they would be elsewhere.
    sample("s.zip", "").ok();
    let of = |name: &str| {
        let args = ["data", "inspect", name, "--json"];
        emm_in(dir.path(), args).json()["sha256_pixels"].clone()
    };
    emm_in(dir.path(), ["data", "import", "s", "--out", "again.zip"]).ok();
    assert_eq!(of("again.zip"), of("s.zip"));

    // A run, also the one that is sampled; somebody's pictures; a folder of folders; samples with a note beside.
    let run = dir.path().join("run");
    emm(train_args(&f.data, &run, "--epochs 1 --looks 1")).ok();
    let inside = listing(&run);
    sample("run", "--force").refused(2, "run: holds ", "--force replaces only what it wrote");
    let own = words("sample --seeds 0 --run run --out run --force --quiet");
    emm_in(dir.path(), own).refused(2, "run: holds ", "did not write");
    assert_eq!(listing(&run), inside);
    let stranger = dir.path().join("pictures");
    fs::create_dir(&stranger).unwrap();
    fs::copy(
        concat!(env!("CARGO_MANIFEST_DIR"), "/bench/runs/2026-11-24-quickstart/sizes.png"),
        stranger.join("00000000.png"),
    )
    .unwrap();
    sample("pictures", "--force").refused(2, "pictures: holds 00000000.png", "");
    assert_eq!(listing(&stranger).len(), 1);
    // A sample that somebody gave a name.
    let kept = dir.path().join("kept");
    fs::create_dir(&kept).unwrap();
    fs::copy(dir.path().join("s/00000000.png"), kept.join("best of all.png")).unwrap();
    sample("kept", "--force").refused(2, "kept: holds best of all.png", "");
    fs::write(dir.path().join("s/note.txt"), "mine").unwrap();
    sample("s", "--force").refused(2, "s: holds note.txt", "");
    fs::create_dir_all(dir.path().join("deep/00000000.png")).unwrap();
    sample("deep", "--force").refused(2, "deep: holds 00000000.png", "");
    fs::create_dir(dir.path().join("empty")).unwrap();
    sample("empty", "--force").ok();
}

#[test]
fn snapshots_under_other_names_are_somebodys() {
    let run = fixture().folder.path().join("own-names");
    suspended(train_tiny(&run, "--stop-after-steps 50"), "stopped at step 50");
    let snapshots = run.join("snapshots");
    let first = fs::read_dir(&snapshots).unwrap().next().unwrap().unwrap().path();
    for name in ["mine.safetensors", "epoch-000010 (copy).safetensors", "epoch-7.safetensors"] {
        fs::copy(&first, snapshots.join(name)).unwrap();
    }
    train_tiny(&run, "").ok();
    let left = fs::read_dir(&snapshots).unwrap().count();
    let kept = fs::read_dir(fixture().folder.path().join("reference/snapshots")).unwrap().count();
    assert_eq!(left, kept + 3);
}
