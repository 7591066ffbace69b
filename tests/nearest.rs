//! The nearest-neighbour search against the definition, on every instruction set, pruned and not.

use emm::device::cpu::dots::Isa;
use emm::device::cpu::sketch::Sketcher;
use emm::device::{Cpu, Device};
use emm::memorization::{Neighbour, Pruning, References};
use emm::rng::{Stream, philox, tag};

pub fn cpu(threads: usize) -> Device {
    Device::Cpu(Cpu::new(threads).unwrap())
}

/// Bytes that depend on `seed` alone.
fn random(len: usize, seed: u64) -> Vec<u8> {
    (0..len as u32).map(|i| philox([i, 0, 0, tag(Stream::Diagnostic, 0)], seed)[0] as u8).collect()
}

/// Images like natural ones: a few waves each, `noise` grey levels around them.
pub fn smooth(images: usize, side: usize, channels: usize, noise: u8, seed: u64) -> Vec<u8> {
    let len = side * side * channels;
    let noises = random(images * len, seed);
    let waves = random(images * 16, seed + 1);
    (0..images * len)
        .map(|i| {
            let (image, p, c) = (i / len, i % len / channels, i % channels);
            let (y, x) = ((p / side) as f64 / side as f64, (p % side) as f64 / side as f64);
            let w = |k: usize| waves[image * 16 + k] as f64 / 256.0;
            let wave = 60.0 * (6.0 * (w(0) * x + w(1) * y + w(2) * c as f64 + w(3))).sin()
                + 40.0 * (12.0 * (w(4) * x - w(5) * y + w(6))).sin();
            let noise = noises[i] as f64 / 255.0 * noise as f64;
            (127.0 + 120.0 * (w(7) - 0.5) + wave + noise).clamp(0.0, 255.0) as u8
        })
        .collect()
}

/// The `k` nearest by the definition, in 64-bit integers.
fn naive(references: &[u8], queries: &[u8], len: usize, k: usize) -> Vec<Neighbour> {
    let near = |q: &[u8]| {
        let squared = |r: &[u8]| -> i64 {
            q.iter().zip(r).map(|(&a, &b)| (a as i64 - b as i64) * (a as i64 - b as i64)).sum()
        };
        let mut all: Vec<(i64, u32)> =
            references.chunks(len).zip(0..).map(|(r, i)| (squared(r), i)).collect();
        all.sort();
        all.truncate(k);
        all.into_iter().map(|(d, index)| Neighbour { squared: d as u64, index })
    };
    queries.chunks(len).flat_map(near).collect()
}

/// Every instruction set, pruned as it sees fit, always and never, on one thread and on three.
#[track_caller]
fn assert_exact(references: &[u8], queries: &[u8], len: usize, k: usize, what: &str) {
    let want = naive(references, queries, len, k);
    for isa in Isa::available() {
        for pruning in [Pruning::Auto, Pruning::Always, Pruning::Never] {
            let prepared = References::with(references, len, isa, pruning);
            for threads in [1, 3] {
                let found = prepared.nearest_k(queries, k, &cpu(threads));
                assert!(found == want, "{what}: {isa:?}, {pruning:?}, {threads} threads");
            }
        }
    }
}

#[test]
fn every_way_finds_what_the_definition_says() {
    for (len, references, queries) in [
        (1, 300, 30),
        (3, 2, 5),
        (48, 33, 13),
        (63, 64, 25),
        (64, 65, 12),
        (65, 100, 7),
        (127, 31, 1),
        (768, 300, 26),
        (784, 257, 24),
        (3071, 40, 13),
        (3072, 300, 25),
    ] {
        let seed = (len * 1000 + references) as u64;
        let (r, q) = (random(len * references, seed), random(len * queries, seed + 1));
        for k in [1, 2, 5] {
            assert_exact(&r, &q, len, k.min(references), &format!("{len} pixels, k = {k}"));
        }
    }
}

#[test]
fn extremes_do_not_overflow() {
    for len in [1, 64, 3072, 32_767, 32_768, 32_769, 66_000] {
        let images = [vec![0; len], vec![255; len], vec![255; len], random(len, 3), vec![128; len]];
        let all = images.concat();
        assert_exact(&all, &all, len, 2, &format!("{len} pixels"));
        assert_exact(&all, &all, len, 5, &format!("{len} pixels"));
    }
}

#[test]
fn ties_go_to_the_lowest_index() {
    // Few distinct images, many times each, more than a panel of them.
    let len = 768;
    let distinct = random(3 * len, 9);
    let references: Vec<u8> =
        (0..400).flat_map(|i| distinct[(i * i + i / 7) % 3 * len..][..len].to_vec()).collect();
    let queries = [&distinct[..], &random(10 * len, 10)].concat();
    for k in [1, 2, 7] {
        assert_exact(&references, &queries, len, k, &format!("k = {k}"));
    }
    // All equal, two images only, and one.
    assert_exact(&[7; 768 * 300], &queries, len, 2, "all equal");
    assert_exact(&distinct[..2 * len], &queries, len, 2, "two");
    assert_exact(&distinct[..len], &queries, len, 1, "one");
    let one = References::new(&distinct[..len], len);
    assert_eq!(one.nearest_k(&queries, 3, &cpu(1)).len(), 13, "no more than there are");
    assert_eq!(one.nearest_k(&[], 3, &cpu(1)), []);
    assert_eq!(one.nearest_k(&queries, 0, &cpu(1)), []);
}

#[test]
fn smooth_images_are_pruned_exactly() {
    for (side, channels, noise) in [(32, 3, 8), (32, 3, 0), (16, 3, 20), (28, 1, 30), (64, 3, 4)] {
        let len = side * side * channels;
        let references = smooth(600, side, channels, noise, 5);
        // Unseen images, copies with noise, exact copies.
        let mut queries = smooth(20, side, channels, noise, 50);
        let copies = references[100 * len..110 * len].iter().zip(random(10 * len, 6));
        queries.extend(copies.map(|(&p, n)| p.saturating_add(n % 9)));
        queries.extend_from_slice(&references[590 * len..]);
        assert_exact(&references, &queries, len, 2, &format!("{side}, {channels}, {noise}"));
        assert_exact(&references, &queries, len, 6, &format!("{side}, {channels}, {noise}"));
    }
}

/// The bound that pruning rests on, at distances from 1 to the largest there are.
#[test]
fn sketches_are_never_further_apart_than_images() {
    for (side, channels) in [(16, 3), (28, 1), (32, 3), (41, 1), (96, 3), (260, 1)] {
        let len = side * side * channels;
        let sketcher = Sketcher::new(len).unwrap();
        let waves = smooth(3, side, channels, 0, 1);
        let mut near = waves[..len].to_vec();
        near[len / 2] ^= 1;
        let images =
            [&waves[..], &random(2 * len, 2), &vec![0; len], &vec![255; len], &near].concat();
        let (mut least, mut most) = (f64::INFINITY, 0.0f64);
        for a in images.chunks(len) {
            for b in images.chunks(len) {
                let squared: f64 =
                    a.iter().zip(b).map(|(&a, &b)| (a.abs_diff(b) as f64).powi(2)).sum();
                let (s, t) = (sketcher.draw(a), sketcher.draw(b));
                let sketched: i64 = s
                    .iter()
                    .zip(t)
                    .map(|(&s, t)| (s as i64 - t as i64) * (s as i64 - t as i64))
                    .sum();
                assert!(sketched < 1 << 31, "{side}: keys have 32 bits");
                let reach = sketcher.reach(squared);
                assert!(sketched as f64 <= reach, "{side}: {squared} → {sketched} > {reach}");
                if squared > 1e6 {
                    least = least.min(sketched as f64 / reach);
                    most = most.max(sketched as f64 / reach);
                }
            }
        }
        // The bound can fail: black and white are told apart in full, noise hardly.
        assert!(most > 0.95 && least < 0.5, "{side}: {least} to {most}");
    }
    for (len, why) in [(192, "short"), (3071, "not square"), (2 * 32 * 32, "two channels")] {
        assert!(Sketcher::new(len).is_none(), "{why}");
    }
}
