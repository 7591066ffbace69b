// Numbers that the kernels and the host share.
#pragma once

// Threads of most kernels' blocks, their warps, and the elements of a block whose threads take four each.
constexpr int BLOCK_THREADS = 256;
constexpr int WARP_THREADS = 32;
constexpr int BLOCK_WARPS = BLOCK_THREADS / WARP_THREADS;
constexpr int BLOCK_ELEMENTS = 4 * BLOCK_THREADS;

// Side of the tiles that products on the fp32 pipes are cut into; rows and columns of those on tensor cores, and their
// columns where a GPU has the room and an operand the lines.
constexpr int TILE = 64;
constexpr int MMA_TILE = 128;
constexpr int MMA_WIDE = 256;

// Products on tensor cores: bytes of 128 lines' k-step in shared memory, and the ring of such steps of both operands, on
// every GPU and for wide tiles. A longer one would hide nothing more: to multiply the two stages ahead takes 1.6 us at an
// A100's most (4.2 MFLOP in bf16, half in tf32), and memory answers within one.
constexpr int MMA_OPERAND = 16384;
constexpr int MMA_STAGES = 3;
constexpr int MMA_SHARED_BYTES = MMA_STAGES * 2 * MMA_OPERAND;
constexpr int MMA_WIDE_SHARED_BYTES = MMA_STAGES * 3 * MMA_OPERAND;

// Hopper's products: threads of a block, of which those beyond the first warpgroup multiply, and images of a tile.
constexpr int WGMMA_THREADS = 384;
constexpr int WGMMA_CONSUMERS = WGMMA_THREADS - 128;
constexpr int WGMMA_IMAGES = 8;

// When what lies at y is added: never, to the sums, to the result.
constexpr int ADDED_NEVER = 0;
constexpr int ADDED_BEFORE_SCALE = 1;
constexpr int ADDED_AFTER_SCALE = 2;

// Images per partial sum of a weight's gradient: the unit in which sums over images are rounded, on every device.
constexpr int ROUNDED_IMAGES = 8;

// Elements that a thread draws random numbers for at a time.
constexpr int DRAWN_ELEMENTS = 8;

// The longest image whose distances fit the 31-bit sums of tensor cores, in bytes.
constexpr int NEAREST_MMA_LONGEST = 32768;

// Shared memory that a block may ask for: on every GPU that the kernels run on (those of sm_86, sm_89 and sm_120 have
// no more); on an A100 (sm_80); on an H100 (sm_90, sm_100 too).
constexpr int LEAST_SHARED_BYTES = 99 << 10;
constexpr int A100_SHARED_BYTES = 163 << 10;
constexpr int H100_SHARED_BYTES = 227 << 10;

// bad_step's value while every step was good.
constexpr u32 GOOD = 0xffffffff;
