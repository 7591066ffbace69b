// conv2d_fwd: y (=|+=) (conv(x) + bias + emb + residual + shortcut) * scale in one pass over y, float32, any shape.
//
//   y[n, ho, wo, o] from x[n, h, w, c], weight[o, k, k, c], and bias[o], emb[n, o], rows emb_row apart,
//   residual[n, ho, wo, o], each or null;
//   shortcut: a 1x1 convolution of s1[n, ho, wo, c1] and s2[n, ho, wo, c2] with sweight[o, srow], whose columns from
//   c1 + c2 on meet a skip that is switched off, and sbias[o]. s1 null: no shortcut; s2 null: c2 = 0.
//   conv2d_fwd_bf16: y, x, residual, s1, s2 in bf16, the arithmetic and everything else float32; conv2d_fwd_last:
//   the same with y in float32, for the network's last convolution.
//
// Launch     grid (ceil(n ho wo / 64), ceil(o / 64)), 256 threads; 8.5 KB shared.
// Cost       2 n ho wo o (k k c + c1 + c2) FLOP on the float32 pipes. Depth goes 16 channels of one tap at a time, so
//            fewer than 16 channels waste the rest. Floor: that work at 60 TFLOP/s (H100).
// Exactness  one fma sum a result: taps in order, channels in order, then s1, s2; then bias, sbias, emb, residual.
#include "prelude/prelude.cuh"

#include "params/conv2d.h"

// 16 channels of the pixel that one tap sees: the rows of the patch matrix, never stored.
template <class T>
struct Patches {
    using Along = Depthwise;
    const T* image;  // of this thread's pixel; null beyond the last
    int h, w, c, kernel, chunks, top, left;
    bool aligned;

    DEVICE Patches(const T* x, int n, int h, int w, int c, int ho, int wo, int kernel, int stride, int pad)
        : h(h), w(w), c(c), kernel(kernel), chunks(ceil_div(c, DEPTH)), aligned(aligned4(x, c)) {
        int pixel = blockIdx.x * TILE + Along::line(), row = pixel / wo;
        top = row % ho * stride - pad;
        left = pixel % wo * stride - pad;
        image = row < n * ho ? x + (i64)(row / ho) * h * w * c : nullptr;
    }
    DEVICE int steps() const { return kernel * kernel * chunks; }
    DEVICE float4 operator()(int step) const {
        int tap = step / chunks, ch = (step - tap * chunks) * DEPTH + Along::depth();
        int row = top + tap / kernel, col = left + tap % kernel;
        bool inside = image && row >= 0 && row < h && col >= 0 && col < w;
        if (!inside) return make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        return load4(image + ((i64)row * w + col) * c + ch, c - ch, aligned);
    }
};

// The same 16 channels of the weights of 64 output channels.
struct Weights {
    using Along = Depthwise;
    const float* row;  // of this thread's output channel, from the first column; null beyond the last
    int c, chunks;
    bool aligned;

    DEVICE Weights(const float* weight, int o, int row_words, int first, int c)
        : c(c), chunks(ceil_div(c, DEPTH)),
          aligned(aligned4(weight, row_words) && first % 4 == 0 && c % 4 == 0) {
        int out = blockIdx.y * TILE + Along::line();
        row = out < o ? weight + (i64)out * row_words + first : nullptr;
    }
    DEVICE float4 operator()(int step) const {
        int tap = step / chunks, ch = (step - tap * chunks) * DEPTH + Along::depth();
        if (!row) return make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        return load4(row + tap * c + ch, c - ch, aligned);
    }
};

template <class T, class Y>
DEVICE void convolve(const Conv2d<T, Y, float>& p) {
    EMM_SHARED(float, tile_a, [DEPTH][PITCH]);
    EMM_SHARED(float, tile_b, [DEPTH][PITCH]);
    float acc[4][4] = {};
    {
        Patches<T> patches(p.x, p.n, p.h, p.w, p.c, p.ho, p.wo, p.kernel, p.stride, p.pad);
        gemm(acc, tile_a, tile_b, patches.steps(), patches, Weights(p.weight, p.o, p.kernel * p.kernel * p.c, 0, p.c));
    }
    if (p.s1) {
        Patches<T> pixels(p.s1, p.n, p.ho, p.wo, p.c1, p.ho, p.wo, 1, 1, 0);
        gemm(acc, tile_a, tile_b, pixels.steps(), pixels, Weights(p.sweight, p.o, p.srow, 0, p.c1));
    }
    if (p.s2) {
        Patches<T> pixels(p.s2, p.n, p.ho, p.wo, p.c2, p.ho, p.wo, 1, 1, 0);
        gemm(acc, tile_a, tile_b, pixels.steps(), pixels, Weights(p.sweight, p.o, p.srow, p.c1, p.c2));
    }
    for (int i = 0; i < 4; i++) {
        int pixel = blockIdx.x * TILE + result_row() + i;
        if (pixel >= p.n * p.ho * p.wo) return;
        for (int j = 0; j < 4; j++) {
            int out = blockIdx.y * TILE + result_col() + j;
            if (out >= p.o) break;
            i64 at = (i64)pixel * p.o + out;
            float v = acc[i][j];
            if (p.bias) v += __ldg(p.bias + out);
            if (p.s1) v += __ldg(p.sbias + out);
            if (p.emb) v += __ldg(p.emb + (i64)(pixel / (p.ho * p.wo)) * p.emb_row + out);
            if (p.residual) v += to_float(p.residual[at]);
            put(p.y + at, v * p.scale, p.add);
        }
    }
}

extern "C" __global__ void __launch_bounds__(BLOCK_THREADS) conv2d_fwd(const Conv2d<float, float, float> p) {
    convolve(p);
}
extern "C" __global__ void __launch_bounds__(BLOCK_THREADS) conv2d_fwd_bf16(const Conv2d<bf16, bf16, float> p) {
    convolve(p);
}
extern "C" __global__ void __launch_bounds__(BLOCK_THREADS) conv2d_fwd_last(const Conv2d<bf16, float, float> p) {
    convolve(p);
}
