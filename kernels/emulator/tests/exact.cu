// Kernels that are right, of the emulator's own tests: each instruction once, in the open.
#include "prelude/prelude.cuh"

extern "C" __global__ void emu_fill(float* out, float value, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) out[i] = value;
}
EMM_KERNEL(emu_fill)
