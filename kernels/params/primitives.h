#pragma once
#include "entry.h"

struct Primitive {
    u32* out;
    const u32* input;
};
ENTRY(TensorBf16, primitive_mma_bf16, Primitive)
ENTRY(TensorTf32, primitive_mma_tf32, Primitive)
ENTRY(TensorU8, primitive_mma_u8, Primitive)
ENTRY(Fp32, primitive_ldmatrix, Primitive)
ENTRY(Fp32, primitive_ldmatrix_trans, Primitive)
ENTRY(Fp32, primitive_cp_async, Primitive)
ENTRY(Fp32, primitive_collectives, Primitive)
ENTRY(Fp32, primitive_reductions, Primitive)
ENTRY(Fp32, primitive_barriers, Primitive)
ENTRY(Fp32, primitive_atomics, Primitive)
ENTRY(Fp32, primitive_dp4a, Primitive)
ENTRY(Fp32, primitive_conversions, Primitive)
ENTRY(Fp32, primitive_arithmetic, Primitive)
ENTRY(Fp32, primitive_approximations, Primitive)
ENTRY(Fp32, primitive_float64, Primitive)
ENTRY(Fp32, primitive_functions, Primitive)
ENTRY(Fp32, primitive_random, Primitive)
ENTRY(Fp32, primitive_packets, Primitive)

constexpr int PRIMITIVE_JOBS = 3;
struct PrimitiveJob {
    const u32* from;
    u32 add;
};

// One field of each kind; those of 8 bytes behind one of 4.
struct PrimitiveArguments {
    u32* out;
    int i;
    i64 l;
    float f;
    double d;
    u32 u;
    const u32* input;
    PrimitiveJob jobs[PRIMITIVE_JOBS];
};
ENTRY(Fp32, primitive_arguments, PrimitiveArguments)
