//! Runs the built binary as a user would.

use std::ffi::OsStr;
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

/// Runs `emm ARGS` to its end with an empty stdin.
pub fn emm<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Ended {
    emm_in(Path::new("."), args)
}

/// Runs `emm ARGS` to its end in folder `dir`.
pub fn emm_in<S: AsRef<OsStr>>(dir: &Path, args: impl IntoIterator<Item = S>) -> Ended {
    use std::os::unix::process::ExitStatusExt as _;
    let out = Command::new(env!("CARGO_BIN_EXE_emm"))
        .args(args)
        .current_dir(dir)
        .stdin(Stdio::null())
        .output()
        .expect("the program starts");
    Ended {
        code: out.status.code().unwrap_or_else(|| 128 + out.status.signal().unwrap_or(0)),
        stdout: String::from_utf8(out.stdout).expect("stdout is UTF-8"),
        stderr: String::from_utf8(out.stderr).expect("stderr is UTF-8"),
    }
}

impl Ended {
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

    /// The run failed with `code` and exactly one line, which is `emm: `, then `start`, and holds `holds`.
    #[track_caller]
    pub fn refused(self, code: i32, start: &str, holds: &str) {
        assert_eq!(self.code, code, "{self:?}");
        assert_eq!(self.stdout, "", "{self:?}");
        let line = self.stderr.strip_suffix('\n').unwrap_or("");
        assert!(!line.is_empty() && !line.contains('\n'), "not one line: {self:?}");
        assert!(line.starts_with(&format!("emm: {start}")), "begins otherwise: {self:?}");
        assert!(line.contains(holds), "does not say {holds:?}: {self:?}");
    }
}
