// conv2d_mma: the convolution on tensor cores, an implicit product of 128 pixels x 128 or 256 output channels a block.
//
//   conv2d_mma_bf16, _tf32       y (=|+=) (conv(x) + bias + emb + residual + shortcut) * scale, as conv2d_fwd
//   conv2d_mma_wide_bf16         the same of 256 output channels a block, for GPUs with the room
//   conv2d_mma_last              conv2d_mma_bf16 with y in float32: the network's last convolution
//
// The gradient of the input of a stride-1 convolution is the convolution of dy with pack_transposed's weights (pack.cu)
// and padding kernel - 1 - pad.
//
// Layout     T is bf16, or float whose products are rounded to tf32. x, weight, residual, s1, s2, sweight, y are T in
//            conv2d_fwd's layouts; bias, sbias, emb float32, emb's rows emb_row apart. bias null: none. Rows must be
//            whole 16-byte pieces: c, c1, c2, srow and kernel^2 c multiples of 8 (bf16) or 4 (tf32), pointers 16-byte
//            aligned. Any pixels, any o; where o isn't whole pieces of y, it is written element by element.
// Launch     grid (ceil(n ho wo / 128), ceil(o / 128)), 256 threads, 96 KB (98,304 B) dynamic shared; wide tiles
//            ceil(o / 256), 144 KB (147,456 B dynamic shared on sm_80, sm_90, sm_100).
// Pipeline   a k-step is 128 bytes of channels (64 bf16, 32 float) of one tap; 3 stages of cp.async, zero-filled at
//            borders; 128-byte rows with their 16-byte pieces XORed by row % 8, read by ldmatrix; 8 warps of 64 x 32 or
//            64 x 64. Where a thread's pieces lie is found once a tap. The sums go through shared memory to rows of y,
//            16 bytes a store.
// Cost       2 n ho wo o (k k c + c1 + c2) FLOP. Floor at 256 -> 256, 3x3, 32x32, N = 512 on an A100: 0.62 TFLOP at 312
//            TFLOP/s = 2.0 ms bf16.
// Exactness  float32 sums in tap order; bf16 inputs exact, tf32 inputs rounded to nearest (11 bits). Tiles don't matter.
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
template <class T, class Y, int COLS>
struct Loader {
    static constexpr int OUTS = COLS / 32;  // output channels that this thread loads
    const Conv2d<T, Y, T>& p;
    Source<T> now;
    int source;                 // 0 for x, 1 for s1, 2 for s2
    int tap_row, tap_col;
    int channel;                // of the step's first
    int at[4], row[4], col[4];  // where the window of each of y's pixels that this thread loads begins, in all of x
    const T* pixel[4];          // this thread's piece of them at channel 0 of this tap
    const T* weight;            // and of its first output channel
    u32 pixels, outs;           // bit i: pixel i lies inside of the image, output channel i exists

    DEVICE Loader(const Conv2d<T, Y, T>& p, Source<T> first)
        : p(p), now(first), source(0), tap_row(0), tap_col(0), channel(0), outs(0) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int y = y_pixel(i), line = y / p.wo, image = line / p.ho;
            row[i] = line % p.ho * p.stride - p.pad;
            col[i] = y % p.wo * p.stride - p.pad;
            at[i] = (image * p.h + row[i]) * p.w + col[i];
            if (y >= p.n * p.ho * p.wo) row[i] = NOWHERE;
        }
#pragma unroll
        for (int i = 0; i < OUTS; i++) outs |= (u32)((int)blockIdx.y * COLS + Deepwise::line(i) < p.o) << i;
        aim();
    }
    static constexpr int NOWHERE = -(1 << 30);
    static DEVICE int y_pixel(int i) { return blockIdx.x * MMA_TILE + Deepwise::line(i); }
    static DEVICE int piece() { return Deepwise::part() * 16 / (int)sizeof(T); }

    // At a tap.
    DEVICE void aim() {
        pixels = 0;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            // Mutant, planted::convolutions_on_tensor_cores: `row[i] + tap_row` reads `row[i] - tap_row`.
            u32 r = row[i] + tap_row, c = col[i] + tap_col;
            // Mutant, planted::convolutions_on_tensor_cores: `c < (u32)now.w` reads `c <= (u32)now.w`.
            bool inside = r < (u32)now.h && c < (u32)now.w;
            pixels |= (u32)inside << i;
            pixel[i] = now.x + (i64)(at[i] + tap_row * now.w + tap_col) * now.c + piece();
        }
        i64 out = blockIdx.y * COLS + Deepwise::line(0);
        weight = now.weight + out * now.row_words + (tap_row * now.kernel + tap_col) * now.c + piece();
    }
    DEVICE void load(unsigned char* stage) const {
        bool exists = channel + piece() < now.c;
        u32 from_x = exists ? pixels : 0, from_weight = exists ? outs : 0;
        unsigned char* to = stage + Deepwise::offset(Deepwise::line(0), Deepwise::part());
        // Nothing is read where no bytes are asked for, wherever that is.
#pragma unroll
        for (int i = 0; i < 4; i++) cp_async16(to + i * 32 * 128, pixel[i] + channel, from_x >> i & 1 ? 16 : 0);
#pragma unroll
        for (int i = 0; i < OUTS; i++)
            cp_async16(to + MMA_OPERAND + i * 32 * 128, weight + (i64)(32 * i) * now.row_words + channel,
                       from_weight >> i & 1 ? 16 : 0);
    }
    DEVICE void advance() {
        channel += 128 / (int)sizeof(T);
        if (channel < now.c) return;
        channel = 0;
        if (++tap_col == now.kernel) {
            tap_col = 0;
            if (++tap_row == now.kernel) to_side();
        }
        aim();
    }
    // To the shortcut's next input, which has y's pixels.
    DEVICE void to_side() {
        tap_row = 0;
        now = of_side(p, ++source);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            at[i] = y_pixel(i);
            row[i] = at[i] < p.n * p.ho * p.wo ? 0 : NOWHERE;
            col[i] = 0;
        }
    }
};

template <int N>
DEVICE void multiply(float (&acc)[4][N][4], uint32_t (&a)[4][4], uint32_t (&b)[N][2], bf16) {
    mma_bf16(acc, a, b);
}
template <int N>
DEVICE void multiply(float (&acc)[4][N][4], uint32_t (&a)[4][4], uint32_t (&b)[N][2], float) {
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) a[i][j] = round_tf32(a[i][j]);
#pragma unroll
    for (int i = 0; i < N; i++) {
        b[i][0] = round_tf32(b[i][0]);
        b[i][1] = round_tf32(b[i][1]);
    }
    mma_tf32(acc, a, b);
}

// v += from[0..count], of which all N are there where they are WHOLE.
template <bool WHOLE, int N, class X>
DEVICE void add(float (&v)[N], const X* from, int count) {
#pragma unroll
    for (int j = 0; j < N; j += 4) {
        float4 x = load4(from + j, count - j, WHOLE);
        v[j] += x.x, v[j + 1] += x.y, v[j + 2] += x.z, v[j + 3] += x.w;
    }
}

// The sums in shared memory become rows of y.
template <bool WHOLE, int COLS, class T, class Y>
DEVICE void finish(const Conv2d<T, Y, T>& p, const float* sums) {
    constexpr int N = Packet<Y>::count, PIECES = COLS / N;
    int col = threadIdx.x % PIECES * N, out = blockIdx.y * COLS + col, count = p.o - out;
    if (count <= 0) return;
    float biases[N] = {};
    if (p.bias) add<WHOLE>(biases, p.bias + out, count);
    if (p.s1 && p.sbias) add<WHOLE>(biases, p.sbias + out, count);
    for (int row = threadIdx.x / PIECES; row < MMA_TILE; row += BLOCK_THREADS / PIECES) {
        int pixel = blockIdx.x * MMA_TILE + row;
        if (pixel >= p.n * p.ho * p.wo) return;
        i64 at = (i64)pixel * p.o + out;
        Packet<Y> v;
        Sums<COLS>::load(v.v, sums, row, col);
#pragma unroll
        for (int j = 0; j < N; j++) v.v[j] += biases[j];
        // Mutant, planted::convolutions_on_tensor_cores: `p.emb_row` reads `p.o`.
        if (p.emb) add<WHOLE>(v.v, p.emb + (i64)(pixel / (p.ho * p.wo)) * p.emb_row + out, count);
        if (p.residual) add<WHOLE>(v.v, p.residual + at, count);
#pragma unroll
        for (int j = 0; j < N; j++) v.v[j] *= p.scale;
        if (p.add) add<WHOLE>(v.v, p.y + at, count);
        if (WHOLE) {
            store_packet(p.y + at, v);
        } else {
            for (int j = 0; j < min(N, count); j++) p.y[at + j] = from_float<Y>(v.v[j]);
        }
    }
}

template <int COLS, class T, class Y>
DEVICE void convolve(const Conv2d<T, Y, T>& p) {
    EMM_DYNAMIC_SHARED(unsigned char, stages);
    constexpr int N = COLS / 32;
    Source<T> x{p.x, p.weight, p.h, p.w, p.c, p.kernel, p.stride, p.pad, p.kernel * p.kernel * p.c};
    int steps = x.steps() + of_side(p, 1).steps() + of_side(p, 2).steps();
    Loader<T, Y, COLS> loader(p, x);
    float acc[4][N][4] = {};
    auto load = [&](unsigned char* stage, int) {
        loader.load(stage);
        loader.advance();
    };
    pipeline<COLS>(stages, steps, load, [&](const unsigned char* stage) {
#pragma unroll
        for (int k = 0; k < 4; k++) {
            uint32_t a[4][4], b[N][2];
            deep_a(a, stage, warp_row(), k);
            deep_b(b, stage + MMA_OPERAND, warp_col<COLS>(), k);
            multiply(acc, a, b, T());
        }
    });
    float* sums = view_as<float*>(stages);
    Sums<COLS>::put(sums, acc);
    bool whole = p.o % Packet<Y>::count == 0 && aligned4(p.emb, p.emb_row);
    if (whole)
        finish<true, COLS>(p, sums);
    else
        finish<false, COLS>(p, sums);
}

extern "C" __global__ void __launch_bounds__(BLOCK_THREADS, 2) conv2d_mma_bf16(const Conv2d<bf16, bf16, bf16> p) {
    convolve<MMA_TILE>(p);
}
extern "C" __global__ void __launch_bounds__(BLOCK_THREADS, 2) conv2d_mma_tf32(const Conv2d<float, float, float> p) {
    convolve<MMA_TILE>(p);
}
extern "C" __global__ void __launch_bounds__(BLOCK_THREADS, 2) conv2d_mma_last(const Conv2d<bf16, float, bf16> p) {
    convolve<MMA_TILE>(p);
}
extern "C" __global__ void __launch_bounds__(BLOCK_THREADS, 1) conv2d_mma_wide_bf16(const Conv2d<bf16, bf16, bf16> p) {
    convolve<MMA_WIDE>(p);
}
