//! The effective model memorization of measured ratios, and the sizes that a search for it trains.

use emm::memorization::{Beyond, NextSize, SizeRatio, emm_of, next_size};

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
    // At least 1 − ε is reached by 1 − ε itself, whatever a difference of doubles makes of it.
    for k in 1..1000 {
        let (ratio, epsilon) = (k as f64 / 1000.0, (1000 - k) as f64 / 1000.0);
        let [of_two, alone] = [vec![(10, 1.0), (20, ratio)], vec![(20, ratio)]];
        assert_eq!(emm_of(&of_two, epsilon).found, Err(Beyond::Above), "{k}");
        assert_eq!(next_size(&alone, 20, 20, epsilon), NextSize::NoBracket(Beyond::Above), "{k}");
    }
    assert_eq!(emm_of(&table, 0.01).found, Err(Beyond::Below));
    assert_eq!(emm_of(&table, 0.7).found, Err(Beyond::Above));
    assert_eq!(emm_of(&[(10, f64::NAN)], 0.1).found, Err(Beyond::Unreached), "NaN shows nothing");
}

/// Of (size, ratio, still rising).
fn known(measured: &[(u64, f64, bool)]) -> emm::memorization::Emm {
    let of = |&(size, ratio, rising): &(u64, f64, bool)| SizeRatio { size, ratio, rising };
    emm_of(&measured.iter().map(of).collect::<Vec<_>>(), 0.1)
}

#[test]
fn ratios_that_still_rise_are_lower_bounds() {
    // Below: only where the smallest size has ended; bounded by the smallest that has.
    let e = known(&[(8, 0.638, true), (16, 0.736, true), (32, 0.506, true)]);
    assert_eq!((e.found, e.reached, e.below), (Err(Beyond::Unreached), None, None));
    assert_eq!((e.rising.as_slice(), e.open()), (&[8, 16, 32][..], true));
    let e = known(&[(8, 0.6, true), (16, 0.5, false), (32, 0.4, true)]);
    assert_eq!((e.found, e.below, e.open()), (Err(Beyond::Unreached), Some(16), true));
    let e = known(&[(8, 0.6, false), (16, 0.5, true)]);
    assert_eq!((e.found, e.below, e.open()), (Err(Beyond::Below), Some(8), false));
    // Nothing memorized may be too short a training, unless a smaller size has shown how long it takes.
    assert_eq!(known(&[(8, 0.0, false), (16, 0.0, false)]).found, Err(Beyond::Unreached));
    assert_eq!(known(&[(8, 0.3, true), (16, 0.0, false)]).below, None);
    assert_eq!(known(&[(8, 0.3, false), (16, 0.0, false)]).found, Err(Beyond::Below));
    // Bracketed: what is interpolated is a lower bound where an end still rises.
    for (lo, hi, least, below) in [
        (false, false, false, Some(20)),
        (false, true, true, Some(40)),
        (true, false, true, Some(20)),
        (true, true, true, None),
    ] {
        let e = known(&[(10, 0.95, lo), (20, 0.5, hi), (40, 0.2, lo)]);
        assert_eq!((e.at_least(), e.reached, e.below), (least, Some(10), below), "{lo} {hi}");
        assert!(e.found.unwrap().0 > 10.0);
    }
    let e = known(&[(10, 0.95, true), (20, 0.92, true)]);
    assert_eq!((e.found, e.open()), (Err(Beyond::Above), false), "at least that, whatever rises");
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
fn search(lo: u64, hi: u64, ratio: impl Fn(f64) -> f64) -> (Vec<u64>, NextSize) {
    let mut known = Vec::new();
    loop {
        match next_size(&known, lo, hi, 0.1) {
            NextSize::Train(n) => {
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
            let NextSize::Done(b) = end else { panic!("{centre} {steep}: {end:?}") };
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
    assert_eq!(search(500, 8000, |_| 0.2), (vec![500], NextSize::NoBracket(Beyond::Below)));
    let (sizes, end) = search(500, 3000, |_| 1.0);
    assert_eq!((sizes, end), (vec![500, 1000, 2000, 3000], NextSize::NoBracket(Beyond::Above)));
    // What is known outside its ends does not count; what is known inside is not trained again.
    assert_eq!(next_size(&[(100, 1.0)], 500, 900, 0.1), NextSize::Train(500));
    assert_eq!(next_size(&[(800, 0.3)], 500, 900, 0.1), NextSize::Train(500));
    let NextSize::Done(b) = next_size(&[(800, 0.95), (900, 0.3)], 500, 900, 0.1) else { panic!() };
    assert_eq!((b.lo.0, b.hi.0), (800, 900));
}

#[test]
fn the_search_ends_on_tiny_sizes() {
    let (sizes, end) = search(1, 4, |n| if n < 2.0 { 1.0 } else { 0.0 });
    assert_eq!(sizes, [1, 2]);
    assert!(matches!(end, NextSize::Done(_)));
}
