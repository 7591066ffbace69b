//! Random words, normals, permutations and labels of a seed.

use emm::rng::{self, Stream, tag};

#[test]
fn philox_gives_its_known_answers() {
    let all = u32::MAX;
    assert_eq!(rng::philox([0; 4], 0), [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]);
    assert_eq!(rng::philox([all; 4], u64::MAX), [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]);
    let pi = [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344];
    assert_eq!(
        rng::philox(pi, 0x299f31d0_a4093822),
        [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1]
    );
}

/// Normals of the pair of words (a, b), in float64.
fn box_muller(a: u32, b: u32) -> [f64; 2] {
    let r = (-2.0 * rng::unit(a).ln()).sqrt();
    let (s, c) = (std::f64::consts::TAU * rng::unit(b)).sin_cos();
    [r * c, r * s]
}

#[test]
fn normals_are_box_muller_of_the_same_words() {
    let (image, step, seed) = (7, 11, 0x1234_5678_9abc);
    let tag = tag(Stream::Noise, 3);
    let mut z = vec![f32::NAN; 8 * 40_000 - 3];
    rng::fill_normals(&mut z, image, step, tag, seed);
    let mut worst = 0.0f64;
    for (i, &z) in z.iter().enumerate() {
        let words = rng::philox([(i / 4) as u32, image, step, tag], seed);
        let pair = i % 4 / 2 * 2;
        let want = box_muller(words[pair], words[pair + 1])[i % 2];
        let error = (z as f64 - want).abs() / want.abs().max(0.1);
        assert!(error < 1e-6, "normal {i}: {z} for {want}");
        worst = worst.max(error);
    }
    assert!(worst > 0.0, "float32 cannot equal float64 everywhere");
    // The compiled-for-this-processor loop and the plain function give the same bits.
    for (block, chunk) in z.chunks(8).enumerate().take(100) {
        assert_eq!(chunk, &rng::normals8(block as u32, image, step, tag, seed)[..chunk.len()]);
    }
}

#[test]
fn normals_are_normal() {
    let n = 1 << 20;
    let mut z = vec![f32::NAN; n];
    rng::fill_normals(&mut z, 0, 0, tag(Stream::Latent, 0), 1);
    let moment = |k: i32| z.iter().map(|&v| (v as f64).powi(k)).sum::<f64>() / n as f64;
    let sd = 1.0 / (n as f64).sqrt();
    assert!(moment(1).abs() < 4.0 * sd, "mean {}", moment(1));
    assert!((moment(2) - 1.0).abs() < 4.0 * 2f64.sqrt() * sd, "variance {}", moment(2));
    assert!(moment(3).abs() < 4.0 * 15f64.sqrt() * sd, "skewness {}", moment(3));
    assert!((moment(4) - 3.0).abs() < 4.0 * 96f64.sqrt() * sd, "kurtosis {}", moment(4));
    // Kolmogorov-Smirnov against the standard normal's quantiles (SciPy's norm.ppf).
    z.sort_by(f32::total_cmp);
    let quantiles = [
        (0.001, -3.090_232_306_167_813_5),
        (0.01, -2.326_347_874_040_841),
        (0.1, -1.281_551_565_544_600_4),
        (0.25, -0.674_489_750_196_081_7),
        (0.5, 0.0),
        (0.75, 0.674_489_750_196_081_7),
        (0.9, 1.281_551_565_544_600_4),
        (0.99, 2.326_347_874_040_841),
        (0.999, 3.090_232_306_167_813),
    ];
    for (p, x) in quantiles {
        let below = z.partition_point(|&v| (v as f64) <= x) as f64 / n as f64;
        assert!((below - p).abs() < 1.95 * sd, "share below {x}: {below} for {p}");
    }
}

#[test]
fn permutations_are_bijections_that_differ() {
    for n in [1u64, 2, 3, 10, 64, 65, 1000, 4097] {
        for epoch in [0, 1, u64::MAX] {
            let mut seen = vec![false; n as usize];
            for i in 0..n {
                let j = rng::permute(i, n, 1024, epoch) as usize;
                assert!(!std::mem::replace(&mut seen[j], true), "{j} twice among {n}");
            }
        }
    }
    let order =
        |key, epoch| (0..1000).map(|i| rng::permute(i, 1000, key, epoch)).collect::<Vec<_>>();
    let agree = |a: &[u64], b: &[u64]| a.iter().zip(b).filter(|(a, b)| a == b).count();
    assert!(agree(&order(1, 0), &order(1, 1)) < 10);
    assert!(agree(&order(1, 0), &order(2, 0)) < 10);
    assert!(agree(&order(1, 0), &(0..1000).collect::<Vec<_>>()) < 10);
}

/// Every image of a small set is equally likely at every place: chi-square over 20,000 epochs.
#[test]
fn permutations_are_uniform() {
    let (n, epochs) = (10u64, 20_000u64);
    let mut counts = [[0u64; 10]; 10];
    for epoch in 0..epochs {
        for i in 0..n {
            counts[i as usize][rng::permute(i, n, 5, epoch) as usize] += 1;
        }
    }
    let expected = (epochs / n) as f64;
    let chi2: f64 =
        counts.iter().flatten().map(|&c| (c as f64 - expected).powi(2) / expected).sum();
    // 81 degrees of freedom: the 0.9999 quantile is 134.
    assert!(chi2 < 134.0, "chi-square {chi2}");
}

#[test]
fn labels_are_uniform() {
    let mut counts = [0u32; 10];
    for seed in 0..10_000 {
        counts[rng::uniform_label(seed, 10) as usize] += 1;
    }
    assert!(counts.iter().all(|&c| (850..1150).contains(&c)), "{counts:?}");
    assert_eq!(rng::uniform_label(3, 1), 0);
}
