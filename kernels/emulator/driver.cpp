// A CUDA driver whose devices are the emulator, in three files: options, errors, device, context and memory here,
// modules and launches in launch.cpp, streams and graphs in stream.cpp. It exports what programs reach through
// libcuda.so.
//
// It is as late and as strict as a driver may be. Streams run their work when a call waits for it; asynchronous copies
// read and write the host's memory only then. A kernel or copy that goes wrong is told by a later call, and from then on
// by every call. Most calls need a context that is current on their thread.
//
// What EMM_EMULATOR_FAIL may ask for, so that a program meets a driver that fails:
//   open            no context (46, CUDA_ERROR_DEVICE_UNAVAILABLE)
//   load            no module loads (209, CUDA_ERROR_NO_BINARY_FOR_GPU)
//   launch[:NAME]   kernels, or those with NAME in their name, fail (700, CUDA_ERROR_ILLEGAL_ADDRESS)
//   hang[:NAME]     they never end
//   read            the first copy to the host fails (700)
#include "driver.h"
#include "memory.h"
#include <cstdlib>

namespace emu {

std::recursive_mutex driver_lock;
static bool initialized;
static thread_local std::string last_error;
static thread_local Result last_result;

static char contexts[most_devices];  // any addresses serve
static thread_local char* bound_context;

Result refuse(Result result, const std::string& why) {
    last_error = why;
    last_result = result;
    return result;
}

static struct {
    Result by;
    std::string why;
} broken_contexts[most_devices];

Result break_context(Result result) {
    broken_contexts[on_device] = {result, last_error};
    return result;
}
Result broken() {
    const auto& context = broken_contexts[on_device];
    return context.by ? refuse(context.by, context.why) : Success;
}
Result enter() {
    if (!initialized) return refuse(NotInitialized, "cuInit was not called");
    if (!bound_context) return refuse(InvalidContext, "no context is current on this thread");
    on_device = unsigned(bound_context - contexts);
    return broken();
}

// ---- options ---------------------------------------------------------------------------------------------------

// A thread starts with the environment's schedule; what it sets holds for its own launches, so tests that run side by
// side do not disturb each other.
static Schedule environment_schedule() {
    Schedule s;
    if (const char* order = getenv("EMM_EMULATOR_ORDER")) {
        if (!strncmp(order, "reverse", 7)) s.order = Order::Reverse;
        if (!strncmp(order, "random", 6)) s.order = Order::Random;
        if (const char* seed = strchr(order, ':')) s.seed = strtoull(seed + 1, nullptr, 10);
    }
    if (const char* copies = getenv("EMM_EMULATOR_ASYNC")) s.early_copies = !strcmp(copies, "early");
    return s;
}
static Schedule& thread_schedule() {
    static thread_local Schedule s = environment_schedule();
    return s;
}
const Schedule& wanted_schedule() { return thread_schedule(); }

// Opt-in shared memory a block: 99, 163 or 227 KB stand for sm_86, sm_80 and sm_90. Devices, and memory of each.
static void read_environment() {
    if (const char* bytes = getenv("EMM_EMULATOR_SHARED")) device.shared_limit = unsigned(strtoul(bytes, nullptr, 10));
    if (const char* bytes = getenv("EMM_EMULATOR_MEMORY")) device.memory = strtoull(bytes, nullptr, 10);
    if (const char* count = getenv("EMM_EMULATOR_DEVICES")) {
        device.count = unsigned(strtoul(count, nullptr, 10));
        if (device.count < 1 || device.count > most_devices) {
            fprintf(stderr, "EMM_EMULATOR_DEVICES=%s: expected 1 to %u\n", count, most_devices);
            exit(2);
        }
    }
}

static Fault environment_fault() {
    Fault f;
    const char* asked = getenv("EMM_EMULATOR_FAIL");
    if (!asked || !*asked) return f;
    std::string text = asked, word = text.substr(0, text.find(':'));
    if (word.size() < text.size()) f.kernel = text.substr(word.size() + 1);
    const struct { const char* word; Fault::Kind kind; } kinds[] = {
        {"open", Fault::Open}, {"load", Fault::Load}, {"launch", Fault::Launch}, {"hang", Fault::Hang}, {"read", Fault::Read}};
    for (const auto& k : kinds)
        if (word == k.word) f.kind = k.kind;
    if (f.kind) return f;
    fprintf(stderr, "EMM_EMULATOR_FAIL=%s: expected open, load, launch, launch:KERNEL, hang:KERNEL or read\n", asked);
    exit(2);
}
const Fault fault = environment_fault();

// order: 0 forward, 1 reverse, 2 random
EMU_EXPORT int emm_emulator_set_order(int order, unsigned long long seed) {
    if (order < 0 || order > 2) return InvalidValue;
    thread_schedule().order = Order(order);
    thread_schedule().seed = seed;
    return Success;
}
EMU_EXPORT int emm_emulator_set_async(int early) {
    thread_schedule().early_copies = early != 0;
    return Success;
}
// As if the process had begun anew: forgets what broke the contexts, and what was queued.
EMU_EXPORT int emm_emulator_recover() {
    Locked locked(driver_lock);
    for (unsigned i = 0; i < most_devices; i++) {
        on_device = i;
        drain_all();
        broken_contexts[on_device].by = Success;
    }
    return Success;
}
EMU_EXPORT int emm_emulator_set_memory(size_t bytes) {
    Locked locked(driver_lock);
    device.memory = bytes;
    return Success;
}
// Fills with 0xFF: NaN in f32 and bf16, -1 in integers.
EMU_EXPORT int emm_emulator_poison(DevicePointer p, size_t bytes) {
    Locked locked(driver_lock);
    for (unsigned i = 0; i < most_devices; i++) {
        on_device = i;
        drain_all();
        if (!in_device(address(p), bytes)) continue;
        memset(address(p), 0xff, bytes);
        return Success;
    }
    return InvalidValue;
}
EMU_EXPORT int emm_emulator_is_check_build() { return check_build; }
// Of the calling thread; valid until its next failing call.
EMU_EXPORT const char* emm_emulator_last_error() { return last_error.c_str(); }

// ---- errors ----------------------------------------------------------------------------------------------------

struct ErrorText {
    Result result;
    const char *name, *text;
};
static const ErrorText error_texts[] = {
    {Success, "CUDA_SUCCESS", "no error"},
    {InvalidValue, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {OutOfMemory, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {NotInitialized, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {DeviceUnavailable, "CUDA_ERROR_DEVICE_UNAVAILABLE", "CUDA-capable device(s) is/are busy or unavailable"},
    {InvalidDevice, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {InvalidImage, "CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid"},
    {InvalidContext, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {NoBinaryForGpu, "CUDA_ERROR_NO_BINARY_FOR_GPU", "no kernel image is available for execution on the device"},
    {InvalidHandle, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {IllegalState, "CUDA_ERROR_ILLEGAL_STATE", "the operation cannot be performed in the present state"},
    {NotFound, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {NotReady, "CUDA_ERROR_NOT_READY", "device not ready"},
    {IllegalAddress, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"},
    {LaunchFailed, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
    {NotSupported, "CUDA_ERROR_NOT_SUPPORTED", "operation not supported"},
    {CaptureUnsupported, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED", "operation not permitted when stream is capturing"},
    {CaptureInvalidated, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED", "operation failed due to a previous error during capture"},
    {CaptureUnmatched, "CUDA_ERROR_STREAM_CAPTURE_UNMATCHED", "capture was not ended in the same stream as it began"},
    {CaptureIsolation, "CUDA_ERROR_STREAM_CAPTURE_ISOLATION", "dependency created on uncaptured work in another stream"},
    {CaptureImplicit, "CUDA_ERROR_STREAM_CAPTURE_IMPLICIT", "operation would make the legacy stream depend on a capturing blocking stream"},
    {CapturedEvent, "CUDA_ERROR_CAPTURED_EVENT", "operation not permitted on an event last recorded in a capturing stream"},
};

EMU_EXPORT Result cuGetErrorName(int result, const char** name) {
    for (const ErrorText& e : error_texts)
        if (e.result == result) return *name = e.name, Success;
    *name = nullptr;
    return InvalidValue;
}
EMU_EXPORT Result cuGetErrorString(int result, const char** text) {
    static thread_local std::string copy;
    for (const ErrorText& e : error_texts) {
        if (e.result != result) continue;
        copy = e.text;
        if (result && result == last_result && !last_error.empty()) copy += ": " + last_error;
        *text = copy.c_str();
        return Success;
    }
    *text = nullptr;
    return InvalidValue;
}

// ---- driver, device, context -----------------------------------------------------------------------------------

EMU_EXPORT Result cuInit(unsigned flags) {
    Locked locked(driver_lock);
    if (flags) return InvalidValue;
    if (!initialized) read_environment();
    initialized = true;
    return Success;
}
EMU_EXPORT Result cuDriverGetVersion(int* version) {
    *version = 13000;
    return Success;
}
static bool exists(int ordinal) { return unsigned(ordinal) < device.count; }
EMU_EXPORT Result cuDeviceGetCount(int* count) {
    *count = int(device.count);
    return initialized ? Success : NotInitialized;
}
EMU_EXPORT Result cuDeviceGet(int* handle, int ordinal) {
    if (!initialized) return NotInitialized;
    if (!exists(ordinal)) return InvalidDevice;
    *handle = ordinal;
    return Success;
}
EMU_EXPORT Result cuDeviceGetName(char* name, int length, int ordinal) {
    if (!exists(ordinal) || length < 1) return InvalidDevice;
    snprintf(name, length, "CPU emulator");
    return Success;
}
EMU_EXPORT Result cuDeviceGetUuid_v2(void* uuid, int ordinal) {
    if (!exists(ordinal)) return InvalidDevice;
    memcpy(uuid, "emm-cpu-emulator", 16);
    static_cast<char*>(uuid)[15] += char(ordinal);
    return Success;
}
EMU_EXPORT Result cuDeviceTotalMem_v2(size_t* bytes, int ordinal) {
    if (!exists(ordinal)) return InvalidDevice;
    *bytes = device.memory;
    return Success;
}

EMU_EXPORT Result cuDeviceGetAttribute(int* value, int attribute, int ordinal) {
    if (!exists(ordinal)) return InvalidDevice;
    switch (attribute) {
        case 1: *value = 1024; break;                    // threads a block
        case 2: case 3: *value = 1024; break;            // block dimensions
        case 4: *value = 64; break;
        case 5: *value = 0x7fffffff; break;              // grid dimensions
        case 6: case 7: *value = 65535; break;
        case 8: *value = 48 << 10; break;                // shared memory a block
        case 10: *value = 32; break;                     // warp size
        case 12: case 82: *value = 65536; break;         // registers a block, a multiprocessor
        case 13: *value = 1000000; break;                // clock, kHz
        case 14: *value = 512; break;                    // texture alignment
        case 16: *value = multiprocessors; break;
        case 31: case 40: case 41: *value = 1; break;    // concurrent kernels, copy engines, unified addresses
        case 36: *value = 1000000; break;                // memory clock, kHz
        case 37: *value = 256; break;                    // bus width, bits
        case 38: *value = 4 << 20; break;                // second-level cache
        case 39: *value = threads_per_multiprocessor; break;
        case 75: *value = compute_major(); break;
        case 76: *value = compute_minor(); break;
        case 81: *value = shared_per_multiprocessor(); break;
        case 97: *value = int(device.shared_limit); break;
        case 106: *value = 16; break;                    // blocks a multiprocessor
        case 111: *value = 1024; break;                  // shared memory the driver keeps a block
        case 115: *value = 1; break;                     // memory pools: cuMemAllocAsync
        default: *value = 0;
    }
    return Success;
}

EMU_EXPORT Result cuDevicePrimaryCtxRetain(void** context, int ordinal) {
    if (!initialized) return NotInitialized;
    if (!exists(ordinal)) return InvalidDevice;
    if (fault.meets(Fault::Open)) return refuse(DeviceUnavailable, "EMM_EMULATOR_FAIL=open");
    *context = contexts + ordinal;
    return Success;
}
EMU_EXPORT Result cuDevicePrimaryCtxRelease_v2(int ordinal) { return exists(ordinal) ? Success : InvalidDevice; }
EMU_EXPORT Result cuDevicePrimaryCtxGetState(int ordinal, unsigned* flags, int* active) {
    *flags = 0;
    *active = 1;
    return exists(ordinal) ? Success : InvalidDevice;
}
EMU_EXPORT Result cuCtxSetCurrent(void* context) {
    char* asked = static_cast<char*>(context);
    if (asked && (asked < contexts || asked >= contexts + device.count)) return InvalidContext;
    bound_context = asked;
    return Success;
}
EMU_EXPORT Result cuCtxGetCurrent(void** context) {
    *context = bound_context;
    return Success;
}
EMU_EXPORT Result cuCtxGetDevice(int* handle) {
    *handle = bound_context ? int(bound_context - contexts) : 0;
    return bound_context ? Success : InvalidContext;
}
EMU_EXPORT Result cuCtxSynchronize() {
    EMU_ENTER;
    if (Result r = outside_capture("cuCtxSynchronize")) return r;
    return drain_all();
}
EMU_EXPORT Result cuCtxSetFlags(unsigned) {
    EMU_ENTER;
    return Success;
}
EMU_EXPORT Result cuCtxSetLimit(int, size_t) {
    EMU_ENTER;
    return Success;
}
EMU_EXPORT Result cuCtxGetLimit(size_t* value, int) {
    EMU_ENTER;
    *value = 0;
    return Success;
}
EMU_EXPORT Result cuCtxSetCacheConfig(int) {
    EMU_ENTER;
    return Success;
}
EMU_EXPORT Result cuCtxGetStreamPriorityRange(int* least, int* greatest) {
    EMU_ENTER;
    *least = *greatest = 0;
    return Success;
}
EMU_EXPORT Result cuProfilerStart() { return Success; }
EMU_EXPORT Result cuProfilerStop() { return Success; }

// ---- memory ----------------------------------------------------------------------------------------------------

static Result allocate(DevicePointer* p, size_t bytes) {
    if (!bytes) return refuse(InvalidValue, "an allocation of 0 bytes");
    void* memory = device_alloc(bytes);
    if (!memory) {  // a pool finds room in what the queues still have to free
        if (Result r = drain_all()) return r;
        memory = device_alloc(bytes);
    }
    if (!memory)
        return refuse(OutOfMemory, std::to_string(bytes) + " bytes wanted, " + std::to_string(device_in_use()) + " of " +
                                       std::to_string(device.memory) + " in use");
    *p = DevicePointer(memory);
    return Success;
}

EMU_EXPORT Result cuMemAlloc_v2(DevicePointer* p, size_t bytes) {
    EMU_ENTER;
    if (Result r = outside_capture("cuMemAlloc")) return r;
    return allocate(p, bytes);
}
static Result give_back(DevicePointer p) {
    return !p || device_free(address(p)) ? Success : refuse(InvalidValue, "freed what is not a live allocation");
}

EMU_EXPORT Result cuMemFree_v2(DevicePointer p) {
    EMU_ENTER;
    if (Result r = outside_capture("cuMemFree")) return r;
    if (Result r = drain_all()) return r;
    return give_back(p);
}
// Graphs own no memory here: allocating or freeing in a captured stream is refused. Memory may be used at once, and goes
// when the stream has come that far.
EMU_EXPORT Result cuMemAllocAsync(DevicePointer* p, size_t bytes, Stream* stream) {
    EMU_ENTER_BY_HANDLE(stream);
    if (Result r = outside_capture("cuMemAllocAsync")) return r;
    return allocate(p, bytes);
}
EMU_EXPORT Result cuMemFreeAsync(DevicePointer p, Stream* stream) {
    EMU_ENTER_BY_HANDLE(stream);
    if (Result r = outside_capture("cuMemFreeAsync")) return r;
    return submit(stream, [p] { return give_back(p); });
}
EMU_EXPORT Result cuMemGetInfo_v2(size_t* free_bytes, size_t* total) {
    EMU_ENTER;
    *total = device.memory;
    *free_bytes = device.memory - std::min(device.memory, device_in_use());
    return Success;
}
EMU_EXPORT Result cuMemHostAlloc(void** p, size_t bytes, unsigned) {
    EMU_ENTER;
    *p = aligned_alloc(4096, (bytes + 4095) & ~size_t(4095));
    if (!*p) return OutOfMemory;
    memset(*p, 0xff, bytes);
    return Success;
}
EMU_EXPORT Result cuMemAllocHost_v2(void** p, size_t bytes) { return cuMemHostAlloc(p, bytes, 0); }
EMU_EXPORT Result cuMemFreeHost(void* p) {
    EMU_ENTER;
    if (Result r = drain_all()) return r;
    free(p);
    return Success;
}
EMU_EXPORT Result cuMemHostRegister_v2(void*, size_t, unsigned) {
    EMU_ENTER;
    return Success;
}
EMU_EXPORT Result cuMemHostUnregister(void*) {
    EMU_ENTER;
    return Success;
}
EMU_EXPORT Result cuMemAllocManaged(DevicePointer*, size_t, unsigned) { return NotSupported; }

static Result check_range(const char* call, const void* p, size_t bytes, Result otherwise) {
    if (in_device(p, bytes)) return Success;
    return refuse(otherwise, std::string(call) + " of " + std::to_string(bytes) + " bytes: " + describe_device(p));
}

struct CopyRange {
    void* to;
    const void* from;
    size_t bytes;
    bool to_device, from_device;
    const char* call;

    Result check(Result otherwise) const {
        Result r = to_device ? check_range(call, to, bytes, otherwise) : Success;
        return !r && from_device ? check_range(call, from, bytes, otherwise) : r;
    }
    // Memory that went since the call is an illegal address.
    Result operator()() const {
        if (Result r = check(IllegalAddress)) return r;
        if (!to_device && fault.meets(Fault::Read)) return refuse(IllegalAddress, "EMM_EMULATOR_FAIL=read");
        memmove(to, from, bytes);
        return Success;
    }
};

static Result copy_now(const CopyRange& copy) {
    EMU_ENTER;
    if (Result r = outside_capture(copy.call)) return r;
    if (Result r = copy.check(InvalidValue)) return r;
    if (Result r = drain_default()) return r;
    Result r = copy();
    return r ? break_context(r) : r;
}
// The host's memory is read, or written, when the stream comes to the copy. Until then what it will write is poisoned,
// so that reading it too early shows, whatever was there before.
static Result copy_in(Stream* stream, const CopyRange& copy) {
    EMU_ENTER;
    if (Result r = copy.check(InvalidValue)) return r;
    if (!copy.to_device && !is_captured(stream)) memset(copy.to, 0xff, copy.bytes);
    return submit(stream, copy);
}

EMU_EXPORT Result cuMemcpyHtoD_v2(DevicePointer to, const void* from, size_t bytes) {
    return copy_now({address(to), from, bytes, true, false, "cuMemcpyHtoD"});
}
EMU_EXPORT Result cuMemcpyDtoH_v2(void* to, DevicePointer from, size_t bytes) {
    return copy_now({to, address(from), bytes, false, true, "cuMemcpyDtoH"});
}
EMU_EXPORT Result cuMemcpyDtoD_v2(DevicePointer to, DevicePointer from, size_t bytes) {
    return copy_now({address(to), address(from), bytes, true, true, "cuMemcpyDtoD"});
}
EMU_EXPORT Result cuMemcpyHtoDAsync_v2(DevicePointer to, const void* from, size_t bytes, Stream* stream) {
    return copy_in(stream, {address(to), from, bytes, true, false, "cuMemcpyHtoDAsync"});
}
EMU_EXPORT Result cuMemcpyDtoHAsync_v2(void* to, DevicePointer from, size_t bytes, Stream* stream) {
    return copy_in(stream, {to, address(from), bytes, false, true, "cuMemcpyDtoHAsync"});
}
EMU_EXPORT Result cuMemcpyDtoDAsync_v2(DevicePointer to, DevicePointer from, size_t bytes, Stream* stream) {
    return copy_in(stream, {address(to), address(from), bytes, true, true, "cuMemcpyDtoDAsync"});
}

template <class T>
struct Fill {
    void* to;
    T value;
    size_t count;

    Result check(Result otherwise) const {
        if (DevicePointer(to) % sizeof(T)) return refuse(InvalidValue, "cuMemset: the address is not aligned");
        return check_range("cuMemset", to, count * sizeof(T), otherwise);
    }
    Result operator()() const {
        if (Result r = check(IllegalAddress)) return r;
        std::fill_n(static_cast<T*>(to), count, value);
        return Success;
    }
};
template <class T>
static Result fill_in(Stream* stream, const Fill<T>& fill) {
    EMU_ENTER;
    if (Result r = fill.check(InvalidValue)) return r;
    return submit(stream, fill);
}

#define EMU_MEMSET(bits, T)                                                                                   \
    EMU_EXPORT Result cuMemsetD##bits##_v2(DevicePointer to, T value, size_t count) {                         \
        return fill_in(nullptr, Fill<T>{address(to), value, count});                                          \
    }                                                                                                         \
    EMU_EXPORT Result cuMemsetD##bits##Async(DevicePointer to, T value, size_t count, Stream* stream) {       \
        return fill_in(stream, Fill<T>{address(to), value, count});                                           \
    }
EMU_MEMSET(8, unsigned char)
EMU_MEMSET(16, unsigned short)
EMU_MEMSET(32, unsigned)

}  // namespace emu
