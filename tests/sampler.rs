//! The Heun sampler and the closed-form optimum.

use crate::support::{Golden, emm as run};
use anyhow::Result;
use emm::data::{Dataset, Image, npy};
use emm::device::{Cpu, Device, Pixels};
use emm::error::exit_code;
use emm::memorization::{References, Score, Search, Threshold};
use emm::rng::{self, Stream, tag, uniform_label};
use emm::sampler::{self, Denoise, HeunOptions, Optimal, Start};

/// ‖a − b‖ / ‖b‖; an error where it is no number or the lengths differ.
#[track_caller]
fn assert_close(got: &[f32], want: &[f64], bar: f64, what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    let square = |v: f64| v * v;
    let error: f64 = got.iter().zip(want).map(|(&g, &w)| square(g as f64 - w)).sum();
    let norm: f64 = want.iter().map(|&w| square(w)).sum();
    let relative = (error / norm).sqrt();
    assert!(relative < bar, "{what}: off by {relative:.1e}");
}

fn cpu(threads: usize) -> Device {
    Device::Cpu(Cpu::new(threads).unwrap())
}

/// The optimum for data N(mu, 0.25), mu_i = cos i.
struct Gaussian {
    image_len: usize,
    max_batch: usize,
    range: (f64, f64),
    evaluations: usize,
}

impl Denoise for Gaussian {
    fn image_len(&self) -> usize {
        self.image_len
    }
    fn max_batch(&self) -> usize {
        self.max_batch
    }
    fn sigma_range(&self) -> (f64, f64) {
        self.range
    }
    fn denoise(&mut self, x: &[f32], sigma: &[f64], _: &[u32], out: &mut [f32]) -> Result<()> {
        assert!(sigma.len() <= self.max_batch);
        self.evaluations += 1;
        for (i, (out, &x)) in out.iter_mut().zip(x).enumerate() {
            let (s2, mu) = (sigma[i / self.image_len].powi(2), ((i % self.image_len) as f64).cos());
            *out = ((0.25 * x as f64 + s2 * mu) / (0.25 + s2)) as f32;
        }
        Ok(())
    }
}

fn gaussian(max_batch: usize) -> Gaussian {
    Gaussian { image_len: 27, max_batch, range: (0.0, f64::INFINITY), evaluations: 0 }
}

#[test]
fn heun_equals_the_algorithm_in_float64() {
    let g = Golden::open("score/heun.safetensors");
    let seeds: Vec<u64> = g.i64("seeds").iter().map(|&s| s as u64).collect();
    let levels = sampler::noise_levels(18, 7.0, 0.002, 80.0);
    for (got, want) in levels.iter().zip(g.f64("levels")) {
        assert!((got - want).abs() < 1e-12 * want, "level {got} for {want}");
    }
    let plain = HeunOptions::default();
    let narrow = HeunOptions { steps: 7, rho: 5.0, ..plain.clone() };
    let churned =
        HeunOptions { s_churn: 40.0, s_min: 0.05, s_max: 50.0, s_noise: 1.003, ..plain.clone() };
    for (name, options, range) in [
        ("plain", &plain, (0.0, f64::INFINITY)),
        ("narrow", &narrow, (0.02, 50.0)),
        ("churned", &churned, (0.0, f64::INFINITY)),
    ] {
        for max_batch in [1, 2, 8] {
            let mut d = Gaussian { range, ..gaussian(max_batch) };
            let images =
                sampler::sample(&mut d, Start::Seeds(&seeds), &[], options, &mut |_, _| true);
            let images = images.unwrap().unwrap();
            assert_close(&images, &g.f64(name), 1e-6, name);
            let batches = seeds.len().div_ceil(max_batch);
            assert_eq!(d.evaluations, batches * (2 * options.steps - 1));
        }
    }
}

#[test]
fn an_image_depends_on_its_seed_alone() {
    let churned = HeunOptions { s_churn: 40.0, ..Default::default() };
    let all: Vec<u64> = (0..10).collect();
    let images = |d: &mut dyn Denoise, seeds: &[u64], labels: &[u32]| {
        let start = Start::Seeds(seeds);
        sampler::sample(d, start, labels, &churned, &mut |_, _| true).unwrap().unwrap()
    };
    let digits = digits(60);
    let mut optimal = Optimal::new(&digits, &cpu(1));
    let labels: Vec<u32> = all.iter().map(|&s| uniform_label(s, 10)).collect();
    let together = images(&mut optimal, &all, &labels);
    let mut parallel = Optimal::new(&digits, &cpu(3));
    assert_eq!(images(&mut parallel, &all, &labels), together);
    for k in 0..all.len() {
        let alone = images(&mut optimal, &all[k..=k], &labels[k..=k]);
        assert_eq!(alone, together[k * 64..][..64], "image {k}");
    }
    let few = images(&mut gaussian(3), &all, &[]);
    assert_eq!(images(&mut gaussian(10), &all, &[]), few);
}

#[test]
fn latents_of_a_seed_give_its_image() {
    let mut latents = vec![0.0; 2 * 27];
    for (seed, latent) in [8, 9].into_iter().zip(latents.chunks_mut(27)) {
        rng::fill_normals(latent, 0, 0, tag(Stream::Latent, 0), seed);
    }
    let sample = |start| {
        sampler::sample(&mut gaussian(5), start, &[], &HeunOptions::default(), &mut |_, _| true)
    };
    let by_seed = sample(Start::Seeds(&[8, 9])).unwrap();
    assert_eq!(sample(Start::Latents(&latents)).unwrap(), by_seed);
}

#[test]
fn sampling_stops_when_told_and_refuses_what_is_not_finite() {
    let seeds: Vec<u64> = (0..9).collect();
    let start = Start::Seeds(&seeds);
    let o = HeunOptions::default();
    let mut calls = Vec::new();
    let stopped = sampler::sample(&mut gaussian(2), start, &[], &o, &mut |done, total| {
        calls.push((done, total));
        done < 4
    });
    assert_eq!(stopped.unwrap(), None);
    assert_eq!(calls, [(2, 9), (4, 9)]);
    struct Nan;
    impl Denoise for Nan {
        fn image_len(&self) -> usize {
            4
        }
        fn max_batch(&self) -> usize {
            3
        }
        fn sigma_range(&self) -> (f64, f64) {
            (0.0, f64::INFINITY)
        }
        fn denoise(&mut self, x: &[f32], _: &[f64], _: &[u32], out: &mut [f32]) -> Result<()> {
            out.copy_from_slice(x);
            out[5] = f32::NAN;
            Ok(())
        }
    }
    let e = sampler::sample(&mut Nan, start, &[], &o, &mut |_, _| true).unwrap_err();
    assert_eq!(exit_code(&e), 5);
    assert!(e.to_string().contains("seed 1"), "{e}");
}

#[test]
fn quantisation_is_exact() {
    for (x, want) in [(-1.0, 0), (1.0, 255), (-1.1, 0), (7.0, 255), (0.0, 128), (-0.003_94, 127)] {
        assert_eq!(sampler::quantise(x), want, "{x}");
    }
    for u in 0..=255u8 {
        // floor(127.5 x + 128) maps [u − 128, u − 127) / 127.5 to u; a training image comes back as itself.
        assert_eq!(sampler::quantise((u as f64 / 127.5 - 1.0) as f32), u);
    }
}

fn digits(n: usize) -> Dataset {
    let mut all = Dataset::digits();
    all.pixels.truncate(n * 64);
    all.labels.as_mut().unwrap().truncate(n);
    all
}

#[test]
fn the_optimum_equals_float64_at_every_level() {
    for name in ["optimal_digits", "optimal_rgb"] {
        let g = Golden::open(&format!("score/{name}.safetensors"));
        let shape = g.shape("images");
        let data = Dataset {
            resolution: shape[1],
            channels: shape[3],
            pixels: g.u8("images"),
            labels: Some(g.i64("labels").iter().map(|&l| l as u32).collect()),
            names: vec![],
        };
        let len = data.image_len();
        let (x, sigma, class) = (g.f32("x"), g.f64("sigma"), g.i64("class"));
        let want = g.f64("denoised");
        let mut optimal = Optimal::new(&data, &cpu(2));
        for conditional in [false, true] {
            let chosen: Vec<usize> =
                (0..sigma.len()).filter(|&i| (class[i] >= 0) == conditional).collect();
            let labels: Vec<u32> = chosen.iter().map(|&i| class[i] as u32).collect();
            let labels = if conditional { &labels[..] } else { &[] };
            let x: Vec<f32> = chosen.iter().flat_map(|&i| &x[i * len..][..len]).copied().collect();
            let s: Vec<f64> = chosen.iter().map(|&i| sigma[i]).collect();
            let mut out = vec![f32::NAN; x.len()];
            optimal.denoise(&x, &s, labels, &mut out).unwrap();
            for (k, &i) in chosen.iter().enumerate() {
                let what = format!("{name}, case {i}, sigma {}", sigma[i]);
                assert_close(&out[k * len..][..len], &want[i * len..][..len], 1e-6, &what);
            }
        }
    }
}

#[test]
fn the_optimum_refuses_a_class_without_images() {
    let mut data = digits(20);
    data.labels.as_mut().unwrap().fill(3);
    let mut optimal = Optimal::new(&data, &cpu(1));
    for label in [0, 4, 99] {
        let e = optimal.denoise(&[0.0; 64], &[1.0], &[label], &mut [0.0; 64]).unwrap_err();
        assert!(e.to_string().starts_with(&format!("label {label}: ")), "{e}");
    }
}

/// Samples of the optimum are all copies (paper, section 2): of digits, of random and of smooth RGB images.
#[test]
fn the_optimum_memorizes_everything() {
    let noise: Vec<u8> = (0..40 * 192)
        .map(|i| rng::philox([i, 0, 0, tag(Stream::Diagnostic, 0)], 1)[0] as u8)
        .collect();
    let smooth: Vec<u8> = (0..40 * 192)
        .map(|i| {
            let (image, y, x, c) = (i / 192, i % 192 / 24, i % 24 / 3, i % 3);
            let phase = (image * (3 + 2 * c)) as f64;
            (128.0 + 100.0 * (0.5 * x as f64 + 0.3 * y as f64 * c as f64 + phase).sin()) as u8
        })
        .collect();
    let rgb = |pixels| Dataset { resolution: 8, channels: 3, pixels, labels: None, names: vec![] };
    for (name, data) in
        [("50", digits(50)), ("100", digits(100)), ("noise", rgb(noise)), ("smooth", rgb(smooth))]
    {
        let device = cpu(2);
        let seeds: Vec<u64> = (0..200).collect();
        let mut optimal = Optimal::new(&data, &device);
        let o = HeunOptions::default();
        let images = sampler::sample(&mut optimal, Start::Seeds(&seeds), &[], &o, &mut |_, _| true);
        let images: Vec<u8> = images.unwrap().unwrap().into_iter().map(sampler::quantise).collect();
        let mut search = Search::new(&device, &data.pixels, data.image_len()).unwrap();
        let found = search.nearest(&Pixels::Host(images.into())).unwrap();
        let score = Score::of(&found, Threshold::default(), data.image_len(), data.len(), 0);
        assert_eq!(score.memorized, 200, "{name}: {score:?}");
        let copied: std::collections::HashSet<u32> = found.iter().map(|n| n.index[0]).collect();
        assert!(copied.len() > data.len() / 2, "{name}: only {} images copied", copied.len());
    }
}

/// A folder with `train.zip`, the first 50 digits.
fn scene() -> (tempfile::TempDir, impl Fn(&str) -> String) {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().to_path_buf();
    let at = move |name: &str| root.join(name).display().to_string();
    digits(50).save(at("train.zip").as_ref(), false).unwrap();
    (dir, at)
}

#[test]
fn optimal_writes_the_same_samples_in_five_forms() {
    let (_dir, at) = scene();
    let train = at("train.zip");
    let optimal = |out: &str, more: &[&str]| {
        let args = ["optimal", "--data", &train, "--seeds", "3,0-1,12", "--json", "--out", out];
        run(args.iter().chain(more))
    };
    for name in ["folder", "s.zip", "s.npz", "s.png", "s.npy"] {
        let json = optimal(&at(name), &[]).json();
        assert_eq!(json["images"], 4);
        optimal(&at(name), &[]).refused(2, &at(name), "--force");
        optimal(&at(name), &["--force", "--threads", "1"]).json();
    }
    let (shape, floats) = npy::read_f32(at("s.npy").as_ref()).unwrap();
    assert_eq!(shape, [4, 1, 8, 8]);
    let pixels: Vec<u8> = floats.into_iter().map(sampler::quantise).collect();
    // npz keeps the order asked for; folders and zips that of the names.
    let arrays = npy::read_npz(at("s.npz").as_ref()).unwrap();
    assert_eq!(arrays[0].1, npy::Array::new(&[4, 8, 8, 1], pixels.clone()));
    let zip = Dataset::open(at("s.zip").as_ref()).unwrap();
    assert_eq!(zip.labels, None);
    for (place, (seed, by_name)) in [(3, 2), (0, 0), (1, 1), (12, 3)].into_iter().enumerate() {
        let image = &pixels[place * 64..][..64];
        assert_eq!(zip.image(by_name), image, "seed {seed}");
        let png = std::fs::read(format!("{}/{seed:08}.png", at("folder"))).unwrap();
        assert_eq!(
            Image::decode(&png, &Default::default(), "png").unwrap().pixels,
            image,
            "seed {seed}"
        );
    }
    // All are copies, by every form that can be scored.
    for name in ["folder", "s.zip", "s.npz"] {
        let json = run(["score", "--samples", &at(name), "--reference", &train, "--json"]).json();
        assert_eq!(json["memorized"], 4, "{name}");
    }
}

#[test]
fn optimal_samples_one_class() {
    let (_dir, at) = scene();
    let (train, out) = (at("train.zip"), at("sevens.npz"));
    let args = ["optimal", "--data", &train, "--out", &out, "--json", "--seeds", "0-19"];
    run(args.iter().chain(&["--class", "7"])).json();
    let data = digits(50);
    let arrays = npy::read_npz(out.as_ref()).unwrap();
    let (_, pixels) = arrays[0].1.clone().of::<u8>("images").unwrap();
    let (_, labels) = arrays[1].1.clone().of::<i64>("labels").unwrap();
    assert_eq!(labels, [7; 20]);
    for n in References::new(&data.pixels, 64).nearest_k(&pixels, 1, &cpu(1)) {
        assert_eq!(data.labels.as_ref().unwrap()[n.index as usize], 7);
    }
    run(args.iter().chain(&["--force", "--class", "10"])).refused(2, "--class: ", "10");
}

#[test]
fn optimal_denoises_npy_files() {
    let g = Golden::open("score/optimal_rgb.safetensors");
    let (_dir, at) = scene();
    let data =
        Dataset { resolution: 8, channels: 3, pixels: g.u8("images"), labels: None, names: vec![] };
    data.save(at("rgb.zip").as_ref(), false).unwrap();
    let planes = |packed: Vec<f64>| -> Vec<f64> {
        let at = |k: usize| (k / 192 * 64 + k % 64) * 3 + k / 64 % 3;
        (0..packed.len()).map(|k| packed[at(k)]).collect()
    };
    let keep: Vec<usize> = (0..72).filter(|i| g.i64("class")[*i] < 0).collect();
    let rows = |v: Vec<f64>| -> Vec<f64> {
        keep.iter().flat_map(|&i| v[i * 192..][..192].to_vec()).collect()
    };
    let x = planes(rows(g.f32("x").into_iter().map(f64::from).collect()));
    let x: Vec<f32> = x.into_iter().map(|v| v as f32).collect();
    let sigma: Vec<f32> = keep.iter().map(|&i| g.f64("sigma")[i] as f32).collect();
    let n = keep.len();
    npy::write(at("x.npy").as_ref(), false, &[n, 3, 8, 8], &x).unwrap();
    npy::write(at("sigma.npy").as_ref(), false, &[n], &sigma).unwrap();
    let (rgb, x, sigma, out) = (at("rgb.zip"), at("x.npy"), at("sigma.npy"), at("out.npy"));
    let args = |images: &str, sigmas: &str, out: &str| {
        let args = ["optimal", "--data", &rgb, "--images", images, "--sigmas", sigmas];
        run(args.iter().chain(&["--out", out]))
    };
    args(&x, &sigma, &out).ok();
    let (shape, got) = npy::read_f32(out.as_ref()).unwrap();
    assert_eq!(shape, [n, 3, 8, 8]);
    // The file's noise levels are float32: their rounding is all that separates it from float64.
    assert_close(&got, &planes(rows(g.f64("denoised"))), 1e-5, "denoised");

    args(&x, &sigma, &at("out.zip")).refused(2, "--out: ", ".npy");
    args(&sigma, &sigma, &at("b.npy")).refused(3, &sigma, "expected shape [S, 3, 8, 8]");
    npy::write(at("zero.npy").as_ref(), false, &[n], &vec![0.0f32; n]).unwrap();
    args(&x, &at("zero.npy"), &at("b.npy")).refused(3, &at("zero.npy"), "above 0");
    npy::write(at("few.npy").as_ref(), false, &[n - 1], &vec![1.0f32; n - 1]).unwrap();
    args(&x, &at("few.npy"), &at("b.npy")).refused(3, &at("few.npy"), "expected shape [54]");
    npy::write(at("nan.npy").as_ref(), false, &[1, 3, 8, 8], &[f32::NAN; 192]).unwrap();
    args(&at("nan.npy"), &sigma, &at("b.npy")).refused(3, &at("nan.npy"), "not finite");
    assert!(!std::path::Path::new(&at("b.npy")).exists());
}

#[test]
fn optimal_takes_latents() {
    let (_dir, at) = scene();
    let mut latents = vec![0.0; 2 * 64];
    for (seed, latent) in [4, 9].into_iter().zip(latents.chunks_mut(64)) {
        rng::fill_normals(latent, 0, 0, tag(Stream::Latent, 0), seed);
    }
    npy::write(at("z.npy").as_ref(), false, &[2, 1, 8, 8], &latents).unwrap();
    let (train, z, a, b) = (at("train.zip"), at("z.npy"), at("a.npy"), at("b.npy"));
    run(["optimal", "--data", &train, "--latents", &z, "--out", &a]).ok();
    run(["optimal", "--data", &train, "--seeds", "4,9", "--out", &b]).ok();
    assert_eq!(std::fs::read(a).unwrap(), std::fs::read(b).unwrap());
}

#[test]
fn optimal_refuses_bad_flags_in_one_line() {
    let (_dir, at) = scene();
    let (train, out) = (at("train.zip"), at("o.npz"));
    let base = ["optimal", "--data", &train, "--out", &out];
    let with = |more: &[&str]| run(base.iter().chain(more));
    for bad in ["", "x", "3-1", "-5", "1,,2", "0-18446744073709551615", "1.5"] {
        with(&[&format!("--seeds={bad}")]).refused(2, "--seeds: ", "");
    }
    with(&["--seeds", "1,3,0-2"]).refused(2, "--seeds: ", "1 is there twice");
    with(&[]).refused(2, "--seeds: ", "--latents");
    with(&["--seeds", "1", "--steps", "0"]).refused(2, "--steps: ", "0");
    with(&["--seeds", "1", "--rho", "nan"]).refused(2, "--rho: ", "NaN");
    with(&["--seeds", "1", "--s-churn=-1"]).refused(2, "--s-churn: ", "-1");
    with(&["--seeds", "1", "--sigma-min", "90"]).refused(2, "--sigma-min: ", "below");
    let jpg = at("o.jpg");
    run(["optimal", "--data", &train, "--seeds", "1", "--out", &jpg]).refused(2, "--out: ", ".jpg");
    let missing = at("none.zip");
    run(["optimal", "--data", &missing, "--seeds", "1", "--out", &out]).refused(3, &missing, "");
    assert!(!std::path::Path::new(&out).exists());
}
