// norm_slab: GroupNorm + SiLU + dropout + resampling in one pass: a block keeps `cb` channels of one whole image in
// shared memory, so that forward reads x once and writes y once, and backward reads x and dy once and writes dx once.
//
//   norm_slab_fwd     stats, y and xr as norm_stats and norm_fwd (norm.cu)
//   norm_slab_bwd     sums[2, n, c] as norm_bwd_sums, dx1 and dx2 as norm_bwd; then sum_rows for dgamma, dbeta
//
// Layout     norm.cu's; the _bf16 kernels have x, y, xr and their gradients in bf16. c1, c2, c multiples of 8 (bf16) or
//            4; pointers 16-byte aligned; cb a multiple of c / groups and of 8 (bf16) or 4, divides c, and cb <= 512.
// Launch     grid (c / cb, n), 256 threads. Dynamic shared: h w cb sizeof(T) for forward, twice that for backward, plus
//            8,192 + 40 cb bytes. At 32 x 32 and cb = 16 in bf16: 41 KB and 74 KB; fp32 cb = 8: the same. cb so that
//            it is at most what the GPU gives a block: 101,376 B dynamic shared on sm_86, sm_89, sm_120; 166,912 B
//            dynamic shared on sm_80; 232,448 B dynamic shared on sm_90, sm_100.
// Cost       forward 4 B an element in bf16, backward 6 B (8 B when it adds): memory-bound. Rows of cb channels should
//            be whole 32-byte sectors. Dropout costs a Philox block per 8 elements.
// Exactness  two-pass statistics, fixed order, no atomics, the CPU's masks. bf16 rounds g (and before a resampling the
//            activation) once more than norm.cu does.
#include "prelude/prelude.cuh"

#include "params/norm.h"

// This thread's part of the block's channels: one 16-byte piece, of pixels `row`, `row + rows`, ...
template <class T>
struct Slab {
    static constexpr int N = Packet<T>::count;
    const NormOf<T>& of;
    int cb;

    DEVICE int pieces() const { return cb / N; }
    DEVICE int rows() const { return BLOCK_THREADS / pieces(); }
    DEVICE int piece() const { return threadIdx.x % pieces(); }
    // First pixel of this thread; threads beyond whole rows have none.
    DEVICE int row() const { return (int)threadIdx.x < rows() * pieces() ? threadIdx.x / pieces() : of.h * of.w; }
    DEVICE int channel() const { return blockIdx.x * cb + piece() * N; }
    DEVICE int per() const { return of.c / of.groups; }

    DEVICE void load(T* slab) const {
        int ch = channel();
        for (int p = row(); p < of.h * of.w; p += rows()) {
            i64 pixel = (i64)blockIdx.y * of.h * of.w + p;
            T* to = slab + p * cb + piece() * N;
            if (ch < of.c1)
                cp_async16(to, of.x1 + pixel * of.c1 + ch, 16);
            else if (ch < of.c1 + of.c2)
                cp_async16(to, of.x2 + pixel * of.c2 + ch - of.c1, 16);
            else
                store_packet(to, Packet<T>());
        }
        cp_async_commit();
        cp_async_wait<0>();
    }
    // Multiplies by the dropout factors of pixel p.
    DEVICE void drop(Packet<T>& x, int p) const {
        if (!of.threshold) return;
        u32 e = (u32)p * of.c + channel();
        u32 image = of.first_image + blockIdx.y;
        uint4 counter = make_uint4(e / 8, image, (u32)of.step->step, tag(Stream::Dropout, of.layer));
        uint4 words = philox(counter, of.step->seed);
        float factor = 65536.0f / (float)of.threshold;
#pragma unroll
        for (int j = 0; j < N; j++) x.v[j] *= keeps(words, (int)(e % 8) + j, of.threshold) ? factor : 0.0f;
    }
};

// Sums over the block of each channel: out[cb]. `mine`: this thread's N channels; `scratch`: 256 N + 4 cb floats.
template <class T>
DEVICE void channel_sums(float* out, const float (&mine)[Packet<T>::count], const Slab<T>& s, float* scratch) {
    constexpr int N = Packet<T>::count;
    float* segments = scratch + BLOCK_THREADS * N;
    int rows = s.rows(), cb = s.cb;
    __syncthreads();
    if ((int)threadIdx.x < rows * s.pieces())
        for (int j = 0; j < N; j++) scratch[threadIdx.x * N + j] = mine[j];
    // Mutant, planted::norms_in_one_pass: `__syncthreads();` goes.
    __syncthreads();
    for (int i = threadIdx.x; i < 4 * cb; i += BLOCK_THREADS) {
        float sum = 0.0f;
        for (int r = i / cb; r < rows; r += 4) sum += scratch[r * cb + i % cb];
        segments[i] = sum;
    }
    __syncthreads();
    for (int i = threadIdx.x; i < cb; i += BLOCK_THREADS)
        out[i] = segments[i] + segments[cb + i] + segments[2 * cb + i] + segments[3 * cb + i];
    __syncthreads();
}

// The sum of a group's channels from `first` on.
DEVICE float group_sum(const float* channels, int first, int per) {
    float sum = 0.0f;
    for (int i = first; i < first + per; i++) sum += channels[i];
    return sum;
}

template <class T>
DEVICE void forward(const NormSlabFwd<T>& given) {
    const Slab<T> s{given.of, given.cb};
    constexpr int N = Packet<T>::count;
    EMM_DYNAMIC_SHARED(float4, memory);
    T* slab = view_as<T*>(memory);
    int pixels = s.of.h * s.of.w, per = s.per(), local = s.piece() * N;
    float* scratch = view_as<float*>(slab + pixels * s.cb);
    float* sums = scratch + BLOCK_THREADS * N + 4 * s.cb;
    float count = (float)pixels * per;
    s.load(slab);

    float acc[N] = {}, mean[N], scale[N], shift[N];
    for (int p = s.row(); p < pixels; p += s.rows()) {
        Packet<T> x = load_packet(slab + p * s.cb + local);
        for (int j = 0; j < N; j++) acc[j] += x.v[j];
    }
    channel_sums(sums, acc, s, scratch);
    for (int j = 0; j < N; j++) {
        mean[j] = group_sum(sums, (local + j) / per * per, per) / count;
        acc[j] = 0.0f;
    }
    for (int p = s.row(); p < pixels; p += s.rows()) {
        Packet<T> x = load_packet(slab + p * s.cb + local);
        for (int j = 0; j < N; j++) acc[j] = fmaf(x.v[j] - mean[j], x.v[j] - mean[j], acc[j]);
    }
    channel_sums(sums, acc, s, scratch);
    for (int j = 0; j < N; j++) {
        int ch = s.channel() + j;
        float rstd = 1.0f / sqrtf(group_sum(sums, (local + j) / per * per, per) / count + 1e-6f);
        scale[j] = rstd * s.of.gamma[ch];
        shift[j] = s.of.beta[ch];
        if (ch % per == 0 && s.row() == 0) {
            float* to = given.stats + 2 * ((i64)blockIdx.y * s.of.groups + ch / per);
            to[0] = mean[j];
            to[1] = rstd;
        }
    }

    int ho = out_length(s.of.how, s.of.h), wo = out_length(s.of.how, s.of.w);
    auto resample_to = [&](T* out) {
        for (int p = s.row(); p < ho * wo; p += s.rows()) {
            if ((int)threadIdx.x >= s.rows() * s.pieces()) break;
            Packet<T> sum = {};
            taps(s.of.how, false, p / wo, p % wo, s.of.h, s.of.w, [&](int r, int q, float weight) {
                Packet<T> x = load_packet(slab + (r * s.of.w + q) * s.cb + local);
                for (int j = 0; j < N; j++) sum.v[j] = fmaf(weight, x.v[j], sum.v[j]);
            });
            store_packet(out + ((i64)blockIdx.y * ho * wo + p) * s.of.c + s.channel(), sum);
        }
    };
    if (given.xr) resample_to(given.xr);
    __syncthreads();
    for (int p = s.row(); p < pixels; p += s.rows()) {
        Packet<T> x = load_packet(slab + p * s.cb + local);
        for (int j = 0; j < N; j++) {
            float u = fmaf(x.v[j] - mean[j], scale[j], shift[j]);
            x.v[j] = s.of.silu ? silu(u) : u;
        }
        s.drop(x, p);
        T* to = slab + p * s.cb + local;
        if (s.of.how == SAME) to = given.y + ((i64)blockIdx.y * pixels + p) * s.of.c + s.channel();
        store_packet(to, x);
    }
    if (s.of.how == SAME) return;
    __syncthreads();
    resample_to(given.y);
}

template <class T>
DEVICE void backward(const NormSlabBwd<T>& given) {
    const Slab<T> s{given.of, given.cb};
    constexpr int N = Packet<T>::count;
    EMM_DYNAMIC_SHARED(float4, memory);
    int pixels = s.of.h * s.of.w, per = s.per(), local = s.piece() * N;
    T* slab = view_as<T*>(memory);
    T* gs = slab + pixels * s.cb;
    float* scratch = view_as<float*>(gs + pixels * s.cb);
    float *sum_g = scratch + BLOCK_THREADS * N + 4 * s.cb, *sum_gx = sum_g + s.cb;
    int ho = out_length(s.of.how, s.of.h), wo = out_length(s.of.how, s.of.w);
    s.load(slab);

    // What reaches pixel p from a gradient of the output's size.
    auto reaching = [&](const T* d, int p) {
        d += (i64)blockIdx.y * ho * wo * s.of.c + s.channel();
        if (s.of.how == SAME) return load_packet(d + (i64)p * s.of.c);
        Packet<T> sum = {};
        taps(s.of.how, true, p / s.of.w, p % s.of.w, ho, wo, [&](int r, int q, float weight) {
            Packet<T> x = load_packet(d + ((i64)r * wo + q) * s.of.c);
            for (int j = 0; j < N; j++) sum.v[j] = fmaf(weight, x.v[j], sum.v[j]);
        });
        return sum;
    };
    float mean[N], rstd[N], gamma[N], beta[N], acc_g[N] = {}, acc_gx[N] = {};
    for (int j = 0; j < N; j++) {
        const float* of_group = given.stats + 2 * ((i64)blockIdx.y * s.of.groups + (s.channel() + j) / per);
        mean[j] = of_group[0];
        rstd[j] = of_group[1];
        gamma[j] = s.of.gamma[s.channel() + j];
        beta[j] = s.of.beta[s.channel() + j];
    }
    for (int p = s.row(); p < pixels; p += s.rows()) {
        Packet<T> x = load_packet(slab + p * s.cb + local), g = reaching(given.dy, p);
        s.drop(g, p);
        for (int j = 0; j < N; j++) {
            float xhat = (x.v[j] - mean[j]) * rstd[j];
            if (s.of.silu) g.v[j] *= silu_slope(fmaf(xhat, gamma[j], beta[j]));
            acc_g[j] += g.v[j];
            acc_gx[j] = fmaf(g.v[j], xhat, acc_gx[j]);
        }
        store_packet(gs + p * s.cb + local, g);
    }
    channel_sums(sum_g, acc_g, s, scratch);
    channel_sums(sum_gx, acc_gx, s, scratch);
    for (int i = threadIdx.x; i < s.cb; i += BLOCK_THREADS) {
        i64 at = (i64)blockIdx.y * s.of.c + blockIdx.x * s.cb + i;
        given.sums[at] = sum_gx[i];
        given.sums[(i64)s.of.n * s.of.c + at] = sum_g[i];
    }
    float mean_g[N], mean_gx[N];
    for (int j = 0; j < N; j++) {
        int first = (local + j) / per * per;
        float g = 0.0f, gx = 0.0f;
        for (int i = first; i < first + per; i++) {
            float weight = s.of.gamma[blockIdx.x * s.cb + i];
            g = fmaf(weight, sum_g[i], g);
            gx = fmaf(weight, sum_gx[i], gx);
        }
        mean_g[j] = g / ((float)pixels * per);
        mean_gx[j] = gx / ((float)pixels * per);
    }

    int ch = s.channel(), own = ch < s.of.c1 ? s.of.c1 : s.of.c2;
    T* to = ch < s.of.c1 ? given.dx1 : (ch < s.of.c1 + s.of.c2 ? given.dx2 : nullptr);
    if (!to) return;
    to += (i64)blockIdx.y * pixels * own + (ch < s.of.c1 ? ch : ch - s.of.c1);
    int add = ch < s.of.c1 ? given.add1 : given.add2;
    for (int p = s.row(); p < pixels; p += s.rows()) {
        Packet<T> x = load_packet(slab + p * s.cb + local), g = load_packet(gs + p * s.cb + local), old = {};
        if (add) old = load_packet(to + (i64)p * own);
        Packet<T> through = {};
        if (given.dxr) through = reaching(given.dxr, p);
        for (int j = 0; j < N; j++) {
            float xhat = (x.v[j] - mean[j]) * rstd[j];
            x.v[j] = rstd[j] * (gamma[j] * g.v[j] - mean_g[j] - xhat * mean_gx[j]) + through.v[j] + old.v[j];
        }
        store_packet(to + (i64)p * own, x);
    }
}

extern "C" __global__ void __launch_bounds__(BLOCK_THREADS, 2) norm_slab_fwd(const NormSlabFwd<float> p) {
    forward(p);
}
extern "C" __global__ void __launch_bounds__(BLOCK_THREADS, 2) norm_slab_fwd_bf16(const NormSlabFwd<bf16> p) {
    forward(p);
}

extern "C" __global__ void __launch_bounds__(BLOCK_THREADS, 2) norm_slab_bwd(const NormSlabBwd<float> p) {
    backward(p);
}
extern "C" __global__ void __launch_bounds__(BLOCK_THREADS, 2) norm_slab_bwd_bf16(const NormSlabBwd<bf16> p) {
    backward(p);
}
