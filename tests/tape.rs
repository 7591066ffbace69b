//! The tape decides lifetimes and who sets or adds: gradients of values used twice, and memory that is reused.

use crate::ops::fresh_seed;
use emm::device::{Buffer, Cpu, Device, Precision, StepArgs};
use emm::ops::conv2d::Conv2d;
use emm::ops::linear::Linear;
use emm::ops::loss::Loss;
use emm::ops::precondition::Precond;
use emm::rng::fill_normals;
use emm::tape::{MemoryPlan, Mode, Param, Tape};

fn device() -> Device {
    Device::Cpu(Cpu::new(1).unwrap())
}

/// A chain of linears that reads one parameter and one value several times, against finite differences.
#[test]
fn a_value_used_many_times_gets_every_gradient() {
    let mut tape = Tape::new();
    let x = tape.leaf([2, 1, 1, 4]);
    let (noise, sigma) = (tape.input([2, 1, 1, 4]), tape.input([2, 1, 1, 2]));
    let weights = [Param { offset: 0, len: 16 }, Param { offset: 16, len: 4 }];
    let linear = Linear::new(4, true);
    let a = tape.push1(linear.clone(), &[x], &weights).unwrap();
    // The same parameters again: the second use must add, not overwrite.
    let other = [Param { offset: 32, len: 16 }, Param { offset: 48, len: 4 }];
    let b = tape.push1(linear, &[a], &other).unwrap();
    let c = tape
        .push1(
            Conv2d { residual: true, ..Conv2d::same(1, 4) },
            &[b, a],
            &[Param { offset: 64, len: 16 }, Param { offset: 80, len: 4 }],
        )
        .unwrap();
    let loss = Loss { precond: Precond::Ve, batch: 2 };
    let loss = tape.push1(loss, &[c, noise, noise, sigma], &[]).unwrap();
    let device = device();
    let plan = MemoryPlan::new(&tape, &device, Precision::Fp32, Mode::Training, &[loss]);
    let mut memory = Buffer::new(&device, plan.memory_words(&device)).unwrap();
    let w: Vec<f32> = (0..96).map(|i| ((i * 37 % 19) as f32 - 9.0) / 12.0).collect();
    let x0: Vec<f32> = (0..8).map(|i| ((i * 29 % 11) as f32 - 5.0) / 4.0).collect();
    let mut run = |x0: &[f32], w: &[f32]| {
        memory.cpu_mut().fill(f32::NAN);
        memory.put(plan.slot(x), x0).unwrap();
        memory.put(plan.slot(noise), &[0.3; 8]).unwrap();
        memory.put(plan.slot(sigma), bytemuck::cast_slice(&[0.7_f64; 2])).unwrap();
        let w = Buffer::of(&device, w).unwrap();
        let mut grads = Buffer::of(&device, &[f32::NAN; 96]).unwrap();
        let args = StepArgs::default();
        plan.run(&device, &mut memory, &w, Some(&mut grads), None, args).unwrap();
        let losses = memory.get(plan.slot(loss)).unwrap();
        let losses: &[f64] = bytemuck::cast_slice(&losses);
        let dx = memory.get(plan.grad_slot(x).expect("x is a leaf")).unwrap().to_vec();
        let grads = grads.cpu()[..96].to_vec();
        (losses.iter().sum::<f64>() / 2.0, dx, grads)
    };
    let (_, dx, grads) = run(&x0, &w);
    let h = 1e-2_f32;
    let mut check =
        |what: String, analytic: f32, up: (Vec<f32>, Vec<f32>), down: (Vec<f32>, Vec<f32>)| {
            let numeric = (run(&up.0, &up.1).0 - run(&down.0, &down.1).0) / (2.0 * h as f64);
            let err = (numeric - analytic as f64).abs();
            assert!(err < 2e-3 * (1.0 + numeric.abs()), "{what}: {analytic}, {numeric} expected");
        };
    let moved = |v: &[f32], i: usize, by: f32| {
        let mut v = v.to_vec();
        v[i] += by;
        v
    };
    for (i, dx) in dx.iter().enumerate() {
        let (up, down) = (moved(&x0, i, h), moved(&x0, i, -h));
        check(format!("x[{i}]"), *dx, (up, w.clone()), (down, w.clone()));
    }
    for i in (0..20).chain(32..52).chain(64..84) {
        let (up, down) = (moved(&w, i, h), moved(&w, i, -h));
        check(format!("w[{i}]"), grads[i], (x0.clone(), up), (x0.clone(), down));
    }
}

#[test]
fn wrong_shapes_fail_when_recorded_and_name_the_op() {
    let mut tape = Tape::new();
    let x = tape.input([2, 4, 4, 6]);
    let weights = [Param { offset: 0, len: 16 }, Param { offset: 16, len: 4 }];
    let wrong = tape.push1(Linear::new(4, false), &[x], &weights);
    let message = wrong.unwrap_err().to_string();
    assert!(message.starts_with("linear: ") && message.contains("[2, 4, 4, 6]"), "{message}");
    let conv = Conv2d::same(3, 4);
    let message = tape.push1(conv, &[x], &weights).unwrap_err().to_string();
    assert!(message.starts_with("conv2d: ") && message.contains("216"), "{message}");
}

#[test]
fn memory_is_reused_and_inference_needs_less() {
    let mut tape = Tape::new();
    let mut x = tape.input([4, 1, 1, 512]);
    for layer in 0..20 {
        let at = layer * (512 * 513);
        let weights =
            [Param { offset: at, len: 512 * 512 }, Param { offset: at + 512 * 512, len: 512 }];
        x = tape.push1(Linear::new(512, true), &[x], &weights).unwrap();
    }
    let (y, sigma) = (tape.input([4, 1, 1, 512]), tape.input([4, 1, 1, 2]));
    let loss = Loss { precond: Precond::Edm, batch: 4 };
    tape.push1(loss, &[x, y, y, sigma], &[]).unwrap();
    let words = |mode| {
        MemoryPlan::new(&tape, &device(), Precision::Fp32, mode, &[x]).memory_words(&device())
    };
    // Twenty layers of two 2048-word outputs; forward alone holds three or four of them at a time.
    assert!(words(Mode::Inference) < 8 * 2048 + 16 * 1024, "{}", words(Mode::Inference));
    assert!(words(Mode::Training) > 2 * words(Mode::Inference));
}

/// Convolutions one after another, each with its embedding from a linear of x: by linears of their own, or by columns of
/// one op. Loss, gradient of x and of all parameters.
pub fn embedded(device: &Device, seed: u64, side_by_side: bool) -> Vec<f32> {
    let (n, features, widths) = (19, 20, [24, 24, 70, 3]);
    let total: usize = widths.iter().sum();
    let mut tape = Tape::new();
    let x = tape.leaf([n, 1, 1, features]);
    let (image, noise) = (tape.input([n, 2, 2, 3]), tape.input([n, 2, 2, 3]));
    let sigma = tape.input([n, 1, 1, 2]);
    let mut end = 0;
    let mut param = |len: usize| {
        end += len;
        Param { offset: end - len, len }
    };
    let all = [param(total * features), param(total)];
    let part = |p: Param, first: usize, len: usize| Param { offset: p.offset + first, len };
    let mut emb = x;
    if side_by_side {
        let linears = Linear { out_features: widths.to_vec(), silu: false };
        emb = tape.push1(linears, &[x], &all).unwrap();
    }
    let (mut h, mut channels, mut first) = (image, 3, 0);
    for width in widths {
        let mut conv = Conv2d { emb: Some(first), ..Conv2d::same(1, width) };
        if !side_by_side {
            let own =
                [part(all[0], first * features, width * features), part(all[1], first, width)];
            emb = tape.push1(Linear::new(width, false), &[x], &own).unwrap();
            conv.emb = Some(0);
        }
        h = tape.push1(conv, &[h, emb], &[param(width * channels), param(width)]).unwrap();
        channels = width;
        first += width;
    }
    let loss = Loss { precond: Precond::Edm, batch: n };
    let loss = tape.push1(loss, &[h, image, noise, sigma], &[]).unwrap();
    let plan = MemoryPlan::new(&tape, device, Precision::Fp32, Mode::Training, &[loss]);
    let normals = |len: usize, tag: u32| {
        let mut v = vec![0.0; len];
        fill_normals(&mut v, 0, 0, tag, seed);
        v
    };
    let mut memory = Buffer::of(device, &vec![f32::NAN; plan.memory_words(device)]).unwrap();
    for (v, tag) in [(x, 1), (image, 2), (noise, 3)] {
        memory.put(plan.slot(v), &normals(plan.slot(v).len, tag)).unwrap();
    }
    memory.put(plan.slot(sigma), bytemuck::cast_slice(&vec![0.7_f64; n])).unwrap();
    let weights = Buffer::of(device, &normals(end, 4)).unwrap();
    let mut grads = Buffer::of(device, &vec![f32::NAN; end]).unwrap();
    let args = StepArgs::default();
    plan.run(device, &mut memory, &weights, Some(&mut grads), None, args).unwrap();
    plan.end_batch(device, &mut memory, &mut grads).unwrap();
    let mut got = memory.get(plan.slot(loss)).unwrap().to_vec();
    got.extend_from_slice(&memory.get(plan.grad_slot(x).expect("x is a leaf")).unwrap());
    got.extend_from_slice(&grads.read(0, end).unwrap());
    assert!(got.iter().skip(2 * n).all(|v| v.is_finite()));
    got
}

#[test]
fn linears_side_by_side_give_the_bits_of_each_alone() {
    let seed = fresh_seed();
    let bits = |v: Vec<f32>| v.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    let [alone, together] = [false, true].map(|both| bits(embedded(&device(), seed, both)));
    assert!(alone == together);
}

#[test]
#[should_panic(expected = "columns [0..4] of 8 have a gradient")]
fn columns_that_no_op_takes_are_seen() {
    let mut tape = Tape::new();
    let (x, image) = (tape.input([2, 1, 1, 4]), tape.input([2, 2, 2, 4]));
    let sigma = tape.input([2, 1, 1, 2]);
    let linears = Linear { out_features: vec![4, 4], silu: false };
    let weights = [Param { offset: 0, len: 32 }, Param { offset: 32, len: 8 }];
    let emb = tape.push1(linears, &[x], &weights).unwrap();
    let conv = Conv2d { emb: Some(0), ..Conv2d::same(1, 4) };
    let weights = [Param { offset: 48, len: 16 }, Param { offset: 64, len: 4 }];
    let h = tape.push1(conv, &[image, emb], &weights).unwrap();
    let loss = Loss { precond: Precond::Edm, batch: 2 };
    let loss = tape.push1(loss, &[h, image, image, sigma], &[]).unwrap();
    MemoryPlan::new(&tape, &device(), Precision::Fp32, Mode::Training, &[loss]);
}
