// The inside of the emulator: one block at a time, each CUDA thread a fiber with a stack of its own, all on the OS
// thread that launches. The files of this folder share these structures, those of Hopper's instructions also async.h;
// kernels see cuda.h only.
#pragma once
#include <string>
#include <vector>

#include "cuda.h"
using u32 = uint32_t;
#include "../params/constants.h"

namespace emu {

// ---- options: from the environment at cuInit, then the emm_emulator_set_* functions ----

enum class Order { Forward, Reverse, Random };

struct Schedule {
    Order order = Order::Forward;  // which ready thread, and which block, runs next
    uint64_t seed = 0;             // of Order::Random
    bool early_copies = false;     // asynchronous copies and products at issue instead of as late as they may
};
extern Schedule schedule;  // of the running launch

const unsigned most_devices = 8;

// All devices are alike.
struct DeviceOptions {
    unsigned count = 1;
    unsigned shared_limit = LEAST_SHARED_BYTES;  // opt-in shared memory a block, bytes
    size_t memory = size_t(4) << 30;   // of each device, bytes
};
extern DeviceOptions device;

// ---- threads, warps, the running block ----

struct Copy {  // one cp.async in flight
    void* shared;
    const void* global;
    int bytes, source_bytes;
    Site site;
};

struct Fiber : Thread {
    bool done, at_barrier;
    Site waits_at;
    std::string (*waits_for)(const Fiber*);  // says what for, where it is more than a place
    std::vector<Copy> copies;      // not yet waited for, oldest first, from copies_done on
    std::vector<unsigned> groups;  // copies in each committed group, from groups_done on
    size_t copies_done, groups_done;
    unsigned uncommitted;
};

// What one lane brings to a collective; the last lane reads all and writes through the pointers, which point into the
// lanes' stacks.
struct Request {
    const void *a, *b;
    void* out;
    int value;
};

// The lanes of one mask that meet in a collective.
struct Meeting {
    unsigned mask, arrived;
    const char* what;
    Site site;
    Request request[32];
};

struct Warp {
    unsigned ready, alive;  // lanes, as bit masks
    unsigned sync_epoch;    // __syncwarps passed
    Meeting whole;                    // the meeting of all 32 lanes
    std::vector<Meeting*> partial;    // those of other masks; kept between blocks
};

struct SharedRange {
    unsigned offset, bytes;
};

struct Block {
    const Kernel* kernel;
    unsigned threads, alive;
    unsigned ready_warps;  // warps with a ready lane, as a bit mask
    unsigned barrier_arrived;
    int barrier_count;  // threads whose predicate held
    int barrier_result;
    Site barrier_site;
    Fiber* barrier_first;
    std::vector<SharedRange> shared;  // the dynamic array, then the static ones as they are met
    unsigned shared_top;              // first free byte of the arena
    unsigned shared_bytes;            // used, without the gaps between arrays
    uint64_t serial;                  // of this block among all blocks ever run
    // Epochs grow with every barrier, block and launch, so comparing two tells what separates them.
    unsigned epoch, first_epoch, launch_epoch;
    std::string failure;
};

extern Block block;
extern Fiber fibers[1024];
extern Warp warps[32];

inline Fiber* running() { return static_cast<Fiber*>(current); }

std::string text(Site site);
std::string text(const Fiber* fiber);  // "block (1,0,0) thread (3,0,0)"
std::string text(uint3 v);
[[noreturn]] void fail(const std::string& message);  // ends the launch from within a kernel

const unsigned shared_arena_bytes = 256 << 10;
unsigned char* shared_arena();
bool in_shared(const void* p, size_t bytes);
unsigned take_shared(size_t bytes, size_t align);  // the offset of a new array

// Runs `compute(requests)` once for the lanes of `mask`, on the last of them to arrive.
Meeting* arrive(unsigned mask, const char* what, Site site, const Request& request);  // null: not the last lane
void release(Meeting* meeting);
template <class F>
inline void meet(unsigned mask, const char* what, Site site, const Request& request, F compute) {
    if (Meeting* meeting = arrive(mask, what, site, request)) {
        compute(meeting->request);
        release(meeting);
    }
}

// The last lane to arrive sleeps instead, and its warp with it, until another wakes them; waits_for says what for.
void park(Meeting* meeting, std::string (*waits_for)(const Fiber*));
void unpark(unsigned warp);

void make_ready(Fiber* f);
void sleep_until_ready();  // the running thread
void let_others_run();     // where the order is not forward
unsigned random_below(unsigned n);
bool land_a_copy();  // the next tensor copy that is on its way, if any is

void* map_pages(size_t bytes);

struct Geometry {
    uint3 grid, block;
    unsigned dynamic_shared;
};
// Runs every block; false with the reason in `error`.
bool launch(Kernel& kernel, const Geometry& geometry, void** args, const Schedule& as, std::string& error);

// ---- the checker: checker.cpp in the check build, no_checker.cpp otherwise ----

extern const bool check_build;
void check_in_flight(const void* shared, size_t bytes, bool in_flight);
void check_memory(const void* p, size_t bytes, bool live);  // device memory comes or goes
bool checker_report(std::string& error);                    // after a launch; false when something was found
void order_start();                                         // a block begins
void order_block();                                         // a __syncthreads of all
void order_warp(unsigned mask);                             // a __syncwarp

}  // namespace emu
