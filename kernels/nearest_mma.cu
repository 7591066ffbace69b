// nearest_mma: nearest.cu's search on integer tensor cores: 128 queries against a split of the references, 128 at a
// time, the two best kept in registers; no distance is ever stored.
//
//   nearest_mma   as nearest_search: best[splits, s, 2] of (squared distance, index); then nearest_merge
//
// Layout     words a multiple of 16 and at most 32,768 (sums fit 31 bits); pointers 16-byte aligned. Any s and count.
// Launch     grid (ceil(s / 128), splits), 256 threads, 96 KB (98,304 B) dynamic shared.
// Cost       2 s count words integer operations: 10,000 x 50,000 x 3,072 is 3.1 T, 5 ms at 624 TOP/s (A100).
// Exactness  integers, equal to the CPU; ties go to the lowest index.
#include "prelude/prelude.cuh"

#include "params/nearest.h"

// Squared distance in the high half, index in the low: the order of keys is the order of neighbours.
struct Pair {
    u64 first, second;
    DEVICE void take(u64 key) {
        if (key < first) {
            second = first;
            first = key;
        } else if (key < second) {
            second = key;
        }
    }
};

DEVICE void load_images(unsigned char* operand, const u8* images, int lines, int words, int step) {
    int at = step * 128 + Deepwise::part() * 16;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        int line = Deepwise::line(i);
        bool inside = line < lines && at < words;
        const u8* from = inside ? images + (i64)line * words + at : images;
        cp_async16(operand + Deepwise::offset(line, Deepwise::part()), from, inside ? 16 : 0);
    }
}

extern "C" __global__ void __launch_bounds__(BLOCK_THREADS, 1) nearest_mma(const NearestSearch p) {
    EMM_DYNAMIC_SHARED(unsigned char, stages);
    const int s = p.s, words = p.words;
    int q0 = blockIdx.x * MMA_TILE, end = min((int)(blockIdx.y + 1) * p.per_split, p.count);
    Pair best[8];
    u32 norms[8];
#pragma unroll
    for (int i = 0; i < 8; i++) {
        int query = q0 + warp_row() + fragment_row(i);
        best[i] = {~0ull, ~0ull};
        norms[i] = query < s ? (u32)p.query_norms[query] : 0;
    }
    for (int r0 = blockIdx.y * p.per_split; r0 < end; r0 += MMA_TILE) {
        int acc[4][4][4] = {};
        auto load = [&](unsigned char* stage, int step) {
            load_images(stage, p.queries + (i64)q0 * words, s - q0, words, step);
            load_images(stage + MMA_OPERAND, p.references + (i64)r0 * words, end - r0, words, step);
        };
        pipeline(stages, ceil_div(words, 128), load, [&](const unsigned char* stage) {
#pragma unroll
            for (int k = 0; k < 4; k++) {
                uint32_t a[4][4], b[4][2];
                deep_a(a, stage, warp_row(), k);
                deep_b(b, stage + MMA_OPERAND, warp_col(), k);
                mma_u8(acc, a, b);
            }
        });
        // Mutant, search::nearest_on_a_gpu_equals_brute_force_in_every_schedule: `__syncthreads();` goes.
        __syncthreads();  // the next references go into the same stages
#pragma unroll
        for (int j = 0; j < 8; j++) {
            int reference = r0 + warp_col() + fragment_col(j);
            if (reference >= end) continue;
            u32 norm = (u32)p.reference_norms[reference];
#pragma unroll
            for (int i = 0; i < 8; i++) {
                u32 d = norms[i] + norm - 2 * (u32)acc[i / 2][j / 2][2 * (i % 2) + j % 2];
                best[i].take((u64)d << 32 | (u32)reference);
            }
        }
    }

    // A query's references lie with the 4 lanes of a quad and the 4 warps of a row of warps.
    u64* keys = view_as<u64*>(stages);  // [128 queries][4 warps][2]
#pragma unroll
    for (int i = 0; i < 8; i++) {
        for (int lanes = 1; lanes < 4; lanes *= 2) {
            u64 first = __shfl_xor_sync(0xffffffffu, best[i].first, lanes);
            u64 second = __shfl_xor_sync(0xffffffffu, best[i].second, lanes);
            best[i].take(first);
            best[i].take(second);
        }
        if (threadIdx.x % 4 > 0) continue;
        u64* to = keys + ((warp_row() + fragment_row(i)) * 4 + warp_col() / 32) * 2;
        to[0] = best[i].first;
        to[1] = best[i].second;
    }
    __syncthreads();
    int query = q0 + threadIdx.x;
    if (threadIdx.x >= MMA_TILE || query >= s) return;
    Pair pair{~0ull, ~0ull};
    for (int k = 0; k < 8; k++) pair.take(keys[threadIdx.x * 8 + k]);
    i64 at = ((i64)blockIdx.y * s + query) * 2;
    p.squared[at] = pair.first == ~0ull ? ~0ull : pair.first >> 32;
    p.squared[at + 1] = pair.second == ~0ull ? ~0ull : pair.second >> 32;
    p.index[at] = (u32)pair.first;
    p.index[at + 1] = (u32)pair.second;
}
