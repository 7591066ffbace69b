// Tensor-core products, ldmatrix, cp.async and approximations, as prims_host.h describes them.
#include "machine.h"

namespace emu {

// The first level of the vector unit that the machine has; the products are the emulator's hot loops.
#define EMU_VECTOR __attribute__((target_clones("avx512f", "avx2,fma", "default")))

struct Fragments {
    const uint32_t *a[32], *b[32];
    void* d[32];
};

static Fragments gather(const Request* lanes) {
    Fragments f;
    for (int lane = 0; lane < 32; lane++) {
        f.a[lane] = static_cast<const uint32_t*>(lanes[lane].a);
        f.b[lane] = static_cast<const uint32_t*>(lanes[lane].b);
        f.d[lane] = lanes[lane].out;
    }
    return f;
}

// The accumulator of a 16 x 8 tile: every element lives in registers 2 * (row / 8) + column % 2 of lane
// (row % 8) * 4 + column / 2. `tile` counts the lane's tiles of 4 registers.
template <class T>
static void load_tile(T (&d)[16][8], const Fragments& f, int tile) {
    for (int lane = 0; lane < 32; lane++) {
        const T* r = static_cast<const T*>(f.d[lane]) + tile * 4;
        int g = lane / 4, column = lane % 4 * 2;
        memcpy(&d[g][column], r, 2 * sizeof(T));
        memcpy(&d[g + 8][column], r + 2, 2 * sizeof(T));
    }
}
template <class T>
static void store_tile(const T (&d)[16][8], const Fragments& f, int tile) {
    for (int lane = 0; lane < 32; lane++) {
        T* r = static_cast<T*>(f.d[lane]) + tile * 4;
        int g = lane / 4, column = lane % 4 * 2;
        memcpy(r, &d[g][column], 2 * sizeof(T));
        memcpy(r + 2, &d[g + 8][column], 2 * sizeof(T));
    }
}

typedef float Row __attribute__((vector_size(32)));

// d[16][8] += a[16][K] * b[K][8]
template <int K>
static inline __attribute__((always_inline)) void multiply(float (&d)[16][8], const float (&a)[16][K],
                                                            const float (&b)[K][8]) {
    Row columns[K];
    memcpy(columns, b, sizeof columns);
    for (int m = 0; m < 16; m += 4) {
        Row sum[4];
        memcpy(sum, d[m], sizeof sum);
        for (int k = 0; k < K; k++)
            for (int i = 0; i < 4; i++) sum[i] += a[m + i][k] * columns[k];
        memcpy(d[m], sum, sizeof sum);
    }
}
EMU_VECTOR static void multiply_16(float (&d)[16][8], const float (&a)[16][16], const float (&b)[16][8]) {
    multiply<16>(d, a, b);
}
EMU_VECTOR static void multiply_8(float (&d)[16][8], const float (&a)[16][8], const float (&b)[8][8]) {
    multiply<8>(d, a, b);
}

static float low_bf16(uint32_t pair) { return __uint_as_float(pair << 16); }
static float high_bf16(uint32_t pair) { return __uint_as_float(pair & 0xffff0000u); }
static float tf32(uint32_t bits) { return __uint_as_float(bits & 0xffffe000u); }

static const int most_m_tiles = 8, most_n_tiles = 16;

static void check_tiles(int m_tiles, int n_tiles, Site site) {
    if (m_tiles < 1 || m_tiles > most_m_tiles || n_tiles < 1 || n_tiles > most_n_tiles)
        fail("mma block of " + std::to_string(m_tiles) + " x " + std::to_string(n_tiles) + " tiles at " + text(site));
}

void mma_bf16(float* d, const uint32_t* a, const uint32_t* b, int m_tiles, int n_tiles, Site site) {
    check_tiles(m_tiles, n_tiles, site);
    meet(~0u, "mma.m16n8k16.bf16", site, {a, b, d, 0}, [&](Request* lanes) {
        Fragments f = gather(lanes);
        alignas(64) float left[most_m_tiles][16][16], right[16][8], sum[16][8];
        for (int i = 0; i < m_tiles; i++)
            for (int lane = 0; lane < 32; lane++) {
                const uint32_t* r = f.a[lane] + i * 4;
                int g = lane / 4, k = lane % 4 * 2;
                for (int half = 0; half < 2; half++) {
                    left[i][g][k + 8 * half] = low_bf16(r[2 * half]);
                    left[i][g][k + 8 * half + 1] = high_bf16(r[2 * half]);
                    left[i][g + 8][k + 8 * half] = low_bf16(r[2 * half + 1]);
                    left[i][g + 8][k + 8 * half + 1] = high_bf16(r[2 * half + 1]);
                }
            }
        for (int j = 0; j < n_tiles; j++) {
            for (int lane = 0; lane < 32; lane++) {
                const uint32_t* r = f.b[lane] + j * 2;
                int g = lane / 4, k = lane % 4 * 2;
                for (int half = 0; half < 2; half++) {
                    right[k + 8 * half][g] = low_bf16(r[half]);
                    right[k + 8 * half + 1][g] = high_bf16(r[half]);
                }
            }
            for (int i = 0; i < m_tiles; i++) {
                load_tile(sum, f, i * n_tiles + j);
                multiply_16(sum, left[i], right);
                store_tile(sum, f, i * n_tiles + j);
            }
        }
    });
}

void mma_tf32(float* d, const uint32_t* a, const uint32_t* b, int m_tiles, int n_tiles, Site site) {
    check_tiles(m_tiles, n_tiles, site);
    meet(~0u, "mma.m16n8k8.tf32", site, {a, b, d, 0}, [&](Request* lanes) {
        Fragments f = gather(lanes);
        alignas(64) float left[most_m_tiles][16][8], right[8][8], sum[16][8];
        for (int i = 0; i < m_tiles; i++)
            for (int lane = 0; lane < 32; lane++) {
                const uint32_t* r = f.a[lane] + i * 4;
                int g = lane / 4, t = lane % 4;
                left[i][g][t] = tf32(r[0]);
                left[i][g + 8][t] = tf32(r[1]);
                left[i][g][t + 4] = tf32(r[2]);
                left[i][g + 8][t + 4] = tf32(r[3]);
            }
        for (int j = 0; j < n_tiles; j++) {
            for (int lane = 0; lane < 32; lane++) {
                const uint32_t* r = f.b[lane] + j * 2;
                int g = lane / 4, t = lane % 4;
                right[t][g] = tf32(r[0]);
                right[t + 4][g] = tf32(r[1]);
            }
            for (int i = 0; i < m_tiles; i++) {
                load_tile(sum, f, i * n_tiles + j);
                multiply_8(sum, left[i], right);
                store_tile(sum, f, i * n_tiles + j);
            }
        }
    });
}

// Byte = uint8_t or int8_t. Sixteen rows and eight columns of 32 bytes each.
template <class Byte>
static inline __attribute__((always_inline)) void multiply_bytes(int (&d)[16][8], const Byte (&a)[16][32],
                                                                  const Byte (&b)[8][32]) {
    for (int m = 0; m < 16; m++)
        for (int n = 0; n < 8; n++) {
            int sum = 0;
            for (int k = 0; k < 32; k++) sum += int(a[m][k]) * int(b[n][k]);
            d[m][n] = int(unsigned(d[m][n]) + unsigned(sum));
        }
}
EMU_VECTOR static void multiply_u8(int (&d)[16][8], const uint8_t (&a)[16][32], const uint8_t (&b)[8][32]) {
    multiply_bytes<uint8_t>(d, a, b);
}
EMU_VECTOR static void multiply_s8(int (&d)[16][8], const int8_t (&a)[16][32], const int8_t (&b)[8][32]) {
    multiply_bytes<int8_t>(d, a, b);
}

template <class Byte, class Multiply>
static void mma_bytes(int* d, const uint32_t* a, const uint32_t* b, int m_tiles, int n_tiles, Site site,
                      const char* what, Multiply multiply) {
    check_tiles(m_tiles, n_tiles, site);
    meet(~0u, what, site, {a, b, d, 0}, [&](Request* lanes) {
        Fragments f = gather(lanes);
        alignas(64) Byte left[most_m_tiles][16][32], right[8][32];
        int sum[16][8];
        for (int i = 0; i < m_tiles; i++)
            for (int lane = 0; lane < 32; lane++) {
                const uint32_t* r = f.a[lane] + i * 4;
                int g = lane / 4, k = lane % 4 * 4;
                memcpy(&left[i][g][k], &r[0], 4);
                memcpy(&left[i][g + 8][k], &r[1], 4);
                memcpy(&left[i][g][k + 16], &r[2], 4);
                memcpy(&left[i][g + 8][k + 16], &r[3], 4);
            }
        for (int j = 0; j < n_tiles; j++) {
            for (int lane = 0; lane < 32; lane++) {
                const uint32_t* r = f.b[lane] + j * 2;
                int g = lane / 4, k = lane % 4 * 4;
                memcpy(&right[g][k], &r[0], 4);
                memcpy(&right[g][k + 16], &r[1], 4);
            }
            for (int i = 0; i < m_tiles; i++) {
                load_tile(sum, f, i * n_tiles + j);
                multiply(sum, left[i], right);
                store_tile(sum, f, i * n_tiles + j);
            }
        }
    });
}

void mma_u8(int* d, const uint32_t* a, const uint32_t* b, int m_tiles, int n_tiles, Site site) {
    mma_bytes<uint8_t>(d, a, b, m_tiles, n_tiles, site, "mma.m16n8k32.u8", multiply_u8);
}
void mma_s8(int* d, const uint32_t* a, const uint32_t* b, int m_tiles, int n_tiles, Site site) {
    mma_bytes<int8_t>(d, a, b, m_tiles, n_tiles, site, "mma.m16n8k32.s8", multiply_s8);
}

void ldmatrix(uint32_t* r, const void* row, int matrices, bool transposed, Site site) {
    Fiber* f = running();
    if (matrices != 1 && matrices != 2 && matrices != 4) fail("ldmatrix takes 1, 2 or 4 matrices, at " + text(site));
    if (f->lane < matrices * 8) {
        if (uintptr_t(row) % 16) fail("ldmatrix: the row is not on 16 bytes, " + text(f) + " at " + text(site));
        if (!in_shared(row, 16)) fail("ldmatrix: the row is not in shared memory, " + text(f) + " at " + text(site));
    }
    meet(~0u, "ldmatrix", site, {row, nullptr, r, 0}, [&](Request* lanes) {
        uint16_t elements[32][8];
        for (int i = 0; i < matrices * 8; i++) {
            memcpy(elements[i], lanes[i].a, 16);
            Thread* self = current;  // the read is lane i's
            current = &fibers[self->warp * 32 + i];
            note_access(lanes[i].a, 16, false, false, site);
            current = self;
        }
        for (int m = 0; m < matrices; m++)
            for (int lane = 0; lane < 32; lane++) {
                int g = lane / 4, t = lane % 4 * 2;
                uint16_t low = transposed ? elements[m * 8 + t][g] : elements[m * 8 + g][t];
                uint16_t high = transposed ? elements[m * 8 + t + 1][g] : elements[m * 8 + g][t + 1];
                static_cast<uint32_t*>(lanes[lane].out)[m] = low | uint32_t(high) << 16;
            }
    });
}

// ---- approximations and conversions ------------------------------------------------------------------------------

static float flushed(float x) { return fabsf(x) < 0x1p-126f ? copysignf(0.0f, x) : x; }

// Whether the result for these bits is too large, rather than too small.
static bool above(float x) { return __float_as_uint(x) * 0x9E3779B1u >> 31; }

float ex2_approx(float x) {
    x = flushed(x);
    double y = exp2(double(x));
    if (x != x || x == 0 || float(y) == 0 || std::isinf(float(y))) return float(y);
    // Farthest float within the error: rounding goes back towards the true value.
    double most = y * (above(x) ? 1 + 0x1p-22 : 1 - 0x1p-22);
    float off = float(most);
    if (fabs(off - y) > fabs(most - y)) off = nextafterf(off, off > y ? 0.0f : INFINITY);
    return flushed(off);
}

float rcp_approx(float x) {
    x = flushed(x);
    float y = float(1.0 / double(x));
    if (x != x || x == 0 || std::isinf(x) || std::isinf(y)) return y;
    // The neighbour of the rounded value on the true value's other side is more than a unit off.
    double exact = 1.0 / double(x);
    float side = nextafterf(y, above(x) ? INFINITY : -INFINITY), ulp = fabsf(nextafterf(y, 2 * y) - y);
    return flushed(fabs(side - exact) <= ulp ? side : y);
}

uint32_t cvt_bf16x2(float lo, float hi) {
    auto rounded = [](float x) -> uint32_t {
        uint32_t u = __float_as_uint(x);
        return x != x ? 0x7fffu : (u + 0x7fffu + (u >> 16 & 1)) >> 16;
    };
    return rounded(hi) << 16 | rounded(lo);
}

// ---- cp.async --------------------------------------------------------------------------------------------------

static void move(const Copy& copy) {
    memcpy(copy.shared, copy.global, copy.source_bytes);
    memset(static_cast<char*>(copy.shared) + copy.source_bytes, 0, copy.bytes - copy.source_bytes);
}

void cp_async(void* shared, const void* global, int bytes, int source_bytes, Site site) {
    Fiber* f = running();
    auto refuse = [&](const char* why) { fail(std::string("cp.async: ") + why + ", " + text(f) + " at " + text(site)); };
    if (bytes != 4 && bytes != 8 && bytes != 16) refuse("copies 4, 8 or 16 bytes");
    if (source_bytes < 0 || source_bytes > bytes) refuse("the source is longer than the copy");
    if (uintptr_t(shared) % bytes || uintptr_t(global) % bytes) refuse("an address is not aligned to the copy");
    if (!in_shared(shared, bytes)) refuse("the destination is not in shared memory");
    if (source_bytes) note_access(global, source_bytes, false, false, site);
    note_access(shared, bytes, true, false, site);
    Copy copy{shared, global, bytes, source_bytes, site};
    if (schedule.early_copies) move(copy);
    check_in_flight(shared, bytes, true);
    f->copies.push_back(copy);
    f->uncommitted++;
}

void cp_async_commit() {
    Fiber* f = running();
    f->groups.push_back(f->uncommitted);
    f->uncommitted = 0;
}

void cp_async_wait(int groups_left) {
    Fiber* f = running();
    while (f->groups.size() - f->groups_done > size_t(groups_left)) {
        for (unsigned n = f->groups[f->groups_done++]; n; n--) {
            const Copy& copy = f->copies[f->copies_done++];
            // The data may land at any time until now, so this is a write as well.
            note_access(copy.shared, copy.bytes, true, false, copy.site);
            check_in_flight(copy.shared, copy.bytes, false);
            if (!schedule.early_copies) move(copy);
        }
    }
    if (f->groups_done == f->groups.size() && f->copies_done == f->copies.size()) {
        f->groups.clear();
        f->copies.clear();
        f->groups_done = f->copies_done = 0;
    }
}

}  // namespace emu
