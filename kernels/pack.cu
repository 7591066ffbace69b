// pack: working copies of the float32 weights, made once after each update, for the tensor-core convolutions.
//
//   pack_rows           to[rows, padded] = from[rows, width], zeros beyond
//   pack_transposed     to[c, padded] = w[o, taps, c] as [c, taps, o] with the taps reversed, zeros beyond taps o: what
//                       the gradient of a stride-1 convolution's input convolves dy with
//   im2col              cols[n, ho, wo, width] = the patches of x[n, h, w, c], k k c columns, zeros beyond
//
// A convolution of few channels becomes a 1x1 one through im2col (c = 3: 27 columns, width 32):
//   first, 3 -> o       y = conv2d_mma(im2col(x), pack_rows(w)); dw = wgrad_mma of (dy, im2col(x)), rows of 32 of
//                       which sum_chains takes 27
//   last, c -> 3        with d = im2col(dy), pad = kernel - 1 - pad: dx = conv2d_mma(d, pack_transposed(w));
//                       dw = wgrad_mma of (d, x) as [width, c] partials, whose row (taps - 1 - tap) o + out sum_chains
//                       takes for dw's (out, tap)
//
// The _bf16 kernels have to, cols and x in bf16; im2col_last has cols in bf16 and x, the last convolution's dy, in
// float32.
//
// Launch     pack_transposed: grid (ceil(o / 32), ceil(c / 32), taps); the others: ceil(elements of the result / 256). 256
//            threads. pack_transposed turns 32 x 32 in shared memory (4.1 KB), so that what it reads and writes is in rows.
// Cost       memory-bound: 6 B a weight, once a step; im2col at 512 x 32 x 32 and width 32: 34 MB in bf16.
// Exactness  copies; bf16 rounds to nearest even.
// Sizes      every array here has fewer than 2^31 elements, as the model's configuration sees to: indices are of 32 bits, since
//            a 64-bit division is some hundred instructions.
#include "prelude/prelude.cuh"

#include "params/pack.h"

template <class T>
DEVICE void pad_rows(const PackRows<T>& p) {
    u32 i = flat_index32();
    if (i >= p.rows * p.padded) return;
    u32 row = i / p.padded, column = i - row * p.padded;
    p.to[i] = from_float<T>(column < p.width ? p.from[row * p.width + column] : 0.0f);
}

template <class T>
DEVICE void transpose(const PackTransposed<T>& p) {
    EMM_SHARED(float, tile, [WARP_THREADS][WARP_THREADS + 1]);
    u32 lane = threadIdx.x % WARP_THREADS, warp = threadIdx.x / WARP_THREADS, tap = blockIdx.z;
    u32 out0 = blockIdx.x * WARP_THREADS, ch0 = blockIdx.y * WARP_THREADS;
    for (u32 r = warp; r < WARP_THREADS; r += BLOCK_WARPS)
        if (out0 + r < p.o && ch0 + lane < p.c)
            tile[r][lane] = p.w[(out0 + r) * p.row_words + p.first + (p.taps - 1 - tap) * p.c + ch0 + lane];
    __syncthreads();
    for (u32 r = warp; r < WARP_THREADS; r += BLOCK_WARPS) {
        if (ch0 + r >= p.c) return;
        T* row = p.to + (ch0 + r) * p.padded;
        if (out0 + lane < p.o) row[tap * p.o + out0 + lane] = from_float<T>(tile[lane][r]);
        // Fewer than 32 columns: rows are padded to 16 bytes.
        u32 beyond = p.taps * p.o + lane;
        if (blockIdx.x == 0 && tap == 0 && beyond < p.padded) row[beyond] = from_float<T>(0.0f);
    }
}

template <class T, class X>
DEVICE void patches(const Im2col<T, X>& p) {
    u32 i = flat_index32(), pixel = i / p.width, column = i - pixel * p.width;
    if (pixel >= p.n * p.ho * p.wo) return;
    u32 line = pixel / p.wo, image = line / p.ho, tap = column / p.c, ch = column - tap * p.c, tap_row = tap / p.kernel;
    // Above or left of the image they wrap round to what is beyond h and w too.
    u32 row = (line - image * p.ho) * p.stride + tap_row - p.pad;
    u32 col = (pixel - line * p.wo) * p.stride + (tap - tap_row * p.kernel) - p.pad;
    bool inside = tap_row < p.kernel && row < p.h && col < p.w;
    p.cols[i] = from_float<T>(inside ? to_float(p.x[((image * p.h + row) * p.w + col) * p.c + ch]) : 0.0f);
}

extern "C" __global__ void pack_rows(const PackRows<float> p) { pad_rows(p); }
extern "C" __global__ void pack_rows_bf16(const PackRows<bf16> p) { pad_rows(p); }

extern "C" __global__ void pack_transposed(const PackTransposed<float> p) { transpose(p); }
extern "C" __global__ void pack_transposed_bf16(const PackTransposed<bf16> p) { transpose(p); }

extern "C" __global__ void im2col(const Im2col<float, float> p) { patches(p); }
extern "C" __global__ void im2col_bf16(const Im2col<bf16, bf16> p) { patches(p); }
extern "C" __global__ void im2col_last(const Im2col<bf16, float> p) { patches(p); }
