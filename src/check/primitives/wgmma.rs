//! What products of a warpgroup must give, by the PTX ISA's section 9.7.15: how a matrix lies in shared memory, what its
//! descriptor says, which thread holds which element of the sums.

use super::primitive::{Primitive, numbers};
use crate::device::params::{
    PRIMITIVE_WGMMA_64, PRIMITIVE_WGMMA_64_A_SIDE, PRIMITIVE_WGMMA_128_B_SIDE, PRIMITIVE_WGMMA_192,
    PRIMITIVE_WGMMA_256, PRIMITIVE_WGMMA_256_SIDES,
};
use crate::device::{Entry, Kernel, Ptr, params};
use half::bf16;

/// Depths that all products of a case add up to, and those of one.
const DEPTHS: usize = 64;
const DEPTH: usize = 16;

/// A matrix of `lines` (rows of A, columns of B) of 64 depths in shared memory, in rows of 128 bytes with 128-byte swizzle.
#[derive(Clone, Copy)]
struct Operand {
    lines: usize,
    /// MN-major: lines along the rows.
    side: bool,
    /// What its descriptor says.
    lead: usize,
    stride: usize,
}

impl Operand {
    /// K-major, groups of 8 lines without a gap.
    fn deep(lines: usize) -> Self {
        Operand { lines, side: false, lead: 0, stride: 1024 }
    }

    /// MN-major, one block of 64 lines after another.
    fn side(lines: usize) -> Self {
        Operand { lines, side: true, lead: 8 * 1024, stride: 1024 }
    }

    fn bytes(&self) -> usize {
        let farthest = |i: usize| self.place(i / DEPTHS, i % DEPTHS);
        ((0..self.lines * DEPTHS).map(farthest).max().expect("elements") + 2).next_multiple_of(1024)
    }

    /// The byte at which an element lies. K-major: ((8, n), T k) : ((row, SBO), 1). MN-major, T = 8 elements of 16 bytes:
    /// ((T, 8, m), (8, k)) : ((1, T, LBO), (8 T, SBO)). Of the address, bits 7 to 9 are XORed into bits 4 to 6.
    fn place(&self, line: usize, depth: usize) -> usize {
        let address = match self.side {
            false => line / 8 * self.stride + line % 8 * 128 + 2 * depth,
            true => {
                let (t, eight, m) = (line % 8, line / 8 % 8, line / 64);
                let along = 2 * (t + 8 * eight) + m * self.lead;
                along + 2 * (8 * 8) * (depth % 8) + depth / 8 * self.stride
            }
        };
        address ^ (address / 128 % 8) << 4
    }

    /// Bytes from the beginning of a product to that of the next.
    fn step(&self) -> usize {
        if self.side { DEPTH / 8 * self.stride } else { 2 * DEPTH }
    }
}

struct Product {
    case: &'static str,
    kernel: Entry<params::PrimitiveProduct>,
    a: Operand,
    b: Operand,
    add: bool,
}

impl Product {
    fn primitive(self) -> Primitive {
        let Product { case, kernel, a, b, add } = self;
        let value = |v: &u32| *v as i32 - 4;
        let of_a: Vec<i32> = numbers(a.lines * DEPTHS, 9, 31).iter().map(value).collect();
        let of_b: Vec<i32> = numbers(b.lines * DEPTHS, 9, 32).iter().map(value).collect();
        let b_at = a.bytes();
        let mut memory = vec![0_u16; (b_at + b.bytes()) / 2];
        for (operand, values, at) in [(a, &of_a, 0), (b, &of_b, b_at)] {
            for (i, &v) in values.iter().enumerate() {
                let place = operand.place(i / DEPTHS, i % DEPTHS);
                memory[(at + place) / 2] = bf16::from_f32(v as f32).to_bits();
            }
        }
        let input: Vec<u32> = bytemuck::pod_collect_to_vec(&memory);
        let sum = |row: usize, column: usize| -> i32 {
            (0..DEPTHS).map(|k| of_a[row * DEPTHS + k] * of_b[column * DEPTHS + k]).sum()
        };
        let registers = b.lines / 2;
        let register = |thread: usize, i: usize| {
            let (row, column) = element(thread, i);
            let before = if add { thread as i32 + 3 * i as i32 } else { 0 };
            ((before + sum(row, column)) as f32).to_bits()
        };
        let want = (0..128 * registers).map(|i| register(i / registers, i % registers)).collect();
        let words = input.len();
        let built = move |out: Ptr, input: Ptr| {
            let given = params!(PrimitiveProduct {
                out,
                input,
                words,
                b_at,
                a_lead: a.lead,
                a_stride: a.stride,
                b_lead: b.lead,
                b_stride: b.stride,
                a_step: a.step(),
                b_step: b.step(),
                add,
            });
            Kernel::new(kernel, 1, given).shared(4 * words + 1024)
        };
        Primitive::hopper(case, 128, Box::new(built), input, want)
    }
}

/// Row and column of register i of a thread's sums, by the figure of D: a warp holds 16 rows, a thread two neighbours of
/// every eighth column, of row lane / 4 and of the one eight below.
fn element(thread: usize, i: usize) -> (usize, usize) {
    let (warp, lane) = (thread / 32, thread % 32);
    (16 * warp + lane / 4 + 8 * (i / 2 % 2), i / 4 * 8 + 2 * (lane % 4) + i % 2)
}

/// Each shape, along the depth and across, and descriptors whose lead and stride are not the usual ones.
pub(super) fn products() -> Vec<Primitive> {
    let (deep, side) = (Operand::deep, Operand::side);
    let of = |case, kernel, a, b, add| Product { case, kernel, a, b, add }.primitive();
    // Groups of 8 lines with as much between them.
    let apart = Operand { stride: 2048, ..deep(64) };
    // Blocks of 64 lines beside each other, all 8 depths of one group together.
    let beside = Operand { lead: 1024, stride: 4 * 1024, ..side(256) };
    vec![
        of("wgmma of 64 columns", PRIMITIVE_WGMMA_64, deep(64), deep(64), false),
        of("wgmma adds", PRIMITIVE_WGMMA_64, deep(64), deep(64), true),
        of("wgmma of 64 columns, stride", PRIMITIVE_WGMMA_64, apart, apart, false),
        of("wgmma of 64 columns, A across", PRIMITIVE_WGMMA_64_A_SIDE, side(64), deep(64), false),
        of("wgmma of 128 columns, B across", PRIMITIVE_WGMMA_128_B_SIDE, deep(64), side(128), true),
        of("wgmma of 192 columns", PRIMITIVE_WGMMA_192, deep(64), deep(192), false),
        of("wgmma of 256 columns", PRIMITIVE_WGMMA_256, deep(64), deep(256), true),
        of("wgmma of 256 columns across", PRIMITIVE_WGMMA_256_SIDES, side(64), side(256), false),
        of("wgmma across, lead and stride", PRIMITIVE_WGMMA_256_SIDES, side(64), beside, false),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each element lies in one place, and each sum in one register.
    #[test]
    fn operands_and_sums_are_covered() {
        let beside = Operand { lead: 1024, stride: 4 * 1024, ..Operand::side(256) };
        for operand in [Operand::deep(192), Operand::side(256), beside] {
            let elements = operand.lines * DEPTHS;
            let mut places: Vec<usize> =
                (0..elements).map(|i| operand.place(i / DEPTHS, i % DEPTHS) / 2).collect();
            places.sort();
            assert!(places.iter().enumerate().all(|(i, &place)| i == place));
        }
        let mut sums: Vec<_> = (0..128 * 64).map(|i| element(i / 64, i % 64)).collect();
        sums.sort();
        sums.dedup();
        assert_eq!(sums.len(), 64 * 128);
    }
}
