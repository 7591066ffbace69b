//! Values as YAML that people read and edit.

use serde_json::Value;

/// A YAML document: blocks of two spaces; texts in quotes wherever a reader could take them for something else.
pub fn document(head: &[String], value: &Value) -> String {
    let comment: String = head.iter().map(|line| format!("# {line}\n")).collect();
    let mut lines = Vec::new();
    block(value, 0, &mut lines);
    comment + &lines.join("\n") + "\n"
}

/// The lines of a mapping or sequence that is not empty.
fn block(value: &Value, indent: usize, lines: &mut Vec<String>) {
    let margin = " ".repeat(indent);
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                match is_block(value) {
                    true => {
                        lines.push(format!("{margin}{}:", text(key)));
                        block(value, indent + 2, lines);
                    }
                    false => lines.push(format!("{margin}{}: {}", text(key), scalar(value))),
                }
            }
        }
        Value::Array(items) => {
            for item in items {
                if !is_block(item) {
                    lines.push(format!("{margin}- {}", scalar(item)));
                    continue;
                }
                let first = lines.len();
                block(item, indent + 2, lines);
                // The item's first line bears the dash.
                lines[first].replace_range(indent..indent + 1, "-");
            }
        }
        _ => lines.push(format!("{margin}{}", scalar(value))),
    }
}

/// Whether it takes lines of its own; a sequence of numbers stands in one.
fn is_block(value: &Value) -> bool {
    match value {
        Value::Object(fields) => !fields.is_empty(),
        Value::Array(items) => items.iter().any(|item| !item.is_number()),
        _ => false,
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(of) => text(of),
        Value::Array(items) => {
            format!("[{}]", items.iter().map(scalar).collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

fn text(of: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    let word =
        of.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/') && of.chars().all(plain);
    let taken = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];
    if word && !taken.contains(&of.to_ascii_lowercase().as_str()) {
        return of.into();
    }
    let show = |c: char| match c {
        '"' | '\\' => format!("\\{c}"),
        ' '..='~' => c.to_string(),
        c if c.is_alphanumeric() => c.to_string(),
        c => format!("\\U{:08x}", u32::from(c)),
    };
    format!("\"{}\"", of.chars().map(show).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_are_written_as_yaml_reads_them() {
        let value = json!({
            "kind": "Job",
            "spec": {"suspend": true, "empty": {}, "values": [2, 3], "list": [{"a": "x y", "b": null}, "1"]},
            "on": "é\n\"$HOME\"\u{1f600}",
        });
        let want = "# two runs\nkind: Job\nspec:\n  suspend: true\n  empty: {}\n  values: [2, 3]\n  list:\n    - a: \"x y\"\n      \
                    b: null\n    - \"1\"\n\"on\": \"é\\U0000000a\\\"$HOME\\\"\\U0001f600\"\n";
        assert_eq!(document(&["two runs".into()], &value), want);
    }
}
