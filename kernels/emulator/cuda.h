// What nvcc has built in, for a .cu file compiled as C++ (g++ -x c++ -include cuda.h): qualifiers, vector types,
// threadIdx and its kin, barriers, warp collectives, atomics, intrinsics. Instructions that need PTX on the device
// stand in prims_host.h.
//
// Exactness: the approximate intrinsics (__expf, rsqrtf, ...) are the exact functions here, so a kernel's result on the
// emulator is at least as close to the truth as the GPU's.
#pragma once
#include "hopper_host.h"
#include "prims_host.h"
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(n) __attribute__((aligned(n)))

// ---- vector types ----------------------------------------------------------------------------------------------

struct uint3 { unsigned x, y, z; };
struct alignas(4) uchar4 { unsigned char x, y, z, w; };
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(8) int2 { int x, y; };
struct alignas(16) int4 { int x, y, z, w; };
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
inline uchar4 make_uchar4(unsigned char x, unsigned char y, unsigned char z, unsigned char w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline int2 make_int2(int x, int y) { return {x, y}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

// ---- the running thread ----------------------------------------------------------------------------------------

namespace emu {

// The head of a fiber, which is one CUDA thread.
struct Thread {
    void* stack;
    uint3 index;
    unsigned linear;
    unsigned short lane, warp;
};

// Launches run one at a time and one thread of a launch at a time, so plain globals say who runs.
extern Thread* current;
extern uint3 block_index, block_dim, grid_dim;

// ---- barriers, collectives, atomics (machine.cpp) ----

void sync_threads(Site site);
int sync_threads_count(int predicate, Site site);
void sync_warp(unsigned mask, Site site);
// out = the `in` of lane `source`; a source outside the warp or with no value leaves the lane's own.
void shuffle(unsigned mask, const void* in, void* out, int bytes, int source, Site site);
enum class Reduce { Or, Add, Min, Max, SignedMin, SignedMax, And, Xor };
unsigned reduce(Reduce op, unsigned mask, unsigned value, Site site);
// An access that the compiler's instrumentation does not see, told to the checker.
void note_access(const void* p, size_t bytes, bool write, bool atomic, Site site);
void thread_fence();
long long cycles();
[[noreturn]] void misaligned(const void* p, size_t align, Site site);
// A GPU stops a kernel that loads or stores a T at an address that is not a multiple of T's size.
template <class T>
inline T* aligned(T* p, Site site) {
    if (__builtin_expect(reinterpret_cast<uintptr_t>(p) % alignof(T), 0)) misaligned(p, alignof(T), site);
    return p;
}

template <class T>
inline T shuffle(unsigned mask, T value, int source, Site site) {
    static_assert(sizeof(T) <= 16, "a shuffle moves at most 16 bytes here");
    T out = value;
    shuffle(mask, &value, &out, sizeof(T), source, site);
    return out;
}

// The source lane of a shuffle within segments of `width` lanes, or -1 for the lane's own value.
inline int lane_up(int delta, int width) {
    int lane = current->lane, source = lane - delta;
    return source < (lane & ~(width - 1)) ? -1 : source;
}
inline int lane_down(int delta, int width) {
    int lane = current->lane, source = lane + delta;
    return source > (lane | (width - 1)) ? -1 : source;
}
inline int lane_xor(int mask, int width) {
    int lane = current->lane, source = lane ^ mask;
    return source > (lane | (width - 1)) ? -1 : source;
}
inline int lane_at(int index, int width) { return (current->lane & ~(width - 1)) | (index & (width - 1)); }

// Kernels of one launch share one OS thread, so a plain read, change, write is atomic. Integers only: a sum of floats
// in arrival order would make results depend on scheduling.
template <class T, class F>
__attribute__((no_sanitize("thread"))) inline T atomic(T* p, F change, Site site) {
    static_assert(std::is_integral<T>::value, "atomics on integers only: floats are summed in a fixed order");
    note_access(p, sizeof(T), true, true, site);
    T old = *p;
    *p = change(old);
    return old;
}

// ---- shared memory ----

unsigned char* dynamic_shared();
// Storage for a static shared array: the same for every thread of a block, fresh (and poisoned) for every block.
struct SharedSlot {
    uint64_t block;
    unsigned offset;
};
void* static_shared(SharedSlot* slot, size_t bytes, size_t align);
template <class T, class Tag>
inline T& static_shared() {
    static SharedSlot slot;
    return *static_cast<T*>(static_shared(&slot, sizeof(T), alignof(T) < 16 ? 16 : alignof(T)));
}

// ---- kernels by name ----

struct Param {
    unsigned bytes, align;
};

// A pointer among a kernel's arguments, or in a struct that it takes.
struct Pointer {
    const char* field;  // its path in the struct; null for an argument
    unsigned argument, offset;
    unsigned aligned_to;  // what it has to be a multiple of
    bool read_only;       // to const
};
template <class A>
void add_pointer(std::vector<Pointer>& list, unsigned argument) {
    using To = std::remove_pointer_t<A>;
    using Sized = std::conditional_t<std::is_void<To>::value, char, To>;
    if (std::is_pointer<A>::value) list.push_back({nullptr, argument, 0, alignof(Sized), std::is_const<To>::value});
}

// One kernel as the driver sees it. The host's build makes those of kernels/params, with the pointers of what they
// take, and EMM_KERNEL one that takes numbers and pointers.
struct Kernel {
    const char* name;
    void (*run)(void** args);
    const std::vector<Param> params;
    std::vector<Pointer> pointers;
    Kernel* next;
    unsigned static_shared_bytes = 0;  // known after the first launch

    static Kernel* first;
    template <class P>
    Kernel(const char* name, void (*run)(void**), void (*)(P), std::vector<Pointer> pointers)
        : name(name), run(run), params{{sizeof(P), alignof(P)}}, pointers(std::move(pointers)), next(first) {
        first = this;
    }
    template <class... A>
    Kernel(const char* name, void (*run)(void**), void (*)(A...))
        : name(name), run(run), params{{sizeof(A), alignof(A)}...}, next(first) {
        unsigned argument = 0;
        (add_pointer<A>(pointers, argument++), ...);
        first = this;
    }
};

// Unpacks cuLaunchKernel's array of pointers to values by the kernel's own signature.
template <class... A, size_t... I>
inline void call(void (*kernel)(A...), void** args, std::index_sequence<I...>) {
    kernel(*static_cast<std::remove_reference_t<A>*>(args[I])...);
}
template <class... A>
inline void call(void (*kernel)(A...), void** args) {
    call(kernel, args, std::index_sequence_for<A...>{});
}
template <auto kernel>
void run_kernel(void** args) {
    call(kernel, args);
}

}  // namespace emu

// After a kernel's definition; the name must be unique in the program. Nothing under nvcc.
#define EMM_KERNEL(name) static emu::Kernel emu_kernel_##name{#name, &emu::run_kernel<&name>, &name};
// EMM_SHARED(float, tile, [16][33]);  under nvcc  __shared__ float tile[16][33]
#define EMM_SHARED(T, name, ...) \
    struct name##_shared {};     \
    auto& name = emu::static_shared<T __VA_ARGS__, name##_shared>()
// EMM_DYNAMIC_SHARED(unsigned char, bytes);  under nvcc  extern __shared__ unsigned char bytes[]
#define EMM_DYNAMIC_SHARED(T, name) T* name = reinterpret_cast<T*>(emu::dynamic_shared())

#define threadIdx (emu::current->index)
#define blockIdx (emu::block_index)
#define blockDim (emu::block_dim)
#define gridDim (emu::grid_dim)
#define warpSize 32

#define __syncthreads() emu::sync_threads(EMU_SITE)
#define __syncthreads_count(p) emu::sync_threads_count(!!(p), EMU_SITE)
#define __syncthreads_or(p) (emu::sync_threads_count(!!(p), EMU_SITE) != 0)
#define __syncwarp(...) emu::sync_warp(EMU_FIRST(__VA_ARGS__ __VA_OPT__(, ) 0xffffffffu, ), EMU_SITE)
#define EMU_FIRST(a, ...) a
#define EMU_WIDTH(...) EMU_FIRST(__VA_ARGS__ __VA_OPT__(, ) 32, )
#define __shfl_sync(m, v, lane, ...) emu::shuffle(m, v, emu::lane_at(lane, EMU_WIDTH(__VA_ARGS__)), EMU_SITE)
#define __shfl_xor_sync(m, v, x, ...) emu::shuffle(m, v, emu::lane_xor(x, EMU_WIDTH(__VA_ARGS__)), EMU_SITE)
#define __shfl_down_sync(m, v, d, ...) emu::shuffle(m, v, emu::lane_down(d, EMU_WIDTH(__VA_ARGS__)), EMU_SITE)
#define __shfl_up_sync(m, v, d, ...) emu::shuffle(m, v, emu::lane_up(d, EMU_WIDTH(__VA_ARGS__)), EMU_SITE)
#define __ballot_sync(m, p) emu::reduce(emu::Reduce::Or, m, (p) ? 1u << emu::current->lane : 0u, EMU_SITE)
#define __any_sync(m, p) (__ballot_sync(m, p) != 0)
#define __all_sync(m, p) (__ballot_sync(m, p) == (m))
#define __reduce_add_sync(m, v) emu_reduce(emu::Reduce::Add, emu::Reduce::Add, m, v, EMU_SITE)
#define __reduce_min_sync(m, v) emu_reduce(emu::Reduce::Min, emu::Reduce::SignedMin, m, v, EMU_SITE)
#define __reduce_max_sync(m, v) emu_reduce(emu::Reduce::Max, emu::Reduce::SignedMax, m, v, EMU_SITE)
#define __reduce_or_sync(m, v) emu::reduce(emu::Reduce::Or, m, v, EMU_SITE)
#define __reduce_and_sync(m, v) emu::reduce(emu::Reduce::And, m, v, EMU_SITE)
#define __reduce_xor_sync(m, v) emu::reduce(emu::Reduce::Xor, m, v, EMU_SITE)
template <class T>
inline T emu_reduce(emu::Reduce of_unsigned, emu::Reduce of_signed, unsigned mask, T value, emu::Site site) {
    static_assert(sizeof(T) == 4 && std::is_integral<T>::value, "__reduce_*_sync takes 32-bit integers");
    return T(emu::reduce(std::is_signed<T>::value ? of_signed : of_unsigned, mask, unsigned(value), site));
}

#define atomicAdd(p, v) emu::atomic(p, [&](auto old) { return decltype(old)(old + (v)); }, EMU_SITE)
#define atomicOr(p, v) emu::atomic(p, [&](auto old) { return decltype(old)(old | (v)); }, EMU_SITE)
#define atomicMin(p, v) emu::atomic(p, [&](auto old) { return old < (v) ? old : decltype(old)(v); }, EMU_SITE)
#define atomicMax(p, v) emu::atomic(p, [&](auto old) { return old > (v) ? old : decltype(old)(v); }, EMU_SITE)
#define atomicExch(p, v) emu::atomic(p, [&](auto old) { return decltype(old)(v); }, EMU_SITE)
#define atomicCAS(p, c, v) emu::atomic(p, [&](auto old) { return old == (c) ? decltype(old)(v) : old; }, EMU_SITE)
inline void __threadfence() { emu::thread_fence(); }
inline void __threadfence_block() {}
inline long long clock64() { return emu::cycles(); }
#define clock() emu::cycles()

// ---- loads, conversions, arithmetic ----------------------------------------------------------------------------

template <class T> inline T __ldg(const T* p) { return *p; }
template <class T> inline T __ldcs(const T* p) { return *p; }
template <class T> inline T __ldcg(const T* p) { return *p; }
template <class T> inline void __stcs(T* p, T v) { *p = v; }
template <class T> inline void __stcg(T* p, T v) { *p = v; }

inline unsigned __float_as_uint(float x) { unsigned u; memcpy(&u, &x, 4); return u; }
inline int __float_as_int(float x) { int i; memcpy(&i, &x, 4); return i; }
inline float __uint_as_float(unsigned u) { float x; memcpy(&x, &u, 4); return x; }
inline float __int_as_float(int i) { float x; memcpy(&x, &i, 4); return x; }
inline int __float2int_rn(float x) { return int(nearbyintf(x)); }
inline int __float2int_rz(float x) { return int(x); }
inline int __float2int_rd(float x) { return int(floorf(x)); }
inline unsigned __float2uint_rn(float x) { return unsigned(nearbyintf(x)); }
inline float __int2float_rn(int x) { return float(x); }
inline float __uint2float_rn(unsigned x) { return float(x); }
inline float __double2float_rn(double x) { return float(x); }

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return x ? __builtin_clz(unsigned(x)) : 32; }
inline unsigned __brev(unsigned x) {
    unsigned y = 0;
    for (int i = 0; i < 32; i++) y |= (x >> i & 1) << (31 - i);
    return y;
}
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned(uint64_t(a) * b >> 32); }
inline int __mulhi(int a, int b) { return int(int64_t(a) * b >> 32); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned long long)((unsigned __int128)a * b >> 64);
}
inline unsigned __byte_perm(unsigned low, unsigned high, unsigned selector) {
    uint64_t bytes = uint64_t(high) << 32 | low;
    unsigned out = 0;
    for (int i = 0; i < 4; i++) {
        unsigned s = selector >> (4 * i) & 15, byte = unsigned(bytes >> (8 * (s & 7))) & 255;
        out |= (s & 8 ? (byte & 128 ? 255u : 0u) : byte) << (8 * i);
    }
    return out;
}
inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned n) {
    return unsigned((uint64_t(high) << 32 | low) << (n & 31) >> 32);
}
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned n) {
    return unsigned((uint64_t(high) << 32 | low) >> (n & 31));
}
inline unsigned __dp4a(unsigned a, unsigned b, unsigned c) {
    for (int i = 0; i < 32; i += 8) c += (a >> i & 255) * (b >> i & 255);
    return c;
}
inline int __dp4a(int a, int b, int c) {
    for (int i = 0; i < 32; i += 8) c += int(int8_t(a >> i)) * int(int8_t(b >> i));
    return c;
}

inline float __fmaf_rn(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __frcp_rn(float a) { return 1.0f / a; }
inline float __fsqrt_rn(float a) { return sqrtf(a); }
inline float __frsqrt_rn(float a) { return float(1.0 / sqrt(double(a))); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __saturatef(float a) { return a > 0 ? (a < 1 ? a : 1.0f) : 0.0f; }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __fma_rn(double a, double b, double c) { return __builtin_fma(a, b, c); }
inline float rsqrtf(float a) { return float(1.0 / sqrt(double(a))); }
inline float sinpif(float x) { return float(sin(M_PI * remainder(double(x), 2.0))); }
inline float cospif(float x) { return float(cos(M_PI * remainder(double(x), 2.0))); }
inline void sincospif(float x, float* s, float* c) { *s = sinpif(x); *c = cospif(x); }
// glibc declares functions of these names, so macros they must be.
#define __expf(x) expf(x)
#define __exp2f(x) exp2f(x)
#define __exp10f(x) powf(10.0f, x)
#define __logf(x) logf(x)
#define __log2f(x) log2f(x)
#define __sinf(x) sinf(x)
#define __cosf(x) cosf(x)
#define __powf(x, y) powf(x, y)
#define __sincosf(x, s, c) sincosf(x, s, c)
using std::max;
using std::min;
