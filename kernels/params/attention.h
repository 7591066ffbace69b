#pragma once
#include "entry.h"

struct SoftmaxFwd {
    float* w;
    int rows, t;
};
ENTRY(Fp32, softmax_fwd, SoftmaxFwd)

struct SoftmaxFwdBf16 {
    bf16* w;
    float* scores;  // used up
    int rows, t;
};
ENTRY(Fp32, softmax_fwd_bf16, SoftmaxFwdBf16)

struct SoftmaxBwd {
    float* ds;
    const float* w;
    int rows, t;
};
ENTRY(Fp32, softmax_bwd, SoftmaxBwd)

struct SoftmaxBwdBf16 {
    bf16* ds16;
    const float* ds;
    const bf16* w;
    int rows, t;
};
ENTRY(Fp32, softmax_bwd_bf16, SoftmaxBwdBf16)

struct AttentionFwd {
    bf16* y;
    bf16* w;
    const bf16* qkv;
    int t, c;
    int stages;  // of the rings: 2 or 3
    float scale;  // 1 / sqrt(c)
};
ENTRY(TensorBf16, attention_mma_fwd, AttentionFwd)

struct AttentionBwdQueries {
    bf16* dqkv;  // q's columns of it are written
    bf16* ds;
    const bf16* qkv;
    const bf16* w;
    const bf16* dy;
    int t, c;
    int stages;
    float scale;
    int add;
};
ENTRY(TensorBf16, attention_mma_bwd_queries, AttentionBwdQueries)

struct AttentionBwdKeys {
    bf16* dqkv;  // the columns of k and v are written
    const bf16* qkv;
    const bf16* w;
    const bf16* ds;
    const bf16* dy;
    int t, c;
    int stages;
    float scale;
    int add;
};
ENTRY(TensorBf16, attention_mma_bwd_keys, AttentionBwdKeys)
