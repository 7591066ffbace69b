// heun: EDM's sampler (Karras et al. 2022, Algorithm 2) between evaluations of the denoiser; state in float64.
//
//   heun_start      x[n, words] = t * latent of each image's own seed
//   heun_noise      x += scale * normals of (seed, step)                          churn only
//   heun_input      input = (float32) x, sigma[n] = t: the next evaluation's operands
//   heun_euler      x_hat = x; slope = (x - d) / t; x += (t_next - t) slope
//   heun_correct    x = x_hat + (t_next - t) (slope + (x - d) / t_next) / 2
//   heun_finish     images = (float32) x, pixels = floor(clip(127.5 images + 128, 0, 255)), bad_image = the lowest
//                   index of an image that is not finite (unchanged if all are)
//
// Launch     heun_start, heun_noise: grid (ceil(ceil(words / 8) / 256), n), 8 elements a thread. The others: grid
//            ceil(count / 256), count >= n. 256 threads.
// Cost       36 B an element for euler, 36 for correct: memory-bound; nothing beside an evaluation.
// Exactness  the CPU's operations in its order, none contracted: its bits.
#include "prelude/prelude.cuh"

#include "params/heun.h"

extern "C" __global__ void heun_start(const HeunStart p) {
    int block = (int)flat_index(), image = blockIdx.y, words = p.words;
    if (block * DRAWN_ELEMENTS >= words) return;
    float z[8];
    normals8(z, block, 0, 0, tag(Stream::Latent, 0), p.seeds[image]);
    for (int j = 0; j < DRAWN_ELEMENTS && block * DRAWN_ELEMENTS + j < words; j++)
        p.x[(i64)image * words + block * DRAWN_ELEMENTS + j] = __dmul_rn((double)z[j], p.t);
}

extern "C" __global__ void heun_noise(const HeunNoise p) {
    int block = (int)flat_index(), image = blockIdx.y, words = p.words;
    if (block * DRAWN_ELEMENTS >= words) return;
    float z[8];
    normals8(z, block, 0, p.step, tag(Stream::Churn, 0), p.seeds[image]);
    for (int j = 0; j < DRAWN_ELEMENTS && block * DRAWN_ELEMENTS + j < words; j++) {
        double* to = p.x + (i64)image * words + block * DRAWN_ELEMENTS + j;
        *to = __dadd_rn(*to, __dmul_rn(p.scale, (double)z[j]));
    }
}

extern "C" __global__ void heun_input(const HeunInput p) {
    i64 i = flat_index();
    if (i < p.n) p.sigma[i] = p.t;
    if (i < p.count) p.input[i] = (float)p.x[i];
}

DEVICE double slope_at(double x, float d, double t) { return __dadd_rn(x, -(double)d) / t; }

extern "C" __global__ void heun_euler(const HeunEuler p) {
    i64 i = flat_index();
    if (i >= p.count) return;
    double from = p.x[i], s = slope_at(from, p.d[i], p.t);
    p.x_hat[i] = from;
    p.slope[i] = s;
    p.x[i] = __dadd_rn(from, __dmul_rn(p.t_next - p.t, s));
}

extern "C" __global__ void heun_correct(const HeunCorrect p) {
    i64 i = flat_index();
    if (i >= p.count) return;
    double next = slope_at(p.x[i], p.d[i], p.t_next);
    // Mutant, search::sampling_on_a_gpu_gives_the_cpus_bits_in_every_schedule: `0.5, next` reads `0.5, p.slope[i]`.
    double mean = __dadd_rn(__dmul_rn(0.5, p.slope[i]), __dmul_rn(0.5, next));
    p.x[i] = __dadd_rn(p.x_hat[i], __dmul_rn(p.t_next - p.t, mean));
}

extern "C" __global__ void heun_finish(const HeunFinish p) {
    i64 i = flat_index();
    if (i >= p.count) return;
    float v = (float)p.x[i];
    p.images[i] = v;
    double level = __dadd_rn(127.5 * (double)v, 128.0);
    p.pixels[i] = level > 0.0 ? (level < 255.0 ? (u8)level : (u8)255) : (u8)0;
    if (!(fabsf(v) <= 3.402823466e38f)) atomicMin(p.bad_image, (u32)(i / p.words));
}
