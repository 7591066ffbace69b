//! Every flag that a message or a help text names is one that its command has.

use super::Cli;
use super::foreign::table;
use clap::CommandFactory as _;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// The flags of each command, aliases and common ones too; of a group of commands those of all.
fn flags() -> BTreeMap<String, BTreeSet<String>> {
    fn walk(command: &clap::Command, path: &str, all: &mut BTreeMap<String, BTreeSet<String>>) {
        let mut own = BTreeSet::from(["--help".to_string(), "--version".to_string()]);
        for arg in command.get_arguments() {
            let aliases = arg.get_all_aliases().unwrap_or_default();
            own.extend(arg.get_long().into_iter().chain(aliases).map(|name| format!("--{name}")));
        }
        for sub in command.get_subcommands() {
            let path = format!("{path} {}", sub.get_name()).trim().to_string();
            walk(sub, &path, all);
            if command.get_name() != "emm" {
                own.extend(all[&path].clone());
            }
        }
        all.insert(path.into(), own);
    }
    let mut command = Cli::command();
    command.build();
    let mut all = BTreeMap::new();
    walk(&command, "", &mut all);
    all
}

/// The commands whose messages a file holds: that of its name, where there is one; none where all commands share them.
fn commands_of<'a>(file: &'a str, all: &BTreeMap<String, BTreeSet<String>>) -> Vec<&'a str> {
    let command = file.strip_prefix("cli/").and_then(|file| file.strip_suffix(".rs"));
    match (file, command) {
        ("cli/bench_nearest.rs", _) => vec!["bench nearest"],
        ("cli/bench_optimal.rs", _) => vec!["bench optimal"],
        (
            "cli/find_flags.rs" | "cli/find_plan.rs" | "cli/find_predict.rs" | "cli/find_within.rs",
            _,
        ) => vec!["find"],
        ("cli/common.rs" | "cli/train_flags.rs" | "model/config.rs" | "run/config.rs", _) => {
            vec!["train", "plan"]
        }
        ("cli/bucket_flags.rs" | "cli/cells.rs" | "cli/study_flags.rs", _) => vec!["sweep"],
        ("cli/live.rs", _) => vec!["status", "sweep status"],
        ("cli/devices.rs", _) => vec!["sweep run", "find"],
        ("cli/samples_io.rs", _) => vec!["sample"],
        ("cli/gap_flags.rs" | "cli/gap_held.rs", _) => vec!["gap"],
        ("cli/dedupe.rs", _) => vec!["data dedupe"],
        ("data/subset.rs", _) => vec!["data subset"],
        (_, Some(command)) if all.contains_key(command) => vec![command],
        _ => vec![""],
    }
}

/// The flags in a text that neither the command named before them nor one of `own` has; `mentions` counts all.
fn wrong(
    text: &str,
    own: &[&str],
    all: &BTreeMap<String, BTreeSet<String>>,
    mentions: &mut usize,
) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut named: Option<String> = None;
    let words: Vec<&str> =
        text.split(|c: char| c.is_whitespace() || "`(),;:\"[]|".contains(c)).collect();
    for (i, word) in words.iter().enumerate() {
        if *word == "emm" {
            let next = |n: usize| words.get(i + 1..i + 1 + n).map(|words| words.join(" "));
            named = [next(2), next(1)].into_iter().flatten().find(|path| all.contains_key(path));
        }
        let end = word.find(|c: char| !c.is_ascii_alphanumeric() && !"-_".contains(c));
        let flag = &word[..end.unwrap_or(word.len())];
        let letters = flag.strip_prefix("--").is_some_and(|f| f.starts_with(char::is_alphabetic));
        if !letters || (i > 0 && words[i - 1] == "#SBATCH") {
            continue;
        }
        *mentions += 1;
        let has = |path: &str| all[path].contains(flag);
        let right = match &named {
            Some(path) => has(path),
            None => own.iter().any(|path| has(path)),
        };
        if !right {
            wrong.push(format!("{flag} in {text:?}"));
        }
    }
    wrong
}

/// The string literals and doc comments of a source, without its inline tests.
fn texts(source: &str) -> Vec<String> {
    let source = source.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let mut texts = Vec::new();
    let mut rest = source;
    while let Some(at) = rest.find(['"', '/', '\'']) {
        let here = &rest[at..];
        if here.starts_with("//") {
            let line = here.lines().next().unwrap_or_default();
            if line.starts_with("///") {
                texts.push(line.trim_start_matches('/').trim().to_string());
            }
            rest = &here[line.len()..];
        } else if here.starts_with("'\"'") || here.starts_with("'/'") {
            rest = &here[3..];
        } else if here.starts_with('"') {
            let mut end = 1;
            while end < here.len() && here.as_bytes()[end] != b'"' {
                end += if here.as_bytes()[end] == b'\\' { 2 } else { 1 };
            }
            texts.push(here[1..end.min(here.len())].replace("\\n", "\n").replace('\\', " "));
            rest = here.get(end + 1..).unwrap_or_default();
        } else {
            rest = &here[1..];
        }
    }
    texts
}

#[test]
fn messages_name_flags_that_their_commands_have() {
    let all = flags();
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut found, mut mentions) = (Vec::new(), 0);
    for folder in ["cli", "data", "model", "run"] {
        for entry in fs::read_dir(src.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            let file = format!("{folder}/{}", path.file_name().unwrap().to_string_lossy());
            // Of model and run only the settings: what else they say is said by several commands.
            let settings = ["cli", "data"].contains(&folder) || file.ends_with("/config.rs");
            if path.is_dir() || file == "cli/messages.rs" || !settings {
                continue;
            }
            for text in texts(&fs::read_to_string(&path).unwrap()) {
                let wrong = wrong(&text, &commands_of(&file, &all), &all, &mut mentions);
                found.extend(wrong.into_iter().map(|w| format!("{file}: {w}")));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
    assert!(mentions > 200, "{mentions} flags");
}

#[test]
fn advice_for_flags_of_theirs_names_ours() {
    let all = flags();
    let (mut found, mut mentions) = (Vec::new(), 0);
    for (command, groups) in table::COMMANDS {
        let theirs: Vec<_> = groups.iter().copied().flatten().map(|f| f.name).collect();
        for flag in groups.iter().copied().flatten() {
            assert!(!all[*command].contains(flag.name), "{command} has {}", flag.name);
            let ours = flag.same.iter().flat_map(|(_, words)| words.iter().copied());
            let ours = ours.filter(|word| word.starts_with("--")).chain([flag.instead]);
            for text in ours {
                let wrong = wrong(text, &[command], &all, &mut mentions).into_iter();
                found.extend(
                    wrong.filter(|w| !theirs.iter().any(|t| w.starts_with(&format!("{t} ")))),
                );
            }
        }
    }
    for (_, instead) in table::SCRIPTS {
        found.extend(wrong(instead, &[""], &all, &mut mentions));
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
    assert!(mentions > 50, "{mentions} flags");
}

#[test]
fn a_flag_that_is_nowhere_is_found() {
    let all = flags();
    let wrong = |text: &str, own: &[&str]| wrong(text, own, &all, &mut 0).len();
    assert_eq!(wrong("F: not square; --center-crop takes it", &["score"]), 1);
    assert_eq!(wrong("F: not square; `emm data import --center-crop` takes it", &["score"]), 0);
    assert_eq!(wrong("`emm data subset --center-crop`", &["score"]), 1);
    assert_eq!(wrong("--reference: --knn-ref, --json and --max-memory", &["score"]), 0);
    let source = "/// --one of it\n// --two\nlet c = '\"'; f(\"--three \\\"--four\\\"\", '/');\n";
    assert_eq!(texts(source), ["--one of it", "--three  \"--four \""]);
}
