// ends: the network's two ends: x = y + sigma noise scaled for it, and D = c_skip x + c_out F; float32 images, float64
// coefficients per image rounded once.
//
//   noisy         out = c_in * (y + sigma[n] * noise)
//   scale_input   out = c_in * x
//   denoised      out = c_skip * x + c_out * f
// The _bf16 kernels write out in bf16; all else stays float.
//
// Arguments  noisy(out, y, noise, sigma, words, precond); scale_input(out, x, sigma, words, precond);
//            denoised(out, x, f, sigma, words, precond): words = h w c of one image.
// Launch     grid (ceil(words / 1024), images), 256 threads, up to 4 elements a thread.
// Cost       8 or 12 B an element: memory-bound. Exactness: the CPU's fma; coefficients to an ulp of float64.
#include "prelude/prelude.cuh"

template <class T>
DEVICE void scaled_sum(T* out, double a, const float* x, double b, const float* y, int words) {
    out += (i64)blockIdx.y * words;
    x += (i64)blockIdx.y * words;
    y += (i64)blockIdx.y * words;
    float fa = (float)a, fb = (float)b;
    for (int i = blockIdx.x * 1024 + threadIdx.x; i < min((int)(blockIdx.x + 1) * 1024, words); i += 256)
        out[i] = from_float<T>(fmaf(fa, x[i], __fmul_rn(fb, y[i])));
}

#define KERNELS(T, noisy_name, scale_name)                                                                         \
    extern "C" __global__ void noisy_name(T* out, const float* __restrict__ y, const float* __restrict__ noise,   \
                                          const double* __restrict__ sigma, int words, int precond) {             \
        double s = sigma[blockIdx.y], c_in = coefficients(precond, s).input;                                      \
        scaled_sum(out, c_in, y, c_in * s, noise, words);                                                         \
    }                                                                                                             \
    EMM_KERNEL(noisy_name)                                                                                        \
    extern "C" __global__ void scale_name(T* out, const float* __restrict__ x, const double* __restrict__ sigma,  \
                                          int words, int precond) {                                               \
        scaled_sum(out, coefficients(precond, sigma[blockIdx.y]).input, x, 0.0, x, words);                        \
    }                                                                                                             \
    EMM_KERNEL(scale_name)

KERNELS(float, noisy, scale_input)
KERNELS(bf16, noisy_bf16, scale_input_bf16)

extern "C" __global__ void denoised(float* out, const float* __restrict__ x, const float* __restrict__ f,
                                    const double* __restrict__ sigma, int words, int precond) {
    Coefficients c = coefficients(precond, sigma[blockIdx.y]);
    scaled_sum(out, c.skip, x, c.out, f, words);
}
EMM_KERNEL(denoised)
