// fir: NCSN++'s [1,3,3,1]/8 filter at every position of the zero-extended image, and its transpose.
//
//   fir_fwd   y[n, h + 1, w + 1, c] from x[n, h, w, c]
//   fir_bwd   dx[n, h, w, c] (=|+=) from dy[n, h + 1, w + 1, c]
//
// Arguments  fir_fwd(y, x, n, h, w, c); fir_bwd(dx, dy, n, h, w, c, add).
// Launch     grid ceil(outputs / 256), 256 threads, one result a thread.
// Cost       16 taps a result, all from the first-level cache; 4 B read and 4 B written an element.
// Exactness  taps in row order, one fma each: the CPU's bits. The _bf16 kernels store bf16.
#include "prelude/prelude.cuh"

template <class T>
DEVICE void filter(T* y, const T* x, int n, int h, int w, int c) {
    i64 i = flat_index();
    if (i >= (i64)n * (h + 1) * (w + 1) * c) return;
    int ch = (int)(i % c);
    i64 pixel = i / c, row = pixel / (w + 1);
    const T* image = x + row / (h + 1) * h * w * c + ch;
    y[i] = from_float<T>(resampled(FIR_PAD, false, (int)(row % (h + 1)), (int)(pixel % (w + 1)), h, w,
                                   [&](int r, int q) { return to_float(image[((i64)r * w + q) * c]); }));
}

template <class T>
DEVICE void filter_back(T* dx, const T* dy, int n, int h, int w, int c, int add) {
    i64 i = flat_index();
    if (i >= (i64)n * h * w * c) return;
    int ch = (int)(i % c);
    i64 pixel = i / c, row = pixel / w;
    const T* image = dy + row / h * (h + 1) * (w + 1) * c + ch;
    float sum = resampled(FIR_PAD, true, (int)(row % h), (int)(pixel % w), h + 1, w + 1,
                          [&](int r, int q) { return to_float(image[((i64)r * (w + 1) + q) * c]); });
    put(dx + i, sum, add);
}

#define KERNELS(T, fwd_name, bwd_name)                                                                            \
    extern "C" __global__ void fwd_name(T* y, const T* __restrict__ x, int n, int h, int w, int c) {              \
        filter(y, x, n, h, w, c);                                                                                 \
    }                                                                                                             \
    EMM_KERNEL(fwd_name)                                                                                          \
    extern "C" __global__ void bwd_name(T* dx, const T* __restrict__ dy, int n, int h, int w, int c, int add) {   \
        filter_back(dx, dy, n, h, w, c, add);                                                                     \
    }                                                                                                             \
    EMM_KERNEL(bwd_name)

KERNELS(float, fir_fwd, fir_bwd)
KERNELS(bf16, fir_fwd_bf16, fir_bwd_bf16)
