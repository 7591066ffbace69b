// Kernels with bugs to plant, of the emulator's own tests: `bug` chooses one, 0 is the right kernel. The numbers and
// where each is caught stand in tests/emulator/planted.rs.
#include "prelude/prelude.cuh"

// y = (x - mean) / max|x - mean| over 256 values, by 256 threads.
extern "C" __global__ void emu_normalize(float* y, const float* x, int bug) {
    EMM_SHARED(float, partial, [8]);
    EMM_SHARED(float, total, [1]);
    int t = threadIdx.x;
    float v = x[t], sum = warp_reduce(v, Sum());
    if (t % 32 == 0) partial[t / 32] = sum;
    if (bug != 1) __syncthreads();
    if (t == 0) {
        float s = 0.0f;
        for (int w = 0; w < 8; w++) s += partial[w];
        total[0] = s / 256.0f;
    }
    // clang-format off
    if (bug == 2) { if (t < 128) { __syncthreads(); } else { __syncthreads(); } }
    // clang-format on
    else if (bug != 3) __syncthreads();
    v -= total[0];
    if (bug == 4 && t == 0) total[0] = 0.0f;
    float most = warp_reduce(fabsf(v), Max());
    if (t % 32 == 0) partial[t / 32] = most;
    __syncthreads();
    for (int w = 0; w < (bug == 5 ? 9 : 8); w++) most = fmaxf(most, partial[w]);
    int at = bug == 6 && t == 255 ? 256 : t;
    if (bug == 7 && t == 255) return;
    y[at] = v / most;
}
EMM_KERNEL(emu_normalize)

// Sums `steps` tiles of 64 x 4 floats, each thread the 16 bytes that its neighbour loaded, through two stages of
// asynchronous copies.
extern "C" __global__ void emu_pipeline(float* out, const float* in, int steps, int bug) {
    EMM_SHARED(float, stage, [2][64][4]);
    int t = threadIdx.x, other = 63 - t;
    auto load = [&](int step, int into) {
        if (step < steps) cp_async16(&stage[into][t][0], in + (step * 64 + t) * 4, 16);
        cp_async_commit();
    };
    float sum = 0.0f;
    load(0, 0);
    for (int step = 0; step < steps; step++) {
        int now = step % 2, next = bug == 14 ? now : 1 - now;
        load(step + 1, next);
        if (bug == 10 || bug == 11) cp_async_wait<2>();
        else if (bug != 12) cp_async_wait<1>();
        if (bug != 13) __syncthreads();
        int from = bug == 12 ? t : other;
        for (int i = 0; i < 4; i++) sum += stage[now][from][i];
        if (bug != 15) __syncthreads();
    }
    if (bug != 10) cp_async_wait<0>();
    out[t] = sum;
}
EMM_KERNEL(emu_pipeline)

// c[16][16] = a[16][k] * b[k][16] by 16 x 16 threads over shared tiles of 16.
extern "C" __global__ void emu_product(float* c, const float* a, const float* b, int k, int bug) {
    EMM_SHARED(float, left, [16][17]);
    EMM_SHARED(float, right, [16][17]);
    int x = threadIdx.x, y = threadIdx.y;
    float sum = 0.0f;
    for (int k0 = 0; k0 < k; k0 += 16) {
        left[y][x] = a[y * k + k0 + x];
        if (bug != 21 || y != 15) right[bug == 22 && y == 15 ? 16 + x / 15 : y][x] = b[(k0 + y) * 16 + x];
        __syncthreads();
        for (int i = 0; i < 16; i++) sum += left[y][i] * right[i][x];
        if (bug != 20) __syncthreads();
    }
    c[y * 16 + x] = sum;
}
EMM_KERNEL(emu_product)

// counts[x % 8] += 1 over all blocks.
extern "C" __global__ void emu_count(int* counts, const int* x, int bug) {
    int v = x[blockIdx.x];
    if (threadIdx.x != 0) return;
    if (bug == 30) counts[v % 8] += 1;
    else atomicAdd(&counts[v % 8], 1);
}
EMM_KERNEL(emu_count)

// The last block to finish adds up what all blocks wrote.
extern "C" __global__ void emu_last_block(float* total, float* partial, int* ticket, int bug) {
    EMM_SHARED(int, last, [1]);
    int t = threadIdx.x, blocks = gridDim.x;
    partial[blockIdx.x * 32 + t] = (float)(blockIdx.x + t);
    if (bug != 31) __threadfence();
    __syncthreads();
    if (t == 0) last[0] = atomicAdd(ticket, 1) == blocks - 1;
    __syncthreads();
    if (!last[0]) return;
    __threadfence();
    float sum = 0.0f;
    for (int b = 0; b < blocks; b++) sum += partial[b * 32 + t];
    total[t] = sum;
}
EMM_KERNEL(emu_last_block)

// Reverses each warp's values three times through shared memory.
extern "C" __global__ void emu_reverse(float* out, int bug) {
    EMM_SHARED(float, row, [2][33]);
    int w = threadIdx.x / 32, lane = threadIdx.x % 32;
    float v = (float)threadIdx.x;
    for (int i = 0; i < 3; i++) {
        row[w][lane] = v;
        if (bug != 40) __syncwarp();
        v = row[w][31 - lane] + 1.0f;
        if (bug != 41) __syncwarp();
    }
    out[threadIdx.x] = v;
}
EMM_KERNEL(emu_reverse)

// Collectives that some lanes miss.
extern "C" __global__ void emu_diverge(int* out, int bug) {
    int lane = threadIdx.x % 32, v = lane;
    if (bug == 50) {  // half a warp in a shuffle of the whole, half at the barrier
        if (lane < 16) v = __shfl_xor_sync(0xffffffffu, v, 1);
        else __syncthreads();
    }
    if (bug == 51 && lane >= 30) return;  // before a shuffle that names them
    if (bug == 52) v = lane < 16 ? __shfl_xor_sync(0xffffffffu, v, 1) : __shfl_xor_sync(0xffffffffu, v, 2);
    if (bug == 53) v = __shfl_xor_sync(0x0000ffffu, v, 1);  // by lanes that the mask leaves out
    if (bug == 54 && lane < 16) v = __shfl_sync(0x0000ffffu, v, 20);
    if (bug == 55) {  // one warp waits for the block, the other for a lane that waits for the block
        if (threadIdx.x < 33) __syncthreads();
        else v = __shfl_xor_sync(0xffffffffu, v, 1);
    }
    out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, v, 1);
}
EMM_KERNEL(emu_diverge)

// The rows that ldmatrix reads come from other lanes, and from addresses that must be aligned.
extern "C" __global__ void emu_rows(unsigned* out, const u16* in, int bug) {
    EMM_SHARED(u16, rows, [32][8]);
    int lane = threadIdx.x;
    for (int i = 0; i < 8; i++) rows[lane][i] = in[lane * 8 + i];
    if (bug != 60) __syncwarp();
    u32 r[4];
    int row = bug == 62 && lane == 31 ? 32 : (lane + 8) % 32;
    ldmatrix_x4(r, &rows[row][bug == 61 && lane == 3]);
    for (int i = 0; i < 4; i++) out[i * 32 + lane] = r[i];
}
EMM_KERNEL(emu_rows)

// y = x + 1 over 128 floats, four a thread, by way of shared memory.
extern "C" __global__ void emu_quads(float* y, const float* __restrict__ x, int bug) {
    EMM_SHARED(float, row, [132]);
    int at = threadIdx.x * 4, by_way_of = at + (bug == 72);
    *view_as<float4*>(&row[by_way_of]) = *view_as<const float4*>(x + at);
    float4 v = *view_as<float4*>(&row[by_way_of]);
    *view_as<float4*>(y + at) = make_float4(v.x + 1.0f, v.y + 1.0f, v.z + 1.0f, v.w + 1.0f);
}
EMM_KERNEL(emu_quads)

// y = 2 x: right where both are the same memory as long as the compiler does not take the promise at its word.
extern "C" __global__ void emu_scale(float* y, const float* __restrict__ x, int n) {
    int i = (int)flat_index();
    if (i < n) y[i] = 2.0f * x[i];
}
EMM_KERNEL(emu_scale)
