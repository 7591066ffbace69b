// conv2d_wgrad_mma: the gradient of a convolution's weight on tensor cores: for one tap, 128 output x 128 input
// channels a block, summed over the pixels of 8 images (ROUNDED_IMAGES).
//
//   wgrad_mma_bf16, _tf32 partials[chunk, o, k, k, c] (float32) = sum over the chunk's pixels of dy * x; then
//                            wgrad_reduce (conv2d_bwd.cu), in fixed order.
//
// Layout     dy[n, ho, wo, o] and x[n, h, w, c] in T: bf16, or float rounded to tf32. o and c multiples of 8 (bf16) or
//            4 (tf32), pointers 16-byte aligned; any pixels.
// Launch     grid (ceil(o / 128) * ceil(c / 128), kernel^2, ceil(n / 8)), 256 threads, 96 KB (98,304 B) dynamic
//            shared.
// Pipeline   a k-step is 64 (bf16) or 32 (tf32) pixels; 3 stages of cp.async, zero-filled at borders and past the
//            chunk. Operands lie [pixel][channel] as in memory: bf16 is transposed by ldmatrix, tf32 read word by word;
//            the 16-byte pieces of a row are XORed so that neither meets a bank twice. 8 warps of 64 x 32.
// Cost       2 n ho wo o k k c FLOP; partials 4 o k k c chunks bytes written and read once. dy and x are read once per
//            tap and opposite block, mostly from the second-level cache.
// Exactness  float32 sums in pixel order within a chunk; no atomics.
#include "prelude/prelude.cuh"

#include "params/conv2d.h"

template <class T>
struct ChunkLoader {
    const T *dy, *x;
    int h, w, c, ho, wo, o, stride, row_offset, col_offset, first_pixel, end_pixel, out, channel;

    DEVICE void load(unsigned char* stage, int step) const {
        using S = Sidewise<T>;
        int part = S::part();
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int k = S::depth(i), pixel = first_pixel + step * S::depths + k;
            bool exists = pixel < end_pixel;
            bool inside = exists && out < o;
            cp_async16(stage + S::offset(k, part), inside ? dy + (i64)pixel * o + out : dy, inside ? 16 : 0);
            int line = pixel / wo, image = line / ho;
            int row = line % ho * stride + row_offset, col = pixel % wo * stride + col_offset;
            inside = exists && channel < c && row >= 0 && row < h && col >= 0 && col < w;
            const T* from = inside ? x + (((i64)image * h + row) * w + col) * c + channel : x;
            cp_async16(stage + MMA_OPERAND + S::offset(k, part), from, inside ? 16 : 0);
        }
    }
};

// acc += the products of one k-step, for this warp's 64 output and 32 input channels.
DEVICE void step_product(float (&acc)[4][4][4], const unsigned char* stage, bf16) {
#pragma unroll
    for (int k = 0; k < 4; k++) {
        uint32_t a[4][4], b[4][2];
        side_a(a, stage, warp_row(), k);
        side_b(b, stage + MMA_OPERAND, warp_col(), k);
        mma_bf16(acc, a, b);
    }
}

// One element, rounded to tf32.
DEVICE uint32_t element(const unsigned char* operand, int pixel, int channel) {
    const unsigned char* p = operand + Sidewise<float>::offset(pixel, channel / 4) + channel % 4 * 4;
    return round_tf32(*view_as<const uint32_t*>(p));
}

DEVICE void step_product(float (&acc)[4][4][4], const unsigned char* stage, float) {
    int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
#pragma unroll
    for (int k = 0; k < Sidewise<float>::depths; k += 8) {
        uint32_t a[4][4], b[4][2];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int out = warp_row() + 16 * i + g;
            a[i][0] = element(stage, k + t, out);
            a[i][1] = element(stage, k + t, out + 8);
            a[i][2] = element(stage, k + t + 4, out);
            a[i][3] = element(stage, k + t + 4, out + 8);
        }
#pragma unroll
        for (int j = 0; j < 4; j++) {
            b[j][0] = element(stage + MMA_OPERAND, k + t, warp_col() + 8 * j + g);
            b[j][1] = element(stage + MMA_OPERAND, k + t + 4, warp_col() + 8 * j + g);
        }
        mma_tf32(acc, a, b);
    }
}

template <class T>
DEVICE void chunk_gradient(const Conv2dWgrad<T, T>& p) {
    EMM_DYNAMIC_SHARED(unsigned char, stages);
    const int c = p.c, o = p.o, kernel = p.kernel;
    int blocks_c = ceil_div(c, MMA_TILE), tap = blockIdx.y;
    int o0 = blockIdx.x / blocks_c * MMA_TILE, c0 = blockIdx.x % blocks_c * MMA_TILE;
    int first = blockIdx.z * ROUNDED_IMAGES, pixels = (min(first + ROUNDED_IMAGES, p.n) - first) * p.ho * p.wo;
    int mine = Sidewise<T>::first_line(), taps = kernel * kernel;
    ChunkLoader<T> loader{p.dy, p.x, p.h, p.w, c, p.ho, p.wo, o, p.stride, tap / kernel - p.pad, tap % kernel - p.pad,
                          first * p.ho * p.wo, first * p.ho * p.wo + pixels, o0 + mine, c0 + mine};
    float acc[4][4][4] = {};
    pipeline(
        stages, ceil_div(pixels, Sidewise<T>::depths),
        [&](unsigned char* stage, int step) { loader.load(stage, step); },
        [&](const unsigned char* stage) { step_product(acc, stage, T()); });

#pragma unroll
    for (int i = 0; i < 8; i++) {
        int out = o0 + warp_row() + fragment_row(i);
        if (out >= o) continue;
        float* to = p.partials + (((i64)blockIdx.z * o + out) * taps + tap) * c;
#pragma unroll
        for (int j = 0; j < 4; j++) {
            int channel = c0 + warp_col() + fragment_col(2 * j);  // c is even
            if (channel >= c) continue;
            *view_as<float2*>(to + channel) =
                make_float2(acc[i / 2][j][2 * (i % 2)], acc[i / 2][j][2 * (i % 2) + 1]);
        }
    }
}

extern "C" __global__ void __launch_bounds__(BLOCK_THREADS, 2) wgrad_mma_bf16(const Conv2dWgrad<bf16, bf16> p) {
    chunk_gradient(p);
}
extern "C" __global__ void __launch_bounds__(BLOCK_THREADS, 2) wgrad_mma_tf32(const Conv2dWgrad<float, float> p) {
    chunk_gradient(p);
}
