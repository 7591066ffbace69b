// Barriers in shared memory that count threads and bytes.
#include "async.h"

namespace emu {

struct Waiter {
    Fiber* fiber;
    unsigned barrier;
};
static std::vector<Barrier> barriers;
static std::vector<Waiter> waiters;

void refuse(const char* what, const std::string& why, Site site) {
    fail(std::string(what) + ": " + why + ", " + text(running()) + " at " + text(site));
}

void ask_hopper(const char* what, Site site) {
    if (device.shared_limit <= A100_SHARED_BYTES) refuse(what, "this GPU's compute capability is below 9.0", site);
}

Barrier& barrier(unsigned index) { return barriers[index]; }

std::string text(const Barrier& b) {
    std::string now = std::to_string(b.pending) + " of " + std::to_string(b.expected) + " arrivals";
    if (b.bytes) now += " and " + std::to_string(b.bytes) + " bytes";
    return "the barrier at +" + std::to_string(b.offset) + " of shared memory, made at " + text(b.made_at) + ", phase " +
           std::to_string(b.phase) + " lacking " + now;
}

// ---- the mark -----------------------------------------------------------------------------------------------------

static uint64_t mark_of(unsigned offset) { return 0x6d62617272696572ull ^ block.serial * 0x9E3779B97F4A7C15ull ^ offset; }

static unsigned offset_of(const void* bar, const char* what, Site site) {
    if (!in_shared(bar, 8)) refuse(what, "the barrier is not in shared memory", site);
    if (uintptr_t(bar) % 8) refuse(what, "the barrier is not on 8 bytes", site);
    return shared_address(bar);
}

unsigned find_barrier(const void* bar, const char* what, Site site) {
    unsigned offset = offset_of(bar, what, site);
    for (unsigned i = 0; i < barriers.size(); i++) {
        if (barriers[i].offset != offset) continue;
        uint64_t mark = mark_of(offset);
        if (memcmp(bar, &mark, 8)) refuse(what, "something was written over " + text(barriers[i]), site);
        if (!order_knows(barriers[i].made_by, barriers[i].made_time))
            refuse(what, "nothing orders it after the making of " + text(barriers[i]), site);
        return i;
    }
    refuse(what, "no barrier was made at +" + std::to_string(offset) + " of shared memory", site);
}

void mbar_init(unsigned long long* bar, unsigned arrivals, Site site) {
    ask_hopper("mbar_init", site);
    unsigned offset = offset_of(bar, "mbar_init", site);
    if (!arrivals || arrivals >= 1u << 20) refuse("mbar_init", "1 to 2^20 - 1 threads arrive", site);
    for (const Barrier& b : barriers)
        if (b.offset == offset) refuse("mbar_init", "there already is " + text(b), site);
    if (barriers.size() == most_barriers) refuse("mbar_init", "a block has 64 barriers at most here", site);
    note_access(bar, 8, true, false, site);
    uint64_t mark = mark_of(offset);
    memcpy(bar, &mark, 8);
    barriers.push_back({offset, arrivals, arrivals, 0, 0, unsigned(barriers.size()), site, running()->linear,
                        order_time(), false});
    check_barrier(bar, true);
}

void mbar_fence_init(Site site) {
    ask_hopper("mbar_fence_init", site);
    for (Barrier& b : barriers) b.fenced |= b.made_by == running()->linear;
}

// ---- phases -------------------------------------------------------------------------------------------------------

// The threads that wait for it, most often few.
static void wake(unsigned index) {
    size_t kept = 0;
    for (const Waiter& w : waiters) {
        if (w.barrier == index) make_ready(w.fiber);
        else waiters[kept++] = w;
    }
    waiters.resize(kept);
}

static void end_phase_if_complete(unsigned index) {
    Barrier& b = barriers[index];
    if (b.pending || b.bytes) return;
    b.phase++;
    b.pending = b.expected;
    order_phase(b.channel);
    wake(index);
}

static void announce(Barrier& b, int bytes, const char* what, Site site) {
    b.bytes += bytes;
    const int most = (1 << 20) - 1;
    if (b.bytes > most || b.bytes < -most) refuse(what, "more than 2^20 - 1 bytes at once, " + text(b), site);
}

void mbar_arrive(unsigned long long* bar, unsigned bytes, Site site) {
    ask_hopper("mbar_arrive", site);
    unsigned index = find_barrier(bar, "mbar_arrive", site);
    Barrier& b = barriers[index];
    if (!b.pending) refuse("mbar_arrive", "more threads arrive than were announced, " + text(b), site);
    if (bytes) announce(b, int(bytes), "mbar_arrive_expect", site);
    b.pending--;
    order_arrive(b.channel);
    end_phase_if_complete(index);
}

void bytes_arrive(unsigned index, unsigned bytes, uint64_t phase, Site site) {
    Barrier& b = barriers[index];
    if (b.phase != phase)
        fail("tma_load: its bytes come in phase " + std::to_string(b.phase) + " and were issued in phase " +
             std::to_string(phase) + ", so too few were expected; " + text(b) + "; issued at " + text(site));
    announce(b, -int(bytes), "tma_load", site);
    end_phase_if_complete(index);
}

void mbar_wait(unsigned long long* bar, unsigned parity, Site site) {
    ask_hopper("mbar_wait", site);
    unsigned index = find_barrier(bar, "mbar_wait", site);
    Fiber* f = running();
    if (parity > 1) refuse("mbar_wait", "a parity is 0 or 1", site);
    while ((barriers[index].phase & 1) == parity) {
        waiters.push_back({f, index});
        f->waits_at = site;
        f->waits_for = [](const Fiber* waiting) -> std::string {
            for (const Waiter& w : waiters)
                if (w.fiber == waiting) return text(barriers[w.barrier]);
            return "";
        };
        sleep_until_ready();
    }
    f->waits_for = nullptr;
    order_wait(barriers[index].channel);
    let_others_run();
}

// ---- a block's beginning and end ----------------------------------------------------------------------------------

void start_barriers() {
    for (const Barrier& b : barriers) check_barrier(shared_arena() + b.offset, false);
    barriers.clear();
    waiters.clear();
}

void finish_barriers() {
    for (const Barrier& b : barriers)
        if (b.bytes)
            fail("the block " + text(block_index) + " ends, and what was expected is not what came: " + text(b));
}

}  // namespace emu
