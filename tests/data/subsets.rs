//! Subsets as the paper takes them.

use super::{labelled, members, with_set};
use crate::support::{Ended, emm};
use emm::data::{Dataset, Image, resize};
use std::path::Path;

/// Runs `emm data subset D --out OUT ARGS`.
fn subset(d: &str, out: &str, args: &[&str]) -> Ended {
    emm(["data", "subset", d, "--out", out, "--force"].into_iter().chain(args.iter().copied()))
}

fn cut(d: &str, out: &str, args: &[&str]) -> Dataset {
    subset(d, out, args).ok();
    Dataset::open(Path::new(out)).unwrap()
}

#[test]
fn a_size_takes_the_first_of_each_class_and_the_rest_from_the_last() {
    let (_dir, d, out) = with_set(&[2, 0, 1, 1, 2, 0, 2, 0, 2, 2]);
    let set = cut(&d, &out, &["--size", "8"]);
    assert_eq!(members(&set), [1, 5, 2, 3, 0, 4, 6, 8]);
    assert_eq!(set.labels, Some(vec![0, 0, 1, 1, 2, 2, 2, 2]));
    assert_eq!(members(&cut(&d, &out, &["--size", "2"])), [0, 4]);
}

#[test]
fn classes_take_the_first_ones() {
    let (_dir, d, out) = with_set(&[2, 0, 1, 1, 2, 0, 2, 0, 1, 1]);
    assert_eq!(members(&cut(&d, &out, &["--size", "5", "--classes", "2"])), [1, 5, 2, 3, 8]);
    assert_eq!(members(&cut(&d, &out, &["--size", "3", "--classes", "1"])), [1, 5, 7]);
    assert_eq!(members(&cut(&d, &out, &["--size", "3", "--class", "1"])), [2, 3, 8]);
    subset(&d, &out, &["--size", "2", "--classes", "4"]).refused(2, "--classes: 4", "3 classes");
    subset(&d, &out, &["--size", "2", "--class", "3"]).refused(2, "--class: 3", "0 to 2");
}

#[test]
fn a_class_that_is_too_small_is_named_with_have_and_want() {
    let (_dir, d, out) = with_set(&[0, 0, 1, 2, 2]);
    let start = format!("{d}: class 1 ");
    subset(&d, &out, &["--size", "6"]).refused(3, &start, "has 1 images, wants 2");
    let start = format!("{d}: class 2 ");
    subset(&d, &out, &["--size", "5"]).refused(3, &start, "has 2 images, wants 3");
    subset(&d, &out, &["--size", "0"]).refused(2, "--size: ", "at least one");
    assert!(!Path::new(&out).exists());
}

#[test]
fn sets_without_labels_give_their_first() {
    let (_dir, d, out) = with_set(&[0, 1, 0]);
    let unlabelled = Dataset { labels: None, ..labelled(&[0, 1, 0]) };
    unlabelled.save(Path::new(&d), true).unwrap();
    let set = cut(&d, &out, &["--size", "2"]);
    assert_eq!((members(&set), set.labels), (vec![0, 1], None));
    subset(&d, &out, &["--size", "4"]).refused(3, &d, "has 3 images, wants 4");
    subset(&d, &out, &["--size", "2", "--classes", "1"]).refused(2, "--classes: ", "no labels");
    subset(&d, &out, &["--size", "2", "--class", "1"]).refused(2, "--class: ", "no labels");
    subset(&d, &out, &["--size", "2", "--labels", "true"]).refused(2, "--labels: true", "");
}

#[test]
fn labels_are_true_random_unique_or_none() {
    let (_dir, d, out) = with_set(&[0, 0, 0, 1, 1, 1]);
    let labels = |args: &[&str]| {
        let args = [&["--size", "6"], args].concat();
        cut(&d, &out, &args).labels
    };
    assert_eq!(labels(&["--labels", "true"]), Some(vec![0, 0, 0, 1, 1, 1]));
    assert_eq!(labels(&["--labels", "unique"]), Some(vec![0, 1, 2, 3, 4, 5]));
    assert_eq!(labels(&["--labels", "none"]), None);
    // random.seed(1024); [random.randint(0, 9) for _ in range(6)], and the same with seed 5 and 0 to 2.
    assert_eq!(labels(&["--labels", "random:10"]), Some(vec![0, 7, 6, 5, 8, 1]));
    assert_eq!(labels(&["--labels", "random:3", "--seed", "5"]), Some(vec![2, 1, 2, 1, 2, 2]));
    // As many of each, in an order that depends on the seed.
    let dealt = |flags: &[&str]| labels(&[&["--labels", "dealt:4"], flags].concat()).unwrap();
    let mut sorted = dealt(&[]);
    sorted.sort();
    assert_eq!(sorted, [0, 0, 1, 1, 2, 3]);
    assert_eq!(dealt(&[]), dealt(&[]));
    assert!((0..5).any(|seed: u32| dealt(&["--seed", &seed.to_string()]) != dealt(&[])));
    for wrong in ["random", "random:0", "random:x", "yes", "dealt", "dealt:0", "dealt:7"] {
        subset(&d, &out, &["--size", "6", "--labels", wrong]).refused(2, "--labels: ", wrong);
    }
}

#[test]
fn a_blend_truncates_its_share_in_double_precision() {
    let (dir, d, out) = with_set(&[0]);
    let blank = |value: u8, labels: Option<Vec<u32>>| {
        Dataset::new("test", 4, 1, vec![value; 16 * 1000], labels).unwrap()
    };
    blank(1, Some(vec![3; 1000])).save(Path::new(&d), true).unwrap();
    let e = dir.path().join("E.zip");
    blank(2, None).save(&e, false).unwrap();
    // 1000·(1 − 0.8) is 199.99999999999994.
    for (alpha, own) in [("0", 1000), ("0.2", 800), ("0.5", 500), ("0.8", 199), ("1", 0)] {
        let blend = format!("{}:{alpha}", e.display());
        let set = cut(&d, &out, &["--size", "1k", "--class", "3", "--blend", &blend]);
        let expected = [vec![1; 16 * own], vec![2; 16 * (1000 - own)]].concat();
        assert!(set.pixels == expected, "alpha {alpha}");
        assert_eq!(set.labels, None, "alpha {alpha}");
    }
    for wrong in ["E.zip", "E.zip:1.5", "E.zip:x", ":0.5", "E.zip:nan"] {
        let ended = subset(&d, &out, &["--size", "5", "--blend", wrong]);
        ended.refused(2, "--blend: expected", wrong);
    }
    let (e, half) = (super::text(&e).to_string(), format!("{}:0.5", e.display()));
    let ended = subset(&d, &out, &["--size", "5000", "--class", "3", "--blend", &half]);
    ended.refused(3, &format!("{d}: class 3 "), "wants 2500");
    let all = format!("{e}:1");
    subset(&d, &out, &["--size", "1001", "--blend", &all]).refused(
        3,
        &e,
        "has 1000 images, wants 1001",
    );
    let rgb = Dataset::new("test", 4, 3, vec![0; 48 * 10], None).unwrap();
    rgb.save(Path::new(&e), true).unwrap();
    subset(&d, &out, &["--size", "4", "--blend", &half]).refused(3, &e, "cannot blend");
}

#[test]
fn a_resolution_resamples_both_parts_of_a_blend() {
    let dir = tempfile::tempdir().unwrap();
    let [d, e, out] = ["D.zip", "E.zip", "out.zip"].map(|n| dir.path().join(n));
    let digits = Dataset::digits();
    let larger = Dataset::new("test", 16, 1, digits.pixels[..256 * 7].to_vec(), None).unwrap();
    digits.save(&d, false).unwrap();
    larger.save(&e, false).unwrap();
    let [d, e, out] = [&d, &e, &out].map(|p| super::text(p));
    let blend = format!("{e}:0.5");
    let set = cut(d, out, &["--size", "4", "--class", "3", "--blend", &blend, "--resolution", "4"]);
    let small = |set: &Dataset, i| {
        let (width, pixels) = (set.resolution, set.image(i).to_vec());
        resize::lanczos(Image { width, height: width, channels: 1, pixels }, 4).pixels
    };
    let threes: Vec<usize> =
        (0..99).filter(|&i| digits.labels.as_ref().unwrap()[i] == 3).take(2).collect();
    let expected = [
        small(&digits, threes[0]),
        small(&digits, threes[1]),
        small(&larger, 0),
        small(&larger, 1),
    ];
    assert_eq!(set.pixels, expected.concat());
    subset(d, out, &["--size", "4", "--blend", &blend]).refused(3, e, "cannot blend");
    subset(d, out, &["--size", "4", "--resolution", "0"]).refused(2, "--resolution: ", "found 0");
}
