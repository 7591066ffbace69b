//! The paper's study: its files, the runs they become, what is read back.

use emm::data::Dataset;
use emm::data::subset::Labels;
use emm::model::Precond;
use emm::run::RunConfig;
use emm::study::scale::SCALES;
use emm::study::settings::Recipe;
use emm::study::{NamedSet, Scale, Setup, Study, StudyPlan, Sweep};
use std::collections::HashSet;
use std::path::Path;
use tempfile::tempdir;

/// Digits at the smallest scale.
pub fn tiny(runs: &Path) -> Setup {
    let set = NamedSet { images: Dataset::digits(), name: "bundled digits".into() };
    Setup::new(Scale::TINY, Some(set), runs.into())
}

#[test]
fn every_figure_and_table_of_the_paper_has_a_study() {
    let all = Study::named("STUDY", "all").unwrap();
    let figures: HashSet<&str> =
        all.iter().flat_map(|s| s.figures.iter().map(|f| f.id.as_str())).collect();
    let tables: HashSet<&str> =
        all.iter().flat_map(|s| s.tables.iter().map(|t| t.id.as_str())).collect();
    assert_eq!(tables, HashSet::from(["1", "2", "3"]));
    let sheets: HashSet<&str> =
        all.iter().flat_map(|s| s.sheets.iter().map(|f| f.id.as_str())).collect();
    assert_eq!(sheets, HashSet::from(["1a", "1b", "10"]));
    let drawn = "1c 1d 2a 2b 2c 3a 3b 3c 3d 4a 4b 4c 4d 5a 5b 5c 5d 6 7a 7b 7c 7d 7e 7f 8a 8b 9";
    assert_eq!(figures, drawn.split(' ').collect());
    let names: HashSet<&str> = all.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names.len(), all.len());
}

#[test]
fn at_the_papers_scale_the_cells_are_the_papers_settings() {
    let dir = tempdir().unwrap();
    let setup = Setup::new(Scale::PAPER, None, dir.path().into());
    let mut ids = HashSet::new();
    for study in Study::shipped() {
        let plan = StudyPlan::new(&study, &setup).unwrap();
        for cell in &plan.cells {
            if let Some(why) = &cell.impossible {
                panic!("{}: {}: {why}", study.name, plan.name(cell));
            }
            assert!(cell.runs[0].dir.is_none(), "nothing is known without a set");
            ids.insert(cell.runs[0].config.id());
        }
    }
    let find = |study: &str, cell: &[usize]| {
        let plan = StudyPlan::new(&Study::load(study).unwrap(), &setup).unwrap();
        plan.cells.iter().find(|c| c.at == cell).unwrap().runs[0].config.clone()
    };
    // The basic setup is one run in every table that it stands in.
    let basic = find("table3", &[0, 0]);
    for (study, cell) in
        [("batch", [0, 3]), ("weight-decay", [0, 0]), ("ema-rate", [0, 0]), ("width", [0, 0])]
    {
        assert_eq!(find(study, &cell), basic, "{study}");
    }
    assert_eq!(
        (basic.model.model_channels, basic.model.num_blocks, basic.train.batch),
        (128, 2, 512)
    );
    assert_eq!((basic.train.lr, basic.train.epochs, basic.train.looks), (2e-4, 40_000.0, 20));
    assert_eq!(find("batch", &[1, 6]).train.lr, 3.5e-4);
    assert_eq!(find("table3", &[2, 4]).model.label_dim, 5000);
    assert_eq!(find("table3", &[1, 4]).model.label_dim, 10);
    assert_eq!(find("edm-50k", &[1]).train.epochs, 12_000.0);
    assert_eq!(find("resolution", &[2, 1]).model.resolution, 8);
    assert_eq!(find("skip-deletion", &[8]).model.skip_connections, [1, 1, 1, 1, 1, 1, 0, 0, 0]);
    // Figure 8a: five draws of each number of skips, no two of them alike.
    for kept in 0..8 {
        let draw = |d| find("skip-number", &[kept, d]).model.skip_connections;
        let draws: HashSet<Vec<u8>> = (0..5).map(draw).collect();
        let right = |m: &Vec<u8>| m.iter().map(|&on| on as usize).sum::<usize>() == kept + 1;
        assert!(draws.len() == 5 && draws.iter().all(right), "{draws:?}");
    }
    // Figure 6 resamples more images than are scored elsewhere.
    let most = find("bootstrap", &[0]).train;
    assert_eq!((most.score_images, most.rescore_images), (10_000, 50_000));
}

/// The configuration of a study of one cell with these settings.
fn config_of(settings: &str, scale: &Scale) -> Result<RunConfig, String> {
    let text = format!(
        "name = \"x\"\ntitle = \"x\"\n[settings]\n{settings}\n[[axis]]\nname = \"a\"\nvalues = [{{ name = \"a\" }}]"
    );
    let study = Study::parse(&text, "x").map_err(|e| e.to_string())?;
    let plan = StudyPlan::new(&study, &Setup::new(*scale, None, "runs".into())).unwrap();
    let cell = &plan.cells[0];
    cell.runs.first().map(|r| r.config.clone()).ok_or_else(|| cell.impossible.clone().unwrap())
}

#[test]
fn draws_differ_as_long_as_there_are_choices() {
    for kept in [1, 2, 8, 9] {
        let draw = |d: usize| {
            let settings = format!("random_skips = {kept}\ndraw = {d}");
            config_of(&settings, &Scale::PAPER).map(|c| c.model.skip_connections)
        };
        let choices = [9, 36, 9, 1][[1, 2, 8, 9].iter().position(|&k| k == kept).unwrap()];
        let draws: HashSet<_> = (0..choices).map(|d| draw(d).unwrap()).collect();
        assert_eq!(draws.len(), choices, "{kept} skips");
        let e = draw(choices).unwrap_err();
        assert!(e.starts_with(&format!("draw: {choices}, expected 0 to {}", choices - 1)), "{e}");
    }
    // Of 39 skips more choices than a number holds, yet no draw beyond what is compared.
    let e = config_of("blocks = 12\nrandom_skips = 20\ndraw = 1000000", &Scale::PAPER);
    assert!(e.unwrap_err().starts_with("draw: 1000000, expected 0 to 999"));
}

#[test]
fn evaluations_the_ramp_and_scrubbing_are_settings_of_a_study() {
    let settings = "looks = 240\nscrub_gradients = true\nramp_epochs = 400\nrescore_images = 40000";
    let of = |scale: &Scale| config_of(settings, scale).unwrap().train;
    let read = |scale| {
        let t = of(scale);
        (t.looks, t.scrub_gradients, t.ramp_epochs, t.rescore_images)
    };
    assert_eq!(read(&Scale::PAPER), (240, true, 400.0, 40_000));
    assert_eq!(read(&Scale::TINY), (48, true, 10.0, 1000));
    let none = config_of("size = 1000", &Scale::PAPER).unwrap().train;
    assert_eq!((none.looks, none.scrub_gradients), (20, false));
    assert_eq!((none.ramp_epochs, none.rescore_images), (200.0, 0));
    // A longer run begins with a shorter one's learning rates.
    let longer = config_of("epochs = 80000", &Scale::TINY).unwrap().train;
    assert_eq!((longer.epochs, longer.ramp_epochs), (2000.0, 5.0));
    let e = config_of("looks = 0", &Scale::PAPER).unwrap_err();
    assert_eq!(e, "x: settings: looks: 0, expected at least 1");
}

/// Labels of a subset of 50,000 images in ten classes.
fn labels_of(recipe: &Recipe, set: &Dataset) -> Option<Vec<u32>> {
    let here = Recipe { resolution: None, blend: 0.0, ..recipe.clone() };
    here.of((set, "set"), None).unwrap().labels
}

#[test]
fn no_scale_leaves_a_class_without_images_or_a_run_in_its_ramp() {
    let dir = tempdir().unwrap();
    let labels = Some((0..50_000).map(|i| i % 10).collect());
    let set = Dataset::new("set", 1, 1, vec![0; 50_000], labels).unwrap();
    for scale in SCALES {
        let digits = || NamedSet { images: Dataset::digits(), name: "digits".into() };
        let setup = Setup::new(scale, (scale == Scale::TINY).then(digits), dir.path().into());
        let mut known: Vec<(Recipe, Option<Vec<u32>>)> = Vec::new();
        for study in Study::shipped() {
            let plan = StudyPlan::new(&study, &setup).unwrap();
            for cell in &plan.cells {
                let Some(run) = cell.runs.first() else { continue };
                let what = format!("{}: {}: {}", scale.name, study.name, plan.name(cell));
                let classes = run.config.model.label_dim;
                if !known.iter().any(|k| k.0 == run.recipe) {
                    known.push((run.recipe.clone(), labels_of(&run.recipe, &set)));
                }
                let labels = &known.iter().find(|k| k.0 == run.recipe).unwrap().1;
                let there = labels.iter().flatten().collect::<HashSet<_>>().len();
                // The authors' own draw of 1,000 classes for 5,000 images has 4 without any.
                let empty = match run.recipe.labels {
                    Labels::Random(1000) if scale.is_paper() => 4,
                    _ => 0,
                };
                assert_eq!(there + empty, classes, "{what}");
                if let Labels::Random(asked) | Labels::Dealt(asked) = run.recipe.labels {
                    assert_eq!(classes, asked as usize, "{what}");
                }
                assert!(run.recipe.classes.is_none_or(|k| k <= run.recipe.size), "{what}");
                // The ramp is the same share of every run as in the paper's, whose shortest is 4,000 epochs.
                let t = &run.config.train;
                assert!(t.ramp_epochs <= 0.05 * t.epochs, "{what}");
                if scale == Scale::TINY {
                    assert_eq!(run.config.model.precond, Precond::Edm, "{what}");
                }
            }
        }
    }
    // What is left out is named.
    let plan = StudyPlan::new(&Study::load("random-labels").unwrap(), &tiny(dir.path())).unwrap();
    let hundred = plan.cells.iter().find(|c| c.at == [0, 6]).unwrap();
    let why = hundred.impossible.as_deref();
    assert_eq!(why, Some("10 images are not one for each of 100 random classes"));
    let five = StudyPlan::new(&Study::load("classes").unwrap(), &tiny(dir.path())).unwrap();
    let why: Vec<_> = five.cells.iter().filter_map(|c| c.impossible.as_deref()).collect();
    assert_eq!(why, ["5 images are not one for each of 10 classes"]);
}

#[test]
fn a_sweep_has_the_same_runs_without_the_set_as_with_it() {
    let dir = tempdir().unwrap();
    // Of CIFAR-10's shape but grey, as many as scale mini asks for, no two alike.
    let images = |n: usize, seed: u64| {
        let word = |i: u32| emm::rng::philox([i, 0, 0, 0], seed)[0].to_le_bytes();
        let pixels = (0..n * 256).flat_map(|i| word(i as u32)).collect();
        let labels = Some((0..n as u32).map(|i| i % 10).collect());
        let images = Dataset::new("set", 32, 1, pixels, labels).unwrap();
        NamedSet { images, name: "set".into() }
    };
    let scale = Scale::named("mini").unwrap();
    let mut with = Setup::new(scale, Some(images(5000, 1)), dir.path().into());
    with.blend = Some(images(200, 2));
    let without = Setup::new(scale, None, dir.path().into());
    let runs = |studies: &[Study], setup: &Setup| {
        let plans: Vec<_> = studies.iter().map(|s| StudyPlan::new(s, setup).unwrap()).collect();
        Sweep::of(&plans).runs.into_iter().map(|r| r.name).collect::<Vec<_>>()
    };
    let all = Study::named("STUDY", "all").unwrap();
    for study in &all {
        let one = std::slice::from_ref(study);
        assert_eq!(runs(one, &without), runs(one, &with), "{}", study.name);
    }
    assert_eq!(runs(&all, &without), runs(&all, &with));
    let paper = Setup::new(Scale::PAPER, None, dir.path().into());
    let count = |study: &str| runs(&[Study::load(study).unwrap()], &paper).len();
    assert_eq!(["classes", "blend", "labels"].map(count), [16, 20, 15]);
    // The whole study, of which Figure 6's are two.
    assert_eq!(runs(&all, &paper).len(), 292);
}

#[test]
fn printed_values_stand_at_their_cells() {
    let dir = tempdir().unwrap();
    let setup = Setup::new(Scale::PAPER, None, dir.path().into());
    let paper = |study: &str, at: &[usize]| {
        let plan = StudyPlan::new(&Study::load(study).unwrap(), &setup).unwrap();
        let paper = plan.cells.iter().find(|c| c.at == at).unwrap().paper;
        paper.filter(|p| !p.plotted).map(|p| p.percent)
    };
    assert_eq!(paper("table3", &[1, 2]), Some(55.62));
    assert_eq!(paper("batch", &[1, 5]), Some(63.33));
    assert_eq!(paper("weight-decay", &[0, 6]), Some(13.79));
    assert_eq!(paper("ema-rate", &[1, 8]), Some(59.20));
    assert_eq!(paper("labels", &[2, 0]), None);
    // What is left out has no cell, and no other cell gets its printed value.
    let text = "name = \"x\"\ntitle = \"x\"\n[[axis]]\nname = \"size\"\nkey = \"size\"\nvalues = [10, 20]\n\
                [[axis]]\nname = \"width\"\nkey = \"channels\"\nvalues = [16, 32]\n\
                [[without]]\nsize = [\"10\"]\nwidth = [\"32\"]\n[paper]\npercent = [[1, nan], [3, 4]]\n";
    let study = Study::parse(text, "x").unwrap();
    assert_eq!(study.cells(), [[0, 0], [1, 0], [1, 1]]);
    assert_eq!(study.paper.percent, [1.0, 3.0, 4.0]);
    assert_eq!(paper("classes", &[0, 0]), None);
}

/// Facts of the authors' program and its pictures (sail-sg/DiffMemorize): which cells they ran.
#[test]
fn cells_are_those_that_the_authors_ran() {
    // How many cells each value of a study's first axis has.
    let counts = |study: &str| {
        let study = Study::load(study).unwrap();
        let mut counts = vec![0; study.axes[0].values.len()];
        study.cells().iter().for_each(|at| counts[at[0]] += 1);
        counts
    };
    // Figure 2a: sizes up to 4k at 32×32, from 1k to 16k at 16×16 and 8×8.
    assert_eq!(counts("resolution"), [4, 5, 5]);
    // Figure 5b: classes of 1k, 2k and 5k images.
    assert_eq!(counts("random-labels"), [7, 7, 6]);
    // Figures 4a and 4c: every choice of one, two and three skips at a resolution, and all.
    let skips = Study::load("skip-resolution").unwrap();
    let values = &skips.axes[1].values;
    assert_eq!(values.len(), 3 * 7 + 1);
    for value in values {
        let mask = value.settings["skips"].as_array().unwrap();
        let kept: Vec<usize> = (0..9).filter(|&i| mask[i].as_integer() == Some(1)).collect();
        let Some((number, place)) = value.name.split_once(" at ") else {
            assert_eq!((value.name.as_str(), kept.len()), ("all", 9));
            continue;
        };
        assert_eq!(number, kept.len().to_string(), "{}", value.name);
        let (resolution, which) = place.split_once(" (").unwrap_or((place, "1, 2, 3)"));
        let level = [32, 16, 8].iter().position(|r| r.to_string() == resolution).unwrap();
        let named: Vec<usize> = which
            .trim_end_matches(')')
            .split(", ")
            .map(|k| 3 * level + k.parse::<usize>().unwrap() - 1)
            .collect();
        assert_eq!(kept, named, "{}", value.name);
    }
}

#[test]
fn a_study_shares_its_runs_with_find_and_train() {
    let dir = tempdir().unwrap();
    let setup = tiny(dir.path());
    let plan = StudyPlan::new(&Study::load("table3").unwrap(), &setup).unwrap();
    let of = |at: &[usize]| plan.cells.iter().find(|c| c.at == at).unwrap().runs[0].clone();
    // The first of each digit, without labels.
    let run = of(&[0, 0]);
    let images = setup.images(&run.recipe).unwrap();
    assert_eq!((images.len(), images.labels.as_ref()), (10, None));
    assert_eq!(run.config.data.sha256_pixels, images.sha256_pixels());
    assert_eq!(run.dir.unwrap(), dir.path().join(run.config.id()));
    // Labels are another set of the same pixels.
    let unique = of(&[2, 0]).config;
    assert_eq!(unique.data.sha256_pixels, images.sha256_pixels());
    assert_eq!((unique.model.label_dim, of(&[1, 4]).config.model.label_dim), (10, 10));
    assert_eq!(of(&[2, 4]).config.model.label_dim, 50);
    assert_eq!(plan.name(&plan.cells[6]), "true labels, size 20");
}

#[test]
fn what_a_set_cannot_give_is_a_blank_with_its_reason() {
    let dir = tempdir().unwrap();
    let setup = tiny(dir.path());
    let plan = |name: &str| StudyPlan::new(&Study::load(name).unwrap(), &setup).unwrap();
    let resolution = plan("resolution");
    let why = |k: usize| resolution.cells.iter().find(|c| c.at[0] == k).unwrap().impossible.clone();
    assert_eq!((why(0), why(1)), (None, None), "8 and 4 pixels");
    assert!(why(2).unwrap().contains("power of two from 4"), "2 pixels");
    let blend = plan("blend");
    assert_eq!(blend.cells[0].impossible, None, "nothing of the second set");
    assert!(blend.cells[4].impossible.as_ref().unwrap().starts_with("--blend: not given"));
}

#[test]
fn files_that_are_no_study_are_refused_in_one_line() {
    let good = "name = \"mine\"\ntitle = \"Mine\"\n[settings]\nchannels = 32\n[[axis]]\nname = \"size\"\n\
                key = \"size\"\nvalues = [10, 20]\n";
    assert_eq!(Study::parse(good, "f.toml").unwrap().cells(), [[0], [1]]);
    let paper = |p: &str| format!("{good}[paper]\n{p}\n");
    for (text, holds) in [
        (
            good.replace("channels", "chanels"),
            "settings: unknown key \"chanels\"; did you mean \"channels\"?",
        ),
        (
            good.replace("[settings]", "[setings]"),
            "unknown key \"setings\"; did you mean \"settings\"?",
        ),
        (
            good.replace("values", "vaules"),
            "axis: unknown key \"vaules\"; did you mean \"values\"?",
        ),
        (
            good.replace("key = \"size\"", "key = \"sise\""),
            "axis size: unknown key \"sise\"; did you mean \"size\"?",
        ),
        (good.replace("= 32", "= \"wide\""), "settings: channels = \"wide\": invalid type"),
        (good.replace("= 32", "= -1"), "settings: channels = -1: "),
        (good.replace("[10, 20]", "[10, 10]"), "axis size: value \"10\" is there twice"),
        (good.replace("[10, 20]", "[]"), "axis size: values: none"),
        (good.replace("[10, 20]", "[10, 20"), "line 8: "),
        (good.replace("key = \"size\"\n", ""), "without a key"),
        (good.replace("channels = 32", "labels = \"rnd\""), "settings: labels: "),
        (paper("percent = [1]"), "paper: percent: expected numbers nested as 2"),
        (paper("percent = [1, \"x\"]"), "paper: percent: "),
        (
            good.to_string() + "[[table]]\nid = \"1\"\ncolumns = \"sise\"\n",
            "unknown axis \"sise\"; did you mean \"size\"?",
        ),
        (
            good.to_string() + "[[figure]]\nid = \"1\"\nx = \"size\"\nonly = { size = [\"30\"] }\n",
            "unknown value of size \"30\"",
        ),
        (
            good.to_string() + "[[figure]]\nid = \"1\"\nx = \"size\"\ndraw = \"bars\"\n",
            "unknown variant `bars`, expected one of `lines`, `marks`, `bootstrap`",
        ),
        (
            good.to_string() + "[[figure]]\nid = \"1\"\nx = \"epochs\"\ndraw = \"marks\"\n",
            "figure 1: draw: over epochs there are only lines",
        ),
        (
            good.replace("[10, 20]", "[0, 20]").replace("key = \"size\"", "key = \"draw\"")
                + "[[figure]]\nid = \"1\"\nx = \"size\"\nscale = \"log\"\n",
            "figure 1: scale: log, but \"0\" is no number above 0",
        ),
        (
            good.to_string() + "[[sheet]]\nid = \"1\"\nof = \"runs\"\nonly = { sise = [] }\n",
            "sheet 1: unknown axis \"sise\"; did you mean \"size\"?",
        ),
        (
            good.to_string() + "[[without]]\nsise = [\"10\"]\n",
            "without: unknown axis \"sise\"; did you mean \"size\"?",
        ),
        (
            good.to_string() + "[[without]]\nsize = [\"30\"]\n",
            "without: unknown value of size \"30\"",
        ),
        (good.to_string() + "[[without]]\n", "without: leaves no cell"),
        (String::new(), "missing field `name`"),
    ] {
        let e = Study::parse(&text, "f.toml").unwrap_err().to_string();
        assert!(e.starts_with("f.toml: ") && e.contains(holds) && !e.contains('\n'), "{e}");
    }
    let e = Study::load("tabel3").unwrap_err().to_string();
    assert!(e.contains("did you mean \"table3\"?"), "{e}");
}

/// What the paper's plots show, as read off, beside what it printed.
#[test]
fn values_of_plots_stand_in_their_cells() {
    let dir = tempdir().unwrap();
    let setup = Setup::new(Scale::PAPER, None, dir.path().into());
    let values = |study: &str, of: &[(&str, &str)]| {
        let mut plan = StudyPlan::new(&Study::load(study).unwrap(), &setup).unwrap();
        let only: Vec<_> = of.iter().map(|(a, v)| (a.to_string(), v.to_string())).collect();
        plan.keep(&only).unwrap();
        let about = |c: &emm::study::plan::PlannedCell| c.paper.map(|p| (p.percent, p.plotted));
        plan.cells.iter().map(about).collect::<Vec<_>>()
    };
    let read_off = |all: &[f64]| all.iter().map(|&p| Some((p, true))).collect::<Vec<_>>();
    assert_eq!(values("edm-50k", &[]), [Some((0.0, false)), Some((65.0, true))]);
    let random = values("labels", &[("labels", "random labels")]);
    assert_eq!(random, read_off(&[96.0, 80.0, 57.0, 39.0, 23.0]));
    assert_eq!(values("labels", &[("labels", "unconditional")])[0], Some((92.09, false)));
    for (size, all) in [
        ("1000", &[91.0, 93.0, 95.0, 96.0, 97.5, 98.5, 99.0][..]),
        ("2000", &[61.0, 65.0, 73.0, 80.0, 85.0, 90.0, 94.0]),
        ("5000", &[9.0, 23.5, 50.0, 63.0, 88.0, 93.0]),
    ] {
        assert_eq!(values("random-labels", &[("size", size)]), read_off(all), "{size}");
    }
    let places = values("skip-location", &[("network", "DDPM++")]);
    assert_eq!(places, read_off(&[93.0, 93.0, 92.0, 78.0, 81.0, 61.0, 13.0, 3.0, 0.0]));
    assert!(values("skip-location", &[("network", "NCSN++")]).iter().all(Option::is_none));
    for (resolution, all) in
        [("16", [100.0, 99.7, 95.0, 60.0, 11.0]), ("8", [100.0, 99.8, 97.0, 89.5, 64.0])]
    {
        assert_eq!(values("resolution", &[("resolution", resolution)]), read_off(&all));
    }
}
