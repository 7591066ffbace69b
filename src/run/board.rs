//! What TensorBoard is shown of a run: one event file for each start, in a folder named as the run's.
//!
//! Each row is one write, so that a killed run loses none that was written; a file is not synced, since it only shows
//! what `scores.csv` and `stats.jsonl` keep. A write that fails ends the showing, not the training.

use super::Evaluation;
use super::losses::Losses;
use super::progress::Progress;
use super::stats::Row;
use crate::data::Dataset;
use crate::memorization::{Nearest, Threshold};
use crate::report::events::{EventFile, Shown};
use crate::report::{Sheet, SheetOf, sheets};
use crate::run::score::compared;
use anyhow::Result;
use std::path::{Path, PathBuf};

/// Samples on the sheet of an evaluation: those of the first seeds, not chosen.
pub const SHEET: usize = 16;

/// A run's event file; none if nobody asked for it, or from a failed write on.
pub struct Board {
    folder: PathBuf,
    file: Option<EventFile>,
}

impl Board {
    /// Begins a file in `board`/NAME where the run lies in a folder NAME, as of `step` steps: what earlier files say of
    /// later ones is taken back.
    pub fn start(board: Option<&Path>, run: &Path, step: u64, progress: &Progress) -> Board {
        let Some(board) = board else { return Board { folder: PathBuf::new(), file: None } };
        let run = run.canonicalize().unwrap_or_else(|_| run.into());
        let mut shown =
            Board { folder: board.join(run.file_name().unwrap_or_default()), file: None };
        match EventFile::create(&shown.folder, if step == 0 { 0 } else { step + 1 }) {
            Ok(file) => shown.file = Some(file),
            Err(e) => shown.lost(&e, progress),
        }
        shown
    }

    /// Whether anything is shown.
    pub fn is_shown(&self) -> bool {
        self.file.is_some()
    }

    /// A line of `stats.jsonl`, and the learning rate of its step; nothing if it is not of training.
    pub fn training(&mut self, row: &Row, learning_rate: f64, progress: &Progress) {
        // An evaluation's line is of a step that has its own.
        if row.values.iter().all(|(key, _)| *key != "Loss/loss") {
            return;
        }
        let scalar = |tag, x| (tag, Shown::Scalar(x));
        let mut shown = vec![scalar("training/learning rate", learning_rate)];
        for (key, [mean, spread]) in &row.values {
            match *key {
                "Loss/loss" => {
                    shown.push(scalar("training/loss", *mean));
                    shown.push(scalar("training/loss, standard deviation", *spread));
                }
                "Timing/sec_per_kimg" => {
                    shown.push(scalar("training/images per second", 1e3 / mean));
                }
                "Progress/epoch" => shown.push(scalar("training/epoch", *mean)),
                _ => {}
            }
        }
        self.write(row.step, &shown, progress);
    }

    /// Both losses of an evaluation, at fixed noise levels.
    pub fn losses(&mut self, losses: &Losses, progress: &Progress) {
        let shown = [
            ("loss at fixed noise/training images", Shown::Scalar(losses.training)),
            ("loss at fixed noise/held-out images", Shown::Scalar(losses.heldout)),
        ];
        self.write(losses.step, &shown, progress);
    }

    /// An evaluation, and the same with identical training images counted once.
    pub fn evaluation(
        &mut self,
        all: &Evaluation,
        distinct: Option<&Evaluation>,
        progress: &Progress,
    ) {
        let scalar = |tag, x| (tag, Shown::Scalar(x));
        let mut shown = vec![
            scalar("memorization/ratio", all.ratio),
            scalar("memorization/ratio, 95% from", all.low),
            scalar("memorization/ratio, 95% to", all.high),
            scalar("memorization/mean distance to the nearest", all.mean_d1),
        ];
        if let Some(distinct) = distinct {
            shown.push(scalar("memorization/ratio, identical images once", distinct.ratio));
        }
        self.write(all.step, &shown, progress);
    }

    /// The best evaluation scored again, at the step of its snapshot.
    pub fn rescored(&mut self, again: &Evaluation, progress: &Progress) {
        self.write(
            again.step,
            &[("memorization/ratio, fresh seeds", Shown::Scalar(again.ratio))],
            progress,
        );
    }

    /// The first samples of an evaluation, [S, H, W, C], beside the training images that they are nearest to.
    ///
    /// # Errors
    /// As of drawing.
    pub fn sheet(
        &mut self,
        of: &Evaluation,
        samples: &[u8],
        training: &Dataset,
        found: &[Nearest],
        progress: &Progress,
    ) -> Result<()> {
        if samples.is_empty() || !self.is_shown() {
            return Ok(());
        }
        let threshold = Threshold::default();
        let samples = compared(samples, training, found, threshold);
        let copied = samples.iter().filter(|s| s.memorized).count();
        let sheet = Sheet {
            title: format!("{copied} of the first {} samples are copies", samples.len()),
            samples,
            side: training.resolution,
            notes: vec![format!("evaluation at step {}", of.step)],
            threshold: threshold.to_string(),
            of: SheetOf::Samples,
        };
        self.write(of.step, &[("samples", Shown::Png(sheets(&[sheet])?))], progress);
        Ok(())
    }

    fn write(&mut self, step: u64, shown: &[(&str, Shown)], progress: &Progress) {
        if let Some(Err(e)) = self.file.as_mut().map(|file| file.write(step, shown)) {
            self.lost(&e, progress);
        }
    }

    /// Says once that nothing more is shown.
    fn lost(&mut self, why: &std::io::Error, progress: &Progress) {
        self.file = None;
        let folder = self.folder.display();
        progress.warn(&format!(
            "--tensorboard: {folder}: cannot write: {why}; training goes on without it"
        ));
    }
}
