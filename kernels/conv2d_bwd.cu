// conv2d_bwd: gradients of the input and of the weight of a convolution, float32, any shape.
//
//   conv2d_dgrad   dx[n, h, w, c] (=|+=) scale * sum over taps and o of dy[n, ho, wo, o] * weight[o, row_words]
//   conv2d_wgrad   partials[chunk, o, k, k, c] = sum over the pixels of `chunk` images of dy * x
//   wgrad_reduce   dw[o, row_words], columns first .. first + width (=|+=) scale * sum over chunks, in order, of
//                  partials
//
// A shortcut's inputs are 1x1 convolutions of stride 1 whose weight rows have row_words = srow and begin at column
// `first` (0 for s1, c1 for s2). Columns of a switched-off skip: wgrad_reduce with chunks = 0 (sets zeros, adds
// nothing).
//
// The _bf16 kernels take dy, x and dx in bf16; weights, partials and arithmetic stay float32. The _last kernels are
// the same with dy in float32, for the network's last convolution.
//
// Launch     conv2d_dgrad: grid (ceil(n h w / 64), ceil(c / 64)). conv2d_wgrad: grid (ceil(o / 64) * ceil(c / 64),
//            k k, chunks) with chunks = ceil(n / chunk). wgrad_reduce: grid ceil(o width / 256). 256 threads, 8.5 KB. Sums
//            don't depend on how a batch is split, as long as the pieces are whole chunks.
// Cost       2 n ho wo o k k c FLOP each, on the float32 pipes; partials are written and read once.
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

template <class T, class D>
DEVICE void weight_gradient(const Conv2dWgrad<T, D>& p) {
    EMM_SHARED(float, tile_a, [DEPTH][PITCH]);
    EMM_SHARED(float, tile_b, [DEPTH][PITCH]);
    const int c = p.c, o = p.o, kernel = p.kernel;
    int blocks_c = ceil_div(c, TILE), o0 = blockIdx.x / blocks_c * TILE, c0 = blockIdx.x % blocks_c * TILE;
    int tap = blockIdx.y, first = blockIdx.z * p.chunk, end = min(first + p.chunk, p.n);
    int first_pixel = first * p.ho * p.wo, pixels = (end - first) * p.ho * p.wo;
    const D* dy0 = p.dy + (i64)first_pixel * o + o0;
    ColsOf<D> grads{dy0, o, o - o0, pixels, aligned4(dy0, o)};
    int ch = c0 + Linewise::line();
    Seen<T> seen{p.x + ch, p.h, p.w, c, p.ho, p.wo, p.stride, tap / kernel - p.pad, tap % kernel - p.pad, first_pixel,
                 first_pixel + pixels, c - ch, aligned4(p.x, c)};
    float acc[4][4] = {};
    gemm(acc, tile_a, tile_b, ceil_div(pixels, DEPTH), grads, seen);
    int taps = kernel * kernel;
    for (int i = 0; i < 4; i++) {
        int out = o0 + result_row() + i;
        if (out >= o) return;
        for (int j = 0; j < 4; j++) {
            int col = c0 + result_col() + j;
            if (col < c) p.partials[(((i64)blockIdx.z * o + out) * taps + tap) * c + col] = acc[i][j];
        }
    }
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

extern "C" __global__ void wgrad_reduce(const WgradReduce p) {
    i64 i = flat_index();
    if (i >= (i64)p.o * p.width) return;
    i64 row = i / p.width, column = i % p.width, size = (i64)p.o * p.partial_words;
    float* to = p.dw + row * p.row_words + p.first + column;
    // Mutant, planted::convolutions_on_tensor_cores: `p.add ? *to : 0.0f` reads `0.0f`.
    float sum = p.add ? *to : 0.0f;
    for (int chunk = 0; chunk < p.chunks; chunk++)
        sum = fmaf(p.scale, p.partials[chunk * size + row * p.partial_words + column], sum);
    *to = sum;
}
