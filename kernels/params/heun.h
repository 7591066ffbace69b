#pragma once
#include "entry.h"

struct HeunStart {
    double* x;
    const u64* seeds;
    double t;
    int words;  // of an image
};
ENTRY(Fp32, heun_start, HeunStart)

struct HeunNoise {
    double* x;
    const u64* seeds;
    double scale;
    int words;
    u32 step;
};
ENTRY(Fp32, heun_noise, HeunNoise)

struct HeunInput {
    float* input;
    double* sigma;
    const double* x;
    i64 count;  // n words
    double t;
    int n;
};
ENTRY(Fp32, heun_input, HeunInput)

struct HeunEuler {
    double* x;
    double* x_hat;
    double* slope;
    const float* d;
    i64 count;
    double t, t_next;
};
ENTRY(Fp32, heun_euler, HeunEuler)

struct HeunCorrect {
    double* x;
    const double* x_hat;
    const double* slope;
    const float* d;
    i64 count;
    double t, t_next;
};
ENTRY(Fp32, heun_correct, HeunCorrect)

struct HeunFinish {
    float* images;
    u8* pixels;
    u32* bad_image;
    const double* x;
    i64 count;
    int words;
};
ENTRY(Fp32, heun_finish, HeunFinish)
