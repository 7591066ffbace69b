// nearest: the two nearest reference images of each query, by exact integer squared L2 distances of bytes. Ties go to
// the lowest index. The path for any image size; distances are |q|^2 + |r|^2 - 2 q.r in integers.
//
//   nearest_norms    norms[count] = sum of squares of each image's bytes
//   nearest_search   best[splits, s, 2] of (squared distance, index) in each split of the references
//   nearest_merge    squared[s, 2], index[s, 2]: the two best over all splits
//
// Layout     a missing second best is all ones, squared distance and index.
// Launch     nearest_norms: grid ceil(count / 8), a warp an image. nearest_search: grid (ceil(s / 64), splits),
//            per_split = references of a split; 8.5 KB shared. nearest_merge: grid ceil(s / 256). 256 threads.
// Cost       s count words multiply-adds of bytes, four an instruction (dp4a); references are read ceil(s / 64) times.
// Exactness  integers: equal to the CPU. Images of any size: 32-bit sums are widened every 65,536 bytes.
#include "prelude/prelude.cuh"

#include "params/nearest.h"

struct Best {
    u64 squared[2];
    u32 index[2];

    DEVICE void clear() {
        squared[0] = squared[1] = ~0ull;
        index[0] = index[1] = ~0u;
    }
    DEVICE bool before(u64 d, u32 i, int k) const { return d < squared[k] || (d == squared[k] && i < index[k]); }
    DEVICE void take(u64 d, u32 i) {
        if (before(d, i, 0)) {
            squared[1] = squared[0];
            index[1] = index[0];
            squared[0] = d;
            index[0] = i;
        } else if (before(d, i, 1)) {
            squared[1] = d;
            index[1] = i;
        }
    }
};

extern "C" __global__ void nearest_norms(const NearestNorms p) {
    int image = blockIdx.x * BLOCK_WARPS + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (image >= p.count) return;
    u64 sum = 0;
    for (int i = lane; i < p.words; i += 32) {
        u32 pixel = p.pixels[(i64)image * p.words + i];
        sum += pixel * pixel;
    }
    sum = warp_reduce(sum, Sum());
    if (lane == 0) p.norms[image] = sum;
}

// Bytes at..at+4 of an image of `words` bytes as one register, zeros beyond.
DEVICE u32 four_bytes(const u8* image, int at, int words) {
    u32 v = 0;
    for (int i = 0; i < 4 && at + i < words; i++) v |= (u32)image[at + i] << (8 * i);
    return v;
}

// 64 bytes, from `at`, of 64 images, transposed: tile[word][image].
DEVICE void load_tile(u32 (&tile)[16][PITCH], const u8* images, int count, int at, int words) {
    int line = threadIdx.x / 4, word = threadIdx.x % 4 * 4;
    const u8* image = images + (i64)line * words;
    uint4 v = make_uint4(0, 0, 0, 0);
    int from = at + 4 * word;
    if (line < count) {
        if (from + 16 <= words && ((u64)(image + from) & 15) == 0) {
            v = *view_as<const uint4*>(image + from);
        } else {
            v = make_uint4(four_bytes(image, from, words), four_bytes(image, from + 4, words),
                           four_bytes(image, from + 8, words), four_bytes(image, from + 12, words));
        }
    }
    tile[word][line] = v.x;
    tile[word + 1][line] = v.y;
    tile[word + 2][line] = v.z;
    tile[word + 3][line] = v.w;
}

extern "C" __global__ void __launch_bounds__(BLOCK_THREADS) nearest_search(const NearestSearch p) {
    EMM_SHARED(u32, q, [16][PITCH]);
    EMM_SHARED(u32, r, [16][PITCH]);
    const int s = p.s, words = p.words;
    int q0 = blockIdx.x * TILE, split_end = min((int)(blockIdx.y + 1) * p.per_split, p.count);
    Best best[4];
    for (int i = 0; i < 4; i++) best[i].clear();
    for (int r0 = blockIdx.y * p.per_split; r0 < split_end; r0 += TILE) {
        u64 dots[4][4] = {};
        u32 acc[4][4] = {};
        for (int at = 0; at < words; at += 64) {
            load_tile(q, p.queries + (i64)q0 * words, s - q0, at, words);
            load_tile(r, p.references + (i64)r0 * words, split_end - r0, at, words);
            __syncthreads();
            for (int k = 0; k < 16; k++) {
                uint4 x = *view_as<const uint4*>(&q[k][result_row()]);
                uint4 y = *view_as<const uint4*>(&r[k][result_col()]);
                const u32 xs[4] = {x.x, x.y, x.z, x.w}, ys[4] = {y.x, y.y, y.z, y.w};
#pragma unroll
                for (int i = 0; i < 4; i++)
#pragma unroll
                    for (int j = 0; j < 4; j++) acc[i][j] = __dp4a(xs[i], ys[j], acc[i][j]);
            }
            __syncthreads();
            // 255^2 * 65,536 is the most that 32 bits hold.
            if (at + 64 >= words || at % 65536 == 65536 - 64)
                for (int i = 0; i < 4; i++)
                    for (int j = 0; j < 4; j++) {
                        dots[i][j] += acc[i][j];
                        acc[i][j] = 0;
                    }
        }
        for (int i = 0; i < 4; i++) {
            int query = q0 + result_row() + i;
            if (query >= s) break;
            for (int j = 0; j < 4; j++) {
                int reference = r0 + result_col() + j;
                if (reference < split_end)
                    best[i].take(p.query_norms[query] + p.reference_norms[reference] - 2 * dots[i][j], reference);
            }
        }
    }
    // The 16 threads of a row of the tile are neighbouring lanes.
    for (int i = 0; i < 4; i++) {
        for (int lanes = 8; lanes > 0; lanes >>= 1) {
            Best other;
            for (int k = 0; k < 2; k++) {
                other.squared[k] = __shfl_xor_sync(0xffffffffu, best[i].squared[k], lanes);
                other.index[k] = __shfl_xor_sync(0xffffffffu, best[i].index[k], lanes);
            }
            for (int k = 0; k < 2; k++) best[i].take(other.squared[k], other.index[k]);
        }
        int query = q0 + result_row() + i;
        if (result_col() > 0 || query >= s) continue;
        for (int k = 0; k < 2; k++) {
            p.squared[((i64)blockIdx.y * s + query) * 2 + k] = best[i].squared[k];
            p.index[((i64)blockIdx.y * s + query) * 2 + k] = best[i].index[k];
        }
    }
}

extern "C" __global__ void nearest_merge(const NearestMerge p) {
    int query = (int)flat_index();
    if (query >= p.s) return;
    Best best;
    best.clear();
    for (int split = 0; split < p.splits; split++)
        for (int k = 0; k < 2; k++) {
            i64 at = ((i64)split * p.s + query) * 2 + k;
            best.take(p.squared[at], p.index[at]);
        }
    for (int k = 0; k < 2; k++) {
        p.out_squared[2 * query + k] = best.squared[k];
        p.out_index[2 * query + k] = best.index[k];
    }
}
