//! The closed-form optimum against its definition in float64, where images are large enough to be told apart by
//! sketches.

use crate::nearest::{cpu, smooth};
use crate::support::emm as run;
use emm::data::{Dataset, npy};
use emm::device::cpu::dots::Isa;
use emm::rng::{Stream, fill_normals, tag};
use emm::sampler::{Denoise as _, Optimal, Posterior as _};

/// The images' weights by the definition, the largest 1.
fn weights(images: &[Vec<f64>], x: &[f32], sigma: f64) -> Vec<f64> {
    let squared = |y: &Vec<f64>| -> f64 {
        x.iter().zip(y).map(|(&x, y)| (x as f64 - y) * (x as f64 - y)).sum()
    };
    let exponents: Vec<f64> = images.iter().map(|y| -squared(y) / (2.0 * sigma * sigma)).collect();
    let highest = exponents.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    exponents.iter().map(|e| (e - highest).exp()).collect()
}

/// D*(x; σ) by the definition.
pub fn definition(images: &[Vec<f64>], x: &[f32], sigma: f64) -> Vec<f64> {
    let weights = weights(images, x, sigma);
    let (mut sum, total) = (vec![0.0; x.len()], weights.iter().sum::<f64>());
    for (y, w) in images.iter().zip(weights) {
        sum.iter_mut().zip(y).for_each(|(s, y)| *s += w * y);
    }
    sum.into_iter().map(|s| s / total).collect()
}

/// −Σ p ln p of the shares p of the weights, by the definition.
pub fn entropy(images: &[Vec<f64>], x: &[f32], sigma: f64) -> f64 {
    let weights = weights(images, x, sigma);
    let total: f64 = weights.iter().sum();
    let shares = weights.iter().map(|w| w / total).filter(|p| *p > 0.0);
    shares.map(|p| -p * p.ln()).sum()
}

/// ‖a − b‖ / ‖b‖.
fn error(got: &[f32], want: &[f64]) -> f64 {
    let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|v| v * v).sum::<f64>().sqrt();
    let off = norm(&mut got.iter().zip(want).map(|(&g, w)| g as f64 - w));
    off / norm(&mut want.iter().copied())
}

#[test]
fn the_optimum_equals_its_definition_at_every_noise_level() {
    let (side, channels, images) = (16, 3, 330);
    let len = side * side * channels;
    let mut pixels = smooth(images, side, channels, 30, 77);
    // Twins and near twins: several weights show at the lowest noise too.
    pixels.copy_within(..len, 5 * len);
    pixels.copy_within(..len, 9 * len);
    pixels[9 * len] ^= 1;
    let labels: Vec<u32> = (0..images as u32).map(|i| (i * i % 7 == 1) as u32).collect();
    let set = |labels| Dataset {
        resolution: side,
        channels,
        pixels: pixels.clone(),
        labels,
        names: vec![],
    };
    let floats: Vec<Vec<f64>> = pixels
        .chunks(len)
        .map(|image| image.iter().map(|&u| u as f64 / 127.5 - 1.0).collect())
        .collect();
    let sigmas = [0.002, 0.01, 0.03, 0.1, 0.3, 0.6, 1.0, 1.4, 1.9, 2.7, 4.0, 8.0, 20.0, 80.0, 1e3];
    let (mut x, mut sigma, mut class) = (vec![0.0f32; sigmas.len() * 3 * len], vec![], vec![]);
    for (i, x) in x.chunks_mut(len).enumerate() {
        sigma.push(sigmas[i / 3]);
        class.push((i % 2) as u32);
        fill_normals(x, 0, 0, tag(Stream::Diagnostic, 0), i as u64);
        let y = &floats[[0, 9, 7 * i][i % 3]];
        x.iter_mut().zip(y).for_each(|(x, y)| *x = (*x as f64 * sigmas[i / 3] + y) as f32);
    }
    for labelled in [false, true] {
        let labels = labelled.then(|| labels.clone());
        let class = if labelled { &class[..] } else { &[] };
        let mut first: Option<Vec<f32>> = None;
        let mut entropies = vec![f64::NAN; sigma.len()];
        for isa in Isa::available() {
            for threads in [1, 3] {
                let mut optimal = Optimal::with(&set(labels.clone()), &cpu(threads), isa);
                let mut got = vec![f32::NAN; x.len()];
                entropies.fill(f64::NAN);
                optimal.denoise_weighed(&x, &sigma, class, &mut got, &mut entropies).unwrap();
                let first = first.get_or_insert_with(|| got.clone());
                assert!(*first == got, "{isa:?}, {threads} threads: other bits");
                // An image's result does not depend on those beside it.
                for i in [0, 4, 13, 25, 40] {
                    let (range, mut alone) = (i * len..(i + 1) * len, vec![f32::NAN; len]);
                    let class = class.get(i..=i).unwrap_or_default();
                    optimal.denoise(&x[range.clone()], &sigma[i..=i], class, &mut alone).unwrap();
                    assert!(alone == got[range], "image {i} alone");
                }
            }
        }
        let got = first.unwrap();
        for (i, (got, x)) in got.chunks(len).zip(x.chunks(len)).enumerate() {
            let of_class = |n: &usize| !labelled || class[i] == labels.as_ref().unwrap()[*n];
            let images: Vec<_> = (0..images).filter(of_class).map(|n| floats[n].clone()).collect();
            let off = error(got, &definition(&images, x, sigma[i]));
            assert!(off < 1e-6, "sigma {}, labels {labelled}: off by {off:.1e}", sigma[i]);
            let (found, want) = (entropies[i], entropy(&images, x, sigma[i]));
            assert!(
                (found - want).abs() < 1e-6,
                "entropy {found} for {want} at sigma {}",
                sigma[i]
            );
        }
    }
}

/// Halfway between two images that have little in common, seven bits cannot tell which one is nearer.
#[test]
fn images_as_near_as_each_other_both_count() {
    let len = 768;
    let pixels = smooth(300, 16, 3, 30, 8);
    let set = Dataset { resolution: 16, channels: 3, pixels, labels: None, names: vec![] };
    let y: Vec<Vec<f64>> = (set.pixels.chunks(len))
        .map(|image| image.iter().map(|&u| u as f64 / 127.5 - 1.0).collect())
        .collect();
    let mut optimal = Optimal::new(&set, &cpu(1));
    for pair in 0..30 {
        let (a, b) = (&y[pair], &y[299 - pair]);
        let x: Vec<f32> = a.iter().zip(b).map(|(a, b)| ((a + b) / 2.0) as f32).collect();
        for sigma in [0.01, 0.05, 0.2] {
            let mut out = vec![f32::NAN; len];
            optimal.denoise(&x, &[sigma], &[], &mut out).unwrap();
            let off = error(&out, &definition(&y, &x, sigma));
            assert!(off < 1e-6, "pair {pair}, sigma {sigma}: off by {off:.1e}");
        }
    }
}

#[test]
fn images_that_are_not_finite_stay_so_and_spoil_no_other() {
    let set = Dataset {
        resolution: 16,
        channels: 3,
        pixels: smooth(300, 16, 3, 9, 1),
        labels: None,
        names: vec![],
    };
    let mut optimal = Optimal::new(&set, &cpu(2));
    for sigma in [0.1, 30.0] {
        let (mut x, mut out) = (vec![0.25f32; 3 * 768], vec![0.0; 3 * 768]);
        (x[5], x[768 + 5]) = (f32::NAN, f32::INFINITY);
        optimal.denoise(&x, &[sigma; 3], &[], &mut out).unwrap();
        assert!(out[..2 * 768].iter().all(|v| v.is_nan()), "sigma {sigma}");
        assert!(out[2 * 768..].iter().all(|v| v.is_finite()), "sigma {sigma}");
    }
}

#[test]
fn its_sampler_is_timed_with_fixed_keys() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let (images, latents, flat) = (at("images.npy"), at("latents.npy"), at("flat.npy"));
    let digits = Dataset::digits();
    npy::write(images.as_ref(), false, &[40, 8, 8, 1], &digits.pixels[..40 * 64]).unwrap();
    npy::write(flat.as_ref(), false, &[40, 64], &digits.pixels[..40 * 64]).unwrap();
    let mut z = vec![0.0f32; 3 * 64];
    fill_normals(&mut z, 0, 0, tag(Stream::Latent, 0), 5);
    npy::write(latents.as_ref(), false, &[3, 1, 8, 8], &z).unwrap();
    let base = ["bench", "optimal", "--references", "30", "--steps", "8", "--repeats", "1"];
    let bench = |more: &[&str]| run(base.iter().chain(more));
    let found =
        bench(&["--images", "3", "--data", &images, "--latents", &latents, "--json"]).json();
    for key in ["images_per_s", "median_s", "prepare_s", "peak_rss_bytes"] {
        assert!(found[key].as_f64().is_some_and(|v| v >= 0.0), "{key}: {found}");
    }
    assert_eq!((&found["images"], &found["references"]), (&3.into(), &30.into()));
    assert_eq!((&found["steps"], &found["memorized"]), (&8.into(), &3.into()));
    let nearest = found["nearest"].as_array().unwrap();
    assert!(nearest.len() == 3 && nearest.iter().all(|n| n.as_u64().unwrap() < 30), "{found}");

    bench(&["--images", "4", "--data", &images, "--latents", &latents]).refused(
        3,
        &latents,
        "expected 4 latents",
    );
    bench(&["--data", &flat]).refused(3, &flat, "30 square images");
    run(["bench", "optimal", "--data", &images]).refused(3, &images, "10000 square images");
    bench(&["--images", "0"]).refused(2, "--images, ", "at least 1");
}
