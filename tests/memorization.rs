//! Exact nearest neighbours, the criterion and its interval.

use crate::support::{Golden, emm as run};
use emm::data::{Dataset, npy};
use emm::device::{Cpu, Device, Pixels};
use emm::memorization::{Nearest, Neighbour, Score, Search, Threshold, wilson};

fn cpu(threads: usize) -> Device {
    Device::Cpu(Cpu::new(threads).unwrap())
}

/// The two nearest of each query, on so many threads.
fn nearest(references: &[u8], queries: &[u8], len: usize, threads: usize) -> Vec<Nearest> {
    let mut search = Search::new(&cpu(threads), references, len).unwrap();
    search.nearest(&Pixels::Host(queries.into())).unwrap()
}

/// By the definition, in 64-bit integers: the two nearest, and the nearest that is not the first's image.
pub fn by_definition(references: &[u8], queries: &[u8], len: usize) -> Vec<Nearest> {
    let of = |query: &[u8]| {
        let squared = |r: &[u8]| -> u64 {
            query.iter().zip(r).map(|(&a, &b)| (a.abs_diff(b) as u64).pow(2)).sum()
        };
        let mut all: Vec<_> = references.chunks(len).enumerate().collect();
        all.sort_by_key(|(i, r)| (squared(r), *i));
        let [one, two] = [all[0], all[1]];
        let other = all.iter().find(|(_, r)| *r != one.1);
        let neighbour =
            |&(i, r): &(usize, &[u8])| Neighbour { squared: squared(r), index: i as u32 };
        Nearest {
            index: [one.0 as u32, two.0 as u32],
            squared: [squared(one.1), squared(two.1)],
            distinct: other.map(neighbour),
        }
    };
    queries.chunks(len).map(of).collect()
}

#[test]
fn repeated_images_are_searched_once_and_told_both_ways() {
    let random = |len: usize, seed: u64| -> Vec<u8> {
        let word = |i: u32| emm::rng::philox([i, 0, 0, 0], seed)[0];
        (0..len as u32).map(|i| word(i) as u8).collect()
    };
    for (len, images, different) in [(1, 40, 7), (3, 9, 9), (16, 60, 20), (48, 33, 2), (64, 5, 1)] {
        let seed = (len * images) as u64;
        let distinct = random(different * len, seed);
        let pick = random(images, seed + 1);
        let references: Vec<u8> = (pick.iter())
            .flat_map(|&p| distinct[p as usize % different * len..][..len].to_vec())
            .collect();
        // Near images, at them, and between two: ties of different images.
        let mut queries = [&references[..len], &random(20 * len, seed + 2)].concat();
        queries.extend(references.iter().map(|p| p.saturating_add(1)));
        let middle = |(a, b): (&u8, &u8)| ((*a as u16 + *b as u16) / 2) as u8;
        queries.extend(distinct[..len].iter().zip(&distinct[(different - 1) * len..]).map(middle));
        let want = by_definition(&references, &queries, len);
        for threads in [1, 3] {
            let found = nearest(&references, &queries, len, threads);
            assert!(found == want, "{images} images of {len} bytes, {different} different");
        }
        let third = Threshold::default();
        let s = Score::of(&want, third, len, images, 0);
        let rule = |n: &Nearest| n.distinct.is_some_and(|d| 9 * n.squared[0] < d.squared);
        let copies = want.iter().filter(|n| rule(n)).count() as u64;
        assert_eq!(s.memorized_distinct, (different > 1).then_some(copies));
    }
    // Equal where they are looked at first, and yet different; many, so that no pair may be compared with all.
    let mut alike = vec![0u8; 3000 * 128];
    alike.chunks_mut(128).enumerate().for_each(|(i, image)| {
        image[1..3].copy_from_slice(&(i as u16 / 2).to_le_bytes());
    });
    let search = Search::new(&cpu(2), &alike, 128).unwrap();
    assert_eq!(search.repeats(), 1500);
}

#[test]
fn nearest_two_equal_brute_force() {
    for name in ["nearest_random", "nearest_ties"] {
        let g = Golden::open(&format!("score/{name}.safetensors"));
        let (queries, len) = (g.u8("queries"), g.shape("queries")[1]);
        let (index, squared) = (g.i64("index"), g.i64("squared"));
        let references = g.u8("references");
        let definition = by_definition(&references, &queries, len);
        for threads in [1, 2, 3] {
            let found = nearest(&references, &queries, len, threads);
            assert!(found == definition, "{name}");
            assert_eq!(found.len() * 2, index.len());
            for (i, n) in found.iter().enumerate() {
                assert_eq!(n.index.map(i64::from), index[2 * i..2 * i + 2], "{name}: query {i}");
                assert_eq!(n.squared.map(|d| d as i64), squared[2 * i..2 * i + 2], "{name}: {i}");
            }
        }
        // A query's result does not depend on the queries beside it.
        let all = nearest(&references, &queries, len, 1);
        for (i, q) in queries.chunks(len).enumerate() {
            assert_eq!(nearest(&references, q, len, 1), all[i..=i]);
        }
    }
}

#[test]
fn distances_are_exact_beyond_32_bits() {
    for len in [65_535, 65_536, 65_537, 200_000] {
        let mut references = vec![255u8; 3 * len];
        references[2 * len..].fill(254);
        let found = nearest(&references, &vec![0; len], len, 1);
        let full = len as u64 * 255 * 255;
        let near = len as u64 * 254 * 254;
        let distinct = Some(Neighbour { squared: full, index: 0 });
        assert_eq!(found, [Nearest { index: [2, 0], squared: [near, full], distinct }]);
    }
}

#[test]
fn blocks_of_references_are_all_searched() {
    // More references than fit one block, each the only one near its query.
    let len = 3072;
    let references: Vec<u8> =
        (0..300 * len).map(|i| ((i / len) * 7 + (i % len) * 13) as u8).collect();
    for (i, n) in nearest(&references, &references, len, 2).iter().enumerate() {
        // 7 k mod 256 repeats after 256 images: those duplicate the first ones.
        assert_eq!(n.index[0] as usize, i % 256);
        assert_eq!(n.squared[0], 0);
    }
}

fn at(d1: u64, d2: u64) -> Nearest {
    Nearest {
        index: [0, 1],
        squared: [d1, d2],
        distinct: Some(Neighbour { squared: d2, index: 1 }),
    }
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
    let s = Score::of(&found, Threshold::default(), 12, 7, 3);
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
        "reference_duplicates",
        "memorized_distinct",
        "ratio_distinct",
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

/// A folder with `train.zip` (the first 20 digits) and `samples.npz`: two copies, one of them with a pixel
/// changed, and a mixture of two digits.
fn scene() -> (tempfile::TempDir, impl Fn(&str) -> String) {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().to_path_buf();
    let at = move |name: &str| root.join(name).display().to_string();
    let mut digits = Dataset::digits();
    digits.pixels.truncate(20 * 64);
    digits.labels.as_mut().unwrap().truncate(20);
    digits.save(at("train.zip").as_ref(), false).unwrap();
    let mut samples = [digits.image(3), digits.image(7)].concat();
    samples[70] ^= 1;
    samples.extend(digits.image(1).iter().zip(digits.image(2)).map(|(a, b)| a / 2 + b / 2));
    let samples = npy::Array::new(&[3, 8, 8, 1], samples);
    npy::write_npz(at("samples.npz").as_ref(), false, &[("images", samples)]).unwrap();
    (dir, at)
}

#[test]
fn score_prints_the_fixed_keys_and_writes_its_files() {
    let (_dir, at) = scene();
    let (train, samples) = (at("train.zip"), at("samples.npz"));
    let (sheet, pairs, csv) = (at("sheet.png"), at("pairs.npz"), at("copies.csv"));
    let args = ["score", "--samples", &samples, "--reference", &train, "--json"];
    let files = ["--sheet", &sheet, "--pairs", &pairs, "--per-image", &csv];
    let json = run(args.iter().chain(&files)).json();
    let [low, high] = wilson(2, 3);
    assert_eq!(json["images"], 3);
    assert_eq!(json["memorized"], 2);
    assert_eq!(json["ratio"], 2.0 / 3.0);
    assert_eq!(json["interval"], serde_json::json!([low, high]));
    assert_eq!(json["duplicate_ties"], 0);
    assert_eq!(json["reference_images"], 20);
    assert_eq!(
        (&json["reference_duplicates"], &json["memorized_distinct"]),
        (&0.into(), &2.into())
    );
    assert_eq!(json["ratio_distinct"], 2.0 / 3.0);
    assert_eq!(json.as_object().unwrap().len(), 10);

    let arrays = npy::read_npz(pairs.as_ref()).unwrap();
    let get = |name: &str| {
        let array = arrays.iter().find(|a| a.0 == name).unwrap().1.clone();
        array.of::<i64>(name).unwrap()
    };
    let ((shape, index), (_, squared)) = (get("index"), get("squared"));
    assert_eq!(shape, [3, 2]);
    assert_eq!((index[0], index[2]), (3, 7));
    assert_eq!((squared[0], squared[2]), (0, 1));
    let mean = (0.0 + (1.0f64 / 64.0).sqrt() + (squared[4] as f64 / 64.0).sqrt()) / 3.0;
    assert!((json["mean_d1"].as_f64().unwrap() - mean).abs() < 1e-12);
    let copies = std::fs::read_to_string(&csv).unwrap();
    let want: String = (0..20).map(|i| format!("{i},{}\n", (i == 3 || i == 7) as u8)).collect();
    assert_eq!(copies, format!("image,copies\n{want}"));
    let decoded = |path: &str| {
        emm::data::Image::decode(&std::fs::read(path).unwrap(), &Default::default(), "sheet")
            .unwrap()
    };
    let wide = at("wide.png");
    run(args.iter().chain(&["--sheet", &wide, "--neighbours", "5"])).json();
    // The samples' nearest two stand where they did, three more beside them.
    let ([two, five], from) = ([&sheet, &wide].map(|p| decoded(p)), 28 + 8);
    assert!(five.width > from + 6 * 64 && two.width > from + 3 * 64);
    // The first sample is a copy: its frame begins there, as high on both, below as many words.
    let top = |i: &emm::data::Image| {
        let accent = |y: &usize| i.pixels[(y * i.width + 28) * 3..][..3] == [0xd9, 0x48, 0x0f];
        (0..i.height).find(accent).unwrap()
    };
    assert_eq!(top(&two), top(&five));
    let top = top(&two) + 8;
    for (x, y) in (0..64 * 3 + 12).flat_map(|x| (0..64).map(move |y| (from + x, top + y))) {
        let at = |i: &emm::data::Image| i.pixels[(y * i.width + x) * 3..][..3].to_vec();
        assert_eq!(at(&two), at(&five), "{x},{y}");
    }

    // Existing outputs are refused, and none of them is touched.
    run(args.iter().chain(&files)).refused(2, &sheet, "--force");
    run(args.iter().chain(&files).chain(&["--force"])).json();
    let text = run(&args[..5]).ok();
    assert!(text.starts_with("2 of 3 samples copy one of 20 training images: 66.67%\n"), "{text}");
    // A stricter threshold: the changed copy is 1/d2 away from its image.
    let strict = run(args.iter().chain(&["--threshold", "0.0001"])).json();
    assert_eq!(strict["memorized"], 1);
}

#[test]
fn score_counts_duplicated_training_images_apart() {
    let (_dir, at) = scene();
    let mut twice = Dataset::open(at("train.zip").as_ref()).unwrap();
    let first = twice.image(3).to_vec();
    twice.pixels.extend(first);
    twice.labels.as_mut().unwrap().push(3);
    twice.save(at("twice.zip").as_ref(), false).unwrap();
    let (samples, twice) = (at("samples.npz"), at("twice.zip"));
    let json = run(["score", "--samples", &samples, "--reference", &twice, "--json"]).json();
    assert_eq!((json["memorized"].as_u64(), json["duplicate_ties"].as_u64()), (Some(1), Some(1)));
    assert_eq!(json["ratio_distinct"], 2.0 / 3.0);
}

/// Images near one that the set holds several times tie with its repetition: by the paper's rule none is a copy.
#[test]
fn a_repeated_training_image_does_not_hide_its_copies_in_silence() {
    let (_dir, at) = scene();
    let set = Dataset::open(at("train.zip").as_ref()).unwrap();
    for times in [2, 3] {
        let mut repeated = set.clone();
        for _ in 1..times {
            repeated.pixels.extend_from_slice(set.image(5));
            repeated.labels.as_mut().unwrap().push(5);
        }
        repeated.save(at("repeated.zip").as_ref(), true).unwrap();
        let noise = |i: usize| (emm::rng::philox([i as u32, 0, 0, 0], 9)[0] % 9) as i16 - 4;
        let near =
            (0..50).flat_map(|k| set.image(5).iter().enumerate().map(move |(i, &p)| (k, i, p)));
        let near: Vec<u8> =
            near.map(|(k, i, p)| (p as i16 + noise(k * 64 + i)).clamp(0, 255) as u8).collect();
        let samples = npy::Array::new(&[50, 8, 8, 1], near);
        npy::write_npz(at("near.npz").as_ref(), true, &[("images", samples)]).unwrap();
        let (samples, reference, csv) = (at("near.npz"), at("repeated.zip"), at("copies.csv"));
        let args = ["score", "--samples", &samples, "--reference", &reference];
        let files = ["--per-image", &csv, "--force", "--json"];
        let json = run(args.iter().chain(&files)).json();
        assert_eq!((&json["memorized"], &json["duplicate_ties"]), (&0.into(), &0.into()));
        assert_eq!(json["reference_duplicates"], times - 1);
        assert_eq!(
            (&json["memorized_distinct"], &json["ratio_distinct"]),
            (&50.into(), &1.0.into())
        );
        let said = run(args).ok();
        let line = format!("{} training images repeat an earlier one", times - 1);
        assert!(said.contains(&line) && said.contains("counted once 50 are: 100.00%"), "{said}");
        let copies = std::fs::read_to_string(&csv).unwrap();
        assert!(copies.starts_with("image,copies,copies_distinct\n0,0,0\n"), "{copies}");
        assert!(copies.contains("\n5,0,50\n"), "{copies}");
    }
    // All equal: there is no second image to compare with.
    let equal = Dataset { pixels: set.image(5).repeat(3), labels: None, ..set.clone() };
    equal.save(at("equal.zip").as_ref(), false).unwrap();
    let (samples, reference) = (at("near.npz"), at("equal.zip"));
    let args = ["score", "--samples", &samples, "--reference", &reference];
    let json = run(args.iter().chain(&["--json"])).json();
    assert_eq!((&json["memorized"], &json["reference_duplicates"]), (&0.into(), &2.into()));
    assert_eq!(json["ratio_distinct"], serde_json::Value::Null);
    assert!(run(args).ok().contains("all are equal"));
}

#[test]
fn score_refuses_what_it_cannot_compare() {
    let (_dir, at) = scene();
    let score = |samples: &str, reference: &str, more: &[&str]| {
        let args = ["score", "--samples", samples, "--reference", reference, "--json"];
        run(args.iter().chain(more))
    };
    let (train, samples) = (at("train.zip"), at("samples.npz"));
    for bad in ["0", "1", "2/1", "x", "1/0"] {
        score(&samples, &train, &["--threshold", bad]).refused(2, "--threshold: ", bad);
    }
    score(&samples, &train, &["--sheet", "s.jpg"]).refused(2, "--sheet: ", "s.jpg");
    for k in ["1", "12"] {
        score(&samples, &train, &["--neighbours", k]).refused(2, "--neighbours: ", "2 to 11");
    }
    let missing = at("missing.npz");
    score(&missing, &train, &[]).refused(3, &missing, "");
    score(&samples, &missing, &[]).refused(3, &missing, "");
    // Floats, another shape, no samples, one training image.
    let write = |name: &str, array| {
        npy::write_npz(at(name).as_ref(), false, &[("images", array)]).unwrap();
        at(name)
    };
    let floats = write("floats.npz", npy::Array::new(&[1, 8, 8, 1], vec![0.5f32; 64]));
    score(&floats, &train, &[]).refused(3, &floats, "<f4");
    let rgb = write("rgb.npz", npy::Array::new(&[1, 8, 8, 3], vec![5u8; 192]));
    score(&rgb, &train, &[]).refused(3, &rgb, "8x8 pixels and 1 channel as in");
    let large = write("large.npz", npy::Array::new(&[1, 16, 16, 1], vec![5u8; 256]));
    score(&large, &train, &[]).refused(3, &large, "16x16 pixels");
    let none = write("none.npz", npy::Array::new(&[0, 8, 8, 1], Vec::<u8>::new()));
    score(&none, &train, &[]).refused(3, &none, "");
    let mut one = Dataset::open(train.as_ref()).unwrap();
    one.pixels.truncate(64);
    one.labels.as_mut().unwrap().truncate(1);
    one.save(at("one.zip").as_ref(), false).unwrap();
    score(&samples, &at("one.zip"), &[]).refused(3, &at("one.zip"), "two training images");
}

#[test]
fn score_of_a_run_is_that_of_its_samples() {
    let f = crate::run::fixture();
    let (run_dir, train) = (f.folder.path().join("reference"), f.data.display().to_string());
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let run_dir = run_dir.display().to_string();
    let (out, a, b) = (at("s.npz"), at("a.npz"), at("b.npz"));
    let base = ["score", "--run", &run_dir, "--reference", &train, "--quiet", "--json"];
    let scored = run(base.iter().chain(&["--seeds", "0-8", "--batch", "4", "--pairs", &a])).json();
    run(["sample", "--run", &run_dir, "--seeds", "0-8", "--out", &out, "--quiet"]).ok();
    let sampled =
        run(["score", "--samples", &out, "--reference", &train, "--pairs", &b, "--json"]).json();
    assert_eq!(scored, sampled);
    assert_eq!(std::fs::read(a).unwrap(), std::fs::read(b).unwrap());
    assert_eq!(run(base.iter().chain(&["--images", "9"])).json(), scored);

    run(base.iter().chain(&["--images", "0"])).refused(2, "--images: ", "0");
    run(base.iter().chain(&["--batch", "0"])).refused(2, "--batch: ", "0");
    let none = at("none");
    let missing = ["score", "--run", &none, "--reference", &train, "--json"];
    assert_ne!(run(missing).code, 0);
    // Other training images than the run's are scored against, with a note.
    let (_dir, scene) = scene();
    let other = scene("train.zip");
    let ended = run(["score", "--run", &run_dir, "--reference", &other, "--seeds", "0"]);
    assert!(ended.stderr.contains("trained on other images"), "{ended:?}");
    ended.ok();
}

#[test]
fn the_search_is_timed_with_fixed_keys() {
    let small = ["bench", "nearest", "--queries", "3", "--references", "5", "--pixels", "48"];
    let found = run(small.into_iter().chain(["--repeats", "2", "--json"])).json();
    assert!(found["median_s"].as_f64().is_some_and(|s| s >= 0.0), "{found}");
    assert!(found["prepare_s"].as_f64().is_some_and(|s| s >= 0.0), "{found}");
    assert!(found["peak_rss_bytes"].as_u64().is_some_and(|b| b > 0), "{found}");
    assert_eq!((&found["queries"], &found["references"]), (&3.into(), &5.into()));
    assert_eq!(found["device"], "cpu");
    assert_eq!(found["checked"], 3);

    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let (file, floats) = (at("images.npy"), at("floats.npy"));
    npy::write(file.as_ref(), false, &[70, 8, 8, 1], &Dataset::digits().pixels[..70 * 64]).unwrap();
    npy::write(floats.as_ref(), false, &[9, 8, 8, 1], &[0.5f32; 9 * 64]).unwrap();
    let some = ["bench", "nearest", "--queries", "20", "--data", &file];
    let more = ["--references", "50", "--instructions", "portable", "--json"];
    let found = run(some.iter().chain(&more)).json();
    assert_eq!((&found["pixels"], &found["checked"]), (&64.into(), &20.into()));
    run(some.iter().chain(&["--references", "51"])).refused(3, &file, "71 images");
    run(["bench", "nearest", "--data", &floats]).refused(3, &floats, "|u1");
    run(["bench", "nearest", "--instructions", "mmx"]).refused(2, "--instructions", "portable");
    run(["bench", "nearest", "--references", "1"]).refused(2, "--references: 1", "at least 2");
    run(["bench", "nearest", "--references", "900000000"]).refused(4, "--references: ", "memory");
    run(["bench", "nearest", "--queries", "99999999999"]).refused(4, "--queries: ", "memory");
    run(["bench", "nearest", "--queries", "0"]).refused(2, "--queries: 0", "at least 1");
}
