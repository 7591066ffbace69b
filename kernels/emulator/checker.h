// What the checker's parts share: checker.cpp (accesses of threads) and clocks.cpp (what asynchronous instructions access,
// and what their barriers order).
#pragma once
#include "async.h"
#include "memory.h"

namespace emu {

// Where an access stands: an offset of the instruction into this library, or a Site that was met before.
using Place = uint32_t;
const Place site_bit = 1u << 31;
Place place_of(Site site);

// ---- what is remembered of each four bytes of memory -----------------------------------------------------------

// The last writer and the readers. The masks say which of the four bytes they touched: where threads own parts of a
// word only the last part is remembered, so that there are no false reports.
struct Cell {
    uint32_t write_epoch, read_epoch;
    uint32_t first_read_epoch;  // since the bytes were last read by a thread that read others
    Place write_place, read_place;
    uint32_t argument_launch;  // the last launch that read the bytes `argument_read` through a pointer to const
    Place argument_place;
    uint32_t write_sync, read_sync;         // the warp's __syncwarp count
    uint32_t write_time, read_time;         // the thread's (clocks.cpp)
    uint16_t writer, reader, other_reader;  // the last reader, and the last that was another thread
    uint8_t live;                           // bytes of a live allocation
    uint8_t written, read;
    uint8_t argument_read;
    uint8_t initialized, in_flight;  // of shared memory: written in this block, awaited from a cp.async
    bool atomic, released;           // the last write was an atomic, of a block that had fenced its writes
    bool many_readers;               // of one warp since its last __syncwarp
    bool many_warps;                 // read since the barrier
    bool barrier;                    // part of an mbarrier
};

extern unsigned char *const arena, *const memory;
extern Cell *const shared_cells, *const device_cells;

// Calls `visit(cell, mask, address)` for every word that the bytes from `offset` on touch.
template <class F>
static inline void for_each_word(Cell* cells, const unsigned char* base, size_t offset, size_t bytes, F visit) {
    size_t end = offset + bytes;
    for (size_t word = offset & ~size_t(3); word < end; word += 4) {
        size_t low = word < offset ? offset - word : 0, high = end - word < 4 ? end - word : 4;
        visit(cells[word / 4], uint8_t((1 << high) - (1 << low)), base + word + low);
    }
}

// A linear thread, or with this bit the channel of a barrier whose copies wrote.
const uint16_t copy_bit = 0x8000;

void report(const char* what, const void* p, Place place);
void report(const char* what, const void* p, Place place, unsigned other, Place other_place);

struct Access {
    bool write, atomic;  // an atomic one reads and writes
    bool shared;         // else device memory
    bool argument;       // through an argument that is a pointer to const
    uint16_t thread;
    uint32_t warp_sync, time;
    Place place;
};

// ---- clocks.cpp ------------------------------------------------------------------------------------------------

// Each thread's own time, which grows with all that orders accesses.
extern uint32_t times[1024];
// Whether what `by` did at `time` comes before what `thread` does now, by barriers in memory, by number, and __syncwarp.
bool clocks_order(unsigned thread, unsigned by, uint32_t time);
// Whether the block has met an instruction whose order only clocks know.
extern bool clocks_run;
void clocks_read(const Access& a, size_t word, uint8_t bytes);
void clocks_write(const Access& a, size_t word, uint8_t bytes, const unsigned char* p);
// Of each 16 bytes of shared memory, the serial of the last block whose threads accessed them.
extern uint64_t* const touched;
// An access of a thread to shared memory, against asynchronous ones to the same 16 bytes.
void against_copies(const Access& a, size_t offset, size_t bytes);
bool is_accumulator(unsigned thread, const void* p);

}  // namespace emu
