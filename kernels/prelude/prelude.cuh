// What every kernel file includes, beside what its kernels take.
#pragma once
#include "prims.cuh"

#include "types.cuh"

#include "hopper.cuh"

#include "math.cuh"
#include "reduce.cuh"

#include "random.cuh"

#include "gemm.cuh"
#include "mma_tile.cuh"
#include "chain.cuh"
#include "jobs.cuh"
#include "precond.cuh"
#include "resample.cuh"
