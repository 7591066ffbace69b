// sums: the small additions that gradients of several ops share.
//
//   sum_rows     dst[c] (=|+=) scale * sum over rows of src[rows, c], and the same of dst2 and src2: gradients of biases, gamma, beta
//   sum_pixels   sums[n, c] = scale * sum over pixels of x[n, pixels, c], and, if `emb` is given, emb[n, c] (=|+=) the
//                same, rows emb_row apart
//   scaled_add   dst[i] (=|+=) scale * src[i]                                 gradient of a residual
//
// The _bf16 kernels take x, src and dst in bf16; sums and emb stay float.
//
// Launch     sum_rows: grid (ceil(columns / 32), 1 or 2), 256 threads: 32 columns x 8 warps of 4 groups of 8 rows; 4 KB
//            shared. sum_pixels: grid (ceil(channels / 32), images), 256 threads: 32 channels x 8 strides of pixels; 1 KB
//            shared. scaled_add: grid ceil(n / 1024), 256 threads, 4 elements a thread.
// Cost       reads everything once, writes once: 4 B an element read; memory-bound.
// Exactness  fixed order: groups of 8 rows (ROUNDED_IMAGES) one after another; pixels in 8 interleaved sums, added in order.
#include "prelude/prelude.cuh"

#include "params/sums.h"

extern "C" __global__ void __launch_bounds__(BLOCK_THREADS) sum_rows(const SumRows p) {
    // Each warp has 32 loads under way, since there are few blocks to hide the memory's answers.
    constexpr int EACH = 4, GROUPS = BLOCK_WARPS * EACH;
    EMM_SHARED(float, partial, [GROUPS][WARP_THREADS]);
    int lane = threadIdx.x % WARP_THREADS, warp = threadIdx.x / WARP_THREADS, c = blockIdx.x * WARP_THREADS + lane;
    float* dst = blockIdx.y ? p.dst2 : p.dst;
    const float* __restrict__ src = blockIdx.y ? p.src2 : p.src;
    float total = p.add && warp == 0 && c < p.columns ? dst[c] : 0.0f;
    for (int first = 0; first < p.rows; first += GROUPS * ROUNDED_IMAGES) {
#pragma unroll
        for (int j = 0; j < EACH; j++) {
            int group = warp + BLOCK_WARPS * j, row = first + group * ROUNDED_IMAGES;
            float sum = 0.0f;
#pragma unroll
            for (int r = 0; r < ROUNDED_IMAGES; r++)
                if (row + r < p.rows && c < p.columns) sum += src[(i64)(row + r) * p.columns + c];
            partial[group][lane] = sum;
        }
        __syncthreads();
        if (warp == 0)
            for (int g = 0; g < GROUPS && first + g * ROUNDED_IMAGES < p.rows; g++) total = fmaf(p.scale, partial[g][lane], total);
        __syncthreads();
    }
    if (warp == 0 && c < p.columns) dst[c] = total;
}

template <class T>
DEVICE void pixel_sums(const SumPixels<T>& p) {
    EMM_SHARED(float, partial, [8][32]);
    int lane = threadIdx.x % 32, stride = threadIdx.x / 32, n = blockIdx.y, c = blockIdx.x * 32 + lane;
    float sum = 0.0f;
    if (c < p.channels)
        for (int i = stride; i < p.pixels; i += 8) sum += to_float(p.x[((i64)n * p.pixels + i) * p.channels + c]);
    partial[stride][lane] = sum;
    __syncthreads();
    if (stride > 0 || c >= p.channels) return;
    for (int s = 1; s < 8; s++) sum += partial[s][lane];
    sum *= p.scale;
    p.sums[(i64)n * p.channels + c] = sum;
    if (p.emb) put(p.emb + (i64)n * p.emb_row + c, sum, p.add);
}

extern "C" __global__ void sum_pixels(const SumPixels<float> p) { pixel_sums(p); }
extern "C" __global__ void sum_pixels_bf16(const SumPixels<bf16> p) { pixel_sums(p); }

template <class T>
DEVICE void add_scaled(const ScaledAdd<T>& p) {
    i64 i = flat_index() * 4;
    if (i >= p.n) return;
    float4 v = load4(p.src + i, (int)min(p.n - i, (i64)4), aligned4(p.src, 0));
    const float vs[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int j = 0; j < 4; j++)
        if (i + j < p.n) put(p.dst + i + j, p.scale * vs[j], p.add);
}

extern "C" __global__ void scaled_add(const ScaledAdd<float> p) { add_scaled(p); }
extern "C" __global__ void scaled_add_bf16(const ScaledAdd<bf16> p) { add_scaled(p); }
