//! Exact nearest neighbours of 8-bit images: integer squared L2 distances, so no rounding and no ties by chance.
//!
//! ‖r − q‖² = ‖r‖² + ‖q‖² − 2 r·q, and the dot products of many queries with many references run at the full rate
//! of the processor's byte multipliers. Where images are natural, most pairs are told to be too far apart by their
//! sketches, at a tenth of the work; a small sample decides which way is taken. Both are exact.

mod best;

use crate::device::Device;
use crate::device::cpu::dots::{
    COLUMNS, DotForm, DotLanes, Isa, MAX_WORDS, ROWS, Word, first_bits, pack_columns, pack_rows,
    scan,
};
use crate::device::cpu::sketch::{Panels, Sketcher, WORDS};
use crate::simd::vectorized;
use best::Best;
pub use best::Neighbour;
use bytemuck::Zeroable as _;
use rayon::prelude::*;
use std::borrow::Cow;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The two reference images nearest to a query: `index[0]` nearest. Ties go to the lowest index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nearest {
    pub index: [u32; 2],
    /// Squared L2 distances in pixel units, `squared[0] <= squared[1]`.
    pub squared: [u64; 2],
    /// The nearest image whose pixels are not those of `index[0]`: the second unless that repeats the first; none if
    /// all images are equal.
    pub distinct: Option<Neighbour>,
}

impl Nearest {
    pub(super) fn new([one, two]: [Neighbour; 2], distinct: Neighbour) -> Nearest {
        Nearest {
            index: [one.index, two.index],
            squared: [one.squared, two.squared],
            distinct: Some(distinct).filter(|d| *d != Neighbour::NONE),
        }
    }
}

/// Whether pairs are told to be too far apart by their sketches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pruning {
    /// Where a sample of the queries says that it pays.
    Auto,
    Always,
    Never,
}

/// Bytes of packed queries that are looked up together, and how many these are at most.
const BLOCK_BYTES: usize = 8 << 20;
const BLOCK_QUERIES: usize = 160 * ROWS;
/// References among which pruning can pay.
const PRUNED_REFERENCES: usize = 256;
/// Every so manieth panel of sketches is searched for references to begin with, so many for each query.
const SEED_STRIDE: usize = 4;
const SEEDS: usize = 4;
/// Queries of a block that decide whether pruning pays, and the share of pairs left over up to which it does.
const SAMPLE: usize = 2 * ROWS;
const PRUNED_SHARE: f64 = 1.0 / 32.0;

/// Training images, ready to be searched.
pub struct References<'a> {
    pixels: Cow<'a, [u8]>,
    image_len: usize,
    isa: Isa,
    pruning: Pruning,
    prepared: OnceLock<Prepared>,
}

/// What is computed of the references once.
struct Prepared {
    /// ‖r‖² − 2·bias·Σr of each.
    bases: Vec<i64>,
    sketches: Option<(Sketcher, Panels)>,
}

impl<'a> References<'a> {
    /// `pixels`: [N, H, W, C], `image_len` = H·W·C bytes each, N ≥ 1. They may lie in a mapped file.
    pub fn new(pixels: impl Into<Cow<'a, [u8]>>, image_len: usize) -> Self {
        let pixels = pixels.into();
        assert!(!pixels.is_empty(), "nearest: no reference images");
        assert!(image_len > 0 && pixels.len().is_multiple_of(image_len), "nearest: ragged images");
        let (isa, pruning) = (Isa::best(), Pruning::Auto);
        References { pixels, image_len, isa, pruning, prepared: OnceLock::new() }
    }

    /// With these instructions and this pruning: results are the same.
    pub fn with(pixels: &'a [u8], image_len: usize, isa: Isa, pruning: Pruning) -> Self {
        References { isa, pruning, ..References::new(pixels, image_len) }
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

    /// Computes what searches need of the references. The first search does it, if nobody did.
    pub fn prepare(&self, device: &Device) {
        device.host().run(|| self.prepared());
    }

    fn prepared(&self) -> &Prepared {
        self.prepared.get_or_init(|| {
            let bias = 2 * self.isa.bytes().bias() as i64;
            let base = |r: &[u8]| {
                let [sum, squares] = sums(r);
                squares as i64 - bias * sum as i64
            };
            let sketcher = match self.pruning {
                Pruning::Never => None,
                Pruning::Auto if self.len() < PRUNED_REFERENCES => None,
                _ => Sketcher::new(self.image_len),
            };
            Prepared {
                bases: self.pixels.par_chunks_exact(self.image_len).map(base).collect(),
                sketches: sketcher.map(|s| {
                    let panels = s.panels(&self.pixels);
                    (s, panels)
                }),
            }
        })
    }

    /// The `k` nearest references of each query, nearest first, one query after the other: [S, min(k, N)].
    pub fn nearest_k(&self, queries: &[u8], k: usize, device: &Device) -> Vec<Neighbour> {
        assert!(queries.len().is_multiple_of(self.image_len), "nearest: ragged queries");
        let k = k.min(self.len());
        let block = (BLOCK_BYTES / (self.words() * 4)).clamp(1, BLOCK_QUERIES / ROWS) * ROWS;
        let mut found = Vec::with_capacity(queries.len() / self.image_len * k);
        device.host().run(|| {
            for queries in queries.chunks(block * self.image_len).filter(|_| k > 0) {
                found.extend(self.search(queries, k));
            }
        });
        found
    }

    /// Words of one image.
    fn words(&self) -> usize {
        self.image_len.div_ceil(self.isa.bytes().values())
    }

    fn search(&self, queries: &[u8], k: usize) -> Vec<Neighbour> {
        let prune = match (&self.prepared().sketches, self.pruning) {
            (None, _) => None,
            (Some(s), Pruning::Auto) => self.pays(s, queries, k).then_some(s),
            (Some(s), _) => Some(s),
        };
        match prune {
            Some(sketches) => self.pruned(sketches, queries, k),
            None => self.dense(queries, k),
        }
    }

    /// All pairs.
    fn dense(&self, queries: &[u8], k: usize) -> Vec<Neighbour> {
        let (len, words, form) = (self.image_len, self.words(), self.isa.bytes());
        let mut rows = vec![[0; ROWS]; words * (queries.len() / len).div_ceil(ROWS)];
        rows.par_chunks_mut(words)
            .zip(queries.par_chunks(ROWS * len))
            .for_each(|(tile, queries)| pack_rows(form, queries, len, tile));
        let squares: Vec<u64> = queries.par_chunks_exact(len).map(|q| sums(q)[1]).collect();
        let limit_of = |q: usize, worst: u64| worst as i64 - squares[q] as i64;
        let best = Best::new(k, squares.len(), Box::new(limit_of));
        let panels = self.pixels.par_chunks(COLUMNS * len).enumerate();
        let bases = &self.prepared().bases;
        panels.for_each_init(
            || vec![DotLanes::zeroed(); words],
            |panel, (p, images)| {
                pack_columns(form, images, len, 0, panel);
                let bases = &bases[p * COLUMNS..][..images.len() / len];
                self.scan_pixels(panel, bases, &rows, &best, |query, column, key| {
                    let squared = (key + squares[query] as i64) as u64;
                    best.offer(query, Neighbour { squared, index: (p * COLUMNS + column) as u32 });
                });
            },
        );
        best.into_lists().flatten().collect()
    }

    /// Calls `hit(query, column, key)` for each pair of a panel of pixels within its limit.
    fn scan_pixels(
        &self,
        panel: &[DotLanes],
        bases: &[i64],
        rows: &[Word],
        best: &Best,
        mut hit: impl FnMut(usize, usize, i64),
    ) {
        let (form, valid) = (self.isa.bytes(), first_bits(bases.len()));
        if panel.len() <= MAX_WORDS {
            let mut base = DotLanes::zeroed();
            base.0.iter_mut().zip(bases).for_each(|(to, &b)| *to = b as i32);
            return scan(
                self.isa,
                form,
                (panel, &base),
                valid,
                rows,
                |t| best.limits_32(t),
                |q, c, key| hit(q, c, key as i64),
            );
        }
        // Sums of long images don't fit 32 bits.
        let (zero, none, mut keys) =
            (DotLanes::zeroed(), [i32::MIN; ROWS], [DotLanes::zeroed(); ROWS]);
        for (t, rows) in rows.chunks_exact(panel.len()).enumerate() {
            let mut sums = [[0i64; COLUMNS]; ROWS];
            for (rows, panel) in rows.chunks(MAX_WORDS).zip(panel.chunks(MAX_WORDS)) {
                self.isa.tile(form, rows, panel, &zero, &none, &mut keys);
                for (sums, keys) in sums.iter_mut().zip(&keys) {
                    sums.iter_mut().zip(keys.0).for_each(|(sum, key)| *sum += key as i64);
                }
            }
            for (r, limit) in best.limits(t).into_iter().enumerate() {
                for (c, base) in bases.iter().enumerate() {
                    if base + sums[r][c] <= limit {
                        hit(t * ROWS + r, c, base + sums[r][c]);
                    }
                }
            }
        }
    }

    /// Pairs whose sketches are near enough.
    fn pruned(&self, sketches: &Sketches, queries: &[u8], k: usize) -> Vec<Neighbour> {
        let drawn = Drawn::new(sketches, queries.par_chunks_exact(self.image_len));
        let best = self.seeded(sketches, &drawn, queries, k);
        self.scan_sketches(sketches, &drawn, &best, 1, |query, index, _| {
            let image = |i: usize| &self.pixels[i * self.image_len..][..self.image_len];
            let q = &queries[query * self.image_len..][..self.image_len];
            if let Some(squared) = squared_within(image(index), q, best.worst(query)) {
                best.offer(query, Neighbour { squared, index: index as u32 });
            }
        });
        best.into_lists().flatten().collect()
    }

    /// The best among references of near sketches, looked for in a part of them. Its limits are those of sketches.
    fn seeded<'b>(
        &self,
        sketches: &'b Sketches,
        drawn: &'b Drawn,
        queries: &[u8],
        k: usize,
    ) -> Best<'b> {
        let limit_of = |q: usize, worst: u64| worst as i64 - drawn.squared[q] as i64;
        let near = Best::new(k + SEEDS, drawn.squared.len(), Box::new(limit_of));
        self.scan_sketches(sketches, drawn, &near, SEED_STRIDE, |q, index, key| {
            let squared = (key as i64 + drawn.squared[q] as i64) as u64;
            near.offer(q, Neighbour { squared, index: index as u32 });
        });
        let limit_of = |q: usize, worst: u64| {
            sketches.0.reach(worst as f64).floor() as i64 + 1 - drawn.squared[q] as i64
        };
        let best = Best::new(k, drawn.squared.len(), Box::new(limit_of));
        let seeds: Vec<_> = near.into_lists().collect();
        seeds.par_iter().zip(queries.par_chunks_exact(self.image_len)).enumerate().for_each(
            |(q, (seeds, query))| {
                for &Neighbour { index, .. } in seeds.iter().filter(|s| **s != Neighbour::NONE) {
                    let image = &self.pixels[index as usize * self.image_len..][..query.len()];
                    if let Some(squared) = squared_within(image, query, best.worst(q)) {
                        best.offer(q, Neighbour { squared, index });
                    }
                }
            },
        );
        best
    }

    /// Calls `hit(query, reference, key)` for each pair of sketches within its limit, in every `stride`th panel.
    fn scan_sketches(
        &self,
        (_, panels): &Sketches,
        drawn: &Drawn,
        best: &Best,
        stride: usize,
        hit: impl Fn(usize, usize, i32) + Sync,
    ) {
        (0..panels.len().div_ceil(stride)).into_par_iter().for_each(|p| {
            let first = p * stride * COLUMNS;
            let valid = first_bits(self.len() - first);
            let panel = panels.get(p * stride);
            let limits = |t: usize| best.limits_32(t);
            scan(self.isa, DotForm::Pairs, panel, valid, &drawn.rows, limits, |q, c, key| {
                hit(q, first + c, key)
            });
        });
    }

    /// Whether few enough pairs are left over, by the sketches of some of the queries.
    fn pays(&self, sketches: &Sketches, queries: &[u8], k: usize) -> bool {
        let count = queries.len() / self.image_len;
        let picked = count.min(SAMPLE);
        let query = |i: usize| &queries[i * count / picked * self.image_len..][..self.image_len];
        let sample: Vec<u8> = (0..picked).flat_map(query).copied().collect();
        let drawn = Drawn::new(sketches, sample.par_chunks_exact(self.image_len));
        let best = self.seeded(sketches, &drawn, &sample, k);
        let most = (PRUNED_SHARE * (picked * self.len()) as f64) as usize;
        let left = AtomicUsize::new(0);
        self.scan_sketches(sketches, &drawn, &best, 1, |_, _, _| {
            // Once it is decided, threads no longer wait for each other.
            if left.load(Ordering::Relaxed) < most {
                left.fetch_add(1, Ordering::Relaxed);
            }
        });
        left.into_inner() < most
    }
}

type Sketches = (Sketcher, Panels);

/// The sketches of some queries.
struct Drawn {
    /// `[tile][word]`.
    rows: Vec<Word>,
    squared: Vec<i32>,
}

impl Drawn {
    fn new<'q>(
        (sketcher, _): &Sketches,
        queries: impl IndexedParallelIterator<Item = &'q [u8]>,
    ) -> Self {
        let draw = |q: &[u8]| sketcher.draw(q);
        let (rows, squared) = Sketcher::rows(&queries.map(draw).collect::<Vec<_>>());
        debug_assert_eq!(rows.len(), squared.len().div_ceil(ROWS) * WORDS);
        Drawn { rows, squared }
    }
}

/// Pixels whose squared differences fit 32 bits together: 255² · 65536 < 2³².
const CHUNK: usize = 1 << 16;
/// Pixels after which a pair may turn out to be too far apart.
const STRETCH: usize = 1024;

vectorized! {
    /// Σ p and Σ p² of an image.
    fn sums(image: &[u8]) -> [u64; 2] {
        let (mut sum, mut squares) = (0, 0);
        for image in image.chunks(CHUNK) {
            let (mut s, mut q) = (0u32, 0u32);
            for &p in image {
                s += p as u32;
                q += p as u32 * p as u32;
            }
            sum += s as u64;
            squares += q as u64;
        }
        [sum, squares]
    }

    /// The squared L2 distance of two images, if it is at most `limit`.
    fn squared_within(a: &[u8], b: &[u8], limit: u64) -> Option<u64> {
        let mut sum = 0;
        for (a, b) in a.chunks(STRETCH).zip(b.chunks(STRETCH)) {
            let mut part = 0i32;
            for (&a, &b) in a.iter().zip(b) {
                // 16-bit differences and 32-bit squares are one multiply-add instruction on x86.
                let d = a as i16 - b as i16;
                part += d as i32 * d as i32;
            }
            sum += part as u64;
            if sum > limit {
                return None;
            }
        }
        Some(sum)
    }
}
