//! `emm audit` against its definitions, written down a second time in float64, on sets with planted copies.

use crate::ops::fresh_seed;
use crate::support::{Ended, emm_in};
use emm::data::Dataset;
use emm::rng::{Stream, philox, tag};
use serde_json::Value;
use std::fs;
use std::path::Path;

const SIDE: usize = 6;
const LEN: usize = SIDE * SIDE * 3;

/// Random images, and words that choose.
struct Random {
    seed: u64,
    drawn: u32,
}

impl Random {
    fn word(&mut self) -> u32 {
        self.drawn += 1;
        philox([self.drawn, 0, 0, tag(Stream::Diagnostic, 0)], self.seed)[0]
    }

    fn image(&mut self) -> Vec<u8> {
        (0..LEN).map(|_| self.word() as u8).collect()
    }

    /// With up to `by` levels added to or taken off each value.
    fn near(&mut self, image: &[u8], by: u32) -> Vec<u8> {
        let shift = |v: u8, w: u32| v as i32 + (w % (2 * by + 1)) as i32 - by as i32;
        image.iter().map(|&v| shift(v, self.word()).clamp(0, 255) as u8).collect()
    }
}

fn mirrored(image: &[u8]) -> Vec<u8> {
    let pixel = |i: usize| {
        let (row, col, c) = (i / 3 / SIDE, i / 3 % SIDE, i % 3);
        image[(row * SIDE + SIDE - 1 - col) * 3 + c]
    };
    (0..LEN).map(pixel).collect()
}

fn save(dir: &Path, name: &str, images: &[Vec<u8>], names: &[String]) {
    let set = Dataset::new(name, SIDE, 3, images.concat(), None).unwrap();
    let set = Dataset { names: names.to_vec(), ..set };
    set.save(&dir.join(name), true).unwrap();
}

fn distance(a: &[u8], b: &[u8]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| (a as f64 - b as f64).powi(2)).sum()
}

/// d1² and d2² to the images of `all` that are not `but`, with identical ones counted once where `once` says so.
fn two(image: &[u8], all: &[Vec<u8>], but: Option<usize>, once: bool) -> [f64; 2] {
    let others = all.iter().enumerate().filter(|(i, _)| Some(*i) != but);
    let mut near: Vec<(f64, &Vec<u8>)> = others.map(|(_, o)| (distance(image, o), o)).collect();
    near.sort_by(|a, b| a.0.total_cmp(&b.0));
    let second = near[1..].iter().find(|(_, o)| !once || *o != near[0].1);
    [near[0].0, second.map_or(f64::NAN, |s| s.0)]
}

fn rule([d1, d2]: [f64; 2]) -> bool {
    9.0 * d1 < d2
}

fn audit(dir: &Path, flags: &str) -> Ended {
    let args = format!("audit --samples s.zip --train t.zip --quiet {flags}");
    emm_in(dir, args.split_whitespace())
}

#[test]
fn an_audit_is_what_its_definitions_say() {
    let mut random = Random { seed: fresh_seed(), drawn: 0 };
    let mut train: Vec<Vec<u8>> = (0..90).map(|_| random.image()).collect();
    train.extend([train[3].clone(), train[3].clone(), train[7].clone()]);
    let near = random.near(&train[11], 2);
    train.push(near);
    let holdout: Vec<Vec<u8>> = (0..40).map(|_| random.image()).collect();
    let mut samples: Vec<Vec<u8>> = (0..30).map(|_| random.image()).collect();
    samples.extend(train[..10].to_vec());
    samples.extend((20..30).map(|i| random.near(&train[i], 4)));
    samples.extend((30..38).map(|i| mirrored(&train[i])));
    samples.extend((40..50).map(|i| random.near(&train[i], 70)));
    let again = [samples[2].clone(), random.near(&samples[5], 3)];
    samples.extend(again);
    let dir = tempfile::tempdir().unwrap();
    for (name, set) in [("t.zip", &train), ("h.zip", &holdout), ("s.zip", &samples)] {
        save(dir.path(), name, set, &[]);
    }

    let is = |found: &dyn Fn(&Vec<u8>) -> bool| samples.iter().map(found).collect::<Vec<bool>>();
    let count = |all: &[bool]| all.iter().filter(|yes| **yes).count();
    let plain = is(&|s| rule(two(s, &train, None, false)));
    let own = is(&|s| rule(two(s, &train, None, true)));
    let either =
        is(&|s| rule(two(s, &train, None, true)) || rule(two(&mirrored(s), &train, None, true)));
    let like = |i: usize| {
        let others: Vec<Vec<u8>> = samples.iter().filter(|o| **o != samples[i]).cloned().collect();
        samples.len() - others.len() > 1 || rule(two(&samples[i], &others, None, true))
    };
    let spurious = (0..samples.len()).filter(|&i| !either[i] && like(i)).count();
    let nearest = |s: &Vec<u8>| {
        let d = |i: &usize| distance(s, &train[*i]);
        (0..train.len()).min_by(|a, b| d(a).total_cmp(&d(b))).unwrap()
    };
    let authentic = is(&|s| {
        let i = nearest(s);
        distance(s, &train[i]) > two(&train[i], &train, Some(i), false)[0]
    });
    let d = |set: &[Vec<u8>]| -> Vec<f64> {
        set.iter().map(|s| two(s, &train, None, false)[0]).collect()
    };
    let (q, p) = (d(&samples), d(&holdout));
    let pairs = q.iter().flat_map(|a| p.iter().map(move |b| (a, b)));
    let u: f64 = pairs
        .map(|(a, b)| {
            if a > b {
                1.0
            } else if a == b {
                0.5
            } else {
                0.0
            }
        })
        .sum();
    let (m, n) = (q.len() as f64, p.len() as f64);
    let c_t = (u - m * n / 2.0) / (m * n * (m + n + 1.0) / 12.0).sqrt();

    let found = audit(dir.path(), "--holdout h.zip --mirror --near --json").json();
    let whole =
        |key: &str| found[key].as_u64().unwrap_or_else(|| panic!("{key}: {found}")) as usize;
    assert_eq!(whole("images"), samples.len());
    assert_eq!(whole("memorized"), count(&plain));
    assert_eq!(whole("memorized_distinct"), count(&either));
    assert_eq!(whole("mirrored"), count(&either) - count(&own));
    assert_eq!((whole("spurious"), whole("train_duplicates")), (spurious, 3));
    assert!(whole("mirrored") == 8 && whole("train_near_duplicates") == 2, "{found}");
    let share = |key: &str| found[key].as_f64().unwrap();
    let authentic = count(&authentic) as f64 / samples.len() as f64;
    assert!((share("auth_pct") - authentic).abs() < 1e-12, "{authentic}: {found}");
    assert!((share("c_t") - c_t).abs() < 1e-9, "{c_t}: {found}");
    assert_eq!(whole("novel") + spurious + count(&either), samples.len());

    // A sample stands with what makes it what it is.
    audit(dir.path(), "--mirror --out a").ok();
    let read = |name: &str| fs::read_to_string(dir.path().join("a").join(name)).unwrap();
    let copies = read("samples.csv").lines().filter(|row| row.contains(",memorized,")).count();
    let shown = |row: &str| {
        let cells: Vec<&str> = row.split(',').collect();
        [cells[0], cells[3], cells[5], cells[6], cells[7]].join(",")
    };
    let (all, listed) = (read("samples.csv"), read("copies.csv"));
    let rows: Vec<String> = all.lines().map(shown).collect();
    for row in listed.lines().skip(1) {
        let cells: Vec<&str> = row.split(',').collect();
        let wanted = [cells[0], cells[2], cells[4], cells[5], cells[7]].join(",");
        assert!(rows.contains(&wanted), "{wanted}");
    }
    assert_eq!(copies, count(&either));

    // Without flags as `score`, and nothing is said of what was not looked for.
    let found = audit(dir.path(), "--json").json();
    let score = "score --samples s.zip --reference t.zip --json --quiet".split(' ');
    let score = emm_in(dir.path(), score).json();
    for key in ["images", "memorized", "ratio", "memorized_distinct", "ratio_distinct", "interval"]
    {
        assert_eq!(found[key], score[key], "{key}");
    }
    for key in ["mirrored", "auth_pct", "c_t", "train_near_duplicates", "holdout_images"] {
        assert_eq!(found[key], Value::Null, "{key}");
    }
}

#[test]
fn answers_name_files_and_are_written_whole() {
    let mut random = Random { seed: fresh_seed(), drawn: 0 };
    let train: Vec<Vec<u8>> = (0..12).map(|_| random.image()).collect();
    let samples =
        vec![random.image(), random.near(&train[4], 3), train[4].clone(), train[9].clone()];
    let names = |what: &str, n: usize| (0..n).map(|i| format!("{what}{i}.png")).collect::<Vec<_>>();
    let dir = tempfile::tempdir().unwrap();
    save(dir.path(), "t.zip", &train, &names("cat", 12));
    save(dir.path(), "s.zip", &samples, &names("made", 4));
    let said = audit(dir.path(), "--out a --near").ok();
    assert!(said.contains("copies: 3 of 4 (75.00%)"), "{said}");
    assert!(said.contains("the most copied: cat4.png, by 2 samples"), "{said}");
    let read = |name: &str| fs::read_to_string(dir.path().join("a").join(name)).unwrap();
    let copies = read("copies.csv");
    let rows: Vec<&str> = copies.lines().collect();
    assert_eq!(rows[0], "sample,sample_name,image,image_name,d1,d2,d1/d2,mirrored");
    let starts =
        ["2,made2.png,4,cat4.png,0,", "3,made3.png,9,cat9.png,0,", "1,made1.png,4,cat4.png,"];
    assert!(starts.iter().zip(&rows[1..]).all(|(start, row)| row.starts_with(start)), "{copies}");
    assert_eq!(read("copied.csv"), "image,image_name,copies\n4,cat4.png,2\n9,cat9.png,1\n");
    assert_eq!(read("samples.csv").lines().nth(1).unwrap()[..17], *"0,made0.png,novel");
    let json: Value = serde_json::from_str(&read("audit.json")).unwrap();
    assert_eq!((&json["copied_images"], &json["images"]), (&2.into(), &4.into()));
    let page = read("audit.html");
    assert!(
        page.contains("cat4.png") && page.contains("copies.png") && page.contains("<svg"),
        "{page}"
    );
    for (name, magic) in [("curve.pdf", "%PDF"), ("curve.svg", "<svg"), ("copies.png", "\u{89}PNG")]
    {
        let bytes = fs::read(dir.path().join("a").join(name)).unwrap();
        let magic: Vec<u8> = magic.chars().map(|c| c as u8).collect();
        assert!(bytes.starts_with(&magic), "{name}");
    }
    // There once, and not over what nobody wrote here.
    audit(dir.path(), "--out a").refused(2, "a: ", "--force");
    audit(dir.path(), "--out a --force").ok();
    fs::write(dir.path().join("a/mine.txt"), "").unwrap();
    audit(dir.path(), "--out a --force").refused(2, "a: ", "mine.txt");
}

/// What makes the numbers mean something else is said.
#[test]
fn sets_that_overlap_or_repeat_are_said() {
    let mut random = Random { seed: fresh_seed(), drawn: 0 };
    let train: Vec<Vec<u8>> = (0..9).map(|_| random.image()).collect();
    let holdout = vec![random.image(), train[2].clone(), random.image(), train[5].clone()];
    let dir = tempfile::tempdir().unwrap();
    save(dir.path(), "t.zip", &train, &[]);
    save(dir.path(), "h.zip", &holdout, &[]);
    save(dir.path(), "s.zip", &train[..2], &[]);
    let said = audit(dir.path(), "--holdout h.zip").ok();
    let told = "warning: 2 of 4 held-out images are in the training set";
    assert!(said.contains(told), "{said}");
    assert!(said.contains("warning: too few samples or held-out images for C_T"), "{said}");
    assert_eq!(audit(dir.path(), "--holdout h.zip --json").json()["holdout_in_train"], 2);
    assert!(!audit(dir.path(), "").ok().contains("warning"));
    save(dir.path(), "t.zip", &[train[0].clone(), train[0].clone()], &[]);
    let said = audit(dir.path(), "").ok();
    assert!(
        said.contains("warning: 1 training images repeat") && said.contains("all are equal"),
        "{said}"
    );
}

#[test]
fn what_does_not_fit_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut random = Random { seed: 3, drawn: 0 };
    let all: Vec<Vec<u8>> = (0..4).map(|_| random.image()).collect();
    save(dir.path(), "t.zip", &all, &[]);
    save(dir.path(), "s.zip", &all, &[]);
    Dataset::digits().save(&dir.path().join("d.zip"), true).unwrap();
    audit(dir.path(), "--holdout d.zip").refused(3, "d.zip: ", "8x8 pixels and 1 channel");
    audit(dir.path(), "--holdout none.zip").refused(3, "none.zip: ", "");
    audit(dir.path(), "--threshold 2").refused(2, "--threshold: ", "between 0 and 1");
    let args = ["audit", "--samples", "d.zip", "--train", "t.zip", "--quiet"];
    emm_in(dir.path(), args).refused(3, "d.zip: ", "expected images of 6x6");
    save(dir.path(), "one.zip", &all[..1], &[]);
    let args = ["audit", "--samples", "s.zip", "--train", "one.zip", "--quiet"];
    emm_in(dir.path(), args).refused(3, "one.zip: ", "two training images");
}
