// Kernels that are right, of the emulator's own tests: each instruction once, in the open.
#include "prelude/prelude.cuh"

// Two instructions that the prelude has no use for.
inline void ldmatrix_x2(u32 (&r)[2], const void* row, emu::Site site = emu::here()) {
    emu::ldmatrix(r, row, 2, false, site);
}
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

// d[M*16][N*8] = a[M*16][16] * b[16][N*8] in bf16 by one warp: a row-major, b by columns (b_columns[n][k]), fragments
// by ldmatrix.
extern "C" __global__ void emu_mma_bf16(float* d, const u16* a, const u16* b_columns) {
    EMM_SHARED(u16, left, [32][16]);
    EMM_SHARED(u16, right, [24][16]);
    int lane = threadIdx.x, g = lane / 4, t = lane % 4;
    for (int i = lane; i < 32 * 16; i += 32) left[i / 16][i % 16] = a[i];
    for (int i = lane; i < 24 * 16; i += 32) right[i / 16][i % 16] = b_columns[i];
    __syncwarp();
    float sum[2][3][4] = {};
    u32 fa[2][4], fb[3][2];
    for (int i = 0; i < 2; i++) ldmatrix_x4(fa[i], &left[i * 16 + lane % 16][lane / 16 * 8]);
    for (int j = 0; j < 3; j++) ldmatrix_x2(fb[j], &right[j * 8 + lane % 8][lane / 8 % 2 * 8]);
    mma_bf16(sum, fa, fb);
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 3; j++)
            for (int k = 0; k < 4; k++) d[(i * 16 + g + k / 2 * 8) * 24 + j * 8 + t * 2 + k % 2] = sum[i][j][k];
}
EMM_KERNEL(emu_mma_bf16)

// The same with b row-major, b[16][24], through ldmatrix.trans.
extern "C" __global__ void emu_mma_bf16_trans(float* d, const u16* a, const u16* b) {
    EMM_SHARED(u16, left, [32][16]);
    EMM_SHARED(u16, right, [16][32]);
    int lane = threadIdx.x, g = lane / 4, t = lane % 4;
    for (int i = lane; i < 32 * 16; i += 32) left[i / 16][i % 16] = a[i];
    for (int i = lane; i < 16 * 32; i += 32) right[i / 32][i % 32] = i % 32 < 24 ? b[i / 32 * 24 + i % 32] : 0;
    __syncwarp();
    float sum[2][3][4] = {};
    u32 fa[2][4], fb[4][2];
    for (int i = 0; i < 2; i++) ldmatrix_x4(fa[i], &left[i * 16 + lane % 16][lane / 16 * 8]);
    for (int j = 0; j < 4; j += 2) {  // matrices: k 0-7 and 8-15 of columns j*8.., then of columns (j+1)*8..
        u32 r[4];
        ldmatrix_x4_trans(r, &right[lane % 16][(j + lane / 16) * 8]);
        fb[j][0] = r[0], fb[j][1] = r[1], fb[j + 1][0] = r[2], fb[j + 1][1] = r[3];
    }
    u32 used[3][2] = {{fb[0][0], fb[0][1]}, {fb[1][0], fb[1][1]}, {fb[2][0], fb[2][1]}};
    mma_bf16(sum, fa, used);
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 3; j++)
            for (int k = 0; k < 4; k++) d[(i * 16 + g + k / 2 * 8) * 24 + j * 8 + t * 2 + k % 2] = sum[i][j][k];
}
EMM_KERNEL(emu_mma_bf16_trans)

// d[16][8] = a[16][8] * b[8][8] in tf32, fragments element by element.
extern "C" __global__ void emu_mma_tf32(float* d, const u32* a, const u32* b) {
    int lane = threadIdx.x, g = lane / 4, t = lane % 4;
    float sum[1][1][4] = {};
    u32 fa[1][4] = {{a[g * 8 + t], a[(g + 8) * 8 + t], a[g * 8 + t + 4], a[(g + 8) * 8 + t + 4]}};
    u32 fb[1][2] = {{b[t * 8 + g], b[(t + 4) * 8 + g]}};
    mma_tf32(sum, fa, fb);
    for (int k = 0; k < 4; k++) d[(g + k / 2 * 8) * 8 + t * 2 + k % 2] = sum[0][0][k];
}
EMM_KERNEL(emu_mma_tf32)

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

// What each lane gets from each warp collective: out[collective][lane].
extern "C" __global__ void emu_collectives(int* out) {
    int lane = threadIdx.x, v = lane * lane, half = lane < 16 ? 0x0000ffff : 0xffff0000;
    out[0 * 32 + lane] = __shfl_sync(0xffffffffu, v, 5);
    out[1 * 32 + lane] = __shfl_xor_sync(0xffffffffu, v, 3);
    out[2 * 32 + lane] = __shfl_up_sync(0xffffffffu, v, 4);
    out[3 * 32 + lane] = __shfl_down_sync(0xffffffffu, v, 4);
    out[4 * 32 + lane] = __shfl_down_sync(0xffffffffu, v, 2, 8);
    out[5 * 32 + lane] = __shfl_sync(0xffffffffu, v, 1, 8);
    out[6 * 32 + lane] = (int)__ballot_sync(0xffffffffu, v & 4);
    out[7 * 32 + lane] = __reduce_add_sync(0xffffffffu, v);
    out[8 * 32 + lane] = __reduce_max_sync(0xffffffffu, lane - 20);
    out[9 * 32 + lane] = __reduce_min_sync(0xffffffffu, (unsigned)(lane - 20));
    int r;
    if (lane < 16) r = __shfl_xor_sync(0x0000ffffu, v, 1) * 10;
    else r = __shfl_xor_sync(0xffff0000u, v, 2) * 100;
    out[10 * 32 + lane] = r;
    out[11 * 32 + lane] = __any_sync((u32)half, lane == 3) * 2 + __all_sync((u32)half, lane >= 16);
}
EMM_KERNEL(emu_collectives)

// Threads that return early do not hold up the block's barrier.
extern "C" __global__ void emu_early_exit(int* out, int n) {
    EMM_SHARED(int, values, [64]);
    int t = threadIdx.x;
    if (t >= n) return;
    values[t] = t;
    __syncthreads();
    out[t] = values[n - 1 - t];
    int odd = __syncthreads_count(t & 1);
    if (t == 0) out[n] = odd;
}
EMM_KERNEL(emu_early_exit)

// Writes the last word of the dynamic shared memory, and where its static array lies beside it.
extern "C" __global__ void emu_dynamic_shared(unsigned* out, int bytes) {
    EMM_DYNAMIC_SHARED(unsigned char, memory);
    EMM_SHARED(int, more, [256]);
    more[threadIdx.x] = 7;
    if (threadIdx.x == 0) reinterpret_cast<unsigned*>(memory)[bytes / 4 - 1] = 11;
    __syncthreads();
    out[threadIdx.x] = reinterpret_cast<unsigned*>(memory)[bytes / 4 - 1] + more[threadIdx.x ^ 1];
}
EMM_KERNEL(emu_dynamic_shared)
