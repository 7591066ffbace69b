//! Rules of sources that no compiler knows: of kernels, and of how long files and functions are.

use std::path::Path;

/// What `source` does that it must not, a line each.
fn wrong(source: &str) -> Vec<String> {
    let lines = source.lines().map(|line| line.split("//").next().unwrap_or_default());
    let code = (lines.collect::<Vec<_>>().join("\n") + "\n").replace("\\\n", " ");
    let mut wrong = Vec::new();
    if code.contains("reinterpret_cast") || code.contains("const_cast") {
        wrong.push("casts a pointer: view_as does that, and sees a misaligned one".to_string());
    }
    for part in code.split('(').skip(1) {
        let Some(inside) = part.split_once(')').map(|(inside, _)| inside.trim()) else { continue };
        let Some(to) = inside.strip_suffix('*') else { continue };
        if to.split_whitespace().all(|word| word.chars().all(|c| c.is_alphanumeric() || c == '_')) {
            wrong.push(format!("casts a pointer to {inside}: view_as does that"));
        }
    }
    for kernel in code.split("__global__").skip(1) {
        let signature = kernel.split('{').next().unwrap_or_default().trim();
        if !signature.ends_with(" p)") || signature.contains('*') {
            wrong.push(format!("{signature}: a kernel takes one struct of kernels/params, p"));
        }
    }
    wrong
}

/// A cast may be to an address that a GPU refuses: the emulator checks what goes through view_as. What kernels take is
/// declared where the host and the emulator know of it.
#[test]
fn kernels_cast_by_view_as_and_take_what_is_declared() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels");
    let mut files = 0;
    for folder in [root.clone(), root.join("prelude")] {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let kernels = path.extension().is_some_and(|e| e == "cu" || e == "cuh");
            if !kernels || path.ends_with("prims.cuh") {
                continue;
            }
            let found = wrong(&std::fs::read_to_string(&path).unwrap());
            assert!(found.is_empty(), "{}: {}", path.display(), found.join("\n"));
            files += 1;
        }
    }
    assert!(files > 30, "{files} files");
}

#[test]
fn planted_casts_are_found() {
    for planted in [
        "float4 v = *reinterpret_cast<const float4*>(p);",
        "float4 v = *(const float4*)p;",
        "u32 v = ((u32 *) p)[i];",
        "*const_cast<float*>(p) = 1.0f;",
        "extern \"C\" __global__ void k(float* y, const float* __restrict__ x, int n) {",
        "__global__ void __launch_bounds__(256) k(const Sum p, \\\n    const float* b) {",
        "extern \"C\" __global__ void k(int n) {",
    ] {
        assert_eq!(wrong(planted).len(), 1, "{planted}");
    }
    for right in [
        "float4 v = *view_as<const float4*>(p);  // not *(float4*)p",
        "i64 at = (i64)p + (a * b) * c;",
        "u64 word = (u64)p & 15;",
        "extern \"C\" __global__ void __launch_bounds__(256) k(const Sum<float> p) {\n    const float* a = p.x;",
    ] {
        assert!(wrong(right).is_empty(), "{right}");
    }
}

/// Lines of each function that begins and ends at one indentation: name and count.
fn functions(source: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = source.lines().collect();
    let mut found = Vec::new();
    for (i, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let indent = &line[..line.len() - code.len()];
        let words = ["pub ", "pub(super) ", "pub(crate) ", "const ", "unsafe "];
        let signature =
            words.iter().fold(code, |code, word| code.strip_prefix(word).unwrap_or(code));
        let Some(name) = signature.strip_prefix("fn ").filter(|_| !code.ends_with(['}', ';']))
        else {
            continue;
        };
        let end = format!("{indent}}}");
        let Some(len) = lines[i..].iter().position(|l| *l == end) else { continue };
        found.push((name.split(['(', '<']).next().unwrap_or(name).into(), len + 1));
    }
    found
}

#[test]
fn files_and_functions_are_short() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut long = Vec::new();
    for file in
        ["src", "build"].iter().flat_map(|folder| crate::layers::sources(&root.join(folder)))
    {
        let (text, name) = (std::fs::read_to_string(&file).unwrap(), file.display());
        if text.lines().count() > 500 {
            long.push(format!("{name}: {} lines", text.lines().count()));
        }
        for (function, lines) in functions(&text).into_iter().filter(|f| f.1 > 80) {
            long.push(format!("{name}: {function} has {lines} lines"));
        }
    }
    assert!(long.is_empty(), "{}", long.join("\n"));
    let planted =
        format!("impl A {{\n    pub fn b(\n    ) {{\n{}    }}\n}}\n", "        c();\n".repeat(78));
    assert_eq!(functions(&planted), [("b".to_string(), 81)]);
}
