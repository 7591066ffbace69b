// sums: the small additions that gradients of several ops share.
//
//   sum_rows     of each job dst[c] (=|+=) scale * sum over rows of src[rows, src_row]: gradients of biases, gamma, beta
//   sum_chains   of each job dw[rows, row_words], columns first .. first + width (=|+=) scale * sum over chains, in order, of
//                partials: gradients of convolutions' weights
//   sum_pixels   sums[n, c] = scale * sum over pixels of x[n, pixels, c], and, if `emb` is given, emb[n, c] (=|+=) the
//                same, rows emb_row apart
//   scaled_add   dst[i] (=|+=) scale * src[i]                                 gradient of a residual
//
// The _bf16 kernels take x, src and dst in bf16; sums and emb stay float.
//
// Launch     sum_rows: ceil(columns / 32) blocks a job, 256 threads: 32 columns x 8 warps of 4 groups of 8 rows; 4 KB
//            shared. sum_chains: ceil(rows width / 1024) blocks a job, 256 threads of 4 neighbours. sum_pixels: grid
//            (ceil(channels / 32), images), 256 threads: 32 channels x 8 strides of pixels; 1 KB shared. scaled_add: grid ceil(n / 1024), 256 threads, 4 elements a thread.
// Cost       reads everything once, writes once: 4 B an element read; memory-bound.
// Exactness  fixed order: groups of 8 rows (ROUNDED_IMAGES) one after another; pixels in 8 interleaved sums, added in order.
#include "prelude/prelude.cuh"

#include "params/sums.h"

extern "C" __global__ void __launch_bounds__(BLOCK_THREADS) sum_rows(const SumRows p) {
    const SumRowsJob job = p.jobs[job_of_block(p)];
    // Each warp has 32 loads under way, since there are few blocks to hide the memory's answers.
    constexpr int EACH = 4, GROUPS = BLOCK_WARPS * EACH;
    EMM_SHARED(float, partial, [GROUPS][WARP_THREADS]);
    int lane = threadIdx.x % WARP_THREADS, warp = threadIdx.x / WARP_THREADS;
    int c = (blockIdx.x - job.first_block) * WARP_THREADS + lane;
    const float* __restrict__ src = job.src;
    float total = job.add && warp == 0 && c < job.columns ? job.dst[c] : 0.0f;
    for (int first = 0; first < job.rows; first += GROUPS * ROUNDED_IMAGES) {
#pragma unroll
        for (int j = 0; j < EACH; j++) {
            int group = warp + BLOCK_WARPS * j, row = first + group * ROUNDED_IMAGES;
            float sum = 0.0f;
#pragma unroll
            for (int r = 0; r < ROUNDED_IMAGES; r++)
                if (row + r < job.rows && c < job.columns) sum += src[(i64)(row + r) * job.src_row + c];
            partial[group][lane] = sum;
        }
        __syncthreads();
        if (warp == 0)
            for (int g = 0; g < GROUPS && first + g * ROUNDED_IMAGES < job.rows; g++)
                total = fmaf(job.scale, partial[g][lane], total);
        __syncthreads();
    }
    if (warp == 0 && c < job.columns) job.dst[c] = total;
}

// N neighbours of a row of dw, from its column `column` of those that the job is of.
template <int N>
DEVICE void sum_neighbours(const SumChainsJob& p, u32 row, u32 column) {
    u32 rows = p.rows / p.taps, from = (p.taps - 1 - row % p.taps) * rows + row / p.taps;
    float* to = p.dw + (i64)row * p.row_words + p.first + column;
    const float* partial = p.partials + (i64)from * p.partial_words + column;
    Packet<float> sum = {};
    // Mutant, planted::convolutions_on_tensor_cores: `p.add` reads `false`.
    if (p.add)
#pragma unroll
        for (int k = 0; k < N; k++) sum.v[k] = to[k];
#pragma unroll 4
    for (int chain = 0; chain < p.chains; chain++, partial += p.chain_words) {
        Packet<float> of_chain = {};
        if constexpr (N == 4)
            of_chain = load_packet(partial);
        else
            of_chain.v[0] = *partial;
#pragma unroll
        for (int k = 0; k < N; k++) sum.v[k] = fmaf(p.scale, of_chain.v[k], sum.v[k]);
    }
    if constexpr (N == 4)
        store_packet(to, sum);
    else
        *to = sum.v[0];
}

extern "C" __global__ void __launch_bounds__(BLOCK_THREADS) sum_chains(const SumChains p) {
    const SumChainsJob job = p.jobs[job_of_block(p)];
    u32 width = job.width, end = job.rows * width;
    u32 i = ((blockIdx.x - job.first_block) * BLOCK_THREADS + threadIdx.x) * 4;
    bool whole = (job.width | job.first | job.chain_words) % 4 == 0 && aligned4(job.dw, job.row_words) &&
                 aligned4(job.partials, job.partial_words);
    if (whole && i < end) return sum_neighbours<4>(job, i / width, i % width);
    for (u32 last = min(i + 4, end); i < last; i++) sum_neighbours<1>(job, i / width, i % width);
}

template <class T>
DEVICE void pixel_sums(const SumPixels<T>& p) {
    EMM_SHARED(float, partial, [8][32]);
    int lane = threadIdx.x % 32, stride = threadIdx.x / 32, n = blockIdx.y, c = blockIdx.x * 32 + lane;
    float sum = 0.0f;
    if (c < p.channels)
        for (int i = stride; i < p.pixels; i += 8) sum += to_float(p.x[((i64)n * p.pixels + i) * p.channels + c]);
    partial[stride][lane] = sum;
    __syncthreads();
    if (stride > 0 || c >= p.channels) return;
    for (int s = 1; s < 8; s++) sum += partial[s][lane];
    sum *= p.scale;
    p.sums[(i64)n * p.channels + c] = sum;
    if (p.emb) put(p.emb + (i64)n * p.emb_row + c, sum, p.add);
}

extern "C" __global__ void sum_pixels(const SumPixels<float> p) { pixel_sums(p); }
extern "C" __global__ void sum_pixels_bf16(const SumPixels<bf16> p) { pixel_sums(p); }

template <class T>
DEVICE void add_scaled(const ScaledAdd<T>& p) {
    i64 i = flat_index() * 4;
    if (i >= p.n) return;
    float4 v = load4(p.src + i, (int)min(p.n - i, (i64)4), aligned4(p.src, 0));
    const float vs[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int j = 0; j < 4; j++)
        if (i + j < p.n) put(p.dst + i + j, p.scale * vs[j], p.add);
}

extern "C" __global__ void scaled_add(const ScaledAdd<float> p) { add_scaled(p); }
extern "C" __global__ void scaled_add_bf16(const ScaledAdd<bf16> p) { add_scaled(p); }
