#pragma once
#include "entry.h"

// dst[columns] (=|+=) scale * the sum over rows of the first columns of src[rows, src_row].
struct SumRowsJob {
    float* dst;
    const float* src;
    u32 first_block;
    int rows, columns, src_row;
    float scale;
    int add;
};

constexpr int SUM_ROWS_JOBS = 100;

struct SumRows {
    SumRowsJob jobs[SUM_ROWS_JOBS];
    u32 count;
};
ENTRY(Fp32, sum_rows, SumRows)

// dw[rows, row_words], columns first .. first + width (=|+=) scale * the sum over chains, in order, of partials.
struct SumChainsJob {
    float* dw;
    const float* partials;  // null where chains = 0
    u32 first_block;
    int rows, width;
    int row_words, first;
    int partial_words;  // length of a row of partials: width, or more where rows were padded
    int chain_words;    // length of a chain's partials
    int taps;           // rows of dw are [rows / taps, taps], of partials [taps reversed, rows / taps]; 1: alike
    int chains;         // 0: sets zeros, adds nothing
    float scale;
    int add;
};

constexpr int SUM_CHAINS_JOBS = 60;

struct SumChains {
    SumChainsJob jobs[SUM_CHAINS_JOBS];
    u32 count;
};
ENTRY(Fp32, sum_chains, SumChains)

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
