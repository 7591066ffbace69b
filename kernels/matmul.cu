// matmul: C (=|+=) alpha * A B for a batch of small matrices: attention's and linear's products, in float32.
//
//   matmul_nt   C[m, n] = sum over k of A[m, k] * B[n, k]
//   matmul_nn   C[m, n] = sum over k of A[m, k] * B[k, n]
//   matmul_tn   C[m, n] = sum over k of A[k, m] * B[k, n]
//
// The _bf16 kernels take and give what attention has in bf16: A and B, and C of nn and tn.
//
// Layout     rows contiguous; any m, n, k > 0; four elements a load where pointers and strides allow.
// Launch     grid (ceil(m / 64), ceil(n / 64), batch), 256 threads; 8.5 KB shared.
// Cost       2 m n k FLOP a matrix; reads A ceil(n / 64) times and B ceil(m / 64) times.
// Exactness  one fma sum a result in the order of k.
#include "prelude/prelude.cuh"

#include "params/matmul.h"

template <class A, class B, class T, class C>
DEVICE void product(const A& a, const B& b, const Matmul<T, C>& p) {
    EMM_SHARED(float, tile_a, [DEPTH][PITCH]);
    EMM_SHARED(float, tile_b, [DEPTH][PITCH]);
    float acc[4][4] = {};
    C* c = p.c + blockIdx.z * p.batch_c;
    gemm(acc, tile_a, tile_b, ceil_div(p.k, DEPTH), a, b);
    for (int i = 0; i < 4; i++) {
        int row = blockIdx.x * TILE + result_row() + i;
        if (row >= p.m) return;
        for (int j = 0; j < 4; j++) {
            int col = blockIdx.y * TILE + result_col() + j;
            if (col < p.n) put(c + (i64)row * p.ldc + col, p.alpha * acc[i][j], p.add);
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

#define MATMUL(name, load_a, load_b, ...)                                                                          \
    extern "C" __global__ void __launch_bounds__(BLOCK_THREADS, 5) name(const Matmul<__VA_ARGS__> p) {             \
        product(load_a(p.a, blockIdx.x * TILE, p.m, p.k, p.lda, p.batch_a),                                        \
                load_b(p.b, blockIdx.y * TILE, p.n, p.k, p.ldb, p.batch_b), p);                                    \
    }

MATMUL(matmul_nt, rows_of, rows_of, float, float)
MATMUL(matmul_nn, rows_of, cols_of, float, float)
MATMUL(matmul_tn, cols_of, cols_of, float, float)
MATMUL(matmul_nt_bf16, rows_of, rows_of, bf16, float)
MATMUL(matmul_nn_bf16, rows_of, cols_of, bf16, bf16)
MATMUL(matmul_tn_bf16, cols_of, cols_of, bf16, bf16)
