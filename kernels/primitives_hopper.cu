// primitives_hopper: what Hopper's kernels are written with, each alone, its raw words stored, as kernels/primitives.cu does
// for the rest: src/check/primitives/hopper.rs and wgmma.rs know what a GPU must give by the PTX ISA.
//
//   primitive_mbarrier         [7]: what two threads hand each other through two barriers, phase by phase
//   primitive_named_barrier    [128]: each half of 64 threads in reverse, by a barrier of its own
//   primitive_registers        [384]: each thread's sum, in warpgroups of fewer and of more registers
//   primitive_tma_load         shared memory behind the copy of a box
//   primitive_tma_store        a tensor to which a box of shared memory was copied
//   primitive_wgmma_*          d[128][N / 2]: each thread's registers
//
// Launch     one block of 32 to 384 threads, at most 41,984 B dynamic shared. GPUs below 9.0 run none of them.
// Cost       nothing. Exactness: the point.
#include "prelude/prelude.cuh"

#include "params/primitives_hopper.h"

// A number goes to and fro: each adds its own, and what it gets is stored.
extern "C" __global__ void primitive_mbarrier(const PrimitiveHopper p) {
#if EMM_HOPPER
    EMM_SHARED(u64, bars, [2]);
    EMM_SHARED(u32, number, [1]);
    int t = threadIdx.x;
    if (t == 0) {
        mbar_init(&bars[0], 1);
        mbar_init(&bars[1], 32);
        mbar_fence_init();
        number[0] = p.input[0];
    }
    __syncthreads();
    if (t == 0) {
        mbar_wait(&bars[0], 1);  // the phase before the first has ended
        for (int i = 0; i < 3; i++) {
            p.out[2 * i] = number[0];
            number[0] += 10;
            mbar_arrive(&bars[0]);
            mbar_wait(&bars[1], i & 1);
        }
        p.out[6] = number[0];
    } else if (t >= 32) {
        for (int i = 0; i < 3; i++) {
            mbar_wait(&bars[0], i & 1);
            if (t == 40) {
                p.out[2 * i + 1] = number[0];
                number[0] += 100;
            }
            mbar_arrive(&bars[1]);
        }
    }
#endif
}

extern "C" __global__ void primitive_named_barrier(const PrimitiveHopper p) {
#if EMM_HOPPER
    EMM_SHARED(u32, values, [128]);
    int t = threadIdx.x, from = t < 64 ? 63 - t : 191 - t;
    values[t] = p.input[t];
    if (t < 64) named_barrier<1, 64>();
    else named_barrier<2, 64>();
    p.out[t] = values[from];
#endif
}

extern "C" __global__ void __launch_bounds__(384, 1) primitive_registers(const PrimitiveHopper p) {
#if EMM_HOPPER
    u32 v = p.input[threadIdx.x];
    if (threadIdx.x < 128) {
        fewer_registers<40>();
        p.out[threadIdx.x] = v + 1;
    } else {
        more_registers<232>();
        p.out[threadIdx.x] = v + 2;
    }
#endif
}

#if EMM_HOPPER
// The first 1,024-byte boundary.
DEVICE unsigned char* rows_of(unsigned char* memory) { return memory + (1024 - shared_address(memory) % 1024) % 1024; }
#endif

extern "C" __global__ void primitive_tma_load(const __grid_constant__ PrimitiveCopy p) {
#if EMM_HOPPER
    EMM_DYNAMIC_SHARED(unsigned char, memory);
    EMM_SHARED(u64, bar, [1]);
    u32* box = view_as<u32*>(rows_of(memory));
    if (threadIdx.x == 0) {
        mbar_init(bar, 1);
        mbar_fence_init();
        mbar_arrive_expect(bar, p.bytes);
        if (p.rank == 3) tma_load(box, &p.map, bar, p.c0, p.c1, p.c2);
        else tma_load(box, &p.map, bar, p.c0, p.c1, p.c2, p.c3);
    }
    __syncthreads();
    mbar_wait(bar, 0);
    for (int i = threadIdx.x; i < p.bytes / 4; i += blockDim.x) p.out[i] = box[i];
#endif
}

extern "C" __global__ void primitive_tma_store(const __grid_constant__ PrimitiveCopy p) {
#if EMM_HOPPER
    EMM_DYNAMIC_SHARED(unsigned char, memory);
    u32* box = view_as<u32*>(rows_of(memory));
    for (int i = threadIdx.x; i < p.bytes / 4; i += blockDim.x) box[i] = p.input[i];
    fence_async();
    __syncthreads();
    if (threadIdx.x == 0) {
        tma_store(&p.map, box, p.c0, p.c1, p.c2, p.c3);
        bulk_commit();
        bulk_wait_read<0>();
    }
#endif
}

template <int N, bool A_SIDE, bool B_SIDE>
DEVICE void product(const PrimitiveProduct& p) {
#if EMM_HOPPER
    EMM_DYNAMIC_SHARED(unsigned char, operands);
    unsigned char* a = rows_of(operands);
    const unsigned char* b = a + p.b_at;
    for (int i = threadIdx.x; i < p.words; i += blockDim.x) view_as<u32*>(a)[i] = p.input[i];
    fence_async();
    __syncthreads();
    float d[N / 2];
#pragma unroll
    for (int i = 0; i < N / 2; i++) d[i] = p.add ? (float)(threadIdx.x + 3 * i) : __uint_as_float(0xffffffffu);
    wgmma_fence();
#pragma unroll
    for (int q = 0; q < 4; q++)
        wgmma_bf16<N, A_SIDE, B_SIDE>(d, wgmma_operand(a + q * p.a_step, p.a_lead, p.a_stride),
                                      wgmma_operand(b + q * p.b_step, p.b_lead, p.b_stride), p.add + q > 0);
    wgmma_commit();
    wgmma_wait<0>();
#pragma unroll
    for (int i = 0; i < N / 2; i++) p.out[threadIdx.x * (N / 2) + i] = __float_as_uint(d[i]);
#endif
}

#define PRODUCT(name, N, A_SIDE, B_SIDE)                                                           \
    extern "C" __global__ void __launch_bounds__(128) primitive_wgmma_##name(const PrimitiveProduct p) { \
        product<N, A_SIDE, B_SIDE>(p);                                                             \
    }
PRODUCT(64, 64, false, false)
PRODUCT(64_a_side, 64, true, false)
PRODUCT(128_b_side, 128, false, true)
PRODUCT(192, 192, false, false)
PRODUCT(256, 256, false, false)
PRODUCT(256_sides, 256, true, true)
