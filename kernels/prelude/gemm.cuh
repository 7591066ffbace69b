// The general float32 matrix product: a block of 256 threads computes a 64 x 64 tile, 4 x 4 results a thread, from
// operands that a loader brings 16 deep at a time. One sum a result, in the order of the depth: the same bits always.
//
// A loader is called with the step and gives 4 neighbouring elements, for the line (row of A, column of B) and depth
// that `Depthwise` or `Linewise` says for this thread; what lies outside is zero:
//   struct Loader { using Along = Depthwise | Linewise; DEVICE float4 operator()(int step) const; };
#pragma once

constexpr int DEPTH = 16;
constexpr int PITCH = TILE + 4;

// Neighbours along the depth: for operands stored [line][depth].
struct Depthwise {
    static DEVICE int line() { return threadIdx.x / 4; }
    static DEVICE int depth() { return threadIdx.x % 4 * 4; }
    static DEVICE void put(float (&tile)[DEPTH][PITCH], float4 v) {
        tile[depth()][line()] = v.x;
        tile[depth() + 1][line()] = v.y;
        tile[depth() + 2][line()] = v.z;
        tile[depth() + 3][line()] = v.w;
    }
};

// Neighbours along the line: for operands stored [depth][line].
struct Linewise {
    static DEVICE int line() { return threadIdx.x % 16 * 4; }
    static DEVICE int depth() { return threadIdx.x / 16; }
    static DEVICE void put(float (&tile)[DEPTH][PITCH], float4 v) {
        *view_as<float4*>(&tile[depth()][line()]) = v;
    }
};

// Row and column in the tile of a thread's first result.
DEVICE int result_row() { return threadIdx.x / 16 * 4; }
DEVICE int result_col() { return threadIdx.x % 16 * 4; }

// acc += A B over `steps` steps of DEPTH, with `fold()` after every GROUP of it: what takes acc's sums so far and clears
// them. `a`, `b`: shared memory, free again when the call returns.
template <int GROUP, class A, class B, class Fold>
DEVICE void gemm_groups(float (&acc)[4][4], float (&a)[DEPTH][PITCH], float (&b)[DEPTH][PITCH], int steps,
                        const A& load_a, const B& load_b, Fold fold) {
    if (steps <= 0) return;
    float4 next_a = load_a(0), next_b = load_b(0);
    for (int step = 0; step < steps; step++) {
        A::Along::put(a, next_a);
        B::Along::put(b, next_b);
        __syncthreads();
        if (step + 1 < steps) {
            next_a = load_a(step + 1);
            next_b = load_b(step + 1);
        }
#pragma unroll
        for (int k = 0; k < DEPTH; k++) {
            float4 x = *view_as<const float4*>(&a[k][result_row()]);
            float4 y = *view_as<const float4*>(&b[k][result_col()]);
            const float xs[4] = {x.x, x.y, x.z, x.w}, ys[4] = {y.x, y.y, y.z, y.w};
#pragma unroll
            for (int i = 0; i < 4; i++)
#pragma unroll
                for (int j = 0; j < 4; j++) acc[i][j] = fmaf(xs[i], ys[j], acc[i][j]);
            if (k % GROUP == GROUP - 1) fold();
        }
        __syncthreads();
    }
}

// acc += A B, a single sum of it all.
template <class A, class B>
DEVICE void gemm(float (&acc)[4][4], float (&a)[DEPTH][PITCH], float (&b)[DEPTH][PITCH], int steps, const A& load_a,
                 const B& load_b) {
    gemm_groups<DEPTH>(acc, a, b, steps, load_a, load_b, [] {});
}

// A matrix in memory as an operand whose lines lie `stride` apart and whose depth is contiguous.
template <class T>
struct RowsOf {
    using Along = Depthwise;
    const T* p;  // line 0 of the tile
    i64 stride;
    int lines, depth;  // that exist from p on
    bool aligned;
    DEVICE float4 operator()(int step) const {
        int k = step * DEPTH + Along::depth(), line = Along::line();
        if (line >= lines || k >= depth) return make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        return load4(p + line * stride + k, depth - k, aligned);
    }
};

// A matrix in memory as an operand whose lines are contiguous and whose depths lie `stride` apart.
template <class T>
struct ColsOf {
    using Along = Linewise;
    const T* p;
    i64 stride;
    int lines, depth;
    bool aligned;
    DEVICE float4 operator()(int step) const {
        int k = step * DEPTH + Along::depth(), line = Along::line();
        if (k >= depth) return make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        return load4(p + k * stride + line, lines - line, aligned);
    }
};
