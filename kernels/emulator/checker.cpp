// The checker of the check build. Kernels are compiled with g++ -fsanitize=thread but linked with the __tsan_*
// functions below instead of the sanitizer's library, so every load and store of a kernel arrives here. Found in one
// run, whatever the order: races between barriers and between blocks, accesses outside an allocation or shared array,
// reads of shared memory that nobody wrote, reads of what a cp.async has not been waited for, writes of what a kernel
// reads through a pointer to const that it is given: that promises that there are none, and a GPU may read the value
// of before.
//
// What orders two accesses: a barrier of the block; __syncwarp within the warp; barriers in memory and by number
// (clocks.cpp); the end of a launch; and between blocks the pattern  write, __threadfence, atomic  ->  atomic on the same
// word, __threadfence, read.
#include "checker.h"
#include <dlfcn.h>
#include <map>
#include <set>
#include <sys/mman.h>

namespace emu {

const bool check_build = true;

static std::vector<Site> sites;

Place place_of(Site site) {
    static Site last;
    static Place last_place;
    if (last.file == site.file && last.line == site.line && !sites.empty()) return last_place;
    size_t i = 0;
    while (i < sites.size() && (sites[i].file != site.file || sites[i].line != site.line)) i++;
    if (i == sites.size()) sites.push_back(site);
    last = site;
    return last_place = site_bit | Place(i);
}

// ---- cells ------------------------------------------------------------------------------------------------------

static Cell* reserve(size_t bytes) {
    size_t size = bytes / 4 * sizeof(Cell);
    void* p = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) abort();
    return static_cast<Cell*>(p);
}
// The two stretches of memory that are watched, and their cells.
unsigned char *const arena = shared_arena(), *const memory = device_base();
static const unsigned char* const view = static_cast<unsigned char*>(reading_view(device_base()));
Cell *const shared_cells = reserve(shared_arena_bytes), *const device_cells = reserve(device_space);

void check_memory(const void* p, size_t bytes, bool live) {
    size_t start = static_cast<const unsigned char*>(p) - memory;
    for_each_word(device_cells, memory, start, bytes, [&](Cell& c, uint8_t mask, const unsigned char*) {
        c.live = live ? c.live | mask : c.live & ~mask;
    });
}

void check_in_flight(const void* shared, size_t bytes, bool in_flight) {
    size_t start = static_cast<const unsigned char*>(shared) - arena;
    for_each_word(shared_cells, arena, start, bytes, [&](Cell& c, uint8_t mask, const unsigned char*) {
        c.in_flight = in_flight ? c.in_flight | mask : c.in_flight & ~mask;
    });
}

// ---- reports ---------------------------------------------------------------------------------------------------

extern "C" __attribute__((visibility("hidden"))) char __ehdr_start[];

static std::string line_of(Place place) {
    if (place & site_bit) return text(sites[place & ~site_bit]);
    Dl_info info;
    if (!dladdr(__ehdr_start, &info)) return "?";
    char command[4200], line[400] = "";
    // The return address stands behind the call, one byte before it is still within.
    snprintf(command, sizeof command, "addr2line -e '%s' 0x%x 2>/dev/null", info.dli_fname, place - 1);
    if (FILE* pipe = popen(command, "r")) {
        if (!fgets(line, sizeof line, pipe)) line[0] = 0;
        pclose(pipe);
    }
    std::string at = line;
    at = at.substr(0, at.find_first_of(" \n"));
    return at.substr(at.rfind('/') + 1);
}
static const std::string& text(Place place) {
    static std::map<Place, std::string> known;
    auto found = known.find(place);
    return found != known.end() ? found->second : known[place] = line_of(place);
}

static const size_t most_reports = 6;
static std::vector<std::string> reports;
static std::set<std::string> reported;                   // kinds and lines, told once
static std::set<std::pair<const char*, uint64_t>> seen;  // kinds and places, before their lines are looked up
static uint64_t hits;

static std::string location(const unsigned char* p) {
    size_t offset = p - arena;
    if (offset >= shared_arena_bytes && size_t(p - memory) >= device_space) return "registers";
    if (offset >= shared_arena_bytes) return "device memory (" + describe_device(p) + ")";
    for (size_t i = 0; i < block.shared.size(); i++) {
        const SharedRange& range = block.shared[i];
        bool last = i + 1 == block.shared.size() || offset < block.shared[i + 1].offset;
        if (last && offset >= range.offset)
            return (i ? "static shared array " + std::to_string(i) : std::string("dynamic shared memory")) + " of " +
                   std::to_string(range.bytes) + " bytes, at +" + std::to_string(offset - range.offset);
    }
    return "shared memory";
}

static bool add_report(const char* what, const unsigned char* p, const std::string& at, const std::string& against) {
    if (!reported.insert(what + (" " + at + " " + against)).second) return false;
    reports.push_back(std::string(what) + " in " + location(p) + ": " + text(running()) + " at " + at);
    return true;
}
static bool is_new(const char* what, uint64_t places) {
    hits++;
    return reports.size() < most_reports && seen.insert({what, places}).second;
}
void report(const char* what, const void* p, Place place) {
    if (is_new(what, place)) add_report(what, static_cast<const unsigned char*>(p), text(place), "");
}
void report(const char* what, const void* p, Place place, unsigned other, Place other_place) {
    if (is_new(what, uint64_t(place) << 32 | other_place)) {
        const std::string& against = text(other_place);
        std::string who = other & copy_bit ? "a tensor copy" : "linear thread " + std::to_string(other);
        if (add_report(what, static_cast<const unsigned char*>(p), text(place), against))
            reports.back() += ", against " + who + " at " + against;
    }
}

bool checker_report(std::string& error) {
    error.clear();
    if (!hits) return true;
    error = std::to_string(hits) + " hits of the checker";
    for (const std::string& r : reports) error += "\n    " + r;
    hits = 0;
    reports.clear();
    reported.clear();
    seen.clear();
    return false;
}

// ---- the rules -------------------------------------------------------------------------------------------------

// The first epochs of the blocks that have fenced their writes, met a word that a fenced block changed, and may
// therefore read what earlier blocks wrote.
static unsigned fence_block, met_block, acquired_block;

void thread_fence() {
    fence_block = block.first_epoch;
    if (met_block == block.first_epoch) acquired_block = block.first_epoch;
}

// Whether a __syncwarp lies between this access and one by `thread` when its warp had passed `sync` of them.
static inline bool warp_ordered(const Access& a, unsigned thread, uint32_t sync) {
    return thread / 32 == a.thread / 32u && sync != a.warp_sync;
}

// Whether nothing orders this access after one by `thread` in `epoch`, when that thread's time was `time`.
static inline bool unordered(const Access& a, uint32_t epoch, unsigned thread, uint32_t sync, uint32_t time) {
    if (epoch < (a.shared ? block.first_epoch : block.launch_epoch)) return false;
    if (epoch < block.first_epoch) return acquired_block != block.first_epoch;
    if (thread & copy_bit) return !clocks_order(a.thread, thread, time);
    return epoch == block.epoch && thread != a.thread && !warp_ordered(a, thread, sync) &&
           !clocks_order(a.thread, thread, time);
}

static void on_read(const Access& a, Cell& c, uint8_t bytes) {
    bool same_epoch = c.read_epoch == block.epoch && c.read & bytes;
    if (c.reader != a.thread) c.other_reader = c.reader;
    if (!same_epoch) {
        c.many_readers = c.many_warps = false;
    } else if (c.reader / 32 != a.thread / 32) {
        c.many_warps |= (c.read & bytes) == bytes;
    } else if (c.read_sync != a.warp_sync) {
        c.many_readers = false;
    } else if (c.reader != a.thread) {
        c.many_readers |= (c.read & bytes) == bytes;
    }
    if (c.read_epoch < block.launch_epoch || !(c.read & bytes)) c.first_read_epoch = block.epoch;
    c.read = bytes;
    c.read_epoch = block.epoch;
    c.reader = a.thread;
    c.read_sync = a.warp_sync;
    c.read_time = a.time;
    c.read_place = a.place;
}

static void on_write(const Access& a, Cell& c, uint8_t bytes, const unsigned char* p) {
    if (!a.atomic && c.read & bytes && !(a.shared && clocks_run)) {
        bool others = c.read_epoch == block.epoch && !clocks_run &&
                      (c.many_warps || (c.many_readers && !warp_ordered(a, c.reader, c.read_sync)));
        bool blocks = !a.shared && c.first_read_epoch < block.first_epoch &&
                      unordered(a, c.first_read_epoch, c.reader, c.read_sync, c.read_time);
        if (blocks || others || unordered(a, c.read_epoch, c.reader, c.read_sync, c.read_time))
            report(blocks ? "race between blocks, write after read," : "race, write after read,", p, a.place,
                   c.reader != a.thread ? c.reader : c.other_reader, c.read_place);
    }
    bool earlier_block = c.write_epoch < block.first_epoch;
    if (a.atomic) {
        bool in_launch = c.write_epoch >= block.launch_epoch && c.written & bytes;
        if (in_launch && earlier_block && c.atomic && c.released) met_block = block.first_epoch;
        c.released = fence_block == block.first_epoch;
    }
    if (earlier_block) c.initialized = c.in_flight = 0;
    c.initialized |= bytes;
    c.written = c.write_epoch == block.epoch && c.writer == a.thread ? c.written | bytes : bytes;
    c.write_epoch = block.epoch;
    c.writer = a.thread;
    c.write_sync = a.warp_sync;
    c.write_time = a.time;
    c.write_place = a.place;
    c.atomic = a.atomic;
}

// Reads through an argument that is a pointer to const, and writes of the same launch, meet in either order.
static void check_argument(const Access& a, Cell& c, uint8_t bytes, const unsigned char* p) {
    static const char* const what = "write of what a const __restrict__ argument reads,";
    bool read_before = c.argument_launch == block.launch_epoch;
    if (a.write) {
        if (read_before && c.argument_read & bytes) report(what, p, a.place, c.reader, c.argument_place);
        return;
    }
    if (c.write_epoch >= block.launch_epoch && c.written & bytes) report(what, p, a.place, c.writer, c.write_place);
    c.argument_read = read_before ? c.argument_read | bytes : bytes;
    c.argument_launch = block.launch_epoch;
    c.argument_place = a.place;
}

static inline void check_word(const Access& a, Cell& c, uint8_t bytes, const unsigned char* p) {
    if (c.barrier) report("an mbarrier used as ordinary memory,", p, a.place);
    bool earlier_block = c.write_epoch < block.first_epoch;
    if (c.written & bytes && !(a.atomic && c.atomic) && unordered(a, c.write_epoch, c.writer, c.write_sync, c.write_time)) {
        static const char* const kinds[] = {"race, read after write,", "race, write after write,",
                                            "race between blocks, read after write,",
                                            "race between blocks, write after write,"};
        report(kinds[earlier_block * 2 + a.write], p, a.place, c.writer, c.write_place);
    }
    if (a.shared && (!a.write || a.atomic)) {
        if (earlier_block || (c.initialized & bytes) != bytes) report("read of what nobody wrote", p, a.place);
        else if (c.in_flight & bytes) report("read of a cp.async in flight", p, a.place, c.writer, c.write_place);
    }
    if (a.argument || (a.write && !a.shared)) check_argument(a, c, bytes, p);
    if (a.shared && clocks_run) {
        if (!a.write || a.atomic) clocks_read(a, (p - arena) / 4, bytes);
        if (a.write && !a.atomic) clocks_write(a, (p - arena) / 4, bytes, p);
    }
    if (a.write) on_write(a, c, bytes, p);
    else on_read(a, c, bytes);
}

static void check(const void* at, size_t bytes, bool write, bool atomic, Place place) {
    if (!current) return;
    auto p = static_cast<const unsigned char*>(at);
    bool argument = size_t(p - view) < device_space;
    if (argument) p = memory + (p - view);
    size_t in_arena = p - arena, in_memory = p - memory;
    Access a{write, atomic, in_arena < shared_arena_bytes, argument, uint16_t(current->linear),
             warps[current->warp].sync_epoch, times[current->linear], place};
    if (a.shared) {
        if (!in_shared(p, bytes)) return report(write ? "write outside a shared array" : "read outside a shared array", p, place);
        for_each_word(shared_cells, arena, in_arena, bytes,
                      [&](Cell& c, uint8_t mask, const unsigned char* q) { check_word(a, c, mask, q); });
        for (size_t i = in_arena / 16; i <= (in_arena + bytes - 1) / 16; i++) touched[i] = block.serial;
        if (clocks_run) against_copies(a, in_arena, bytes);
    } else if (in_memory < device_space) {
        if (argument && write) report("write through a pointer to const", p, place);
        for_each_word(device_cells, memory, in_memory, bytes, [&](Cell& c, uint8_t mask, const unsigned char* q) {
            if ((c.live & mask) == mask) check_word(a, c, mask, q);
            else report(write ? "write outside an allocation" : "read outside an allocation", q, place);
        });
    } else if (is_accumulator(current->linear, at)) {
        report("access of accumulators in flight", p, place);
    }  // else the fiber's stack, a constant, the runtime's own
}

void note_access(const void* p, size_t bytes, bool write, bool atomic, Site site) {
    check(p, bytes, write, atomic, place_of(site));
}

}  // namespace emu

// ---- what -fsanitize=thread calls ------------------------------------------------------------------------------

#define EMU_PLACE emu::Place(static_cast<char*>(__builtin_return_address(0)) - emu::__ehdr_start)
#define EMU_ACCESSES(kind, bytes)                                                                              \
    extern "C" void __tsan_##kind##read##bytes(void* p) { emu::check(p, bytes, false, false, EMU_PLACE); } \
    extern "C" void __tsan_##kind##write##bytes(void* p) { emu::check(p, bytes, true, false, EMU_PLACE); }
#define EMU_SIZES(kind) \
    EMU_ACCESSES(kind, 1) EMU_ACCESSES(kind, 2) EMU_ACCESSES(kind, 4) EMU_ACCESSES(kind, 8) EMU_ACCESSES(kind, 16)
EMU_SIZES()
EMU_SIZES(unaligned_)
EMU_SIZES(volatile_)
EMU_SIZES(unaligned_volatile_)
extern "C" void __tsan_read_range(void* p, size_t bytes) { emu::check(p, bytes, false, false, EMU_PLACE); }
extern "C" void __tsan_write_range(void* p, size_t bytes) { emu::check(p, bytes, true, false, EMU_PLACE); }
extern "C" void __tsan_init() {}
extern "C" void __tsan_func_entry(void*) {}
extern "C" void __tsan_func_exit() {}
extern "C" void __tsan_vptr_update(void*, void*) {}
