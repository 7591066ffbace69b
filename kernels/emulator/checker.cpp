// The checker of the check build. Kernels are compiled with g++ -fsanitize=thread but linked with the __tsan_*
// functions below instead of the sanitizer's library, so every load and store of a kernel arrives here. Found in one
// run, whatever the order: races between barriers and between blocks, accesses outside an allocation or shared array,
// reads of shared memory that nobody wrote, reads of what a cp.async has not been waited for.
//
// What orders two accesses: a barrier of the block; __syncwarp within the warp; the end of a launch; and between
// blocks the pattern  write, __threadfence, atomic  ->  atomic on the same word, __threadfence, read.
#include "machine.h"
#include "memory.h"
#include <dlfcn.h>
#include <map>
#include <set>
#include <sys/mman.h>

namespace emu {

const bool check_build = true;

// Where an access stands: an offset of the instruction into this library, or a Site that was met before.
using Place = uint32_t;
static const Place site_bit = 1u << 31;
static std::vector<Site> sites;

static Place place_of(Site site) {
    static Site last;
    static Place last_place;
    if (last.file == site.file && last.line == site.line && !sites.empty()) return last_place;
    size_t i = 0;
    while (i < sites.size() && (sites[i].file != site.file || sites[i].line != site.line)) i++;
    if (i == sites.size()) sites.push_back(site);
    last = site;
    return last_place = site_bit | Place(i);
}

// ---- what is remembered of each place in memory ----------------------------------------------------------------

// The last writer and the readers of one byte of shared memory.
struct SharedCell {
    uint32_t write_epoch, read_epoch;
    Place write_place, read_place;
    uint32_t write_sync, read_sync;  // the warp's __syncwarp count
    uint16_t writer, reader, other_reader;  // the reader before the last, where it was another thread
    bool atomic, in_flight;
    bool many_readers;  // of one warp since its last __syncwarp
    bool many_warps;    // of several warps since the barrier
};

// The same for four bytes of device memory; masks say which of the four.
struct GlobalCell {
    uint32_t write_epoch, read_epoch;
    uint32_t first_read_epoch;  // of this launch
    Place write_place, read_place;
    uint32_t write_sync, read_sync;
    uint16_t writer, reader;
    uint8_t live, written, read;
    bool atomic, released;
    bool many_readers;  // of this block since its last barrier
};

template <class T>
static T* reserve(size_t count) {
    void* p = mmap(nullptr, count * sizeof(T), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) abort();
    return static_cast<T*>(p);
}
static SharedCell* shared_cells() {
    static SharedCell* cells = reserve<SharedCell>(shared_arena_bytes);
    return cells;
}
static GlobalCell* global_cells() {
    static GlobalCell* cells = reserve<GlobalCell>(device_space / 4);
    return cells;
}

void check_memory(const void* p, size_t bytes, bool live) {
    size_t start = static_cast<const unsigned char*>(p) - device_base();
    for (size_t i = 0; i < bytes; i += 4) {
        size_t left = bytes - i;
        global_cells()[(start + i) / 4].live = !live ? 0 : left >= 4 ? 15 : uint8_t((1 << left) - 1);
    }
}

void check_in_flight(const void* shared, size_t bytes, bool in_flight) {
    SharedCell* cell = shared_cells() + (static_cast<const unsigned char*>(shared) - shared_arena());
    for (size_t i = 0; i < bytes; i++) cell[i].in_flight = in_flight;
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
    size_t offset = p - shared_arena();
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
static void report(const char* what, const unsigned char* p, Place place) {
    if (is_new(what, place)) add_report(what, p, text(place), "");
}
static void report(const char* what, const unsigned char* p, Place place, unsigned other, Place other_place) {
    if (is_new(what, uint64_t(place) << 32 | other_place)) {
        const std::string& against = text(other_place);
        if (add_report(what, p, text(place), against))
            reports.back() += ", against linear thread " + std::to_string(other) + " at " + against;
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

struct Access {
    const unsigned char* p;
    bool write, atomic;  // an atomic one reads and writes
    Place place;
    uint16_t thread;
    uint32_t warp_sync;
};

// Whether a __syncwarp lies between this access and one by `thread` when its warp had passed `sync` of them.
static bool warp_ordered(const Access& access, unsigned thread, uint32_t sync) {
    return thread / 32 == access.thread / 32u && sync != access.warp_sync;
}

static void shared_access(const Access& access, SharedCell& c) {
    unsigned epoch = block.epoch;
    bool write = access.write, read = !access.write || access.atomic;
    bool conflict = c.write_epoch == epoch && c.writer != access.thread && !(access.atomic && c.atomic) &&
                    !warp_ordered(access, c.writer, c.write_sync);
    if (conflict)
        report(write ? "race, write after write," : "race, read after write,", access.p, access.place, c.writer,
               c.write_place);
    if (read && c.write_epoch < block.first_epoch) report("read of what nobody wrote", access.p, access.place);
    if (read && c.in_flight && c.write_epoch >= block.first_epoch)
        report("read of a cp.async in flight", access.p, access.place, c.writer, c.write_place);
    if (!write) {
        if (c.reader != access.thread) c.other_reader = c.reader;
        if (c.read_epoch != epoch) {
            c.many_readers = c.many_warps = false;
        } else if (c.reader / 32 != access.thread / 32) {
            c.many_warps = true;
        } else if (c.read_sync != access.warp_sync) {
            c.many_readers = false;
        } else if (c.reader != access.thread) {
            c.many_readers = true;
        }
        c.read_epoch = epoch;
        c.reader = access.thread;
        c.read_sync = access.warp_sync;
        c.read_place = access.place;
        return;
    }
    if (c.read_epoch == epoch && !access.atomic) {
        bool others = c.many_readers || c.reader != access.thread;
        if (c.many_warps || (others && !warp_ordered(access, c.reader, c.read_sync)))
            report("race, write after read,", access.p, access.place,
                   c.reader != access.thread ? c.reader : c.other_reader, c.read_place);
    }
    if (c.write_epoch < block.first_epoch) c.in_flight = false;
    c.write_epoch = epoch;
    c.writer = access.thread;
    c.write_sync = access.warp_sync;
    c.write_place = access.place;
    c.atomic = access.atomic;
}

// The running block has fenced its writes; has met a word that a fenced block changed; may read what such blocks wrote.
static unsigned fence_block, met_block, acquired_block;  // first epochs of the block for which it holds

void thread_fence() {
    fence_block = block.first_epoch;
    if (met_block == block.first_epoch) acquired_block = block.first_epoch;
}

static void global_access(const Access& access, GlobalCell& c, uint8_t bytes) {
    unsigned epoch = block.epoch;
    if ((c.live & bytes) != bytes) {
        report(access.write ? "write outside an allocation" : "read outside an allocation", access.p, access.place);
        return;
    }
    auto conflicts = [&](uint32_t other_epoch, unsigned thread, uint32_t sync) {
        if (other_epoch < block.launch_epoch) return false;
        if (other_epoch < block.first_epoch) return acquired_block != block.first_epoch;
        return other_epoch == epoch && thread != access.thread && !warp_ordered(access, thread, sync);
    };
    bool written = c.write_epoch >= block.launch_epoch && c.written & bytes;
    bool both_atomic = access.atomic && c.atomic;
    if (written && !both_atomic && conflicts(c.write_epoch, c.writer, c.write_sync)) {
        bool blocks = c.write_epoch < block.first_epoch;
        report(access.write ? (blocks ? "race between blocks, write after write," : "race, write after write,")
                            : (blocks ? "race between blocks, read after write," : "race, read after write,"),
               access.p, access.place, c.writer, c.write_place);
    }
    if (!access.write) {
        // Readers of other bytes of the word are forgotten: threads may each own a part of it.
        if (c.read_epoch < block.launch_epoch || !(c.read & bytes)) {
            c.first_read_epoch = epoch;
            c.many_readers = false;
        } else if (c.read_epoch != epoch || (c.reader / 32 == access.thread / 32 && c.read_sync != access.warp_sync)) {
            c.many_readers = false;
        } else if (c.reader != access.thread && (c.read & bytes) == bytes) {
            c.many_readers = true;
        }
        c.read = bytes;
        c.read_epoch = epoch;
        c.reader = access.thread;
        c.read_sync = access.warp_sync;
        c.read_place = access.place;
        return;
    }
    if (!access.atomic && c.read_epoch >= block.launch_epoch && c.read & bytes) {
        bool blocks = conflicts(c.first_read_epoch, access.thread, access.warp_sync) &&
                      c.first_read_epoch < block.first_epoch;
        bool others = c.many_readers && c.read_epoch == epoch && !warp_ordered(access, c.reader, c.read_sync);
        if (blocks || others || conflicts(c.read_epoch, c.reader, c.read_sync))
            report(blocks ? "race between blocks, write after read," : "race, write after read,", access.p,
                   access.place, c.reader, c.read_place);
    }
    if (access.atomic) {
        if (written && c.atomic && c.released && c.write_epoch < block.first_epoch) met_block = block.first_epoch;
        c.released = fence_block == block.first_epoch;
    }
    bool same_writer = written && c.write_epoch == epoch && c.writer == access.thread;
    c.written = same_writer ? c.written | bytes : bytes;
    c.write_epoch = epoch;
    c.writer = access.thread;
    c.write_sync = access.warp_sync;
    c.write_place = access.place;
    c.atomic = access.atomic;
}

static void check(const void* at, size_t bytes, bool write, bool atomic, Place place) {
    if (!current) return;
    auto p = static_cast<const unsigned char*>(at);
    Access access{p, write, atomic, place, uint16_t(current->linear), warps[current->warp].sync_epoch};
    size_t offset = p - shared_arena();
    if (offset < shared_arena_bytes) {
        if (!in_shared(p, bytes)) {
            report(write ? "write outside a shared array" : "read outside a shared array", p, place);
            return;
        }
        for (size_t i = 0; i < bytes; i++, access.p++) shared_access(access, shared_cells()[offset + i]);
        return;
    }
    offset = p - device_base();
    if (offset >= device_space) return;  // the fiber's stack, a constant, the runtime's own
    for (size_t word = offset & ~size_t(3); word < offset + bytes; word += 4) {
        size_t low = word < offset ? offset - word : 0, high = std::min<size_t>(4, offset + bytes - word);
        uint8_t mask = uint8_t(((1 << high) - 1) & ~((1 << low) - 1));
        access.p = device_base() + word + low;
        global_access(access, global_cells()[word / 4], mask);
    }
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
