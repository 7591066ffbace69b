//! Dot products of integers, many by many: a tile of 12 rows by 32 columns stays in registers while their whole
//! length passes. Exact, so every instruction set gives the same numbers.
//!
//! Columns (images) are packed 32 to a panel, rows (queries) 12 to a tile; both as 32-bit words of neighbouring
//! values, so that one instruction multiplies a word of a row with that of 16 or 8 columns. A panel of CIFAR's
//! images takes 96 KiB of the second-level cache and is read once per tile of rows; no sum leaves the registers.

#[cfg(target_arch = "x86_64")]
use crate::simd::level;
use crate::simd::vectorized;
use bytemuck::{Pod, Zeroable};

/// Rows of a tile.
pub const ROWS: usize = 12;
/// Columns of a panel.
pub const COLUMNS: usize = 32;

/// A word of each of a panel's columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C, align(64))]
pub struct DotLanes(pub [i32; COLUMNS]);

/// A word of each of a tile's rows.
pub type Word = [i32; ROWS];

/// Instructions that multiply, and that this processor has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Isa(DotSet);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DotSet {
    /// AVX-512 with VNNI: `vpdpbusd`, `vpdpwssd`.
    Vnni,
    /// AVX2: `vpmaddwd`, on bytes widened to 16 bits. `vpmaddubsw` would saturate.
    Avx2,
    /// Whatever the compiler makes of it.
    Portable,
}

impl Isa {
    /// Those that this processor has, at most at the [`level`] that is asked for; fastest first.
    pub fn available() -> Vec<Isa> {
        let mut found = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            if level() >= 4 && is_x86_feature_detected!("avx512vnni") {
                found.push(Isa(DotSet::Vnni));
            }
            if level() >= 3 {
                found.push(Isa(DotSet::Avx2));
            }
        }
        found.push(Isa(DotSet::Portable));
        found
    }

    /// The fastest that this processor has.
    pub fn best() -> Isa {
        Isa::available()[0]
    }

    /// `vnni`, `avx2` or `portable`.
    pub fn name(self) -> &'static str {
        match self.0 {
            DotSet::Vnni => "vnni",
            DotSet::Avx2 => "avx2",
            DotSet::Portable => "portable",
        }
    }

    /// How pixels are put into words.
    pub fn bytes(self) -> DotForm {
        if self.0 == DotSet::Vnni { DotForm::Quads } else { DotForm::Pairs }
    }

    /// The dot products of a tile of rows with a panel's columns, for the fastest code whose `form` this set has.
    ///
    /// Writes `keys[row][column] = base[column] − 2·dot` and returns which columns of each row have a key of at
    /// most `limit[row]`, a bit each. Keys are right modulo 2³².
    pub fn tile(
        self,
        form: DotForm,
        rows: &[Word],
        panel: &[DotLanes],
        base: &DotLanes,
        limit: &Word,
        keys: &mut [DotLanes; ROWS],
    ) -> [u32; ROWS] {
        assert_eq!(rows.len(), panel.len(), "rows and columns of one length");
        match (self.0, form) {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: only `available` gives out an Isa, and it has found the features.
            (DotSet::Vnni, DotForm::Quads) => unsafe {
                x86::quads_512(rows, panel, base, limit, keys)
            },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            (DotSet::Vnni, DotForm::Pairs) => unsafe {
                x86::pairs_512(rows, panel, base, limit, keys)
            },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            (DotSet::Avx2, DotForm::Pairs) => unsafe {
                x86::pairs_256(rows, panel, base, limit, keys)
            },
            (_, DotForm::Pairs) => portable(rows, panel, base, limit, keys),
            (_, DotForm::Quads) => unreachable!("{self:?} has no quads"),
        }
    }
}

/// How values lie in a word, lowest bits first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DotForm {
    /// Four: unsigned bytes in columns, signed bytes in rows.
    Quads,
    /// Two of 16 bits, signed.
    Pairs,
}

impl DotForm {
    /// Values of a word.
    pub fn values(self) -> usize {
        match self {
            DotForm::Quads => 4,
            DotForm::Pairs => 2,
        }
    }

    /// What is taken off a pixel in a row, so that it fits: dot(c, r − bias) = dot(c, r) − bias·Σc.
    pub fn bias(self) -> i32 {
        match self {
            DotForm::Quads => 128,
            DotForm::Pairs => 0,
        }
    }

    /// Digits that a fixed-point number of 31 bits is cut into, to be multiplied with pixels.
    pub fn digits(self) -> usize {
        match self {
            DotForm::Quads => 4,
            DotForm::Pairs => 3,
        }
    }

    /// Bits of a digit; a digit is at least −2^(bits − 1) and below 2^(bits − 1).
    fn digit_bits(self) -> u32 {
        match self {
            DotForm::Quads => 8,
            DotForm::Pairs => 11,
        }
    }

    /// Words at most in one call for pixels with digits: |2·dot| stays below 2³¹.
    pub fn max_digit_words(self) -> usize {
        match self {
            DotForm::Quads => 8192,
            DotForm::Pairs => 2048,
        }
    }

    /// One word of up to as many values as fit; missing ones are 0.
    #[inline(always)]
    pub fn word(self, values: &[i32]) -> i32 {
        let mut word = 0;
        for (i, &v) in values.iter().enumerate() {
            word |= match self {
                DotForm::Quads => (v & 0xff) << (8 * i),
                DotForm::Pairs => (v & 0xffff) << (16 * i),
            };
        }
        word
    }
}

/// Words at most in one call for pixels with pixels: with 8,192, |base − 2·dot| < 2³¹ in either form.
pub const MAX_WORDS: usize = 8192;

/// Packs words `first..first + panel.len()` of up to 32 images of `len` pixels, one after the other, as columns.
pub fn pack_columns(
    form: DotForm,
    images: &[u8],
    len: usize,
    first: usize,
    panel: &mut [DotLanes],
) {
    const BLOCK: usize = 16;
    if images.len() < COLUMNS * len {
        panel.fill(DotLanes::zeroed());
    }
    let n = form.values();
    // A block of words of all images: what is written stays in the first-level cache.
    for (b, block) in panel.chunks_mut(BLOCK).enumerate() {
        let start = (first + b * BLOCK) * n;
        for (column, image) in images.chunks_exact(len).enumerate() {
            let pixels = &image[start.min(len)..(start + block.len() * n).min(len)];
            let words = pixels.chunks_exact(n);
            let rest = words.remainder();
            let whole = words.len();
            for (lanes, w) in block.iter_mut().zip(words) {
                lanes.0[column] = match form {
                    DotForm::Quads => i32::from_le_bytes([w[0], w[1], w[2], w[3]]),
                    DotForm::Pairs => w[0] as i32 | (w[1] as i32) << 16,
                };
            }
            if !rest.is_empty() {
                let mut values = [0; 4];
                values.iter_mut().zip(rest).for_each(|(v, &u)| *v = u as i32);
                block[whole].0[column] = form.word(&values[..n]);
            }
        }
    }
}

/// Packs up to 12 images of `len` pixels, one after the other, as rows; those that are missing are zeros.
pub fn pack_rows(form: DotForm, images: &[u8], len: usize, tile: &mut [Word]) {
    tile.fill([0; ROWS]);
    for (row, image) in images.chunks_exact(len).enumerate() {
        for (word, pixels) in tile.iter_mut().zip(image.chunks(form.values())) {
            let mut values = [0; 4];
            values.iter_mut().zip(pixels).for_each(|(v, &u)| *v = u as i32 - form.bias());
            word[row] = form.word(&values[..pixels.len()]);
        }
    }
}

vectorized! {
    /// Packs the other way about: the columns are pixels `first..` (up to 32 of them), their values those of images.
    pub fn pack_across(form: DotForm, images: &[u8], len: usize, first: usize, panel: &mut [DotLanes]) {
        let (n, width) = (form.values(), COLUMNS.min(len - first));
        for (lanes, images) in panel.iter_mut().zip(images.chunks(n * len)) {
            *lanes = DotLanes::zeroed();
            for (i, image) in images.chunks_exact(len).enumerate() {
                let shift = 32 / n * i;
                for (lane, &u) in lanes.0.iter_mut().zip(&image[first..first + width]) {
                    *lane |= (u as i32) << shift;
                }
            }
        }
    }
}

/// Packs the lowest `digits` digits of fixed-point numbers, |v| ≤ 2³⁰, as rows: those of vector `i` in rows
/// `i·digits ..`. At most 12 / `digits` vectors of one length; what is missing is zeros.
pub fn pack_digits<'v>(
    form: DotForm,
    digits: usize,
    vectors: impl Iterator<Item = &'v [i32]>,
    tile: &mut [Word],
) {
    tile.fill([0; ROWS]);
    for (i, vector) in vectors.enumerate() {
        for (word, values) in tile.iter_mut().zip(vector.chunks(form.values())) {
            let mut four = [0; 4];
            four[..values.len()].copy_from_slice(values);
            for (j, row) in word[i * digits..][..digits].iter_mut().enumerate() {
                *row = digit(form, four, j);
            }
        }
    }
}

/// The `j`th digits of a word's values, lowest first.
#[inline(always)]
fn digit(form: DotForm, values: [i32; 4], j: usize) -> i32 {
    // Half a digit added everywhere makes digits unsigned; taken off each again, they are signed.
    match form {
        DotForm::Quads => {
            let half = 0x8080_8080_u32 as i32;
            form.word(&values.map(|v| (v.wrapping_add(half) ^ half) >> (8 * j)))
        }
        DotForm::Pairs => {
            let (half, one) = (1 << 10 | 1 << 21, 11 * j);
            let digit = |v: i32| {
                ((v.wrapping_add(half) >> one) & if j < 2 { 0x7ff } else { -1 })
                    - if j < 2 { 1 << 10 } else { 0 }
            };
            form.word(&[digit(values[0]), digit(values[1])])
        }
    }
}

/// Adds to `sums[i][column]` the dot product of fixed-point vector `i` of a tile, as [`pack_digits`] packs them, with
/// each of a panel's columns: exactly.
pub fn add_fixed_dots(
    isa: Isa,
    form: DotForm,
    digits: usize,
    rows: &[Word],
    panel: &[DotLanes],
    sums: &mut [[i64; COLUMNS]],
) {
    let (zero, none, mut keys) = (DotLanes::zeroed(), [i32::MIN; ROWS], [DotLanes::zeroed(); ROWS]);
    let words = form.max_digit_words();
    for (rows, panel) in rows.chunks(words).zip(panel.chunks(words)) {
        isa.tile(form, rows, panel, &zero, &none, &mut keys);
        for (sums, keys) in sums.iter_mut().zip(keys.chunks(digits)) {
            for (j, keys) in keys.iter().enumerate() {
                let shift = form.digit_bits() * j as u32;
                for (sum, key) in sums.iter_mut().zip(keys.0) {
                    // A key is −2·dot.
                    *sum -= ((key >> 1) as i64) << shift;
                }
            }
        }
    }
}

/// Calls `hit(row, column, key)` for each pair of a panel with any of the tiles in `rows` whose key, base − 2·dot, is
/// at most what `limits` says of the tile's rows. `valid` has a bit for each column that counts.
pub fn scan(
    isa: Isa,
    form: DotForm,
    (panel, base): (&[DotLanes], &DotLanes),
    valid: u32,
    rows: &[Word],
    limits: impl Fn(usize) -> Word,
    mut hit: impl FnMut(usize, usize, i32),
) {
    let mut keys = [DotLanes::zeroed(); ROWS];
    for (t, rows) in rows.chunks_exact(panel.len()).enumerate() {
        let masks = isa.tile(form, rows, panel, base, &limits(t), &mut keys);
        for (r, mask) in masks.into_iter().enumerate() {
            let mut mask = mask & valid;
            while mask != 0 {
                let column = mask.trailing_zeros() as usize;
                mask &= mask - 1;
                hit(t * ROWS + r, column, keys[r].0[column]);
            }
        }
    }
}

/// The lowest `n` bits, at most one for each column.
pub fn first_bits(n: usize) -> u32 {
    ((1u64 << n.min(COLUMNS)) - 1) as u32
}

fn portable(
    rows: &[Word],
    panel: &[DotLanes],
    base: &DotLanes,
    limit: &Word,
    keys: &mut [DotLanes; ROWS],
) -> [u32; ROWS] {
    let mut masks = [0; ROWS];
    for r in 0..ROWS {
        let mut dots = [0i32; COLUMNS];
        for (row, lanes) in rows.iter().zip(panel) {
            let (low, high) = (row[r] as i16 as i32, row[r] >> 16);
            for (dot, &lane) in dots.iter_mut().zip(&lanes.0) {
                let product = (lane as i16 as i32 * low).wrapping_add((lane >> 16) * high);
                *dot = dot.wrapping_add(product);
            }
        }
        for (c, dot) in dots.into_iter().enumerate() {
            let key = base.0[c].wrapping_sub(dot.wrapping_mul(2));
            keys[r].0[c] = key;
            masks[r] |= ((key <= limit[r]) as u32) << c;
        }
    }
    masks
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{DotLanes, ROWS, Word};
    use std::arch::x86_64::*;

    /// A tile of 12×2 vectors of 16 columns.
    macro_rules! tile_512 {
        ($name:ident, $dot:ident) => {
            #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
            pub fn $name(
                rows: &[Word],
                panel: &[DotLanes],
                base: &DotLanes,
                limit: &Word,
                keys: &mut [DotLanes; ROWS],
            ) -> [u32; ROWS] {
                let mut dots = [[_mm512_setzero_si512(); 2]; ROWS];
                for (row, lanes) in rows.iter().zip(panel) {
                    let column = lanes.0.as_ptr();
                    // SAFETY: Lanes are 32 words on a boundary of 64 bytes.
                    let c = unsafe {
                        [_mm512_load_si512(column.cast()), _mm512_load_si512(column.add(16).cast())]
                    };
                    for r in 0..ROWS {
                        let word = _mm512_set1_epi32(row[r]);
                        dots[r][0] = $dot(dots[r][0], c[0], word);
                        dots[r][1] = $dot(dots[r][1], c[1], word);
                    }
                }
                let mut masks = [0; ROWS];
                for r in 0..ROWS {
                    let limit = _mm512_set1_epi32(limit[r]);
                    for half in 0..2 {
                        let (base, keys) = (&base.0[16 * half..], &mut keys[r].0[16 * half..]);
                        // SAFETY: both hold 16 words from here, on boundaries of 64 bytes.
                        let base = unsafe { _mm512_load_si512(base.as_ptr().cast()) };
                        let dot = dots[r][half];
                        let key = _mm512_sub_epi32(base, _mm512_add_epi32(dot, dot));
                        // SAFETY: as above.
                        unsafe { _mm512_store_si512(keys.as_mut_ptr().cast(), key) };
                        masks[r] |= (_mm512_cmple_epi32_mask(key, limit) as u32) << (16 * half);
                    }
                }
                masks
            }
        };
    }
    tile_512!(quads_512, _mm512_dpbusd_epi32);
    tile_512!(pairs_512, _mm512_dpwssd_epi32);

    /// Four tiles of 6×2 vectors of 8 columns: 12 sums, two columns, a row and a product fill the 16 registers.
    #[target_feature(enable = "avx2")]
    pub fn pairs_256(
        rows: &[Word],
        panel: &[DotLanes],
        base: &DotLanes,
        limit: &Word,
        keys: &mut [DotLanes; ROWS],
    ) -> [u32; ROWS] {
        const R: usize = ROWS / 2;
        let mut masks = [0; ROWS];
        for (first, start) in [(0, 0), (R, 0), (0, 16), (R, 16)] {
            let mut dots = [[_mm256_setzero_si256(); 2]; R];
            for (row, lanes) in rows.iter().zip(panel) {
                let column = lanes.0[start..].as_ptr();
                // SAFETY: from `start` on there are 16 words, on a boundary of 64 bytes.
                let c = unsafe {
                    [_mm256_load_si256(column.cast()), _mm256_load_si256(column.add(8).cast())]
                };
                for r in 0..R {
                    let word = _mm256_set1_epi32(row[first + r]);
                    dots[r][0] = _mm256_add_epi32(dots[r][0], _mm256_madd_epi16(c[0], word));
                    dots[r][1] = _mm256_add_epi32(dots[r][1], _mm256_madd_epi16(c[1], word));
                }
            }
            for r in 0..R {
                let limit = _mm256_set1_epi32(limit[first + r]);
                for (half, dot) in dots[r].into_iter().enumerate() {
                    let at = start + 8 * half;
                    let (base, keys) = (&base.0[at..], &mut keys[first + r].0[at..]);
                    // SAFETY: both hold 8 words from here, on boundaries of 32 bytes.
                    let base = unsafe { _mm256_load_si256(base.as_ptr().cast()) };
                    let key = _mm256_sub_epi32(base, _mm256_add_epi32(dot, dot));
                    // SAFETY: as above.
                    unsafe { _mm256_store_si256(keys.as_mut_ptr().cast(), key) };
                    let above = _mm256_castsi256_ps(_mm256_cmpgt_epi32(key, limit));
                    masks[first + r] |= (!_mm256_movemask_ps(above) as u32 & 0xff) << at;
                }
            }
        }
        masks
    }
}
