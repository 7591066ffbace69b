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
