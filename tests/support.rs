//! Runs the built binary as a user would.

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// How a run of the program ended.
#[derive(Debug)]
pub struct Ended {
    /// Exit code; a signal's number + 128.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

/// Says a line that is seen although the test passes: a test's own output is shown only if it fails.
pub fn say(line: &str) {
    let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
}

/// A folder for files that are written over by the thousands: in memory where the system has such a place, since file
/// systems on disks may bring each to the disk.
pub fn passing_folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a folder")
}

/// Puts the emulator into folder `dir`, which is made, under the name by which a driver is looked for.
#[cfg(feature = "emulator")]
pub fn put_emulated_driver(dir: &Path) {
    std::fs::create_dir_all(dir).unwrap();
    let library = Path::new(env!("EMM_EMULATOR_DIR")).join("libcuda.so");
    std::os::unix::fs::symlink(library, dir.join("libcuda.so.1")).unwrap();
}

/// Runs `emm ARGS` to its end with an empty stdin.
pub fn emm<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Ended {
    emm_in(Path::new("."), args)
}

/// Runs `emm ARGS` to its end in folder `dir`.
pub fn emm_in<S: AsRef<OsStr>>(dir: &Path, args: impl IntoIterator<Item = S>) -> Ended {
    let mut command = Command::new(env!("CARGO_BIN_EXE_emm"));
    command.env("XDG_CACHE_HOME", cache());
    Ended::of(command.args(args).current_dir(dir).stdin(Stdio::null()))
}

/// Where measurements are kept in place of the user's cache.
pub fn cache() -> &'static str {
    concat!(env!("CARGO_TARGET_TMPDIR"), "/cache")
}

impl Ended {
    /// Runs `command` to its end.
    pub fn of(command: &mut Command) -> Ended {
        use std::os::unix::process::ExitStatusExt as _;
        let out = command.output().expect("the program starts");
        Ended {
            code: out.status.code().unwrap_or_else(|| 128 + out.status.signal().unwrap_or(0)),
            stdout: String::from_utf8(out.stdout).expect("stdout is UTF-8"),
            stderr: String::from_utf8(out.stderr).expect("stderr is UTF-8"),
        }
    }

    /// The run succeeded; returns its stdout.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.stdout
    }

    /// The run succeeded and printed exactly one JSON object.
    #[track_caller]
    pub fn json(self) -> serde_json::Value {
        let out = self.ok();
        let value: serde_json::Value = serde_json::from_str(&out).expect("stdout is JSON");
        assert!(value.is_object(), "{out}");
        value
    }

    /// The run did what it could, left a damaged run aside and said so in one line that holds `holds`; its stdout.
    #[track_caller]
    pub fn passed_over(self, holds: &str) -> String {
        assert_eq!(self.code, 3, "{self:?}");
        let line = self.stderr.strip_suffix('\n').unwrap_or("");
        assert!(!line.is_empty() && !line.contains('\n'), "not one line: {self:?}");
        assert!(line.contains("passed over: ") && line.contains(holds), "{holds:?}: {self:?}");
        self.stdout
    }

    /// The run failed with `code` and exactly one line, which is `emm: `, then `start`, and holds `holds`.
    #[track_caller]
    pub fn refused(self, code: i32, start: &str, holds: &str) {
        assert_eq!(self.code, code, "{self:?}");
        assert_eq!(self.stdout, "", "{self:?}");
        let line = self.stderr.strip_suffix('\n').unwrap_or("");
        assert!(!line.is_empty() && !line.contains('\n'), "not one line: {self:?}");
        assert!(line.starts_with(&format!("emm: {start}")), "begins otherwise: {self:?}");
        assert!(line.contains(holds), "does not say {holds:?}: {self:?}");
        assert!(!has_raw_number(line), "a number as no person reads it: {line}");
    }
}

/// Whether a message holds a fraction of more than six digits or an amount of ten million bytes or more in bytes, outside
/// of what it quotes and of rows of scores, which are compared to the last digit.
pub fn has_raw_number(line: &str) -> bool {
    let digit = |c: &char| c.is_ascii_digit();
    let raw = |text: &str| {
        let fraction = |(at, _)| {
            text[..at].ends_with(|c: char| c.is_ascii_digit())
                && text[at + 1..].chars().take_while(digit).count() > 6
        };
        let amount = |(at, _)| text[..at].chars().rev().take_while(digit).count() > 7;
        text.match_indices('.').any(fraction) || text.match_indices(" bytes").any(amount)
    };
    !line.contains("scores.csv: row ") && line.split('"').step_by(2).any(raw)
}

/// Settings of runs that take a moment at the smallest scale.
pub const MOMENT: &str = "epochs = 160\nbatch = 256\nscore_images = 320";

/// The axis of a study of two sizes.
pub const SIZES: &str = r#"
[[axis]]
name = "size"
key = "size"
values = [400, 800]
"#;

/// A study's file: small networks with these settings, such as [`MOMENT`], and `rest`: its axes and what is printed of it.
pub fn study(name: &str, settings: &str, rest: &str) -> String {
    format!(
        "name = \"{name}\"\ntitle = \"A study of {name}\"\nsource = \"nowhere\"\n\n[settings]\nchannels = 32\n\
         mult = [1]\nblocks = 1\n{settings}\n{rest}"
    )
}

/// A row of `scores.csv` with so many images memorized, and all that follows from it.
pub fn with_memorized(row: &str, memorized: u64) -> String {
    let cells: Vec<&str> = row.split(',').collect();
    let &[step, epoch, images, .., mean_d1] = cells.as_slice() else { panic!("no row: {row}") };
    let of: u64 = images.parse().unwrap();
    let ([low, high], ratio) =
        (emm::memorization::wilson(memorized, of), memorized as f64 / of as f64);
    format!("{step},{epoch},{images},{memorized},{ratio},{low},{high},{mean_d1}")
}

/// [`with_memorized`] of every row of a file; `memorized` is given the row's number, from 1 on.
pub fn edit_scores(path: &Path, memorized: impl Fn(usize) -> u64) {
    let text = std::fs::read_to_string(path).unwrap();
    let rows = text.lines().enumerate().map(|(i, row)| match i {
        0 => row.to_string(),
        _ => with_memorized(row, memorized(i)),
    });
    std::fs::write(path, rows.collect::<Vec<_>>().join("\n") + "\n").unwrap();
}

/// A safetensors file of `tests/goldens`.
pub struct Golden {
    path: String,
    bytes: Vec<u8>,
}

impl Golden {
    pub fn open(name: &str) -> Golden {
        let path = format!("{}/tests/goldens/{name}", env!("CARGO_MANIFEST_DIR"));
        let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
        Golden { path, bytes }
    }

    fn tensor(&self, name: &str) -> safetensors::tensor::TensorView<'_> {
        let file = safetensors::SafeTensors::deserialize(&self.bytes).expect("a safetensors file");
        file.tensor(name).unwrap_or_else(|e| panic!("{}: {name}: {e}", self.path))
    }

    pub fn shape(&self, name: &str) -> Vec<usize> {
        self.tensor(name).shape().to_vec()
    }

    fn values<T: bytemuck::Pod>(&self, name: &str, dtype: safetensors::Dtype) -> Vec<T> {
        let tensor = self.tensor(name);
        assert_eq!(tensor.dtype(), dtype, "{}: {name}", self.path);
        bytemuck::pod_collect_to_vec(tensor.data())
    }

    pub fn u8(&self, name: &str) -> Vec<u8> {
        self.values(name, safetensors::Dtype::U8)
    }

    pub fn i64(&self, name: &str) -> Vec<i64> {
        self.values(name, safetensors::Dtype::I64)
    }

    pub fn f32(&self, name: &str) -> Vec<f32> {
        self.values(name, safetensors::Dtype::F32)
    }

    pub fn f64(&self, name: &str) -> Vec<f64> {
        self.values(name, safetensors::Dtype::F64)
    }
}
