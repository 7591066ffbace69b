// Device memory; see memory.h. Callers hold the driver's lock.
#include "memory.h"
#include "machine.h"
#include <map>
#include <sys/mman.h>

namespace emu {

struct Allocation {
    size_t bytes;
    unsigned number;
    bool live;
};
static std::map<const unsigned char*, Allocation> allocations;  // by start
static size_t top, in_use;
static const size_t granularity = 512;  // cudaMalloc's alignment, and at least that much between two allocations

unsigned char* device_base() {
    static unsigned char* base = [] {
        void* p = mmap(nullptr, device_space, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (p == MAP_FAILED) abort();
        return static_cast<unsigned char*>(p);
    }();
    return base;
}

// The last allocation that starts at or before p.
static std::map<const unsigned char*, Allocation>::iterator find(const void* p) {
    auto next = allocations.upper_bound(static_cast<const unsigned char*>(p));
    return next == allocations.begin() ? allocations.end() : --next;
}

void* device_alloc(size_t bytes) {
    size_t step = (bytes + 2 * granularity - 1) / granularity * granularity;
    if (!bytes || bytes > device.memory - std::min(device.memory, in_use) || step > device_space - top) return nullptr;
    unsigned char* p = device_base() + top;
    top += step;
    in_use += bytes;
    memset(p, 0xff, bytes);
    allocations[p] = {bytes, unsigned(allocations.size()), true};
    check_memory(p, bytes, true);
    return p;
}

bool device_free(void* p) {
    auto found = allocations.find(static_cast<unsigned char*>(p));
    if (found == allocations.end() || !found->second.live) return false;
    Allocation& a = found->second;
    a.live = false;
    in_use -= a.bytes;
    check_memory(p, a.bytes, false);
    // Small ones are poisoned for late readers; whole pages of large ones go back to the system.
    if (a.bytes < (1 << 20)) memset(p, 0xff, a.bytes);
    else {
        uintptr_t start = (uintptr_t(p) + 4095) & ~uintptr_t(4095), end = (uintptr_t(p) + a.bytes) & ~uintptr_t(4095);
        madvise(reinterpret_cast<void*>(start), end - start, MADV_DONTNEED);
    }
    return true;
}

bool in_device(const void* p, size_t bytes) {
    auto a = find(p);
    if (a == allocations.end() || !a->second.live) return false;
    size_t offset = static_cast<const unsigned char*>(p) - a->first;
    return offset <= a->second.bytes && bytes <= a->second.bytes - offset;
}

size_t device_in_use() { return in_use; }

std::string describe_device(const void* p) {
    auto a = find(p);
    if (a == allocations.end()) return "no allocation";
    return std::string(a->second.live ? "" : "freed ") + "allocation " + std::to_string(a->second.number) + " of " +
           std::to_string(a->second.bytes) + " bytes, at +" +
           std::to_string(static_cast<const unsigned char*>(p) - a->first);
}

}  // namespace emu
