// matmul: C (=|+=) alpha * A B for a batch of small matrices: attention's and linear's products, in float32.
//
//   matmul_nt   C[m, n] = sum over k of A[m, k] * B[n, k]
//   matmul_nn   C[m, n] = sum over k of A[m, k] * B[k, n]
//   matmul_tn   C[m, n] = sum over k of A[k, m] * B[k, n]
//
// Arguments  c, a, b pointers; m, n, k; lda, ldb, ldc: words from row to row; batch_a, batch_b, batch_c: words from
//            matrix to matrix; alpha; add.
// Layout     rows contiguous; any m, n, k > 0; 16-byte loads where pointers and strides allow.
// Launch     grid (ceil(m / 64), ceil(n / 64), batch), 256 threads; 8.5 KB shared.
// Cost       2 m n k FLOP a matrix; reads A ceil(n / 64) times and B ceil(m / 64) times.
// Exactness  one fma sum a result in the order of k.
#include "prelude/prelude.cuh"

// Writes a thread's results.
DEVICE void write_tile(float* c, const float (&acc)[4][4], int m, int n, int ldc, float alpha, int add) {
    for (int i = 0; i < 4; i++) {
        int row = blockIdx.x * TILE + result_row() + i;
        if (row >= m) return;
        for (int j = 0; j < 4; j++) {
            int col = blockIdx.y * TILE + result_col() + j;
            if (col < n) put(c + (i64)row * ldc + col, alpha * acc[i][j], add);
        }
    }
}

template <class A, class B>
DEVICE void product(float* c, A a, B b, int m, int n, int k, int ldc, float alpha, int add) {
    EMM_SHARED(float, tile_a, [DEPTH][PITCH]);
    EMM_SHARED(float, tile_b, [DEPTH][PITCH]);
    float acc[4][4] = {};
    gemm(acc, tile_a, tile_b, ceil_div(k, DEPTH), a, b);
    write_tile(c, acc, m, n, ldc, alpha, add);
}

extern "C" __global__ void __launch_bounds__(256)
    matmul_nt(float* c, const float* __restrict__ a, const float* __restrict__ b, int m, int n, int k, int lda, int ldb,
              int ldc, i64 batch_a, i64 batch_b, i64 batch_c, float alpha, int add) {
    int m0 = blockIdx.x * TILE, n0 = blockIdx.y * TILE;
    a += blockIdx.z * batch_a + (i64)m0 * lda;
    b += blockIdx.z * batch_b + (i64)n0 * ldb;
    RowsOf load_a{a, lda, m - m0, k, aligned16(a, lda)}, load_b{b, ldb, n - n0, k, aligned16(b, ldb)};
    product(c + blockIdx.z * batch_c, load_a, load_b, m, n, k, ldc, alpha, add);
}
EMM_KERNEL(matmul_nt)

extern "C" __global__ void __launch_bounds__(256)
    matmul_nn(float* c, const float* __restrict__ a, const float* __restrict__ b, int m, int n, int k, int lda, int ldb,
              int ldc, i64 batch_a, i64 batch_b, i64 batch_c, float alpha, int add) {
    int m0 = blockIdx.x * TILE, n0 = blockIdx.y * TILE;
    a += blockIdx.z * batch_a + (i64)m0 * lda;
    b += blockIdx.z * batch_b + n0;
    RowsOf load_a{a, lda, m - m0, k, aligned16(a, lda)};
    ColsOf load_b{b, ldb, n - n0, k, aligned16(b, ldb)};
    product(c + blockIdx.z * batch_c, load_a, load_b, m, n, k, ldc, alpha, add);
}
EMM_KERNEL(matmul_nn)

extern "C" __global__ void __launch_bounds__(256)
    matmul_tn(float* c, const float* __restrict__ a, const float* __restrict__ b, int m, int n, int k, int lda, int ldb,
              int ldc, i64 batch_a, i64 batch_b, i64 batch_c, float alpha, int add) {
    int m0 = blockIdx.x * TILE, n0 = blockIdx.y * TILE;
    a += blockIdx.z * batch_a + m0;
    b += blockIdx.z * batch_b + n0;
    ColsOf load_a{a, lda, m - m0, k, aligned16(a, lda)}, load_b{b, ldb, n - n0, k, aligned16(b, ldb)};
    product(c + blockIdx.z * batch_c, load_a, load_b, m, n, k, ldc, alpha, add);
}
EMM_KERNEL(matmul_tn)
