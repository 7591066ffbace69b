// linear: y = x W^T + b, optionally through SiLU, in float32.
//
//   linear_fwd      y[n, o] = f(sum over i of x[n, i] * w[o, i] + b[o]); z[n, o], if given, keeps the pre-activation
//   linear_bwd_silu dz[n] = dy[n] * silu'(z[n])
//
// Arguments  linear_fwd(y, z, x, w, b, n, o, i): z null gives y = xW^T + b, else y = silu(z).
//            linear_bwd_silu(dz, dy, z, count).
// The rest of the backward, from dz (dy itself without SiLU):
//            dx = matmul_nn(dx, dz, w, n, i, o, o, i, i), dw = matmul_tn(dw, dz, x, o, i, n, o, i, i),
//            db = sum_rows(db, dz, n, o).
// Launch     linear_fwd: grid (ceil(n / 64), ceil(o / 64)), 256 threads; 8.5 KB shared.
//            linear_bwd_silu: grid ceil(count / 256), 256 threads.
// Cost       2 n i o FLOP; w is read ceil(n / 64) times. At N = 512 one product of the basic model is 0.27 GFLOP.
// Exactness  one fma sum a result in the order of i, then the bias.
#include "prelude/prelude.cuh"

extern "C" __global__ void __launch_bounds__(256)
    linear_fwd(float* y, float* z, const float* __restrict__ x, const float* __restrict__ w, const float* __restrict__ b,
               int n, int o, int i) {
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
            float v = acc[r][j] + b[col];
            i64 at = (i64)row * o + col;
            if (z) z[at] = v;
            y[at] = z ? silu(v) : v;
        }
    }
}
EMM_KERNEL(linear_fwd)

extern "C" __global__ void linear_bwd_silu(float* dz, const float* __restrict__ dy, const float* __restrict__ z,
                                           i64 count) {
    i64 i = flat_index();
    if (i < count) dz[i] = dy[i] * silu_slope(z[i]);
}
EMM_KERNEL(linear_bwd_silu)
