//! What a GPU's instructions must give, by the PTX ISA's tables and IEEE 754: `kernels/primitives.cu` stores what they
//! do give. The emulator's tests ask the same of the emulator.

mod hopper;
mod numbers;
mod primitive;
mod wgmma;

use super::wanted::Wanted;
use super::{CaseSize, Check};
use crate::device::params::WARP_THREADS;
use crate::device::{Device, Entry, Precision, params};
use half::bf16;
use primitive::{F32, F64, I32, I64, JOBS, Primitive, Takes, U32, Words, numbers};

/// Those that are wanted, whatever the GPU.
fn wanted_ones(wanted: &Wanted) -> Vec<Primitive> {
    let here = wanted.on_gpu && wanted.precision(Precision::Fp32) && wanted.size(CaseSize::Golden);
    if here { all() } else { vec![] }
}

/// What is left out of [`checks`], since the GPU or this build's code for it lacks Hopper's instructions.
pub fn left_out(wanted: &Wanted) -> Vec<&'static str> {
    let lacking = wanted_ones(wanted).into_iter().filter(|one| one.hopper && !wanted.hopper);
    lacking.map(|one| one.case).collect()
}

/// One check a primitive, on a GPU.
pub fn checks(wanted: &Wanted) -> Vec<Check> {
    (wanted_ones(wanted).into_iter())
        .filter(|one| wanted.hopper || !one.hopper)
        .map(|primitive| Check {
            op: "primitives",
            size: CaseSize::Golden,
            precision: Precision::Fp32,
            case: primitive.case.into(),
            bar: primitive.bar(),
            run: Box::new(move |device| match device {
                Device::Cuda { cuda, .. } => primitive.run(cuda),
                Device::Cpu(_) => unreachable!("primitives are a GPU's"),
            }),
        })
        .collect()
}

fn all() -> Vec<Primitive> {
    let barriers = |case, n: u32| {
        let want = (0..n).rev().chain([n / 2, (n > 5) as u32]).collect();
        let new = Primitive::new(case, params::PRIMITIVE_BARRIERS, vec![n], want);
        Primitive { threads: 2 * WARP_THREADS, ..new }
    };
    let mut all = vec![
        arguments(),
        Primitive::new("collectives", params::PRIMITIVE_COLLECTIVES, squares(), collectives()),
        Primitive::new("reductions", params::PRIMITIVE_REDUCTIONS, squares(), reductions()),
        barriers("barrier of a warp's half", 17),
        barriers("barrier of a warp and a half", 48),
        barriers("barrier of a block", 64),
        atomics(),
        cp_async(),
        ldmatrix("ldmatrix", params::PRIMITIVE_LDMATRIX, false),
        ldmatrix("ldmatrix.trans", params::PRIMITIVE_LDMATRIX_TRANS, true),
        mma("mma bf16", &BF16, 0),
        mma("mma tf32", &TF32, 0),
        mma("mma tf32 drops low bits", &TF32, 0x1fff),
        mma("mma u8", &U8, 0),
        dp4a(),
        numbers::packets(),
        numbers::conversions(),
        numbers::arithmetic(),
        numbers::approximations(),
        numbers::float64(),
        numbers::functions(),
        numbers::random(),
    ];
    all.extend(hopper::barriers());
    all.extend(hopper::copies());
    all.extend(wgmma::products());
    all
}

/// Arguments of each kind arrive where the kernel looks for them.
fn arguments() -> Primitive {
    let low_high = |v: u64| [v as u32, (v >> 32) as u32];
    let mut want = vec![I32 as u32, F32.to_bits()];
    want.extend(low_high(I64 as u64));
    want.extend(low_high(F64.to_bits()));
    want.extend([12345, U32]);
    want.extend([12345 + JOBS[0], 12345 + JOBS[1], u32::MAX]);
    Primitive {
        case: "arguments",
        kernel: Takes::Each,
        grid: 1,
        threads: WARP_THREADS,
        input: vec![12345],
        want: Words::Exact(want),
        hopper: false,
    }
}

fn squares() -> Vec<u32> {
    (0..32).map(|lane| lane * lane).collect()
}

/// Row by row what each lane gets, by the CUDA programming guide.
fn collectives() -> Vec<u32> {
    let square = |lane: i32| lane * lane;
    let of = |row: i32, lane: i32| match row {
        0 => square(5),
        1 => square(lane ^ 3),
        2 => square(if lane < 4 { lane } else { lane - 4 }),
        3 => square(if lane > 27 { lane } else { lane + 4 }),
        4 => square(if lane % 8 > 5 { lane } else { lane + 2 }),
        5 => square(lane / 8 * 8 + 1),
        6 => (0..32).filter(|&l| square(l) & 4 != 0).fold(0, |mask, l| mask | 1 << l),
        7 => (0..32).map(square).sum(),
        8 => 11,
        9 => 0,
        10 if lane < 16 => square(lane ^ 1) * 10,
        10 => square(lane ^ 2) * 100,
        _ if lane < 16 => 2,
        _ => 1,
    };
    (0..12).flat_map(|row| (0..32).map(move |lane| of(row, lane) as u32)).collect()
}

fn reductions() -> Vec<u32> {
    let sum: u32 = squares().iter().sum();
    let mut want = vec![(sum as f32).to_bits(); 32];
    let double = (sum as f64 * 1_048_577.0).to_bits();
    for wide in [double, (sum as u64) << 30] {
        want.extend([wide as u32, (wide >> 32) as u32].repeat(32));
    }
    want
}

fn atomics() -> Primitive {
    let mut input: Vec<u32> = numbers(128, 1 << 30, 2).iter().map(|v| v + 1000).collect();
    (input[90], input[17]) = (77, 900);
    let want = vec![77, 77];
    let new = Primitive::new("atomics", params::PRIMITIVE_ATOMICS, input, want);
    Primitive { grid: 2, threads: 64, ..new }
}

/// What is not read arrives as zeros.
fn cp_async() -> Primitive {
    let input = numbers(128, u32::MAX, 3);
    let bytes: &[u8] = bytemuck::cast_slice(&input);
    let mut want = bytes.to_vec();
    for lane in 0..32 {
        let neighbour = lane ^ 1;
        let read = neighbour % 17;
        want.extend(&bytes[16 * neighbour..][..read]);
        want.extend(vec![0; 16 - read]);
    }
    let want = bytemuck::pod_collect_to_vec(&want);
    Primitive::new("cp.async", params::PRIMITIVE_CP_ASYNC, input, want)
}

/// Register m of lane l holds elements 2 (l % 4) and the next of row l / 4 of matrix m, or with .trans of that column.
fn ldmatrix(case: &'static str, kernel: Entry<params::Primitive>, trans: bool) -> Primitive {
    let input = numbers(128, u32::MAX, 4);
    let element = |matrix: usize, row: usize, column: usize| {
        let address = (11 * (8 * matrix + row) + 3) % 32;
        input[4 * address + column / 2] >> (16 * (column % 2)) & 0xffff
    };
    let register = |lane: usize, matrix: usize| {
        let (line, first) = (lane / 4, 2 * (lane % 4));
        let of = |i: usize| match trans {
            false => element(matrix, line, first + i),
            true => element(matrix, first + i, line),
        };
        of(0) | of(1) << 16
    };
    let want = (0..128).map(|i| register(i / 4, i % 4)).collect();
    Primitive::new(case, kernel, input, want)
}

/// A shape of mma.sync: m16n8kK, so many elements a register.
struct Mma {
    kernel: Entry<params::Primitive>,
    k: usize,
    packed: usize,
    /// The bits of an element.
    bits: fn(i32) -> u32,
    /// The bits of a sum.
    sum: fn(i32) -> u32,
    range: std::ops::Range<i32>,
}

const BF16: Mma = Mma {
    kernel: params::PRIMITIVE_MMA_BF16,
    k: 16,
    packed: 2,
    bits: |v| bf16::from_f32(v as f32).to_bits() as u32,
    sum: |v| (v as f32).to_bits(),
    range: -8..9,
};
const TF32: Mma = Mma {
    kernel: params::PRIMITIVE_MMA_TF32,
    k: 8,
    packed: 1,
    bits: |v| (v as f32).to_bits(),
    sum: |v| (v as f32).to_bits(),
    range: -9..9,
};
const U8: Mma = Mma {
    kernel: params::PRIMITIVE_MMA_U8,
    k: 32,
    packed: 4,
    bits: |v| v as u32,
    sum: |v| v as u32,
    range: 0..256,
};

impl Mma {
    /// Row and depth of element i of a lane's A, by the tables of the PTX ISA's section on fragments: with groupID =
    /// lane / 4 and thread = lane % 4, a register holds neighbours of the depth, the next one lies eight rows below, the
    /// one after that half the depth further on.
    fn of_a(&self, lane: usize, i: usize) -> (usize, usize) {
        let (register, within) = (i / self.packed, i % self.packed);
        let row = lane / 4 + 8 * (register % 2);
        (row, lane % 4 * self.packed + within + self.k / 2 * (register / 2))
    }

    /// Depth and column of element i of a lane's B.
    fn of_b(&self, lane: usize, i: usize) -> (usize, usize) {
        let (register, within) = (i / self.packed, i % self.packed);
        (lane % 4 * self.packed + within + self.k / 2 * register, lane / 4)
    }

    /// Row and column of element i of a lane's C and D.
    fn of_c(lane: usize, i: usize) -> (usize, usize) {
        (lane / 4 + 8 * (i / 2), 2 * (lane % 4) + i % 2)
    }

    fn matrix(&self, values: usize, salt: u32) -> Vec<i32> {
        let (low, n) = (self.range.start, self.range.len() as u32);
        numbers(values, n, salt).into_iter().map(|v| low + v as i32).collect()
    }
}

/// `low`: bits that are set in every factor, which the instruction must not see.
fn mma(case: &'static str, shape: &Mma, low: u32) -> Primitive {
    let k = shape.k;
    let (a, b) = (shape.matrix(16 * k, 5), shape.matrix(k * 8, 6));
    let c: Vec<i32> = numbers(128, 2000, 7).into_iter().map(|v| v as i32 - 1000).collect();
    let width = 32 / shape.packed;
    let pack = |elements: Vec<i32>| -> Vec<u32> {
        let register = |elements: &[i32]| {
            let bits =
                elements.iter().enumerate().map(|(i, &v)| (shape.bits)(v) << (i * width % 32));
            bits.fold(low, |register, bits| register | bits)
        };
        elements.chunks(shape.packed).map(register).collect()
    };
    let each = |n: usize| (0..32).flat_map(move |lane| (0..n).map(move |i| (lane, i)));
    let of_a = each(4 * shape.packed).map(|(lane, i)| shape.of_a(lane, i));
    let of_b = each(2 * shape.packed).map(|(lane, i)| shape.of_b(lane, i));
    let mut input = pack(of_a.map(|(row, depth)| a[row * k + depth]).collect());
    input.extend(pack(of_b.map(|(depth, column)| b[depth * 8 + column]).collect()));
    let of_c = each(4).map(|(lane, i)| Mma::of_c(lane, i));
    input.extend(of_c.clone().map(|(row, column)| (shape.sum)(c[row * 8 + column])));
    let sum = |(row, column): (usize, usize)| {
        let products = (0..k).map(|depth| a[row * k + depth] * b[depth * 8 + column]);
        (shape.sum)(c[row * 8 + column] + products.sum::<i32>())
    };
    Primitive::new(case, shape.kernel, input, of_c.map(sum).collect())
}

fn dp4a() -> Primitive {
    let input = numbers(32, u32::MAX, 8);
    let bytes = |word: u32| word.to_le_bytes().map(u32::from);
    let dot = |lane: usize| {
        let (a, b) = (bytes(input[lane]), bytes(input[lane ^ 1]));
        a.iter().zip(b).map(|(a, b)| a * b).sum::<u32>() + lane as u32
    };
    let want = (0..32).map(dot).collect();
    Primitive::new("dp4a", params::PRIMITIVE_DP4A, input, want)
}

#[cfg(test)]
mod tests {
    use super::super::Off;
    use super::*;

    /// One wrong word, and a number off by four units in the last place.
    #[test]
    fn what_differs_is_told() {
        let exact = atomics();
        assert_eq!(exact.compare(&[77, 77]).by, 0.0);
        let off = exact.compare(&[77, 78]);
        assert_eq!(off, Off { by: 1.0, at: "word 1 is 0x0000004e, not 0x0000004d".into() });
        let near = numbers::functions();
        let Words::Near(want) = &near.want else { panic!("functions are near") };
        let mut got = want.clone();
        assert!(near.compare(bytemuck::cast_slice(&got)).by <= near.bar());
        got[40] *= 1.0 + 8.0 * f64::EPSILON;
        assert!(near.compare(bytemuck::cast_slice(&got)).by > near.bar());
        got[40] = f64::NAN;
        assert!(near.compare(bytemuck::cast_slice(&got)).by.is_nan());
        let within = numbers::approximations();
        let Words::Within(want) = &within.want else { panic!("approximations have bounds") };
        let right: Vec<u32> = want.iter().map(|&(w, _)| (w as f32).to_bits()).collect();
        assert_eq!(within.compare(&right).by, 0.0);
        for (i, &(w, far)) in want.iter().enumerate() {
            // Of zero the other sign, of infinity and NaN a number, of a number what lies beyond its bound, and NaN.
            let wrong = match w {
                0.0 => vec![-w],
                _ if !w.is_finite() => vec![1.0],
                _ => vec![w + 2.0 * far, w - 2.0 * far, f64::NAN],
            };
            for wrong in wrong {
                let mut got = right.clone();
                got[i] = (wrong as f32).to_bits();
                let by = within.compare(&got).by;
                assert!(by > 1.0 || by.is_nan(), "value {i}, {w:e}: {wrong:e} is off by {by}");
            }
        }
    }

    /// Each element is one register's, and none is left out.
    #[test]
    fn fragments_cover_their_matrices() {
        for shape in [BF16, TF32, U8] {
            let all = |n: usize, of: &dyn Fn(usize, usize) -> (usize, usize)| {
                let mut all: Vec<_> = (0..32 * n).map(|i| of(i / n, i % n)).collect();
                all.sort();
                all.dedup();
                all
            };
            assert_eq!(all(4 * shape.packed, &|l, i| shape.of_a(l, i)).len(), 16 * shape.k);
            assert_eq!(all(2 * shape.packed, &|l, i| shape.of_b(l, i)).len(), shape.k * 8);
            assert_eq!(all(4, &Mma::of_c).len(), 128);
        }
    }
}
