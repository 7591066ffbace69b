//! `emm gap`: the loss is the optimum's and the distance to it, whoever denoises.

use crate::find::{TINY, cpu, digits, folder, keys};
use crate::support::emm_in;
use emm::data::Dataset;
use emm::model::Precond;
use emm::sampler::{Denoise, Optimal, noise_levels};
use emm::study::gap::{Level, gap};
use serde_json::json;

/// D(x; σ) = x / (1 + σ²), some denoiser that is not the optimum.
pub struct Shrink;

impl Denoise for Shrink {
    fn image_len(&self) -> usize {
        64
    }
    fn max_batch(&self) -> usize {
        50
    }
    fn sigma_range(&self) -> (f64, f64) {
        (0.0, f64::INFINITY)
    }
    fn denoise(
        &mut self,
        x: &[f32],
        sigma: &[f64],
        _labels: &[u32],
        out: &mut [f32],
    ) -> anyhow::Result<()> {
        for ((x, out), s) in x.chunks(64).zip(out.chunks_mut(64)).zip(sigma) {
            x.iter().zip(out).for_each(|(x, out)| *out = x / (1.0 + s * s) as f32);
        }
        Ok(())
    }
}

/// How far loss = optimum's loss + gap is off, over five standard errors of the cross term, at its worst.
fn off(levels: &[Level], draws: f64) -> f64 {
    let one = |l: &Level| {
        let bound = 5.0 * 2.0 * (l.gap * l.optimum / draws).sqrt() + 1e-5 * l.loss;
        (l.loss - l.optimum - l.gap).abs() / bound
    };
    levels.iter().map(one).fold(0.0, f64::max)
}

#[test]
fn the_gap_is_zero_at_the_optimum_and_adds_up_elsewhere() {
    let data = digits(20);
    let sigmas = noise_levels(8, 7.0, 0.002, 80.0);
    let weight = |s: f64| Precond::Edm.weight(s);
    let optimum = || Optimal::new(&data, &cpu());
    let run = |denoiser: &mut dyn Denoise, optimum: &mut dyn Denoise, draws| {
        gap(denoiser, optimum, &data, &weight, &sigmas, draws, 1, &mut |_, _| ()).unwrap()
    };
    for level in run(&mut optimum(), &mut optimum(), 40) {
        assert_eq!(level.gap, 0.0, "{level:?}");
        assert_eq!(level.loss, level.optimum, "{level:?}");
    }
    let levels = run(&mut Shrink, &mut optimum(), 20_000);
    assert_eq!(levels.iter().map(|l| l.sigma).collect::<Vec<_>>(), sigmas);
    assert!(off(&levels, 20_000.0) < 1.0, "{levels:?}");
    // At the highest noise the optimum is the mean image and nothing is recovered: λ times the images' variance.
    let mean = |p: usize| (0..20).map(|i| data.image(i)[p] as f64).sum::<f64>() / 20.0;
    let variance: f64 = (0..64)
        .map(|p| {
            (0..20).map(|i| ((data.image(i)[p] as f64 - mean(p)) / 127.5).powi(2)).sum::<f64>()
                / 20.0
        })
        .sum();
    let highest = levels[0].optimum / levels[0].weight;
    assert!((highest / variance - 1.0).abs() < 0.05, "{highest} for {variance}");
    // The sum does not hold against the optimum of other images.
    let others = Dataset { pixels: digits(40).pixels[20 * 64..].to_vec(), ..digits(40) };
    let wrong = run(&mut Shrink, &mut Optimal::new(&others, &cpu()), 2000);
    assert!(off(&wrong, 2000.0) > 3.0, "{wrong:?}");
}

#[test]
fn gap_through_the_program() {
    let dir = folder();
    let dir = dir.path();
    let train = format!("train --data d.zip --run r --quiet {TINY}");
    emm_in(dir, train.split_whitespace()).ok();
    let go = |flags: &str| emm_in(dir, format!("gap {flags}").split_whitespace());
    let of_run = go("--run r --data d.zip --levels 5 --draws 70 --json --out g.csv").json();
    assert_eq!((&of_run["draws"], of_run["levels"].as_array().unwrap().len()), (&json!(70), 5));
    let level = &of_run["levels"][0];
    assert_eq!(keys(level), ["sigma", "weight", "gap", "optimum_loss", "loss"]);
    assert_eq!(level["sigma"].as_f64().unwrap().round(), 80.0);
    assert!(level["gap"].as_f64().unwrap() > 0.0);
    let csv = std::fs::read_to_string(dir.join("g.csv")).unwrap();
    assert_eq!(csv.lines().count(), 6);
    // Threads change nothing.
    assert_eq!(go("--run r --data d.zip --levels 5 --draws 70 --json --threads 1").json(), of_run);
    let snapshot = std::fs::read_dir(dir.join("r/snapshots")).unwrap().flatten().next().unwrap();
    let model = snapshot.path().display().to_string();
    assert_eq!(go(&format!("--model {model} --data d.zip --levels 2")).ok().lines().count(), 3);

    go("--run r --data d.zip --draws 0").refused(2, "--draws: 0", "");
    go("--run r --data d.zip --levels 0").refused(2, "--levels: 0", "");
    go("--run r --data d.zip --out g.csv").refused(2, "g.csv: ", "--force");
    go("--run nowhere --data d.zip").refused(3, "--run: nowhere", "");
    assert_eq!(go("--data d.zip").code, 2);
    emm_in(dir, "data subset d.zip --size 4 --resolution 4 --out small.zip".split(' ')).ok();
    go("--run r --data small.zip").refused(3, "small.zip: 4x4 pixels", "8x8");
}
