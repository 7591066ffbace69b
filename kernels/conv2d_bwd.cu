// conv2d_bwd: gradients of the input and of the weight of a convolution, float32, any shape.
//
//   conv2d_dgrad   dx[n, h, w, c] (=|+=) scale * sum over taps and o of dy[n, ho, wo, o] * weight[o, row_words]
//   conv2d_wgrad   partials[chain, o, k, k, c] (+)= sum over the pixels of the chain's images of dy * x; the weight's
//                  gradient is made of them at the end of the batch (sum_chains, sums.cu)
//
// A shortcut's inputs are 1x1 convolutions of stride 1 whose weight rows have row_words = srow and begin at column
// `first` (0 for s1, c1 for s2).
//
// The _bf16 kernels take dy, x and dx in bf16; weights, partials and arithmetic stay float32. The _last kernels are
// the same with dy in float32, for the network's last convolution.
//
// Launch     conv2d_dgrad: grid (ceil(n h w / 64), ceil(c / 64)). conv2d_wgrad: grid (ceil(o / 64) * ceil(c / 64),
//            k k, chains). 256 threads, 8.5 KB. Sums don't depend on how a batch is split.
// Cost       2 n ho wo o k k c FLOP each, on the float32 pipes; partials as conv2d_wgrad_mma.cu says.
// Exactness  fixed order throughout, no atomics.
#include "prelude/prelude.cuh"

#include "params/conv2d.h"

// 16 output channels of dy at the pixel that reaches input pixel `line` through one tap.
template <class T>
struct Reached {
    using Along = Depthwise;
    const T* image;
    int ho, wo, o, kernel, stride, chunks, top, left;
    bool aligned;

    DEVICE Reached(const T* dy, int n, int h, int w, int ho, int wo, int o, int kernel, int stride, int pad)
        : ho(ho), wo(wo), o(o), kernel(kernel), stride(stride), chunks(ceil_div(o, DEPTH)), aligned(aligned4(dy, o)) {
        int pixel = blockIdx.x * TILE + Along::line(), row = pixel / w;
        top = row % h + pad;
        left = pixel % w + pad;
        image = row < n * h ? dy + (i64)(row / h) * ho * wo * o : nullptr;
    }
    DEVICE int steps() const { return kernel * kernel * chunks; }
    DEVICE float4 operator()(int step) const {
        int tap = step / chunks, out = (step - tap * chunks) * DEPTH + Along::depth();
        int row = top - tap / kernel, col = left - tap % kernel;
        bool inside = image && row >= 0 && col >= 0 && row % stride == 0 && col % stride == 0;
        row /= stride;
        col /= stride;
        if (!inside || row >= ho || col >= wo) return make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        return load4(image + ((i64)row * wo + col) * o + out, o - out, aligned);
    }
};

// The weights between those output channels and 64 input channels.
struct TapWeights {
    using Along = Linewise;
    const float* weight;  // from the first column and input channel
    int o, row_words, c, lines, chunks;
    bool aligned;

    DEVICE TapWeights(const float* all, int o, int row_words, int first, int c)
        : o(o), row_words(row_words), c(c), lines(c - blockIdx.y * TILE - Along::line()), chunks(ceil_div(o, DEPTH)) {
        weight = all + first + blockIdx.y * TILE + Along::line();
        aligned = aligned4(all, row_words) && first % 4 == 0 && c % 4 == 0;
    }
    DEVICE float4 operator()(int step) const {
        int tap = step / chunks, out = (step - tap * chunks) * DEPTH + Along::depth();
        if (out >= o) return make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        return load4(weight + (i64)out * row_words + tap * c, lines, aligned);
    }
};

template <class T, class D>
DEVICE void input_gradient(const Conv2dDgrad<T, D>& p) {
    EMM_SHARED(float, tile_a, [DEPTH][PITCH]);
    EMM_SHARED(float, tile_b, [DEPTH][PITCH]);
    float acc[4][4] = {};
    Reached<D> reached(p.dy, p.n, p.h, p.w, p.ho, p.wo, p.o, p.kernel, p.stride, p.pad);
    gemm(acc, tile_a, tile_b, reached.steps(), reached, TapWeights(p.weight, p.o, p.row_words, p.first, p.c));
    for (int i = 0; i < 4; i++) {
        int pixel = blockIdx.x * TILE + result_row() + i;
        if (pixel >= p.n * p.h * p.w) return;
        for (int j = 0; j < 4; j++) {
            int ch = blockIdx.y * TILE + result_col() + j;
            if (ch < p.c) put(p.dx + (i64)pixel * p.c + ch, p.scale * acc[i][j], p.add);
        }
    }
}

extern "C" __global__ void __launch_bounds__(BLOCK_THREADS) conv2d_dgrad(const Conv2dDgrad<float, float> p) {
    input_gradient(p);
}
extern "C" __global__ void __launch_bounds__(BLOCK_THREADS) conv2d_dgrad_bf16(const Conv2dDgrad<bf16, bf16> p) {
    input_gradient(p);
}
extern "C" __global__ void __launch_bounds__(BLOCK_THREADS) conv2d_dgrad_last(const Conv2dDgrad<bf16, float> p) {
    input_gradient(p);
}

// 64 channels of x at 16 pixels of y's grid seen through one tap; with kernel 1 and stride 1 simply y's pixels.
template <class T>
struct Seen {
    using Along = Linewise;
    const T* x;  // from the first channel
    int h, w, c, ho, wo, stride, row_offset, col_offset, first_pixel, end_pixel, lines;
    bool aligned;

    DEVICE float4 operator()(int step) const {
        int pixel = first_pixel + step * DEPTH + Along::depth();
        if (pixel >= end_pixel) return make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        int line = pixel / wo, image = line / ho;
        int row = line % ho * stride + row_offset, col = pixel % wo * stride + col_offset;
        if (row < 0 || row >= h || col < 0 || col >= w) return make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        return load4(x + (((i64)image * h + row) * w + col) * c, lines, aligned);
    }
};

// of(row, column, i, j) of this thread's results acc[i][j] that exist.
template <class Of>
DEVICE void each_result(int row0, int rows, int col0, int cols, Of of) {
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) {
            int row = row0 + result_row() + i, col = col0 + result_col() + j;
            if (row < rows && col < cols) of(row, col, i, j);
        }
}

template <class T, class D>
DEVICE void weight_gradient(const Conv2dWgrad<T, D>& p) {
    EMM_SHARED(float, tile_a, [DEPTH][PITCH]);
    EMM_SHARED(float, tile_b, [DEPTH][PITCH]);
    const int c = p.c, o = p.o, kernel = p.kernel;
    int blocks_c = ceil_div(c, TILE), o0 = blockIdx.x / blocks_c * TILE, c0 = blockIdx.x % blocks_c * TILE;
    Chain chain(blockIdx.z, p.chain, p.first_image, p.n);
    if (chain.images <= 0) return;
    int tap = blockIdx.y, first_pixel = chain.first * p.ho * p.wo, pixels = chain.images * p.ho * p.wo;
    const D* dy0 = p.dy + (i64)first_pixel * o + o0;
    ColsOf<D> grads{dy0, o, o - o0, pixels, aligned4(dy0, o)};
    int ch = c0 + Linewise::line();
    Seen<T> seen{p.x + ch, p.h, p.w, c, p.ho, p.wo, p.stride, tap / kernel - p.pad, tap % kernel - p.pad, first_pixel,
                 first_pixel + pixels, c - ch, aligned4(p.x, c)};
    float* sums = p.partials + ((i64)blockIdx.z * o * kernel * kernel + tap) * c;
    i64 row = (i64)kernel * kernel * c;
    float acc[4][4] = {};
    if (chain.begun)
        each_result(o0, o, c0, c, [&](int out, int col, int i, int j) { acc[i][j] = sums[out * row + col]; });
    gemm(acc, tile_a, tile_b, ceil_div(pixels, DEPTH), grads, seen);
    each_result(o0, o, c0, c, [&](int out, int col, int i, int j) { sums[out * row + col] = acc[i][j]; });
}

extern "C" __global__ void __launch_bounds__(BLOCK_THREADS) conv2d_wgrad(const Conv2dWgrad<float, float> p) {
    weight_gradient(p);
}
extern "C" __global__ void __launch_bounds__(BLOCK_THREADS) conv2d_wgrad_bf16(const Conv2dWgrad<bf16, bf16> p) {
    weight_gradient(p);
}
extern "C" __global__ void __launch_bounds__(BLOCK_THREADS) conv2d_wgrad_last(const Conv2dWgrad<bf16, float> p) {
    weight_gradient(p);
}
