#pragma once
#include "entry.h"

template <class T>
struct PackRows {
    T* to;
    const float* from;
    u32 rows, width, padded;
};
ENTRY(Fp32, pack_rows, PackRows<float>)
ENTRY(Fp32, pack_rows_bf16, PackRows<bf16>)

template <class T>
struct PackTransposed {
    T* to;
    const float* w;
    u32 o, taps, c;
    u32 row_words, first;  // columns first .. first + taps c of w's rows
    u32 padded;
};
ENTRY(Fp32, pack_transposed, PackTransposed<float>)
ENTRY(Fp32, pack_transposed_bf16, PackTransposed<bf16>)

template <class T, class X>
struct Im2col {
    T* cols;
    const X* x;
    u32 n, h, w, c, ho, wo, kernel, stride, pad, width;
};
ENTRY(Fp32, im2col, Im2col<float, float>)
ENTRY(Fp32, im2col_bf16, Im2col<bf16, bf16>)
ENTRY(Fp32, im2col_last, Im2col<bf16, float>)
