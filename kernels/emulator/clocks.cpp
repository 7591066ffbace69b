// The checker's clocks: what barriers in shared memory and by number order, and what copies and products read and write.
//
// Vector clocks of threads. Each thread has a time that grows when it arrives at a barrier, and knows of every other the
// time up to which that one's accesses come before its own. A barrier passes on, at a phase's end, what those knew that
// arrived. The copies that land at a barrier are a thread more. __syncthreads lifts all times above those before it. Of
// shared memory, a word keeps its last writer and of each warp the last lane that read it, 16 bytes what copies and
// products did: no false alarms, and what is missed are earlier lanes of a warp whose last lane's read is ordered.
#include "checker.h"

namespace emu {

uint32_t times[1024];
static uint32_t high, base;  // the highest time; times below the base are ordered by a __syncthreads
bool clocks_run;
static size_t width;
static std::vector<uint32_t> seen;             // [threads][width]: times of barriers' copies, then of threads
static std::vector<uint32_t> arriving, ended;  // [channels][width]
static std::vector<uint32_t> fences[1024];     // each thread's times of fence_async
static uint32_t version;                       // of `seen`

const unsigned channels = most_barriers + named_barriers;

static uint32_t* row(std::vector<uint32_t>& of, unsigned i) { return &of[i * width]; }
static size_t column(unsigned by) { return by & copy_bit ? by & ~copy_bit : most_barriers + by; }

static void join(uint32_t* to, const uint32_t* from) {
    for (size_t i = 0; i < width; i++) to[i] = std::max(to[i], from[i]);
}
static void pass(unsigned thread) { high = std::max(high, ++times[thread]); }

static void start_clocks() {
    if (clocks_run) return;
    clocks_run = true;
    width = (most_barriers + block.threads + 15) / 16 * 16;
    seen.assign(block.threads * width, 0);
    arriving.assign(channels * width, 0);
    ended.assign(channels * width, 0);
    version++;
}

uint32_t order_time() { return times[running()->linear]; }
bool order_knows(unsigned thread, uint32_t time) { return clocks_order(running()->linear, thread, time); }

bool clocks_order(unsigned thread, unsigned by, uint32_t time) {
    if (!(by & copy_bit) && (time < base || by == thread)) return true;
    return clocks_run && time <= row(seen, thread)[column(by)];
}

struct Registers {
    unsigned thread;
    const float *begin, *end;
};
static std::vector<Registers> accumulators;  // in flight

// ---- what orders --------------------------------------------------------------------------------------------------

void order_start() {
    clocks_run = false;
    accumulators.clear();
    base = ++high;
    std::fill(times, times + block.threads, base);
    for (unsigned t = 0; t < block.threads; t++) fences[t].clear();
}

void order_block() {
    base = ++high;
    std::fill(times, times + block.threads, base);
    if (!clocks_run) return;
    uint32_t copies[most_barriers] = {};
    for (unsigned t = 0; t < block.threads; t++)
        for (unsigned i = 0; i < most_barriers; i++) copies[i] = std::max(copies[i], row(seen, t)[i]);
    for (unsigned t = 0; t < block.threads; t++) std::copy(copies, copies + most_barriers, row(seen, t));
    version++;
}

static void publish(unsigned thread, uint32_t* to) {
    join(to, row(seen, thread));
    to[column(thread)] = times[thread];
    pass(thread);
}

void order_warp(unsigned mask) {
    if (!clocks_run) return;
    static std::vector<uint32_t> all;
    all.assign(width, 0);
    unsigned first = running()->warp * 32;
    for (unsigned lane = 0; lane < 32; lane++)
        if (mask >> lane & 1) publish(first + lane, all.data());
    for (unsigned lane = 0; lane < 32; lane++)
        if (mask >> lane & 1) join(row(seen, first + lane), all.data());
    version++;
}

void order_arrive(unsigned channel) {
    start_clocks();
    publish(running()->linear, row(arriving, channel));
}
void order_arrive_warp(unsigned channel) {
    start_clocks();
    for (unsigned lane = 0; lane < 32; lane++) publish(running()->warp * 32 + lane, row(arriving, channel));
}
void order_phase(unsigned channel) {
    start_clocks();
    std::copy_n(row(arriving, channel), width, row(ended, channel));
}
void order_wait(unsigned channel) {
    start_clocks();
    join(row(seen, running()->linear), row(ended, channel));
    version++;
}
void order_wait_warp(unsigned channel, unsigned warp) {
    for (unsigned lane = 0; lane < 32; lane++) join(row(seen, warp * 32 + lane), row(ended, channel));
    version++;
}
void order_fence() {
    unsigned thread = running()->linear;
    fences[thread].push_back(times[thread]);
    pass(thread);
}

// ---- who asks: a thread that copies, or a warp that multiplies ----------------------------------------------------

struct Asker {
    unsigned thread;  // of a warp its first
    bool warp;
    Site site;
    uint32_t* knows;        // as `seen`
    uint32_t of_warps[32];  // the latest time known of each warp's threads

    bool order(unsigned by, uint32_t time) const {
        if (!(by & copy_bit) && (time < base || (warp ? by / 32 == thread / 32 : by == thread))) return true;
        return time <= knows[column(by)];
    }
    bool order_warp(unsigned by, uint32_t time) const {
        return time < base || by == thread / 32 || time <= of_warps[by];
    }
    // Whether `by` executed fence_async between its write at `time` and what orders that before this.
    bool fenced(unsigned by, uint32_t time) const {
        auto fence = std::lower_bound(fences[by].begin(), fences[by].end(), time);
        return fence != fences[by].end() && order(by, *fence);
    }
};

static const Asker& asker(unsigned thread, bool warp, Site site) {
    start_clocks();
    static Asker a;
    static uint32_t of_version;
    static std::vector<uint32_t> joined;
    a.site = site;
    if (of_version == version && a.thread == thread && a.warp == warp) return a;
    of_version = version;
    a.thread = thread;
    a.warp = warp;
    if (warp) {
        joined.assign(width, 0);
        for (unsigned lane = 0; lane < 32; lane++) join(joined.data(), row(seen, thread + lane));
    }
    a.knows = warp ? joined.data() : row(seen, thread);
    for (unsigned w = 0; w < 32; w++) {
        a.of_warps[w] = 0;
        for (unsigned t = w * 32; t < w * 32 + 32 && t < block.threads; t++)
            a.of_warps[w] = std::max(a.of_warps[w], a.knows[column(t)]);
    }
    return a;
}
static const Asker& this_thread(Site site) { return asker(running()->linear, false, site); }
static const Asker& this_warp(Site site) { return asker(running()->warp * 32, true, site); }

// ---- words: what threads read -------------------------------------------------------------------------------------

struct Reads {
    uint32_t time[32];  // of each warp's last read
    uint8_t lane[32], bytes[32];
    Place place;
};
template <class T>
static T* reserve(size_t count) {
    return static_cast<T*>(map_pages(count * sizeof(T)));
}
static Reads* const word_reads = reserve<Reads>(shared_arena_bytes / 4);

void clocks_read(const Access& a, size_t word, uint8_t bytes) {
    Reads& r = word_reads[word];
    unsigned warp = a.thread / 32;
    r.time[warp] = a.time;
    r.lane[warp] = a.thread % 32;
    r.bytes[warp] = bytes;
    r.place = a.place;
}

void clocks_write(const Access& a, size_t word, uint8_t bytes, const unsigned char* p) {
    const Reads& r = word_reads[word];
    for (unsigned w = 0; w < 32; w++)
        if (r.time[w] >= base && r.bytes[w] & bytes && !clocks_order(a.thread, w * 32 + r.lane[w], r.time[w]))
            report("race, write after read,", p, a.place, w * 32 + r.lane[w], r.place);
}

// ---- pieces of 16 bytes: what copies and products read and write --------------------------------------------------

struct Piece {
    uint64_t serial;  // of the block that it tells of
    uint32_t written_time;
    uint16_t written_by;  // a barrier's copies; 0 for none
    uint16_t reading;     // copies and products that may still read it
    uint16_t read_by;     // the thread of the last of them, of a product its warp's first
    bool in_flight;       // a copy is to land there
    uint16_t stored_by;
    uint32_t stored_time;        // of the last copy out that was waited for
    uint32_t multiplied_time[32];  // of each warp's last product that was waited for
    Place written_place, read_place;
};
static Piece* const all_pieces = reserve<Piece>(shared_arena_bytes / 16);
uint64_t* const touched = reserve<uint64_t>(shared_arena_bytes / 16);

static Piece& piece(uint32_t offset) {
    Piece& p = all_pieces[offset / 16];
    if (p.serial != block.serial) {
        p = {};
        p.serial = block.serial;
    }
    return p;
}

void against_copies(const Access& a, size_t offset, size_t bytes) {
    for (size_t i = offset / 16; i <= (offset + bytes - 1) / 16; i++) {
        const Piece& p = all_pieces[i];
        if (p.serial != block.serial) continue;
        const unsigned char* at = arena + i * 16;
        if (p.in_flight)
            report(a.write ? "write of what a tensor copy in flight writes," : "read of a tensor copy in flight", at,
                   a.place, p.written_by, p.written_place);
        if (!a.write) continue;
        const char* what = "write of what a copy or product in flight reads,";
        if (p.reading) report(what, at, a.place, p.read_by, p.read_place);
        if (p.stored_time && !clocks_order(a.thread, p.stored_by, p.stored_time))
            report("race, write after a copy's read,", at, a.place, p.stored_by, p.read_place);
        const Asker& self = asker(a.thread, false, {});
        for (unsigned w = 0; w < 32; w++)
            if (p.multiplied_time[w] && !self.order_warp(w, p.multiplied_time[w]))
                report("race, write after a product's read,", at, a.place, w * 32, p.read_place);
    }
}

// What threads wrote must be ordered before an asynchronous access, and a fence_async stand between.
static void after_writes(const Asker& by, uint32_t offset, const char* race, const char* unfenced) {
    if (touched[offset / 16] != block.serial) return;
    for (size_t word = offset / 4; word < offset / 4 + 4; word++) {
        const Cell& c = shared_cells[word];
        if (c.write_epoch < block.first_epoch || c.writer & copy_bit) continue;
        if (!by.order(c.writer, c.write_time))
            report(race, arena + word * 4, place_of(by.site), c.writer, c.write_place);
        else if (!by.fenced(c.writer, c.write_time))
            report(unfenced, arena + word * 4, place_of(by.site), c.writer, c.write_place);
    }
}

static void after_reads(const Asker& by, uint32_t offset) {
    if (touched[offset / 16] != block.serial) return;
    for (size_t word = offset / 4; word < offset / 4 + 4; word++) {
        const Reads& r = word_reads[word];
        for (unsigned w = 0; w < 32; w++)
            if (r.time[w] >= base && !by.order(w * 32 + r.lane[w], r.time[w]))
                report("race, tensor copy after read,", arena + word * 4, place_of(by.site), w * 32 + r.lane[w], r.place);
    }
}

void check_load(const uint32_t* offsets, size_t count, Site site) {
    const Asker& by = this_thread(site);
    Place place = place_of(site);
    for (size_t i = 0; i < count; i++) {
        Piece& p = piece(offsets[i]);
        const unsigned char* at = arena + offsets[i];
        if (p.in_flight) report("tensor copy over one in flight", at, place, p.written_by, p.written_place);
        if (p.reading) report("tensor copy over what a copy or product in flight reads", at, place, p.read_by, p.read_place);
        if (p.written_by && !by.order(p.written_by, p.written_time))
            report("tensor copy over one that was not waited for", at, place, p.written_by, p.written_place);
        if (p.stored_time && !by.order(p.stored_by, p.stored_time))
            report("race, tensor copy after a copy's read,", at, place, p.stored_by, p.read_place);
        for (unsigned w = 0; w < 32; w++)
            if (p.multiplied_time[w] && !by.order_warp(w, p.multiplied_time[w]))
                report("race, tensor copy after a product's read,", at, place, w * 32, p.read_place);
        after_writes(by, offsets[i], "race, tensor copy after write,",
                     "no fence_async between a write and a tensor copy over it,");
        after_reads(by, offsets[i]);
        p.in_flight = true;
        p.written_by = copy_bit;
        p.written_place = place;
    }
}

void check_landed(const uint32_t* offsets, size_t count, unsigned channel, Site site) {
    uint32_t time = ++high;
    row(arriving, channel)[channel] = time;
    Place place = place_of(site);
    for (size_t i = 0; i < count; i++) {
        Piece& p = piece(offsets[i]);
        p.in_flight = false;
        p.written_time = time;
        p.written_by = copy_bit | channel;
        p.written_place = place;
        touched[offsets[i] / 16] = 0;
        for (size_t word = offsets[i] / 4; word < offsets[i] / 4 + 4; word++) {
            Cell& c = shared_cells[word];
            c.write_epoch = block.epoch;
            c.write_time = time;
            c.writer = p.written_by;
            c.write_place = place;
            c.written = c.initialized = 15;
            c.in_flight = 0;
            c.atomic = false;
        }
    }
}

// A read by a copy or product that is issued.
static void issue_read(const Asker& by, const uint32_t* offsets, size_t count) {
    Place place = place_of(by.site);
    for (size_t i = 0; i < count; i++) {
        Piece& p = piece(offsets[i]);
        const unsigned char* at = arena + offsets[i];
        if (p.in_flight)
            report("asynchronous read of a tensor copy in flight", at, place, p.written_by, p.written_place);
        else if (p.written_by && !by.order(p.written_by, p.written_time))
            report("race, asynchronous read after tensor copy,", at, place, p.written_by, p.written_place);
        after_writes(by, offsets[i], "race, asynchronous read after write,",
                     "no fence_async between a write and its asynchronous read,");
        for (size_t word = offsets[i] / 4; word < offsets[i] / 4 + 4; word++) {
            const Cell& c = shared_cells[word];
            if (c.write_epoch >= block.first_epoch && c.initialized == 15) continue;
            if (!p.in_flight) report("asynchronous read of what nobody wrote", arena + word * 4, place);
            break;
        }
        p.reading++;
        p.read_by = uint16_t(by.thread);
        p.read_place = place;
    }
}

void check_store(const uint32_t* offsets, size_t count, Site site) { issue_read(this_thread(site), offsets, count); }
void check_product(const uint32_t* offsets, size_t count, Site site) { issue_read(this_warp(site), offsets, count); }

void check_stored(const uint32_t* offsets, size_t count, Site) {
    unsigned thread = running()->linear;
    for (size_t i = 0; i < count; i++) {
        Piece& p = piece(offsets[i]);
        p.reading--;
        p.stored_by = uint16_t(thread);
        p.stored_time = times[thread];
    }
}

// Any lane's arrival behind its wait tells of the warp's product, so all lanes take one time.
void check_multiplied(const uint32_t* offsets, size_t count, Site) {
    unsigned warp = running()->warp;
    uint32_t time = *std::max_element(times + warp * 32, times + warp * 32 + 32);
    std::fill(times + warp * 32, times + warp * 32 + 32, time);
    for (size_t i = 0; i < count; i++) {
        Piece& p = piece(offsets[i]);
        p.reading--;
        p.multiplied_time[warp] = time;
    }
}

// ---- the rest -----------------------------------------------------------------------------------------------------

void check_barrier(const void* bar, bool is) {
    size_t word = (static_cast<const unsigned char*>(bar) - arena) / 4;
    shared_cells[word].barrier = shared_cells[word + 1].barrier = is;
}

void check_outside(const char* what, const EncodedMap& map, Site site) {
    static const char* const kinds[] = {"tma_store of a box wholly outside of its tensor",
                                        "tma_load of a box wholly outside of its tensor"};
    report(kinds[!strcmp(what, "tma_load")], map.base, place_of(site));
}

void check_accumulators(unsigned thread, const float* d, size_t count, bool in_flight) {
    if (in_flight) return accumulators.push_back({thread, d, d + count});
    for (Registers& r : accumulators) {
        if (r.begin != d) continue;
        r = accumulators.back();
        return accumulators.pop_back();
    }
}
bool is_accumulator(unsigned thread, const void* p) {
    for (const Registers& r : accumulators)
        if (r.thread == thread && p >= r.begin && p < r.end) return true;
    return false;
}

}  // namespace emu
