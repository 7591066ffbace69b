// Tiles of tensor-core products: a k-step of an operand is 128 bytes of depth (bf16: 64) of its lines (rows of A, columns
// of B) in shared memory, in one of two layouts. A block of 8 warps computes 128 x COLS, a warp 64 x COLS / 4, from a ring
// of MMA_STAGES such steps of A and B: 96 KB at 128 columns, 144 KB at 256. Each fragment that a warp of 64 x 64 reads
// from shared memory is used more often than one of 64 x 32: by a third fewer bytes a FLOP.
//
//   Deepwise   [line][128 bytes of depth], as an operand whose depth is contiguous in memory; any T
//   Sidewise   [depth][lines], as an operand whose lines are contiguous in memory; bf16 transposed as it is read
//
// In both, the 16-byte pieces of a row are XORed so that eight rows read at once meet no bank twice.
#pragma once

// Row and column of the tile at which this thread's warp begins.
DEVICE int warp_row() { return threadIdx.x / 128 * 64; }
template <int COLS = MMA_TILE>
DEVICE int warp_col() {
    return threadIdx.x / 32 % 4 * (COLS / 4);
}
// Row and column, from the warp's, of result acc[i / 2][j / 2][2 * (i % 2) + j % 2], i in 0..8, j in 0..COLS / 16.
DEVICE int fragment_row(int i) { return 16 * (i / 2) + 8 * (i % 2) + threadIdx.x % 32 / 4; }
DEVICE int fragment_col(int j) { return 8 * (j / 2) + 2 * (threadIdx.x % 4) + j % 2; }

struct Deepwise {
    static DEVICE int offset(int line, int part) { return line * 128 + ((part ^ (line & 7)) << 4); }
    // Pieces of a k-step that this thread brings: lines line(0..lines / 32), 16-byte piece `part()` of their depth.
    static DEVICE int part() { return threadIdx.x % 8; }
    static DEVICE int line(int i) { return threadIdx.x / 8 + 32 * i; }
};

template <class T, int LINES = MMA_TILE>
struct Sidewise {
    static constexpr int row = LINES * (int)sizeof(T);  // bytes
    static constexpr int depths = 128 / (int)sizeof(T);  // of a k-step: 64 bf16, 32 float
    static constexpr int parts = row / 16;
    static constexpr int pieces = depths * parts / BLOCK_THREADS;  // that a thread brings
    // bf16: 8 rows of one piece are read at once; float: 4 rows of two neighbouring pieces.
    static DEVICE int offset(int depth, int part) {
        return depth * row + ((part ^ (depth * (int)sizeof(T) / 2 & 7)) << 4);
    }
    static DEVICE int part() { return threadIdx.x % parts; }
    static DEVICE int depth(int i) { return threadIdx.x / parts + BLOCK_THREADS / parts * i; }
    static DEVICE int first_line() { return part() * 16 / (int)sizeof(T); }
};

// A's fragments of 64 lines and B's of 8 N at 32-byte piece `k` (of 4) of a Deepwise operand.
DEVICE void deep_a(uint32_t (&a)[4][4], const unsigned char* operand, int line, int k) {
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < 4; i++)
        ldmatrix_x4(a[i], operand + Deepwise::offset(line + 16 * i + lane % 16, 2 * k + lane / 16));
}
template <int N>
DEVICE void deep_b(uint32_t (&b)[N][2], const unsigned char* operand, int line, int k) {
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int j = 0; j < N; j += 2) {
        uint32_t r[4];
        ldmatrix_x4(r, operand + Deepwise::offset(line + 8 * j + lane / 16 * 8 + lane % 8, 2 * k + lane / 8 % 2));
        b[j][0] = r[0];
        b[j][1] = r[1];
        b[j + 1][0] = r[2];
        b[j + 1][1] = r[3];
    }
}

// The same at depths 16 k .. 16 k + 16 of a Sidewise bf16 operand, B's of 32 N lines.
DEVICE void side_a(uint32_t (&a)[4][4], const unsigned char* operand, int line, int k) {
    int matrix = threadIdx.x % 32 / 8, depth = 16 * k + matrix / 2 * 8 + threadIdx.x % 8;
#pragma unroll
    for (int i = 0; i < 4; i++)
        ldmatrix_x4_trans(a[i], operand + Sidewise<bf16>::offset(depth, (line + 16 * i) / 8 + matrix % 2));
}
template <int N>
DEVICE void side_b(uint32_t (&b)[N][2], const unsigned char* operand, int line, int k) {
    int matrix = threadIdx.x % 32 / 8, depth = 16 * k + matrix % 2 * 8 + threadIdx.x % 8;
#pragma unroll
    for (int j = 0; j < N; j += 2) {
        uint32_t r[4];
        ldmatrix_x4_trans(r, operand + Sidewise<bf16, 32 * N>::offset(depth, (line + 8 * j) / 8 + matrix / 2));
        b[j][0] = r[0];
        b[j][1] = r[1];
        b[j + 1][0] = r[2];
        b[j + 1][1] = r[3];
    }
}

// Bytes of a k-step of both operands.
template <int COLS>
DEVICE constexpr int stage_bytes() {
    return MMA_OPERAND + COLS * 128;
}

// acc += the products of `steps` k-steps of 128 x COLS. load(stage) issues this thread's cp_async16 of the next step;
// multiply(stage) uses what has landed.
template <int COLS = MMA_TILE, class Load, class Multiply>
DEVICE void pipeline(unsigned char* stages, int steps, Load load, Multiply multiply) {
    constexpr int STAGE = stage_bytes<COLS>();
    for (int step = 0; step < MMA_STAGES - 1; step++) {
        if (step < steps) load(stages + step * STAGE, step);
        cp_async_commit();
    }
    unsigned char *filled = stages + (MMA_STAGES - 1) * STAGE, *read = stages;
    for (int step = 0; step < steps; step++) {
        cp_async_wait<MMA_STAGES - 2>();
        // Mutant, planted::convolutions_on_tensor_cores (conv2d_mma.cu): `__syncthreads();` goes.
        __syncthreads();  // everyone's pieces have landed, and everyone has read the stage that is refilled now
        int next = step + MMA_STAGES - 1;
        if (next < steps) load(filled, next);
        cp_async_commit();
        multiply(read);
        filled = read;
        read = read == stages + (MMA_STAGES - 1) * STAGE ? stages : read + STAGE;
    }
}

// A block's sums in shared memory, where rows of 16 bytes are made of them: pieces of four floats, XORed by the eighth of
// a row so that eight neighbours' first pieces meet no bank twice, rows 8 floats longer so that a fragment's don't either.
template <int COLS>
struct Sums {
    static constexpr int pitch = COLS + 8;
    static_assert(MMA_TILE * pitch * 4 <= MMA_STAGES * stage_bytes<COLS>(), "the sums fit where the stages were");
    static DEVICE int offset(int row, int col) { return row * pitch + ((col / 4 ^ (col / 32 & 1)) << 2) + col % 4; }
    // v = sums[row, col ..].
    template <int N>
    static DEVICE void load(float (&v)[N], const float* sums, int row, int col) {
#pragma unroll
        for (int j = 0; j < N; j += 4) {
            Packet<float> four = load_packet(sums + offset(row, col + j));
#pragma unroll
            for (int k = 0; k < 4; k++) v[j + k] = four.v[k];
        }
    }
    template <int N>
    static DEVICE void put(float* sums, const float (&acc)[4][N][4]) {
        __syncthreads();  // everyone has read the last stage
#pragma unroll
        for (int i = 0; i < 8; i++)
#pragma unroll
            for (int j = 0; j < 2 * N; j += 2) {
                float* to = sums + offset(warp_row() + fragment_row(i), warp_col<COLS>() + fragment_col(j));
                *view_as<float2*>(to) = make_float2(acc[i / 2][j / 2][2 * (i % 2)], acc[i / 2][j / 2][2 * (i % 2) + 1]);
            }
        __syncthreads();
    }
};
