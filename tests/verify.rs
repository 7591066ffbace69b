//! `emm verify`: a run trained again has the bits that were kept, and what was changed is named.

use crate::find::{TINY, digits, folder};
use crate::support::{Ended, edit_scores, emm_in};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// A folder with `d.zip` and a finished run `r` on it.
fn trained() -> tempfile::TempDir {
    let dir = folder();
    emm_in(dir.path(), format!("train --data d.zip --run r --quiet {TINY}").split_whitespace())
        .ok();
    dir
}

fn verify(dir: &Path, flags: &str) -> Ended {
    emm_in(dir, format!("verify --quiet {flags}").split_whitespace())
}

/// All files under a folder with their bytes.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => all.extend(files(&path)),
            false => drop(all.insert(path.clone(), fs::read(path).unwrap())),
        }
    }
    all
}

/// Changes the lowest bit of value `index` of a tensor.
fn flip(path: &Path, tensor: &str, index: usize) {
    let mut bytes = fs::read(path).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let entries: Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
    let from = entries[tensor]["data_offsets"][0].as_u64().unwrap() as usize;
    bytes[8 + header + from + 4 * index] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_run_gives_the_same_bits_again_and_its_folder_stays_as_it_is() {
    let dir = trained();
    let dir = dir.path();
    let before = files(&dir.join("r"));
    let found = verify(dir, "r --json --out verify.json").json();
    assert_eq!(files(&dir.join("r")), before);
    let cell = &found["cells"][0];
    assert_eq!(
        (&cell["verdict"], &cell["steps"], &cell["of_steps"]),
        (&json!("same"), &json!(20), &json!(20))
    );
    // Two evaluations' rows; two snapshots and a state of four tensors for each of theirs.
    assert_eq!(cell["rows"], 2);
    assert!(cell["tensors"].as_u64().unwrap() > 50, "{cell}");
    assert_eq!(found["binary_sha256"].as_str().unwrap().len(), 64);
    let stored: Value =
        serde_json::from_slice(&fs::read(dir.join("verify.json")).unwrap()).unwrap();
    assert_eq!(stored, found);
    verify(dir, "r --out verify.json").refused(2, "verify.json: ", "--force");
    verify(dir, "r --out v.png").refused(2, "--out: v.png", "v.json");
    let said = verify(dir, "r --steps 12").ok();
    assert!(said.contains("the same bits") && said.contains(" 10 "), "{said}");
    // The page of the folder shows it.
    emm_in(dir, "report . --out p.html".split(' ')).ok();
    let page = fs::read_to_string(dir.join("p.html")).unwrap();
    assert!(page.contains("Trained again") && page.contains("1 gave the same bits"));
    fs::write(dir.join("verify.json"), "{}").unwrap();
    emm_in(dir, "report . --out q.html".split(' ')).ok();
    let page = fs::read_to_string(dir.join("q.html")).unwrap();
    assert!(page.contains("not a certificate of `emm verify`"));

    verify(dir, "r --steps 3").refused_after(2, "r: nothing is kept of its first 3 steps");
    verify(dir, "r --cells 0").refused(2, "--cells: 0", "");
    verify(dir, "r --cells x").refused(2, "--cells: no run begins with \"x\"", "e.g. r");
    verify(dir, "nowhere").refused(3, "nowhere: not found", "");
    verify(dir, "d.zip").refused(3, "d.zip: ", "");
    fs::create_dir(dir.join("empty")).unwrap();
    verify(dir, "empty").refused(3, "empty: expected runs, found none", "");
}

impl Ended {
    /// It printed its table, and ended with `code` and one line that holds `holds`.
    #[track_caller]
    fn refused_after(self, code: i32, holds: &str) -> String {
        assert_eq!(self.code, code, "{self:?}");
        assert!(self.stderr.starts_with("emm: ") && self.stderr.lines().count() == 1, "{self:?}");
        assert!(self.stderr.contains(holds), "{holds:?}: {self:?}");
        self.stdout
    }
}

#[test]
fn a_changed_bit_is_found_with_step_and_tensor() {
    let dir = trained();
    let dir = dir.path();
    let snapshots: Vec<PathBuf> = files(&dir.join("r/snapshots")).into_keys().collect();
    let state = dir.join("r/state/state.safetensors");
    let scores = dir.join("r/scores.csv");
    let last = snapshots.last().unwrap();
    let tensor = "model.dec.8x8_block0.skip.weight";
    let cases: [(&Path, &dyn Fn(), &str); 4] = [
        (last, &|| flip(last, tensor, 7), "differs first at step 20: snapshots/"),
        (
            &state,
            &|| flip(&state, &format!("ema.{tensor}"), 7),
            "differs first at step 20: state/state.safetensors: ema.",
        ),
        (&state, &|| flip(&state, &format!("adam_v.{tensor}"), 0), "adam_v."),
        (
            &scores,
            &|| edit_scores(&scores, |i| i as u64),
            "differs first at step 10: scores.csv: memorized: kept 1, trained again 0",
        ),
    ];
    for (path, change, holds) in cases {
        let whole = fs::read(path).unwrap();
        change();
        let table = verify(dir, "r").refused_after(3, holds);
        assert!(table.contains("differs"), "{table}");
        fs::write(path, whole).unwrap();
    }
    flip(last, tensor, 7);
    let ended = verify(dir, "r --json");
    assert_eq!(ended.code, 3);
    let found: Value = serde_json::from_str(&ended.stdout).unwrap();
    let difference = &found["cells"][0]["difference"];
    assert_eq!((&difference["step"], &difference["what"]), (&json!(20), &json!(tensor)));
    assert_eq!((&difference["index"], &difference["values"]), (&json!(7), &json!(1)));
}

#[test]
fn a_folder_that_was_moved_verifies_with_its_set_and_no_other() {
    let dir = trained();
    let dir = dir.path();
    fs::create_dir(dir.join("elsewhere")).unwrap();
    fs::rename(dir.join("r"), dir.join("elsewhere/moved")).unwrap();
    // The set is taken from where it lay.
    verify(dir, "elsewhere/moved").ok();
    // The first 40 of the bundled digits are among the subsets that are tried.
    fs::rename(dir.join("d.zip"), dir.join("e.zip")).unwrap();
    let other = emm::data::Dataset { pixels: digits(80).pixels[40 * 64..].to_vec(), ..digits(80) };
    other.save(&dir.join("other.zip"), false).unwrap();
    verify(dir, "elsewhere --data other.zip").refused(
        3,
        "--data: other.zip: another set",
        "40 images",
    );
    let said = verify(dir, "elsewhere/moved --data e.zip").ok();
    assert!(said.contains("the same bits"), "{said}");
}

#[test]
fn an_unfinished_run_is_compared_as_far_as_it_is_saved() {
    let dir = folder();
    let dir = dir.path();
    let train = format!("train --data d.zip --run r --quiet --stop-after-steps 13 {TINY}");
    assert_eq!(emm_in(dir, train.split_whitespace()).code, 75);
    let found = verify(dir, "r --json").json();
    let cell = &found["cells"][0];
    assert_eq!(
        (&cell["steps"], &cell["rows"], &cell["verdict"]),
        (&json!(13), &json!(1), &json!("same"))
    );
    let state = dir.join("r/state/state.safetensors");
    flip(&state, "weights.model.dec.8x8_block0.skip.bias", 0);
    verify(dir, "r").refused_after(
        3,
        "at step 13: state/state.safetensors: weights.model.dec.8x8_block0.skip.bias at 0: kept ",
    );
    // Nobody compares with what another version or a GPU computed.
    let config = fs::read_to_string(dir.join("r/config.toml")).unwrap();
    let settings = config.split("[note]").next().unwrap();
    assert!(settings.contains("cpu = 2"), "{settings}");
    for (numerics, holds) in
        [("cpu = 1", "numerics 1, this version"), ("cuda = 4", "trained on a GPU")]
    {
        fs::write(dir.join("r/config.toml"), settings.replace("cpu = 2", numerics)).unwrap();
        verify(dir, "r --data d.zip").refused_after(2, holds);
    }
    verify(dir, "r --device cuda:0").refused(2, "--device: cuda:0", "cpu");
}

#[test]
fn the_runs_of_results_are_verified_with_or_without_their_folders() {
    let dir = folder();
    let dir = dir.path();
    let find = format!("find --data d.zip --quiet --out out {TINY} --sizes 4,8");
    emm_in(dir, find.split_whitespace()).ok();
    let found = verify(dir, "out/results.json --cells all --json").json();
    let of = |found: &Value, key: &str| -> Vec<Value> {
        found["cells"].as_array().unwrap().iter().map(|c| c[key].clone()).collect()
    };
    assert_eq!(
        (of(&found, "images"), of(&found, "verdict")),
        (vec![4.into(), 8.into()], vec!["same".into(); 2])
    );
    // The cheapest is the default.
    assert_eq!(of(&verify(dir, "out/results.json --json").json(), "images"), [json!(4)]);
    // Without the folders the ratios alone are compared.
    fs::rename(dir.join("runs"), dir.join("gone")).unwrap();
    let bare = verify(dir, "out/results.json --cells all --data d.zip --json").json();
    assert_eq!(of(&bare, "tensors"), [0, 0]);
    assert_eq!(of(&bare, "rows"), [3, 3]);
    let path = dir.join("out/results.json");
    let mut results: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let ratio = results["sizes"][0]["runs"][0]["ratio"].as_f64().unwrap();
    results["sizes"][0]["runs"][0]["ratio"] = (ratio + 0.125).into();
    fs::write(&path, results.to_string()).unwrap();
    verify(dir, "out/results.json --data d.zip")
        .refused_after(3, "results.json: ratio of the run: kept");
}
