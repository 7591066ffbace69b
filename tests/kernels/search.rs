//! The search, the optimum and the sampler on a card: fresh inputs of ragged sizes, in every schedule.

use super::{card, cuda};
use crate::emulator::{for_each_schedule, in_check_build};
use crate::nearest::naive;
use crate::ops::fresh_seed;
use crate::optimal::definition;
use anyhow::Result;
use emm::check::golden::rel_err;
use emm::data::Dataset;
use emm::device::cuda::{Buffer, Cuda};
use emm::device::{Arg, Cpu, Device, Kernel, Pixels};
use emm::memorization::{Nearest, Neighbour, Search};
use emm::rng::{fill_normals, philox};
use emm::sampler::{
    CardOptimal, Denoise, HeunOptions, OnCard, Operands, Optimal, Start, sample, sample_each,
};

fn cpu() -> Device {
    Device::Cpu(Cpu::new(2).unwrap())
}

fn bytes(seed: u64, which: u32, len: usize) -> Vec<u8> {
    let word = |i: usize| philox([i as u32 / 4, which, 0, 0], seed)[i % 4];
    (0..len).map(|i| word(i) as u8).collect()
}

fn brute_force(references: &[u8], queries: &[u8], len: usize) -> Vec<Nearest> {
    let two = |n: &[Neighbour]| Nearest {
        index: [n[0].index, n[1].index],
        squared: [n[0].squared, n[1].squared],
    };
    naive(references, queries, len, 2).chunks(2).map(two).collect()
}

fn check_search(seed: u64, len: usize, references: usize, queries: usize) {
    let mut all = bytes(seed, 0, references * len);
    let mut asked = bytes(seed, 1, queries * len);
    // Ties, a query that is a reference, and the largest distance.
    all.copy_within(..len, (references - 1) * len);
    asked[..len].copy_from_slice(&all[..len]);
    if queries > 1 && references > 2 {
        asked[len..2 * len].fill(255);
        all[len..2 * len].fill(0);
    }
    let mut search = Search::new(&card(), &all, len).unwrap();
    let found = search.nearest(&Pixels::Host(asked.as_slice().into())).unwrap();
    let want = brute_force(&all, &asked, len);
    assert!(found == want, "seed {seed}: {references} of {len} bytes, {queries} queries");
}

#[test]
fn nearest_on_a_card_equals_brute_force_in_every_schedule() {
    let seed = fresh_seed();
    for_each_schedule(|_| {
        // Tensor cores take images of whole 16 bytes.
        for (len, references, queries) in
            [(16, 300, 130), (192, 129, 3), (48, 2, 1), (17, 70, 65), (3, 200, 2), (144, 5, 129)]
        {
            check_search(seed, len, references, queries);
        }
    });
    // More queries than a batch; images beyond the tensor cores' sums and beyond 32 bits.
    for (len, references, queries) in [(16, 40, 2100), (32_784, 3, 2), (66_000, 3, 2)] {
        check_search(seed, len, references, queries);
    }
}

fn data(seed: u64, images: usize, resolution: usize, channels: usize, labels: bool) -> Dataset {
    let pixels = bytes(seed, 2, images * resolution * resolution * channels);
    let labels = labels.then(|| (0..images as u32).map(|i| (i * 7 + i / 5) % 4).collect());
    Dataset { resolution, channels, pixels, labels }
}

/// D* over the images of a label, or all.
fn optimum(data: &Dataset, x: &[f32], sigma: f64, label: Option<u32>) -> Vec<f32> {
    let floats = |i: usize| data.image(i).iter().map(|&u| u as f64 / 127.5 - 1.0).collect();
    let counts = |&i: &usize| label.is_none_or(|l| data.labels.as_ref().unwrap()[i] == l);
    let images: Vec<Vec<f64>> = (0..data.len()).filter(counts).map(floats).collect();
    definition(&images, x, sigma).into_iter().map(|v| v as f32).collect()
}

fn check_optimum(seed: u64, cuda: &Cuda) {
    for (images, resolution, channels, queries) in [(37, 4, 3, 5), (70, 8, 1, 34), (4, 2, 1, 1)] {
        for labels in [false, true] {
            let set = data(seed, images, resolution, channels, labels);
            let len = set.image_len();
            let levels = [0.002, 0.05, 0.7, 4.0, 80.0];
            let sigma: Vec<f64> = (0..queries).map(|q| levels[q % 5]).collect();
            let mut x = vec![0.0; queries * len];
            fill_normals(&mut x, 0, 0, 0, seed);
            for (q, x) in x.chunks_mut(len).enumerate() {
                // Near an image, as on the sampler's way.
                for (x, &u) in x.iter_mut().zip(set.image(q % images)) {
                    *x = u as f32 / 127.5 - 1.0 + *x * sigma[q] as f32;
                }
            }
            let classes: Vec<u32> =
                if labels { (0..queries as u32).map(|q| q % 4).collect() } else { vec![] };
            let mut out = vec![f32::NAN; x.len()];
            let mut card = CardOptimal::new(&set, cuda).unwrap();
            card.denoise(&x, &sigma, &classes, &mut out).unwrap();
            for (q, (x, got)) in x.chunks(len).zip(out.chunks(len)).enumerate() {
                let want = optimum(&set, x, sigma[q], classes.get(q).copied());
                let err = rel_err(got, &want).unwrap();
                assert!(err < 1e-6, "seed {seed}: {images} images, query {q}: off by {err:.1e}");
            }
        }
    }
}

#[test]
fn the_optimum_on_a_card_matches_float64_in_every_schedule() {
    let (seed, cuda) = (fresh_seed(), cuda());
    for_each_schedule(|_| check_optimum(seed, &cuda));
}

/// D(x; sigma) = factor · x, the same on both devices to the bit.
struct Scaled {
    factor: f32,
    batch: usize,
    len: usize,
    images: usize,
    card: Option<(Cuda, [Buffer; 3])>,
}

impl Scaled {
    fn new(factor: f32, batch: usize, len: usize, cuda: Option<Cuda>) -> Self {
        let card = cuda.map(|cuda| {
            let buffers = [batch * len, 2 * batch, batch * len].map(|n| cuda.buffer(n).unwrap());
            (cuda, buffers)
        });
        Scaled { factor, batch, len, images: 0, card }
    }
}

impl Denoise for Scaled {
    fn image_len(&self) -> usize {
        self.len
    }
    fn max_batch(&self) -> usize {
        self.batch
    }
    fn sigma_range(&self) -> (f64, f64) {
        (0.0, f64::INFINITY)
    }
    fn denoise(&mut self, x: &[f32], _: &[f64], _: &[u32], out: &mut [f32]) -> Result<()> {
        out.iter_mut().zip(x).for_each(|(out, &x)| *out = self.factor * x);
        Ok(())
    }
    fn on_card(&mut self) -> Option<&mut dyn OnCard> {
        if self.card.is_some() { Some(self) } else { None }
    }
}

impl OnCard for Scaled {
    fn cuda(&self) -> &Cuda {
        &self.card.as_ref().unwrap().0
    }
    fn begin(&mut self, images: usize, _: &[u32]) -> Result<Operands> {
        self.images = images;
        let [x, sigma, out] = &self.card.as_ref().unwrap().1;
        Ok(Operands { x: x.into(), sigma: sigma.into(), out: out.into() })
    }
    fn evaluate(&mut self) -> Result<()> {
        let (cuda, [x, _, out]) = self.card.as_ref().unwrap();
        let n = self.images * self.len;
        let (count, factor) = (Arg::I64(n as i64), Arg::F32(self.factor));
        let args = vec![out.into(), x.into(), count, factor, Arg::I32(0)];
        cuda.run(&[Kernel::new("scaled_add", n.div_ceil(1024), args)])
    }
}

fn check_sampler(seed: u64, cuda: &Cuda) {
    let seeds: Vec<u64> = (0..5).map(|k| seed ^ k).collect();
    let churning = HeunOptions { steps: 4, s_churn: 2.0, s_noise: 1.01, ..HeunOptions::default() };
    // 2,060 values an image are more than a block draws.
    for (len, batch, options) in [
        (75, 2, HeunOptions::default()),
        (12, 5, churning.clone()),
        (2060, 3, HeunOptions { steps: 1, ..churning }),
    ] {
        let mut latents = vec![0.0; 5 * len];
        fill_normals(&mut latents, 0, 0, 0, seed);
        for start in [Start::Seeds(&seeds), Start::Latents(&latents)] {
            let [want, got] = [None, Some(cuda.clone())].map(|cuda| {
                let mut bits = Vec::new();
                let mut denoiser = Scaled::new(0.75, batch, len, cuda);
                let finished =
                    sample_each(&mut denoiser, start, &[], &options, &mut |_, images| {
                        bits.extend(images.values()?.iter().map(|v| v.to_bits()));
                        let pixels = images.pixels().to_host()?.into_owned();
                        bits.extend(pixels.into_iter().map(u32::from));
                        Ok(true)
                    });
                assert!(finished.unwrap());
                bits
            });
            assert_eq!(got.len(), 10 * len);
            assert!(got == want, "seed {seed}: images of {len}, batches of {batch}");
        }
    }
}

#[test]
fn sampling_on_a_card_gives_the_cpus_bits_in_every_schedule() {
    let (seed, cuda) = (fresh_seed(), cuda());
    for_each_schedule(|_| check_sampler(seed, &cuda));
}

#[test]
fn an_image_that_is_not_finite_is_named_on_a_card() {
    let mut denoiser = Scaled::new(f32::INFINITY, 2, 12, Some(cuda()));
    let start = Start::Seeds(&[5, 6, 7]);
    let options = HeunOptions::default();
    let e = sample(&mut denoiser, start, &[], &options, &mut |_, _| true).unwrap_err();
    assert_eq!(emm::error::exit_code(&e), 5);
    assert!(e.to_string().contains("the image of seed 5 is not finite"), "{e}");
}

#[test]
fn samples_of_the_optimum_on_a_card_are_the_cpus_and_all_copies() {
    let set = data(fresh_seed(), 20, 4, 3, false);
    let (options, seeds) = (HeunOptions::default(), [3, 4, 5]);
    let mut cpu_images = Vec::new();
    let mut on_cpu = Optimal::new(&set, &cpu());
    sample_each(&mut on_cpu, Start::Seeds(&seeds), &[], &options, &mut |_, images| {
        cpu_images.extend_from_slice(&images.values()?);
        Ok(true)
    })
    .unwrap();
    let mut search = Search::new(&card(), &set.pixels, set.image_len()).unwrap();
    let mut on_card = CardOptimal::new(&set, &cuda()).unwrap();
    sample_each(&mut on_card, Start::Seeds(&seeds), &[], &options, &mut |_, images| {
        let err = rel_err(&images.values()?, &cpu_images).unwrap();
        assert!(err < 1e-6, "off by {err:.1e}");
        // Searched where they are.
        let found = search.nearest(&images.pixels())?;
        assert!(found.iter().all(|n| n.squared[0] == 0 && n.squared[1] > 0), "{found:?}");
        Ok(true)
    })
    .unwrap();
}

#[test]
fn the_checker_has_nothing_to_say_of_search_and_sampler() {
    in_check_build("kernels::search::the_checker_has_nothing_to_say_of_search_and_sampler", || {
        let (seed, cuda) = (fresh_seed(), cuda());
        for (len, references, queries) in [(16, 300, 130), (17, 70, 65)] {
            check_search(seed, len, references, queries);
        }
        check_optimum(seed, &cuda);
        check_sampler(seed, &cuda);
    });
}
