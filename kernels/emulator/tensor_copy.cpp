// Tensor copies between global and shared memory, tile mode: boxes of a tensor, rows of 16-byte pieces that a swizzle moves.
#include "async.h"
#include "memory.h"

namespace emu {

struct Box {
    EncodedMap map;
    int64_t first[5];
    uint32_t count[5];  // elements along each dimension
    uint32_t row_bytes, rows;
    unsigned char* shared;
    Site site;

    uint32_t bytes() const { return row_bytes * rows; }
};

struct Load {
    Box box;
    unsigned barrier;
    uint64_t phase;
};
struct Store {
    Box box;
    Fiber* by;
    bool read;
    std::vector<unsigned char> data;  // once read
};
// A thread's stores, oldest first, in groups.
struct Groups {
    std::vector<std::vector<size_t>> waiting;  // indexes of stores, of each committed group that may still be read
    std::vector<size_t> open;
};

static std::vector<Load> loads;  // on their way
static std::vector<Store> stores;
static std::vector<Groups> groups(1024);  // of each thread
static std::vector<unsigned> groups_used;

// ---- what a copy asks ---------------------------------------------------------------------------------------------

static void check_tensor(const Box& box, const char* what) {
    const EncodedMap& m = box.map;
    uint64_t end = (m.last[0] + 1ull) * m.element_bytes;
    for (int i = 1; i < m.rank; i++) end += m.stride[i - 1] * m.last[i];
    if (!in_device(m.base, end))
        refuse(what, "the map's tensor of " + std::to_string(end) + " bytes is not within one allocation: " +
                         describe_device(m.base), box.site);
}

static Box box_of(const char* what, const void* map, const void* shared, const int* first, int rank, Site site) {
    ask_hopper(what, site);
    Box b{};
    b.site = site;
    if (uintptr_t(map) % 64) refuse(what, "the map is not on 64 bytes", site);
    memcpy(&b.map, map, sizeof b.map);
    const EncodedMap& m = b.map;
    if (m.mark != map_mark) refuse(what, "the map was not made by cuTensorMapEncodeTiled", site);
    if (m.rank != rank)
        refuse(what, "a map of " + std::to_string(m.rank) + " dimensions, " + std::to_string(rank) + " coordinates", site);
    b.rows = 1;
    bool outside = false;
    for (int i = 0; i < rank; i++) {
        b.first[i] = first[i];
        b.count[i] = i ? (m.box[i] + m.step[i] - 1u) / m.step[i] : m.box[0];
        if (i) b.rows *= b.count[i];
        outside |= first[i] > int64_t(m.last[i]) || first[i] + int64_t(m.box[i]) <= 0;
    }
    b.row_bytes = b.count[0] * m.element_bytes;
    b.shared = static_cast<unsigned char*>(const_cast<void*>(shared));
    if (m.swizzle > 1 && b.row_bytes != 16u * m.swizzle)
        refuse(what, "rows of " + std::to_string(b.row_bytes) + " bytes, shorter than the swizzle's", site);
    if (!in_shared(shared, b.bytes()))
        refuse(what, "the box of " + std::to_string(b.bytes()) + " bytes does not lie in shared memory", site);
    unsigned multiple = m.swizzle == 8 ? 1024 : 128;
    if (shared_address(shared) % multiple)
        refuse(what, "shared memory at +" + std::to_string(shared_address(shared)) + " is not on " +
                         std::to_string(multiple) + " bytes", site);
    check_tensor(b, what);
    if (outside) check_outside(what, m, site);
    return b;
}

// ---- moving -------------------------------------------------------------------------------------------------------

// Calls visit(row's bytes in shared memory, bytes of global memory or null, the first and the last of them that exist).
// Pieces are moved by the caller, who knows where the swizzle puts them.
template <class F>
static void for_each_row(const Box& box, F visit) {
    const EncodedMap& m = box.map;
    uint32_t at[5] = {};
    int64_t size = int64_t(m.last[0]) + 1;
    int64_t low = std::min(std::max<int64_t>(-box.first[0], 0), int64_t(box.count[0]));
    int64_t high = std::max(std::min(size - box.first[0], int64_t(box.count[0])), low);
    for (uint32_t row = 0; row < box.rows; row++) {
        bool inside = low < high;
        unsigned char* global = m.base + box.first[0] * m.element_bytes;
        for (int i = 1; i < m.rank; i++) {
            int64_t coordinate = box.first[i] + int64_t(at[i]) * m.step[i];
            inside &= coordinate >= 0 && coordinate <= int64_t(m.last[i]);
            global += coordinate * int64_t(m.stride[i - 1]);
        }
        visit(row * box.row_bytes, inside ? global : nullptr, uint32_t(low) * m.element_bytes, uint32_t(high) * m.element_bytes);
        for (int i = 1; i < m.rank && ++at[i] == box.count[i]; i++) at[i] = 0;
    }
}

// Where byte `offset` of an unswizzled box at `shared` lies: the number of its 16-byte piece within a row is XORed with
// the 128-byte line's number, which is that of the address.
static unsigned char* swizzled(const Box& box, uint32_t offset) {
    uint32_t address = shared_address(box.shared) + offset;
    return shared_arena() + (address ^ ((address >> 7 & (box.map.swizzle - 1u)) << 4));
}

static void read_global(const Box& box) {
    std::vector<unsigned char> row(box.row_bytes);
    for_each_row(box, [&](uint32_t offset, const unsigned char* global, uint32_t low, uint32_t high) {
        std::fill(row.begin(), row.end(), 0);
        if (global) memcpy(&row[low], global + low, high - low);
        for (uint32_t piece = 0; piece < box.row_bytes; piece += 16) memcpy(swizzled(box, offset + piece), &row[piece], 16);
    });
}

static std::vector<uint32_t> pieces(const Box& box) {
    std::vector<uint32_t> all(check_build ? box.bytes() / 16 : 0);
    for (size_t i = 0; i < all.size(); i++) all[i] = shared_address(box.shared) + uint32_t(16 * i);
    return all;
}

// Tells the checker of what the box touches of global memory.
static void note_global(const Box& box, bool write) {
    if (!check_build) return;
    for_each_row(box, [&](uint32_t, const unsigned char* global, uint32_t low, uint32_t high) {
        if (global) note_access(global + low, high - low, write, false, box.site);
    });
}

// ---- into shared memory -------------------------------------------------------------------------------------------

static void land(const Load& load) {
    read_global(load.box);
    std::vector<uint32_t> all = pieces(load.box);
    check_landed(all.data(), all.size(), barrier(load.barrier).channel, load.box.site);
    bytes_arrive(load.barrier, load.box.bytes(), load.phase, load.box.site);
}

void tma_load(void* shared, const void* map, unsigned long long* bar, const int* first, int rank, Site site) {
    Load load{box_of("tma_load", map, shared, first, rank, site), find_barrier(bar, "tma_load", site), 0};
    const Barrier& b = barrier(load.barrier);
    if (!b.fenced) refuse("tma_load", "no mbar_fence_init since the making of " + text(b), site);
    load.phase = b.phase;
    std::vector<uint32_t> all = pieces(load.box);
    check_load(all.data(), all.size(), site);
    note_global(load.box, false);
    if (schedule.early_copies) return land(load);
    memset(shared, 0xff, load.box.bytes());
    loads.push_back(std::move(load));
}

bool land_a_copy() {
    if (loads.empty()) return false;
    size_t i = 0;
    if (schedule.order == Order::Reverse) i = loads.size() - 1;
    if (schedule.order == Order::Random) i = random_below(unsigned(loads.size()));
    Load load = std::move(loads[i]);
    loads.erase(loads.begin() + i);
    land(load);
    return true;
}

// ---- out of shared memory -----------------------------------------------------------------------------------------

// Reads the shared memory of a store, as its thread.
static void read_shared(Store& store) {
    if (store.read) return;
    store.read = true;
    const Box& box = store.box;
    store.data.resize(box.bytes());
    for (uint32_t piece = 0; piece < box.bytes(); piece += 16) memcpy(&store.data[piece], swizzled(box, piece), 16);
}

static void write_global(const Store& store) {
    for_each_row(store.box, [&](uint32_t offset, unsigned char* global, uint32_t low, uint32_t high) {
        if (global) memcpy(global + low, &store.data[offset + low], high - low);
    });
}

void tma_store(const void* map, const void* shared, const int* first, int rank, Site site) {
    Fiber* f = running();
    Store store{box_of("tma_store", map, shared, first, rank, site), f, false, {}};
    for (int i = 0; i < rank; i++)
        if (first[i] < 0) refuse("tma_store", "coordinate " + std::to_string(i) + " is " + std::to_string(first[i]), site);
    std::vector<uint32_t> all = pieces(store.box);
    check_store(all.data(), all.size(), site);
    note_global(store.box, true);
    if (schedule.early_copies) {
        read_shared(store);
        write_global(store);
    }
    Groups& own = groups[f->linear];
    if (own.open.empty() && own.waiting.empty()) groups_used.push_back(f->linear);
    own.open.push_back(stores.size());
    stores.push_back(std::move(store));
}

void bulk_commit(Site site) {
    ask_hopper("bulk_commit", site);
    Groups& own = groups[running()->linear];
    if (own.open.empty() && own.waiting.empty()) groups_used.push_back(running()->linear);
    own.waiting.push_back(std::move(own.open));
    own.open.clear();
}

static void finish_group(const std::vector<size_t>& group) {
    for (size_t i : group) {
        read_shared(stores[i]);
        std::vector<uint32_t> all = pieces(stores[i].box);
        check_stored(all.data(), all.size(), stores[i].box.site);
    }
}

void bulk_wait_read(int groups_left, Site site) {
    ask_hopper("bulk_wait_read", site);
    std::vector<std::vector<size_t>>& waiting = groups[running()->linear].waiting;
    while (waiting.size() > size_t(groups_left)) {
        finish_group(waiting.front());
        waiting.erase(waiting.begin());
    }
}

// ---- a block's beginning and end ----------------------------------------------------------------------------------

void exit_copies(Fiber* f) {
    const std::vector<size_t>& open = groups[f->linear].open;
    if (!open.empty())
        fail("a thread exits without committing its tma_store: " + text(f) + ", issued at " +
             text(stores[open[0]].box.site));
}

void start_copies() {
    loads.clear();
    stores.clear();
    for (unsigned thread : groups_used) groups[thread] = {};
    groups_used.clear();
}

void finish_copies() {
    if (!loads.empty())
        fail("block " + text(block_index) + " ends while a tma_load is on its way, issued at " + text(loads[0].box.site));
    for (Store& store : stores) {
        read_shared(store);
        if (!schedule.early_copies) write_global(store);
    }
}

}  // namespace emu
