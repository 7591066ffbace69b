//! Whether there is a usable CUDA driver, found out without a panic: cudarc's own calls panic where the
//! driver is missing, a stub or older than the pinned version, so each function is looked up and called raw.

use cudarc::driver::sys::{culib, is_culib_present};
use std::ffi::{c_char, c_int, c_uint};
use std::fmt;

/// The oldest driver that takes our kernels, as CUDA counts versions.
const OLDEST: c_int = 13_000;

/// What the device code calls, through cudarc, beside what this file calls: a stub or an old driver lacks some, and
/// cudarc would panic.
pub const NEEDED: [&str; 36] = [
    "cuCtxGetCurrent",
    "cuCtxSetCurrent",
    "cuCtxSynchronize",
    "cuDevicePrimaryCtxRelease_v2",
    "cuDevicePrimaryCtxRetain",
    "cuEventCreate",
    "cuEventDestroy_v2",
    "cuEventElapsedTime_v2",
    "cuEventRecord",
    "cuEventSynchronize",
    "cuFuncGetParamInfo",
    "cuFuncSetAttribute",
    "cuGetErrorName",
    "cuGetErrorString",
    "cuGraphDestroy",
    "cuGraphExecDestroy",
    "cuGraphInstantiateWithFlags",
    "cuGraphLaunch",
    "cuGraphUpload",
    "cuLaunchKernel",
    "cuMemAllocAsync",
    "cuMemAlloc_v2",
    "cuMemFreeAsync",
    "cuMemFree_v2",
    "cuMemGetInfo_v2",
    "cuMemcpyDtoHAsync_v2",
    "cuMemcpyHtoDAsync_v2",
    "cuMemsetD8Async",
    "cuModuleGetFunction",
    "cuModuleLoadData",
    "cuStreamBeginCapture_v2",
    "cuStreamCreate",
    "cuStreamDestroy_v2",
    "cuStreamEndCapture",
    "cuStreamSynchronize",
    "cuTensorMapEncodeTiled",
];

const CAPABILITY_MAJOR: c_int = 75;
const CAPABILITY_MINOR: c_int = 76;

/// A driver that works, and the GPUs it sees (at least one).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Driver {
    /// The newest CUDA it supports: 13000 is 13.0.
    pub version: i32,
    pub gpus: Vec<Gpu>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpu {
    pub name: String,
    /// Of this one and no other, as `nvidia-smi -L` prints it.
    pub uuid: String,
    /// Compute capability.
    pub capability: (u32, u32),
    pub memory_bytes: u64,
}

/// Why there is no usable driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// There is none: the ordinary case of a machine without a GPU.
    Absent,
    /// There is one, but it cannot be used.
    Unusable(String),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::Absent => {
                f.write_str("no CUDA driver on this machine (libcuda.so.1 not found)")
            }
            Trouble::Unusable(why) => write!(f, "the CUDA driver cannot be used: {why}"),
        }
    }
}

/// Evaluations for a driver and its GPUs. Creates no context and leaves nothing behind.
pub fn probe() -> Result<Driver, Trouble> {
    // SAFETY: loading libcuda runs its initializers only, as any CUDA program does.
    if !unsafe { is_culib_present() } {
        return Err(Trouble::Absent);
    }
    NEEDED.iter().try_for_each(|name| function::<*const ()>(name).map(|_| ()))?;
    let init: unsafe extern "C" fn(c_uint) -> c_int = function("cuInit")?;
    let version: unsafe extern "C" fn(*mut c_int) -> c_int = function("cuDriverGetVersion")?;
    let count: unsafe extern "C" fn(*mut c_int) -> c_int = function("cuDeviceGetCount")?;

    // SAFETY: the signatures are the CUDA driver API's; the pointers are to live integers.
    let version = unsafe {
        check("cuInit", init(0))?;
        value("cuDriverGetVersion", |out| version(out))?
    };
    if version < OLDEST {
        return Err(Trouble::Unusable(format!(
            "it supports CUDA {}, and {} is needed (driver 580 or newer)",
            dotted(version),
            dotted(OLDEST)
        )));
    }
    // SAFETY: as above.
    let gpus = unsafe { value("cuDeviceGetCount", |out| count(out))? };
    match (0..gpus).map(gpu).collect::<Result<Vec<_>, _>>()? {
        gpus if gpus.is_empty() => Err(Trouble::Unusable("it sees no GPU".into())),
        gpus => Ok(Driver { version, gpus }),
    }
}

/// 13000 as 13.0.
pub fn dotted(version: i32) -> String {
    format!("{}.{}", version / 1000, version % 1000 / 10)
}

fn gpu(index: c_int) -> Result<Gpu, Trouble> {
    let get: unsafe extern "C" fn(*mut c_int, c_int) -> c_int = function("cuDeviceGet")?;
    let name: unsafe extern "C" fn(*mut c_char, c_int, c_int) -> c_int =
        function("cuDeviceGetName")?;
    let total: unsafe extern "C" fn(*mut usize, c_int) -> c_int = function("cuDeviceTotalMem_v2")?;
    let attribute: unsafe extern "C" fn(*mut c_int, c_int, c_int) -> c_int =
        function("cuDeviceGetAttribute")?;
    let id: unsafe extern "C" fn(*mut [u8; 16], c_int) -> c_int = function("cuDeviceGetUuid_v2")?;
    let (mut text, mut uuid) = ([0u8; 128], [0u8; 16]);
    let mut memory_bytes = 0usize;
    // SAFETY: the signatures are the driver API's; it writes at most `len` bytes of the name, 16 of the
    // UUID, and one value to each other pointer.
    let (major, minor) = unsafe {
        let device = value("cuDeviceGet", |out| get(out, index))?;
        let len = text.len() as c_int - 1;
        check("cuDeviceGetName", name(text.as_mut_ptr().cast(), len, device))?;
        check("cuDeviceGetUuid", id(&mut uuid, device))?;
        check("cuDeviceTotalMem", total(&mut memory_bytes, device))?;
        let major = value("cuDeviceGetAttribute", |o| attribute(o, CAPABILITY_MAJOR, device))?;
        (major, value("cuDeviceGetAttribute", |o| attribute(o, CAPABILITY_MINOR, device))?)
    };
    let end = text.iter().position(|&b| b == 0).unwrap_or(text.len());
    Ok(Gpu {
        name: String::from_utf8_lossy(&text[..end]).into_owned(),
        uuid: uuid_text(uuid),
        capability: (major as u32, minor as u32),
        memory_bytes: memory_bytes as u64,
    })
}

fn uuid_text(uuid: [u8; 16]) -> String {
    let digits: String = uuid.iter().map(|byte| format!("{byte:02x}")).collect();
    let parts = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]];
    format!("GPU-{}", parts.join("-"))
}

/// A function of the driver by name. `F` is its pointer's type.
fn function<F: Copy>(name: &str) -> Result<F, Trouble> {
    // SAFETY: only called once the library is known to be present, and then it cannot panic; callers give
    // the type that CUDA documents for the name.
    match unsafe { culib().get::<F>(name.as_bytes()) } {
        Ok(f) => Ok(*f),
        Err(_) => Err(Trouble::Unusable(format!("it lacks {name}: a stub, or too old"))),
    }
}

fn check(what: &str, result: c_int) -> Result<(), Trouble> {
    match result {
        0 => Ok(()),
        100 => Err(Trouble::Unusable("it sees no GPU".into())),
        code => Err(Trouble::Unusable(format!("{what} failed with error {code}"))),
    }
}

fn value(what: &str, call: impl FnOnce(*mut c_int) -> c_int) -> Result<c_int, Trouble> {
    let mut out = 0;
    check(what, call(&mut out))?;
    Ok(out)
}
