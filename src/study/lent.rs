//! One run of a sweep, done on a machine that a scheduler lends and may take away.

use super::Setup;
use super::bucket::Bucket;
use super::sweep::Sweep;
use crate::device::Device;
use crate::error::usage;
use crate::run::dir::is_busy;
use crate::run::progress::Overall;
use crate::run::train::work;
use crate::run::{RunDir, RunOptions};
use crate::signal::{stop_asked, stop_at};
use anyhow::Result;
use std::time::{Duration, Instant};

/// What a scheduler's worker does beside training.
#[derive(Debug, Clone)]
pub struct Worker {
    /// Seconds that it waits for another process in its run: a machine that has gone may keep its lock for some time, as
    /// NFS servers wait for it to come back.
    pub wait_s: f64,
    pub bucket: Bucket,
}

/// A lock that is held is looked at again this often.
const AGAIN: Duration = Duration::from_millis(500);

impl Worker {
    /// Does run `i`, brings it from the bucket before and there after; false if a signal stopped it.
    ///
    /// # Errors
    /// As [`Sweep::run`]; other (exit 1): another process still works in it, or a command for the bucket failed.
    pub fn run(
        &self,
        sweep: &Sweep,
        i: usize,
        setup: &Setup,
        device: &Device,
        options: &RunOptions,
    ) -> Result<bool> {
        let Some(run) = sweep.runs.get(i) else {
            let last = sweep.runs.len() as i64 - 1;
            return Err(usage(format!("I: {i}, the sweep's runs are 0 to {last}")));
        };
        let begun = Instant::now();
        let progress = Overall::new(options.quiet);
        progress.expect(work(&run.run.config));
        self.bucket.pull(&run.run, &progress)?;
        let mut every_s = self.bucket.every_s;
        loop {
            let before = run.at();
            if self.bucket.push.is_some() {
                stop_at(Some(Instant::now() + Duration::from_secs_f64(every_s)));
            }
            let done = self.once_free(begun, sweep, i, setup, device, options, &progress);
            stop_at(None);
            let finished = done?.is_some();
            let pushed = self.bucket.push(&run.run, finished);
            if finished || stop_asked() {
                return pushed.map(|()| finished);
            }
            // It is pushed again before it ends: what fails now costs nothing yet.
            if let Err(e) = pushed {
                progress.note(&format!("{e:#}"));
            }
            // Nothing was done in that time but to begin.
            if run.at() == before {
                every_s *= 2.0;
            }
        }
    }

    /// Does the run once nobody else works in it, or the wait since the worker began is over.
    fn once_free(
        &self,
        begun: Instant,
        sweep: &Sweep,
        i: usize,
        setup: &Setup,
        device: &Device,
        options: &RunOptions,
        progress: &Overall,
    ) -> Result<Option<()>> {
        let waits = || begun.elapsed().as_secs_f64() < self.wait_s;
        let mut told = false;
        loop {
            let done = sweep.one(setup, i, device, options, progress);
            let busy = matches!(&done, Err(e) if is_busy(e));
            if !busy || !waits() {
                return done;
            }
            if !std::mem::replace(&mut told, true) {
                progress.note("waiting for another process that works in this run");
            }
            let dir = sweep.runs[i].run.dir.as_deref();
            while waits() && dir.is_some_and(|dir| RunDir::new(dir).is_locked()) {
                if stop_asked() {
                    return Ok(None);
                }
                std::thread::sleep(AGAIN);
            }
        }
    }
}
