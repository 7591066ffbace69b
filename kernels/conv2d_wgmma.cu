// conv2d_wgmma: the convolution on a Hopper GPU's tensor cores: an implicit product of 128 pixels x N output channels a
// tile, fed by tensor copies, by as many blocks as the GPU has multiprocessors.
//
//   conv2d_wgmma_256, _192, _128   y (=|+=) (conv(x) + bias + emb + residual + shortcut) * scale, as conv2d_mma, N named
//
// Layout     x, s1, s2, residual, y [n, h, w, channels], weight [o, kernel^2, c] and sweight [o, srow] in bf16, behind maps:
//            images as {channels, w, h, n} in boxes {64, w, rows, images}, of rows w images <= 128 pixels; weights as
//            {c, kernel^2, o} and {srow, 1, o} in boxes {64, 1, N}. Channels multiples of 8, y of x's size (stride 1).
//            Rows of 128 bytes, 16-byte pieces XORed by row % 8. bias, sbias, emb float32.
// Launch     grid: multiprocessors, or tiles if they are fewer; 384 threads; 222,264 B dynamic shared on sm_90.
// Pipeline   a k-step is 64 channels of one tap: of a source, of 64 channels, of a tap, in this order. One thread of the
//            first warpgroup has the copies write a ring of stages; the other two multiply 64 pixels each, and give a
//            stage back one step late, when its products have ended. A tap shifts a box; what it takes from outside of an
//            image is zero. What is added (residual, or y itself) is copied into the tile of y while the sums are made,
//            and that tile is copied out while the next one's are.
// Cost       2 n h w o (k k c + c1 + c2) FLOP. Floor at 256 -> 256, 3x3, 32x32, N = 512 on an H100: 0.62 TFLOP at 620
//            TFLOP/s = 1.0 ms.
// Exactness  float32 sums in the order of the k-steps, 16 at a time; results do not depend on N or the grid.
#include "prelude/prelude.cuh"

#include "params/conv2d.h"

// Memory of a block, from a multiple of 1,024 bytes on.
template <int N>
struct Room {
    static constexpr int PIXELS = MMA_TILE, STAGES = N == 256 ? 3 : N == 192 ? 4 : 5;
    static constexpr int A = PIXELS * 128, STAGE = A + N * 128, Y = PIXELS * N * 2;
    static constexpr int BIASES = WGMMA_IMAGES * N * 4;
    static constexpr int BYTES = STAGES * STAGE + Y + BIASES + (2 * STAGES + 1) * 8;
    unsigned char* at;

    DEVICE explicit Room(unsigned char* p) : at(p + (-shared_address(p) & 1023)) {}
    DEVICE unsigned char* a(int stage) const { return at + stage * STAGE; }
    DEVICE unsigned char* b(int stage) const { return a(stage) + A; }
    // [N / 64][pixel][64 channels] in bf16.
    DEVICE unsigned char* y() const { return at + STAGES * STAGE; }
    // [image of the tile][N].
    DEVICE float* biases() const { return view_as<float*>(y() + Y); }
    DEVICE u64* full(int stage) const { return view_as<u64*>(y() + Y + BIASES) + stage; }
    DEVICE u64* empty(int stage) const { return full(STAGES + stage); }
    DEVICE u64* added() const { return full(2 * STAGES); }
};

// A tile of y: its first image and row, and its first channel.
struct Tile {
    int image, row, out;
    DEVICE Tile(const Conv2dHopper& p, int index, int n) {
        int pixels = index / p.tiles_o, bands = ceil_div(p.h, p.rows);
        out = index % p.tiles_o * n;
        row = pixels % bands * p.rows;
        image = pixels / bands * p.images;
    }
};

// Has the copies bring every tile's k-steps.
template <int N>
DEVICE void produce(const Conv2dHopper& p, const Room<N>& room) {
    Turn<Room<N>::STAGES> turn;
    u32 bytes = 128 * (p.rows * p.w * p.images + N);
    for (int index = blockIdx.x; index < p.tiles; index += gridDim.x) {
        Tile tile(p, index, N);
        for (int source = 0; source < 3; source++) {
            const TensorMap* x = source == 0 ? &p.x : source == 1 ? &p.s1 : &p.s2;
            const TensorMap* weight = source == 0 ? &p.weight : &p.sweight;
            int channels = source == 0 ? p.c : source == 1 ? p.c1 : p.c2, first = source == 2 ? p.c1 : 0;
            int side = source == 0 ? p.kernel : 1, pad = source == 0 ? p.pad : 0;
            for (int channel = 0; channel < channels; channel += 64) {
                for (int tap = 0; tap < side * side; tap++) {
                    int down = tap / side - pad, right = tap % side - pad;
                    // Mutant, planted::convolutions_on_hopper: `turn.round ^ 1` reads `turn.round`.
                    mbar_wait(room.empty(turn.stage), turn.round ^ 1);
                    mbar_arrive_expect(room.full(turn.stage), bytes);
                    // Mutant, planted::convolutions_on_hopper: `tile.row + down` reads `tile.row - down`.
                    tma_load(room.a(turn.stage), x, room.full(turn.stage), channel, right, tile.row + down, tile.image);
                    tma_load(room.b(turn.stage), weight, room.full(turn.stage), first + channel, tap, tile.out);
                    turn.next();
                }
            }
        }
    }
}

// Writes what is added to each channel of each image of the tile.
template <int N>
DEVICE void add_biases(const Conv2dHopper& p, const Tile& tile, float* biases, int thread) {
    for (int i = thread; i < p.images * N; i += WGMMA_CONSUMERS) {
        int out = tile.out + i % N, image = tile.image + i / N;
        float sum = 0.0f;
        if (out < p.o && image < p.n) {
            if (p.bias) sum += __ldg(p.bias + out);
            if (p.sbias) sum += __ldg(p.sbias + out);
            if (p.emb) sum += __ldg(p.emb + (i64)image * p.emb_row + out);
        }
        biases[i] = sum;
    }
}

// The sums, and what lies in the tile of y where something is added, become that tile, of so many channels.
template <int N>
DEVICE void finish(const Conv2dHopper& p, const Room<N>& room, const float (&d)[N / 2], int channels, int thread) {
    int lane = thread % 32, first = thread / 32 * 16 + lane / 4, image_pixels = p.w * p.rows;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        int row = first + 8 * h;
        if (row >= image_pixels * p.images) continue;
        const float* biases = room.biases() + row / image_pixels * N + 2 * (lane % 4);
        unsigned char* y = room.y() + row * 128 + 4 * (lane % 4);
#pragma unroll
        for (int j = 0; j < N / 8; j++) {
            if (j / 8 * 64 >= channels) break;  // in copies of 64
            u32* to = view_as<u32*>(y + j / 8 * Room<N>::PIXELS * 128 + ((j % 8 ^ lane / 4) << 4));
            float2 bias = *view_as<const float2*>(biases + 8 * j);
            float lo = d[4 * j + 2 * h] + bias.x, hi = d[4 * j + 2 * h + 1] + bias.y;
            if (p.added == ADDED_BEFORE_SCALE) {
                u32 pair = *to;
                lo += bf16_low(pair);
                hi += bf16_high(pair);
            }
            lo *= p.scale;
            hi *= p.scale;
            if (p.added == ADDED_AFTER_SCALE) {
                u32 pair = *to;
                lo += bf16_low(pair);
                hi += bf16_high(pair);
            }
            *to = cvt_bf16x2(lo, hi);
        }
    }
}

// Multiplies what the copies bring, 64 pixels of a tile a warpgroup.
template <int N>
DEVICE void consume(const Conv2dHopper& p, const Room<N>& room) {
    int thread = threadIdx.x - 128, half = thread / 128 * 64 * 128;
    bool leads = thread == 0;
    int steps = p.kernel * p.kernel * ceil_div(p.c, 64) + ceil_div(p.c1, 64) + ceil_div(p.c2, 64);
    int columns = 64 * Room<N>::PIXELS * 2;
    Turn<Room<N>::STAGES> turn;
    Turn<1> tiles;
    for (int index = blockIdx.x; index < p.tiles; index += gridDim.x) {
        Tile tile(p, index, N);
        int channels = min(N, p.o - tile.out);
        if (leads) {
            bulk_wait_read<0>();  // the tile of y is free
            if (p.added) {
                mbar_arrive_expect(room.added(), ceil_div(channels, 64) * 128 * p.rows * p.w * p.images);
                for (int part = 0; part < channels; part += 64)
                    tma_load(room.y() + part / 64 * columns, &p.add, room.added(), tile.out + part, 0, tile.row,
                             tile.image);
            }
        }
        float d[N / 2];
        int last = 0;
        for (int step = 0; step < steps; step++) {
            mbar_wait(room.full(turn.stage), turn.round);
            const unsigned char *a = room.a(turn.stage) + half, *b = room.b(turn.stage);
            wgmma_fence();
#pragma unroll
            for (int k = 0; k < 4; k++)
                wgmma_bf16<N, false, false>(d, wgmma_operand(a + 32 * k, 16, 1024), wgmma_operand(b + 32 * k, 16, 1024),
                                            step > 0 || k > 0);
            wgmma_commit();
            // Mutant, planted::convolutions_on_hopper: `wgmma_wait<1>();` goes.
            wgmma_wait<1>();
            // The step before has been read.
            // Mutant, planted::convolutions_on_hopper: `room.empty(last)` reads `room.empty(turn.stage)`.
            if (step > 0 && thread % 32 == 0) mbar_arrive(room.empty(last));
            last = turn.stage;
            turn.next();
        }
        add_biases<N>(p, tile, room.biases(), thread);  // while the last products are made
        wgmma_wait<0>();
        if (thread % 32 == 0) mbar_arrive(room.empty(last));

        if (p.added) mbar_wait(room.added(), tiles.round);
        tiles.next();
        named_barrier<1, WGMMA_CONSUMERS>();  // the biases are there, and the tile of y is free
        finish<N>(p, room, d, channels, thread);
        fence_async();
        // Mutant, planted::convolutions_on_hopper: `named_barrier<2, WGMMA_CONSUMERS>();` goes.
        named_barrier<2, WGMMA_CONSUMERS>();
        if (leads) {
            for (int part = 0; part < channels; part += 64)
                tma_store(&p.y, room.y() + part / 64 * columns, tile.out + part, 0, tile.row, tile.image);
            bulk_commit();
        }
    }
    if (leads) bulk_wait_read<0>();
}

template <int N>
DEVICE void convolve(const Conv2dHopper& p) {
#if EMM_HOPPER
    EMM_DYNAMIC_SHARED(unsigned char, memory);
    Room<N> room(memory);
    if (threadIdx.x == 0) {
        for (int stage = 0; stage < Room<N>::STAGES; stage++) {
            mbar_init(room.full(stage), 1);
            mbar_init(room.empty(stage), WGMMA_CONSUMERS / 32);
        }
        mbar_init(room.added(), 1);
        mbar_fence_init();
    }
    // Rows of A that no copy writes are multiplied, too, though nobody reads their products.
    int filled = 128 * p.rows * p.w * p.images;
    for (int stage = 0; stage < Room<N>::STAGES; stage++)
        for (int i = filled + 16 * threadIdx.x; i < Room<N>::A; i += 16 * WGMMA_THREADS)
            *view_as<uint4*>(room.a(stage) + i) = make_uint4(0, 0, 0, 0);
    if (filled < Room<N>::A) fence_async();
    __syncthreads();
    if (threadIdx.x < 128) {
        fewer_registers<40>();
        if (threadIdx.x == 0) produce<N>(p, room);
    } else {
        more_registers<232>();
        consume<N>(p, room);
    }
#else
    not_hopper();
#endif
}

extern "C" __global__ void __launch_bounds__(WGMMA_THREADS, 1) conv2d_wgmma_256(const __grid_constant__ Conv2dHopper p) {
    convolve<256>(p);
}
extern "C" __global__ void __launch_bounds__(WGMMA_THREADS, 1) conv2d_wgmma_192(const __grid_constant__ Conv2dHopper p) {
    convolve<192>(p);
}
extern "C" __global__ void __launch_bounds__(WGMMA_THREADS, 1) conv2d_wgmma_128(const __grid_constant__ Conv2dHopper p) {
    convolve<128>(p);
}
