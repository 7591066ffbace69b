//! Labels in the text of a `dataset.json`: `{"labels": [["00000/img00000000.png", 6], …]}` or `{"labels": null}`; beside them
//! `"names": ["cat/1.png", …]`, of each image in order, what its file was called where it came from.

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
use std::marker::PhantomData;

/// What a `dataset.json` says of the images of its set, in order.
#[derive(Debug, Default)]
pub struct Described {
    pub labels: Option<Vec<u32>>,
    /// What the images were called where they came from; empty where that is not said.
    pub names: Vec<String>,
}

/// What the text of a `dataset.json` says of each of `images`; labels are found by name.
///
/// # Errors
/// Data errors that begin with `what`.
pub fn parse_labels(json: &[u8], images: &[&str], what: &str) -> Result<Described> {
    let Found { labels, names } = read(json, images.len()).or_data(|| {
        format!(
            "{what}: expected {{\"labels\": [[\"name\", integer], ...]}} or {{\"labels\": null}}"
        )
    })?;
    let (names, extra) = names.map_or((Vec::new(), 0), |list| (list.entries, list.more));
    if !names.is_empty() && names.len() + extra != images.len() {
        let (names, images) = (names.len() + extra, images.len());
        return Err(data(format!("{what}: {names} names for {images} images")));
    }
    let names = names.into_iter().map(|Text(name)| name.into_owned()).collect();
    let Some(List { entries, more }) = labels else { return Ok(Described { labels: None, names }) };
    let all = entries.len() + more;
    let mut by_name = HashMap::with_capacity(entries.len());
    for (Text(name), value) in entries {
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
        None => Ok(Described { labels: Some(labels), names }),
        Some(name) => {
            let images = images.len();
            Err(data(format!("{what}: {all} labels for {images} images, {name:?} is not there")))
        }
    }
}

/// The first entries of a list, and how many more it holds.
struct List<T> {
    entries: Vec<T>,
    more: usize,
}

type Labels<'j> = List<(Text<'j>, &'j RawValue)>;

/// The lists of a file.
struct Found<'j> {
    labels: Option<Labels<'j>>,
    names: Option<List<Text<'j>>>,
}

/// Reads a file for a set of `images`; of more entries than that one more is kept, so that a small file that unpacks
/// to a long list takes no memory.
fn read(json: &[u8], images: usize) -> serde_json::Result<Found<'_>> {
    let mut reader = serde_json::Deserializer::from_slice(json);
    let found = reader.deserialize_map(Top { images })?;
    reader.end()?;
    Ok(found)
}

struct Top {
    images: usize,
}

impl<'j> Visitor<'j> for Top {
    type Value = Found<'j>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object with labels")
    }

    fn visit_map<A: MapAccess<'j>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut labels, mut names) = (None, None);
        while let Some(Text(key)) = map.next_key()? {
            match &*key {
                "labels" => {
                    if labels.replace(map.next_value_seed(ListOf::new(self.images))?).is_some() {
                        return Err(A::Error::duplicate_field("labels"));
                    }
                }
                "names" => {
                    if names.replace(map.next_value_seed(ListOf::new(self.images))?).is_some() {
                        return Err(A::Error::duplicate_field("names"));
                    }
                }
                _ => _ = map.next_value::<IgnoredAny>()?,
            }
        }
        let labels = labels.ok_or_else(|| A::Error::missing_field("labels"))?;
        Ok(Found { labels, names: names.flatten() })
    }
}

/// A list of so many values of a type, or null.
struct ListOf<T>(usize, PhantomData<T>);

impl<T> ListOf<T> {
    fn new(images: usize) -> Self {
        ListOf(images, PhantomData)
    }
}

impl<'j, T: Deserialize<'j>> serde::de::DeserializeSeed<'j> for ListOf<T> {
    type Value = Option<List<T>>;

    fn deserialize<D: Deserializer<'j>>(self, reader: D) -> Result<Self::Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'j, T: Deserialize<'j>> Visitor<'j> for ListOf<T> {
    type Value = Option<List<T>>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a list of names and labels, or null")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_seq<A: SeqAccess<'j>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut list = List { entries: Vec::new(), more: 0 };
        while list.entries.len() <= self.0 {
            match seq.next_element()? {
                Some(entry) => list.entries.push(entry),
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
