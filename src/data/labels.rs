//! Labels in the text of a `dataset.json`: `{"labels": [["00000/img00000000.png", 6], …]}` or `{"labels": null}`.

use super::archive::plain_name;
use crate::error::{OrExit as _, data};
use anyhow::Result;
use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;

/// The label of each of `images` from the text of a `dataset.json`, by name.
///
/// # Errors
/// Data errors that begin with `what`.
pub fn parse_labels(json: &[u8], images: &[&str], what: &str) -> Result<Option<Vec<u32>>> {
    let list = read(json, images.len()).or_data(|| {
        format!(
            "{what}: expected {{\"labels\": [[\"name\", integer], ...]}} or {{\"labels\": null}}"
        )
    })?;
    let Some(List { entries, more }) = list else { return Ok(None) };
    let all = entries.len() + more;
    let mut by_name = HashMap::with_capacity(entries.len());
    for (name, value) in entries {
        let label = label(value).map_err(|found| {
            data(format!(
                "{what}: expected one class index as the label of {name:?}, found {found}"
            ))
        })?;
        // As the names of a zip's entries are read.
        let name = match plain_name(&name) {
            Cow::Owned(plain) => Cow::Owned(plain),
            Cow::Borrowed(_) => name,
        };
        match by_name.entry(name) {
            Entry::Occupied(known) => {
                return Err(data(format!("{what}: two labels for {:?}", known.key())));
            }
            Entry::Vacant(free) => _ = free.insert(label),
        }
    }
    let mut labels = Vec::with_capacity(images.len());
    for &image in images {
        let Some(label) = by_name.remove(image) else {
            return Err(data(format!("{what}: no label for {image:?}")));
        };
        labels.push(label);
    }
    match by_name.keys().min() {
        None => Ok(Some(labels)),
        Some(name) => {
            let images = images.len();
            Err(data(format!("{what}: {all} labels for {images} images, {name:?} is not there")))
        }
    }
}

/// The first labels of a file, and how many more it holds.
struct List<'j> {
    entries: Vec<(Cow<'j, str>, &'j RawValue)>,
    more: usize,
}

/// Reads a file for a set of `images`; of more entries than that one more is kept, so that a small file that unpacks
/// to a long list takes no memory.
fn read(json: &[u8], images: usize) -> serde_json::Result<Option<List<'_>>> {
    let mut reader = serde_json::Deserializer::from_slice(json);
    let list = reader.deserialize_map(Top { images })?;
    reader.end()?;
    Ok(list)
}

struct Top {
    images: usize,
}

impl<'j> Visitor<'j> for Top {
    type Value = Option<List<'j>>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object with labels")
    }

    fn visit_map<A: MapAccess<'j>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(Text(key)) = map.next_key()? {
            if key != "labels" {
                map.next_value::<IgnoredAny>()?;
            } else if found.replace(map.next_value_seed(LabelList(self.images))?).is_some() {
                return Err(A::Error::duplicate_field("labels"));
            }
        }
        found.ok_or_else(|| A::Error::missing_field("labels"))
    }
}

/// The value of `labels`, for so many images.
struct LabelList(usize);

impl<'j> serde::de::DeserializeSeed<'j> for LabelList {
    type Value = Option<List<'j>>;

    fn deserialize<D: Deserializer<'j>>(self, reader: D) -> Result<Self::Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'j> Visitor<'j> for LabelList {
    type Value = Option<List<'j>>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a list of names and labels, or null")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_seq<A: SeqAccess<'j>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut list = List { entries: Vec::new(), more: 0 };
        while list.entries.len() <= self.0 {
            match seq.next_element::<(Text, &RawValue)>()? {
                Some((Text(name), value)) => list.entries.push((name, value)),
                None => return Ok(Some(list)),
            }
        }
        while seq.next_element::<IgnoredAny>()?.is_some() {
            list.more += 1;
        }
        Ok(Some(list))
    }
}

/// A text, borrowed from the file where it has no escapes.
#[derive(Deserialize)]
struct Text<'j>(#[serde(borrow)] Cow<'j, str>);

/// A class index, or what stands in its place.
fn label(value: &RawValue) -> Result<u32, String> {
    let json = value.get();
    json.parse().map_err(|_| match json.as_bytes()[0] {
        b'[' => "a list".into(),
        b'{' => "an object".into(),
        b'"' => {
            let text: String = serde_json::from_str(json).unwrap_or_default();
            format!("{:?}", text.chars().take(40).collect::<String>())
        }
        _ => json.into(),
    })
}
