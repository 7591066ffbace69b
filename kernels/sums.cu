// sums: the small additions that gradients of several ops share.
//
//   sum_rows     dst[c] (=|+=) sum over rows, in order, of src[rows, c]      gradients of biases, gamma, beta
//   sum_pixels   sums[n, c] = scale * sum over pixels of x[n, pixels, c], and, if `emb` is given, emb[n, c] (=|+=) the
//                same, rows emb_row apart
//   scaled_add   dst[i] (=|+=) scale * src[i]                                 gradient of a residual
//
// The _bf16 kernels take x, src and dst in bf16; sums and emb stay float.
//
// Launch     sum_rows: grid ceil(columns / 256), 256 threads, a column a thread. sum_pixels: grid (ceil(channels / 32),
//            images), 256 threads: 32 channels x 8 strides of pixels; 1 KB shared. scaled_add: grid ceil(n / 1024), 256
//            threads, 4 elements a thread.
// Cost       reads everything once, writes once: 4 B an element read; memory-bound.
// Exactness  fixed order: rows one after another; pixels in 8 interleaved sums, added in order.
#include "prelude/prelude.cuh"

extern "C" __global__ void sum_rows(float* dst, const float* __restrict__ src, int rows, int columns, int add) {
    int c = (int)flat_index();
    if (c >= columns) return;
    float sum = add ? dst[c] : 0.0f;
    for (int r = 0; r < rows; r++) sum += src[(i64)r * columns + c];
    dst[c] = sum;
}
EMM_KERNEL(sum_rows)

template <class T>
DEVICE void pixel_sums(float* sums, float* emb, const T* x, int pixels, int channels, int emb_row, float scale,
                       int add) {
    EMM_SHARED(float, partial, [8][32]);
    int lane = threadIdx.x % 32, stride = threadIdx.x / 32, n = blockIdx.y, c = blockIdx.x * 32 + lane;
    float sum = 0.0f;
    if (c < channels)
        for (int p = stride; p < pixels; p += 8) sum += to_float(x[((i64)n * pixels + p) * channels + c]);
    partial[stride][lane] = sum;
    __syncthreads();
    if (stride > 0 || c >= channels) return;
    for (int s = 1; s < 8; s++) sum += partial[s][lane];
    sum *= scale;
    sums[(i64)n * channels + c] = sum;
    if (emb) put(emb + (i64)n * emb_row + c, sum, add);
}

#define SUM_PIXELS(name, T)                                                                                         \
    extern "C" __global__ void name(float* sums, float* emb, const T* __restrict__ x, int pixels, int channels,     \
                                    int emb_row, float scale, int add) {                                            \
        pixel_sums(sums, emb, x, pixels, channels, emb_row, scale, add);                                            \
    }                                                                                                               \
    EMM_KERNEL(name)

SUM_PIXELS(sum_pixels, float)
SUM_PIXELS(sum_pixels_bf16, bf16)

template <class T>
DEVICE void add_scaled(T* dst, const T* src, i64 n, float scale, int add) {
    i64 i = flat_index() * 4;
    if (i >= n) return;
    float4 v = load4(src + i, (int)min(n - i, (i64)4), aligned4(src, 0));
    const float vs[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int j = 0; j < 4; j++)
        if (i + j < n) put(dst + i + j, scale * vs[j], add);
}

#define SCALED_ADD(name, T)                                                                                         \
    extern "C" __global__ void name(T* dst, const T* __restrict__ src, i64 n, float scale, int add) {               \
        add_scaled(dst, src, n, scale, add);                                                                        \
    }                                                                                                               \
    EMM_KERNEL(name)

SCALED_ADD(scaled_add, float)
SCALED_ADD(scaled_add_bf16, bf16)
