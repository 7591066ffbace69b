//! Exact nearest neighbours, the criterion, its interval, and the effective model memorization.

use crate::support::Golden;
use emm::device::{Cpu, Device};
use emm::memorization::{
    Nearest, Next, References, Score, Side, Threshold, emm_of, next_size, wilson,
};

fn cpu(threads: usize) -> Device {
    Device::Cpu(Cpu::new(threads).unwrap())
}

#[test]
fn nearest_two_equal_brute_force() {
    for name in ["nearest_random", "nearest_ties"] {
        let g = Golden::open(&format!("score/{name}.safetensors"));
        let (queries, len) = (g.u8("queries"), g.shape("queries")[1]);
        let (index, squared) = (g.i64("index"), g.i64("squared"));
        let references = References::new(&g.u8("references"), len);
        for threads in [1, 2, 3] {
            let found = references.nearest(&queries, &cpu(threads));
            assert_eq!(found.len() * 2, index.len());
            for (i, n) in found.iter().enumerate() {
                assert_eq!(n.index.map(i64::from), index[2 * i..2 * i + 2], "{name}: query {i}");
                assert_eq!(n.squared.map(|d| d as i64), squared[2 * i..2 * i + 2], "{name}: {i}");
            }
        }
        // A query's result does not depend on the queries beside it.
        let all = references.nearest(&queries, &cpu(1));
        for (i, q) in queries.chunks(len).enumerate() {
            assert_eq!(references.nearest(q, &cpu(1)), all[i..=i]);
        }
    }
}

#[test]
fn distances_are_exact_beyond_32_bits() {
    for len in [65_535, 65_536, 65_537, 200_000] {
        let mut references = vec![255u8; 3 * len];
        references[2 * len..].fill(254);
        let found = References::new(&references, len).nearest(&vec![0; len], &cpu(1));
        let full = len as u64 * 255 * 255;
        let near = len as u64 * 254 * 254;
        assert_eq!(found, [Nearest { index: [2, 0], squared: [near, full] }]);
    }
}

#[test]
fn blocks_of_references_are_all_searched() {
    // More references than fit one block, each the only one near its query.
    let len = 3072;
    let references: Vec<u8> =
        (0..300 * len).map(|i| ((i / len) * 7 + (i % len) * 13) as u8).collect();
    let r = References::new(&references, len);
    for (i, n) in r.nearest(&references, &cpu(2)).iter().enumerate() {
        // 7 k mod 256 repeats after 256 images: those duplicate the first ones.
        assert_eq!(n.index[0] as usize, i % 256);
        assert_eq!(n.squared[0], 0);
    }
}

fn at(d1: u64, d2: u64) -> Nearest {
    Nearest { index: [0, 1], squared: [d1, d2] }
}

#[test]
fn the_criterion_is_strict_and_exact() {
    let third = Threshold::default();
    assert!(third.memorized(&at(1, 10)));
    assert!(!third.memorized(&at(1, 9)), "d1/d2 = 1/3 exactly is no copy");
    assert!(third.memorized(&at(0, 1)));
    assert!(!third.memorized(&at(0, 0)), "a duplicated training image is no copy");
    assert!(third.memorized(&at(199_756_799, 1_797_811_192)));
    assert!(!third.memorized(&at(199_756_800, 1_797_811_200)));
    assert!(!third.memorized(&at(u64::MAX, u64::MAX)));
}

#[test]
fn thresholds_are_read_exactly() {
    assert_eq!(Threshold::parse("1/3").unwrap(), Threshold::default());
    let half = Threshold::parse("0.5").unwrap();
    assert!(!half.memorized(&at(1, 4)) && half.memorized(&at(1, 5)));
    let tenth = Threshold::parse("0.1").unwrap();
    assert!(!tenth.memorized(&at(1, 100)) && tenth.memorized(&at(1, 101)));
    for bad in ["", "1", "0", "3/2", "1/0", "0/3", "-0.5", "nan", "1e-1", "1/3/4", ".", "+0.5"] {
        let e = Threshold::parse(bad).unwrap_err();
        assert!(e.to_string().starts_with("--threshold: "), "{bad}: {e}");
        assert_eq!(emm::error::exit_code(&e), 2);
    }
}

#[test]
fn scores_count_copies_and_duplicates() {
    let found = [at(0, 0), at(0, 5), at(48, 49), at(12, 1000)];
    let s = Score::of(&found, Threshold::default(), 12, 7);
    assert_eq!((s.images, s.memorized, s.duplicate_ties, s.reference_images), (4, 2, 1, 7));
    assert_eq!(s.ratio, 0.5);
    assert_eq!(s.mean_d1, (0.0 + 0.0 + 2.0 + 1.0) / 4.0);
    let json = serde_json::to_value(&s).unwrap();
    let keys: Vec<_> = json.as_object().unwrap().keys().map(String::as_str).collect();
    let fixed = [
        "images",
        "memorized",
        "ratio",
        "interval",
        "duplicate_ties",
        "mean_d1",
        "reference_images",
    ];
    assert_eq!(keys, fixed);
}

#[test]
fn wilson_equals_scipy() {
    // scipy.stats.binomtest(k, n).proportion_ci(0.95, "wilson"), printed by goldens/score/make.py.
    for ((k, n), want) in [
        ((0, 10), [0.0, 0.27753279986288926]),
        ((10, 10), [0.7224672001371109, 1.0]),
        ((1, 3), [0.06149194472039626, 0.7923403991979523]),
        ((9209, 10000), [0.915447081398244, 0.9260296687733205]),
        ((1, 10000), [1.765267360112231e-05, 0.0005662688974013381]),
        ((500, 1000), [0.4690696003681042, 0.5309303996318958]),
    ] {
        for (got, want) in wilson(k, n).iter().zip(want) {
            assert!((got - want).abs() <= 1e-12 * want, "{k}/{n}: {got} for {want}");
        }
    }
}

#[test]
fn emm_interpolates_between_its_bracket() {
    // Table 3, unconditional: 92.09% at 1k, 60.93% at 2k.
    let table = [(2000, 0.6093), (1000, 0.9209), (3000, 0.346)];
    let e = emm_of(&table, 0.1);
    let (n, bracket) = e.found.unwrap();
    assert!((n - (1000.0 + 1000.0 * 0.0209 / 0.3116)).abs() < 1e-9, "{n}");
    assert_eq!((bracket.lo, bracket.hi), ((1000, 0.9209), (2000, 0.6093)));
    assert!(e.violations.is_empty());
    // A ratio of exactly 1 − ε is enough.
    assert_eq!(emm_of(&[(10, 0.75), (20, 0.5)], 0.25).found.unwrap().0, 10.0);
    assert_eq!(emm_of(&table, 0.01).found, Err(Side::Below));
    assert_eq!(emm_of(&table, 0.7).found, Err(Side::Above));
    assert_eq!(emm_of(&[(10, f64::NAN)], 0.1).found, Err(Side::Below), "NaN passes nothing");
}

#[test]
fn emm_takes_the_last_of_several_crossings_and_tells_violations() {
    let e = emm_of(&[(1, 1.0), (2, 0.8), (4, 0.95), (8, 0.5), (16, 0.6)], 0.1);
    let (n, bracket) = e.found.unwrap();
    assert_eq!((bracket.lo.0, bracket.hi.0), (4, 8));
    assert!((n - (4.0 + 4.0 * 0.05 / 0.45)).abs() < 1e-9, "{n}");
    let risen: Vec<_> = e.violations.iter().map(|v| (v.lo.0, v.hi.0)).collect();
    assert_eq!(risen, [(2, 4), (8, 16)]);
}

/// Follows the search with a known ratio of size; returns the sizes trained.
fn search(lo: u64, hi: u64, ratio: impl Fn(f64) -> f64) -> (Vec<u64>, Next) {
    let mut known = Vec::new();
    loop {
        match next_size(&known, lo, hi, 0.1) {
            Next::Train(n) => {
                assert!((lo..=hi).contains(&n), "{n} is outside {lo}..={hi}");
                assert!(known.iter().all(|k: &(u64, f64)| k.0 != n), "{n} trained twice");
                known.push((n, ratio(n as f64)));
                assert!(known.len() < 40, "endless: {known:?}");
            }
            end => return (known.into_iter().map(|k| k.0).collect(), end),
        }
    }
}

#[test]
fn the_search_brackets_with_few_runs() {
    for centre in [550.0, 990.5, 1034.0, 3000.0, 7000.0] {
        for steep in [1.0, 4.0, 30.0] {
            // Falls through 0.9 at `centre`.
            let (sizes, end) = search(500, 8000, |n| 1.0 / (1.0 + (n / centre).powf(steep) / 9.0));
            let Next::Done(b) = end else { panic!("{centre} {steep}: {end:?}") };
            assert!(b.lo.0 as f64 <= centre && centre < b.hi.0 as f64, "{centre}: {b:?}");
            assert!(b.hi.0 as f64 <= 1.25 * b.lo.0 as f64 + 1.0, "{centre}: {b:?}");
            assert!(sizes.len() <= 10, "{centre} {steep}: {sizes:?}");
            assert!(
                sizes.iter().all(|&n| n as f64 <= 2.0 * centre),
                "trained too large: {sizes:?}"
            );
        }
    }
}

#[test]
fn the_search_says_when_its_ends_do_not_bracket() {
    assert_eq!(search(500, 8000, |_| 0.2), (vec![500], Next::NoBracket(Side::Below)));
    let (sizes, end) = search(500, 3000, |_| 1.0);
    assert_eq!((sizes, end), (vec![500, 1000, 2000, 3000], Next::NoBracket(Side::Above)));
    // What is known outside its ends does not count; what is known inside is not trained again.
    assert_eq!(next_size(&[(100, 1.0)], 500, 900, 0.1), Next::Train(500));
    assert_eq!(next_size(&[(800, 0.3)], 500, 900, 0.1), Next::Train(500));
    let Next::Done(b) = next_size(&[(800, 0.95), (900, 0.3)], 500, 900, 0.1) else { panic!() };
    assert_eq!((b.lo.0, b.hi.0), (800, 900));
}

#[test]
fn the_search_ends_on_tiny_sizes() {
    let (sizes, end) = search(1, 4, |n| if n < 2.0 { 1.0 } else { 0.0 });
    assert_eq!(sizes, [1, 2]);
    assert!(matches!(end, Next::Done(_)));
}
