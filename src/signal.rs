//! Signals that end the process. The first one asks work that can go on later for an orderly end; a second one, and
//! the first where there is nothing to go on with, ends the process at once, its temporary files removed.
//!
//! They are held back in every thread and taken by one of their own, which may therefore lock and remove files.

use crate::error::{Exit, fail};
use crate::files::remove_temporaries;
use anyhow::Result;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

static STOP: AtomicBool = AtomicBool::new(false);

/// When the clock asks for an end: milliseconds after [`clock`]'s first use.
static STOP_AT_MS: AtomicU64 = AtomicU64::new(u64::MAX);

fn clock() -> Instant {
    static FIRST: OnceLock<Instant> = OnceLock::new();
    *FIRST.get_or_init(Instant::now)
}

/// Of people, of batch systems before their limit, of a terminal that is closed, of a limit of CPU time.
const STOPPING: [libc::c_int; 5] =
    [libc::SIGINT, libc::SIGTERM, libc::SIGUSR1, libc::SIGHUP, libc::SIGXCPU];

/// All others that end a process by default and say nothing of a fault in it.
const ENDING: [libc::c_int; 5] =
    [libc::SIGQUIT, libc::SIGUSR2, libc::SIGALRM, libc::SIGVTALRM, libc::SIGPROF];

/// Holds back all of these from now on, in this thread and those it will start; call it first. A write over the limit
/// of a file's size fails instead of ending the process.
pub fn hold() {
    let taken = taken();
    // SAFETY: plain calls; the set is whole.
    unsafe {
        libc::pthread_sigmask(libc::SIG_BLOCK, &taken, std::ptr::null_mut());
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
    }
}

/// The signals that are taken. One that the process was started to ignore stays ignored (`nohup`), unless scripts send
/// it to what they started in the background, where shells ignore SIGINT.
fn taken() -> libc::sigset_t {
    // SAFETY: plain calls on whole values.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        for signal in STOPPING.into_iter().chain(ENDING) {
            let mut now: libc::sigaction = std::mem::zeroed();
            libc::sigaction(signal, std::ptr::null(), &mut now);
            let sent = [libc::SIGINT, libc::SIGTERM, libc::SIGUSR1].contains(&signal);
            if sent || now.sa_sigaction != libc::SIG_IGN {
                libc::sigaddset(&mut set, signal);
            }
        }
        set
    }
}

/// Takes the signals that [`hold`] held back, those that have come already included. `resumable`: the first of
/// `STOPPING` only asks for an end ([`stop_asked`]).
///
/// # Errors
/// Device (exit 4): no thread for it.
pub fn watch(resumable: bool) -> Result<()> {
    let taken = taken();
    let watch = move || {
        loop {
            let mut signal = 0;
            // SAFETY: a plain call on whole values; the signals are held back in this thread too.
            if unsafe { libc::sigwait(&taken, &mut signal) } != 0 {
                continue;
            }
            let asks = resumable && STOPPING.contains(&signal);
            let again = asks && STOP.swap(true, Ordering::Relaxed);
            // The system repeats it every second.
            if !asks || (again && signal != libc::SIGXCPU) {
                end(signal);
            }
        }
    };
    let thread = std::thread::Builder::new().name("signals".into()).stack_size(1 << 16);
    let failed = |e| fail(Exit::Device, format!("--threads: cannot start a thread: {e}"));
    thread.spawn(watch).map(drop).map_err(failed)
}

/// Ends the process as the signal does by default.
fn end(signal: libc::c_int) {
    remove_temporaries();
    // SAFETY: plain calls; nothing is touched after.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, signal);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &set, std::ptr::null_mut());
        libc::raise(signal);
    }
}

/// Whether a signal has asked for an orderly end, or the clock ([`stop_at`]).
pub fn stop_asked() -> bool {
    STOP.load(Ordering::Relaxed) || time_is_up()
}

/// Lets the clock ask for an orderly end at an instant, or no more.
pub fn stop_at(instant: Option<Instant>) {
    let first = clock();
    let ms = instant.map_or(u64::MAX, |i| i.saturating_duration_since(first).as_millis() as u64);
    STOP_AT_MS.store(ms, Ordering::Relaxed);
}

/// Whether the clock asks for an end now.
pub fn time_is_up() -> bool {
    let ms = STOP_AT_MS.load(Ordering::Relaxed);
    ms != u64::MAX && clock().elapsed().as_millis() as u64 >= ms
}
