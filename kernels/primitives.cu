// primitives: what kernels are written with, each alone, its raw words stored: src/check/primitives.rs knows what a GPU
// must give by the PTX ISA's tables and IEEE 754, and the emulator's tests ask the same of the emulator.
//
//   primitive_mma_bf16, _tf32, _u8         d[32][4] = a[32][4] * b[32][2] + c[32][4]: each lane's registers
//   primitive_ldmatrix, _trans             r[32][4] of 32 rows of 16 bytes, lane l giving the address of row (11 l + 3) % 32
//   primitive_cp_async                     [2][32][4]: 16 bytes of each lane, then l % 17 bytes of its neighbour l ^ 1
//   primitive_collectives                  [12][32]: shuffles, votes and sums of the lanes' squares
//   primitive_reductions                   [32] sums over a warp of float, then of double (2 words), of u64 (2 words)
//   primitive_barriers                     of the first in[0] of 64 threads: in reverse, then how many are odd, then any
//   primitive_atomics                      the least of the words, the one that is swapped for all ones
//   primitive_dp4a                         [32]
//   primitive_conversions                  [8][32]
//   primitive_arithmetic                   [10][32] of x[32], y[32], z[32]
//   primitive_approximations               [5][32] of x[32], y[32]: two instructions of x, what is made of them of y
//   primitive_float64                      [5][32] (2 words) of x[32], y[32]
//   primitive_functions                    [7][32] (2 words) of x[32]: of libdevice, to an ulp or two
//   primitive_random                       [12][32]: philox and normals8 of the counter c[32][4]; [32] (2 words) permute
//   primitive_packets                      [5][32][4]: loads and stores of 16 bytes, of floats and of bf16
//   primitive_arguments                    i32, float, i64 (2 words), double (2 words), what a pointer points at, u32; for
//                                          each job what it points at and its number together, all ones for none
//
// Launch     one block of 32 threads; primitive_barriers 64, primitive_atomics 2 blocks of 64.
// Cost       nothing. Exactness: the point.
#include "prelude/prelude.cuh"

#include "params/primitives.h"

#define PRIMITIVE(name)                                  \
    DEVICE void of_##name(u32* out, const u32* in);      \
    extern "C" __global__ void name(const Primitive p) { \
        of_##name(p.out, p.input);                       \
    }                                                    \
    DEVICE void of_##name(u32* out, const u32* __restrict__ in)

template <class T>
DEVICE T bits_as(u32 u);
template <>
DEVICE float bits_as<float>(u32 u) {
    return __uint_as_float(u);
}
template <>
DEVICE int bits_as<int>(u32 u) {
    return (int)u;
}
DEVICE u32 as_bits(float x) { return __float_as_uint(x); }
DEVICE u32 as_bits(int x) { return (u32)x; }

// The registers of a lane before and after a product.
template <class T, class Multiply>
DEVICE void product(u32* out, const u32* in, Multiply multiply) {
    int lane = threadIdx.x;
    u32 a[1][4], b[1][2];
    T d[1][1][4];
    for (int i = 0; i < 4; i++) a[0][i] = in[lane * 4 + i];
    for (int i = 0; i < 2; i++) b[0][i] = in[128 + lane * 2 + i];
    for (int i = 0; i < 4; i++) d[0][0][i] = bits_as<T>(in[192 + lane * 4 + i]);
    multiply(d, a, b);
    for (int i = 0; i < 4; i++) out[lane * 4 + i] = as_bits(d[0][0][i]);
}

struct Bf16 {
    DEVICE void operator()(float (&d)[1][1][4], const u32 (&a)[1][4], const u32 (&b)[1][2]) const { mma_bf16(d, a, b); }
};
struct Tf32 {
    DEVICE void operator()(float (&d)[1][1][4], const u32 (&a)[1][4], const u32 (&b)[1][2]) const { mma_tf32(d, a, b); }
};
struct U8 {
    DEVICE void operator()(int (&d)[1][1][4], const u32 (&a)[1][4], const u32 (&b)[1][2]) const { mma_u8(d, a, b); }
};

PRIMITIVE(primitive_mma_bf16) { product<float>(out, in, Bf16()); }
PRIMITIVE(primitive_mma_tf32) { product<float>(out, in, Tf32()); }
PRIMITIVE(primitive_mma_u8) { product<int>(out, in, U8()); }

PRIMITIVE(primitive_ldmatrix) {
    EMM_SHARED(u32, rows, [32][4]);
    int lane = threadIdx.x;
    for (int i = 0; i < 4; i++) rows[lane][i] = in[lane * 4 + i];
    __syncwarp();
    u32 r[4];
    ldmatrix_x4(r, rows[(11 * lane + 3) % 32]);
    for (int i = 0; i < 4; i++) out[lane * 4 + i] = r[i];
}

PRIMITIVE(primitive_ldmatrix_trans) {
    EMM_SHARED(u32, rows, [32][4]);
    int lane = threadIdx.x;
    for (int i = 0; i < 4; i++) rows[lane][i] = in[lane * 4 + i];
    __syncwarp();
    u32 r[4];
    ldmatrix_x4_trans(r, rows[(11 * lane + 3) % 32]);
    for (int i = 0; i < 4; i++) out[lane * 4 + i] = r[i];
}

PRIMITIVE(primitive_cp_async) {
    EMM_SHARED(u32, whole, [32][4]);
    EMM_SHARED(u32, parts, [32][4]);
    int lane = threadIdx.x;
    for (int i = 0; i < 4; i++) whole[lane][i] = parts[lane][i] = 0xaaaaaaaau;
    __syncwarp();
    cp_async16(whole[lane], in + lane * 4, 16);
    cp_async_commit();
    cp_async16(parts[lane], in + lane * 4, lane % 17);
    cp_async_commit();
    cp_async_wait<1>();
    for (int i = 0; i < 4; i++) out[lane * 4 + i] = whole[lane][i];
    cp_async_wait<0>();
    __syncwarp();
    for (int i = 0; i < 4; i++) out[128 + lane * 4 + i] = parts[lane ^ 1][i];
}

PRIMITIVE(primitive_collectives) {
    int lane = threadIdx.x, v = (int)in[lane];
    out[0 * 32 + lane] = __shfl_sync(0xffffffffu, v, 5);
    out[1 * 32 + lane] = __shfl_xor_sync(0xffffffffu, v, 3);
    out[2 * 32 + lane] = __shfl_up_sync(0xffffffffu, v, 4);
    out[3 * 32 + lane] = __shfl_down_sync(0xffffffffu, v, 4);
    out[4 * 32 + lane] = __shfl_down_sync(0xffffffffu, v, 2, 8);
    out[5 * 32 + lane] = __shfl_sync(0xffffffffu, v, 1, 8);
    out[6 * 32 + lane] = __ballot_sync(0xffffffffu, v & 4);
    out[7 * 32 + lane] = __reduce_add_sync(0xffffffffu, v);
    out[8 * 32 + lane] = __reduce_max_sync(0xffffffffu, lane - 20);
    out[9 * 32 + lane] = __reduce_min_sync(0xffffffffu, (unsigned)(lane - 20));
    int r;
    if (lane < 16) r = __shfl_xor_sync(0x0000ffffu, v, 1) * 10;
    else r = __shfl_xor_sync(0xffff0000u, v, 2) * 100;
    out[10 * 32 + lane] = r;
    // Each half votes for itself.
    u32 any, all;
    if (lane < 16) any = __any_sync(0x0000ffffu, lane == 3), all = __all_sync(0x0000ffffu, lane >= 16);
    else any = __any_sync(0xffff0000u, lane == 3), all = __all_sync(0xffff0000u, lane >= 16);
    out[11 * 32 + lane] = (any != 0) * 2 + (all != 0);
}

PRIMITIVE(primitive_reductions) {
    int lane = threadIdx.x;
    u32 v = in[lane];
    out[lane] = __float_as_uint(warp_reduce((float)v, Sum()));
    view_as<double*>(out + 32)[lane] = warp_reduce((double)v * 1048577.0, Sum());
    view_as<u64*>(out + 96)[lane] = warp_reduce((u64)v << 30, Sum());
}

// Threads that return early do not hold up the block's barrier.
PRIMITIVE(primitive_barriers) {
    EMM_SHARED(u32, values, [64]);
    int t = threadIdx.x, n = (int)in[0];
    if (t >= n) return;
    values[t] = t;
    __syncthreads();
    out[t] = values[n - 1 - t];
    int odd = __syncthreads_count(t & 1), any = __syncthreads_or(t == 5);
    if (t == 0) out[n] = odd, out[n + 1] = any != 0;
}

PRIMITIVE(primitive_atomics) {
    int i = (int)flat_index();
    atomicMin(out, in[i]);
    if (in[i] == 77) atomicCAS(out + 1, GOOD, in[i]);
    atomicCAS(out + 1, 5u, 6u);
}

PRIMITIVE(primitive_dp4a) {
    int lane = threadIdx.x;
    out[lane] = __dp4a(in[lane], in[lane ^ 1], (u32)lane);
}

PRIMITIVE(primitive_conversions) {
    int lane = threadIdx.x;
    u32 u = in[lane];
    out[0 * 32 + lane] = to_bf16(__uint_as_float(u)).bits;
    out[1 * 32 + lane] = __float_as_uint(to_float(bf16{(u16)u}));
    out[2 * 32 + lane] = round_tf32(u);
    out[3 * 32 + lane] = __float_as_uint((float)u);
    out[4 * 32 + lane] = __float_as_uint((float)(int)u);
    out[5 * 32 + lane] = __float_as_uint((float)__dmul_rn((double)u, 1.0000000123));
    out[6 * 32 + lane] = (u8)__dmul_rn((double)(u & 0xffffu), 0.00390625);
    out[7 * 32 + lane] = cvt_bf16x2(__uint_as_float(u), __uint_as_float(in[31 - lane]));
}

PRIMITIVE(primitive_arithmetic) {
    int lane = threadIdx.x;
    float x = __uint_as_float(in[lane]), y = __uint_as_float(in[32 + lane]), z = __uint_as_float(in[64 + lane]);
    float of[10] = {fmaf(x, y, z), __fmul_rn(x, y), __fadd_rn(x, y), __fsub_rn(x, y), __fdiv_rn(x, y),
                    x / y,         sqrtf(fabsf(x)), fminf(x, y),     fmaxf(x, y),     exp_f32(x)};
    for (int i = 0; i < 10; i++) out[i * 32 + lane] = __float_as_uint(of[i]);
}

PRIMITIVE(primitive_approximations) {
    int lane = threadIdx.x;
    float x = __uint_as_float(in[lane]), y = __uint_as_float(in[32 + lane]);
    float of[5] = {ex2_approx(x), rcp_approx(x), sigmoid(y), silu(y), silu_slope(y)};
    for (int i = 0; i < 5; i++) out[i * 32 + lane] = __float_as_uint(of[i]);
}

PRIMITIVE(primitive_float64) {
    int lane = threadIdx.x;
    const double* from = view_as<const double*>(in);
    double x = from[lane], y = from[32 + lane];
    double of[5] = {__dmul_rn(x, y), __dadd_rn(x, y), x / y, sqrt(fabs(x)), (double)(float)x};
    for (int i = 0; i < 5; i++) view_as<double*>(out)[i * 32 + lane] = of[i];
}

PRIMITIVE(primitive_functions) {
    int lane = threadIdx.x;
    double x = view_as<const double*>(in)[lane];
    double of[7] = {exp(x), log(x), pow(5000.0, x), expm1(x), log1p(x), sin(x), cos(x)};
    for (int i = 0; i < 7; i++) view_as<double*>(out)[i * 32 + lane] = of[i];
}

PRIMITIVE(primitive_random) {
    int lane = threadIdx.x;
    const u32* c = in + 4 * lane;
    u64 seed = (u64)c[1] << 32 | c[0];
    uint4 words = philox(make_uint4(c[0], c[1], c[2], c[3]), seed);
    out[0 * 32 + lane] = words.x;
    out[1 * 32 + lane] = words.y;
    out[2 * 32 + lane] = words.z;
    out[3 * 32 + lane] = words.w;
    float z[8];
    normals8(z, c[0] >> 1, c[1], c[2], c[3], seed);
    for (int i = 0; i < 8; i++) out[(4 + i) * 32 + lane] = __float_as_uint(z[i]);
    u64 n = (u64)c[2] + 1, at = permute(c[0] % n, n, seed, c[3]);
    view_as<u64*>(out + 12 * 32)[lane] = at;
}

PRIMITIVE(primitive_packets) {
    int lane = threadIdx.x;
    const float* floats = view_as<const float*>(in) + lane * 4;
    const bf16* halves = view_as<const bf16*>(in) + lane * 8;
    store_packet(view_as<float*>(out) + lane * 4, load_packet(floats));
    store_packet(view_as<bf16*>(out + 128) + lane * 8, load_packet(halves));
    float4 v = load4(floats, 4, aligned4(floats, 4)), w = load4(halves, 4, aligned4(halves, 4));
    float4 some = load4(halves + 1, lane % 5, false);
    float all[12] = {v.x, v.y, v.z, v.w, w.x, w.y, w.z, w.w, some.x, some.y, some.z, some.w};
    for (int i = 0; i < 12; i++) out[256 + i / 4 * 128 + lane * 4 + i % 4] = __float_as_uint(all[i]);
}

extern "C" __global__ void primitive_arguments(const PrimitiveArguments p) {
    if (threadIdx.x > 0) return;
    p.out[0] = (u32)p.i;
    p.out[1] = __float_as_uint(p.f);
    *view_as<i64*>(p.out + 2) = p.l;
    *view_as<double*>(p.out + 4) = p.d;
    p.out[6] = p.input[0];
    p.out[7] = p.u;
    for (int i = 0; i < PRIMITIVE_JOBS; i++) p.out[8 + i] = p.jobs[i].from ? *p.jobs[i].from + p.jobs[i].add : ~p.jobs[i].add;
}
