//! The CUDA kernels, run on the CPU by the emulator through cudarc: every op's cases against float64.

mod attention;
mod interval;
mod limits;
mod packs;
mod planted;
mod residuals;
mod search;
mod ways;

use crate::emulator::{
    alone, for_each_schedule, gpu, in_check_build, last_error, launches, on_hopper,
};
use crate::model::{check_denoising, random_data, small};
use crate::ops::{all_cases, fresh_seed};
use crate::support::say;
use crate::tape::embedded;
use emm::check::cases::Case;
use emm::check::golden::rel_err;
use emm::device::cuda::{Cuda, IMAGES};
use emm::device::params::{SUM_ROWS, SumRows, SumRowsJob};
use emm::device::{Cpu, Device, Dtype, Entry, Int, Kernel, Precision, Ptr, Unit};
use emm::model::TrainerOptions;
use emm::model::{Arch, Denoiser, Embedding, ModelConfig, Params, Precond, Rates, Trainer};
use emm::rng::fill_normals;

fn cuda() -> Cuda {
    gpu(); // loads the emulator as this process's driver
    Cuda::open(0, IMAGES).unwrap()
}

/// Runs all cases at all precisions and returns how many that were.
fn run_all(cuda: &Cuda, what: &str) -> usize {
    run_cases(cuda, what, |_| true)
}

/// Those with a name, `conv2d plain`, that is wanted.
fn run_cases(cuda: &Cuda, what: &str, wanted: impl Fn(&str) -> bool) -> usize {
    let cases: Vec<_> = all_cases().into_iter().filter(|(name, ..)| wanted(name)).collect();
    let mut runs = 0;
    for precision in [Precision::Fp32, Precision::Tf32, Precision::Bf16] {
        for (name, golden, case) in cases.iter().filter(|c| c.2.applies(precision)) {
            let what = format!("{name} {precision:?} {what}");
            let run = |case: &Case, acc, start| case.run_kernels(cuda, precision, acc, start);
            let off = case.error(golden, precision, run);
            let off = off.unwrap_or_else(|e| panic!("{what}: {e:#}"));
            assert!(off.by < case.bar(precision), "{what}: {} off by {:.1e}", off.at, off.by);
            runs += 1;
        }
    }
    runs
}

#[test]
fn every_case_matches_float64_in_every_schedule() {
    let (cuda, before) = (cuda(), launches());
    let mut runs = 0;
    for_each_schedule(|schedule| runs += run_all(&cuda, &format!("{schedule:?}")));
    let launches = launches() - before;
    say(&format!("kernels: {runs} (case, schedule) pairs, {launches} launches"));
}

#[test]
fn the_checker_has_nothing_to_say_of_the_kernels() {
    in_check_build("kernels::the_checker_has_nothing_to_say_of_the_kernels", || {
        let runs = run_all(&cuda(), "checked");
        say(&format!("kernels: {runs} cases in the check build"));
    });
}

/// Sums of the columns of [2, 3], as `kernel` takes them.
fn summed(kernel: Entry<SumRows>, dst: Ptr, src: Ptr) -> Kernel {
    let ([first_block, rows, columns, src_row, add], scale) = ([0, 2, 3, 3, 0].map(Int::Of), 1.0);
    let job = SumRowsJob { dst, src, first_block, rows, columns, src_row, scale, add };
    Kernel::new(kernel, 1, SumRows { jobs: vec![job], count: Int::Of(1) })
}

#[test]
fn arguments_that_a_kernel_does_not_take_are_refused() {
    let cuda = cuda();
    let src = cuda.buffer_of(bytemuck::cast_slice(&[1.0_f32, 2.0, 3.0, 10.0, 20.0, 30.0])).unwrap();
    let out = cuda.buffer(3).unwrap();
    let run = |kernel| cuda.run(&[summed(kernel, (&out).into(), (&src).into())]);
    for (name, takes) in [("emu_fill", "[8, 4, 4]"), ("step_next", "[24]"), ("adam_ema", "[64]")] {
        // SAFETY: what they take has another size.
        let wrong = unsafe { Entry::new(name, Unit::Fp32, &[(0, Dtype::F32), (8, Dtype::F32)]) };
        for _ in 0..2 {
            let error = run(wrong).expect_err(name).to_string();
            let told = format!(
                "--device: cuda: kernel {name} takes arguments of {takes} bytes, was given [4008]"
            );
            assert_eq!(error, told);
        }
    }
    run(SUM_ROWS).unwrap();
    assert_eq!(out.read(0, 3).unwrap(), [11.0, 22.0, 33.0]);
}

#[test]
fn a_pointer_in_what_a_kernel_takes_is_looked_at() {
    alone("kernels::a_pointer_in_what_a_kernel_takes_is_looked_at", || {
        let cuda = cuda();
        let out = cuda.buffer(8).unwrap();
        let (to, off) = (Ptr::from(&out), Ptr::Address(out.address() + 2));
        cuda.run(&[summed(SUM_ROWS, to, off)]).unwrap();
        cuda.wait().expect_err("an address that is no multiple of 4");
        let told = "sum_rows: jobs[0].src is a pointer, its value is not a multiple of 4";
        assert!(last_error().starts_with(told), "{}", last_error());
    });
}

/// Fields that are pointers to const are known as such to the checker.
#[test]
fn a_kernel_that_writes_what_it_only_reads_is_seen() {
    in_check_build("kernels::a_kernel_that_writes_what_it_only_reads_is_seen", || {
        let cuda = cuda();
        let (src, out) = (cuda.buffer_of(&[0; 24]).unwrap(), cuda.buffer(3).unwrap());
        cuda.run(&[summed(SUM_ROWS, (&out).into(), (&src).into())]).unwrap();
        cuda.wait().unwrap();
        cuda.run(&[summed(SUM_ROWS, (&src).into(), (&src).into())]).unwrap();
        cuda.wait().expect_err("sums over what is summed");
        let told = "write of what a const __restrict__ argument reads";
        assert!(last_error().contains(told), "{}", last_error());
    });
}

pub fn gpu_device() -> Device {
    Device::Cuda { cuda: cuda(), host: Cpu::new(2).unwrap() }
}

#[test]
fn linears_side_by_side_give_the_bits_of_each_alone_on_a_gpu() {
    let (seed, gpu) = (fresh_seed(), gpu_device());
    let bits = |v: Vec<f32>| v.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    for_each_schedule(|schedule| {
        let [alone, together] = [false, true].map(|both| bits(embedded(&gpu, seed, both)));
        assert!(alone == together, "{schedule:?}");
    });
}

/// A small DDPM++ and a small NCSN++, with labels, a mask and dropout.
fn networks() -> [ModelConfig; 2] {
    let ncsnpp = ModelConfig { skip_connections: vec![1, 0, 1, 1], ..small(1) };
    let vp = ModelConfig { arch: Arch::DdpmPP, precond: Precond::Vp, ..ncsnpp.clone() };
    [ModelConfig { embedding: Embedding::Positional, ..vp }, ncsnpp]
}

fn options(precision: Precision, micro_batch: usize) -> TrainerOptions {
    let (batch, shuffle, scrub_gradients) = (16, true, false);
    TrainerOptions { seed: 3, batch, micro_batch, shuffle, scrub_gradients, precision }
}

fn train(t: &mut Trainer, steps: std::ops::Range<u64>) -> Vec<f64> {
    let scalars = |step| Rates { weight_decay: 1e-4, ..Rates::new(step, 1e-3, 0.9) };
    steps.map(|step| t.step(scalars(step), &|| false).unwrap().unwrap()).collect()
}

fn flats(t: &Trainer) -> [Vec<f32>; 4] {
    [&t.training.weights, &t.training.adam_m, &t.training.adam_v, &t.training.ema]
        .map(|b| b.read(0, t.flat_len()).unwrap().into_owned())
}

#[test]
fn ten_training_losses_are_those_of_the_cpu() {
    let data = random_data(20, 5);
    for config in networks() {
        let on_cpu = Device::Cpu(Cpu::new(2).unwrap());
        let mut cpu = Trainer::new(&on_cpu, &config, options(Precision::Fp32, 16), &data).unwrap();
        let want = train(&mut cpu, 0..10);
        // Means over a batch: roundings of 2^-12 (tf32) and 2^-9 (bf16) mostly cancel. Measured 1e-5 and 3e-4.
        for (precision, bar) in
            [(Precision::Fp32, 1e-4), (Precision::Tf32, 2e-4), (Precision::Bf16, 3e-3)]
        {
            let mut gpu =
                Trainer::new(&gpu_device(), &config, options(precision, 16), &data).unwrap();
            let mut worst = 0.0_f64;
            for (step, (got, want)) in train(&mut gpu, 0..10).iter().zip(&want).enumerate() {
                let err = ((got - want) / want).abs();
                // NaN must not pass.
                let what = format!("{:?} {precision:?} step {step}", config.arch);
                assert!(err < bar, "{what}: {got}, {want} on the CPU");
                worst = worst.max(err);
            }
            let rounds = precision != Precision::Fp32;
            assert!(worst > 3e-7 || !rounds, "{:?} {precision:?} rounds nothing", config.arch);
            if precision == Precision::Fp32 {
                let err = rel_err(&flats(&gpu)[3], &flats(&cpu)[3]).unwrap();
                assert!(err < 1e-3, "{:?}: EMA off by {err:.1e}", config.arch);
            }
        }
    }
}

#[test]
fn micro_batches_and_resumption_give_the_same_bits_on_a_gpu() {
    let data = random_data(20, 6);
    let [_, config] = networks();
    let device = gpu_device();
    for precision in [Precision::Fp32, Precision::Tf32, Precision::Bf16] {
        let new = |images| Trainer::new(&device, &config, options(precision, images), &data);
        let mut whole = new(16).unwrap();
        let losses = train(&mut whole, 0..4);
        let mut cut = new(8).unwrap();
        assert_eq!(train(&mut cut, 0..4), losses, "{precision:?}");
        assert!(flats(&cut) == flats(&whole), "{precision:?}");
        // Three micro-batches, the last one short.
        let of_twenty = |images| {
            let options = TrainerOptions { batch: 20, ..options(precision, images) };
            let mut t = Trainer::new(&device, &config, options, &data).unwrap();
            (train(&mut t, 0..2), flats(&t))
        };
        assert!(of_twenty(8) == of_twenty(20), "{precision:?}");
        let (mut first, mut second) = (new(16).unwrap(), new(16).unwrap());
        train(&mut first, 0..2);
        let state = flats(&first);
        let buffers = [
            &mut second.training.weights,
            &mut second.training.adam_m,
            &mut second.training.adam_v,
            &mut second.training.ema,
        ];
        for (buffer, values) in buffers.into_iter().zip(&state) {
            buffer.write(0, values).unwrap();
        }
        assert_eq!(train(&mut second, 2..4), losses[2..], "{precision:?}");
        assert!(flats(&second) == flats(&whole), "{precision:?}");
    }
}

#[test]
fn micro_batches_give_the_same_bits_on_a_hopper_gpu() {
    on_hopper("kernels::micro_batches_give_the_same_bits_on_a_hopper_gpu", || {
        let data = random_data(20, 6);
        let [_, config] = networks();
        let trained = |images, batch| {
            let options = TrainerOptions { batch, ..options(Precision::Bf16, images) };
            let mut t = Trainer::new(&gpu_device(), &config, options, &data).unwrap();
            assert!(t.plan().kernels().any(|k| k.name == "wgrad_wgmma"));
            (train(&mut t, 0..2), flats(&t))
        };
        assert!(trained(8, 16) == trained(16, 16));
        // Three of them, the last one short.
        assert!(trained(8, 20) == trained(20, 20));
    });
}

#[test]
fn golden_networks_denoise_on_a_gpu_as_float64() {
    check_denoising(&gpu_device());
}

#[test]
fn a_gpu_denoises_as_the_cpu_does() {
    let [config, _] = networks();
    let params = Params::new(&config);
    // In the order of the list, each tensor from a new line on: the same network wherever tensors lie in memory.
    let lines = |len: usize| len.next_multiple_of(16);
    let mut normals = vec![0.0; params.specs.iter().map(|s| lines(s.len)).sum()];
    fill_normals(&mut normals, 0, 0, 0, 9);
    let (mut weights, mut at) = (vec![0.0; params.flat_len], 0);
    for s in &params.specs {
        weights[s.offset..][..s.len].copy_from_slice(&normals[at..at + s.len]);
        at += lines(s.len);
    }
    let mut x = vec![0.0; 5 * config.image_len()];
    fill_normals(&mut x, 1, 0, 0, 9);
    let (sigma, labels) = ([0.02, 0.3, 1.0, 9.0, 70.0], [0, 1, 2, 3, 4]);
    let denoise = |device: &Device, precision| {
        let net = Denoiser::new(device, &config, precision, weights.clone(), vec![], 7);
        net.unwrap().denoise(&x, &sigma, &labels).unwrap().into_owned()
    };
    let cpu = |precision| denoise(&Device::Cpu(Cpu::new(2).unwrap()), precision);
    let want = cpu(Precision::Fp32);
    // Weights of variance 1 amplify roundings: of twelve such networks PyTorch in bf16 is off by 7e-3 at least, 2e-2 in
    // the middle, 5e-2 at most. Measured here 1.0e-2, and in tf32 5e-4.
    for (precision, bar) in
        [(Precision::Fp32, 1e-5), (Precision::Tf32, 1e-3), (Precision::Bf16, 1.5e-2)]
    {
        let err = rel_err(&denoise(&gpu_device(), precision), &want).unwrap();
        assert!(err < bar, "{precision:?}: off by {err:.1e}");
        assert!(err > 1e-5 || precision == Precision::Fp32, "{precision:?} rounds nothing");
    }
    // The CPU rounds to bf16 in nearly the same places; measured 5e-3.
    let err = rel_err(&denoise(&gpu_device(), Precision::Bf16), &cpu(Precision::Bf16)).unwrap();
    assert!(err < 1e-2, "bf16 off by {err:.1e} from the CPU's");
}

#[test]
fn a_planted_nan_stops_the_gpu_at_its_step() {
    let data = random_data(20, 7);
    let [config, _] = networks();
    let mut t = Trainer::new(&gpu_device(), &config, options(Precision::Fp32, 16), &data).unwrap();
    train(&mut t, 0..2);
    // Infinite, so that gradients are NaN and the loss with them.
    let spec = Params::new(&config).specs[4].clone();
    t.training.weights.write(spec.offset, &[f32::INFINITY]).unwrap();
    let before = flats(&t);
    let scalars = Rates::new(2, 1e-3, 0.9);
    let e = t.step(scalars, &|| false).unwrap_err();
    assert_eq!(emm::error::exit_code(&e), 5);
    assert!(e.to_string().starts_with("step 2: "), "{e}");
    let bits = |f: &[Vec<f32>; 4]| f.concat().iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    assert!(bits(&flats(&t)) == bits(&before));
}
