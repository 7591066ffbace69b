// What the emulator's parts for asynchronous instructions share: mbarrier.cpp, warpgroup.cpp, tensor_copy.cpp, wgmma.cpp.
#pragma once
#include "hopper_host.h"
#include "machine.h"

namespace emu {

// Refuses what an instruction was asked, by the running thread.
[[noreturn]] void refuse(const char* what, const std::string& why, Site site);
// The instructions of this kind are those of compute capability 9.0.
void ask_hopper(const char* what, Site site);

// ---- tensor maps ----

const uint64_t map_mark = 0x70616d2d726f7374ull;

// What the driver's cuTensorMapEncodeTiled makes of its arguments: a TensorMap's 128 bytes begin with it.
struct EncodedMap {
    uint64_t mark;
    unsigned char* base;
    uint64_t stride[4];  // bytes, of dimensions 1 and on
    uint32_t last[5];    // elements less one
    uint16_t box[5];
    uint8_t step[5];  // elements from one that is copied to the next
    uint8_t rank, element_bytes, swizzle;  // swizzle: 16-byte pieces of a row that change places: 1 (none), 2, 4, 8
};
static_assert(sizeof(EncodedMap) <= 128, "a map has 128 bytes");

// ---- barriers ----

struct Barrier {
    unsigned offset;  // in the arena
    unsigned expected, pending;
    int bytes;  // that are announced and have not come
    uint64_t phase;
    unsigned channel;  // of the checker
    Site made_at;
    unsigned made_by;  // linear thread
    uint32_t made_time;
    bool fenced;       // by mbar_fence_init
};
const unsigned most_barriers = 64, named_barriers = 16;

unsigned find_barrier(const void* bar, const char* what, Site site);  // its index, or fails
Barrier& barrier(unsigned index);
std::string text(const Barrier& b);
// `bytes` of a copy that was issued in phase `phase` have come.
void bytes_arrive(unsigned index, unsigned bytes, uint64_t phase, Site site);

// ---- what the machine asks ----

void start_barriers();
void finish_barriers();
void start_warpgroups();
void finish_warpgroups();
void start_copies();
void finish_copies();
void start_products();
void finish_products();
void exit_copies(Fiber* f);
void exit_products(Fiber* f);

// ---- the checker (clocks.cpp in the check build, no_checker.cpp otherwise) ----

// What orders accesses beside __syncthreads and __syncwarp: a channel is a barrier, below most_barriers in shared memory,
// from there on a named one. Threads arrive, the phase ends, threads wait.
void order_arrive(unsigned channel);       // the running thread
void order_arrive_warp(unsigned channel);  // all lanes of its warp
void order_phase(unsigned channel);
void order_wait(unsigned channel);
void order_wait_warp(unsigned channel, unsigned warp);
void order_fence();
uint32_t order_time();                                   // the running thread's
bool order_knows(unsigned thread, uint32_t time);        // the running thread, what another did then
void check_barrier(const void* bar, bool is);  // the 8 bytes are one, or are no longer
// Shared memory in pieces of 16 bytes: their offsets in the arena.
void check_load(const uint32_t* pieces, size_t count, Site site);                       // at issue
void check_landed(const uint32_t* pieces, size_t count, unsigned channel, Site site);
void check_store(const uint32_t* pieces, size_t count, Site site);                      // at issue
void check_stored(const uint32_t* pieces, size_t count, Site site);                     // has been read
void check_product(const uint32_t* pieces, size_t count, Site site);                    // at issue
void check_multiplied(const uint32_t* pieces, size_t count, Site site);                 // has been read
void check_outside(const char* what, const EncodedMap& map, Site site);                 // a box wholly outside
void check_accumulators(unsigned thread, const float* d, size_t count, bool in_flight);

}  // namespace emu
