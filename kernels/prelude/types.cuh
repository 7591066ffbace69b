// Numbers and packets: fixed-width names, bf16, 16 bytes at a time, set or add.
#pragma once

using u8 = uint8_t;
using u16 = uint16_t;
using u32 = uint32_t;
using u64 = unsigned long long;
using i64 = long long;

#include "../params/constants.h"

// The upper half of a float32.
struct bf16 {
    u16 bits;
};

DEVICE float to_float(bf16 x) { return __uint_as_float((u32)x.bits << 16); }

// Rounds to nearest, ties to even; NaN stays NaN.
DEVICE bf16 to_bf16(float x) { return bf16{(u16)cvt_bf16x2(x, 0.0f)}; }

// The bits of a float rounded to tf32 by an instruction that drops the low 13: half of them is added. The NaN that a
// GPU makes, 0x7fffffff, would overflow to -0.
DEVICE u32 round_tf32(u32 u) { return (u & 0x7fffffffu) > 0x7f800000u ? u : u + 0x1000; }

// Images and activations are stored as T: float, or bf16 with float arithmetic.
DEVICE float to_float(float x) { return x; }
template <class T>
DEVICE T from_float(float x);
template <>
DEVICE float from_float<float>(float x) {
    return x;
}
template <>
DEVICE bf16 from_float<bf16>(float x) {
    return to_bf16(x);
}

// Whether four elements at p + k * stride can be loaded at once, for every k.
template <class T>
DEVICE bool aligned4(const T* p, i64 stride) {
    return ((u64)p & (4 * sizeof(T) - 1)) == 0 && (stride & 3) == 0;
}

DEVICE float4 load_four(const float* p) { return *view_as<const float4*>(p); }
DEVICE float4 load_four(const bf16* p) {
    uint2 v = *view_as<const uint2*>(p);
    return make_float4(__uint_as_float(v.x << 16), __uint_as_float(v.x & 0xffff0000u), __uint_as_float(v.y << 16),
                       __uint_as_float(v.y & 0xffff0000u));
}

// p[0..4], zeros from p[count] on; `aligned`: all four may be loaded at once.
template <class T>
DEVICE float4 load4(const T* p, int count, bool aligned) {
    if (aligned && count >= 4) return load_four(p);
    float4 v = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    if (count > 0) v.x = to_float(p[0]);
    if (count > 1) v.y = to_float(p[1]);
    if (count > 2) v.z = to_float(p[2]);
    if (count > 3) v.w = to_float(p[3]);
    return v;
}

// 16 bytes of T as floats.
template <class T>
struct Packet {
    static constexpr int count = 16 / (int)sizeof(T);
    float v[count];
};
DEVICE Packet<float> load_packet(const float* p) {
    float4 v = *view_as<const float4*>(p);
    return {{v.x, v.y, v.z, v.w}};
}
DEVICE Packet<bf16> load_packet(const bf16* p) {
    uint4 v = *view_as<const uint4*>(p);
    const u32 pairs[4] = {v.x, v.y, v.z, v.w};
    Packet<bf16> out;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        out.v[2 * i] = __uint_as_float(pairs[i] << 16);
        out.v[2 * i + 1] = __uint_as_float(pairs[i] & 0xffff0000u);
    }
    return out;
}
DEVICE void store_packet(float* p, const Packet<float>& x) {
    *view_as<float4*>(p) = make_float4(x.v[0], x.v[1], x.v[2], x.v[3]);
}
// The halves of two bf16 in 32 bits.
DEVICE float bf16_low(u32 pair) { return __uint_as_float(pair << 16); }
DEVICE float bf16_high(u32 pair) { return __uint_as_float(pair & 0xffff0000u); }
DEVICE void store_packet(bf16* p, const Packet<bf16>& x) {
    *view_as<uint4*>(p) = make_uint4(cvt_bf16x2(x.v[0], x.v[1]), cvt_bf16x2(x.v[2], x.v[3]), cvt_bf16x2(x.v[4], x.v[5]),
                                     cvt_bf16x2(x.v[6], x.v[7]));
}

// Writes, or adds to what is there; a result that is set never reads the old one.
template <class T>
DEVICE void put(T* p, float v, int add) {
    *p = from_float<T>(add ? to_float(*p) + v : v);
}

DEVICE int ceil_div(int a, int b) { return (a + b - 1) / b; }

// Flat index of this thread in a 1-D grid of 1-D blocks.
DEVICE i64 flat_index() { return (i64)blockIdx.x * blockDim.x + threadIdx.x; }
// The same where a grid has fewer than 2^32 threads.
DEVICE u32 flat_index32() { return blockIdx.x * blockDim.x + threadIdx.x; }
