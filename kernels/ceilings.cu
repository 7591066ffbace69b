// ceilings: what a GPU can do at most, as `emm bench kernels` measures it: tensor cores and fp32 units fed from
// registers alone, and a copy.
//
//   ceiling_mma_bf16, _tf32, _u8   `steps` times 16 products a warp: m16n8k16, m16n8k8, m16n8k32
//   ceiling_wgmma_bf16             `steps` times 4 products a warpgroup: m64n256k16, from shared memory (sm_90a)
//   ceiling_fma                    `steps` times 16 multiply-adds a thread
//   ceiling_copy                   to[i] = from[i], 16 bytes at a time
//
// Launch     256 threads; grid 2 blocks a multiprocessor, of the copy 8. ceiling_wgmma_bf16: 50,176 B dynamic shared.
// Cost       FLOP a warp and step: 65,536 (bf16), 32,768 (tf32), 131,072 (u8), 524,288 (wgmma); 1,024 of ceiling_fma. The
//            copy moves 32 count bytes.
#include "prelude/prelude.cuh"

#include "params/ceilings.h"

// Numbers near 1 that differ from thread to thread: zeros would draw less power than real data.
DEVICE uint32_t bits(int i) { return (u32)(i * 0x9e3779b9u) & 0x007f007fu; }

template <class F>
DEVICE void repeat(float* out, int steps, uint32_t one, F product) {
    float acc[4][4][4] = {};
    uint32_t a[4][4], b[4][2];
#pragma unroll
    for (int i = 0; i < 4; i++) {
#pragma unroll
        for (int j = 0; j < 4; j++) a[i][j] = one | bits(threadIdx.x * 16 + i * 4 + j);
        b[i][0] = one | bits(threadIdx.x + 77 * i);
        b[i][1] = (one | bits(threadIdx.x + 99 * i)) ^ 0x80008000u;  // sums stay finite
    }
    for (int s = 0; s < steps; s++) product(acc, a, b);
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < 64; i++) sum += acc[i / 16][i / 4 % 4][i % 4];
    out[flat_index()] = sum;
}

extern "C" __global__ void __launch_bounds__(BLOCK_THREADS, 2) ceiling_mma_bf16(const Ceiling<float> p) {
    repeat(p.out, p.steps, 0x3f803f80u, [](auto& acc, auto& a, auto& b) { mma_bf16(acc, a, b); });
}

extern "C" __global__ void __launch_bounds__(BLOCK_THREADS, 1) ceiling_wgmma_bf16(const Ceiling<float> p) {
#if EMM_HOPPER
    EMM_DYNAMIC_SHARED(unsigned char, memory);
    constexpr int A = 2 * 64 * 128, B = 256 * 128;
    unsigned char* operands = memory + (-shared_address(memory) & 1023);
    for (int i = threadIdx.x; i < (A + B) / 4; i += BLOCK_THREADS)
        view_as<u32*>(operands)[i] = (0x3f803f80u | bits(i)) ^ (i % 2 ? 0x80008000u : 0);
    fence_async();
    __syncthreads();
    const unsigned char *a = operands + threadIdx.x / 128 * 64 * 128, *b = operands + A;
    float d[128];
    for (int s = 0; s < p.steps; s++) {
        wgmma_fence();
#pragma unroll
        for (int k = 0; k < 4; k++)
            wgmma_bf16<256, false, false>(d, wgmma_operand(a + 32 * k, 16, 1024), wgmma_operand(b + 32 * k, 16, 1024),
                                          s > 0 || k > 0);
        wgmma_commit();
        wgmma_wait<1>();
    }
    wgmma_wait<0>();
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < 128; i++) sum += d[i];
    p.out[flat_index()] = sum;
#else
    not_hopper();
#endif
}

extern "C" __global__ void __launch_bounds__(BLOCK_THREADS, 2) ceiling_mma_tf32(const Ceiling<float> p) {
    repeat(p.out, p.steps, 0x3f800000u, [](auto& acc, auto& a, auto& b) { mma_tf32(acc, a, b); });
}

extern "C" __global__ void __launch_bounds__(BLOCK_THREADS, 2) ceiling_mma_u8(const Ceiling<int> p) {
    int acc[4][4][4] = {};
    uint32_t a[4][4], b[4][2];
#pragma unroll
    for (int i = 0; i < 4; i++) {
#pragma unroll
        for (int j = 0; j < 4; j++) a[i][j] = (threadIdx.x * 16 + i * 4 + j) * 0x9e3779b9u;
        b[i][0] = (threadIdx.x + 77 * i) * 0x85ebca6bu;
        b[i][1] = ~b[i][0];
    }
    for (int s = 0; s < p.steps; s++) mma_u8(acc, a, b);
    int sum = 0;
#pragma unroll
    for (int i = 0; i < 64; i++) sum ^= acc[i / 16][i / 4 % 4][i % 4];
    p.out[flat_index()] = sum;
}

extern "C" __global__ void __launch_bounds__(BLOCK_THREADS, 2) ceiling_fma(const Ceiling<float> p) {
    float x[16], scale = 1.0f - 1e-6f * threadIdx.x;
#pragma unroll
    for (int i = 0; i < 16; i++) x[i] = (float)(threadIdx.x + i);
    for (int s = 0; s < p.steps; s++)
#pragma unroll
        for (int i = 0; i < 16; i++) x[i] = fmaf(x[i], scale, 1.0f);
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < 16; i++) sum += x[i];
    p.out[flat_index()] = sum;
}

extern "C" __global__ void ceiling_copy(const CeilingCopy p) {
    float4* __restrict__ to = p.to;
    const float4* __restrict__ from = p.from;
    i64 threads = (i64)gridDim.x * blockDim.x;
    for (i64 i = flat_index(); i < p.count; i += threads) to[i] = from[i];
}
