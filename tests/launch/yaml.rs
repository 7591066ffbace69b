//! Reads the YAML that is written here: blocks of mappings and sequences, numbers in brackets, texts plain or in double
//! quotes. What else there is in YAML is refused.

use serde_json::{Map, Value};

type Lines<'a> = std::iter::Peekable<std::vec::IntoIter<(usize, &'a str)>>;

pub fn read(text: &str) -> Value {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let lines = lines.map(|line| (line.len() - line.trim_start().len(), line.trim_start()));
    let mut lines = lines.collect::<Vec<_>>().into_iter().peekable();
    let value = block(&mut lines, 0);
    assert_eq!(lines.next(), None, "left over");
    value
}

fn block(lines: &mut Lines, indent: usize) -> Value {
    let is_item = |line: &str| line.starts_with("- ");
    match lines.peek() {
        Some(&(_, first)) if is_item(first) => {
            let mut items = Vec::new();
            while let Some((_, line)) = lines.next_if(|&(at, l)| at == indent && is_item(l)) {
                items.push(item(lines, indent + 2, &line[2..]));
            }
            Value::Array(items)
        }
        _ => {
            let mut fields = Map::new();
            while let Some((_, line)) = lines.next_if(|&(at, l)| at == indent && !is_item(l)) {
                field(lines, indent, line, &mut fields);
            }
            Value::Object(fields)
        }
    }
}

/// An item whose first line stands behind a dash: a scalar, or a mapping that goes on below.
fn item(lines: &mut Lines, indent: usize, first: &str) -> Value {
    if key(first).is_none() {
        return scalar(first);
    }
    let mut fields = Map::new();
    field(lines, indent, first, &mut fields);
    while let Some((_, line)) = lines.next_if(|&(at, l)| at == indent && !l.starts_with("- ")) {
        field(lines, indent, line, &mut fields);
    }
    Value::Object(fields)
}

/// A line's key and what follows its colon.
fn key(line: &str) -> Option<(String, &str)> {
    let end = match line.strip_prefix('"') {
        Some(rest) => {
            let mut escaped = false;
            let ends = |c| {
                let is = c == '"' && !escaped;
                escaped = c == '\\' && !escaped;
                is
            };
            rest.find(ends)? + 2
        }
        None => line.find(|c| ": ".contains(c))?,
    };
    let rest = line[end..].strip_prefix(':')?;
    Some((scalar(&line[..end]).as_str()?.into(), rest.trim_start()))
}

fn field(lines: &mut Lines, indent: usize, line: &str, fields: &mut Map<String, Value>) {
    let (key, rest) = key(line).unwrap_or_else(|| panic!("no key: {line}"));
    let value = if rest.is_empty() { block(lines, indent + 2) } else { scalar(rest) };
    assert_eq!(fields.insert(key, value), None, "twice: {line}");
}

fn scalar(text: &str) -> Value {
    if let Some(inner) = text.strip_prefix('[') {
        let inner = inner.strip_suffix(']').unwrap();
        return inner.split(", ").map(scalar).collect();
    }
    let Some(quoted) = text.strip_prefix('"') else {
        let json = serde_json::from_str(text);
        return json.unwrap_or_else(|_| Value::String(text.into()));
    };
    let (mut read, mut chars) = (String::new(), quoted.chars());
    loop {
        match chars.next().expect("a quote at the end") {
            '"' => break,
            '\\' => match chars.next() {
                Some('U') => {
                    let code: String = chars.by_ref().take(8).collect();
                    let code = u32::from_str_radix(&code, 16).unwrap();
                    read.push(char::from_u32(code).unwrap());
                }
                Some(c @ ('"' | '\\')) => read.push(c),
                other => panic!("escaped: {other:?}"),
            },
            c => read.push(c),
        }
    }
    assert_eq!(chars.next(), None, "after the quote: {text}");
    Value::String(read)
}
