//! How numbers are loaded, stored, converted, computed and drawn.

use super::primitive::{Primitive, Words, numbers};
use crate::device::cpu::math;
use crate::device::params;
use crate::rng::{normals8, permute, philox};
use half::bf16;

pub(super) fn packets() -> Primitive {
    // Two finite bf16 a word, so that the word is a finite float too.
    let half = |v: u32| bf16::from_f32(v as f32 / 7.0 - 9.0).to_bits() as u32;
    let halves: Vec<u32> = numbers(256, 128, 9).into_iter().map(half).collect();
    let input: Vec<u32> = halves.chunks(2).map(|pair| pair[0] | pair[1] << 16).collect();
    let mut want = [input.clone(), input.clone(), input.clone()].concat();
    for lane in 0..32 {
        want.extend((0..4).map(|i| halves[8 * lane + i] << 16));
    }
    for lane in 0..32 {
        want.extend((0..4).map(|i| if i < lane % 5 { halves[8 * lane + 1 + i] << 16 } else { 0 }));
    }
    Primitive::new("packets", params::PRIMITIVE_PACKETS, input, want)
}

/// Bit patterns of every kind: signs, ties, the largest, the smallest, NaN.
const PATTERNS: [u32; 32] = [
    0x0000_0000,
    0x8000_0000,
    0x3f80_0000,
    0xbf80_0000,
    0x3f80_8000,
    0x3f81_8000,
    0x3f80_7fff,
    0x3f80_8001,
    0x7f7f_ffff,
    0xff7f_ffff,
    0x7f7f_7fff,
    0x7f80_0000,
    0xff80_0000,
    0x7fc0_0000,
    0x7fff_ffff,
    0xffff_ffff,
    0x7f80_0001,
    0x0000_0001,
    0x007f_ffff,
    0x0080_0000,
    0x8000_8000,
    0x4b80_0001,
    0x4b7f_ffff,
    0x0100_0001,
    0x0100_0003,
    0x7fff_ff7f,
    0x7fff_ffc0,
    0xffff_ff7f,
    0x1234_5678,
    0xdead_beef,
    0x0000_ff80,
    0x4000_1000,
];

pub(super) fn conversions() -> Primitive {
    let to_bf16 = |u: u32| {
        let x = f32::from_bits(u);
        if x.is_nan() { 0x7fff } else { bf16::from_f32(x).to_bits() as u32 }
    };
    // Half of what the instruction drops is added, but to NaN.
    let tf32 = |u: u32| if f32::from_bits(u).is_nan() { u } else { u.wrapping_add(0x1000) };
    let rows: [&dyn Fn(u32) -> u32; 7] = [
        &to_bf16,
        &|u| u << 16,
        &tf32,
        &|u| (u as f32).to_bits(),
        &|u| (u as i32 as f32).to_bits(),
        &|u| ((u as f64 * 1.000_000_012_3) as f32).to_bits(),
        &|u| (u & 0xffff) >> 8,
    ];
    let mut want: Vec<u32> = rows.iter().flat_map(|row| PATTERNS.map(row)).collect();
    want.extend((0..32).map(|i| to_bf16(PATTERNS[i]) | to_bf16(PATTERNS[31 - i]) << 16));
    Primitive::new("conversions", params::PRIMITIVE_CONVERSIONS, PATTERNS.to_vec(), want)
}

pub(super) fn arithmetic() -> Primitive {
    let mut operands: Vec<f32> =
        (0..12).flat_map(|block| normals8(block, 0, 0, 0, 11)).map(|v| 3.0 * v).collect();
    // A denormal result, an overflow, a tie, signed zeros, NaN beside a number, what exp clamps.
    let edges = [
        (1e-30, 1e-12, 0.0),
        (3e38, 3.0, 1.0),
        (16_777_216.0, 1.0, 1.0),
        (-0.0, 2.0, -0.0),
        (f32::MIN_POSITIVE / 2.0, 3.0, 0.0),
        (100.0, 3.0, 0.5),
        (-100.0, 3.0, 0.5),
    ];
    for (i, (x, y, z)) in edges.into_iter().enumerate() {
        (operands[i], operands[32 + i], operands[64 + i]) = (x, y, z);
    }
    let rows: [&dyn Fn(f32, f32, f32) -> f32; 10] = [
        &|x, y, z| x.mul_add(y, z),
        &|x, y, _| x * y,
        &|x, y, _| x + y,
        &|x, y, _| x - y,
        &|x, y, _| x / y,
        &|x, y, _| x / y,
        &|x, _, _| x.abs().sqrt(),
        &|x, y, _| x.min(y),
        &|x, y, _| x.max(y),
        &|x, _, _| math::exp(x),
    ];
    let of = |row: &&dyn Fn(f32, f32, f32) -> f32| -> Vec<u32> {
        (0..32).map(|i| row(operands[i], operands[32 + i], operands[64 + i]).to_bits()).collect()
    };
    let want = rows.iter().flat_map(of).collect();
    let input = operands.iter().map(|v| v.to_bits()).collect();
    Primitive::new("arithmetic", params::PRIMITIVE_ARITHMETIC, input, want)
}

/// Instructions that approximate, by the PTX ISA's sections on `ex2` and `rcp` (floating-point instructions): tables of
/// special values, subnormal numbers flushed to zero, and the largest errors. Then what `kernels/prelude/math.cuh` makes
/// of them and says of its errors.
pub(super) fn approximations() -> Primitive {
    let normals = |index: u32| (0..2).flat_map(move |b| normals8(b, index, 0, 0, 13));
    let (inf, tiny) = (f32::INFINITY, 1e-40);
    let mut of_instructions = vec![0.0, -0.0, inf, -inf, f32::NAN, tiny, -tiny, 1.0, -1.0, 2.0];
    of_instructions.extend([126.5, -125.5, -127.0, -200.0, 128.0, 3e38]);
    of_instructions.extend(normals(1).map(|v| 20.0 * v));
    let mut of_sigmoid = vec![0.0, -0.0, f32::NAN, tiny, 1.0, -1.0, -1.2785, 20.0, -20.0];
    of_sigmoid.extend([80.0, -80.0, 1e4, -1e4, -88.0, 3e38, -0.01]);
    of_sigmoid.extend(normals(2).map(|v| 4.0 * v));

    let flushed = |x: f64| if x.abs() < f32::MIN_POSITIVE as f64 { 0_f64.copysign(x) } else { x };
    let ex2 = |x: f64| match flushed(flushed(x).exp2()) {
        y if y > f32::MAX as f64 => (f64::INFINITY, 0.0),
        y => (y, y * 2_f64.powi(-22)),
    };
    let rcp = |x: f64| {
        let y = flushed(1.0 / flushed(x));
        let nearest = (y as f32).abs();
        (y, (nearest.next_up() - nearest) as f64)
    };
    // Of a value whose terms have this size. Where float64 underflows, zero need not be met exactly.
    let made = |x: f64, value: f64, size: f64| {
        let value = if value == 0.0 && x != 0.0 { f64::MIN_POSITIVE } else { value };
        (value, (2.0 * x.abs() + 8.0) * 2_f64.powi(-24) * size + (1.0 + x.abs()) * 2_f64.powi(-125))
    };
    let logistic = |x: f64| 1.0 / (1.0 + (-x).exp());
    let slope = |x: f64| {
        let (s, of_x) = (logistic(x), x * logistic(x) * logistic(-x));
        made(x, s + of_x, s + of_x.abs())
    };
    let silu = |x: f64| made(x, x * logistic(x), (x * logistic(x)).abs());
    let of = |row: &dyn Fn(f64) -> (f64, f64), x: &[f32]| -> Vec<(f64, f64)> {
        x.iter().map(|&x| row(x as f64)).collect()
    };
    let mut want = of(&ex2, &of_instructions);
    want.extend(of(&rcp, &of_instructions));
    want.extend(of(&|x| made(x, logistic(x), logistic(x)), &of_sigmoid));
    want.extend(of(&silu, &of_sigmoid));
    want.extend(of(&slope, &of_sigmoid));
    let input = of_instructions.iter().chain(&of_sigmoid).map(|v| v.to_bits()).collect();
    let new = Primitive::new("approximations", params::PRIMITIVE_APPROXIMATIONS, input, vec![]);
    Primitive { want: Words::Within(want), ..new }
}

fn words_of(values: &[f64]) -> Vec<u32> {
    bytemuck::cast_slice(values).to_vec()
}

pub(super) fn float64() -> Primitive {
    let mut x: Vec<f64> = (0..64).map(|i| 1.7_f64.powi(i - 30) * (1 - i % 2 * 2) as f64).collect();
    (x[0], x[32]) = (1e-300, 1e-20);
    (x[1], x[33]) = (1e300, 3e10);
    let rows: [fn(f64, f64) -> f64; 5] =
        [|x, y| x * y, |x, y| x + y, |x, y| x / y, |x, _| x.abs().sqrt(), |x, _| x as f32 as f64];
    let of = |row: &fn(f64, f64) -> f64| (0..32).map(|i| row(x[i], x[32 + i])).collect::<Vec<_>>();
    let want: Vec<f64> = rows.iter().flat_map(of).collect();
    Primitive::new("float64", params::PRIMITIVE_FLOAT64, words_of(&x), words_of(&want))
}

pub(super) fn functions() -> Primitive {
    let x: Vec<f64> = (0..32).map(|i| 0.013 + 0.037 * i as f64).collect();
    let rows: [fn(f64) -> f64; 7] =
        [f64::exp, f64::ln, |x| 5000_f64.powf(x), f64::exp_m1, f64::ln_1p, f64::sin, f64::cos];
    let want = rows.iter().flat_map(|row| x.iter().map(|&x| row(x)).collect::<Vec<_>>()).collect();
    let new = Primitive::new("functions", params::PRIMITIVE_FUNCTIONS, words_of(&x), vec![]);
    Primitive { want: Words::Near(want), ..new }
}

pub(super) fn random() -> Primitive {
    let input = numbers(128, 100_000, 12);
    let mut rows = vec![0; 12 * 32];
    let mut places = Vec::new();
    for lane in 0..32 {
        let c: [u32; 4] = input[4 * lane..][..4].try_into().expect("four words");
        let seed = (c[1] as u64) << 32 | c[0] as u64;
        let normals = normals8(c[0] >> 1, c[1], c[2], c[3], seed).map(f32::to_bits);
        for (row, word) in philox(c, seed).into_iter().chain(normals).enumerate() {
            rows[row * 32 + lane] = word;
        }
        let n = c[2] as u64 + 1;
        let at = permute(c[0] as u64 % n, n, seed, c[3] as u64);
        places.extend([at as u32, (at >> 32) as u32]);
    }
    rows.extend(places);
    Primitive::new("random", params::PRIMITIVE_RANDOM, input, rows)
}
