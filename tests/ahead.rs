//! What a search would take, said before.

use super::find::{TINY, folder, keys};
use super::support::{Ended, emm_in};
use serde_json::Value;
use std::path::Path;

fn find(dir: &Path, flags: &str) -> Ended {
    emm_in(dir, format!("find --data d.zip --quiet {flags}").split_whitespace())
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

#[test]
fn a_plan_says_sizes_images_and_hours_and_trains_nothing() {
    let dir = folder();
    let dir = dir.path();
    let flags = format!("{TINY} --sizes 4,8 --repeats 2 --rate 10");
    let plan = find(dir, &format!("{flags} --plan --json --out out")).json();
    assert!(!dir.join("runs").exists() && !dir.join("out").exists());
    assert_eq!(keys(&plan)[..3], ["sizes", "more_sizes", "epochs"]);
    let [four, eight] = [0, 1].map(|i| plan["sizes"][i].clone());
    // 2 runs of 2 epochs, in batches of 4; 2 evaluations of 8 images.
    assert_eq!((&four["images_trained"], &four["images_generated"]), (&16.into(), &32.into()));
    assert_eq!((&eight["images_trained"], &eight["finished"]), (&32.into(), &0.into()));
    // An image to generate is 35 of the network's calls, each about a third of a training image.
    let hours = |size: &Value| {
        let images = [&size["images_trained"], &size["images_generated"]].map(number);
        (images[0] + images[1] * 35.0 / 3.0) / 10.0 / 3600.0
    };
    for size in [&four, &eight] {
        let (found, want) = (number(&size["hours"]), hours(size));
        assert!((found / want - 1.0).abs() < 0.05, "{found} {want}");
    }
    let sum = number(&four["hours"]) + number(&eight["hours"]);
    assert!((number(&plan["hours"]) / sum - 1.0).abs() < 1e-9, "{plan}");
    assert!(number(&plan["clock_hours"]) <= sum && plan["runs"] == 4, "{plan}");
    let said = find(dir, &format!("{flags} --plan")).ok();
    assert!(said.contains("4 runs: ") && said.contains("by --rate"), "{said}");
    // What is finished costs nothing more.
    find(dir, &flags).ok();
    let plan = find(dir, &format!("{flags} --plan --json")).json();
    assert_eq!((&plan["sizes"][1]["finished"], number(&plan["hours"])), (&2.into(), 0.0));
    // Bracketing: doublings, and what narrows them.
    let plan = find(dir, &format!("{TINY} --lo 4 --hi 40 --plan --json --no-measure")).json();
    let sizes: Vec<_> =
        plan["sizes"].as_array().unwrap().iter().map(|s| s["size"].as_u64().unwrap()).collect();
    assert_eq!(
        (sizes, &plan["more_sizes"], &plan["runs"]),
        (vec![4, 8, 16, 32, 40], &4.into(), &9.into())
    );
    find(dir, &format!("{TINY} --sizes 4,400 --plan")).refused(3, "d.zip: ", "has 40 images");
}
