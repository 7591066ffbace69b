//! Sets that hold an image twice: what hides its copies is said, and counted both ways.

use crate::find::{TINY as SEARCH, digits, folder, run_dir};
use crate::run::{TINY, drawn, files_of, same_files, some_digits, suspended, train_args};
use crate::support::{emm, emm_in};
use emm::data::Dataset;
use emm::memorization::wilson;
use std::fs;

/// Scores that count identical training images once are a run's files as all others are.
#[test]
fn a_set_with_repeated_images_resumes_to_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("repeated.zip");
    let mut all = some_digits(32);
    let drawn = drawn(folder.path(), TINY, 8);
    all.pixels[..drawn.len()].copy_from_slice(&drawn);
    let pixels = (0..32).flat_map(|i| all.image(i * 2 / 3).to_vec()).collect();
    Dataset { pixels, labels: None, ..all }.save(&path, false).unwrap();
    let (straight, stopped) = (folder.path().join("straight"), folder.path().join("stopped"));
    let extra = "--epochs 20 --looks 2 --keep all";
    emm(train_args(&path, &straight, extra)).ok();
    let more = |k: u64| format!("{extra} --stop-after-steps {k}");
    suspended(emm(train_args(&path, &stopped, &more(7))), "stopped at step 7 of 40");
    suspended(emm(train_args(&path, &stopped, &more(20))), "stopped at step 27 of 40");
    // As a kill leaves it between this row and the evaluation's own, which follows.
    let scores = stopped.join("scores-distinct.csv");
    let rows = fs::read_to_string(&scores).unwrap();
    let last = rows.lines().last().unwrap().replacen("20,", "40,", 1);
    fs::write(&scores, format!("{rows}{last}\n")).unwrap();
    emm(train_args(&path, &stopped, extra)).ok();
    let want = files_of(&straight);
    for (file, rows) in [("scores-distinct.csv", 3), ("rescored-distinct.csv", 2)] {
        let text = String::from_utf8(want[file].clone()).unwrap();
        assert_eq!(text.lines().count(), rows, "{text}");
    }
    same_files(&stopped, &want);
}

#[test]
fn repeated_training_images_are_told_by_find_and_train() {
    let dir = folder();
    let dir = dir.path();
    let flags = SEARCH.replace("--rescore-images 0", "--rescore-images 8");
    let find = |more: &str| {
        emm_in(dir, format!("find --data d.zip --quiet {flags} {more}").split_whitespace())
    };
    // The first half of the images once more, in every subset.
    let mut set = digits(8);
    set.pixels[..4 * 64].copy_from_slice(&drawn(dir, SEARCH, 4));
    let half: Vec<u8> = (0..8).flat_map(|i| set.image(i / 2).to_vec()).collect();
    Dataset { pixels: half, ..set }.save(&dir.join("d.zip"), true).unwrap();
    let found = find("--sizes 4,8 --json").json();
    for (one, repeats) in found["sizes"].as_array().unwrap().iter().zip([2, 4]) {
        assert_eq!(one["reference_duplicates"], repeats, "{found}");
        assert!(one["ratio_distinct"].as_f64() >= one["ratio"].as_f64(), "{found}");
        let run = run_dir(dir, &found, one["size"].as_u64().unwrap());
        for (file, rows) in [("scores-distinct.csv", 3), ("rescored-distinct.csv", 2)] {
            let text = std::fs::read_to_string(run.join(file)).unwrap();
            assert_eq!(text.lines().count(), rows, "{text}");
            assert!(text.starts_with("step,epoch,images,memorized,ratio,low,high,mean_d1\n"));
        }
        let stats = std::fs::read_to_string(run.join("stats.jsonl")).unwrap();
        assert!(stats.contains("Mem/ratio_distinct"), "{stats}");
    }
    let said = find("--sizes 4,8").ok();
    assert!(said.contains("duplicates  counted once"), "{said}");
    assert!(said.contains("note: of 8 training images 4 repeat an earlier one"), "{said}");

    // What the rows say is what is told: of the finished run too, which is not scored again.
    let run = run_dir(dir, &found, 8);
    let path = run.join("rescored-distinct.csv");
    let rows = std::fs::read_to_string(&path).unwrap();
    let row: Vec<&str> = rows.lines().nth(1).unwrap().split(',').collect();
    let [low, high] = wilson(6, 8);
    let all = format!("{},{},8,6,0.75,{low},{high},{}", row[0], row[1], row[7]);
    std::fs::write(&path, format!("{}\n{all}\n", rows.lines().next().unwrap())).unwrap();
    let train = format!("train --data d.zip --quiet {flags} --run {}", run.display());
    let json = emm_in(dir, format!("{train} --json").split_whitespace()).json();
    assert_eq!((&json["reference_duplicates"], &json["ratio_distinct"]), (&4.into(), &0.75.into()));
    let said = emm_in(dir, train.split_whitespace()).ok();
    assert!(
        said.contains("4 training images repeat an earlier one")
            && said.contains("counted once 75.00%"),
        "{said}"
    );

    // Where all differ there is nothing to tell and no file.
    digits(8).save(&dir.join("d.zip"), true).unwrap();
    let found = find("--sizes 4,8 --json").json();
    let one = &found["sizes"][1];
    assert_eq!((&one["reference_duplicates"], &one["ratio_distinct"]), (&0.into(), &one["ratio"]));
    assert!(!run_dir(dir, &found, 8).join("scores-distinct.csv").exists());
    assert!(!find("--sizes 4,8").ok().contains("duplicates"));
}
