// Fibers, the scheduler, barriers, warp collectives, launches.
#include "machine.h"
#include "async.h"
#include <sys/mman.h>
#include <x86intrin.h>

namespace emu {

Schedule schedule;
DeviceOptions device;
Thread* current;
uint3 block_index, block_dim, grid_dim;
Kernel* Kernel::first;
Block block;
Fiber fibers[1024];
Warp warps[32];

static void* launcher_stack;
static void (*kernel_run)(void**);
static void** kernel_args;

// ---- switching -------------------------------------------------------------------------------------------------

// Saves the callee-saved registers and the stack pointer in *save, takes up `to`'s.
extern "C" __attribute__((visibility("hidden"))) void emu_switch(void** save, void* to);
asm(R"(
.text
.hidden emu_switch
.globl emu_switch
.type emu_switch,@function
emu_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp,(%rdi)
    movq %rsi,%rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    popq %rcx
    jmp *%rcx
.size emu_switch,.-emu_switch
)");

static uint64_t random_state;
unsigned random_below(unsigned n) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return unsigned(random_state >> 24) % n;
}
static void seed_random(uint64_t seed) {
    random_state = (seed + 1) * 0x9E3779B97F4A7C15ull | 1;
    for (int i = 0; i < 8; i++) random_below(2);
}

// The bit that the order picks from a non-empty mask.
static int pick_bit(unsigned mask) {
    if (schedule.order == Order::Forward) return __builtin_ctz(mask);
    if (schedule.order == Order::Reverse) return 31 - __builtin_clz(mask);
    for (unsigned skip = random_below(__builtin_popcount(mask)); skip; skip--) mask &= mask - 1;
    return __builtin_ctz(mask);
}

// The thread to run next, of warp `own` where the order is not random and it has a ready lane; null when none is ready, even
// when all tensor copies have landed.
static Fiber* pick(int own) {
    while (!block.ready_warps)
        if (!land_a_copy()) return nullptr;
    bool stay = schedule.order != Order::Random && own >= 0 && block.ready_warps >> own & 1;
    int warp = stay ? own : pick_bit(block.ready_warps);
    return &fibers[warp * 32 + pick_bit(warps[warp].ready)];
}

static void switch_to(Fiber* next) {
    Fiber* from = running();
    if (next == from) return;
    current = next;
    emu_switch(&from->stack, next->stack);
}

void make_ready(Fiber* f) {
    warps[f->warp].ready |= 1u << f->lane;
    block.ready_warps |= 1u << f->warp;
}

static void make_waiting(Fiber* f) {
    Warp& warp = warps[f->warp];
    warp.ready &= ~(1u << f->lane);
    if (!warp.ready) block.ready_warps &= ~(1u << f->warp);
}

// ---- failures --------------------------------------------------------------------------------------------------

std::string text(Site site) {
    if (!site.file) return "?";
    const char* name = strrchr(site.file, '/');
    return std::string(name ? name + 1 : site.file) + ":" + std::to_string(site.line);
}

std::string text(uint3 v) {
    return "(" + std::to_string(v.x) + "," + std::to_string(v.y) + "," + std::to_string(v.z) + ")";
}
std::string text(const Fiber* f) { return "block " + text(block_index) + " thread " + text(f->index); }

static void note_failure(const std::string& message) {
    if (block.failure.empty()) block.failure = message;
}

// Leaves the block: its fibers are abandoned, nothing on their stacks is destroyed.
[[noreturn]] static void leave_block() {
    emu_switch(&running()->stack, launcher_stack);
    __builtin_unreachable();
}

void fail(const std::string& message) {
    note_failure(message);
    leave_block();
}

static bool same(Site a, Site b) {
    return a.line == b.line && a.occurrence == b.occurrence && (a.file == b.file || !strcmp(a.file, b.file));
}

static void note_deadlock() {
    std::string message = "deadlock: no thread can run;";
    std::vector<Site> named;
    bool exited = false;
    for (unsigned i = 0; i < block.threads; i++) {
        const Fiber& f = fibers[i];
        exited |= f.done;
        bool known = f.done;
        for (const Site& site : named) known |= same(site, f.waits_at);
        if (known || named.size() == 4) continue;
        named.push_back(f.waits_at);
        std::string waits_for = f.waits_for ? f.waits_for(&f) : "";
        message += " " + text(&f) + " waits at " + text(f.waits_at) + (waits_for.empty() ? "" : " for ") + waits_for + ";";
    }
    if (exited) message += " some threads have exited";
    note_failure(message);
}

// Gives the processor away; comes back when the thread has been made ready and picked.
static void wait(Fiber* next) {
    if (!next) {
        note_deadlock();
        leave_block();
    }
    switch_to(next);
}

void sleep_until_ready() {
    make_waiting(running());
    wait(pick(running()->warp));
}

void let_others_run() {
    if (schedule.order != Order::Forward) switch_to(pick(running()->warp));
}

// ---- the block's barrier: counts the threads that have not exited, as sm_70 and later do ------------------------

static void open_barrier_if_complete() {
    if (!block.barrier_arrived || block.barrier_arrived < block.alive) return;
    block.barrier_arrived = 0;
    block.barrier_result = block.barrier_count;
    block.barrier_count = 0;
    block.epoch++;
    order_block();
    for (unsigned i = 0; i < block.threads; i++) {
        if (!fibers[i].at_barrier) continue;
        fibers[i].at_barrier = false;
        make_ready(&fibers[i]);
    }
}

int sync_threads_count(int predicate, Site site) {
    Fiber* f = running();
    if (!block.barrier_arrived) {
        block.barrier_site = site;
        block.barrier_first = f;
    } else if (!same(block.barrier_site, site)) {
        fail("divergent __syncthreads: " + text(block.barrier_first) + " at " + text(block.barrier_site) + ", " +
             text(f) + " at " + text(site));
    }
    block.barrier_arrived++;
    block.barrier_count += predicate;
    f->waits_at = site;
    f->at_barrier = true;
    make_waiting(f);
    open_barrier_if_complete();
    wait(!f->at_barrier && schedule.order == Order::Forward ? f : pick(f->warp));
    return block.barrier_result;
}

void sync_threads(Site site) { sync_threads_count(0, site); }

// ---- warp collectives ------------------------------------------------------------------------------------------

static Meeting* meeting_of(Warp& warp, unsigned mask) {
    if (mask == ~0u) return &warp.whole;
    for (Meeting* m : warp.partial)
        if (m->mask == mask) return m;
    warp.partial.push_back(new Meeting{});
    warp.partial.back()->mask = mask;
    return warp.partial.back();
}

static std::string hex(unsigned mask) {
    char digits[16];
    snprintf(digits, sizeof digits, "%08x", mask);
    return digits;
}

Meeting* arrive(unsigned mask, const char* what, Site site, const Request& request) {
    Fiber* f = running();
    Warp& warp = warps[f->warp];
    Meeting* m = meeting_of(warp, mask);
    unsigned bit = 1u << f->lane;
    if (!(mask & bit)) fail(std::string(what) + ": the calling lane is not in the mask, " + text(f) + " at " + text(site));
    if (mask & ~warp.alive)
        fail(std::string(what) + ": mask " + hex(mask) + " names lanes that exited or never were (alive " +
             hex(warp.alive) + "), " + text(f) + " at " + text(site));
    if (!m->arrived) {
        m->site = site;
        m->what = what;
    } else if (m->what != what || !same(m->site, site)) {
        fail("divergent warp: " + text(f) + " in " + what + " at " + text(site) + ", earlier lanes in " + m->what +
             " at " + text(m->site));
    }
    m->arrived |= bit;
    m->request[f->lane] = request;
    if (m->arrived == mask) return m;
    f->waits_at = site;
    make_waiting(f);
    wait(pick(f->warp));
    return nullptr;
}

void release(Meeting* m) {
    Fiber* f = running();
    m->arrived = 0;
    warps[f->warp].ready |= m->mask;
    block.ready_warps |= 1u << f->warp;
    let_others_run();
}

void park(Meeting* m, std::string (*waits_for)(const Fiber*)) {
    Fiber* f = running();
    m->arrived = 0;
    f->waits_at = m->site;
    for (Fiber* lane = &fibers[f->warp * 32]; lane < &fibers[f->warp * 32 + 32]; lane++) lane->waits_for = waits_for;
    sleep_until_ready();
}

void unpark(unsigned warp) {
    for (unsigned lane = 0; lane < 32; lane++) fibers[warp * 32 + lane].waits_for = nullptr;
    warps[warp].ready = ~0u;
    block.ready_warps |= 1u << warp;
}

void sync_warp(unsigned mask, Site site) {
    meet(mask, "__syncwarp", site, {}, [&](Request*) {
        warps[current->warp].sync_epoch++;
        order_warp(mask);
    });
}

void shuffle(unsigned mask, const void* in, void* out, int bytes, int source, Site site) {
    if (mask >> current->lane & 1 && source >= 0 && source < 32 && !(mask >> source & 1))
        fail("__shfl_sync: source lane " + std::to_string(source) + " is not in mask " + hex(mask) + ", " +
             text(running()) + " at " + text(site));
    meet(mask, "__shfl_sync", site, {in, nullptr, out, source}, [&](Request* lanes) {
        alignas(16) unsigned char values[32][16];
        for (int i = 0; i < 32; i++)
            if (mask >> i & 1) memcpy(values[i], lanes[i].a, bytes);
        for (int i = 0; i < 32; i++) {
            if (!(mask >> i & 1)) continue;
            bool other = lanes[i].value >= 0 && lanes[i].value < 32;
            memcpy(lanes[i].out, values[other ? lanes[i].value : i], bytes);
        }
    });
}

static unsigned combine(Reduce op, unsigned a, unsigned b) {
    switch (op) {
        case Reduce::Or: return a | b;
        case Reduce::And: return a & b;
        case Reduce::Xor: return a ^ b;
        case Reduce::Add: return a + b;
        case Reduce::Min: return a < b ? a : b;
        case Reduce::Max: return a > b ? a : b;
        case Reduce::SignedMin: return int(a) < int(b) ? a : b;
        case Reduce::SignedMax: return int(a) > int(b) ? a : b;
    }
    __builtin_unreachable();
}

unsigned reduce(Reduce op, unsigned mask, unsigned value, Site site) {
    unsigned out;
    meet(mask, "a warp reduction", site, {nullptr, nullptr, &out, int(value)}, [&](Request* lanes) {
        int first = __builtin_ctz(mask);
        unsigned all = lanes[first].value;
        for (int i = first + 1; i < 32; i++)
            if (mask >> i & 1) all = combine(op, all, lanes[i].value);
        for (int i = first; i < 32; i++)
            if (mask >> i & 1) *static_cast<unsigned*>(lanes[i].out) = all;
    });
    return out;
}

long long cycles() { return __rdtsc(); }

// ---- launch ----------------------------------------------------------------------------------------------------

void* map_pages(size_t bytes) {
    void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) abort();
    return p;
}

static const size_t stack_bytes = 64 << 10, page_bytes = 4096;
static unsigned char* stacks;

static void prepare() {
    if (stacks) return;
    stacks = static_cast<unsigned char*>(map_pages(stack_bytes * 1024));
    for (int i = 0; i < 1024; i++) mprotect(stacks + stack_bytes * i, page_bytes, PROT_NONE);
    for (Warp& warp : warps) warp.whole.mask = ~0u;
}

static void exit_thread() {
    Fiber* f = running();
    Warp& warp = warps[f->warp];
    if (f->copies_done < f->copies.size())
        fail("a thread exits without waiting for its cp.async: " + text(f) + ", issued at " +
             text(f->copies[f->copies_done].site));
    exit_copies(f);
    exit_products(f);
    f->done = true;
    warp.alive &= ~(1u << f->lane);
    block.alive--;
    make_waiting(f);
    if (warp.whole.arrived)
        fail("divergent warp: " + text(f) + " exits while its warp waits in " + warp.whole.what + " at " +
             text(warp.whole.site));
    if (block.alive) {
        open_barrier_if_complete();
        wait(pick(f->warp));
    }
    finish_copies();
    finish_barriers();
    finish_warpgroups();
    finish_products();
    leave_block();
}

static void thread_main() {
    kernel_run(kernel_args);
    exit_thread();
}

static void start_thread(unsigned i) {
    Fiber& f = fibers[i];
    f.index = {i % block_dim.x, i / block_dim.x % block_dim.y, i / block_dim.x / block_dim.y};
    f.linear = i;
    f.lane = i % 32;
    f.warp = i / 32;
    f.done = f.at_barrier = false;
    f.waits_at = {};
    f.waits_for = nullptr;
    f.copies.clear();
    f.groups.clear();
    f.copies_done = f.groups_done = f.uncommitted = 0;
    // Different distances from the top of the stack keep the hot frames in different sets of the first-level cache.
    void** top = reinterpret_cast<void**>(stacks + stack_bytes * (i + 1) - 64 - i * 5 % 32 * 128);
    *--top = nullptr;  // thread_main returns nowhere
    *--top = reinterpret_cast<void*>(thread_main);
    for (int registers = 0; registers < 6; registers++) *--top = nullptr;
    f.stack = top;
}

static void run_block(unsigned threads, unsigned dynamic_shared) {
    block.threads = block.alive = threads;
    block.ready_warps = block.barrier_arrived = 0;
    block.barrier_count = 0;
    block.serial++;
    block.first_epoch = ++block.epoch;
    order_start();
    start_barriers();
    start_warpgroups();
    start_copies();
    start_products();
    block.shared.clear();
    // On 16 bytes and no more, which is what EMM_DYNAMIC_SHARED promises.
    block.shared_top = 16;
    block.shared_bytes = 0;
    take_shared(dynamic_shared, 16);
    for (unsigned w = 0; w * 32 < threads; w++) {
        Warp& warp = warps[w];
        unsigned lanes = std::min(32u, threads - w * 32);
        warp.alive = warp.ready = lanes == 32 ? ~0u : (1u << lanes) - 1;
        warp.sync_epoch = 0;
        warp.whole.arrived = 0;
        for (Meeting* m : warp.partial) m->arrived = 0;
        block.ready_warps |= 1u << w;
    }
    for (unsigned i = 0; i < threads; i++) start_thread(i);
    Fiber* first = pick(-1);
    current = first;
    emu_switch(&launcher_stack, first->stack);
    current = nullptr;
}

// The order in which the blocks run, as the order option has it.
static std::vector<unsigned> block_order(unsigned count) {
    std::vector<unsigned> order(count);
    for (unsigned i = 0; i < count; i++) order[i] = schedule.order == Order::Reverse ? count - 1 - i : i;
    if (schedule.order == Order::Random)
        for (unsigned i = count; i > 1; i--) std::swap(order[i - 1], order[random_below(i)]);
    return order;
}

bool launch(Kernel& kernel, const Geometry& g, void** args, const Schedule& as, std::string& error) {
    prepare();
    schedule = as;
    seed_random(schedule.seed);
    kernel_run = kernel.run;
    kernel_args = args;
    block_dim = g.block;
    grid_dim = g.grid;
    block.kernel = &kernel;
    block.failure.clear();
    block.launch_epoch = ++block.epoch;
    for (unsigned b : block_order(g.grid.x * g.grid.y * g.grid.z)) {
        block_index = {b % g.grid.x, b / g.grid.x % g.grid.y, b / g.grid.x / g.grid.y};
        run_block(g.block.x * g.block.y * g.block.z, g.dynamic_shared);
        kernel.static_shared_bytes =
            std::max(kernel.static_shared_bytes, block.shared_bytes - ((g.dynamic_shared + 15) & ~15u));
        if (!block.failure.empty()) break;
    }
    bool clean = checker_report(error);
    if (!block.failure.empty()) error = block.failure + (error.empty() ? "" : "\n" + error);
    if (!error.empty()) error = std::string(kernel.name) + ": " + error;
    return clean && block.failure.empty();
}

}  // namespace emu
