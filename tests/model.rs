//! Whole networks against float64 goldens: output, loss, every parameter's gradient; ten training losses; and
//! that results depend neither on threads nor on how a batch is cut.

use crate::ops::fresh_seed;
use emm::check::golden::{Golden, rel_err};
use emm::data::Dataset;
use emm::device::{Buffer, Cpu, Device, GpuLimits, Precision, StepArgs, Target};
use emm::model::{Denoiser, ModelConfig, Params, Rates, Trainer};
use emm::model::{Recording, TrainerOptions};
use emm::ops::adam_ema::adam_ema;
use emm::tape::Mode;

const MODELS: [(&str, &[u8]); 3] = [
    ("ddpmpp_edm_gray", include_bytes!("goldens/models/ddpmpp_edm_gray.safetensors")),
    ("ddpmpp_vp_labels", include_bytes!("goldens/models/ddpmpp_vp_labels.safetensors")),
    ("ncsnpp_ve_labels", include_bytes!("goldens/models/ncsnpp_ve_labels.safetensors")),
];

fn cpu() -> Cpu {
    Cpu::new(2).unwrap()
}

fn config(g: &Golden) -> ModelConfig {
    serde_json::from_value(g.metadata("config").unwrap()).unwrap()
}

/// Parameters in master order and Fourier frequencies.
fn weights(g: &Golden, config: &ModelConfig) -> (Params, Vec<f32>, Vec<f32>) {
    let params = Params::new(config);
    let mut flat = vec![0.0; params.flat_len];
    for spec in &params.specs {
        let (shape, values) = g.f32(&format!("p/{}", spec.name));
        assert_eq!(shape, spec.shape, "{}", spec.name);
        params.from_torch(spec, &values, &mut flat);
    }
    let freqs = "p/model.map_noise.freqs";
    let freqs = if g.has(freqs) { g.f32(freqs).1 } else { vec![] };
    (params, flat, freqs)
}

fn labels(g: &Golden) -> Vec<u32> {
    if g.has("labels") { g.i32("labels").1.iter().map(|&l| l as u32).collect() } else { vec![] }
}

/// D of each golden network against float64's, in all that a device computes in. In bf16 it is no further off than
/// PyTorch's own network in bf16 of the same weights and images (2e-3 to 9e-3: some forty roundings of 2^-9 one after
/// another); in tf32, which keeps three bits more, an eighth of that.
pub fn check_denoising(device: &Device) {
    for (name, bytes) in MODELS {
        let g = Golden::parse(bytes).unwrap();
        let config = config(&g);
        let (_, w, freqs) = weights(&g, &config);
        let ((shape, y), (_, noise)) = (g.f32("y"), g.f32("noise"));
        let (sigma, len) = (g.f64("sigma").1, config.image_len());
        let x: Vec<f32> =
            (0..y.len()).map(|i| (y[i] as f64 + sigma[i / len] * noise[i] as f64) as f32).collect();
        let pytorchs = g.metadata("bf16_error").unwrap().as_f64().unwrap();
        for &precision in device.precisions() {
            let (w, freqs) = (w.clone(), freqs.clone());
            let mut net = Denoiser::new(device, &config, precision, w, freqs, shape[0]).unwrap();
            let d = net.denoise(&x, &sigma, &labels(&g)).unwrap();
            let err = rel_err(&d, &g.f32("D").1).unwrap();
            // Where nothing is rounded, something else was computed.
            let (floor, bar) = match precision {
                Precision::Fp32 => (0.0, 1e-5),
                Precision::Tf32 => (1e-5, pytorchs / 8.0),
                Precision::Bf16 => (1e-3, pytorchs),
            };
            let what = format!("{name} on {} in {}", device.name(), precision.name());
            println!("{what}: {err:.1e}, bar {bar:.1e}");
            assert!(floor <= err && err <= bar, "{what}: D off by {err:.1e}");
        }
    }
}

#[test]
fn golden_networks_denoise_as_float64() {
    check_denoising(&Device::Cpu(cpu()));
}

#[test]
fn whole_networks_match_float64() {
    for (name, bytes) in MODELS {
        let g = Golden::parse(bytes).unwrap();
        let config = config(&g);
        let (params, w, freqs) = weights(&g, &config);
        let (shape, y) = g.f32("y");
        let batch = shape[0];
        let (noise, sigma, labels) = (g.f32("noise").1, g.f64("sigma").1, labels(&g));
        let device = Device::Cpu(cpu());
        let r = Recording::new(&device, &config, Precision::Fp32, batch, batch, Mode::Training)
            .unwrap();
        let mut memory = Buffer::new(&device, r.plan.memory_words(&device)).unwrap();
        memory.cpu_mut().fill(f32::NAN);
        fill(&r, &mut memory, &y, &noise, &sigma, &labels, &freqs);
        let mut grads = Buffer::of(&device, &vec![f32::NAN; params.flat_len]).unwrap();
        let on_device = Buffer::of(&device, &w).unwrap();
        let args = StepArgs::default();
        r.plan.run(&device, &mut memory, &on_device, Some(&mut grads), None, args).unwrap();
        let grads = grads.cpu();
        let err = rel_err(
            &[r.losses(&memory).unwrap().iter().sum::<f64>() / batch as f64],
            &g.f64("loss").1,
        )
        .unwrap();
        assert!(err < 1e-5, "{name}: loss off by {err:.1e}");
        let norm = |v: &[f32]| v.iter().map(|&v| (v as f64).powi(2)).sum::<f64>().sqrt();
        let want: Vec<Vec<f32>> =
            params.specs.iter().map(|s| g.f32(&format!("g/{}", s.name)).1).collect();
        let all = norm(&want.concat());
        for (spec, want) in params.specs.iter().zip(&want) {
            let got = params.to_torch(spec, grads);
            assert!(got.iter().all(|v| v.is_finite()), "{name}: {}", spec.name);
            let gap: Vec<f32> = got.iter().zip(want).map(|(a, b)| a - b).collect();
            let err = norm(&gap) / norm(want).max(1e-6 * all);
            assert!(err < 1e-4, "{name}: gradient of {} off by {err:.1e}", spec.name);
        }
    }
}

fn fill(
    r: &Recording,
    memory: &mut Buffer,
    y: &[f32],
    noise: &[f32],
    sigma: &[f64],
    labels: &[u32],
    freqs: &[f32],
) {
    memory.put(r.plan.slot(r.y), y).unwrap();
    memory.put(r.plan.slot(r.noise), noise).unwrap();
    memory.put(r.plan.slot(r.sigma), bytemuck::cast_slice(sigma)).unwrap();
    if let Some(v) = r.labels {
        memory.put(r.plan.slot(v), bytemuck::cast_slice(labels)).unwrap();
    }
    if !freqs.is_empty() {
        r.set_freqs(memory, freqs).unwrap();
    }
}

#[test]
fn ten_training_losses_match_float64() {
    ten_losses(Precision::Fp32, 1e-4);
}

#[test]
fn ten_training_losses_in_bf16_are_near_float64s() {
    // PyTorch's, by autocast, are off by up to 2.3e-3.
    ten_losses(Precision::Bf16, 2.3e-3);
}

/// Losses within `bar` of the golden ones; in float32 also the weights afterwards.
fn ten_losses(precision: Precision, bar: f64) {
    let g = Golden::parse(include_bytes!("goldens/ten_losses.safetensors")).unwrap();
    let config = config(&g);
    let (params, mut w, freqs) = weights(&g, &config);
    let (shape, y) = g.f32("y");
    let (steps, batch, per) = (shape[0], shape[1], y.len() / shape[0]);
    let (noise, sigma) = (g.f32("noise").1, g.f64("sigma").1);
    let device = Device::Cpu(cpu());
    let r = Recording::new(&device, &config, precision, batch, batch, Mode::Training).unwrap();
    let mut memory = Buffer::new(&device, r.plan.memory_words(&device)).unwrap();
    let mut grads = Buffer::new(&device, w.len()).unwrap();
    let (mut m, mut v, mut ema) = (vec![0.0; w.len()], vec![0.0; w.len()], w.clone());
    let mut losses = Vec::new();
    for s in 0..steps {
        let at = s * per..(s + 1) * per;
        let levels = &sigma[s * batch..(s + 1) * batch];
        fill(&r, &mut memory, &y[at.clone()], &noise[at], levels, &[], &freqs);
        let on_device = Buffer::of(&device, &w).unwrap();
        let args = StepArgs::default();
        r.plan.run(&device, &mut memory, &on_device, Some(&mut grads), None, args).unwrap();
        losses.push(r.losses(&memory).unwrap().iter().sum::<f64>() / batch as f64);
        let step = Rates::new(s as u64, 1e-3, 0.9).words(0, false);
        adam_ema(&cpu(), &step, &mut w, grads.cpu(), &mut m, &mut v, &mut ema);
    }
    let want = g.f64("loss").1;
    for (s, (got, want)) in losses.iter().zip(&want).enumerate() {
        let err = rel_err(&[*got], &[*want]).unwrap();
        assert!(err < bar, "step {s}: loss {got}, {want} expected");
    }
    if precision == Precision::Bf16 {
        assert!(losses.iter().zip(&want).any(|(got, want)| (got / want - 1.0).abs() > 1e-5));
        return;
    }
    for spec in &params.specs {
        let name = format!("after/{}", spec.name);
        let err = rel_err(&params.to_torch(spec, &w), &g.f32(&name).1).unwrap();
        assert!(err < 1e-2, "{name} off by {err:.1e} after ten steps");
    }
}

#[test]
fn adam_and_ema_match_float64() {
    let bytes = include_bytes!("goldens/ops/adam_ema.safetensors");
    let g = Golden::parse(bytes).unwrap();
    for (name, a) in g.cases() {
        let get = |t: &str| g.f32(&format!("{name}/{t}")).1;
        let (mut w, mut m, mut v, mut ema) = (get("w"), get("m"), get("v"), get("ema"));
        let number = |key: &str| a[key].as_f64().unwrap();
        let rates = Rates {
            step: a["step"].as_u64().unwrap(),
            lr: number("lr"),
            beta2: number("beta2"),
            weight_decay: number("weight_decay"),
            ema_beta: number("beta"),
        };
        adam_ema(&cpu(), &rates.words(0, false), &mut w, &get("g"), &mut m, &mut v, &mut ema);
        for (what, got) in [("w1", &w), ("m1", &m), ("v1", &v), ("ema1", &ema)] {
            let err = rel_err(got, &get(what)).unwrap();
            assert!(err < 1e-6, "{name}: {what} off by {err:.1e}");
        }
    }
}

#[test]
fn scrubbing_replaces_nan_and_infinities_and_nothing_else() {
    let g = [f32::NAN, f32::INFINITY, -f32::INFINITY, 3e7, -3e7, 1e5, f32::MAX, 0.5];
    let update = |g: &[f32], scrub| {
        let step = Rates { weight_decay: 0.1, ..Rates::new(2, 1e-3, 0.9) }.words(0, scrub);
        let [mut w, mut m, mut ema] = [vec![0.5; g.len()], vec![0.25; g.len()], vec![0.5; g.len()]];
        let mut v = vec![1e3; g.len()];
        adam_ema(&cpu(), &step, &mut w, g, &mut m, &mut v, &mut ema);
        [w, m, v, ema].concat().iter().map(|v| v.to_bits()).collect::<Vec<_>>()
    };
    let replaced = [0.0, 1e5, -1e5, 3e7, -3e7, 1e5, f32::MAX, 0.5];
    assert_eq!(update(&g, true), update(&replaced, false));
}

pub fn random_data(images: usize, seed: u64) -> Dataset {
    let words = |i: u32| emm::rng::philox([i, 0, 0, 0], seed)[0];
    Dataset {
        resolution: 8,
        channels: 3,
        pixels: (0..images * 192).map(|i| words(i as u32) as u8).collect(),
        labels: Some((0..images).map(|i| words(i as u32 + 1_000_000) % 5).collect()),
        names: vec![],
    }
}

pub fn small(blocks: usize) -> ModelConfig {
    let arch = emm::model::Arch::NcsnPP;
    ModelConfig {
        label_dim: 5,
        model_channels: 16,
        channel_mult: vec![1, 2],
        num_blocks: blocks,
        attn_resolutions: vec![4],
        skip_connections: vec![1; 2 * (blocks + 1)],
        ..ModelConfig::basic(arch, 8, 3)
    }
}

/// Wide enough for Winograd's way at both resolutions.
fn wide() -> ModelConfig {
    ModelConfig { model_channels: 64, channel_mult: vec![1, 4], ..small(1) }
}

fn train(
    data: &Dataset,
    config: &ModelConfig,
    precision: Precision,
    threads: usize,
    micro_batch: usize,
    steps: u64,
) -> (Vec<f32>, Vec<f64>) {
    let device = Device::Cpu(Cpu::new(threads).unwrap());
    let options = TrainerOptions {
        seed: 7,
        batch: 24,
        micro_batch,
        shuffle: true,
        scrub_gradients: false,
        precision,
    };
    let mut t = Trainer::new(&device, config, options, data).unwrap();
    let losses = (0..steps)
        .map(|step| {
            let s = Rates { weight_decay: 1e-4, ..Rates::new(step, 1e-3, 0.9) };
            t.step(s, &|| false).unwrap().unwrap()
        })
        .collect();
    ([t.training.weights.cpu(), t.training.ema.cpu()].concat(), losses)
}

#[test]
fn training_bits_depend_neither_on_threads_nor_micro_batches() {
    let data = random_data(20, fresh_seed());
    // The wide one takes Winograd's way.
    let cases = [small(1), wide()]
        .map(|config| [Precision::Fp32, Precision::Bf16].map(|p| (p, config.clone())));
    for (precision, config) in cases.into_iter().flatten() {
        let (w, losses) = train(&data, &config, precision, 1, 24, 3);
        assert!(w.iter().all(|v| v.is_finite()));
        for (threads, micro) in [(3, 24), (2, 16), (1, 8)] {
            let (w2, l2) = train(&data, &config, precision, threads, micro, 3);
            assert!(w == w2, "weights differ with {threads} threads, micro-batch {micro}");
            assert_eq!(losses, l2);
        }
    }
}

#[test]
fn a_denoised_image_does_not_depend_on_its_batch() {
    let seed = fresh_seed();
    for config in [small(2), wide()] {
        check_batches(&config, Precision::Fp32, seed);
        check_batches(&config, Precision::Bf16, seed);
    }
}

fn check_batches(config: &ModelConfig, precision: Precision, seed: u64) {
    let params = Params::new(config);
    let freqs = emm::model::params::fourier_freqs(config, seed);
    let mut w = vec![0.0; params.flat_len];
    emm::rng::fill_normals(&mut w, 0, 0, 0, seed);
    let mut x = vec![0.0; 11 * 192];
    emm::rng::fill_normals(&mut x, 1, 0, 0, seed);
    let sigma: Vec<f64> = (0..11).map(|i| 0.02 * 2f64.powi(i)).collect();
    let labels: Vec<u32> = (0..11).map(|i| i % 5).collect();
    let device = Device::Cpu(cpu());
    let mut whole =
        Denoiser::new(&device, config, precision, w.clone(), freqs.clone(), 11).unwrap();
    let all = whole.denoise(&x, &sigma, &labels).unwrap().to_vec();
    assert!(all.iter().all(|v| v.is_finite()));
    for batch in [1, 4, 7] {
        let mut net =
            Denoiser::new(&device, config, precision, w.clone(), freqs.clone(), batch).unwrap();
        for first in (0..11).step_by(batch) {
            let n = batch.min(11 - first);
            let at = first * 192..(first + n) * 192;
            let part = net
                .denoise(&x[at.clone()], &sigma[first..first + n], &labels[first..first + n])
                .unwrap();
            assert!(*part == all[at], "images {first}.. in batches of {batch}");
        }
    }
}

/// The count from the configuration alone, which `emm plan` prints, against what was recorded.
#[test]
fn planned_flop_are_those_of_the_recorded_ops() {
    for blocks in [1, 2] {
        let mut config = small(blocks);
        config.skip_connections[1] = 0;
        config.label_dim *= blocks % 2;
        let planned = |target: Target, precision| {
            Recording::new(target, &config, precision, 3, 3, Mode::Training).unwrap().plan
        };
        let plan = planned(Target::Cpu, Precision::Fp32);
        let want = emm::model::flops::flops(&config);
        assert_eq!(plan.flop(), 3 * want.forward);
        let of_parts: u64 = plan.parts().iter().map(|p| p.cost.flop).sum();
        assert_eq!(of_parts, 3 * want.train);
        for precision in [Precision::Fp32, Precision::Tf32, Precision::Bf16] {
            let plan = planned(Target::Cuda(GpuLimits::LEAST), precision);
            let of_kernels: u64 = plan.kernels().map(|k| k.cost().flop).sum();
            assert_eq!(of_kernels, 3 * want.train, "{precision:?}");
            assert!(plan.kernels().all(|k| k.cost().bytes > 0));
        }
    }
}
