//! The command line: flags are read here and nowhere else; each subcommand checks, makes one call, prints.

use crate::error::{Exit, exit_code, fail, usage};
use crate::{memory, signal};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use common::{LOST, printable};
use std::ffi::OsString;
use std::io::Write as _;

mod audit;
mod bench;
mod bench_nearest;
mod bench_optimal;
mod bucket_flags;
mod cells;
mod check;
mod ckpt;
mod common;
mod compare;
mod completions;
mod data;
mod dedupe;
mod denoise;
mod device_flag;
mod devices;
mod doctor;
mod endings;
mod figure;
mod find;
mod find_flags;
mod find_plan;
mod find_predict;
mod find_within;
mod foreign;
mod gap;
mod gap_flags;
mod gap_held;
mod launch;
mod live;
mod man;
#[cfg(test)]
mod messages;
mod optimal;
mod plan;
mod quickstart;
mod quoted;
mod rate_flags;
mod reading;
mod report;
mod sample;
mod samples_io;
mod samples_set;
mod score;
mod self_test;
mod status;
mod study_flags;
mod sweep;
mod table;
mod train;
pub(crate) mod train_flags;
mod verify;
mod when;

pub use common::Common;
use common::{check_folder, check_runs, note_line, open_set, say, say_json};

/// Measures how much diffusion models memorize, as fast as the hardware allows
#[derive(Parser, Debug)]
#[command(name = "emm", version, propagate_version = true)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
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
    Audit(audit::Args),
    Optimal(optimal::Args),
    Gap(gap_flags::Args),
    When(when::Args),
    Compare(compare::Args),
    Find(find_flags::Args),
    #[command(subcommand)]
    Sweep(sweep::Command),
    Status(status::Args),
    Table(table::Args),
    Figure(figure::Args),
    Report(report::Args),
    Verify(verify::Args),
    #[command(subcommand)]
    Ckpt(ckpt::Command),
    Check(check::Args),
    #[command(subcommand)]
    Bench(bench::Command),
    Completions(completions::Args),
    Man(man::Args),
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
        Err(e) => return report_error(&e),
    };
    let parsed = whole_command().try_get_matches_from(args);
    let cli = match parsed.and_then(|m| Cli::from_arg_matches(&m)) {
        Ok(cli) => cli,
        Err(e) if e.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = e.print();
            return e.exit_code();
        }
        Err(e) if e.use_stderr() => return report_error(&usage(one_line(&e))),
        Err(e) => {
            let _ = e.print();
            return e.exit_code();
        }
    };
    let c = &cli.common;
    let watch = || signal::watch(cli.command.resumes());
    let ready = memory::room_for_threads(1).and_then(|()| watch()).and_then(|()| c.prepare());
    if let Err(e) = ready {
        return report_error(&e);
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
        Command::Audit(a) => audit::run(a, c),
        Command::Optimal(a) => optimal::run(a, c),
        Command::Gap(a) => gap::run(a, c),
        Command::When(a) => when::run(a, c),
        Command::Compare(a) => compare::run(a, c),
        Command::Find(a) => find::run(a, c),
        Command::Sweep(a) => sweep::run(a, c),
        Command::Status(a) => status::run(a, c),
        Command::Table(a) => table::run(a, c),
        Command::Figure(a) => figure::run(a, c),
        Command::Report(a) => report::run(a, c),
        Command::Verify(a) => verify::run(a, c),
        Command::Ckpt(a) => ckpt::run(a, c),
        Command::Check(a) => check::run(a, c),
        Command::Bench(a) => bench::run(a, c),
        Command::Completions(a) => completions::run(a, whole_command(), c),
        Command::Man(a) => man::run(a, whole_command(), c),
    };
    let lost = || match LOST.get() {
        Some(why) => Err(fail(Exit::Other, format!("stdout: cannot write: {why}"))),
        None => Ok(()),
    };
    match result.and_then(|()| lost()) {
        Ok(()) => 0,
        Err(e) => report_error(&e),
    }
}

/// The command line as it is read.
fn whole_command() -> clap::Command {
    with_negative_numbers(Cli::command())
}

/// Lets every flag take -1 as its value, so that the flag itself can say what is wrong with it.
fn with_negative_numbers(command: clap::Command) -> clap::Command {
    // A flag that is true where it stands sets a value, too, but takes none.
    let takes_values =
        |arg: &clap::Arg| arg.get_action().takes_values() && arg.get_num_args() != Some(0.into());
    command
        .mut_args(|arg| {
            let yes = takes_values(&arg);
            arg.allow_negative_numbers(yes)
        })
        .mut_subcommands(with_negative_numbers)
}

/// Prints the one line of an error; the exit code.
fn report_error(e: &anyhow::Error) -> i32 {
    let words: Vec<OsString> = std::env::args_os().collect();
    let typed: Vec<&str> = words.iter().filter_map(|word| word.to_str()).collect();
    let message = as_typed(format!("{e:#}"), &typed, &Cli::command());
    let _ = writeln!(std::io::stderr(), "emm: {}", printable(&message));
    exit_code(e)
}

/// A message in which flags are called as they were typed, where that was by another of their names.
fn as_typed(message: String, typed: &[&str], command: &clap::Command) -> String {
    let is_typed = |flag: &str| typed.iter().any(|word| word.split('=').next() == Some(flag));
    let mut message = message;
    for arg in command.get_arguments() {
        let aliases = arg.get_all_aliases().unwrap_or_default();
        let alias = aliases.into_iter().map(|alias| format!("--{alias}")).find(|a| is_typed(a));
        let Some((long, alias)) = arg.get_long().map(|long| format!("--{long}")).zip(alias) else {
            continue;
        };
        let mut called = String::new();
        let mut rest = message.as_str();
        while let Some(at) = rest.find(&long) {
            let (before, after) = (&rest[..at], &rest[at + long.len()..]);
            let longer = after.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '-');
            called += before;
            called += if longer { &long } else { &alias };
            rest = after;
        }
        message = called + rest;
    }
    let sub = command.get_subcommands().find(|sub| typed.contains(&sub.get_name()));
    sub.map_or(message.clone(), |sub| as_typed(message, typed, sub))
}

/// Names the first word that is no UTF-8, where a flag or argument takes only text.
fn not_text(words: &[OsString]) -> String {
    let bad = words.iter().position(|word| word.to_str().is_none()).unwrap_or(0);
    let word = words[bad].to_string_lossy();
    let flag = words[..bad].last().and_then(|w| w.to_str()).filter(|w| w.starts_with("--"));
    format!("{}: {word:?} is not UTF-8, which is expected here", flag.unwrap_or(&word))
}

/// Of a value that begins with a dash, such as -5, and so was taken for flags by the parser (`found` is the first of these): the
/// flag before it.
fn dashed_value(found: &str, words: &[OsString]) -> Option<String> {
    if found.starts_with("--") {
        return None;
    }
    let words: Vec<&str> = words.iter().filter_map(|word| word.to_str()).collect();
    let dashed = |pair: &&[&str]| {
        pair[0].starts_with("--") && !pair[0].contains('=') && pair[1].starts_with(found)
    };
    let (flag, value) = words.windows(2).find(dashed).map(|pair| (pair[0], pair[1]))?;
    Some(format!(
        "{flag}: {value:?} follows, but a value that begins with a dash is written {flag}={value}"
    ))
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
    if let (ErrorKind::UnknownArgument, Some(ContextValue::String(arg))) =
        (e.kind(), e.get(ContextKind::InvalidArg))
        && let Some(said) = dashed_value(arg, &std::env::args_os().collect::<Vec<_>>())
    {
        return said;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_is_called_as_it_was_typed() {
        let said = |typed: &str, message: &str| {
            let words: Vec<&str> = typed.split(' ').collect();
            as_typed(message.into(), &words, &Cli::command())
        };
        let message = "--channels: 0, not --channels-first";
        assert_eq!(said("emm train --channels 0", message), message);
        let typed = "--num-channels: 0, not --channels-first";
        assert_eq!(said("emm train --num-channels 0", message), typed);
        assert_eq!(said("emm train --num-channels=0", message), typed);
        assert_eq!(said("emm data --num-channels=0", message), message);
    }
}
