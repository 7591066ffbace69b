// norm_slab: GroupNorm + SiLU + dropout + resampling in one pass: a block keeps `cb` channels of one whole image in
// shared memory, so that forward reads x once and writes y once, and backward reads x and dy once and writes dx once.
//
//   norm_slab_fwd     stats, y and xr as norm_stats and norm_fwd (norm.cu)
//   norm_slab_bwd     sums[2, n, c] as norm_bwd_sums, dx1 and dx2 as norm_bwd; then sum_rows for dgamma, dbeta. And the
//                     sums over pixels of what is at dx1 and dx2 then, where they are wanted: dx1_sums[n, c1], dx2_sums.
//                     dx1 gets residual_scale residual[n, h, w, c1] too, where there is one and neither dropout nor
//                     resampling: the gradient by the residual of the network's block, which would be a pass of its own
//
// The _bf16 kernels have x, y, xr and their gradients in bf16. Those with more in their names are compiled for what they
// name and nothing else, so that a pass asks nothing: _plain neither SiLU nor resampling nor dropout, _silu SiLU alone,
// _silu_drop dropout as well, _silu_down and _silu_up SiLU and that resampling, down of even sides. The others take
// everything.
//
// Layout     norm.cu's. c1, c2, c multiples of 8 (bf16) or 4; pointers 16-byte aligned; cb a multiple of c / groups and of
//            8 (bf16) or 4, divides c, and cb <= 512.
// Launch     grid (c / cb, n), 256 threads. Dynamic shared: h w cb sizeof(T) for forward, twice that for backward, plus
//            8,192 + 40 cb bytes. At 32 x 32 and cb = 16 in bf16: 41 KB and 74 KB; fp32 cb = 8: the same. cb so that
//            it is at most what the GPU gives a block: 101,376 B dynamic shared on sm_86, sm_89, sm_120; 166,912 B
//            dynamic shared on sm_80; 232,448 B dynamic shared on sm_90, sm_100.
// Cost       forward 4 B an element in bf16, backward 6 B (2 B more when it adds, and of a residual): memory-bound.
//            Rows of cb channels should be whole 32-byte sectors. Instructions an element by SASS, all passes together, for
//            which an H100's memory leaves time for 38: forward _plain 11, _silu 16, _silu_drop 25; backward when it adds
//            16, 27, 37, of a residual 3 more (bench/kernel-resources.md). Dropout costs a Philox block per 8 elements.
// Exactness  two-pass statistics, fixed order, no atomics, the CPU's masks. bf16 rounds g (and before a resampling the
//            activation) once more than norm.cu does, and g before it is multiplied by dropout's factor. u is
//            x scale + shift, dx is a g + b x + c: as if x were off by a unit or two in the last place of float32. 2^x
//            and 1 / x of SiLU are approximations of one instruction: prelude/math.cuh has their error.
#include "prelude/prelude.cuh"

#include "params/norm.h"

#include "prelude/slab.cuh"

// Calls use(ch, first) for each channel of the block, a thread each; `first`: the first channel of its group.
template <class T, class C, class Use>
DEVICE void each_channel(const Slab<T, C>& s, Use use) {
#pragma unroll 1
    for (u32 ch = threadIdx.x; ch < s.cb; ch += BLOCK_THREADS) use(ch, ch / s.per * s.per);
}

// The numbers of this thread's channels.
template <int N>
DEVICE void load_numbers(float (&v)[N], const float* from) {
#pragma unroll
    for (int j = 0; j < N; j += 4) {
        float4 four = *view_as<const float4*>(from + j);
        v[j] = four.x, v[j + 1] = four.y, v[j + 2] = four.z, v[j + 3] = four.w;
    }
}

// Writes the statistics of the block's groups, and the scale and shift that make u times the dropout's factor of x.
template <class T, class C>
DEVICE void forward_statistics(const NormSlabFwd<T>& given, const Slab<T, C>& s, const T* slab, Scratch<T>& scratch) {
    constexpr int N = Packet<T>::count;
    float *means = scratch.numbers(0), *scales = scratch.numbers(1), *shifts = scratch.numbers(2);
    float count = (float)s.pixels * s.per;
    float acc[N] = {}, mean[N];
    auto over_x = [&](auto add) {
        const T* from = slab + s.at(s.row);
        auto load = [&](u32) {
            Packet<T> x = load_packet(from);
            from += s.stride();
            return x;
        };
        s.template each<false>(load, [&](u32, const Packet<T>& x, const uint4&) {
#pragma unroll
            for (int j = 0; j < N; j++) add(j, x.v[j]);
        });
    };
    auto of_group = [&](u32 first) {
        float sum = 0.0f;
        for (u32 ch = first; ch < first + s.per; ch++) sum += scratch.sum(ch);
        return sum / count;
    };
    over_x([&](int j, float x) { acc[j] += x; });
    scratch.add_up(acc, s);
    each_channel(s, [&](u32 i, u32 first) { means[i] = of_group(first); });
    __syncthreads();
    load_numbers(mean, means + s.local);
#pragma unroll
    for (int j = 0; j < N; j++) acc[j] = 0.0f;
    over_x([&](int j, float x) { acc[j] = fmaf(x - mean[j], x - mean[j], acc[j]); });
    scratch.add_up(acc, s);
    each_channel(s, [&](u32 i, u32 first) {
        u32 ch = blockIdx.x * s.cb + i;
        float rstd = 1.0f / sqrtf(of_group(first) + 1e-6f), scale = rstd * s.of.gamma[ch];
        scales[i] = scale * s.factor;
        shifts[i] = fmaf(-means[i], scale, s.of.beta[ch]) * s.factor;
        if (i != first) return;
        float* to = given.stats + 2 * (blockIdx.y * s.of.groups + ch / s.per);
        to[0] = means[i];
        to[1] = rstd;
    });
    __syncthreads();
}

template <class C, class T>
DEVICE void forward(const NormSlabFwd<T>& given) {
    const Slab<T, C> s(given.of, given.cb);
    constexpr int N = Packet<T>::count;
    EMM_DYNAMIC_SHARED(float4, memory);
    T* slab = view_as<T*>(memory);
    Scratch<T> scratch(slab + s.pixels * s.cb, s.cb);
    s.load(slab);
    cp_async_commit();
    cp_async_wait<0>();
    forward_statistics(given, s, slab, scratch);

    int ho = out_length(s.how(), s.of.h), wo = out_length(s.how(), s.of.w);
    i64 out_at = (i64)blockIdx.y * ho * wo * s.of.c + s.channel;
    auto resample_to = [&](T* out) {
        s.each_of(ho, wo, [&](int row, int col, u32 p) {
            Packet<T> sum = {};
            taps(s.how(), false, row, col, s.of.h, s.of.w, [&](int r, int q, float weight) {
                Packet<T> x = load_packet(slab + s.at(r * s.of.w + q));
#pragma unroll
                for (int j = 0; j < N; j++) sum.v[j] = fmaf(weight, x.v[j], sum.v[j]);
            });
            store_packet(out + out_at + p * s.of.c, sum);
        });
    };
    if (C::how != SAME && given.xr) {
        resample_to(given.xr);
        __syncthreads();
    }
    float scale[N], shift[N];
    load_numbers(scale, scratch.numbers(1) + s.local);
    load_numbers(shift, scratch.numbers(2) + s.local);
    // silu(u) times the factor is v / (1 + e^-u), with v = u times the factor.
    float to_exponent = -LOG2_E / s.factor;
    auto activate = [&](T* to, u32 step) {
        const T* from = slab + s.at(s.row);
        auto load = [&](u32) {
            Packet<T> x = load_packet(from);
            from += s.stride();
            return x;
        };
        s.template each<true>(load, [&](u32 p, Packet<T>& x, const uint4& words) {
#pragma unroll
            for (int j = 0; j < N; j++) {
                float v = fmaf(x.v[j], scale[j], shift[j]);
                float part = s.silu() ? rcp_approx(1.0f + ex2_approx(to_exponent * v)) : 1.0f;
                x.v[j] = v * (s.keeps(words, p, j) ? part : 0.0f);
            }
            store_packet(to, x);
            to += step;
        });
    };
    if (s.how() == SAME) return activate(given.y + out_at + (u64)s.row * s.of.c, s.rows * s.of.c);
    activate(slab + s.at(s.row), s.stride());
    __syncthreads();
    resample_to(given.y);
}

// Writes the sums of each channel of the block, and makes of them a, b, c of dx = a g + b x + c. `g`, `gx`: this
// thread's sums of g and of g (x - mean), both without the dropout's factor.
template <class T, class C>
DEVICE void backward_sums(const NormSlabBwd<T>& given, const Slab<T, C>& s, Scratch<T>& scratch,
                          const float (&g)[Packet<T>::count], const float (&gx)[Packet<T>::count]) {
    float *sums_g = scratch.numbers(3), *sums_gx = scratch.numbers(4), count = (float)s.pixels * s.per;
    scratch.add_up(g, s);
    each_channel(s, [&](u32 i, u32) { sums_g[i] = s.factor * scratch.sum(i); });
    scratch.add_up(gx, s);
    each_channel(s, [&](u32 i, u32) { sums_gx[i] = s.factor * scratch.sum(i); });
    __syncthreads();
    const float* __restrict__ gamma = s.of.gamma + blockIdx.x * s.cb;
    each_channel(s, [&](u32 i, u32 first) {
        u32 ch = blockIdx.x * s.cb + i;
        const float* of_group = given.stats + 2 * (blockIdx.y * s.of.groups + ch / s.per);
        float mean = of_group[0], rstd = of_group[1], all_g = 0.0f, all_gx = 0.0f;
        for (u32 k = first; k < first + s.per; k++) {
            all_g = fmaf(gamma[k], sums_g[k], all_g);
            all_gx = fmaf(gamma[k], sums_gx[k], all_gx);
        }
        i64 at = (i64)blockIdx.y * s.of.c + ch;
        given.sums[at] = rstd * sums_gx[i];
        given.sums[(i64)s.of.n * s.of.c + at] = sums_g[i];
        float b = -rstd * rstd * rstd * (all_gx / count);
        scratch.numbers(0)[i] = rstd * gamma[i] * s.factor;
        scratch.numbers(1)[i] = b;
        scratch.numbers(2)[i] = fmaf(-mean, b, -rstd * (all_g / count));
    });
    __syncthreads();
}

// What reaches pixel p from `d`, a gradient of the output's size.
template <class T, class C>
DEVICE Packet<T> reaching(const T* __restrict__ d, const Slab<T, C>& s, u32 p) {
    int ho = out_length(s.how(), s.of.h), wo = out_length(s.how(), s.of.w);
    Packet<T> sum = {};
    u32 row = p / s.of.w, col = p - row * s.of.w;
    d += (i64)blockIdx.y * ho * wo * s.of.c + s.channel;
    auto add = [&](int r, int q, float weight) {
        Packet<T> x = load_packet(d + (u32)((r * wo + q) * s.of.c));
#pragma unroll
        for (int j = 0; j < Packet<T>::count; j++) sum.v[j] = fmaf(weight, x.v[j], sum.v[j]);
    };
    // Of even sides, each pixel is a quarter of one.
    if (C::how == DOWN)
        add(row / 2, col / 2, 0.25f);
    else
        taps(s.how(), true, row, col, ho, wo, add);
    return sum;
}

// Puts g into `gs`, of which dy stands there already where nothing is resampled, and sums it up.
template <class T, class C>
DEVICE void sum_gradients(const NormSlabBwd<T>& given, const Slab<T, C>& s, const T* slab, T* gs, Scratch<T>& scratch) {
    constexpr int N = Packet<T>::count;
    struct Two {
        Packet<T> x, g;
    };
    float mean[N], scale[N], beta[N], g_sum[N] = {}, gx_sum[N] = {};
    load_numbers(mean, scratch.numbers(0) + s.local);
    load_numbers(scale, scratch.numbers(1) + s.local);
    load_numbers(beta, scratch.numbers(2) + s.local);
    const T *x_at = slab + s.at(s.row), *g_at = gs + s.at(s.row);
    T* to = gs + s.at(s.row);
    auto load = [&](u32 p) {
        Two v = {load_packet(x_at), s.how() == SAME ? load_packet(g_at) : reaching(given.dy, s, p)};
        x_at += s.stride(), g_at += s.stride();
        return v;
    };
    s.template each<true>(load, [&](u32 p, Two& v, const uint4& words) {
#pragma unroll
        for (int j = 0; j < N; j++) {
            float d = v.x.v[j] - mean[j], slope = 1.0f;
            if (s.silu()) slope = silu_slope(fmaf(d, scale[j], beta[j]));
            v.g.v[j] *= s.keeps(words, p, j) ? slope : 0.0f;
            g_sum[j] += v.g.v[j];
            gx_sum[j] = fmaf(v.g.v[j], d, gx_sum[j]);
        }
        store_packet(to, v.g);
        to += s.stride();
    });
    backward_sums(given, s, scratch, g_sum, gx_sum);
}

// Writes or adds dx; `sums`: of what this thread has written.
template <class T, class C>
DEVICE void write_gradients(const NormSlabBwd<T>& given, const Slab<T, C>& s, const T* slab, const T* gs,
                            const Scratch<T>& scratch, float (&sums)[Packet<T>::count]) {
    constexpr int N = Packet<T>::count;
    constexpr bool HAS_RESIDUAL = C::drop != 1 && (C::how == SAME || C::how == ANY);
    struct Four {
        Packet<T> x, g, old, residual;
    };
    bool of_first = s.channel < s.of.c1;
    int own = of_first ? s.of.c1 : s.of.c2, ch = of_first ? s.channel : s.channel - s.of.c1;
    T* dx = of_first ? given.dx1 : (ch < own ? given.dx2 : nullptr);
    if (!dx) return;
    dx += ((i64)blockIdx.y * s.pixels + s.row) * own + ch;
    float a[N], b[N], c[N];
    load_numbers(a, scratch.numbers(0) + s.local);
    load_numbers(b, scratch.numbers(1) + s.local);
    load_numbers(c, scratch.numbers(2) + s.local);
    const T* residual = HAS_RESIDUAL && of_first && given.residual ? given.residual + (dx - given.dx1) : nullptr;
    auto write = [&](auto adds, auto has_residual) {
        const T *x_at = slab + s.at(s.row), *g_at = gs + s.at(s.row), *old_at = dx, *residual_at = residual;
        T* to = dx;
        auto load = [&](u32) {
            Four v = {load_packet(x_at), load_packet(g_at), {}, {}};
            x_at += s.stride(), g_at += s.stride();
            if (adds.value) v.old = load_packet(old_at), old_at += s.rows * own;
            if (has_residual.value) v.residual = load_packet(residual_at), residual_at += s.rows * own;
            return v;
        };
        s.template each<false>(load, [&](u32 p, Four& v, const uint4&) {
#pragma unroll
            for (int j = 0; j < N; j++) v.x.v[j] = fmaf(a[j], v.g.v[j], fmaf(b[j], v.x.v[j], c[j]));
            if (C::how != SAME && given.dxr) {
                Packet<T> through = reaching(given.dxr, s, p);
#pragma unroll
                for (int j = 0; j < N; j++) v.x.v[j] += through.v[j];
            }
#pragma unroll
            for (int j = 0; j < N && adds.value; j++) v.x.v[j] += v.old.v[j];
#pragma unroll
            for (int j = 0; j < N && has_residual.value; j++)
                // Mutant, residuals::gradients_by_residuals_are_those_of_the_cpu: `given.residual_scale` reads `1.0f`.
                v.x.v[j] = fmaf(given.residual_scale, v.residual.v[j], v.x.v[j]);
#pragma unroll
            for (int j = 0; j < N; j++) sums[j] += v.x.v[j];
            store_packet(to, v.x);
            to += s.rows * own;
        });
    };
    auto add_or_set = [&](auto has_residual) {
        if (of_first ? given.add1 : given.add2)
            write(Yes(), has_residual);
        else
            write(No(), has_residual);
    };
    if constexpr (HAS_RESIDUAL)
        if (residual) return add_or_set(Yes());
    add_or_set(No());
}

template <class C, class T>
DEVICE void backward(const NormSlabBwd<T>& given) {
    const Slab<T, C> s(given.of, given.cb);
    EMM_DYNAMIC_SHARED(float4, memory);
    T* slab = view_as<T*>(memory);
    T* gs = slab + s.pixels * s.cb;
    Scratch<T> scratch(gs + s.pixels * s.cb, s.cb);
    s.load(slab);
    if (s.how() == SAME) s.copy(gs, given.dy + (i64)blockIdx.y * s.pixels * s.of.c + s.channel, s.of.c);
    cp_async_commit();
    each_channel(s, [&](u32 i, u32) {
        u32 ch = blockIdx.x * s.cb + i;
        const float* of_group = given.stats + 2 * (blockIdx.y * s.of.groups + ch / s.per);
        scratch.numbers(0)[i] = of_group[0];
        scratch.numbers(1)[i] = of_group[1] * s.of.gamma[ch];
        scratch.numbers(2)[i] = s.of.beta[ch];
    });
    cp_async_wait<0>();
    __syncthreads();
    sum_gradients(given, s, slab, gs, scratch);
    float written[Packet<T>::count] = {};
    write_gradients(given, s, slab, gs, scratch, written);
    if (!given.dx1_sums && !given.dx2_sums) return;
    scratch.add_up(written, s);
    each_channel(s, [&](u32 i, u32) {
        int ch = blockIdx.x * s.cb + i, second = ch - s.of.c1;
        float* to = second < 0 ? given.dx1_sums : (second < s.of.c2 ? given.dx2_sums : nullptr);
        int row = second < 0 ? given.dx1_sums_row : given.dx2_sums_row;
        if (to) to[(i64)blockIdx.y * row + (second < 0 ? ch : second)] = scratch.sum(i);
    });
}

// Blocks a multiprocessor for which registers are to suffice: a block computes while others load.
#define NORM_SLAB(name, direction, blocks, Parameters, Choice)                                     \
    extern "C" __global__ void __launch_bounds__(BLOCK_THREADS, blocks) name(const Parameters p) { \
        direction<Choice>(p);                                                                      \
    }
NORM_SLAB(norm_slab_fwd, forward, 3, NormSlabFwd<float>, General)
NORM_SLAB(norm_slab_fwd_bf16, forward, 3, NormSlabFwd<bf16>, General)
NORM_SLAB(norm_slab_fwd_plain_bf16, forward, 3, NormSlabFwd<bf16>, Plain)
NORM_SLAB(norm_slab_fwd_silu_bf16, forward, 3, NormSlabFwd<bf16>, Silu)
NORM_SLAB(norm_slab_fwd_silu_drop_bf16, forward, 3, NormSlabFwd<bf16>, SiluDrop)
NORM_SLAB(norm_slab_fwd_silu_down_bf16, forward, 3, NormSlabFwd<bf16>, SiluDown)
NORM_SLAB(norm_slab_fwd_silu_up_bf16, forward, 3, NormSlabFwd<bf16>, SiluUp)

NORM_SLAB(norm_slab_bwd, backward, 2, NormSlabBwd<float>, General)
NORM_SLAB(norm_slab_bwd_bf16, backward, 2, NormSlabBwd<bf16>, General)
NORM_SLAB(norm_slab_bwd_plain_bf16, backward, 2, NormSlabBwd<bf16>, Plain)
NORM_SLAB(norm_slab_bwd_silu_bf16, backward, 2, NormSlabBwd<bf16>, Silu)
NORM_SLAB(norm_slab_bwd_silu_drop_bf16, backward, 2, NormSlabBwd<bf16>, SiluDrop)
NORM_SLAB(norm_slab_bwd_silu_down_bf16, backward, 2, NormSlabBwd<bf16>, SiluDown)
NORM_SLAB(norm_slab_bwd_silu_up_bf16, backward, 2, NormSlabBwd<bf16>, SiluUp)
