// Barriers by number, registers that warpgroups give and take, the fence between ordinary accesses and asynchronous ones.
#include "async.h"

namespace emu {

// ---- barriers by number -------------------------------------------------------------------------------------------

struct NamedBarrier {
    unsigned threads;  // that meet there; 0 while nobody waits
    unsigned warps;    // that have come
    Site site;
};
static NamedBarrier named[named_barriers];

static std::string waits_for_named(const Fiber* f) {
    for (unsigned id = 0; id < named_barriers; id++)
        if (named[id].warps >> f->warp & 1)
            return "barrier " + std::to_string(id) + " of " + std::to_string(named[id].threads) + " threads, where " +
                   std::to_string(32 * __builtin_popcount(named[id].warps)) + " are";
    return "";
}

void named_barrier(int id, int threads, Site site) {
    const char* what = "named_barrier";
    if (id < 1 || id >= int(named_barriers)) refuse(what, "the numbers are 1 to 15, 0 is __syncthreads", site);
    if (threads < 32 || threads % 32 || unsigned(threads) > block.threads)
        refuse(what, std::to_string(threads) + " threads are not whole warps of the block", site);
    NamedBarrier& b = named[id];
    Meeting* m = arrive(~0u, what, site, {});
    if (!m) return;
    if (b.warps && b.threads != unsigned(threads))
        refuse(what, "barrier " + std::to_string(id) + " is waited at by " + std::to_string(b.threads) +
                         " threads at " + text(b.site) + ", by " + std::to_string(threads) + " here", site);
    unsigned own = running()->warp;
    b.threads = threads;
    b.site = site;
    b.warps |= 1u << own;
    order_arrive_warp(most_barriers + id);
    if (32 * __builtin_popcount(b.warps) < threads) return park(m, waits_for_named);
    unsigned came = b.warps;
    b.warps = 0;
    order_phase(most_barriers + id);
    for (unsigned w = 0; w < 32; w++) {
        if (!(came >> w & 1)) continue;
        order_wait_warp(most_barriers + id, w);
        if (w != own) unpark(w);
    }
    release(m);
}

void fence_async(Site site) {
    ask_hopper("fence_async", site);
    order_fence();
}

// ---- registers ----------------------------------------------------------------------------------------------------

static unsigned registers[32];    // a thread, of each warp
static unsigned changes[32];      // of each warp
static unsigned free_registers;   // of the block, in registers of a warp's thread
static unsigned wanted[32];       // by warps that wait

static std::string waits_for_registers(const Fiber* f) {
    return std::to_string(wanted[f->warp]) + " registers a thread, " + std::to_string(registers[f->warp]) +
           " are its own and " + std::to_string(free_registers) + " left over by other warps";
}

static bool take(unsigned warp, unsigned count) {
    unsigned more = count - registers[warp];
    if (free_registers < more) return false;
    free_registers -= more;
    registers[warp] = count;
    return true;
}

void set_registers(int count, bool more, Site site) {
    const char* what = more ? "more_registers" : "fewer_registers";
    ask_hopper(what, site);
    if (count < 24 || count > 256 || count % 8) refuse(what, "the count is a multiple of 8 in 24..256", site);
    Meeting* m = arrive(~0u, what, site, {});
    if (!m) return;
    unsigned own = running()->warp, has = registers[own];
    changes[own]++;
    if (more ? unsigned(count) < has : unsigned(count) > has)
        refuse(what, "to " + std::to_string(count) + " from " + std::to_string(has), site);
    wanted[own] = count;
    if (more && !take(own, count)) return park(m, waits_for_registers);
    if (!more) {
        free_registers += has - count;
        registers[own] = count;
        for (unsigned w = 0; w < 32; w++)
            if (wanted[w] > registers[w] && take(w, wanted[w])) unpark(w);
    }
    release(m);
}

// ---- a block's beginning and end ----------------------------------------------------------------------------------

void start_warpgroups() {
    // What a launch bound of the block's threads leaves each of them.
    unsigned each = std::min(65536 / std::max(block.threads, 1u) / 8 * 8, 256u);
    for (unsigned w = 0; w < 32; w++) registers[w] = wanted[w] = each;
    std::fill(changes, changes + 32, 0);
    free_registers = 0;
    for (NamedBarrier& b : named) b = {};
}

void finish_warpgroups() {
    for (unsigned w = 0; w * 32 < block.threads; w++)
        if (changes[w] != changes[w / 4 * 4])
            fail("fewer_registers, more_registers: not by all warps of a warpgroup, block " + text(block_index) + " warp " +
                 std::to_string(w));
}

}  // namespace emu
