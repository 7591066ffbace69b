//! Training and held-out loss of a run at fixed noise levels, one row of `losses.csv` a level and evaluation: how a network does on
//! images that it never saw. Like evaluations they are a function of the state alone, and change nothing of the run's numbers.

use super::{DataId, RunConfig, RunDir};
use crate::data::Dataset;
use crate::error::{data, usage};
use crate::files::{read_text, write_bytes};
use crate::sampler::Denoise;
use crate::sampler::noisy::{Noisy, drawn};
use anyhow::Result;
use csv::StringRecord;
use serde::{Deserialize, Serialize};

/// The noise levels, as far as a network takes them: from where details are filled in to where all images look alike.
pub const SIGMAS: [f64; 5] = [0.05, 0.15, 0.5, 1.5, 5.0];

/// Draws at each level, of either set.
const DRAWS: usize = 128;

/// Of the draws: the same for all runs, so that their curves can be laid over each other.
const SEED: u64 = 0;

const HEADER: &str = "step,epoch,sigma,training,heldout";

/// Images that a run is not trained on.
#[derive(Debug, Clone, PartialEq)]
pub struct HeldOut {
    pub images: Dataset,
    /// The set's file, for messages.
    pub name: String,
}

/// Both losses at one noise level after some step: means over draws of sums over an image's pixels, times λ(σ).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LevelLoss {
    pub step: u64,
    pub epoch: f64,
    pub sigma: f64,
    pub training: f64,
    pub heldout: f64,
}

/// Both losses after some step, their means over the levels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Losses {
    pub step: u64,
    pub epoch: f64,
    pub training: f64,
    pub heldout: f64,
}

impl HeldOut {
    /// Fits a run's network: the same shape, labels exactly if the network takes them.
    ///
    /// # Errors
    /// Data (exit 3) that begins with `--holdout`.
    pub fn for_run(mut self, config: &RunConfig) -> Result<HeldOut> {
        let (m, set) = (&config.model, &self.images);
        let refuse = |why: String| Err(data(format!("--holdout: {}: {why}", self.name)));
        if (set.resolution, set.channels) != (m.resolution, m.image_channels) {
            return refuse(format!(
                "{r}x{r} pixels and {} channels, the training set has {n}x{n} and {}",
                set.channels,
                m.image_channels,
                r = set.resolution,
                n = m.resolution,
            ));
        }
        if config.evaluation_steps().is_empty() {
            return refuse(
                "losses are measured at evaluations, of which there are none (--evaluations)"
                    .into(),
            );
        }
        match (m.label_dim, &set.labels) {
            (0, _) => self.images.labels = None,
            (_, None) => return refuse("no labels, which the network takes".into()),
            (classes, Some(_)) if set.label_dim() > classes => {
                return refuse(format!("{} classes, the network has {classes}", set.label_dim()));
            }
            _ => {}
        }
        Ok(self)
    }
}

/// A run's rows so far, and what the next ones are measured with.
pub struct Measuring<'a> {
    training: &'a Dataset,
    heldout: &'a Dataset,
    rows: Vec<LevelLoss>,
}

impl<'a> Measuring<'a> {
    /// Goes on with what a run has up to `step`.
    ///
    /// # Errors
    /// Usage (exit 2): the rows that are there are of other held-out images. Data (exit 3): a file that is not to be believed.
    pub fn resume(
        dir: &RunDir,
        config: &RunConfig,
        training: &'a Dataset,
        heldout: &'a HeldOut,
        step: u64,
    ) -> Result<Self> {
        let id = DataId::of(&heldout.images);
        let path = dir.heldout_path();
        let mut rows = read(dir, config)?;
        rows.retain(|row| row.step <= step);
        match measured_on(dir)? {
            Some(there) if there == id => {}
            Some(there) if !rows.is_empty() => {
                return Err(usage(format!(
                    "--holdout: {}: {} other images or labels than the {} that losses of this run are measured on ({}); give \
                     those, or choose another --run",
                    heldout.name,
                    id.images,
                    there.images,
                    path.display()
                )));
            }
            None if !rows.is_empty() => {
                return Err(data(format!(
                    "{}: not found, though {} has rows: of which images is not known; remove that to measure anew",
                    path.display(),
                    dir.losses_path().display()
                )));
            }
            _ => write_bytes(&path, true, toml::to_string(&id)?)?,
        }
        Ok(Measuring { training, heldout: &heldout.images, rows })
    }

    /// Measures both losses of a network after `step` and writes them, unless that is done.
    ///
    /// # Errors
    /// Those of the network; input/output (exit 1).
    pub fn measure(
        &mut self,
        network: &mut dyn Denoise,
        dir: &RunDir,
        config: &RunConfig,
        step: u64,
    ) -> Result<Losses> {
        let last = |rows: &[LevelLoss]| by_step(rows).last().copied();
        if let Some(done) = last(&self.rows).filter(|done| done.step == step) {
            return Ok(done);
        }
        let precond = config.model.precond;
        let weight = |sigma| precond.weight(sigma);
        let sigmas = sigmas(config);
        let training = losses(network, self.training, &weight, &sigmas)?;
        let heldout = losses(network, self.heldout, &weight, &sigmas)?;
        for (i, &sigma) in sigmas.iter().enumerate() {
            let (training, heldout) = (training[i], heldout[i]);
            let epoch = config.epoch(step);
            self.rows.push(LevelLoss { step, epoch, sigma, training, heldout });
        }
        self.write(dir)?;
        Ok(last(&self.rows).expect("what was just measured"))
    }

    fn write(&self, dir: &RunDir) -> Result<()> {
        let lines = self.rows.iter().map(|row| line_of(row) + "\n");
        let text: String = std::iter::once(format!("{HEADER}\n")).chain(lines).collect();
        write_bytes(&dir.losses_path(), true, text)
    }
}

/// [`SIGMAS`] that the run's network takes.
fn sigmas(config: &RunConfig) -> Vec<f64> {
    let (low, high) = config.model.precond.sigma_range();
    SIGMAS.into_iter().filter(|sigma| (low..=high).contains(sigma)).collect()
}

/// λ E‖D(x; σ) − y‖² at each level, over [`DRAWS`] draws of a set.
fn losses(
    network: &mut dyn Denoise,
    set: &Dataset,
    weight: &dyn Fn(f64) -> f64,
    sigmas: &[f64],
) -> Result<Vec<f64>> {
    let batch = network.max_batch().clamp(1, DRAWS);
    let mut out = vec![0.0; batch * set.image_len()];
    let mut all = Vec::new();
    for (level, &sigma) in sigmas.iter().enumerate() {
        let mut sum = 0.0;
        for first in (0..DRAWS).step_by(batch) {
            let count = batch.min(DRAWS - first);
            let draws = drawn(set, first..first + count, level, SEED);
            let Noisy { y, x, labels } = Noisy::of(set, draws, level, sigma, SEED);
            let out = &mut out[..count * set.image_len()];
            network.denoise(&x, &vec![sigma; count], &labels, out)?;
            let squares = out.iter().zip(&y).map(|(&d, &y)| (d as f64 - y).powi(2));
            // One after the other, so that the sum depends on no batch.
            sum = squares.fold(sum, |sum, square| sum + square);
        }
        all.push(weight(sigma) * sum / DRAWS as f64);
    }
    Ok(all)
}

/// The means over levels, step by step.
pub fn by_step(rows: &[LevelLoss]) -> Vec<Losses> {
    let mean = |rows: &[LevelLoss]| {
        let mean = |of: fn(&LevelLoss) -> f64| rows.iter().map(of).sum::<f64>() / rows.len() as f64;
        let LevelLoss { step, epoch, .. } = rows[0];
        Losses { step, epoch, training: mean(|r| r.training), heldout: mean(|r| r.heldout) }
    };
    rows.chunk_by(|a, b| a.step == b.step).map(mean).collect()
}

/// The rows of a run's `losses.csv`, in the order of its evaluations, each with all levels; none where there is no such file.
///
/// # Errors
/// Data (exit 3) with the row that does not fit.
pub fn read(dir: &RunDir, config: &RunConfig) -> Result<Vec<LevelLoss>> {
    let path = dir.losses_path();
    let Some(text) = read_text(&path)? else { return Ok(Vec::new()) };
    let name = path.display();
    let mut lines = text.lines();
    if lines.next() != Some(HEADER) {
        return Err(data(format!("{name}: not a run's losses: expected the columns {HEADER}")));
    }
    if !text.ends_with('\n') {
        return Err(data(format!("{name}: not a run's losses: cut off in its last row")));
    }
    let (steps, sigmas) = (config.evaluation_steps(), sigmas(config));
    let mut rows: Vec<LevelLoss> = Vec::new();
    for (i, line) in lines.enumerate() {
        let wrong = |why: &str| data(format!("{name}: row {}: {why}: {line:?}", i + 1));
        let fields: StringRecord = line.split(',').collect();
        let row: Option<LevelLoss> = fields.deserialize(None).ok();
        let row = row.filter(|row| line_of(row) == line).ok_or_else(|| wrong("not losses"))?;
        let losses = [row.training, row.heldout];
        if !losses.iter().all(|l| l.is_finite() && *l >= 0.0) {
            return Err(wrong("not a loss"));
        }
        let after = i % sigmas.len() == 0 || rows.last().is_some_and(|last| last.step == row.step);
        let before = i % sigmas.len() != 0 || rows.last().is_none_or(|last| last.step < row.step);
        let fits = row.sigma == sigmas[i % sigmas.len()] && row.epoch == config.epoch(row.step);
        if !(after && before && fits && steps.contains(&row.step)) {
            return Err(wrong("does not fit the run's evaluations"));
        }
        rows.push(row);
    }
    match rows.len() % sigmas.len() {
        0 => Ok(rows),
        _ => Err(data(format!("{name}: the last evaluation lacks noise levels"))),
    }
}

/// The held-out images that a run's losses are of.
///
/// # Errors
/// Data (exit 3): a file that is none.
pub fn measured_on(dir: &RunDir) -> Result<Option<DataId>> {
    let path = dir.heldout_path();
    let Some(text) = read_text(&path)? else { return Ok(None) };
    let broken = |e: toml::de::Error| {
        data(format!("{}: not the name of a set: {}", path.display(), e.message()))
    };
    toml::from_str(&text).map(Some).map_err(broken)
}

fn line_of(row: &LevelLoss) -> String {
    let LevelLoss { step, epoch, sigma, training, heldout } = row;
    format!("{step},{epoch},{sigma},{training},{heldout}")
}
