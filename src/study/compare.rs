//! Two networks from the same noise: how alike their samples are, beside how near each comes to its own training set.
//!
//! Networks trained on disjoint parts of a set are compared so by Kadkhodaie et al. 2024 (arXiv:2310.02557, section 2): of
//! small parts each repeats its own images; of large ones both make nearly the same image of the same noise.

use crate::data::Dataset;
use crate::device::{Device, Pixels};
use crate::memorization::{Nearest, Score, Search, Threshold, Within, wilson};
use crate::model::SavedModel;
use crate::run::Network;
use crate::run::score::labels_of;
use crate::sampler::{HeunOptions, Start, sample_each};
use anyhow::Result;
use std::collections::HashSet;

/// Images of one evaluation of a network.
const BATCH: usize = 64;
/// Other seeds whose samples of B each sample of A is compared with.
const OTHERS: usize = 10;
/// Samples this many times as far from their training images as those from one another are not like them.
const FAR: f64 = 1.5;

/// How alike two images are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Alike {
    /// Sum of squared differences over 8-bit pixels.
    pub squared: u64,
    /// Of both images less their own mean over pixels and channels; none where one of them has a single value.
    pub cosine: Option<f64>,
}

/// What two networks made of the same noise. Pairs are of A and B.
pub struct Comparison<'a> {
    pub seeds: Vec<u64>,
    pub sets: [&'a Dataset; 2],
    /// [S, H, W, C] each.
    pub samples: [Vec<u8>; 2],
    /// Of each seed.
    pub paired: Vec<Alike>,
    /// A's sample of each seed and B's of each of the next ten, or of all others where there are fewer.
    pub unpaired: Vec<Alike>,
    /// Each network's samples in A's set and in B's: what they are near, and how many are copies.
    pub found: [[Vec<Nearest>; 2]; 2],
    pub scores: [[Score; 2]; 2],
    /// Each network's samples and the nearest image of its own set.
    pub to_own: [Vec<Alike>; 2],
    /// Distance of an image of each set to its nearest other one, mean over the set.
    pub within: [f64; 2],
    /// Images of B's set that A's has too.
    pub shared: usize,
    /// Whether both are one network.
    pub same_network: bool,
}

/// What a comparison says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Of most seeds the two samples are nearer to each other than either is to its own training set.
    Alike,
    /// Most samples of each network copy its own set, and few pairs are alike.
    OwnSets,
    /// Samples are not like the training images, as those of networks that have not learnt them.
    Far,
    Neither,
}

/// Samples of two networks for images of one shape, with as many classes, from the same `seeds`, at least two. Each set has
/// at least two images. `progress` is told what is under way, how many images are done and of how many.
///
/// # Errors
/// Device (exit 4): what the driver says; diverged (5): a sample that is not finite.
pub fn compare<'a>(
    models: [SavedModel; 2],
    sets: [&'a Dataset; 2],
    seeds: Vec<u64>,
    options: &HeunOptions,
    device: &Device,
    progress: &mut dyn FnMut(&'static str, usize, usize),
) -> Result<Comparison<'a>> {
    let len = sets[0].image_len();
    let same_network =
        models[0].config == models[1].config && models[0].weights == models[1].weights;
    let [a, b] = models;
    let samples = [
        drawn(a, &seeds, options, device, &mut |done| progress("samples of A", done, seeds.len()))?,
        drawn(b, &seeds, options, device, &mut |done| progress("samples of B", done, seeds.len()))?,
    ];
    let [of_a, of_b] = [0, 1].map(|k| near(&samples, sets[k], device));
    let (([aa, ba], repeats_a), ([ab, bb], repeats_b)) = (of_a?, of_b?);
    let found = [[aa, ab], [ba, bb]];
    let score = |network: usize, set: usize| {
        let repeats = [repeats_a, repeats_b][set];
        Score::of(&found[network][set], Threshold::default(), len, sets[set].len(), repeats)
    };
    let scores = [[score(0, 0), score(0, 1)], [score(1, 0), score(1, 1)]];
    let to_own = [0, 1].map(|k| {
        let own = samples[k].chunks_exact(len).zip(&found[k][k]);
        own.map(|(image, n)| Alike::of(image, sets[k].image(n.index[0] as usize))).collect()
    });
    let within = [0, 1].map(|k| {
        let told = &mut |done| progress("training images among themselves", done, sets[k].len());
        let within = Within::new(&sets[k].pixels, len, device, told);
        let all = (0..sets[k].len()).filter_map(|image| within.squared_to_other(image));
        mean(all.map(|squared| distance(squared, len)))
    });
    let [first, second] = [0, 1].map(|k| samples[k].chunks_exact(len).collect::<Vec<_>>());
    let others = OTHERS.min(seeds.len() - 1);
    let unpaired = (0..seeds.len()).flat_map(|i| (1..=others).map(move |k| (i, k)));
    let unpaired = unpaired.map(|(i, k)| Alike::of(first[i], second[(i + k) % seeds.len()]));
    let (unpaired, paired) =
        (unpaired.collect(), first.iter().zip(&second).map(|(a, b)| Alike::of(a, b)).collect());
    let images: HashSet<&[u8]> = sets[0].pixels.chunks_exact(len).collect();
    let shared = sets[1].pixels.chunks_exact(len).filter(|image| images.contains(image)).count();
    Ok(Comparison {
        seeds,
        sets,
        samples,
        paired,
        unpaired,
        found,
        scores,
        to_own,
        within,
        shared,
        same_network,
    })
}

/// A network's samples, [S, H, W, C], with a label for each seed where it has classes.
fn drawn(
    model: SavedModel,
    seeds: &[u64],
    options: &HeunOptions,
    device: &Device,
    progress: &mut dyn FnMut(usize),
) -> Result<Vec<u8>> {
    let labels = labels_of(seeds, model.config.label_dim);
    let len = model.config.image_len();
    let mut network = Network::new(device, model, BATCH.min(seeds.len()), &|| false)?;
    let mut pixels = Vec::with_capacity(seeds.len() * len);
    sample_each(&mut network, Start::Seeds(seeds), &labels, options, &mut |_, batch| {
        pixels.extend_from_slice(&batch.pixels().to_host()?);
        progress(pixels.len() / len);
        Ok(true)
    })?;
    Ok(pixels)
}

/// What in a set each network's samples are near, and how many images of the set repeat an earlier one.
fn near(
    samples: &[Vec<u8>; 2],
    set: &Dataset,
    device: &Device,
) -> Result<([Vec<Nearest>; 2], usize)> {
    let mut search = Search::new(device, &set.pixels, set.image_len())?;
    let mut found = |pixels: &Vec<u8>| search.nearest(&Pixels::Host(pixels.as_slice().into()));
    let found = [found(&samples[0])?, found(&samples[1])?];
    Ok((found, search.repeats()))
}

/// Root of the mean square over an image's `len` values, in grey levels.
pub fn distance(squared: u64, len: usize) -> f64 {
    (squared as f64 / len as f64).sqrt()
}

/// NaN of none.
fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0.0), |(sum, count), x| (sum + x, count + 1.0));
    sum / count
}

impl Alike {
    /// Of two images of one shape, in integers up to the last division.
    pub fn of(a: &[u8], b: &[u8]) -> Alike {
        let (mut squared, mut sums, mut products) = (0, [0; 2], [0; 3]);
        for (&a, &b) in a.iter().zip(b) {
            let (a, b) = (a as i64, b as i64);
            squared += ((a - b) * (a - b)) as u64;
            (sums[0], sums[1]) = (sums[0] + a, sums[1] + b);
            (products[0], products[1], products[2]) =
                (products[0] + a * a, products[1] + b * b, products[2] + a * b);
        }
        // Each times the number of values, which cancels.
        let less_mean =
            |product: i64, i: usize, j: usize| a.len() as i64 * product - sums[i] * sums[j];
        let (aa, bb) = (less_mean(products[0], 0, 0), less_mean(products[1], 1, 1));
        let lengths = (aa as f64).sqrt() * (bb as f64).sqrt();
        let cosine = (aa > 0 && bb > 0).then(|| less_mean(products[2], 0, 1) as f64 / lengths);
        Alike { squared, cosine }
    }
}

impl Comparison<'_> {
    /// Values of an image.
    pub fn image_len(&self) -> usize {
        self.sets[0].image_len()
    }

    /// Mean distance, in grey levels.
    pub fn mean_distance(&self, of: &[Alike]) -> f64 {
        mean(of.iter().map(|alike| distance(alike.squared, self.image_len())))
    }

    /// Mean cosine of those that have one; none where none has.
    pub fn mean_cosine(&self, of: &[Alike]) -> Option<f64> {
        Some(mean(of.iter().filter_map(|alike| alike.cosine))).filter(|mean| !mean.is_nan())
    }

    /// Mean distance of the samples of one seed over that of samples of different seeds; none where all are equal.
    pub fn relative(&self) -> Option<f64> {
        let relative = self.mean_distance(&self.paired) / self.mean_distance(&self.unpaired);
        Some(relative).filter(|relative| relative.is_finite())
    }

    /// Seeds of which the two samples are nearer to each other than either is to the nearest image of its own set.
    pub fn nearer_to_each_other(&self) -> usize {
        let own = self.to_own[0].iter().zip(&self.to_own[1]);
        let nearer =
            |(pair, (a, b)): &(&Alike, (&Alike, &Alike))| pair.squared < a.squared.min(b.squared);
        self.paired.iter().zip(own).filter(nearer).count()
    }

    /// Wilson's 95% interval of the share of [`Comparison::nearer_to_each_other`].
    pub fn nearer_interval(&self) -> [f64; 2] {
        wilson(self.nearer_to_each_other() as u64, self.seeds.len() as u64)
    }

    /// How many times as far a network's samples are from their training images as those from one another.
    pub fn farness(&self, network: usize) -> f64 {
        self.mean_distance(&self.to_own[network]) / self.within[network]
    }

    /// What the samples say, each share judged by its 95% interval; none of one network, of sets that share images, and of a set
    /// in which all are there twice.
    pub fn verdict(&self) -> Option<Verdict> {
        if self.same_network || self.shared > 0 || self.within.contains(&0.0) {
            return None;
        }
        let [low, high] = self.nearer_interval();
        let copy = |network: usize| self.scores[network][network].interval[0] > 0.5;
        Some(match () {
            // Written so that NaN is far.
            () if !(self.farness(0) <= FAR && self.farness(1) <= FAR) => Verdict::Far,
            () if low > 0.5 => Verdict::Alike,
            () if copy(0) && copy(1) && high < 0.5 => Verdict::OwnSets,
            () => Verdict::Neither,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cosines_leave_means_out() {
        let of = |a: &[u8], b: &[u8]| Alike::of(a, b);
        let alike = of(&[10, 20, 30], &[110, 120, 130]);
        assert_eq!(alike.squared, 30_000);
        assert!((alike.cosine.unwrap() - 1.0).abs() < 1e-15);
        assert!((of(&[0, 255, 0, 255], &[255, 0, 255, 0]).cosine.unwrap() + 1.0).abs() < 1e-15);
        assert_eq!(of(&[0, 2, 0, 2], &[0, 0, 2, 2]).cosine, Some(0.0));
        assert_eq!(of(&[7, 7, 7], &[1, 2, 3]), Alike { squared: 36 + 25 + 16, cosine: None });
    }
}
