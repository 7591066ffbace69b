// attention: one head over the t pixels of an image, y = softmax(q k^T / sqrt(c)) v, and its gradient, for any t and c. The
// products are matmul.cu's, batched over images; here are the softmax's two passes over rows. In bf16, with at most 256
// pixels and both a multiple of 8, attention_mma.cu does all of it.
//
//   softmax_fwd   w[row] = softmax(w[row])             in place, rows of t
//   softmax_bwd   ds[row] = (ds[row] - ds . w) * w     in place
//
// Forward    qkv [n, t, 3c], channels [q | k | v]; w [n, t, t] is kept for the backward.
//            w = q k^T / sqrt(c) by matmul_nt; softmax_fwd; y = w v by matmul_nn
// Backward   ds [n, t, t] temporary; dq, dk, dv are columns 0, c, 2c of dqkv.
//            ds = dy v^T by matmul_nt; softmax_bwd; dv = w^T dy by matmul_tn; dq = ds k / sqrt(c) by matmul_nn;
//            dk = ds^T q / sqrt(c) by matmul_tn
// bf16       scores and ds come in float32; the _bf16 kernels give bf16, which the other products take. With c and t
//            multiples of 8 the products are matmul_mma.cu's, else matmul.cu's _bf16.
// Launch     grid ceil(rows / 8), 256 threads, a warp a row.
// Cost       forward 4 t^2 c FLOP an image, backward 8; the weights go through memory 3 times: 0.9% of a step's FLOP.
// Exactness  fixed order: 32 interleaved sums a row, then a butterfly.
#include "prelude/prelude.cuh"

#include "params/attention.h"

// w = softmax(s); s, which may be w, keeps the exponentials.
template <class T>
DEVICE void softmax(T* w, float* s, int rows, int t) {
    int row = blockIdx.x * BLOCK_WARPS + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (row >= rows) return;
    w += (i64)row * t;
    s += (i64)row * t;
    float highest = -INFINITY, sum = 0.0f;
    for (int i = lane; i < t; i += 32) highest = fmaxf(highest, s[i]);
    highest = warp_reduce(highest, Max());
    for (int i = lane; i < t; i += 32) {
        float e = exp_f32(s[i] - highest);
        s[i] = e;
        sum += e;
    }
    float inverse = 1.0f / warp_reduce(sum, Sum());
    for (int i = lane; i < t; i += 32) w[i] = from_float<T>(s[i] * inverse);
}

extern "C" __global__ void softmax_fwd(const SoftmaxFwd p) { softmax(p.w, p.w, p.rows, p.t); }

extern "C" __global__ void softmax_fwd_bf16(const SoftmaxFwdBf16 p) { softmax(p.w, p.scores, p.rows, p.t); }

template <class T>
DEVICE void softmax_gradient(T* to, const float* ds, const T* __restrict__ w, int rows, int t) {
    int row = blockIdx.x * BLOCK_WARPS + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (row >= rows) return;
    to += (i64)row * t;
    ds += (i64)row * t;
    w += (i64)row * t;
    float dot = 0.0f;
    for (int i = lane; i < t; i += 32) dot = fmaf(ds[i], to_float(w[i]), dot);
    dot = warp_reduce(dot, Sum());
    for (int i = lane; i < t; i += 32) to[i] = from_float<T>((ds[i] - dot) * to_float(w[i]));
}

extern "C" __global__ void softmax_bwd(const SoftmaxBwd p) { softmax_gradient(p.ds, p.ds, p.w, p.rows, p.t); }

extern "C" __global__ void softmax_bwd_bf16(const SoftmaxBwdBf16 p) {
    softmax_gradient(p.ds16, p.ds, p.w, p.rows, p.t);
}
