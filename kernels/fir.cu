// fir: NCSN++'s [1,3,3,1]/8 filter at every position of the zero-extended image, and its transpose.
//
//   fir_fwd   y[n, h + 1, w + 1, c] from x[n, h, w, c]
//   fir_bwd   dx[n, h, w, c] (=|+=) from dy[n, h + 1, w + 1, c]
//
// Arguments  fir_fwd(y, x, n, h, w, c); fir_bwd(dx, dy, n, h, w, c, add).
// Launch     grid ceil(outputs / 256), 256 threads, one result a thread.
// Cost       16 taps a result, all from the first-level cache; 4 B read and 4 B written an element.
// Exactness  taps in row order, one fma each: the CPU's bits.
#include "prelude/prelude.cuh"

extern "C" __global__ void fir_fwd(float* y, const float* __restrict__ x, int n, int h, int w, int c) {
    i64 i = flat_index();
    if (i >= (i64)n * (h + 1) * (w + 1) * c) return;
    int ch = (int)(i % c);
    i64 pixel = i / c, row = pixel / (w + 1);
    const float* image = x + row / (h + 1) * h * w * c + ch;
    y[i] = resampled(FIR_PAD, false, (int)(row % (h + 1)), (int)(pixel % (w + 1)), h, w,
                     [&](int r, int q) { return image[((i64)r * w + q) * c]; });
}
EMM_KERNEL(fir_fwd)

extern "C" __global__ void fir_bwd(float* dx, const float* __restrict__ dy, int n, int h, int w, int c, int add) {
    i64 i = flat_index();
    if (i >= (i64)n * h * w * c) return;
    int ch = (int)(i % c);
    i64 pixel = i / c, row = pixel / w;
    const float* image = dy + row / h * (h + 1) * (w + 1) * c + ch;
    float sum = resampled(FIR_PAD, true, (int)(row % h), (int)(pixel % w), h + 1, w + 1,
                          [&](int r, int q) { return image[((i64)r * (w + 1) + q) * c]; });
    put(dx + i, sum, add);
}
EMM_KERNEL(fir_bwd)
