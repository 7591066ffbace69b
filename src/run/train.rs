//! The training loop: steps, evaluations, saves; killed at any instant it continues with the same bits.
//!
//! Order of writes. An evaluation is taken only of a saved state, and then recorded: snapshot, row of `scores.csv`,
//! removal of what need not be kept. Each is whole or absent and a function of the state alone, so whatever a
//! kill leaves undone the next start does again with the same bytes.

use super::board::Board;
use super::dir::{Lock, RunDir, Scores};
use super::losses::{HeldOut, Measuring};
use super::numerics::Numerics;
use super::outcome::last_ratio;
use super::progress::{IMAGE_COST, Progress, ProgressPart, describe_epochs};
use super::score::Network;
use super::stats::Stats;
use super::{Distinct, Evaluation, Outcome, RunConfig, memory, schedule, state};
use crate::data::Dataset;
use crate::device::Device;
use crate::memorization::{Repeats, Search};
use crate::model::{Steps, Trainer};
use crate::signal::stop_asked;
use anyhow::Result;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

mod evaluations;

/// What does not change a run's numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct RunOptions {
    pub keep_all_snapshots: bool,
    pub save_every: SaveEvery,
    pub stop_after_steps: Option<u64>,
    /// Training stops, saved, after an evaluation with a higher ratio than this.
    pub stop_above: Option<f64>,
    /// What losses are measured on at evaluations, beside the training images.
    pub holdout: Option<Arc<HeldOut>>,
    pub quiet: bool,
    /// Where the set was read from: a path, noted in `config.toml`.
    pub data_name: String,
    /// A folder for TensorBoard's files, in which each run has its own.
    pub tensorboard: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum SaveEvery {
    Steps(u64),
    Seconds(f64),
}

/// What a trainer that takes several steps at once is given takes about this long: a signal waits no longer.
const INTERVAL_S: f64 = 0.5;

/// Lines of `stats.jsonl` are at least this far apart.
const STATS_INTERVAL_S: f64 = 5.0;

/// Trains in `dir` until done or stopped; resumes what `dir` holds. Finished runs return at once.
///
/// A micro-batch of 0 is chosen at the run's first start and kept.
///
/// # Errors
/// Usage (exit 2) with the difference if `dir` holds another configuration; lock held (1); diverged (5).
pub fn train(
    device: &Device,
    config: &RunConfig,
    data: &Dataset,
    dir: &Path,
    options: &RunOptions,
) -> Result<Outcome> {
    train_part(device, config, data, dir, options, None)
}

/// [`train`], with progress shown as a part of a study's.
pub fn train_part(
    device: &Device,
    config: &RunConfig,
    data: &Dataset,
    dir: &Path,
    options: &RunOptions,
    part: Option<ProgressPart>,
) -> Result<Outcome> {
    let started = Instant::now();
    config.check()?;
    let run_dir = RunDir::new(dir);
    if run_dir.stored_config()?.is_none() {
        // Before anything is written: the smaller network asked for next is no changed setting.
        memory::check_run(device, config, memory::micro_batch(device, config)?)?;
    }
    let lock = run_dir.lock()?;
    let mut asked = config.clone();
    if asked.train.micro_batch == 0 {
        asked.train.micro_batch = match run_dir.stored_config()? {
            Some(stored) => stored.train.micro_batch,
            None => memory::micro_batch(device, config)?,
        };
    }
    asked.train.numerics = Numerics::of(device);
    let mut config = run_dir.settle(&asked, &options.data_name)?;
    if let Some(mut outcome) = Outcome::stored(&run_dir, &config, started)? {
        let repeats = device.host().run(|| Repeats::of(&data.pixels, data.image_len()));
        outcome.scores.distinct.repeats = repeats.map_or(0, |r| r.count());
        run_dir.check_distinct(&outcome.scores.distinct)?;
        if let Some(part) = part {
            part.skip(work(&config));
        }
        return Ok(outcome);
    }
    let numerics = config.train.numerics.resume(device)?;
    if numerics != config.train.numerics {
        config.train.numerics = numerics;
        run_dir.store(&config, &options.data_name)?;
    }
    memory::check_run(device, &config, config.train.micro_batch)?;
    Run::start(device, config, data, run_dir, lock, options, part, started)?.go()
}

/// All of a run's work, as [`Progress`] counts it.
pub fn work(config: &RunConfig) -> f64 {
    let t = &config.train;
    config.steps() as f64 * t.batch as f64 + config.generated() as f64 * IMAGE_COST
}

/// How rescoring ended.
enum Ended {
    Stopped,
    With(Option<Evaluation>),
}

struct Run<'a> {
    device: &'a Device,
    config: RunConfig,
    data: &'a Dataset,
    dir: RunDir,
    _lock: Lock,
    options: &'a RunOptions,
    search: Option<Search<'a>>,
    trainer: Trainer<'a>,
    /// What evaluations evaluate: on a GPU reserved from the start, on the CPU only while an evaluation lasts.
    network: Option<Network<'static>>,
    /// Steps done, steps of this start, and the step of the state on disk.
    step: u64,
    steps_here: u64,
    saved_step: Option<u64>,
    last_save: Instant,
    /// Steps given to the trainer at once.
    interval: u64,
    evaluation_steps: Vec<u64>,
    evaluations: Vec<Evaluation>,
    rescored: Option<Evaluation>,
    distinct: Distinct,
    losses: Option<Measuring<'a>>,
    last_loss: f64,
    stats: Stats,
    board: Board,
    progress: Progress,
    started: Instant,
}

impl<'a> Run<'a> {
    fn start(
        device: &'a Device,
        config: RunConfig,
        data: &'a Dataset,
        dir: RunDir,
        lock: Lock,
        options: &'a RunOptions,
        part: Option<ProgressPart>,
        started: Instant,
    ) -> Result<Self> {
        let t = &config.train;
        let mut trainer = Trainer::new(device, &config.model, t.trainer_options(), data)?;
        let loaded = state::load(&dir.state_path(), &config, &mut trainer)?;
        let saved_step = loaded.as_ref().map(|l| l.step);
        let step = saved_step.unwrap_or(0);
        let mut scores = dir.scores(&config)?;
        dir.drop_evaluations_after(step, &mut scores)?;
        let Scores { evaluations, rescored, mut distinct } = scores;
        let evaluation_steps = config.evaluation_steps();
        let search = match evaluation_steps.is_empty() {
            true => None,
            false => Some(Search::new(device, &data.pixels, data.image_len())?),
        };
        distinct.repeats = search.as_ref().map_or(0, Search::repeats);
        dir.check_distinct(&distinct)?;
        let batch = t.batch as f64;
        let generated = config.images_of(evaluations.len());
        let done = step as f64 * batch + generated as f64 * IMAGE_COST;
        let left = (work(&config) - done).max(0.0);
        let progress = match part {
            Some(part) => Progress::within(part, done, left),
            None => Progress::new(done, left, options.quiet),
        };
        if loaded.is_some_and(|l| !l.checked) {
            progress.note("its state is from before states had checksums: taken unchecked");
        }
        if step > 0 {
            progress.note(&format!("resumed at step {step} of {}", config.steps()));
        }
        let losses = match &options.holdout {
            Some(heldout) => Some(Measuring::resume(&dir, &config, data, heldout, step)?),
            None if dir.losses_path().exists() => {
                progress.note("losses.csv gets no more rows: --holdout is not given");
                None
            }
            None => None,
        };
        Ok(Run {
            stats: Stats::resume(&dir.stats_path(), step, device)?,
            board: Board::start(options.tensorboard.as_deref(), dir.path(), step, &progress),
            device,
            config,
            data,
            dir,
            _lock: lock,
            options,
            search,
            trainer,
            network: None,
            step,
            steps_here: 0,
            saved_step,
            last_save: Instant::now(),
            interval: 1,
            evaluation_steps,
            evaluations,
            rescored,
            distinct,
            losses,
            last_loss: f64::NAN,
            progress,
            started,
        })
    }

    fn go(mut self) -> Result<Outcome> {
        if self.device.cuda().is_some() && self.search.is_some() {
            self.network = Some(self.evaluation_network(self.snapshot()?)?);
        }
        self.prune()?;
        // There is a good state from the first step on, and a full disk shows before work is lost.
        self.save()?;
        loop {
            if self.evaluation_due() {
                self.save()?;
                if !self.evaluation()? {
                    return self.outcome(false, None);
                }
            }
            if self.step == self.config.steps() {
                break;
            }
            let told = stop_asked() || self.options.stop_after_steps == Some(self.steps_here);
            if told || self.is_above() {
                self.save()?;
                return self.outcome(false, None);
            }
            if !self.train_steps()? {
                self.save()?;
                return self.outcome(false, None);
            }
            if self.save_due() {
                self.save()?;
            }
        }
        self.save()?;
        if self.evaluations.is_empty() {
            self.write_snapshot()?;
        }
        match self.rescore()? {
            Ended::Stopped => self.outcome(false, None),
            Ended::With(rescored) => self.outcome(true, rescored),
        }
    }

    /// Whether training is to stop at what the last evaluation said.
    fn is_above(&self) -> bool {
        let ratio = last_ratio(&self.evaluations, &self.distinct);
        self.options.stop_above.zip(ratio).is_some_and(|(level, ratio)| ratio > level)
    }

    /// Steps up to the next evaluation, save or end, as many as the trainer takes at once; false if a signal stopped it
    /// before they were done.
    fn train_steps(&mut self) -> Result<bool> {
        let started = Instant::now();
        let until = self.next_halt().min(self.step + self.interval);
        let config = &self.config;
        let rates: Vec<_> = (self.step..until).map(|s| schedule::rates(config, s)).collect();
        let Steps { done, loss, diverged } = self.trainer.steps(&rates, &stop_asked)?;
        let (elapsed, steps) = (started.elapsed(), done as u64);
        self.step += steps;
        self.steps_here += steps;
        if let Some(e) = diverged {
            // The state before that step, unless a weight has overflown in it: then an earlier one stays.
            let _ = self.save();
            return Err(e);
        }
        if done > 0 {
            let images = steps * self.config.train.batch as u64;
            self.last_loss = loss;
            self.stats.add("Loss/loss", loss);
            self.stats.trained(images, elapsed.as_secs_f64());
            if self.stats.age_s() >= STATS_INTERVAL_S {
                self.flush_stats()?;
            }
            let (step, config) = (self.step, &self.config);
            self.progress.trained(images, elapsed, || progress_text(config, step, loss));
            let fitting = INTERVAL_S / elapsed.as_secs_f64() * done as f64;
            self.interval = (fitting as u64).clamp(1, self.trainer.longest_interval() as u64);
        }
        Ok(done == rates.len())
    }

    /// The next step before which there is something else to do.
    fn next_halt(&self) -> u64 {
        let evaluation = self.evaluation_steps.iter().copied().find(|&s| s > self.step);
        let stop = self.options.stop_after_steps.map(|n| self.step + (n - self.steps_here));
        let save = match self.options.save_every {
            SaveEvery::Steps(n) => Some(self.saved_step.unwrap_or(0) + n),
            SaveEvery::Seconds(_) => None,
        };
        let halts = [evaluation, stop, save.filter(|&s| s > self.step)];
        halts.into_iter().flatten().fold(self.config.steps(), u64::min)
    }

    fn save_due(&self) -> bool {
        match self.options.save_every {
            SaveEvery::Steps(n) => self.step - self.saved_step.unwrap_or(0) >= n,
            SaveEvery::Seconds(s) => self.last_save.elapsed().as_secs_f64() >= s,
        }
    }

    fn save(&mut self) -> Result<()> {
        self.flush_stats()?;
        if self.saved_step != Some(self.step) {
            state::save(&self.dir.state_path(), &self.config, self.step, &self.trainer)?;
            self.saved_step = Some(self.step);
        }
        self.last_save = Instant::now();
        Ok(())
    }

    fn flush_stats(&mut self) -> Result<()> {
        let seen = self.step as f64 * self.config.train.batch as f64;
        let row = self.stats.flush(self.step, seen, self.config.epoch(self.step))?;
        if let Some(row) = row.filter(|_| self.board.is_shown()) {
            let last = schedule::rates(&self.config, self.step.saturating_sub(1));
            self.board.training(&row, last.lr, &self.progress);
        }
        Ok(())
    }

    fn outcome(mut self, finished: bool, rescored: Option<Evaluation>) -> Result<Outcome> {
        self.flush_stats()?;
        let scores = Scores { evaluations: self.evaluations, rescored, distinct: self.distinct };
        let elapsed_s = self.started.elapsed().as_secs_f64();
        let numerics = self.config.train.numerics;
        Ok(Outcome { finished, step: self.step, scores, numerics, elapsed_s })
    }
}

fn progress_text(config: &RunConfig, step: u64, loss: f64) -> String {
    let [at, of] = [config.epoch(step), config.train.epochs].map(describe_epochs);
    let loss = if loss.is_nan() { String::new() } else { format!("  loss {loss:.4}") };
    format!("step {step}/{}  epoch {at}/{of}{loss}", config.steps())
}
