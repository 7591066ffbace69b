// Reductions in a fixed order: the same bits on every run, whatever the scheduling.
#pragma once

struct Sum {
    template <class T>
    DEVICE T operator()(T a, T b) const {
        return a + b;
    }
};
struct Max {
    template <class T>
    DEVICE T operator()(T a, T b) const {
        return a > b ? a : b;
    }
};

// Over the 32 lanes; every lane gets the result.
template <class T, class Op>
DEVICE T warp_reduce(T v, Op op) {
#pragma unroll
    for (int lanes = 16; lanes > 0; lanes >>= 1) v = op(v, __shfl_xor_sync(0xffffffffu, v, lanes));
    return v;
}

// Over a 1-D block of whole warps; every thread gets the result. `scratch`: one T a warp, in shared memory; it may
// be used again by the next call at once.
template <class T, class Op>
DEVICE T block_reduce(T v, T* scratch, Op op) {
    v = warp_reduce(v, op);
    __syncthreads();
    if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = v;
    __syncthreads();
    v = scratch[0];
    for (int w = 1; w < (int)blockDim.x / 32; w++) v = op(v, scratch[w]);
    return v;
}

template <class T>
DEVICE T block_sum(T v, T* scratch) {
    return block_reduce(v, scratch, Sum());
}
