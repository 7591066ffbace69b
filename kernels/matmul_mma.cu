// matmul_mma: matmul.cu's batched products on tensor cores, bf16 with float32 sums: attention's over more than 256 pixels.
//
//   matmul_mma_nt   C[m, n] (=|+=) alpha * sum over k of A[m, k] * B[n, k]     C float32
//   matmul_mma_nn   C[m, n] (=|+=) alpha * sum over k of A[m, k] * B[k, n]     C bf16
//   matmul_mma_tn   C[m, n] (=|+=) alpha * sum over k of A[k, m] * B[k, n]     C bf16
//
// Layout     what is contiguous (k for rows of depth, m or n else), leading dimensions and batch strides multiples of
//            8; a and b 16-byte aligned. Otherwise any m, n, k.
// Launch     grid (ceil(m / 128), ceil(n / 128), batch), 256 threads, 96 KB (98,304 B) dynamic shared.
// Cost       2 m n k FLOP; at t = 1,024, c = 256 a product is 537 MFLOP and reads 1 MB, each block 128 KB: bound by the
//            second-level cache.
// Exactness  float32 sums in the order of k, 16 at a time. They go through shared memory to rows of C, 16 bytes a store.
#include "prelude/prelude.cuh"

#include "params/matmul.h"

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

template <class A, class B, class C>
DEVICE void product(const A& load_a, const B& load_b, const Matmul<bf16, C>& p) {
    EMM_DYNAMIC_SHARED(unsigned char, stages);
    float acc[4][4][4] = {};
    auto load = [&](unsigned char* stage, int step) {
        load_a.load(stage, step);
        load_b.load(stage + MMA_OPERAND, step);
    };
    pipeline(stages, ceil_div(p.k, 64), load, [&](const unsigned char* stage) {
#pragma unroll
        for (int kk = 0; kk < 4; kk++) {
            uint32_t a[4][4], b[4][2];
            load_a.fragments(a, stage, kk);
            load_b.fragments(b, stage + MMA_OPERAND, kk);
            mma_bf16(acc, a, b);
        }
    });
    float* sums = view_as<float*>(stages);
    Sums<MMA_TILE>::put(sums, acc);
    constexpr int N = Packet<C>::count, PIECES = MMA_TILE / N;
    int col = threadIdx.x % PIECES * N, count = p.n - (int)blockIdx.y * MMA_TILE - col;
    C* to = p.c + blockIdx.z * p.batch_c + blockIdx.y * MMA_TILE + col;
    bool whole = count >= N && p.ldc % N == 0 && p.batch_c % N == 0 && ((u64)p.c & 15) == 0;
    for (int row = threadIdx.x / PIECES; row < MMA_TILE && count > 0; row += BLOCK_THREADS / PIECES) {
        int line = blockIdx.x * MMA_TILE + row;
        if (line >= p.m) return;
        Packet<C> v, old = {};
        Sums<MMA_TILE>::load(v.v, sums, row, col);
        C* at = to + (i64)line * p.ldc;
        if (whole && p.add) old = load_packet(at);
#pragma unroll
        for (int j = 0; j < N; j++) v.v[j] = fmaf(p.alpha, v.v[j], old.v[j]);
        if (whole) {
            store_packet(at, v);
        } else {
            for (int j = 0; j < min(N, count); j++) put(at + j, v.v[j], p.add);
        }
    }
}

DEVICE Deep deep(const bf16* p, int first, int lines, int k, int ld) {
    return {p + (i64)first * ld, ld, lines - first, k};
}
DEVICE Side side(const bf16* p, int first, int lines, int k, int ld) { return {p + first, ld, lines - first, k}; }

#define MATMUL_MMA(name, layout_a, layout_b, C)                                                                    \
    extern "C" __global__ void __launch_bounds__(BLOCK_THREADS, 2) name(const Matmul<bf16, C> p) {                 \
        product(layout_a(p.a + blockIdx.z * p.batch_a, blockIdx.x * MMA_TILE, p.m, p.k, p.lda),                    \
                layout_b(p.b + blockIdx.z * p.batch_b, blockIdx.y * MMA_TILE, p.n, p.k, p.ldb), p);                \
    }

MATMUL_MMA(matmul_mma_nt, deep, deep, float)
MATMUL_MMA(matmul_mma_nn, deep, side, bf16)
MATMUL_MMA(matmul_mma_tn, side, side, bf16)
