// ends: the network's two ends: x = y + sigma noise scaled for it, and D = c_skip x + c_out F; float32 images, float64
// coefficients per image rounded once.
//
//   noisy         out = c_in * (y + sigma[n] * noise)
//   scale_input   out = c_in * x
//   denoised      out = c_skip * x + c_out * f
// The _bf16 kernels write out in bf16; all else stays float.
//
// Launch     grid (ceil(words / 1024), images), 256 threads, up to 4 elements a thread.
// Cost       8 or 12 B an element: memory-bound. Exactness: the CPU's fma; coefficients to an ulp of float64.
#include "prelude/prelude.cuh"

#include "params/ends.h"

template <class T>
DEVICE void scaled_sum(T* out, double a, const float* __restrict__ x, double b, const float* __restrict__ y,
                       int words) {
    out += (i64)blockIdx.y * words;
    x += (i64)blockIdx.y * words;
    y += (i64)blockIdx.y * words;
    float fa = (float)a, fb = (float)b;
    int end = min((int)(blockIdx.x + 1) * BLOCK_ELEMENTS, words);
    for (int i = blockIdx.x * BLOCK_ELEMENTS + threadIdx.x; i < end; i += BLOCK_THREADS)
        out[i] = from_float<T>(fmaf(fa, x[i], __fmul_rn(fb, y[i])));
}

template <class T>
DEVICE void add_noise(const Noisy<T>& p) {
    double sigma = p.sigma[blockIdx.y], c_in = coefficients(p.precond, sigma).input;
    scaled_sum(p.out, c_in, p.y, c_in * sigma, p.noise, p.words);
}

template <class T>
DEVICE void scale(const ScaleInput<T>& p) {
    scaled_sum(p.out, coefficients(p.precond, p.sigma[blockIdx.y]).input, p.x, 0.0, p.x, p.words);
}

extern "C" __global__ void noisy(const Noisy<float> p) { add_noise(p); }
extern "C" __global__ void noisy_bf16(const Noisy<bf16> p) { add_noise(p); }

extern "C" __global__ void scale_input(const ScaleInput<float> p) { scale(p); }
extern "C" __global__ void scale_input_bf16(const ScaleInput<bf16> p) { scale(p); }

extern "C" __global__ void denoised(const Denoised p) {
    Coefficients c = coefficients(p.precond, p.sigma[blockIdx.y]);
    scaled_sum(p.out, c.skip, p.x, c.out, p.f, p.words);
}
