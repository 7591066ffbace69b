// Hopper's own instructions (sm_90a): barriers in shared memory that count bytes, tensor copies (TMA), products of a
// warpgroup (wgmma), registers moved between warpgroups. Like prims.cuh, which says how: inline PTX stands nowhere else,
// each primitive has a host body that the emulator runs. Sections are those of the PTX ISA 9.0.
//
// A kernel that uses them has its body in `#if EMM_HOPPER`; for other GPUs it is not_hopper().
#pragma once

// What cuTensorMapEncodeTiled makes: a tensor in global memory and the box of it that a copy moves (5.5, tensors).
struct alignas(64) TensorMap {
    u64 opaque[16];
};
// Says what its elements are to whoever fills it.
template <class T>
using TensorMapOf = TensorMap;

#ifdef __CUDACC__

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define EMM_HOPPER 1
#else
#define EMM_HOPPER 0
#endif

// Nobody launches such a kernel elsewhere; who does is told.
DEVICE void not_hopper() { asm volatile("trap;\n"); }

// ---- barriers in shared memory, 9.7.13.15: a phase ends when as many threads have arrived as were announced, and as many
// bytes have come as they expect. ----

DEVICE void mbar_init(u64* bar, u32 arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;\n" ::"r"(shared_address(bar)), "r"(arrivals) : "memory");
}
// Makes initialized barriers known to the copies; then a __syncthreads makes them known to the block.
DEVICE void mbar_fence_init() { asm volatile("fence.mbarrier_init.release.cluster;\n" ::: "memory"); }
DEVICE void mbar_arrive(u64* bar) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];\n" ::"r"(shared_address(bar)) : "memory");
}
// Arrives, and has the phase wait for `bytes` more; those of a copy's whole box, clipped or not.
DEVICE void mbar_arrive_expect(u64* bar, u32 bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;\n" ::"r"(shared_address(bar)), "r"(bytes)
                 : "memory");
}
// Waits for the end of the phase of that parity: 0 of the first, 1 of the one before it, which has ended.
DEVICE void mbar_wait(u64* bar, u32 parity) {
    asm volatile("{\n"
                 ".reg .pred done;\n"
                 "again:\n"
                 "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
                 "@!done bra again;\n"
                 "}\n" ::"r"(shared_address(bar)),
                 "r"(parity)
                 : "memory");
}

// What this thread wrote to shared memory is seen by copies and products that are issued after a barrier (9.7.13.4).
DEVICE void fence_async() { asm volatile("fence.proxy.async.shared::cta;\n" ::: "memory"); }

// Barrier ID of the block, for `THREADS` of its threads, whole warps.
template <int ID, int THREADS>
DEVICE void named_barrier() {
    asm volatile("bar.sync %0, %1;\n" ::"n"(ID), "n"(THREADS) : "memory");
}

// Registers a thread of this warpgroup from here on: a multiple of 8 in 24..256.
template <int N>
DEVICE void fewer_registers() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;\n" ::"n"(N));
}
template <int N>
DEVICE void more_registers() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;\n" ::"n"(N));
}

// ---- tensor copies, 9.7.9.27: the box of `map` whose first element has these coordinates, the fastest first. ----

// Into shared memory, zeros outside of the tensor; its bytes arrive at `bar`. Coordinates may be negative.
DEVICE void tma_load(void* shared, const TensorMap* map, u64* bar, int c0, int c1, int c2) {
    asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%3, %4, %5}], [%2];\n" ::"r"(shared_address(shared)),
                 "l"(map), "r"(shared_address(bar)), "r"(c0), "r"(c1), "r"(c2)
                 : "memory");
}
DEVICE void tma_load(void* shared, const TensorMap* map, u64* bar, int c0, int c1, int c2, int c3) {
    asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%3, %4, %5, %6}], [%2];\n" ::"r"(shared_address(shared)),
                 "l"(map), "r"(shared_address(bar)), "r"(c0), "r"(c1), "r"(c2), "r"(c3)
                 : "memory");
}
// From shared memory, what lies outside of the tensor not written; part of this thread's open group.
DEVICE void tma_store(const TensorMap* map, const void* shared, int c0, int c1, int c2, int c3) {
    asm volatile("cp.async.bulk.tensor.4d.global.shared::cta.tile.bulk_group [%0, {%2, %3, %4, %5}], [%1];\n" ::"l"(map),
                 "r"(shared_address(shared)), "r"(c0), "r"(c1), "r"(c2), "r"(c3)
                 : "memory");
}
DEVICE void bulk_commit() { asm volatile("cp.async.bulk.commit_group;\n" ::: "memory"); }
// Waits until all but this thread's last N groups have read their shared memory.
template <int N>
DEVICE void bulk_wait_read() {
    asm volatile("cp.async.bulk.wait_group.read %0;\n" ::"n"(N) : "memory");
}

// ---- products of a warpgroup, 9.7.15 ----

// Before the first product, and after accumulators or A's registers were written.
DEVICE void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;\n" ::: "memory"); }
DEVICE void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;\n" ::: "memory"); }
// Until all but the last N groups have ended: only then accumulators may be read, and operands' memory written.
template <int N>
DEVICE void wgmma_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;\n" ::"n"(N) : "memory");
}

// Lists of registers, as asm wants them.
#define EMM_D8(d, i)                                                                                                  \
    "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]),        \
        "+f"(d[i + 7])
#define EMM_D32(d, i) EMM_D8(d, i), EMM_D8(d, i + 8), EMM_D8(d, i + 16), EMM_D8(d, i + 24)
#define EMM_LIST(...) __VA_ARGS__
#define EMM_P32 "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
#define EMM_P64 EMM_P32 ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
#define EMM_P96 EMM_P64 ",%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79,%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95"
#define EMM_P128 EMM_P96 ",%96,%97,%98,%99,%100,%101,%102,%103,%104,%105,%106,%107,%108,%109,%110,%111,%112,%113,%114,%115,%116,%117,%118,%119,%120,%121,%122,%123,%124,%125,%126,%127"

#define EMM_WGMMA(n, outputs, D, a, b, add, side_a, side_b)                                                           \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " add ", 0;\n"                                                     \
                 "wgmma.mma_async.sync.aligned.m64n" #n "k16.f32.bf16.bf16 {" EMM_P##outputs "}, " a ", " b            \
                 ", p, 1, 1, " side_a ", " side_b ";\n}\n"                                                            \
                 : D                                                                                                   \
                 : "l"(a_), "l"(b_), "r"((int)add_), "n"((int)A_SIDE), "n"((int)B_SIDE))

// d (=|+=) A B: 64 lines of A and N of B at 16 depths, bf16. *_SIDE: the operand is MN-major. d[4 j + 2 h + i]: line
// 16 (warp % 4) + lane / 4 + 8 h of A, line 8 j + 2 (lane % 4) + i of B.
template <int N, bool A_SIDE, bool B_SIDE>
DEVICE void wgmma_bf16(float (&d)[N / 2], u64 a_, u64 b_, bool add_) {
    if constexpr (N == 64)
        EMM_WGMMA(64, 32, EMM_LIST(EMM_D32(d, 0)), "%32", "%33", "%34", "%35", "%36");
    else if constexpr (N == 128)
        EMM_WGMMA(128, 64, EMM_LIST(EMM_D32(d, 0), EMM_D32(d, 32)), "%64", "%65", "%66", "%67", "%68");
    else if constexpr (N == 192)
        EMM_WGMMA(192, 96, EMM_LIST(EMM_D32(d, 0), EMM_D32(d, 32), EMM_D32(d, 64)), "%96", "%97", "%98", "%99", "%100");
    else
        EMM_WGMMA(256, 128, EMM_LIST(EMM_D32(d, 0), EMM_D32(d, 32), EMM_D32(d, 64), EMM_D32(d, 96)), "%128", "%129",
                  "%130", "%131", "%132");
}

#else

#define EMM_HOPPER 1

DEVICE void mbar_init(u64* bar, u32 arrivals, emu::Site site = emu::here()) { emu::mbar_init(bar, arrivals, site); }
DEVICE void mbar_fence_init(emu::Site site = emu::here()) { emu::mbar_fence_init(site); }
DEVICE void mbar_arrive(u64* bar, emu::Site site = emu::here()) { emu::mbar_arrive(bar, 0, site); }
DEVICE void mbar_arrive_expect(u64* bar, u32 bytes, emu::Site site = emu::here()) { emu::mbar_arrive(bar, bytes, site); }
DEVICE void mbar_wait(u64* bar, u32 parity, emu::Site site = emu::here()) { emu::mbar_wait(bar, parity, site); }

DEVICE void fence_async(emu::Site site = emu::here()) { emu::fence_async(site); }
template <int ID, int THREADS>
DEVICE void named_barrier(emu::Site site = emu::here()) {
    emu::named_barrier(ID, THREADS, site);
}
template <int N>
DEVICE void fewer_registers(emu::Site site = emu::here()) {
    emu::set_registers(N, false, site);
}
template <int N>
DEVICE void more_registers(emu::Site site = emu::here()) {
    emu::set_registers(N, true, site);
}

DEVICE void tma_load(void* shared, const TensorMap* map, u64* bar, int c0, int c1, int c2, emu::Site site = emu::here()) {
    const int first[3] = {c0, c1, c2};
    emu::tma_load(shared, map, bar, first, 3, site);
}
DEVICE void tma_load(void* shared, const TensorMap* map, u64* bar, int c0, int c1, int c2, int c3,
                     emu::Site site = emu::here()) {
    const int first[4] = {c0, c1, c2, c3};
    emu::tma_load(shared, map, bar, first, 4, site);
}
DEVICE void tma_store(const TensorMap* map, const void* shared, int c0, int c1, int c2, int c3,
                      emu::Site site = emu::here()) {
    const int first[4] = {c0, c1, c2, c3};
    emu::tma_store(map, shared, first, 4, site);
}
DEVICE void bulk_commit(emu::Site site = emu::here()) { emu::bulk_commit(site); }
template <int N>
DEVICE void bulk_wait_read(emu::Site site = emu::here()) {
    emu::bulk_wait_read(N, site);
}

DEVICE void wgmma_fence(emu::Site site = emu::here()) { emu::wgmma_fence(site); }
DEVICE void wgmma_commit(emu::Site site = emu::here()) { emu::wgmma_commit(site); }
template <int N>
DEVICE void wgmma_wait(emu::Site site = emu::here()) {
    emu::wgmma_wait(N, site);
}
template <int N, bool A_SIDE, bool B_SIDE>
DEVICE void wgmma_bf16(float (&d)[N / 2], u64 a, u64 b, bool add, emu::Site site = emu::here()) {
    static_assert(N == 64 || N == 128 || N == 192 || N == 256, "the shapes that the GPU's side has");
    emu::wgmma_bf16(d, a, b, N, add, A_SIDE, B_SIDE, site);
}

#endif

// An operand in shared memory in rows of 128 bytes, 16-byte pieces XORed by row % 8, whose first row begins at a multiple
// of 1,024 bytes: `p` is where the product's part begins. `lead`, `stride`: bytes; K-major (depth along the rows): stride
// between groups of 8 rows, lead ignored; MN-major (lines along the rows): lead between blocks of 64 lines, stride between
// groups of 8 depths.
DEVICE u64 wgmma_operand(const void* p, u32 lead, u32 stride) {
    return (u64)((shared_address(p) & 0x3ffff) >> 4) | (u64)(lead >> 4) << 16 | (u64)(stride >> 4) << 32 | 1ull << 62;
}

// Which stage of a ring is next, and in which round.
template <int STAGES>
struct Turn {
    int stage = 0;
    u32 round = 0;
    DEVICE void next() {
        if (++stage < STAGES) return;
        stage = 0;
        round ^= 1;
    }
};
