//! What a search leaves for people: table, plots and sheets.

use super::{Found, Measured};
use crate::data::Dataset;
use crate::data::subset::{Labels, Subset};
use crate::device::{Device, Pixels};
use crate::files::write_atomic;
use crate::memorization::{Search, Threshold};
use crate::model::SavedModel;
use crate::report::{Cell, Plot, SizePoint, Table, sheet};
use crate::run::score::{labels_of, triplets};
use crate::run::{Network, RunDir};
use crate::sampler::{HeunOptions, Start, quantise, sample};
use anyhow::Result;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// Samples on a sheet: those of the first seeds, not chosen.
const SHEET_SAMPLES: u64 = 16;

/// One row a size.
pub fn table(found: &Found) -> Table {
    let repeated = found.sizes.iter().any(|m| m.runs.len() > 1);
    let mut columns = vec!["images", "ratio", "95% from", "to", "best epoch", "looks"];
    if repeated {
        columns.extend(["seeds", "lowest", "highest"]);
    }
    let mut table = Table::new(&columns);
    for m in &found.sizes {
        let mut row = vec![
            Cell::Integer(m.size as i64),
            Cell::Percent(m.ratio, 2),
            Cell::Percent(m.interval[0], 2),
            Cell::Percent(m.interval[1], 2),
            Cell::Number(m.best_epoch, 0),
            Cell::Integer(m.looks as i64),
        ];
        if repeated {
            let [low, high] = m.spread();
            row.push(Cell::Integer(m.runs.len() as i64));
            row.extend([Cell::Percent(low, 2), Cell::Percent(high, 2)]);
        }
        table.row(row);
    }
    table
}

/// Writes `table.md`, `sizes` and `epochs` as PNG and SVG, a `sheet-N.png` a size and, last, `results.json`
/// into `folder`; returns their paths. What is there under these names is replaced.
///
/// `set` and `name` are the search's; `title` begins the plots' titles.
pub fn write(
    found: &Found,
    set: &Dataset,
    name: &str,
    title: &str,
    device: &Device,
    folder: &Path,
) -> Result<Vec<PathBuf>> {
    fs::create_dir_all(folder)
        .map_err(|e| anyhow::anyhow!("--out: {}: cannot create: {e}", folder.display()))?;
    let mut written = Vec::new();
    let mut put = |file: &str, bytes: &[u8]| -> Result<()> {
        let path = folder.join(file);
        write_atomic(&path, true, |out| Ok(out.write_all(bytes)?))?;
        written.push(path);
        Ok(())
    };
    put("table.md", table(found).markdown().as_bytes())?;
    for (stem, plot) in [("sizes", sizes(found, title)), ("epochs", epochs(found, title))] {
        put(&format!("{stem}.png"), &plot.png()?)?;
        put(&format!("{stem}.svg"), plot.svg()?.as_bytes())?;
    }
    for m in &found.sizes {
        put(&format!("sheet-{}.png", m.size), &copies(m, set, name, device)?)?;
    }
    put("results.json", format!("{:#}\n", found.json()).as_bytes())?;
    Ok(written)
}

fn sizes(found: &Found, title: &str) -> Plot {
    let point =
        |m: &Measured| SizePoint { size: m.size as u64, ratio: m.ratio, interval: m.interval };
    Plot::Sizes {
        title: format!("{title}: memorization against training-set size"),
        points: found.sizes.iter().map(point).collect(),
        epsilon: found.emm.epsilon,
        emm: found.emm.found.as_ref().ok().map(|f| f.0),
    }
}

fn epochs(found: &Found, title: &str) -> Plot {
    let line = |m: &Measured| (format!("N = {}", m.size), m.curve.clone());
    Plot::Epochs {
        title: format!("{title}: memorization over training"),
        lines: found.sizes.iter().map(line).collect(),
    }
}

/// The first samples of a size's first run, at its best look, beside what they are nearest to.
fn copies(m: &Measured, set: &Dataset, name: &str, device: &Device) -> Result<Vec<u8>> {
    let model = SavedModel::open(&RunDir::new(&m.runs[0].dir).best_snapshot()?)?;
    let subset = Subset {
        size: m.size,
        classes: None,
        class: None,
        blend: None,
        labels: Labels::None,
        resolution: None,
        seed: 0,
    };
    let images = subset.of(set, name)?;
    let seeds: Vec<u64> = (0..SHEET_SAMPLES).collect();
    let labels = labels_of(&seeds, model.config.label_dim);
    let mut network = Network::new(device, model, seeds.len(), &|| false)?;
    let options = HeunOptions::default();
    let samples = sample(&mut network, Start::Seeds(&seeds), &labels, &options, &mut |_, _| true)?;
    let pixels: Vec<u8> = samples.unwrap_or_default().into_iter().map(quantise).collect();
    let mut search = Search::new(device, &images.pixels, images.image_len())?;
    let nearest = search.nearest(&Pixels::Host(pixels.as_slice().into()))?;
    let triplets = triplets(&pixels, &images, &nearest, Threshold::default());
    let copied = triplets.iter().filter(|t| t.memorized).count();
    let title = format!(
        "{} training images: {copied} of the first {SHEET_SAMPLES} samples are copies",
        m.size
    );
    sheet(&triplets, images.resolution, &title)
}
