#pragma once
#include "entry.h"

// C (=|+=) alpha * A B for a batch of small matrices.
template <class T, class C>
struct Matmul {
    C* c;
    const T* a;
    const T* b;
    i64 batch_a, batch_b, batch_c;  // words from matrix to matrix, backwards if negative
    int m, n, k;
    int lda, ldb, ldc;  // words from row to row
    float alpha;
    int add;
};
ENTRY(Fp32, matmul_nt, Matmul<float, float>)
ENTRY(Fp32, matmul_nn, Matmul<float, float>)
ENTRY(Fp32, matmul_tn, Matmul<float, float>)
ENTRY(Fp32, matmul_nt_bf16, Matmul<bf16, float>)
ENTRY(Fp32, matmul_nn_bf16, Matmul<bf16, bf16>)
ENTRY(Fp32, matmul_tn_bf16, Matmul<bf16, bf16>)
ENTRY(TensorBf16, matmul_mma_nt, Matmul<bf16, float>)
ENTRY(TensorBf16, matmul_mma_nn, Matmul<bf16, bf16>)
ENTRY(TensorBf16, matmul_mma_tn, Matmul<bf16, bf16>)
