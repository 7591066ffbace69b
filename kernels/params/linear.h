#pragma once
#include "entry.h"

struct LinearFwd {
    float* y;
    float* z;  // null: no SiLU
    const float* x;
    const float* w;
    const float* b;
    int n, o, i;
};
ENTRY(Fp32, linear_fwd, LinearFwd)

struct LinearBwdSilu {
    float* dz;
    const float* dy;
    const float* z;
    i64 count;
};
ENTRY(Fp32, linear_bwd_silu, LinearBwdSilu)

struct LinearWgrad {
    float* dw;
    const float* dz;
    const float* x;
    int n, o, i, add;
};
ENTRY(Fp32, linear_wgrad, LinearWgrad)
