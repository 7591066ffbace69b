//! Thrift's compact protocol, as Parquet describes itself in it: values as a tree.

use anyhow::{Result, anyhow, bail, ensure};

/// Structs within each other; Parquet's are few.
const MAX_DEPTH: usize = 16;
/// Memory that a byte may become: the shortest value of a list or struct takes one.
pub const BYTES_PER_BYTE: u64 = 64;

#[derive(Debug)]
pub enum Value<'a> {
    Bool(bool),
    Int(i64),
    Bytes(&'a [u8]),
    List(Vec<Value<'a>>),
    /// Fields by number.
    Struct(Vec<(i16, Value<'a>)>),
    /// A floating point number.
    Other,
}

impl<'a> Value<'a> {
    pub fn field(&self, id: i16) -> Option<&Value<'a>> {
        let Value::Struct(fields) = self else { return None };
        fields.iter().find(|(i, _)| *i == id).map(|(_, value)| value)
    }

    pub fn int(&self, id: i16) -> Option<i64> {
        match self.field(id)? {
            Value::Int(int) => Some(*int),
            _ => None,
        }
    }

    /// A number that is a size or count.
    pub fn size(&self, id: i16) -> Result<usize> {
        let size = self.int(id).and_then(|int| usize::try_from(int).ok());
        size.ok_or_else(|| anyhow!("its description lacks a size ({id})"))
    }

    pub fn flag(&self, id: i16) -> Option<bool> {
        match self.field(id)? {
            Value::Bool(flag) => Some(*flag),
            _ => None,
        }
    }

    pub fn list(&self, id: i16) -> &[Value<'a>] {
        match self.field(id) {
            Some(Value::List(items)) => items,
            _ => &[],
        }
    }

    pub fn text(&self, id: i16) -> Option<&'a str> {
        self.field(id)?.as_text()
    }

    pub fn as_text(&self) -> Option<&'a str> {
        match self {
            Value::Bytes(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }
}

/// The struct that `bytes` begin with, of at most so many values, and the number of bytes it takes.
///
/// # Errors
/// Cut off, of types that are not known, too deep, too many values.
pub fn parse(bytes: &[u8], most: usize) -> Result<(Value<'_>, usize)> {
    let mut reader = Reader { rest: bytes, left: most };
    let value = reader.structure(0)?;
    Ok((value, bytes.len() - reader.rest.len()))
}

struct Reader<'a> {
    rest: &'a [u8],
    /// Values that may still come.
    left: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let split = self.rest.split_at_checked(len);
        let (taken, rest) = split.ok_or_else(|| anyhow!("its description is cut off"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    fn varint(&mut self) -> Result<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        bail!("its description holds a number of over 64 bits")
    }

    fn int(&mut self) -> Result<i64> {
        let value = self.varint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    fn count(&mut self) -> Result<()> {
        let left = self.left.checked_sub(1);
        self.left = left.ok_or_else(|| anyhow!("its description is far too long"))?;
        Ok(())
    }

    fn structure(&mut self, depth: usize) -> Result<Value<'a>> {
        ensure!(depth < MAX_DEPTH, "its description nests too deep");
        let (mut fields, mut id) = (Vec::new(), 0_i16);
        loop {
            let head = self.byte()?;
            if head == 0 {
                return Ok(Value::Struct(fields));
            }
            id = match head >> 4 {
                0 => i16::try_from(self.int()?)?,
                delta => id.checked_add(delta.into()).ok_or_else(|| anyhow!("too many fields"))?,
            };
            self.count()?;
            let value = match head & 0x0F {
                1 => Value::Bool(true),
                2 => Value::Bool(false),
                kind => self.value(kind, depth)?,
            };
            fields.push((id, value));
        }
    }

    fn value(&mut self, kind: u8, depth: usize) -> Result<Value<'a>> {
        Ok(match kind {
            // Within a list each takes a byte.
            1 | 2 => Value::Bool(self.byte()? == 1),
            3 => Value::Int(i64::from(self.byte()? as i8)),
            4..=6 => Value::Int(self.int()?),
            7 => {
                self.take(8)?;
                Value::Other
            }
            8 => {
                let len = usize::try_from(self.varint()?)?;
                Value::Bytes(self.take(len)?)
            }
            9 | 10 => {
                ensure!(depth < MAX_DEPTH, "its description nests too deep");
                let head = self.byte()?;
                let count = match head >> 4 {
                    15 => usize::try_from(self.varint()?)?,
                    count => count.into(),
                };
                ensure!(count <= self.rest.len(), "its description is cut off");
                let mut items = Vec::new();
                for _ in 0..count {
                    self.count()?;
                    items.push(match head & 0x0F {
                        12 => self.structure(depth + 1)?,
                        kind => self.value(kind, depth + 1)?,
                    });
                }
                Value::List(items)
            }
            12 => self.structure(depth + 1)?,
            kind => bail!("its description holds a value of type {kind}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_struct_of_each_type_is_read() {
        // Fields 1: int -3, 2: "ab", 4: [1, 2] of i32, 5: {1: true}, 25: false.
        let bytes = [0x15, 5, 0x18, 2, b'a', b'b', 0x29, 0x25, 2, 4, 0x1C, 0x11, 0, 0x02, 50, 0, 9];
        let (value, len) = parse(&bytes, 9).unwrap();
        assert_eq!(len, 16);
        assert_eq!(
            (value.int(1), value.text(2), value.flag(25)),
            (Some(-3), Some("ab"), Some(false))
        );
        assert!(matches!(value.list(4), [Value::Int(1), Value::Int(2)]));
        assert_eq!(value.field(5).and_then(|v| v.flag(1)), Some(true));
        for len in 0..16 {
            assert!(parse(&bytes[..len], 9).is_err(), "{len}");
        }
        assert!(parse(&bytes, 7).is_err(), "too many");
        assert!(parse(&[0x1C; 1000], 1000).is_err(), "too deep");
        assert!(parse(&[0x19; 1000], 1000).is_err(), "lists, too");
        assert!(
            parse(&[0x19, 0xFC, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F, 0], 9).is_err(),
            "too long a list"
        );
    }
}
