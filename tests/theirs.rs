//! Results of the reference's own program set beside ours: its log, its distances, and what is neither.

use crate::support::{emm, emm_in};
use emm::data::npy::{Array, write_npz};
use emm::error::exit_code;
use emm::study::theirs::Theirs;
use std::fs;
use std::path::Path;
use tempfile::tempdir;

const RUN: &str = "00000-cifar10-1000-uncond-ddpmpp-vp-gpus8-batch512-fp32";

fn scoring(kimg: u64, distance: &str, ratio: &str) -> String {
    format!(
        "Generating images from \"out/{RUN}/network-snapshot-{kimg:06}.pkl\".\n\
         Loading images from \"out/{RUN}/fid-tmp\". The calculated KNN distance is {distance}. The calibrated KNN \
         ratio is {ratio}\n"
    )
}

/// As it is appended: the latest snapshot first, one of them scored twice.
fn log() -> String {
    scoring(40000, "2.5", "0.9209")
        + &scoring(20000, "5.75", "0.8")
        + &scoring(10000, "11.0", "0.1")
        + &scoring(10000, "10.25", "0.25")
}

fn read(path: &Path, size: Option<usize>) -> Result<Theirs, String> {
    Theirs::read(path, size).map_err(|e| format!("{} {e:#}", exit_code(&e)))
}

fn distances(path: &Path, values: Vec<f32>) {
    let index = Array::new(&[values.len() / 2, 2], vec![0i64; values.len()]);
    let values = Array::new(&[values.len() / 2, 2], values);
    write_npz(path, true, &[("knn_distance", values), ("knn_index", index)]).unwrap();
}

#[test]
fn logs_are_read_by_epoch() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("mem_traj.log");
    fs::write(&path, log()).unwrap();
    let t = Theirs::read(&path, None).unwrap();
    // The snapshots' folder names the run and its size.
    assert_eq!((t.name.as_str(), t.size, t.notes.len()), (RUN, 1000, 0));
    let evaluations: Vec<_> =
        t.evaluations.iter().map(|l| (l.kimg, l.epoch, l.ratio, l.mean_d1)).collect();
    assert_eq!(
        evaluations,
        [(10000, 10000.0, 0.25, 10.25), (20000, 20000.0, 0.8, 5.75), (40000, 40000.0, 0.9209, 2.5)]
    );
    assert!(
        t.evaluations.iter().all(|l| l.interval.is_none()),
        "a log does not say of how many samples"
    );
    assert_eq!(t.best().kimg, 40000);
    assert_eq!(Theirs::read(&path, Some(2000)).unwrap().evaluations[0].epoch, 5000.0);
}

#[test]
fn half_written_logs_are_read_as_far_as_they_go() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("mem_traj.log");
    let whole = log() + &scoring(5000, "20.0", "0.125");
    let last_ratio = whole.len() - 3;
    let last_loading = log().len() + 120;
    let last_generating = log().len() + 30;
    for end in [last_ratio, last_loading, last_generating] {
        fs::write(&path, &whole[..end]).unwrap();
        let t = Theirs::read(&path, None).unwrap();
        assert_eq!(t.evaluations.len(), 3, "up to {end}");
        assert!(t.notes[0].contains("cut off"), "{:?}", t.notes);
    }
    // A scoring that was begun and never ended leaves no evaluation.
    let begun = scoring(5000, "1", "0").lines().next().unwrap().to_string() + "\n";
    fs::write(&path, begun.clone() + &log() + &begun).unwrap();
    assert_eq!(Theirs::read(&path, None).unwrap().evaluations.len(), 3);
}

#[test]
fn distances_are_decided_as_there() {
    let dir = tempdir().unwrap();
    let run = dir.path().join(RUN);
    fs::create_dir_all(run.join("knn-dist")).unwrap();
    // 1/4 is a copy, 1/3 in float32 and 1/2 are none, 0/0 neither.
    let values = vec![1.0, 4.0, 1.0, 3.0, 1.0, 2.0, 0.0, 0.0];
    distances(&run.join("knn-dist/network-snapshot-020000.npz"), values);
    let t = Theirs::read(&run, None).unwrap();
    assert_eq!((t.size, t.evaluations.len()), (1000, 1));
    let evaluation = &t.evaluations[0];
    assert_eq!((evaluation.epoch, evaluation.ratio, evaluation.mean_d1), (20000.0, 0.25, 0.75));
    let [low, high] = evaluation.interval.unwrap();
    assert!(low < 0.25 && 0.25 < high);
    // Beside a log: its other snapshots stay, a disagreement is told; the options' size wins over the name's.
    fs::write(run.join("mem_traj.log"), log()).unwrap();
    fs::write(run.join("training_options.json"), "{\"dataset_kwargs\": {\"max_size\": 500}}")
        .unwrap();
    let t = Theirs::read(&run, None).unwrap();
    assert_eq!((t.size, t.evaluations.len(), t.evaluations[1].ratio), (500, 3, 0.25));
    assert!(t.notes[0].contains("25.00%, the log says 80.00%"), "{:?}", t.notes);
}

#[test]
fn what_is_no_result_is_refused() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("mem_traj.log");
    let name = path.display().to_string();
    for (text, says) in [
        (String::new(), "no scored snapshot"),
        ("epoch 1 loss 0.5\n".into(), "line 1: expected"),
        (log() + "Traceback (most recent call last):\n", "line 9: expected"),
        (scoring(1, "1.0", "nan"), "line 2: the ratio is no number from 0 to 1"),
        (scoring(1, "1.0", "1.5"), "line 2: the ratio"),
        (scoring(1, "inf", "0.5"), "line 2: the distance"),
        (scoring(1, "1.0", "0.5").replace("snapshot", "shot"), "line 1: no network-snapshot"),
        (scoring(1, "1.0", "0.5").lines().nth(1).unwrap().to_string() + "\n", "of no snapshot"),
    ] {
        fs::write(&path, &text).unwrap();
        let e = read(&path, None).unwrap_err();
        assert!(e.starts_with(&format!("3 {name}: ")) && e.contains(says), "{says}: {e}");
    }
    fs::write(&path, [0xff, 0xfe, 0x00]).unwrap();
    assert!(read(&path, None).unwrap_err().contains("UTF-8"));
    fs::write(&path, log().replace(RUN, "somewhere")).unwrap();
    let e = read(&path, None).unwrap_err();
    assert!(e.starts_with("2 --theirs: ") && e.contains("write N="), "{e}");
    assert_eq!(read(&path, Some(10)).unwrap().size, 10);

    let npz = dir.path().join("network-snapshot-000100.npz");
    let refused = |says: &str| {
        let e = read(&npz, Some(10)).unwrap_err();
        assert!(e.starts_with("3 ") && e.contains(says), "{says}: {e}");
    };
    for bad in [vec![f32::NAN, 1.0], vec![-1.0, 1.0], vec![2.0, 1.0], vec![1.0, f32::INFINITY]] {
        distances(&npz, bad);
        refused("sample 0: expected two distances");
    }
    let write = |name: &str, array: Array| write_npz(&npz, true, &[(name, array)]).unwrap();
    write("images", Array::new(&[1], vec![1u8]));
    refused("expected an array knn_distance, found images");
    write("knn_distance", Array::new(&[2], vec![1.0f32, 2.0]));
    refused("of shape [2], expected [S, 2]");
    write("knn_distance", Array::new(&[1, 2], vec![1i64, 2]));
    refused("of type <i8");
    write("knn_distance", Array::new::<f32>(&[0, 2], vec![]));
    refused("no sample");
    fs::write(&npz, "PK\u{3}\u{4} no zip").unwrap();
    refused("expected a zip file");
    let digits = format!("{}/data/digits8x8-images-idx3-ubyte", env!("CARGO_MANIFEST_DIR"));
    emm_in(dir.path(), ["data", "import", &digits, "--out", "d.zip"]).ok();
    fs::rename(dir.path().join("d.zip"), &npz).unwrap();
    refused("no npy array");
    let other = dir.path().join("other.npz");
    distances(&other, vec![1.0, 2.0]);
    assert!(read(&other, Some(10)).unwrap_err().contains("not named network-snapshot-KIMG.npz"));
}

#[test]
fn a_page_sets_them_beside_ours() {
    let dir = tempdir().unwrap();
    let run = dir.path().join(RUN);
    fs::create_dir(&run).unwrap();
    fs::write(run.join("mem_traj.log"), log()).unwrap();
    emm_in(dir.path(), ["report", RUN, "--out", "theirs.html"]).ok();
    let html = fs::read_to_string(dir.path().join("theirs.html")).unwrap();
    for words in ["Beside DiffMemorize", RUN, "92.09%", "20,000 epochs: 80.00%", "N = 1000"] {
        assert!(html.contains(words), "no {words:?}");
    }
    let theirs = format!("20={RUN}/mem_traj.log");
    emm_in(dir.path(), ["report", RUN, "--theirs", &theirs, "--out", "two.html"]).ok();
    let html = fs::read_to_string(dir.path().join("two.html")).unwrap();
    assert!(html.contains("N = 20") && html.contains("N = 1000"));
    let path = run.to_str().unwrap();
    emm(["report", path, "--theirs", "nowhere.log"]).refused(3, "nowhere.log", "not found");
    assert!(!run.join("report.html").exists());
}
