//! Bytes made wrong, by a seed: what storage, transfers and ill will do to files.

/// SplitMix64.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Below `end`; 0 where that is 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

/// Values at which sums wrap, counts end and signs change.
const EDGES: [u64; 12] = [
    0,
    1,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0xFFFF,
    0x7FFF_FFFF,
    0x8000_0000,
    0xFFFF_FFFF,
    0x7FFF_FFFF_FFFF_FFFF,
    0xFFFF_FFFF_FFFF_FFFF,
];

/// Changes `bytes` once to four times, and says how often. `others` are files to copy from.
pub fn mutate(bytes: &mut Vec<u8>, others: &[&[u8]], random: &mut Random) -> usize {
    // Mostly one: what several checks would refuse hides what one lets pass.
    let times = [1, 1, 1, 2, 3, 4][random.below(6)];
    for _ in 0..times {
        once(bytes, others, random);
    }
    times
}

fn once(bytes: &mut Vec<u8>, others: &[&[u8]], random: &mut Random) {
    let at = place(bytes.len(), random);
    let room = bytes.len() - at;
    let len = match random.below(4) {
        0 => random.below(room + 1),
        _ => random.below(room.min(40) + 1),
    };
    match random.below(14) {
        0..=3 if room > 0 => bytes[at] ^= 1 << random.below(8),
        4 if room > 0 => bytes[at] = random.next() as u8,
        5..=6 => {
            let width = [1, 2, 4, 8][random.below(4)].min(room);
            let value = EDGES[random.below(EDGES.len())];
            let value =
                if random.below(2) == 0 { value.to_le_bytes() } else { value.to_be_bytes() };
            let first = if value[0] == 0 && value[7] != 0 { 8 - width } else { 0 };
            bytes[at..at + width].copy_from_slice(&value[first..first + width]);
        }
        7 => bytes.truncate(at),
        8 => _ = bytes.drain(at..at + len),
        9 => {
            let part = bytes[at..at + len].to_vec();
            let to = place(bytes.len(), random);
            bytes.splice(to..to, part);
        }
        10 => {
            let part: Vec<u8> = (0..1 + random.below(20)).map(|_| random.next() as u8).collect();
            bytes.splice(at..at, part);
        }
        11 => bytes[at..at + len].fill([0, 0xFF][random.below(2)]),
        12 => {
            let other = others[random.below(others.len())];
            let from = random.below(other.len());
            let part = &other[from..(from + len).min(other.len())];
            bytes.splice(at..at + len, part.iter().copied());
        }
        _ => {
            let other = place(bytes.len(), random);
            let len = len.min(bytes.len() - other);
            for i in 0..len.min(room) {
                bytes.swap(at + i, other + i);
            }
        }
    }
}

/// A place up to the end, every other time near one end: there lie headers.
fn place(len: usize, random: &mut Random) -> usize {
    let near = random.below(len.min(200) + 1);
    match random.below(4) {
        0 => near,
        1 => len - near,
        _ => random.below(len + 1),
    }
}
