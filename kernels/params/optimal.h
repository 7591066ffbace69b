#pragma once
#include "entry.h"

struct OptimalNorms {
    double* norms;
    const u8* pixels;
    int words, count;
};
ENTRY(Fp32, optimal_norms, OptimalNorms)

struct OptimalExponents {
    double* weights;
    const float* x;
    const u8* pixels;
    const double* norms;
    const double* sigma;
    const int* ranges;  // [q, 2], first and end
    int q, count, words;
};
ENTRY(Fp32, optimal_exponents, OptimalExponents)

struct OptimalWeights {
    double* weights;
    double* totals;
    int count;
};
ENTRY(Fp32, optimal_weights, OptimalWeights)

struct OptimalImages {
    float* out;
    const double* weights;
    const double* totals;
    const u8* pixels;
    int q, count, words;
};
ENTRY(Fp32, optimal_images, OptimalImages)
