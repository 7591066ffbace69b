// attention_mma: attention.cu's forward and gradient in bf16 on tensor cores, where an image has at most 256 pixels: the
// scores of 128 queries with all keys of their image stay on chip.
//
//   attention_mma_fwd           w = softmax(scale q k^T), y = w v
//   attention_mma_bwd_queries   dw = dy v^T, ds = (dw - row sums of dw w) w, dq (=|+=) scale ds k
//   attention_mma_bwd_keys      dv (=|+=) w^T dy, dk (=|+=) scale ds^T q
//
// Layout     attention.cu's, all in bf16: qkv and dqkv [n, t, 3c], y and dy [n, t, c], w and ds [n, t, t]. t and c
//            multiples of 8, t <= 256; pointers 16-byte aligned.
// Launch     grid (ceil(t / 128), n) forward and for queries, (ceil(t / 128), ceil(c / 256), 2 n) for keys: of an image
//            dv, then dk. 256 threads. `stages` is 3 where a GPU has the room, 147,456 B dynamic shared on sm_80, sm_90,
//            sm_100; else 2, 98,304 B dynamic shared on sm_86, sm_89, sm_120.
// Pipeline   8 warps of 64 x 64 of a block's 128 x 256. A ring of stages brings 64 columns of 128 queries and of all keys.
//            When the scores are made, their memory takes the block's rows of w, or of ds, in bf16, from which they go to
//            the device's memory 16 bytes at a time and into the second product, and a ring of 32 rows of v, or of k,
//            whose first come while the last scores are made. For keys the ring brings 64 rows of w and dy, or of ds and q.
// Cost       4 t^2 c FLOP an image each. At t = c = 256 an image moves 640 KB forward, 768 KB for queries and 768 KB for
//            keys, 128 KB and 256 KB more where they add. Floor at n = 512 on an H100, 34 GFLOP each: 0.07 ms by
//            mma.sync, but 0.11, 0.13 and 0.13 ms by memory.
// Exactness  float32 sums in the order of the depth, 16 at a time; fixed order, no atomics. A weight is 2^x / sum, where x
//            is what log2(e) times the score lies below the row's highest; 2^x and 1 / sum are instructions that
//            approximate. It is within (2 |x| + 20) 2^-23 of its value before it is rounded to bf16.
#include "prelude/prelude.cuh"

#include "params/attention.h"

constexpr int STAGE = stage_bytes<MMA_WIDE>();
// Bytes of a block's 128 x 256 in bf16, as 4 Deepwise operands of 64 columns; and of 32 rows of 256 columns.
constexpr int SQUARE = 4 * MMA_OPERAND, CHUNK = 32 * MMA_WIDE * 2;
static_assert(SQUARE + 2 * CHUNK <= 2 * STAGE, "both lie before the last of three stages, or in all of two");

// A matrix of an image: so many rows, `row` numbers apart, of so many columns.
struct Matrix {
    const bf16* p;
    int row, rows, columns;

    DEVICE void copy(unsigned char* to, int r, int c) const {
        bool inside = r < rows && c < columns;
        cp_async16(to, inside ? p + r * row + c : p, inside ? 16 : 0);
    }
    // LINES rows from `first` on at 64 columns from `column` on.
    template <int LINES>
    DEVICE void deepwise(unsigned char* to, int first, int column) const {
#pragma unroll
        for (int i = 0; i < LINES / 32; i++) {
            int line = Deepwise::line(i), part = Deepwise::part();
            copy(to + Deepwise::offset(line, part), first + line, column + 8 * part);
        }
    }
    // DEPTHS rows from `first` on at LINES columns from `column` on.
    template <int DEPTHS, int LINES>
    DEVICE void sidewise(unsigned char* to, int first, int column) const {
        using S = Sidewise<bf16, LINES>;
#pragma unroll
        for (int i = 0; i < DEPTHS * S::parts / BLOCK_THREADS; i++)
            copy(to + S::offset(S::depth(i), S::part()), first + S::depth(i), column + S::first_line());
    }
};

// A ring of `stages` that copies fill, a group of them each, in turns from `stage` on.
struct Ring {
    int stages, stage;

    DEVICE int before() const { return stage > 0 ? stage - 1 : stages - 1; }
    DEVICE void next() { stage = stage + 1 < stages ? stage + 1 : 0; }
    // Issues the copies of the first steps: load(stage, step).
    template <class Load>
    DEVICE void begin(int steps, Load load) const {
        for (int step = 0; step < stages - 1; step++) {
            int to = stage + step;
            if (step < steps) load(to < stages ? to : to - stages, step);
            cp_async_commit();
        }
    }
    // Waits for those of a step, and issues those that take the place of the step before.
    template <class Load>
    DEVICE void turn(int steps, int step, Load load) const {
        if (stages > 2)
            cp_async_wait<1>();
        else
            cp_async_wait<0>();
        // Mutant, planted::attention_on_tensor_cores: `__syncthreads();` goes.
        __syncthreads();  // everyone's pieces have landed, and everyone has read the stage that is refilled now
        if (step + stages - 1 < steps) load(before(), step + stages - 1);
        cp_async_commit();
    }
};

// acc = a b^T over their columns: 128 rows of a from `first` on, all of b's. `follow` issues copies to what lies before
// the last of three stages: while the last step is multiplied, or, with two, behind it. All stages are free behind it.
template <class Follow>
DEVICE void row_products(float (&acc)[4][8][4], unsigned char* memory, int stages, const Matrix& a, int first,
                         const Matrix& b, Follow follow) {
    auto load = [&](int stage, int step) {
        a.deepwise<MMA_TILE>(memory + stage * STAGE, first, 64 * step);
        b.deepwise<MMA_WIDE>(memory + stage * STAGE + MMA_OPERAND, 0, 64 * step);
    };
    bool any = first + warp_row() < a.rows && warp_col<MMA_WIDE>() < b.rows;
    int steps = ceil_div(a.columns, 64);
    Ring ring{stages, (stages - steps % stages) % stages};  // so that the last step's is the last
    ring.begin(steps, load);
    for (int step = 0; step < steps; step++, ring.next()) {
        ring.turn(steps, step, load);
        if (stages > 2 && step == steps - 1) follow();
        const unsigned char* operands = memory + ring.stage * STAGE;
#pragma unroll
        for (int k = 0; k < 4 && any; k++) {
            uint32_t of_a[4][4], of_b[8][2];
            deep_a(of_a, operands, warp_row(), k);
            deep_b(of_b, operands + MMA_OPERAND, warp_col<MMA_WIDE>(), k);
            mma_bf16(acc, of_a, of_b);
        }
    }
    __syncthreads();
    if (stages == 2) follow();
}

// The second product: what lies in the square times 256 columns of a matrix whose rows come in chunks of 32.
struct Weighted {
    const Matrix& of;
    unsigned char *square, *chunks;
    int stages;

    DEVICE unsigned char* last_chunk() const { return chunks + (stages - 1) * CHUNK; }
    DEVICE void load(int stage, int step, int column) const {
        of.sidewise<32, MMA_WIDE>(chunks + stage * CHUNK, 32 * step, column);
    }
    // Issues the first copies of the columns from `column` on, none into the last chunk.
    DEVICE void start(int column) const {
        Ring{stages, 0}.begin(ceil_div(of.rows, 32), [&](int stage, int step) { load(stage, step, column); });
    }
    DEVICE void multiply(float (&acc)[4][8][4], int column, bool any) const {
        Ring ring{stages, 0};
        int step = 0, steps = ceil_div(of.rows, 32);
        do {
            ring.turn(steps, step, [&](int stage, int next) { load(stage, next, column); });
#pragma unroll
            for (int k = 0; k < 2 && any; k++) {
                uint32_t a[4][4], b[8][2];
                deep_a(a, square + step / 2 * MMA_OPERAND, warp_row(), step % 2 * 2 + k);
                side_b(b, chunks + ring.stage * CHUNK, warp_col<MMA_WIDE>(), k);
                mma_bf16(acc, a, b);
            }
            ring.next();
        } while (++step < steps);
    }
};

DEVICE void clear(float (&acc)[4][8][4]) {
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 8; j++)
#pragma unroll
            for (int k = 0; k < 4; k++) acc[i][j][k] = 0.0f;
}

// Over the 4 lanes that hold a row of a warp's results; each gets the result.
template <class Op>
DEVICE float quad_reduce(float v, Op op) {
    v = op(v, __shfl_xor_sync(0xffffffffu, v, 1));
    return op(v, __shfl_xor_sync(0xffffffffu, v, 2));
}

// v[j] of lane i of each 4 becomes v[i] of lane j.
DEVICE void quad_transpose(u32 (&v)[4]) {
#pragma unroll
    for (int lanes = 1; lanes < 4; lanes *= 2) {
        bool upper = threadIdx.x & lanes;
#pragma unroll
        for (int j = 0; j < 4; j++) {
            if (j & lanes) continue;
            u32 low = v[j], high = v[j + lanes];
            u32 other = __shfl_xor_sync(0xffffffffu, upper ? low : high, lanes);
            v[j] = upper ? other : low;
            v[j + lanes] = upper ? high : other;
        }
    }
}

// 128 rows and 256 columns at `to`, of which so many exist, (=|+=) the sums times alpha: 16 bytes at a time.
DEVICE void store_sums(bf16* to, int row, int rows, int columns, const float (&acc)[4][8][4], float alpha, int add) {
    uint4* pieces = view_as<uint4*>(to);
    int piece = warp_col<MMA_WIDE>() / 8 + threadIdx.x % 4;
#pragma unroll
    for (int first = 0; first < 8; first += 4) {
        uint4 old[4][2];  // all on their way before the first is used
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
            for (int j = 0; j < 2; j++) {
                int line = warp_row() + fragment_row(first + i);
                old[i][j] = make_uint4(0, 0, 0, 0);
                if (add && line < rows && 8 * piece + 32 * j < columns)
                    old[i][j] = pieces[line * (row / 8) + piece + 4 * j];
            }
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
            for (int j = 0; j < 2; j++) {
                int line = warp_row() + fragment_row(first + i);
                u32 v[4] = {old[i][j].x, old[i][j].y, old[i][j].z, old[i][j].w};
                if (add) quad_transpose(v);
#pragma unroll
                for (int k = 0; k < 4; k++) {
                    const float* pair = &acc[(first + i) / 2][4 * j + k][2 * (i % 2)];
                    v[k] = cvt_bf16x2(fmaf(alpha, pair[0], bf16_low(v[k])), fmaf(alpha, pair[1], bf16_high(v[k])));
                }
                quad_transpose(v);
                if (line < rows && 8 * piece + 32 * j < columns)
                    pieces[line * (row / 8) + piece + 4 * j] = make_uint4(v[0], v[1], v[2], v[3]);
            }
    }
}

// Where the square has results i of column tile j of this thread's warp.
DEVICE u32* pair_in(unsigned char* square, int i, int j) {
    unsigned char* operand = square + warp_col<MMA_WIDE>() / 64 * MMA_OPERAND;
    return view_as<u32*>(operand + Deepwise::offset(warp_row() + fragment_row(i), j) + 4 * (threadIdx.x % 4));
}

// Rows of w, or of ds, from `first` on, from the square.
DEVICE void store_square(bf16* to, int t, int first, const unsigned char* square) {
    int piece = threadIdx.x % 32;
    const unsigned char* operand = square + piece / 8 * MMA_OPERAND;
    if (8 * piece >= t) return;
    for (int row = threadIdx.x / 32; row < min(MMA_TILE, t - first); row += BLOCK_WARPS)
        *view_as<uint4*>(to + (first + row) * t + 8 * piece) =
            *view_as<const uint4*>(operand + Deepwise::offset(row, piece % 8));
}

// The square's weights from the scores, `scale` times which are exponents of 2. `parts` [128][4]: of a row, by each of its
// warps, the highest exponent, and the sum of the powers below it.
DEVICE void softmax(float (&s)[4][8][4], unsigned char* square, float2* parts, int keys, float scale) {
    int warp = threadIdx.x / 32 % 4, quad = threadIdx.x % 4;
    float highest[8];
#pragma unroll
    for (int i = 0; i < 8; i++) {
        float top = -3e38f, sum = 0.0f;  // lower than all scores, and no infinity to take off one
#pragma unroll
        for (int j = 0; j < 16; j++) {
            float& v = s[i / 2][j / 2][2 * (i % 2) + j % 2];
            if (warp_col<MMA_WIDE>() + fragment_col(j) >= keys) v = -INFINITY;
            top = fmaxf(top, v);
        }
        highest[i] = quad_reduce(top, Max()) * scale;
#pragma unroll
        for (int j = 0; j < 16; j++) {
            float& v = s[i / 2][j / 2][2 * (i % 2) + j % 2];
            v = ex2_approx(fmaf(v, scale, -highest[i]));
            sum += v;
        }
        sum = quad_reduce(sum, Sum());
        if (quad == 0) parts[(warp_row() + fragment_row(i)) * 4 + warp] = make_float2(highest[i], sum);
    }
    // Mutant, planted::attention_on_tensor_cores: `__syncthreads();` goes.
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 8; i++) {
        float2 part = parts[(warp_row() + fragment_row(i)) * 4 + quad];
        float top = quad_reduce(part.x, Max());
        float sum = quad_reduce(part.y * ex2_approx(part.x - top), Sum());
        float factor = ex2_approx(highest[i] - top) * rcp_approx(sum);
#pragma unroll
        for (int j = 0; j < 8; j++) {
            const float* pair = &s[i / 2][j][2 * (i % 2)];
            *pair_in(square, i, j) = cvt_bf16x2(pair[0] * factor, pair[1] * factor);
        }
    }
}

// The square's gradients of scores from those of weights, in place of the weights; `parts` as softmax's, sums.
DEVICE void softmax_gradient(const float (&d)[4][8][4], unsigned char* square, float* parts) {
    int warp = threadIdx.x / 32 % 4, quad = threadIdx.x % 4;
#pragma unroll
    for (int i = 0; i < 8; i++) {
        float dot = 0.0f;
#pragma unroll
        for (int j = 0; j < 8; j++) {
            const float* pair = &d[i / 2][j][2 * (i % 2)];
            u32 w = *pair_in(square, i, j);
            dot = fmaf(pair[0], bf16_low(w), dot);
            dot = fmaf(pair[1], bf16_high(w), dot);
        }
        dot = quad_reduce(dot, Sum());
        if (quad == 0) parts[(warp_row() + fragment_row(i)) * 4 + warp] = dot;
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 8; i++) {
        float dot = quad_reduce(parts[(warp_row() + fragment_row(i)) * 4 + quad], Sum());
#pragma unroll
        for (int j = 0; j < 8; j++) {
            const float* pair = &d[i / 2][j][2 * (i % 2)];
            u32* at = pair_in(square, i, j);
            *at = cvt_bf16x2((pair[0] - dot) * bf16_low(*at), (pair[1] - dot) * bf16_high(*at));
        }
    }
}

// [rows, columns] of an image (=|+=) alpha times the square times what is weighted, whose first copies have been issued.
DEVICE void store_weighted(float (&acc)[4][8][4], const Weighted& weighted, bf16* to, int row, int first, float alpha,
                           int add) {
    const Matrix& of = weighted.of;
    bool any = first + warp_row() < of.rows;
    for (int column = 0; column < of.columns; column += MMA_WIDE) {
        if (column > 0) {
            __syncthreads();  // everyone has read the last chunks
            weighted.start(column);
        }
        clear(acc);
        weighted.multiply(acc, column, any);
        store_sums(to + first * row + column, row, of.rows - first, of.columns - column, acc, alpha, add);
    }
}

extern "C" __global__ void __launch_bounds__(BLOCK_THREADS, 1) attention_mma_fwd(const AttentionFwd p) {
    EMM_DYNAMIC_SHARED(unsigned char, memory);
    int t = p.t, c = p.c, first = blockIdx.x * MMA_TILE;
    i64 image = blockIdx.y;
    const bf16* qkv = p.qkv + image * t * 3 * c;
    Matrix q{qkv, 3 * c, t, c}, k{qkv + c, 3 * c, t, c}, v{qkv + 2 * c, 3 * c, t, c};
    Weighted weighted{v, memory, memory + SQUARE, p.stages};
    float acc[4][8][4] = {};
    row_products(acc, memory, p.stages, q, first, k, [&] { weighted.start(0); });
    // The last chunk comes only behind the next barriers.
    softmax(acc, memory, view_as<float2*>(weighted.last_chunk()), t, LOG2_E * p.scale);
    __syncthreads();
    store_square(p.w + image * t * t, t, first, memory);
    store_weighted(acc, weighted, p.y + image * t * c, c, first, 1.0f, 0);
}

extern "C" __global__ void __launch_bounds__(BLOCK_THREADS, 1) attention_mma_bwd_queries(const AttentionBwdQueries p) {
    EMM_DYNAMIC_SHARED(unsigned char, memory);
    int t = p.t, c = p.c, first = blockIdx.x * MMA_TILE;
    i64 image = blockIdx.y;
    const bf16* qkv = p.qkv + image * t * 3 * c;
    Matrix k{qkv + c, 3 * c, t, c}, v{qkv + 2 * c, 3 * c, t, c}, w{p.w + image * t * t, t, t, t};
    Matrix dy{p.dy + image * t * c, c, t, c};
    Weighted weighted{k, memory, memory + SQUARE, p.stages};
    float acc[4][8][4] = {};
    row_products(acc, memory, p.stages, dy, first, v, [&] {
        for (int part = 0; part < 4; part++) w.deepwise<MMA_TILE>(memory + part * MMA_OPERAND, first, 64 * part);
        weighted.start(0);
    });
    cp_async_wait<0>();
    __syncthreads();
    softmax_gradient(acc, memory, view_as<float*>(weighted.last_chunk()));
    __syncthreads();
    store_square(p.ds + image * t * t, t, first, memory);
    store_weighted(acc, weighted, p.dqkv + image * t * 3 * c, 3 * c, first, p.scale, p.add);
}

extern "C" __global__ void __launch_bounds__(BLOCK_THREADS, 1) attention_mma_bwd_keys(const AttentionBwdKeys p) {
    EMM_DYNAMIC_SHARED(unsigned char, memory);
    int t = p.t, c = p.c, first = blockIdx.x * MMA_TILE, column = blockIdx.y * MMA_WIDE;
    bool of_keys = blockIdx.z % 2;
    i64 image = blockIdx.z / 2;
    Matrix a{(of_keys ? p.ds : p.w) + image * t * t, t, t, t};
    Matrix b = of_keys ? Matrix{p.qkv + image * t * 3 * c, 3 * c, t, c} : Matrix{p.dy + image * t * c, c, t, c};
    auto load = [&](int stage, int step) {
        a.sidewise<64, MMA_TILE>(memory + stage * STAGE, 64 * step, first);
        b.sidewise<64, MMA_WIDE>(memory + stage * STAGE + MMA_OPERAND, 64 * step, column);
    };
    bool any = first + warp_row() < t;
    float acc[4][8][4] = {};
    Ring ring{p.stages, 0};
    int step = 0, steps = ceil_div(t, 64);
    ring.begin(steps, load);
    do {
        ring.turn(steps, step, load);
        const unsigned char* operands = memory + ring.stage * STAGE;
#pragma unroll
        for (int k = 0; k < 4 && any; k++) {
            uint32_t of_a[4][4], of_b[8][2];
            side_a(of_a, operands, warp_row(), k);
            side_b(of_b, operands + MMA_OPERAND, warp_col<MMA_WIDE>(), k);
            mma_bf16(acc, of_a, of_b);
        }
        ring.next();
    } while (++step < steps);
    bf16* to = p.dqkv + image * t * 3 * c + (of_keys ? c : 2 * c) + column;
    store_sums(to + first * 3 * c, 3 * c, t - first, c - column, acc, of_keys ? p.scale : 1.0f, p.add);
}
