//! An audit of samples: what copies what, and what the training set and held-out images say of it.

use crate::data::Dataset;
use crate::device::{Device, Pixels};
use crate::memorization::audit::{self, Kind};
use crate::memorization::{Nearest, Score, Search, Threshold, Within};
use anyhow::Result;

/// Images searched for at a time.
const BATCH: usize = 2048;

/// What is looked for beside copies.
#[derive(Debug, Clone, Copy)]
pub struct AuditOptions {
    pub threshold: Threshold,
    /// Whether mirror images of samples are copies too.
    pub mirror: bool,
    /// Whether training images that nearly repeat others are looked for.
    pub near: bool,
}

/// What was found.
pub struct Audit<'a> {
    pub training: &'a Dataset,
    pub samples: &'a Dataset,
    pub options: AuditOptions,
    /// Of each sample, and of its mirror image where that was asked.
    pub found: Vec<Nearest>,
    pub mirrored: Option<Vec<Nearest>>,
    /// As `emm score` counts, mirror images left out.
    pub score: Score,
    /// Of each sample.
    pub kinds: Vec<Kind>,
    /// Of each training image the samples that copy it, mirrored ones too where that was asked.
    pub copied: Vec<Vec<u32>>,
    /// The training images among themselves, where that was asked or held-out images need it.
    pub within: Option<Within>,
    /// See [`audit::auth_pct`]; of audits that know the training images among themselves.
    pub auth_pct: Option<f64>,
    /// See [`audit::c_t`]; of audits with held-out images.
    pub c_t: Option<f64>,
    /// Held-out images.
    pub holdout: Option<usize>,
    /// Those of them that are in the training set.
    pub holdout_in_train: Option<usize>,
}

/// Audits samples of the training set's shape. `progress` is told what is under way, how many images are done and of how
/// many.
///
/// # Errors
/// Device (exit 4): what the driver says.
pub fn audit<'a>(
    training: &'a Dataset,
    samples: &'a Dataset,
    holdout: Option<&Dataset>,
    options: AuditOptions,
    device: &Device,
    progress: &mut dyn FnMut(&'static str, usize, usize),
) -> Result<Audit<'a>> {
    let (len, threshold) = (training.image_len(), options.threshold);
    let mut search = Search::new(device, &training.pixels, len)?;
    let mut nearest = |what: &'static str, pixels: &[u8]| -> Result<Vec<Nearest>> {
        let mut found = Vec::with_capacity(pixels.len() / len);
        for batch in pixels.chunks(BATCH * len) {
            found.extend(search.nearest(&Pixels::Host(batch.into()))?);
            progress(what, found.len(), pixels.len() / len);
        }
        Ok(found)
    };
    let found = nearest("samples", &samples.pixels)?;
    let mirrored = match options.mirror {
        true => {
            let pixels = audit::mirror(&samples.pixels, samples.resolution, samples.channels);
            Some(nearest("mirrored samples", &pixels)?)
        }
        false => None,
    };
    let of_holdout = holdout.map(|set| nearest("held-out images", &set.pixels)).transpose()?;
    let repeats = search.repeats();
    let mut among = |what: &'static str, set: &Dataset| {
        let told = &mut |done| progress(what, done, set.len());
        Within::new(&set.pixels, set.image_len(), device, told)
    };
    let of_samples = among("samples among themselves", samples);
    let wanted = options.near || holdout.is_some();
    let within = wanted.then(|| among("training images among themselves", training));
    let mirrors = mirrored.as_deref();
    Ok(Audit {
        score: Score::of(&found, threshold, len, training.len(), repeats),
        kinds: audit::kinds(&found, mirrors, &of_samples, threshold),
        copied: audit::copied(&found, mirrors, training.len(), threshold),
        auth_pct: within.as_ref().and_then(|within| audit::auth_pct(&found, within)),
        c_t: of_holdout.as_ref().and_then(|holdout| audit::c_t(&found, holdout)),
        holdout: holdout.map(Dataset::len),
        holdout_in_train: of_holdout
            .as_ref()
            .map(|found| found.iter().filter(|n| n.squared[0] == 0).count()),
        training,
        samples,
        options,
        found,
        mirrored,
        within,
    })
}

/// A sample that is a copy.
#[derive(Debug, Clone, Copy)]
pub struct Copy {
    pub sample: usize,
    /// Of what makes it one.
    pub nearest: Nearest,
    /// Only its mirror image is one.
    pub mirrored: bool,
}

impl Copy {
    /// L2 distances over 8-bit pixels from the nearest training image, and from the nearest one that differs from that.
    pub fn distances(&self) -> [f64; 2] {
        let second = self.nearest.distinct.map_or(f64::INFINITY, |d| (d.squared as f64).sqrt());
        [(self.nearest.squared[0] as f64).sqrt(), second]
    }

    /// d1/d2.
    pub fn ratio(&self) -> f64 {
        let [d1, d2] = self.distances();
        d1 / d2
    }
}

impl Audit<'_> {
    /// All copies, the clearest first: by d1/d2, then d1, then the sample.
    pub fn copies(&self) -> Vec<Copy> {
        let (found, mirrors) = (&self.found, self.mirrored.as_deref());
        let copy = |sample: usize| {
            let nearest = *audit::copy_of(found, mirrors, sample, self.options.threshold)?;
            let mirrored = !self.options.threshold.memorized_distinct(&found[sample]);
            Some(Copy { sample, nearest, mirrored })
        };
        let mut all: Vec<Copy> = (0..found.len()).filter_map(copy).collect();
        let key = |c: &Copy| (c.ratio(), c.distances()[0]);
        all.sort_by(|a, b| {
            let ((ra, da), (rb, db)) = (key(a), key(b));
            ra.total_cmp(&rb).then(da.total_cmp(&db)).then(a.sample.cmp(&b.sample))
        });
        all
    }

    /// Samples of a kind.
    pub fn count(&self, kind: Kind) -> usize {
        self.kinds.iter().filter(|k| **k == kind).count()
    }

    /// Copies with identical training images counted once, mirrored ones too where that was asked; none if all training
    /// images are equal, for then nothing can be told to be one.
    pub fn memorized_distinct(&self) -> Option<u64> {
        self.score.memorized_distinct.map(|_| self.count(Kind::Memorized) as u64)
    }

    /// Samples of which only the mirror image is a copy, where that was asked.
    pub fn only_mirrored(&self) -> Option<usize> {
        self.mirrored.as_ref()?;
        Some(self.copies().iter().filter(|c| c.mirrored).count())
    }

    /// Training images that a sample copies.
    pub fn copied_images(&self) -> usize {
        self.copied.iter().filter(|samples| !samples.is_empty()).count()
    }

    /// Training images that nearly repeat another one, where that was asked.
    pub fn near_duplicates(&self) -> Option<Vec<(usize, Nearest)>> {
        let within = self.within.as_ref().filter(|_| self.options.near)?;
        Some(within.near(self.options.threshold).collect())
    }

    /// Copied training images, the most copied first.
    pub fn most_copied(&self) -> Vec<(usize, &[u32])> {
        let all = self.copied.iter().map(Vec::as_slice).enumerate();
        let mut all: Vec<_> = all.filter(|(_, samples)| !samples.is_empty()).collect();
        all.sort_by_key(|(image, samples)| (std::cmp::Reverse(samples.len()), *image));
        all
    }

    /// Whether the ratio depends on how identical training images are counted.
    pub fn repeats_matter(&self) -> bool {
        self.score.memorized_distinct.is_none_or(|distinct| distinct != self.score.memorized)
    }
}
