#pragma once
#include "entry.h"
#include "step.h"

struct PrepareRows {
    u32* index;
    double* sigma;
    u32* out_labels;
    const u32* labels;  // null for none
    const Step* step;
    int n;
    u32 images, batch;  // of the set; of the whole batch
    u32 first_image;
    int shuffle;  // 0 keeps epoch 0's order for ever
    int precond;
};
ENTRY(Fp32, prepare_rows, PrepareRows)

struct PrepareImages {
    float* y;
    float* noise;
    const u32* index;
    const u8* pixels;
    const Step* step;
    int words;  // h w c of one image
    u32 first_image;
};
ENTRY(Fp32, prepare_images, PrepareImages)
