//! `scores.csv` and `rescored.csv`: what evaluations said, and whether that fits the run. A row is believed only as it was
//! written, to the last digit, so lines are compared as they stand; a reader of CSV would take other forms, too.

use super::{Distinct, Evaluation, RunConfig};
use crate::error::data;
use crate::files::{open, read_text, write_bytes};
use crate::memorization::wilson;
use anyhow::Result;
use csv::StringRecord;
use std::io::Read as _;
use std::path::{Path, PathBuf};

const HEADER: &str = "step,epoch,images,memorized,ratio,low,high,mean_d1";

/// The farthest that two pixels are apart.
const MOST_DISTANCE: f64 = 255.0;

/// Two ways to compute an interval differ by no more.
const ROUNDING: f64 = 1e-9;

/// The evaluation with the highest ratio, the earliest of equals. Where evaluations have different numbers of images, the one whose
/// interval begins highest, and of equals the one of most images: a few images can all be copies by luck.
pub fn best(evaluations: &[Evaluation]) -> Option<&Evaluation> {
    let better = |b: &Evaluation, a: &Evaluation| match b.images == a.images {
        true => b.ratio > a.ratio,
        false => (b.low, b.images) > (a.low, a.images),
    };
    evaluations.iter().reduce(|a, b| if better(b, a) { b } else { a })
}

/// The evaluation that is scored again: the best one, unless it shows no copy, in which there was no luck.
pub fn scored_again<'a>(
    config: &RunConfig,
    evaluations: &'a [Evaluation],
    distinct: &Distinct,
) -> Option<&'a Evaluation> {
    let best = best(evaluations).filter(|_| config.train.rescore_images > 0)?;
    let mut once = distinct.evaluations.iter().filter(|l| l.step == best.step);
    (best.memorized > 0 || once.any(|l| l.memorized > 0)).then_some(best)
}

pub fn write(path: &Path, evaluations: &[Evaluation]) -> Result<()> {
    let mut text = format!("{HEADER}\n");
    for l in evaluations {
        text += &(line_of(l) + "\n");
    }
    write_bytes(path, true, text)
}

/// The rows of `scores.csv`: the first of the configuration's evaluations, each once and in order; none if there is no file.
///
/// # Errors
/// Data (exit 3) with the row that does not fit the configuration or itself.
pub fn read(path: &Path, config: &RunConfig) -> Result<Vec<Evaluation>> {
    let Some(evaluations) = rows(path)? else { return Ok(Vec::new()) };
    let name = path.display();
    let schedule = config.evaluation_steps();
    for (i, evaluation) in evaluations.iter().enumerate() {
        match schedule.get(i) {
            Some(&step) if step == evaluation.step => {}
            Some(step) => {
                let found = evaluation.step;
                return Err(data(format!(
                    "{name}: row {}: step {found}, evaluation {} of this run is at step {step}",
                    i + 1,
                    i + 1
                )));
            }
            None => {
                let all = schedule.len();
                return Err(data(format!("{name}: row {}: the run has {all} evaluations", i + 1)));
            }
        }
        fits(evaluation, config, config.images_at(i, schedule.len()))
            .map_err(|why| data(format!("{name}: row {}: {why}", i + 1)))?;
    }
    Ok(evaluations)
}

/// The best of `evaluations` scored again, once that is done.
///
/// # Errors
/// Data (exit 3) if it is not of these evaluations, or does not fit the configuration or itself.
pub fn read_rescored(
    path: &Path,
    config: &RunConfig,
    evaluations: &[Evaluation],
) -> Result<Option<Evaluation>> {
    let Some(mut rows) = rows(path)? else { return Ok(None) };
    let wrong = |why: String| Err(data(format!("{}: {why}", path.display())));
    let (Some(row), true) = (rows.pop(), rows.is_empty()) else {
        return wrong("expected one row".into());
    };
    let images = config.train.rescore_images;
    if images == 0 {
        return wrong("this run's best evaluation is not scored again".into());
    }
    let (have, want) = (evaluations.len(), config.evaluation_steps().len());
    if have < want {
        return wrong(format!(
            "is there, though scores.csv has {have} of {want} evaluations: rows of it are lost"
        ));
    }
    match best(evaluations) {
        Some(best) if best.step == row.step => {}
        best => {
            let best = best.map_or(0, |l| l.step);
            return wrong(format!(
                "of step {}, the best evaluation is that of step {best}",
                row.step
            ));
        }
    }
    match fits(&row, config, images) {
        Ok(()) => Ok(Some(row)),
        Err(why) => wrong(why),
    }
}

/// [`read`] and [`read_rescored`] of the files that count identical training images once. An evaluation may have no row there:
/// of a version that did not count so, or without such images.
///
/// # Errors
/// Data (exit 3) with the row that does not fit the configuration, itself or the evaluation's own row.
pub fn read_distinct(
    [scores, rescored]: [PathBuf; 2],
    config: &RunConfig,
    evaluations: &[Evaluation],
    again: Option<&Evaluation>,
) -> Result<Distinct> {
    let fits = |path: &Path, row: &Evaluation, own: &Evaluation| {
        fits(row, config, own.images as usize)
            .and_then(|()| match row.memorized >= own.memorized && row.mean_d1 == own.mean_d1 {
                true => Ok(()),
                false => Err("does not fit the row that counts every training image".into()),
            })
            .map_err(|why: String| data(format!("{}: step {}: {why}", path.display(), row.step)))
    };
    let mut distinct = Distinct::default();
    let mut left = evaluations.iter();
    for row in rows(&scores)?.unwrap_or_default() {
        let Some(own) = left.find(|l| l.step == row.step) else {
            // They are written before the evaluation's own row: the last may be one that is not taken yet.
            match evaluations.iter().any(|l| l.step >= row.step) {
                true => {
                    let (name, step) = (scores.display(), row.step);
                    return Err(data(format!(
                        "{name}: step {step}: not in the order of the evaluations"
                    )));
                }
                false => break,
            }
        };
        fits(&scores, &row, own)?;
        distinct.evaluations.push(row);
    }
    if let (Some(own), Some(mut rows)) = (again, rows(&rescored)?) {
        let (Some(row), true) = (rows.pop(), rows.is_empty()) else {
            return Err(data(format!("{}: expected one row", rescored.display())));
        };
        if row.step != own.step {
            let (name, step) = (rescored.display(), own.step);
            return Err(data(format!("{name}: of step {}, expected {step}", row.step)));
        }
        fits(&rescored, &row, own)?;
        distinct.rescored = Some(row);
    }
    Ok(distinct)
}

/// Whether a row's numbers follow from one another and from the run; if not, what does not.
fn fits(evaluation: &Evaluation, config: &RunConfig, images: usize) -> Result<(), String> {
    let Evaluation { step, epoch, memorized, ratio, low, high, mean_d1, .. } = *evaluation;
    let of = evaluation.images;
    let expected = |what: &str, found: &dyn std::fmt::Display, want: &dyn std::fmt::Display| {
        Err(format!("{what} {found}, expected {want}"))
    };
    if epoch != config.epoch(step) {
        return expected("epoch", &epoch, &config.epoch(step));
    }
    if of != images as u64 {
        return expected("images", &of, &images);
    }
    if memorized > of {
        return Err(format!("{memorized} of {of} images memorized"));
    }
    let share = memorized as f64 / of as f64;
    if ratio != share {
        return expected("ratio", &ratio, &format!("{memorized}/{of} = {share}"));
    }
    let wanted = wilson(memorized, of);
    // Written so that NaN is wrong.
    if !([low, high].iter().zip(wanted).all(|(have, want)| (have - want).abs() <= ROUNDING)) {
        let [a, b] = wanted;
        return expected("interval", &format!("{low} to {high}"), &format!("{a} to {b}"));
    }
    match (0.0..=MOST_DISTANCE).contains(&mean_d1) {
        true => Ok(()),
        false => expected("mean_d1", &mean_d1, &format!("0 to {MOST_DISTANCE}")),
    }
}

/// A file's rows as they stand; `None` if there is no such file.
fn rows(path: &Path) -> Result<Option<Vec<Evaluation>>> {
    let Some(text) = read_text(path)? else { return Ok(None) };
    let broken = |line: &str| {
        let start: String = line.chars().take(80).collect();
        let more = if start.len() < line.len() { "…" } else { "" };
        data(format!("{}: not a row of scores: {start:?}{more}", path.display()))
    };
    let mut lines = text.lines();
    match lines.next() {
        Some(HEADER) => {}
        other => return Err(broken(other.unwrap_or(""))),
    }
    if !text.ends_with('\n') {
        return Err(broken(text.lines().next_back().unwrap_or("")));
    }
    lines.map(|line| row(line).ok_or_else(|| broken(line))).collect::<Result<_>>().map(Some)
}

/// Whether a file begins as those of a run do; a damaged one need not.
pub fn are_scores(path: &Path) -> bool {
    let mut start = vec![0; HEADER.len()];
    open(path).and_then(|mut file| file.read_exact(&mut start)).is_ok()
        && start == HEADER.as_bytes()
}

/// A row as [`write()`] writes it: a number that stands there otherwise was changed.
fn row(line: &str) -> Option<Evaluation> {
    let evaluation: Evaluation =
        line.split(',').collect::<StringRecord>().deserialize(None).ok()?;
    (line_of(&evaluation) == line).then_some(evaluation)
}

fn line_of(l: &Evaluation) -> String {
    format!(
        "{},{},{},{},{},{},{},{}",
        l.step, l.epoch, l.images, l.memorized, l.ratio, l.low, l.high, l.mean_d1
    )
}
