//! What every command has: its flags, the device they name, and how lines are printed.

use super::device_flag::{Named, One};
use super::reading::ReadingFlags;
use super::self_test;
use crate::data::{Dataset, Transform, kept, open_any};
use crate::device::cuda::{Cuda, IMAGES, KERNELS_FOR, Trouble, probe, runs_on};
use crate::device::{Cpu, Device};
use crate::error::{Exit, OrExit as _, fail, usage};
use crate::{memory, numbers};
use anyhow::Result;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::OnceLock;

/// Prints a line of results; a closed stdout stops it quietly.
macro_rules! say {
    ($($arg:tt)*) => { $crate::cli::common::print_line(format_args!($($arg)*)) };
}
pub(crate) use say;

/// Prints an object as a line of JSON.
macro_rules! say_json {
    ($object:tt) => {
        $crate::cli::common::say!("{}", serde_json::json!($object))
    };
}
pub(crate) use say_json;

/// Why a line of results was lost, if one was and not because nobody reads on.
pub static LOST: OnceLock<String> = OnceLock::new();

/// Prints a line of results; a pipe that nobody reads is no error, another loss stands in [`LOST`].
pub fn print_line(line: std::fmt::Arguments) {
    if let Err(e) = writeln!(std::io::stdout(), "{line}")
        && e.kind() != std::io::ErrorKind::BrokenPipe
    {
        LOST.get_or_init(|| e.to_string());
    }
}

/// Flags of every command
#[derive(clap::Args, Debug, Clone)]
pub struct Common {
    /// auto takes CUDA when a GPU and kernels are there, else the CPU; `sweep run` and `find` take several GPUs: cuda:0,2,
    /// cuda:0-3, cuda:all
    #[arg(
        long,
        global = true,
        value_name = "auto|cpu|cuda[:K]",
        default_value = "auto",
        help_heading = "Common"
    )]
    pub device: String,
    /// Worker threads; 0 takes one per core. Results do not depend on it
    #[arg(long, global = true, value_name = "N", default_value = "0", value_parser = threads, help_heading = "Common")]
    pub threads: usize,
    /// Seed of everything random
    #[arg(long, global = true, value_name = "S", default_value_t = 1024, help_heading = "Common")]
    pub seed: u64,
    /// Most memory that reading images may take: bytes, or 500M, 4G
    ///
    /// By default half of what the process may use, within ulimit's and cgroups' limits.
    #[arg(long, global = true, value_name = "BYTES", value_parser = numbers::bytes, help_heading = "Common")]
    pub max_memory: Option<u64>,
    #[command(flatten)]
    pub reading: ReadingFlags,
    /// Print one JSON object on stdout and nothing else there
    #[arg(long, global = true, help_heading = "Common")]
    pub json: bool,
    /// No progress, only results and errors
    #[arg(long, global = true, help_heading = "Common")]
    pub quiet: bool,
}

impl Common {
    /// Sets what holds for the whole process: the memory of reading, and the threads of what is no device's.
    pub(super) fn prepare(&self) -> Result<()> {
        if let Some(bytes) = self.max_memory {
            memory::limit_reading(bytes);
        }
        memory::start_threads(self.threads, |pool| pool.build_global())
    }

    /// Opens the device named by `--device`.
    ///
    /// # Errors
    /// Usage for an unknown name, and for several; device (exit 4) for a CUDA device that is named and cannot be had.
    pub fn device(&self) -> Result<Device> {
        self.open(true)
    }

    /// Opens all devices named by `--device`, each once.
    ///
    /// # Errors
    /// As [`Common::device`], several excepted.
    pub fn devices(&self) -> Result<Vec<Device>> {
        let gpus = match Named::of(&self.device)? {
            Named::Gpus(gpus) => gpus,
            Named::AllGpus => {
                let driver = probe().map_err(|trouble| self.no_device(&trouble.to_string()))?;
                (0..driver.gpus.len()).collect()
            }
            Named::Auto | Named::Cpu => return Ok(vec![self.device()?]),
        };
        // Before one of them is tested and opened.
        gpus.iter().try_for_each(|&k| cuda_gpu(k)).map_err(|why| self.no_device(&why))?;
        let host = Cpu::new(self.threads)?;
        gpus.into_iter().map(|k| self.cuda(k, true, &host)).collect()
    }

    /// Refuses a `--device` that names several where one is used.
    ///
    /// # Errors
    /// Usage; also for an unknown name.
    pub fn check_one_device(&self) -> Result<()> {
        Named::of(&self.device)?.one(&self.device).map(|_| ())
    }

    /// As [`Common::device`], without a GPU's self-test: for what tests it itself.
    ///
    /// # Errors
    /// As [`Common::device`].
    pub fn untested_device(&self) -> Result<Device> {
        self.open(false)
    }

    fn open(&self, tested: bool) -> Result<Device> {
        let named = Named::of(&self.device)?.one(&self.device)?;
        if let One::Gpu(k) = named {
            cuda_gpu(k).map_err(|why| self.no_device(&why))?;
        }
        let host = Cpu::new(self.threads)?;
        match named {
            One::Cpu => Ok(Device::Cpu(host)),
            One::Gpu(k) => self.cuda(k, tested, &host),
            One::Auto => {
                let open = || self.cuda(0, tested, &host).map_err(|e| format!("{e:#}"));
                let gpu = cuda_gpu(0).and_then(|()| open());
                Ok(gpu.unwrap_or_else(|why| {
                    self.note_auto_takes_the_cpu(&why);
                    Device::Cpu(host)
                }))
            }
        }
    }

    /// Whether the device is a GPU, here or one that is only planned for; opens nothing.
    pub fn on_gpu(&self) -> bool {
        match Named::of(&self.device) {
            Ok(Named::Cpu) => false,
            Ok(Named::Auto) => cuda_gpu(0).is_ok(),
            Ok(Named::Gpus(_) | Named::AllGpus) | Err(_) => true,
        }
    }

    /// Whether `--device` names a GPU, be it here or on another machine.
    ///
    /// # Errors
    /// Usage: it names nothing, or several.
    pub fn asks_gpu(&self) -> Result<bool> {
        Ok(matches!(Named::of(&self.device)?.one(&self.device)?, One::Gpu(_)))
    }

    /// Opens a GPU, `tested` for what passes its self-test there.
    fn cuda(&self, k: usize, tested: bool, host: &Cpu) -> Result<Device> {
        let driver = probe().ok().filter(|_| tested);
        let gpu = driver.as_ref().and_then(|d| d.gpus.get(k).map(|gpu| (gpu, d.version)));
        let failed = match gpu {
            Some((gpu, driver)) => self_test::failures(k, gpu, driver, self.quiet)?,
            None => Some(vec![]),
        };
        let cuda = Cuda::open(k, IMAGES)?;
        if let (None, Some((gpu, _)), false) = (&failed, gpu, self.quiet) {
            self_test::note_untested(k, gpu);
        }
        let failed = failed.unwrap_or_default();
        let cuda = cuda.with_limits(self_test::heed(cuda.limits(), &failed));
        Ok(Device::Cuda { cuda, host: host.clone() })
    }

    fn no_device(&self, why: &str) -> anyhow::Error {
        let name = &self.device;
        fail(Exit::Device, format!("--device: {name}: {why}; `--device cpu` works everywhere"))
    }

    /// Says why, unless there is no driver at all: then nobody expects a GPU.
    fn note_auto_takes_the_cpu(&self, why: &str) {
        if !self.quiet && probe() != Err(Trouble::Absent) {
            let _ = writeln!(std::io::stderr(), "emm: --device: auto takes the CPU: {why}");
        }
    }
}

/// Each thread has its own stack and scratch.
const MAX_THREADS: usize = 1024;

/// Whether this build's kernels run on GPU `k`; if not, why.
fn cuda_gpu(k: usize) -> Result<(), String> {
    let driver = probe().map_err(|trouble| trouble.to_string())?;
    let Some(gpu) = driver.gpus.get(k) else {
        return Err(format!("there is no GPU {k}, the driver sees {}", driver.gpus.len()));
    };
    let (name, (major, minor)) = (&gpu.name, gpu.capability);
    if KERNELS_FOR.is_empty() {
        return Err(format!(
            "{name} is there, but this build holds no CUDA kernels (`emm doctor` says why)"
        ));
    }
    if !runs_on(gpu.capability) {
        let archs = KERNELS_FOR.join(", ");
        return Err(format!(
            "{name} is there with compute capability {major}.{minor}, but this build's kernels are for {archs}"
        ));
    }
    Ok(())
}

/// A number of threads: more than a machine has only cost memory.
fn threads(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|n| *n <= MAX_THREADS);
    number.ok_or_else(|| format!("expected 0 to {MAX_THREADS}, found {text:?}"))
}

/// Refuses the first of (flag, number, least) whose number is less.
///
/// # Errors
/// Usage that begins with the flag.
pub fn check_least(numbers: &[(&str, usize, usize)]) -> Result<()> {
    match numbers.iter().find(|(_, n, least)| n < least) {
        Some((flag, n, least)) => Err(usage(format!("{flag}: {n}, at least {least} is needed"))),
        None => Ok(()),
    }
}

/// The error that ends a command which a signal stopped; `what` names flag and folder.
pub fn suspended(flag: &str, folder: &Path) -> anyhow::Error {
    let folder = folder.display();
    fail(Exit::Suspended, format!("{flag}: {folder}: stopped, saved; the same command continues"))
}

/// Refuses a folder of runs that is something else. One that does not exist has no runs.
///
/// # Errors
/// As [`check_folder`].
pub fn check_runs(runs: &Path) -> Result<()> {
    check_folder("--runs", runs)
}

/// Refuses what is there and no folder.
///
/// # Errors
/// Usage that begins with the flag; data, where the system does not say what it is.
pub fn check_folder(flag: &str, folder: &Path) -> Result<()> {
    let what = || format!("{flag}: {}", folder.display());
    match std::fs::metadata(folder) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => Err(usage(format!("{}: expected a folder, found something else", what()))),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e).or_data(what),
    }
}

/// Reads a data set, and says on stderr what one may not expect of it.
///
/// # Errors
/// As [`Dataset::open`].
pub fn open_set(path: &Path, common: &Common) -> Result<Dataset> {
    let (set, notes) = kept::read(&[path.to_path_buf()], &common.reading.options())?;
    if !common.quiet {
        notes.iter().for_each(|note| note_line(note));
    }
    Ok(set)
}

/// Reads a data set, each image scaled to `side` pixels.
///
/// # Errors
/// As [`Dataset::open`].
pub fn open_scaled(path: &Path, side: usize, common: &Common) -> Result<Dataset> {
    let source = open_any(&[path.to_path_buf()], &common.reading.options())?;
    source.collect(&source.all(), &Transform { resolution: Some(side), ..Transform::default() })
}

/// Prints a line that is no error on stderr.
pub fn note_line(note: &str) {
    let _ = writeln!(std::io::stderr(), "{}", printable(note));
}

/// Characters of a message, whatever a file's name or contents put into it.
const MOST_CHARACTERS: usize = 1000;

/// A text as a line of a terminal can show it: no control characters, what has no shape as its code, and not without
/// end: of a longer one the middle is left out, since it begins with the file and ends with what helps.
pub fn printable(text: &str) -> String {
    let show = |c: char| match c {
        c if c.is_control() => ' '.to_string(),
        c if c.is_ascii() => c.to_string(),
        c => c.escape_debug().to_string(),
    };
    let count = text.chars().count();
    if count <= MOST_CHARACTERS {
        return text.chars().map(show).collect();
    }
    let half = MOST_CHARACTERS / 2;
    let first: String = text.chars().take(half).map(show).collect();
    let last: String = text.chars().skip(count - half).map(show).collect();
    format!("{first} … {last}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_short_and_printable() {
        assert_eq!(printable("a\nb\u{202e}é\u{fffd}\0'\\"), "a b\\u{202e}é\u{fffd} '\\");
        let long = format!("file: {} --flag helps", "x".repeat(40_000));
        let line = printable(&long);
        assert!(line.chars().count() < 1100, "{}", line.len());
        assert!(line.starts_with("file: x") && line.ends_with("x --flag helps"));
    }
}
