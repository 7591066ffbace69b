//! The CUDA device: a GPU's context and kernels, a stream, and memory that is reserved at the start.

use super::super::arg::Arg;
use super::super::kernel::Kernel;
use super::super::limits::GpuLimits;
use super::super::ptr::Ptr;
use super::super::slot::{Slot, Space};
use super::map;
use crate::error::{Exit, fail};
use crate::memory::Size;
use anyhow::{Result, bail};
use cudarc::driver::sys::{self, CUdevice_attribute, CUfunction_attribute as Attribute, CUresult};
use cudarc::driver::{
    CudaContext, CudaFunction, CudaModule, CudaSlice, CudaStream, DevicePtr, DriverError, result,
};
use cudarc::nvrtc::Ptx;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// A GPU with its kernels loaded, and a stream there; cheap to clone.
#[derive(Clone)]
pub struct Cuda {
    inner: Arc<Inner>,
    limits: GpuLimits,
    share: Share,
}

/// What one of several users of a GPU has of it.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Share {
    /// Of its memory, at most.
    bytes: usize,
    /// Of the speed of one alone.
    speed: f64,
}

/// Those of one GPU, whichever streams they are launched on.
struct Kernels {
    name: String,
    modules: Vec<Arc<CudaModule>>,
    functions: Mutex<HashMap<&'static str, Function>>,
}

struct Inner {
    kernels: Arc<Kernels>,
    stream: Arc<CudaStream>,
    /// Who hears of each launch, if anybody does.
    watcher: OnceLock<Watcher>,
    /// Launches are recorded into a graph, and none runs.
    capturing: AtomicBool,
}

/// A kernel of the loaded images.
struct Function {
    handle: CudaFunction,
    /// Dynamic shared memory that it may have.
    shared_bytes: u32,
    /// Of each argument that it takes, as its signature has it.
    argument_bytes: Vec<usize>,
}

impl Function {
    fn of(name: &str, handle: CudaFunction) -> Result<Self> {
        let argument_bytes = argument_bytes(&handle).map_err(driver(name))?;
        Ok(Function { handle, shared_bytes: SHARED_UNASKED, argument_bytes })
    }

    /// That so many bytes are what the kernel's signature asks for: a driver copies as many as that says from wherever it
    /// is told, so what is missing would be whatever lies behind.
    fn check(&self, kernel: &Kernel) -> Result<()> {
        let (name, given, takes) = (kernel.name, [kernel.args_bytes], &self.argument_bytes);
        if given == takes[..] {
            return Ok(());
        }
        let what = format!("kernel {name} takes arguments of {takes:?} bytes, was given {given:?}");
        Err(fail(Exit::Device, format!("--device: cuda: {what}")))
    }
}

/// The bytes of each argument in a kernel's signature.
fn argument_bytes(f: &CudaFunction) -> Result<Vec<usize>, DriverError> {
    let mut all = Vec::new();
    loop {
        let (mut offset, mut bytes) = (0, 0);
        // SAFETY: the function is loaded; the pointers are to live numbers.
        let told =
            unsafe { sys::cuFuncGetParamInfo(f.cu_function(), all.len(), &mut offset, &mut bytes) };
        match told {
            CUresult::CUDA_SUCCESS => all.push(bytes),
            CUresult::CUDA_ERROR_INVALID_VALUE => return Ok(all), // there is no such argument
            error => return Err(DriverError(error)),
        }
    }
}

impl Inner {
    fn new(kernels: Arc<Kernels>, stream: Arc<CudaStream>) -> Self {
        let capturing = AtomicBool::new(false);
        Inner { kernels, stream, watcher: OnceLock::new(), capturing }
    }
}

type Watcher = Box<dyn Fn(&str) + Send + Sync>;

/// Dynamic shared memory that a kernel may have without being asked for.
const SHARED_UNASKED: u32 = 48 << 10;

/// Words on the GPU.
pub struct Buffer {
    slice: CudaSlice<u32>,
    address: u64,
    stream: Arc<CudaStream>,
}

pub(super) fn driver(what: &str) -> impl FnOnce(DriverError) -> anyhow::Error + '_ {
    move |e| fail(Exit::Device, format!("--device: cuda: {what}: {e}"))
}

impl Cuda {
    /// Opens GPU `index` and loads `images`: cubins or fatbins that hold the kernels.
    ///
    /// # Errors
    /// Device (exit 4): what the driver says.
    pub fn open(index: usize, images: &[&[u8]]) -> Result<Self> {
        let opened = CudaContext::new(index);
        let context = opened.map_err(driver(&format!("cannot open GPU {index}")))?;
        let name = context.name().map_err(driver("no name"))?;
        let attribute = |a| context.attribute(a).map_err(driver("no attribute"));
        use CUdevice_attribute as Of;
        let capability = context.compute_capability().map_err(driver("no compute capability"))?;
        let limits = GpuLimits {
            shared_bytes: attribute(Of::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?
                as usize,
            multiprocessors: attribute(Of::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)? as usize,
            hopper: capability == (9, 0) && super::holds_hopper(),
            ..GpuLimits::LEAST
        };
        // SAFETY: what one stream works on no other touches, so no event has to order two.
        unsafe { context.disable_event_tracking() };
        let stream = context.new_stream().map_err(driver("no stream"))?;
        let load = |image: &&[u8]| {
            let module = context.load_module(Ptx::from_binary(image.to_vec()));
            module.map_err(driver("the kernels do not load"))
        };
        let modules = images.iter().map(load).collect::<Result<Vec<_>>>()?;
        let name = format!("cuda:{index}, {name}");
        let kernels = Arc::new(Kernels { name, modules, functions: Mutex::default() });
        let share = Share { bytes: usize::MAX, speed: 1.0 };
        Ok(Cuda { inner: Arc::new(Inner::new(kernels, stream)), limits, share })
    }

    /// So many for users of the same GPU at once, from several threads: each with a stream and buffers of its own, and an
    /// equal share of the memory that is free now. Context and kernels are there once.
    ///
    /// `gain`: what all of them do together, of what one alone does.
    ///
    /// # Errors
    /// Device (exit 4): what the driver says.
    pub fn shared_by(&self, users: usize, gain: f64) -> Result<Vec<Cuda>> {
        if users == 1 {
            return Ok(vec![self.clone()]);
        }
        let share = Share { bytes: self.free_bytes()? / users, speed: gain / users as f64 };
        let one = |_| {
            let stream = self.inner.stream.context().new_stream().map_err(driver("no stream"))?;
            let inner = Inner::new(self.inner.kernels.clone(), stream);
            Ok(Cuda { inner: Arc::new(inner), limits: self.limits, share })
        };
        (0..users).map(one).collect()
    }

    /// How fast it is expected to be, of one that has the GPU for itself.
    pub fn speed(&self) -> f64 {
        self.share.speed
    }

    /// From now on `tell` hears the name of each kernel before it is queued, and each is waited for, so that whatever
    /// goes wrong is that kernel's. A graph that is replayed goes by the name `graph`.
    pub fn watch(&self, tell: impl Fn(&str) + Send + Sync + 'static) {
        // Who watches first goes on.
        let _ = self.inner.watcher.set(Box::new(tell));
    }

    /// Queues something of that name, for whoever watches.
    pub(super) fn watched(&self, name: &str, queue: impl FnOnce() -> Result<()>) -> Result<()> {
        let watcher =
            self.inner.watcher.get().filter(|_| !self.inner.capturing.load(Ordering::Relaxed));
        let Some(tell) = watcher else { return queue() };
        tell(name);
        queue()?;
        self.inner.stream.synchronize().map_err(driver(name))
    }

    /// Says that launches are recorded into a graph from now on, or are no longer.
    pub(super) fn set_capturing(&self, capturing: bool) {
        self.inner.capturing.store(capturing, Ordering::Relaxed);
    }

    /// `cuda:0, NVIDIA H100`.
    pub fn name(&self) -> &str {
        &self.inner.kernels.name
    }

    pub fn limits(&self) -> GpuLimits {
        self.limits
    }

    /// The same GPU, for which plans are made within other limits.
    pub fn with_limits(&self, limits: GpuLimits) -> Cuda {
        Cuda { limits, ..self.clone() }
    }

    /// Bytes that are free on the GPU, of its share where several use it.
    ///
    /// # Errors
    /// Device (exit 4): what the driver says.
    pub fn free_bytes(&self) -> Result<usize> {
        // What was given back is free once the stream has come that far.
        self.wait()?;
        let told = self.inner.stream.context().mem_get_info();
        told.map(|(free, _)| free.min(self.share.bytes)).map_err(driver("no memory information"))
    }

    /// The kernel that `kernel` names, allowed its dynamic shared memory. The context is current on this thread afterwards.
    fn function(&self, kernel: &Kernel) -> Result<CudaFunction> {
        let name = kernel.name;
        // Looking a kernel up and its attributes want a current context, which this thread may not have yet, and cudarc
        // binds it only for what goes through the stream.
        self.inner.stream.context().bind_to_thread().map_err(driver(name))?;
        let functions = &self.inner.kernels.functions;
        let mut known = functions.lock().unwrap_or_else(PoisonError::into_inner);
        let f = match known.entry(name) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(Function::of(name, self.load(name)?)?),
        };
        f.check(kernel)?;
        if kernel.shared_bytes > f.shared_bytes {
            let bytes = Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            let wanted = kernel.shared_bytes as i32;
            f.handle.set_attribute(bytes, wanted).map_err(driver(name))?;
            f.shared_bytes = kernel.shared_bytes;
        }
        Ok(f.handle.clone())
    }

    fn load(&self, name: &str) -> Result<CudaFunction> {
        for module in &self.inner.kernels.modules {
            match module.load_function(name) {
                Err(DriverError(CUresult::CUDA_ERROR_NOT_FOUND)) => {}
                found => return found.map_err(driver(name)),
            }
        }
        bail!("no kernel {name} in this build")
    }

    /// Reserves `words` 32-bit words; what they hold is undefined.
    ///
    /// # Errors
    /// Out of memory (exit 4) with the bytes asked and free.
    pub fn buffer(&self, words: usize) -> Result<Buffer> {
        let stream = &self.inner.stream;
        // SAFETY: never read before it is written: every slot has a writer, and tests poison it.
        let slice = unsafe { stream.alloc::<u32>(words.max(1)) }.map_err(|e| {
            let free = Size(self.free_bytes().unwrap_or(0) as u64);
            let asked = Size(4 * words as u64);
            fail(Exit::Device, format!("--device: cuda: {asked} asked, {free} free: {e}"))
        })?;
        let address = slice.device_ptr(stream).0;
        Ok(Buffer { slice, address, stream: stream.clone() })
    }

    /// A buffer that holds `bytes`, and zeros up to a whole word.
    ///
    /// # Errors
    /// As [`Cuda::buffer`], and what the driver says (exit 4).
    pub fn buffer_of(&self, bytes: &[u8]) -> Result<Buffer> {
        let mut buffer = self.buffer(bytes.len().div_ceil(4))?;
        buffer.write_bytes(bytes)?;
        Ok(buffer)
    }

    /// As [`Cuda::launch`], kernels that are given addresses only.
    ///
    /// # Errors
    /// As [`Cuda::launch`].
    pub fn run(&self, kernels: &[Kernel]) -> Result<()> {
        self.launch(kernels, &Addresses::new([0; 4], 0))
    }

    /// Queues kernels on the stream; nothing is waited for.
    ///
    /// # Errors
    /// Device (exit 4): a kernel that is missing or does not launch, by name.
    pub fn launch<'k>(
        &self,
        kernels: impl IntoIterator<Item = &'k Kernel>,
        at: &Addresses,
    ) -> Result<()> {
        for kernel in kernels {
            let f = self.function(kernel)?;
            let [x, y, z] = kernel.grid;
            let mut packed = at.pack(kernel)?;
            self.watched(kernel.name, || {
                // SAFETY: the one argument is as long as the signature says, and its bytes are laid out as the struct's of
                // the same declaration are; the op that made the kernel promises that the slots are as long as its geometry
                // reaches.
                let queued = unsafe {
                    result::launch_kernel(
                        f.cu_function(),
                        (x, y, z),
                        (kernel.threads, 1, 1),
                        kernel.shared_bytes,
                        self.inner.stream.cu_stream(),
                        &mut [packed.as_mut_ptr().cast()],
                    )
                };
                queued.map_err(driver(kernel.name))
            })?;
        }
        Ok(())
    }

    /// The one stream.
    pub(super) fn stream(&self) -> &Arc<CudaStream> {
        &self.inner.stream
    }

    /// Waits for everything queued.
    ///
    /// # Errors
    /// Device (exit 4): what went wrong in a kernel since the last wait.
    pub fn wait(&self) -> Result<()> {
        self.inner.stream.synchronize().map_err(driver("a kernel failed"))
    }
}

/// Where the buffers of a plan lie on the GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    arena: u64,
    weights: u64,
    grads: u64,
    step: u64,
    /// Index in the whole batch of the recording's first image.
    first_image: u32,
}

impl Addresses {
    /// Of the buffers (0 for one that no kernel reads) and the index in the whole batch of the first image.
    pub fn new([arena, weights, grads, step]: [u64; 4], first_image: u32) -> Self {
        Addresses { arena, weights, grads, step, first_image }
    }

    fn slot(&self, s: &Slot) -> u64 {
        let base = match s.space {
            Space::Arena => self.arena,
            Space::Weights => self.weights,
            Space::Grads => self.grads,
        };
        base + 4 * s.offset as u64
    }

    fn pointer(&self, pointer: &Ptr) -> u64 {
        match pointer {
            Ptr::Slot(s) => self.slot(s),
            Ptr::Sink(s) => self.slot(&s.slot),
            Ptr::Element(s, i) => self.slot(s) + s.dtype.bytes(*i) as u64,
            Ptr::Address(a) => *a,
            Ptr::Step => self.step,
            Ptr::Null => 0,
        }
    }

    /// What a kernel takes, as it lies in C's struct, from where the driver copies it: whole 8-byte words, since no number in
    /// one is wider.
    fn pack(&self, kernel: &Kernel) -> Result<Vec<u64>> {
        let mut words = vec![0_u64; kernel.args_bytes.div_ceil(8)];
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut words);
        for (offset, arg) in &kernel.args {
            let mut put = |value: &[u8]| bytes[*offset..][..value.len()].copy_from_slice(value);
            match arg {
                Arg::Ptr(pointer) => put(&self.pointer(pointer).to_ne_bytes()),
                Arg::Map(map) => {
                    let encoded = map::encode(map, self.pointer(&map.at))
                        .map_err(driver(&format!("{}: {map}", kernel.name)))?;
                    put(bytemuck::cast_slice(&encoded.opaque));
                }
                Arg::FirstImage => put(&self.first_image.to_ne_bytes()),
                Arg::I32(v) => put(&v.to_ne_bytes()),
                Arg::U32(v) => put(&v.to_ne_bytes()),
                Arg::I64(v) => put(&v.to_ne_bytes()),
                Arg::F32(v) => put(&v.to_ne_bytes()),
                Arg::F64(v) => put(&v.to_ne_bytes()),
            }
        }
        Ok(words)
    }
}

impl From<&Buffer> for Ptr {
    fn from(b: &Buffer) -> Self {
        Ptr::Address(b.address())
    }
}

impl Buffer {
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Copies words to word `at` and on, after everything queued.
    ///
    /// # Errors
    /// Device (exit 4): also what went wrong in a kernel before.
    pub fn write(&mut self, at: usize, words: &[f32]) -> Result<()> {
        let words: &[u32] = bytemuck::cast_slice(words);
        let mut to = self.slice.slice_mut(at..at + words.len());
        self.stream.memcpy_htod(words, &mut to).map_err(driver("copy to the GPU"))?;
        // The driver may read the host's memory as late as that.
        let done = self.stream.synchronize();
        done.map_err(driver("a kernel or the copy to the GPU failed"))
    }

    /// Copies bytes to the beginning; a word that they fill in part gets zeros for the rest.
    ///
    /// # Errors
    /// Device (exit 4).
    pub fn write_bytes(&mut self, bytes: &[u8]) -> Result<()> {
        let (whole, rest) = bytes.as_chunks::<4>();
        let mut words: Vec<f32> = bytemuck::pod_collect_to_vec(whole);
        if !rest.is_empty() {
            let mut last = [0; 4];
            last[..rest.len()].copy_from_slice(rest);
            words.push(f32::from_ne_bytes(last));
        }
        self.write(0, &words)
    }

    /// The first `len` bytes, after everything queued.
    ///
    /// # Errors
    /// As [`Buffer::read`].
    pub fn read_bytes(&self, len: usize) -> Result<Vec<u8>> {
        let words = self.read(0, len.div_ceil(4))?;
        Ok(bytemuck::cast_slice(&words)[..len].to_vec())
    }

    /// Zeros everywhere.
    ///
    /// # Errors
    /// Device (exit 4).
    pub fn clear(&mut self) -> Result<()> {
        self.stream.memset_zeros(&mut self.slice).map_err(driver("clearing memory"))
    }

    /// Copies `len` words from word `at` on back, after everything queued.
    ///
    /// # Errors
    /// Device (exit 4): also what went wrong in a kernel before.
    pub fn read(&self, at: usize, len: usize) -> Result<Vec<f32>> {
        let from = self.slice.slice(at..at + len);
        let words = self.stream.clone_dtoh(&from).map_err(driver("copy from the GPU"))?;
        let done = self.stream.synchronize();
        done.map_err(driver("a kernel or the copy from the GPU failed"))?;
        Ok(bytemuck::cast_vec(words))
    }
}
