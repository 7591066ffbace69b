//! `emm gap --holdout`: losses, membership and effective images by their definitions; what a run that memorizes shows, and one
//! that was stopped early does not.

use crate::find::{TINY, cpu, digits, folder};
use crate::gap::Shrink;
use crate::nearest::smooth;
use crate::ops::fresh_seed;
use crate::optimal::{definition, entropy};
use crate::support::emm_in;
use emm::data::Dataset;
use emm::data::subset::{pick, without};
use emm::rng::{Stream, fill_normals, permute, tag};
use emm::sampler::{Denoise, Gaussian, Optimal};
use emm::study::held::{Held, HeldOptions, held};
use serde_json::Value;
use std::path::Path;

fn set_of(pixels: Vec<u8>, side: usize, channels: usize) -> Dataset {
    Dataset { resolution: side, channels, pixels, labels: None, names: vec![] }
}

fn floats(set: &Dataset) -> Vec<Vec<f64>> {
    let image = |u: &[u8]| u.iter().map(|&u| u as f64 / 127.5 - 1.0).collect();
    set.pixels.chunks(set.image_len()).map(image).collect()
}

fn square_of_difference(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum()
}

/// The inverse of a matrix [n, n], by Gauss and Jordan with pivots.
fn inverse(matrix: &[f64], n: usize) -> Vec<f64> {
    let (mut a, mut b) = (matrix.to_vec(), vec![0.0; n * n]);
    (0..n).for_each(|i| b[i * n + i] = 1.0);
    for k in 0..n {
        let best = (k..n).max_by(|&i, &j| a[i * n + k].abs().total_cmp(&a[j * n + k].abs()));
        let best = best.unwrap();
        for c in 0..n {
            a.swap(k * n + c, best * n + c);
            b.swap(k * n + c, best * n + c);
        }
        let pivot = a[k * n + k];
        for c in 0..n {
            a[k * n + c] /= pivot;
            b[k * n + c] /= pivot;
        }
        for i in (0..n).filter(|&i| i != k) {
            let factor = a[i * n + k];
            for c in 0..n {
                a[i * n + c] -= factor * a[k * n + c];
                b[i * n + c] -= factor * b[k * n + c];
            }
        }
    }
    b
}

/// E‖D_G(y + σz) − y‖² over z, of Σ(Σ + σ²I)⁻¹ as a matrix.
fn gaussian_loss(images: &[Vec<f64>], y: &[f64], sigma: f64) -> f64 {
    let (n, d) = (images.len() as f64, y.len());
    let mean: Vec<f64> = (0..d).map(|p| images.iter().map(|i| i[p]).sum::<f64>() / n).collect();
    let mut covariance = vec![0.0; d * d];
    for image in images {
        for p in 0..d {
            for q in 0..d {
                covariance[p * d + q] += (image[p] - mean[p]) * (image[q] - mean[q]) / n;
            }
        }
    }
    let mut noisy = covariance.clone();
    (0..d).for_each(|p| noisy[p * d + p] += sigma * sigma);
    let inverse = inverse(&noisy, d);
    let product = |p: usize, q: usize| -> f64 {
        (0..d).map(|k| covariance[p * d + k] * inverse[k * d + q]).sum()
    };
    let (mut bias, mut square) = (0.0, 0.0);
    for p in 0..d {
        let row: Vec<f64> = (0..d).map(|q| product(p, q)).collect();
        let kept: f64 = (0..d).map(|q| row[q] * (y[q] - mean[q])).sum();
        bias += (kept - (y[p] - mean[p])).powi(2);
        square += row.iter().map(|v| v * v).sum::<f64>();
    }
    bias + sigma * sigma * square
}

/// With more images than pixels, and with fewer; images of the set and others.
#[test]
fn the_gaussians_loss_is_that_of_its_matrix() {
    for images in [70, 12, 2, 1] {
        let seed = fresh_seed();
        let all = set_of(smooth(images + 5, 4, 3, 60, seed), 4, 3);
        let set = set_of(all.pixels[..images * 48].to_vec(), 4, 3);
        let gaussian = Gaussian::new(&set, &cpu(), &mut |_, _| ());
        let (of_set, of_all) = (floats(&set), floats(&all));
        let centred = gaussian.centred(&all.pixels, &cpu());
        for sigma in [0.05, 0.7, 3.0, 80.0] {
            for i in [0, images - 1, images, images + 4] {
                let want = gaussian_loss(&of_set, &of_all[i], sigma);
                let got = gaussian.expected_loss(&centred[i], sigma);
                assert!(
                    (got - want).abs() < 1e-8 * want + 1e-10,
                    "{got} for {want}: image {i} of {images}, sigma {sigma}, seed {seed}"
                );
            }
            // Over the whole set it is σ² Σ λ / (λ + σ²), at high noise about the variance.
            let mean: f64 =
                centred[..images].iter().map(|c| gaussian.expected_loss(c, sigma)).sum::<f64>();
            if sigma == 80.0 {
                let variance: f64 = (0..images)
                    .flat_map(|i| of_set[..i].iter().map(move |b| (i, b)))
                    .map(|(i, b)| square_of_difference(&of_set[i], b))
                    .sum::<f64>()
                    / (images * images) as f64;
                // Σ λ / (1 + λ/σ²) with no λ above their sum.
                let (mean, least) =
                    (mean / images as f64, variance * (1.0 - variance / (sigma * sigma)));
                assert!(
                    mean <= variance + 1e-9 && mean >= least - 1e-9,
                    "{mean} for {variance}, seed {seed}"
                );
            }
        }
    }
}

/// What [`held`] is of two halves of some images.
fn measured(sets: [&Dataset; 2], sigmas: &[f64], options: HeldOptions) -> Held {
    let (device, weight) = (cpu(), |s: f64| 1.0 + 1.0 / (s * s));
    let gaussian = Gaussian::new(sets[0], &device, &mut |_, _| ());
    let mut optimum = Optimal::new(sets[0], &device);
    let told = &mut |_, _| ();
    held(&mut Shrink, &mut optimum, &gaussian, sets, &device, &weight, sigmas, options, told)
        .unwrap()
}

#[test]
fn losses_areas_and_effective_images_are_those_of_the_definitions() {
    let seed = fresh_seed();
    let set = |first: usize, count: usize| {
        set_of(smooth(60, 8, 1, 80, seed)[first * 64..(first + count) * 64].to_vec(), 8, 1)
    };
    let (train, others) = (set(0, 35), set(35, 25));
    let sigmas = [20.0, 2.0, 1.1, 0.5, 0.05];
    let options = HeldOptions { images: 30, noises: 3, seed };
    let found = measured([&train, &others], &sigmas, options);
    assert_eq!((found.images, found.noises), ([30, 25], 3));
    let of_train = floats(&train);
    let mut scores = Vec::new();
    for (step, (level, &sigma)) in found.levels.iter().zip(&sigmas).enumerate() {
        let weight = 1.0 + 1.0 / (sigma * sigma);
        let mut sides = Vec::new();
        for (set, losses) in [(&train, &level.train), (&others, &level.holdout)] {
            let count = set.len().min(30);
            let (mut sums, mut each) = ([0.0; 5], Vec::new());
            for place in 0..count {
                let image = permute(place as u64, set.len() as u64, seed, u64::MAX) as usize;
                let y = &floats(set)[image];
                let mut own = 0.0;
                for noise in 0..3 {
                    let (mut z, draw) = (vec![0.0; 64], (place * 3 + noise) as u32);
                    fill_normals(&mut z, draw, step as u32, tag(Stream::Diagnostic, 1), seed);
                    let x: Vec<f32> =
                        y.iter().zip(&z).map(|(y, &z)| (y + sigma * z as f64) as f32).collect();
                    let ours: Vec<f64> =
                        x.iter().map(|x| (x / (1.0 + sigma * sigma) as f32) as f64).collect();
                    let best = definition(&of_train, &x, sigma);
                    own += square_of_difference(&ours, y) / 3.0;
                    sums[1] += square_of_difference(&best, y) / 3.0;
                    sums[2] += square_of_difference(&ours, &best) / 3.0;
                    sums[3] += entropy(&of_train, &x, sigma).exp() / 3.0;
                }
                sums[0] += own;
                sums[4] += gaussian_loss(&of_train, y, sigma);
                each.push(own);
            }
            let [loss, optimum, gap, effective, gaussian] = sums.map(|s| s / count as f64);
            let pairs = [
                (losses.loss, weight * loss),
                (losses.optimum_loss, weight * optimum),
                (losses.gap, weight * gap),
                (losses.effective_images, effective),
                (losses.gaussian_loss, weight * gaussian),
            ];
            for (got, want) in pairs {
                assert!(
                    (got - want).abs() < 1e-5 * want.abs() + 1e-6,
                    "{got} for {want}: {losses:?}, seed {seed}"
                );
            }
            sides.push(each);
        }
        let wins = |a: f64, b: f64| if a < b { 1.0 } else { 0.5 * (a == b) as u8 as f64 };
        let area: f64 =
            sides[0].iter().flat_map(|a| sides[1].iter().map(move |b| wins(*a, *b))).sum();
        assert!((level.membership.auc - area / (30.0 * 25.0)).abs() < 1e-9, "seed {seed}");
        let least = sides[1].iter().copied().fold(f64::INFINITY, f64::min);
        let below = sides[0].iter().filter(|a| **a < least).count() as f64 / 30.0;
        assert_eq!(level.membership.true_positive_rate, below, "seed {seed}");
        scores.push(sides);
    }
    // All levels: ranks by counting, and an area by pairs.
    let rank = |v: f64, sides: &[Vec<f64>]| -> f64 {
        sides.concat().iter().map(|&o| if o < v { 1.0 } else { 0.5 * (o == v) as u8 as f64 }).sum()
    };
    let mean = |side: usize, i: usize| -> f64 { scores.iter().map(|s| rank(s[side][i], s)).sum() };
    let wins: f64 = (0..30)
        .flat_map(|i| (0..25).map(move |j| (i, j)))
        .map(|(i, j)| match mean(0, i) - mean(1, j) {
            d if d.abs() < 1e-9 => 0.5,
            d => (d < 0.0) as u8 as f64,
        })
        .sum();
    assert!((found.all_levels.auc - wins / (30.0 * 25.0)).abs() < 1e-9, "seed {seed}");
    let best = found.best_level.unwrap();
    assert_eq!((best.chosen_on, best.images), ([15, 13], [15, 12]));
    assert!(sigmas.contains(&best.sigma));
    // Where the optimum chooses: on the line between the levels around 2, in logarithms.
    let effective: Vec<f64> = found.levels.iter().map(|l| l.train.effective_images).collect();
    let sigma = found.collapse_sigma.unwrap();
    let above = effective.iter().rposition(|n| *n >= 2.0).unwrap();
    let share = (sigma / sigmas[above]).ln() / (sigmas[above + 1] / sigmas[above]).ln();
    let line = effective[above].ln() + share * (effective[above + 1] / effective[above]).ln();
    assert!(
        (0.0..=1.0).contains(&share) && (line - 2f64.ln()).abs() < 1e-9,
        "{share} {effective:?}"
    );
}

/// Not a number for some images.
struct Lost;

impl Denoise for Lost {
    fn image_len(&self) -> usize {
        64
    }
    fn max_batch(&self) -> usize {
        7
    }
    fn sigma_range(&self) -> (f64, f64) {
        (0.0, f64::INFINITY)
    }
    fn denoise(
        &mut self,
        x: &[f32],
        _sigma: &[f64],
        _labels: &[u32],
        out: &mut [f32],
    ) -> anyhow::Result<()> {
        out.copy_from_slice(x);
        out[0] = f32::NAN;
        Ok(())
    }
}

#[test]
fn a_loss_that_is_no_number_is_an_error() {
    let (all, device) = (digits(30), cpu());
    let [train, others] =
        [0..20, 20..30].map(|r: std::ops::Range<usize>| pick(&all, &r.collect::<Vec<usize>>()));
    let gaussian = Gaussian::new(&train, &device, &mut |_, _| ());
    let mut optimum = Optimal::new(&train, &device);
    let options = HeldOptions { images: 20, noises: 1, seed: 3 };
    let (sets, one, told) = ([&train, &others], |_: f64| 1.0, &mut |_, _| ());
    let found =
        held(&mut Lost, &mut optimum, &gaussian, sets, &device, &one, &[2.0], options, told);
    let said = found.unwrap_err().to_string();
    assert!(said.contains("noise level 2.0000 is not finite"), "{said}");
}

#[test]
fn what_is_shared_is_left_out_and_nothing_collapses_within_high_noise() {
    let all = digits(40);
    let set = |range: std::ops::Range<usize>| Dataset {
        pixels: all.pixels[range.start * 64..range.end * 64].to_vec(),
        ..all.clone()
    };
    assert_eq!(without(&set(15..40), &set(0..20)).pixels, set(20..40).pixels);
    let options = HeldOptions { images: 20, noises: 1, seed: 3 };
    let found = |sigmas: &[f64]| measured([&set(0..20), &set(20..40)], sigmas, options);
    assert_eq!(found(&[80.0, 40.0]).collapse_sigma, None);
    assert_eq!(found(&[0.02, 0.01]).collapse_sigma, None);
    let high = found(&[1e4]).levels[0].train.effective_images;
    assert!((high - 20.0).abs() < 1e-3, "all count alike at high noise: {high}");
}

/// Trains on the images of `d.zip` and compares with those of `h.zip`; the areas by all levels and by the best.
fn areas(dir: &Path, name: &str, flags: &str) -> (Value, [f64; 2]) {
    let train = format!(
        "train --data d.zip --run {name} --precond edm --channels 16 --mult 1 --blocks 1 --attn none --dropout 0 --batch 20 \
         --lr 4e-3 --ramp-epochs 0 --ema-rate 0.95 --evaluations 0 --quiet {flags}"
    );
    emm_in(dir, train.split_whitespace()).ok();
    let gap = format!("gap --run {name} --data d.zip --holdout h.zip --noises 2 --json --quiet");
    let found = emm_in(dir, gap.split_whitespace()).json();
    let area = |of: &Value| of["auc"].as_f64().unwrap();
    let both = [area(&found["all_levels"]), area(&found["best_level"]["membership"])];
    (found, both)
}

#[test]
fn a_run_that_memorizes_betrays_its_images_and_an_early_stop_does_not() {
    let dir = folder();
    let dir = dir.path();
    // At random, since digits of one writer lie side by side: both sets have to be drawn alike.
    let all = Dataset { labels: None, ..Dataset::digits() };
    let drawn = |places: std::ops::Range<u64>| {
        let order: Vec<usize> = places.map(|i| permute(i, 1797, 5, 0) as usize).collect();
        pick(&all, &order)
    };
    drawn(0..40).save(&dir.join("d.zip"), true).unwrap();
    drawn(40..240).save(&dir.join("h.zip"), false).unwrap();
    let (early, of_early) = areas(dir, "early", "--epochs 2");
    let (late, of_late) = areas(dir, "late", "--epochs 1200");
    assert!(of_early.iter().all(|a| (0.3..0.7).contains(a)), "{of_early:?}");
    // At high noise no loss tells, which the mean over all levels feels.
    assert!(of_late[0] > 0.8 && of_late[1] > 0.95, "{of_late:?}");
    let low = |of: &Value| of["all_levels"]["auc_interval"][0].as_f64().unwrap();
    assert!(low(&early) < 0.5 && low(&late) > 0.6, "{of_early:?} {of_late:?}");
}

#[test]
fn held_out_images_through_the_program() {
    let dir = folder();
    let dir = dir.path();
    let all = digits(70);
    let save = |name: &str, range: std::ops::Range<usize>| {
        let pixels = all.pixels[range.start * 64..range.end * 64].to_vec();
        Dataset { pixels, ..all.clone() }.save(&dir.join(name), false).unwrap();
    };
    save("h.zip", 30..70);
    save("inside.zip", 5..9);
    emm_in(dir, format!("train --data d.zip --run r --quiet {TINY}").split_whitespace()).ok();
    let go =
        |flags: &str| emm_in(dir, format!("gap --run r --data d.zip {flags}").split_whitespace());
    let found = go("--holdout h.zip --levels 4 --out r/gap --json").json();
    assert_eq!(found["images"], serde_json::json!([40, 30]));
    assert_eq!((&found["holdout_in_train"], &found["foreign_data"]), (&10.into(), &false.into()));
    let stored: Value =
        serde_json::from_slice(&std::fs::read(dir.join("r/gap/gap.json")).unwrap()).unwrap();
    assert_eq!(stored, found);
    for file in ["gap.html", "levels.csv", "losses.pdf", "losses.png", "losses.svg", "losses.json"]
    {
        assert!(dir.join("r/gap").join(file).metadata().unwrap().len() > 200, "{file}");
    }
    // Neither threads nor how many are asked at a time change a bit.
    assert_eq!(go("--holdout h.zip --levels 4 --threads 1 --json").json(), found);
    let said = go("--holdout h.zip --levels 2 --images 20 --out t.csv").ok();
    assert!(said.contains("warning: 10 held-out images are in the training set"), "{said}");
    assert!(said.contains("warning: fewer than 100 held-out images"), "{said}");
    assert_eq!(std::fs::read_to_string(dir.join("t.csv")).unwrap().lines().count(), 3);
    emm_in(dir, ["report", "r"]).ok();
    let page = std::fs::read_to_string(dir.join("r/report.html")).unwrap();
    assert!(page.contains("Training and held-out images") && page.contains("AUC"));
    let other =
        emm_in(dir, "gap --run r --data h.zip --holdout d.zip --levels 2 --json".split(' '));
    assert_eq!(other.json()["foreign_data"], true);

    // With labels the optimum is that of the class, and both sets need them.
    let labelled = |name: &str, order: &[usize]| {
        pick(&Dataset::digits(), order).save(&dir.join(name), false).unwrap();
    };
    labelled("l.zip", &[0, 1, 2, 4, 5, 9, 10, 11, 12, 14, 15, 19]);
    labelled("lh.zip", &[20, 21, 22, 25, 29]);
    labelled("three.zip", &[20, 3]);
    let train = format!("train --data l.zip --run rl --cond 1 --quiet {TINY}");
    emm_in(dir, train.split_whitespace()).ok();
    let of_classes = |holdout: &str| {
        let flags = format!("gap --run rl --data l.zip --holdout {holdout} --levels 3 --json");
        emm_in(dir, flags.split_whitespace())
    };
    let found = of_classes("lh.zip").json();
    // Two images of each class that there is, not all twelve.
    let most = found["levels"][0]["train"]["effective_images"].as_f64().unwrap();
    assert!((1.99..2.01).contains(&most), "{most}");
    of_classes("h.zip").refused(3, "--holdout: h.zip: 0 classes", "the network has 10");
    of_classes("three.zip").refused(3, "--holdout: three.zip: has an image of class 3", "l.zip");

    go("--holdout h.zip --out r/gap").refused(2, "r/gap: ", "--force");
    go("--holdout h.zip --levels 2 --out r/gap --force --quiet").ok();
    go("--holdout h.zip --out gap.png").refused(2, "--out: gap.png: ", "is a folder");
    go("--holdout inside.zip").refused(3, "--holdout: inside.zip: ", "all 4 are");
    go("--holdout nowhere.zip").refused(3, "nowhere.zip", "");
    go("--holdout h.zip --noises 0").refused(2, "--noises: 0", "");
    assert_eq!(go("--holdout h.zip --draws 5").code, 2);
    assert_eq!(go("--images 5").code, 2);
    emm_in(dir, "data subset h.zip --size 4 --resolution 4 --out small.zip".split(' ')).ok();
    go("--holdout small.zip").refused(3, "small.zip: expected images of 8x8", "found 4x4");
}
