//! A column of one file: its pages are unpacked, and its values found in them.

use super::thrift::{BYTES_PER_BYTE, Value, parse};
use crate::data::source::{Place, Store};
use crate::error::OrExit as _;
use crate::memory::Budget;
use anyhow::{Result, anyhow, bail, ensure};
use std::io::Read as _;

/// Kinds of values.
pub const INT32: i64 = 1;
pub const INT64: i64 = 2;
pub const BYTE_ARRAY: i64 = 6;

/// Kinds of pages.
const DATA: i64 = 0;
const DICTIONARY: i64 = 2;
const DATA_V2: i64 = 3;

/// How values are written.
const PLAIN: i64 = 0;
const PLAIN_DICTIONARY: i64 = 2;
const RLE_DICTIONARY: i64 = 8;

/// Values in the description of a page.
const MAX_VALUES: usize = 256;
/// Bytes that a page may unpack to.
const MAX_PAGE: usize = 1 << 30;
/// Memory that a value takes, and its place while it is read.
const VALUE_BYTES: u64 = 80;

/// A value of a column: where its bytes lie, or a number; none where the row has none.
#[derive(Debug, Clone)]
pub enum Cell {
    None,
    At(Place),
    Number(i64),
}

/// What the schema says of a column.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub kind: i64,
    /// How many of it and its groups may be missing.
    pub optional: u32,
}

/// A file that is read.
pub struct Pages<'a> {
    pub file: &'a [u8],
    pub stores: &'a mut Vec<Store>,
    pub budget: &'a Budget,
    pub what: &'a dyn Fn() -> String,
}

impl Pages<'_> {
    /// The values of a column in one group of rows, whose description this is.
    ///
    /// # Errors
    /// Data errors that begin with the file: cut off, packed or written in a way that is not read, values that do not
    /// fit their number. Over the budget (exit 4).
    pub fn read(&mut self, chunk: &Value, shape: Shape) -> Result<Vec<Cell>> {
        let what = self.what;
        let rows = chunk.size(5).or_data(what)?;
        self.budget.keep((rows as u64).saturating_mul(VALUE_BYTES), what)?;
        let data = chunk.size(9).or_data(what)?;
        let dictionary = chunk.size(11).ok().filter(|&at| at > 0 && at < data);
        let (start, len) = (dictionary.unwrap_or(data), chunk.size(7).or_data(what)?);
        let end = start.checked_add(len).filter(|&end| end <= self.file.len());
        let end = end.ok_or_else(|| anyhow!("a column reaches behind its end")).or_data(what)?;
        let codec = chunk.int(4).unwrap_or(0);
        let (mut at, mut cells, mut dictionary) = (start, Vec::new(), Vec::new());
        while cells.len() < rows {
            let pages = &self.file[at..end];
            let _spent = self.budget.borrow(BYTES_PER_BYTE * MAX_VALUES as u64, what)?;
            let (head, head_len) = parse(pages, MAX_VALUES).or_data(what)?;
            let packed_len = head.size(3).or_data(what)?;
            let packed = pages.get(head_len..).and_then(|rest| rest.get(..packed_len));
            let packed = packed.ok_or_else(|| anyhow!("a page is cut off")).or_data(what)?;
            at += head_len + packed_len;
            match head.int(1) {
                Some(DICTIONARY) => dictionary = self.dictionary(&head, packed, codec, shape)?,
                Some(DATA | DATA_V2) => {
                    let left = rows - cells.len();
                    let more = self.data(&head, packed, codec, shape, &dictionary, left)?;
                    cells.extend(more);
                }
                _ => {}
            }
            if at >= end && cells.len() < rows {
                let found = cells.len();
                return Err(anyhow!("a column of {found} values, expected {rows}")).or_data(what);
            }
        }
        Ok(cells)
    }

    fn dictionary(
        &mut self,
        head: &Value,
        packed: &[u8],
        codec: i64,
        shape: Shape,
    ) -> Result<Vec<Cell>> {
        let what = self.what;
        let about = head.field(7).ok_or_else(|| anyhow!("a dictionary without its size"));
        let count = about.and_then(|about| about.size(1)).or_data(what)?;
        self.budget.keep((count as u64).saturating_mul(VALUE_BYTES), what)?;
        let store = self.unpack(packed, head.size(2).or_data(what)?, codec)?;
        self.plain(store, 0, count, shape).or_data(what)
    }

    fn data(
        &mut self,
        head: &Value,
        packed: &[u8],
        codec: i64,
        shape: Shape,
        dictionary: &[Cell],
        left: usize,
    ) -> Result<Vec<Cell>> {
        let what = self.what;
        let size = head.size(2).or_data(what)?;
        let second = head.int(1) == Some(DATA_V2);
        let about = head.field(if second { 8 } else { 5 });
        let about = about.ok_or_else(|| anyhow!("a page without its size")).or_data(what)?;
        let count = about.size(1).or_data(what)?;
        if count > left {
            return Err(anyhow!("a page of {count} values, expected at most {left}")).or_data(what);
        }
        let bits = 32 - shape.optional.leading_zeros();
        let (store, levels, start) = match second {
            true => {
                let lens = about.size(6).and_then(|repeated| Ok((repeated, about.size(5)?)));
                let (repeated, defined) = lens.or_data(what)?;
                let before = repeated.checked_add(defined).filter(|&n| n <= packed.len().min(size));
                let before = before.ok_or_else(|| anyhow!("a page is cut off")).or_data(what)?;
                let codec = if about.flag(7) == Some(false) { 0 } else { codec };
                let store = self.unpack(&packed[before..], size - before, codec)?;
                let levels = match bits {
                    0 => None,
                    _ => Some(hybrid(&packed[repeated..before], bits, count).or_data(what)?),
                };
                (store, levels, 0)
            }
            false => {
                let store = self.unpack(packed, size, codec)?;
                let bytes = &self.stores[store as usize][..];
                match bits {
                    0 => (store, None, 0),
                    _ => {
                        let head =
                            bytes.first_chunk::<4>().map(|&n| u32::from_le_bytes(n) as usize);
                        let defined = head.and_then(|len| Some((len, bytes.get(4..)?.get(..len)?)));
                        let found = defined.ok_or_else(|| anyhow!("a page is cut off"));
                        let (len, defined) = found.or_data(what)?;
                        let levels = hybrid(defined, bits, count).or_data(what)?;
                        (store, Some(levels), 4 + len)
                    }
                }
            }
        };
        let is_there = |level: &u32| *level == shape.optional;
        let there = levels.as_ref().map_or(count, |l| l.iter().filter(|l| is_there(l)).count());
        let encoding = about.int(if second { 4 } else { 2 });
        let values = match encoding {
            Some(PLAIN) => self.plain(store, start, there, shape).or_data(what)?,
            Some(PLAIN_DICTIONARY | RLE_DICTIONARY) => {
                let bytes = &self.stores[store as usize][start..];
                indices(bytes, there, dictionary).or_data(what)?
            }
            other => {
                let other = other.unwrap_or(-1);
                let why = "pyarrow's write_table(...) without encodings of one's own writes others";
                return Err(anyhow!("a column in encoding {other}, which is not read; {why}"))
                    .or_data(what);
            }
        };
        let Some(levels) = levels else { return Ok(values) };
        let mut values = values.into_iter();
        let cell =
            |level| if is_there(level) { values.next().unwrap_or(Cell::None) } else { Cell::None };
        Ok(levels.iter().map(cell).collect())
    }

    /// Unpacks a page into a store of its own.
    fn unpack(&mut self, packed: &[u8], size: usize, codec: i64) -> Result<u32> {
        let what = self.what;
        let bytes = (|| {
            ensure!(size <= MAX_PAGE, "a page of {size} bytes, at most {MAX_PAGE} are accepted");
            self.budget.keep(size as u64, what)?;
            let bytes = match codec {
                0 => packed.to_vec(),
                1 => {
                    ensure!(snap::raw::decompress_len(packed)? == size, "a page of another size");
                    snap::raw::Decoder::new().decompress_vec(packed)?
                }
                2 => read_up_to(flate2::read::MultiGzDecoder::new(packed), size)?,
                6 => {
                    let _spent = self.budget.borrow(2 * ZSTD_BYTES + 2 * size as u64, what)?;
                    let decoder = ruzstd::decoding::StreamingDecoder::new_with_max_window_size(
                        packed,
                        (size as u64).next_power_of_two().max(ZSTD_BYTES),
                    );
                    read_up_to(decoder.map_err(|e| anyhow!("a page that does not unpack: {e}"))?, size)?
                }
                other => {
                    let name = ["", "", "", "LZO", "Brotli", "LZ4", "", "LZ4"].get(other as usize);
                    let name = name.filter(|n| !n.is_empty()).unwrap_or(&"an unknown method");
                    bail!(
                        "packed by {name}, expected Snappy, gzip, Zstandard or none; pyarrow's write_table(..., \
                         compression=\"snappy\") packs it so"
                    )
                }
            };
            ensure!(bytes.len() == size, "a page of {} bytes, expected {size}", bytes.len());
            Ok(bytes)
        })()
        .or_data(what)?;
        self.stores.push(Store::Read(bytes));
        Ok(self.stores.len() as u32 - 1)
    }

    /// Values one after the other, each as it is.
    fn plain(&self, store: u32, start: usize, count: usize, shape: Shape) -> Result<Vec<Cell>> {
        let bytes = &self.stores[store as usize][..];
        let cut_off = || anyhow!("a page is cut off");
        let (mut at, mut cells) = (start, Vec::new());
        let mut take = |len: usize| {
            let taken = bytes.get(at..).and_then(|rest| rest.get(..len)).ok_or_else(cut_off)?;
            at += len;
            anyhow::Ok((taken, at))
        };
        for _ in 0..count {
            cells.push(match shape.kind {
                INT32 => Cell::Number(i32::from_le_bytes(take(4)?.0.try_into()?).into()),
                INT64 => Cell::Number(i64::from_le_bytes(take(8)?.0.try_into()?)),
                _ => {
                    let len = u32::from_le_bytes(take(4)?.0.try_into()?) as usize;
                    let end = take(len)?.1;
                    Cell::At((store, end - len..end))
                }
            });
        }
        Ok(cells)
    }
}

/// A window of Zstandard's that is taken however small a page is; its decoder takes no more beside it.
const ZSTD_BYTES: u64 = 1 << 20;

/// All that a reader gives, which is at most `size` bytes.
fn read_up_to(reader: impl std::io::Read, size: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(size);
    reader.take(size as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Values by their places in a dictionary: the width of a place in bits, then the places.
fn indices(bytes: &[u8], count: usize, dictionary: &[Cell]) -> Result<Vec<Cell>> {
    let (&bits, rest) = bytes.split_first().ok_or_else(|| anyhow!("a page is cut off"))?;
    ensure!(bits <= 32, "places of {bits} bits in a dictionary");
    let find = |i: u32| {
        dictionary
            .get(i as usize)
            .cloned()
            .ok_or_else(|| anyhow!("value {i}, which its dictionary lacks"))
    };
    hybrid(rest, bits.into(), count)?.into_iter().map(find).collect()
}

/// Numbers of so many bits in runs of one value, or packed by eights.
fn hybrid(bytes: &[u8], bits: u32, count: usize) -> Result<Vec<u32>> {
    let cut_off = || anyhow!("a page is cut off");
    let (bits, mut rest, mut out) = (bits as usize, bytes, Vec::new());
    if bits == 0 {
        return Ok(vec![0; count]);
    }
    let byte_len = bits.div_ceil(8);
    while out.len() < count {
        let head = varint(&mut rest)?;
        let run = (head >> 1) as usize;
        ensure!(run > 0, "a run of no values");
        let left = count - out.len();
        if head & 1 == 0 {
            let (value, behind) = rest.split_at_checked(byte_len).ok_or_else(cut_off)?;
            rest = behind;
            let value = value.iter().rev().fold(0, |v, &b| v << 8 | u64::from(b)) as u32;
            out.extend(std::iter::repeat_n(value, run.min(left)));
            continue;
        }
        // The last one may be cut where no values are.
        let len = rest.len().min(run.saturating_mul(bits));
        let (packed, behind) = rest.split_at(len);
        rest = behind;
        let values = left.min(run.saturating_mul(8));
        ensure!(values * bits <= 8 * packed.len(), "a page is cut off");
        out.extend((0..values).map(|i| {
            let (first, mut value) = (i * bits, 0_u64);
            for (k, &byte) in packed[first / 8..(first + bits).div_ceil(8)].iter().enumerate() {
                value |= u64::from(byte) << (8 * k);
            }
            (value >> (first % 8) & ((1 << bits) - 1)) as u32
        }));
    }
    Ok(out)
}

/// A number of up to 35 bits, seven in a byte.
fn varint(rest: &mut &[u8]) -> Result<u64> {
    let mut value = 0;
    for shift in (0..35).step_by(7) {
        let (&byte, behind) = rest.split_first().ok_or_else(|| anyhow!("a page is cut off"))?;
        *rest = behind;
        value |= u64::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    bail!("a run of far too many values")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_and_packed_numbers_are_read() {
        // The format's own example: 0 to 7 in 3 bits.
        let packed = [3, 0b1000_1000, 0b1100_0110, 0b1111_1010];
        assert_eq!(hybrid(&packed, 3, 8).unwrap(), [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(hybrid(&packed, 3, 5).unwrap(), [0, 1, 2, 3, 4]);
        assert_eq!(hybrid(&[10, 1, 4, 0], 1, 7).unwrap(), [1, 1, 1, 1, 1, 0, 0]);
        assert_eq!(hybrid(&[4, 0x34, 0x12], 13, 2).unwrap(), [0x1234; 2]);
        assert_eq!(hybrid(&[], 0, 3).unwrap(), [0; 3]);
        for wrong in [&packed[..3], &[], &[0, 1], &[4], &[255; 9]] {
            assert!(hybrid(wrong, 3, 8).is_err(), "{wrong:?}");
        }
    }
}
