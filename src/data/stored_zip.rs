//! Writes zip files of stored entries, front to back; the same entries give the same bytes on every machine.
//! Own code, so that no version of a library changes these bytes.

use std::io::{self, Write};

/// Largest value that a 32-bit or 16-bit field holds itself; from here on zip64's fields do.
const MAX_32: u64 = u32::MAX as u64;
const MAX_16: u64 = u16::MAX as u64;
/// 1 January 1980, 0:00, in MS-DOS format.
const TIME_AND_DATE: [u8; 4] = [0, 0, 0x21, 0];

/// A zip file being written.
pub struct StoredZip<W> {
    out: W,
    /// Bytes written so far.
    offset: u64,
    directory: Vec<u8>,
    entries: u64,
}

impl<W: Write> StoredZip<W> {
    pub fn new(out: W) -> Self {
        StoredZip { out, offset: 0, directory: Vec::new(), entries: 0 }
    }

    /// Adds an entry whose contents are `parts`, one after the other. Names must differ.
    ///
    /// # Errors
    /// The writer's; a name over 65,535 bytes.
    pub fn add(&mut self, name: &str, parts: &[&[u8]]) -> io::Result<()> {
        let name_len = u16::try_from(name.len()).map_err(io::Error::other)?.to_le_bytes();
        let mut crc = flate2::Crc::new();
        parts.iter().for_each(|part| crc.update(part));
        let size: u64 = parts.iter().map(|part| part.len() as u64).sum();
        let (large, far) = (size >= MAX_32, self.offset >= MAX_32);

        // What the local header and the directory share: versions, flags, method, time, checksum, sizes.
        let mut fields = Vec::new();
        fields.extend([if large || far { 45 } else { 20 }, 0]);
        fields.extend([0, if name.is_ascii() { 0 } else { 8 }]);
        fields.extend([0, 0]);
        fields.extend(TIME_AND_DATE);
        fields.extend(crc.sum().to_le_bytes());
        fields.extend([low_32(if large { MAX_32 } else { size }); 2].concat());
        fields.extend(name_len);

        let sizes = if large { [size, size].map(u64::to_le_bytes).concat() } else { Vec::new() };
        let local =
            [b"PK\x03\x04", &fields[..], &extra_len(&sizes), name.as_bytes(), &extra(&sizes)];

        let mut in_directory = sizes.clone();
        if far {
            in_directory.extend(self.offset.to_le_bytes());
        }
        let offset = low_32(if far { MAX_32 } else { self.offset });
        let mode = (0o100_644_u32 << 16).to_le_bytes();
        let made_by_unix = [45, 3];
        for part in [
            b"PK\x01\x02",
            &made_by_unix[..],
            &fields,
            &extra_len(&in_directory),
            &[0; 6], // no comment, first disk, binary
            &mode,
            &offset,
            name.as_bytes(),
            &extra(&in_directory),
        ] {
            self.directory.extend(part);
        }
        self.entries += 1;
        for part in local.iter().chain(parts) {
            self.out.write_all(part)?;
            self.offset += part.len() as u64;
        }
        Ok(())
    }

    /// Writes the directory.
    ///
    /// # Errors
    /// The writer's.
    pub fn finish(mut self) -> io::Result<()> {
        let (start, size) = (self.offset, self.directory.len() as u64);
        self.out.write_all(&self.directory)?;
        if self.entries >= MAX_16 || start >= MAX_32 || size >= MAX_32 {
            let mut end = b"PK\x06\x06".to_vec();
            end.extend(44_u64.to_le_bytes());
            end.extend([45, 3, 45, 0]);
            end.extend([0; 8]);
            end.extend([self.entries, self.entries, size, start].map(u64::to_le_bytes).concat());
            end.extend(b"PK\x06\x07\0\0\0\0");
            end.extend((start + size).to_le_bytes());
            end.extend(1_u32.to_le_bytes());
            self.out.write_all(&end)?;
        }
        let entries = (self.entries.min(MAX_16) as u16).to_le_bytes();
        let mut end = b"PK\x05\x06\0\0\0\0".to_vec();
        end.extend([entries, entries].concat());
        end.extend([low_32(size.min(MAX_32)), low_32(start.min(MAX_32))].concat());
        end.extend([0, 0]);
        self.out.write_all(&end)
    }
}

fn low_32(value: u64) -> [u8; 4] {
    (value as u32).to_le_bytes()
}

/// The zip64 field with these values, or nothing.
fn extra(values: &[u8]) -> Vec<u8> {
    match values.len() as u8 {
        0 => Vec::new(),
        len => [&[1, 0, len, 0], values].concat(),
    }
}

fn extra_len(values: &[u8]) -> [u8; 2] {
    (extra(values).len() as u16).to_le_bytes()
}
