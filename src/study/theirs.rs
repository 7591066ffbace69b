//! Results of the reference's own program (sail-sg/DiffMemorize), to be set beside ours: the log of its scorings
//! (`mem_traj.log`) and the distances it saves of each (`knn-dist/network-snapshot-KIMG.npz`).

use crate::data::npy::{self, Values};
use crate::error::{Exit, OrExit as _, data, usage};
use crate::files::read_text;
use crate::memorization::wilson;
use anyhow::Result;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

pub const LOG: &str = "mem_traj.log";

/// One of its runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Theirs {
    pub name: String,
    /// Training images.
    pub size: usize,
    /// By epoch.
    pub evaluations: Vec<TheirEvaluation>,
    /// What was left out, for people.
    pub notes: Vec<String>,
}

/// One scored snapshot.
#[derive(Debug, Clone, PartialEq)]
pub struct TheirEvaluation {
    /// Thousands of images trained on, as the snapshot's name says.
    pub kimg: u64,
    pub epoch: f64,
    pub ratio: f64,
    /// 95% Wilson interval, where the number of samples is known: of an npz, not of a log.
    pub interval: Option<[f64; 2]>,
    /// Mean distance to the nearest training image, as it is written.
    pub mean_d1: f64,
}

/// A scoring before the training-set size is known.
struct Scored {
    kimg: u64,
    ratio: f64,
    images: Option<u64>,
    mean_d1: f64,
}

impl Theirs {
    /// Reads a log, an npz of distances, or a folder with either. `size`: training images, where the name of the run's
    /// folder (`…-1000-uncond-…`) or its `training_options.json` does not say.
    ///
    /// # Errors
    /// Data that begin with the file, and line: what is no such log or npz, numbers that are none. Usage: size unknown.
    pub fn read(path: &Path, size: Option<usize>) -> Result<Theirs> {
        let what = || path.display().to_string();
        let mut notes = Vec::new();
        let mut places = vec![path.to_path_buf()];
        let scored = match path.extension().and_then(|e| e.to_str()) {
            _ if path.is_dir() => {
                let log = path.join(LOG);
                let mut all = match log.exists() {
                    true => read_log(&log, &mut places, &mut notes)?,
                    false => Vec::new(),
                };
                take_distances(path, &mut all, &mut notes)?;
                all
            }
            Some("npz") => vec![read_distances(path)?],
            _ => read_log(path, &mut places, &mut notes)?,
        };
        if scored.is_empty() {
            return Err(data(format!(
                "{}: no scored snapshot, neither in {LOG} nor as npz",
                what()
            )));
        }
        let known = size.or_else(|| places.iter().find_map(|p| size_of(p)));
        let size = known.filter(|&n| n > 0).ok_or_else(|| {
            usage(format!("--theirs: {}: training images not known; write N={}", what(), what()))
        })?;
        let mut evaluations: Vec<TheirEvaluation> = scored
            .iter()
            .map(|s| TheirEvaluation {
                kimg: s.kimg,
                epoch: s.kimg as f64 * 1000.0 / size as f64,
                ratio: s.ratio,
                interval: s.images.map(|n| wilson((s.ratio * n as f64).round() as u64, n)),
                mean_d1: s.mean_d1,
            })
            .collect();
        evaluations.sort_by_key(|l| l.kimg);
        Ok(Theirs { name: name_of(&places), size, evaluations, notes })
    }

    /// The evaluation with the highest ratio.
    pub fn best(&self) -> &TheirEvaluation {
        let first = &self.evaluations[0];
        self.evaluations.iter().fold(first, |a, b| if b.ratio > a.ratio { b } else { a })
    }
}

const GENERATING: &str = "Generating images from \"";
const LOADING: &str = "Loading images from \"";
const DISTANCE: &str = "\". The calculated KNN distance is ";
const RATIO: &str = ". The calibrated KNN ratio is ";

/// Two lines a scoring: which snapshot, then its numbers. Scorings are appended, so the last of a snapshot counts.
/// `places` gets the snapshots' paths.
fn read_log(
    path: &Path,
    places: &mut Vec<PathBuf>,
    notes: &mut Vec<String>,
) -> Result<Vec<Scored>> {
    let what = || path.display().to_string();
    let text = read_text(path)?.ok_or_else(|| data(format!("{}: not found", what())))?;
    let mut all: Vec<Scored> = Vec::new();
    let mut kimg: Option<u64> = None;
    let lines: Vec<&str> = text.lines().collect();
    for (i, line) in lines.iter().enumerate().filter(|(_, l)| !l.trim().is_empty()) {
        // A killed process leaves half a line at the end.
        let cut_off = i + 1 == lines.len() && !text.ends_with('\n');
        let broken = |why: &str| data(format!("{}: line {}: {why}", what(), i + 1));
        if let Some(snapshot) = line.strip_prefix(GENERATING) {
            match kimg_of(snapshot) {
                Some(at) => {
                    kimg = Some(at);
                    places.push(snapshot.trim_end_matches(['.', '"']).into());
                }
                None if cut_off => notes.push(format!("{}: the last line is cut off", what())),
                None => return Err(broken("no network-snapshot-KIMG.pkl is named")),
            }
            continue;
        }
        if cut_off {
            // Digits may be missing.
            notes.push(format!("{}: the last line is cut off", what()));
            continue;
        }
        let numbers = line.strip_prefix(LOADING).and_then(|l| l.split_once(DISTANCE));
        let Some((mean_d1, ratio)) = numbers.and_then(|(_, n)| n.split_once(RATIO)) else {
            let expected = format!("expected {GENERATING}…\" or {LOADING}…\"");
            return Err(broken(&format!("{expected}, found {line:?}")));
        };
        let number = |text: &str| text.trim().parse::<f64>().ok().filter(|x| x.is_finite());
        let ratio = number(ratio).filter(|r| (0.0..=1.0).contains(r));
        let ratio = ratio.ok_or_else(|| broken("the ratio is no number from 0 to 1"))?;
        let mean_d1 = number(mean_d1).filter(|d| *d >= 0.0);
        let mean_d1 = mean_d1.ok_or_else(|| broken("the distance is no number ≥ 0"))?;
        let kimg =
            kimg.take().ok_or_else(|| broken("numbers of no snapshot: none is named before"))?;
        all.retain(|s| s.kimg != kimg);
        all.push(Scored { kimg, ratio, images: None, mean_d1 });
    }
    Ok(all)
}

/// The number in `…network-snapshot-002509.pkl`.
fn kimg_of(name: &str) -> Option<u64> {
    let (_, rest) = name.rsplit_once("network-snapshot-")?;
    let (digits, end) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit())?);
    if end.starts_with(".pkl\"") || end == ".npz" { digits.parse().ok() } else { None }
}

/// Puts the distances of a folder's `knn-dist` over what its log says.
fn take_distances(folder: &Path, all: &mut Vec<Scored>, notes: &mut Vec<String>) -> Result<()> {
    let folder = folder.join("knn-dist");
    if !folder.is_dir() {
        return Ok(());
    }
    let what = || folder.display().to_string();
    let entries = fs::read_dir(&folder).or_exit(Exit::Other, what)?;
    let mut files = Vec::new();
    for entry in entries {
        files.push(entry.or_exit(Exit::Other, what)?.path());
    }
    files.retain(|p| p.extension().is_some_and(|e| e == "npz"));
    files.sort();
    for file in files {
        let own = read_distances(&file)?;
        if let Some(logged) = all.iter().find(|s| s.kimg == own.kimg) {
            let apart = (logged.ratio - own.ratio).abs();
            // The log holds all digits.
            if apart > 1e-6 {
                let (a, b) = (100.0 * logged.ratio, 100.0 * own.ratio);
                notes.push(format!("{}: {b:.2}%, the log says {a:.2}%", file.display()));
            }
        }
        all.retain(|s| s.kimg != own.kimg);
        all.push(own);
    }
    Ok(())
}

/// Nearest and second nearest distances, [S, 2], decided in float32 as there.
fn read_distances(path: &Path) -> Result<Scored> {
    let what = || path.display().to_string();
    let name = path.file_name().map(|n| n.to_string_lossy()).unwrap_or_default();
    let Some(kimg) = kimg_of(&name) else {
        return Err(data(format!("{}: not named network-snapshot-KIMG.npz", what())));
    };
    let mut arrays = npy::read_npz(path)?;
    let Some(i) = arrays.iter().position(|(name, _)| name == "knn_distance") else {
        let names: Vec<&str> = arrays.iter().map(|(name, _)| name.as_str()).collect();
        let names = names.join(", ");
        return Err(data(format!("{}: expected an array knn_distance, found {names}", what())));
    };
    let array = arrays.swap_remove(i).1;
    let shape = array.shape.clone();
    let distances: Vec<f32> = match array.values {
        Values::F32(values) => values,
        Values::F64(values) => values.into_iter().map(|v| v as f32).collect(),
        other => {
            let descr = other.descr();
            return Err(data(format!("{}: knn_distance of type {descr}, expected <f4", what())));
        }
    };
    let [images, 2] = shape[..] else {
        return Err(data(format!("{}: knn_distance of shape {shape:?}, expected [S, 2]", what())));
    };
    if images == 0 {
        return Err(data(format!("{}: knn_distance holds no sample", what())));
    }
    let pairs = || distances.chunks_exact(2).map(|p| (p[0], p[1]));
    let sound = |(a, b): (f32, f32)| a.is_finite() && b.is_finite() && 0.0 <= a && a <= b;
    if let Some(bad) = pairs().position(|p| !sound(p)) {
        let why = "expected two distances, the nearer first";
        return Err(data(format!("{}: knn_distance: sample {bad}: {why}", what())));
    }
    // 0 / 0 is no number and not below a third.
    let memorized = pairs().filter(|(a, b)| a / b < 1.0f32 / 3.0).count();
    let mean_d1 = pairs().map(|(a, _)| a as f64).sum::<f64>() / images as f64;
    let ratio = memorized as f64 / images as f64;
    Ok(Scored { kimg, ratio, images: Some(images as u64), mean_d1 })
}

/// Training images, by a run's `training_options.json` or its folder's name.
fn size_of(place: &Path) -> Option<usize> {
    let folders = place.ancestors().filter(|p| !p.as_os_str().is_empty());
    for folder in folders.take(4) {
        let options = read_text(&folder.join("training_options.json")).ok().flatten();
        let options = options.unwrap_or_default();
        let options: Value = serde_json::from_str(&options).unwrap_or_default();
        let stated = options["dataset_kwargs"]["max_size"].as_u64();
        let name = folder.file_name().map(|n| n.to_string_lossy()).unwrap_or_default();
        let words: Vec<&str> = name.split('-').collect();
        let cond = words.iter().position(|w| ["cond", "uncond"].contains(w));
        let named = cond.and_then(|i| words.get(i.checked_sub(1)?)?.parse().ok());
        if let Some(size) = stated.map(|n| n as usize).or(named) {
            return Some(size);
        }
    }
    None
}

/// The run's folder: that of the snapshots, else what was read.
fn name_of(places: &[PathBuf]) -> String {
    let name = |p: &Path| p.file_name().map(|n| n.to_string_lossy().into_owned());
    let snapshots = places.get(1).and_then(|p| name(p.parent()?));
    snapshots.or_else(|| name(&places[0])).unwrap_or_else(|| "theirs".into())
}
