//! What finished runs say of a study, read from their folders.

use crate::study::tiny;
use emm::memorization::wilson;
use emm::run::{Evaluation, RunDir};
use emm::study::outcome::{RunState, state_of, still_rising};
use emm::study::{Scale, Setup, Study, StudyPlan};
use emm::views::matrix::matrix;
use tempfile::tempdir;

/// A finished run's files, with about these ratios at its evaluations.
fn finished(plan: &StudyPlan, cell: usize, run: usize, ratios: &[f64]) {
    let run = &plan.cells[cell].runs[run];
    let dir = RunDir::new(run.dir.as_ref().unwrap());
    drop(dir.lock().unwrap());
    let mut config = run.config.clone();
    config.train.micro_batch = 1;
    dir.settle(&config, "d.zip").unwrap();
    let images = run.config.train.score_images as u64;
    let evaluation = |(&step, &ratio): (&u64, &f64)| {
        let memorized = (images as f64 * ratio).round() as u64;
        let ([low, high], ratio) = (wilson(memorized, images), memorized as f64 / images as f64);
        Evaluation {
            step,
            epoch: run.config.epoch(step),
            images,
            memorized,
            ratio,
            low,
            high,
            mean_d1: 1.0,
        }
    };
    let evaluations: Vec<Evaluation> =
        run.config.evaluation_steps().iter().zip(ratios).map(evaluation).collect();
    dir.write_evaluations(&evaluations).unwrap();
}

#[test]
fn what_runs_say_is_read_from_their_folders() {
    let dir = tempdir().unwrap();
    let mut setup = tiny(dir.path());
    setup.repeats = 2;
    let plan = StudyPlan::new(&Study::load("table3").unwrap(), &setup).unwrap();
    finished(&plan, 0, 0, &[0.1, 0.5, 0.96, 0.952]);
    finished(&plan, 0, 1, &[0.1, 0.5, 0.92, 0.94]);
    finished(&plan, 1, 0, &[0.1, 0.2, 0.3, 0.5]);
    finished(&plan, 2, 0, &[0.1, 0.2]);
    let seen = plan.read();
    let found = |i: usize| seen[i].found.as_ref().unwrap();
    assert_eq!(found(0).ratio, (0.96 + 0.94) / 2.0);
    let spread = found(0).spread.unwrap();
    assert_eq!((spread.seeds, spread.lowest, spread.highest), (2, 0.94, 0.96));
    assert!((spread.deviation - 0.02 / 2f64.sqrt()).abs() < 1e-12);
    assert_eq!(
        found(0).curve.iter().map(|c| c.0).collect::<Vec<_>>(),
        [250.0, 500.0, 750.0, 1000.0].map(|e: f64| {
            let c = &plan.cells[0].runs[0].config;
            c.epoch((c.steps() as f64 * e / 1000.0) as u64)
        })
    );
    assert!(!found(0).rising && found(1).rising);
    assert_eq!((found(1).ratio, found(1).spread), (0.5, None));
    assert!(seen[0].complete() && !seen[1].complete());
    assert_eq!((&seen[2].found, &seen[2].states[0]), (&None, &RunState::Begun));
    assert_eq!(seen[3].states, [RunState::Missing, RunState::Missing]);
    let emm = plan.emm(&seen, 0.1);
    assert_eq!(emm[0].name, "unconditional");
    let found = emm[0].ours.as_ref().unwrap().found.unwrap().0;
    assert!((found - (10.0 + 0.05 / 0.45 * 10.0)).abs() < 1e-9, "{found}");
    assert!(emm[1].ours.is_none());

    // What is in a folder is checked, not believed.
    let run = &plan.cells[1].runs[0];
    let folder = run.dir.as_ref().unwrap();
    let (scores, config) = (folder.join("scores.csv"), folder.join("config.toml"));
    let whole = std::fs::read_to_string(&scores).unwrap();
    std::fs::write(&scores, &whole[..whole.len() - 20]).unwrap();
    let damage = || match state_of(&run.config, folder) {
        RunState::Damaged(why) => why,
        other => panic!("{other:?}"),
    };
    let e = damage();
    assert!(e.contains("scores.csv: not a row of scores"), "{e}");
    std::fs::write(&scores, &whole).unwrap();
    let text = std::fs::read_to_string(&config).unwrap();
    let (text, _) = text.split_once("[note]").unwrap();
    std::fs::write(&config, text.replace("epochs = 1000.0", "epochs = 999.0")).unwrap();
    let e = damage();
    assert!(
        e.contains("holds another run") && e.contains("--epochs: stored 999.0, asked 1000.0"),
        "{e}"
    );
    std::fs::write(&config, text.replace("epochs =", "epocs =")).unwrap();
    let e = damage();
    assert!(e.contains("not a run's configuration"), "{e}");
}

#[test]
fn curves_that_still_rise_are_told_by_one_rule() {
    let evaluation = |images: u64| {
        move |ratio: &f64| {
            let memorized = (ratio * images as f64).round() as u64;
            let ratio = memorized as f64 / images as f64;
            let [low, high] = wilson(memorized, images);
            Evaluation { step: 1, epoch: 1.0, images, memorized, ratio, low, high, mean_d1: 1.0 }
        }
    };
    let rising = |images: u64, all: &[f64]| {
        still_rising(&all.iter().map(evaluation(images)).collect::<Vec<_>>())
    };
    // Steep to the end, flat, falling, nothing yet, all.
    assert!(rising(500, &[0.0, 0.1, 0.3, 0.64]));
    assert!(!rising(500, &[0.1, 0.5, 0.64, 0.65]));
    assert!(!rising(500, &[0.1, 0.5, 0.64, 0.4]));
    assert!(!rising(500, &[0.0, 0.0, 0.0, 0.0]) && !rising(500, &[]));
    assert!(!rising(500, &[0.2, 0.5, 0.9, 1.0]), "all cannot be more");
    assert!(rising(500, &[0.2, 0.5, 0.9, 0.97]));
    // An only evaluation is an end only where nothing was memorized, or all.
    assert!(rising(500, &[0.6]) && !rising(500, &[0.0]) && !rising(500, &[1.0]));
    // Many evaluations, each within the next one's interval, and one that is not the highest.
    let slowly: Vec<f64> = (1..=20).map(|k| 0.03 * k as f64).collect();
    assert!(rising(100, &slowly));
    assert!(rising(100, &[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.75, 0.74]));
    // Less than a point is none, however many images say so.
    let settled: Vec<f64> = (1..=20).map(|k| 0.9 + 0.0005 * k as f64).collect();
    assert!(!rising(100_000, &settled));
}

#[test]
fn the_papers_value_is_compared_at_its_own_scale_alone() {
    let dir = tempdir().unwrap();
    let mut setup = tiny(dir.path());
    let lines = |setup: &Setup| {
        let plan = StudyPlan::new(&Study::load("labels").unwrap(), setup).unwrap();
        // Of 1,000 images without labels and with random ones.
        let cells = [0, 10];
        let end = plan.cells[0].runs[0].config.evaluation_steps().len();
        cells.iter().for_each(|&cell| finished(&plan, cell, 0, &vec![0.9; end]));
        let table = matrix(&plan, &plan.read()).markdown();
        table.lines().map(String::from).collect::<Vec<_>>()
    };
    let words = |lines: &[String], what: &str| -> Vec<Vec<String>> {
        let cells = |l: &String| l.split('|').map(|c| c.trim().to_string()).collect::<Vec<_>>();
        lines.iter().map(cells).filter(|l| l.get(2).is_some_and(|c| c == what)).collect()
    };
    let here = lines(&setup);
    assert!(words(&here, "difference").is_empty(), "{here:#?}");
    setup.scale = Scale::PAPER;
    let paper = lines(&setup);
    let difference = words(&paper, "difference");
    assert_eq!((difference[0][3].as_str(), difference[2][3].as_str()), ("−2.09", "−6.00"));
    for lines in [&here, &paper] {
        let theirs = words(lines, "paper");
        assert_eq!((theirs[0][3].as_str(), theirs[2][3].as_str()), ("92.09%", "≈ 96%"));
        assert_eq!(theirs[2][8], "≈ 1375", "its EMM follows from them");
        let computed = words(lines, "precision");
        assert_eq!((computed[0][3].as_str(), computed[1][3].as_str()), ("fp32", ""));
    }
}
