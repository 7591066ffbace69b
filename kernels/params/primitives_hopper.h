#pragma once
#include "entry.h"

struct PrimitiveHopper {
    u32* out;
    const u32* input;
};
ENTRY(Fp32, primitive_mbarrier, PrimitiveHopper)
ENTRY(Fp32, primitive_named_barrier, PrimitiveHopper)
ENTRY(Fp32, primitive_registers, PrimitiveHopper)

// A box whose first element has coordinates c0 and on, of a tensor of `rank` dimensions.
struct PrimitiveCopy {
    TensorMap map;
    u32* out;
    const u32* input;
    // 3 or 4.
    int rank;
    int c0, c1, c2, c3;
    // Of the box.
    int bytes;
};
ENTRY_OF_MAPS(Fp32, primitive_tma_load, PrimitiveCopy)
ENTRY_OF_MAPS(Fp32, primitive_tma_store, PrimitiveCopy)

// Products, at four times 16 depths, of what `input` says shared memory holds: A from its beginning, B from byte `b_at` on.
struct PrimitiveProduct {
    u32* out;
    const u32* input;
    // Words of the input.
    int words;
    int b_at;
    // As descriptors have them.
    u32 a_lead, a_stride, b_lead, b_stride;
    // Bytes from 16 depths to the next.
    int a_step, b_step;
    // Whether the first product adds to thread + 3 i, or replaces NaN.
    int add;
};
ENTRY(TensorBf16, primitive_wgmma_64, PrimitiveProduct)
ENTRY(TensorBf16, primitive_wgmma_64_a_side, PrimitiveProduct)
ENTRY(TensorBf16, primitive_wgmma_128_b_side, PrimitiveProduct)
ENTRY(TensorBf16, primitive_wgmma_192, PrimitiveProduct)
ENTRY(TensorBf16, primitive_wgmma_256, PrimitiveProduct)
ENTRY(TensorBf16, primitive_wgmma_256_sides, PrimitiveProduct)
