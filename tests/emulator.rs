//! The emulator that runs the CUDA kernels on the CPU: how tests load and steer it, and its own tests.
//!
//! `gpu()` is a cudarc context on it. A process holds one libcuda.so, so a test that wants another than the plain one
//! runs its body in a child process of the same binary: `in_check_build` for the checker, `passes_patched` for a kernel
//! with a bug put into it, `on_each_gpu` for GPUs of other sizes, `on_hopper` for one with Hopper's instructions.

mod devices;
mod driver;
mod faults;
mod hopper;
mod planted;
mod primitives;

use crate::support::say;
use cudarc::driver::{
    CudaContext, CudaFunction, CudaModule, CudaSlice, CudaStream, DeviceRepr, DriverError,
    LaunchConfig,
};
use cudarc::nvrtc::Ptx;
use emm::device::cuda::IMAGES;
use std::ffi::{CStr, CString, OsStr, c_char, c_int, c_void};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, OnceLock};

/// Names the libcuda.so of a child process.
const LIBRARY: &str = "EMM_EMULATOR_LIBRARY";
/// Says that a process runs one test.
const ALONE: &str = "EMM_EMULATOR_ALONE";
/// Says how many bytes of shared memory a block may ask for.
const SHARED_LIMIT: &str = "EMM_EMULATOR_SHARED";

/// One order of threads and one time at which asynchronous copies land.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    pub order: Order,
    pub early_copies: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    Forward,
    Reverse,
    Random(u64),
}

/// The schedules that every kernel is run under: a bug that one hides, another shows.
pub const SCHEDULES: [Schedule; 6] = [
    Schedule { order: Order::Forward, early_copies: false },
    Schedule { order: Order::Forward, early_copies: true },
    Schedule { order: Order::Reverse, early_copies: false },
    Schedule { order: Order::Reverse, early_copies: true },
    Schedule { order: Order::Random(1), early_copies: false },
    Schedule { order: Order::Random(1), early_copies: true },
];

/// The loaded library's own functions.
struct Library(*mut c_void);

// SAFETY: a handle of dlopen may be used from every thread.
unsafe impl Send for Library {}
// SAFETY: as above.
unsafe impl Sync for Library {}

impl Library {
    /// Loads the emulator as this process's libcuda.so; cudarc's own dlopen then finds it by its soname.
    fn get() -> &'static Library {
        static LOADED: OnceLock<Library> = OnceLock::new();
        LOADED.get_or_init(|| {
            let plain = || concat!(env!("EMM_EMULATOR_DIR"), "/libcuda.so").to_string();
            let path = CString::new(std::env::var(LIBRARY).unwrap_or_else(|_| plain())).unwrap();
            // SAFETY: the path is a C string; the library's constructors only fill its list of kernels.
            let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW) };
            assert!(!handle.is_null(), "cannot load {path:?}");
            Library(handle)
        })
    }

    fn symbol(&self, name: &CStr) -> *mut c_void {
        // SAFETY: the handle is live and the name a C string.
        let symbol = unsafe { libc::dlsym(self.0, name.as_ptr()) };
        assert!(!symbol.is_null(), "the emulator exports no {name:?}");
        symbol
    }
}

/// Sets the schedule of the calling thread's launches.
pub fn set_schedule(schedule: Schedule) {
    let (order, seed) = match schedule.order {
        Order::Forward => (0, 0),
        Order::Reverse => (1, 0),
        Order::Random(seed) => (2, seed),
    };
    let library = Library::get();
    // SAFETY: the signatures are those of kernels/emulator/driver.cpp.
    unsafe {
        let set_order: extern "C" fn(c_int, u64) -> c_int =
            std::mem::transmute(library.symbol(c"emm_emulator_set_order"));
        let set_async: extern "C" fn(c_int) -> c_int =
            std::mem::transmute(library.symbol(c"emm_emulator_set_async"));
        assert_eq!(set_order(order, seed), 0);
        assert_eq!(set_async(schedule.early_copies as c_int), 0);
    }
}

/// Runs `body` under each of `SCHEDULES`, and leaves the first one set.
pub fn for_each_schedule(mut body: impl FnMut(Schedule)) {
    for schedule in SCHEDULES {
        set_schedule(schedule);
        body(schedule);
    }
    set_schedule(SCHEDULES[0]);
}

/// Kernel launches of this process so far.
pub fn launches() -> u64 {
    // SAFETY: the signature is that of kernels/emulator/launch.cpp.
    let count: extern "C" fn() -> u64 =
        unsafe { std::mem::transmute(Library::get().symbol(c"emm_emulator_launch_count")) };
    count()
}

/// As if the process had begun anew, after an error that broke the context. What cudarc kept of it goes too.
pub fn recover(gpu: &Gpu) {
    // SAFETY: the signature is that of kernels/emulator/driver.cpp.
    let recover: extern "C" fn() -> c_int =
        unsafe { std::mem::transmute(Library::get().symbol(c"emm_emulator_recover")) };
    assert_eq!(recover(), 0);
    let _ = gpu.context.check_err();
}

/// Why the calling thread's last failing call failed.
pub fn last_error() -> String {
    // SAFETY: the signature is that of kernels/emulator/driver.cpp; the string lives until the next failure.
    unsafe {
        let text: extern "C" fn() -> *const c_char =
            std::mem::transmute(Library::get().symbol(c"emm_emulator_last_error"));
        CStr::from_ptr(text()).to_string_lossy().into_owned()
    }
}

/// Whether this process holds the check build.
pub fn is_check_build() -> bool {
    // SAFETY: the signature is that of kernels/emulator/driver.cpp.
    let is: extern "C" fn() -> c_int =
        unsafe { std::mem::transmute(Library::get().symbol(c"emm_emulator_is_check_build")) };
    is() != 0
}

/// Runs the test `name` (its path, `emulator::…`) in a child process with `variable` set to `value`.
fn run_child(name: &str, variable: &str, value: impl AsRef<OsStr>) -> Output {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(variable, value)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(told.contains("running 1 test"), "no test is called {name}");
    output
}

/// Runs `body` with the check build loaded: at once in the child process, where this is called again, which runs
/// the test `name` (the caller's path, `emulator::…`).
pub fn in_check_build(name: &str, body: impl FnOnce()) {
    if is_check_build() {
        return body();
    }
    let library = Path::new(env!("EMM_EMULATOR_CHECK_DIR")).join("libcuda.so");
    must_pass(&run_child(name, LIBRARY, library));
}

/// Runs `body` in a process of its own, for what breaks the context: at once in the child process, where this is called
/// again, which runs the test `name`.
pub fn alone(name: &str, body: impl FnOnce()) {
    if std::env::var_os(ALONE).is_some() || is_check_build() {
        return body();
    }
    must_pass(&run_child(name, ALONE, "1"));
}

/// Runs `body` on GPUs that give a block 99, 163 and 227 KB of shared memory, as those of sm_86, an A100 and an H100 do:
/// at once in the child processes, where this is called again, which run the test `name`.
pub fn on_each_gpu(name: &str, body: impl FnOnce()) {
    if std::env::var_os(SHARED_LIMIT).is_some() {
        return body();
    }
    for kilobytes in [99, 163, 227] {
        must_pass(&run_child(name, SHARED_LIMIT, (kilobytes << 10).to_string()));
    }
}

/// Runs `body` on a GPU of compute capability 9.0, which is one that gives a block 227 KB: at once in the child process,
/// where this is called again, which runs the test `name`.
pub fn on_hopper(name: &str, body: impl FnOnce()) {
    if std::env::var_os(SHARED_LIMIT).is_some() {
        return body();
    }
    must_pass(&run_child(name, SHARED_LIMIT, (227 << 10).to_string()));
}

fn must_pass(child: &Output) {
    let said = String::from_utf8_lossy(&child.stderr);
    print!("{}", String::from_utf8_lossy(&child.stdout));
    assert!(child.status.success(), "{said}");
    said.lines().for_each(say);
}

/// Whether the test `name` still passes when `find`, which stands once in the kernel file `file`, reads `replace`.
pub fn passes_patched(name: &str, file: &str, find: &str, replace: &str) -> bool {
    passes_with_header(name, file, file, find, replace)
}

/// As [`passes_patched`], for a change in `file`, a header that the kernel file `unit` includes or that file itself.
pub fn passes_with_header(name: &str, unit: &str, file: &str, find: &str, replace: &str) -> bool {
    let scratch = patched(unit, file, &[(find, replace)]);
    run_child(name, LIBRARY, scratch.path().join("libcuda.so")).status.success()
}

/// A folder with a libcuda.so in which `file`, `unit` or a header that it includes, reads otherwise: each pair is what
/// stands there once, and what stands there instead. The change is made in a copy of all kernels, in which `unit` is
/// compiled like the original.
pub fn patched(unit: &str, file: &str, changes: &[(&str, &str)]) -> tempfile::TempDir {
    let mut source = std::fs::read_to_string(file).unwrap();
    for (find, replace) in changes {
        assert_eq!(source.matches(find).count(), 1, "{find:?} in {file}");
        source = source.replace(find, replace);
    }
    let scratch = tempfile::tempdir().unwrap();
    let copied = Command::new("cp").arg("-r").arg("kernels").arg(scratch.path()).status();
    assert!(copied.unwrap().success(), "the kernels cannot be copied");
    std::fs::write(scratch.path().join(file), source).unwrap();
    let changed = scratch.path().join(unit);
    let (object, library) = (scratch.path().join("changed.o"), scratch.path().join("libcuda.so"));

    let built = Path::new(env!("EMM_EMULATOR_DIR"));
    let compile = std::fs::read_to_string(built.join("compile")).unwrap();
    let mut words = compile.lines();
    let compiler = words.next().unwrap();
    let status =
        Command::new(compiler).args(words).arg("-c").arg(&changed).arg("-o").arg(&object).status();
    assert!(status.unwrap().success(), "{file} does not compile with {changes:?}");

    let objects = std::fs::read_to_string(built.join("objects")).unwrap();
    let pairs = objects.lines().map(|line| line.split_once('\t').unwrap());
    let others: Vec<&str> = pairs.clone().filter(|(s, _)| *s != unit).map(|(_, o)| o).collect();
    assert_eq!(others.len() + 1, pairs.count(), "{unit} is not a kernel file");
    let status = Command::new(compiler)
        .args(["-shared", "-Wl,-soname,libcuda.so", "-Wl,-Bsymbolic", "-o"])
        .args([&library, &object])
        .args(others)
        .args(["-ldl", "-pthread"])
        .status();
    assert!(status.unwrap().success(), "linking failed");
    scratch
}

/// A context on the emulator with a stream and its kernels.
pub struct Gpu {
    pub context: Arc<CudaContext>,
    pub stream: Arc<CudaStream>,
    pub module: Arc<CudaModule>,
}

/// Loads the emulator and opens a context on it.
pub fn gpu() -> Gpu {
    gpu_at(0)
}

/// As [`gpu`], on the one of this number.
fn gpu_at(number: usize) -> Gpu {
    Library::get();
    let context = CudaContext::new(number).unwrap();
    // SAFETY: everything here goes through one stream.
    unsafe { context.disable_event_tracking() };
    let stream = context.new_stream().unwrap();
    let module = context.load_module(Ptx::from_binary(IMAGES[0].to_vec())).unwrap();
    Gpu { context, stream, module }
}

impl Gpu {
    pub fn kernel(&self, name: &str) -> CudaFunction {
        self.module.load_function(name).unwrap()
    }

    /// A copy of `data` on the device, once it is there.
    pub fn upload<T: DeviceRepr>(&self, data: &[T]) -> Result<CudaSlice<T>, DriverError> {
        let slice = self.stream.clone_htod(data)?;
        self.stream.synchronize()?;
        Ok(slice)
    }

    /// What stands in `slice` after everything queued.
    pub fn read<T: DeviceRepr>(&self, slice: &CudaSlice<T>) -> Result<Vec<T>, DriverError> {
        let data = self.stream.clone_dtoh(slice)?;
        self.stream.synchronize()?;
        Ok(data)
    }
}

/// A launch without dynamic shared memory.
pub fn config(grid: u32, block: (u32, u32)) -> LaunchConfig {
    LaunchConfig { grid_dim: (grid, 1, 1), block_dim: (block.0, block.1, 1), shared_mem_bytes: 0 }
}
