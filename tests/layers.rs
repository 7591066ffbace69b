//! The rule that data flows one way: a module uses only what stands to its right.

use std::path::{Path, PathBuf};

/// From left to right; modules of one row don't use each other, [`SIDEWAYS`] excepted.
const ROWS: &[&[&str]] = &[
    &["cli"],
    &["views", "study"],
    &["run"],
    &["data", "model", "sampler", "memorization", "report", "check"],
    &["tape"],
    &["ops"],
    &["device"],
    &["error", "rng", "files", "memory", "numbers", "settings", "signal", "simd"],
];

/// Arrows within a row: who uses whom.
const SIDEWAYS: &[(&str, &str)] = &[
    ("views", "study"),
    ("model", "data"),
    ("sampler", "data"),
    ("check", "data"),
    ("check", "memorization"),
    ("check", "model"),
    ("check", "sampler"),
    ("files", "error"),
    ("memory", "error"),
    ("memory", "files"),
    ("settings", "error"),
    ("settings", "numbers"),
    ("signal", "error"),
    ("signal", "files"),
    ("rng", "simd"),
];

fn row(module: &str) -> Option<usize> {
    ROWS.iter().position(|row| row.contains(&module))
}

fn allowed(from: &str, to: &str) -> bool {
    match (row(from), row(to)) {
        (Some(a), Some(b)) => from == to || a < b || SIDEWAYS.contains(&(from, to)),
        _ => false,
    }
}

/// Source without comments and without its `mod tests { … }`, which may look anywhere.
pub fn code(source: &str) -> String {
    let lines = source.lines().map(|l| l.split("//").next().unwrap_or_default());
    let text = lines.collect::<Vec<_>>().join("\n") + "\n";
    let text = text.replace("pub(crate) mod tests {", "mod tests {");
    match text.split_once("#[cfg(test)]\nmod tests {") {
        None => text,
        Some((before, rest)) => {
            let after = rest.split_once("\n}\n").map_or("", |(_, after)| after);
            format!("{before}{after}")
        }
    }
}

fn identifier(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    &text[..end]
}

/// Whether `text` ends in the middle of a longer name or path, so that what follows isn't its first word.
fn continues(text: &str) -> bool {
    text.ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':')
}

/// The first names in what follows `crate::`: one, or several where a brace opens.
fn heads(path: &str) -> Vec<&str> {
    let Some(inner) = path.strip_prefix('{') else { return vec![identifier(path)] };
    let (mut names, mut depth, mut fresh) = (Vec::new(), 0, true);
    for (i, c) in inner.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => fresh = true,
            c if fresh && !c.is_whitespace() => {
                names.push(identifier(&inner[i..]));
                fresh = false;
            }
            _ => {}
        }
    }
    names
}

/// Root modules that `source` names, through `crate::` or enough `super::`; the file lies `depth` modules
/// deep (1 for `src/a.rs` and `src/a/mod.rs`).
fn uses(source: &str, depth: usize) -> Vec<String> {
    let text = code(source);
    let mut found = Vec::new();
    for (at, _) in text.match_indices("crate::").filter(|(at, _)| !continues(&text[..*at])) {
        found.extend(heads(&text[at + "crate::".len()..]));
    }
    for (at, _) in text.match_indices("super::").filter(|(at, _)| !continues(&text[..*at])) {
        let rest = text[at..].trim_start_matches("super::");
        if (text.len() - at - rest.len()) / "super::".len() >= depth {
            found.extend(heads(rest));
        }
    }
    found.into_iter().map(str::to_string).collect()
}

/// From a file's module to each that it names.
fn arrows(path: &Path, source: &str) -> Vec<(String, String)> {
    let parts: Vec<_> = path.with_extension("").iter().map(|p| p.display().to_string()).collect();
    let depth = parts.iter().filter(|p| *p != "mod").count();
    uses(source, depth).into_iter().map(|to| (parts[0].clone(), to)).collect()
}

/// Wrong arrows of one file. `path` is relative to `src`.
fn wrong_arrows(path: &Path, source: &str) -> Vec<String> {
    let parts: Vec<_> = path.with_extension("").iter().map(|p| p.display().to_string()).collect();
    let module = parts[0].as_str();
    if row(module).is_none() {
        return vec![format!("src/{}: {module} has no place in ROWS", path.display())];
    }
    let wrong = arrows(path, source).into_iter().map(|(_, to)| to);
    let wrong = wrong.filter(|to| !allowed(module, to));
    wrong.map(|to| format!("src/{}: {module} must not use {to}", path.display())).collect()
}

pub fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    files
}

#[test]
fn modules_use_only_what_stands_to_their_right() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut wrong, mut used) = (Vec::new(), Vec::new());
    for file in sources(&root) {
        let path = file.strip_prefix(&root).unwrap();
        if path == Path::new("lib.rs") || path == Path::new("main.rs") {
            continue; // they only name the modules
        }
        let source = std::fs::read_to_string(&file).unwrap();
        used.extend(arrows(path, &source));
        wrong.extend(wrong_arrows(path, &source));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let unused = SIDEWAYS
        .iter()
        .filter(|(a, b)| !used.iter().any(|(x, y)| (a, b) == (&x.as_str(), &y.as_str())));
    let unused: Vec<_> = unused.collect();
    assert!(unused.is_empty(), "allowed, and not used: {unused:?}");
}

#[test]
fn a_planted_arrow_is_found() {
    let count = |path: &str, source: &str| wrong_arrows(Path::new(path), source).len();
    for wrong in [
        "use crate::cli::Common;",
        "pub use crate::run;",
        "use crate::{\n    error::{Exit, fail},\n    study::find,\n};",
        "fn f() -> crate::tape::Tape { todo!() }",
        "use super::super::report;",
        "use crate::nowhere::X;",
        "#[cfg(test)]\nmod tests {\n    use crate::run;\n}\nuse crate::run;\n",
    ] {
        assert_eq!(count("ops/conv2d.rs", wrong), 1, "{wrong}");
    }
    assert_eq!(count("ops/mod.rs", "use super::model::Params;"), 1);
    assert_eq!(count("files.rs", "use crate::device::Device;"), 1);
    assert_eq!(count("report/table.rs", "use crate::{data::Dataset, memorization};"), 2);
    assert_eq!(count("mystery/mod.rs", ""), 1);
    for right in [
        "use crate::device::{Cpu, Device};\nuse crate::rng;",
        "use super::norm;\nuse crate::ops::Op;",
        "// crate::cli reads the flags\n/// See [`crate::run`].",
        "#[cfg(test)]\nmod tests {\n    use crate::check::golden;\n}\n",
        "pub(crate) use my_crate::cli;",
    ] {
        assert_eq!(count("ops/conv2d.rs", right), 0, "{right}");
    }
    assert_eq!(count("sampler/optimal.rs", "use crate::data::Dataset;"), 0);
}
