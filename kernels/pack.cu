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
// Sizes      every array here has fewer than 2^31 elements, as the model's configuration sees to: indices are of 32 bits, since
//            a 64-bit division is some hundred instructions.
#include "prelude/prelude.cuh"

template <class T>
DEVICE void pad_rows(T* to, const float* from, u32 rows, u32 width, u32 padded) {
    u32 i = flat_index32();
    if (i >= rows * padded) return;
    u32 row = i / padded, column = i - row * padded;
    to[i] = from_float<T>(column < width ? from[row * width + column] : 0.0f);
}

template <class T>
DEVICE void transpose(T* to, const float* w, u32 o, u32 taps, u32 c, u32 row_words, u32 first, u32 padded) {
    u32 i = flat_index32();
    if (i >= c * padded) return;
    u32 ch = i / padded, column = i - ch * padded, reversed = column / o, out = column - reversed * o;
    to[i] = from_float<T>(reversed < taps ? w[out * row_words + first + (taps - 1 - reversed) * c + ch] : 0.0f);
}

template <class T, class X>
DEVICE void patches(T* cols, const X* x, u32 n, u32 h, u32 w, u32 c, u32 ho, u32 wo, u32 kernel, u32 stride, u32 pad,
                    u32 width) {
    u32 i = flat_index32(), pixel = i / width, column = i - pixel * width;
    if (pixel >= n * ho * wo) return;
    u32 line = pixel / wo, image = line / ho, tap = column / c, ch = column - tap * c, tap_row = tap / kernel;
    // Above or left of the image they wrap round to what is beyond h and w too.
    u32 row = (line - image * ho) * stride + tap_row - pad;
    u32 col = (pixel - line * wo) * stride + (tap - tap_row * kernel) - pad;
    bool inside = tap_row < kernel && row < h && col < w;
    cols[i] = from_float<T>(inside ? to_float(x[((image * h + row) * w + col) * c + ch]) : 0.0f);
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
    u32 i = flat_index32();
    if (i >= (u32)(o * taps * c)) return;
    u32 row = i / c, ch = i - row * c, out = row / taps, tap = row - out * taps;
    const float* from = partials + ((taps - 1 - tap) * o + out) * c + ch;
    float sum = add ? dw[i] : 0.0f;
    for (int chunk = 0; chunk < chunks; chunk++) sum = fmaf(scale, from[(i64)chunk * width * c], sum);
    dw[i] = sum;
}
EMM_KERNEL(wgrad_reduce_reversed)
