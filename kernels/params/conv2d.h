#pragma once
#include "entry.h"

// A convolution's forward, and on tensor cores also the gradient of its input: y (=|+=) (conv(x) + bias + emb +
// residual + shortcut) * scale. W: how the weights are stored.
template <class T, class Y, class W>
struct Conv2d {
    Y* y;
    const T* x;
    const W* weight;
    const float* bias;  // or null
    const float* emb;   // [n, o], rows emb_row apart, or null
    const T* residual;  // or null
    const T* s1;        // null: no shortcut
    const T* s2;        // null: c2 = 0
    const W* sweight;
    const float* sbias;
    int n, h, w, c, ho, wo, o;
    int kernel, stride, pad;
    int c1, c2;   // channels of s1 and s2
    int srow;     // length of sweight's rows
    int emb_row;
    float scale;
    int add;
};
ENTRY(Fp32, conv2d_fwd, Conv2d<float, float, float>)
ENTRY(Fp32, conv2d_fwd_bf16, Conv2d<bf16, bf16, float>)
ENTRY(Fp32, conv2d_fwd_last, Conv2d<bf16, float, float>)
ENTRY(TensorBf16, conv2d_mma_bf16, Conv2d<bf16, bf16, bf16>)
ENTRY(TensorTf32, conv2d_mma_tf32, Conv2d<float, float, float>)
ENTRY(TensorBf16, conv2d_mma_last, Conv2d<bf16, float, bf16>)
ENTRY(TensorBf16, conv2d_mma_wide_bf16, Conv2d<bf16, bf16, bf16>)

// The same by tensor copies, of y's size; conv2d_wgmma.cu says what the maps are.
struct Conv2dHopper {
    TensorMap x;
    TensorMap s1;
    TensorMap s2;
    TensorMap weight;
    TensorMap sweight;
    TensorMap add;  // the residual, or y
    TensorMap y;
    const float* bias;   // or null
    const float* sbias;  // or null
    const float* emb;    // [n, o], rows emb_row apart, or null
    int n, h, w, c, o;
    int kernel, pad;
    int c1, c2;        // 0: no s1, no s2
    int rows, images;  // of a tile
    int tiles, tiles_o;
    int emb_row;
    int added;  // ADDED_NEVER, ADDED_BEFORE_SCALE or ADDED_AFTER_SCALE
    float scale;
};
ENTRY_OF_MAPS(WgmmaBf16, conv2d_wgmma_256, Conv2dHopper)
ENTRY_OF_MAPS(WgmmaBf16, conv2d_wgmma_192, Conv2dHopper)
ENTRY_OF_MAPS(WgmmaBf16, conv2d_wgmma_128, Conv2dHopper)

template <class T, class D>
struct Conv2dDgrad {
    T* dx;
    const D* dy;
    const float* weight;
    int n, h, w, c, ho, wo, o;
    int kernel, stride, pad;
    int row_words;  // length of weight's rows
    int first;      // column of them at which those of this input begin
    float scale;
    int add;
};
ENTRY(Fp32, conv2d_dgrad, Conv2dDgrad<float, float>)
ENTRY(Fp32, conv2d_dgrad_bf16, Conv2dDgrad<bf16, bf16>)
ENTRY(Fp32, conv2d_dgrad_last, Conv2dDgrad<bf16, float>)

// partials[chain, o, k, k, c] (+)= the sum over the pixels of the chain's images of dy * x.
template <class T, class D>
struct Conv2dWgrad {
    float* partials;
    float* partials1;  // [chain, o, c1] of s1 and [chain, o, c2] of s2, a shortcut's inputs; null: none
    float* partials2;
    const D* dy;
    const T* x;
    const T* s1;
    const T* s2;
    int n, h, w, c, ho, wo, o;
    int kernel, stride, pad;
    int c1, c2;       // 0: no s1, no s2
    int chain;        // images of one
    int first_image;  // index in the batch of dy's first
};
ENTRY(Fp32, conv2d_wgrad, Conv2dWgrad<float, float>)
ENTRY(Fp32, conv2d_wgrad_bf16, Conv2dWgrad<bf16, bf16>)
ENTRY(Fp32, conv2d_wgrad_last, Conv2dWgrad<bf16, float>)
ENTRY(TensorBf16, wgrad_mma_bf16, Conv2dWgrad<bf16, bf16>)
ENTRY(TensorTf32, wgrad_mma_tf32, Conv2dWgrad<float, float>)
ENTRY(TensorBf16, wgrad_mma_wide_bf16, Conv2dWgrad<bf16, bf16>)

// The same by tensor copies, of y's size; wgrad_wgmma.cu says what the maps are.
struct WgradHopper {
    TensorMap dy;
    TensorMap x;
    TensorMap s1;
    TensorMap s2;
    float* partials;
    float* partials1;
    float* partials2;
    int n, h, w, c, o;
    int kernel, pad;
    int c1, c2;
    int rows, images;  // of a box
    int chain;         // images of one
    int first_image;   // index in the batch of dy's first
};
ENTRY_OF_MAPS(WgmmaBf16, wgrad_wgmma, WgradHopper)
