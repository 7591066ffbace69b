// conv2d_fwd: y = (conv(x) + bias + emb + residual + shortcut) * scale in one pass over y, float32, any shape.
//
//   y[n, ho, wo, o] from x[n, h, w, c], weight[o, k, k, c], bias[o]; emb[n, o], rows emb_row apart, and
//   residual[n, ho, wo, o], or null;
//   shortcut: a 1x1 convolution of s1[n, ho, wo, c1] and s2[n, ho, wo, c2] with sweight[o, srow], whose columns from
//   c1 + c2 on meet a skip that is switched off, and sbias[o]. s1 null: no shortcut; s2 null: c2 = 0.
//   conv2d_fwd_bf16: y, x, residual, s1, s2 in bf16, the arithmetic and everything else float32; conv2d_fwd_last:
//   the same with y in float32, for the network's last convolution.
//
// Arguments  y, x, weight, bias, emb, residual, s1, s2, sweight, sbias, n, h, w, c, ho, wo, o, kernel, stride, pad,
//            c1, c2, srow, emb_row, scale.
// Launch     grid (ceil(n ho wo / 64), ceil(o / 64)), 256 threads; 8.5 KB shared.
// Cost       2 n ho wo o (k k c + c1 + c2) FLOP on the float32 pipes. Depth goes 16 channels of one tap at a time, so
//            fewer than 16 channels waste the rest. Floor: that work at 60 TFLOP/s (H100).
// Exactness  one fma sum a result: taps in order, channels in order, then s1, s2; then bias, sbias, emb, residual.
#include "prelude/prelude.cuh"

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

#define ARGUMENTS(T, Y)                                                                                             \
    Y *y, const T *__restrict__ x, const float *__restrict__ weight, const float *__restrict__ bias,                \
        const float *__restrict__ emb, const T *__restrict__ residual, const T *__restrict__ s1,                    \
        const T *__restrict__ s2, const float *__restrict__ sweight, const float *__restrict__ sbias, int n, int h, \
        int w, int c, int ho, int wo, int o, int kernel, int stride, int pad, int c1, int c2, int srow,             \
        int emb_row, float scale

template <class T, class Y>
DEVICE void convolve(ARGUMENTS(T, Y)) {
    EMM_SHARED(float, tile_a, [DEPTH][PITCH]);
    EMM_SHARED(float, tile_b, [DEPTH][PITCH]);
    float acc[4][4] = {};
    {
        Patches<T> patches(x, n, h, w, c, ho, wo, kernel, stride, pad);
        gemm(acc, tile_a, tile_b, patches.steps(), patches, Weights(weight, o, kernel * kernel * c, 0, c));
    }
    if (s1) {
        Patches<T> pixels(s1, n, ho, wo, c1, ho, wo, 1, 1, 0);
        gemm(acc, tile_a, tile_b, pixels.steps(), pixels, Weights(sweight, o, srow, 0, c1));
    }
    if (s2) {
        Patches<T> pixels(s2, n, ho, wo, c2, ho, wo, 1, 1, 0);
        gemm(acc, tile_a, tile_b, pixels.steps(), pixels, Weights(sweight, o, srow, c1, c2));
    }
    for (int i = 0; i < 4; i++) {
        int pixel = blockIdx.x * TILE + result_row() + i;
        if (pixel >= n * ho * wo) return;
        for (int j = 0; j < 4; j++) {
            int out = blockIdx.y * TILE + result_col() + j;
            if (out >= o) break;
            i64 at = (i64)pixel * o + out;
            float v = acc[i][j] + bias[out];
            if (s1) v += sbias[out];
            if (emb) v += emb[(i64)(pixel / (ho * wo)) * emb_row + out];
            if (residual) v += to_float(residual[at]);
            y[at] = from_float<Y>(v * scale);
        }
    }
}

#define CONV2D_FWD(name, T, Y)                                                                                      \
    extern "C" __global__ void __launch_bounds__(256) name(ARGUMENTS(T, Y)) {                                       \
        convolve<T, Y>(y, x, weight, bias, emb, residual, s1, s2, sweight, sbias, n, h, w, c, ho, wo, o, kernel,       \
                       stride, pad, c1, c2, srow, emb_row, scale);                                                  \
    }                                                                                                               \
    EMM_KERNEL(name)

CONV2D_FWD(conv2d_fwd, float, float)
CONV2D_FWD(conv2d_fwd_bf16, bf16, bf16)
CONV2D_FWD(conv2d_fwd_last, bf16, float)
