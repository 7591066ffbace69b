// attention: one head over the t pixels of an image, y = softmax(q k^T / sqrt(c)) v, and its gradient, in float32 for
// any t and c. The products are matmul.cu's, batched over images; here are the softmax's two passes over rows.
//
//   softmax_fwd   w[row] = softmax(w[row])             in place, rows of t
//   softmax_bwd   ds[row] = (ds[row] - ds . w) * w     in place
//
// Forward    qkv [n, t, 3c], channels [q | k | v]; w [n, t, t] is kept for the backward.
//            matmul_nt(w, q, k, t, t, c, 3c, 3c, t, 3tc, 3tc, t^2, 1/sqrt(c), 0); softmax_fwd(w, n t, t);
//            matmul_nn(y, w, v, t, c, t, t, 3c, c, t^2, 3tc, tc, 1, 0)
// Backward   ds [n, t, t] temporary; dq, dk, dv are columns 0, c, 2c of dqkv.
//            matmul_nt(ds, dy, v, t, t, c, c, 3c, t, tc, 3tc, t^2, 1, 0); softmax_bwd(ds, w, n t, t);
//            matmul_tn(dv, w, dy, t, c, t, t, c, 3c, t^2, tc, 3tc, 1, add)
//            matmul_nn(dq, ds, k, t, c, t, t, 3c, 3c, t^2, 3tc, 3tc, 1/sqrt(c), add)
//            matmul_tn(dk, ds, q, t, c, t, t, 3c, 3c, t^2, 3tc, 3tc, 1/sqrt(c), add)
// bf16       scores and ds come in float32; softmax_fwd_bf16(w, scores) and softmax_bwd_bf16(ds16, ds, w) give bf16,
//            which the other products take. With c and t multiples of 8 the products are matmul_mma.cu's, else
//            matmul.cu's _bf16; the arguments are the same.
// Arguments  softmax_fwd(w, rows, t); softmax_bwd(ds, w, rows, t); softmax_fwd_bf16(w, scores, rows, t), scores are
//            used up; softmax_bwd_bf16(ds16, ds, w, rows, t).
// Launch     grid ceil(rows / 8), 256 threads, a warp a row.
// Cost       forward 4 t^2 c FLOP an image, backward 8; the weights go through memory 3 times: 0.9% of a step's FLOP.
// Exactness  fixed order: 32 interleaved sums a row, then a butterfly.
#include "prelude/prelude.cuh"

// w = softmax(s); s, which may be w, keeps the exponentials.
template <class T>
DEVICE void softmax(T* w, float* s, int rows, int t) {
    int row = blockIdx.x * 8 + threadIdx.x / 32, lane = threadIdx.x % 32;
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

extern "C" __global__ void softmax_fwd(float* w, int rows, int t) { softmax(w, w, rows, t); }
EMM_KERNEL(softmax_fwd)

extern "C" __global__ void softmax_fwd_bf16(bf16* w, float* scores, int rows, int t) { softmax(w, scores, rows, t); }
EMM_KERNEL(softmax_fwd_bf16)

template <class T>
DEVICE void softmax_gradient(T* to, const float* ds, const T* w, int rows, int t) {
    int row = blockIdx.x * 8 + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (row >= rows) return;
    to += (i64)row * t;
    ds += (i64)row * t;
    w += (i64)row * t;
    float dot = 0.0f;
    for (int i = lane; i < t; i += 32) dot = fmaf(ds[i], to_float(w[i]), dot);
    dot = warp_reduce(dot, Sum());
    for (int i = lane; i < t; i += 32) to[i] = from_float<T>((ds[i] - dot) * to_float(w[i]));
}

extern "C" __global__ void softmax_bwd(float* ds, const float* __restrict__ w, int rows, int t) {
    softmax_gradient(ds, ds, w, rows, t);
}
EMM_KERNEL(softmax_bwd)

extern "C" __global__ void softmax_bwd_bf16(bf16* ds16, const float* __restrict__ ds, const bf16* __restrict__ w,
                                            int rows, int t) {
    softmax_gradient(ds16, ds, w, rows, t);
}
EMM_KERNEL(softmax_bwd_bf16)
