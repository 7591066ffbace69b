//! Exact nearest neighbours of 8-bit images: integer squared L2 distances, so no rounding and no ties by chance.

use crate::device::Device;
use crate::simd::vectorized;
use rayon::prelude::*;

/// The two reference images nearest to a query: `index[0]` nearest. Ties go to the lowest index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nearest {
    pub index: [u32; 2],
    /// Squared L2 distances in pixel units, `squared[0] <= squared[1]`.
    pub squared: [u64; 2],
}

impl Nearest {
    const NONE: Nearest = Nearest { index: [u32::MAX; 2], squared: [u64::MAX; 2] };

    /// Takes in reference image `index`. References come in ascending order, so ties keep the lowest.
    #[inline(always)]
    fn take(&mut self, index: u32, squared: u64) {
        if squared < self.squared[0] {
            *self = Nearest { index: [index, self.index[0]], squared: [squared, self.squared[0]] };
        } else if squared < self.squared[1] {
            self.index[1] = index;
            self.squared[1] = squared;
        }
    }
}

/// Queries compared with a reference image while it is in registers.
const TILE: usize = 4;
/// Queries of one task: they share each block of references while it is in the second-level cache.
const QUERIES: usize = 32;
const BLOCK_BYTES: usize = 256 << 10;
/// Pixels whose squared differences fit 32 bits together: 255² · 65536 < 2³².
const CHUNK: usize = 1 << 16;

/// Training images, ready to be searched.
pub struct References {
    pixels: Vec<u8>,
    image_len: usize,
}

impl References {
    /// `pixels`: [N, H, W, C], `image_len` = H·W·C bytes each, N ≥ 2.
    pub fn new(pixels: &[u8], image_len: usize) -> Self {
        assert!(pixels.len() >= 2 * image_len, "nearest: needs two reference images");
        assert!(image_len > 0 && pixels.len().is_multiple_of(image_len), "nearest: ragged images");
        References { pixels: pixels.to_vec(), image_len }
    }

    /// Number of reference images.
    pub fn len(&self) -> usize {
        self.pixels.len() / self.image_len
    }

    pub fn is_empty(&self) -> bool {
        self.pixels.is_empty()
    }

    /// Bytes of one image: H·W·C.
    pub fn image_len(&self) -> usize {
        self.image_len
    }

    /// The two nearest references of each query; `queries`: [S, H, W, C]. Memory grows with S alone.
    pub fn nearest(&self, queries: &[u8], device: &Device) -> Vec<Nearest> {
        assert!(queries.len().is_multiple_of(self.image_len), "nearest: ragged queries");
        let mut found = vec![Nearest::NONE; queries.len() / self.image_len];
        let cpu = device.host();
        cpu.run(|| {
            found
                .par_chunks_mut(QUERIES)
                .zip(queries.par_chunks(QUERIES * self.image_len))
                .for_each(|(found, queries)| search(&self.pixels, self.image_len, queries, found));
        });
        found
    }
}

vectorized! {
    /// The two nearest of `references` for each query, kept in `found`.
    fn search(references: &[u8], image_len: usize, queries: &[u8], found: &mut [Nearest]) {
        let block = (BLOCK_BYTES / image_len).max(1);
        for (b, references) in references.chunks(block * image_len).enumerate() {
            let tiles = queries.chunks(TILE * image_len).zip(found.chunks_mut(TILE));
            for (queries, found) in tiles {
                // A ragged last tile repeats its first query; the copies' results are dropped.
                let mut tile = [&queries[..image_len]; TILE];
                for (slot, q) in tile.iter_mut().zip(queries.chunks_exact(image_len)) {
                    *slot = q;
                }
                for (r, reference) in references.chunks_exact(image_len).enumerate() {
                    let squared = squared_distances(tile, reference);
                    for (found, squared) in found.iter_mut().zip(squared) {
                        found.take((b * block + r) as u32, squared);
                    }
                }
            }
        }
    }
}

/// Squared L2 distances of TILE queries to one reference, exact for images of any size.
#[inline(always)]
fn squared_distances(queries: [&[u8]; TILE], reference: &[u8]) -> [u64; TILE] {
    let mut sums = [0u64; TILE];
    for (c, r) in reference.chunks(CHUNK).enumerate() {
        for (sums, q) in sums.iter_mut().zip(queries) {
            let mut sum = 0i32;
            for (&a, &b) in q[c * CHUNK..][..r.len()].iter().zip(r) {
                // 16-bit differences and 32-bit squares are one multiply-add instruction on x86.
                let d = a as i16 - b as i16;
                sum = sum.wrapping_add(d as i32 * d as i32);
            }
            *sums += sum as u32 as u64;
        }
    }
    sums
}
