// The fast build has no checker: what would tell it of memory accesses does nothing.
#include "async.h"

namespace emu {

const bool check_build = false;
void note_access(const void*, size_t, bool, bool, Site) {}
void thread_fence() {}
void check_in_flight(const void*, size_t, bool) {}
void check_memory(const void*, size_t, bool) {}
bool checker_report(std::string& error) {
    error.clear();
    return true;
}

void order_start() {}
void order_block() {}
void order_warp(unsigned) {}
void order_arrive(unsigned) {}
void order_arrive_warp(unsigned) {}
void order_phase(unsigned) {}
void order_wait(unsigned) {}
void order_wait_warp(unsigned, unsigned) {}
void order_fence() {}
uint32_t order_time() { return 0; }
bool order_knows(unsigned, uint32_t) { return true; }
void check_barrier(const void*, bool) {}
void check_load(const uint32_t*, size_t, Site) {}
void check_landed(const uint32_t*, size_t, unsigned, Site) {}
void check_store(const uint32_t*, size_t, Site) {}
void check_stored(const uint32_t*, size_t, Site) {}
void check_product(const uint32_t*, size_t, Site) {}
void check_multiplied(const uint32_t*, size_t, Site) {}
void check_outside(const char*, const EncodedMap&, Site) {}
void check_accumulators(unsigned, const float*, size_t, bool) {}

}  // namespace emu
