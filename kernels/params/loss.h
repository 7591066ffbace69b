#pragma once
#include "entry.h"

struct LossFwd {
    double* loss;
    const float* f;
    const float* y;
    const float* noise;
    const double* sigma;
    int words;  // h w c
    int precond;
};
ENTRY(Fp32, loss_fwd, LossFwd)

struct LossBwd {
    float* df;
    const float* f;
    const float* y;
    const float* noise;
    const double* sigma;
    int words, precond, batch, add;
};
ENTRY(Fp32, loss_bwd, LossBwd)

struct LossSum {
    double* total;
    const double* loss;
    int n;
};
ENTRY(Fp32, loss_sum, LossSum)
