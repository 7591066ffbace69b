//! What all engines are told: which runs, by which command, and where that is written.

use crate::cli::bucket_flags::BucketFlags;
use crate::cli::cells::Cells;
use crate::cli::endings::check_ending;
use crate::cli::quoted::quoted_path;
use crate::cli::{Common, note_line, say, say_json};
use crate::error::usage;
use crate::files::{check_output, write_bytes};
use crate::study::Sweep;
use anyhow::Result;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Failures of a run that are tried again where an engine counts them.
pub const TRIES: usize = 3;

/// Where workers in images have what they share.
pub const FOLDER: &str = "/work";

/// Flags of every engine
#[derive(clap::Args, Debug, Clone)]
#[command(next_help_heading = "Jobs")]
pub struct OrderFlags {
    /// Folder of runs, on a disk that all machines share unless runs go through a bucket
    #[arg(long, value_name = "DIR", default_value = "runs")]
    runs: PathBuf,
    /// Write it here [default: print it]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Replace --out if it exists
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    pub bucket: BucketFlags,
    #[command(flatten)]
    cells: Cells,
}

/// Seconds that a worker is left to save in once it is told to stop.
pub const NOTICE_S: u64 = 120;

/// A worker waits so long for one before it, which may have gone with its machine: NFS servers keep the locks of a machine
/// that has gone for 90 seconds and more.
const WAIT: &str = "5m";

/// A sweep as engines are told of it.
pub struct Order {
    pub sweep: Sweep,
    /// The first study, as it was named.
    pub first: String,
    /// The studies, the scale, and what an engine does not say by itself: lines of a comment.
    pub head: Vec<String>,
    /// What follows the run's number.
    rest: String,
    pub gpu: bool,
    /// Of a worker; 0 if it takes what it finds.
    pub threads: usize,
}

impl OrderFlags {
    /// Checks the flags; `ending`s are those of the file, `what` it is.
    ///
    /// # Errors
    /// Usage: flags, nothing to run; data: sets and study files.
    pub fn order(&self, common: &Common, what: &str, endings: &[&str]) -> Result<Order> {
        if let Some(out) = &self.out {
            check_ending("--out", out, what, endings)?;
            check_output(out, self.force)?;
        }
        let gpu = common.asks_gpu()?;
        let setup = self.cells.flags.setup(common, &self.runs)?;
        let sweep = self.cells.some_sweep(&setup)?;
        let mut rest = self.cells.words() + &self.cells.again(common, &self.runs);
        if common.device != "auto" {
            rest += &format!(" --device {}", common.device);
        }
        if common.threads != 0 {
            rest += &format!(" --threads {}", common.threads);
        }
        rest += &self.bucket.again();
        rest += &format!(" --wait {WAIT}");
        // A comment ends with its line.
        let called = self.cells.words().replace(char::is_control, " ");
        let head = vec![format!("{} runs of {called}; {}.", sweep.runs.len(), setup.scale.said())];
        let first = self.cells.studies[0].clone();
        Ok(Order { sweep, first, head, rest, gpu, threads: common.threads })
    }

    /// What runs are made from and lie in: each path with the flag or argument that names it.
    fn paths(&self) -> Vec<(&'static str, &Path)> {
        [self.cells.files(), vec![("--runs", &self.runs)]].concat()
    }

    /// [`OrderFlags::paths`] as text, as manifests hold it, without a `./` before them.
    ///
    /// # Errors
    /// Usage: one that is no text.
    pub fn text_paths(&self) -> Result<Vec<(&'static str, &str)>> {
        let mut texts = Vec::new();
        for (flag, path) in self.paths() {
            let Some(text) = path.to_str() else {
                let shown = path.display();
                return Err(usage(format!(
                    "{flag}: {shown}: is not UTF-8, as what stands in a manifest is"
                )));
            };
            texts.push((flag, text.trim_start_matches("./")));
        }
        Ok(texts)
    }

    pub fn runs(&self) -> &Path {
        &self.runs
    }

    /// Where it is written, as a shell takes it; `otherwise` where it is printed.
    pub fn file(&self, otherwise: &str) -> String {
        self.out.as_deref().map_or(otherwise.into(), quoted_path)
    }

    /// Writes or prints what an engine reads; `submit` is the command that has it read.
    ///
    /// # Errors
    /// As [`write_bytes`].
    pub fn write(
        &self,
        common: &Common,
        key: &str,
        written: (&str, Value),
        runs: usize,
        submit: &str,
    ) -> Result<()> {
        let (text, value) = written;
        let Some(out) = &self.out else {
            match common.json {
                true => say_json!({key: value, "runs": runs}),
                false => say!("{}", text.trim_end()),
            }
            return Ok(());
        };
        write_bytes(out, self.force, text)?;
        match common.json {
            true => say_json!({key: out.display().to_string(), "runs": runs, "submit": submit}),
            false => say!("{}", out.display()),
        }
        if !common.quiet {
            note_line(&format!("submit: {submit}"));
        }
        Ok(())
    }
}

impl Order {
    /// The command of a worker, in a shell: does the run whose number `index` gives.
    pub fn command(&self, index: &str) -> String {
        format!("emm sweep run-one {index} {}", self.rest)
    }

    pub fn last(&self) -> usize {
        self.sweep.runs.len() - 1
    }
}

/// A number of runs at once.
pub fn cap(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err(format!("expected a number of runs from 1 on, found {text:?}")),
        Ok(runs) => Ok(runs),
    }
}

/// A word that an engine knows: letters, digits and what stands in names, of images too.
pub fn word(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.:/@,+=#%".contains(c);
    match !text.is_empty() && !text.starts_with('-') && text.chars().all(fits) {
        true => Ok(text.into()),
        false => Err(format!("expected a name without spaces, found {text:?}")),
    }
}
