//! Sets without what they hold already.

use super::text;
use crate::support::emm;
use emm::data::Dataset;
use tempfile::tempdir;

/// Images of one value each but for what is added to their first pixel.
fn set(images: &[(u8, u8)], labels: &[u32]) -> Dataset {
    let pixels = images
        .iter()
        .flat_map(|&(value, more)| (0..16).map(move |p| if p == 0 { value + more } else { value }));
    let mut set = Dataset::new("test", 4, 1, pixels.collect(), Some(labels.to_vec())).unwrap();
    set.names = (0..images.len()).map(|i| format!("{i}.png")).collect();
    set
}

#[test]
fn equal_images_stay_once_with_labels_and_names() {
    let dir = tempdir().unwrap();
    let [d, out] = ["d.zip", "out.zip"].map(|name| dir.path().join(name));
    set(&[(1, 0), (50, 0), (1, 0), (90, 0), (50, 0), (1, 0)], &[0, 1, 0, 2, 3, 0])
        .save(&d, false)
        .unwrap();
    let dedupe = ["data", "dedupe", text(&d), "--out", text(&out)];
    let said = emm(dedupe).ok();
    for line in [
        "3 of 6",
        "equal       3 dropped",
        "2.png repeats 0.png",
        "1 dropped images had another label",
    ] {
        assert!(said.contains(line), "{said}");
    }
    let read = Dataset::open(&out).unwrap();
    assert_eq!((read.labels.as_deref(), read.len()), (Some(&[0, 1, 2][..]), 3));
    assert_eq!(read.names, ["0.png", "1.png", "3.png"]);
    emm(dedupe).refused(2, text(&out), "--force");
    let json = emm(dedupe.iter().chain(&["--force", "--json"])).json();
    assert_eq!(
        (&json["images"], &json["kept"], &json["other_labels"]),
        (&6.into(), &3.into(), &1.into())
    );
    assert_eq!(json["equal"], serde_json::json!([[2, 0], [4, 1], [5, 0]]));
    assert_eq!(json["near"], serde_json::json!([]));
    let folder = dir.path().join("no.tar");
    let wrong = ["data", "dedupe", text(&d), "--out", text(&folder)];
    emm(wrong).refused(2, "--out", "zip");
}

#[test]
fn nearly_equal_images_are_those_of_the_third_rule() {
    let dir = tempdir().unwrap();
    let [d, out] = ["d.zip", "out.zip"].map(|name| dir.path().join(name));
    let near = |images: &[(u8, u8)]| {
        set(images, &vec![0; images.len()]).save(&d, true).unwrap();
        let args = ["data", "dedupe", text(&d), "--near", "--json", "--out", text(&out)];
        let json = emm(args.iter().chain(&["--force", "--device", "cpu"])).json();
        assert_eq!(json["kept"], Dataset::open(&out).unwrap().len());
        (json["near"].clone(), json["equal"].clone())
    };
    let none = serde_json::json!([]);
    // The pair at 10 is far from all else; those at 100, 104 and 112 are not three times as far from the next.
    let found = near(&[(10, 0), (240, 0), (10, 2), (100, 0), (104, 0), (112, 0), (180, 0)]);
    assert_eq!(found, (serde_json::json!([[2, 0]]), none.clone()));
    // Repeats do not hide it, nor are they counted twice.
    let found = near(&[(10, 0), (10, 0), (200, 0), (10, 2), (90, 0)]);
    assert_eq!(found.1, serde_json::json!([[1, 0]]));
    assert_eq!(found.0, serde_json::json!([[3, 0]]));
    // Two images have no second nearest.
    assert_eq!(near(&[(10, 0), (10, 1)]).0, none);
}
