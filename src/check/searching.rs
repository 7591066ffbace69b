//! The nearest-neighbour search against brute force: integers, so every answer must be equal.

use super::wanted::Wanted;
use super::{CaseSize, Check, Off};
use crate::device::{Device, Pixels, Precision};
use crate::memorization::{Nearest, Neighbour, Search};
use crate::rng::philox;
use anyhow::Result;
use rayon::prelude::*;

/// So many references of so many bytes, and queries; how many of these are asked of brute force too.
#[derive(Debug, Clone, Copy)]
pub struct SearchSizes {
    pub len: usize,
    pub references: usize,
    pub queries: usize,
    pub by_force: usize,
}

impl SearchSizes {
    /// All queries by brute force.
    pub fn all(len: usize, references: usize, queries: usize) -> Self {
        SearchSizes { len, references, queries, by_force: queries }
    }
}

/// Both searches of a GPU, the tensor cores' where images are whole 16 bytes: ragged ends, more queries than a batch,
/// images beyond the tensor cores' sums and beyond 32 bits.
const GOLDEN: [[usize; 3]; 9] = [
    [16, 300, 130],
    [192, 129, 3],
    [48, 2, 1],
    [17, 70, 65],
    [3, 200, 2],
    [144, 5, 129],
    [16, 40, 2100],
    [32_784, 3, 2],
    [66_000, 3, 2],
];

pub fn checks(wanted: &Wanted) -> Vec<Check> {
    if !wanted.precision(Precision::Fp32) {
        return vec![];
    }
    let mut sizes = Vec::new();
    if wanted.size(CaseSize::Golden) {
        let all =
            GOLDEN.map(|[len, references, queries]| SearchSizes::all(len, references, queries));
        sizes.extend(all.map(|s| (CaseSize::Golden, s)));
    }
    if wanted.size(CaseSize::Real) {
        let n = wanted.network;
        let (references, queries) = (300 * n.images, 5 * n.images);
        // Three values a pixel, and lines that are no whole 16 bytes.
        for len in [3 * n.side * n.side, 3 * n.side * n.side - 72] {
            let some = SearchSizes { len, references, queries, by_force: queries.min(8) };
            sizes.push((CaseSize::Real, some));
        }
    }
    (sizes.into_iter())
        .map(|(size, s)| Check {
            op: "nearest",
            size,
            precision: Precision::Fp32,
            case: format!("{} references of {} bytes, {} queries", s.references, s.len, s.queries),
            bar: 0.0,
            run: Box::new(move |device| nearest(device, s, 1)),
        })
        .collect()
}

/// Bytes that look random.
pub fn bytes(seed: u64, which: u32, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    bytes.par_chunks_mut(16).enumerate().for_each(|(i, bytes)| {
        let words = philox([i as u32, which, 0, 0], seed);
        bytes.copy_from_slice(&bytemuck::cast_slice(&words)[..bytes.len()]);
    });
    bytes
}

/// How many queries are answered otherwise.
///
/// # Errors
/// What the driver says (exit 4).
pub fn nearest(device: &Device, sizes: SearchSizes, seed: u64) -> Result<Off> {
    let SearchSizes { len, references, queries, by_force } = sizes;
    let mut all = bytes(seed, 0, references * len);
    let mut asked = bytes(seed, 1, queries * len);
    // Images that repeat others, the first even twice; a query that is one of them, and the largest distance.
    all.copy_within(..len, (references - 1) * len);
    if references == 5 {
        all = all[..len].repeat(5);
    }
    if references > 60 {
        all.copy_within(..len, 40 * len);
        all.copy_within(7 * len..20 * len, 41 * len);
    }
    asked[..len].copy_from_slice(&all[..len]);
    if queries > 1 && references > 2 {
        asked[len..2 * len].fill(255);
        all[len..2 * len].fill(0);
    }
    let mut search = Search::new(device, &all, len)?;
    let found = search.nearest(&Pixels::Host(asked.as_slice().into()))?;
    let forced = device.host().run(|| -> Vec<Nearest> {
        asked.par_chunks(len).take(by_force).map(|query| brute_force(&all, query)).collect()
    });
    let count = |got: &[Nearest], want: &[Nearest]| {
        let differ = got.iter().zip(want).filter(|(got, want)| got != want).count();
        (differ + got.len().abs_diff(want.len())) as f64
    };
    let mut off = Off::default();
    off.take(count(&found[..by_force], &forced), "answers of brute force");
    if by_force < queries {
        let host = Device::Cpu(device.host().clone());
        let want =
            Search::new(&host, &all, len)?.nearest(&Pixels::Host(asked.as_slice().into()))?;
        off.take(count(&found, &want), "answers of the CPU");
    }
    Ok(off)
}

/// By the definition, in 64-bit integers: the two nearest, and the nearest that is not the first's image.
fn brute_force(references: &[u8], query: &[u8]) -> Nearest {
    let squared = |reference: &[u8]| -> u64 {
        query.iter().zip(reference).map(|(&a, &b)| (a.abs_diff(b) as u64).pow(2)).sum()
    };
    let image = |n: &Neighbour| &references[n.index as usize * query.len()..][..query.len()];
    let mut all: Vec<Neighbour> = (references.chunks(query.len()).zip(0..))
        .map(|(reference, index)| Neighbour { squared: squared(reference), index })
        .collect();
    all.sort_unstable();
    Nearest {
        index: [all[0].index, all[1].index],
        squared: [all[0].squared, all[1].squared],
        distinct: all.iter().find(|other| image(other) != image(&all[0])).copied(),
    }
}
