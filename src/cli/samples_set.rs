//! What `score` and `audit` share: samples as a set of the training set's shape.

use super::samples_io::read_images;
use super::{Common, open_set};
use crate::data::Dataset;
use crate::data::npy::{self, Element as _};
use crate::device::Device;
use crate::error::data;
use crate::sampler::quantise;
use anyhow::Result;
use std::path::Path;

/// Samples of a folder, zip, npz or npy; of float32 as `emm sample` writes it, quantised as it does, unless `--range` says
/// what its numbers are.
///
/// # Errors
/// Data errors that begin with the file: no such set, or another shape than the training images'.
pub fn read_samples(
    path: &Path,
    training: &Dataset,
    reference: &Path,
    device: &Device,
    common: &Common,
) -> Result<Dataset> {
    let of_network = common.reading.range.is_none();
    if of_network && npy::type_of(path).is_ok_and(|found| found == f32::DESCR) {
        let (resolution, channels) = (training.resolution, training.channels);
        let images = read_images(path, resolution, channels)?;
        check_range(path, &images)?;
        let pixels: Vec<u8> = images.into_iter().map(quantise).collect();
        return Dataset::new(&path.display().to_string(), resolution, channels, pixels, None);
    }
    let samples = device.host().run(|| open_set(path, common))?;
    check_shape(path, [samples.resolution, samples.channels], reference, training)?;
    Ok(samples)
}

/// That images of `what` have the training images' resolution and channels.
///
/// # Errors
/// Data, with what makes RGB of grey.
pub fn check_shape(
    what: &Path,
    [resolution, channels]: [usize; 2],
    reference: &Path,
    t: &Dataset,
) -> Result<()> {
    if (resolution, channels) == (t.resolution, t.channels) {
        return Ok(());
    }
    let grey = if channels == 1 { what } else { reference }.display();
    let hint = match channels == t.channels {
        false => format!("`emm data import {grey} --rgb --out RGB.zip` makes RGB of grey"),
        true => format!(
            "`emm data import {} --resolution {resolution} --out SCALED.zip` scales the training images as the \
             others were, if those are what the model saw",
            reference.display()
        ),
    };
    let shape = |r: usize, c: usize| {
        format!("{r}x{r} pixels and {c} channel{}", if c == 1 { "" } else { "s" })
    };
    Err(data(format!(
        "{}: expected images of {} as in {}, found {}; {hint}",
        what.display(),
        shape(t.resolution, t.channels),
        reference.display(),
        shape(resolution, channels)
    )))
}

/// That there is a second nearest.
///
/// # Errors
/// Data.
pub fn two_at_least(name: &Path, training: &Dataset) -> Result<()> {
    match training.len() {
        0 | 1 => Err(data(format!(
            "{}: expected two training images at least, found one",
            name.display()
        ))),
        _ => Ok(()),
    }
}

/// A path's last name.
pub fn last(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into()
}

/// Whether floats are pixels from −1 to 1, as which they are taken: some well below 0, none far beyond that range. In
/// either a network may overshoot.
///
/// # Errors
/// Data errors that begin with the file and say what makes such pixels.
fn check_range(path: &Path, images: &[f32]) -> Result<()> {
    let least = images.iter().copied().fold(f32::INFINITY, f32::min);
    let most = images.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let makes = match (least, most) {
        (-0.3.., ..=1.3) => "2 * x - 1 makes them of 0 to 1",
        (-8.0.., ..=8.0) => return Ok(()),
        (-32.0.., ..=300.0) => "x / 127.5 - 1 makes them of 0 to 255",
        (-160.0.., ..=160.0) => "(x + 128) / 127.5 - 1 makes them of -128 to 127",
        (-8192.0.., 4096.0..=75000.0) => "x / 32767.5 - 1 makes them of 0 to 65535",
        _ => "x.clip(-1, 1) makes them where a network overshot",
    };
    Err(data(format!(
        "{}: expected pixels from -1 (black) to 1 (white), found values from {least:.4} to {most:.4}; NumPy's {makes}",
        path.display()
    )))
}
