//! The embedded default: threads that compute in float32, over tensors in float32 or bf16. Jobs are cut by shape alone
//! and sums over images have a fixed order, so results depend neither on the number of threads nor on the batch an
//! image travels in.

pub mod dots;
pub mod gemm;
pub mod math;
pub mod patches;
pub mod resample;
pub mod sketch;
pub mod team;
pub mod winograd;

use super::slot::{Acc, Dtype, Sink, Slot, Space};
use crate::error::{Exit, fail};
use crate::memory::{self, Size};
use anyhow::Result;
use std::sync::Arc;
use team::Team;

/// Worker threads; cheap to clone.
#[derive(Clone)]
pub struct Cpu {
    pool: Arc<rayon::ThreadPool>,
    /// The threads of plans, whose regions are too short for the pool.
    team: Arc<Team>,
}

impl Cpu {
    /// `threads`: 0 takes one per core.
    ///
    /// # Errors
    /// Device (exit 4), if the system starts no more threads.
    pub fn new(threads: usize) -> Result<Self> {
        let pool = memory::start_threads(threads, |pool| pool.build())?;
        let threads = pool.current_num_threads();
        memory::room_for_threads(threads)?;
        let team = Team::new(threads).map_err(|e| memory::no_threads(threads, &e))?;
        Ok(Cpu { pool: Arc::new(pool), team: Arc::new(team) })
    }

    pub fn threads(&self) -> usize {
        self.team.threads()
    }

    /// Runs `f` inside the pool, so that its parallel iterators use these threads.
    pub fn run<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        self.pool.install(f)
    }

    /// Runs `f` on each item, at most one a thread at a time.
    pub fn each_mut<T: Send>(&self, items: &mut [T], f: impl Fn(&mut T) + Send + Sync) {
        struct Items<T>(*mut T);
        // SAFETY: each item is handed to one thread at a time, and is Send.
        unsafe impl<T: Send> Sync for Items<T> {}
        impl<T> Items<T> {
            fn at(&self, i: usize) -> *mut T {
                self.0.wrapping_add(i)
            }
        }
        let all = Items(items.as_mut_ptr());
        // SAFETY: i < items.len(), and every i comes once.
        self.team.each(items.len(), &|| (), &|i| f(unsafe { &mut *all.at(i) }));
    }
}

/// Buffers larger than this are compared with what is free.
const WORTH_ASKING: usize = 32 << 20;

/// A zeroed buffer of `words` f32, 64-byte aligned.
///
/// # Errors
/// Out of memory (exit 4) with the bytes asked.
pub fn buffer(words: usize) -> Result<Buffer> {
    let mut lines: Vec<CacheLine> = Vec::new();
    let n = words.div_ceil(16);
    let refused = || {
        let asked = Size(n as u64 * 64);
        fail(Exit::Device, format!("--device: cpu has no {asked} left to reserve"))
    };
    // The system promises more than it has, and ends who takes it at his word.
    if n * 64 > WORTH_ASKING && memory::available().is_some_and(|free| n * 64 > free) {
        return Err(refused());
    }
    memory::try_reserve(&mut lines, n).map_err(|_| refused())?;
    lines.resize(n, CacheLine([0.0; 16]));
    Ok(Buffer(lines))
}

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct CacheLine([f32; 16]);

/// Words on cache-line boundaries.
pub struct Buffer(Vec<CacheLine>);

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

/// What varies from run to run of one plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StepArgs {
    /// Key of the random numbers.
    pub seed: u64,
    pub step: u32,
    /// Index in the whole batch of the recording's first image.
    pub first_image: u32,
}

/// A function of the CPU device with its slots and scalars resolved.
pub struct CpuLaunch {
    /// Op and direction, for profiles: `conv2d_fwd`.
    pub name: &'static str,
    /// Private words each thread needs while it runs.
    pub scratch_words: usize,
    pub run: Box<dyn Fn(&Bound) + Send + Sync>,
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
    team: Arc<Team>,
    pub args: StepArgs,
}

// SAFETY: see the promises above; the buffers outlive the run that this is made for.
unsafe impl Sync for Bound {}

impl Bound {
    /// `scratch` holds a piece of `scratch_stride` words for each of `cpu`'s threads.
    pub fn new(
        cpu: &Cpu,
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
            team: cpu.team.clone(),
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

    /// The bits of elements `at..at + len` of a bf16 slot.
    pub fn get_half(&self, s: Slot, at: usize, len: usize) -> &[u16] {
        self.half_mut(s, at, len)
    }

    #[allow(clippy::mut_from_ref)]
    fn half_mut(&self, s: Slot, at: usize, len: usize) -> &mut [u16] {
        assert!(s.dtype == Dtype::Bf16 && s.space == Space::Arena, "bf16 values of {s:?}");
        assert!(at + len <= s.len, "elements {at}+{len} of {s:?}");
        // SAFETY: in bounds by the checks here and of `pointer`, two elements a word; one writer per part and no
        // reader beside it (the op's and the plan's promises).
        unsafe { std::slice::from_raw_parts_mut(self.pointer(s).cast::<u16>().add(at), len) }
    }

    /// Elements `at..at + len` of a slot: in place, or widened into the first of `work`.
    pub fn read<'a>(&'a self, s: Slot, at: usize, len: usize, work: &'a mut [f32]) -> &'a [f32] {
        match s.dtype {
            Dtype::F32 => self.get(s.part(at, len)),
            Dtype::Bf16 => {
                math::widen(&mut work[..len], self.get_half(s, at, len));
                &work[..len]
            }
        }
    }

    /// Has `f` write (or, where the sink adds, change) elements `at..at + len`: in place, or in the first of `work`,
    /// from where they are rounded.
    pub fn write(
        &self,
        to: Sink,
        at: usize,
        len: usize,
        work: &mut [f32],
        f: impl FnOnce(&mut [f32]),
    ) {
        match to.slot.dtype {
            Dtype::F32 => f(self.get_mut(to.slot.part(at, len))),
            Dtype::Bf16 => {
                let (work, halves) = (&mut work[..len], self.half_mut(to.slot, at, len));
                if to.acc == Acc::Add {
                    math::widen(work, halves);
                }
                f(work);
                math::narrow(halves, work);
            }
        }
    }

    #[allow(clippy::mut_from_ref)]
    pub fn get_f64_mut(&self, s: Slot) -> &mut [f64] {
        bytemuck::cast_slice_mut(self.get_mut(s))
    }

    /// This thread's private words, as many as the launch asked for or more.
    #[allow(clippy::mut_from_ref)]
    pub fn scratch(&self) -> &mut [f32] {
        // SAFETY: one piece per thread of the team; a job does not yield to another while it uses it.
        unsafe {
            let start = self.scratch.add(team::index() * self.scratch_stride);
            std::slice::from_raw_parts_mut(start, self.scratch_stride)
        }
    }

    /// Runs `job(0..jobs)`, in parallel when `words` of work are worth the hand-over.
    pub fn each(&self, jobs: usize, words: usize, job: impl Fn(usize) + Sync) {
        self.each_prepared(jobs, words, || (), job);
    }

    /// As [`Bound::each`]; every thread that takes a job runs `prepare` before its first.
    pub fn each_prepared(
        &self,
        jobs: usize,
        words: usize,
        prepare: impl Fn() + Sync,
        job: impl Fn(usize) + Sync,
    ) {
        const WORTH_SHARING: usize = 4 * 1024;
        if words < WORTH_SHARING {
            prepare();
            (0..jobs).for_each(job);
        } else {
            self.team.each(jobs, &prepare, &job);
        }
    }
}
