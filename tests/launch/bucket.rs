//! Runs that go through a bucket: half of a push is not believed, a failed command loses nothing.

use super::engine::{STRAIGHT, folder, starts};
use crate::support::{Ended, emm_in};
use std::fs;
use std::path::{Path, PathBuf};

/// Run 0 of the twenty, in a folder of its own runs and a bucket beside.
struct Machine {
    folder: tempfile::TempDir,
    bucket: PathBuf,
}

impl Machine {
    fn new() -> Machine {
        let folder = folder();
        let bucket = folder.path().join("bucket");
        fs::create_dir(&bucket).unwrap();
        Machine { folder, bucket }
    }

    fn dir(&self) -> &Path {
        self.folder.path()
    }

    /// `run-one 0` with flags; `push` and `pull` as copies.
    fn one(&self, runs: &str, flags: &[&str]) -> Ended {
        let pull = "if [ -d bucket/{run} ]; then cp -r bucket/{run}/. {dir}; fi";
        let push = "rm -rf bucket/{run} && cp -r {dir} bucket/{run} && echo >> pushes";
        let line = format!("sweep run-one 0 twenty.toml --scale tiny --repeats 10 --runs {runs}");
        let mut args: Vec<&str> = line.split(' ').collect();
        for (flag, command) in [("--pull", pull), ("--push", push)] {
            if !flags.contains(&flag) {
                args.extend([flag, command]);
            }
        }
        args.extend(flags);
        emm_in(self.dir(), args)
    }

    fn pushed(&self) -> PathBuf {
        self.bucket.join(&STRAIGHT.names[0])
    }

    fn pushes(&self) -> usize {
        fs::read_to_string(self.dir().join("pushes")).unwrap_or_default().lines().count()
    }
}

fn same(a: &Path, b: &Path) -> bool {
    fs::read(a.join("scores.csv")).unwrap() == fs::read(b.join("scores.csv")).unwrap()
}

#[test]
fn a_finished_run_comes_from_the_bucket_and_half_a_push_does_not() {
    let m = Machine::new();
    m.one("a", &[]).ok();
    let pushed = m.pushed();
    assert!(pushed.join("pushed").exists() && m.pushes() == 2);
    m.one("b", &[]).ok();
    let run = m.dir().join("b").join(&STRAIGHT.names[0]);
    assert!(same(&run, &pushed));
    assert_eq!(
        (starts(&m.dir().join("b"))[0], m.pushes()),
        (1, 2),
        "nothing was trained or pushed"
    );

    // A finished run's state may be removed once it is marked; without the mark it is half of a push.
    let whole = fs::read(pushed.join("state/state.safetensors")).unwrap();
    fs::remove_file(pushed.join("state/state.safetensors")).unwrap();
    m.one("c", &[]).ok();
    assert_eq!((starts(&m.dir().join("c"))[0], m.pushes()), (1, 2));
    let half = |runs: &str, why: &str| {
        let said = m.one(runs, &[]);
        assert!(said.code == 0 && said.stderr.contains("not whole, not taken"), "{said:?}");
        assert!(said.stderr.contains(why), "{why}: {said:?}");
        let run = m.dir().join(runs).join(&STRAIGHT.names[0]);
        assert!(same(&run, &pushed) && pushed.join("pushed").exists());
    };
    fs::remove_file(pushed.join("pushed")).unwrap();
    half("d", "state.safetensors: not found");
    // Cut off in the middle; with a bit that is another; a snapshot or rows of scores missing.
    fs::remove_file(pushed.join("pushed")).unwrap();
    fs::write(pushed.join("state/state.safetensors"), &whole[..whole.len() / 2]).unwrap();
    half("e", "state.safetensors");
    fs::remove_file(pushed.join("pushed")).unwrap();
    let mut other = whole.clone();
    *other.last_mut().unwrap() ^= 1;
    fs::write(pushed.join("state/state.safetensors"), other).unwrap();
    half("f", "damaged: its checksum");
    fs::remove_file(pushed.join("pushed")).unwrap();
    fs::remove_dir_all(pushed.join("snapshots")).unwrap();
    half("g", "snapshots");
    fs::remove_file(pushed.join("pushed")).unwrap();
    fs::write(pushed.join("scores.csv"), &fs::read(pushed.join("scores.csv")).unwrap()[..90])
        .unwrap();
    half("h", "scores.csv");
    fs::remove_file(pushed.join("pushed")).unwrap();
    fs::remove_file(pushed.join("config.toml")).unwrap();
    half("i", "config.toml");
}

#[test]
fn a_command_that_fails_loses_nothing() {
    let m = Machine::new();
    let name = &STRAIGHT.names[0];
    let failing = "false {dir} {run}";
    m.one("a", &["--push", failing, "--quiet"]).refused(
        1,
        "--push: `false {dir} {run}` failed for run ",
        "what is here of it stays",
    );
    assert!(!m.pushed().exists());
    m.one("a", &[]).ok();
    assert_eq!(starts(&m.dir().join("a"))[0], 1, "trained once");
    assert!(same(&m.dir().join("a").join(name), &m.pushed()) && m.pushes() == 2);
    // A pull that fails ends before anything is trained.
    let failing = ["--pull", "exit 7; {dir} {run}", "--quiet"];
    m.one("z", &failing).refused(1, "--pull: ", "exit status: 7");
    let left: Vec<_> = fs::read_dir(m.dir().join("z")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

/// A run that is pushed at least three times before it ends, each push kept as `old-I`, and how many they were: as long as
/// this machine needs for that.
fn pushed_as_it_goes() -> (Machine, usize) {
    let keep = "rm -rf bucket/{run} && cp -r {dir} bucket/{run} && echo >> pushes && cp -r {dir} \
                old-$(($(wc -l < pushes)))";
    let mut pushes = 0;
    for doubled in 1..8 {
        let m = Machine::new();
        let study = m.dir().join("twenty.toml");
        let epochs = format!("epochs = {}", 160_000 << doubled);
        let slow = fs::read_to_string(&study).unwrap().replace("epochs = 16000", &epochs);
        fs::write(study, slow).unwrap();
        m.one("a", &["--push-every", "1s", "--push", keep]).ok();
        // The last two are of the finished run.
        pushes = m.pushes();
        if pushes >= 5 {
            return (m, pushes - 2);
        }
    }
    panic!("{pushes} pushes of a very long run");
}

#[test]
fn a_long_run_is_pushed_as_it_goes_and_what_is_further_is_taken() {
    let (m, pushes) = pushed_as_it_goes();
    let run = fs::read_dir(m.dir().join("a")).unwrap().next().unwrap().unwrap().path();
    let name = run.file_name().unwrap();
    let line = "sweep run-one 0 twenty.toml --scale tiny --repeats 10 --runs straight";
    emm_in(m.dir(), line.split(' ')).ok();
    let straight = m.dir().join("straight").join(name);
    assert!(same(&straight, &m.bucket.join(name)));

    // A push is of a run that had been begun as often as there were pushes.
    let put = |from: &str, to: &Path| {
        let _ = fs::remove_dir_all(to);
        let mut copy = std::process::Command::new("cp");
        copy.arg("-r").arg(m.dir().join(from)).arg(to);
        Ended::of(&mut copy).ok();
    };
    let last = format!("old-{pushes}");
    for (here, there) in [("old-1", &*last), (&*last, "old-1")] {
        put(here, &run);
        put(there, &m.bucket.join(name));
        m.one("a", &[]).ok();
        let stats = fs::read_to_string(run.join("stats.jsonl")).unwrap();
        let begun = stats.matches("resumed_at_step").count();
        assert_eq!(begun, pushes + 1, "{here} here, {there} there");
        assert!(same(&straight, &run) && same(&straight, &m.bucket.join(name)));
    }
}

/// Somebody may still hold the lock of a machine that has gone.
#[test]
fn a_lock_is_waited_for() {
    let m = Machine::new();
    let run = m.dir().join("a").join(&STRAIGHT.names[0]);
    fs::create_dir_all(&run).unwrap();
    let lock = fs::File::create(run.join("lock")).unwrap();
    lock.lock().unwrap();
    m.one("a", &["--quiet"]).refused(1, "--run: ", "another process works in this run");
    // Also where the time for a push comes while it waits.
    let waits = ["--quiet", "--wait", "2s", "--push-every", "1s"];
    m.one("a", &waits).refused(1, "--run: ", "another process works");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| m.one("a", &["--quiet", "--wait", "1m"]).ok());
        std::thread::sleep(std::time::Duration::from_millis(300));
        assert!(!waiting.is_finished());
        lock.unlock().unwrap();
        waiting.join().unwrap();
    });
    assert!(same(&run, &m.pushed()));
}
