//! What `kernels/params/*.h` declare, in the grammar that `kernels/params/entry.h` lays down, and where C puts fields.

use std::fs;
use std::path::{Path, PathBuf};

/// All headers together.
#[derive(Default)]
pub struct Declared {
    /// Names of the headers.
    pub headers: Vec<String>,
    pub constants: Vec<Constant>,
    pub structs: Vec<Struct>,
    pub entries: Vec<Entry>,
}

pub struct Constant {
    pub doc: String,
    /// `int` or `u32`.
    pub kind: String,
    pub name: String,
    pub value: String,
}

pub struct Struct {
    pub doc: String,
    pub header: String,
    pub name: String,
    pub generics: Vec<String>,
    pub fields: Vec<Field>,
}

pub struct Field {
    pub doc: String,
    pub name: String,
    pub kind: Kind,
}

pub enum Kind {
    /// `int`, `u32`, `i64`, `u64`, `float` or `double`.
    Number(String),
    Pointer {
        to: String,
        read_only: bool,
    },
    Struct(Applied),
    /// So many of a struct, by the constant that says how many.
    Structs {
        of: Applied,
        count: String,
    },
    /// A tensor map, of a tensor of so stored elements.
    Map {
        of: String,
    },
}

/// `Name<bf16, float>`.
#[derive(Clone)]
pub struct Applied {
    pub name: String,
    pub arguments: Vec<String>,
}

/// A kernel and the struct that it takes, with tensor maps or without.
pub struct Entry {
    pub of_maps: bool,
    pub unit: String,
    pub kernel: String,
    pub takes: Applied,
}

/// A field of a struct or of one within it: its path, as `of.x1` or `jobs[3].to`, where it lies, and what it is of an
/// applied struct.
pub struct Place {
    pub path: String,
    pub at: usize,
    pub kind: Kind,
}

impl Declared {
    pub fn get(&self, name: &str) -> &Struct {
        let found = self.structs.iter().find(|s| s.name == name);
        found.unwrap_or_else(|| panic!("kernels/params: no struct {name}"))
    }

    /// How many structs an array of so many has.
    pub fn count(&self, name: &str) -> usize {
        let value = self.constants.iter().find(|c| c.name == name).map(|c| c.value.parse());
        let Some(Ok(count)) = value else { panic!("kernels/params: {name} is no constant number") };
        count
    }

    /// Bytes of a struct, and what its place is a multiple of.
    pub fn size(&self, name: &str) -> (usize, usize) {
        let (mut at, mut most) = (0_usize, 1);
        for field in &self.get(name).fields {
            let (size, align) = self.size_of(&field.kind);
            at = at.next_multiple_of(align) + size;
            most = most.max(align);
        }
        (at.next_multiple_of(most), most)
    }

    pub fn size_of(&self, kind: &Kind) -> (usize, usize) {
        match kind {
            Kind::Number(number) if ["int", "u32", "float"].contains(&number.as_str()) => (4, 4),
            Kind::Number(_) | Kind::Pointer { .. } => (8, 8),
            Kind::Struct(applied) => self.size(&applied.name),
            Kind::Structs { of, count } => {
                let (size, align) = self.size(&of.name);
                (size * self.count(count), align)
            }
            Kind::Map { .. } => (128, 64),
        }
    }

    /// The offsets of a struct's own fields.
    pub fn offsets(&self, of: &Struct) -> Vec<usize> {
        let mut end = 0_usize;
        let place = |field: &Field| {
            let (size, align) = self.size_of(&field.kind);
            let at = end.next_multiple_of(align);
            end = at + size;
            at
        };
        of.fields.iter().map(place).collect()
    }

    /// Whether an array is in it or in a struct within.
    pub fn has_array(&self, of: &Struct) -> bool {
        of.fields.iter().any(|field| match &field.kind {
            Kind::Structs { .. } => true,
            Kind::Struct(inner) => self.has_array(self.get(&inner.name)),
            _ => false,
        })
    }

    /// All numbers, pointers and maps, of structs within too.
    pub fn places(&self, applied: &Applied) -> Vec<Place> {
        let of = self.get(&applied.name);
        let of_generic = |name: &String| {
            let index = of.generics.iter().position(|g| g == name);
            index.map_or(name, |i| &applied.arguments[i]).clone()
        };
        let mut list = Vec::new();
        let within = |list: &mut Vec<Place>, inner: &Applied, path: &str, at: usize| {
            let arguments = inner.arguments.iter().map(of_generic).collect();
            let places = self.places(&Applied { name: inner.name.clone(), arguments });
            list.extend(places.into_iter().map(|place| Place {
                path: format!("{path}.{}", place.path),
                at: at + place.at,
                ..place
            }));
        };
        for (field, at) in of.fields.iter().zip(self.offsets(of)) {
            let path = field.name.clone();
            match &field.kind {
                Kind::Number(n) => list.push(Place { path, at, kind: Kind::Number(n.clone()) }),
                Kind::Pointer { to, read_only } => {
                    let kind = Kind::Pointer { to: of_generic(to), read_only: *read_only };
                    list.push(Place { path, at, kind });
                }
                Kind::Map { of } => {
                    list.push(Place { path, at, kind: Kind::Map { of: of_generic(of) } })
                }
                Kind::Struct(inner) => within(&mut list, inner, &path, at),
                Kind::Structs { of, count } => {
                    let size = self.size(&of.name).0;
                    for i in 0..self.count(count) {
                        within(&mut list, of, &format!("{path}[{i}]"), at + i * size);
                    }
                }
            }
        }
        list
    }
}

/// Bytes that a kernel may take on every GPU and driver.
const MOST_BYTES: usize = 4096;

/// Reads the headers. Panics at what the grammar does not have.
pub fn read(headers: &[PathBuf]) -> Declared {
    let mut declared = Declared::default();
    for path in headers.iter().filter(|path| !path.ends_with("entry.h")) {
        let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        Reader::new(path).read(&text, &mut declared);
    }
    for entry in &declared.entries {
        let of = declared.get(&entry.takes.name);
        let (has, wants) = (entry.takes.arguments.len(), of.generics.len());
        assert_eq!(has, wants, "kernels/params: types of {} for {}", of.name, entry.kernel);
        let bytes = declared.size(&of.name).0;
        assert!(
            bytes <= MOST_BYTES,
            "kernels/params: {} of {} takes {bytes} bytes, {MOST_BYTES} at most",
            of.name,
            entry.kernel
        );
        let places = declared.places(&entry.takes);
        let has_maps = places.iter().any(|place| matches!(place.kind, Kind::Map { .. }));
        let (kernel, macros) = (&entry.kernel, ["ENTRY", "ENTRY_OF_MAPS"]);
        let wanted = macros[has_maps as usize];
        assert!(
            entry.of_maps == has_maps,
            "kernels/params: {kernel} is to be declared by {wanted}"
        );
    }
    declared
}

struct Reader<'a> {
    path: &'a Path,
    header: String,
    line: usize,
    /// Lines of a comment that stands before something.
    doc: String,
    generics: Vec<String>,
    within: Option<Struct>,
}

impl<'a> Reader<'a> {
    fn new(path: &'a Path) -> Self {
        let header = path.file_stem().expect("a file").to_string_lossy().into_owned();
        let (doc, generics) = (String::new(), Vec::new());
        Reader { path, header, line: 0, doc, generics, within: None }
    }

    fn wrong(&self, text: &str) -> ! {
        let (path, line) = (self.path.display(), self.line);
        panic!("{path}:{line}: {text:?} is none of the declarations in kernels/params/entry.h")
    }

    fn read(&mut self, text: &str, into: &mut Declared) {
        into.headers.push(self.header.clone());
        for line in text.lines() {
            self.line += 1;
            let (code, comment) = line.split_once("//").unwrap_or((line, ""));
            let (code, comment) = (code.trim(), comment.trim());
            match (code, &mut self.within) {
                ("", _) if comment.is_empty() => self.doc.clear(),
                ("", _) => self.doc += &format!("{comment}\n"),
                ("};", within) => into.structs.extend(within.take()),
                (_, Some(_)) => self.fields(code, comment),
                _ => self.item(code, into),
            }
        }
    }

    fn item(&mut self, code: &str, into: &mut Declared) {
        let doc = std::mem::take(&mut self.doc);
        if code.starts_with('#') {
        } else if let Some(names) = between(code, "template <", ">") {
            self.generics = list(names).map(|g| last_word(g).to_string()).collect();
            self.doc = doc;
        } else if let Some(name) = between(code, "struct ", " {") {
            let (generics, header) = (std::mem::take(&mut self.generics), self.header.clone());
            let (name, fields) = (name.to_string(), Vec::new());
            self.within = Some(Struct { doc, header, name, generics, fields });
        } else if let Some((of_maps, text)) = ["ENTRY(", "ENTRY_OF_MAPS("]
            .iter()
            .enumerate()
            .find_map(|(i, word)| Some((i == 1, between(code, word, ")")?)))
        {
            let mut parts = text.splitn(3, ',').map(|part| part.trim().to_string());
            let (Some(unit), Some(kernel), Some(takes)) =
                (parts.next(), parts.next(), parts.next())
            else {
                self.wrong(code)
            };
            into.entries.push(Entry { of_maps, unit, kernel, takes: applied(&takes) });
        } else if let Some((kind, rest)) =
            between(code, "constexpr ", ";").and_then(|text| text.split_once(' '))
            && let Some((name, value)) = rest.split_once(" = ")
        {
            let [kind, name, value] = [kind, name, value].map(str::to_string);
            into.constants.push(Constant { doc, kind, name, value });
        } else {
            self.wrong(code)
        }
    }

    fn fields(&mut self, code: &str, comment: &str) {
        let mut doc = std::mem::take(&mut self.doc);
        doc += comment;
        let Some(text) = code.strip_suffix(';') else { self.wrong(code) };
        let mut declared = Vec::new();
        if let Some((of, name)) = text.split_once("* ") {
            let (read_only, to) = of.strip_prefix("const ").map_or((false, of), |to| (true, to));
            declared.push((name, Kind::Pointer { to: to.to_string(), read_only }));
        } else if let Some(of_map) = text.strip_prefix("TensorMap") {
            let (of, name) = match of_map.strip_prefix("Of<").and_then(|of| of.split_once("> ")) {
                Some(declared) => declared,
                None => ("bf16", of_map.trim()),
            };
            declared.push((name, Kind::Map { of: of.to_string() }));
        } else if let Some((array, count)) = text.strip_suffix(']').and_then(|t| t.split_once('['))
            && let Some((of, name)) = array.rsplit_once(' ')
        {
            let (of, count) = (applied(of), count.to_string());
            declared.push((name, Kind::Structs { of, count }));
        } else if let Some((of, name)) = text.split_once("> ") {
            declared.push((name, Kind::Struct(applied(&format!("{of}>")))));
        } else if let Some((kind, names)) = text.split_once(' ')
            && ["int", "u32", "i64", "u64", "float", "double"].contains(&kind)
        {
            declared.extend(list(names).map(|name| (name, Kind::Number(kind.to_string()))));
        }
        let is_name = |name: &str| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if declared.is_empty() || !declared.iter().all(|(name, _)| is_name(name)) {
            self.wrong(code)
        }
        let within = self.within.as_mut().expect("a struct is being read");
        let field =
            |(name, kind): (&str, Kind)| Field { doc: doc.clone(), name: name.into(), kind };
        within.fields.extend(declared.into_iter().map(field));
    }
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    text.strip_prefix(before)?.strip_suffix(after)
}

fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim)
}

fn last_word(text: &str) -> &str {
    text.split_whitespace().next_back().unwrap_or_default()
}

fn applied(text: &str) -> Applied {
    let (name, arguments) = text.split_once('<').unwrap_or((text, ""));
    let arguments = arguments.trim_end_matches('>');
    let arguments = list(arguments).filter(|a| !a.is_empty()).map(str::to_string).collect();
    Applied { name: name.trim().to_string(), arguments }
}
