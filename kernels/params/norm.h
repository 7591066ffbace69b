#pragma once
#include "entry.h"
#include "step.h"

template <class T>
struct NormStats {
    float* stats;
    const T* x1;
    const T* x2;
    int pixels, c1, c2, c, groups;
};
ENTRY(Fp32, norm_stats, NormStats<float>)
ENTRY(Fp32, norm_stats_bf16, NormStats<bf16>)

// What all the others read.
template <class T>
struct NormOf {
    const T* x1;
    const T* x2;
    const float* gamma;
    const float* beta;
    const Step* step;  // its seed and step key the dropout; never read without dropout
    int n, h, w, c1, c2, c, groups, silu;
    int how;  // prelude/resample.cuh's number
    u32 first_image, layer;
    u32 threshold;  // round((1 - p) 65536), what 16 random bits must lie below to keep an element; 0: no dropout
};

template <class T>
struct NormFwd {
    T* y;
    T* xr;
    const float* stats;
    NormOf<T> of;
};
ENTRY(Fp32, norm_fwd, NormFwd<float>)
ENTRY(Fp32, norm_fwd_bf16, NormFwd<bf16>)

template <class T>
struct NormBwdSums {
    float* sums;
    const T* dy;
    const float* stats;
    NormOf<T> of;
};
ENTRY(Fp32, norm_bwd_sums, NormBwdSums<float>)
ENTRY(Fp32, norm_bwd_sums_bf16, NormBwdSums<bf16>)

struct NormBwdGroups {
    float* means;
    const float* sums;
    const float* gamma;
    int n, c, groups, pixels;
};
ENTRY(Fp32, norm_bwd_groups, NormBwdGroups)

template <class T>
struct NormBwd {
    T* dx1;  // dx1, dx2, dxr: null where not wanted or not there
    T* dx2;
    const T* dy;
    const T* dxr;
    const float* means;
    const float* stats;
    NormOf<T> of;
    int add1, add2;
};
ENTRY(Fp32, norm_bwd, NormBwd<float>)
ENTRY(Fp32, norm_bwd_bf16, NormBwd<bf16>)

template <class T>
struct NormSlabFwd {
    T* y;
    T* xr;
    float* stats;
    NormOf<T> of;
    int cb;  // channels of a block
};
ENTRY(Fp32, norm_slab_fwd, NormSlabFwd<float>)
ENTRY(Fp32, norm_slab_fwd_bf16, NormSlabFwd<bf16>)
ENTRY(Fp32, norm_slab_fwd_plain_bf16, NormSlabFwd<bf16>)
ENTRY(Fp32, norm_slab_fwd_silu_bf16, NormSlabFwd<bf16>)
ENTRY(Fp32, norm_slab_fwd_silu_drop_bf16, NormSlabFwd<bf16>)
ENTRY(Fp32, norm_slab_fwd_silu_down_bf16, NormSlabFwd<bf16>)
ENTRY(Fp32, norm_slab_fwd_silu_up_bf16, NormSlabFwd<bf16>)

template <class T>
struct NormSlabBwd {
    T* dx1;
    T* dx2;
    float* sums;
    float* dx1_sums;  // over pixels of what is at dx1 once it is written; or null
    float* dx2_sums;
    const T* dy;
    const T* dxr;
    const T* residual;  // times residual_scale is added to dx1; or null
    const float* stats;
    NormOf<T> of;
    int dx1_sums_row, dx2_sums_row;  // words from image to image
    int cb, add1, add2;
    float residual_scale;
};
ENTRY(Fp32, norm_slab_bwd, NormSlabBwd<float>)
ENTRY(Fp32, norm_slab_bwd_bf16, NormSlabBwd<bf16>)
ENTRY(Fp32, norm_slab_bwd_plain_bf16, NormSlabBwd<bf16>)
ENTRY(Fp32, norm_slab_bwd_silu_bf16, NormSlabBwd<bf16>)
ENTRY(Fp32, norm_slab_bwd_silu_drop_bf16, NormSlabBwd<bf16>)
ENTRY(Fp32, norm_slab_bwd_silu_down_bf16, NormSlabBwd<bf16>)
ENTRY(Fp32, norm_slab_bwd_silu_up_bf16, NormSlabBwd<bf16>)
