// optimal: the theoretical optimum D*(x; sigma) = sum over n of softmax_n(-|x - y_n|^2 / 2 sigma^2) y_n over training
// images y_n of bytes (Gu et al. 2023, Eq. 2), in float64: at sigma = 0.002 an exponent magnifies an error 125,000
// times.
//
//   optimal_norms       norms[count] = |y_n|^2
//   optimal_exponents   weights[q, count] = (2 x.y_n - |y_n|^2) / 2 sigma^2 up to what all n share; -inf outside the
//                       query's range of images (its class)
//   optimal_weights     weights = exp(weights - highest), exactly 0 below e^-40; totals[q]
//   optimal_images      out[q, words] = sum of weights[q, n] y_n / totals[q]
//
// Launch     optimal_norms: grid ceil(count / 8), a warp an image. optimal_exponents: grid (ceil(q / 32), ceil(count /
//            32)), 8.3 KB shared. optimal_weights: grid q, 64 B. optimal_images: grid (ceil(words / 64), ceil(q / 16)),
//            4 KB. 256 threads.
// Cost       2 q count words float64 FLOP twice; the second product skips references that no query of a tile weighs.
// Exactness  fixed order; agrees with float64 to float32's last bits.
#include "prelude/prelude.cuh"

#include "params/optimal.h"

extern "C" __global__ void optimal_norms(const OptimalNorms p) {
    int image = blockIdx.x * BLOCK_WARPS + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (image >= p.count) return;
    // (u / 127.5 - 1)^2 = (2 u - 255)^2 / 255^2, summed exactly.
    u64 sum = 0;
    for (int i = lane; i < p.words; i += 32) {
        int v = 2 * (int)p.pixels[(i64)image * p.words + i] - 255;
        sum += (u64)(v * v);
    }
    sum = warp_reduce(sum, Sum());
    if (lane == 0) p.norms[image] = (double)sum / (255.0 * 255.0);
}

extern "C" __global__ void __launch_bounds__(BLOCK_THREADS) optimal_exponents(const OptimalExponents p) {
    EMM_SHARED(double, xs, [16][33]);
    EMM_SHARED(double, us, [16][33]);
    const int q = p.q, count = p.count, words = p.words;
    int q0 = blockIdx.x * 32, n0 = blockIdx.y * 32;
    int row = threadIdx.x / 16, col = threadIdx.x % 16;  // results (row + 16 i, col + 16 j)
    double acc[2][2] = {};
    for (int k0 = 0; k0 < words; k0 += 16) {
        for (int i = 0; i < 2; i++) {
            int line = row + 16 * i, k = k0 + col;
            bool inside = k < words;
            xs[col][line] = inside && q0 + line < q ? (double)p.x[(i64)(q0 + line) * words + k] : 0.0;
            us[col][line] = inside && n0 + line < count ? (double)p.pixels[(i64)(n0 + line) * words + k] : 0.0;
        }
        __syncthreads();
        for (int k = 0; k < 16; k++)
            for (int i = 0; i < 2; i++)
                for (int j = 0; j < 2; j++) acc[i][j] = fma(xs[k][row + 16 * i], us[k][col + 16 * j], acc[i][j]);
        __syncthreads();
    }
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 2; j++) {
            int query = q0 + row + 16 * i, n = n0 + col + 16 * j;
            if (query >= q || n >= count) continue;
            // |x|^2 - |x - y|^2 with x.y = x.u / 127.5 - sum of x; what all images share drops out.
            double s = p.sigma[query], e = (acc[i][j] * (2.0 / 127.5) - p.norms[n]) / (2.0 * s * s);
            // Mutant, search::the_optimum_on_a_gpu_matches_float64_in_every_schedule: `n < p` reads `n <= p`.
            bool inside = n >= p.ranges[2 * query] && n < p.ranges[2 * query + 1];
            p.weights[(i64)query * count + n] = inside ? e : -INFINITY;
        }
}

extern "C" __global__ void optimal_weights(const OptimalWeights p) {
    EMM_SHARED(double, scratch, [8]);
    const int count = p.count;
    double* row = p.weights + (i64)blockIdx.x * count;
    double highest = -INFINITY, total = 0.0;
    for (int n = threadIdx.x; n < count; n += BLOCK_THREADS) highest = fmax(highest, row[n]);
    highest = block_reduce(highest, scratch, Max());
    for (int n = threadIdx.x; n < count; n += BLOCK_THREADS) {
        double w = row[n] >= highest - 40.0 ? exp(row[n] - highest) : 0.0;
        row[n] = w;
        total += w;
    }
    total = block_sum(total, scratch);
    if (threadIdx.x == 0) p.totals[blockIdx.x] = total;
}

extern "C" __global__ void __launch_bounds__(BLOCK_THREADS) optimal_images(const OptimalImages p) {
    EMM_SHARED(double, tile, [32][16]);  // weights of 32 references for 16 queries
    const int q = p.q, count = p.count, words = p.words;
    int pixel = blockIdx.x * 64 + threadIdx.x % 64, mine = threadIdx.x / 64 * 4, q0 = blockIdx.y * 16;
    double acc[4] = {};
    for (int n0 = 0; n0 < count; n0 += 32) {
        bool any = false;
        for (int i = threadIdx.x; i < 512; i += BLOCK_THREADS) {
            int n = i % 32, query = i / 32;
            double w = n0 + n < count && q0 + query < q ? p.weights[(i64)(q0 + query) * count + n0 + n] : 0.0;
            tile[n][query] = w;
            any |= w != 0.0;
        }
        if (__syncthreads_or(any) && pixel < words)
            for (int n = 0; n < 32 && n0 + n < count; n++) {
                double u = (double)p.pixels[(i64)(n0 + n) * words + pixel];
                for (int j = 0; j < 4; j++) acc[j] = fma(tile[n][mine + j], u, acc[j]);
            }
        __syncthreads();
    }
    for (int j = 0; j < 4; j++) {
        int query = q0 + mine + j;
        if (query < q && pixel < words)
            p.out[(i64)query * words + pixel] = (float)(acc[j] / p.totals[query] / 127.5 - 1.0);
    }
}
