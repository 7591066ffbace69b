#pragma once
#include "entry.h"

template <class T>
struct Ceiling {
    T* out;  // one a thread, so that nothing is optimised away
    int steps;
};
ENTRY(TensorBf16, ceiling_mma_bf16, Ceiling<float>)
ENTRY(TensorTf32, ceiling_mma_tf32, Ceiling<float>)
ENTRY(TensorU8, ceiling_mma_u8, Ceiling<int>)
ENTRY(WgmmaBf16, ceiling_wgmma_bf16, Ceiling<float>)
ENTRY(Fp32, ceiling_fma, Ceiling<float>)

struct CeilingCopy {
    float4* to;
    const float4* from;
    i64 count;  // 16-byte pieces
};
ENTRY(Fp32, ceiling_copy, CeilingCopy)
