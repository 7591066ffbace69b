#pragma once
#include "entry.h"

// Copies that a launch makes; 16-byte pieces of rows that a thread makes of one; columns of a block's part of a
// transposed one.
constexpr int PACK_JOBS = 96;
constexpr int PACK_PIECES = 2;
constexpr int PACK_COLUMNS = 64;

template <class T>
struct PackRowsJob {
    T* to;
    const float* from;
    u32 rows, width, padded;
    u32 first_block;
};

template <class T>
struct PackRows {
    PackRowsJob<T> jobs[PACK_JOBS];
    u32 count;
};
ENTRY(Fp32, pack_rows, PackRows<float>)
ENTRY(Fp32, pack_rows_bf16, PackRows<bf16>)

template <class T>
struct PackTransposedJob {
    T* to;
    const float* w;  // the first column that is copied, of rows of row_words
    u32 o, taps, c, row_words, padded;
    u32 first_block;
};

template <class T>
struct PackTransposed {
    PackTransposedJob<T> jobs[PACK_JOBS];
    u32 count;
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
