//! Timing of the nearest-neighbour search, its answers checked.

use crate::device::cpu::dots::Isa;
use crate::device::{Device, Pixels};
use crate::memorization::{Pruning, References, Search};
use crate::rng::philox;
use anyhow::{Result, bail};
use rayon::prelude::*;
use std::time::Instant;

/// Answers compared with brute force.
const CHECKED: usize = 64;

/// Times of repeated searches.
#[derive(Debug, Clone, PartialEq)]
pub struct NearestTimes {
    /// Seconds of preparing the references.
    pub prepare_s: f64,
    /// Seconds of each search of all queries, references already prepared.
    pub search_s: Vec<f64>,
    /// Answers that brute force agreed with.
    pub checked: usize,
}

/// `images` random images of `pixels` bytes; `which` names the set.
pub fn random_images(seed: u64, which: u32, images: usize, pixels: usize) -> Vec<u8> {
    let mut bytes = vec![0; images * pixels];
    bytes.par_chunks_mut(16).enumerate().for_each(|(i, bytes)| {
        let words = philox([i as u32, which, 0, 0], seed).map(u32::to_le_bytes);
        bytes.copy_from_slice(&words.as_flattened()[..bytes.len()]);
    });
    bytes
}

/// Times `repeats` searches of the two nearest of `references`, [N, pixels] with N ≥ 2, for each of `queries`, [S,
/// pixels] with S ≥ 1, after one that warms up; then looks for some of the answers by brute force.
///
/// # Errors
/// An answer was wrong; device (exit 4).
pub fn nearest(
    device: &Device,
    seed: u64,
    queries: &[u8],
    references: &[u8],
    pixels: usize,
    isa: Isa,
    repeats: usize,
) -> Result<NearestTimes> {
    let start = Instant::now();
    let mut prepared = match device.cuda() {
        None => {
            let prepared = References::with(references, pixels, isa, Pruning::Auto);
            prepared.prepare(device);
            Search::prepared(prepared, device)
        }
        Some(_) => Search::new(device, references, pixels)?,
    };
    let queries_there = Pixels::Host(queries.into());
    let prepare_s = start.elapsed().as_secs_f64();
    let (mut search_s, mut found) = (Vec::new(), Vec::new());
    for repeat in 0..=repeats {
        let start = Instant::now();
        found = prepared.nearest(&queries_there)?;
        if repeat > 0 {
            search_s.push(start.elapsed().as_secs_f64());
        }
    }
    let checked = CHECKED.min(found.len());
    let pick = |i: usize| match checked == found.len() {
        true => i,
        false => philox([i as u32, 2, 0, 0], seed)[0] as usize % found.len(),
    };
    let wrong = device.host().run(|| {
        (0..checked).into_par_iter().map(pick).find_first(|&q| {
            let answer = [0, 1].map(|i| (found[q].squared[i], found[q].index[i]));
            answer != brute_force(&queries[q * pixels..][..pixels], references)
        })
    });
    match wrong {
        Some(q) => bail!("bench nearest: query {q}: {:?} is wrong", found[q]),
        None => Ok(NearestTimes { prepare_s, search_s, checked }),
    }
}

/// The two nearest, (squared distance, index), by the definition.
fn brute_force(query: &[u8], references: &[u8]) -> [(u64, u32); 2] {
    let mut best = [(u64::MAX, u32::MAX); 2];
    for (i, reference) in references.chunks_exact(query.len()).enumerate() {
        let squared = query.iter().zip(reference).map(|(&q, &r)| q.abs_diff(r) as u64);
        let found = (squared.map(|d| d * d).sum(), i as u32);
        if found < best[1] {
            best[1] = found;
            best.sort();
        }
    }
    best
}
