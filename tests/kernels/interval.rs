//! Intervals of training steps on a GPU: graphs, what comes back of them, and how they end early.

use super::{cuda, flats, gpu_device, networks};
use crate::emulator::{for_each_schedule, in_check_build};
use crate::model::random_data;
use crate::ops::fresh_seed;
use emm::data::Dataset;
use emm::device::{Device, Precision};
use emm::model::TrainerOptions;
use emm::model::{ModelConfig, Params, Rates, Trainer};
use std::cell::Cell;

fn options(micro_batch: usize) -> TrainerOptions {
    super::options(Precision::Fp32, micro_batch)
}

fn scalars(steps: std::ops::Range<u64>) -> Vec<Rates> {
    let lr = |step| 1e-3 / (1 + step) as f64;
    let one = |step| Rates { weight_decay: 1e-4, ..Rates::new(step, lr(step), 0.9) };
    steps.map(one).collect()
}

fn bits(t: &Trainer) -> Vec<u32> {
    flats(t).concat().iter().map(|v| v.to_bits()).collect()
}

/// Steps one by one, each by a trainer of its own, which launches every kernel singly. Returns the mean loss.
fn one_by_one<'d>(
    device: &Device,
    config: &ModelConfig,
    data: &'d Dataset,
    steps: u64,
) -> (Trainer<'d>, f64) {
    let mut trainer = Trainer::new(device, config, options(8), data).unwrap();
    let mut sum = 0.0;
    for s in scalars(0..steps) {
        let state = flats(&trainer);
        trainer = Trainer::new(device, config, options(8), data).unwrap();
        let t = &mut trainer;
        let buffers = [
            &mut t.training.weights,
            &mut t.training.adam_m,
            &mut t.training.adam_v,
            &mut t.training.ema,
        ];
        for (buffer, values) in buffers.into_iter().zip(&state) {
            buffer.write(0, values).unwrap();
        }
        sum += trainer.step(s, &|| false).unwrap().unwrap();
    }
    (trainer, sum / steps as f64)
}

fn check_replay(config: &ModelConfig, seed: u64) {
    let (data, device) = (random_data(20, seed), gpu_device());
    let (single, want) = one_by_one(&device, config, &data, 3);
    let mut replayed = Trainer::new(&device, config, options(8), &data).unwrap();
    let steps = replayed.steps(&scalars(0..3), &|| false).unwrap();
    assert!(steps.done == 3 && steps.diverged.is_none(), "{steps:?}");
    // Sums of the same numbers, in another order.
    assert!(((steps.loss - want) / want).abs() < 1e-12, "{} {want}", steps.loss);
    assert!(bits(&replayed) == bits(&single), "{:?}, seed {seed}", config.arch);
}

#[test]
fn a_replayed_step_equals_one_launched_singly() {
    let seed = fresh_seed();
    for config in networks() {
        check_replay(&config, seed);
    }
}

#[test]
fn intervals_have_the_same_bits_in_every_schedule() {
    let [config, _] = networks();
    let (data, device, mut all) = (random_data(20, fresh_seed()), gpu_device(), Vec::new());
    for_each_schedule(|_| {
        // The second is replayed.
        let mut t = Trainer::new(&device, &config, options(16), &data).unwrap();
        assert_eq!(t.steps(&scalars(0..2), &|| false).unwrap().done, 2);
        all.push(bits(&t));
    });
    assert!(all.iter().all(|b| *b == all[0]));
}

#[test]
fn the_checker_has_nothing_to_say_of_a_replayed_step() {
    in_check_build("kernels::interval::the_checker_has_nothing_to_say_of_a_replayed_step", || {
        let [_, config] = networks();
        let data = random_data(20, 1);
        let mut t = Trainer::new(&gpu_device(), &config, options(8), &data).unwrap();
        assert_eq!(t.steps(&scalars(0..2), &|| false).unwrap().done, 2);
    });
}

#[test]
fn a_stop_ends_an_interval_between_steps() {
    let [config, _] = networks();
    let (data, device) = (random_data(20, 8), gpu_device());
    let mut stopped = Trainer::new(&device, &config, options(16), &data).unwrap();
    let asked = Cell::new(0);
    let stop = || asked.replace(asked.get() + 1) == 2;
    let steps = stopped.steps(&scalars(0..5), &stop).unwrap();
    assert!(steps.done == 2 && steps.diverged.is_none(), "{steps:?}");
    let mut two = Trainer::new(&device, &config, options(16), &data).unwrap();
    two.steps(&scalars(0..2), &|| false).unwrap();
    assert!(bits(&stopped) == bits(&two));
    let none = stopped.steps(&scalars(2..4), &|| true).unwrap();
    assert!(none.done == 0 && bits(&stopped) == bits(&two), "{none:?}");
}

#[test]
fn an_interval_keeps_the_state_before_its_first_bad_step() {
    let [config, _] = networks();
    let (data, device) = (random_data(20, 9), gpu_device());
    let mut all = scalars(0..6);
    // Steps 0 and 1 are good; after the second, weights are so large that step 2 overflows.
    all[1].lr = 1e30;
    let mut t = Trainer::new(&device, &config, options(16), &data).unwrap();
    let steps = t.steps(&all, &|| false).unwrap();
    let e = steps.diverged.expect("step 2 diverges");
    assert_eq!((steps.done, emm::error::exit_code(&e)), (2, 5));
    assert!(e.to_string().starts_with("step 2: "), "{e}");
    let mut two = Trainer::new(&device, &config, options(16), &data).unwrap();
    assert_eq!(two.steps(&all[..2], &|| false).unwrap().done, 2);
    assert!(bits(&t) == bits(&two));
    // What comes after a bad interval is asked anew.
    assert_eq!(t.steps(&all[2..3], &|| false).unwrap().done, 0);
}

#[test]
fn scrubbing_replaces_what_is_not_finite_and_nothing_else() {
    let [config, _] = networks();
    let (data, device) = (random_data(20, 10), gpu_device());
    let gain = Params::new(&config).specs.into_iter().find(|s| s.name.ends_with("aux_norm.weight"));
    let gain = gain.unwrap();
    // Gradients behind the last norm grow with its gain.
    let after = |factor: f32, scrub_gradients| {
        let options = TrainerOptions { scrub_gradients, ..options(16) };
        let mut t = Trainer::new(&device, &config, options, &data).unwrap();
        t.training.weights.write(gain.offset, &[factor; 16]).unwrap();
        let done = t.steps(&scalars(0..1), &|| false).unwrap().done;
        (done, flats(&t)[1].clone(), bits(&t))
    };
    // The first moment is a tenth of the gradient.
    let (done, moments, large) = after(1e6, false);
    let most = moments.iter().fold(0.0_f32, |most, m| most.max(m.abs()));
    assert!(done == 1 && most > 1e5 && most.is_finite(), "{done} {most}");
    assert!(after(1e6, true).2 == large);
    assert_eq!(after(f32::INFINITY, false).0, 0);
    let (done, mut moments, _) = after(f32::INFINITY, true);
    // Weight decay adds the infinite gain itself.
    moments[gain.offset..gain.offset + 16].fill(0.0);
    assert!(done == 1 && moments.iter().all(|m| m.abs() <= 1.001e4), "{done}");
}

#[test]
fn memory_that_a_gpu_lacks_is_an_error_with_the_bytes() {
    let Err(e) = cuda().buffer(1 << 40) else { panic!("four terabytes were there") };
    assert_eq!(emm::error::exit_code(&e), 4);
    let told = e.to_string();
    assert!(told.starts_with("--device: cuda: 4 TiB asked, "), "{told}");
    assert!(told.contains(" free: "), "{told}");
}
