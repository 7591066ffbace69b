// Device memory; see memory.h. Callers hold the driver's lock.
#include "memory.h"
#include "machine.h"
#include <map>
#include <sys/mman.h>
#include <unistd.h>

namespace emu {

unsigned on_device;

struct Allocation {
    size_t bytes;
    unsigned device, number;
    bool live;
};
static std::map<const unsigned char*, Allocation> allocations;  // by start
static size_t top, in_use[most_devices];
static const size_t granularity = 512;  // cudaMalloc's alignment, and at least that much between two allocations

static unsigned char* map(int file) {
    int flags = MAP_NORESERVE | (file < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED);
    void* p = mmap(nullptr, device_space, PROT_READ | PROT_WRITE, flags, file, 0);
    if (p == MAP_FAILED) abort();
    return static_cast<unsigned char*>(p);
}

struct Space {
    unsigned char *base, *view;
};
static const Space& space() {
    static const Space both = [] {
        if (!check_build) {
            unsigned char* base = map(-1);
            return Space{base, base};
        }
        int file = memfd_create("device memory", MFD_CLOEXEC);
        if (file < 0 || ftruncate(file, device_space)) abort();
        Space twice{map(file), map(file)};
        close(file);
        return twice;
    }();
    return both;
}

unsigned char* device_base() { return space().base; }
void* reading_view(void* p) { return space().view + (static_cast<unsigned char*>(p) - space().base); }
const void* device_address(const void* p) {
    size_t offset = static_cast<const unsigned char*>(p) - space().view;
    return offset < device_space ? space().base + offset : p;
}

// The last allocation that starts at or before p.
static std::map<const unsigned char*, Allocation>::iterator find(const void* p) {
    p = device_address(p);
    auto next = allocations.upper_bound(static_cast<const unsigned char*>(p));
    return next == allocations.begin() ? allocations.end() : --next;
}

void* device_alloc(size_t bytes) {
    size_t step = (bytes + 2 * granularity - 1) / granularity * granularity;
    if (!bytes || bytes > device.memory - std::min(device.memory, device_in_use()) || step > device_space - top) return nullptr;
    unsigned char* p = device_base() + top;
    top += step;
    in_use[on_device] += bytes;
    memset(p, 0xff, bytes);
    allocations[p] = {bytes, on_device, unsigned(allocations.size()), true};
    check_memory(p, bytes, true);
    return p;
}

bool device_free(void* p) {
    auto found = allocations.find(static_cast<unsigned char*>(p));
    if (found == allocations.end() || !found->second.live || found->second.device != on_device) return false;
    Allocation& a = found->second;
    a.live = false;
    in_use[on_device] -= a.bytes;
    check_memory(p, a.bytes, false);
    // Small ones are poisoned for late readers; whole pages of large ones go back to the system.
    if (a.bytes < (1 << 20)) memset(p, 0xff, a.bytes);
    else {
        uintptr_t start = (uintptr_t(p) + 4095) & ~uintptr_t(4095), end = (uintptr_t(p) + a.bytes) & ~uintptr_t(4095);
        madvise(reinterpret_cast<void*>(start), end - start, check_build ? MADV_REMOVE : MADV_DONTNEED);
    }
    return true;
}

bool in_device(const void* p, size_t bytes) {
    auto a = find(p);
    if (a == allocations.end() || !a->second.live || a->second.device != on_device) return false;
    size_t offset = static_cast<const unsigned char*>(device_address(p)) - a->first;
    return offset <= a->second.bytes && bytes <= a->second.bytes - offset;
}

size_t device_in_use() { return in_use[on_device]; }

std::string describe_device(const void* p) {
    auto a = find(p);
    if (a == allocations.end()) return "no allocation";
    std::string whose = a->second.device == on_device ? "" : "of another device, " + std::to_string(a->second.device) + ": ";
    return whose + (a->second.live ? "" : "freed ") + "allocation " + std::to_string(a->second.number) + " of " +
           std::to_string(a->second.bytes) + " bytes, at +" +
           std::to_string(static_cast<const unsigned char*>(device_address(p)) - a->first);
}

}  // namespace emu
