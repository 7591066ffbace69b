#pragma once
#include "entry.h"
#include "step.h"

struct StepNext {
    Step* step;
    const Step* table;
    u32* cursor;
};
ENTRY(Fp32, step_next, StepNext)

struct CheckFinite {
    u32* bad_step;
    const float* g;
    const double* loss;  // may be null
    const Step* step;
    i64 count;
    int images;
};
ENTRY(Fp32, check_finite, CheckFinite)

struct AdamEma {
    float* w;
    const float* g;
    float* m;
    float* v;
    float* ema;
    const Step* step;
    const u32* bad_step;
    i64 count;
};
ENTRY(Fp32, adam_ema, AdamEma)
