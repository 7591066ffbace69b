// Tiles of tensor-core products: a k-step of an operand is 16 KB of shared memory, 128 lines (rows of A, columns of B)
// in one of two layouts, and a ring of 3 such steps of A and B is 96 KB. A block of 8 warps computes 128 x 128, a warp
// 64 x 32.
//
//   Deepwise   [line][128 bytes of depth], as an operand whose depth is contiguous in memory; any T
//   Sidewise   [depth][128 lines], as an operand whose lines are contiguous in memory; bf16 transposed as it is read
//
// In both, the 16-byte pieces of a row are XORed so that eight rows read at once meet no bank twice.
#pragma once

// Row and column of the tile at which this thread's warp begins.
DEVICE int warp_row() { return threadIdx.x / 128 * 64; }
DEVICE int warp_col() { return threadIdx.x / 32 % 4 * 32; }
// Row and column, from the warp's, of result acc[i / 2][j / 2][2 * (i % 2) + j % 2], i and j in 0..8.
DEVICE int fragment_row(int i) { return 16 * (i / 2) + 8 * (i % 2) + threadIdx.x % 32 / 4; }
DEVICE int fragment_col(int j) { return 8 * (j / 2) + 2 * (threadIdx.x % 4) + j % 2; }

struct Deepwise {
    static DEVICE int offset(int line, int part) { return line * 128 + ((part ^ (line & 7)) << 4); }
    // Pieces of a k-step that this thread brings: lines line(0..4), 16-byte piece `part()` of their depth.
    static DEVICE int part() { return threadIdx.x % 8; }
    static DEVICE int line(int i) { return threadIdx.x / 8 + 32 * i; }
};

template <class T>
struct Sidewise {
    static constexpr int row = MMA_TILE * (int)sizeof(T);  // bytes
    static constexpr int depths = MMA_OPERAND / row;        // of a k-step: 64 bf16, 32 float
    static constexpr int parts = row / 16;
    // bf16: 8 rows of one piece are read at once; float: 4 rows of two neighbouring pieces.
    static DEVICE int offset(int depth, int part) {
        return depth * row + ((part ^ (depth * (int)sizeof(T) / 2 & 7)) << 4);
    }
    static DEVICE int part() { return threadIdx.x % parts; }
    static DEVICE int depth(int i) { return threadIdx.x / parts + 256 / parts * i; }
    static DEVICE int first_line() { return part() * 16 / (int)sizeof(T); }
};

// A's fragments of 64 lines and B's of 32 at 32-byte piece `k` (of 4) of a Deepwise operand.
DEVICE void deep_a(uint32_t (&a)[4][4], const unsigned char* operand, int line, int k) {
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < 4; i++)
        ldmatrix_x4(a[i], operand + Deepwise::offset(line + 16 * i + lane % 16, 2 * k + lane / 16));
}
DEVICE void deep_b(uint32_t (&b)[4][2], const unsigned char* operand, int line, int k) {
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int j = 0; j < 4; j += 2) {
        uint32_t r[4];
        ldmatrix_x4(r, operand + Deepwise::offset(line + 8 * j + lane / 16 * 8 + lane % 8, 2 * k + lane / 8 % 2));
        b[j][0] = r[0];
        b[j][1] = r[1];
        b[j + 1][0] = r[2];
        b[j + 1][1] = r[3];
    }
}

// The same at depths 16 k .. 16 k + 16 of a Sidewise bf16 operand.
DEVICE void side_a(uint32_t (&a)[4][4], const unsigned char* operand, int line, int k) {
    int matrix = threadIdx.x % 32 / 8, depth = 16 * k + matrix / 2 * 8 + threadIdx.x % 8;
#pragma unroll
    for (int i = 0; i < 4; i++)
        ldmatrix_x4_trans(a[i], operand + Sidewise<bf16>::offset(depth, (line + 16 * i) / 8 + matrix % 2));
}
DEVICE void side_b(uint32_t (&b)[4][2], const unsigned char* operand, int line, int k) {
    int matrix = threadIdx.x % 32 / 8, depth = 16 * k + matrix % 2 * 8 + threadIdx.x % 8;
#pragma unroll
    for (int j = 0; j < 4; j += 2) {
        uint32_t r[4];
        ldmatrix_x4_trans(r, operand + Sidewise<bf16>::offset(depth, (line + 8 * j) / 8 + matrix / 2));
        b[j][0] = r[0];
        b[j][1] = r[1];
        b[j + 1][0] = r[2];
        b[j + 1][1] = r[3];
    }
}

// acc += the products of `steps` k-steps. load(stage, step) issues this thread's cp_async16 of a step, steps in order;
// multiply(stage) uses what has landed.
template <class Load, class Multiply>
DEVICE void pipeline(unsigned char* stages, int steps, Load load, Multiply multiply) {
    for (int step = 0; step < MMA_STAGES - 1; step++) {
        if (step < steps) load(stages + step * MMA_STAGE, step);
        cp_async_commit();
    }
    for (int step = 0; step < steps; step++) {
        cp_async_wait<MMA_STAGES - 2>();
        // Mutant, planted::convolutions_on_tensor_cores (conv2d_mma.cu): `__syncthreads();` goes.
        __syncthreads();  // everyone's pieces have landed, and everyone has read the stage that is refilled now
        int next = step + MMA_STAGES - 1;
        if (next < steps) load(stages + next % MMA_STAGES * MMA_STAGE, next);
        cp_async_commit();
        multiply(stages + step % MMA_STAGES * MMA_STAGE);
    }
}
