// pack: working copies of the float32 weights, made once after each update, for the tensor-core convolutions. A launch
// makes up to PACK_JOBS of them: a network has more copies than a launch may cost.
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
// Launch     256 threads. Jobs' blocks one after another: pack_rows ceil(elements of the copy / (512 pieces of 16 bytes)),
//            pack_transposed ceil(padded / 64) ceil(c / 32), which turns 64 x 32 in shared memory (8.3 KB), so that what it
//            reads and writes is in rows; padded is a multiple of 16 bytes. The others: ceil(elements of the result / 256).
// Cost       memory-bound: 6 B a weight and copy, once a step; im2col at 512 x 32 x 32 and width 32: 34 MB in bf16.
// Exactness  copies; bf16 rounds to nearest even.
// Sizes      every array here has fewer than 2^31 elements, as the model's configuration sees to: indices are of 32 bits, since
//            a 64-bit division is some hundred instructions.
#include "prelude/prelude.cuh"

#include "params/pack.h"

template <class T>
DEVICE void pad_rows(const PackRows<T>& p) {
    constexpr u32 N = Packet<T>::count;
    const PackRowsJob<T> job = p.jobs[job_of_block(p)];
    const float* __restrict__ from = job.from;
    bool wide = aligned4(from, job.width);
    u32 first = (blockIdx.x - job.first_block) * (BLOCK_THREADS * PACK_PIECES) + threadIdx.x, end = job.rows * job.padded / N;
    Packet<T> pieces[PACK_PIECES];
#pragma unroll
    for (u32 k = 0; k < PACK_PIECES; k++) {
        u32 i = (first + k * BLOCK_THREADS) * N, row = i / job.padded, column = i - row * job.padded;
        int left = row < job.rows ? (int)(job.width - column) : 0;
#pragma unroll
        for (u32 j = 0; j < N; j += 4) {
            float4 v = load4(from + row * job.width + column + j, left - (int)j, wide);
            pieces[k].v[j] = v.x, pieces[k].v[j + 1] = v.y, pieces[k].v[j + 2] = v.z, pieces[k].v[j + 3] = v.w;
        }
    }
#pragma unroll
    for (u32 k = 0; k < PACK_PIECES; k++)
        if (first + k * BLOCK_THREADS < end) store_packet(job.to + (first + k * BLOCK_THREADS) * N, pieces[k]);
}

template <class T>
DEVICE void transpose(const PackTransposed<T>& p) {
    constexpr u32 N = Packet<T>::count, FOURS = WARP_THREADS / 4, PIECES = PACK_COLUMNS / N;
    EMM_SHARED(float, tile, [PACK_COLUMNS][WARP_THREADS + 1]);
    const PackTransposedJob<T> job = p.jobs[job_of_block(p)];
    const float* __restrict__ w = job.w;
    u32 block = blockIdx.x - job.first_block, across = (job.padded + PACK_COLUMNS - 1) / PACK_COLUMNS;
    u32 down = block / across, column0 = (block - down * across) * PACK_COLUMNS, ch0 = down * WARP_THREADS;
    bool wide = aligned4(w, job.row_words) && job.c % 4 == 0;
    // A column of the copy is a tap and an output channel: 32 of w's input channels, one after another.
#pragma unroll
    for (u32 i = threadIdx.x; i < PACK_COLUMNS * FOURS; i += BLOCK_THREADS) {
        u32 column = i / FOURS, ch = ch0 + i % FOURS * 4;
        u32 tap = (column0 + column) / job.o, out = column0 + column - tap * job.o;
        int left = tap < job.taps ? (int)(job.c - ch) : 0;
        // Mutant, packs::copies_of_any_form_are_made_by_few_launches: `(job.taps - 1 - tap)` reads `tap`.
        float4 v = load4(w + (out * job.row_words + (job.taps - 1 - tap) * job.c + ch), left, wide);
        float* to = &tile[column][i % FOURS * 4];
        to[0] = v.x, to[1] = v.y, to[2] = v.z, to[3] = v.w;
    }
    __syncthreads();
#pragma unroll
    for (u32 i = threadIdx.x; i < WARP_THREADS * PIECES; i += BLOCK_THREADS) {
        u32 ch = i / PIECES, column = i % PIECES * N;
        if (ch0 + ch >= job.c || column0 + column >= job.padded) return;
        Packet<T> piece;
#pragma unroll
        for (u32 j = 0; j < N; j++) piece.v[j] = tile[column + j][ch];
        store_packet(job.to + ((ch0 + ch) * job.padded + column0 + column), piece);
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
