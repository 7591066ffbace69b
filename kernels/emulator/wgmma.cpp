// Products of a warpgroup, each warp's 16 lines of A by all of B: no warp waits for another, as on a GPU, but all four
// must issue the same. Operands are found as their descriptors say, in rows of 128 bytes with 16-byte pieces XORed.
#include <deque>
#include <memory>

#include "async.h"

namespace emu {

const int depth = 16, most_n = 256;

struct Operand {
    unsigned long long descriptor;
    bool side;  // MN-major

    // A 14-bit field, in bytes.
    uint32_t field(int bit) const { return uint32_t(descriptor >> bit & 0x3fff) << 4; }
    uint32_t start() const { return field(0); }
    uint32_t lead() const { return field(16); }
    uint32_t stride() const { return field(32); }
    bool operator==(const Operand& o) const { return descriptor == o.descriptor && side == o.side; }
};

// What all warps of a warpgroup issue alike.
struct Shape {
    Operand a, b;
    int n;
    bool add;

    bool operator==(const Shape& o) const { return a == o.a && b == o.b && n == o.n && add == o.add; }
};

// The registers of a warp that products add to, taken from it while they are in flight.
struct Accumulators {
    float* lanes[32];
    int n;
    unsigned users;  // products in flight
    std::vector<float> sums;  // [16][n]
};

// Where the 16-byte pieces of an operand lie in shared memory.
using Pieces = std::vector<uint32_t>;

struct Product {
    Shape shape;
    Accumulators* to;
    Pieces a;                  // of the warp's 16 lines
    std::shared_ptr<Pieces> b;  // all warps'
    bool done;
    Site site;
};

struct WarpProducts {
    bool fenced;
    uint64_t issued;
    std::vector<Product> open;
    std::deque<std::vector<Product>> groups;
    std::vector<Accumulators*> accumulators;  // in flight

    bool idle() const { return open.empty() && groups.empty(); }
};
static WarpProducts products[32];

// What a warpgroup has issued and not yet all of its warps have.
struct Issued {
    Shape shape;
    Site site;
    std::shared_ptr<Pieces> b;
};
struct Log {
    std::deque<Issued> ahead;
    uint64_t first;  // number of ahead[0]
};
static Log logs[8];

// ---- operands -----------------------------------------------------------------------------------------------------

static void check_operand(const Operand& o, const char* name, Site site) {
    auto no = [&](const std::string& why) { refuse("wgmma", std::string("operand ") + name + " " + why, site); };
    if (o.descriptor >> 62 != 1) no("is not in 128-byte swizzle, which is all that is known here");
    if (o.descriptor >> 49 & 7) no("has a base offset");
    if (o.descriptor & 0x3fffc000c000c000ull & ~(7ull << 49)) no("has bits set that are reserved");
    if (o.start() >> 7 & 7) no("begins at +" + std::to_string(o.start()) + ", in a row that is not the first of eight");
    if (o.start() & 127 && (o.side || (o.start() & 127) > 96 || o.start() & 31))
        no("begins at +" + std::to_string(o.start()) + ", within a row where its 16 depths do not");
}

// The pieces of an operand's lines `first` and on. Depth along the rows: two pieces a line. Lines along the rows: for each
// depth a piece for every 8 lines, blocks of 64 lines `lead` apart, of 8 depths `stride`.
static Pieces pieces_of(const Operand& o, int first, int lines, Site site) {
    Pieces all;
    all.reserve(2 * lines);
    auto add = [&](uint32_t address) {
        address &= 0x3ffff;
        address ^= (address >> 7 & 7) << 4;
        if (!in_shared(shared_arena() + address, 16))
            refuse("wgmma", "an operand reaches +" + std::to_string(address) + ", outside of shared memory", site);
        all.push_back(address);
    };
    if (!o.side) {
        for (int line = first; line < first + lines; line++)
            for (int half = 0; half < 2; half++) add(o.start() + line / 8 * o.stride() + line % 8 * 128 + half * 16);
        return all;
    }
    for (int k = 0; k < depth; k++)
        for (int line = first; line < first + lines; line += 8)
            add(o.start() + line / 64 * o.lead() + line % 64 * 2 + k / 8 * o.stride() + k % 8 * 128);
    return all;
}

static float from_bf16(uint16_t bits) { return __uint_as_float(uint32_t(bits) << 16); }

// out[depth][lines]
static void decode(float* out, const uint16_t (*pieces)[8], bool side, int lines) {
    if (side) {
        for (int i = 0; i < depth * lines / 8; i++)
            for (int j = 0; j < 8; j++) out[i * 8 + j] = from_bf16(pieces[i][j]);
        return;
    }
    for (int line = 0; line < lines; line++)
        for (int k = 0; k < depth; k++) out[k * lines + line] = from_bf16(pieces[line * 2 + k / 8][k % 8]);
}

// B as numbers. Eight warps multiply by the same, so what was decoded last is kept.
struct Decoded {
    int lines;
    bool side;
    uint16_t raw[most_n * 2][8];
    float values[depth * most_n];
};
static const float* decoded(const uint32_t* pieces, bool side, int lines) {
    static Decoded kept[8];
    static unsigned oldest;
    static uint16_t raw[most_n * 2][8];
    size_t count = lines * 2;
    for (size_t i = 0; i < count; i++) memcpy(raw[i], shared_arena() + pieces[i], 16);
    for (const Decoded& d : kept)
        if (d.lines == lines && d.side == side && !memcmp(d.raw, raw, count * 16)) return d.values;
    Decoded& d = kept[oldest++ % 8];
    d.lines = lines;
    d.side = side;
    memcpy(d.raw, raw, count * 16);
    decode(d.values, raw, side, lines);
    return d.values;
}

// ---- multiplying --------------------------------------------------------------------------------------------------

typedef float Wide __attribute__((vector_size(64)));
static inline __attribute__((always_inline)) Wide load(const float* p) {
    Wide w;
    memcpy(&w, p, sizeof w);
    return w;
}

// sums[16][n] += a[depth][16] * b[depth][n], depth by depth. A product of two bf16 is exact, so that fusing it with the sum
// changes nothing.
__attribute__((target_clones("avx512f", "avx2,fma", "default"), optimize("fp-contract=fast"))) static void multiply(
    float* sums, const float* a, const float* b, int n) {
    for (int row = 0; row < 16; row += 4)
        for (int at = 0; at < n; at += 32) {
            Wide sum[4][2];
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++)
                for (int j = 0; j < 2; j++) sum[i][j] = load(sums + (row + i) * n + at + 16 * j);
            for (int k = 0; k < depth; k++) {
                Wide line[2] = {load(b + k * n + at), load(b + k * n + at + 16)};
#pragma GCC unroll 4
                for (int i = 0; i < 4; i++) {
                    float factor = a[k * 16 + row + i];
                    sum[i][0] += factor * line[0];
                    sum[i][1] += factor * line[1];
                }
            }
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++)
                for (int j = 0; j < 2; j++) memcpy(sums + (row + i) * n + at + 16 * j, &sum[i][j], sizeof(Wide));
        }
}

static void run(Product& p) {
    if (p.done) return;
    p.done = true;
    uint16_t lines[depth * 2][8];
    float a[depth * 16];
    for (int i = 0; i < depth * 2; i++) memcpy(lines[i], shared_arena() + p.a[i], 16);
    decode(a, lines, p.shape.a.side, 16);
    std::vector<float>& sums = p.to->sums;
    if (!p.shape.add) std::fill(sums.begin(), sums.end(), 0.0f);
    multiply(sums.data(), a, decoded(p.b->data(), p.shape.b.side, p.shape.n), p.shape.n);
}

// ---- accumulators -------------------------------------------------------------------------------------------------

// Register 4 j + 2 h + i of a lane is of row lane / 4 + 8 h, column 8 j + 2 (lane % 4) + i: two neighbours at a time.
template <class F>
static void for_each_pair(Accumulators& acc, F visit) {
    for (int lane = 0; lane < 32; lane++)
        for (int pair = 0; pair < acc.n / 4; pair++) {
            int row = lane / 4 + pair % 2 * 8, column = pair / 2 * 8 + lane % 4 * 2;
            visit(acc.lanes[lane] + pair * 2, &acc.sums[row * acc.n + column]);
        }
}

static Accumulators* take(WarpProducts& warp, const Request* lanes, int n, Site site) {
    for (Accumulators* acc : warp.accumulators) {
        if (acc->lanes[0] != lanes[0].out) continue;
        if (acc->n != n) refuse("wgmma", "another shape adds to the same accumulators while they are in flight", site);
        acc->users++;
        return acc;
    }
    auto acc = new Accumulators{{}, n, 1, std::vector<float>(16 * n)};
    for (int lane = 0; lane < 32; lane++) acc->lanes[lane] = static_cast<float*>(lanes[lane].out);
    for_each_pair(*acc, [](float* registers, float* sums) {
        memcpy(sums, registers, 8);
        memset(registers, 0xff, 8);
    });
    unsigned first = running()->warp * 32;
    for (int lane = 0; lane < 32; lane++) check_accumulators(first + lane, acc->lanes[lane], n / 2, true);
    warp.accumulators.push_back(acc);
    return acc;
}

static void give_back(WarpProducts& warp, Accumulators* acc) {
    if (--acc->users) return;
    for_each_pair(*acc, [](float* registers, float* sums) { memcpy(registers, sums, 8); });
    unsigned first = running()->warp * 32;
    for (int lane = 0; lane < 32; lane++) check_accumulators(first + lane, acc->lanes[lane], acc->n / 2, false);
    warp.accumulators.erase(std::find(warp.accumulators.begin(), warp.accumulators.end(), acc));
    delete acc;
}

// ---- instructions -------------------------------------------------------------------------------------------------

// Compares with what the other warps of the warpgroup issue. The pieces of B.
static std::shared_ptr<Pieces> log_issue(unsigned warp, const Shape& shape, Site site) {
    Log& log = logs[warp / 4];
    uint64_t number = products[warp].issued++;
    if (number - log.first == log.ahead.size())
        log.ahead.push_back({shape, site, std::make_shared<Pieces>(pieces_of(shape.b, 0, shape.n, site))});
    Issued same = log.ahead[number - log.first];
    if (!(same.shape == shape) || same.site.line != site.line)
        refuse("wgmma", "the warps of a warpgroup issue different products, another one that at " + text(same.site), site);
    uint64_t least = number + 1;
    for (unsigned w = warp / 4 * 4; w < warp / 4 * 4 + 4; w++) least = std::min(least, products[w].issued);
    for (; log.first < least; log.first++) log.ahead.pop_front();
    return same.b;
}

void wgmma_bf16(float* d, unsigned long long a, unsigned long long b, int n, bool add, bool a_side, bool b_side, Site site) {
    ask_hopper("wgmma", site);
    Shape own{{a, a_side}, {b, b_side}, n, add};
    meet(~0u, "wgmma", site, {&own, nullptr, d, 0}, [&](Request* lanes) {
        unsigned index = running()->warp;
        if ((index / 4 + 1) * 128 > block.threads) refuse("wgmma", "a warpgroup has four warps", site);
        for (int lane = 0; lane < 32; lane++)
            if (!(*static_cast<const Shape*>(lanes[lane].a) == own))
                refuse("wgmma", "lanes of a warp give different operands", site);
        check_operand(own.a, "A", site);
        check_operand(own.b, "B", site);
        WarpProducts& warp = products[index];
        if (!warp.fenced) refuse("wgmma", "no wgmma_fence before a group's first product", site);
        std::shared_ptr<Pieces> of_b = log_issue(index, own, site);
        Product p{own, nullptr, pieces_of(own.a, index % 4 * 16, 16, site), of_b, false, site};
        check_product(p.a.data(), p.a.size(), site);
        check_product(p.b->data(), p.b->size(), site);
        p.to = take(warp, lanes, n, site);
        if (schedule.early_copies) run(p);
        warp.open.push_back(std::move(p));
    });
}

void wgmma_fence(Site site) {
    ask_hopper("wgmma_fence", site);
    meet(~0u, "wgmma_fence", site, {}, [](Request*) { products[running()->warp].fenced = true; });
}

void wgmma_commit(Site site) {
    ask_hopper("wgmma_commit", site);
    meet(~0u, "wgmma_commit", site, {}, [](Request*) {
        WarpProducts& warp = products[running()->warp];
        warp.groups.push_back(std::move(warp.open));
        warp.open.clear();
        warp.fenced = false;
    });
}

void wgmma_wait(int groups_left, Site site) {
    ask_hopper("wgmma_wait", site);
    meet(~0u, "wgmma_wait", site, {}, [&](Request*) {
        WarpProducts& warp = products[running()->warp];
        while (warp.groups.size() > size_t(groups_left)) {
            for (Product& p : warp.groups.front()) {
                run(p);
                check_multiplied(p.a.data(), p.a.size(), p.site);
                check_multiplied(p.b->data(), p.b->size(), p.site);
                give_back(warp, p.to);
            }
            warp.groups.pop_front();
        }
    });
}

// ---- a block's beginning and end ----------------------------------------------------------------------------------

void exit_products(Fiber* f) {
    const WarpProducts& warp = products[f->warp];
    if (warp.idle()) return;
    Site site = warp.groups.empty() ? warp.open[0].site : warp.groups[0].empty() ? Site{} : warp.groups[0][0].site;
    fail("a thread exits without waiting for its wgmma: " + text(f) + ", issued at " + text(site));
}

void start_products() {
    for (WarpProducts& warp : products) {
        for (Accumulators* acc : warp.accumulators) delete acc;
        warp = {};
    }
    for (Log& log : logs) log = {};
}

void finish_products() {
    for (unsigned w = 0; w < block.threads / 32; w++)
        if (!logs[w / 4].ahead.empty() && products[w].issued == logs[w / 4].first)
            fail("block " + text(block_index) + ": warp " + std::to_string(w) +
                 " did not issue the wgmma of its warpgroup at " + text(logs[w / 4].ahead[0].site));
}

}  // namespace emu
