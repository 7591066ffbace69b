//! Runs shared out over devices, and over processes that work in one folder of runs.

use crate::device::Device;
use crate::memory::no_threads;
use crate::run::dir::is_busy;
use crate::run::progress::Overall;
use crate::signal::stop_asked;
use anyhow::Result;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, ScopedJoinHandle};
use std::time::Duration;

/// Runs that another process works in are looked at again this often: it may be killed, and then they are ours.
const AGAIN: Duration = Duration::from_millis(500);

/// What is left to do.
struct Jobs<T> {
    queue: VecDeque<usize>,
    /// Another process works on these.
    elsewhere: Vec<usize>,
    done: Vec<(usize, T)>,
    failed: bool,
    told: bool,
}

/// Does the jobs of `order`, one at a time on each device; returns what `work` gave for each, by ascending number.
/// `None` if a signal stopped it.
///
/// `work` gives `None` where a signal stopped it. A job whose run another process holds comes last, and is
/// waited for: who then finds it finished has its outcome, who finds it abandoned goes on with it.
///
/// # Errors
/// Device (exit 4): no thread for one. The first of `work`'s; jobs that have begun go to their end, no other begins.
pub fn share<T: Send>(
    devices: &[Device],
    order: VecDeque<usize>,
    progress: &Overall,
    work: &(dyn Fn(&Device, usize) -> Result<Option<T>> + Sync),
) -> Result<Option<Vec<T>>> {
    let count = order.len();
    let jobs = Jobs { queue: order, elsewhere: vec![], done: vec![], failed: false, told: false };
    let jobs = Mutex::new(jobs);
    let worker = |device: &Device| -> Result<()> {
        loop {
            let next = {
                let mut jobs = lock(&jobs);
                if jobs.failed || stop_asked() {
                    return Ok(());
                }
                match jobs.queue.pop_front() {
                    None if jobs.elsewhere.is_empty() => return Ok(()),
                    next => next,
                }
            };
            let Some(job) = next else {
                wait(&jobs, progress);
                continue;
            };
            match work(device, job) {
                Ok(Some(value)) => lock(&jobs).done.push((job, value)),
                Ok(None) => return Ok(()),
                Err(e) if is_busy(&e) => lock(&jobs).elsewhere.push(job),
                Err(e) => {
                    lock(&jobs).failed = true;
                    return Err(e);
                }
            }
        }
    };
    let results: Vec<Result<()>> = std::thread::scope(|scope| {
        let worker = &worker;
        let start = |device| {
            let thread = Builder::new().spawn_scoped(scope, move || worker(device));
            thread.map_err(|e| {
                lock(&jobs).failed = true;
                no_threads(1, &e)
            })
        };
        let join = |thread: Result<ScopedJoinHandle<'_, _>>| match thread?.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        let threads: Vec<_> = devices.iter().map(start).collect();
        threads.into_iter().map(join).collect()
    });
    results.into_iter().collect::<Result<()>>()?;
    let mut done = jobs.into_inner().unwrap_or_else(PoisonError::into_inner).done;
    done.sort_by_key(|d| d.0);
    let all = done.len() == count;
    Ok(all.then(|| done.into_iter().map(|d| d.1).collect()))
}

/// Waits a little, then has the jobs that are done elsewhere looked at again.
fn wait<T>(jobs: &Mutex<Jobs<T>>, progress: &Overall) {
    if !std::mem::replace(&mut lock(jobs).told, true) {
        progress.note("waiting for runs that other processes work on");
    }
    let mut left = AGAIN;
    let step = Duration::from_millis(50);
    while !left.is_zero() && !stop_asked() {
        std::thread::sleep(step);
        left = left.saturating_sub(step);
    }
    let mut jobs = lock(jobs);
    let elsewhere = std::mem::take(&mut jobs.elsewhere);
    jobs.queue.extend(elsewhere);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
