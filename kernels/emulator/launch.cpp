// The driver's modules, functions and launches; see driver.cpp.
#include "driver.h"
#include "memory.h"
#include <unistd.h>

namespace emu {

static unsigned long long launches;
EMU_EXPORT unsigned long long emm_emulator_launch_count() {
    Locked locked(driver_lock);
    return launches;
}

// ---- modules and functions: the kernels are those linked into this library, whatever the image holds --------------

// A kernel as a module has it.
struct Function {
    Kernel* kernel;
    unsigned device;
    unsigned dynamic_shared_limit = 48 << 10;  // raised by cuFuncSetAttribute
};
struct Module {
    unsigned device;
    std::vector<Function*> functions{};
};
static Handles<Module> modules;
static Handles<Function> functions;

// A module or function that is there and of the device of the current context.
template <class T>
static Result check_handle(const Handles<T>& live, const T* handle, const char* what) {
    if (!live.has(handle)) return refuse(InvalidHandle, std::string("not a live ") + what);
    if (handle->device == on_device) return Success;
    return refuse(InvalidHandle, std::string("a ") + what + " of device " + std::to_string(handle->device) +
                                     ", the current context is of device " + std::to_string(on_device));
}

// A fatbin as nvcc writes it: a head, then for each kind of GPU an entry with a head of its own.
struct FatbinHead {
    uint32_t magic;
    uint16_t version, head_bytes;
    uint64_t bytes;  // behind the head
};
struct FatbinEntry {
    uint16_t kind;  // 1: PTX, 2: machine code
    uint16_t version;
    uint32_t head_bytes;
    uint64_t bytes;  // behind the head
    uint32_t compressed_bytes, options_at;
    uint16_t minor, major;  // of PTX
    uint32_t arch;          // 80 for sm_80
};

// Machine code serves its own generation from its minor version on, PTX everything newer.
static bool serves(const FatbinEntry& entry) {
    unsigned gpu = compute_major() * 10 + compute_minor();
    return entry.arch <= gpu && (entry.kind == 1 || (entry.kind == 2 && entry.arch / 10 == gpu / 10));
}

static Result check_image(const void* image) {
    FatbinHead head;
    memcpy(&head, image, sizeof head);
    if (head.magic != 0xba55ed50 || head.version != 1 || head.head_bytes != sizeof head)
        return refuse(InvalidImage, "the image does not begin as a fatbin");
    const unsigned char* p = static_cast<const unsigned char*>(image) + sizeof head;
    for (const unsigned char* end = p + head.bytes; p < end;) {
        FatbinEntry entry;
        if (size_t(end - p) < sizeof entry) return refuse(InvalidImage, "the fatbin ends within an entry");
        memcpy(&entry, p, sizeof entry);
        if (entry.head_bytes < sizeof entry || entry.head_bytes > size_t(end - p) ||
            entry.bytes > size_t(end - p) - entry.head_bytes)
            return refuse(InvalidImage, "an entry of the fatbin is longer than the fatbin");
        if (serves(entry)) return Success;
        p += entry.head_bytes + entry.bytes;
    }
    return refuse(NoBinaryForGpu, "the fatbin has nothing for sm_" + std::to_string(compute_major() * 10 + compute_minor()));
}

EMU_EXPORT Result cuModuleLoadData(Module** module, const void* image) {
    EMU_ENTER;
    if (!image) return InvalidValue;
    if (fault.meets(Fault::Load)) return refuse(NoBinaryForGpu, "EMM_EMULATOR_FAIL=load");
    if (Result r = check_image(image)) return r;
    *module = modules.add(new Module{on_device});
    return Success;
}
EMU_EXPORT Result cuModuleLoadDataEx(Module** module, const void* image, unsigned, int*, void**) {
    return cuModuleLoadData(module, image);
}
EMU_EXPORT Result cuModuleLoadFatBinary(Module** module, const void* image) { return cuModuleLoadData(module, image); }
EMU_EXPORT Result cuModuleUnload(Module* module) {
    EMU_ENTER;
    if (Result r = drain_all()) return r;
    if (Result r = check_handle(modules, module, "module")) return r;
    for (Function* function : module->functions) functions.remove(function);
    modules.remove(module);
    return Success;
}
EMU_EXPORT Result cuModuleGetFunction(Function** function, Module* module, const char* name) {
    EMU_ENTER;
    if (Result r = check_handle(modules, module, "module")) return r;
    for (Function* known : module->functions)
        if (!strcmp(known->kernel->name, name)) return *function = known, Success;
    for (Kernel* kernel = Kernel::first; kernel; kernel = kernel->next) {
        if (strcmp(kernel->name, name)) continue;
        *function = functions.add(new Function{kernel, module->device});
        module->functions.push_back(*function);
        return Success;
    }
    return refuse(NotFound, std::string("no kernel ") + name);
}
EMU_EXPORT Result cuModuleGetGlobal_v2(DevicePointer*, size_t*, Module*, const char*) { return NotFound; }

EMU_EXPORT Result cuFuncGetAttribute(int* value, int attribute, Function* function) {
    switch (attribute) {
        case 0: *value = 1024; break;                                  // threads a block
        case 1: *value = int(function->kernel->static_shared_bytes); break;  // 0 before the first launch
        case 4: *value = 64; break;                                    // registers
        case 5: case 6: *value = compute_major() * 10 + compute_minor(); break;
        case 8: *value = int(function->dynamic_shared_limit); break;
        default: *value = 0;
    }
    return Success;
}
EMU_EXPORT Result cuFuncSetAttribute(Function* function, int attribute, int value) {
    EMU_ENTER;
    if (Result r = check_handle(functions, function, "function")) return r;
    if (attribute != 8) return Success;
    const Kernel* kernel = function->kernel;
    if (value < 0 || unsigned(value) + kernel->static_shared_bytes > device.shared_limit)
        return refuse(InvalidValue, std::string(kernel->name) + ": " + std::to_string(value) +
                                        " bytes of dynamic shared memory wanted, the limit is " +
                                        std::to_string(device.shared_limit));
    function->dynamic_shared_limit = unsigned(value);
    return Success;
}
EMU_EXPORT Result cuFuncSetCacheConfig(Function*, int) { return Success; }
EMU_EXPORT Result cuFuncGetParamInfo(Function* function, size_t index, size_t* offset, size_t* bytes) {
    const Kernel* kernel = function->kernel;
    if (index >= kernel->params.size()) return InvalidValue;
    size_t at = 0;
    for (size_t i = 0; i <= index; i++) {
        const Param& param = kernel->params[i];
        at = (at + param.align - 1) / param.align * param.align;
        if (i < index) at += param.bytes;
    }
    *offset = at;
    if (bytes) *bytes = kernel->params[index].bytes;
    return Success;
}

// ---- launches --------------------------------------------------------------------------------------------------

// A launch with its argument values.
struct Launch {
    Kernel* kernel;
    Geometry geometry;
    struct Value {
        alignas(64) unsigned char bytes[64];
    };
    std::vector<std::vector<Value>> args;

    Result operator()() const {
        if (fault.meets(Fault::Launch, kernel->name))
            return refuse(IllegalAddress, std::string(kernel->name) + ": EMM_EMULATOR_FAIL=launch");
        while (fault.meets(Fault::Hang, kernel->name)) sleep(1);
        std::vector<std::vector<Value>> own = args;
        for (const Pointer& pointer : kernel->pointers)
            if (Result r = prepare(pointer, own[pointer.argument].data()->bytes + pointer.offset)) return r;
        std::vector<void*> values;
        for (std::vector<Value>& value : own) values.push_back(value.data());
        std::string error;
        launches++;
        return launch(*kernel, geometry, values.data(), running_schedule(), error) ? Success : refuse(LaunchFailed, error);
    }

    // Checks a pointer; one to what the kernel only reads points into the view of memory that the checker knows by.
    Result prepare(const Pointer& pointer, void* value) const {
        void* p;
        memcpy(&p, value, sizeof p);
        auto no = [&](const std::string& why) {
            std::string what = pointer.field ? pointer.field : "argument " + std::to_string(pointer.argument);
            return refuse(IllegalAddress, std::string(kernel->name) + ": " + what + " is a pointer, its value is not " +
                                              why + ": " + describe_device(p));
        };
        if (p && !in_device(p, 0)) return no("device memory");
        if (DevicePointer(p) % pointer.aligned_to) return no("a multiple of " + std::to_string(pointer.aligned_to));
        if (p && pointer.read_only) p = reading_view(p);
        memcpy(value, &p, sizeof p);
        return Success;
    }
};

static Result check_geometry(const Function& function, const Geometry& g) {
    auto no = [&](const std::string& why) { return refuse(InvalidValue, std::string(function.kernel->name) + ": " + why); };
    if (!g.block.x || !g.block.y || !g.block.z || g.block.z > 64 ||
        (unsigned long long)g.block.x * g.block.y * g.block.z > 1024)
        return no("a block has 1 to 1024 threads");
    if (!g.grid.x || !g.grid.y || !g.grid.z || g.grid.x > 0x7fffffff || g.grid.y > 65535 || g.grid.z > 65535)
        return no("the grid is empty or too large");
    if ((unsigned long long)g.grid.x * g.grid.y * g.grid.z > 0xffffffff) return no("the grid is too large to emulate");
    if (g.dynamic_shared > function.dynamic_shared_limit)
        return no(std::to_string(g.dynamic_shared) + " bytes of dynamic shared memory, " +
                  std::to_string(function.dynamic_shared_limit) + " allowed; cuFuncSetAttribute raises it");
    return Success;
}

EMU_EXPORT Result cuLaunchKernel(Function* function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                                 unsigned block_y, unsigned block_z, unsigned dynamic_shared, Stream* stream,
                                 void** args, void** extra) {
    EMU_ENTER;
    if (Result r = check_handle(functions, function, "function")) return r;
    if (extra) return refuse(NotSupported, "cuLaunchKernel: arguments packed in one buffer");
    Kernel* kernel = function->kernel;
    if (!args && !kernel->params.empty()) return refuse(InvalidValue, std::string(kernel->name) + ": no arguments");
    Launch work{kernel, {{grid_x, grid_y, grid_z}, {block_x, block_y, block_z}, dynamic_shared}, {}};
    if (Result r = check_geometry(*function, work.geometry)) return r;
    for (size_t i = 0; i < kernel->params.size(); i++) {
        unsigned bytes = kernel->params[i].bytes;
        work.args.emplace_back((bytes + sizeof(Launch::Value) - 1) / sizeof(Launch::Value));
        memcpy(work.args.back().data(), args[i], bytes);
    }
    return submit(stream, std::move(work));
}

struct LaunchConfig {  // CUlaunchConfig
    unsigned grid[3], block[3], dynamic_shared;
    Stream* stream;
    const void* attributes;
    unsigned attribute_count;
};
EMU_EXPORT Result cuLaunchKernelEx(const LaunchConfig* c, Function* function, void** args, void** extra) {
    return cuLaunchKernel(function, c->grid[0], c->grid[1], c->grid[2], c->block[0], c->block[1], c->block[2],
                          c->dynamic_shared, c->stream, args, extra);
}

EMU_EXPORT Result cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, Function* function, int threads,
                                                              size_t dynamic) {
    if (threads < 1 || threads > 1024) return InvalidValue;
    int by_threads = threads_per_multiprocessor / ((threads + 31) / 32 * 32);
    int by_shared = shared_per_multiprocessor() / int(dynamic + function->kernel->static_shared_bytes + 1024);
    *blocks = std::min(std::min(by_threads, by_shared), 16);
    return Success;
}
EMU_EXPORT Result cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks, Function* function, int threads,
                                                                       size_t dynamic, unsigned) {
    return cuOccupancyMaxActiveBlocksPerMultiprocessor(blocks, function, threads, dynamic);
}
EMU_EXPORT Result cuOccupancyMaxPotentialBlockSize(int* grid, int* block, Function*, size_t (*)(int), size_t, int limit) {
    *block = limit > 0 ? std::min(limit, 256) : 256;
    *grid = multiprocessors * (threads_per_multiprocessor / 256);
    return Success;
}
EMU_EXPORT Result cuOccupancyAvailableDynamicSMemPerBlock(size_t* bytes, Function* function, int blocks, int) {
    if (blocks < 1) return InvalidValue;
    size_t each = size_t(shared_per_multiprocessor()) / blocks, kept = function->kernel->static_shared_bytes + 1024;
    *bytes = each > kept ? each - kept : 0;
    return Success;
}

}  // namespace emu
