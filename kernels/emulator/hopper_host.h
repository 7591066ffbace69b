// What the host bodies of prelude/hopper.cuh call: barriers in shared memory that count bytes, tensor copies, products of
// a warpgroup and what orders them, as functions of one thread. The rules are those of the PTX ISA; what it leaves
// undefined is an error here, which names the block, the thread and the place.
#pragma once
#include "site.h"
#include <cstddef>
#include <cstdint>

namespace emu {

// ---- mbarrier (mbarrier.cpp) ----

// The 8 bytes hold a mark, the barrier's state is kept beside: writing over them is found by the next use.
void mbar_init(unsigned long long* bar, unsigned arrivals, Site site = here());
void mbar_fence_init(Site site = here());
// Arrives, and has the phase wait for `bytes` more.
void mbar_arrive(unsigned long long* bar, unsigned bytes, Site site = here());
// Others run until the phase of that parity has ended; a deadlock if nobody can.
void mbar_wait(unsigned long long* bar, unsigned parity, Site site = here());

// ---- the block's other means (warpgroup.cpp) ----

// fence.proxy.async: the check build asks it between a write and its read by a copy or a product.
void fence_async(Site site = here());
// bar.sync id, threads: of whole warps, 1 to 15; barrier 0 is __syncthreads.
void named_barrier(int id, int threads, Site site = here());
// setmaxnreg.dec, .inc: .inc waits until the block has so many registers to give.
void set_registers(int registers, bool more, Site site = here());

// ---- tensor copies (tensor_copy.cpp) ----

// Late mode lands a copy only when no thread can run, early mode at issue. Until then the memory is poisoned.
void tma_load(void* shared, const void* map, unsigned long long* bar, const int* first, int rank, Site site = here());
// Late mode reads the shared memory when its group is waited for, or at the block's end, and writes at the block's end.
void tma_store(const void* map, const void* shared, const int* first, int rank, Site site = here());
void bulk_commit(Site site = here());
void bulk_wait_read(int groups_left, Site site = here());

// ---- products of a warpgroup (wgmma.cpp): each warp computes its 16 lines of A ----

// d[n / 2] of this lane (=|+=) 16 lines of A times n of B. Late mode reads shared memory at the wait, early mode at
// issue; in both the accumulators are NaN until the wait.
void wgmma_bf16(float* d, unsigned long long a, unsigned long long b, int n, bool add, bool a_side, bool b_side,
                Site site = here());
void wgmma_fence(Site site = here());
void wgmma_commit(Site site = here());
void wgmma_wait(int groups_left, Site site = here());

}  // namespace emu
