//! The embedded default: fp32 on a pool of threads. Jobs are cut by shape alone and reduce in a fixed
//! order, so results depend neither on the number of threads nor on the batch an image travels in.

pub mod dots;
pub mod gemm;
pub mod math;
pub mod patches;
pub mod resample;
pub mod sketch;
pub mod winograd;

use super::{Dtype, Slot, Space, StepArgs};
use crate::error::{Exit, fail};
use anyhow::Result;
use rayon::prelude::*;
use std::sync::Arc;

/// A pool of worker threads; cheap to clone.
#[derive(Clone)]
pub struct Cpu {
    pool: Arc<rayon::ThreadPool>,
}

impl Cpu {
    /// `threads`: 0 takes one per core.
    pub fn new(threads: usize) -> Result<Self> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
        Ok(Cpu { pool: Arc::new(pool) })
    }

    pub fn threads(&self) -> usize {
        self.pool.current_num_threads()
    }

    /// Runs `f` inside the pool, so that its parallel iterators use these threads.
    pub fn run<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        self.pool.install(f)
    }

    /// Runs `f` on each item, at most one a thread at a time.
    pub fn each_mut<T: Send>(&self, items: &mut [T], f: impl Fn(&mut T) + Send + Sync) {
        self.run(|| items.par_iter_mut().with_max_len(1).for_each(f));
    }
}

/// A zeroed buffer of `words` f32, 64-byte aligned.
///
/// # Errors
/// Out of memory (exit 4) with the bytes asked.
pub fn buffer(words: usize) -> Result<Buffer> {
    let mut lines: Vec<Line> = Vec::new();
    let n = words.div_ceil(16);
    lines.try_reserve_exact(n).map_err(|_| {
        fail(Exit::Device, format!("--device: cpu has no {} bytes left to reserve", n * 64))
    })?;
    lines.resize(n, Line([0.0; 16]));
    Ok(Buffer(lines))
}

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; 16]);

/// Words on cache-line boundaries.
pub struct Buffer(Vec<Line>);

impl Buffer {
    pub fn as_slice(&self) -> &[f32] {
        // SAFETY: a Line is 16 f32 without padding, so n lines are 16·n f32.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast(), self.0.len() * 16) }
    }

    pub fn as_mut_slice(&mut self) -> &mut [f32] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), self.0.len() * 16) }
    }
}

/// The buffers a plan runs in, as its launches see them.
///
/// Slices are handed out unchecked against each other: that slots alive together are disjoint is the
/// plan's promise, and that jobs of one region write disjoint parts is the op's.
pub struct Bound {
    arena: *mut f32,
    weights: *const f32,
    grads: *mut f32,
    scratch: *mut f32,
    scratch_stride: usize,
    lens: [usize; 3],
    pub args: StepArgs,
}

// SAFETY: see the promises above; the buffers outlive the run that this is made for.
unsafe impl Sync for Bound {}

impl Bound {
    /// `scratch` holds `threads` pieces of `scratch_stride` words.
    pub fn new(
        arena: &mut [f32],
        weights: &[f32],
        grads: &mut [f32],
        scratch: &mut [f32],
        scratch_stride: usize,
        args: StepArgs,
    ) -> Self {
        Bound {
            arena: arena.as_mut_ptr(),
            weights: weights.as_ptr(),
            grads: grads.as_mut_ptr(),
            scratch: scratch.as_mut_ptr(),
            scratch_stride,
            lens: [arena.len(), weights.len(), grads.len()],
            args,
        }
    }

    fn pointer(&self, s: Slot) -> *mut f32 {
        let (base, len) = match s.space {
            Space::Arena => (self.arena, self.lens[0]),
            Space::Weights => (self.weights.cast_mut(), self.lens[1]),
            Space::Grads => (self.grads, self.lens[2]),
        };
        assert!(s.offset + s.words() <= len, "slot {s:?} ends past its buffer of {len}");
        // SAFETY: in bounds by the check above.
        unsafe { base.add(s.offset) }
    }

    /// The words of a float32 slot.
    pub fn get(&self, s: Slot) -> &[f32] {
        assert!(s.dtype == Dtype::F32, "float32 values of {s:?}");
        // SAFETY: in bounds; no one writes a slot that a launch reads (the plan's promise).
        unsafe { std::slice::from_raw_parts(self.pointer(s), s.len) }
    }

    /// The slot's words as float64, two words each.
    pub fn get_f64(&self, s: Slot) -> &[f64] {
        bytemuck::cast_slice(self.get(s))
    }

    /// The slot's words as integers.
    pub fn get_u32(&self, s: Slot) -> &[u32] {
        bytemuck::cast_slice(self.get(s))
    }

    #[allow(clippy::mut_from_ref)]
    pub fn get_mut(&self, s: Slot) -> &mut [f32] {
        assert!(s.space != Space::Weights, "launches do not write weights");
        assert!(s.dtype == Dtype::F32, "float32 values for {s:?}");
        // SAFETY: in bounds; one writer per part (the op's promise).
        unsafe { std::slice::from_raw_parts_mut(self.pointer(s), s.len) }
    }

    #[allow(clippy::mut_from_ref)]
    pub fn get_f64_mut(&self, s: Slot) -> &mut [f64] {
        bytemuck::cast_slice_mut(self.get_mut(s))
    }

    /// This thread's private words, as many as the launch asked for or more.
    #[allow(clippy::mut_from_ref)]
    pub fn scratch(&self) -> &mut [f32] {
        let thread = rayon::current_thread_index().unwrap_or(0);
        // SAFETY: one piece per thread of the pool; a job does not yield to another while it uses it.
        unsafe {
            let start = self.scratch.add(thread * self.scratch_stride);
            std::slice::from_raw_parts_mut(start, self.scratch_stride)
        }
    }

    /// Runs `job(0..jobs)`, in parallel when `words` of work are worth the wake-up.
    pub fn each(&self, jobs: usize, words: usize, job: impl Fn(usize) + Send + Sync) {
        const WORTH_A_WAKE_UP: usize = 16 * 1024;
        if jobs < 2 || words < WORTH_A_WAKE_UP {
            (0..jobs).for_each(job);
        } else {
            (0..jobs).into_par_iter().with_max_len(1).for_each(job);
        }
    }
}
