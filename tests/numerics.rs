//! Runs of an earlier version, whose results differ: never continued, since a run's bits are of one kind, but read.

use crate::run::{suspended, train_tiny};
use crate::support::emm;
use std::fs;
use std::path::Path;

/// Makes a run one that an earlier version trained, from before configurations had checksums.
fn make_older(run: &Path) {
    let config = run.join("config.toml");
    let text = fs::read_to_string(&config).unwrap();
    let (settings, _) = text.split_once("[note]").unwrap();
    let (this, older) = ("[train.numerics]\ncpu = 2\n", "[train.numerics]\ncpu = 1\n");
    assert!(settings.contains(this), "{settings}");
    fs::write(&config, settings.replace(this, older)).unwrap();
}

/// The page of a run, and how many runs it holds.
fn page(run: &Path) -> (String, u64) {
    let out = run.with_extension("html");
    let [run, path] = [run, &out].map(|path| path.display().to_string());
    let told = emm(["report", &run, "--out", &path, "--force", "--json"]).json();
    (fs::read_to_string(out).unwrap(), told["runs"].as_u64().unwrap())
}

#[test]
fn a_run_of_older_numerics_is_not_resumed_but_read() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    suspended(train_tiny(&run, "--stop-after-steps 60"), "saved; the same command continues");
    make_older(&run);
    let (config, scores) = (run.join("config.toml"), run.join("scores.csv"));
    let before = [&config, &scores].map(|path| fs::read(path).unwrap());
    let start =
        "--run: trained with numerics 1, this version computes with numerics 2; finish it with";
    train_tiny(&run, "").refused(2, start, "or choose another --run");
    assert_eq!([&config, &scores].map(|path| fs::read(path).unwrap()), before, "left as it was");
    let (html, runs) = page(&run);
    assert!(runs == 1 && html.contains("<td>1 of 4</td>"), "{html}");
    assert!(html.contains("<dt>numerics</dt><dd>{&quot;cpu&quot;:1}</dd>"), "{html}");
}

#[test]
fn a_finished_run_of_older_numerics_is_read_and_marked() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let short = "--epochs 1 --looks 1 --rescore-images 0";
    assert!(!train_tiny(&run, short).ok().contains("earlier version"));
    make_older(&run);
    let said = train_tiny(&run, short).ok();
    assert!(
        said.contains("note        computed by an earlier version, with numerics 1,"),
        "{said}"
    );
    assert_eq!(page(&run).1, 1);
}
