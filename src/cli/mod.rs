//! The command line: flags are read here and nowhere else; each subcommand checks, makes one call, prints.

use crate::data::{Dataset, Transform, open_any};
use crate::device::cuda::{Cuda, IMAGES, KERNELS_FOR, Trouble, probe, runs_on};
use crate::device::{Cpu, Device};
use crate::error::{Exit, OrExit as _, exit_code, fail, usage};
use crate::memory;
use crate::signal;
use anyhow::Result;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::OnceLock;

mod bench;
mod bench_nearest;
mod bench_optimal;
mod check;
mod ckpt;
mod data;
mod denoise;
mod doctor;
mod endings;
mod figure;
mod find;
mod foreign;
mod gap;
#[cfg(test)]
mod messages;
mod optimal;
mod plan;
mod quickstart;
mod rate_flags;
mod report;
mod sample;
mod samples_io;
mod score;
mod study_flags;
mod sweep;
mod table;
mod train;
pub(crate) mod train_flags;

/// Prints a line of results; a closed stdout stops it quietly.
macro_rules! say {
    ($($arg:tt)*) => { $crate::cli::print_line(format_args!($($arg)*)) };
}
pub(crate) use say;

/// Why a line of results was lost, if one was and not because nobody reads on.
static LOST: OnceLock<String> = OnceLock::new();

fn print_line(line: std::fmt::Arguments) {
    if let Err(e) = writeln!(std::io::stdout(), "{line}")
        && e.kind() != std::io::ErrorKind::BrokenPipe
    {
        LOST.get_or_init(|| e.to_string());
    }
}

/// Measures how much diffusion models memorize, as fast as the hardware allows
#[derive(Parser, Debug)]
#[command(name = "emm", version, propagate_version = true)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

/// Flags of every command
#[derive(clap::Args, Debug, Clone)]
pub struct Common {
    /// auto takes CUDA when a card and kernels are there, else the CPU
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
    #[arg(long, global = true, value_name = "BYTES", value_parser = crate::numbers::bytes, help_heading = "Common")]
    pub max_memory: Option<u64>,
    /// Print one JSON object on stdout and nothing else there
    #[arg(long, global = true, help_heading = "Common")]
    pub json: bool,
    /// No progress, only results and errors
    #[arg(long, global = true, help_heading = "Common")]
    pub quiet: bool,
}

impl Common {
    /// Sets what holds for the whole process: the memory of reading, and the threads of what is no device's.
    fn prepare(&self) -> Result<()> {
        if let Some(bytes) = self.max_memory {
            memory::limit_reading(bytes);
        }
        memory::start_threads(self.threads, |pool| pool.build_global())
    }

    /// Opens the device named by `--device`.
    ///
    /// # Errors
    /// Usage for an unknown name; device (exit 4) for a CUDA device that is named and cannot be had.
    pub fn device(&self) -> Result<Device> {
        match self.choice()? {
            Choice::Cpu => self.cpu(),
            Choice::Cuda(k) => {
                cuda_card(k).map_err(|why| self.no_device(&why))?;
                self.cuda(k)
            }
            Choice::Auto => {
                let card = cuda_card(0).and_then(|()| self.cuda(0).map_err(|e| format!("{e:#}")));
                card.or_else(|why| {
                    self.tell_auto_takes_the_cpu(&why);
                    self.cpu()
                })
            }
        }
    }

    /// Whether the device is a card, here or one that is only planned for; opens nothing.
    pub fn on_card(&self) -> bool {
        match self.choice() {
            Ok(Choice::Cpu) => false,
            Ok(Choice::Auto) => cuda_card(0).is_ok(),
            Ok(Choice::Cuda(_)) | Err(_) => true,
        }
    }

    fn choice(&self) -> Result<Choice> {
        let name = self.device.as_str();
        Ok(match name {
            "auto" => Choice::Auto,
            "cpu" => Choice::Cpu,
            "cuda" => Choice::Cuda(0),
            _ => match name.strip_prefix("cuda:").and_then(|k| k.parse().ok()) {
                Some(k) => Choice::Cuda(k),
                None => {
                    let message = format!("--device: {name:?} is none of auto, cpu, cuda, cuda:K");
                    return Err(usage(message));
                }
            },
        })
    }

    fn cpu(&self) -> Result<Device> {
        Cpu::new(self.threads).map(Device::Cpu)
    }

    fn cuda(&self, k: usize) -> Result<Device> {
        Ok(Device::Cuda { cuda: Cuda::open(k, IMAGES)?, host: Cpu::new(self.threads)? })
    }

    fn no_device(&self, why: &str) -> anyhow::Error {
        let name = &self.device;
        fail(Exit::Device, format!("--device: {name}: {why}; `--device cpu` works everywhere"))
    }

    /// Says why, unless there is no driver at all: then nobody expects a card.
    fn tell_auto_takes_the_cpu(&self, why: &str) {
        if !self.quiet && probe() != Err(Trouble::Absent) {
            let _ = writeln!(std::io::stderr(), "emm: --device: auto takes the CPU: {why}");
        }
    }
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

/// Each thread has its own stack and scratch.
const MAX_THREADS: usize = 1024;

/// What `--device` names.
enum Choice {
    Auto,
    Cpu,
    Cuda(usize),
}

/// Whether this build's kernels run on card `k`; if not, why.
fn cuda_card(k: usize) -> Result<(), String> {
    let driver = probe().map_err(|trouble| trouble.to_string())?;
    let Some(card) = driver.cards.get(k) else {
        return Err(format!("there is no card {k}, the driver sees {}", driver.cards.len()));
    };
    let (name, (major, minor)) = (&card.name, card.capability);
    if KERNELS_FOR.is_empty() {
        return Err(format!(
            "{name} is there, but this build holds no CUDA kernels (`emm doctor` says why)"
        ));
    }
    if !runs_on(card.capability) {
        let archs = KERNELS_FOR.join(", ");
        return Err(format!(
            "{name} is there with compute capability {major}.{minor}, but this build's kernels are for {archs}"
        ));
    }
    Ok(())
}

#[derive(Subcommand, Debug)]
enum Command {
    Quickstart(quickstart::Args),
    Doctor(doctor::Args),
    #[command(subcommand)]
    Data(data::Command),
    Plan(plan::Args),
    Train(train::Args),
    Sample(sample::Args),
    Denoise(denoise::Args),
    Score(score::Args),
    Optimal(optimal::Args),
    Gap(gap::Args),
    Find(find::Args),
    #[command(subcommand)]
    Sweep(sweep::Command),
    Table(table::Args),
    Figure(figure::Args),
    Report(report::Args),
    #[command(subcommand)]
    Ckpt(ckpt::Command),
    Check(check::Args),
    #[command(subcommand)]
    Bench(bench::Command),
}

impl Command {
    /// Whether it can be stopped and goes on when it is given again.
    fn resumes(&self) -> bool {
        use sweep::Command::{Run, RunOne};
        match self {
            Command::Train(_) | Command::Find(_) | Command::Quickstart(_) => true,
            Command::Sweep(sweep) => matches!(sweep, Run(_) | RunOne(_)),
            _ => false,
        }
    }
}

/// Runs the program and returns its exit code.
pub fn main() -> i32 {
    signal::hold();
    let args = match foreign::in_our_words(std::env::args_os().collect()) {
        Ok(args) => args,
        Err(e) => return tell(&e),
    };
    let parsed = with_negative_numbers(Cli::command()).try_get_matches_from(args);
    let cli = match parsed.and_then(|m| Cli::from_arg_matches(&m)) {
        Ok(cli) => cli,
        Err(e) if e.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = e.print();
            return e.exit_code();
        }
        Err(e) if e.use_stderr() => return tell(&usage(one_line(&e))),
        Err(e) => {
            let _ = e.print();
            return e.exit_code();
        }
    };
    let c = &cli.common;
    let watch = || signal::watch(cli.command.resumes());
    let ready = memory::room_for_threads(1).and_then(|()| watch()).and_then(|()| c.prepare());
    if let Err(e) = ready {
        return tell(&e);
    }
    let result = match cli.command {
        Command::Quickstart(a) => quickstart::run(a, c),
        Command::Doctor(a) => doctor::run(a, c),
        Command::Data(a) => data::run(a, c),
        Command::Plan(a) => plan::run(a, c),
        Command::Train(a) => train::run(a, c),
        Command::Sample(a) => sample::run(a, c),
        Command::Denoise(a) => denoise::run(a, c),
        Command::Score(a) => score::run(a, c),
        Command::Optimal(a) => optimal::run(a, c),
        Command::Gap(a) => gap::run(a, c),
        Command::Find(a) => find::run(a, c),
        Command::Sweep(a) => sweep::run(a, c),
        Command::Table(a) => table::run(a, c),
        Command::Figure(a) => figure::run(a, c),
        Command::Report(a) => report::run(a, c),
        Command::Ckpt(a) => ckpt::run(a, c),
        Command::Check(a) => check::run(a, c),
        Command::Bench(a) => bench::run(a, c),
    };
    let lost = || match LOST.get() {
        Some(why) => Err(fail(Exit::Other, format!("stdout: cannot write: {why}"))),
        None => Ok(()),
    };
    match result.and_then(|()| lost()) {
        Ok(()) => 0,
        Err(e) => tell(&e),
    }
}

/// Lets every flag take -1 as its value, so that the flag itself can say what is wrong with it.
fn with_negative_numbers(command: clap::Command) -> clap::Command {
    let takes_values = |arg: &clap::Arg| arg.get_action().takes_values();
    command
        .mut_args(|arg| {
            let yes = takes_values(&arg);
            arg.allow_negative_numbers(yes)
        })
        .mut_subcommands(with_negative_numbers)
}

/// A number of threads: more than a machine has only cost memory.
fn threads(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|n| *n <= MAX_THREADS);
    number.ok_or_else(|| format!("expected 0 to {MAX_THREADS}, found {text:?}"))
}

/// Prints the one line of an error; the exit code.
fn tell(e: &anyhow::Error) -> i32 {
    let _ = writeln!(std::io::stderr(), "emm: {}", printable(&format!("{e:#}")));
    exit_code(e)
}

/// Refuses a folder of runs that is something else. One that does not exist has no runs.
///
/// # Errors
/// Usage that begins with the flag; data, where the system does not say what it is.
fn check_runs(runs: &Path) -> Result<()> {
    let what = || format!("--runs: {}", runs.display());
    match std::fs::metadata(runs) {
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
fn open_set(path: &Path, common: &Common) -> Result<Dataset> {
    let source = open_any(&[path.to_path_buf()])?;
    let set = source.collect(&source.all(), &Transform::default())?;
    if !common.quiet {
        source.notes.iter().for_each(|note| note_line(note));
    }
    Ok(set)
}

/// Prints a line that is no error on stderr.
fn note_line(note: &str) {
    let _ = writeln!(std::io::stderr(), "{}", printable(note));
}

/// Characters of a message, whatever a file's name or contents put into it.
const MOST_CHARACTERS: usize = 1000;

/// A text as a line of a terminal can show it: no control characters, what has no shape as its code, and not without
/// end: of a longer one the middle is left out, since it begins with the file and ends with what helps.
fn printable(text: &str) -> String {
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

/// Names the first word that is no UTF-8, where a flag or argument takes only text.
fn not_text(words: &[OsString]) -> String {
    let bad = words.iter().position(|word| word.to_str().is_none()).unwrap_or(0);
    let word = words[bad].to_string_lossy();
    let flag = words[..bad].last().and_then(|w| w.to_str()).filter(|w| w.starts_with("--"));
    format!("{}: {word:?} is not UTF-8, which is expected here", flag.unwrap_or(&word))
}

/// A parser's error as ours are: one line that begins with the flag.
fn one_line(e: &clap::Error) -> String {
    if let (ErrorKind::MissingRequiredArgument, Some(ContextValue::Strings(missing))) =
        (e.kind(), e.get(ContextKind::InvalidArg))
    {
        let all = missing.join(", ");
        let first = all.trim_start_matches('<').split([' ', '>']).next().unwrap_or(&all);
        return format!("{first}: not given, needed: {all}");
    }
    if e.kind() == ErrorKind::InvalidUtf8 {
        return not_text(&std::env::args_os().collect::<Vec<_>>());
    }
    let text = e.to_string();
    let said: Vec<&str> = text
        .lines()
        .map(str::trim)
        .take_while(|l| {
            !["Usage:", "tip: to pass", "For more"].iter().any(|end| l.starts_with(end))
        })
        .filter(|l| !l.is_empty())
        .collect();
    let said = said.join(" ");
    let said = in_our_words(said.strip_prefix("error: ").unwrap_or(&said));
    // `--flag <VALUE>`, or `<ARGUMENT>` where it stands for itself.
    match e.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(arg)) if arg.starts_with("--") => {
            format!("{}: {said}", arg.split_whitespace().next().unwrap_or(arg))
        }
        Some(ContextValue::String(arg)) if arg.starts_with(['<', '[']) => {
            format!("{}: {said}", arg.trim_matches(['<', '>', '[', ']', '.']))
        }
        _ => said,
    }
}

/// What the standard library says of a text that is no number, as what is expected.
fn in_our_words(said: &str) -> String {
    [
        ("invalid digit found in string", "expected a whole number"),
        ("cannot parse integer from empty string", "expected a whole number"),
        ("number too large to fit in target type", "the number is too large"),
        ("invalid float literal", "expected a number"),
        ("cannot parse float from empty string", "expected a number"),
    ]
    .iter()
    .fold(said.to_string(), |said, (theirs, ours)| said.replace(theirs, ours))
}
