//! What is written of the declarations in `kernels/params`: Rust's structs, and the emulator's list of kernels.

use crate::params::{Declared, Entry, Field, Kind, Struct};
use std::fmt::Write as _;

/// The text of `src/device/params.rs`.
pub fn rust(declared: &Declared) -> String {
    let mut out = String::new();
    for c in &declared.constants {
        let kind = if c.kind == "int" { "usize" } else { &c.kind };
        out += &doc("", &c.doc);
        let _ = writeln!(out, "pub const {}: {kind} = {};", c.name, c.value);
    }
    for of in &declared.structs {
        out += &match of.name.as_str() {
            "Step" => words(declared, of),
            _ => params(declared, of),
        };
    }
    for entry in &declared.entries {
        out += &constant(declared, entry);
    }
    out
}

fn doc(indent: &str, text: &str) -> String {
    let escaped = text.trim_end().replace('[', "\\[").replace(']', "\\]").replace('<', "\\<");
    escaped
        .lines()
        .map(|line| format!("{indent}/// {line}").trim_end().to_string() + "\n")
        .collect()
}

/// A struct that a kernel takes, and where its fields go.
fn params(declared: &Declared, of: &Struct) -> String {
    let (mut fields, mut puts) = (String::new(), String::new());
    for (Field { doc: text, name, kind }, offset) in of.fields.iter().zip(declared.offsets(of)) {
        fields += &doc("    ", text);
        let at = if offset == 0 { "at".to_string() } else { format!("at + {offset}") };
        let (kind, put): (String, String) = match kind {
            Kind::Pointer { .. } => {
                ("Ptr".into(), format!("to.push(({at}, Arg::Ptr(self.{name})))"))
            }
            Kind::Struct(inner) => (inner.name.clone(), format!("self.{name}.put({at}, to)")),
            Kind::Structs { of: inner, count } => {
                let field = format!("{}.{name}", of.name);
                let put = format!("put_each(self.{name}, {count}, {at}, {field:?}, to)");
                (format!("Vec<{}>", inner.name), put)
            }
            Kind::Map { .. } => {
                let field = format!("{}.{name}", of.name);
                ("Map".into(), format!("to.push(({at}, Arg::Map(self.{name}.named({field:?}))))"))
            }
            Kind::Number(number) => {
                let told = |convert: &str| {
                    let field = format!("{}.{name}", of.name);
                    format!("to.push(({at}, self.{name}.{convert}({field:?})))")
                };
                let (kind, put) = match number.as_str() {
                    "int" => ("Int", told("int")),
                    "u32" => ("Int", told("u32")),
                    "i64" => ("Int", told("i64")),
                    "float" => ("f32", format!("to.push(({at}, Arg::F32(self.{name})))")),
                    "double" => ("f64", format!("to.push(({at}, Arg::F64(self.{name})))")),
                    other => panic!("kernels/params: {}.{name}: no parameter is {other}", of.name),
                };
                (kind.into(), put)
            }
        };
        let _ = writeln!(fields, "    pub {name}: {kind},");
        let _ = writeln!(puts, "        {put};");
    }
    let (Struct { name, header, .. }, bytes) = (of, declared.size(&of.name).0);
    let intro = format!("`{name}` of `kernels/params/{header}.h`.\n\n{}", of.doc);
    let copy = if declared.has_array(of) { "" } else { "Copy, " };
    format!(
        "{}#[derive(Debug, Clone, {copy}PartialEq)]\npub struct {name} {{\n{fields}}}\n\
         impl Fields for {name} {{\n    const BYTES: usize = {bytes};\n    \
         fn put(self, at: usize, to: &mut Vec<(usize, Arg)>) {{\n{puts}    }}\n}}\n",
        doc("", &intro)
    )
}

/// A struct of numbers that the host writes into memory as a whole.
fn words(declared: &Declared, of: &Struct) -> String {
    let (mut fields, mut puts) = (String::new(), String::new());
    for (Field { doc: text, name, kind }, at) in of.fields.iter().zip(declared.offsets(of)) {
        fields += &doc("    ", text);
        let Kind::Number(number) = kind else {
            panic!("kernels/params: {}.{name} is no number", of.name)
        };
        let kind = match number.as_str() {
            "int" => "i32",
            "float" => "f32",
            "double" => "f64",
            other => other,
        };
        let _ = writeln!(fields, "    pub {name}: {kind},");
        let end = at + declared.size_of(&Kind::Number(number.clone())).0;
        let _ =
            writeln!(puts, "        to[{at}..{end}].copy_from_slice(&self.{name}.to_ne_bytes());");
    }
    let (Struct { name, header, .. }, bytes) = (of, declared.size(&of.name).0);
    let intro = format!("`{name}` of `kernels/params/{header}.h`.\n\n{}", of.doc);
    format!(
        "{}#[derive(Debug, Clone, Copy, PartialEq, Default)]\npub struct {name} {{\n{fields}}}\n\
         impl {name} {{\n    /// 32-bit words that it takes.\n    pub const WORDS: usize = {bytes} / 4;\n    \
         /// As it lies in the GPU's memory.\n    pub fn words(&self) -> [f32; {bytes} / 4] {{\n        \
         let mut to = [0; {bytes}];\n{puts}        std::array::from_fn(|i| f32::from_ne_bytes(to.as_chunks::<4>().0[i]))\n    }}\n}}\n",
        doc("", &intro)
    )
}

/// A kernel's name, unit, and where its pointers and maps lie, with how what they point at is stored.
fn constant(declared: &Declared, entry: &Entry) -> String {
    let stored = declared.places(&entry.takes).into_iter().filter_map(|place| match place.kind {
        Kind::Pointer { to, .. } | Kind::Map { of: to } => {
            Some(format!("({}, {}), ", place.at, if to == "bf16" { "Bf16" } else { "F32" }))
        }
        _ => None,
    });
    let (stored, Entry { unit, kernel, takes, .. }) = (stored.collect::<String>(), entry);
    format!(
        "// SAFETY: a kernel of this name is declared to take that.\n\
         pub const {}: Entry<{}> = unsafe {{ Entry::new({kernel:?}, Unit::{unit}, &[{}]) }};\n",
        kernel.to_uppercase(),
        takes.name,
        stored.trim_end_matches(", ")
    )
}

/// C++ of the emulator: where fields must lie, and each kernel with its pointers.
#[cfg(feature = "emulator")]
pub fn registry(declared: &Declared) -> String {
    let mut out = String::from("#include \"prelude/prelude.cuh\"\n#include <cstddef>\n");
    for header in &declared.headers {
        let _ = writeln!(out, "#include \"params/{header}.h\"");
    }
    for Entry { kernel, takes, .. } in &declared.entries {
        let applied = match takes.arguments.as_slice() {
            [] => takes.name.clone(),
            arguments => format!("{}<{}>", takes.name, arguments.join(", ")),
        };
        let _ = writeln!(out, "namespace of_{kernel} {{\nusing P = {applied};");
        let bytes = declared.size(&takes.name).0;
        let _ = writeln!(out, "static_assert(sizeof(P) == {bytes}, \"the host packs so many\");");
        let mut pointers = String::new();
        for place in declared.places(takes) {
            let (path, at) = (&place.path, place.at);
            let _ = writeln!(
                out,
                "static_assert(offsetof(P, {path}) == {at}, \"the host puts it there\");"
            );
            if let Kind::Pointer { to, read_only } = &place.kind {
                let _ =
                    writeln!(pointers, "    {{\"{path}\", 0, {at}, alignof({to}), {read_only}}},");
            }
        }
        let _ = writeln!(
            out,
            "static emu::Kernel kernel{{\"{kernel}\", &emu::run_kernel<&::{kernel}>, &::{kernel}, {{\n{pointers}}}}};\n}}"
        );
    }
    out
}
