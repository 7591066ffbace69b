#pragma once
#include "entry.h"

struct NoiseEmbed {
    float* e;
    const double* sigma;
    const float* freqs;  // or null
    int n, channels, precond;
};
ENTRY(Fp32, noise_embed, NoiseEmbed)

struct LabelEmbedFwd {
    float* y;
    const float* e;
    const u32* labels;
    const float* table;
    const float* bias;
    int n, d;
    float scale;  // sqrt(label_dim) rounded once
};
ENTRY(Fp32, label_embed_fwd, LabelEmbedFwd)

struct LabelRows {
    int* next;
    int* head;
    const u32* labels;
    int n;
};
ENTRY(Fp32, label_rows, LabelRows)

struct LabelEmbedBwd {
    float* dtable;
    const float* dy;
    const u32* labels;
    const int* next;
    const int* head;
    int d;
    float scale;
};
ENTRY(Fp32, label_embed_bwd, LabelEmbedBwd)
