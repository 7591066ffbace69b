// matmul_mma: matmul.cu's batched products on tensor cores, bf16 with float32 sums: attention's.
//
//   matmul_mma_nt   C[m, n] (=|+=) alpha * sum over k of A[m, k] * B[n, k]     C float32
//   matmul_mma_nn   C[m, n] (=|+=) alpha * sum over k of A[m, k] * B[k, n]     C bf16
//   matmul_mma_tn   C[m, n] (=|+=) alpha * sum over k of A[k, m] * B[k, n]     C bf16
//
// Arguments  matmul.cu's: c, a, b, m, n, k, lda, ldb, ldc, batch_a, batch_b, batch_c, alpha, add.
// Layout     what is contiguous (k for rows of depth, m or n else), leading dimensions and batch strides multiples of
//            8; a and b 16-byte aligned. Otherwise any m, n, k.
// Launch     grid (ceil(m / 128), ceil(n / 128), batch), 256 threads, 96 KB (98,304 B) dynamic shared.
// Cost       2 m n k FLOP; at t = c = 256 a product is 33 MFLOP and reads 256 KB: bound by the second-level cache.
// Exactness  float32 sums in the order of k, 16 at a time.
#include "prelude/prelude.cuh"

// 128 lines of an operand, from `p` on; `lines` and `depth` exist.
struct Deep {
    const bf16* p;
    int stride, lines, depth;
    DEVICE void load(unsigned char* operand, int step) const {
        int k = step * 64 + Deepwise::part() * 8;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int line = Deepwise::line(i);
            bool inside = line < lines && k < depth;
            cp_async16(operand + Deepwise::offset(line, Deepwise::part()), inside ? p + (i64)line * stride + k : p,
                       inside ? 16 : 0);
        }
    }
    DEVICE void fragments(uint32_t (&a)[4][4], const unsigned char* operand, int k) const {
        deep_a(a, operand, warp_row(), k);
    }
    DEVICE void fragments(uint32_t (&b)[4][2], const unsigned char* operand, int k) const {
        deep_b(b, operand, warp_col(), k);
    }
};
struct Side {
    const bf16* p;
    int stride, lines, depth;
    DEVICE void load(unsigned char* operand, int step) const {
        using S = Sidewise<bf16>;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int k = step * S::depths + S::depth(i);
            bool inside = k < depth && S::first_line() < lines;
            cp_async16(operand + S::offset(S::depth(i), S::part()),
                       inside ? p + (i64)k * stride + S::first_line() : p, inside ? 16 : 0);
        }
    }
    DEVICE void fragments(uint32_t (&a)[4][4], const unsigned char* operand, int k) const {
        side_a(a, operand, warp_row(), k);
    }
    DEVICE void fragments(uint32_t (&b)[4][2], const unsigned char* operand, int k) const {
        side_b(b, operand, warp_col(), k);
    }
};

template <class A, class B, class T>
DEVICE void product(T* c, const A& load_a, const B& load_b, int m, int n, int k, int ldc, float alpha, int add) {
    EMM_DYNAMIC_SHARED(unsigned char, stages);
    float acc[4][4][4] = {};
    auto load = [&](unsigned char* stage, int step) {
        load_a.load(stage, step);
        load_b.load(stage + OPERAND, step);
    };
    pipeline(stages, ceil_div(k, 64), load, [&](const unsigned char* stage) {
#pragma unroll
        for (int kk = 0; kk < 4; kk++) {
            uint32_t a[4][4], b[4][2];
            load_a.fragments(a, stage, kk);
            load_b.fragments(b, stage + OPERAND, kk);
            mma_bf16(acc, a, b);
        }
    });
#pragma unroll
    for (int i = 0; i < 8; i++) {
        int row = blockIdx.x * LINES + warp_row() + fragment_row(i);
        if (row >= m) continue;
#pragma unroll
        for (int j = 0; j < 8; j++) {
            int col = blockIdx.y * LINES + warp_col() + fragment_col(j);
            if (col < n) put(c + (i64)row * ldc + col, alpha * acc[i / 2][j / 2][2 * (i % 2) + j % 2], add);
        }
    }
}

DEVICE Deep deep(const bf16* p, int first, int lines, int k, int ld) {
    return {p + (i64)first * ld, ld, lines - first, k};
}
DEVICE Side side(const bf16* p, int first, int lines, int k, int ld) { return {p + first, ld, lines - first, k}; }

#define MATMUL_MMA(name, layout_a, layout_b, TC)                                                                       \
    extern "C" __global__ void __launch_bounds__(256, 2)                                                              \
        name(TC* c, const bf16* __restrict__ a, const bf16* __restrict__ b, int m, int n, int k, int lda, int ldb,    \
             int ldc, i64 batch_a, i64 batch_b, i64 batch_c, float alpha, int add) {                                  \
        product(c + blockIdx.z * batch_c, layout_a(a + blockIdx.z * batch_a, blockIdx.x * LINES, m, k, lda),          \
                layout_b(b + blockIdx.z * batch_b, blockIdx.y * LINES, n, k, ldb), m, n, k, ldc, alpha, add);         \
    }                                                                                                                 \
    EMM_KERNEL(name)

MATMUL_MMA(matmul_mma_nt, deep, deep, float)
MATMUL_MMA(matmul_mma_nn, deep, side, bf16)
MATMUL_MMA(matmul_mma_tn, side, side, bf16)
