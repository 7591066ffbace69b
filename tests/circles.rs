//! The rule that files of a room form no circle: of two files at most one knows the other, directly or through more.
//!
//! What a file names is looked up where it stands: `super::MemoryPlan` is an arrow to the file that defines it, not to the
//! `mod.rs` that passes it on.

use crate::layers::{code, sources};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// A module's path: `["ops", "norm"]`.
type Names = Vec<String>;

/// Files by module, without comments and unit tests.
type Files = BTreeMap<Names, String>;

/// An item of a `use`: whether it is passed on, its path, the name that it gets.
struct Import {
    public: bool,
    path: Names,
    name: String,
}

fn words(path: &str) -> Names {
    path.split("::").map(|w| w.trim().to_string()).filter(|w| !w.is_empty()).collect()
}

/// The paths of `a::{b, c::{d, e as f}}`.
fn expand(before: &[String], tree: &str, found: &mut Vec<(Names, String)>) {
    let tree = tree.trim();
    let Some((head, inner)) = tree.split_once('{') else {
        let (path, name) = tree.split_once(" as ").unwrap_or((tree, ""));
        let path = [before, &words(path)[..]].concat();
        let last = path.last().cloned().unwrap_or_default();
        found.push((path, if name.is_empty() { last } else { name.trim().into() }));
        return;
    };
    let before = [before, &words(head)[..]].concat();
    let inner = inner.rsplit_once('}').map_or("", |(inner, _)| inner);
    let (mut depth, mut start) = (0, 0);
    for (i, c) in inner.char_indices().chain([(inner.len(), ',')]) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                if !inner[start..i].trim().is_empty() {
                    expand(&before, &inner[start..i], found);
                }
                start = i + 1;
            }
            _ => {}
        }
    }
}

/// What a file imports, and the rest of it.
fn imports(text: &str) -> (Vec<Import>, String) {
    let (mut all, mut rest) = (Vec::new(), String::new());
    let mut text = text;
    while let Some(at) = text.find("use ") {
        let before = &text[..at];
        let line = before.rsplit('\n').next().unwrap_or("").trim();
        let statement = line.is_empty() || line == "pub" || line.starts_with("pub(");
        let Some(end) = text[at..].find(';').filter(|_| statement) else {
            rest += &text[..at + 4];
            text = &text[at + 4..];
            continue;
        };
        let mut found = Vec::new();
        expand(&[], &text[at + 4..at + end], &mut found);
        let public = !line.is_empty();
        all.extend(found.into_iter().map(|(path, name)| Import { public, path, name }));
        rest += before;
        text = &text[at + end + 1..];
    }
    (all, rest + text)
}

/// Paths of at least two names that stand in the code.
fn paths(code: &str) -> Vec<Names> {
    let part = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let all = code.split(|c| !part(c)).filter(|word| word.contains("::"));
    all.map(words).filter(|path| path.len() > 1).collect()
}

/// A path as seen from a module, from the root on.
fn absolute(files: &Files, from: &Names, path: &[String]) -> Option<Names> {
    let up = path.iter().take_while(|w| *w == "super").count();
    match path.first().map(String::as_str)? {
        "crate" => Some(path[1..].to_vec()),
        "super" => Some([&from[..from.len().checked_sub(up)?], &path[up..]].concat()),
        "self" => Some([&from[..], &path[1..]].concat()),
        first => {
            let child = [&from[..], &[first.to_string()]].concat();
            files.contains_key(&child).then(|| [&from[..], path].concat())
        }
    }
}

/// The file that defines what a path names.
fn defining(
    files: &Files,
    passed: &BTreeMap<(Names, String), Names>,
    path: &Names,
) -> Option<Names> {
    let mut path = path.clone();
    for _ in 0..8 {
        let depth = (1..=path.len()).rev().find(|&n| files.contains_key(&path[..n]))?;
        let module = path[..depth].to_vec();
        let next = path.get(depth).and_then(|name| passed.get(&(module.clone(), name.clone())));
        match next {
            Some(onward) => path = [&onward[..], &path[depth + 1..]].concat(),
            None => return Some(module),
        }
    }
    None
}

/// Who names whom.
fn arrows(files: &Files) -> BTreeMap<Names, BTreeSet<Names>> {
    let read: Vec<_> = files.iter().map(|(module, text)| (module, imports(text))).collect();
    let mut passed = BTreeMap::new();
    for (module, (all, _)) in &read {
        for import in all {
            if let Some(path) =
                absolute(files, module, &import.path).filter(|p| !files.contains_key(p))
            {
                passed.insert(((*module).clone(), import.name.clone()), path);
            }
        }
    }
    let arrows = read.iter().map(|(module, (all, rest))| {
        // A `mod.rs` that only passes on what a file of its own defines does not use it.
        let own = |i: &Import| i.public && !matches!(i.path[0].as_str(), "crate" | "super");
        let used = all.iter().filter(|i| !own(i)).map(|i| i.path.clone());
        let named = used.chain(paths(rest)).filter_map(|p| absolute(files, module, &p));
        let to = named.filter_map(|p| defining(files, &passed, &p)).filter(|to| to != *module);
        ((*module).clone(), to.collect())
    });
    arrows.collect()
}

/// Files that can be reached from each other, in groups.
fn circles(files: &Files) -> Vec<String> {
    let arrows = arrows(files);
    let reach = |from: &Names| {
        let (mut seen, mut next) = (BTreeSet::new(), vec![from.clone()]);
        while let Some(module) = next.pop() {
            next.extend(arrows[&module].iter().filter(|to| seen.insert((*to).clone())).cloned());
        }
        seen
    };
    let reached: BTreeMap<&Names, BTreeSet<Names>> = files.keys().map(|m| (m, reach(m))).collect();
    let mut groups = BTreeSet::new();
    for module in files.keys().filter(|&m| reached[m].contains(m)) {
        let with = reached[module].iter().filter(|&other| reached[other].contains(module));
        groups.insert(with.map(|m| m.join("::")).collect::<Vec<_>>().join(", "));
    }
    groups.into_iter().collect()
}

fn module_of(path: &Path) -> Names {
    let names = path.with_extension("");
    names.iter().map(|p| p.to_string_lossy().into_owned()).filter(|p| p != "mod").collect()
}

#[test]
fn files_form_no_circles() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Files::new();
    for file in sources(&root) {
        let path = file.strip_prefix(&root).unwrap();
        if path != Path::new("lib.rs") && path != Path::new("main.rs") {
            files.insert(module_of(path), code(&std::fs::read_to_string(&file).unwrap()));
        }
    }
    let found = circles(&files);
    assert!(found.is_empty(), "circles:\n{}", found.join("\n"));
}

#[test]
fn a_planted_circle_is_found() {
    let of = |all: &[(&str, &str)]| {
        let file = |(path, text): &(&str, &str)| (module_of(Path::new(path)), text.to_string());
        circles(&all.iter().map(file).collect())
    };
    let (room, two) = ("mod a;\nmod b;\npub use b::{B, c as C};\n", "a/mod.rs");
    let planted = |a, b| of(&[(two, room), ("a/a.rs", a), ("a/b.rs", b)]);
    assert!(planted("use super::b;\n", "struct B;").is_empty());
    for (a, b) in [
        ("use super::B;\n", "use super::a::A;\n"),
        ("fn f() { super::B::new() }", "fn g() { crate::a::a::f() }"),
        ("pub use super::{\n    C,\n};", "use super::{a::{A as D}};"),
    ] {
        assert_eq!(planted(a, b), ["a::a, a::b"], "{a} {b}");
    }
    assert_eq!(of(&[(two, "mod a;\nuse a::A;\n"), ("a/a.rs", "use super::Room;")]), ["a, a::a"]);
    assert!(of(&[(two, "mod a;\npub use a::A;\n"), ("a/a.rs", "use super::Room;")]).is_empty());
}
