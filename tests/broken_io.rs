//! Every call on files breaks once: the program says so in one line, or makes nothing of it, and goes on to the same
//! bits when it is given again.
//!
//! `broken_io.c` stands between the program and the C library, so the program that is tested is the one that is built.

use crate::believed::copy;
use crate::data::{golden, write_png};
use crate::run::{digits, files_of};
use crate::support::{Ended, SIZES, passing_folder, say, study};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// The library, or nothing where there is no C compiler.
fn library() -> Option<&'static Path> {
    static BUILT: OnceLock<Option<PathBuf>> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        let to = Path::new(env!("CARGO_TARGET_TMPDIR")).join("broken_io.so");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/broken_io.c");
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&to).arg(source);
        match cc.output() {
            Err(e) => {
                say(&format!("broken_io: skipped, there is no cc: {e}"));
                None
            }
            Ok(out) => {
                assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
                Some(to)
            }
        }
    });
    built.as_deref()
}

/// A command in a folder that may hold something to begin with, and what it has to leave there.
struct Scene<'a> {
    name: &'a str,
    args: &'a [&'a str],
    /// What is there before.
    before: &'a Path,
    /// Files that it makes, for comparison.
    made: &'a dyn Fn(&Path) -> BTreeMap<String, Vec<u8>>,
    /// Whether an earlier end leaves it to be given again as it is, else with `--force`.
    resumes: bool,
}

/// How a run with a broken call ended.
struct Broken {
    ended: Ended,
    /// The call.
    what: String,
}

impl Scene<'_> {
    fn command(&self, folder: &Path) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_emm"));
        command.args(self.args).args(["--threads", "1", "--quiet"]).current_dir(folder);
        command.stdin(Stdio::null());
        command
    }

    fn broken(&self, folder: &Path, at: usize, how: &str) -> Broken {
        let log = folder.with_extension("log");
        let mut command = self.command(folder);
        command.env("LD_PRELOAD", library().unwrap()).env("EMM_IO_UNDER", folder);
        command.env("EMM_IO_AT", at.to_string()).env("EMM_IO_HOW", how).env("EMM_IO_LOG", &log);
        let ended = Ended::of(&mut command);
        let what = fs::read_to_string(&log).unwrap_or_default();
        let _ = fs::remove_file(log);
        Broken { ended, what }
    }

    /// Breaks every call once, each in one of the ways of `hows` by turns.
    fn play(&self, hows: &[&str]) {
        let dir = passing_folder();
        let fresh = |name: &str| {
            let folder = dir.path().join(name);
            copy(self.before, &folder);
            folder
        };
        let clean = fresh("clean");
        let counted = self.broken(&clean, 0, "none");
        counted.ended.ok();
        let calls: usize = counted.what.parse().unwrap();
        let want = (self.made)(&clean);
        assert!(calls > 20 && !want.is_empty(), "{}: {calls} calls", self.name);
        // Half of every call's bytes at a time changes nothing.
        let short = fresh("short");
        self.broken(&short, 0, "short").ended.ok();
        assert!((self.made)(&short) == want, "{}: short calls change the files", self.name);

        let mut errors = 0;
        for n in 1..=calls {
            let how = hows[n % hows.len()];
            let folder = fresh(&format!("{n}"));
            let Broken { ended, what } = self.broken(&folder, n, how);
            let told = format!("{}: call {n} of {calls} ({what}), {how}: {ended:?}", self.name);
            match ended.code {
                137 if how == "kill" => {}
                0 => {
                    assert!((self.made)(&folder) == want, "ended well, but otherwise: {told}");
                    // That a file is not on the disk shows nowhere else.
                    let unsynced = what.starts_with("fsync ") && what.ends_with(".tmp");
                    assert!(!unsynced, "a lost sync is not told: {told}");
                }
                1 | 3 | 4 => {
                    errors += 1;
                    let line = ended.stderr.strip_suffix('\n').unwrap_or("");
                    assert!(line.starts_with("emm: ") && !line.contains('\n'), "{told}");
                    let named = ["/", "--", ".zip", ".toml", "run", "emm: s: ", "emm: d"]
                        .iter()
                        .any(|m| line.contains(m));
                    assert!(named && ended.stdout.is_empty(), "names nothing: {told}");
                    // The machine's fault is 1, of its memory 4; a sweep leaves what it cannot read aside.
                    let want = match line {
                        _ if line.starts_with("emm: --runs: ")
                            && line.contains("passed over: ") =>
                        {
                            3
                        }
                        _ if what.starts_with("mmap") => 4,
                        _ => 1,
                    };
                    assert_eq!(ended.code, want, "another code: {told}");
                }
                _ => panic!("{told}"),
            }
            // As if nothing had been.
            let mut again = self.command(&folder);
            if !self.resumes {
                again.arg("--force");
            }
            let ended = Ended::of(&mut again);
            assert_eq!(ended.code, 0, "again: {ended:?} after {told}");
            assert!((self.made)(&folder) == want, "otherwise the second time: {told}");
            let left = leftovers(&folder);
            assert!(left.is_empty(), "left {left:?}: {told}");
            fs::remove_dir_all(folder).unwrap();
        }
        let how = hows.join(", ");
        let name = self.name;
        say(&format!("broken_io: {name}: {calls} calls broken ({how}), {errors} of them said"));
    }
}

/// Temporaries in a folder and below.
fn leftovers(folder: &Path) -> Vec<String> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name.starts_with(".emm-") {
            all.push(name);
        } else if path.is_dir() {
            all.extend(leftovers(&path));
        }
    }
    all
}

const SMALL: &str = "train --data d.zip --run r --channels 4 --mult 1 --blocks 1 --attn none --batch 4 --epochs 2 \
                     --looks 2 --score-images 3 --rescore-images 2 --save-every 2";

fn small() -> Vec<&'static str> {
    SMALL.split_whitespace().collect()
}

/// A folder with eight digits.
fn set() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    digits(8, &dir.path().join("d.zip"));
    dir
}

fn of_run(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    files_of(&folder.join("r"))
}

/// Every call in every way where there are few or `EMM_LONG` is set, else in one of them by turns.
fn ways(few: bool) -> Vec<Vec<&'static str>> {
    match few || std::env::var_os("EMM_LONG").is_some() {
        true => vec![vec!["fail"], vec!["tear"], vec!["kill"]],
        false => vec![vec!["fail", "kill", "tear"]],
    }
}

/// Plays a scene in every way; it has nothing to tell where there is no library.
fn survives(scene: Scene) {
    if library().is_some() {
        ways(scene.name == "import").iter().for_each(|hows| scene.play(hows));
    }
}

#[test]
fn a_training_survives_any_call_that_breaks() {
    let (before, args) = (set(), small());
    let before = before.path();
    survives(Scene { name: "train", args: &args, before, made: &of_run, resumes: true });
}

#[test]
fn a_resumed_training_survives_any_call_that_breaks() {
    let (before, args) = (set(), small());
    let before = before.path();
    let mut part = Command::new(env!("CARGO_BIN_EXE_emm"));
    part.args(&args).args(["--stop-after-steps", "3", "--quiet"]).current_dir(before);
    assert_eq!(Ended::of(&mut part).code, 75);
    survives(Scene { name: "resume", args: &args, before, made: &of_run, resumes: true });
}

#[test]
fn an_import_survives_any_call_that_breaks() {
    let before = set();
    let made = |folder: &Path| match fs::read(folder.join("out.zip")) {
        Ok(bytes) => BTreeMap::from([("out.zip".to_string(), bytes)]),
        Err(_) => BTreeMap::new(),
    };
    let before = before.path();
    // Labels beside; classes in folders; an archive.
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("data");
    let idx = "digits8x8-images-idx3-ubyte";
    for name in [idx, "digits8x8-labels-idx1-ubyte"] {
        fs::copy(data.join(name), before.join(name)).unwrap();
    }
    for (class, value) in [("a", 1), ("b", 2)] {
        fs::create_dir_all(before.join("d.classes").join(class)).unwrap();
        write_png(&before.join("d.classes").join(class).join("1.png"), 4, 4, |_| value);
    }
    fs::copy(golden("cifar-10-python.tar.gz"), before.join("d.tar.gz")).unwrap();
    for source in ["d.zip", idx, "d.classes", "d.tar.gz"] {
        let args = ["data", "import", source, "--out", "out.zip"];
        survives(Scene { name: "import", args: &args, before, made: &made, resumes: false });
    }
}

#[test]
fn samples_in_the_place_of_others_survive_any_call_that_breaks() {
    let (before, args) = (set(), small());
    let before = before.path();
    let emm = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_emm"));
        Ended::of(command.args(args).args(["--quiet"]).current_dir(before)).ok()
    };
    emm(&args);
    let samples: Vec<&str> =
        "sample --run r --seeds 0-2 --steps 2 --out s --force".split_whitespace().collect();
    emm(&samples);
    let made = |folder: &Path| {
        let entries = fs::read_dir(folder.join("s")).into_iter().flatten().flatten();
        let of = |e: fs::DirEntry| {
            (e.file_name().to_string_lossy().into_owned(), fs::read(e.path()).unwrap())
        };
        entries.map(of).collect()
    };
    survives(Scene { name: "sample", args: &samples, before, made: &made, resumes: true });
}

#[test]
fn a_sweep_survives_any_call_that_breaks() {
    let before = tempfile::tempdir().unwrap();
    let before = before.path();
    // Two runs of one step.
    let settings = "epochs = 80\nbatch = 640\nscore_images = 80";
    fs::write(before.join("two.toml"), study("two", settings, SIZES)).unwrap();
    let made = |folder: &Path| {
        let runs = fs::read_dir(folder.join("runs")).into_iter().flatten().flatten();
        let runs = runs.filter(|run| run.path().join("scores.csv").exists());
        let all = runs.flat_map(|run| {
            let name = run.file_name().to_string_lossy().into_owned();
            files_of(&run.path())
                .into_iter()
                .map(move |(file, bytes)| (format!("{name}/{file}"), bytes))
        });
        all.collect()
    };
    let args: Vec<&str> = "sweep run two.toml --scale tiny".split_whitespace().collect();
    survives(Scene { name: "sweep", args: &args, before, made: &made, resumes: true });
}
