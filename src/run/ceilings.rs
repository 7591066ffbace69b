//! What this machine can do at most, measured: matrix products, and a copy of memory.

use crate::device::cpu::gemm::{Mat, gemm};
use crate::device::cuda::{Addresses, Clock, Cuda};
use crate::device::params::{BLOCK_THREADS, BLOCK_WARPS};
use crate::device::{Acc, Cost, Cpu, Device, Entry, Kernel, Unit, params};
use crate::memory;
use anyhow::Result;
use serde::Serialize;
use std::time::Instant;

/// The most that a device was seen to do.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Ceilings {
    /// Multiply-adds in float32: on the CPU a matrix product, on a GPU its instruction alone.
    pub fp32_flop_per_s: f64,
    /// Read and written by a copy of what no cache holds.
    pub copy_bytes_per_s: f64,
    /// A GPU's tensor cores, fed from registers.
    #[serde(flatten)]
    pub tensor: Option<Tensor>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Tensor {
    pub bf16_flop_per_s: f64,
    pub tf32_flop_per_s: f64,
    pub u8_op_per_s: f64,
    /// By Hopper's products of warpgroups; the others are by `mma.sync`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wgmma_bf16_flop_per_s: Option<f64>,
}

impl Ceilings {
    pub fn measure(device: &Device) -> Result<Self> {
        match device {
            Device::Cpu(cpu) => Ok(of_cpu(cpu)),
            Device::Cuda { cuda, .. } => of_gpu(cuda),
        }
    }

    /// Seconds that a launch of this cost takes at least: whichever of arithmetic and memory takes longer.
    pub fn floor_s(&self, cost: Cost) -> f64 {
        let rate = match (self.tensor, cost.unit) {
            (None, _) | (_, Unit::Fp32) => self.fp32_flop_per_s,
            (Some(t), Unit::TensorTf32) => t.tf32_flop_per_s,
            (Some(t), Unit::TensorBf16) => t.bf16_flop_per_s,
            (Some(t), Unit::TensorU8) => t.u8_op_per_s,
            (Some(t), Unit::WgmmaBf16) => t.wgmma_bf16_flop_per_s.unwrap_or(t.bf16_flop_per_s),
        };
        (cost.flop as f64 / rate).max(cost.bytes as f64 / self.copy_bytes_per_s)
    }
}

/// The best of runs that take this long together.
const MEASURED_S: f64 = 0.5;

/// Units a second of the fastest run of `work`, which returns how many it did.
fn fastest(mut work: impl FnMut() -> f64) -> f64 {
    let begin = Instant::now();
    let mut best = 0.0_f64;
    let mut runs = 0;
    while runs < 3 || begin.elapsed().as_secs_f64() < MEASURED_S {
        let start = Instant::now();
        let units = work();
        best = best.max(units / start.elapsed().as_secs_f64());
        runs += 1;
    }
    best
}

fn of_cpu(cpu: &Cpu) -> Ceilings {
    let [m, n, k] = [768, 256, 1152];
    let operands = || [vec![1.0_f32; m * k], vec![1.0; k * n], vec![0.0; m * n]];
    let mut of_threads: Vec<_> = (0..cpu.threads()).map(|_| operands()).collect();
    let products = 4 * cpu.threads();
    let fp32_flop_per_s = fastest(|| {
        cpu.each_mut(&mut of_threads, |[a, b, c]| {
            for _ in 0..4 {
                gemm([m, n, k], c, n, Acc::Set, 1.0, Mat::rows(a, k), Mat::rows(b, n));
            }
        });
        (2 * m * n * k * products) as f64
    });

    // Caches of large servers hold hundreds of megabytes, but a thread's share is less.
    let words = (256 << 20).min(memory::available().unwrap_or(usize::MAX) / 8) / 4;
    let part = words.div_ceil(cpu.threads());
    let mut parts: Vec<_> =
        (0..cpu.threads()).map(|_| [vec![1.0_f32; part], vec![0.0; part]]).collect();
    let moved = (8 * part * cpu.threads()) as f64;
    let copy_bytes_per_s = fastest(|| {
        cpu.each_mut(&mut parts, |[from, to]| to.copy_from_slice(from));
        moved
    });
    Ceilings { fp32_flop_per_s, copy_bytes_per_s, tensor: None }
}

/// Two blocks of eight warps keep every scheduler of a multiprocessor busy.
const BLOCKS: usize = 2;
/// Shorter runs would measure the launch.
const RUN_S: f64 = 2e-3;

fn of_gpu(cuda: &Cuda) -> Result<Ceilings> {
    let (blocks, cache) = (BLOCKS * cuda.limits().multiprocessors, cuda.cache_bytes()?);
    let mut clock = Clock::new(cuda)?;
    let nowhere = Addresses::new([0; 4], 0);
    let out = cuda.buffer(blocks * BLOCK_THREADS)?;
    let mut rate =
        |entry: Entry<params::Ceiling>, flop_per_warp: usize, shared_bytes| -> Result<f64> {
            let mut steps = 1;
            let seconds = loop {
                let kernel = Kernel::new(entry, blocks, params!(Ceiling { out: &out, steps }));
                let kernel = kernel.shared(shared_bytes);
                let times = (0..5).map(|_| clock.time(std::slice::from_ref(&kernel), &nowhere));
                let best = times.collect::<Result<Vec<_>>>()?.into_iter().fold(f64::MAX, f64::min);
                if best >= RUN_S {
                    break best;
                }
                steps *= 2;
            };
            Ok((steps * flop_per_warp * blocks * BLOCK_WARPS) as f64 / seconds)
        };
    let tensor = Tensor {
        bf16_flop_per_s: rate(params::CEILING_MMA_BF16, 16 * 4096, 0)?,
        tf32_flop_per_s: rate(params::CEILING_MMA_TF32, 16 * 2048, 0)?,
        u8_op_per_s: rate(params::CEILING_MMA_U8, 16 * 8192, 0)?,
        wgmma_bf16_flop_per_s: match cuda.limits().hopper {
            // A warpgroup's four products of 64 × 256 × 16, by warp.
            true => Some(rate(params::CEILING_WGMMA_BF16, 4 * 2 * 64 * 256 * 16 / 4, 49 << 10)?),
            false => None,
        },
    };
    let fp32_flop_per_s = rate(params::CEILING_FMA, 32 * 16 * 2, 0)?;

    let pieces = 4 * cache / 16;
    let (from, to) = (cuda.buffer(4 * pieces)?, cuda.buffer(4 * pieces)?);
    let copy = params!(CeilingCopy { to: &to, from: &from, count: pieces });
    let copy = Kernel::new(params::CEILING_COPY, 4 * blocks, copy);
    let times = (0..10).map(|_| clock.cold(&copy, &nowhere));
    let best = times.collect::<Result<Vec<_>>>()?.into_iter().fold(f64::MAX, f64::min);
    Ok(Ceilings {
        fp32_flop_per_s,
        copy_bytes_per_s: (32 * pieces) as f64 / best,
        tensor: Some(tensor),
    })
}
