// fir: NCSN++'s [1,3,3,1]/8 filter at every position of the zero-extended image, and its transpose.
//
//   fir_fwd   y[n, h + 1, w + 1, c] from x[n, h, w, c]
//   fir_bwd   dx[n, h, w, c] (=|+=) from dy[n, h + 1, w + 1, c]
//
// Launch     grid ceil(outputs / 256), 256 threads, one result a thread.
// Cost       16 taps a result, all from the first-level cache; 4 B read and 4 B written an element.
// Exactness  taps in row order, one fma each: the CPU's bits. The _bf16 kernels store bf16.
#include "prelude/prelude.cuh"

#include "params/fir.h"

template <class T>
DEVICE void filter(const FirFwd<T>& p) {
    const int h = p.h, w = p.w, c = p.c;
    i64 i = flat_index();
    if (i >= (i64)p.n * (h + 1) * (w + 1) * c) return;
    int ch = (int)(i % c);
    i64 pixel = i / c, row = pixel / (w + 1);
    const T* image = p.x + row / (h + 1) * h * w * c + ch;
    p.y[i] = from_float<T>(resampled(FIR_PAD, false, (int)(row % (h + 1)), (int)(pixel % (w + 1)), h, w,
                                   [&](int r, int q) { return to_float(image[((i64)r * w + q) * c]); }));
}

template <class T>
DEVICE void filter_back(const FirBwd<T>& p) {
    const int h = p.h, w = p.w, c = p.c;
    i64 i = flat_index();
    if (i >= (i64)p.n * h * w * c) return;
    int ch = (int)(i % c);
    i64 pixel = i / c, row = pixel / w;
    const T* image = p.dy + row / h * (h + 1) * (w + 1) * c + ch;
    float sum = resampled(FIR_PAD, true, (int)(row % h), (int)(pixel % w), h + 1, w + 1,
                          [&](int r, int q) { return to_float(image[((i64)r * (w + 1) + q) * c]); });
    put(p.dx + i, sum, p.add);
}

extern "C" __global__ void fir_fwd(const FirFwd<float> p) { filter(p); }
extern "C" __global__ void fir_fwd_bf16(const FirFwd<bf16> p) { filter(p); }

extern "C" __global__ void fir_bwd(const FirBwd<float> p) { filter_back(p); }
extern "C" __global__ void fir_bwd_bf16(const FirBwd<bf16> p) { filter_back(p); }
