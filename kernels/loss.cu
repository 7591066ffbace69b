// loss: per image, the sum over pixels of weight (D(y + sigma noise; sigma) - y)^2, D = c_skip x + c_out F, in float64;
// its gradient with respect to F for the mean over the whole batch. Karras et al. 2022, Eq. 2.
//
//   loss_fwd   loss[n] = weight(sigma[n]) * sum of d^2, d = (c_skip - 1) y + c_skip sigma noise + c_out f
//   loss_bwd   df (=|+=) 2 weight c_out d / batch
//   loss_sum   total += sum over n, in order, of loss[n]
//
// Arguments  loss_fwd(loss, f, y, noise, sigma, words, precond); loss_bwd(df, f, y, noise, sigma, words, precond,
//            batch, add); loss_sum(total, loss, n). loss, sigma and total are float64; words = h w c.
// Launch     loss_fwd: grid n, 256 threads, 64 B shared. loss_bwd: grid (ceil(words / 1024), n), 256 threads.
//            loss_sum: one block of 32 threads.
// Cost       forward 12 B an element, backward 16 B: memory-bound; the float64 work is 6 operations an element.
// Exactness  256 interleaved sums an image, then a fixed tree.
#include "prelude/prelude.cuh"

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

extern "C" __global__ void loss_fwd(double* loss, const float* __restrict__ f, const float* __restrict__ y,
                                    const float* __restrict__ noise, const double* __restrict__ sigma, int words,
                                    int precond) {
    EMM_SHARED(double, scratch, [8]);
    i64 first = (i64)blockIdx.x * words;
    double s = sigma[blockIdx.x], sum = 0.0;
    Difference d(precond, s);
    for (int i = threadIdx.x; i < words; i += 256) {
        double v = d(f[first + i], y[first + i], noise[first + i]);
        sum = fma(v, v, sum);
    }
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) loss[blockIdx.x] = loss_weight(precond, s) * sum;
}
EMM_KERNEL(loss_fwd)

extern "C" __global__ void loss_bwd(float* df, const float* __restrict__ f, const float* __restrict__ y,
                                    const float* __restrict__ noise, const double* __restrict__ sigma, int words,
                                    int precond, int batch, int add) {
    i64 first = (i64)blockIdx.y * words;
    double s = sigma[blockIdx.y];
    Difference d(precond, s);
    double slope = 2.0 * loss_weight(precond, s) * d.b / batch;
    for (int i = blockIdx.x * 1024 + threadIdx.x; i < min((int)(blockIdx.x + 1) * 1024, words); i += 256)
        put(df + first + i, (float)(slope * d(f[first + i], y[first + i], noise[first + i])), add);
}
EMM_KERNEL(loss_bwd)

extern "C" __global__ void loss_sum(double* total, const double* __restrict__ loss, int n) {
    if (threadIdx.x > 0) return;
    double sum = *total;
    for (int i = 0; i < n; i++) sum += loss[i];
    *total = sum;
}
EMM_KERNEL(loss_sum)
