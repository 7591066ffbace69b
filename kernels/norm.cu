// norm: GroupNorm of one or two inputs (channels concatenated, never copied), then SiLU, dropout and resampling as
// asked, and its gradient; float32, any shape. This is the path for shapes that the one-pass kernels don't take.
//
//   norm_stats        stats[n, 2 groups] = mean and 1 / sqrt(variance + 1e-6) of each group
//   norm_fwd          y[n, ho, wo, c] = R(dropout(f(xhat * gamma + beta))); xr[n, ho, wo, c] = R(x) if given
//   norm_bwd_sums     sums[2, n, c]: Sum g * xhat and Sum g over pixels, g = f' * mask * R^T(dy): dgamma and dbeta of an image
//   norm_bwd_groups   means[n, groups, 2]: of gamma * g and gamma * g * xhat over a group
//   norm_bwd          dx1, dx2 (=|+=) rstd * (gamma * g - mean1 - xhat * mean2) + R^T(dxr)
//   then dgamma = sum_rows(sums[0], n, c), dbeta = sum_rows(sums[1], n, c).
//
// The _bf16 kernels (all but norm_bwd_groups) have x, xr, y and their gradients in bf16, the rest in float.
//
// Inputs     x1[n, h, w, c1], x2[n, h, w, c2] or null; channels c1 + c2 .. c are zeros of a skip switched off.
//            `how`: prelude/resample.cuh's number; R is the identity for 0, and x1 alone may be resampled.
// Arguments  NORM = x1, x2, stats, gamma, beta, n, h, w, c1, c2, c, groups, silu, how, step, first_image, layer, threshold
//            `step`: the Step on the device (its seed and step key the dropout; never read without dropout);
//            `threshold` = round((1 - p) 65536), what 16 random bits must lie below to keep an element; 0: no dropout.
//            norm_stats(stats, x1, x2, pixels, c1, c2, c, groups); norm_fwd(y, xr, NORM); norm_bwd_sums(sums, dy, NORM);
//            norm_bwd_groups(means, sums, gamma, n, c, groups, pixels); norm_bwd(dx1, dx2, dy, dxr, means, NORM, add1, add2);
//            dx1, dx2, dxr null: not wanted or not there.
// Launch     norm_stats: grid (groups, n). norm_fwd: grid ceil(n ceil(ho wo c / 8) / 256), 8 elements a thread.
//            norm_bwd_sums: grid (ceil(c / 32), n). norm_bwd_groups: grid ceil(n groups / 256).
//            norm_bwd: grid ceil(n ceil(h w c / 8) / 256). 256 threads everywhere; at most 2 KB shared.
// Cost       forward reads x 3 times and writes y; backward reads x and dy twice and writes dx: memory-bound.
//            A resampling recomputes f for every tap: up to 16 times a result, for [1,3,3,1].
// Exactness  two-pass statistics (no cancellation); fixed order, no atomics; the same masks as the CPU.
#include "prelude/prelude.cuh"

// What all these kernels read; the fields are NORM's arguments.
template <class T>
struct Norm {
    const T *x1, *x2;
    const float *stats, *gamma, *beta;
    int n, h, w, c1, c2, c, groups, silu, how;
    const Step* step;
    u32 first_image, layer, threshold;

    DEVICE float x(int image, int pixel, int ch) const {
        i64 at = (i64)image * h * w + pixel;
        if (ch < c1) return to_float(x1[at * c1 + ch]);
        return ch < c1 + c2 ? to_float(x2[at * c2 + ch - c1]) : 0.0f;
    }
    DEVICE float mean(int image, int ch) const { return stats[2 * (image * groups + ch / (c / groups))]; }
    DEVICE float rstd(int image, int ch) const { return stats[2 * (image * groups + ch / (c / groups)) + 1]; }
    // Normalised, scaled and shifted.
    DEVICE float u(int image, int ch, float x) const {
        float scale = rstd(image, ch) * gamma[ch];
        return fmaf(x - mean(image, ch), scale, beta[ch]);
    }
    // The random words of the 8 elements from 8 * block on.
    DEVICE uint4 drop_words(int image, u32 block) const {
        return philox(make_uint4(block, first_image + image, (u32)step->step, tag(Stream::Dropout, layer)), step->seed);
    }
    DEVICE float drop_factor(uint4 words, int j) const {
        return keeps(words, j, threshold) ? 65536.0f / (float)threshold : 0.0f;
    }
    // The factor of one element, where its neighbours are not at hand.
    DEVICE float mask(int image, int pixel, int ch) const {
        if (!threshold) return 1.0f;
        u32 e = (u32)pixel * c + ch;
        return drop_factor(drop_words(image, e / 8), e % 8);
    }
    // The activation before dropout and resampling.
    DEVICE float activation(int image, int pixel, int ch) const {
        float v = u(image, ch, x(image, pixel, ch));
        return silu ? ::silu(v) : v;
    }
    // Gradient that reaches (image, pixel, ch) before the normalisation; `factor`: its dropout factor.
    DEVICE float g(const T* dy, int image, int pixel, int ch, float x, float factor) const {
        int ho = out_length(how, h), wo = out_length(how, w);
        const T* d = dy + (i64)image * ho * wo * c + ch;
        float v = how == SAME ? to_float(d[(i64)pixel * c]) : resampled(how, true, pixel / w, pixel % w, ho, wo, [&](int r, int q) {
            return to_float(d[((i64)r * wo + q) * c]);
        });
        v *= factor;
        return silu ? v * silu_slope(u(image, ch, x)) : v;
    }
};

#define NORM_ARGUMENTS(T)                                                                                          \
    const T *__restrict__ x1, const T *__restrict__ x2, const float *__restrict__ stats,                           \
        const float *__restrict__ gamma, const float *__restrict__ beta, int n, int h, int w, int c1, int c2,      \
        int c, int groups, int silu, int how, const Step *__restrict__ step, u32 first_image, u32 layer, u32 threshold
#define NORM {x1, x2, stats, gamma, beta, n, h, w, c1, c2, c, groups, silu, how, step, first_image, layer, threshold}

template <class T>
DEVICE void statistics(float* stats, const T* x1, const T* x2, int pixels, int c1, int c2, int c, int groups) {
    EMM_SHARED(float, scratch, [32]);
    int per = c / groups, first = blockIdx.x * per, image = blockIdx.y, count = pixels * per;
    auto at = [&](int i) {
        i64 pixel = (i64)image * pixels + i / per;
        int ch = first + i % per;
        if (ch < c1) return to_float(x1[pixel * c1 + ch]);
        return ch < c1 + c2 ? to_float(x2[pixel * c2 + ch - c1]) : 0.0f;
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
    float* to = stats + 2 * (image * groups + blockIdx.x);
    to[0] = mean;
    to[1] = 1.0f / sqrtf(variance + 1e-6f);
}

template <class T>
DEVICE void forward(T* y, T* xr, const Norm<T>& norm) {
    const int n = norm.n, h = norm.h, w = norm.w, c = norm.c, how = norm.how, threshold = norm.threshold;
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
            y[at] = from_float<T>(threshold ? v * norm.drop_factor(words, j) : v);
        } else {
            int row = pixel / wo, col = pixel % wo;
            y[at] = from_float<T>(resampled(how, false, row, col, h, w, [&](int r, int q) {
                return norm.activation(image, r * w + q, ch) * norm.mask(image, r * w + q, ch);
            }));
            if (xr)
                xr[at] = from_float<T>(resampled(how, false, row, col, h, w,
                                                 [&](int r, int q) { return norm.x(image, r * w + q, ch); }));
        }
        if (++ch == c) ch = 0, pixel++;
    }
}

template <class T>
DEVICE void backward_sums(float* sums, const T* dy, const Norm<T>& norm) {
    EMM_SHARED(float, partial, [2][8][32]);
    const int n = norm.n, c = norm.c, pixels = norm.h * norm.w;
    int lane = threadIdx.x % 32, stride = threadIdx.x / 32, image = blockIdx.y, ch = blockIdx.x * 32 + lane;
    float sum_gx = 0.0f, sum_g = 0.0f;
    if (ch < c) {
        float mean = norm.mean(image, ch), rstd = norm.rstd(image, ch);
        for (int p = stride; p < pixels; p += 8) {
            float x = norm.x(image, p, ch);
            float g = norm.g(dy, image, p, ch, x, norm.mask(image, p, ch));
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
    sums[((i64)stride * n + image) * c + ch] = sum;
}

extern "C" __global__ void norm_bwd_groups(float* means, const float* __restrict__ sums,
                                           const float* __restrict__ gamma, int n, int c, int groups, int pixels) {
    int i = (int)flat_index();
    if (i >= n * groups) return;
    int per = c / groups, first = i % groups * per;
    const float *gx = sums + (i64)(i / groups) * c, *g = gx + (i64)n * c;
    float sum_g = 0.0f, sum_gx = 0.0f;
    for (int ch = first; ch < first + per; ch++) {
        sum_g = fmaf(gamma[ch], g[ch], sum_g);
        sum_gx = fmaf(gamma[ch], gx[ch], sum_gx);
    }
    float count = (float)pixels * per;
    means[2 * i] = sum_g / count;
    means[2 * i + 1] = sum_gx / count;
}
EMM_KERNEL(norm_bwd_groups)

template <class T>
DEVICE void backward(T* dx1, T* dx2, const T* dy, const T* dxr, const float* means, const Norm<T>& norm, int add1,
                     int add2) {
    const int n = norm.n, h = norm.h, w = norm.w, c1 = norm.c1, c2 = norm.c2, c = norm.c, how = norm.how;
    const u32 threshold = norm.threshold;
    int size = h * w * c, blocks = ceil_div(size, 8);
    i64 i = flat_index();
    if (i >= (i64)n * blocks) return;
    int image = (int)(i / blocks), e = (int)(i % blocks) * 8, pixel = e / c, ch = e % c;
    uint4 words = make_uint4(0, 0, 0, 0);
    if (threshold) words = norm.drop_words(image, e / 8);
    for (int j = 0; j < 8 && e + j < size; j++) {
        i64 at = (i64)image * h * w + pixel;
        T* to = ch < c1 ? dx1 : (ch < c1 + c2 ? dx2 : nullptr);
        if (to) {
            to += ch < c1 ? at * c1 + ch : at * c2 + ch - c1;
            float x = norm.x(image, pixel, ch), rstd = norm.rstd(image, ch);
            float g = norm.g(dy, image, pixel, ch, x, threshold ? norm.drop_factor(words, j) : 1.0f);
            const float* m = means + 2 * (image * norm.groups + ch / (c / norm.groups));
            float xhat = (x - norm.mean(image, ch)) * rstd;
            float dx = rstd * (norm.gamma[ch] * g - m[0] - xhat * m[1]);
            if (dxr) {
                int ho = out_length(how, h), wo = out_length(how, w);
                const T* d = dxr + (i64)image * ho * wo * c + ch;
                dx += resampled(how, true, pixel / w, pixel % w, ho, wo,
                                [&](int r, int q) { return to_float(d[((i64)r * wo + q) * c]); });
            }
            put(to, dx, ch < c1 ? add1 : add2);
        }
        if (++ch == c) ch = 0, pixel++;
    }
}

#define KERNELS(T, stats_name, fwd_name, sums_name, bwd_name)                                                       \
    extern "C" __global__ void stats_name(float* stats, const T* __restrict__ x1, const T* __restrict__ x2,         \
                                          int pixels, int c1, int c2, int c, int groups) {                          \
        statistics(stats, x1, x2, pixels, c1, c2, c, groups);                                                       \
    }                                                                                                               \
    EMM_KERNEL(stats_name)                                                                                          \
    extern "C" __global__ void fwd_name(T* y, T* xr, NORM_ARGUMENTS(T)) {                                           \
        Norm<T> norm NORM;                                                                                          \
        forward(y, xr, norm);                                                                                       \
    }                                                                                                               \
    EMM_KERNEL(fwd_name)                                                                                            \
    extern "C" __global__ void sums_name(float* sums, const T* __restrict__ dy, NORM_ARGUMENTS(T)) {                \
        Norm<T> norm NORM;                                                                                          \
        backward_sums(sums, dy, norm);                                                                              \
    }                                                                                                               \
    EMM_KERNEL(sums_name)                                                                                           \
    extern "C" __global__ void bwd_name(T* dx1, T* dx2, const T* __restrict__ dy, const T* __restrict__ dxr,        \
                                        const float* __restrict__ means, NORM_ARGUMENTS(T), int add1, int add2) {   \
        Norm<T> norm NORM;                                                                                          \
        backward(dx1, dx2, dy, dxr, means, norm, add1, add2);                                                       \
    }                                                                                                               \
    EMM_KERNEL(bwd_name)

KERNELS(float, norm_stats, norm_fwd, norm_bwd_sums, norm_bwd)
KERNELS(bf16, norm_stats_bf16, norm_fwd_bf16, norm_bwd_sums_bf16, norm_bwd_bf16)
