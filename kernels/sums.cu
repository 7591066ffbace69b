// sums: the small additions that gradients of several ops share.
//
//   sum_rows     dst[c] (=|+=) sum over rows, in order, of src[rows, c]      gradients of biases, gamma, beta
//   sum_pixels   sums[n, c] = scale * sum over pixels of x[n, pixels, c], and, if `emb` is given, emb[n, c] (=|+=) the same
//   scaled_add   dst[i] (=|+=) scale * src[i]                                 gradient of a residual
//
// Launch     sum_rows: grid ceil(columns / 256), 256 threads, a column a thread.
//            sum_pixels: grid (ceil(channels / 32), images), 256 threads: 32 channels x 8 strides of pixels; 1 KB shared.
//            scaled_add: grid ceil(n / 1024), 256 threads, 4 elements a thread.
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

extern "C" __global__ void sum_pixels(float* sums, float* emb, const float* __restrict__ x, int pixels, int channels,
                                      float scale, int add) {
    EMM_SHARED(float, partial, [8][32]);
    int lane = threadIdx.x % 32, stride = threadIdx.x / 32, n = blockIdx.y, c = blockIdx.x * 32 + lane;
    float sum = 0.0f;
    if (c < channels)
        for (int p = stride; p < pixels; p += 8) sum += x[((i64)n * pixels + p) * channels + c];
    partial[stride][lane] = sum;
    __syncthreads();
    if (stride > 0 || c >= channels) return;
    for (int s = 1; s < 8; s++) sum += partial[s][lane];
    sum *= scale;
    sums[(i64)n * channels + c] = sum;
    if (emb) put(emb + (i64)n * channels + c, sum, add);
}
EMM_KERNEL(sum_pixels)

extern "C" __global__ void scaled_add(float* dst, const float* __restrict__ src, i64 n, float scale, int add) {
    i64 i = flat_index() * 4;
    if (i >= n) return;
    if (i + 4 <= n && aligned16(dst, 0) && aligned16(src, 0)) {
        float4 v = *reinterpret_cast<const float4*>(src + i);
        float4 old = add ? *reinterpret_cast<const float4*>(dst + i) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        *reinterpret_cast<float4*>(dst + i) = make_float4(fmaf(scale, v.x, old.x), fmaf(scale, v.y, old.y),
                                                          fmaf(scale, v.z, old.z), fmaf(scale, v.w, old.w));
        return;
    }
    for (i64 end = i + 4 < n ? i + 4 : n; i < end; i++) put(dst + i, scale * src[i], add);
}
EMM_KERNEL(scaled_add)
