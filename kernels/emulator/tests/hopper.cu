// A product of matrices on Hopper's instructions, with bugs to plant: `bug` chooses one, 0 is the right kernel. The numbers
// and where each is caught stand in tests/emulator/hopper.rs.
#include "prelude/prelude.cuh"

namespace {

const int LINES = 128, DEPTH = 64, STAGES = 3;  // a tile is LINES x LINES, a step of its sums DEPTH deep
const int OPERAND = LINES * DEPTH * 2, STAGE = 2 * OPERAND, HALF = OPERAND / 2;

struct Tiles {
    unsigned char* stages;
    unsigned char* staging;  // of results: two of [64 lines][64 columns] for each consumer
    u64 *full, *empty;
    u64* old;  // what each consumer adds to has come
    int columns, steps, bug;
};

// Brings both operands' steps of a block's tiles. MN-major: two boxes of 64 lines each.
template <bool SIDE>
DEVICE void produce(const Tiles& t, const TensorMap* a, const TensorMap* b, int tiles) {
    int stage = 0, bug = t.bug;
    u32 parity = 1;  // the first lap waits for nobody
    for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        int row = tile / t.columns * LINES, column = tile % t.columns * LINES;
        for (int step = 0; step < t.steps; step++) {
            if (bug != 88) mbar_wait(&t.empty[stage], parity);
            u64* full = &t.full[stage];
            mbar_arrive_expect(full, bug == 81 ? STAGE / 2 : bug == 82 ? STAGE + 16 : STAGE);
            unsigned char *to_a = t.stages + stage * STAGE, *to_b = to_a + OPERAND;
            if (SIDE) {
                for (int half = 0; half < 2; half++) {
                    tma_load(to_a + half * HALF, a, full, row + 64 * half, step * DEPTH, 0);
                    tma_load(to_b + half * HALF, b, full, column + 64 * half, step * DEPTH, 0);
                }
            } else {
                tma_load(to_a, a, full, step * DEPTH, row, 0);
                tma_load(to_b, b, full, step * DEPTH, column, 0);
            }
            if (++stage == STAGES) stage = 0, parity ^= 1;
        }
    }
}

// The operands of 16 depths: of this consumer's 64 lines, and of all columns.
template <bool SIDE>
DEVICE u64 operand(const unsigned char* p, int q, int bug) {
    if (SIDE) return wgmma_operand(p + q * 2048, bug == 86 ? 4096 : HALF, 1024);
    return wgmma_operand(p + q * 32, 0, bug == 85 ? 512 : 1024);
}

// Writes 64 lines of sums as bf16 where a copy with 128-byte swizzle looks for them, or adds to what one brought there.
template <bool ADD>
DEVICE void stage_sums(unsigned char* staging, const float (&d)[64]) {
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
    for (int i = 0; i < 64; i += 2) {
        int row = 16 * warp + lane / 4 + 8 * (i / 2 % 2), column = i / 4 * 8 + lane % 4 * 2;
        int at = column / 64 * 8192 + row * 128 + ((column % 64 / 8 ^ row % 8) << 4) + column % 8 * 2;
        u32* to = view_as<u32*>(staging + at);
        u32 old = ADD ? *to : 0;
        float low = d[i] + __uint_as_float(old << 16), high = d[i + 1] + __uint_as_float(old & 0xffff0000u);
        *to = (u32)to_bf16(low).bits | (u32)to_bf16(high).bits << 16;
    }
}

template <int ID>
DEVICE void meet(int bug) {
    if (bug == 93) named_barrier<ID, 96>();
    else if (bug == 99 && threadIdx.x < 160) named_barrier<ID, 256>();
    else named_barrier<ID, 128>();
}

// A consumer's 64 lines of a block's tiles.
template <bool SIDE, bool ADD, int ID>
DEVICE void consume(const Tiles& t, const TensorMap* c, int tiles) {
    int stage = 0, bug = t.bug, own = ID - 1, thread = threadIdx.x % 128;
    u32 parity = bug == 80, old_parity = 0;
    unsigned char* staging = t.staging + own * 16384;
    float d[64];
    auto release = [&](int of) {
        if (bug == 97 ? threadIdx.x % 32 < 2 : threadIdx.x % 32 == 0) mbar_arrive(&t.empty[of]);
    };
    for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        int row = tile / t.columns * LINES + own * 64, column = tile % t.columns * LINES;
        if (ADD && thread == 0) {
            if (bug != 107) bulk_wait_read<0>();
            mbar_arrive_expect(&t.old[own], 16384);
            for (int half = 0; half < 2; half++)
                tma_load(staging + half * 8192, c, &t.old[own], column + 64 * half, row, 0, 0);
        }
        for (int step = 0; step < t.steps; step++) {
            if (bug != 95) mbar_wait(&t.full[stage], parity);
            const unsigned char* from = t.stages + stage * STAGE;
            if (bug != 90) wgmma_fence();
            for (int q = 0; q < 4; q++) {
                if (bug == 92 && thread >= 96) break;
                wgmma_bf16<128, SIDE, SIDE>(d, operand<SIDE>(from + own * HALF, q, bug),
                                            operand<SIDE>(from + OPERAND, q, bug), step + q > 0);
            }
            wgmma_commit();
            if (bug == 83) release(stage);
            wgmma_wait<1>();
            if (step > 0 && bug != 83) release((stage + STAGES - 1) % STAGES);
            if (bug == 106 && step > 0 && t.stages[(stage + STAGES - 1) % STAGES * STAGE] == 0xa5) continue;
            if (++stage == STAGES) stage = 0, parity ^= 1;
        }
        if (bug != 89) wgmma_wait<0>();
        if (bug != 83) release((stage + STAGES - 1) % STAGES);
        if (ADD) {
            if (bug != 108) mbar_wait(&t.old[own], old_parity);
            old_parity ^= 1;
        } else {
            if (thread == 0 && bug != 91) bulk_wait_read<0>();
            if (bug != 101) meet<ID>(bug);  // the staging may be written again
        }
        stage_sums<ADD>(staging, d);
        if (bug == 89) wgmma_wait<0>();
        if (bug != 84) fence_async();
        if (bug != 100) meet<ID>(0);
        if (thread == 0) {
            for (int half = 0; half < 2; half++) tma_store(c, staging + half * 8192, column + 64 * half, row, 0, 0);
            if (bug != 102) bulk_commit();
        }
    }
    if (thread == 0) bulk_wait_read<0>();
}

template <bool SIDE, bool ADD>
DEVICE void gemm(const TensorMap* a, const TensorMap* b, const TensorMap* c, int rows, int columns, int steps, int bug) {
    EMM_DYNAMIC_SHARED(unsigned char, memory);
    EMM_SHARED(u64, full, [STAGES]);
    EMM_SHARED(u64, empty, [STAGES]);
    EMM_SHARED(u64, old, [2]);
    unsigned char* aligned = memory + (bug == 96 ? 0 : (1024 - shared_address(memory) % 1024) % 1024);
    Tiles t{aligned, aligned + STAGES * STAGE, full, empty, old, columns, steps, bug};
    if (threadIdx.x == 0) {
        for (int i = 0; i < STAGES; i++) {
            if (bug != 103 || i) mbar_init(&full[i], 1);
            mbar_init(&empty[i], 8);
        }
        for (int i = 0; i < 2; i++) mbar_init(&old[i], 1);
        if (bug != 94) mbar_fence_init();
        if (bug == 104) full[1] = 0;
    }
    if (bug != 105) __syncthreads();
    int tiles = rows * columns;
    if (threadIdx.x < 128) {
        fewer_registers<40>();
        if (threadIdx.x == 0) produce<SIDE>(t, a, b, tiles);
    } else {
        if (bug == 98) more_registers<240>();
        else more_registers<232>();
        if (threadIdx.x < 256) consume<SIDE, ADD, 1>(t, c, tiles);
        else consume<SIDE, ADD, 2>(t, c, tiles);
    }
}

}  // namespace

// c[rows 128][columns 128] = a b, sums over steps 64 depths; a and b in rows of depths.
extern "C" __global__ void __launch_bounds__(384, 1)
    emu_gemm(const __grid_constant__ TensorMap a, const __grid_constant__ TensorMap b, const __grid_constant__ TensorMap c,
             int rows, int columns, int steps, int bug) {
    gemm<false, false>(&a, &b, &c, rows, columns, steps, bug);
}
EMM_KERNEL(emu_gemm)

// The same with a and b in rows of lines.
extern "C" __global__ void __launch_bounds__(384, 1)
    emu_gemm_side(const __grid_constant__ TensorMap a, const __grid_constant__ TensorMap b, const __grid_constant__ TensorMap c,
                  int rows, int columns, int steps, int bug) {
    gemm<true, false>(&a, &b, &c, rows, columns, steps, bug);
}
EMM_KERNEL(emu_gemm_side)

// c += a b: what c holds is copied to where the sums are staged.
extern "C" __global__ void __launch_bounds__(384, 1)
    emu_gemm_add(const __grid_constant__ TensorMap a, const __grid_constant__ TensorMap b, const __grid_constant__ TensorMap c,
                 int rows, int columns, int steps, int bug) {
    gemm<false, true>(&a, &b, &c, rows, columns, steps, bug);
}
EMM_KERNEL(emu_gemm_add)
