//! Labels in the text of a `dataset.json`: `{"labels": [["00000/img00000000.png", 6], …]}` or `{"labels": null}`.

use super::archive::plain_name;
use crate::error::{OrExit as _, data};
use anyhow::Result;
use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::borrow::Cow;
use std::collections::HashMap;
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
    for (name, label) in entries {
        let label = label.map_err(|found| {
            data(format!(
                "{what}: expected one class index as the label of {name:?}, found {found}"
            ))
        })?;
        // As the names of a zip's entries are read.
        let name = match plain_name(&name) {
            Cow::Owned(plain) => Cow::Owned(plain),
            Cow::Borrowed(_) => name,
        };
        if let Some(name) = insert(&mut by_name, name, label) {
            return Err(data(format!("{what}: two labels for {name:?}")));
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

/// Inserts what is not there yet; the name if it is.
fn insert<'j>(
    by_name: &mut HashMap<Cow<'j, str>, u32>,
    name: Cow<'j, str>,
    label: u32,
) -> Option<Cow<'j, str>> {
    match by_name.contains_key(&name) {
        true => Some(name),
        false => {
            by_name.insert(name, label);
            None
        }
    }
}

/// The first labels of a file, and how many more it holds.
struct List<'j> {
    entries: Vec<LabelEntry<'j>>,
    more: usize,
}

/// A name with its label, or what stands where the label should.
type LabelEntry<'j> = (Cow<'j, str>, Result<u32, String>);

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
            match seq.next_element::<(Text, Label)>()? {
                Some((Text(name), Label(label))) => list.entries.push((name, label)),
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
struct Text<'j>(Cow<'j, str>);

impl<'j> Deserialize<'j> for Text<'j> {
    fn deserialize<D: Deserializer<'j>>(reader: D) -> Result<Self, D::Error> {
        struct Visit;
        impl<'j> Visitor<'j> for Visit {
            type Value = Text<'j>;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a text")
            }

            fn visit_borrowed_str<E: Error>(self, text: &'j str) -> Result<Text<'j>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Text<'j>, E> {
                Ok(Text(Cow::Owned(text.into())))
            }
        }
        reader.deserialize_str(Visit)
    }
}

/// A class index, or what stands in its place.
struct Label(Result<u32, String>);

impl<'j> Deserialize<'j> for Label {
    fn deserialize<D: Deserializer<'j>>(reader: D) -> Result<Self, D::Error> {
        reader.deserialize_any(VisitLabel).map(Label)
    }
}

struct VisitLabel;

impl<'j> Visitor<'j> for VisitLabel {
    type Value = Result<u32, String>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a class index")
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Self::Value, E> {
        Ok(u32::try_from(value).map_err(|_| value.to_string()))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Self::Value, E> {
        Ok(Err(value.to_string()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Self::Value, E> {
        Ok(Err(format!("{value:?}")))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Self::Value, E> {
        Ok(Err(value.to_string()))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Self::Value, E> {
        Ok(Err(format!("{:?}", value.chars().take(40).collect::<String>())))
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(Err("null".into()))
    }

    fn visit_seq<A: SeqAccess<'j>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Err("a list".into()))
    }

    fn visit_map<A: MapAccess<'j>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Err("an object".into()))
    }
}
