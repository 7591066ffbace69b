// norm: GroupNorm of one or two inputs (channels concatenated, never copied), then SiLU, dropout and resampling as
// asked, and its gradient; float32, any shape. This is the path for shapes that the one-pass kernels don't take.
//
//   norm_stats        stats[n, 2 groups] = mean and 1 / sqrt(variance + 1e-6) of each group
//   norm_fwd          y[n, ho, wo, c] = R(dropout(f(xhat * gamma + beta))); xr[n, ho, wo, c] = R(x) if given
//   norm_bwd_sums     sums[2, n, c]: Sum g * xhat and Sum g over pixels, g = f' * mask * R^T(dy): dgamma and dbeta of
//                     an image
//   norm_bwd_groups   means[n, groups, 2]: of gamma * g and gamma * g * xhat over a group
//   norm_bwd          dx1, dx2 (=|+=) rstd * (gamma * g - mean1 - xhat * mean2) + R^T(dxr)
//   then dgamma = sum_rows(sums[0], n, c), dbeta = sum_rows(sums[1], n, c).
//
// The _bf16 kernels (all but norm_bwd_groups) have x, xr, y and their gradients in bf16, the rest in float.
//
// Inputs     x1[n, h, w, c1], x2[n, h, w, c2] or null; channels c1 + c2 .. c are zeros of a skip switched off.
//            R is the identity where `how` is 0, and x1 alone may be resampled.
// Launch     norm_stats: grid (groups, n). norm_fwd: grid ceil(n ceil(ho wo c / 8) / 256), 8 elements a thread.
//            norm_bwd_sums: grid (ceil(c / 32), n). norm_bwd_groups: grid ceil(n groups / 256).
//            norm_bwd: grid ceil(n ceil(h w c / 8) / 256). 256 threads everywhere; at most 2 KB shared.
// Cost       forward reads x 3 times and writes y; backward reads x and dy twice and writes dx: memory-bound.
//            A resampling recomputes f for every tap: up to 16 times a result, for [1,3,3,1].
// Exactness  two-pass statistics (no cancellation); fixed order, no atomics; the same masks as the CPU.
#include "prelude/prelude.cuh"

#include "params/norm.h"

// What all these kernels read, and the statistics.
template <class T>
struct Norm {
    const NormOf<T>& of;
    const float* stats;

    DEVICE float x(int image, int pixel, int ch) const {
        i64 at = (i64)image * of.h * of.w + pixel;
        if (ch < of.c1) return to_float(of.x1[at * of.c1 + ch]);
        return ch < of.c1 + of.c2 ? to_float(of.x2[at * of.c2 + ch - of.c1]) : 0.0f;
    }
    DEVICE float mean(int image, int ch) const { return stats[2 * (image * of.groups + ch / (of.c / of.groups))]; }
    DEVICE float rstd(int image, int ch) const { return stats[2 * (image * of.groups + ch / (of.c / of.groups)) + 1]; }
    // Normalised, scaled and shifted.
    DEVICE float u(int image, int ch, float x) const {
        float scale = rstd(image, ch) * of.gamma[ch];
        return fmaf(x - mean(image, ch), scale, of.beta[ch]);
    }
    // The random words of the 8 elements from 8 * block on.
    DEVICE uint4 drop_words(int image, u32 block) const {
        uint4 counter = make_uint4(block, of.first_image + image, (u32)of.step->step, tag(Stream::Dropout, of.layer));
        return philox(counter, of.step->seed);
    }
    DEVICE float drop_factor(uint4 words, int j) const {
        return keeps(words, j, of.threshold) ? 65536.0f / (float)of.threshold : 0.0f;
    }
    // The factor of one element, where its neighbours are not at hand.
    DEVICE float mask(int image, int pixel, int ch) const {
        if (!of.threshold) return 1.0f;
        u32 e = (u32)pixel * of.c + ch;
        return drop_factor(drop_words(image, e / 8), e % 8);
    }
    // The activation before dropout and resampling.
    DEVICE float activation(int image, int pixel, int ch) const {
        float v = u(image, ch, x(image, pixel, ch));
        return of.silu ? ::silu(v) : v;
    }
    // Gradient that reaches (image, pixel, ch) before the normalisation; `factor`: its dropout factor.
    DEVICE float g(const T* dy, int image, int pixel, int ch, float x, float factor) const {
        int ho = out_length(of.how, of.h), wo = out_length(of.how, of.w);
        const T* d = dy + (i64)image * ho * wo * of.c + ch;
        auto at = [&](int r, int q) { return to_float(d[((i64)r * wo + q) * of.c]); };
        float v = of.how == SAME ? at(0, pixel) : resampled(of.how, true, pixel / of.w, pixel % of.w, ho, wo, at);
        v *= factor;
        return of.silu ? v * silu_slope(u(image, ch, x)) : v;
    }
};

template <class T>
DEVICE void statistics(const NormStats<T>& p) {
    EMM_SHARED(float, scratch, [32]);
    const int pixels = p.pixels, c1 = p.c1, c2 = p.c2, groups = p.groups;
    int per = p.c / groups, first = blockIdx.x * per, image = blockIdx.y, count = pixels * per;
    auto at = [&](int i) {
        i64 pixel = (i64)image * pixels + i / per;
        int ch = first + i % per;
        if (ch < c1) return to_float(p.x1[pixel * c1 + ch]);
        return ch < c1 + c2 ? to_float(p.x2[pixel * c2 + ch - c1]) : 0.0f;
    };
    float sum = 0.0f;
    for (int i = threadIdx.x; i < count; i += blockDim.x) sum += at(i);
    float mean = block_sum(sum, scratch) / count;
    float squares = 0.0f;
    for (int i = threadIdx.x; i < count; i += blockDim.x) {
        float d = at(i) - mean;
        squares = fmaf(d, d, squares);
    }
    float variance = block_sum(squares, scratch) / count;
    if (threadIdx.x > 0) return;
    float* to = p.stats + 2 * (image * groups + blockIdx.x);
    to[0] = mean;
    to[1] = 1.0f / sqrtf(variance + 1e-6f);
}

template <class T>
DEVICE void forward(const NormFwd<T>& p) {
    const Norm<T> norm{p.of, p.stats};
    const int n = p.of.n, h = p.of.h, w = p.of.w, c = p.of.c, how = p.of.how, threshold = p.of.threshold;
    int ho = out_length(how, h), wo = out_length(how, w), size = ho * wo * c, blocks = ceil_div(size, 8);
    i64 i = flat_index();
    if (i >= (i64)n * blocks) return;
    int image = (int)(i / blocks), e = (int)(i % blocks) * 8, pixel = e / c, ch = e % c;
    uint4 words = make_uint4(0, 0, 0, 0);
    if (threshold && how == SAME) words = norm.drop_words(image, e / 8);
    for (int j = 0; j < 8 && e + j < size; j++) {
        i64 at = (i64)image * size + e + j;
        if (how == SAME) {
            float v = norm.activation(image, pixel, ch);
            p.y[at] = from_float<T>(threshold ? v * norm.drop_factor(words, j) : v);
        } else {
            int row = pixel / wo, col = pixel % wo;
            p.y[at] = from_float<T>(resampled(how, false, row, col, h, w, [&](int r, int q) {
                return norm.activation(image, r * w + q, ch) * norm.mask(image, r * w + q, ch);
            }));
            if (p.xr)
                p.xr[at] = from_float<T>(resampled(how, false, row, col, h, w,
                                                 [&](int r, int q) { return norm.x(image, r * w + q, ch); }));
        }
        if (++ch == c) ch = 0, pixel++;
    }
}

template <class T>
DEVICE void backward_sums(const NormBwdSums<T>& p) {
    EMM_SHARED(float, partial, [2][8][32]);
    const Norm<T> norm{p.of, p.stats};
    const int n = p.of.n, c = p.of.c, pixels = p.of.h * p.of.w;
    int lane = threadIdx.x % 32, stride = threadIdx.x / 32, image = blockIdx.y, ch = blockIdx.x * 32 + lane;
    float sum_gx = 0.0f, sum_g = 0.0f;
    if (ch < c) {
        float mean = norm.mean(image, ch), rstd = norm.rstd(image, ch);
        for (int i = stride; i < pixels; i += 8) {
            float x = norm.x(image, i, ch);
            float g = norm.g(p.dy, image, i, ch, x, norm.mask(image, i, ch));
            sum_gx = fmaf(g, (x - mean) * rstd, sum_gx);
            sum_g += g;
        }
    }
    partial[0][stride][lane] = sum_gx;
    partial[1][stride][lane] = sum_g;
    __syncthreads();
    if (stride > 1 || ch >= c) return;
    float sum = 0.0f;
    for (int s = 0; s < 8; s++) sum += partial[stride][s][lane];
    p.sums[((i64)stride * n + image) * c + ch] = sum;
}

extern "C" __global__ void norm_bwd_groups(const NormBwdGroups p) {
    int i = (int)flat_index();
    if (i >= p.n * p.groups) return;
    int per = p.c / p.groups, first = i % p.groups * per;
    const float *gamma = p.gamma, *gx = p.sums + (i64)(i / p.groups) * p.c, *g = gx + (i64)p.n * p.c;
    float sum_g = 0.0f, sum_gx = 0.0f;
    for (int ch = first; ch < first + per; ch++) {
        sum_g = fmaf(gamma[ch], g[ch], sum_g);
        sum_gx = fmaf(gamma[ch], gx[ch], sum_gx);
    }
    float count = (float)p.pixels * per;
    p.means[2 * i] = sum_g / count;
    p.means[2 * i + 1] = sum_gx / count;
}

template <class T>
DEVICE void backward(const NormBwd<T>& p) {
    const Norm<T> norm{p.of, p.stats};
    const T *__restrict__ dy = p.dy, *__restrict__ dxr = p.dxr;
    const float *__restrict__ means = p.means, *__restrict__ gamma = p.of.gamma;
    const int n = p.of.n, h = p.of.h, w = p.of.w, c1 = p.of.c1, c2 = p.of.c2, c = p.of.c, how = p.of.how;
    const u32 threshold = p.of.threshold;
    int size = h * w * c, blocks = ceil_div(size, 8);
    i64 i = flat_index();
    if (i >= (i64)n * blocks) return;
    int image = (int)(i / blocks), e = (int)(i % blocks) * 8, pixel = e / c, ch = e % c;
    uint4 words = make_uint4(0, 0, 0, 0);
    if (threshold) words = norm.drop_words(image, e / 8);
    for (int j = 0; j < 8 && e + j < size; j++) {
        i64 at = (i64)image * h * w + pixel;
        T* to = ch < c1 ? p.dx1 : (ch < c1 + c2 ? p.dx2 : nullptr);
        if (to) {
            to += ch < c1 ? at * c1 + ch : at * c2 + ch - c1;
            float x = norm.x(image, pixel, ch), rstd = norm.rstd(image, ch);
            float g = norm.g(dy, image, pixel, ch, x, threshold ? norm.drop_factor(words, j) : 1.0f);
            const float* m = means + 2 * (image * p.of.groups + ch / (c / p.of.groups));
            float xhat = (x - norm.mean(image, ch)) * rstd;
            float dx = rstd * (gamma[ch] * g - m[0] - xhat * m[1]);
            if (dxr) {
                int ho = out_length(how, h), wo = out_length(how, w);
                const T* d = dxr + (i64)image * ho * wo * c + ch;
                dx += resampled(how, true, pixel / w, pixel % w, ho, wo,
                                [&](int r, int q) { return to_float(d[((i64)r * wo + q) * c]); });
            }
            put(to, dx, ch < c1 ? p.add1 : p.add2);
        }
        if (++ch == c) ch = 0, pixel++;
    }
}

extern "C" __global__ void norm_stats(const NormStats<float> p) { statistics(p); }
extern "C" __global__ void norm_stats_bf16(const NormStats<bf16> p) { statistics(p); }

extern "C" __global__ void norm_fwd(const NormFwd<float> p) { forward(p); }
extern "C" __global__ void norm_fwd_bf16(const NormFwd<bf16> p) { forward(p); }

extern "C" __global__ void norm_bwd_sums(const NormBwdSums<float> p) { backward_sums(p); }
extern "C" __global__ void norm_bwd_sums_bf16(const NormBwdSums<bf16> p) { backward_sums(p); }

extern "C" __global__ void norm_bwd(const NormBwd<float> p) { backward(p); }
extern "C" __global__ void norm_bwd_bf16(const NormBwd<bf16> p) { backward(p); }
