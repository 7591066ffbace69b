//! What a training would take on a GPU that is not here: each kernel at what such a GPU can do at most.

use super::ceilings::{Ceilings, Tensor};
use super::memory;
use crate::device::{Cost, GpuLimits, Kernel, Precision, Target, params};
use crate::error::{Exit, fail};
use crate::memory::Size;
use crate::model::Recording;
use crate::model::{ModelConfig, Params};
use crate::tape::Mode;
use anyhow::Result;
use serde::Serialize;

/// A GPU as its maker and others describe it.
#[derive(Debug, Clone, Copy)]
pub struct Gpu {
    /// As `--device` takes it.
    pub name: &'static str,
    pub memory_bytes: usize,
    pub limits: GpuLimits,
    pub ceilings: Ceilings,
}

/// Tensor cores as `mma.sync` reaches them, about nine tenths of the peak on an A100, 63% on a Hopper GPU, and there by
/// products of warpgroups what is sustained at 700 W. Copies reach 88 to 90% of the memory's rate.
pub const GPUS: [Gpu; 2] = [
    Gpu {
        name: "h100",
        memory_bytes: 80_000_000_000,
        limits: GpuLimits {
            shared_bytes: params::H100_SHARED_BYTES,
            multiprocessors: 132,
            hopper: true,
            ..GpuLimits::LEAST
        },
        ceilings: Ceilings {
            fp32_flop_per_s: 60e12,
            copy_bytes_per_s: 3.0e12,
            tensor: Some(Tensor {
                bf16_flop_per_s: 620e12,
                tf32_flop_per_s: 310e12,
                u8_op_per_s: 1240e12,
                wgmma_bf16_flop_per_s: Some(660e12),
            }),
        },
    },
    Gpu {
        name: "a100",
        memory_bytes: 80_000_000_000,
        limits: GpuLimits {
            shared_bytes: params::A100_SHARED_BYTES,
            multiprocessors: 108,
            ..GpuLimits::LEAST
        },
        ceilings: Ceilings {
            fp32_flop_per_s: 18e12,
            copy_bytes_per_s: 1.8e12,
            tensor: Some(Tensor {
                bf16_flop_per_s: 280e12,
                tf32_flop_per_s: 140e12,
                u8_op_per_s: 560e12,
                wgmma_bf16_flop_per_s: None,
            }),
        },
    },
];

/// Launched from a graph, a kernel that does next to nothing still takes this long.
const KERNEL_S: f64 = 2e-6;
/// Share of a GPU's memory that a training may take.
const USABLE: f64 = 0.9;

impl Gpu {
    pub fn named(name: &str) -> Option<&'static Gpu> {
        GPUS.iter().find(|gpu| gpu.name == name)
    }

    /// Seconds that a kernel takes at least.
    pub fn floor_s(&self, cost: Cost) -> f64 {
        self.ceilings.floor_s(cost).max(KERNEL_S)
    }
}

/// All kernels of one name in a step.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Share {
    pub name: &'static str,
    pub launches: usize,
    pub floor_s: f64,
    #[serde(flatten)]
    pub cost: Cost,
    /// What binds most of their time: arithmetic, memory or launching.
    pub bound: &'static str,
}

/// An optimizer step on a GPU, by kernel, the longest first.
pub struct Prediction {
    pub micro_batch: usize,
    /// Of the first micro-batch.
    pub recording: Recording,
    pub shares: Vec<Share>,
}

impl Prediction {
    /// `micro_batch`: images computed at a time; `None` takes the most that fit.
    ///
    /// # Errors
    /// Device (exit 4) if not even eight images fit.
    pub fn new(
        gpu: &Gpu,
        config: &ModelConfig,
        precision: Precision,
        batch: usize,
        micro_batch: Option<usize>,
    ) -> Result<Self> {
        let target = Target::Cuda(gpu.limits);
        let record = |images, mode| Recording::new(target, config, precision, images, batch, mode);
        let flat_bytes = 4 * Params::new(config).flat_len;
        let free = (USABLE * gpu.memory_bytes as f64) as usize;
        let over = |wanted: usize| {
            fail(
                Exit::Device,
                format!(
                    "--device: {}: {} wanted, {} usable",
                    gpu.name,
                    Size(wanted as u64),
                    Size(free as u64)
                ),
            )
        };
        if 5 * flat_bytes > free {
            return Err(over(5 * flat_bytes));
        }
        let unit = config.images_per_gpu_sum();
        let mut micro_batch_now = match micro_batch {
            Some(asked) => {
                memory::refuse_uncounted(config, asked.next_multiple_of(unit).min(batch))?
            }
            None => memory::most_at_once(config, batch)?,
        };
        let mut first = record(micro_batch_now, Mode::Training)?;
        loop {
            let wanted = first.plan.arena_bytes() + 5 * flat_bytes;
            if wanted <= free {
                break;
            }
            if micro_batch.is_some() || micro_batch_now <= unit {
                return Err(over(wanted));
            }
            micro_batch_now = micro_batch_now.div_ceil(2).next_multiple_of(unit);
            first = record(micro_batch_now, Mode::Training)?;
        }

        let mut tally = StepTally { gpu, shares: Vec::new() };
        tally.add_all(first.plan.packs(), 1);
        tally.add_all(first.plan.ends(), 1);
        tally.add_all(first.plan.kernels(), 1);
        let rest = batch - micro_batch_now;
        if rest >= micro_batch_now {
            let again = record(micro_batch_now, Mode::Accumulating)?;
            tally.add_all(again.plan.kernels(), rest / micro_batch_now);
        }
        if !rest.is_multiple_of(micro_batch_now) {
            let last = record(rest % micro_batch_now, Mode::Accumulating)?;
            tally.add_all(last.plan.kernels(), 1);
        }
        // u8 pixels in, two float32 images out; Adam's nine crossings of a parameter, and the look for a bad one.
        let prepare = 9 * config.image_len() * micro_batch_now;
        let micro_batches = batch.div_ceil(micro_batch_now);
        let moves = |bytes: usize| Cost { bytes: bytes as u64, ..Cost::default() };
        tally.add(params::PREPARE_IMAGES.name, moves(prepare), micro_batches);
        tally.add(params::ADAM_EMA.name, moves(9 * flat_bytes), 1);
        tally.add(params::CHECK_FINITE.name, moves(flat_bytes), 1);
        let mut shares: Vec<Share> = tally.shares.into_iter().map(|(share, _)| share).collect();
        shares.sort_by(|a, b| b.floor_s.total_cmp(&a.floor_s));
        Ok(Prediction { micro_batch: micro_batch_now, recording: first, shares })
    }

    /// Seconds of a step, kernel after kernel.
    pub fn step_s(&self) -> f64 {
        self.shares.iter().map(|share| share.floor_s).sum()
    }
}

/// Shares, each with its seconds by what binds them.
struct StepTally<'a> {
    gpu: &'a Gpu,
    shares: Vec<(Share, [f64; 3])>,
}

impl StepTally<'_> {
    const BOUNDS: [&'static str; 3] = ["arithmetic", "memory", "launches"];

    fn add_all<'k>(&mut self, kernels: impl IntoIterator<Item = &'k Kernel>, times: usize) {
        for kernel in kernels {
            self.add(kernel.name, kernel.cost(), times);
        }
    }

    fn add(&mut self, name: &'static str, cost: Cost, times: usize) {
        let known = self.shares.iter().position(|(share, _)| share.name == name);
        let at = known.unwrap_or(self.shares.len());
        if known.is_none() {
            let (bound, nothing) = ("", Cost::default());
            let share = Share { name, launches: 0, floor_s: 0.0, cost: nothing, bound };
            self.shares.push((share, [0.0; 3]));
        }
        let (share, by_bound) = &mut self.shares[at];
        let seconds = self.gpu.floor_s(cost);
        let of_memory = cost.bytes as f64 / self.gpu.ceilings.copy_bytes_per_s;
        let bound = match seconds {
            s if s <= KERNEL_S => 2,
            s if s <= of_memory => 1,
            _ => 0,
        };
        by_bound[bound] += seconds * times as f64;
        share.launches += times;
        share.floor_s += seconds * times as f64;
        share.cost.flop += cost.flop * times as u64;
        share.cost.bytes += cost.bytes * times as u64;
        let most = (0..3).max_by(|&a, &b| by_bound[a].total_cmp(&by_bound[b]));
        share.bound = Self::BOUNDS[most.unwrap_or(0)];
    }
}
