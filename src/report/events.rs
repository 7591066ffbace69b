//! TensorBoard's event files: events of protobuf in frames of TFRecord, as far as scalars and images need them.
//!
//! Formats: tensorflow/core/lib/io/record_writer.h (frames), event.proto and summary.proto of tensorboard/compat/proto.

use crc::{CRC_32_ISCSI, Crc, Table};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// What begins an event file's name; its time of birth in seconds follows, by which readers sort.
const NAME: &str = "events.out.tfevents.";

/// The checksum of frames: CRC-32C (Castagnoli).
static CRC: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_ISCSI);

/// What is shown at a step.
#[derive(Debug, Clone, PartialEq)]
pub enum Shown {
    Scalar(f64),
    /// A PNG file's bytes.
    Png(Vec<u8>),
}

/// An event file that is written to.
pub struct EventFile(File);

impl EventFile {
    /// Begins a new file in `folder`, which is made if it is not there. What earlier files there say of `first_step`
    /// and steps after it is taken back.
    ///
    /// # Errors
    /// Of the system.
    pub fn create(folder: &Path, first_step: u64) -> io::Result<EventFile> {
        fs::create_dir_all(folder)?;
        // Later than every file that is there, whatever the clock says: readers go by the names.
        let begun = |entry: io::Result<fs::DirEntry>| -> io::Result<u64> {
            let name = entry?.file_name();
            let time = name.to_str().and_then(|name| name.strip_prefix(NAME));
            Ok(time.and_then(|t| t.split('.').next()?.parse().ok()).unwrap_or(0))
        };
        let last =
            fs::read_dir(folder)?.map(begun).try_fold(0, |last, at| at.map(|at| last.max(at)))?;
        let time = (unix_s() as u64).max(last.saturating_add(1));
        let path = folder.join(format!("{NAME}{time:010}.emm"));
        let mut file = EventFile(File::options().write(true).create_new(true).open(path)?);
        file.event(0, |event| bytes(event, 3, b"brain.Event:2"))?;
        // SessionLog.status = START: readers drop what they have of this step and of later ones.
        file.event(first_step, |event| bytes(event, 7, &[1 << 3, 1]))?;
        Ok(file)
    }

    /// Adds what is shown at `step` under each tag, all of it in one write.
    ///
    /// # Errors
    /// Of the system.
    pub fn write(&mut self, step: u64, shown: &[(&str, Shown)]) -> io::Result<()> {
        let mut summary = Vec::new();
        for (tag, shown) in shown {
            let mut value = Vec::new();
            bytes(&mut value, 1, tag.as_bytes());
            match shown {
                Shown::Scalar(x) => {
                    key(&mut value, 2, 5);
                    value.extend((*x as f32).to_le_bytes());
                }
                Shown::Png(png) => bytes(&mut value, 4, &image(png)),
            }
            bytes(&mut summary, 1, &value);
        }
        self.event(step, |event| bytes(event, 5, &summary))
    }

    fn event(&mut self, step: u64, what: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        let mut event = Vec::new();
        key(&mut event, 1, 1);
        event.extend(unix_s().to_le_bytes());
        key(&mut event, 2, 0);
        varint(&mut event, step);
        what(&mut event);
        self.0.write_all(&frame(&event))
    }
}

fn unix_s() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

/// Summary.Image of a PNG, whose size stands at the same place in every one.
fn image(png: &[u8]) -> Vec<u8> {
    let side =
        |at: usize| png.get(at..at + 4).map_or(0, |b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]));
    let mut image = Vec::new();
    // Height, width, and RGB as the colour space.
    for (field, number) in [(1, side(20)), (2, side(16)), (3, 3)] {
        key(&mut image, field, 0);
        varint(&mut image, number as u64);
    }
    bytes(&mut image, 4, png);
    image
}

/// A record: its length, the length's checksum, the bytes, their checksum.
fn frame(record: &[u8]) -> Vec<u8> {
    let length = (record.len() as u64).to_le_bytes();
    let mut frame = length.to_vec();
    frame.extend(masked(&length).to_le_bytes());
    frame.extend(record);
    frame.extend(masked(record).to_le_bytes());
    frame
}

/// A checksum as records hold it: turned and shifted, so that one of bytes that hold checksums is of use.
fn masked(bytes: &[u8]) -> u32 {
    CRC.checksum(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// A field's number and how its value is stored: 0 varint, 1 eight bytes, 2 length and bytes, 5 four bytes.
fn key(out: &mut Vec<u8>, field: u64, stored: u64) {
    varint(out, field << 3 | stored);
}

fn bytes(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    key(out, field, 2);
    varint(out, bytes.len() as u64);
    out.extend(bytes);
}

/// Seven bits a byte, lowest first.
fn varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 3720, B.4, and the check value that catalogues of CRCs give.
    #[test]
    fn checksums_are_those_of_rfc_3720() {
        let rising: Vec<u8> = (0..32).collect();
        let falling: Vec<u8> = (0..32).rev().collect();
        for (bytes, sum) in [
            (&[0; 32][..], 0x8a91_36aa),
            (&[0xff; 32], 0x62a8_ab43),
            (&rising, 0x46dd_794e),
            (&falling, 0x113f_db5c),
            (b"123456789", 0xe306_9283),
        ] {
            assert_eq!(CRC.checksum(bytes), sum);
        }
    }

    #[test]
    fn files_of_one_folder_sort_by_their_birth() {
        let dir = tempfile::tempdir().unwrap();
        let ahead = dir.path().join(format!("{NAME}9999999998.other.host"));
        fs::write(&ahead, "").unwrap();
        EventFile::create(dir.path(), 0).unwrap();
        assert!(dir.path().join(format!("{NAME}9999999999.emm")).exists());
    }
}
