//! Errors that carry the process's exit code; everything else is a plain `anyhow::Error` (code 1).

use std::fmt;

/// What went wrong, as scripts see it: the exit code of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Input/output, a lock held by another process.
    Other = 1,
    /// Wrong flags, or a setting that differs from the stored run's.
    Usage = 2,
    /// A data set, model or sample file that is not what it should be.
    Data = 3,
    /// Device missing or out of memory.
    Device = 4,
    /// Training gave a non-finite loss or gradient.
    Diverged = 5,
    /// Stopped by a signal after saving; the same command continues.
    Suspended = 75,
}

/// One line for the user and the exit code it ends with.
#[derive(Debug)]
pub struct Failed {
    pub exit: Exit,
    message: String,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failed {}

/// An error that ends the process with `exit`. `message` begins with the flag or the file.
pub fn fail(exit: Exit, message: impl Into<String>) -> anyhow::Error {
    Failed { exit, message: message.into() }.into()
}

/// A usage error (exit 2): `message` begins with the flag.
pub fn usage(message: impl Into<String>) -> anyhow::Error {
    fail(Exit::Usage, message)
}

/// A data error (exit 3): `message` begins with the file.
pub fn data(message: impl Into<String>) -> anyhow::Error {
    fail(Exit::Data, message)
}

/// Adds a line in front of an error and the exit code it ends with.
pub trait OrExit<T> {
    fn or_exit(self, exit: Exit, what: impl FnOnce() -> String) -> anyhow::Result<T>;
    /// The file named by `what` is not what it should be (exit 3), unless a call to the system failed ([`exit_of`]).
    fn or_data(self, what: impl FnOnce() -> String) -> anyhow::Result<T>;
}

impl<T, E: Into<anyhow::Error>> OrExit<T> for Result<T, E> {
    fn or_exit(self, exit: Exit, what: impl FnOnce() -> String) -> anyhow::Result<T> {
        self.map_err(|e| e.into().context(Failed { exit, message: what() }))
    }

    fn or_data(self, what: impl FnOnce() -> String) -> anyhow::Result<T> {
        self.map_err(|e| {
            let e = e.into();
            let exit = e.chain().find_map(|e| e.downcast_ref()).map_or(Exit::Data, exit_of);
            e.context(Failed { exit, message: what() })
        })
    }
}

/// Whose fault it is that a file could not be read: its own, where it is missing or no file, or what was read is not
/// what it should be; else the machine's.
pub fn exit_of(e: &std::io::Error) -> Exit {
    match e.raw_os_error() {
        None => Exit::Data,
        Some(libc::ENOMEM) => Exit::Device,
        Some(
            libc::ENOENT
            | libc::ENOTDIR
            | libc::EISDIR
            | libc::EINVAL
            | libc::ENXIO
            | libc::ELOOP
            | libc::ENAMETOOLONG,
        ) => Exit::Data,
        Some(_) => Exit::Other,
    }
}

/// The exit code of an error: that of the outermost [`Failed`] in its chain, else 1.
pub fn exit_code(e: &anyhow::Error) -> i32 {
    e.downcast_ref::<Failed>().map_or(Exit::Other as i32, |f| f.exit as i32)
}
