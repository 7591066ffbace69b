// What the host bodies of prelude/prims.cuh call: the tensor-core and asynchronous-copy instructions of sm_80, and its
// approximations, as functions of one lane. Every function of a warp is a collective: all 32 lanes call it, the last one to arrive
// computes for the warp. The fragments are the PTX ISA's; `g` is lane / 4 and `t` is lane % 4 below.
//
// Pointers to fragments are ordinary registers of the lane (its locals). `Site` fills itself with the caller's
// file and line; pass it on from a wrapper:   inline void mma(..., emu::Site site = emu::here()).
#pragma once
#include "site.h"
#include <cstddef>
#include <cstdint>

namespace emu {

// mma.sync.m16n8k16.row.col.f32.bf16.bf16.f32:  d += a * b, on a block of m_tiles x n_tiles fragments
//   d[m_tiles][n_tiles][4]  c0,c1: row g, columns 2t,2t+1;  c2,c3: row g + 8
//   a[m_tiles][4]           a0: row g, k 2t,2t+1;  a1: row g + 8;  a2: row g, k + 8;  a3: row g + 8, k + 8
//   b[n_tiles][2]           b0: k 2t,2t+1 of column g;  b1: k + 8
// One call for a whole block costs one meeting of the warp instead of m_tiles * n_tiles. At most 8 x 16 tiles.
void mma_bf16(float* d, const uint32_t* a, const uint32_t* b, int m_tiles = 1, int n_tiles = 1, Site site = here());

// mma.sync.m16n8k8.row.col.f32.tf32.tf32.f32; the inputs are f32 bits of which the low 13 are ignored
//   a0: row g, k t;  a1: row g + 8;  a2: row g, k t + 4;  a3: row g + 8, k t + 4;  b0: k t of column g;  b1: k t + 4
void mma_tf32(float* d, const uint32_t* a, const uint32_t* b, int m_tiles = 1, int n_tiles = 1, Site site = here());

// mma.sync.m16n8k32.row.col.s32.{u8.u8 | s8.s8}.s32, wrapping; four bytes a register, the lowest k lowest
//   a0: row g, k 4t..4t+3;  a1: row g + 8;  a2: row g, k + 16;  a3: row g + 8, k + 16;  b0: k 4t..4t+3 of column g;
//   b1: k + 16
void mma_u8(int* d, const uint32_t* a, const uint32_t* b, int m_tiles = 1, int n_tiles = 1, Site site = here());
void mma_s8(int* d, const uint32_t* a, const uint32_t* b, int m_tiles = 1, int n_tiles = 1, Site site = here());

// ldmatrix.sync.aligned.m8n8.x{1,2,4}[.trans].shared.b16: `row` is this lane's row address (16 bytes, aligned);
// lanes 0-7 address matrix 0, 8-15 matrix 1 and so on. r[matrices].
void ldmatrix(uint32_t* r, const void* row, int matrices, bool transposed, Site site = here());

// cp.async.{ca,cg}.shared.global: `bytes` is 4, 8 or 16; the first `source_bytes` (0..bytes) come from `global`, the
// rest are zeros. Late mode moves the data when the group is waited for, early mode at once.
void cp_async(void* shared, const void* global, int bytes, int source_bytes, Site site = here());
void cp_async_commit();
void cp_async_wait(int groups_left);  // cp.async.wait_group groups_left; no memory order between threads

// ex2.approx.ftz.f32 and rcp.approx.ftz.f32. A GPU's results lie anywhere within the error that the PTX ISA allows:
// these lie at its end, above or below by a hash of the argument, so that what holds here holds on every GPU. What
// the ISA's tables of special values list is exact.
float ex2_approx(float x);
float rcp_approx(float x);

// cvt.rn.bf16x2.f32: `lo` in the lower half.
uint32_t cvt_bf16x2(float lo, float hi);

// The address of a shared location as a 32-bit shared-space pointer.
uint32_t shared_address(const void* p);

}  // namespace emu
