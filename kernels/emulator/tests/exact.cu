// Kernels that are right, of the emulator's own tests; kernels/primitives.cu has every instruction that kernels use.
#include "prelude/prelude.cuh"

// An instruction that the prelude has no use for with a sign.
inline void mma_bytes(int (&d)[1][1][4], const u32 (&a)[1][4], const u32 (&b)[1][2], bool is_signed,
                      emu::Site site = emu::here()) {
    (is_signed ? emu::mma_s8 : emu::mma_u8)(&d[0][0][0], &a[0][0], &b[0][0], 1, 1, site);
}

extern "C" __global__ void emu_fill(float* out, float value, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) out[i] = value;
}
EMM_KERNEL(emu_fill)

// y += a * x, with a in device memory.
extern "C" __global__ void emu_axpy(float* y, const float* x, const float* a, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = __fmaf_rn(a[0], x[i], y[i]);
}
EMM_KERNEL(emu_axpy)

// d[16][8] = a[16][32] * b, b by columns (b_columns[8][32]), on bytes: with a sign where `is_signed`.
extern "C" __global__ void emu_mma_bytes(int* d, const u32* a, const u32* b_columns, int is_signed) {
    int lane = threadIdx.x, g = lane / 4, t = lane % 4;
    int sum[1][1][4] = {};
    u32 fa[1][4] = {{a[g * 8 + t], a[(g + 8) * 8 + t], a[g * 8 + t + 4], a[(g + 8) * 8 + t + 4]}};
    u32 fb[1][2] = {{b_columns[g * 8 + t], b_columns[g * 8 + t + 4]}};
    mma_bytes(sum, fa, fb, is_signed);
    for (int k = 0; k < 4; k++) d[(g + k / 2 * 8) * 8 + t * 2 + k % 2] = sum[0][0][k];
}
EMM_KERNEL(emu_mma_bytes)

// Writes the last word of the dynamic shared memory, and where its static array lies beside it.
extern "C" __global__ void emu_dynamic_shared(unsigned* out, int bytes) {
    EMM_DYNAMIC_SHARED(unsigned char, memory);
    EMM_SHARED(int, more, [256]);
    more[threadIdx.x] = 7;
    if (threadIdx.x == 0) view_as<unsigned*>(memory)[bytes / 4 - 1] = 11;
    __syncthreads();
    out[threadIdx.x] = view_as<unsigned*>(memory)[bytes / 4 - 1] + more[threadIdx.x ^ 1];
}
EMM_KERNEL(emu_dynamic_shared)
