// A norm's slab: what of an image a block of norm_slab.cu keeps in shared memory, which part of it is a thread's, and sums
// over it. Included behind params/norm.h.
#pragma once

// What a kernel is compiled for: prelude/resample.cuh's number, whether there is SiLU, and dropout. ANY: as it is told.
constexpr int ANY = -1;
template <int how_, int silu_, int drop_>
struct Choice {
    static constexpr int how = how_, silu = silu_, drop = drop_;
};
using General = Choice<ANY, ANY, ANY>;
using Plain = Choice<SAME, 0, 0>;
using Silu = Choice<SAME, 1, 0>;
using SiluDrop = Choice<SAME, 1, 1>;
using SiluDown = Choice<DOWN, 1, 0>;
using SiluUp = Choice<UP, 1, 0>;

// Packets that a thread loads before it uses the first.
constexpr int IN_FLIGHT = 2;

struct Yes {
    static constexpr bool value = true;
};
struct No {
    static constexpr bool value = false;
};

// This thread's part of the block's channels: one 16-byte piece, of pixels `row`, `row + rows`, ...
template <class T, class C>
struct Slab {
    static constexpr int N = Packet<T>::count;
    const NormOf<T>& of;
    u32 cb, per, pixels;    // channels of the block and of a group, pixels of the image
    u32 pieces, rows, row;  // pieces of a pixel, pixels that the block takes at once; threads beyond those have none
    int local, channel;     // first channel of the piece, in the block and of all
    u64 seed;               // what dropout is drawn by, and what it multiplies by
    u32 step;
    float factor;

    DEVICE Slab(const NormOf<T>& given, int channels) : of(given), cb(channels) {
        per = (u32)of.c / (u32)of.groups;
        pixels = of.h * of.w;
        pieces = cb / N;
        rows = BLOCK_THREADS / pieces;
        row = threadIdx.x / pieces;
        local = (threadIdx.x - row * pieces) * N;
        channel = blockIdx.x * cb + local;
        if (row >= rows) row = pixels;
        seed = step = 0;
        factor = 1.0f;
        if (!drops()) return;
        seed = of.step->seed;
        step = (u32)of.step->step;
        factor = 65536.0f / (float)of.threshold;
    }
    DEVICE int how() const { return C::how == ANY ? of.how : C::how; }
    DEVICE bool silu() const { return (C::silu == ANY ? of.silu : C::silu) != 0; }
    DEVICE bool drops() const { return (C::drop == ANY ? (int)of.threshold : C::drop) != 0; }
    // Where pixel p stands in the slab, and from one pixel of this thread to its next.
    DEVICE u32 at(u32 p) const { return p * cb + local; }
    DEVICE u32 stride() const { return rows * cb; }

    // use(p, load(p), words) for each pixel of this thread, in order; several are loaded before the first is used. With
    // DRAWS, `words` are those that dropout asks for the piece.
    template <bool DRAWS, class Load, class Use>
    DEVICE void each(Load load, Use use) const {
        u32 p = row;
        for (; p + (IN_FLIGHT - 1) * rows < pixels; p += IN_FLIGHT * rows) some<DRAWS, IN_FLIGHT>(p, load, use);
#pragma unroll 1
        for (; p < pixels; p += rows) some<DRAWS, 1>(p, load, use);
    }
    template <bool DRAWS, int n, class Load, class Use>
    DEVICE void some(u32 p, Load& load, Use& use) const {
        decltype(load(p)) loaded[n];
        uint4 words[n] = {};
#pragma unroll
        for (int i = 0; i < n; i++) loaded[i] = load(p + i * rows);
        if (DRAWS && drops()) {
#pragma unroll
            for (int i = 0; i < n; i++)
                words[i] = make_uint4(((p + i * rows) * of.c + channel) / 8, of.first_image + blockIdx.y, step,
                                      tag(Stream::Dropout, of.layer));
            philox(words, seed);
        }
#pragma unroll
        for (int i = 0; i < n; i++) use(p + i * rows, loaded[i], words[i]);
    }
    // Whether dropout keeps element j of the piece at pixel p: eight of bf16 are a whole block, four floats a half of one.
    DEVICE bool keeps(const uint4& words, u32 p, int j) const {
        if (!drops()) return true;
        bool second = N == 4 && (p * of.c + channel) % 8;
        return ::keeps(second ? make_uint4(words.z, words.w, 0, 0) : words, j, of.threshold);
    }
    // use(row, column, index) for this thread's pixels of an image of another size.
    template <class Use>
    DEVICE void each_of(u32 height, u32 width, Use use) const {
        u32 p = threadIdx.x / pieces, down = rows / width, right = rows - down * width, r = p / width, q = p - r * width;
        if (p >= rows) return;
#pragma unroll 1
        for (; p < height * width; p += rows) {
            use(r, q, p);
            r += down, q += right;
            if (q >= width) q -= width, r++;
        }
    }

    // Starts to copy this thread's piece of every pixel; `step`: elements from one pixel to the next.
    DEVICE void copy(T* slab, const T* from, u32 step) const {
        T* to = slab + at(row);
        from += (u64)(row * step);
        auto next = [&](u32) {
            cp_async16(to, from, 16);
            to += stride(), from += rows * step;
            return No();
        };
        each<false>(next, [](u32, No, const uint4&) {});
    }
    DEVICE void load(T* slab) const {
        i64 first = (i64)blockIdx.y * pixels;
        if (channel < of.c1) {
            copy(slab, of.x1 + first * of.c1 + channel, of.c1);
        } else if (channel < of.c1 + of.c2) {
            copy(slab, of.x2 + first * of.c2 + channel - of.c1, of.c2);
        } else {
#pragma unroll 1
            for (u32 p = row; p < pixels; p += rows) store_packet(slab + at(p), Packet<T>());
        }
    }
};

// Shared floats behind the slabs: what each thread adds up, sums of a quarter of the rows, and six numbers a channel.
template <class T>
struct Scratch {
    float *of_threads, *quarters, *of_channels;
    u32 cb;

    DEVICE Scratch(T* behind, u32 channels) : cb(channels) {
        of_threads = view_as<float*>(behind);
        quarters = of_threads + BLOCK_THREADS * Packet<T>::count;
        of_channels = quarters + 4 * cb;
    }
    DEVICE float* numbers(int i) const { return of_channels + i * cb; }
    // The sum of a channel, once add_up has been called.
    DEVICE float sum(u32 ch) const {
        const float* from = quarters + ch;
        return from[0] + from[cb] + from[2 * cb] + from[3 * cb];
    }
    // Sums over the block of each channel, a quarter of the rows each. `mine`: this thread's channels.
    template <class C>
    DEVICE void add_up(const float (&mine)[Packet<T>::count], const Slab<T, C>& s) {
        constexpr u32 N = Packet<T>::count;
        u32 rows = s.rows;
#pragma unroll
        for (u32 j = 0; j < N; j += 4) {
            float4 four = make_float4(mine[j], mine[j + 1], mine[j + 2], mine[j + 3]);
            *view_as<float4*>(of_threads + threadIdx.x * N + j) = four;
        }
        // Mutant, planted::norms_in_one_pass (norm_slab.cu): `__syncthreads();` goes.
        __syncthreads();
        // Thread (row, piece) takes channel row % N of its piece, and quarter row / N.
        if (threadIdx.x < rows * s.pieces) {
#pragma unroll 1
            for (u32 i = threadIdx.x / s.pieces; i < 4 * N; i += rows) {
                u32 ch = s.local + i % N;
                const float* from = of_threads + i / N * cb + ch;
                float sum = 0.0f;
#pragma unroll 4
                for (u32 r = i / N; r < rows; r += 4, from += 4 * cb) sum += *from;
                quarters[i / N * cb + ch] = sum;
            }
        }
        __syncthreads();
    }
};
