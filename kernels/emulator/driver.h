// What the parts of the driver share: driver.cpp (device, context, memory), launch.cpp (modules, launches) and stream.cpp
// (streams, events, graphs). Numbers and signatures are those of cuda.h of CUDA 13.
#pragma once
#include <cstddef>
#include <functional>
#include <mutex>
#include <set>
#include <string>

#include "machine.h"

namespace emu {

// ---- the device ----

const int multiprocessors = 8, threads_per_multiprocessor = 1536;
inline int compute_major() { return device.shared_limit > A100_SHARED_BYTES ? 9 : 8; }
inline int compute_minor() { return device.shared_limit > LEAST_SHARED_BYTES ? 0 : 6; }
inline int shared_per_multiprocessor() { return int(device.shared_limit) + 1024; }

using DevicePointer = unsigned long long;
inline void* address(DevicePointer p) { return reinterpret_cast<void*>(p); }

enum Result : int {
    Success = 0,
    InvalidValue = 1,
    OutOfMemory = 2,
    NotInitialized = 3,
    DeviceUnavailable = 46,
    InvalidDevice = 101,
    InvalidImage = 200,
    InvalidContext = 201,
    NoBinaryForGpu = 209,
    InvalidHandle = 400,
    IllegalState = 401,
    NotFound = 500,
    NotReady = 600,
    IllegalAddress = 700,
    LaunchFailed = 719,
    NotSupported = 801,
    CaptureUnsupported = 900,
    CaptureInvalidated = 901,
    CaptureUnmatched = 903,
    CaptureIsolation = 905,
    CaptureImplicit = 906,
    CapturedEvent = 907,
};

// Every exported function holds it: launches run one at a time.
extern std::recursive_mutex driver_lock;
using Locked = std::lock_guard<std::recursive_mutex>;

// The schedule that the calling thread asked for, which its work keeps.
const Schedule& wanted_schedule();

// Remembers why, for the calling thread; cuGetErrorString and emm_emulator_last_error tell it.
Result refuse(Result result, const std::string& why);

// What a kernel or copy that goes wrong does to the context of its device: every later call on it returns the same, until
// the process ends. The reason is that of the last refusal.
Result break_context(Result result);
// The error that broke the context, or Success.
Result broken();
// The same for a call that needs the context to be current on its thread, and for one that has its context by a stream.
Result enter();
struct Stream;
Result enter_by(Stream* stream);

// What EMM_EMULATOR_FAIL asks for when the library is loaded: a driver that fails.
struct Fault {
    enum Kind { None, Open, Load, Launch, Hang, Read } kind = None;
    std::string kernel;  // part of the name of the kernels that Launch and Hang mean

    bool meets(Kind asked) const { return kind == asked; }
    bool meets(Kind asked, const char* name) const { return kind == asked && strstr(name, kernel.c_str()); }
};
extern const Fault fault;

// One piece of a stream's work. It owns all it needs, so a graph can run it again.
using Work = std::function<Result()>;

// Queues the work, or records it where the stream (null: the default stream) is being captured.
Result submit(Stream* stream, Work work);
bool is_captured(Stream* stream);
// The schedule that the running work was queued with.
const Schedule& running_schedule();
// Runs what is queued in the device's default stream and those that wait for it, or in all its streams.
Result drain_default();
Result drain_all();
// For calls that a capture (other than a relaxed one) does not allow: Success when nothing is being captured,
// otherwise the capture is spoiled.
Result outside_capture(const char* call);

// The live objects of one kind; a handle is the object's address.
template <class T>
struct Handles {
    std::set<T*> live;
    T* add(T* object) {
        live.insert(object);
        return object;
    }
    bool has(const void* handle) const { return live.count(static_cast<T*>(const_cast<void*>(handle))) != 0; }
    bool remove(void* handle) {
        if (!live.erase(static_cast<T*>(handle))) return false;
        delete static_cast<T*>(handle);
        return true;
    }
};

}  // namespace emu

// The first line of an exported function that works on the current context, and of one that has its context by a handle
// that enter_by knows.
#define EMU_ENTER               \
    Locked locked(driver_lock); \
    if (Result r = enter()) return r
#define EMU_ENTER_BY_HANDLE(handle) \
    Locked locked(driver_lock);     \
    if (Result r = enter_by(handle)) return r
#define EMU_EXPORT extern "C" __attribute__((visibility("default")))
