// loss: per image, the sum over pixels of weight (D(y + sigma noise; sigma) - y)^2, D = c_skip x + c_out F, in float64;
// its gradient with respect to F for the mean over the whole batch. Karras et al. 2022, Eq. 2.
//
//   loss_fwd   loss[n] = weight(sigma[n]) * sum of d^2, d = (c_skip - 1) y + c_skip sigma noise + c_out f
//   loss_bwd   df (=|+=) 2 weight c_out d / batch
//   loss_sum   total += sum over n, in order, of loss[n]
//
// Launch     loss_fwd: grid n, 256 threads, 64 B shared. loss_bwd: grid (ceil(words / 1024), n), 256 threads.
//            loss_sum: one block of 32 threads.
// Cost       forward 12 B an element, backward 16 B: memory-bound; the float64 work is 6 operations an element.
// Exactness  256 interleaved sums an image, then a fixed tree.
#include "prelude/prelude.cuh"

#include "params/loss.h"

// d = k y + a noise + b f.
struct Difference {
    double k, a, b;
    DEVICE Difference(int precond, double sigma) {
        Coefficients c = coefficients(precond, sigma);
        k = c.skip - 1.0;
        a = c.skip * sigma;
        b = c.out;
    }
    DEVICE double operator()(float f, float y, float noise) const {
        return fma(k, (double)y, fma(a, (double)noise, __dmul_rn(b, (double)f)));
    }
};

extern "C" __global__ void loss_fwd(const LossFwd p) {
    EMM_SHARED(double, scratch, [8]);
    i64 first = (i64)blockIdx.x * p.words;
    double s = p.sigma[blockIdx.x], sum = 0.0;
    Difference d(p.precond, s);
    for (int i = threadIdx.x; i < p.words; i += BLOCK_THREADS) {
        double v = d(p.f[first + i], p.y[first + i], p.noise[first + i]);
        sum = fma(v, v, sum);
    }
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) p.loss[blockIdx.x] = loss_weight(p.precond, s) * sum;
}

extern "C" __global__ void loss_bwd(const LossBwd p) {
    const float *__restrict__ f = p.f, *__restrict__ y = p.y, *__restrict__ noise = p.noise;
    i64 first = (i64)blockIdx.y * p.words;
    double s = p.sigma[blockIdx.y];
    Difference d(p.precond, s);
    double slope = 2.0 * loss_weight(p.precond, s) * d.b / p.batch;
    int end = min((int)(blockIdx.x + 1) * BLOCK_ELEMENTS, p.words);
    for (int i = blockIdx.x * BLOCK_ELEMENTS + threadIdx.x; i < end; i += BLOCK_THREADS)
        put(p.df + first + i, (float)(slope * d(f[first + i], y[first + i], noise[first + i])), p.add);
}

extern "C" __global__ void loss_sum(const LossSum p) {
    if (threadIdx.x > 0) return;
    // Mutant, interval::a_replayed_step_equals_one_launched_singly: `*p.total` reads `0.0`.
    double sum = *p.total;
    for (int i = 0; i < p.n; i++) sum += p.loss[i];
    *p.total = sum;
}
