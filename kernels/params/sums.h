#pragma once
#include "entry.h"

struct SumRows {
    float* dst;
    const float* src;
    float* dst2;  // the second block row's; src2 may be src
    const float* src2;
    int rows, columns;
    float scale;
    int add;
};
ENTRY(Fp32, sum_rows, SumRows)

template <class T>
struct SumPixels {
    float* sums;
    float* emb;  // or null
    const T* x;
    int pixels, channels;
    int emb_row;  // words from row to row of emb
    float scale;
    int add;
};
ENTRY(Fp32, sum_pixels, SumPixels<float>)
ENTRY(Fp32, sum_pixels_bf16, SumPixels<bf16>)

template <class T>
struct ScaledAdd {
    T* dst;
    const T* src;
    i64 n;
    float scale;
    int add;
};
ENTRY(Fp32, scaled_add, ScaledAdd<float>)
ENTRY(Fp32, scaled_add_bf16, ScaledAdd<bf16>)
