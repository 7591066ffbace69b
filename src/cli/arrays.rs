//! Images, labels and noise levels in npy files: [B, C, H, W] there, [B, H, W, C] inside.

use crate::data::npy;
use crate::error::{data, usage};
use crate::model::ModelConfig;
use anyhow::Result;
use std::path::Path;

/// Reads float32 images [B, C, H, W] for `model` as [B, H, W, C].
///
/// # Errors
/// Data errors that begin with the file: another shape or type, a value that is not finite.
pub fn read_images(path: &Path, model: &ModelConfig) -> Result<Vec<f32>> {
    let name = path.display();
    let (shape, values) = npy::read_f32(path)?;
    let (c, r) = (model.image_channels, model.resolution);
    if shape.len() != 4 || shape[0] == 0 || shape[1..] != [c, r, r] {
        return Err(data(format!("{name}: is {shape:?}, the network wants [B, {c}, {r}, {r}]")));
    }
    if let Some(i) = values.iter().position(|v| !v.is_finite()) {
        return Err(data(format!("{name}: holds {} at {i}", values[i])));
    }
    Ok(values.chunks_exact(c * r * r).flat_map(|image| exchange(image, c)).collect())
}

/// Writes images [B, H, W, C] of `model` as float32 [B, C, H, W].
pub fn write_images(path: &Path, force: bool, model: &ModelConfig, images: &[f32]) -> Result<()> {
    let (c, r, len) = (model.image_channels, model.resolution, model.image_len());
    let planes: Vec<f32> =
        images.chunks_exact(len).flat_map(|image| exchange(image, r * r)).collect();
    npy::write(path, force, &[images.len() / len, c, r, r], &planes)
}

/// The transpose of a matrix of `rows` rows.
fn exchange(matrix: &[f32], rows: usize) -> impl Iterator<Item = f32> {
    let columns = matrix.len() / rows;
    (0..columns).flat_map(move |j| (0..rows).map(move |i| matrix[i * columns + j]))
}

/// One label per image: from the file, or `class` for all, or by `default`; none for an unconditional network.
///
/// # Errors
/// Usage, if the network has no classes and labels are given; data, if one is no class of the network.
pub fn labels(
    file: Option<&Path>,
    class: Option<u32>,
    images: usize,
    label_dim: usize,
    default: impl FnOnce() -> Result<Vec<u32>>,
) -> Result<Vec<u32>> {
    if label_dim == 0 {
        return match (file, class) {
            (None, None) => Ok(Vec::new()),
            (Some(_), _) => Err(usage("--labels: the network is unconditional")),
            (_, Some(_)) => Err(usage("--class: the network is unconditional")),
        };
    }
    if let Some(class) = class {
        return match (class as usize) < label_dim {
            true => Ok(vec![class; images]),
            false => {
                Err(usage(format!("--class: {class}, the network's classes are 0..{label_dim}")))
            }
        };
    }
    let Some(path) = file else { return default() };
    let name = path.display();
    let (shape, values) = npy::read_i64(path)?;
    if shape != [images] {
        return Err(data(format!(
            "{name}: is {shape:?}, one label for each of {images} images wanted"
        )));
    }
    let label = |&v: &i64| match usize::try_from(v) {
        Ok(l) if l < label_dim => Ok(l as u32),
        _ => Err(data(format!("{name}: label {v}, the network's classes are 0..{label_dim}"))),
    };
    values.iter().map(label).collect()
}
