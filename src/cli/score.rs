//! `emm score`: which samples copy a training image.

use super::samples_io::{Counter, parse_seeds};
use super::samples_set::{check_shape, last, read_samples, two_at_least};
use super::{Common, open_set, say};
use crate::data::{Dataset, npy};
use crate::device::{Device, Pixels};
use crate::error::usage;
use crate::files::{check_output, write_bytes};
use crate::memorization::{Nearest, References, Score, Search, Threshold};
use crate::numbers::count;
use crate::report::{Cell, Sheet, SheetOf, Table, sheets};
use crate::run::RunDir;
use crate::run::score::{Network, compared, labels_of};
use crate::sampler::{HeunOptions, Start, sample_each};
use anyhow::Result;
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// Samples shown on a sheet.
const SHEET_IMAGES: usize = 24;

/// Count the samples that copy a training image
///
/// A sample is a copy if it is less than --threshold times as far from its nearest training image as from the
/// second nearest (L2 over 8-bit pixels, compared in integers). A training image that is there twice hides its copies so;
/// both numbers are given, this one and the one with identical training images counted once.
#[derive(clap::Args, Debug)]
#[command(
    group = clap::ArgGroup::new("what").required(true).args(["run", "samples"]),
    after_help = "Examples:
  emm score --samples samples.npz --reference digits.zip
  emm score --samples out/ --reference c1k.zip --sheet sheet.png --neighbours 5
  emm score --samples out/ --reference c1k.zip --per-image copies.csv --json
  emm score --run runs/digits --reference digits.zip --images 1000"
)]
pub struct Args {
    /// A run's directory: samples are drawn from the snapshot of its best evaluation
    #[arg(long, value_name = "DIR")]
    run: Option<PathBuf>,
    /// Samples: a folder or zip of PNGs, npz or npy of unsigned bytes [S,H,W,C], or npy as `emm sample` writes it: float32
    /// [S,C,H,W], black −1 and white 1
    #[arg(long, value_name = "DIR|F.zip|F.npz|F.npy")]
    samples: Option<PathBuf>,
    /// Samples drawn from the run: seeds 0 to N − 1
    #[arg(long, value_name = "N", default_value_t = 10_000, conflicts_with_all = ["samples", "seeds"])]
    images: u64,
    /// Seeds of the samples drawn from the run: 0-63, or 1,2,5-7
    #[arg(long, value_name = "SEEDS", conflicts_with = "samples")]
    seeds: Option<String>,
    /// Samples computed at a time; the result does not depend on it
    #[arg(long, value_name = "IMAGES", default_value_t = 64)]
    batch: usize,
    /// Training images, at least two: EDM zip, folder, npz, npy, or what else `emm data import` reads
    #[arg(long, alias = "knn-ref", value_name = "SET")]
    reference: PathBuf,
    /// A copy has d1/d2 below this: a fraction or a decimal
    #[arg(long, value_name = "A/B", default_value = "1/3")]
    threshold: String,
    /// Write the first samples beside their nearest training images
    #[arg(long, value_name = "F.png")]
    sheet: Option<PathBuf>,
    /// Training images beside each sample of the sheet, 2 to 11
    #[arg(long, value_name = "K", value_parser = count, default_value = "2")]
    neighbours: usize,
    /// Write each sample's two nearest: `index` [S,2] and `squared` distances [S,2]
    #[arg(long, value_name = "F.npz")]
    pairs: Option<PathBuf>,
    /// Write how often each training image was copied
    #[arg(long, value_name = "F.csv")]
    per_image: Option<PathBuf>,
    /// Replace output files that exist
    #[arg(long)]
    force: bool,
}

/// Prints which share of samples are copies, with its 95% interval.
///
/// # Errors
/// Usage: flags, or an output that is there. Data: samples of another shape than the set.
pub fn run(args: Args, common: &Common) -> Result<()> {
    let device = common.device()?;
    let threshold = Threshold::parse(&args.threshold)?;
    let outputs = [
        ("--sheet", &args.sheet, "png"),
        ("--pairs", &args.pairs, "npz"),
        ("--per-image", &args.per_image, "csv"),
    ];
    for (flag, path, extension) in outputs {
        let Some(path) = path else { continue };
        if path.extension().is_none_or(|e| e != extension) {
            return Err(usage(format!(
                "{flag}: expected a .{extension} file, found {}",
                path.display()
            )));
        }
        check_output(path, args.force)?;
    }
    if !(2..=11).contains(&args.neighbours) {
        return Err(usage(format!("--neighbours: {}, expected 2 to 11", args.neighbours)));
    }
    let training = open_set(&args.reference, common)?;
    two_at_least(&args.reference, &training)?;
    let mut scoring = ScoreJob::new(&training, &device)?;
    match (&args.samples, &args.run) {
        (Some(samples), _) => scoring.take_files(samples, &args.reference, common)?,
        (None, Some(run)) => sample_run(run, &args, common, &mut scoring)?,
        (None, None) => return Err(usage("--samples: give samples, or a --run")),
    }
    let score = scoring.score(threshold);
    if let Some(path) = &args.sheet {
        let png = scoring.sheet(threshold, &args)?;
        write_bytes(path, args.force, &png)?;
    }
    if let Some(path) = &args.pairs {
        npy::write_npz(path, args.force, &scoring.pairs())?;
    }
    if let Some(path) = &args.per_image {
        let csv = scoring.per_image(threshold);
        write_bytes(path, args.force, csv)?;
    }
    if common.json {
        say!("{}", serde_json::to_string(&score)?);
    } else {
        print_score(&score, &args.threshold);
    }
    Ok(())
}

/// Draws samples from a run's best snapshot.
fn sample_run(run: &Path, args: &Args, common: &Common, scoring: &mut ScoreJob) -> Result<()> {
    let seeds = match &args.seeds {
        Some(text) => parse_seeds(text)?,
        None if args.images == 0 => return Err(usage("--images: 0 samples, at least 1 is needed")),
        None => (0..args.images).collect(),
    };
    if args.batch == 0 {
        return Err(usage("--batch: 0 images, at least 1 is needed"));
    }
    let run = RunDir::new(run);
    let (snapshot, model) = run.best_snapshot()?;
    let c = &model.config;
    let labels = labels_of(&seeds, c.label_dim);
    check_shape(&snapshot, [c.resolution, c.image_channels], &args.reference, scoring.training)?;
    if run.config()?.data.sha256_pixels != scoring.training.sha256_pixels() && !common.quiet {
        let name = args.reference.display();
        let _ =
            writeln!(std::io::stderr(), "note: the run was trained on other images than {name}");
    }
    let mut network = Network::new(scoring.device, model, args.batch.min(seeds.len()), &|| false)?;
    let mut counter = Counter::new("scoring", seeds.len(), common.quiet);
    let (start, options) = (Start::Seeds(&seeds), HeunOptions::default());
    sample_each(&mut network, start, &labels, &options, &mut |_, batch| {
        scoring.push(&batch.pixels())?;
        counter.at(scoring.found.len());
        Ok(true)
    })?;
    Ok(())
}

/// Samples searched batch by batch; memory grows with their number by two indices and distances each.
struct ScoreJob<'a> {
    training: &'a Dataset,
    search: Search<'a>,
    device: &'a Device,
    found: Vec<Nearest>,
    /// Pixels of the first samples, for the sheet.
    shown: Vec<u8>,
}

impl<'a> ScoreJob<'a> {
    fn new(training: &'a Dataset, device: &'a Device) -> Result<Self> {
        let search = Search::new(device, &training.pixels, training.image_len())?;
        Ok(ScoreJob { training, search, device, found: Vec::new(), shown: Vec::new() })
    }

    /// Takes samples from a folder, zip, npz or npy.
    fn take_files(&mut self, path: &Path, reference: &Path, common: &Common) -> Result<()> {
        let samples = read_samples(path, self.training, reference, self.device, common)?;
        self.push(&Pixels::Host(samples.pixels.into()))
    }

    /// Takes the next samples, [B, H, W, C].
    fn push(&mut self, samples: &Pixels) -> Result<()> {
        let room = SHEET_IMAGES * self.training.image_len() - self.shown.len();
        self.shown.extend_from_slice(&samples.first(room)?);
        self.found.extend(self.search.nearest(samples)?);
        Ok(())
    }

    fn score(&self, threshold: Threshold) -> Score {
        let (len, references) = (self.training.image_len(), self.training.len());
        Score::of(&self.found, threshold, len, references, self.search.repeats())
    }

    /// The first samples beside their nearest, as a PNG.
    fn sheet(&self, threshold: Threshold, args: &Args) -> Result<Vec<u8>> {
        let k = args.neighbours;
        let mut shown = compared(&self.shown, self.training, &self.found, threshold);
        if k > 2 {
            let references = References::new(&self.training.pixels, self.training.image_len());
            let found = references.nearest_k(&self.shown, k, self.device);
            for (sample, all) in shown.iter_mut().zip(found.chunks(k.min(self.training.len()))) {
                sample.neighbours =
                    all.iter().map(|n| self.training.image(n.index as usize)).collect();
            }
        }
        let score = self.score(threshold);
        let (all, copied) = (shown.len() == self.found.len(), shown.iter().filter(|t| t.memorized));
        let first = match all {
            true => String::new(),
            false => format!("; of the first {}, shown here, {}", shown.len(), copied.count()),
        };
        let title =
            format!("{} of {} samples copy a training image{first}", score.memorized, score.images);
        let (references, side) = (args.reference.as_path(), self.training.resolution);
        let set = format!("{} training images of {}", self.training.len(), last(references));
        let (notes, threshold) = (vec![set, args.describe_samples()], args.threshold.trim().into());
        let of = SheetOf::Samples;
        sheets(&[Sheet { samples: shown, side, title, notes, threshold, of }])
    }

    fn pairs(&self) -> [(&'static str, npy::Array); 2] {
        let pairs = |f: &dyn Fn(&Nearest) -> [i64; 2]| {
            npy::Array::new(&[self.found.len(), 2], self.found.iter().flat_map(f).collect())
        };
        [
            ("index", pairs(&|n| n.index.map(i64::from))),
            ("squared", pairs(&|n| n.squared.map(|d| d as i64))),
        ]
    }

    /// `image,copies`: how many samples copy each training image; where some repeat an earlier one also
    /// `copies_distinct`, with identical ones counted once: as the first of them.
    fn per_image(&self, threshold: Threshold) -> String {
        let mut copies = vec![[0u64; 2]; self.training.len()];
        for n in &self.found {
            let [all, distinct] = &mut copies[n.index[0] as usize];
            *all += threshold.memorized(n) as u64;
            *distinct += threshold.memorized_distinct(n) as u64;
        }
        let columns = ["image", "copies", "copies_distinct"];
        let shown = if self.search.repeats() == 0 { 2 } else { 3 };
        let mut table = Table::new(&columns[..shown]);
        for (image, [all, once]) in copies.iter().enumerate() {
            let row = [image as u64, *all, *once].map(|n| Cell::Integer(n as i64));
            table.row(row[..shown].to_vec());
        }
        table.csv()
    }
}

impl Args {
    /// Where the samples are from.
    fn describe_samples(&self) -> String {
        match (&self.samples, &self.run, &self.seeds) {
            (Some(samples), ..) => format!("samples of {}", last(samples)),
            (_, Some(run), Some(seeds)) => {
                format!("run {} at its best evaluation, sampling seeds {seeds}", last(run))
            }
            (_, Some(run), None) => {
                let end = self.images.saturating_sub(1);
                format!("run {} at its best evaluation, sampling seeds 0 to {end}", last(run))
            }
            _ => String::new(),
        }
    }
}

fn print_score(score: &Score, threshold: &str) {
    let [low, high] = score.interval.map(|v| 100.0 * v);
    say!(
        "{} of {} samples copy one of {} training images: {:.2}%",
        score.memorized,
        score.images,
        score.reference_images,
        100.0 * score.ratio
    );
    say!("95% sampling interval {low:.2}% to {high:.2}%; a copy has d1/d2 < {threshold}");
    say!("mean distance to the nearest training image {:.2} grey levels", score.mean_d1);
    if score.reference_duplicates > 0 {
        let once = match (score.memorized_distinct, score.ratio_distinct) {
            (Some(memorized), Some(ratio)) => {
                format!("with identical images counted once {memorized} are: {:.2}%", 100.0 * ratio)
            }
            _ => "all are equal, so none can be told to be a copy".into(),
        };
        say!(
            "{} training images repeat an earlier one, which hides copies of it; {once}",
            score.reference_duplicates
        );
    }
    if score.duplicate_ties > 0 {
        say!(
            "{} samples equal a training image that is there twice (d1 = d2 = 0): not counted as copies",
            score.duplicate_ties
        );
    }
}
