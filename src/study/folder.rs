//! The runs of a folder, whatever study or search they are of: settings, evaluations, costs.

use super::log::Log;
use super::outcome::{Done, RunState, state_of};
use crate::error::{Exit, OrExit as _, data};
use crate::run::dir::best;
use crate::run::{Evaluation, RunConfig, RunDir};
use anyhow::Result;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// The setting that is the training-set size.
pub const IMAGES: &str = "training images";

/// Settings that say no more than which images and labels these are.
pub const HASHES: [&str; 2] = ["pixels", "labels"];

/// A run as it lies there.
#[derive(Debug, Clone, PartialEq)]
pub struct RunSeen {
    pub dir: PathBuf,
    /// Its folder's name.
    pub name: String,
    pub config: RunConfig,
    /// What its evaluations said so far.
    pub evaluations: Vec<Evaluation>,
    /// Once it has finished.
    pub done: Option<Done>,
    /// What its log says of its time, if it has one.
    pub log: Option<Log>,
    /// Names and values of everything that determines its numbers.
    settings: Vec<(String, String)>,
}

/// Where runs are: `folder`, its subfolders and those of its `runs`, as far as a run has begun there, be it damaged.
///
/// # Errors
/// Other (exit 1): a folder that cannot be listed. One that is not there: data.
pub fn places(folder: &Path) -> Result<Vec<PathBuf>> {
    fs::metadata(folder).or_data(|| folder.display().to_string())?;
    let mut places = vec![folder.to_path_buf()];
    for parent in [folder.to_path_buf(), folder.join("runs")].iter().filter(|p| p.is_dir()) {
        for entry in fs::read_dir(parent).or_exit(Exit::Other, || parent.display().to_string())? {
            places.push(entry.or_exit(Exit::Other, || parent.display().to_string())?.path());
        }
    }
    places.retain(|p| RunDir::new(p).is_run());
    places.sort();
    Ok(places)
}

/// The runs at the [`places`] of `folder`; a line for each that cannot be read.
///
/// # Errors
/// As of [`places`].
pub fn runs_in(folder: &Path) -> Result<(Vec<RunSeen>, Vec<String>)> {
    let (mut runs, mut broken) = (Vec::new(), Vec::new());
    for place in places(folder)? {
        match RunSeen::read(&place) {
            Ok(run) => runs.push(run),
            Err(e) => broken.push(format!("{e:#}")),
        }
    }
    runs.sort_by(|a, b| {
        let key = |r: &RunSeen| (r.key(), r.config.data.images, r.config.train.seed);
        key(a).cmp(&key(b))
    });
    Ok((runs, broken))
}

impl RunSeen {
    /// Reads a run's folder.
    ///
    /// # Errors
    /// Data (exit 3): a file that is not to be believed.
    pub fn read(place: &Path) -> Result<RunSeen> {
        let dir = RunDir::new(place);
        let config = dir.config()?;
        let done = match state_of(&config, place) {
            RunState::Done(done) => Some(done),
            RunState::Damaged(why) => return Err(data(why)),
            _ => None,
        };
        let evaluations = done.as_ref().map_or_else(
            || dir.scores(&config).map(|s| s.evaluations),
            |d| Ok(d.evaluations.clone()),
        )?;
        let name = place.file_name().map_or(String::new(), |n| n.to_string_lossy().into());
        let log = Log::read(&dir.stats_path()).ok().flatten();
        let settings = settings(&config);
        Ok(RunSeen { dir: place.into(), name, config, evaluations, done, log, settings })
    }

    /// The run's value if it has finished, else its best evaluation so far.
    pub fn value(&self) -> Option<&Evaluation> {
        self.done.as_ref().map(|d| &d.value).or_else(|| best(&self.evaluations))
    }

    /// What its evaluations counted, to tell whether two runs of equal settings are one.
    pub fn scored(&self) -> Vec<u64> {
        let value = self.done.as_ref().map(|d| &d.value);
        self.evaluations.iter().chain(value).map(|l| l.memorized).collect()
    }

    pub fn best_epoch(&self) -> Option<f64> {
        best(&self.evaluations).map(|l| l.epoch)
    }

    /// Hours that it worked, scoring included, as far as its log says.
    pub fn hours(&self) -> Option<f64> {
        self.log.as_ref().map(|log| log.elapsed_s() / 3600.0)
    }

    pub fn setting(&self, key: &str) -> &str {
        self.settings.iter().find(|(k, _)| k == key).map_or("", |(_, v)| v)
    }

    /// Equal for runs that differ in size, seed and images alone.
    pub fn key(&self) -> String {
        self.settings_but(&[]).iter().map(|(k, v)| format!("{k}={v};")).collect()
    }

    /// All settings but size, seed, images and these.
    pub fn settings_but(&self, left_out: &[&str]) -> Vec<(String, String)> {
        let counts = |k: &str| {
            ![IMAGES, "seed"].contains(&k) && !HASHES.contains(&k) && !left_out.contains(&k)
        };
        self.settings.iter().filter(|(k, _)| counts(k)).cloned().collect()
    }

    /// The values of these settings, to tell runs apart.
    pub fn called(&self, keys: &[String]) -> String {
        let value = |key: &String| match key.as_str() {
            IMAGES => format!("N = {}", self.setting(key)),
            _ => format!("{key} {}", self.setting(key)),
        };
        keys.iter().map(value).collect::<Vec<_>>().join(", ")
    }
}

/// Settings that the runs don't share, the size first. Images and labels differ wherever sizes do: they are named
/// only where nothing else tells runs apart.
pub fn differing(runs: &[&RunSeen]) -> Vec<String> {
    let Some(first) = runs.first() else { return Vec::new() };
    let differs = |key: &str| runs.iter().any(|r| r.setting(key) != first.setting(key));
    let keys = first.settings.iter().map(|(k, _)| k.as_str());
    let all: Vec<String> = keys.filter(|k| differs(k)).map(String::from).collect();
    let (images, plain): (Vec<String>, Vec<String>) =
        all.into_iter().partition(|k| HASHES.contains(&k.as_str()));
    let mut names: Vec<String> = runs.iter().map(|r| r.called(&plain)).collect();
    names.sort();
    match names.windows(2).all(|w| w[0] != w[1]) {
        true => plain,
        false => [plain, images].concat(),
    }
}

/// Settings that all runs share.
pub fn shared(runs: &[&RunSeen]) -> Vec<(String, String)> {
    let Some(first) = runs.first() else { return Vec::new() };
    let same = |(key, value): &&(String, String)| runs.iter().all(|r| r.setting(key) == value);
    first.settings.iter().filter(same).cloned().collect()
}

fn settings(config: &RunConfig) -> Vec<(String, String)> {
    let json = serde_json::to_value(config).unwrap_or_default();
    let mut all = vec![(IMAGES.to_string(), config.data.images.to_string())];
    for key in ["model", "train"] {
        for (key, value) in json[key].as_object().into_iter().flatten() {
            if key != "micro_batch" && key != "left_out" {
                let on = |mask: &Vec<Value>| mask.iter().all(|skip| *skip == 1);
                let value = match value {
                    Value::Array(mask) if key == "skip_connections" && on(mask) => "all".into(),
                    other => plain(other),
                };
                all.push((key.replace('_', " "), value));
            }
        }
    }
    // The beginnings of hashes tell sets apart.
    let short = |hash: &str| hash.chars().take(8).collect();
    all.push(("pixels".into(), short(&config.data.sha256_pixels)));
    all.push(("labels".into(), short(&config.data.sha256_labels)));
    all
}

/// A value without JSON's quotes.
fn plain(value: &Value) -> String {
    match value {
        Value::String(s) => s.clone(),
        Value::Null => "rule of half-life".into(),
        Value::Array(all) => all.iter().map(plain).collect::<Vec<_>>().join(","),
        other => other.to_string().trim_end_matches(".0").to_string(),
    }
}
