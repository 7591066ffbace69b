//! A run's evaluations: the EMA scored, recorded, its snapshot kept as long as somebody needs it.

use super::super::board::SHEET;
use super::super::dir::best;
use super::super::progress::describe_epochs;
use super::super::score::{
    Network, RESCORE_SEED, evaluation_of, generate_and_search, load_partial, save_partial,
};
use super::super::scores::scored_again;
use super::super::state::run_note;
use super::super::{Evaluation, memory};
use super::{Ended, Run, SaveEvery, progress_text};
use crate::error::{Exit, exit_code};
use crate::memorization::Nearest;
use crate::model::SavedModel;
use crate::signal::stop_asked;
use anyhow::Result;
use std::time::Instant;

/// How an evaluation ended.
struct Scored {
    all: Evaluation,
    /// With identical training images counted once.
    distinct: Option<Evaluation>,
    /// Of its first images, if they are to be shown and no earlier start generated them: pixels, and what they are near.
    first: (Vec<u8>, Vec<Nearest>),
}

/// Unfinished evaluations are saved this often where saves are counted in steps.
const SAVE_INTERVAL_S: f64 = 30.0;

impl Run<'_> {
    pub(super) fn evaluation_due(&self) -> bool {
        self.evaluation_steps.contains(&self.step)
            && !self.evaluations.iter().any(|l| l.step == self.step)
    }

    /// Scores the EMA and records it; false if a signal stopped it.
    pub(super) fn evaluation(&mut self) -> Result<bool> {
        let model = self.snapshot()?;
        let mut network = self.loaded(model)?;
        let evaluations = self.evaluation_steps.len();
        let images = self.config.images_at(self.evaluations.len(), evaluations);
        let mut more = String::new();
        if let Some(measuring) = &mut self.losses {
            let losses = match measuring.measure(&mut network, &self.dir, &self.config, self.step) {
                Err(e) if exit_code(&e) == Exit::Suspended as i32 => return Ok(false),
                other => other?,
            };
            self.stats.add("Loss/training_fixed", losses.training);
            self.stats.add("Loss/heldout_fixed", losses.heldout);
            self.board.losses(&losses, &self.progress);
            more = format!(
                "; loss {:.4} on training, {:.4} on held-out images",
                losses.training, losses.heldout
            );
        }
        let scored = self.score(&mut network, self.step, 0, images)?;
        self.put_back(network);
        let Some(Scored { all: evaluation, distinct, first }) = scored else { return Ok(false) };
        self.write_snapshot()?;
        self.stats.add("Mem/ratio", evaluation.ratio);
        if let Some(distinct) = &distinct {
            self.stats.add("Mem/ratio_distinct", distinct.ratio);
            more += &format!("; identical training images once, {:.2}%", 100.0 * distinct.ratio);
            self.distinct.evaluations.push(distinct.clone());
            self.dir.write_distinct_evaluations(&self.distinct.evaluations)?;
        }
        self.progress.note(&format!(
            "epoch {}: {} of {} images memorized, {:.2}% [{:.2}, {:.2}]{more}",
            describe_epochs(evaluation.epoch),
            evaluation.memorized,
            evaluation.images,
            100.0 * evaluation.ratio,
            100.0 * evaluation.low,
            100.0 * evaluation.high
        ));
        self.evaluations.push(evaluation.clone());
        self.dir.write_evaluations(&self.evaluations)?;
        self.board.evaluation(&evaluation, distinct.as_ref(), &self.progress);
        self.board.sheet(&evaluation, &first.0, self.data, &first.1, &self.progress)?;
        self.forget_partial();
        self.prune()?;
        Ok(true)
    }

    /// Scores the best evaluation's snapshot with fresh seeds, unless that is done.
    pub(super) fn rescore(&mut self) -> Result<Ended> {
        let images = self.config.train.rescore_images;
        if let Some(done) = self.rescored.take() {
            return Ok(Ended::With(Some(done)));
        }
        let again = scored_again(&self.config, &self.evaluations, &self.distinct);
        let Some(step) = again.map(|l| l.step) else { return Ok(Ended::With(None)) };
        let model = self.dir.snapshot(&self.config, step)?;
        let mut network = self.loaded(model)?;
        let scored = self.score(&mut network, step, RESCORE_SEED, images)?;
        self.put_back(network);
        let Some(Scored { all: evaluation, distinct, .. }) = scored else {
            return Ok(Ended::Stopped);
        };
        if let Some(distinct) = &distinct {
            self.dir.write_distinct_rescored(distinct)?;
        }
        self.distinct.rescored = distinct;
        self.dir.write_rescored(&evaluation)?;
        self.board.rescored(&evaluation, &self.progress);
        self.forget_partial();
        Ok(Ended::With(Some(evaluation)))
    }

    /// Generates and searches, continuing an interrupted evaluation, as [`evaluation_of`] counts it; `None` if a signal stopped it.
    fn score(
        &mut self,
        network: &mut Network,
        step: u64,
        first_seed: u64,
        images: usize,
    ) -> Result<Option<Scored>> {
        let search = self.search.as_mut().expect("a run with evaluations has references");
        let path = self.dir.partial_evaluation_path();
        let mut found = load_partial(&path, &self.config, step, first_seed, images);
        let interval = match self.options.save_every {
            SaveEvery::Steps(_) => SAVE_INTERVAL_S,
            SaveEvery::Seconds(s) => s,
        };
        let mut last_save = Instant::now();
        let mut counted = found.len();
        // Those of an earlier start are gone.
        let shown = if self.board.is_shown() && counted == 0 { SHEET } else { 0 };
        let mut first = Vec::new();
        let len = self.config.model.image_len();
        let (config, progress) = (&self.config, &mut self.progress);
        let loss = self.last_loss;
        let result = generate_and_search(
            network,
            search,
            first_seed,
            images,
            &mut found,
            &mut |found, samples| {
                let more = (shown * len).saturating_sub(first.len());
                if more > 0 {
                    first.extend_from_slice(&samples.first(more)?);
                }
                progress.generated((found.len() - counted) as u64, || {
                    let text = progress_text(config, step, loss);
                    format!("{text}  evaluation {}/{images}", found.len())
                });
                counted = found.len();
                if last_save.elapsed().as_secs_f64() >= interval {
                    save_partial(&path, config, step, first_seed, found)?;
                    last_save = Instant::now();
                }
                Ok(())
            },
        );
        match result {
            Ok(()) => {
                let (all, distinct) =
                    evaluation_of(&self.config, step, &found, self.distinct.repeats);
                found.truncate(first.len() / len);
                Ok(Some(Scored { all, distinct, first: (first, found) }))
            }
            Err(e) if exit_code(&e) == Exit::Suspended as i32 => {
                save_partial(&path, &self.config, step, first_seed, &found)?;
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }

    /// The network of an evaluation, with these weights.
    fn loaded(&mut self, model: SavedModel) -> Result<Network<'static>> {
        self.trainer.rest();
        match self.network.take() {
            Some(mut network) => {
                network.load(&model)?;
                Ok(network)
            }
            None => self.evaluation_network(model),
        }
    }

    fn put_back(&mut self, network: Network<'static>) {
        if self.device.cuda().is_some() {
            self.network = Some(network);
        }
    }

    pub(super) fn evaluation_network(&self, model: SavedModel) -> Result<Network<'static>> {
        let batch =
            memory::evaluation_batch(self.device, &self.config, self.config.train.micro_batch);
        Network::new(self.device, model, batch.expect("a run with evaluations"), &stop_asked)
    }

    fn forget_partial(&self) {
        // A leftover is of another step than any evaluation to come, so it harms nobody.
        let _ = std::fs::remove_file(self.dir.partial_evaluation_path());
    }

    pub(super) fn snapshot(&self) -> Result<SavedModel> {
        Ok(SavedModel {
            config: self.config.model.clone(),
            precision: Some(self.config.train.precision),
            weights: self.trainer.training.ema.read(0, self.trainer.flat_len())?.into_owned(),
            freqs: self.trainer.training.freqs.clone(),
            run: Some(run_note(&self.config, self.step)),
        })
    }

    pub(super) fn write_snapshot(&self) -> Result<()> {
        self.snapshot()?.save(&self.dir.snapshot_path(&self.config, self.step), true)
    }

    /// Removes snapshots that need not be kept.
    pub(super) fn prune(&self) -> Result<()> {
        if self.options.keep_all_snapshots {
            return Ok(());
        }
        // Where training is to stop at a ratio, also the last one before it passed that.
        let level = self.options.stop_above.unwrap_or(f64::NEG_INFINITY);
        let before = self.evaluations.iter().rev().find(|l| l.ratio <= level);
        let kept = [best(&self.evaluations), self.evaluations.last(), before];
        let mut steps: Vec<u64> = kept.into_iter().flatten().map(|l| l.step).collect();
        if self.evaluations.is_empty() {
            steps.push(self.config.steps());
        }
        self.dir.prune_snapshots(&self.config, &steps)
    }
}
