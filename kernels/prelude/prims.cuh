// The instructions that C++ has no words for: sm_80's tensor cores, matrix loads from shared memory, asynchronous
// copies, approximations of one instruction, two bf16 from two floats. The only file with inline PTX; each primitive has a host body, which the emulator runs (emulator/prims_host.h
// says which lane holds which element of a fragment).
//
// Also what a kernel file is written with on both sides: EMM_SHARED, EMM_DYNAMIC_SHARED, DEVICE, view_as.
#pragma once
#include <stdint.h>

#define DEVICE __device__ __forceinline__

#ifdef __CUDACC__

// EMM_SHARED(float, tile, [16][33]);
#define EMM_SHARED(T, name, ...) __shared__ __align__(16) T name __VA_ARGS__
#define EMM_DYNAMIC_SHARED(T, name) extern __shared__ __align__(16) T name[]

// view_as<float4*>(p): what stands at p as another type; p has to be a multiple of that type's size. The only way that
// kernels look at memory as another type, so that the emulator sees an address that a GPU would refuse. A macro, since
// inlining a function makes ptxas spill registers in wgrad_mma_tf32.
#define view_as reinterpret_cast

DEVICE uint32_t shared_address(const void* p) { return (uint32_t)__cvta_generic_to_shared(p); }

// 16 bytes from global to shared memory: `source_bytes` (0..16) of them are read, the rest are zeros.
DEVICE void cp_async16(void* shared, const void* global, int source_bytes) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(shared_address(shared)), "l"(global),
                 "r"(source_bytes)
                 : "memory");
}
DEVICE void cp_async_commit() { asm volatile("cp.async.commit_group;\n" ::: "memory"); }
template <int groups_left>
DEVICE void cp_async_wait() {
    asm volatile("cp.async.wait_group %0;\n" ::"n"(groups_left) : "memory");
}

// 2^x within 2^-22 of the value (PTX ISA, ex2.approx.ftz.f32). -inf: 0, +-0: 1, +inf: +inf, NaN: NaN; subnormal
// arguments and results count as zeros. No volatile: it may be moved like any arithmetic.
DEVICE float ex2_approx(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;\n" : "=f"(y) : "f"(x));
    return y;
}
// 1 / x within one unit in the last place (PTX ISA, rcp.approx.ftz.f32). +-inf: +-0, +-0: +-inf, NaN: NaN; subnormal
// arguments and results count as zeros of their sign.
DEVICE float rcp_approx(float x) {
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;\n" : "=f"(y) : "f"(x));
    return y;
}
// Two floats rounded to bf16, to nearest, ties to even; NaN becomes 0x7fff (PTX ISA, cvt.rn.bf16x2.f32).
DEVICE uint32_t cvt_bf16x2(float lo, float hi) {
    uint32_t pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;\n" : "=r"(pair) : "f"(hi), "f"(lo));
    return pair;
}

// Four 8x8 matrices of 16-bit elements; lanes 8i..8i+7 give the row addresses of matrix i.
DEVICE void ldmatrix_x4(uint32_t (&r)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}
DEVICE void ldmatrix_x4_trans(uint32_t (&r)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}

// d += a * b on a block of M x N tensor-core tiles: m16n8k16 bf16, m16n8k8 tf32, m16n8k32 u8.
template <int M, int N>
DEVICE void mma_bf16(float (&d)[M][N][4], const uint32_t (&a)[M][4], const uint32_t (&b)[N][2]) {
#pragma unroll
    for (int i = 0; i < M; i++)
#pragma unroll
        for (int j = 0; j < N; j++)
            asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
                         "{%0,%1,%2,%3};\n"
                         : "+f"(d[i][j][0]), "+f"(d[i][j][1]), "+f"(d[i][j][2]), "+f"(d[i][j][3])
                         : "r"(a[i][0]), "r"(a[i][1]), "r"(a[i][2]), "r"(a[i][3]), "r"(b[j][0]), "r"(b[j][1]));
}
template <int M, int N>
DEVICE void mma_tf32(float (&d)[M][N][4], const uint32_t (&a)[M][4], const uint32_t (&b)[N][2]) {
#pragma unroll
    for (int i = 0; i < M; i++)
#pragma unroll
        for (int j = 0; j < N; j++)
            asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
                         "{%0,%1,%2,%3};\n"
                         : "+f"(d[i][j][0]), "+f"(d[i][j][1]), "+f"(d[i][j][2]), "+f"(d[i][j][3])
                         : "r"(a[i][0]), "r"(a[i][1]), "r"(a[i][2]), "r"(a[i][3]), "r"(b[j][0]), "r"(b[j][1]));
}
template <int M, int N>
DEVICE void mma_u8(int (&d)[M][N][4], const uint32_t (&a)[M][4], const uint32_t (&b)[N][2]) {
#pragma unroll
    for (int i = 0; i < M; i++)
#pragma unroll
        for (int j = 0; j < N; j++)
            asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.u8.u8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
                         "{%0,%1,%2,%3};\n"
                         : "+r"(d[i][j][0]), "+r"(d[i][j][1]), "+r"(d[i][j][2]), "+r"(d[i][j][3])
                         : "r"(a[i][0]), "r"(a[i][1]), "r"(a[i][2]), "r"(a[i][3]), "r"(b[j][0]), "r"(b[j][1]));
}

#else

template <class P, class T>
DEVICE P view_as(T* p, emu::Site site = emu::here()) {
    return emu::aligned(reinterpret_cast<P>(p), site);
}

DEVICE uint32_t shared_address(const void* p) { return emu::shared_address(p); }

DEVICE void cp_async16(void* shared, const void* global, int source_bytes, emu::Site site = emu::here()) {
    emu::cp_async(shared, global, 16, source_bytes, site);
}
DEVICE void cp_async_commit() { emu::cp_async_commit(); }
template <int groups_left>
DEVICE void cp_async_wait() {
    emu::cp_async_wait(groups_left);
}

DEVICE float ex2_approx(float x) { return emu::ex2_approx(x); }
DEVICE float rcp_approx(float x) { return emu::rcp_approx(x); }
DEVICE uint32_t cvt_bf16x2(float lo, float hi) { return emu::cvt_bf16x2(lo, hi); }

DEVICE void ldmatrix_x4(uint32_t (&r)[4], const void* row, emu::Site site = emu::here()) {
    emu::ldmatrix(r, row, 4, false, site);
}
DEVICE void ldmatrix_x4_trans(uint32_t (&r)[4], const void* row, emu::Site site = emu::here()) {
    emu::ldmatrix(r, row, 4, true, site);
}

template <int M, int N>
DEVICE void mma_bf16(float (&d)[M][N][4], const uint32_t (&a)[M][4], const uint32_t (&b)[N][2],
                     emu::Site site = emu::here()) {
    emu::mma_bf16(&d[0][0][0], &a[0][0], &b[0][0], M, N, site);
}
template <int M, int N>
DEVICE void mma_tf32(float (&d)[M][N][4], const uint32_t (&a)[M][4], const uint32_t (&b)[N][2],
                     emu::Site site = emu::here()) {
    emu::mma_tf32(&d[0][0][0], &a[0][0], &b[0][0], M, N, site);
}
template <int M, int N>
DEVICE void mma_u8(int (&d)[M][N][4], const uint32_t (&a)[M][4], const uint32_t (&b)[N][2],
                   emu::Site site = emu::here()) {
    emu::mma_u8(&d[0][0][0], &a[0][0], &b[0][0], M, N, site);
}

#endif
