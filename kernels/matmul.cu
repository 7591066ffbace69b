// matmul: C (=|+=) alpha * A B for a batch of small matrices: attention's and linear's products, in float32.
//
//   matmul_nt   C[m, n] = sum over k of A[m, k] * B[n, k]
//   matmul_nn   C[m, n] = sum over k of A[m, k] * B[k, n]
//   matmul_tn   C[m, n] = sum over k of A[k, m] * B[k, n]
//
// The _bf16 kernels take and give what attention has in bf16: A and B, and C of nn and tn.
//
// Arguments  c, a, b pointers; m, n, k; lda, ldb, ldc: words from row to row; batch_a, batch_b, batch_c: words from
//            matrix to matrix, backwards if negative; alpha; add.
// Layout     rows contiguous; any m, n, k > 0; four elements a load where pointers and strides allow.
// Launch     grid (ceil(m / 64), ceil(n / 64), batch), 256 threads; 8.5 KB shared.
// Cost       2 m n k FLOP a matrix; reads A ceil(n / 64) times and B ceil(m / 64) times.
// Exactness  one fma sum a result in the order of k.
#include "prelude/prelude.cuh"

template <class A, class B, class T>
DEVICE void product(T* c, const A& a, const B& b, int m, int n, int k, int ldc, float alpha, int add) {
    EMM_SHARED(float, tile_a, [DEPTH][PITCH]);
    EMM_SHARED(float, tile_b, [DEPTH][PITCH]);
    float acc[4][4] = {};
    gemm(acc, tile_a, tile_b, ceil_div(k, DEPTH), a, b);
    for (int i = 0; i < 4; i++) {
        int row = blockIdx.x * TILE + result_row() + i;
        if (row >= m) return;
        for (int j = 0; j < 4; j++) {
            int col = blockIdx.y * TILE + result_col() + j;
            if (col < n) put(c + (i64)row * ldc + col, alpha * acc[i][j], add);
        }
    }
}

// Each kernel loads rows or columns of its operands: RowsOf where the depth is contiguous, ColsOf where the line is.
template <class T>
DEVICE RowsOf<T> rows_of(const T* p, int first, int lines, int k, int ld, i64 batch) {
    p += blockIdx.z * batch + (i64)first * ld;
    return {p, ld, lines - first, k, aligned4(p, ld)};
}
template <class T>
DEVICE ColsOf<T> cols_of(const T* p, int first, int lines, int k, int ld, i64 batch) {
    p += blockIdx.z * batch + first;
    return {p, ld, lines - first, k, aligned4(p, ld)};
}

#define MATMUL(name, TA, load_a, TB, load_b, TC)                                                                   \
    extern "C" __global__ void __launch_bounds__(256)                                                              \
        name(TC* c, const TA* __restrict__ a, const TB* __restrict__ b, int m, int n, int k, int lda, int ldb,     \
             int ldc, i64 batch_a, i64 batch_b, i64 batch_c, float alpha, int add) {                               \
        product(c + blockIdx.z * batch_c, load_a(a, blockIdx.x * TILE, m, k, lda, batch_a),                        \
                load_b(b, blockIdx.y * TILE, n, k, ldb, batch_b), m, n, k, ldc, alpha, add);                       \
    }                                                                                                              \
    EMM_KERNEL(name)

MATMUL(matmul_nt, float, rows_of, float, rows_of, float)
MATMUL(matmul_nn, float, rows_of, float, cols_of, float)
MATMUL(matmul_tn, float, cols_of, float, cols_of, float)
MATMUL(matmul_nt_bf16, bf16, rows_of, bf16, rows_of, float)
MATMUL(matmul_nn_bf16, bf16, rows_of, bf16, cols_of, bf16)
MATMUL(matmul_tn_bf16, bf16, cols_of, bf16, cols_of, bf16)
