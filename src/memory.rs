//! The memory that this process may use, and what happens where it ends: readers announce what they are about to take
//! to a [`Budget`], and an allocation that the system refuses ends the process with one line.

use crate::error::{Exit, fail};
use crate::files;
use anyhow::Result;
use rayon::{ThreadPoolBuildError, ThreadPoolBuilder};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::TryReserveError;
use std::fmt::Display;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

mod size;

pub use size::Size;

/// Bytes of memory in the machine.
pub fn total() -> Option<usize> {
    field("/proc/meminfo", "MemTotal:")
}

/// The process's largest resident memory so far, in bytes.
pub fn peak() -> Option<usize> {
    field("/proc/self/status", "VmHWM:")
}

/// Bytes that this process could still have: what the system gives without swapping, within the limits on its
/// addresses (`ulimit -v`), its data (`ulimit -d`) and its control group.
pub fn available() -> Option<usize> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    [
        field("/proc/meminfo", "MemAvailable:"),
        below_limit(libc::RLIMIT_AS, "VmSize:"),
        below_limit(libc::RLIMIT_DATA, "VmData:"),
        below_group(Path::new("/sys/fs/cgroup"), &groups),
    ]
    .into_iter()
    .flatten()
    .min()
}

/// A line of the system's tables, given there in KiB.
fn field(file: &str, name: &str) -> Option<usize> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find(|l| l.starts_with(name))?;
    Some(line.split_whitespace().nth(1)?.parse::<usize>().ok()? * 1024)
}

/// What a limit of the process leaves, if there is one; `used` is the line that says what counts against it.
fn below_limit(resource: libc::__rlimit_resource_t, used: &str) -> Option<usize> {
    let limit = limit(resource)?;
    Some(limit.saturating_sub(field("/proc/self/status", used)?))
}

fn limit(resource: libc::__rlimit_resource_t) -> Option<usize> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: it writes the struct, which is whole.
    let read = unsafe { libc::getrlimit(resource, &mut limit) } == 0;
    (read && limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur as usize)
}

/// What the process's control group and those above it leave; `groups` is `/proc/self/cgroup`, `root` the folder of
/// all groups. What caches of files hold counts as left: the system gives it up first.
fn below_group(root: &Path, groups: &str) -> Option<usize> {
    let mut least = None;
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let (root, limit, used, cache) = match controllers {
            "" => (root.to_path_buf(), "memory.max", "memory.current", "inactive_file "),
            c if c.split(',').any(|c| c == "memory") => (
                root.join("memory"),
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
                "total_inactive_file ",
            ),
            _ => continue,
        };
        let number = |folder: &Path, name: &str| -> Option<usize> {
            fs::read_to_string(folder.join(name)).ok()?.trim().parse().ok()
        };
        // Inside a container the path may be that of the host; its own group is then the root.
        let mut folder = root.join(path.trim_start_matches('/'));
        loop {
            if let (Some(limit), Some(used)) = (number(&folder, limit), number(&folder, used)) {
                let stat = fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
                let cached = stat.lines().find_map(|l| l.strip_prefix(cache)?.parse().ok());
                let left = limit.saturating_sub(used.saturating_sub(cached.unwrap_or(0)));
                least = Some(least.map_or(left, |l: usize| l.min(left)));
            }
            if folder == root || !folder.pop() {
                break;
            }
        }
    }
    least
}

/// What `--max-memory` says, for every [`Budget`] that is not given its own limit.
static MAX_MEMORY: OnceLock<u64> = OnceLock::new();

/// Takes `bytes` (`--max-memory`) as the limit of every budget made from now on.
pub fn limit_reading(bytes: u64) {
    MAX_MEMORY.get_or_init(|| bytes);
}

/// Bytes that reading may take. Readers say what they are about to take, before they do; clones share one account.
#[derive(Debug, Clone)]
pub struct Budget(Arc<Account>);

#[derive(Debug)]
struct Account {
    limit: u64,
    spent: AtomicU64,
}

impl Default for Budget {
    /// What `--max-memory` says, else half of what the process may use now.
    fn default() -> Self {
        let half = || available().map_or(u64::MAX, |bytes| bytes as u64 / 2);
        Budget::of(MAX_MEMORY.get().copied().unwrap_or_else(half))
    }
}

impl Budget {
    pub fn of(limit: u64) -> Self {
        Budget(Arc::new(Account { limit, spent: AtomicU64::new(0) }))
    }

    /// Announces bytes that stay in use.
    ///
    /// # Errors
    /// Memory (exit 4) with a line that begins with `what`.
    pub fn keep(&self, bytes: u64, what: impl FnOnce() -> String) -> Result<()> {
        std::mem::forget(self.borrow(bytes, what)?);
        Ok(())
    }

    /// Announces bytes that are in use as long as the result lives.
    ///
    /// # Errors
    /// As [`Budget::keep`].
    pub fn borrow(&self, bytes: u64, what: impl FnOnce() -> String) -> Result<Spent> {
        let Account { limit, spent } = &*self.0;
        let add = |spent: u64| spent.checked_add(bytes).filter(|sum| sum <= limit);
        match spent.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add) {
            Ok(_) => Ok(Spent { budget: self.clone(), bytes }),
            Err(spent) => Err(fail(
                Exit::Device,
                format!(
                    "{}: needs {} of memory, {} of the {} are left that reading may take; --max-memory sets them",
                    what(),
                    Size(bytes),
                    Size(limit - spent),
                    Size(*limit)
                ),
            )),
        }
    }
}

/// A part of a [`Budget`], given back when dropped.
#[derive(Debug)]
pub struct Spent {
    budget: Budget,
    bytes: u64,
}

impl Spent {
    /// Announces more.
    ///
    /// # Errors
    /// As [`Budget::keep`].
    pub fn grow(&mut self, bytes: u64, what: impl FnOnce() -> String) -> Result<()> {
        self.budget.keep(bytes, what)?;
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for Spent {
    fn drop(&mut self) {
        self.budget.0.spent.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Address space that a thread takes: its stack, a page that guards it, a second stack for signals.
const THREAD_BYTES: usize = (2 << 20) + (128 << 10);
/// Left over for what starting threads allocates.
const SPARE_BYTES: usize = 8 << 20;

/// Has rayon start threads (0: one per core).
///
/// # Errors
/// Device or memory (exit 4), where the system refuses.
pub fn start_threads<T>(
    threads: usize,
    build: impl FnOnce(ThreadPoolBuilder) -> Result<T, ThreadPoolBuildError>,
) -> Result<T> {
    let count = if threads == 0 { rayon_threads() } else { threads };
    room_for_threads(count)?;
    build(ThreadPoolBuilder::new().num_threads(threads)).map_err(|e| no_threads(count, &e))
}

/// Threads that rayon starts unless told otherwise.
fn rayon_threads() -> usize {
    let asked = std::env::var("RAYON_NUM_THREADS").ok().and_then(|n| n.parse().ok());
    let cores = || std::thread::available_parallelism().map_or(1, |n| n.get());
    asked.filter(|&n| n > 0).unwrap_or_else(cores)
}

/// Refuses to start so many threads where the address space has no room for their stacks: a thread that finds none
/// for its signals' stack would abort the whole process.
///
/// # Errors
/// Memory (exit 4).
pub fn room_for_threads(threads: usize) -> Result<()> {
    let bytes = threads * THREAD_BYTES + SPARE_BYTES;
    // SAFETY: a mapping of no access that is given back at once; nothing else is touched.
    let room = unsafe {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let at = libc::mmap(std::ptr::null_mut(), bytes, libc::PROT_NONE, flags, -1, 0);
        at != libc::MAP_FAILED && libc::munmap(at, bytes) == 0
    };
    match room {
        true => Ok(()),
        false => Err(no_threads(
            threads,
            &format!("their stacks take {} (`ulimit -v`)", Size(bytes as u64)),
        )),
    }
}

/// The error of threads that cannot be had.
pub fn no_threads(threads: usize, why: &dyn Display) -> anyhow::Error {
    fail(
        Exit::Device,
        format!(
            "--threads: the system does not start {threads} threads more: {why}; fewer need less"
        ),
    )
}

/// Settles what cannot be changed later: where addresses are limited, malloc shares one heap among all threads, since
/// each heap of its own would take 64 MiB of them.
pub fn prepare() {
    if limit(libc::RLIMIT_AS).is_some() {
        // SAFETY: no other thread runs yet.
        unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
    }
}

thread_local! {
    /// Whether the allocation under way may fail.
    static MAY_FAIL: Cell<bool> = const { Cell::new(false) };
    /// Whether this thread is ending the process.
    static ENDS: Cell<bool> = const { Cell::new(false) };
}

/// `Vec::try_reserve_exact` under [`OrEnd`].
///
/// # Errors
/// That of the method.
pub fn try_reserve<T>(vec: &mut Vec<T>, more: usize) -> Result<(), TryReserveError> {
    MAY_FAIL.set(true);
    let reserved = vec.try_reserve_exact(more);
    MAY_FAIL.set(false);
    reserved
}

/// The system's allocator; a refused allocation ends the process with one line and exit code 4, once the temporary
/// files are removed, rather than with an abort. [`try_reserve`] may still fail.
pub struct OrEnd;

// SAFETY: all is the system allocator's own.
unsafe impl GlobalAlloc for OrEnd {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise, handed on; so below.
        or_end(unsafe { System.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        or_end(unsafe { System.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above.
        or_end(unsafe { System.realloc(at, layout, size) }, size)
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}

#[inline]
fn or_end(at: *mut u8, bytes: usize) -> *mut u8 {
    if at.is_null() && !MAY_FAIL.get() {
        end(bytes);
    }
    at
}

extern "C" fn leave(_: libc::c_int) {
    // SAFETY: it ends the process without running anything of it.
    unsafe { libc::_exit(Exit::Device as i32) }
}

/// Ends the process. Allocates nothing itself; where something below does and fails, or waits for a lock that is held
/// where the allocation failed, it ends all the same.
#[cold]
fn end(bytes: usize) -> ! {
    static ENDING: AtomicBool = AtomicBool::new(false);
    if !ENDS.replace(true) {
        if ENDING.swap(true, Ordering::SeqCst) {
            // Another thread does it.
            loop {
                // SAFETY: it only waits.
                unsafe { libc::pause() };
            }
        }
        let mut line = [0; 256];
        let room = line.len();
        let mut rest = &mut line[..];
        let _ = writeln!(
            rest,
            "emm: --device: the system refuses {} more (a full machine, `ulimit -v`, a cgroup); smaller batches and \
             sets need less",
            Size(bytes as u64)
        );
        let len = room - rest.len();
        // SAFETY: the bytes are there; what comes of writing them changes nothing. The handler only ends the process,
        // and the structs are whole.
        unsafe {
            libc::write(2, line.as_ptr().cast(), len);
            let late = libc::SIGRTMIN();
            libc::signal(late, leave as extern "C" fn(libc::c_int) as usize);
            let mut event: libc::sigevent = std::mem::zeroed();
            event.sigev_notify = libc::SIGEV_SIGNAL;
            event.sigev_signo = late;
            let mut timer: libc::timer_t = std::ptr::null_mut();
            let mut once: libc::itimerspec = std::mem::zeroed();
            once.it_value.tv_sec = 5;
            if libc::timer_create(libc::CLOCK_MONOTONIC, &mut event, &mut timer) == 0 {
                libc::timer_settime(timer, 0, &once, std::ptr::null_mut());
            }
        }
        files::remove_temporaries();
    }
    leave(0);
    unreachable!("the process has ended")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_gives_back_what_was_borrowed() {
        let budget = Budget::of(100);
        let what = || "x".to_string();
        budget.keep(40, what).unwrap();
        let mut borrowed = budget.borrow(50, what).unwrap();
        let refused = borrowed.grow(11, what).unwrap_err().to_string();
        assert!(refused.starts_with("x: needs 11 bytes of memory, 10 bytes of"), "{refused}");
        borrowed.grow(10, what).unwrap();
        assert!(budget.clone().keep(1, what).is_err());
        drop(borrowed);
        budget.keep(60, what).unwrap();
        assert!(budget.keep(u64::MAX, what).is_err(), "sums do not wrap");
    }

    #[test]
    fn the_tightest_group_counts() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        assert_eq!(below_group(root, "0::/a/b\n"), None);
        fs::create_dir_all(root.join("a/b")).unwrap();
        let write = |name: &str, text: &str| fs::write(root.join(name), text).unwrap();
        write("a/b/memory.max", "max\n");
        write("a/b/memory.current", "10\n");
        assert_eq!(below_group(root, "0::/a/b\n"), None);
        write("a/memory.max", "1000\n");
        write("a/memory.current", "700\n");
        assert_eq!(below_group(root, "0::/a/b\n"), Some(300));
        write("a/memory.stat", "anon 1\ninactive_file 200\n");
        assert_eq!(below_group(root, "0::/a/b\n"), Some(500));
        write("a/b/memory.max", "30\n");
        assert_eq!(below_group(root, "0::/a/b\n"), Some(20));
        // Inside a container the path is another's, and the root is its own.
        write("memory.max", "50\n");
        write("memory.current", "1\n");
        assert_eq!(below_group(root, "0::/gone/elsewhere\n"), Some(49));
        fs::create_dir_all(root.join("memory/x")).unwrap();
        write("memory/x/memory.limit_in_bytes", "90\n");
        write("memory/x/memory.usage_in_bytes", "100\n");
        assert_eq!(below_group(root, "5:cpu,memory:/x\n"), Some(0));
    }
}
