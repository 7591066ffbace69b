// pack: working copies of the float32 weights, made once after each update, for the tensor-core convolutions.
//
//   pack_rows           to[rows, padded] = from[rows, width], zeros beyond
//   pack_transposed     to[c, padded] = w[o, taps, c] as [c, taps, o] with the taps reversed, zeros beyond taps o: what
//                       the gradient of a stride-1 convolution's input convolves dy with
//   im2col              cols[n, ho, wo, width] = the patches of x[n, h, w, c], k k c columns, zeros beyond
//
// A convolution of few channels becomes a 1x1 one through im2col (c = 3: 27 columns, width 32):
//   first, 3 -> o       y = conv2d_mma(im2col(x), pack_rows(w)); dw = wgrad_mma of (dy, im2col(x)), wgrad_reduce with
//                       width 27, partial_words 32
//   last, c -> 3        with d = im2col(dy), pad = kernel - 1 - pad: dx = conv2d_mma(d, pack_transposed(w));
//                       dw = wgrad_mma of (d, x) as [width, c] partials, then wgrad_reduce_reversed
//
//   wgrad_reduce_reversed   dw[o, taps, c] (=|+=) scale * sum over chunks, in order, of partials[chunk, width, c],
//                           whose row (taps - 1 - tap) o + out is dw's (out, tap)
//
// The _bf16 kernels have to, cols and x in bf16; im2col_last has cols in bf16 and x, the last convolution's dy, in
// float32.
//
// Arguments  pack_rows(to, from, rows, width, padded); pack_transposed(to, w, o, taps, c, row_words, first, padded):
//            columns first .. first + taps c of w's rows of row_words; im2col(cols, x, n, h, w, c, ho, wo, kernel,
//            stride, pad, width); wgrad_reduce_reversed(dw, partials, o, taps, c, width, chunks, scale, add).
// Launch     grid ceil(elements of the result / 256), 256 threads.
// Cost       memory-bound: 6 B a weight, once a step; im2col at 512 x 32 x 32 and width 32: 34 MB in bf16.
// Exactness  copies; bf16 rounds to nearest even.
#include "prelude/prelude.cuh"

template <class T>
DEVICE void pad_rows(T* to, const float* from, int rows, int width, int padded) {
    i64 i = flat_index();
    if (i >= (i64)rows * padded) return;
    int column = (int)(i % padded);
    to[i] = from_float<T>(column < width ? from[i / padded * width + column] : 0.0f);
}

template <class T>
DEVICE void transpose(T* to, const float* w, int o, int taps, int c, int row_words, int first, int padded) {
    i64 i = flat_index();
    if (i >= (i64)c * padded) return;
    int column = (int)(i % padded), ch = (int)(i / padded), tap = taps - 1 - column / o, out = column % o;
    to[i] = from_float<T>(tap >= 0 ? w[(i64)out * row_words + first + tap * c + ch] : 0.0f);
}

template <class T, class X>
DEVICE void patches(T* cols, const X* x, int n, int h, int w, int c, int ho, int wo, int kernel, int stride, int pad,
                    int width) {
    i64 i = flat_index(), pixel = i / width;
    if (pixel >= (i64)n * ho * wo) return;
    int column = (int)(i % width), tap = column / c, ch = column % c;
    int row = (int)(pixel / wo % ho) * stride - pad + tap / kernel;
    int col = (int)(pixel % wo) * stride - pad + tap % kernel;
    bool inside = tap < kernel * kernel && row >= 0 && row < h && col >= 0 && col < w;
    cols[i] = from_float<T>(inside ? to_float(x[((pixel / wo / ho * h + row) * w + col) * c + ch]) : 0.0f);
}

#define PACKS(T, rows_name, transposed_name)                                                                           \
    extern "C" __global__ void rows_name(T* to, const float* __restrict__ from, int rows, int width, int padded) {     \
        pad_rows(to, from, rows, width, padded);                                                                       \
    }                                                                                                                  \
    EMM_KERNEL(rows_name)                                                                                              \
    extern "C" __global__ void transposed_name(T* to, const float* __restrict__ w, int o, int taps, int c,             \
                                               int row_words, int first, int padded) {                                 \
        transpose(to, w, o, taps, c, row_words, first, padded);                                                        \
    }                                                                                                                  \
    EMM_KERNEL(transposed_name)

PACKS(float, pack_rows, pack_transposed)
PACKS(bf16, pack_rows_bf16, pack_transposed_bf16)

#define IM2COL(T, X, name)                                                                                             \
    extern "C" __global__ void name(T* cols, const X* __restrict__ x, int n, int h, int w, int c, int ho, int wo,      \
                                    int kernel, int stride, int pad, int width) {                                      \
        patches(cols, x, n, h, w, c, ho, wo, kernel, stride, pad, width);                                              \
    }                                                                                                                  \
    EMM_KERNEL(name)

IM2COL(float, float, im2col)
IM2COL(bf16, bf16, im2col_bf16)
IM2COL(bf16, float, im2col_last)

extern "C" __global__ void wgrad_reduce_reversed(float* dw, const float* __restrict__ partials, int o, int taps, int c,
                                                 int width, int chunks, float scale, int add) {
    i64 i = flat_index();
    if (i >= (i64)o * taps * c) return;
    int ch = (int)(i % c), tap = (int)(i / c % taps), out = (int)(i / c / taps);
    const float* from = partials + (i64)((taps - 1 - tap) * o + out) * c + ch;
    float sum = add ? dw[i] : 0.0f;
    for (int chunk = 0; chunk < chunks; chunk++) sum = fmaf(scale, from[(i64)chunk * width * c], sum);
    dw[i] = sum;
}
EMM_KERNEL(wgrad_reduce_reversed)
