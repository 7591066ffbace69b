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
pub struct Failure {
    pub exit: Exit,
    message: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// An error that ends the process with `exit`. `message` begins with the flag or the file.
pub fn fail(exit: Exit, message: impl Into<String>) -> anyhow::Error {
    Failure { exit, message: message.into() }.into()
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
    /// `or_exit(Exit::Data, ..)`: the file named by `what` is not what it should be.
    fn or_data(self, what: impl FnOnce() -> String) -> anyhow::Result<T>;
}

impl<T, E: Into<anyhow::Error>> OrExit<T> for Result<T, E> {
    fn or_exit(self, exit: Exit, what: impl FnOnce() -> String) -> anyhow::Result<T> {
        self.map_err(|e| e.into().context(Failure { exit, message: what() }))
    }

    fn or_data(self, what: impl FnOnce() -> String) -> anyhow::Result<T> {
        self.or_exit(Exit::Data, what)
    }
}

/// The exit code of an error: that of the outermost [`Failure`] in its chain, else 1.
pub fn exit_code(e: &anyhow::Error) -> i32 {
    e.downcast_ref::<Failure>().map_or(Exit::Other as i32, |f| f.exit as i32)
}
