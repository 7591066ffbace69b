#pragma once
#include "entry.h"

template <class T>
struct Noisy {
    T* out;
    const float* y;
    const float* noise;
    const double* sigma;
    int words;  // h w c of one image
    int precond;
};
ENTRY(Fp32, noisy, Noisy<float>)
ENTRY(Fp32, noisy_bf16, Noisy<bf16>)

template <class T>
struct ScaleInput {
    T* out;
    const float* x;
    const double* sigma;
    int words, precond;
};
ENTRY(Fp32, scale_input, ScaleInput<float>)
ENTRY(Fp32, scale_input_bf16, ScaleInput<bf16>)

struct Denoised {
    float* out;
    const float* x;
    const float* f;
    const double* sigma;
    int words, precond;
};
ENTRY(Fp32, denoised, Denoised)
