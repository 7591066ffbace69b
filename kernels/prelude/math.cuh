// Elementwise functions. `exp_f32` is the CPU device's polynomial, so that both round alike; std expf would do as well.
#pragma once

// e^x to about 1 ulp for |x| <= 87; clamped outside. NaN stays NaN.
DEVICE float exp_f32(float x) {
    x = x < -87.0f ? -87.0f : (x > 87.0f ? 87.0f : x);
    // 1.5 * 2^23 rounds x / ln 2 to an integer that lands in the low bits of the sum.
    const float magic = 12582912.0f;
    float shifted = fmaf(x, 1.44269504f, magic);
    float n = __fsub_rn(shifted, magic);
    // ln 2 in two parts, so that r is exact to the last bits.
    float r = fmaf(n, -0.6933594f, x);
    r = fmaf(n, 2.1219444e-4f, r);
    float p = 1.9875691e-4f;
    p = fmaf(p, r, 1.3981999e-3f);
    p = fmaf(p, r, 8.333452e-3f);
    p = fmaf(p, r, 4.1665796e-2f);
    p = fmaf(p, r, 1.6666665e-1f);
    p = fmaf(p, r, 0.5f);
    float y = __fadd_rn(fmaf(__fmul_rn(p, r), r, r), 1.0f);
    return __fmul_rn(y, __uint_as_float((__float_as_uint(shifted) << 23) + 0x3f800000u));
}

constexpr float LOG2_E = 1.44269504f;

// Sigmoid, SiLU and its slope take one instruction each for 2^x and 1 / x, which approximate. Their error is at most
// (2 |x| + 8) 2^-24 of the value, of the slope that much of the sum of its two terms' sizes; what would be below 2^-125
// may be 0. NaN stays NaN; silu(-inf) is NaN too.
DEVICE float sigmoid(float x) { return rcp_approx(1.0f + ex2_approx(-LOG2_E * x)); }

DEVICE float silu(float x) { return x * sigmoid(x); }

// d silu(x) / dx = s + s x (1 - s) with s = 1 / (1 + e) and 1 - s = e s, which is exact where s rounds to 1. The bound on
// e keeps e s from being inf * 0; NaN goes by the other factor.
DEVICE float silu_slope(float x) {
    float e = ex2_approx(fminf(-LOG2_E * x, 126.0f));
    float s = rcp_approx(1.0f + e);
    return s * fmaf(x, e * s, 1.0f);
}
