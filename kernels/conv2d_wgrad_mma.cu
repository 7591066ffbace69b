// conv2d_wgrad_mma: the gradient of a convolution's weight on tensor cores: for one tap, or a shortcut's input, 128 output x
// 128 or 256 input channels a block, summed over the pixels of a chain of images.
//
//   wgrad_mma_bf16, _tf32 partials[chain, o, k, k, c] (float32) (+)= sum over the chain's pixels of dy * x; at
//                            the end of the batch sum_chains (sums.cu), in fixed order.
//   wgrad_mma_wide_bf16      the same of 256 input channels a block, for GPUs with the room
//
// Layout     dy[n, ho, wo, o] and x[n, h, w, c] in T: bf16, or float rounded to tf32. o and c multiples of 8 (bf16) or
//            4 (tf32), pointers 16-byte aligned; any pixels.
// Launch     grid (ceil(o / 128) * (kernel^2 ceil(c / 128) + ceil(c1 / 128) + ceil(c2 / 128)), 1, chains), 256 threads,
//            96 KB (98,304 B) dynamic shared; wide tiles ceil(c / 256), ceil(c1 / 256) and ceil(c2 / 256), 144 KB
//            (147,456 B dynamic shared on sm_80, sm_90, sm_100).
// Pipeline   a k-step is 64 (bf16) or 32 (tf32) pixels; 3 stages of cp.async, zero-filled at borders and past the
//            chain's. Where a step's pixels lie in x each lane finds for one or two of them, without a division, and the
//            others ask it. Operands lie [pixel][channel] as in memory: bf16 is transposed by ldmatrix, tf32 read word
//            by word; the 16-byte pieces of a row are XORed so that neither meets a bank twice. 8 warps of 64 x 32 or
//            64 x 64. The sums go through shared memory to rows of the partial, 16 bytes a store.
// Cost       2 n ho wo o k k c FLOP; partials 4 o k k c chains bytes written, read again by the next
//            micro-batch that its chain reaches and at the end. dy and x are read once per
//            tap and opposite block, mostly from the second-level cache.
// Exactness  float32 sums in pixel order within a chain; no atomics. Tiles don't matter. Products are of 16 pixels (tf32: 8), to
//            which micro-batches have to be cut for the same bits.
#include "prelude/prelude.cuh"

#include "params/conv2d.h"

// Brings the pixels of a chain, a k-step at a time.
template <class T, int COLS>
struct ChainLoader {
    using A = Sidewise<T>;
    using B = Sidewise<T, COLS>;
    static constexpr int STEP = A::depths, FOUND = STEP / WARP_THREADS;
    const T *dy, *x;  // dy: this thread's piece of the step's first pixel; x: its channel of the first pixel of all
    int h, w, c, ho, wo, o, stride;             // x and its size: those of the part's input
    bool has_out, has_channel;
    int down, right;                            // how the tap shifts x
    int left;                                   // pixels of the chain from the step's first on
    int image[FOUND], row[FOUND], col[FOUND];   // of y's pixels that this lane finds for all
    int step_images, step_rows, step_cols;      // how far the next step's lie

    DEVICE ChainLoader(const Conv2dWgrad<T, T>& p, const WeightPart<COLS>& part, const Chain& chain)
        : h(part.input ? p.ho : p.h), w(part.input ? p.wo : p.w), c(part.channels), ho(p.ho), wo(p.wo), o(p.o),
          stride(part.input ? 1 : p.stride), down(part.down), right(part.right),
          left(chain.images * p.ho * p.wo) {
        int out = part.out + A::first_line(), channel = part.channel + B::first_line();
        has_out = out < o;
        has_channel = channel < c;
        dy = p.dy + ((i64)chain.first * ho * wo + A::depth(0)) * o + out;
        x = (part.input == 0 ? p.x : part.input == 1 ? p.s1 : p.s2) + channel;
#pragma unroll
        for (int l = 0; l < FOUND; l++) {
            int pixel = WARP_THREADS * l + threadIdx.x % WARP_THREADS, line = pixel / wo;
            image[l] = chain.first + line / ho;
            row[l] = line % ho;
            col[l] = pixel % wo;
        }
        step_images = STEP / wo / ho;
        step_rows = STEP / wo % ho;
        step_cols = STEP % wo;
    }
    // The pixel of x that meets pixel `l` of this lane's at the tap; -1: none.
    DEVICE int find(int l) const {
        int r = row[l] * stride + down, s = col[l] * stride + right;
        bool inside = WARP_THREADS * l + (int)(threadIdx.x % WARP_THREADS) < left && (u32)r < (u32)h && (u32)s < (u32)w;
        return inside ? (image[l] * h + r) * w + s : -1;
    }
    DEVICE void load(unsigned char* stage) {
#pragma unroll
        for (int i = 0; i < A::pieces; i++) {
            bool exists = has_out && A::depth(i) < left;
            const T* from = dy + (i64)(A::depth(i) - A::depth(0)) * o;
            cp_async16(stage + A::offset(A::depth(i), A::part()), from, exists ? 16 : 0);
        }
        int found[FOUND];
#pragma unroll
        for (int l = 0; l < FOUND; l++) found[l] = find(l);
#pragma unroll
        for (int i = 0; i < B::pieces; i++) {
            constexpr int ROUND = BLOCK_THREADS / B::parts;  // pixels that all threads bring at once
            int pixel = __shfl_sync(0xffffffffu, found[i * ROUND / WARP_THREADS], B::depth(i) % WARP_THREADS);
            bool exists = has_channel && pixel >= 0;
            cp_async16(stage + MMA_OPERAND + B::offset(B::depth(i), B::part()), x + (i64)pixel * c, exists ? 16 : 0);
        }
        advance();
    }
    DEVICE void advance() {
        left -= STEP;
        dy += (i64)STEP * o;
#pragma unroll
        for (int l = 0; l < FOUND; l++) {
            col[l] += step_cols;
            bool line = col[l] >= wo;
            col[l] -= line ? wo : 0;
            row[l] += step_rows + line;
            line = row[l] >= ho;
            row[l] -= line ? ho : 0;
            image[l] += step_images + line;
        }
    }
};

// acc += the products of one k-step, for this warp's 64 output and 8 N input channels.
template <int N>
DEVICE void step_product(float (&acc)[4][N][4], const unsigned char* stage, bf16) {
#pragma unroll
    for (int k = 0; k < 4; k++) {
        uint32_t a[4][4], b[N][2];
        side_a(a, stage, warp_row(), k);
        side_b(b, stage + MMA_OPERAND, warp_col<32 * N>(), k);
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

// acc = what an earlier micro-batch has left.
template <int COLS>
DEVICE void resume(float (&acc)[4][COLS / 32][4], const WeightPart<COLS>& part, int outs) {
#pragma unroll
    for (int i = 0; i < 8; i++)
#pragma unroll
        for (int j = 0; j < COLS / 16; j += 2) {
            int out = part.out + warp_row() + fragment_row(i), channel = part.channel + warp_col<COLS>() + fragment_col(j);
            if (out >= outs || channel >= part.channels) continue;
            float2 two = *view_as<const float2*>(part.at(out, channel));
            acc[i / 2][j / 2][2 * (i % 2)] = two.x;
            acc[i / 2][j / 2][2 * (i % 2) + 1] = two.y;
        }
}

template <int COLS, class T>
DEVICE void chain_gradient(const Conv2dWgrad<T, T>& p) {
    EMM_DYNAMIC_SHARED(unsigned char, stages);
    Chain chain(blockIdx.z, p.chain, p.first_image, p.n);
    if (chain.images <= 0) return;
    WeightPart<COLS> part(p);
    int steps = ceil_div(chain.images * p.ho * p.wo, Sidewise<T>::depths);
    ChainLoader<T, COLS> loader(p, part, chain);
    float acc[4][COLS / 32][4] = {};
    // Mutant, micro_batches_and_resumption_give_the_same_bits_on_a_gpu: `chain.begun` reads `false`.
    if (chain.begun) resume<COLS>(acc, part, p.o);
    pipeline<COLS>(
        stages, steps, [&](unsigned char* stage, int) { loader.load(stage); },
        [&](const unsigned char* stage) { step_product(acc, stage, T()); });

    float* sums = view_as<float*>(stages);
    Sums<COLS>::put(sums, acc);
    constexpr int PIECES = COLS / 4;
    int col = threadIdx.x % PIECES * 4;
    if (part.channel + col >= part.channels) return;
    for (int row = threadIdx.x / PIECES; row < MMA_TILE && part.out + row < p.o; row += BLOCK_THREADS / PIECES)
        store_packet(part.at(part.out + row, part.channel + col), load_packet(sums + Sums<COLS>::offset(row, col)));
}

extern "C" __global__ void __launch_bounds__(BLOCK_THREADS, 2) wgrad_mma_bf16(const Conv2dWgrad<bf16, bf16> p) {
    chain_gradient<MMA_TILE>(p);
}
extern "C" __global__ void __launch_bounds__(BLOCK_THREADS, 2) wgrad_mma_tf32(const Conv2dWgrad<float, float> p) {
    chain_gradient<MMA_TILE>(p);
}
extern "C" __global__ void __launch_bounds__(BLOCK_THREADS, 1) wgrad_mma_wide_bf16(const Conv2dWgrad<bf16, bf16> p) {
    chain_gradient<MMA_WIDE>(p);
}
