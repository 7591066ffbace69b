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
// Launch     grid (ceil(n ho wo / 128), ceil(o / 128)), 256 threads, 96 KB (98,304 B) dynamic shared.
// Pipeline   a k-step is 128 bytes of channels (64 bf16, 32 float) of one tap; 3 stages of cp.async, zero-filled at
//            borders; 128-byte rows with their 16-byte pieces XORed by row % 8, read by ldmatrix; 8 warps of 64 x 32.
// Cost       2 n ho wo o (k k c + c1 + c2) FLOP. Floor at 256 -> 256, 3x3, 32x32, N = 512 on an A100: 0.62 TFLOP at 312
//            TFLOP/s = 2.0 ms bf16.
// Exactness  float32 sums in tap order; bf16 inputs exact, tf32 inputs rounded to nearest (11 bits).
#include "prelude/prelude.cuh"

#include "params/conv2d.h"

// An input image batch and the weights it meets.
template <class T>
struct Source {
    const T *x, *weight;
    int h, w, c, kernel, stride, pad, row_words;
    DEVICE int steps() const { return x ? kernel * kernel * ceil_div(c * (int)sizeof(T), 128) : 0; }
};

// A shortcut's first or second input and its columns of the weights.
template <class T, class Y>
DEVICE Source<T> of_side(const Conv2d<T, Y, T>& p, int which) {
    bool first = which == 1;
    const T *x = first ? p.s1 : p.s2, *weight = first ? p.sweight : p.sweight + p.c1;
    return {x, weight, p.ho, p.wo, first ? p.c1 : p.c2, 1, 1, 0, p.srow};
}

// Brings one k-step after another: of all taps and channels of x, then of the shortcut's inputs.
template <class T, class Y>
struct Loader {
    const Conv2d<T, Y, T>& p;
    Source<T> now;
    int source;                     // 0 for x, 1 for s1, 2 for s2
    int tap_row, tap_col, channel;  // channel: first of this thread's piece
    int image[4], row[4], col[4];   // of y's pixels that this thread loads; image -1 beyond the last
    int outs;                       // output channels from this block's first on

    DEVICE Loader(const Conv2d<T, Y, T>& p, Source<T> first)
        : p(p), now(first), source(0), tap_row(0), tap_col(0), channel(first_channel()),
          outs(p.o - blockIdx.y * MMA_TILE) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int pixel = blockIdx.x * MMA_TILE + Deepwise::line(i), r = pixel / p.wo;
            image[i] = pixel < p.n * p.ho * p.wo ? r / p.ho : -1;
            row[i] = r % p.ho;
            col[i] = pixel % p.wo;
        }
    }
    static DEVICE int first_channel() { return Deepwise::part() * 16 / (int)sizeof(T); }

    DEVICE void load(unsigned char* stage) const {
        bool exists = channel < now.c;
        int tap = tap_row * now.kernel + tap_col;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            // Mutant, planted::convolutions_on_tensor_cores: `- now.pad + tap_row` reads `+ now.pad - tap_row`.
            int r = row[i] * now.stride - now.pad + tap_row, c = col[i] * now.stride - now.pad + tap_col;
            // Mutant, planted::convolutions_on_tensor_cores: `c < now.w` reads `c <= now.w`.
            bool inside = exists && image[i] >= 0 && r >= 0 && r < now.h && c >= 0 && c < now.w;
            const T* from = inside ? now.x + (((i64)image[i] * now.h + r) * now.w + c) * now.c + channel : now.x;
            cp_async16(stage + Deepwise::offset(Deepwise::line(i), Deepwise::part()), from, inside ? 16 : 0);
        }
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int line = Deepwise::line(i);
            bool inside = exists && line < outs;
            i64 out = blockIdx.y * MMA_TILE + line;
            const T* from = inside ? now.weight + out * now.row_words + tap * now.c + channel : now.weight;
            cp_async16(stage + MMA_OPERAND + Deepwise::offset(line, Deepwise::part()), from, inside ? 16 : 0);
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
        now = of_side(p, ++source);
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
DEVICE void convolve(const Conv2d<T, Y, T>& p) {
    EMM_DYNAMIC_SHARED(unsigned char, stages);
    Source<T> x{p.x, p.weight, p.h, p.w, p.c, p.kernel, p.stride, p.pad, p.kernel * p.kernel * p.c};
    int steps = x.steps() + of_side(p, 1).steps() + of_side(p, 2).steps();
    Loader<T, Y> loader(p, x);
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
            deep_b(b, stage + MMA_OPERAND, warp_col(), k);
            multiply(acc, a, b, T());
        }
    });

#pragma unroll
    for (int i = 0; i < 8; i++) {
        int pixel = blockIdx.x * MMA_TILE + warp_row() + fragment_row(i);
        if (pixel >= p.n * p.ho * p.wo) continue;
        // Mutant, planted::convolutions_on_tensor_cores: `p.emb_row` reads `p.o`.
        const float* added = p.emb ? p.emb + (i64)(pixel / (p.ho * p.wo)) * p.emb_row : nullptr;
#pragma unroll
        for (int j = 0; j < 8; j++) {
            int out = blockIdx.y * MMA_TILE + warp_col() + fragment_col(j);
            if (out >= p.o) continue;
            i64 at = (i64)pixel * p.o + out;
            float v = acc[i / 2][j / 2][2 * (i % 2) + j % 2];
            if (p.bias) v += __ldg(p.bias + out);
            if (p.s1 && p.sbias) v += __ldg(p.sbias + out);
            if (p.emb) v += __ldg(added + out);
            if (p.residual) v += to_float(p.residual[at]);
            v *= p.scale;
            put(p.y + at, v, p.add);
        }
    }
}

extern "C" __global__ void __launch_bounds__(BLOCK_THREADS, 2) conv2d_mma_bf16(const Conv2d<bf16, bf16, bf16> p) {
    convolve(p);
}
extern "C" __global__ void __launch_bounds__(BLOCK_THREADS, 2) conv2d_mma_tf32(const Conv2d<float, float, float> p) {
    convolve(p);
}
extern "C" __global__ void __launch_bounds__(BLOCK_THREADS, 2) conv2d_mma_last(const Conv2d<bf16, float, bf16> p) {
    convolve(p);
}
