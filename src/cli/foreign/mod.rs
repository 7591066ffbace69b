//! Command lines of EDM's and DiffMemorize's scripts, typed after `emm`: what means the same is taken as our flags say
//! it, what is not here is refused with what to type instead.

pub(super) mod table;

#[cfg(test)]
mod documented;

use crate::error::usage;
use crate::numbers::{NO, YES};
use anyhow::Result;
use std::ffi::OsString;
use table::{COMMANDS, Flag, FlagGroups, SCRIPTS};

/// Common flags that take a value, which is no command.
const COMMON: [&str; 4] = ["--device", "--threads", "--seed", "--max-memory"];

/// The program's arguments in our words.
///
/// # Errors
/// Usage (exit 2): begins with the flag, or the script in place of a command, and says what to type instead.
pub fn in_our_words(args: Vec<OsString>) -> Result<Vec<OsString>> {
    let Some((from, flags)) = command(&args)? else { return Ok(args) };
    let mut ours = args[..from].to_vec();
    let mut rest = args[from..].iter().peekable();
    while let Some(arg) = rest.next() {
        if arg == "--" {
            ours.push(arg.clone());
            break;
        }
        let word = arg.to_str().unwrap_or_default();
        let (name, given) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value.to_string())),
            None => (word, None),
        };
        let Some(flag) = flags.iter().copied().flatten().find(|flag| flag.name == name) else {
            ours.push(arg.clone());
            continue;
        };
        let next = match (&given, flag.switch) {
            (None, false) => rest.next_if(|next| !next.to_string_lossy().starts_with("--")),
            _ => None,
        };
        let value = given.or(next.map(|next| next.to_string_lossy().into_owned()));
        ours.extend(flag.ours(value.as_deref())?);
    }
    ours.extend(rest.cloned());
    Ok(ours)
}

impl Flag {
    /// Our words for it with this value.
    fn ours(&self, value: Option<&str>) -> Result<Vec<OsString>> {
        let known = value.or(self.switch.then_some(""));
        let same = known.and_then(|v| self.same.iter().find(|(pattern, _)| fits(v, pattern)));
        if let Some((_, words)) = same {
            let word = |word: &&str| word.replace("{}", value.unwrap_or_default()).into();
            return Ok(words.iter().map(word).collect());
        }
        let instead = self.instead.replace("{}", value.unwrap_or("VALUE"));
        Err(usage(format!("{}: there is no such flag; {instead}", self.name)))
    }
}

/// Whether a value is one that a pattern stands for: `*` any, `*.zip` any of that ending, true and false as their
/// parser reads switches, numbers by their value.
fn fits(value: &str, pattern: &str) -> bool {
    let word = value.to_ascii_lowercase();
    match pattern {
        "true" => YES.contains(&&*word),
        "false" => NO.contains(&&*word),
        _ => match (pattern.strip_prefix('*'), value.parse::<f64>(), pattern.parse::<f64>()) {
            (Some(ending), ..) => value.ends_with(ending),
            (None, Ok(value), Ok(pattern)) => value == pattern,
            _ => value == pattern,
        },
    }
}

/// Where the arguments behind the command begin, and the flags of theirs that it may be given.
fn command(args: &[OsString]) -> Result<Option<(usize, FlagGroups)>> {
    let mut at = 1;
    let word = |at: usize| args.get(at).and_then(|arg| arg.to_str()).unwrap_or_default();
    while word(at).starts_with('-') {
        at += if COMMON.contains(&word(at)) { 2 } else { 1 };
    }
    let script = word(at).rsplit('/').next().unwrap_or_default();
    let stem = script.strip_suffix(".py").unwrap_or(script);
    let other = SCRIPTS.iter().find(|(name, _)| *name == stem);
    if let Some((_, instead)) = other.filter(|_| stem != "train" || script != stem) {
        return Err(usage(format!("{}: there is no such command; {instead}", word(at))));
    }
    let names = |name: &str| name.split(' ').enumerate().all(|(i, part)| word(at + i) == part);
    let known = COMMANDS.iter().find(|(name, _)| names(name));
    if let Some((name, _)) = known {
        let next = word(at + name.split(' ').count());
        let script = next.rsplit('/').next().unwrap_or_default();
        let theirs = |(name, _): &(&str, &str)| script.strip_suffix(".py") == Some(*name);
        if SCRIPTS.iter().any(theirs) {
            return Err(usage(format!(
                "{next}: `emm {name}` stands in the script's place; leave it out"
            )));
        }
    }
    Ok(known.map(|(name, flags)| (at + name.split(' ').count(), *flags)))
}
