//! The embedded default: fp32 on a pool of threads.

use anyhow::Result;
use std::sync::Arc;

/// A pool of worker threads; cheap to clone.
#[derive(Clone)]
pub struct Cpu {
    pool: Arc<rayon::ThreadPool>,
}

impl Cpu {
    /// `threads`: 0 takes one per core.
    pub fn new(threads: usize) -> Result<Self> {
        Ok(Cpu { pool: Arc::new(rayon::ThreadPoolBuilder::new().num_threads(threads).build()?) })
    }

    pub fn threads(&self) -> usize {
        self.pool.current_num_threads()
    }

    /// Runs `f` inside the pool, so that its parallel iterators use these threads.
    pub fn run<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        self.pool.install(f)
    }
}
