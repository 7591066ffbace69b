// wgrad_wgmma: the gradient of a convolution's weight on a Hopper GPU's tensor cores: for one tap, or a shortcut's input,
// 128 output x 256 input channels a block, summed over the pixels of a chain of images.
//
//   wgrad_wgmma   partials[chain, o, k, k, c] (float32) (+)= sum over the chain's pixels of dy * x, as wgrad_mma
//
// Layout     dy[n, h, w, o] and x[n, h, w, c] in bf16, behind maps {channels, w, h, n} in boxes {64, w, rows, images} of
//            at most 64 pixels; of y's size (stride 1). Channels multiples of 8; a chain's images a multiple of the
//            box's. Operands lie [pixel][64 channels], as in memory (MN-major): rows of 128 bytes, 16-byte pieces XORed
//            by row % 8.
// Launch     grid (ceil(o / 128) * (kernel^2 ceil(c / 256) + ceil(c1 / 256) + ceil(c2 / 256)), 1, chains); 384 threads;
//            197,696 B dynamic shared on sm_90.
// Pipeline   a k-step is a box of pixels. One thread of the first warpgroup has the copies write a ring of 4 stages; the
//            other two multiply 64 output channels each, and give a stage back one step late, when its products have
//            ended. The tap shifts x's box; what it takes from outside of an image is zero. The sums go through shared
//            memory to rows of the partial, 16 bytes a store.
// Cost       2 n h w o k k c FLOP; partials as conv2d_wgrad_mma.cu says.
// Exactness  float32 sums in pixel order within a chain, 16 at a time; no atomics.
#include "prelude/prelude.cuh"

#include "params/conv2d.h"

// Memory of a block, from a multiple of 1,024 bytes on.
struct Room {
    static constexpr int STAGES = 4, BLOCK = 64 * 128;  // bytes of 64 pixels' 64 channels
    static constexpr int A = 2 * BLOCK, STAGE = 6 * BLOCK;
    unsigned char* at;

    DEVICE explicit Room(unsigned char* p) : at(p + (-shared_address(p) & 1023)) {}
    DEVICE unsigned char* a(int stage) const { return at + stage * STAGE; }
    DEVICE unsigned char* b(int stage) const { return a(stage) + A; }
    DEVICE u64* full(int stage) const { return view_as<u64*>(at + STAGES * STAGE) + stage; }
    DEVICE u64* empty(int stage) const { return full(STAGES + stage); }
};

using Part = WeightPart<MMA_WIDE>;

// Blocks of 64 channels of `count` from `first` on, of `most`.
DEVICE int blocks_of(int first, int count, int most) { return min(most, ceil_div(count - first, 64)); }

DEVICE void produce(const WgradHopper& p, const Room& room, const Part& part, const Chain& chain) {
    const TensorMap* x = part.input == 0 ? &p.x : part.input == 1 ? &p.s1 : &p.s2;
    int blocks_o = blocks_of(part.out, p.o, 2), blocks_c = blocks_of(part.channel, part.channels, 4);
    u32 bytes = (blocks_o + blocks_c) * 128 * p.rows * p.w * p.images;
    Turn<Room::STAGES> turn;
    for (int image = chain.first; image < chain.first + chain.images; image += p.images) {
        for (int row = 0; row < p.h; row += p.rows) {
            u64* full = room.full(turn.stage);
            mbar_wait(room.empty(turn.stage), turn.round ^ 1);
            mbar_arrive_expect(full, bytes);
            for (int i = 0; i < blocks_o; i++)
                tma_load(room.a(turn.stage) + i * Room::BLOCK, &p.dy, full, part.out + 64 * i, 0, row, image);
            for (int i = 0; i < blocks_c; i++)
                // Mutant, planted::convolutions_on_hopper: `part.right,` reads `0,`.
                tma_load(room.b(turn.stage) + i * Room::BLOCK, x, full, part.channel + 64 * i, part.right,
                         row + part.down, image);
            turn.next();
        }
    }
}

// d = what an earlier micro-batch has left.
template <int N>
DEVICE void resume(float (&d)[N / 2], const Part& part, int outs) {
    int thread = threadIdx.x - 128, lane = thread % 32;
#pragma unroll
    for (int h = 0; h < 2; h++)
#pragma unroll
        for (int j = 0; j < N / 8; j++) {
            int out = part.out + thread / 32 * 16 + lane / 4 + 8 * h, channel = part.channel + 8 * j + 2 * (lane % 4);
            bool exists = out < outs && channel < part.channels;
            float2 two = exists ? *view_as<const float2*>(part.at(out, channel)) : make_float2(0.0f, 0.0f);
            d[4 * j + 2 * h] = two.x;
            d[4 * j + 2 * h + 1] = two.y;
        }
}

// d (=|+=) the products of a k-step.
template <int N>
DEVICE void multiply(float (&d)[N / 2], const Room& room, int stage, bool add) {
    const unsigned char *a = room.a(stage) + (threadIdx.x / 128 - 1) * Room::BLOCK, *b = room.b(stage);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < 4; k++)
        wgmma_bf16<N, true, true>(d, wgmma_operand(a + 2048 * k, Room::BLOCK, 1024),
                                  wgmma_operand(b + 2048 * k, Room::BLOCK, 1024), add || k > 0);
    wgmma_commit();
}

DEVICE void consume(const WgradHopper& p, const Room& room, const Part& part, int steps, bool begun) {
    constexpr int N = MMA_WIDE, PITCH_SUMS = N + 8;
    int thread = threadIdx.x - 128, lane = thread % 32;
    float d[N / 2];
    // Mutant, micro_batches_give_the_same_bits_on_a_hopper_gpu: `if (begun)` reads `if (false)`.
    if (begun) resume<N>(d, part, p.o);
    mbar_wait(room.full(0), 0);
    multiply<N>(d, room, 0, begun);
    wgmma_wait<0>();  // ptxas has products of the loop below end one by one if others than they define its sums
    Turn<Room::STAGES> turn;
    int last = 0;
    turn.next();
    for (int step = 1; step < steps; step++) {
        mbar_wait(room.full(turn.stage), turn.round);
        multiply<N>(d, room, turn.stage, true);
        wgmma_wait<1>();
        // The step before has been read.
        if (lane == 0) mbar_arrive(room.empty(last));
        last = turn.stage;
        turn.next();
    }
    wgmma_wait<0>();
    // Mutant, planted::convolutions_on_hopper: `named_barrier<1, WGMMA_CONSUMERS>();` goes.
    named_barrier<1, WGMMA_CONSUMERS>();  // everyone has read the last stage

    float* sums = view_as<float*>(room.at);
    int first = thread / 32 * 16 + lane / 4;
#pragma unroll
    for (int h = 0; h < 2; h++)
#pragma unroll
        for (int j = 0; j < N / 8; j++)
            *view_as<float2*>(sums + (first + 8 * h) * PITCH_SUMS + 8 * j + 2 * (lane % 4)) =
                make_float2(d[4 * j + 2 * h], d[4 * j + 2 * h + 1]);
    named_barrier<2, WGMMA_CONSUMERS>();
    int col = thread % (N / 4) * 4;
    if (part.channel + col >= part.channels) return;
    for (int row = thread / (N / 4); row < MMA_TILE && part.out + row < p.o; row += WGMMA_CONSUMERS / (N / 4))
        store_packet(part.at(part.out + row, part.channel + col), load_packet(sums + row * PITCH_SUMS + col));
}

extern "C" __global__ void __launch_bounds__(WGMMA_THREADS, 1) wgrad_wgmma(const __grid_constant__ WgradHopper p) {
#if EMM_HOPPER
    EMM_DYNAMIC_SHARED(unsigned char, memory);
    Room room(memory);
    Chain chain(blockIdx.z, p.chain, p.first_image, p.n);
    if (chain.images <= 0) return;
    Part part(p);
    if (threadIdx.x == 0) {
        for (int stage = 0; stage < Room::STAGES; stage++) {
            mbar_init(room.full(stage), 1);
            mbar_init(room.empty(stage), WGMMA_CONSUMERS / 32);
        }
        mbar_fence_init();
    }
    // What no copy writes, channels and pixels that are not there, is zero.
    bool whole = p.rows * p.w * p.images == 64 && p.o % MMA_TILE == 0 && part.channels % MMA_WIDE == 0;
    if (!whole) {
        for (int i = threadIdx.x; i < Room::STAGES * Room::STAGE / 16; i += WGMMA_THREADS)
            *view_as<uint4*>(room.at + 16 * i) = make_uint4(0, 0, 0, 0);
        fence_async();
    }
    __syncthreads();
    if (threadIdx.x < 128) {
        fewer_registers<40>();
        if (threadIdx.x == 0) produce(p, room, part, chain);
    } else {
        more_registers<232>();
        consume(p, room, part, ceil_div(chain.images, p.images) * ceil_div(p.h, p.rows), chain.begun);
    }
#else
    not_hopper();
#endif
}
