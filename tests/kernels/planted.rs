//! Bugs planted into the product's kernels: each must turn a test red that is green without it. They stand where they bite,
//! in the kernels, as comments of the line above:
//!
//! ```text
//! // Mutant, TEST: `what stands in the next line` reads `what stands there instead`.
//! // Mutant, TEST (UNIT.cu): `what stands in the next line` goes.
//! ```
//!
//! TEST is one of this folder's; UNIT is the kernel file that is compiled, of a mark in a header.

use super::{attention, cuda, run_cases};
use crate::emulator::{for_each_schedule, on_hopper, passes_patched, passes_with_header};

const CONVOLUTIONS: &str = "kernels::planted::convolutions_on_tensor_cores";

struct Mutant {
    /// Which mark, for people.
    mark: String,
    test: String,
    unit: String,
    file: String,
    find: String,
    replace: String,
}

/// A mark and the line below it.
fn mutant(file: &str, mark: &str, below: &str) -> Option<Mutant> {
    let said = mark.trim().strip_prefix("// Mutant, ")?.strip_suffix('.')?;
    let (head, change) = said.split_once(": `")?;
    let (test, unit) = match head.split_once(" (") {
        Some((test, unit)) => (test, format!("kernels/{}", unit.strip_suffix(')')?)),
        None => (head, file.to_string()),
    };
    let (from, to) = match change.split_once("` reads `") {
        Some((from, to)) => (from, to.strip_suffix('`')?),
        None => (change.strip_suffix("` goes")?, ""),
    };
    assert_eq!(below.matches(from).count(), 1, "{file}: {mark}");
    let line = |code: &str| format!("{mark}\n{code}\n");
    let (find, replace) = (line(below), line(&below.replace(from, to)));
    let (mark, test, file) = (mark.trim().into(), format!("kernels::{test}"), file.into());
    Some(Mutant { mark, test, unit, file, find, replace })
}

fn mutants() -> Vec<Mutant> {
    let mut found = Vec::new();
    for folder in ["kernels", "kernels/prelude"] {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                continue;
            }
            let file = format!("{folder}/{}", entry.file_name().to_string_lossy());
            let text = std::fs::read_to_string(&file).unwrap();
            let lines: Vec<&str> = text.lines().collect();
            for pair in lines.windows(2).filter(|pair| pair[0].contains("Mutant, ")) {
                let mutant = mutant(&file, pair[0], pair[1]);
                found.push(mutant.unwrap_or_else(|| panic!("{file}: no mark: {}", pair[0])));
            }
        }
    }
    found
}

/// The cases of an op that the fast kernels take, in every schedule.
fn fast_cases(prefix: &str) {
    let cuda = cuda();
    let mut runs = 0;
    for_each_schedule(|schedule| {
        runs += run_cases(&cuda, &format!("{schedule:?}"), |name| name.starts_with(prefix));
    });
    assert!(runs > 0, "no case is called {prefix}");
}

#[test]
fn convolutions_on_tensor_cores() {
    fast_cases("conv2d even");
}

#[test]
fn convolutions_on_hopper() {
    on_hopper("kernels::planted::convolutions_on_hopper", || fast_cases("conv2d even"));
}

#[test]
fn attention_on_tensor_cores() {
    let cuda = cuda();
    for_each_schedule(|schedule| {
        assert!(attention::check(&cuda, [1, 8, 9, 72], 1, &format!("{schedule:?}")));
    });
}

#[test]
fn norms_in_one_pass() {
    fast_cases("norm even");
}

/// That all of at least so many mutants of the ops, or of the rest, turn their tests red.
fn all_are_seen(of_ops: bool, least: usize) {
    let mut all = mutants();
    all.retain(|m| m.test.starts_with("kernels::planted::") == of_ops);
    assert!(all.len() >= least, "{} mutants", all.len());
    for Mutant { mark, test, unit, file, find, replace } in all {
        assert!(
            !passes_with_header(&test, &unit, &file, &find, &replace),
            "{file}: unseen: {mark}"
        );
    }
}

#[test]
fn mutants_of_ops_are_seen() {
    // Red for the bug, not for how it was built.
    let same = "for (int j = 0; j < N; j++) v.v[j] *= p.scale;";
    assert!(passes_patched(CONVOLUTIONS, "kernels/conv2d_mma.cu", same, same));
    all_are_seen(true, 15);
}

#[test]
fn mutants_of_all_else_are_seen() {
    all_are_seen(false, 8);
}
