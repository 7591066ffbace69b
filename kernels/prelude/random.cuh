// Counter-based random numbers: Philox4x32-10 (Salmon et al. 2011) and standard normals, with the bits of src/rng.rs.
//
// key = seed; counter = (block of elements in the image's H,W,C order, the image's index in the whole batch, step,
// stream << 16 | layer). Every multiplication and addition is written as an intrinsic or an fma, so that no
// contraction by the compiler can change a bit.
#pragma once

enum class Stream : u32 { Sigma = 2, Noise = 3, Dropout = 4, Latent = 5, Churn = 7, Order = 8 };

DEVICE u32 tag(Stream stream, u32 layer) { return (u32)stream << 16 | layer; }

// The words of several counters at once, which share the keys of the rounds.
template <int N>
DEVICE void philox(uint4 (&c)[N], u64 seed) {
    u32 k0 = (u32)seed, k1 = (u32)(seed >> 32);
#pragma unroll
    for (int round = 0; round < 10; round++) {
#pragma unroll
        for (int i = 0; i < N; i++) {
            // Both halves of a product, by one instruction.
            u32 a = __umulhi(0xD2511F53u, c[i].x), b = __umulhi(0xCD9E8D57u, c[i].z);
            c[i] = make_uint4(b ^ c[i].y ^ k0, 0xCD9E8D57u * c[i].z, a ^ c[i].w ^ k1, 0xD2511F53u * c[i].x);
        }
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
}
DEVICE uint4 philox(uint4 c, u64 seed) {
    uint4 words[1] = {c};
    philox(words, seed);
    return words[0];
}

// A uniform number in (0, 1) with 32 random bits, in float64.
DEVICE double unit(u32 word) { return ((double)word + 0.5) / 4294967296.0; }

// ln(1 + f) for f in [sqrt(1/2) - 1, sqrt(2) - 1]: f - f^2/2 + f^3 p(f).
DEVICE float ln_1p(float f) {
    float p = 0.067466386f;
    p = fmaf(p, f, -0.11675651f);
    p = fmaf(p, f, 0.11888163f);
    p = fmaf(p, f, -0.12405589f);
    p = fmaf(p, f, 0.14219552f);
    p = fmaf(p, f, -0.16667996f);
    p = fmaf(p, f, 0.2000212f);
    p = fmaf(p, f, -0.2500001f);
    p = fmaf(p, f, 0.33333313f);
    float square = __fmul_rn(f, f);
    return fmaf(__fmul_rn(square, f), p, fmaf(square, -0.5f, f));
}

// (sin 2 pi y, cos 2 pi y) for y in [-1/8, 1/8].
DEVICE float2 sin_cos_turns(float y) {
    float square = __fmul_rn(y, y);
    float s = -75.40207f;
    s = fmaf(s, square, 81.59255f);
    s = fmaf(s, square, -41.341663f);
    s = fmaf(s, square, 6.2831855f);
    float c = 59.245964f;
    c = fmaf(c, square, -85.44374f);
    c = fmaf(c, square, 64.93932f);
    c = fmaf(c, square, -19.739208f);
    c = fmaf(c, square, 1.0f);
    return make_float2(__fmul_rn(y, s), c);
}

// Two standard normals from two words.
DEVICE float2 box_muller(u32 a, u32 b) {
    const float to_unit = 2.3283064365386963e-10f;  // 2^-32

    // u = m * 2^e with m in [sqrt(1/2), sqrt(2)). Near u = 1 the mantissa has lost u - 1: it comes from a's complement.
    const u32 sqrt_half = 0x3F3504F3u, one = 0x3F800000u;
    u32 bits = __float_as_uint(__fadd_rn((float)a, 0.5f)) + (one - sqrt_half);
    int e = (int)(bits >> 23) - (127 + 32);
    float m = __uint_as_float((bits & 0x007FFFFFu) + sqrt_half);
    float f = e == 0 ? __fmul_rn(__fadd_rn((float)~a, 0.5f), -to_unit) : __fsub_rn(m, 1.0f);
    float ln_u = fmaf((float)e, 0.6931472f, ln_1p(f));
    float r = sqrtf(__fmul_rn(-2.0f, ln_u));

    // v = quarter / 4 + y with y in [-1/8, 1/8] turns.
    u32 quarter = (b + (1u << 29)) >> 30;
    float y = __fmul_rn(__fadd_rn((float)(int)(b - (quarter << 30)), 0.5f), to_unit);
    float2 sc = sin_cos_turns(y);
    float c = quarter & 1 ? sc.x : sc.y, s = quarter & 1 ? sc.y : sc.x;
    c = (quarter + 1) & 2 ? -c : c;
    s = quarter & 2 ? -s : s;
    return make_float2(__fmul_rn(r, c), __fmul_rn(r, s));
}

// Eight standard normals: elements 8 * block .. 8 * block + 8 of one image.
DEVICE void normals8(float (&z)[8], u32 block, u32 image, u32 step, u32 tag, u64 seed) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
        uint4 w = philox(make_uint4(2 * block + half, image, step, tag), seed);
        float2 lo = box_muller(w.x, w.y), hi = box_muller(w.z, w.w);
        z[4 * half] = lo.x;
        z[4 * half + 1] = lo.y;
        z[4 * half + 2] = hi.x;
        z[4 * half + 3] = hi.y;
    }
}

// Element j (0..8) of a dropout block: kept if its 16 bits lie below the threshold.
DEVICE bool keeps(uint4 words, int j, u32 threshold) {
    u32 w = j < 4 ? (j < 2 ? words.x : words.y) : (j < 6 ? words.z : words.w);
    return (w >> (16 * (j & 1)) & 0xffffu) < threshold;
}

// Where position i of 0..n goes in the shuffle of this epoch: a bijection of 0..n keyed by (key, epoch). A balanced
// Feistel network over the smallest even number of bits that holds n; what falls outside walks on.
DEVICE u64 permute(u64 i, u64 n, u64 key, u64 epoch) {
    int half = 1;
    while (half < 32 && (n - 1) >> (2 * half) != 0) half++;
    u64 mask = ((u64)1 << half) - 1, x = i;
    do {
        u64 left = x >> half, right = x & mask;
        for (u32 round = 0; round < 8; round++) {
            uint4 c = make_uint4((u32)right, (u32)epoch, (u32)(epoch >> 32), tag(Stream::Order, round));
            u64 next = left ^ (philox(c, key).x & mask);
            left = right;
            right = next;
        }
        x = left << half | right;
    } while (x >= n);
    return x;
}
