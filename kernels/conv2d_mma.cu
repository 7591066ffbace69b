// conv2d_mma: the convolution on tensor cores, an implicit product of 128 pixels x 128 output channels a block.
//
//   conv2d_mma_bf16, _tf32 y (=|+=) (conv(x) + bias + emb + residual + shortcut) * scale, as conv2d_fwd
//   conv2d_mma_last        conv2d_mma_bf16 with y in float32: the network's last convolution
//
// The gradient of the input of a stride-1 convolution is the convolution of dy with pack_transposed's weights (pack.cu)
// and padding kernel - 1 - pad.
//
// Layout     T is bf16, or float whose products are rounded to tf32. x, weight, residual, s1, s2, sweight, y are T in
//            conv2d_fwd's layouts; bias, sbias, emb float32, emb's rows emb_row apart. bias null: none. Rows must be
//            whole 16-byte pieces: c, c1, c2, srow and kernel^2 c multiples of 8 (bf16) or 4 (tf32), pointers 16-byte
//            aligned. Any pixels, any o.
// Arguments  y, x, weight, bias, emb, residual, s1, s2, sweight, sbias, n, h, w, c, ho, wo, o, kernel, stride, pad, c1,
//            c2, srow, emb_row, scale, add.
// Launch     grid (ceil(n ho wo / 128), ceil(o / 128)), 256 threads, 96 KB (98,304 B) dynamic shared.
// Pipeline   a k-step is 128 bytes of channels (64 bf16, 32 float) of one tap; 3 stages of cp.async, zero-filled at
//            borders; 128-byte rows with their 16-byte pieces XORed by row % 8, read by ldmatrix; 8 warps of 64 x 32.
// Cost       2 n ho wo o (k k c + c1 + c2) FLOP. Floor at 256 -> 256, 3x3, 32x32, N = 512 on an A100: 0.62 TFLOP at 312
//            TFLOP/s = 2.0 ms bf16.
// Exactness  float32 sums in tap order; bf16 inputs exact, tf32 inputs rounded to nearest (11 bits).
#include "prelude/prelude.cuh"

// An input image batch and the weights it meets.
template <class T>
struct Source {
    const T *x, *weight;
    int h, w, c, kernel, stride, pad, row_words;
    DEVICE int steps() const { return x ? kernel * kernel * ceil_div(c * (int)sizeof(T), 128) : 0; }
};

// Brings one k-step after another: of all taps and channels of the first source, then the second, then the third.
template <class T>
struct Loader {
    Source<T> now, second, third;
    int tap_row, tap_col, channel;  // channel: first of this thread's piece
    int image[4], row[4], col[4];   // of y's pixels that this thread loads; image -1 beyond the last
    int outs;                       // output channels from this block's first on

    DEVICE Loader(Source<T> first, Source<T> second, Source<T> third, int n, int ho, int wo, int o)
        : now(first), second(second), third(third), tap_row(0), tap_col(0), channel(first_channel()),
          outs(o - blockIdx.y * LINES) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int pixel = blockIdx.x * LINES + Deepwise::line(i), r = pixel / wo;
            image[i] = pixel < n * ho * wo ? r / ho : -1;
            row[i] = r % ho;
            col[i] = pixel % wo;
        }
    }
    static DEVICE int first_channel() { return Deepwise::part() * 16 / (int)sizeof(T); }

    DEVICE void load(unsigned char* stage) const {
        bool exists = channel < now.c;
        int tap = tap_row * now.kernel + tap_col;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int r = row[i] * now.stride - now.pad + tap_row, c = col[i] * now.stride - now.pad + tap_col;
            bool inside = exists && image[i] >= 0 && r >= 0 && r < now.h && c >= 0 && c < now.w;
            const T* from = inside ? now.x + (((i64)image[i] * now.h + r) * now.w + c) * now.c + channel : now.x;
            cp_async16(stage + Deepwise::offset(Deepwise::line(i), Deepwise::part()), from, inside ? 16 : 0);
        }
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int line = Deepwise::line(i);
            bool inside = exists && line < outs;
            i64 out = blockIdx.y * LINES + line;
            const T* from = inside ? now.weight + out * now.row_words + tap * now.c + channel : now.weight;
            cp_async16(stage + OPERAND + Deepwise::offset(line, Deepwise::part()), from, inside ? 16 : 0);
        }
    }
    DEVICE void advance() {
        channel += 128 / (int)sizeof(T);
        if (channel - first_channel() < now.c) return;
        channel = first_channel();
        if (++tap_col < now.kernel) return;
        tap_col = 0;
        if (++tap_row < now.kernel) return;
        tap_row = 0;
        now = second;
        second = third;
    }
};

DEVICE void multiply(float (&acc)[4][4][4], uint32_t (&a)[4][4], uint32_t (&b)[4][2], bf16) { mma_bf16(acc, a, b); }
DEVICE void multiply(float (&acc)[4][4][4], uint32_t (&a)[4][4], uint32_t (&b)[4][2], float) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
#pragma unroll
        for (int j = 0; j < 4; j++) a[i][j] = round_tf32(a[i][j]);
        b[i][0] = round_tf32(b[i][0]);
        b[i][1] = round_tf32(b[i][1]);
    }
    mma_tf32(acc, a, b);
}

template <class T, class Y>
DEVICE void convolve(Y* y, Source<T> x, Source<T> s1, Source<T> s2, const float* bias, const float* emb,
                     const T* residual, const float* sbias, int n, int ho, int wo, int o, int emb_row, float scale,
                     int add) {
    EMM_DYNAMIC_SHARED(unsigned char, stages);
    int steps = x.steps() + s1.steps() + s2.steps();
    Loader<T> loader(x, s1, s2, n, ho, wo, o);
    float acc[4][4][4] = {};
    auto load = [&](unsigned char* stage, int) {
        loader.load(stage);
        loader.advance();
    };
    pipeline(stages, steps, load, [&](const unsigned char* stage) {
#pragma unroll
        for (int k = 0; k < 4; k++) {
            uint32_t a[4][4], b[4][2];
            deep_a(a, stage, warp_row(), k);
            deep_b(b, stage + OPERAND, warp_col(), k);
            multiply(acc, a, b, T());
        }
    });

#pragma unroll
    for (int i = 0; i < 8; i++) {
        int pixel = blockIdx.x * LINES + warp_row() + fragment_row(i);
        if (pixel >= n * ho * wo) continue;
        const float* added = emb ? emb + (i64)(pixel / (ho * wo)) * emb_row : nullptr;
#pragma unroll
        for (int j = 0; j < 8; j++) {
            int out = blockIdx.y * LINES + warp_col() + fragment_col(j);
            if (out >= o) continue;
            i64 at = (i64)pixel * o + out;
            float v = acc[i / 2][j / 2][2 * (i % 2) + j % 2];
            if (bias) v += bias[out];
            if (sbias) v += sbias[out];
            if (emb) v += added[out];
            if (residual) v += to_float(residual[at]);
            v *= scale;
            put(y + at, v, add);
        }
    }
}

#define CONV_ARGUMENTS(T, Y)                                                                                           \
    Y *y, const T *__restrict__ x, const T *__restrict__ weight, const float *__restrict__ bias,                       \
        const float *__restrict__ emb, const T *__restrict__ residual, const T *__restrict__ s1,                       \
        const T *__restrict__ s2, const T *__restrict__ sweight, const float *__restrict__ sbias, int n, int h, int w, \
        int c, int ho, int wo, int o, int kernel, int stride, int pad, int c1, int c2, int srow, int emb_row,          \
        float scale, int add
#define CONV(T)                                                                                                       \
    convolve<T>(y, {x, weight, h, w, c, kernel, stride, pad, kernel * kernel * c},                                    \
                {s1, sweight, ho, wo, c1, 1, 1, 0, srow}, {s2, sweight + c1, ho, wo, c2, 1, 1, 0, srow}, bias, emb,   \
                residual, s1 ? sbias : nullptr, n, ho, wo, o, emb_row, scale, add)

extern "C" __global__ void __launch_bounds__(256) conv2d_mma_bf16(CONV_ARGUMENTS(bf16, bf16)) { CONV(bf16); }
EMM_KERNEL(conv2d_mma_bf16)

extern "C" __global__ void __launch_bounds__(256) conv2d_mma_tf32(CONV_ARGUMENTS(float, float)) { CONV(float); }
EMM_KERNEL(conv2d_mma_tf32)

extern "C" __global__ void __launch_bounds__(256) conv2d_mma_last(CONV_ARGUMENTS(bf16, float)) { CONV(bf16); }
EMM_KERNEL(conv2d_mma_last)
