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
// Arguments  heun_start(x, seeds, words, t); heun_noise(x, seeds, words, scale, step); heun_input(input, sigma, x,
//            count, n, t); heun_euler(x, x_hat, slope, d, count, t, t_next); heun_correct(x, x_hat, slope, d, count, t,
//            t_next); heun_finish(images, pixels, bad_image, x, words, count). x, x_hat, slope, sigma, t, scale
//            float64; d, input float32; seeds u64[n]; count = n words.
// Launch     heun_start, heun_noise: grid (ceil(ceil(words / 8) / 256), n), 8 elements a thread. The others: grid
//            ceil(count / 256), count >= n. 256 threads.
// Cost       36 B an element for euler, 36 for correct: memory-bound; nothing beside an evaluation.
// Exactness  the CPU's operations in its order, none contracted: its bits.
#include "prelude/prelude.cuh"

extern "C" __global__ void heun_start(double* x, const u64* __restrict__ seeds, int words, double t) {
    int block = (int)flat_index(), image = blockIdx.y;
    if (block * 8 >= words) return;
    float z[8];
    normals8(z, block, 0, 0, tag(Stream::Latent, 0), seeds[image]);
    for (int j = 0; j < 8 && block * 8 + j < words; j++)
        x[(i64)image * words + block * 8 + j] = __dmul_rn((double)z[j], t);
}
EMM_KERNEL(heun_start)

extern "C" __global__ void heun_noise(double* x, const u64* __restrict__ seeds, int words, double scale, u32 step) {
    int block = (int)flat_index(), image = blockIdx.y;
    if (block * 8 >= words) return;
    float z[8];
    normals8(z, block, 0, step, tag(Stream::Churn, 0), seeds[image]);
    for (int j = 0; j < 8 && block * 8 + j < words; j++) {
        double* to = x + (i64)image * words + block * 8 + j;
        *to = __dadd_rn(*to, __dmul_rn(scale, (double)z[j]));
    }
}
EMM_KERNEL(heun_noise)

extern "C" __global__ void heun_input(float* input, double* sigma, const double* __restrict__ x, i64 count, int n,
                                      double t) {
    i64 i = flat_index();
    if (i < n) sigma[i] = t;
    if (i < count) input[i] = (float)x[i];
}
EMM_KERNEL(heun_input)

DEVICE double slope_at(double x, float d, double t) { return __dadd_rn(x, -(double)d) / t; }

extern "C" __global__ void heun_euler(double* x, double* x_hat, double* slope, const float* __restrict__ d, i64 count,
                                      double t, double t_next) {
    i64 i = flat_index();
    if (i >= count) return;
    double from = x[i], s = slope_at(from, d[i], t);
    x_hat[i] = from;
    slope[i] = s;
    x[i] = __dadd_rn(from, __dmul_rn(t_next - t, s));
}
EMM_KERNEL(heun_euler)

extern "C" __global__ void heun_correct(double* x, const double* __restrict__ x_hat, const double* __restrict__ slope,
                                        const float* __restrict__ d, i64 count, double t, double t_next) {
    i64 i = flat_index();
    if (i >= count) return;
    double next = slope_at(x[i], d[i], t_next);
    double mean = __dadd_rn(__dmul_rn(0.5, slope[i]), __dmul_rn(0.5, next));
    x[i] = __dadd_rn(x_hat[i], __dmul_rn(t_next - t, mean));
}
EMM_KERNEL(heun_correct)

extern "C" __global__ void heun_finish(float* images, u8* pixels, u32* bad_image, const double* __restrict__ x,
                                       int words, i64 count) {
    i64 i = flat_index();
    if (i >= count) return;
    float v = (float)x[i];
    images[i] = v;
    double level = __dadd_rn(127.5 * (double)v, 128.0);
    pixels[i] = level > 0.0 ? (level < 255.0 ? (u8)level : (u8)255) : (u8)0;
    if (!(fabsf(v) <= 3.402823466e38f)) atomicMin(bad_image, (u32)(i / words));
}
EMM_KERNEL(heun_finish)
