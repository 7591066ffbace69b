//! A small pool of threads for regions of some microseconds: between the regions of a plan they wait awake, since
//! waking a sleeping thread costs as much as such a region does. A thread takes its own share of the jobs first,
//! and the same jobs of the next region again, so that what it wrote is still in its cache.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

/// How long an idle worker stays awake.
const AWAKE: Duration = Duration::from_micros(200);

const OPEN: usize = 1 << 63;

/// Jobs of one region, each taken by whichever thread is free.
#[derive(Clone, Copy)]
struct Region {
    /// What a thread does before its first job.
    prepare: *const (dyn Fn() + Sync),
    job: *const (dyn Fn(usize) + Sync),
    jobs: usize,
}

/// Threads that run a region's jobs together with the one that starts it.
pub struct Team {
    shared: Arc<Shared>,
    workers: Vec<(JoinHandle<()>, Thread)>,
    /// Held while a region runs: one at a time.
    region: Mutex<()>,
}

/// A counter on a cache line of its own.
#[repr(align(128))]
struct Next(AtomicUsize);

struct Shared {
    /// Regions started so far; a new number is what workers wait for.
    epoch: AtomicUsize,
    region: Mutex<Option<Region>>,
    /// The next job that no thread has taken, of each thread's share.
    next: Vec<Next>,
    /// [`OPEN`] while a region has jobs that nobody has taken, plus the workers within it. A worker that comes late,
    /// since others use its core, finds it closed and is not waited for.
    gate: AtomicUsize,
    asleep: Vec<AtomicBool>,
    stop: AtomicBool,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

// SAFETY: the functions behind a region's pointers are Sync, and outlive the region, which ends before `each` returns.
unsafe impl Send for Region {}

thread_local! {
    /// Which of a region's threads this is: 0 the one that starts it.
    static INDEX: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Number of this thread among those of the region that it works for; 0 outside of one.
pub fn index() -> usize {
    INDEX.get().unwrap_or(0)
}

impl Team {
    /// A team of `threads`, the caller's included.
    ///
    /// # Errors
    /// If the system starts no more threads.
    pub fn new(threads: usize) -> std::io::Result<Self> {
        let others = threads.saturating_sub(1);
        let shared = Arc::new(Shared {
            epoch: AtomicUsize::new(0),
            region: Mutex::new(None),
            next: (0..=others).map(|_| Next(AtomicUsize::new(0))).collect(),
            gate: AtomicUsize::new(0),
            asleep: (0..others).map(|_| AtomicBool::new(false)).collect(),
            stop: AtomicBool::new(false),
            panic: Mutex::new(None),
        });
        let mut team = Team { shared, workers: Vec::new(), region: Mutex::new(()) };
        for worker in 0..others {
            let shared = team.shared.clone();
            let handle = thread::Builder::new().spawn(move || shared.work(worker))?;
            let thread = handle.thread().clone();
            team.workers.push((handle, thread));
        }
        Ok(team)
    }

    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs `job(0..jobs)` on all threads and returns when all are done; a thread runs `prepare` before its
    /// first. A region within a region runs on its own thread.
    ///
    /// # Panics
    /// As a job does.
    pub fn each(&self, jobs: usize, prepare: &(dyn Fn() + Sync), job: &(dyn Fn(usize) + Sync)) {
        if jobs < 2 || self.workers.is_empty() || INDEX.get().is_some() {
            prepare();
            return (0..jobs).for_each(job);
        }
        let _one = self.region.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = &*self.shared;
        // SAFETY: only the lifetimes change; no worker uses them once the gate is closed and empty.
        let region = unsafe {
            let prepare: &'static (dyn Fn() + Sync) = std::mem::transmute(prepare);
            let job: &'static (dyn Fn(usize) + Sync) = std::mem::transmute(job);
            Region { prepare, job, jobs }
        };
        *lock(&shared.region) = Some(region);
        for (share, next) in shared.next.iter().enumerate() {
            next.0.store(share * jobs / self.threads(), Ordering::Relaxed);
        }
        shared.gate.store(OPEN, Ordering::Release);
        shared.epoch.fetch_add(1, Ordering::SeqCst);
        for ((_, thread), asleep) in self.workers.iter().zip(&shared.asleep) {
            if asleep.load(Ordering::SeqCst) {
                thread.unpark();
            }
        }
        shared.take_jobs(0, region);
        // Every job is taken; those within have yet to finish theirs.
        shared.gate.fetch_and(!OPEN, Ordering::AcqRel);
        let mut turns = 0;
        while shared.gate.load(Ordering::Acquire) > 0 {
            pause(&mut turns);
        }
        if let Some(panic) = lock(&shared.panic).take() {
            resume_unwind(panic);
        }
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for (handle, thread) in self.workers.drain(..) {
            thread.unpark();
            // A worker catches its jobs' panics.
            let _ = handle.join();
        }
    }
}

impl Shared {
    fn work(&self, worker: usize) {
        let mut seen = 0;
        while self.wait(worker, seen) {
            seen = self.epoch.load(Ordering::SeqCst);
            if !self.enter() {
                continue;
            }
            // The region stays while someone is within it.
            if let Some(region) = *lock(&self.region) {
                self.take_jobs(worker + 1, region);
            }
            self.gate.fetch_sub(1, Ordering::Release);
        }
    }

    /// Whether the gate is open, and then this worker within.
    fn enter(&self) -> bool {
        let entered = |gate| (gate & OPEN > 0).then_some(gate + 1);
        self.gate.fetch_update(Ordering::AcqRel, Ordering::Acquire, entered).is_ok()
    }

    /// Until there is another region than number `seen`; false at the end.
    fn wait(&self, worker: usize, seen: usize) -> bool {
        let (start, mut turns) = (Instant::now(), 0);
        loop {
            if self.stop.load(Ordering::SeqCst) {
                return false;
            }
            if self.epoch.load(Ordering::SeqCst) != seen {
                return true;
            }
            pause(&mut turns);
            if turns.is_multiple_of(32) && start.elapsed() > AWAKE {
                self.asleep[worker].store(true, Ordering::SeqCst);
                // A region started before the flag was up finds no one to wake.
                if self.epoch.load(Ordering::SeqCst) == seen && !self.stop.load(Ordering::SeqCst) {
                    thread::park();
                }
                self.asleep[worker].store(false, Ordering::SeqCst);
            }
        }
    }

    fn take_jobs(&self, index: usize, region: Region) {
        INDEX.set(Some(index));
        // SAFETY: the region's functions live until the caller of `each` has seen this thread finish.
        let (prepare, job) = unsafe { (&*region.prepare, &*region.job) };
        let taken = catch_unwind(AssertUnwindSafe(|| {
            let (threads, mut ready) = (self.next.len(), false);
            for share in (index..threads).chain(0..index) {
                let end = (share + 1) * region.jobs / threads;
                loop {
                    let i = self.next[share].0.fetch_add(1, Ordering::Relaxed);
                    if i >= end {
                        break;
                    }
                    if !ready {
                        prepare();
                        ready = true;
                    }
                    job(i);
                }
            }
        }));
        INDEX.set(None);
        if let Err(panic) = taken {
            *lock(&self.panic) = Some(panic);
        }
    }
}

/// A short wait; one that lasts gives the core away each time, since whoever is waited for may need it.
fn pause(turns: &mut u32) {
    const SPIN: u32 = 256;
    *turns += 1;
    if *turns > SPIN { thread::yield_now() } else { std::hint::spin_loop() }
}

fn lock<T>(m: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}
