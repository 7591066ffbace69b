//! `emm sweep` and `emm table`: what is run, by whom, and what is shown of it.

use super::support::{Ended, MOMENT, SIZES, edit_scores, emm, emm_in, study};
use emm::run::RunConfig;
use emm::study::cost::{GPUS, flop_of, gpu_s};
use emm::study::{Scale, Setup, Study, StudyPlan};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::{TempDir, tempdir};

/// What makes a study of four runs, of which the paper printed something.
const LABELS: &str = r#"
[[axis]]
name = "labels"
values = [
  { name = "unconditional", labels = "none" },
  { name = "unique labels", labels = "unique" },
]
"#;
const PAPER: &str = r#"
[paper]
percent = [[90.5, 60.25], [100, nan]]
"#;

/// Its runs take a moment at the smallest scale.
fn mine() -> String {
    study("mine", MOMENT, &[LABELS, SIZES, PAPER].concat())
}

/// A folder with `mine.toml`, and `slow.toml` whose runs can be caught in the middle.
fn folder() -> TempDir {
    let dir = tempdir().unwrap();
    std::fs::write(dir.path().join("mine.toml"), mine()).unwrap();
    let slow = mine().replace("epochs = 160", "epochs = 120000");
    std::fs::write(dir.path().join("slow.toml"), slow).unwrap();
    dir
}

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

fn go(dir: &Path, line: &str) -> Ended {
    emm_in(dir, words(&format!("{line} --scale tiny --quiet")))
}

fn start(dir: &Path, line: &str) -> Child {
    Command::new(env!("CARGO_BIN_EXE_emm"))
        .args(words(&format!("{line} --scale tiny --quiet")))
        .current_dir(dir)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn signal(child: &Child, signal: libc::c_int) {
    // SAFETY: the child is ours and has not been waited for.
    unsafe { libc::kill(child.id() as libc::pid_t, signal) };
}

/// Waits until `done`, a minute at most.
#[track_caller]
fn until(done: impl Fn() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(60), "nothing happens");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The folders of the runs in `runs`, in order of their names.
fn run_dirs(runs: &Path) -> Vec<PathBuf> {
    let mut all: Vec<_> =
        std::fs::read_dir(runs).into_iter().flatten().flatten().map(|e| e.path()).collect();
    all.sort();
    all
}

/// The scores of all runs, by the runs' names.
fn scores(runs: &Path) -> Vec<(String, String)> {
    let read = |dir: &PathBuf| {
        let text = std::fs::read_to_string(dir.join("scores.csv")).unwrap_or_default();
        (dir.file_name().unwrap().to_string_lossy().into_owned(), text)
    };
    run_dirs(runs).iter().map(read).collect()
}

/// How often work was begun in each run.
fn starts(runs: &Path) -> Vec<usize> {
    let count = |dir: &PathBuf| {
        let stats = std::fs::read_to_string(dir.join("stats.jsonl")).unwrap_or_default();
        stats.matches("resumed_at_step").count()
    };
    run_dirs(runs).iter().map(count).collect()
}

/// The latest time at which a state was saved.
fn saved(runs: &Path) -> Option<std::time::SystemTime> {
    let states = run_dirs(runs).into_iter().map(|dir| dir.join("state/state.safetensors"));
    states.filter_map(|state| state.metadata().ok()?.modified().ok()).max()
}

fn cells(table: &Value) -> &Vec<Value> {
    table["parts"][0]["cells"].as_array().unwrap()
}

#[test]
fn an_empty_folder_shows_the_paper_blanks_and_costs() {
    let dir = tempdir().unwrap();
    let said = emm_in(dir.path(), ["table", "3", "--quiet"]).ok();
    for holds in [
        "92.09%",
        "79.46%",
        "99.66%",
        "1067",
        "h100",
        "--only 'labels=true labels' --only size=2000",
    ] {
        assert!(said.contains(holds), "{holds}: {said}");
    }
    let ours = said.lines().find(|l| l.contains("| ours")).unwrap();
    assert!(!ours.contains('%'), "{ours}");
    assert!(!dir.path().join("runs").exists(), "a table trains nothing");

    // Table 2 is two studies, table 1 has the batches.
    let two = go(dir.path(), "table 2 --json").json();
    let parts: Vec<_> = two["parts"].as_array().unwrap().iter().map(|p| &p["study"]).collect();
    assert_eq!(parts, ["weight-decay", "ema-rate"]);
    assert_eq!(cells(&go(dir.path(), "table 1 --json").json()).len(), 14);
    assert!(two["said"].as_str().unwrap().contains("Scale tiny, not the paper's"), "{two}");
    // Five cells cannot be had for one reason: digits have too few pixels.
    let resolution = go(dir.path(), "table resolution").ok();
    let why: Vec<_> = resolution.lines().filter(|l| l.starts_with("Not to be had")).collect();
    let cells = "Not to be had here: 5 cells (resolution 2, size 10 to resolution 2, size 160): ";
    assert!(why.len() == 1 && why[0].starts_with(cells), "{why:?}");
    // Of one resolution alone the paper's EMM is that one's.
    let one = go(dir.path(), "table resolution --only resolution=16 --json").json();
    assert_eq!(one["parts"][0]["emm"][0]["paper"], json!(4000.0));
    go(dir.path(), "table 4").refused(2, "TABLE: 4", "1, 2 and 3");
    go(dir.path(), "table tabel3").refused(2, "TABLE: ", "did you mean \"table3\"?");
}

#[test]
fn costs_grow_with_size_epochs_and_width() {
    let setup = Setup::new(Scale::PAPER, None, "runs".into());
    let config = |settings: &str| -> RunConfig {
        let text = format!(
            "name = \"x\"\ntitle = \"x\"\n[settings]\n{settings}\n[[axis]]\nname = \"a\"\nvalues = [{{ name = \"a\" }}]"
        );
        let plan = StudyPlan::new(&Study::parse(&text, "x").unwrap(), &setup).unwrap();
        let mut config = plan.cells[0].runs[0].config.clone();
        config.train.looks = 0;
        config
    };
    let of = |settings: &str| flop_of(&config(settings));
    let basic = of("size = 1024");
    // 76.24 GFLOP an image, 40,000 epochs of 1,024 images.
    assert!((basic / (76.24e9 * 40_000.0 * 1024.0) - 1.0).abs() < 1e-3, "{basic}");
    assert_eq!(of("size = 2048"), 2.0 * basic);
    assert_eq!(of("size = 1024\nepochs = 120000"), 3.0 * basic);
    let wide = of("size = 1024\nchannels = 256") / basic;
    assert!(wide > 3.9 && wide < 4.0, "{wide}");
    // An evaluation costs 35 evaluations an image, each a third of a training image.
    let mut evaluations = config("size = 1024\nscore_images = 300");
    evaluations.train.looks = 2;
    let scoring = (flop_of(&evaluations) - basic) / (25.42e9 * 35.0 * 600.0);
    assert!((scoring - 1.0).abs() < 1e-3, "{scoring}");

    // And so on GPUs, where kernels of small networks wait for one another.
    let seconds =
        |settings: &str| GPUS.each_ref().map(|gpu| gpu_s(gpu, &config(settings)).unwrap());
    let [h100, a100] = seconds("size = 1024");
    assert!(h100 > 1000.0 && h100 < a100, "{h100} {a100}");
    assert_eq!(seconds("size = 2048")[0], 2.0 * h100);
    assert!((seconds("size = 1024\nepochs = 120000")[1] / a100 - 3.0).abs() < 1e-9);
    let wide = seconds("size = 1024\nchannels = 256")[0] / h100;
    assert!(wide > 2.0 && wide < 4.0, "{wide}");

    let dir = folder();
    let table = go(dir.path(), "table mine.toml --json").json();
    for cell in cells(&table) {
        let hours = |on: &str| cell["hours"][on].as_f64().unwrap();
        assert!(hours("here") > 0.0 && hours("h100") > 0.0 && hours("a100") >= hours("h100"));
        let command = cell["command"].as_str().unwrap();
        assert!(command.starts_with("emm sweep run mine.toml --scale tiny --only "), "{cell}");
    }
}

#[test]
fn finished_runs_stand_in_their_cells_as_scores_csv_has_them() {
    let dir = folder();
    let dir = dir.path();
    let table = || go(dir, "table mine.toml --json").json();
    assert!(cells(&table()).iter().all(|c| c["ratio"] == Value::Null));
    let said = go(dir, "sweep run mine.toml --only size=400").ok();
    let shows = "emm table mine.toml --scale tiny --only size=400";
    assert_eq!(said, format!("2 runs done; to see them:\n  {shows}\n"));
    emm_in(dir, &words(shows)[1..]).ok();
    let after = table();
    let ratios: Vec<_> = cells(&after).iter().map(|c| c["ratio"].is_number()).collect();
    assert_eq!(ratios, [true, false, true, false]);
    let done: Vec<_> = cells(&after).iter().map(|c| c["command"] == "").collect();
    assert_eq!(done, ratios);

    // Edit a run's scores: its cell follows, no other does.
    let run = cells(&after)[2]["runs"][0].as_str().unwrap();
    let path = dir.join(run).join("scores.csv");
    let rows = std::fs::read_to_string(&path).unwrap();
    edit_scores(&path, |row| if row == 4 { 6 } else { 1 });
    let edited = table();
    let cell = &cells(&edited)[2];
    assert_eq!((&cell["ratio"], &cell["rising"]), (&json!(0.75), &json!(true)));
    // Two experiments of different scales have no difference.
    assert_eq!((&cell["paper_percent"], &cell["paper_is"]), (&json!(100.0), &json!("printed")));
    assert_eq!(
        (&cell["difference_points"], &cell["difference_deviations"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(cell["curve"].as_array().unwrap().len(), 4);
    assert_eq!(cells(&edited)[0], cells(&after)[0]);

    let said = go(dir, "table mine.toml").ok();
    assert!(said.contains("75.00%↑") && !said.contains("difference"), "{said}");
    assert!(said.contains("| precision ") && said.contains("fp32"), "{said}");
    assert!(said.contains("4 (400)") && said.contains("not the paper's"), "{said}");
    let csv = go(dir, "table mine.toml --format csv").ok();
    let row = csv.lines().find(|l| l.starts_with("mine,\"unique labels, size 4\",tiny,")).unwrap();
    assert!(row.contains(",bundled digits,100,0.75,,") && row.ends_with(",fp32,printed,"), "{row}");
    assert!(!csv.contains("-0"), "hours of nothing left: {csv}");
    let latex = go(dir, "table mine.toml --format latex").ok();
    assert!(latex.contains("75.00\\%$\\uparrow$ &") && latex.contains("\\end{tabular}"), "{latex}");
    go(dir, "table mine.toml --out t.md").ok();
    assert_eq!(std::fs::read_to_string(dir.join("t.md")).unwrap(), said);
    go(dir, "table mine.toml --out t.md").refused(2, "t.md: exists", "--force");

    // Several seeds: their spread, and the difference measured by it.
    go(dir, "sweep run mine.toml --only size=400 --repeats 3").ok();
    let spread = go(dir, "table mine.toml --repeats 3 --json").json();
    let cell = &cells(&spread)[2];
    assert_eq!((&cell["spread"]["seeds"], &cell["spread"]["highest"]), (&json!(3), &json!(0.75)));
    assert!(go(dir, "table mine.toml --repeats 3").ok().contains("3: "), "seeds");

    // A row that is none, and a folder that holds another run, are said, not shown.
    std::fs::write(&path, rows.replace(",0.", ",x.")).unwrap();
    go(dir, "table mine.toml").passed_over(&format!("{run}/scores.csv: not a row of scores"));
    std::fs::write(&path, &rows[..rows.len() - 30]).unwrap();
    go(dir, "table mine.toml").passed_over(&format!("{run}/scores.csv: not a row of scores"));
    std::fs::write(&path, rows).unwrap();
    let config = dir.join(run).join("config.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    let (this, older) = ("[train.numerics]\ncpu = 2\n", "[train.numerics]\ncpu = 1\n");
    assert!(text.contains(this), "{text}");
    let stored = |text: &str| {
        std::fs::write(&config, text).unwrap();
        go(dir, "table mine.toml")
    };
    stored(&text.replace(this, older)).passed_over("changed or damaged since");
    let (settings, _) = text.split_once("[note]").unwrap(); // as before there were checksums
    stored(settings).ok();
    stored(&settings.replace(this, "numerics = 2\n")).ok();
    let marked = stored(&settings.replace(this, older)).ok(); // read, though of older numerics
    assert!(marked.contains("whose numerics are not this version's: 1."), "{marked}");
    stored(&settings.replace(this, "numerix = 1\n")).passed_over("not a run's configuration");
}

#[test]
fn a_run_in_any_precision_serves_unless_one_is_asked_for() {
    let dir = folder();
    let dir = dir.path();
    go(dir, "sweep run mine.toml --only size=400 --precision bf16").ok();
    let table = |flags: &str| go(dir, &format!("table mine.toml --json {flags}")).json();
    let states = |flags: &str| {
        let table = table(flags);
        let cells = cells(&table).iter();
        cells.map(|c| (c["precisions"][0].clone(), c["runs_done"] == 1)).collect::<Vec<_>>()
    };
    let [bf16, fp32] = ["bf16", "fp32"].map(Value::from);
    let auto = [(&bf16, true), (&fp32, false), (&bf16, true), (&fp32, false)];
    assert_eq!(states(""), auto.map(|(p, done)| (p.clone(), done)));
    assert_eq!(states("--precision fp32"), vec![(fp32.clone(), false); 4]);
    // What another precision has done is not done again, and the command that fills the rest says which it was asked.
    go(dir, "sweep run mine.toml").ok();
    assert_eq!(states("--precision fp32").iter().filter(|s| s.1).count(), 2);
    let said = go(dir, "table mine.toml").ok();
    assert!(said.contains("Computed in bf16 (2 runs) and fp32 (2 runs)."), "{said}");
    let named = table("--precision fp32");
    let command = cells(&named)[0]["command"].as_str().unwrap();
    assert!(command.contains(" --precision fp32 "), "{command}");
    go(dir, "table mine.toml --precision tf32").refused(2, "--precision: tf32", "CUDA");
    go(dir, "table mine.toml --precision fp8").refused(2, "--precision: ", "none of auto");
}

#[test]
fn an_interrupted_sweep_loses_and_repeats_nothing() {
    let dir = folder();
    let dir = dir.path();
    let line = |runs: &str| format!("sweep run slow.toml --save-every 500 --runs {runs}");
    let (a, b) = (dir.join("a"), dir.join("b"));
    for (kill, code) in [(libc::SIGKILL, None), (libc::SIGINT, Some(75)), (libc::SIGKILL, None)] {
        let mut child = start(dir, &line("a"));
        let before = saved(&a);
        until(|| saved(&a) != before);
        signal(&child, kill);
        assert_eq!(child.wait().unwrap().code(), code, "it had ended before the signal");
    }
    let finished = |(_, rows): &(String, String)| rows.lines().count() == 5;
    let before: Vec<_> = scores(&a).into_iter().filter(finished).map(|s| s.0).collect();
    let begun: Vec<_> = run_dirs(&a).into_iter().zip(starts(&a)).collect();
    go(dir, &line("a")).ok();
    go(dir, &line("b")).ok();
    assert_eq!(scores(&a), scores(&b));
    assert_eq!(scores(&a).len(), 4);
    assert!(scores(&a).iter().all(finished));
    for (run, count) in begun {
        if before.contains(&run.file_name().unwrap().to_string_lossy().into_owned()) {
            let now = run_dirs(&a).iter().position(|r| *r == run).map(|i| starts(&a)[i]);
            assert_eq!(now, Some(count), "{}: begun again", run.display());
        }
    }
    // Done is done: nothing is begun again.
    let begun = starts(&a);
    go(dir, &line("a")).ok();
    assert_eq!(starts(&a), begun);

    // A run that is thrown away comes back with the same numbers.
    let whole = scores(&a);
    std::fs::remove_dir_all(&run_dirs(&a)[1]).unwrap();
    go(dir, &line("a")).ok();
    assert_eq!(scores(&a), whole);
}

#[test]
fn workers_share_a_folder_and_survive_one_another() {
    let dir = folder();
    let dir = dir.path();
    let runs = dir.join("runs");
    let line = "sweep run slow.toml --save-every 500 --jobs-per-device 1";
    let mut killed = start(dir, line);
    until(|| saved(&runs).is_some());
    signal(&killed, libc::SIGSTOP);
    let status = go(dir, "sweep status slow.toml --json").json();
    assert_eq!(
        (&status["running"], &status["done"], &status["left"]),
        (&json!(1), &json!(0), &json!(3))
    );
    let at = status["runs"].as_array().unwrap().iter().position(|r| r["state"] == "running");
    let one = format!("sweep run-one {} slow.toml", at.unwrap());
    go(dir, &one).refused(1, "--run: ", "another process works in this run");

    let mut others = [start(dir, line), start(dir, line)];
    until(|| run_dirs(&runs).len() >= 3);
    signal(&killed, libc::SIGKILL);
    killed.wait().unwrap();
    for worker in &mut others {
        assert_eq!(worker.wait().unwrap().code(), Some(0));
    }
    // Four runs were begun once each, and the one whose worker was killed once more.
    assert_eq!(starts(&runs).iter().sum::<usize>(), 5, "{:?}", starts(&runs));
    let status = go(dir, "sweep status slow.toml --json").json();
    assert_eq!((&status["done"], &status["left"]), (&json!(4), &json!(0)));
    assert_eq!(status["hours_left_here"], json!(0.0));
    go(dir, "sweep run slow.toml --runs straight").ok();
    assert_eq!(scores(&runs), scores(&dir.join("straight")));
}

#[test]
fn a_slurm_script_runs_saves_and_requeues() {
    let dir = folder();
    let dir = dir.path();
    go(dir, "sweep slurm slow.toml --time 00:10:00 --out job.sh --only size=800").ok();
    let script = std::fs::read_to_string(dir.join("job.sh")).unwrap();
    for holds in ["--array=0-1\n", "--requeue", "--signal=B:USR1@120", "--time=00:10:00"] {
        assert!(script.contains(holds), "{script}");
    }
    go(dir, "sweep slurm slow.toml --time soon").refused(2, "--time: ", "04:00:00");
    let bin = dir.join("bin");
    std::fs::create_dir(&bin).unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_emm"), bin.join("emm")).unwrap();
    let requeue = bin.join("scontrol");
    std::fs::write(&requeue, "#!/bin/sh\necho \"$@\" >> requeued\n").unwrap();
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(&requeue, std::fs::Permissions::from_mode(0o755)).unwrap();
    let job = || {
        Command::new("bash")
            .arg("job.sh")
            .current_dir(dir)
            .env("PATH", format!("{}:{}", bin.display(), std::env::var("PATH").unwrap()))
            .envs([("SLURM_ARRAY_TASK_ID", "1"), ("SLURM_ARRAY_JOB_ID", "77")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    };
    let runs = dir.join("runs");
    let mut first = job();
    until(|| saved(&runs).is_some());
    signal(&first, libc::SIGUSR1);
    assert_eq!(first.wait().unwrap().code(), Some(75));
    assert_eq!(std::fs::read_to_string(dir.join("requeued")).unwrap(), "requeue 77_1\n");
    assert_eq!(job().wait().unwrap().code(), Some(0));
    assert_eq!(starts(&runs), [2]);
    let status = go(dir, "sweep status slow.toml --only size=800 --json").json();
    let states: Vec<_> =
        status["runs"].as_array().unwrap().iter().map(|r| r["state"].clone()).collect();
    assert_eq!(states, ["missing", "done"]);
}

#[test]
fn a_run_that_diverges_stops_no_other() {
    let dir = folder();
    let dir = dir.path();
    let wild = mine().replace("labels = \"none\"", "labels = \"none\", lr = 1e30");
    std::fs::write(dir.join("wild.toml"), wild).unwrap();
    go(dir, "sweep run wild.toml").refused(
        5,
        "mine: unconditional, size ",
        "; mine: unconditional",
    );
    let table = go(dir, "table wild.toml --json").json();
    let done: Vec<_> = cells(&table).iter().map(|c| c["ratio"].is_number()).collect();
    assert_eq!(done, [false, false, true, true]);
}

#[test]
fn a_plan_lists_each_run_once_and_prints_its_files() {
    let dir = folder();
    let dir = dir.path();
    let plan = go(dir, "sweep plan table3 labels --json").json();
    let runs = plan["runs"].as_array().unwrap();
    // Five sizes of four kinds of labels; ten digits in order are labelled uniquely by their true labels.
    assert_eq!(runs.len(), 19);
    let ids: std::collections::HashSet<_> = runs.iter().map(|r| r["run"].to_string()).collect();
    assert_eq!(ids.len(), runs.len());
    assert_eq!(runs[0]["config"]["model"]["model_channels"], 16);
    let printed = go(dir, "sweep plan mine.toml --print").ok();
    assert_eq!(printed.trim(), mine().trim());
    let shipped = emm(["sweep", "plan", "table1", "--print"]).ok();
    assert_eq!(
        Study::parse(&shipped, "printed").unwrap(),
        Study { text: shipped.clone(), ..Study::load("batch").unwrap() }
    );
    assert!(go(dir, "sweep plan mine.toml").ok().contains("4 runs: "), "totals");

    go(dir, "sweep plan tabel3").refused(2, "STUDY: ", "did you mean \"table3\"?");
    go(dir, "sweep plan none.toml").refused(3, "none.toml: ", "not found");
    go(dir, "sweep plan table3 --only sise=1000").refused(2, "--only: ", "did you mean \"size\"?");
    go(dir, "sweep plan table3 --only size=1001").refused(2, "--only: ", "did you mean \"1000\"?");
    for repeats in ["0", "1001", "4e9"] {
        go(dir, &format!("sweep plan table3 --repeats {repeats}")).refused(
            2,
            "--repeats: ",
            "1000",
        );
    }
    for zero in ["size", "batch", "score_images", "channels"] {
        let bad = mine().replacen("[settings]", &format!("[settings]\n{zero} = 0"), 1);
        let bad = bad.replacen(&format!("\n{zero} = 32"), "", 1).replacen(
            &format!("\n{zero} = 256"),
            "",
            1,
        );
        let bad = bad.replacen(&format!("\n{zero} = 200"), "", 1);
        std::fs::write(dir.join("zero.toml"), bad).unwrap();
        let start = format!("zero.toml: settings: {zero}: 0");
        go(dir, "sweep plan zero.toml").refused(2, &start, "at least 1");
    }
    let wide = mine().replace("channels = 32", "channels = 32\nresolution = 4294967296");
    std::fs::write(dir.join("large.toml"), wide).unwrap();
    let said = go(dir, "table large.toml").ok();
    assert!(said.contains("--resolution: expected 1 to 4096 pixels"), "{said}");
    go(dir, "sweep run table3 --jobs-per-device 0").refused(2, "--jobs-per-device: ", "at least 1");
    go(dir, "sweep run-one 4 mine.toml").refused(2, "I: 4", "0 to 3");
    go(dir, "sweep run-one x mine.toml").refused(2, "I: ", "'x'");
    emm_in(dir, words("table 3 --scale tinyy")).refused(2, "--scale: ", "did you mean \"tiny\"?");
    emm_in(dir, words("sweep run table3 --scale half")).refused(2, "--data: not given", "half");
    go(dir, "sweep plan table3 --data mine.toml").refused(3, "mine.toml: ", "");
    std::fs::write(dir.join("bad.toml"), mine().replace("channels", "chanels")).unwrap();
    go(dir, "sweep run bad.toml").refused(2, "bad.toml: settings: ", "did you mean \"channels\"?");
    // A file is named as it was given, not by the study's name in it.
    let far = mine().replace("[400, 800]", "[400, 90000000]");
    std::fs::write(dir.join("far.toml"), far).unwrap();
    go(dir, "sweep run far.toml --only size=90000000").refused(
        2,
        "far.toml: unconditional, size 900000: ",
        " images, wants ",
    );
    let clash = "name = \"mine\"\ntitle = \"Mine\"\n[[axis]]\nname = \"a\"\nkey = \"random_skips\"\nvalues = [1]\n\
                 [[axis]]\nname = \"b\"\nvalues = [{ name = \"x\", skips = [1] }]\n";
    std::fs::write(dir.join("clash.toml"), clash).unwrap();
    go(dir, "sweep plan clash.toml").refused(2, "clash.toml: skips", "exclude each other");
    go(dir, "sweep run blend --only blend=1 --only size=500").refused(
        2,
        "blend: ",
        "--blend: not given",
    );
    assert!(!dir.join("runs").exists(), "something was run");
}
