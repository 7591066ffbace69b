// linear: y = x W^T + b, optionally through SiLU, in float32. W may be the weights of several linears of the same x, one
// after another: their y lie side by side, as those of all blocks' affine(embedding) do.
//
//   linear_fwd      y[n, o] = f(sum over i of x[n, i] * w[o, i] + b[o]); z[n, o], if given, keeps the pre-activation
//   linear_bwd_silu dz[n] = dy[n] * silu'(z[n])
//   linear_wgrad    dw[o, i] (=|+=) the sum over groups of 8 images, in order, of sums over a group of dz[n, o] * x[n, i]
//
// The rest of the backward, from dz (dy itself without SiLU):
//            db = sum_rows of dz; of one linear dx = dz w by matmul_nn; of several their products by matmul_nn, all
//            neighbours of one width at once, into partials[linear, n, i], the last linear's first, and dx =
//            sum_chains of these: as if each had been added in turn.
// Launch     linear_fwd: grid (ceil(n / 64), ceil(o / 64)); linear_wgrad: grid (ceil(o / 64), ceil(i / 64)); 256 threads,
//            8.5 KB shared. linear_bwd_silu: grid ceil(count / 256), 256 threads.
// Cost       2 n i o FLOP each; forward reads w ceil(n / 64) times, from the second-level cache after the first. Floor for
//            the basic model's 21 affine (i = 512, o = 5376) at N = 512: 2.8 GFLOP at 60 TFLOP/s (H100) = 47 us, against
//            23 MB = 8 us. All three products are 0.2% of a step, so they stay off the tensor cores, and exact.
// Exactness  one fma sum a result in the order of i, then the bias; of a weight gradient one a group, in the order of
//            images: micro-batches of whole groups give the whole batch's bits.
#include "prelude/prelude.cuh"

#include "params/linear.h"

extern "C" __global__ void __launch_bounds__(BLOCK_THREADS)
    linear_fwd(const LinearFwd p) {
    const int n = p.n, o = p.o, i = p.i;
    const float *x = p.x, *w = p.w;
    float *y = p.y, *z = p.z;
    EMM_SHARED(float, tile_a, [DEPTH][PITCH]);
    EMM_SHARED(float, tile_b, [DEPTH][PITCH]);
    int n0 = blockIdx.x * TILE, o0 = blockIdx.y * TILE;
    x += (i64)n0 * i;
    w += (i64)o0 * i;
    RowsOf<float> load_x{x, i, n - n0, i, aligned4(x, i)}, load_w{w, i, o - o0, i, aligned4(w, i)};
    float acc[4][4] = {};
    gemm(acc, tile_a, tile_b, ceil_div(i, DEPTH), load_x, load_w);
    for (int r = 0; r < 4; r++) {
        int row = n0 + result_row() + r;
        if (row >= n) return;
        for (int j = 0; j < 4; j++) {
            int col = o0 + result_col() + j;
            if (col >= o) break;
            float v = acc[r][j] + p.b[col];
            i64 at = (i64)row * o + col;
            if (z) z[at] = v;
            y[at] = z ? silu(v) : v;
        }
    }
}

extern "C" __global__ void linear_bwd_silu(const LinearBwdSilu p) {
    i64 i = flat_index();
    if (i < p.count) p.dz[i] = p.dy[i] * silu_slope(p.z[i]);
}

extern "C" __global__ void __launch_bounds__(BLOCK_THREADS)
    linear_wgrad(const LinearWgrad p) {
    const int n = p.n, o = p.o, i = p.i;
    EMM_SHARED(float, tile_a, [DEPTH][PITCH]);
    EMM_SHARED(float, tile_b, [DEPTH][PITCH]);
    int o0 = blockIdx.x * TILE, i0 = blockIdx.y * TILE;
    const float *dz = p.dz + o0, *x = p.x + i0;
    ColsOf<float> load_dz{dz, o, o - o0, n, aligned4(dz, o)}, load_x{x, i, i - i0, n, aligned4(x, i)};
    float acc[4][4] = {}, sums[4][4];
    for (int r = 0; r < 4; r++)
        for (int j = 0; j < 4; j++) {
            int row = o0 + result_row() + r, col = i0 + result_col() + j;
            sums[r][j] = p.add && row < o && col < i ? p.dw[(i64)row * i + col] : 0.0f;
        }
    gemm_groups<ROUNDED_IMAGES>(acc, tile_a, tile_b, ceil_div(n, DEPTH), load_dz, load_x, [&] {
#pragma unroll
        for (int r = 0; r < 4; r++)
#pragma unroll
            for (int j = 0; j < 4; j++) {
                sums[r][j] += acc[r][j];
                acc[r][j] = 0.0f;
            }
    });
    for (int r = 0; r < 4; r++) {
        int row = o0 + result_row() + r;
        if (row >= o) return;
        for (int j = 0; j < 4; j++) {
            int col = i0 + result_col() + j;
            if (col < i) p.dw[(i64)row * i + col] = sums[r][j];
        }
    }
}
