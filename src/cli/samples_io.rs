//! What `sample`, `optimal` and `denoise` share: seeds, latents and labels in, images out in five forms.

use crate::data::{Dataset, Image, npy};
use crate::error::{data, usage};
use crate::files::{check_output, check_output_dir, write_bytes, write_dir_atomic};
use crate::report::grid;
use crate::sampler::{Start, quantise};
use anyhow::Result;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::collections::HashSet;
use std::fs;
use std::io::{IsTerminal as _, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// More seeds than this are a slip of the hand.
const MAX_SEEDS: u64 = 100_000_000;

/// What images begin as, and their classes
#[derive(clap::Args, Debug)]
pub struct StartArgs {
    /// Seeds, one image each: 0-63, or 1,2,5-7. An image depends on its seed alone
    #[arg(long, value_name = "SEEDS", conflicts_with = "latents")]
    pub seeds: Option<String>,
    /// Latents of unit variance instead of seeds, float32 [S,C,H,W]
    #[arg(long, value_name = "F.npy")]
    pub latents: Option<PathBuf>,
    /// A class index per image, int64 [S]
    #[arg(long, value_name = "F.npy", conflicts_with = "class")]
    pub labels: Option<PathBuf>,
    /// One class for all images
    #[arg(long, value_name = "K")]
    pub class: Option<u32>,
}

/// What images begin as, read and checked.
pub struct Beginnings {
    /// The seed of each image; with latents, its place among them.
    pub seeds: Vec<u64>,
    /// [S, H, W, C].
    latents: Option<Vec<f32>>,
}

impl StartArgs {
    /// Reads `--seeds` or `--latents`.
    ///
    /// # Errors
    /// Usage if neither is given or seeds are not understood; data if latents are not `[S,C,H,W]` of this shape.
    pub fn beginnings(&self, resolution: usize, channels: usize) -> Result<Beginnings> {
        match (&self.seeds, &self.latents) {
            (Some(text), _) => Ok(Beginnings { seeds: parse_seeds(text)?, latents: None }),
            (None, Some(path)) => {
                let latents = read_images(path, resolution, channels)?;
                let count = (latents.len() / (resolution * resolution * channels)) as u64;
                Ok(Beginnings { seeds: (0..count).collect(), latents: Some(latents) })
            }
            (None, None) => Err(usage("--seeds: give seeds such as 0-63, or --latents")),
        }
    }

    /// The class of each of `images` by `--labels` or `--class`; `None` if neither is given.
    ///
    /// # Errors
    /// Usage if there are no classes or not this one; data if the file does not fit.
    pub fn labels(&self, images: usize, label_dim: usize) -> Result<Option<Vec<u32>>> {
        let flag = if self.class.is_some() { "--class" } else { "--labels" };
        if (self.class.is_some() || self.labels.is_some()) && label_dim == 0 {
            return Err(usage(format!("{flag}: there are no classes, it is unconditional")));
        }
        if let Some(class) = self.class {
            if class as usize >= label_dim {
                let last = label_dim - 1;
                return Err(usage(format!("--class: {class} is not among the classes 0..={last}")));
            }
            return Ok(Some(vec![class; images]));
        }
        self.labels.as_ref().map(|path| read_labels(path, images, label_dim)).transpose()
    }
}

impl Beginnings {
    /// As the sampler takes it.
    pub fn start(&self) -> Start<'_> {
        match &self.latents {
            Some(latents) => Start::Latents(latents),
            None => Start::Seeds(&self.seeds),
        }
    }
}

/// Reads `0-63` or `1,2,5-7`: each seed once, in the order written.
///
/// # Errors
/// Usage.
pub fn parse_seeds(text: &str) -> Result<Vec<u64>> {
    let mut seeds = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let bounds = first.trim().parse::<u64>().ok().zip(last.trim().parse::<u64>().ok());
        let Some((first, last)) = bounds.filter(|(first, last)| first <= last) else {
            return Err(usage(format!(
                "--seeds: {part:?} is neither a seed nor a range like 0-63, expected e.g. 1,2,5-7"
            )));
        };
        if last - first >= MAX_SEEDS - seeds.len() as u64 {
            return Err(usage(format!("--seeds: {text} are more than {MAX_SEEDS} seeds")));
        }
        seeds.extend(first..=last);
    }
    let mut seen = HashSet::with_capacity(seeds.len());
    match seeds.iter().find(|&&s| !seen.insert(s)) {
        Some(twice) => Err(usage(format!("--seeds: {twice} is there twice"))),
        None => Ok(seeds),
    }
}

/// Reads float32 images `[S,C,H,W]` of this shape as `[S,H,W,C]`.
///
/// # Errors
/// Data errors that begin with the file: another type or shape, none, not finite.
pub fn read_images(path: &Path, resolution: usize, channels: usize) -> Result<Vec<f32>> {
    let (shape, values) = npy::read_f32(path)?;
    let name = path.display();
    if shape.len() != 4 || shape[1..] != [channels, resolution, resolution] || shape[0] == 0 {
        return Err(data(format!(
            "{name}: expected shape [S, {channels}, {resolution}, {resolution}], found {shape:?}{}",
            match shape[..] {
                [_, h, w, c] if [h, w, c] == [resolution, resolution, channels] =>
                    "; NumPy's x.transpose(0, 3, 1, 2) makes it",
                _ => "",
            }
        )));
    }
    if let Some(i) = values.iter().position(|v| !v.is_finite()) {
        let image = i / (values.len() / shape[0]);
        return Err(data(format!(
            "{name}: image {image} holds {}, which is not finite",
            values[i]
        )));
    }
    Ok(transposed(&values, resolution * resolution, channels, false))
}

/// Reads a noise level per image, float32 `[S]`, all above zero.
///
/// # Errors
/// Data errors that begin with the file.
pub fn read_sigmas(path: &Path, images: usize) -> Result<Vec<f64>> {
    let (shape, values) = npy::read_f32(path)?;
    let name = path.display();
    if shape != [images] {
        return Err(data(format!(
            "{name}: expected shape [{images}], one noise level per image, found {shape:?}"
        )));
    }
    match values.iter().find(|v| !(v.is_finite() && **v > 0.0)) {
        Some(v) => Err(data(format!("{name}: a noise level is above 0 and finite, found {v}"))),
        None => Ok(values.into_iter().map(f64::from).collect()),
    }
}

/// Reads a class index per image, int64 `[S]`.
///
/// # Errors
/// Data errors that begin with the file.
pub fn read_labels(path: &Path, images: usize, label_dim: usize) -> Result<Vec<u32>> {
    let (shape, values) = npy::read_i64(path)?;
    let name = path.display();
    if shape != [images] {
        return Err(data(format!(
            "{name}: expected shape [{images}], one label per image, found {shape:?}"
        )));
    }
    match values.iter().find(|l| !(0..label_dim as i64).contains(l)) {
        Some(l) => Err(data(format!("{name}: label {l} is not among the classes 0..{label_dim}"))),
        None => Ok(values.into_iter().map(|l| l as u32).collect()),
    }
}

/// Writes images `[S,H,W,C]` as float32 `[S,C,H,W]`, whole or not at all.
///
/// # Errors
/// As [`npy::write`].
pub fn write_images(
    path: &Path,
    force: bool,
    images: &[f32],
    resolution: usize,
    channels: usize,
) -> Result<()> {
    let planes = transposed(images, resolution * resolution, channels, true);
    let count = images.len() / (resolution * resolution * channels);
    npy::write(path, force, &[count, channels, resolution, resolution], &planes)
}

/// [S, H·W, C] to [S, C, H·W] if `to_planes`, else back.
fn transposed(images: &[f32], area: usize, channels: usize, to_planes: bool) -> Vec<f32> {
    let mut out = vec![0.0; images.len()];
    let pairs = images.chunks_exact(area * channels).zip(out.chunks_exact_mut(area * channels));
    for (from, to) in pairs {
        for p in 0..area {
            for c in 0..channels {
                let (packed, planar) = (p * channels + c, c * area + p);
                let (i, o) = if to_planes { (packed, planar) } else { (planar, packed) };
                to[o] = from[i];
            }
        }
    }
    out
}

/// The form of `--out`, by its extension.
#[derive(Debug, Clone, Copy, PartialEq)]
enum FileForm {
    Folder,
    Zip,
    Npz,
    Grid,
    Floats,
}

/// Where sampled images go: a folder or zip of PNGs named by seed, npz, one PNG grid, or float32 npy.
pub struct SampleWriter {
    path: PathBuf,
    force: bool,
    form: FileForm,
    resolution: usize,
    channels: usize,
    pixels: Vec<u8>,
    /// Before quantisation; only for npy.
    floats: Vec<f32>,
}

impl FileForm {
    /// The form that a free path asks for.
    fn of(path: &Path, force: bool) -> Result<FileForm> {
        let form = match path.extension().map(|e| e.to_string_lossy()) {
            None => {
                return check_output_dir(path, force, &foreign_to_samples)
                    .map(|()| FileForm::Folder);
            }
            Some(ending) => match &*ending {
                "zip" => FileForm::Zip,
                "npz" => FileForm::Npz,
                "png" => FileForm::Grid,
                "npy" => FileForm::Floats,
                other => {
                    return Err(usage(format!(
                        "--out: expected .zip, .npz, .png, .npy or a folder without extension, found .{other}"
                    )));
                }
            },
        };
        check_output(path, force).map(|()| form)
    }
}

/// Refuses an `--out` that no samples are written to, before anything is read or computed.
///
/// # Errors
/// Usage, if the output exists or has an extension that says nothing.
pub fn check_samples_out(path: &Path, force: bool) -> Result<()> {
    FileForm::of(path, force).map(|_| ())
}

impl SampleWriter {
    /// # Errors
    /// As [`check_samples_out`].
    pub fn new(path: &Path, force: bool, resolution: usize, channels: usize) -> Result<Self> {
        let form = FileForm::of(path, force)?;
        let (pixels, floats) = (Vec::new(), Vec::new());
        Ok(SampleWriter { path: path.into(), force, form, resolution, channels, pixels, floats })
    }

    /// Takes the next images, [B, H, W, C] before quantisation.
    pub fn push(&mut self, images: &[f32]) {
        match self.form {
            FileForm::Floats => self.floats.extend_from_slice(images),
            _ => self.pixels.extend(images.iter().map(|&v| quantise(v))),
        }
    }

    /// Writes all images, whole or not at all. `seeds` names them; `labels`: one per image, or empty.
    ///
    /// # Errors
    /// As [`write_bytes`].
    pub fn finish(self, seeds: &[u64], labels: &[u32]) -> Result<()> {
        let SampleWriter { path, force, form, resolution, channels, pixels, floats } = self;
        let image_len = resolution * resolution * channels;
        let images = || seeds.iter().zip(pixels.chunks_exact(image_len));
        let encode = |image| Image::encode(resolution, resolution, channels, image);
        let name = |seed: &u64| format!("{seed:08}.png");
        match form {
            FileForm::Folder => write_dir_atomic(&path, force, &foreign_to_samples, |folder| {
                for (seed, image) in images() {
                    fs::write(folder.join(name(seed)), marked(encode(image)?))?;
                }
                Ok(())
            }),
            FileForm::Zip => {
                // An EDM zip keeps the order of its names, so seeds are put in order.
                let mut order: Vec<usize> = (0..seeds.len()).collect();
                order.sort_by_key(|&i| seeds[i]);
                let image = |i: usize| &pixels[i * image_len..][..image_len];
                let sorted = order.iter().flat_map(|&i| image(i)).copied().collect();
                let labels =
                    (!labels.is_empty()).then(|| order.iter().map(|&i| labels[i]).collect());
                let set =
                    Dataset { resolution, channels, pixels: sorted, labels, names: Vec::new() };
                set.save(&path, force)
            }
            FileForm::Npz => {
                let shape = [seeds.len(), resolution, resolution, channels];
                let mut arrays = vec![("images", npy::Array::new(&shape, pixels))];
                if !labels.is_empty() {
                    let labels = labels.iter().map(|&l| l as i64).collect();
                    arrays.push(("labels", npy::Array::new(&[seeds.len()], labels)));
                }
                npy::write_npz(&path, force, &arrays)
            }
            FileForm::Grid => {
                let png = grid(&pixels, resolution, channels)?;
                write_bytes(&path, force, &png)
            }
            FileForm::Floats => write_images(&path, force, &floats, resolution, channels),
        }
    }
}

/// Where a PNG's first chunk ends: its signature and header are of one length.
const HEADER_BYTES: usize = 33;

/// The text chunk that marks a PNG as written by this program.
fn mark() -> Vec<u8> {
    let chunk = b"tEXtSoftware\0emm";
    let mut crc = flate2::Crc::new();
    crc.update(chunk);
    let length = (chunk.len() - 4) as u32;
    [&length.to_be_bytes(), &chunk[..], &crc.sum().to_be_bytes()].concat()
}

fn marked(mut png: Vec<u8>) -> Vec<u8> {
    png.splice(HEADER_BYTES..HEADER_BYTES, mark());
    png
}

/// The first entry of a folder that is no marked sample: such a folder is not to be replaced.
fn foreign_to_samples(folder: &Path) -> std::io::Result<Option<String>> {
    let mark = mark();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let mut start = Vec::new();
        // Under a name of somebody's own it is theirs.
        let numbered = name
            .strip_suffix(".png")
            .is_some_and(|seed| seed.len() >= 8 && seed.bytes().all(|b| b.is_ascii_digit()));
        if entry.file_type()?.is_file() && numbered {
            let file = fs::File::open(entry.path())?;
            file.take((HEADER_BYTES + mark.len()) as u64).read_to_end(&mut start)?;
        }
        if start.get(HEADER_BYTES..) != Some(&mark[..]) {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

/// Counts images on stderr: a bar on a terminal, else a line every ten seconds.
pub struct Counter {
    bar: ProgressBar,
    what: &'static str,
    total: usize,
    lines: bool,
    last_line: Instant,
}

impl Counter {
    /// Nothing is shown where `quiet`; `what` names the work, `total` is in images.
    pub fn new(what: &'static str, total: usize, quiet: bool) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let target = match terminal && !quiet {
            true => ProgressDrawTarget::stderr_with_hz(5),
            false => ProgressDrawTarget::hidden(),
        };
        let bar = ProgressBar::with_draw_target(Some(total as u64), target).with_message(what);
        let style =
            ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len}  {per_sec}  ETA {eta}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Counter { bar, what, total, lines: !terminal && !quiet, last_line: Instant::now() }
    }

    /// `done` images are finished.
    pub fn at(&mut self, done: usize) {
        self.bar.set_position(done as u64);
        if self.lines && self.last_line.elapsed() > Duration::from_secs(10) {
            self.last_line = Instant::now();
            let _ = writeln!(std::io::stderr(), "{} {done}/{}", self.what, self.total);
        }
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// A bar for each of the things that are done one after the other.
pub struct Stages {
    bar: Option<(&'static str, Counter)>,
    quiet: bool,
}

impl Stages {
    /// Nothing is shown where `quiet`.
    pub fn new(quiet: bool) -> Self {
        Stages { bar: None, quiet }
    }

    /// `done` images of `of` are finished of what is under way.
    pub fn at(&mut self, what: &'static str, done: usize, of: usize) {
        let (shown, bar) =
            self.bar.get_or_insert_with(|| (what, Counter::new(what, of, self.quiet)));
        if *shown != what {
            (*shown, *bar) = (what, Counter::new(what, of, self.quiet));
        }
        bar.at(done);
    }
}
